"""Model files that say what they are: class names, preprocessing, version and date travel inside."""

import json
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tlhelpers
from tlhelpers.extras import extra

__all__ = ["About", "describe", "export", "read"]

FORMAT = 1  # raise it when older versions would read a file wrongly
_KEY = "tlhelpers"
_MEMBER = "tlhelpers.json"  # of a .keras file, which is a zip file

_MADE_BY = "`tlhelpers run` writes model.keras and model.onnx."

Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class About:
    """What a model file says of itself.

    Attributes:
        class_names: In the order of the probabilities.
        image_size: Side of the input in pixels.
        white: What counts as white in pictures of 16 bits, at least; None leaves it to each picture.
        unsure_below: Probability below which an answer is called unsure.
        backbone: Name of the pretrained network.
        accuracy: On the images of the report, 0..1.
        made: Day, as in 2026-01-31.
        version: Of this package.
        preprocessing: How a file becomes the input, in words.
        format: Of this description.
    """

    class_names: tuple[str, ...]
    image_size: int
    white: int | None
    unsure_below: float
    backbone: str
    accuracy: float | None = None
    made: str = ""
    version: str = tlhelpers.__version__
    preprocessing: str = (
        "RGB, 0 to 255, rotation marks applied, transparency on white; the short side resized to image_size "
        "(bicubic, antialiased), the centre square kept"
    )
    format: int = FORMAT


def describe(path: Path, about: About) -> None:
    """Writes a description into a finished .keras or .onnx file, in place of an earlier one."""
    text = json.dumps(asdict(about), ensure_ascii=False)
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            content = {m: archive.read(m) for m in archive.infolist() if m.filename != _MEMBER}
        with zipfile.ZipFile(path, "w") as archive:
            for member, data in content.items():
                archive.writestr(member, data)
            archive.writestr(_MEMBER, text)
        return
    with extra("onnx"):
        import onnx
    model = onnx.load(path)
    kept = {p.key: p.value for p in model.metadata_props}
    onnx.helper.set_model_props(model, kept | {_KEY: text})
    onnx.save(model, path)


def export(model: Any, path: Path, format: str) -> None:
    """Writes a Keras model as another format; the converters warn about names that they themselves use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.export(str(path), format=format, verbose=False)


def session(path: Path) -> tuple[Predict, dict[str, str]]:
    """The function of an ONNX file, from images to probabilities, and its metadata."""
    with extra("onnx"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    found = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = found.get_inputs()[0].name
    return (
        lambda images: found.run(None, {name: images.astype(np.float32)})[0],
        found.get_modelmeta().custom_metadata_map,
    )


def read(path: Path) -> tuple[Predict, About]:
    """Returns the function of a model file, from images (n, s, s, 3) to probabilities, and what it says.

    Raises:
        ValueError: It is no model file of `tlhelpers run`, or one of a later version.
        OSError: It cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file {path}. {_MADE_BY}")
    if path.suffix.lower() == ".onnx":
        try:
            predict, metadata = session(path)
        except ImportError:
            raise
        except Exception as error:  # ONNX Runtime has errors of its own
            raise ValueError(f"{path} cannot be read as an ONNX file: {str(error)[:200]}") from error
        return predict, _about(metadata.get(_KEY), path)
    if path.suffix.lower() != ".keras" or not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no model file. {_MADE_BY}")
    with zipfile.ZipFile(path) as archive:
        text = archive.read(_MEMBER).decode() if _MEMBER in archive.namelist() else None
    about = _about(text, path)
    import keras

    model = keras.models.load_model(path, compile=False)
    return lambda x: np.asarray(keras.ops.convert_to_numpy(model(x, training=False))), about


def _about(text: str | None, path: Path) -> About:
    if text is None:
        raise ValueError(
            f"{path} does not say which classes it names: it comes from elsewhere, or from an early version "
            "of tlhelpers. Make it again with `tlhelpers run`."
        )
    try:
        found = json.loads(text)
        version = found.get("version", "an unknown version")
        if found["format"] > FORMAT:
            raise ValueError(
                f"{path} was made by tlhelpers {version}, which writes more than this version ("
                f"{tlhelpers.__version__}) understands. Run: pip install -U tlhelpers"
            )
        known = {name: found[name] for name in About.__dataclass_fields__ if name in found}
        return About(**known | {"class_names": tuple(found["class_names"])})
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"What {path} says of itself is damaged ({error}). Make it again.") from error


def convert(path: Path, format: str, out: Path | None) -> Path:
    """Writes a .keras file of `tlhelpers run` in another format, and a .json beside it that says what it is.

    Args:
        path: Of the model.
        format: As `keras.Model.export` takes it.
        out: Where to write; None puts it beside the model.

    Returns:
        What was written.

    Raises:
        ValueError: It is no such model, or Keras cannot write the format here; the message says why.
    """
    if path.suffix.lower() != ".keras":
        raise ValueError(f"{path} is no .keras file, which is what Keras exports from.")
    _, about = read(path)
    import keras

    suffix = {"litert": ".tflite", "onnx": ".onnx", "openvino": ".xml"}.get(format, f"_{format}")
    target = out or path.with_name(path.stem + suffix)
    if target.exists():
        raise FileExistsError(f"{target} exists. Choose another name with --out.")
    try:
        export(keras.models.load_model(path, compile=False), target, format)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # converters fail in many ways, and leave a part of the file
        if target.is_file():
            target.unlink()
        why = f"{type(error).__name__}: {str(error)[:300]}"
        raise ValueError(f"Keras {keras.__version__} could not write {format} here: {why}") from error
    if format == "onnx":
        describe(target, about)
    else:
        text = json.dumps(asdict(about), ensure_ascii=False, indent=1)
        target.with_name(target.name + ".json").write_text(text, encoding="utf-8")
    return target
