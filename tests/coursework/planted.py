"""Planted submissions: the solution with small edits, and the points that each must get."""

import copy
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Notebook = dict[str, Any]
Edit = Callable[[str], str]

REGION = re.compile(r"^ *### BEGIN SOLUTION\n(.*?)^ *### END SOLUTION\n?", re.S | re.M)
BROKEN = re.compile(r"^ *### BROKEN: .*\n", re.M)
NONE = -1.0  # in `lost`: all points of the item


@dataclass(frozen=True)
class Planted:
    """One planted submission.

    Attributes:
        lost: Item -> points that it loses; all others are full.
        edits: Item -> the edit of its solved cell.
        as_released: Items whose cell is left as it was released.
        reason: What the reason in the student's row must hold.
    """

    lost: dict[str, float] = field(default_factory=dict)
    edits: dict[str, Edit] = field(default_factory=dict)
    as_released: tuple[str, ...] = ()
    reason: str = ""


def replace(*pairs: tuple[str, str]) -> Edit:
    """Return an edit that replaces texts, each of which must occur once."""

    def edit(text: str) -> str:
        for old, new in pairs:
            assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in:\n{text}"
            text = text.replace(old, new)
        return text

    return edit


CONVOLUTIONS_ONLY = """\
for layer in base.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.trainable = False"""

REPAIR = {
    "perfect": Planted(),
    "empty": Planted(
        dict.fromkeys(("scaling", "logits", "rate", "freeze", "recompile", "choice"), NONE),
        as_released=("scaling", "logits", "rate", "freeze", "recompile", "choice"),
    ),
    "scaled-by-255": Planted({"scaling": 3}, as_released=("scaling",)),
    "softmax-twice": Planted({"logits": 3}, as_released=("logits",)),
    "base-not-frozen": Planted({"freeze": 4}, as_released=("freeze",)),
    "not-recompiled": Planted({"recompile": 4}, as_released=("recompile",)),
    "tuned-on-test": Planted({"choice": 3}, as_released=("choice",)),
    # Right in one part of each task but the first.
    "half-right": Planted(
        {"scaling": 3, "logits": 2, "rate": 2, "freeze": 2, "recompile": 2, "choice": 2},
        {
            "scaling": replace(("x = images", "x = images / 127.5 - 1")),
            "logits": replace(
                ("Dense(n_classes)", 'Dense(n_classes, activation="softmax")'),
                ("from_logits=True", "from_logits=False"),
            ),
            "rate": replace(("learning_rate=0.03", "learning_rate=0.000001")),
            "freeze": replace(("base.trainable = False", CONVOLUTIONS_ONLY)),
            "recompile": replace(("learning_rate=learning_rate", "learning_rate=0.1")),
            "choice": replace(('history["val_accuracy"]', 'history["accuracy"]')),
        },
    ),
    # Cells that do not run cost their own points and no others.
    "errors": Planted(
        {"logits": 3, "freeze": 4, "recompile": 4},
        {
            "logits": replace(("Dense(n_classes)(inputs)", "Dense(n_classes)(inputs")),
            "freeze": replace(("def build_phase_1", "def build_phase_one")),
            "recompile": replace(
                ("keras.optimizers.SGD(learning_rate=learning_rate, momentum=0.9)", "model.optimizer")
            ),
        },
    ),
}

CONCEPTS_ITEMS = ("roles", "kinds", "importance", "risk", "l2sp", "distances", "bound", "claims", "trends")
CONCEPTS = {
    "perfect": Planted(),
    "empty": Planted(dict.fromkeys(CONCEPTS_ITEMS, NONE), as_released=CONCEPTS_ITEMS),
    "sum-not-mean": Planted({"risk": 1}, {"risk": replace((".mean())", ".sum())"))}),
    "overflow": Planted(
        {"risk": 1}, {"risk": replace(("logits - logits.max(axis=1, keepdims=True)", "logits"))}
    ),
    "softmax-twice": Planted(
        {"risk": 3},
        {
            "risk": replace(
                (
                    "shifted = logits - ",
                    "logits = np.exp(logits) / np.exp(logits).sum(axis=1)[:, None]\n    shifted = logits - ",
                )
            )
        },
    ),
    "off-by-one": Planted({"risk": 3}, {"risk": replace(("labels].mean", "labels - 1].mean"))}),
    "weights-upside-down": Planted(
        {"importance": 3},
        {
            "importance": replace(
                ("np.asarray(p_target) / np.asarray(p_source)", "np.asarray(p_source) / np.asarray(p_target)")
            )
        },
    ),
    "decay-to-zero": Planted(
        {"l2sp": 3},
        {
            "l2sp": replace(
                ("A @ w_hat + alpha * w_start)", "A @ w_hat)"),
                ("(curvature * w_hat + alpha * w_start)", "curvature * w_hat"),
            )
        },
    ),
    "wrong-denominators": Planted(
        {"distances": 3},
        {"distances": replace(("(2 * bandwidth**2)", "bandwidth**2"), ("(4 * d**2)", "d**2"))},
    ),
    "task-is-model": Planted(
        {"roles": 0.4}, {"roles": replace(('"source task": "a"', '"source task": "f"'))}
    ),
    "reversal-forgotten": Planted(
        {"bound": 1}, {"bound": replace(("g_task - strength", "g_task + strength"))}
    ),
    "mixed-up": Planted(
        {"kinds": 0.5, "claims": 1.34, "trends": 2.33},
        {
            "kinds": replace(
                ('"flowers": "features"', '"flowers": "parameters"'),
                ('"moths": "inductive"', '"moths": "transductive"'),
            ),
            "claims": replace(
                ('"complex": "depends"', '"complex": "true"'),
                ('"general": "true"', '"general": "false"'),
                ('"condition": "labels"', '"condition": "version"'),
                ('"vague": "no"', '"vague": "yes"'),
            ),
            "trends": replace(
                ('"quarter": "quantization"', '"quarter": "pruning"'),
                ("target_from_scratch - target_with_source", "target_with_source - target_from_scratch"),
            ),
        },
    ),
}

FEATURES_ITEMS = ("extract", "probe", "leak", "fair", "interval", "curve", "augment", "depths")
FEATURES = {
    "perfect": Planted(),
    "empty": Planted(dict.fromkeys(FEATURES_ITEMS, NONE), as_released=FEATURES_ITEMS),
    "training-mode": Planted({"extract": 2}, {"extract": replace(("training=False", "training=True"))}),
    "untrained-layer": Planted(
        {"extract": NONE},
        {
            "extract": replace(
                (
                    "model.get_layer(layer_name).output",
                    "keras.layers.Dense(4)(model.get_layer(layer_name).output)",
                )
            )
        },
    ),
    "scaled-with-validation": Planted(
        {"probe": NONE},
        {
            "probe": replace(
                (
                    "pipeline.fit(f_train, y_train)",
                    "pipeline.fit(f_train, y_train)\n        pipeline[0].fit(np.vstack([f_train, f_val]))",
                )
            )
        },
    ),
    "chosen-on-training": Planted(
        {"probe": 2},
        {"probe": replace(("pipeline.predict(f_val) == y_val", "pipeline.predict(f_train) == y_train"))},
    ),
    "largest-of-equals": Planted(
        {"probe": 1}, {"probe": replace(("score > best_score", "score >= best_score"))}
    ),
    "tuned-on-test": Planted(
        {"fair": 2}, {"fair": replace(("predict(x_val) == y_val", "predict(x_test) == y_test"))}
    ),
    "leak-counts-as-right": Planted(
        {"leak": 2},
        {"leak": replace(("predicted[clean] == y_test[clean]", "(predicted == y_test) | ~clean"))},
    ),
    "small-slips": Planted(
        {"interval": 3, "curve": 3, "augment": 3, "depths": 2},
        {
            "interval": replace(
                ("(1 + z**2 / n), (middle", "1.0, (middle"), ("predicted != labels", "predicted == labels")
            ),
            "curve": replace(
                ("f_train[:n], y_train[:n]", "f_train[-n:], y_train[-n:]"), ("* 100 * value", "* value")
            ),
            "augment": replace(
                ("x_train[:, :, ::-1]", "x_train[:, ::-1]"), ("extract(x_val)", "extract(x_val[:, :, ::-1])")
            ),
            "depths": replace(("o.mean(axis=(1, 2))", "o.max(axis=(1, 2))")),
        },
    ),
}

FINETUNE_ITEMS = ("partly", "schedule", "rates", "faults", "budget")
UNFROZEN = """\
inputs = keras.Input(base.input_shape[1:])
    model = keras.Model(inputs, keras.layers.Dense(n_classes)(base(inputs)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(learning_rate=0.01, momentum=0.9), loss)
    model.fit(x_train, y_train, batch_size=20, epochs=60, verbose=0)
    return lambda images: np.asarray(model(images, training=False))
    base.trainable = False"""
FINETUNE = {
    "perfect": Planted(),
    "empty": Planted(dict.fromkeys(FINETUNE_ITEMS, NONE), as_released=FINETUNE_ITEMS),
    "batchnorm-free": Planted(
        {"partly": 2},
        {"partly": replace((" and not isinstance(layer, keras.layers.BatchNormalization)", ""))},
    ),
    "base-not-frozen": Planted({"partly": 3}, {"partly": replace(("i > last", "i >= 0"))}),
    "named-layer-free": Planted({"partly": 2}, {"partly": replace(("i > last", "i >= last"))}),
    "tensors-for-numbers": Planted(
        {"partly": 1},
        {
            "partly": replace(
                ("int(sum(np.prod(w.shape) for w in base.trainable_weights))", "len(base.trainable_weights)")
            )
        },
    ),
    "no-warm-up": Planted({"schedule": 1}, {"schedule": replace(("step < warmup", "step < 0"))}),
    "rates-upside-down": Planted(
        {"rates": 3},
        {
            "rates": replace(
                ("enumerate(reversed(blocks))", "enumerate(blocks)"),
                ('"Adam": "the same"', '"Adam": "a tenth"'),
            )
        },
    ),
    "not-recompiled-unseen": Planted(
        {"faults": 2.33},
        {"faults": replace(('return "not recompiled"', 'return "none"'), ("-cost[name])", "cost[name])"))},
    ),
    "over-budget": Planted({"budget": 4}, {"budget": replace(("base.trainable = False", UNFROZEN))}),
    "past-the-counter": Planted(
        {"budget": 4},
        {
            "budget": replace(
                ("base.trainable = False", "base(x_train[:1])\n    base = new_base()"),
                ("base.trainable = True", "base.trainable = False"),
            )
        },
    ),
    "off-by-one-class": Planted(
        {"budget": 4},
        {
            "budget": replace(
                (
                    "return lambda images: np.asarray(model(images, training=False))",
                    "return lambda images: np.roll(np.asarray(model(images, training=False)), 1, axis=1)",
                )
            )
        },
    ),
}

TUNING_ITEMS = ("objective", "folds", "paired", "errors", "calibration")
TUNING = {
    "perfect": Planted(),
    "empty": Planted(dict.fromkeys(TUNING_ITEMS, NONE), as_released=TUNING_ITEMS),
    "linear-scale": Planted({"objective": 2}, {"objective": replace((", log=True", ""))}),
    "error-for-accuracy": Planted({"objective": 2}, {"objective": replace(("== y_val", "!= y_val"))}),
    "twins-apart": Planted(
        {"folds": 2}, {"folds": replace(("import GroupKFold", "import KFold"), ("GroupKFold(k)", "KFold(k)"))}
    ),
    "training-scores": Planted(
        {"folds": 4},
        {
            "folds": replace(
                ("predict(f[held_out]) == y[held_out]", "predict(f[train_rows]) == y[train_rows]")
            )
        },
    ),
    "unpaired": Planted(
        {"paired": 3},
        {
            "paired": replace(
                (
                    "difference[rows].mean(axis=1), [2.5, 97.5]",
                    "right_b[rows].mean(axis=1) - right_a[rows[::-1]].mean(axis=1), [2.5, 97.5]",
                )
            )
        },
    ),
    "luck-of-the-best-test": Planted(
        {"paired": 2}, {"paired": replace(("np.argmax(val_accuracies)", "np.argmax(test_accuracies)"))}
    ),
    "wrong-sign": Planted(
        {"paired": 3},
        {"paired": replace(("right_b.astype(float) - right_a", "right_a.astype(float) - right_b"))},
    ),
    "absent-class-left-out": Planted(
        {"errors": 2},
        {"errors": replace(("return matrix", "n = labels.max() + 1\n    return matrix[:n, :n]"))},
    ),
    "transposed": Planted(
        {"errors": 2}, {"errors": replace(("(labels, predicted), 1", "(predicted, labels), 1"))}
    ),
    "temperature-multiplied": Planted(
        {"calibration": 6},
        {"calibration": replace(("val_logits / t", "val_logits * t"), ("inside.mean() * abs", "abs"))},
    ),
}

SOURCE_ITEMS = ("rank", "leep", "pareto", "harm", "choose")
SOURCE = {
    "perfect": Planted(),
    "empty": Planted(dict.fromkeys(SOURCE_ITEMS, NONE), as_released=SOURCE_ITEMS),
    "values-for-ranks": Planted(
        {"rank": 2},
        {
            "rank": replace(
                ("rankdata(scores), rankdata(accuracies)", "np.array(scores), np.array(accuracies)")
            )
        },
    ),
    "rows-for-columns": Planted(
        {"leep": 4}, {"leep": replace(("joint.sum(axis=0)", "joint.sum(axis=1)[:, None]"))}
    ),
    "slowest-first": Planted({"pareto": 1}, {"pareto": replace(('row["seconds"])]', '-row["seconds"])]'))}),
    "most-accurate-only": Planted(
        {"pareto": 3},
        {"pareto": replace(("not any(beats(other, row) for other in rows)", 'row["accuracy"] > 0.9'))},
    ),
    "mean-is-verdict": Planted({"harm": 2}, {"harm": replace(("abs(mean) <= half", "abs(mean) == 0"))}),
    "unpaired": Planted(
        {"harm": 2},
        {
            "harm": replace(
                ("gain.std(ddof=1)", "np.hypot(np.std(with_source, ddof=1), np.std(without, ddof=1))")
            )
        },
    ),
    "all-sizes": Planted({"choose": 3}, {"choose": replace((' if row["n"] == n', ""))}),
    "no-tolerance": Planted({"choose": 2}, {"choose": replace(("<= tolerance", "<= 0"))}),
}

SUBMISSIONS = {
    "repair": REPAIR,
    "concepts": CONCEPTS,
    "features": FEATURES,
    "finetune": FINETUNE,
    "tuning": TUNING,
    "source": SOURCE,
}


def cells_by_id(notebook: Notebook) -> dict[str, dict[str, Any]]:
    """Return the cells of a notebook under their nbgrader ids."""
    return {cell["metadata"]["nbgrader"]["grade_id"]: cell for cell in notebook["cells"]}


def text_of(cell: dict[str, Any]) -> str:
    """Return the text of a cell."""
    return "".join(cell["source"])


def solution(text: str) -> str:
    """Return the text of a cell as a perfect student leaves it."""
    return REGION.sub(lambda match: BROKEN.sub("", match[1]), text)


def solved(source: Notebook, released: Notebook) -> Notebook:
    """Return the released notebook with the solutions in it, as a perfect student hands it in."""
    notebook = copy.deepcopy(released)
    solutions = cells_by_id(source)
    for name, cell in cells_by_id(notebook).items():
        if cell["metadata"]["nbgrader"].get("solution"):
            cell["source"] = solution(text_of(solutions[name]))
    return notebook


def plant(name: str, source: Notebook, released: Notebook, folder: Path) -> None:
    """Write all planted submissions of an assignment, one folder each."""
    broken = cells_by_id(released)
    for student, planted in SUBMISSIONS[name].items():
        notebook = solved(source, released)
        cells = cells_by_id(notebook)
        for item in planted.as_released:
            cells[item]["source"] = text_of(broken[item])
        for item, edit in planted.edits.items():
            cells[item]["source"] = edit(text_of(cells[item]))
        (folder / student).mkdir(parents=True)
        (folder / student / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
