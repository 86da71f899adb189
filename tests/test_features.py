"""Behaviour of tlhelpers.features: the same features from all engines, computed once, kept safely."""

import errno
import importlib.metadata
import io
import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from tlhelpers import backbones, data, features, finetune
from tlhelpers import cache as disk
from tlhelpers.app import cache_folder
from tlhelpers.backbones import Backbone
from tlhelpers.features import _graphs, _key, _onnx, _steps


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty cache, and nothing remembered of other tests."""
    _graphs.forget()
    folder = tmp_path / "cache"
    monkeypatch.setenv("TLHELPERS_CACHE", str(folder))
    return folder


def make_backbone(name: str = "tiny", size: int = 16, scale: float = 1 / 128, top: float = 6.0) -> Backbone:
    """A backbone with a few weights, the same ones each time, and two resolutions."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((size, size, 3), name="image")
    x = keras.layers.Rescaling(scale, -127 * scale, name="preprocess")(inputs)
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="conv")(x)
    x = keras.layers.ReLU(top, name="relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return Backbone(name, size, keras.Model(inputs, x, name=name), "random")


def make_numbered() -> tuple[Backbone, str]:
    """A backbone whose layers Keras names, and the name of its convolution."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    conv = keras.layers.Conv2D(4, 3, strides=2)
    x = keras.layers.GlobalAveragePooling2D()(conv(inputs / 255.0))
    return Backbone("numbered", 16, keras.Model(inputs, x), "random"), conv.name


@pytest.fixture(scope="module")
def tiny():
    return make_backbone()


@pytest.fixture(scope="module")
def lite():
    return backbones.load("efficientnet_lite0", image_size=64)


@pytest.fixture
def lite_cache(monkeypatch, tmp_path_factory):
    """A cache that the tests with a large network share, so that it is exported once."""
    folder = tmp_path_factory.getbasetemp() / "lite_cache"
    monkeypatch.setenv("TLHELPERS_CACHE", str(folder))
    return folder


@pytest.fixture
def x():
    return noise(5)


@pytest.fixture
def ran(monkeypatch):
    """Images in each step that a network has computed; the engines that did it are in ``ran.engines``."""

    class Ran(list):
        def __init__(self):
            super().__init__()
            self.engines = set()

    seen, real = Ran(), features._runner

    def runner(engine, *arguments):
        run = real(engine, *arguments)

        def counted(images):
            seen.append(len(images))
            seen.engines.add(engine)
            return run(images)

        return counted

    monkeypatch.setattr(features, "_runner", runner)
    return seen


@pytest.fixture
def no_export(monkeypatch):
    """A network that cannot be exported; holds one item for each attempt."""
    attempts = []

    def fail(*_, **__):
        attempts.append(1)
        raise NotImplementedError("an operation without ONNX")

    monkeypatch.setattr(features, "_on_accelerator", lambda: False)
    monkeypatch.setattr(keras.Model, "export", fail)
    return attempts


def noise(n: int, side: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def files(cache: Path, part: str = "") -> list[str]:
    """Files in the cache, or in a part of it."""
    return sorted(str(p.relative_to(cache)) for p in (cache / part).rglob("*") if p.is_file())


def n_entries() -> int:
    assert cache_folder.verify() == []
    return len(cache_folder.entries())


def direct(backbone: Backbone, images: np.ndarray) -> np.ndarray:
    """Features without anything of `features`."""
    return np.asarray(backbone.model(data.resize(images, backbone.image_size).astype(np.float32)))


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


def image_folder(root: Path, sizes: tuple[tuple[int, int], ...] = ((20, 16),), n: int = 12) -> Path:
    """Two classes of ``n`` noisy images each, whose sizes (width, height) take turns."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for i in range(n):
            width, height = sizes[i % len(sizes)]
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:03}.png")
    return root


# --- Engines ---


def test_engines_agree_on_photographs(lite, lite_cache):
    images = crops(6, 100)
    by_keras = features.extract(lite, images, engine="keras", batch_size=4)
    by_onnx = features.extract(lite, images, engine="onnx", batch_size=4)
    assert by_keras.shape == by_onnx.shape == (6, 1280)
    assert by_keras.dtype == by_onnx.dtype == np.float32
    assert by_keras.std(axis=0).max() > 0.1  # the images differ
    assert relative(by_keras, direct(lite, images)) < 1e-4
    assert relative(by_onnx, by_keras) < 1e-4


FAMILIES = [next(iter(models)).lower() for models in backbones._APPLICATIONS.values()]
ALL = bool(os.environ.get("TLHELPERS_ALL_BACKBONES"))
WEEKLY = {"inceptionresnetv2", "nasnetmobile", "convnexttiny", "inceptionv3", "densenet121", "xception"}
WEEKLY |= {"resnet50v2", "efficientnetb0", "resnet50", "efficientnetv2b0", "vgg19"}


@pytest.mark.slow
@pytest.mark.parametrize("name", backbones.names() if ALL else FAMILIES)
def test_engines_agree_on_every_family(name):
    """Networks of some families, weekly each network; those that are not exported fall back to Keras."""
    if name in WEEKLY and not ALL:
        pytest.skip("takes half a minute: runs weekly, and where TLHELPERS_ALL_BACKBONES is set")
    keras.utils.set_random_seed(0)
    backbone = backbones.load(name, image_size=96, weights=None)
    images = crops(2, 96)
    by_keras = features.extract(backbone, images, engine="keras", cache=False)
    assert np.ptp(by_keras, axis=0).max() > 0  # the images differ
    if name.startswith("convnext"):
        with pytest.raises(RuntimeError, match="exported to ONNX"):
            features.extract(backbone, images, engine="onnx", cache=False)
        by_onnx = features.extract(backbone, images, engine="auto", cache=False)
    else:
        by_onnx = features.extract(backbone, images, engine="onnx", cache=False)
    assert relative(by_onnx, by_keras) < 1e-4
    keras.backend.clear_session()


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "densenet121", "mobilenetv2", "convnexttiny"])
def test_the_preprocessing_of_each_kind_is_exported(x, name):
    """Tensors from outside the graph would be inputs of their own."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3), name="image")
    outputs = keras.layers.GlobalAveragePooling2D()(
        keras.layers.Conv2D(4, 3)(backbones.preprocessing(name)(inputs))
    )
    backbone = Backbone("prepared", 16, keras.Model(inputs, outputs), "random")
    found = features.extract(backbone, x, engine="onnx")
    assert relative(found, direct(backbone, x)) < 1e-4


def test_a_normalization_layer_is_exported(x):
    """As in EfficientNetB0 and V2, whose constants had become inputs of the graph."""
    inputs = keras.Input((16, 16, 3))
    normalization = keras.layers.Normalization(mean=[0.5, 0.4, 0.3], variance=[0.2, 0.3, 0.1])
    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(normalization(inputs / 255.0)))
    backbone = Backbone("normalized", 16, keras.Model(inputs, outputs), "random")
    by_keras = features.extract(backbone, x, engine="keras")
    np.testing.assert_allclose(features.extract(backbone, x, engine="onnx"), by_keras, rtol=1e-4)
    np.testing.assert_allclose(direct(backbone, x), by_keras, rtol=1e-5)


@pytest.mark.parametrize("engine", ["onnx", "keras"])
def test_steps_change_nothing(tiny, x, engine):
    whole = features.extract(tiny, x, engine=engine, cache=False)
    steps = features.extract(tiny, x, engine=engine, cache=False, batch_size=2)
    assert whole.shape == (5, 4)
    np.testing.assert_allclose(steps, whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole, direct(tiny, x), rtol=1e-4, atol=1e-6)


def test_steps_are_smaller_for_larger_images(tiny, ran):
    features.extract(tiny, noise(300), engine="keras", cache=False)
    assert ran == [256, 44]
    ran.clear()
    large = make_backbone(size=224)
    features.extract(large, noise(20, 224), engine="keras", cache=False)
    assert ran == [11, 9]
    ran.clear()
    features.extract(large, noise(5, 224), engine="onnx", cache=False)
    assert sorted(ran) == [1, 2, 2]


def test_steps_that_end_out_of_order_come_back_in_order(monkeypatch):
    monkeypatch.setattr(_steps, "cpu_count", lambda: 2)
    ended, order = [threading.Event() for _ in range(20)], []

    def even_after_odd(item):
        assert item % 2 or ended[item + 1].wait(60)
        order.append(item)
        ended[item].set()
        return np.array([item])

    assert [int(part[0]) for part in _steps.in_threads(even_after_odd, range(20))] == list(range(20))
    assert order[:2] == [1, 0]


def test_few_results_wait_for_a_slow_reader():
    taken, started = [], []
    items = (taken.append(item) or item for item in range(1000))
    work = _steps.in_threads(lambda item: started.append(item) or np.array([item]), items)
    next(work)
    assert len(taken) <= 3 * _steps.cpu_count() + 1
    work.close()
    assert len(started) <= len(taken) <= 3 * _steps.cpu_count() + 1


def test_images_are_resized_outside_the_network(tiny):
    large = np.random.default_rng(1).integers(0, 256, (3, 40, 24, 3), dtype=np.uint8)
    found = features.extract(tiny, large, engine="keras")
    np.testing.assert_array_equal(found, features.extract(tiny, data.resize(large, 16), engine="keras"))


def test_no_images(tiny, cache):
    found = features.extract(tiny, np.zeros((0, 16, 16, 3), np.uint8))
    assert found.shape == (0, 4)
    assert found.dtype == np.float32
    assert not files(cache)


def test_auto_takes_onnx_on_a_cpu(tiny, x, monkeypatch, ran):
    monkeypatch.setattr(features, "_on_accelerator", lambda: False)
    found = features.extract(tiny, x, cache=False)
    assert ran.engines == {"onnx"}
    np.testing.assert_array_equal(found, features.extract(tiny, x, engine="onnx", cache=False))


def test_auto_takes_keras_on_an_accelerator(tiny, x, monkeypatch, cache, ran):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0", "gpu:0"])
    found = features.extract(tiny, x, cache=False)
    assert ran.engines == {"keras"}
    np.testing.assert_array_equal(found, features.extract(tiny, x, engine="keras", cache=False))
    assert not files(cache)


def test_a_network_that_is_not_exported_runs_in_keras_and_that_is_remembered(tiny, x, no_export, cache, ran):
    exporters = len({"onnx", "openvino"} & set(features.available()))
    assert exporters
    found = features.extract(tiny, x)
    assert ran.engines == {"keras"}
    np.testing.assert_array_equal(found, features.extract(tiny, x, engine="keras"))
    assert n_entries() == 1  # both are the same thing
    features.extract(make_backbone(), noise(3, seed=1))  # as in the next process
    assert len(no_export) == exporters
    notes = files(cache, "onnx")
    assert len(notes) == exporters
    assert all(note.endswith(".failed") for note in notes)
    with pytest.raises(RuntimeError, match="NotImplementedError"):
        features.extract(tiny, x, engine="onnx")
    assert len(no_export) == exporters
    for _ in range(2):
        features.extract(tiny, x, cache=False)  # reads no note, and remembers as long as the process lives
    assert len(no_export) == 2 * exporters
    assert files(cache, "onnx") == notes


@pytest.mark.parametrize(
    "failure",
    [OSError(errno.ENOSPC, "No space left on device"), ImportError("This requires the tf2onnx module")],
)
def test_a_failure_of_the_machine_is_not_remembered(tiny, x, monkeypatch, cache, failure):
    def fail(*_, **__):
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "export", fail)
        with pytest.raises(type(failure), match=r"No space|requires"):
            features.extract(tiny, x, engine="onnx")
    assert not files(cache, "onnx")


def chained() -> RuntimeError:
    error = RuntimeError("the exporter did not start")
    error.__cause__ = ModuleNotFoundError("No module named 'tf2onnx'")
    return error


def test_a_package_that_is_missing_further_down_is_not_remembered(tiny, x, monkeypatch, cache):
    def fail(*_, **__):
        raise chained()

    monkeypatch.setattr(keras.Model, "export", fail)
    with pytest.raises(RuntimeError, match="did not start"):
        features.extract(tiny, x, engine="onnx")
    assert not files(cache, "onnx")


@pytest.mark.parametrize("change", ["a day", "the future", "versions", "deleted", "an older form", "damaged"])
def test_a_failure_is_forgotten(tiny, x, no_export, cache, monkeypatch, change):
    with pytest.raises(RuntimeError, match=r"cache clear.*\.failed"):
        features.extract(tiny, x, engine="onnx")
    (note,) = (cache / "onnx").glob("*.failed")
    with pytest.raises(RuntimeError, match=r"exported .*\.failed"):
        features.extract(tiny, x, engine="onnx")
    assert len(no_export) == 1
    now = note.stat().st_mtime
    if change == "a day":
        os.utime(note, (now - 86_401, now - 86_401))
    elif change == "the future":  # a clock that was wrong
        os.utime(note, (now + 90_000, now + 90_000))
    elif change == "versions":
        monkeypatch.setattr(_graphs.metadata, "version", lambda package: "99")
    elif change == "deleted":
        note.unlink()
    else:
        note.write_bytes(b"tiny cannot be exported" if change == "an older form" else b"\xff\xfe")
    with pytest.raises(RuntimeError, match="cannot be exported"):
        features.extract(tiny, x, engine="onnx")
    assert len(no_export) == 2


def test_a_graph_that_differs_from_keras_is_not_used(tiny, x, monkeypatch, cache):
    real = _onnx.session

    def wrong(path):
        run = real(path)
        return lambda images: run(images) * 1.001

    monkeypatch.setattr(_onnx, "session", wrong)
    with pytest.raises(RuntimeError, match=r"differs .*1\.0e-03"):
        features.extract(tiny, x, engine="onnx")
    assert not cache_folder.entries()
    assert not [name for name in files(cache) if name.endswith(".onnx")]


def test_a_changed_weight_is_seen_by_the_exported_graph(x):
    backbone = make_backbone(top=1e6)
    first = features.extract(backbone, x, engine="onnx")
    backbone.model.set_weights([2 * w for w in backbone.model.get_weights()])
    second = features.extract(backbone, x, engine="onnx")
    np.testing.assert_allclose(second, 2 * first, rtol=1e-4)


def test_an_altered_graph_is_made_again_with_a_warning(tiny, x, cache, caplog):
    first = features.extract(tiny, x, engine="onnx")
    for damage in (lambda b: b[: len(b) // 2], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b""):
        (graph,) = (cache / "onnx").glob("*.onnx")
        damaged = damage(graph.read_bytes())
        graph.write_bytes(damaged)
        caplog.clear()
        _graphs.forget()  # as in the next process
        other = noise(6)
        np.testing.assert_array_equal(features.extract(tiny, other, engine="onnx")[:5], first)
        shutil.rmtree(disk.folder())
        assert "is made again" in caplog.text
        assert [p.read_bytes() for p in (cache / "onnx").glob("*.onnx")] != [damaged]


# --- Eight bits ---


def test_eight_bits_are_close(lite, lite_cache):
    images, calibration = np.split(crops(100, 64), [20])
    full = features.extract(lite, images, engine="onnx")
    short = features.extract(lite, images, engine="onnx-int8", calibration=calibration)
    assert short.shape == full.shape
    assert short.dtype == np.float32
    cosine = (full * short).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(short, axis=1)
    assert np.median(cosine) > 0.95
    assert cosine.min() > 0.85
    assert relative(short, full) > 1e-4  # it is not the same graph


def test_eight_bits_need_calibration(tiny, x, cache):
    with pytest.raises(ValueError, match=r"calibration=.*x_train"):
        features.extract(tiny, x, engine="onnx-int8")
    with pytest.raises(ValueError, match="float64"):
        features.extract(tiny, x, engine="onnx-int8", calibration=x / 255)
    with pytest.raises(ValueError, match="holds no images"):
        features.extract(tiny, x, engine="onnx-int8", calibration=x[:0])
    assert not files(cache)


def test_other_calibration_images_are_another_entry_and_none_are_those_of_x(tiny, x, ran, monkeypatch):
    import onnxruntime.quantization

    real, seen = onnxruntime.quantization.quantize_static, []

    def spy(source, target, reader, **options):
        batches = list(iter(reader.get_next, None))
        seen.append(np.concatenate([images for batch in batches for images in batch.values()]))
        reader.batches = iter([images for batch in batches for images in batch.values()])
        return real(source, target, reader, **options)

    monkeypatch.setattr(onnxruntime.quantization, "quantize_static", spy)
    dark, bright = noise(200, 24, seed=1) // 4, noise(3, seed=2)
    found = [features.extract(tiny, x, engine="onnx-int8", calibration=c) for c in (dark, bright)]
    assert n_entries() == 3  # and one in float32, with which both were compared
    assert not np.array_equal(*found)  # another range of the activations
    resized = data.resize(dark, 16)
    assert len(seen[0]) == _onnx.CALIBRATION_IMAGES
    assert {image.tobytes() for image in seen[0].astype(np.uint8)} <= {image.tobytes() for image in resized}
    np.testing.assert_array_equal(seen[1], bright)
    # other images with a known calibration: no new graph
    features.extract(tiny, noise(4, seed=3), engine="onnx-int8", calibration=bright.copy())
    assert len(seen) == 2
    ran.clear()
    features.extract(tiny, x, engine="onnx-int8", calibration=dark.copy())
    assert not ran


# --- Taps ---


def test_several_depths(lite, lite_cache):
    taps = features.multi_taps(lite)
    assert taps == ("block3a_expand_relu", "block4a_expand_relu", "block6a_expand_relu", "last")
    sides = [lite.model.get_layer(name).output.shape[1] for name in taps[:-1]]
    assert sides == [16, 8, 4]  # of 64 pixels
    network = features.tapped(lite, taps, pooled=True)
    assert network.output_shape == (None, 144 + 240 + 672 + 1280)


def test_features_of_several_depths_are_the_means_of_the_maps():
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((64, 64, 3), name="image")
    for depth, filters in enumerate((2, 3, 4, 5), start=1):
        x = keras.layers.ZeroPadding2D(1, name=f"pad{depth}")(x)  # of a resolution of its own
        x = keras.layers.Conv2D(filters, 3, strides=2, name=f"conv{depth}")(x)
        x = keras.layers.ReLU(name=f"relu{depth}")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    backbone = Backbone("deep", 64, keras.Model(inputs, x), "random")
    assert features.multi_taps(backbone) == ("relu2", "relu3", "last")
    images = noise(4, 64)
    maps = keras.Model(inputs, [backbone.model.get_layer(name).output for name in ("relu2", "relu3")])
    means = [np.asarray(t).mean(axis=(1, 2)) for t in maps.predict(images, verbose=0)]
    expected = np.concatenate([*means, direct(backbone, images)], axis=1)
    assert expected.shape == (4, 3 + 4 + 5)
    for engine in ("keras", "onnx"):
        found = features.extract(backbone, images, "multi", engine=engine)
        assert relative(found, expected) < 1e-4
    listed = features.extract(backbone, images, ["relu2", "relu3", "last"], engine="keras")
    np.testing.assert_array_equal(listed, features.extract(backbone, images, "multi", engine="keras"))
    assert n_entries() == 2  # the same thing by other words


def test_last_is_the_default(tiny, x, ran):
    found = features.extract(tiny, x, engine="keras")
    for taps in ("last", ["last"], ("last",)):
        np.testing.assert_array_equal(features.extract(tiny, x, taps, engine="keras"), found)
    assert sum(ran) == len(x)


def test_taps_stand_side_by_side_in_the_order_asked_for(tiny, x):
    first = features.extract(tiny, x, ["conv", "last"], engine="keras")
    second = features.extract(tiny, x, ["last", "conv"], engine="keras")
    assert first.shape == second.shape == (5, 8)
    np.testing.assert_allclose(first, np.roll(second, 4, axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first[:, 4:], direct(tiny, x), rtol=1e-5, atol=1e-6)
    conv = keras.Model(tiny.model.input, tiny.model.get_layer("conv").output).predict(x, verbose=0)
    np.testing.assert_allclose(first[:, :4], conv.mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)


def test_a_tap_that_is_no_map_is_taken_as_it_is(tiny, x):
    found = features.extract(tiny, x, ["pool"], engine="keras")
    np.testing.assert_allclose(found, direct(tiny, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("taps", "message"),
    [
        (["conv", "block9", "last"], r"'block9'\. Its layers"),
        ([], "no taps in this list"),
        ("conv", "taps is .*not 'conv'"),
    ],
)
def test_taps_that_are_not_there(tiny, x, taps, message):
    with pytest.raises(ValueError, match=message):
        features.extract(tiny, x, taps)


def test_maps_in_half_precision(tiny, x):
    conv = keras.Model(tiny.model.input, tiny.model.get_layer("conv").output).predict(x, verbose=0)
    for cached in (True, False):
        found = features.extract(tiny, x, ["conv"], engine="keras", cache=cached, pooled=False)
        assert found.shape == (5, 8, 8, 4)
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, conv.astype(np.float16))
    by_onnx = features.extract(tiny, x, ["conv"], engine="onnx", pooled=False)
    assert by_onnx.dtype == np.float16
    np.testing.assert_allclose(by_onnx, conv, rtol=2e-3, atol=1e-3)
    again = features.extract(tiny, x, ["conv"], engine="keras", pooled=False)
    assert again.dtype == np.float16
    np.testing.assert_array_equal(again, conv.astype(np.float16))


@pytest.mark.parametrize("engine", ["keras", "onnx"])
def test_a_map_too_large_for_half_precision_is_refused(x, engine):
    backbone = make_backbone(scale=1e4, top=1e9)
    features.extract(backbone, x, ["relu"], engine=engine)
    with pytest.raises(ValueError, match="half precision"):
        features.extract(backbone, x, ["relu"], engine=engine, pooled=False)
    assert n_entries() == 1


def test_maps_of_one_tap_only(tiny, x):
    with pytest.raises(ValueError, match="one tap"):
        features.extract(tiny, x, ["conv", "last"], pooled=False)


# --- Images that stay on disk ---


@pytest.mark.parametrize("sizes", [((20, 16),), ((20, 16), (30, 40), (17, 17))])
def test_a_folder_gives_the_same_features_as_an_array(tiny, tmp_path, sizes):
    root = image_folder(tmp_path / "set", sizes)
    options = {} if len(sizes) == 1 else {"image_size": 24}
    lazy, eager = (data.load(root, lazy=lazy, **options) for lazy in (True, False))
    assert isinstance(lazy.x_train, data.ImageSequence)
    found = features.extract(tiny, lazy.x_train, engine="keras", batch_size=4)
    np.testing.assert_array_equal(found, features.extract(tiny, eager.x_train, engine="keras", batch_size=4))
    np.testing.assert_allclose(found, direct(tiny, eager.x_train), rtol=1e-5, atol=1e-6)


def test_a_folder_is_known_by_what_is_in_its_files(tiny, tmp_path, ran):
    root = image_folder(tmp_path / "set")
    ds = data.load(root, lazy=True)
    before = features.extract(tiny, ds.x_train, engine="keras")
    ran.clear()
    features.extract(tiny, data.load(root, lazy=True).x_train, engine="keras")
    assert not ran
    victim = root / ds.x_train._names[3]
    Image.fromarray(np.zeros((16, 20, 3), np.uint8)).save(victim)
    after = features.extract(tiny, ds.x_train, engine="keras")
    assert sum(ran) == len(ds.x_train)
    changed = (before != after).any(axis=1)
    assert changed.nonzero()[0].tolist() == [3]


def test_a_damaged_image_is_named(tiny, tmp_path):
    root = image_folder(tmp_path / "set")
    ds = data.load(root, lazy=True)
    name = ds.x_train._names[3]
    (root / name).write_bytes((root / name).read_bytes()[:100])
    with pytest.raises(data.DataError, match=name):
        features.extract(tiny, ds.x_train, engine="keras")


MEMORY = """
import keras
import numpy as np
from tlhelpers import data, features
from tlhelpers.backbones import Backbone

class Made(data.ImageSequence):
    "Images that are made when they are asked for."
    def __init__(self, n):
        self.shape = (n, 16, 16, 3)
    def __len__(self):
        return self.shape[0]
    def __getitem__(self, key):
        global highest
        highest = max(highest, anonymous())
        numbers = np.arange(len(self))[key]
        return np.repeat(numbers % 256, 16 * 16 * 3).astype(np.uint8).reshape(-1, 16, 16, 3)
    def digest(self):
        return str(len(self))

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("RssAnon"))

inputs = keras.Input((16, 16, 3))
x = keras.layers.Conv2D(256, 8, strides=8)(inputs)
backbone = Backbone("tiny", 16, keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)), "random")
for n in (20_000, 70_000):
    highest = 0
    found = features.extract(backbone, Made(n), engine="onnx")
    assert found.shape == (n, 256) and np.array_equal(found[0], found[256 * (n // 256 - 1)])
    print(max(highest, anonymous()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc/self/status on this system")
def test_memory_does_not_grow_with_the_number_of_images():
    """50,000 images more are 38 MB of pixels and 51 MB of features, of which 8 MB are held at a time."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    few, many = map(float, done.stdout.split())
    assert many - few < 20  # MiB


# --- The cache ---


@pytest.mark.parametrize("engine", ["onnx", "keras", "auto"])
def test_the_second_call_runs_no_network(tiny, x, ran, monkeypatch, engine):
    first = features.extract(tiny, x, engine=engine)
    assert sum(ran) == 5
    monkeypatch.setattr(keras.Model, "export", None)
    np.testing.assert_array_equal(features.extract(tiny, x.copy(), engine=engine, batch_size=3), first)
    assert sum(ran) == 5
    features.extract(tiny, x, engine=engine, cache=False)
    assert sum(ran) == 10


def test_the_second_call_with_auto_needs_no_graph(tiny, x, monkeypatch, ran):
    monkeypatch.setattr(features, "_on_accelerator", lambda: False)
    first = features.extract(tiny, x)
    _graphs.forget()
    monkeypatch.setattr(_onnx, "graph", None)
    np.testing.assert_array_equal(features.extract(tiny, x), first)
    assert ran.engines == {"onnx"}


def test_a_backbone_that_is_made_again_finds_its_features(tiny, x, ran):
    first = features.extract(tiny, x, engine="keras")
    np.testing.assert_array_equal(features.extract(make_backbone(), x, engine="keras"), first)
    assert sum(ran) == 5


def test_a_backbone_whose_layers_keras_numbers_finds_its_features(x, ran, cache):
    (one, conv), (two, other) = make_numbered(), make_numbered()
    assert conv != other
    for engine in ("keras", "onnx"):
        for taps in ("last", "conv"):
            first, second = (
                features.extract(backbone, x, taps if taps == "last" else [name], engine=engine)
                for backbone, name in ((one, conv), (two, other))
            )
            np.testing.assert_array_equal(first, second)
    assert n_entries() == 4
    assert sum(ran) == 4 * 5
    assert len(files(cache, "onnx")) == 2


def test_freezing_changes_no_feature(x, ran):
    backbone = make_backbone()
    features.extract(backbone, x, engine="keras")
    finetune.freeze(backbone, blocks=("conv",))
    features.extract(backbone, x, engine="keras")
    finetune.build_classifier(backbone, 2)
    features.extract(backbone, x, engine="keras")
    assert sum(ran) == 5


def test_without_the_cache_nothing_is_kept(tiny, x, cache):
    features.extract(tiny, x, engine="keras", cache=False)
    assert not files(cache)
    features.extract(tiny, x, engine="onnx", cache=False)
    assert not files(cache)


def test_any_change_has_an_entry_of_its_own(tiny, x):
    features.extract(tiny, x, engine="keras")
    count = 1
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
        (tiny, x[:, :, ::-1]),
        (tiny, x.reshape(5, 8, 32, 3)),  # the same bytes
        (other_weights, x),
        (make_backbone(size=20), x),
        (make_backbone(name="other"), x),
        (make_backbone(scale=1 / 64), x),  # the same weights
        (make_backbone(top=0.5), x),
    ):
        found = features.extract(backbone, images, engine="keras")
        np.testing.assert_allclose(found, direct(backbone, images), rtol=1e-5, atol=1e-6)
        count += 1
        assert n_entries() == count


def test_any_other_way_has_an_entry_of_its_own(tiny, x, monkeypatch):
    ways = [
        {"engine": "keras"},
        {"engine": "onnx"},
        {"engine": "onnx-int8", "calibration": x},
        {"engine": "onnx-int8", "calibration": x[:2]},
        {"engine": "keras", "taps": ["conv"]},
        {"engine": "keras", "taps": ["relu"]},
        {"engine": "keras", "taps": ["relu", "last"]},
        {"engine": "keras", "taps": ["last", "relu"]},
        {"engine": "keras", "taps": ["conv"], "pooled": False},
        {"engine": "keras", "taps": ["relu"], "pooled": False},
    ]
    for count, way in enumerate(ways, start=1):
        features.extract(tiny, x, **way)
        assert n_entries() == count
    for module, name in ((_key, "FORMAT"), (importlib.metadata, "version")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, 99 if name == "FORMAT" else lambda library: "99.0")
            features.extract(tiny, x, engine="keras")
            count += 1
            assert n_entries() == count


def test_the_features_can_be_written_to(tiny, x):
    first = features.extract(tiny, x, engine="keras")
    expected = first.copy()
    first[:] = 0
    second = features.extract(tiny, x, engine="keras")
    np.testing.assert_array_equal(second, expected)
    second += 1
    np.testing.assert_array_equal(features.extract(tiny, x, engine="keras"), expected)


@pytest.mark.parametrize("engine", ["keras", "auto"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda npy, note: npy.write_bytes(npy.read_bytes()[:-3]),
        lambda npy, note: npy.write_bytes(npy.read_bytes()[:-1] + b"\x7f"),
        lambda npy, note: npy.unlink(),
        lambda npy, note: note.unlink(),
    ],
)
def test_damaged_features_are_computed_again_with_a_warning(
    tiny, x, ran, caplog, damage, engine, monkeypatch
):
    monkeypatch.setattr(features, "_on_accelerator", lambda: True)
    first = features.extract(tiny, x, engine=engine).copy()
    (entry,) = cache_folder.entries()
    damage(entry.path, entry.path.with_suffix(".json"))
    with caplog.at_level(logging.WARNING):
        found = features.extract(tiny, x, engine=engine)
    assert "computed again" in caplog.text
    assert sum(ran) == 10
    np.testing.assert_array_equal(found, first)
    features.extract(tiny, x, engine=engine)
    assert sum(ran) == 10
    assert n_entries() == 1


# --- Stopped runs ---


@pytest.fixture
def small_parts(monkeypatch):
    """Two rows of the tiny backbone in each part."""
    monkeypatch.setattr(features, "_PART_BYTES", 2 * 4 * 4)


def stop_after(monkeypatch, steps: int, error: type[BaseException]) -> None:
    """Stops a network in its next step but ``steps``."""
    real = features._runner

    def runner(*arguments):
        run, left = real(*arguments), iter(range(steps))

        def stopped(images):
            if next(left, None) is None:
                raise error("stopped")
            return run(images)

        return stopped

    monkeypatch.setattr(features, "_runner", runner)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize(("steps", "left"), [(0, 9), (1, 7), (3, 3), (4, 1)])
def test_a_stopped_run_goes_on_where_it_was(tiny, monkeypatch, small_parts, ran, error, steps, left):
    x = noise(9)
    with monkeypatch.context() as patch:
        stop_after(patch, steps, error)
        with pytest.raises(error, match="stopped"):
            features.extract(tiny, x, engine="keras", batch_size=2)
    assert not cache_folder.entries()
    ran.clear()
    found = features.extract(tiny, x, engine="keras", batch_size=2)
    assert sum(ran) == left
    np.testing.assert_allclose(found, direct(tiny, x), rtol=1e-5, atol=1e-6)
    assert n_entries() == 1


def test_a_stopped_run_goes_on_with_steps_of_another_size(tiny, monkeypatch, small_parts, ran):
    x = noise(9)
    with monkeypatch.context() as patch:
        stop_after(patch, 2, RuntimeError)
        with pytest.raises(RuntimeError, match="stopped"):
            features.extract(tiny, x, engine="keras", batch_size=2)
    ran.clear()
    found = features.extract(tiny, x, engine="keras", batch_size=3)
    assert ran == [3, 2]
    np.testing.assert_allclose(found, direct(tiny, x), rtol=1e-5, atol=1e-6)


def test_a_damaged_part_is_computed_again(tiny, monkeypatch, small_parts, ran):
    x = noise(9)
    with monkeypatch.context() as patch:
        stop_after(patch, 4, RuntimeError)
        with pytest.raises(RuntimeError, match="stopped"):
            features.extract(tiny, x, engine="keras", batch_size=2)
    parts = sorted(disk.folder().glob("*.parts/*.npy"))
    assert len(parts) == 4
    parts[1].write_bytes(parts[1].read_bytes()[:-1] + b"\x7f")
    ran.clear()
    found = features.extract(tiny, x, engine="keras", batch_size=2)
    assert sum(ran) == 7
    np.testing.assert_allclose(found, direct(tiny, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("place", ["part", "end"])
def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tiny, x, monkeypatch, cache, place):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if place == "part":
            patch.setattr(np, "save", full)
        else:
            patch.setattr(np.lib.format, "write_array_header_1_0", full)
        with pytest.raises(OSError, match=r"disk is full.*cache=False"):
            features.extract(tiny, x, engine="keras")
        assert not files(cache, "features")
        assert features.extract(tiny, x, engine="keras", cache=False).shape == (5, 4)  # as the message says
    assert features.extract(tiny, x, engine="keras").shape == (5, 4)
    assert n_entries() == 1


PROCESS = """
import sys
import keras
import numpy as np
from tlhelpers import features
from tlhelpers import cache
from tlhelpers.backbones import Backbone

keras.utils.set_random_seed(0)
inputs = keras.Input((16, 16, 3))
x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
backbone = Backbone("tiny", 16, keras.Model(inputs, x, name="tiny"), "random")
x = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)

def say(text):
    print(text, flush=True)
    sys.stdin.readline()

count = 0
real_lock, real_runner = cache.lock, features._runner

def lock(key):
    say("before the lock")
    return real_lock(key)

def runner(*arguments):
    run = real_runner(*arguments)
    def counted(images):
        global count
        if count == 0:
            say("running")
        count += len(images)
        return run(images)
    return counted

cache.lock, features._runner = lock, runner
found = features.extract(backbone, x, engine="keras", batch_size=8)
print(count, float(np.abs(found - backbone.model.predict(x, verbose=0)).max()), flush=True)
"""


def test_two_processes_compute_once():
    """While the first one computes, the second one waits, and then reads."""
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS], stdin=-1, stdout=-1, text=True) for _ in range(2)
    ]

    def go(process):
        process.stdin.write("\n")
        process.stdin.flush()

    try:
        first, second = processes
        for process in processes:
            assert process.stdout.readline() == "before the lock\n"
        go(first)
        assert first.stdout.readline() == "running\n"  # it holds the lock
        go(second)
        go(first)
        answers = [process.communicate("\n\n", timeout=120)[0].split() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [int(count) for count, _ in answers] == [40, 0]
    assert all(float(error) < 1e-3 for _, error in answers)
    assert n_entries() == 1


# --- Progress ---


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("terminal", "ci", "n", "shown"),
    [(True, "", 2000, True), (False, "", 2000, False), (True, "true", 2000, False), (True, "", 1999, False)],
)
def test_a_bar_for_long_work_on_a_terminal_alone(tiny, monkeypatch, terminal, ci, n, shown):
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("TERM", "xterm")
    for name in ("TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    features.extract(tiny, noise(n), engine="keras", cache=False)
    assert ("features of tiny" in stream.getvalue()) == shown
    assert shown or not stream.getvalue()


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
    with pytest.raises(ValueError, match=rf"\(n, h, w, 3\).*this is {found}"):
        features.extract(tiny, images)


def test_an_unknown_engine(tiny, x):
    with pytest.raises(ValueError, match=r"'torch'.*'onnx-int8'"):
        features.extract(tiny, x, engine="torch")
