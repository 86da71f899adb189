"""Behaviour of tlhelpers.backbones.kerashub. KerasHub is an extra; each network has random weights."""

import importlib
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tlhelpers import backbones, features, finetune
from tlhelpers.backbones import kerashub
from tlhelpers.extras import MissingExtraError

SCALE, OFFSET = [1 / 50, 1 / 60, 1 / 70], [-2.0, -1.9, -1.8]


def noise(n: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def hub():
    """KerasHub, an extra that CI does not install."""
    return pytest.importorskip("keras_hub", reason="keras_hub is not installed")


def preset(hub, folder: Path, kind: str, size: int = 32) -> tuple[Path, keras.Model]:
    """Save a small network with random weights as KerasHub saves its own; return its folder and itself."""
    shape = {"image_shape": (size, size, 3)}
    attention = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16}
    scaling = {"scale": SCALE, "offset": OFFSET}
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
    backbone = kerashub.load(folder)
    x = noise(3, 32)
    prepared = x.astype(np.float32) * np.float32(SCALE) + np.float32(OFFSET)
    tower = getattr(network, "vision_encoder", network)
    out = np.asarray(tower({"images": prepared} if isinstance(tower.input, dict) else prepared))
    want = out[:, 0] if out.ndim == 3 else out.mean(axis=(1, 2))
    np.testing.assert_allclose(np.asarray(backbone.model(x)), want, rtol=1e-4, atol=1e-5)
    assert backbone.image_size == 32
    assert features.extract(backbone, x, cache=False).shape == want.shape
    np.testing.assert_allclose(features.extract(backbone, x, cache=False), want, rtol=1e-2, atol=1e-3)
    other = kerashub.load(folder, pretrained=False)
    assert other.weights == "random"
    assert not np.allclose(np.asarray(other.model(x)), want)


def test_a_preset_of_kerashub_trains_and_freezes(hub, tmp_path):
    folder, _ = preset(hub, tmp_path, "vit")
    backbone = kerashub.load(folder)
    finetune.freeze(backbone, up_to="vit_patching_and_embedding")
    frozen = sum(int(np.prod(w.shape)) for w in backbone.model.non_trainable_weights)
    assert 0 < frozen < backbone.model.count_params()
    model = finetune.build_classifier(backbone, 3)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(noise(6, 32), np.arange(6) % 3, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(history).all()


def test_what_a_preset_of_kerashub_cannot_do_is_said(hub, tmp_path):
    folder, _ = preset(hub, tmp_path / "vit", "vit")
    with pytest.raises(ValueError, match="64 pixels"):  # its positions are for 32
        kerashub.load(folder, image_size=64)
    with pytest.raises(ValueError, match="KerasHub"):
        kerashub.load("vit_base_patch16_225")
    with pytest.raises(backbones.WeightsUnavailableError, match="online"):
        kerashub.load("vit_base_patch16_224_imagenet")
    text = hub.models.BertBackbone(50, 2, 2, 16, 32, max_sequence_length=8)
    text.save_to_preset(str(tmp_path / "bert"))
    with pytest.raises(ValueError, match="ImageConverter"):
        kerashub.load(str(tmp_path / "bert"))


def test_without_kerashub_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(MissingExtraError, match="hub"):
        kerashub.load("dinov2_small")
