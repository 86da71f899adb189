"""One folder of images in, a report and a model out: what `tlhelpers run` does."""

import datetime
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tlhelpers import backbones, data, features, finetune, heads, recipes
from tlhelpers.backbones import Backbone
from tlhelpers.data import folder_check
from tlhelpers.data.folder_check import FolderCheck
from tlhelpers.evaluation import calibration
from tlhelpers.extras import extra

with extra("app"):
    from tlhelpers.app import report
    from tlhelpers.app._staging import recover
    from tlhelpers.app._staging import staged as staging
    from tlhelpers.app.report import Candidate, Outcome

__all__ = ["from_folder", "temperature"]

# Takes a title and the number of rounds, if it is known. Returns a context manager, which gives what is to be
# called with the number of rounds done.
Step = Callable[[str, int | None], Any]

RECIPE = recipes.Recipe(epochs=4, learning_rate=3e-4)
MAX_TUNED = 1920  # training images of fine-tuning: more would take more than minutes
COMPARED = 32  # images on which the exported models are compared with the trained one
PIECE = 512  # images whose features are computed between two signs of progress
TOLERANCE = 1e-3  # of a probability


@contextmanager
def _silent(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


def from_folder(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    image_size: int = 224,
    seed: int = 0,
    epochs: int = RECIPE.epochs,
    mirror: bool = True,
    overwrite: bool = False,
    backbone: Backbone | None = None,
    border: str = "block5",
    step: Step = _silent,
) -> Outcome:
    """Makes a classifier of a folder of images, measures it, and writes a report and the model.

    Two linear probes are trained, on the features of the last layer and on those of several depths. Then the
    blocks above ``border`` are fine-tuned on a cached frozen trunk. The validation images choose between the
    three; where two are equal, the simpler one is kept. They also set the temperature of the probabilities
    (Guo et al., 2017). The test images are used once, at the end, with the exported model.

    Args:
        folder: One folder a class, or train/, val/, test/ with class folders inside; see `folder_check.load`.
        out: A folder for ``report.html``, ``model.keras``, ``model.onnx`` and ``classes.txt``. Or a name that
            ends in ``.html``: then the other files lie beside it, under the same name. They appear
            when everything is done, the folder in one step.
        image_size: Side in pixels at which the backbone sees an image.
        seed: Of the split and of the training.
        epochs: Epochs of fine-tuning; 0 leaves it out.
        mirror: Whether a mirrored image is a valid image. It is not for letters, digits or road signs.
        overwrite: Whether to replace the files of an earlier report.
        backbone: ``None`` takes EfficientNet-Lite0 with the weights of ImageNet; of another one its own image
            size counts.
        border: Beginning of a layer's name: this layer and what is below it stay frozen in fine-tuning.
        step: Shows progress, see `Step`.

    Returns:
        What the report shows.

    Raises:
        DataError: The folder cannot be used; the message says what to do.
        OSError: ``out`` exists, or cannot be written.
    """
    started = time.perf_counter()
    recover(Path(out).expanduser())
    files = _files(Path(out).expanduser(), Path(folder).expanduser(), overwrite)
    with staging(files, Path(out).expanduser()) as staged:
        with step("Looking through the images", None) as update:
            size = backbone.image_size if backbone else image_size
            ds, check = folder_check.load(folder, size, seed, lambda done, total: update(done))
        outcome, model = _train(ds, check, image_size, seed, epochs, mirror, backbone, border, step)
        outcome = _tested(outcome, model, ds, staged, step)
        with step("Writing the report", None):
            sizes = {files[k].name: staged[k].stat().st_size for k in staged if staged[k].is_file()}
            outcome = replace(outcome, sizes=sizes, seconds=time.perf_counter() - started)
            staged["report"].write_text(report.html(outcome, ds.x_test), encoding="utf-8")
    return outcome


def _train(
    ds: data.Dataset,
    check: FolderCheck,
    image_size: int,
    seed: int,
    epochs: int,
    mirror: bool,
    backbone: Backbone | None,
    border: str,
    step: Step,
) -> tuple[Outcome, keras.Model]:
    """Trains the candidates and returns the one that is best on the validation images."""
    keras.utils.set_random_seed(seed)
    clock = time.perf_counter()
    n_images = len(ds.y_train) + len(ds.y_val)
    with step("Computing features", n_images) as update:
        backbone = backbone or backbones.load("efficientnet_lite0", image_size=image_size)
        f_train = _features(backbone, ds.x_train, update)
        f_val = _features(backbone, ds.x_val, lambda done: update(len(ds.y_train) + done))
    with step("Training linear probes", None):
        # The last layer is the last of the taps.
        last = slice(f_train.shape[1] - backbone.n_features, None)
        probe = heads.linear_probe(f_train[:, last], ds.y_train, f_val[:, last], ds.y_val)
        depths = heads.linear_probe(f_train, ds.y_train, f_val, ds.y_val)
    seconds = time.perf_counter() - clock
    found = [
        (_candidate("linear probe", probe.predict(f_val[:, last]), ds, seconds), probe, f_val[:, last]),
        (_candidate("several depths", depths.predict(f_val), ds, seconds), depths, f_val),
    ]
    best, head, f = max(found, key=lambda entry: entry[0].val_accuracy)  # of equals, the first
    logits = np.asarray(head.to_keras()(np.asarray(f)))
    if best.name == "several depths":
        listening = replace(backbone, model=features.tapped(backbone, features.multi_taps(backbone), True))
        model = finetune.build_classifier(listening, ds.n_classes, head.to_keras())
    else:
        model = finetune.build_classifier(backbone, ds.n_classes, head.to_keras())
    candidates = [entry[0] for entry in found]
    if epochs:
        clock = time.perf_counter()
        with step(f"Fine-tuning above {border}", epochs) as update:
            tuned, tuned_logits = _tuned(ds, backbone, probe, epochs, mirror, border, update)
        predicted = tuned_logits.argmax(axis=1)
        candidates.append(_candidate("fine-tuning", predicted, ds, time.perf_counter() - clock))
        if candidates[-1].val_accuracy > best.val_accuracy:
            best, model, logits = candidates[-1], tuned, tuned_logits
    outcome = Outcome(
        check=check,
        class_names=ds.class_names,
        candidates=tuple(candidates),
        chosen=best.name,
        temperature=temperature(ds.y_val, logits),
        n_val=len(ds.y_val),
        n_tuned=min(len(ds.y_train), MAX_TUNED) if epochs else 0,
        backbone=backbone.name,
        image_size=backbone.image_size,
        seed=seed,
        date=datetime.date.today().isoformat(),
    )
    return outcome, model


def _candidate(name: str, predicted: np.ndarray, ds: data.Dataset, seconds: float) -> Candidate:
    return Candidate(name, float(np.mean(predicted == ds.y_val)), seconds)


def _features(
    backbone: Backbone, x: np.ndarray | data.ImageSequence, update: Callable[[int], None]
) -> np.ndarray:
    found = []
    for start in range(0, len(x), PIECE):
        found.append(features.extract(backbone, x[start : start + PIECE], taps="multi"))
        update(min(start + PIECE, len(x)))
    return np.concatenate(found)


def _tuned(
    ds: data.Dataset,
    backbone: Backbone,
    probe: heads.LinearProbe,
    epochs: int,
    mirror: bool,
    border: str,
    update: Callable[[int], None],
) -> tuple[keras.Model, np.ndarray]:
    """Fine-tunes a copy of the backbone under the probe's head; returns it, and its validation logits."""
    network = keras.models.clone_model(backbone.model)
    network.set_weights(backbone.model.get_weights())
    copy = replace(backbone, model=network)
    flip = keras.layers.RandomFlip("horizontal") if mirror else None
    model = finetune.build_classifier(copy, ds.n_classes, probe.to_keras(), dropout=0.2, augmentation=flip)
    finetune.freeze(copy, up_to=border)
    if len(ds.y_train) > MAX_TUNED:  # stratified, as each beginning of the training images is
        ds = replace(ds, x_train=ds.x_train[:MAX_TUNED], y_train=ds.y_train[:MAX_TUNED])
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: update(epoch + 1))
    finetune.fine_tune(model, ds, replace(RECIPE, epochs=epochs), cache=True, callbacks=[watch])
    return model, _in_batches(lambda x: _outputs(model, data.resize(x, backbone.image_size)), ds.x_val)


def temperature(y: np.ndarray, logits: np.ndarray) -> float:
    """Returns what `calibration.fit_temperature` finds; 1 where it finds that none is the best.

    Args:
        y: Labels of validation images ``(n,)``.
        logits: Their logits ``(n, k)``.
    """
    try:
        return calibration.fit_temperature(y, logits)
    except ValueError:  # such as all predictions right, or one class
        return 1.0


def _tested(
    outcome: Outcome, model: keras.Model, ds: data.Dataset, staged: dict[str, Path], step: Step
) -> Outcome:
    """Exports the model, and looks at the test images with what was exported."""
    with step("Exporting the model", None):
        predict, export = _export(model, outcome.temperature, ds, staged)
        staged["classes"].write_text("\n".join(ds.class_names) + "\n", encoding="utf-8")
    with step(f"Testing on {len(ds.y_test):,} images", len(ds.y_test)) as update:
        probabilities = _in_batches(predict, ds.x_test, update)
    return replace(outcome, y_test=ds.y_test, probabilities=probabilities, export=export)


def _export(
    model: keras.Model, temperature: float, ds: data.Dataset, staged: dict[str, Path]
) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """Writes both files and compares them with the model.

    Returns:
        The function from images to probabilities that is in the ONNX file, or in the Keras file where there
        is no ONNX file; and what was checked, in words.
    """
    inner = finetune.for_inference(model)
    x = keras.layers.Rescaling(1 / temperature, name="temperature")(inner.output)
    final = keras.Model(inner.input, keras.layers.Softmax(name="probability")(x), name="classifier")
    images = np.asarray(ds.x_val[:COMPARED])
    expected = _outputs(final, images)
    final.save(staged["keras"])
    again = keras.models.load_model(staged["keras"])
    difference = float(np.abs(_outputs(again, images) - expected).max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"The saved Keras model differs from the trained one by {difference:.1e}.")
    checked = (
        f"On {len(images)} validation images the probabilities of {staged['keras'].name} differ from those "
        f"of the trained model by at most {difference:.0g}"
    )
    try:
        with warnings.catch_warnings():  # the converter asks numpy for a name that it deprecates
            warnings.simplefilter("ignore", FutureWarning)
            final.export(str(staged["onnx"]), format="onnx", verbose=False)
        predict = _session(staged["onnx"])
        difference = float(np.abs(predict(images) - expected).max())
        if not difference <= TOLERANCE:
            raise RuntimeError(f"its probabilities differ from Keras' by {difference:.1e}")
    except (OSError, MemoryError):  # of this machine at this moment, not of the network
        raise
    except Exception as error:  # converters fail in many ways
        staged["onnx"].unlink(missing_ok=True)
        why = f"{type(error).__name__}: {error}"[:300]
        return lambda x: _outputs(again, x), f"{checked}. There is no ONNX file ({why})."
    return predict, f"{checked}, those of {staged['onnx'].name} by at most {difference:.0g}."


def _outputs(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Calls a model on few images, without the graph that ``predict`` would build for it."""
    return np.asarray(keras.ops.convert_to_numpy(model(x, training=False)))


def _session(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images.astype(np.float32)})[0]


def _in_batches(
    predict: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray | data.ImageSequence,
    update: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    found = []
    for start in range(0, len(x), COMPARED):
        found.append(predict(np.asarray(x[start : start + COMPARED])))
        update(min(start + COMPARED, len(x)))
    return np.concatenate(found)


def _files(out: Path, folder: Path, overwrite: bool) -> dict[str, Path]:
    """Returns where each file belongs, once nothing stands in the way.

    Raises:
        OSError: A file of the report exists, or it would lie among the images.
    """
    if out.suffix.lower() == ".html":
        files = {"report": out, "keras": out.with_suffix(".keras"), "onnx": out.with_suffix(".onnx")}
        files["classes"] = out.with_suffix(".classes.txt")
        taken = [path for path in files.values() if path.exists()]
    else:
        names = {
            "report": "report.html",
            "keras": "model.keras",
            "onnx": "model.onnx",
            "classes": "classes.txt",
        }
        files = {key: out / name for key, name in names.items()}
        taken = [out] if out.exists() and not (out.is_dir() and not any(out.iterdir())) else []
        if out.exists() and not out.is_dir():
            raise FileExistsError(
                f"{out} is a file. --out names a folder to be made, or a file that ends in .html."
            )
    inside = out.resolve().parent
    if folder.is_dir() and folder.resolve() in (out.resolve(), inside, *inside.parents):
        raise OSError(f"{out} lies among the images of {folder}. Choose another place for the report.")
    if taken and not overwrite:
        raise FileExistsError(f"{taken[0]} exists. Choose another name, or say --overwrite.")
    return files
