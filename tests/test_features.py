"""Behaviour of tlhelpers.features: the same features from both engines, computed once, kept safely."""

import keras
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from tlhelpers import backbones, data, features
from tlhelpers.backbones import Backbone


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TLHELPERS_CACHE", str(folder))
    monkeypatch.setattr(features, "_GRAPHS", {})
    return folder


def make_backbone(name: str = "tiny", size: int = 16) -> Backbone:
    """A backbone with a few weights, the same ones each time."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((size, size, 3), name="image")
    x = keras.layers.Rescaling(1 / 128, -127 / 128, name="preprocess")(inputs)
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="conv")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return Backbone(name, size, keras.Model(inputs, x, name=name), "random")


@pytest.fixture(scope="module")
def tiny():
    return make_backbone()


@pytest.fixture
def x():
    return np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


@pytest.fixture
def no_network(monkeypatch):
    """Call it to make every further use of a network an error."""

    def forbid():
        def fail(*_, **__):
            raise AssertionError("the network was run")

        monkeypatch.setattr(features, "_run_onnx", fail)
        monkeypatch.setattr(keras.Model, "predict", fail)

    return forbid


def files(cache) -> list[str]:
    return [str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file()] if cache.exists() else []


def crops(n: int, side: int) -> np.ndarray:
    """Pieces of scikit-learn's photographs."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(n):
        image = load_sample_image(("china.jpg", "flower.jpg")[i % 2])
        top, left = (rng.integers(0, s - side) for s in image.shape[:2])
        found.append(image[top : top + side, left : left + side])
    return np.stack(found)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# --- Both engines ---


def test_both_engines_agree_on_photographs():
    backbone = backbones.load("efficientnet_lite0", image_size=64)
    images = crops(6, 100)
    by_keras = features.extract(backbone, images, engine="keras", batch_size=4)
    by_onnx = features.extract(backbone, images, engine="onnx", batch_size=4)
    direct = backbone.model.predict(data.resize(images, 64), verbose=0)
    assert by_keras.shape == by_onnx.shape == (6, 1280)
    assert by_keras.dtype == by_onnx.dtype == np.float32
    assert by_keras.std(axis=0).max() > 0.1  # the images differ
    assert relative(by_keras, direct) < 1e-4
    assert relative(by_onnx, by_keras) < 1e-4


@pytest.mark.parametrize("engine", ["onnx", "keras"])
def test_batches_change_nothing(tiny, x, engine):
    whole = features.extract(tiny, x, engine=engine, cache=False)
    parts = features.extract(tiny, x, engine=engine, cache=False, batch_size=2)
    assert whole.shape == (5, 4)
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)


def test_images_are_resized_outside_the_network(tiny):
    large = np.random.default_rng(1).integers(0, 256, (3, 40, 24, 3), dtype=np.uint8)
    found = features.extract(tiny, large, engine="keras")
    np.testing.assert_array_equal(found, features.extract(tiny, data.resize(large, 16), engine="keras"))


def test_no_images(tiny, cache):
    found = features.extract(tiny, np.zeros((0, 16, 16, 3), np.uint8))
    assert found.shape == (0, 4)
    assert found.dtype == np.float32
    assert not files(cache)


def test_auto_takes_onnx_on_a_cpu(tiny, x, monkeypatch):
    ran = []
    real = features._run_onnx
    monkeypatch.setattr(features, "_run_onnx", lambda *a: ran.append(1) or real(*a))
    monkeypatch.setattr(features, "_on_accelerator", lambda: False)
    found = features.extract(tiny, x, cache=False)
    assert len(ran) == 2  # the check of the export, and the images
    np.testing.assert_array_equal(found, features.extract(tiny, x, engine="onnx", cache=False))


def test_auto_takes_keras_on_an_accelerator(tiny, x, monkeypatch, cache):
    monkeypatch.setattr(features, "_on_accelerator", lambda: True)
    monkeypatch.setattr(features, "_graph", None)  # no use of it
    found = features.extract(tiny, x, cache=False)
    np.testing.assert_array_equal(found, features.extract(tiny, x, engine="keras", cache=False))
    assert not files(cache)


def test_auto_takes_keras_where_the_export_fails(tiny, x, monkeypatch, cache):
    def fail(*_, **__):
        raise NotImplementedError("an operation without ONNX")

    monkeypatch.setattr(features, "_on_accelerator", lambda: False)
    monkeypatch.setattr(keras.Model, "export", fail)
    found = features.extract(tiny, x, cache=False)
    np.testing.assert_array_equal(found, features.extract(tiny, x, engine="keras", cache=False))
    assert not files(cache)
    with pytest.raises(NotImplementedError):
        features.extract(tiny, x, engine="onnx")


def test_a_graph_that_differs_from_keras_is_not_used(tiny, x, monkeypatch, cache):
    real = features._run_onnx
    monkeypatch.setattr(features, "_run_onnx", lambda *a: real(*a) * 1.001)
    with pytest.raises(RuntimeError, match=r"differs from Keras by 1\.0e-03"):
        features.extract(tiny, x, engine="onnx")
    assert not files(cache)


# --- The cache ---


@pytest.mark.parametrize("engine", ["onnx", "keras"])
def test_the_second_call_does_not_run_the_network(tiny, x, no_network, engine):
    first = features.extract(tiny, x, engine=engine)
    no_network()
    np.testing.assert_array_equal(features.extract(tiny, x.copy(), engine=engine, batch_size=3), first)
    with pytest.raises(AssertionError, match="network was run"):
        features.extract(tiny, x, engine=engine, cache=False)


def test_a_backbone_that_is_made_again_finds_its_features(tiny, x, no_network):
    first = features.extract(tiny, x, engine="keras")
    no_network()
    np.testing.assert_array_equal(features.extract(make_backbone(), x, engine="keras"), first)


def test_without_the_cache_nothing_is_kept(tiny, x, cache):
    features.extract(tiny, x, engine="keras", cache=False)
    assert not files(cache)


def test_any_change_has_a_key_of_its_own(tiny, x, cache):
    features.extract(tiny, x, engine="keras")
    count = 1
    assert len(files(cache)) == count

    pixel = x.copy()
    pixel[-1, -1, -1, -1] ^= 1
    other_weights = make_backbone()
    weights = other_weights.model.get_weights()
    weights[-1][0] += 1e-3
    other_weights.model.set_weights(weights)
    for backbone, images in (
        (tiny, pixel),
        (tiny, x[:4]),
        (tiny, x[::-1]),
        (tiny, x.reshape(5, 8, 32, 3)),  # the same bytes
        (other_weights, x),
        (make_backbone(size=20), x),
        (make_backbone(name="other"), x),
    ):
        found = features.extract(backbone, images, engine="keras")
        expected = backbone.model.predict(data.resize(images, backbone.image_size), verbose=0)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        count += 1
        assert len(files(cache)) == count


def test_a_changed_weight_is_seen_by_the_exported_graph(x):
    backbone = make_backbone()
    first = features.extract(backbone, x, engine="onnx")
    backbone.model.set_weights([2 * w for w in backbone.model.get_weights()])
    second = features.extract(backbone, x, engine="onnx")
    np.testing.assert_allclose(second, 2 * first, rtol=1e-4)


def test_a_failed_write_leaves_nothing(tiny, x, monkeypatch, cache):
    def full(file, _):
        file.write(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(features.np, "save", full)
        with pytest.raises(OSError, match="disk full"):
            features.extract(tiny, x, engine="keras")
    assert not files(cache)
    assert features.extract(tiny, x, engine="keras").shape == (5, 4)
    assert len(files(cache)) == 1


# --- Errors ---


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (np.zeros((2, 16, 16, 3), np.float32), r"float32 \(2, 16, 16, 3\)"),
        (np.zeros((2, 16, 16, 3), np.int64), "int64"),
        (np.zeros((16, 16, 3), np.uint8), r"uint8 \(16, 16, 3\)"),
        (np.zeros((2, 16, 16, 1), np.uint8), r"uint8 \(2, 16, 16, 1\)"),
        ([[0]], "list"),
    ],
)
def test_what_are_no_images(tiny, images, found):
    with pytest.raises(ValueError, match=rf"uint8 RGB images of shape \(n, h, w, 3\).*this is {found}"):
        features.extract(tiny, images)


def test_an_unknown_engine(tiny, x):
    with pytest.raises(ValueError, match=r"no engine 'torch'\. Choose 'auto', 'onnx' or 'keras'"):
        features.extract(tiny, x, engine="torch")
