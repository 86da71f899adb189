"""How a classifier is made of few or many images: which methods are tried, and how one is chosen."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from tlhelpers import data, evaluation, features, finetune, heads, recipes
from tlhelpers.backbones import Backbone
from tlhelpers.extras import extra

with extra("app"):
    import psutil

__all__ = ["CHOICES", "Candidate", "Fitted", "Settings", "Step", "candidate", "choice_for"]
__all__ += ["cross_validated", "in_batches", "outputs", "validated"]

# Takes a title and the number of rounds, if it is known. Returns a context manager, which gives what is to be
# called with the number of rounds done.
Step = Callable[[str, int | None], Any]

BATCH = 32  # images on which a trained model is called at a time
PIECE = 512  # images whose features are computed between two signs of progress
REFIT_SECONDS = 20.0  # a fine-tuning that took longer is not done again with the validation images
FEW_IMAGES = 400  # the features of fewer are computed by Keras, since exporting the network would take longer


@dataclass(frozen=True)
class Choice:
    """What is tried with so many images.

    Attributes:
        below: Images of the smallest class, validation and what is split off for the test included.
        methods: In the order from simple to laborious: of equals, the first is kept.
        folds: Of cross-validation, in place of validation images; 0 for none.
        why: The reason, for the report.
    """

    below: float
    methods: tuple[str, ...]
    folds: int
    why: str


# Where a tenth of a class, set aside for validation, would be fewer than three images, nothing can be chosen.
# From there on `decision` says what was worth trying; a test holds that the two agree.
ENOUGH = 30
CHOICES = (
    Choice(
        ENOUGH,
        ("linear probe",),
        5,
        f"With fewer than {ENOUGH} images in a class, few can be set aside to choose and to test. So one "
        "simple method is used, and each image is named once by a model that was trained without it "
        "(cross-validation).",
    ),
    Choice(
        float("inf"),
        ("linear probe", "several depths", "fine-tuning"),
        0,
        f"With {ENOUGH} images in each class or more, fine-tuning may pay; the validation images decide.",
    ),
)


@dataclass(frozen=True)
class Candidate:
    """A model that might have been kept.

    Attributes:
        name: As in ``plots.METHODS``.
        val_accuracy: Accuracy on the validation images, 0..1; the best of several is optimistic.
        seconds: Time that it took.
    """

    name: str
    val_accuracy: float
    seconds: float


@dataclass(frozen=True)
class Settings:
    """What the reader asked for.

    Attributes:
        backbone: The pretrained network.
        seed: Of the training.
        epochs: Of fine-tuning; 0 leaves it out, None takes `tlhelpers.recipes.epochs_for`.
        mirror: Whether a mirrored image is a valid image.
        border: Beginning of a layer's name: this layer and what is below it stay frozen in fine-tuning.
        deadline: Value of ``time.perf_counter`` at which training should be done; infinite for no limit.
        step: Shows progress.
    """

    backbone: Backbone
    seed: int
    epochs: int | None
    mirror: bool
    border: str
    deadline: float
    step: Step


@dataclass(frozen=True)
class Fitted:
    """A trained classifier.

    Attributes:
        model: Images -> logits.
        candidates: What was tried.
        chosen: Name of what was kept.
        y: Labels of the images that chose: validation images, or all of cross-validation ``(n,)``.
        logits: What models say of these images that were not trained on them ``(n, k)``.
        n_tuned: Training images of fine-tuning; 0 where there was none.
        notes: What was done, and why, one sentence each.
    """

    model: keras.Model
    candidates: tuple[Candidate, ...]
    chosen: str
    y: np.ndarray
    logits: np.ndarray
    n_tuned: int = 0
    notes: list[str] = field(default_factory=list)


def choice_for(n_smallest: int) -> Choice:
    """Returns what to try when the smallest class has so many images."""
    return next(choice for choice in CHOICES if n_smallest < choice.below)


def cross_validated(
    x: np.ndarray | data.ImageSequence, y: np.ndarray, groups: np.ndarray | None, choice: Choice, s: Settings
) -> Fitted:
    """Trains a probe on all images; what it says of each comes from one that did not see it.

    Args:
        x: Images.
        y: Labels ``(n,)``.
        groups: Number of the group of each image, or None.
        choice: How many folds.
        s: Settings.
    """
    clock = time.perf_counter()
    with s.step("Computing features", len(x)) as update:
        f = _features(s.backbone, x, update, "keras" if len(x) < FEW_IMAGES else "auto", "last")
    smallest = int(np.bincount(y).min())
    if groups is not None:
        smallest = min(smallest, *(len(np.unique(groups[y == c])) for c in np.unique(y)))
    folds = max(2, min(choice.folds, smallest))
    with s.step("Cross-validating a linear probe", None):
        strengths = (1e-3, 1e-2, 1e-1) if smallest >= 4 else (1e-2,)
        found = evaluation.cross_validate(
            f, y, folds=folds, strengths=strengths, inner_folds=2, seed=s.seed, groups=groups
        )
        strength = max(set(found.chosen), key=lambda c: (found.chosen.count(c), -c))
        probe = heads.linear_probe(f, y, f, y, strengths=(strength,))
    model = finetune.build_classifier(s.backbone, int(y.max()) + 1, probe.to_keras())
    right = float(np.mean(found.predicted == y))
    logits = np.log(np.clip(found.proba, 1e-12, 1))
    candidate = Candidate("linear probe", right, time.perf_counter() - clock)
    notes = [choice.why, f"The model itself is trained on all {len(y):,} images."]
    return Fitted(model, (candidate,), candidate.name, y, logits, notes=notes)


def validated(ds: data.Dataset, choice: Choice, s: Settings) -> Fitted:
    """Trains the candidates; the best on the validation images is trained again with these."""
    clock = time.perf_counter()
    n_images = len(ds.y_train) + len(ds.y_val)
    with s.step("Computing features", n_images) as update:
        engine = "keras" if n_images < FEW_IMAGES else "auto"
        f_train = _features(s.backbone, ds.x_train, update, engine)
        f_val = _features(s.backbone, ds.x_val, lambda done: update(len(ds.y_train) + done), engine)
    per_image = (time.perf_counter() - clock) / n_images
    # The last layer is the last of the taps.
    last = slice(f_train.shape[1] - s.backbone.n_features, None)
    columns = {"linear probe": last, "several depths": slice(None)}
    fitted: dict[str, heads.LinearProbe] = {}
    with s.step("Training linear probes", None):
        for name, cut in columns.items():
            fitted[name] = heads.linear_probe(f_train[:, cut], ds.y_train, f_val[:, cut], ds.y_val)
    seconds = time.perf_counter() - clock
    logits = {n: np.asarray(p.to_keras()(np.asarray(f_val[:, columns[n]]))) for n, p in fitted.items()}
    candidates = [candidate(name, logits[name].argmax(axis=1), ds, seconds) for name in fitted]
    notes, n_tuned, tuned = [choice.why], 0, None
    epochs = recipes.epochs_for(len(ds.y_train)) if s.epochs is None else s.epochs
    if epochs and "fine-tuning" in choice.methods:
        if max(c.val_accuracy for c in candidates) == 1:
            part, note = None, "Fine-tuning was left out: a probe names all validation images rightly."
        else:
            part, epochs, note = _affordable(ds, epochs, per_image, s)
        notes += [note] if note else []
        if part is not None:
            clock, n_tuned = time.perf_counter(), len(part.y_train)
            with s.step(f"Fine-tuning above {s.border}", epochs) as update:
                tuned = _tuned(part, fitted["linear probe"], epochs, s, update)
                size = s.backbone.image_size
                logits["fine-tuning"] = in_batches(lambda x: outputs(tuned, data.resize(x, size)), ds.x_val)
            named = logits["fine-tuning"].argmax(axis=1)
            candidates.append(candidate("fine-tuning", named, ds, time.perf_counter() - clock))
    best = max(candidates, key=lambda c: c.val_accuracy)  # of equals, the first
    if best.name != "fine-tuning":
        cut = columns[best.name]
        f, y = np.concatenate([f_train[:, cut], f_val[:, cut]]), np.concatenate([ds.y_train, ds.y_val])
        probe = heads.linear_probe(f, y, f, y, strengths=(fitted[best.name].strength,))
        model = _probe_model(s.backbone, best.name, probe, ds.n_classes)
        notes.append("Once chosen, it was trained again, with the validation images.")
    else:
        assert tuned is not None
        model = tuned
        if best.seconds < min(REFIT_SECONDS, s.deadline - time.perf_counter()) and n_tuned == len(ds.y_train):
            with s.step("Fine-tuning again, with the validation images", epochs) as update:
                model = _tuned(_joined(ds), fitted["linear probe"], epochs, s, update)
            notes.append("Once chosen, it was trained again, with the validation images.")
    return Fitted(model, tuple(candidates), best.name, ds.y_val, logits[best.name], n_tuned, notes)


def candidate(name: str, predicted: np.ndarray, ds: data.Dataset, seconds: float) -> Candidate:
    """What is known of a model that predicts so on the validation images."""
    return Candidate(name, float(np.mean(predicted == ds.y_val)), seconds)


def _probe_model(backbone: Backbone, name: str, probe: heads.LinearProbe, n_classes: int) -> keras.Model:
    if name == "several depths":
        taps = features.multi_taps(backbone)
        backbone = replace(backbone, model=features.tapped(backbone, taps, pooled=True))
    return finetune.build_classifier(backbone, n_classes, probe.to_keras())


def _affordable(
    ds: data.Dataset, epochs: int, per_image: float, s: Settings
) -> tuple[data.Dataset | None, int, str]:
    """As many images and epochs as time and memory allow, and in words why not all; None for too few."""
    n = len(ds.y_train)
    # The activations of an image take about as much as its pixels; half of the memory is for them.
    most = min(n, int(psutil.virtual_memory().available / (6 * s.backbone.image_size**2)))
    # In units of the whole network's way forwards: the frozen part for both views, then the upper blocks
    # forwards and backwards in each epoch.
    left = (s.deadline - time.perf_counter()) / per_image
    what, fewest = "the memory", min(epochs, 3)
    if left < most * (2 + epochs):
        what = "the time"
        most = min(most, int(left / (2 + fewest)))  # epochs go first, then images
        epochs = max(fewest, min(epochs, int(left / max(most, 1)) - 2))
    if most < 10 * ds.n_classes:
        return None, epochs, f"Fine-tuning was left out: {what} allows for too few images."
    if most == n and what == "the memory":
        return ds, epochs, ""
    note = f"Fine-tuning took {most:,} of {n:,} training images, {epochs} times each: {what} allows no more."
    # Stratified, as each beginning of the training images is.
    return replace(ds, x_train=ds.x_train[:most], y_train=ds.y_train[:most]), epochs, note


def _tuned(
    ds: data.Dataset, probe: heads.LinearProbe, epochs: int, s: Settings, update: Callable[[int], None]
) -> keras.Model:
    """Fine-tunes a copy of the backbone under the probe's head, by the course's recipe."""
    keras.utils.set_random_seed(s.seed)
    network = keras.models.clone_model(s.backbone.model)
    network.set_weights(s.backbone.model.get_weights())
    copy = replace(s.backbone, model=network)
    flip = keras.layers.RandomFlip("horizontal") if s.mirror else None
    model = finetune.build_classifier(copy, ds.n_classes, probe.to_keras(), dropout=0.2, augmentation=flip)
    finetune.freeze(copy, up_to=s.border)
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: update(epoch + 1))
    finetune.fine_tune(model, ds, recipes.Recipe(epochs=epochs), cache=True, callbacks=[watch])
    return model


def _joined(ds: data.Dataset) -> data.Dataset:
    """The validation images among the training images."""
    assert isinstance(ds.x_train, data.ImageSequence)
    assert isinstance(ds.x_val, data.ImageSequence)
    return replace(
        ds, x_train=ds.x_train.followed_by(ds.x_val), y_train=np.concatenate([ds.y_train, ds.y_val])
    )


def _features(
    backbone: Backbone,
    x: np.ndarray | data.ImageSequence,
    update: Callable[[int], None],
    engine: str,
    taps: str = "multi",
) -> np.ndarray:
    found = []
    for start in range(0, len(x), PIECE):
        found.append(features.extract(backbone, x[start : start + PIECE], taps=taps, engine=engine))
        update(min(start + PIECE, len(x)))
    return np.concatenate(found)


def outputs(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Calls a model on few images, without the graph that ``predict`` would build for it."""
    return np.asarray(keras.ops.convert_to_numpy(model(x, training=False)))


def in_batches(
    function: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray | data.ImageSequence,
    update: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """Calls a function on few images at a time, and joins what it returns."""
    found = []
    for start in range(0, len(x), BATCH):
        found.append(function(np.asarray(x[start : start + BATCH])))
        update(min(start + BATCH, len(x)))
    return np.concatenate(found)
