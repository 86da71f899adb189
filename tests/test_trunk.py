"""A frozen trunk that runs once: training above it is training the whole."""

import dataclasses
import importlib

import keras
import numpy as np
import pytest
from PIL import Image

from tiny import SIZE, images, make_backbone, make_dataset, moved, weights
from tlhelpers import backbones, data, features, finetune, recipes, trunk
from tlhelpers.backbones import Backbone
from tools.numbers.provenance import ROOT


@pytest.fixture
def by_keras(monkeypatch, tmp_path):
    """An empty cache, and features by Keras: nothing has to be exported."""
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(features, "_on_accelerator", lambda: True)


FLIP = keras.layers.RandomFlip("horizontal")


def classifier(**options) -> tuple[keras.Model, Backbone]:
    """A classifier whose first block is frozen; the same weights each time."""
    backbone = make_backbone()
    keras.utils.set_random_seed(5)
    model = finetune.build_classifier(backbone, 3, **options)
    finetune.freeze(backbone, blocks=("block1",))
    return model, backbone


@pytest.mark.usefixtures("by_keras")
def test_training_with_a_cached_trunk_is_training_the_whole():
    ds = make_dataset()
    (whole, _), (model, _) = classifier(), classifier()
    before = weights(model)
    recipe = recipes.Recipe(epochs=12, learning_rate=0.01, batch_size=24)  # one step an epoch: no order
    expected = finetune.fine_tune(whole, ds, recipe).history
    found = finetune.fine_tune(model, ds, recipe, cache=True).history
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-3)
    changed = {"head/kernel", "head/bias", "block2_conv/kernel", "block2_conv/bias"}
    assert moved(before, model) == changed == moved(before, whole)  # the trunk, and all statistics, stay
    for path in changed:
        a, b = weights(model)[path], weights(whole)[path]
        assert np.abs(a - b).max() < 0.05 * np.abs(b - before[path]).max()
    x = images(9)
    np.testing.assert_allclose(model.predict(x, verbose=0), whole.predict(x, verbose=0), atol=0.01)
    for network in (model, whole):  # both are compiled: they can be evaluated, and trained on
        assert len(network.evaluate(ds.x_val, ds.y_val, verbose=0)) == 2


@pytest.mark.usefixtures("by_keras")
def test_the_part_above_and_its_activations():
    ds = make_dataset(size=12)
    model, backbone = classifier(dropout=0.5)
    top, cached = trunk.above(model, ds)
    below = keras.Model(backbone.model.input, backbone.model.get_layer("block1_relu").output)
    for name, n in (("x_train", 24), ("x_val", 6)):
        found = getattr(cached, name)
        assert found.shape == (n, 1, 4, 4, 4)
        assert found.dtype == np.float16
        expected = below.predict(data.resize(getattr(ds, name), SIZE), verbose=0)
        np.testing.assert_array_equal(found[:, 0], expected.astype(np.float16))
    np.testing.assert_array_equal(cached.y_train, ds.y_train)
    assert cached.x_test is ds.x_test
    assert model.get_layer("dropout") in top.layers
    assert model.get_layer("head") in top.layers
    np.testing.assert_allclose(
        top.predict(cached.x_val, verbose=0), model.predict(data.resize(ds.x_val, SIZE), verbose=0), atol=1e-2
    )


@pytest.mark.usefixtures("by_keras")
def test_a_cached_trunk_may_be_cut_again():
    """As in gradual unfreezing: less of the backbone is frozen the second time."""
    ds = make_dataset()
    model, backbone = classifier()
    fingerprint = backbone.fingerprint()
    finetune.freeze(backbone, blocks=("block1", "block2"))
    with pytest.raises(ValueError, match="Every layer"):
        trunk.above(model, ds)
    finetune.freeze(backbone, blocks=("block1",))
    for _ in range(2):
        top, cached = trunk.above(model, ds)
        np.testing.assert_allclose(
            top.predict(cached.x_val, verbose=0), model.predict(ds.x_val, verbose=0), atol=1e-2
        )
    assert backbone.fingerprint() == fingerprint


@pytest.mark.usefixtures("by_keras")
@pytest.mark.parametrize("flip", [FLIP, keras.Sequential([keras.Sequential([FLIP])])])
def test_flips_are_computed_and_drawn(flip):
    ds = make_dataset()
    model, _ = classifier(augmentation=flip)
    top, cached = trunk.above(model, ds)
    plain = trunk.above(classifier()[0], ds)[1]
    assert cached.x_train.shape == (24, 2, 4, 4, 4)
    assert cached.x_val.shape == (6, 1, 4, 4, 4)
    np.testing.assert_array_equal(cached.x_train[:, :1], plain.x_train)
    mirrored = dataclasses.replace(ds, x_train=ds.x_train[:, :, ::-1])
    np.testing.assert_array_equal(cached.x_train[:, 1:], trunk.above(classifier()[0], mirrored)[1].x_train)
    assert not np.array_equal(cached.x_train[:, 0], cached.x_train[:, 1])
    assert not any(isinstance(layer, keras.layers.RandomFlip) for layer in top.layers)
    recipe = recipes.Recipe(epochs=2, learning_rate=0.01, batch_size=8)
    history = finetune.fine_tune(model, ds, recipe, cache=True)
    assert np.isfinite(history.history["val_loss"]).all()


@pytest.mark.usefixtures("by_keras")
def test_other_augmentation_cannot_pass_through_a_cache():
    """It would train without it, in silence."""
    ds, recipe = make_dataset(), recipes.Recipe(epochs=1)
    for layer in (keras.layers.RandomFlip("vertical"), keras.layers.RandomRotation(0.1)):
        model, _ = classifier(augmentation=keras.Sequential([FLIP, layer]))
        with pytest.raises(ValueError, match=f"{layer.name}.*cache=False"):
            finetune.fine_tune(model, ds, recipe, cache=True)


@pytest.mark.usefixtures("by_keras")
def test_a_network_without_a_backbone_has_no_trunk():
    model = finetune.small_cnn(SIZE, 3)
    with pytest.raises(ValueError, match="cache=False"):
        finetune.fine_tune(model, make_dataset(), recipes.Recipe(epochs=1), cache=True)


@pytest.mark.usefixtures("by_keras")
def test_flips_of_images_that_stay_on_disk(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for kind in ("one", "two"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(
                tmp_path / "set" / kind / f"{i}.png"
            )
    backbone = make_backbone()
    model = finetune.build_classifier(backbone, 2, augmentation=FLIP)
    finetune.freeze(backbone, blocks="block1")
    found = []
    for lazy in (True, False):
        monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path / f"cache{lazy}"))
        found.append(trunk.above(model, data.load(tmp_path / "set", lazy=lazy))[1].x_train)
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("shape", [(2, 3, 1), (5,)])
def test_one_of_the_views_is_drawn_while_training_and_the_first_else(shape):
    views = np.random.default_rng(0).normal(size=(200, 3, *shape)).astype(np.float32)
    layer = trunk.RandomView()
    for found in (layer(views), layer(views, training=False)):
        np.testing.assert_array_equal(found, views[:, 0])
    keras.utils.set_random_seed(0)
    draws = []
    for _ in range(2):
        found = np.asarray(layer(views, training=True))
        assert found.shape == (200, *shape)
        same = (found[:, None] == views).reshape(200, 3, -1).all(axis=2)
        assert (same.sum(axis=1) == 1).all()  # each is exactly one of its views
        assert (same.sum(axis=0) > 40).all()  # of 200, each view about a third
        draws.append(same.argmax(axis=1))
    assert not np.array_equal(*draws)  # other ones in the next step
    np.testing.assert_array_equal(layer(views[:, :1], training=True), views[:, 0])


@pytest.mark.usefixtures("by_keras")
def test_a_trunk_that_ends_in_features():
    """Only the scores of ImageNet are trained on: what is below them is a vector."""
    backbone = make_backbone()
    outputs = keras.layers.Dense(3, name="logits")(backbone.model.output)
    backbone = Backbone("tiny", SIZE, keras.Model(backbone.model.input, outputs, name="tiny"), "random")
    model = finetune.build_classifier(backbone, 3, augmentation=FLIP)
    finetune.freeze(backbone, blocks=("block",))
    ds = make_dataset()
    top, cached = trunk.above(model, ds)
    assert cached.x_train.shape == (24, 2, 4)
    np.testing.assert_allclose(
        top.predict(cached.x_val, verbose=0), model.predict(ds.x_val, verbose=0), atol=1e-2
    )
    finetune.fine_tune(model, ds, recipes.Recipe(epochs=1, learning_rate=0.01), cache=True)


@pytest.mark.usefixtures("by_keras")
def test_nothing_or_everything_frozen():
    model, backbone = classifier()
    finetune.freeze(backbone)
    with pytest.raises(ValueError, match="Every layer"):
        trunk.above(model, make_dataset())
    finetune.freeze_batchnorm(backbone)
    with pytest.raises(ValueError, match=r"call finetune\.freeze"):
        trunk.above(model, make_dataset())


def check_cut(backbone: Backbone, model: keras.Model, blocks: tuple[str, ...], cut: str) -> None:
    """The trunk and the part above give what the whole gives."""
    finetune.freeze(backbone, blocks=blocks)
    assert trunk._cut(backbone.model) == cut
    ds = make_dataset(backbone.image_size)
    ds = dataclasses.replace(ds, x_train=ds.x_train[:2], y_train=ds.y_train[:2], x_val=ds.x_val[:3])
    top, cached = trunk.above(model, ds)
    found, expected = np.asarray(top(cached.x_val)), np.asarray(model(ds.x_val))
    assert np.ptp(expected, axis=0).max() > 0
    assert np.abs(found - expected).max() < 1e-2 * np.abs(expected).max()
    assert np.isfinite(found).all()


LITE_CUTS = {
    ("stem", "block1", "block2", "block3"): "block3b_add",
    ("stem", "block1", "block2", "block3", "block4a"): "block4a_project_bn",
    # the shortcut into block4c starts below what is frozen of it
    ("stem", "block1", "block2", "block3", "block4a", "block4b", "block4c_expand"): "block4b_add",
    ("stem", "block"): "block7a_project_bn",
}


@pytest.fixture
def step_by_step(by_keras, monkeypatch):
    """Features without a graph: building one takes longer than computing a few images."""
    monkeypatch.setattr(
        features, "_runner", lambda engine, network, *_: lambda x: np.asarray(network.model(x))
    )


@pytest.mark.usefixtures("step_by_step")
def test_cuts_through_a_network_with_shortcuts():
    backbone = backbones.load("efficientnet_lite0", image_size=32)
    model = finetune.build_classifier(backbone, 3)
    for blocks, cut in LITE_CUTS.items():
        check_cut(backbone, model, blocks, cut)
    finetune.freeze_batchnorm(backbone)
    with pytest.raises(ValueError, match="No layer is frozen"):  # what prepares the pixels is no trunk
        trunk._cut(backbone.model)


@pytest.mark.usefixtures("step_by_step")
def test_cuts_through_resnet50():
    keras.utils.set_random_seed(0)
    backbone = backbones.load("resnet50", image_size=32, weights=None)
    model = finetune.build_classifier(backbone, 3)
    check_cut(backbone, model, ("conv1", "conv2", "conv3"), "conv3_block4_out")
    check_cut(backbone, model, ("conv1", "conv2", "conv3_block1", "conv3_block2_1"), "conv3_block1_out")


@pytest.mark.usefixtures("step_by_step")
def test_a_cut_sees_steps_that_are_no_layers():
    """A sum written with a plus is an operation, and what passes it may pass the cut."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", name="stem")(inputs / 255.0)
    for block in ("block1", "block2", "block3"):
        x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name=f"{block}_conv")(x) + x
        x = keras.layers.Activation("tanh", name=f"{block}_tanh")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    backbone = Backbone("sums", SIZE, keras.Model(inputs, x, name="sums"), "random")
    model = finetune.build_classifier(backbone, 3)
    check_cut(backbone, model, ("stem", "block1"), "block1_tanh")
    check_cut(backbone, model, ("stem", "block1", "block2"), "block2_tanh")


@pytest.mark.parametrize("size", [64, 80])
def test_the_part_above_as_matrix_products_is_the_network(monkeypatch, size):
    """`benchmarks/record.py` trains it so; strides and edges of maps with odd sides are right, too."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    record = importlib.import_module("record")
    network = backbones.load(image_size=size).model
    cut = network.get_layer("block4c_add").output
    x = 3 * np.random.default_rng(0).standard_normal((3, *cut.shape[1:])).astype(np.float32)
    run, variables = record.above(network, "block4c_add")
    expected = np.asarray(keras.Model(cut, network.output)(x))
    assert np.ptp(expected, axis=0).max() > 1e-3
    np.testing.assert_allclose(run(x), expected, rtol=1e-3, atol=1e-5)
    trained = [layer.name for layer in network.layers if layer.name.endswith("conv")]
    assert len(variables) == len(trained) - trained.index("block4c_project_conv") - 1


def test_each_epoch_of_the_record_takes_the_other_view(monkeypatch):
    """Of an image and its mirror image, which stand behind all images."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    picked = importlib.import_module("record").rows(10, 5)
    first, second = (np.concatenate([next(picked), next(picked)]) for _ in range(2))
    assert sorted([*first, *second]) == list(range(20))
    assert sorted(first % 10) == list(range(10))
