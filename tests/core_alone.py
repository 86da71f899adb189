"""What the package does without its extras. `test_extras.py` runs this here, and in an empty environment.

    python core_alone.py [modules that shall pass for not installed]

Prints, as JSON, which modules were imported and what those that need an extra say; without arguments also
what came of a probe, a fine-tuning and an audit, which takes longer.
"""

import builtins
import importlib
import importlib.abc
import json
import pkgutil
import sys

REFUSED = set(sys.argv[1:])
KEPT_BY_KERAS = {"rich", "tensorflow"}  # these it needs itself, here: they are refused to the package alone
given = builtins.__import__


def missing(name: str) -> ModuleNotFoundError:
    """Return what Python raises where a module is not installed."""
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


class Refusal(importlib.abc.MetaPathFinder):
    """Finds that a module is not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Look at a module before anybody else does."""
        if name.split(".")[0] in REFUSED - KEPT_BY_KERAS:
            raise missing(name)


def import_here(name: str, globals: dict | None = None, *rest: object, **named: object) -> object:
    """Import as Python does, but for what the package itself must not have."""
    importer = str((globals or {}).get("__name__"))
    if name.split(".")[0] in REFUSED & KEPT_BY_KERAS and importer.split(".")[0] == "tlhelpers":
        raise missing(name)
    return given(name, globals, *rest, **named)


sys.meta_path.insert(0, Refusal())
builtins.__import__ = import_here

import tlhelpers  # noqa: E402  # from here on the refusal holds

imported, said = [], {}
for module in pkgutil.walk_packages(tlhelpers.__path__, "tlhelpers."):
    try:
        importlib.import_module(module.name)
        imported.append(module.name)
    except ImportError as error:
        said[module.name] = str(error)

builtins.__import__ = given  # to compute, a backend that is there may be used

import numpy as np  # noqa: E402

from tiny import images, make_backbone  # noqa: E402
from tlhelpers import app, audit, backbones, data, features, finetune, heads, recipes  # noqa: E402

try:
    app.main()
except SystemExit as end:
    said["the command"] = str(end)

tiny, x = make_backbone(), images(5)
for engine in ("onnx", "openvino"):
    try:
        features.extract(tiny, x, engine=engine)
    except ImportError as error:
        said[f"engine={engine!r}"] = str(error)
auto, by_keras = (features.extract(tiny, x, engine=engine, cache=False) for engine in ("auto", "keras"))
found = {"imported": imported, "said": said, "features by Keras": bool(np.array_equal(auto, by_keras))}


def train() -> dict:
    """Return what comes of a probe, a fine-tuning and an audit on two classes that are easily told apart."""
    y = np.arange(48) % 2
    x = np.random.default_rng(0).integers(0, 128, (48, 64, 64, 3)) + 127 * y[:, None, None, None]
    x = x.astype(np.uint8)
    ds = data.Dataset(x[:32], y[:32], x[32:], y[32:], None, None, ("dark", "bright"), "noise")
    backbone = backbones.load("efficientnet_lite0", image_size=64)
    f_train, f_val = features.extract(backbone, ds.x_train), features.extract(backbone, ds.x_val)
    probe = heads.linear_probe(f_train, ds.y_train, f_val, ds.y_val)
    model = finetune.build_classifier(backbone, ds.n_classes, probe.to_keras())
    finetune.freeze(backbone)
    history = finetune.fine_tune(model, ds, recipes.Recipe(epochs=1, learning_rate=1e-3))
    return {
        "probe": float(np.mean(probe.predict(f_val) == ds.y_val)),
        "fine-tuning": history.history["val_accuracy"][-1],
        "audit": audit.check(model, ds).codes,
    }


print(json.dumps(found if REFUSED else found | train()))
