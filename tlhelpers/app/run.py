"""One folder of images in, a report and a model out: what `tlhelpers run` does."""

import datetime
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from tlhelpers import backbones, data, decision, finetune, staging
from tlhelpers.backbones import Backbone
from tlhelpers.data import folder_check
from tlhelpers.data.folder_check import FolderCheck
from tlhelpers.evaluation import calibration
from tlhelpers.extras import extra

with extra("app"):
    from tlhelpers.app import methods, model_file, predict, report
    from tlhelpers.app.methods import Fitted, Settings, Step
    from tlhelpers.app.model_file import About, Predict
    from tlhelpers.app.verdict import Outcome

__all__ = ["from_folder", "temperature"]

COMPARED = 32  # images on which the exported models are compared with the trained one
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
    epochs: int | None = None,
    mirror: bool = True,
    overwrite: bool = False,
    backbone: Backbone | None = None,
    border: str = decision.BORDER,
    seconds: float = math.inf,
    layout: data.Layout | None = None,
    copies: str = "group",
    group: str | None = None,
    step: Step = _silent,
) -> Outcome:
    """Makes a classifier of a folder of images, measures it, and writes a report and the model.

    With 30 images in each class or more, linear probes are trained on the features of the last layer and on
    those of several depths, and the blocks above ``border`` are fine-tuned on a cached frozen trunk. The
    validation images choose between the three; of equals, the simpler one is kept. With fewer, a probe is
    cross-validated and then trained on all. What chose also sets the temperature of the probabilities (Guo
    et al., 2017). Test images are used once, at the end, with the exported model.

    Args:
        folder: One folder a class, or train/, val/, test/ with class folders inside; see `folder_check.load`.
        out: A folder for ``report.html``, ``model.keras``, ``model.onnx`` and ``classes.txt``. Or a name that
            ends in ``.html``: then the other files lie beside it, under the same name. They appear
            when everything is done, the folder in one step. Images of a test folder without classes are named
            in ``predictions.csv``.
        image_size: Side in pixels at which the backbone sees an image.
        seed: Of the split and of the training.
        epochs: Epochs of fine-tuning; 0 leaves it out, ``None`` takes more of them the fewer the images are.
        mirror: Whether a mirrored image is a valid image. It is not for letters, digits or road signs.
        overwrite: Whether to replace the files of an earlier report.
        backbone: ``None`` takes EfficientNet-Lite0 with the weights of ImageNet; of another one its own image
            size counts.
        border: Beginning of a layer's name: this layer and what is below it stay frozen in fine-tuning.
        seconds: Budget: fine-tuning takes no more epochs and images than fit into it, or is left out.
        layout: How the folder is to be read, where the names in it leave that open.
        copies: What is done about pictures that look alike, see `folder_check.load`.
        group: What belongs together on one side of the split, see `folder_check.load`.
        step: Shows progress, see `methods.Step`.

    Returns:
        What the report shows.

    Raises:
        DataError: The folder cannot be used; the message says what to do.
        OSError: ``out`` exists, or cannot be written.
    """
    started = time.perf_counter()
    staging.recover(Path(out).expanduser())
    files = _files(Path(out).expanduser(), Path(folder).expanduser(), overwrite)
    with staging.staged(files, Path(out).expanduser()) as staged:
        with step("Looking through the images", None) as update:
            size = backbone.image_size if backbone else image_size
            ds, check = folder_check.load(
                folder,
                size,
                seed,
                lambda done, total: update(done),
                layout=layout,
                copies=copies,
                group=group,
            )
        keras.utils.set_random_seed(seed)
        backbone = backbone or backbones.load("efficientnet_lite0", image_size=image_size)
        settings = Settings(backbone, seed, epochs, mirror, border, started + seconds, step)
        ds, check, fitted, outcome = _train(ds, check, settings)
        outcome, predict_one = _tested(outcome, fitted, ds, staged, step)
        if check.unlabelled:
            with step(f"Naming {len(check.unlabelled):,} images without labels", None):
                about = _about(outcome)
                found = predict.named([Path(folder).expanduser()], predict_one, about, only=check.unlabelled)
                predict.write_csv(found, about, staged["predictions"])
        with step("Writing the report", None):
            sizes = {files[k].name: staged[k].stat().st_size for k in staged if staged[k].is_file()}
            outcome = replace(outcome, sizes=sizes, seconds=time.perf_counter() - started)
            page = report.html(outcome, ds.x_test, ds.x_train)
            staged["report"].write_text(page, encoding="utf-8")
    return outcome


def _train(
    ds: data.Dataset, check: FolderCheck, s: Settings
) -> tuple[data.Dataset, FolderCheck, Fitted, Outcome]:
    """Trains as suits the number of images; few leave no validation images, and no test but a shipped one."""
    shipped = "test" in check.shipped
    parts = ("train", "val") if shipped else ("train", "val", "test")
    choice = methods.choice_for(min(sum(check.counts[part][c] for part in parts) for c in ds.class_names))
    if not choice.folds:
        fitted = methods.validated(ds, choice, s)
    else:
        ds, check, groups = folder_check.pooled(ds, check)
        fitted = methods.cross_validated(ds.x_train, ds.y_train, groups, choice, s)
    t = temperature(fitted.y, fitted.logits)
    outcome = Outcome(
        check=check,
        class_names=ds.class_names,
        candidates=fitted.candidates,
        chosen=fitted.chosen,
        temperature=t,
        n_val=len(fitted.y),
        n_tuned=fitted.n_tuned,
        backbone=s.backbone.name,
        image_size=s.backbone.image_size,
        seed=s.seed,
        date=datetime.date.today().isoformat(),
        cross_validated=bool(choice.folds) and not shipped,
        folds=choice.folds,
        unsure_below=calibration.unsure_below(fitted.y, calibration.with_temperature(fitted.logits, t)),
        how=tuple(fitted.notes),
    )
    return ds, check, fitted, outcome


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


def _about(outcome: Outcome) -> About:
    o = outcome
    return About(o.class_names, o.image_size, o.check.white, o.unsure_below, o.backbone, made=o.date)


def _tested(
    outcome: Outcome, fitted: Fitted, ds: data.Dataset, staged: dict[str, Path], step: Step
) -> tuple[Outcome, Predict]:
    """Exports the model, and looks at the test images with what was exported."""
    with step("Exporting the model", None):
        predict_one, export = _export(fitted.model, outcome, ds, staged)
        staged["classes"].write_text("\n".join(ds.class_names) + "\n", encoding="utf-8")
    if outcome.cross_validated:
        probabilities = calibration.with_temperature(fitted.logits, outcome.temperature)
    else:
        with step(f"Testing on {len(ds.y_test):,} images", len(ds.y_test)) as update:
            probabilities = methods.in_batches(predict_one, ds.x_test, update)
    outcome = replace(outcome, y_test=ds.y_test, probabilities=probabilities, export=export)
    for key in ("keras", "onnx"):
        if staged[key].is_file():
            model_file.describe(staged[key], replace(_about(outcome), accuracy=outcome.accuracy))
    return outcome, predict_one


def _export(
    model: keras.Model, outcome: Outcome, ds: data.Dataset, staged: dict[str, Path]
) -> tuple[Predict, str]:
    """Writes both files and compares them with the model.

    Returns:
        The function from images to probabilities that is in the ONNX file, or in the Keras file where there
        is no ONNX file; and what was checked, in words.
    """
    inner = finetune.for_inference(model)
    x = keras.layers.Rescaling(1 / outcome.temperature, name="temperature")(inner.output)
    final = keras.Model(inner.input, keras.layers.Softmax(name="probability")(x), name="classifier")
    images = np.asarray(ds.x_val[:COMPARED])
    expected = methods.outputs(final, images)
    final.save(staged["keras"])
    again = keras.models.load_model(staged["keras"])
    difference = float(np.abs(methods.outputs(again, images) - expected).max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"The saved Keras model differs from the trained one by {difference:.1e}.")
    checked = (
        f"On {len(images)} images the probabilities of {staged['keras'].name} differ from those "
        f"of the trained model by at most {difference:.0g}"
    )
    try:
        model_file.export(final, staged["onnx"], "onnx")
        predict_one, _ = model_file.session(staged["onnx"])
        difference = float(np.abs(predict_one(images) - expected).max())
        if not difference <= TOLERANCE:
            raise RuntimeError(f"its probabilities differ from Keras' by {difference:.1e}")
    except (OSError, MemoryError):  # of this machine at this moment, not of the network
        raise
    except Exception as error:  # converters fail in many ways
        staged["onnx"].unlink(missing_ok=True)
        why = f"{type(error).__name__}: {error}"[:300]
        return lambda x: methods.outputs(again, x), f"{checked}. There is no ONNX file ({why})."
    return predict_one, f"{checked}, those of {staged['onnx'].name} by at most {difference:.0g}."


def _files(out: Path, folder: Path, overwrite: bool) -> dict[str, Path]:
    """Returns where each file belongs, once nothing stands in the way.

    Raises:
        OSError: A file of the report exists, or it would lie among the images.
    """
    if out.suffix.lower() == ".html":
        files = {"report": out, "keras": out.with_suffix(".keras"), "onnx": out.with_suffix(".onnx")}
        files["classes"] = out.with_suffix(".classes.txt")
        files["predictions"] = out.with_suffix(".predictions.csv")
        taken = [path for path in files.values() if path.exists()]
    else:
        names = {"report": "report.html", "keras": "model.keras", "onnx": "model.onnx"}
        names |= {"classes": "classes.txt", "predictions": "predictions.csv"}
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
