"""Any change of what a network computes is seen at the next call, by each engine, with or without a cache."""

import functools
import io
import types
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tlhelpers import data, features
from tlhelpers.backbones import Backbone
from tlhelpers.features import _graphs

ENGINES = [name for name in ("keras", "onnx", "openvino") if name in features.available()]
GLOBAL = 2.0
SETTINGS = types.SimpleNamespace(factor=2.0)
TABLE = {"factor": [2.0]}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty cache, and nothing remembered of other tests."""
    _graphs.forget()
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def twice(x):
    """Called by a layer."""
    return 2.0 * x


class Helper:
    """Held by a layer."""

    def __init__(self) -> None:
        self.factor = 2.0

    def __call__(self, x):
        return self.factor * x


@keras.saving.register_keras_serializable("stale")
class Mine(keras.layers.Layer):
    """A layer of one's own, with whatever people give to one."""

    shift = 1.0

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.scale = 0.5
        self.gains = np.full(4, 2.0, np.float32)
        self.numbers = [1.0, 2.0]
        self.helper = Helper()
        self.function = twice
        self.bound = functools.partial(np.multiply, 1.0)
        self.inner = keras.layers.Activation("relu")
        self.branch = False

    def call(self, x):
        """Return something of everything."""
        x = self.inner(x) * self.scale * keras.ops.convert_to_tensor(self.gains) + self.shift
        x = self.function(self.helper(x)) + self.numbers[1] * float(self.bound(1.0))
        x = x * GLOBAL * SETTINGS.factor * TABLE["factor"][0]
        if self.branch:
            x = x + 100.0
        return self.last(x)

    def last(self, x):
        """Is a method of its own."""
        return x + 1.0


def build() -> Backbone:
    """A network with a layer of each kind that is changed below."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3), name="image")
    layers = keras.layers
    x = layers.Rescaling(1 / 255, name="rescaling")(inputs)
    x = layers.Normalization(mean=[0.5, 0.4, 0.3], variance=[0.2, 0.3, 0.1], name="normalization")(x)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Activation("tanh", name="activation")(x)
    x = layers.ReLU(6.0, name="relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.LeakyReLU(negative_slope=0.2, name="leaky")(x)
    x = layers.LayerNormalization(name="layernorm")(x)
    x = layers.UpSampling2D(2, interpolation="bilinear", name="up")(x)
    x = layers.MaxPooling2D(2, padding="same", name="pooling")(x)
    inner_in = keras.Input((16, 16, 4))
    inner = keras.Model(
        inner_in, layers.Conv2D(4, 1, activation="relu", name="inner_conv")(inner_in), name="inner"
    )
    x = inner(x)
    x = Mine(name="mine")(x)
    x = layers.Lambda(lambda t: t * 3.0, output_shape=(16, 16, 4), name="lambda")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(5, activation="elu", name="dense")(x)
    return Backbone("kinds", 16, keras.Model(inputs, x, name="kinds"), "random")


def means() -> Backbone:
    """A network that is made quickly."""
    inputs = keras.Input((16, 16, 3))
    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(inputs / 255.0))
    return Backbone("means", 16, keras.Model(inputs, outputs), "random")


def setter(layer: str, attribute: str, value):
    """Return a change: an attribute of a layer gets another value."""

    def change(model: keras.Model, patch: pytest.MonkeyPatch) -> None:
        found = model.get_layer(layer)
        assert hasattr(found, attribute)
        setattr(found, attribute, value)

    return change


def assign(layer: str, index: int, amount: float = 0.5):
    """Return a change: a weight gets other values."""

    def change(model: keras.Model, patch: pytest.MonkeyPatch) -> None:
        weight = model.get_layer(layer).weights[index]
        weight.assign(weight + amount)

    return change


def mine(change):
    """Return a change of the layer of one's own."""
    return lambda model, patch: change(model.get_layer("mine"), patch)


def exchanged(layer, patch: pytest.MonkeyPatch) -> None:
    """Exchange a method of a class."""
    patch.setattr(Mine, "last", lambda self, x: x + 2.0)


def lambda_with(value: float):
    """Return a function that closes over a value."""
    return lambda t: t * value


def on_one_layer(layer, patch: pytest.MonkeyPatch) -> None:
    """Exchange the call of one layer alone."""
    before = layer.call
    layer.call = lambda x: before(x) * 5.0


def inner(model: keras.Model, patch: pytest.MonkeyPatch) -> None:
    """Change a layer of a network that is a layer."""
    model.get_layer("inner").get_layer("inner_conv").activation = keras.activations.tanh


ones = np.full((1, 1, 1, 3), 0.9, np.float32)
CHANGES = {
    "the scale of Rescaling": setter("rescaling", "scale", 1 / 128),
    "the offset of Rescaling": setter("rescaling", "offset", 0.3),
    "Normalization.mean": setter("normalization", "mean", ones),
    "Normalization.variance": setter("normalization", "variance", ones),
    "a convolution's activation": setter("conv", "activation", keras.activations.tanh),
    "a convolution's dilation": setter("conv", "dilation_rate", (2, 2)),
    "a depthwise convolution's activation": setter("depthwise", "activation", keras.activations.tanh),
    "a convolution's kernel": assign("conv", 0),
    "a convolution's bias": assign("conv", 1),
    "BatchNorm epsilon": setter("norm", "epsilon", 0.5),
    "BatchNorm's moving mean": assign("norm", 2),
    "BatchNorm's moving variance": assign("norm", 3),
    "BatchNorm's gain": assign("norm", 0),
    "an Activation's function": setter("activation", "activation", keras.activations.sigmoid),
    "the bound of ReLU": setter("relu", "max_value", 0.1),
    "the slope of LeakyReLU": setter("leaky", "negative_slope", 0.9),
    "a depthwise kernel": assign("depthwise", 0),
    "LayerNorm epsilon": setter("layernorm", "epsilon", 0.5),
    "how a map is enlarged": setter("up", "interpolation", "nearest"),
    "the window of a pooling": setter("pooling", "pool_size", (3, 3)),
    "the activation of Dense": setter("dense", "activation", keras.activations.relu),
    "the weights of Dense": assign("dense", 0),
    "a layer of a network within": inner,
    "a number of one's own layer": mine(lambda layer, patch: setattr(layer, "scale", 0.7)),
    "an array of one's own layer": mine(lambda layer, patch: setattr(layer, "gains", layer.gains * 2)),
    "an array of one's own layer, in place": mine(lambda layer, patch: layer.gains.__imul__(3)),
    "a list of one's own layer, in place": mine(lambda layer, patch: layer.numbers.__setitem__(1, 9.0)),
    "an object that one's own layer holds": mine(lambda layer, patch: setattr(layer.helper, "factor", 3.0)),
    "a function that one's own layer holds": mine(
        lambda layer, patch: setattr(layer, "function", lambda x: 7.0 * x)
    ),
    "a partial function that one's own layer holds": mine(
        lambda layer, patch: setattr(layer, "bound", functools.partial(np.multiply, 4.0))
    ),
    "a layer that one's own layer holds": mine(
        lambda layer, patch: setattr(layer.inner, "activation", keras.activations.sigmoid)
    ),
    "a branch of one's own layer": mine(lambda layer, patch: setattr(layer, "branch", True)),
    "a number of one's own class": mine(lambda layer, patch: patch.setattr(Mine, "shift", 4.0)),
    "a method of one's own class": mine(exchanged),
    "the call of one layer": mine(on_one_layer),
    "a global number": lambda model, patch: patch.setitem(globals(), "GLOBAL", 3.0),
    "a global's attribute": lambda model, patch: patch.setattr(SETTINGS, "factor", 3.0),
    "a number deep in a global": lambda model, patch: patch.setitem(TABLE, "factor", [3.0]),
    "a global function": lambda model, patch: patch.setattr(twice, "__code__", (lambda x: 8.0 * x).__code__),
    "a Lambda's function": setter("lambda", "function", lambda t: t * 4.0),
    "what a Lambda's function closes over": setter("lambda", "function", lambda_with(4.0)),
    "a method of Keras' own class": lambda model, patch: patch.setattr(
        keras.layers.GlobalAveragePooling2D, "call", lambda self, x: keras.ops.max(x, axis=(1, 2))
    ),
}


@pytest.fixture(scope="module")
def x():
    """A few images."""
    return np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


def now(backbone: Backbone, x: np.ndarray) -> np.ndarray:
    """Return what the network computes, without anything that was compiled before."""
    return keras.ops.convert_to_numpy(backbone.model(x.astype(np.float32), training=False))


def test_there_are_many_changes() -> None:
    """Each is one that people make, or that happens to them."""
    assert len(CHANGES) > 35


@pytest.mark.parametrize(
    "change", CHANGES.values(), ids=[f"features: {name} changed in memory" for name in CHANGES]
)
@pytest.mark.fault("a network that changed behind its cached features")
def test_a_change_is_seen(change, x, monkeypatch, cache):
    """The first call compiled, exported and kept what holds no longer."""
    backbone = build()
    before = now(backbone, x)
    np.testing.assert_allclose(features.extract(backbone, x, engine="keras"), before, rtol=1e-3, atol=1e-4)
    fingerprint = backbone.fingerprint()
    change(backbone.model, monkeypatch)
    after = now(backbone, x)
    assert np.abs(after - before).max() > 1e-3 * np.abs(before).max()  # or there is nothing to see
    for kept in (False, True):
        found = features.extract(backbone, x, engine="keras", cache=kept)
        np.testing.assert_allclose(found, after, rtol=1e-3, atol=1e-4 * np.abs(after).max())
    assert len(list((cache / "features").glob("*.npy"))) == 2
    of_keras = change is CHANGES["a method of Keras' own class"]  # which the images of the probe alone see
    assert (backbone.fingerprint() == fingerprint) == of_keras


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "keras"])
@pytest.mark.parametrize("name", ["Normalization.mean", "a global number"])
@pytest.mark.fault("a network that changed behind its cached features")
def test_an_exported_graph_of_the_old_network_is_not_run(engine, name, x, monkeypatch):
    """Not from disk, and not from memory."""
    backbone = build()
    before = features.extract(backbone, x, engine=engine)
    CHANGES[name](backbone.model, monkeypatch)
    after = now(backbone, x)
    assert np.abs(after - before).max() > 1e-3 * np.abs(before).max()
    for kept in (False, True):
        found = features.extract(backbone, x, engine=engine, cache=kept)
        np.testing.assert_allclose(found, after, rtol=1e-3, atol=1e-4 * np.abs(after).max())


def test_a_branch_that_the_two_images_do_not_take_is_seen(x):
    """The images of the probe are noise, and bright enough; code is read as text."""

    def built(factor: float) -> Backbone:
        def dark(t):
            mean = keras.ops.mean(t, axis=(1, 2, 3), keepdims=True)
            return keras.ops.where(mean < 20.0, t * factor, t)

        inputs = keras.Input((16, 16, 3))
        outputs = keras.layers.GlobalAveragePooling2D()(
            keras.layers.Lambda(dark, output_shape=(16, 16, 3))(inputs)
        )
        return Backbone("branch", 16, keras.Model(inputs, outputs), "random")

    for factor in (2.0, 5.0):
        backbone, images = built(factor), x // 16
        found = features.extract(backbone, images, engine="keras")
        np.testing.assert_allclose(found, now(backbone, images), rtol=1e-4)
        np.testing.assert_allclose(found, factor * images.mean(axis=(1, 2)), rtol=1e-4)


def test_what_changes_nothing_is_no_change(x, cache):
    """Built again, called, trained no step, frozen, exported: the same key."""
    first = build()
    before = first.fingerprint()
    for engine in ENGINES:
        features.extract(first, x, engine=engine, cache=False)
    first.model.predict(x, verbose=0)
    first.model.trainable = False
    first.model(x.astype(np.float32))
    assert first.fingerprint() == before
    found = features.extract(first, x, engine="keras")
    second = build()
    assert second.fingerprint() == before
    np.testing.assert_array_equal(features.extract(second, x, engine="keras"), found)
    assert len(list((cache / "features").glob("*.npy"))) == 1


def test_the_numbers_of_the_users_layers_stay():
    """To look at layers makes layers; they take no number."""
    keras.backend.clear_session()
    build().fingerprint()
    assert keras.layers.Identity().name == "identity"
    keras.backend.clear_session()


# --- Images that change meanwhile ---


def png(value: int) -> bytes:
    """Return an image file."""
    stream = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(stream, "png")
    return stream.getvalue()


def folder(root: Path) -> Path:
    """Return a folder of two classes with six images each."""
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for i in range(6):
            (root / name / f"{i}.png").write_bytes(png(20 * i + (name == "b")))
    return root


@pytest.mark.parametrize(("engine", "kept"), [("keras", True), ("onnx", False)])
def test_a_file_that_changes_between_its_digest_and_its_reading_is_named(
    tmp_path, monkeypatch, cache, engine, kept
):
    """The key would promise features of what is no longer there."""
    images = data.load(folder(tmp_path / "set"), lazy=True, image_size=16).x_train
    victim = tmp_path / "set" / images._names[-1]
    backbone, real = means(), features._runner

    def changed(*arguments):
        victim.write_bytes(png(255))
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(features, "_runner", changed)
        with pytest.raises(data.DataError, match=f"{victim.name} changed while"):
            features.extract(backbone, images, engine=engine, batch_size=2, cache=kept)
    assert not list(cache.rglob("*.json"))
    assert images[len(images) - 1].max() == 255  # to look at it is no error
    found = features.extract(backbone, images, engine=engine, cache=kept)
    np.testing.assert_allclose(found, now(backbone, images[:]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kept", [True, False])
def test_an_array_that_changes_meanwhile_is_noticed_and_leaves_nothing(x, monkeypatch, cache, kept):
    """As one that is mapped from a file which another program writes."""
    backbone, real, images = means(), features._runner, x.copy()

    def changed(*arguments):
        images[-1] ^= 255
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(features, "_runner", changed)
        patch.setattr(features, "_PART_BYTES", 20)
        with pytest.raises(RuntimeError, match="images x changed"):
            features.extract(backbone, images, engine="keras", batch_size=1, cache=kept)
    assert not list(cache.rglob("*.npy"))
    np.testing.assert_allclose(
        features.extract(backbone, images, engine="keras"), now(backbone, images), rtol=1e-4
    )


def test_without_the_cache_no_file_of_it_is_read_or_written(x, cache):
    """Not even looked for: the folder may be on a disk that is gone."""
    backbone = means()
    for engine in features.available():
        features.extract(backbone, x, engine=engine, cache=False, calibration=x)
    assert not cache.exists()
    expected = {e: features.extract(backbone, x, engine=e).copy() for e in ENGINES}
    kept = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    for path in kept:
        path.write_bytes(b"damaged")
    _graphs.forget()
    for engine, features_before in expected.items():
        found = features.extract(backbone, x, engine=engine, cache=False)
        np.testing.assert_allclose(found, features_before, rtol=1e-5, atol=1e-5)
    assert all(path.read_bytes() == b"damaged" for path in kept)
