"""What the tests of the auditor share: real crops, small networks that look pretrained, heads, one audit."""

import keras
import numpy as np
from keras import layers
from PIL import Image
from sklearn.datasets import load_sample_images

from tlhelpers.audit import _checks, _training

LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
PHOTOS = load_sample_images().images


def photos(n: int, size: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Crops of two photographs in turns, and which of them."""
    rng = np.random.default_rng(seed)
    images = []
    for i in range(n):
        photo = PHOTOS[i % 2]
        top, left = (rng.integers(0, side - 160) for side in photo.shape[:2])
        crop = Image.fromarray(photo[top : top + 160, left : left + 160])
        images.append(np.array(crop.resize((size, size))))
    return np.stack(images), np.arange(n) % 2


def pretend(network: keras.Model) -> keras.Model:
    """Gives a network statistics, scales and biases that are no longer those of a new one."""
    rng = np.random.default_rng(0)
    for weight in network.weights:
        if weight.name in ("moving_mean", "beta", "bias"):
            weight.assign(rng.normal(0, 0.02, weight.shape))
        if weight.name in ("moving_variance", "gamma"):
            weight.assign(rng.uniform(0.8, 1.2, weight.shape))
    return network


def unknown(trainable: bool = False, size: int = 32) -> keras.Model:
    """A network of one's own, of no known family."""
    image = keras.Input((size, size, 3))
    x = image
    for filters in (8, 12):
        x = layers.Conv2D(filters, 3, strides=2)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    network = pretend(keras.Model(image, x, name="own"))
    network.trainable = trainable
    return network


def known(trainable: bool = False, looks_pretrained: bool = True) -> keras.Model:
    """A small MobileNetV2 as Keras has it: it expects -1 to 1."""
    make = keras.applications.MobileNetV2
    network = make(include_top=False, weights=None, input_shape=(32, 32, 3), alpha=0.35)
    network = pretend(network) if looks_pretrained else network
    network.trainable = trainable
    return network


def scaled(x):
    """What MobileNetV2 expects."""
    return layers.Rescaling(1 / 127.5, -1)(x)


def head(base: keras.Model, n: int = 2, end: str | None = None, before=scaled, **call) -> keras.Model:
    """The classifier of the guides."""
    image = keras.Input(base.input_shape[1:])
    features = layers.GlobalAveragePooling2D()(base(before(image) if before else image, **call))
    return keras.Model(image, layers.Dense(n, activation=end, name="head")(features))


def compiled(model: keras.Model, loss=LOGITS, optimizer=None, metrics=("accuracy",)) -> keras.Model:
    """Compiled as the guides do."""
    model.compile(optimizer or keras.optimizers.Adam(1e-3), loss, metrics=list(metrics))
    return model


def codes_with_and_without(
    detector: str, model: keras.Model, *given, base=None, monkeypatch
) -> tuple[set[str], set[str], list[str]]:
    """Audits once; returns the codes, those with a detector disabled, and what could not be looked at."""
    unchecked: list[str] = []
    facts = _checks.gather(model, (*given, None, None, None)[:3], base, unchecked)
    assert facts is not None
    found = []
    with _training.restored(model):
        _checks._try_step(facts, unchecked)
        for detectors in (_checks.DETECTORS, tuple(d for d in _checks.DETECTORS if d.__name__ != detector)):
            monkeypatch.setattr(_checks, "DETECTORS", detectors)
            facts.findings.clear()
            _checks.look(facts, unchecked)
            found.append({f.code for f in facts.findings if f.severity != "note"})
    assert len(_checks.DETECTORS) > 20
    return found[0], found[1], [line for line in unchecked if "could not be" in line or "stops with" in line]
