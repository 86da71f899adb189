"""One controlled comparison: ways to use a pretrained backbone, on the same labels, with as many passes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import keras
import numpy as np

from tlhelpers import backbones, data, decision, evaluation, features, finetune, heads
from tlhelpers.recipes import Recipe, discriminative_rates

LARGER = {"efficientnet_lite0": "efficientnet_lite2"}  # of the same family, for `more_of_all`
SCRATCH_PASSES = 10  # a network that begins at random gets so many times the passes of the others


@dataclass(frozen=True)
class Setting:
    """What all methods share.

    Attributes:
        ds: The labelled images, all of them training images: what a method chooses, it chooses on parts of
            them, so that no method reads a label that another one does not.
        recipe: Epochs, highest rate and batch of all methods that train through the backbone.
        flips: Whether a mirrored image still shows its class.
        seed: Of initial weights, order and augmentation.
        backbone: Name, as `tlhelpers.backbones.load` takes it.
        image_size: Side in pixels at which the backbone sees an image.

    Example:
        >>> from tlhelpers import data
        >>> from tlhelpers.course.comparison import Setting
        >>> from tlhelpers.recipes import Recipe
        >>> ds = data.load("digits", n_train=40, n_val=0, n_test=10)
        >>> s = Setting(ds, Recipe(), flips=False, seed=0, backbone="efficientnet_lite0", image_size=32)
        >>> s.load_backbone().n_features
        1280
    """

    ds: data.Dataset
    recipe: Recipe
    flips: bool
    seed: int
    backbone: str
    image_size: int

    def load_backbone(self) -> backbones.Backbone:
        """Loads the backbone anew."""
        return backbones.load(self.backbone, image_size=self.image_size)

    def mirror(self, *more: keras.layers.Layer) -> keras.layers.Layer | None:
        """Returns a layer that mirrors images, where that is allowed, and changes them as more layers do."""
        layers = [*([keras.layers.RandomFlip("horizontal")] if self.flips else []), *more]
        return keras.Sequential(layers) if layers else None


@dataclass(frozen=True)
class Fitted:
    """A trained method.

    Attributes:
        predict: Images uint8 ``(n, h, w, 3)`` -> labels int64 ``(n,)``.
        n_trained: Number of weights that were trained.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.course.comparison import Fitted
        >>> first_class = Fitted(lambda x: np.zeros(len(x), np.int64), n_trained=0)
        >>> first_class.predict(np.zeros((2, 8, 8, 3), np.uint8)).tolist()
        [0, 0]
    """

    predict: Callable[[np.ndarray], np.ndarray]
    n_trained: int


def _n_trained(model: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def _whole(model: keras.Model) -> Fitted:
    return Fitted(lambda x: finetune.predict(model, x), _n_trained(model))


def scratch(s: Setting) -> Fitted:
    """Trains a small network from random weights, at the images' own size; it gets more passes than others.

    One of `METHODS`: see `accuracy`.
    """
    shift = keras.layers.RandomTranslation(0.1, 0.1, fill_mode="reflect")
    model = finetune.small_cnn(s.ds.x_train.shape[1], s.ds.n_classes, augmentation=s.mirror(shift))
    recipe = replace(s.recipe, epochs=SCRATCH_PASSES * s.recipe.epochs, learning_rate=1e-2)
    finetune.fine_tune(model, s.ds, recipe)
    return _whole(model)


def _probe(s: Setting, backbone: backbones.Backbone, taps: str = "last") -> heads.LinearProbe:
    return heads.linear_probe(features.extract(backbone, s.ds.x_train, taps), s.ds.y_train)


def _cached(s: Setting, taps: str) -> Fitted:
    backbone = s.load_backbone()
    probe = _probe(s, backbone, taps)
    n_trained = probe.pipeline[1].coef_.size + probe.pipeline[1].intercept_.size
    return Fitted(lambda x: probe.predict(features.extract(backbone, x, taps)), n_trained)


def linear_probe(s: Setting) -> Fitted:
    """Trains a logistic regression on cached features. One of `METHODS`: see `accuracy`."""
    return _cached(s, "last")


def several_depths(s: Setting) -> Fitted:
    """Trains a logistic regression on cached features of several depths. One of `METHODS`: see `accuracy`."""
    return _cached(s, "multi")


def _head_alone(s: Setting, augmentation: keras.layers.Layer | None) -> Fitted:
    backbone = s.load_backbone()
    model = finetune.build_classifier(backbone, s.ds.n_classes, dropout=0.2, augmentation=augmentation)
    finetune.freeze(backbone)
    finetune.fine_tune(model, s.ds, s.recipe)
    return _whole(model)


def trained_head(s: Setting) -> Fitted:
    """Trains a random head on the frozen backbone by gradient steps. One of `METHODS`: see `accuracy`."""
    return _head_alone(s, None)


def trained_head_augmented(s: Setting) -> Fitted:
    """Trains as `trained_head`, on images that are changed at random. One of `METHODS`: see `accuracy`."""
    return _head_alone(s, s.mirror(keras.layers.RandomTranslation(0.1, 0.1, fill_mode="reflect")))


def _above(s: Setting, up_to: str) -> keras.Model:
    """The probe as head, then the blocks above one: those below run once."""
    backbone = s.load_backbone()
    head = _probe(s, backbone).to_keras()
    model = finetune.build_classifier(backbone, s.ds.n_classes, head, dropout=0.2, augmentation=s.mirror())
    finetune.freeze(backbone, up_to=up_to)
    finetune.fine_tune(model, s.ds, s.recipe, cache=True)
    return model


def top_blocks(s: Setting) -> Fitted:
    """Trains the probe as head, then the blocks above `decision.BORDER`: those below run once.

    One of `METHODS`: see `accuracy`.
    """
    return _whole(_above(s, decision.BORDER))


def _through_all(s: Setting, recipe: Recipe, *, probe_first: bool, batchnorm_moves: bool = False) -> Fitted:
    backbone = s.load_backbone()
    head = _probe(s, backbone).to_keras() if probe_first else None
    model = finetune.build_classifier(backbone, s.ds.n_classes, head, dropout=0.2, augmentation=s.mirror())
    if not batchnorm_moves:
        finetune.freeze_batchnorm(backbone)
    finetune.fine_tune(model, s.ds, recipe)
    return _whole(model)


def _constant(s: Setting) -> Recipe:
    return replace(s.recipe, learning_rate=1e-3, warmup=0.0, cosine=False)  # Keras' default for Adam


def naive(s: Setting) -> Fitted:
    """Trains a random head and all layers at once, BatchNorm too: Adam at 1e-3 throughout, no warm-up.

    What happens to those who set ``trainable = True`` and nothing else. One of `METHODS`: see `accuracy`.
    """
    return _through_all(s, _constant(s), probe_first=False, batchnorm_moves=True)


def naive_frozen_batchnorm(s: Setting) -> Fitted:
    """Trains as `naive`, with BatchNorm frozen. One of `METHODS`: see `accuracy`."""
    return _through_all(s, _constant(s), probe_first=False)


def full(s: Setting) -> Fitted:
    """Trains as `naive_frozen_batchnorm`, with warm-up and cosine. One of `METHODS`: see `accuracy`."""
    return _through_all(s, s.recipe, probe_first=False)


def probe_then_full(s: Setting) -> Fitted:
    """Trains the probe as head, then all blocks (Kumar et al., 2022). One of `METHODS`: see `accuracy`."""
    return _through_all(s, s.recipe, probe_first=True)


def discriminative(s: Setting) -> Fitted:
    """Trains as `probe_then_full`, with rates that fall by a factor of 0.7 from block to block downwards.

    One of `METHODS`: see `accuracy`.
    """
    rates = discriminative_rates(s.load_backbone().blocks, 0.7)
    return _through_all(s, replace(s.recipe, rates=rates), probe_first=True)


def l2_sp(s: Setting) -> Fitted:
    """Trains as `probe_then_full`, with a pull of 0.01 to the pretrained weights (Li et al., 2018).

    One of `METHODS`: see `accuracy`.
    """
    return _through_all(s, replace(s.recipe, l2_sp=0.01), probe_first=True)


def more_of_all(s: Setting) -> Fitted:
    """Trains with more of everything, so equal to no other: backbone, images, passes, mirrored answers.

    Images are larger by a third, each is seen three times as often, the blocks above the third are trained,
    at rates that fall by a factor of 0.7 from block to block downwards. Where flips are allowed, the logits
    of an image and of its mirror image are added. One of `METHODS`: see `accuracy`.
    """
    recipe = replace(s.recipe, epochs=3 * s.recipe.epochs, batch_size=2 * s.recipe.batch_size)
    name = LARGER.get(s.backbone, s.backbone)
    s = replace(s, backbone=name, image_size=s.image_size * 4 // 3)
    blocks = s.load_backbone().blocks
    rates = discriminative_rates(blocks[blocks.index("block3") + 1 :], 0.7)
    model = _above(replace(s, recipe=replace(recipe, rates=rates)), "block3")

    def predict(x: np.ndarray) -> np.ndarray:
        views = [x, x[:, :, ::-1]] if s.flips else [x]
        resized = (data.resize(view, model.input_shape[1]) for view in views)
        return sum(model.predict(view, verbose=0) for view in resized).argmax(axis=1)

    return Fitted(predict, _n_trained(model))


METHODS: dict[str, Callable[[Setting], Fitted]] = {
    "scratch": scratch,
    "probe": linear_probe,
    "depths": several_depths,
    "trained_head": trained_head,
    "trained_head_augmented": trained_head_augmented,
    "top_blocks": top_blocks,
    "naive": naive,
    "naive_frozen_batchnorm": naive_frozen_batchnorm,
    "full": full,
    "probe_then_full": probe_then_full,
    "discriminative": discriminative,
    "l2_sp": l2_sp,
    "more_of_all": more_of_all,
}
EQUAL = tuple(method for method in METHODS if method != "more_of_all")  # the same budget for each
CORE = ("scratch", "probe", "top_blocks", "probe_then_full")  # measured at more sizes than the others

# What differs in one thing, written down before it was measured.
PAIRS = (
    ("probe", "scratch"),
    ("top_blocks", "probe"),
    ("probe_then_full", "probe"),
    ("probe_then_full", "full"),
    ("full", "naive_frozen_batchnorm"),
    ("naive", "naive_frozen_batchnorm"),
    ("trained_head_augmented", "trained_head"),
    ("probe", "trained_head"),
    ("top_blocks", "probe_then_full"),
    ("discriminative", "probe_then_full"),
    ("l2_sp", "probe_then_full"),
)


def differences(accuracies: Mapping[str, float]) -> dict[str, float]:
    """Returns what some methods have more than others, like ``probe_over_scratch_n5``.

    Args:
        accuracies: Names like ``probe_n5`` -> accuracy of one seed.

    Example:
        >>> from tlhelpers.course import comparison
        >>> comparison.differences({"probe_n5": 0.75, "scratch_n5": 0.5, "probe_n50": 0.9})
        {'probe_over_scratch_n5': 0.25}
    """
    found = {}
    for method, other in PAIRS:
        for name, value in accuracies.items():
            size = name.removeprefix(f"{method}_n")
            if size.isdigit() and f"{other}_n{size}" in accuracies:
                found[f"{method}_over_{other}_n{size}"] = value - accuracies[f"{other}_n{size}"]
    return found


def accuracy(method: str, setting: Setting, x_test: np.ndarray, y_test: np.ndarray) -> tuple[float, int]:
    """Trains one method and tests it once.

    Args:
        method: One of `METHODS`.
        setting: The labelled images, and all else that the methods share.
        x_test: Test images, which no method sees before.
        y_test: Their labels.

    Returns:
        Test accuracy 0..1, and the number of trained weights.

    Raises:
        ValueError: If there is no such method.

    Example:
        >>> from tlhelpers import data
        >>> from tlhelpers.course import comparison
        >>> from tlhelpers.recipes import Recipe
        >>> ds = data.load("digits", n_train=40, n_val=0, n_test=10)
        >>> s = comparison.Setting(ds, Recipe(epochs=1), False, 0, "efficientnet_lite0", 32)
        >>> share, n_trained = comparison.accuracy("scratch", s, ds.x_test, ds.y_test)
        >>> 0 <= share <= 1, n_trained > 100_000
        (True, True)
    """
    if method not in METHODS:
        raise ValueError(f"There is no method {method!r}. Choose one of {', '.join(METHODS)}.")
    keras.utils.set_random_seed(setting.seed)
    fitted = METHODS[method](setting)
    return evaluation.accuracy(y_test, fitted.predict(x_test)), fitted.n_trained
