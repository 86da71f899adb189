"""Recipes do what they say: rates by layer, gradual unfreezing, L2-SP, averaging.

Everything here is Keras on any backend: `KERAS_BACKEND=jax` runs this file as well.
"""

import dataclasses
import itertools

import keras
import numpy as np
import pytest

from audit_models import pretend
from tiny import make_backbone, make_dataset, moved, weights
from tlhelpers import audit, data, finetune, layers, recipes, trunk
from tlhelpers.recipes import Recipe


def classifier(up_to: str | None = None) -> keras.Model:
    """A classifier of two blocks with the same weights each time; all but BatchNorm trainable."""
    backbone = make_backbone()
    keras.utils.set_random_seed(3)
    model = finetune.build_classifier(backbone, 3)
    if up_to is None:
        finetune.freeze_batchnorm(backbone)
    else:
        finetune.freeze(backbone, up_to=up_to)
    return model


def one_step(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> dict[str, np.ndarray]:
    """Changes of the weights, by path, in one step on all images at once."""
    ds = make_dataset()
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = weights(model)
    model.fit(ds.x_train.astype("float32"), ds.y_train, batch_size=24, epochs=1, verbose=0)
    return {path: np.array(w) - before[path] for path, w in weights(model).items()}


def rms(change: np.ndarray) -> float:
    return float(np.sqrt(np.mean(change**2)))


# --- Recipes as data ---


def test_recipes_print_and_compare():
    recipe = Recipe(epochs=3, learning_rate=1e-3, rates={"block1": 0.1})
    assert recipe == Recipe(epochs=3, learning_rate=1e-3, rates={"block1": 0.1})
    assert recipe != dataclasses.replace(recipe, l2_sp=0.1)
    assert "rates={'block1': 0.1}" in repr(recipe)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"learning_rate": "0.1"}, "learning_rate"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"warmup": 1.2}, "warmup"),
        ({"average": 1.0}, "average"),
        ({"optimizer": "adamm"}, "adamm"),
        ({"l2_sp": -1}, "l2_sp"),
        ({"weight_decay": float("nan")}, "weight_decay"),
        ({"rates": {"block1": -0.1}}, "block1"),
        ({"opens": {"block1": -1}}, "block1"),
    ],
)
def test_impossible_settings_are_named(wrong, word):
    with pytest.raises((TypeError, ValueError), match=word):
        Recipe(**wrong)


def test_a_name_that_fits_no_layer_is_an_error():
    for recipe in (Recipe(rates={"blok1": 0.1}), Recipe(opens={"blok1": 1})):
        with pytest.raises(ValueError, match=r"blok1.*block1_conv"):
            finetune.fine_tune(classifier(), make_dataset(), recipe)


def test_a_number_in_a_name_matches_as_a_whole_and_the_longer_name_counts():
    assert layers.begins("block1_conv", "block1")
    assert layers.begins("block1_conv", "block")
    assert not layers.begins("block10_conv", "block1")
    table = {"block": 1.0, "block1": 2.0}
    assert recipes._of(table, "block1_conv", 0.0) == 2.0
    assert recipes._of(table, "block2_conv", 0.0) == 1.0
    assert recipes._of(table, "head", 0.0) == 0.0


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (Recipe(epochs=1, learning_rate=0.1, warmup=0, cosine=False), [0.1] * 10),
        (Recipe(epochs=1, learning_rate=0.1, warmup=0.4, cosine=False), [0.02, 0.04, 0.06, 0.08] + [0.1] * 6),
        (
            Recipe(epochs=1, learning_rate=0.1, warmup=0),
            [0.05 * (1 + np.cos(np.pi * k / 10)) for k in range(10)],
        ),
    ],
)
def test_the_schedule_is_the_one_that_the_recipe_says(recipe, expected):
    found = recipes.schedule(recipe, 10)
    rates = [float(found(k)) if callable(found) else found for k in range(10)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


# --- Rates by layer ---


@pytest.mark.parametrize("make", [keras.optimizers.SGD, keras.optimizers.Adam, keras.optimizers.RMSprop])
def test_each_layer_moves_in_the_stated_ratio(make):
    plain = one_step(make(0.01), classifier())
    model = classifier()
    optimizer = make(0.01)
    recipes.set_layer_rates(optimizer, model, {"block1": 0.1, "block2": 0.5, "block2_bn": 3.0})
    found = one_step(optimizer, model)
    checked = 0
    for path, change in plain.items():
        factor = 0.1 if "block1_conv" in path else 0.5 if "block2_conv" in path else 1.0
        np.testing.assert_allclose(found[path], factor * change, rtol=2e-3, atol=1e-7)
        checked += "_conv" in path or "head" in path
        assert "_bn" not in path or not change.any()  # frozen, whatever rate is written for it
    assert checked == 6


def test_a_rate_of_zero_is_exactly_frozen():
    model = classifier()
    before = weights(model)
    finetune.fine_tune(
        model,
        make_dataset(),
        Recipe(epochs=2, learning_rate=0.1, batch_size=8, rates={"block1": 0}, weight_decay=0.1),
    )
    assert moved(before, model) == {path for path in before if "block2_conv" in path or "head" in path}


def test_scaled_gradients_would_do_nothing_under_adam():
    """The reason for `set_layer_rates`."""
    scaled = keras.optimizers.Adam(0.01, epsilon=1e-12)
    update = scaled._backend_update_step
    scaled._backend_update_step = lambda grads, v, rate: update([0.1 * g for g in grads], v, rate)
    plain = one_step(keras.optimizers.Adam(0.01, epsilon=1e-12), classifier())
    found = one_step(scaled, classifier())
    paths = [path for path in plain if "conv/kernel" in path]
    for path in paths:
        assert rms(found[path]) > 0.99 * rms(plain[path])
    assert len(paths) == 2


def test_weight_decay_follows_the_rates_and_spares_biases():
    model, rates = classifier(), {"block1": 0.1, "block2": 0.0}
    decayed, plain = keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1)
    recipes.set_layer_rates(plain, model, rates)
    without = one_step(plain, model)
    model = classifier()
    start = weights(model)
    recipes.set_layer_rates(decayed, model, rates, weight_decay=0.5)
    found = one_step(decayed, model)
    factor = {"block1_conv/kernel": 0.1, "block2_conv/kernel": 0.0, "head/kernel": 1.0}
    for path in found:
        share = next((f for part, f in factor.items() if path.endswith(part)), 0.0)
        np.testing.assert_allclose(
            found[path] - without[path], -0.1 * share * 0.5 * start[path], rtol=1e-3, atol=1e-6
        )


def test_an_optimizer_that_decays_by_itself_is_refused():
    with pytest.raises(ValueError, match="AdamW"):
        recipes.set_layer_rates(keras.optimizers.AdamW(0.1, weight_decay=0.1), classifier(), {})


def test_discriminative_rates_fall_from_the_top():
    rates = recipes.discriminative_rates(("stem_", "block1", "block2"), 0.5)
    assert rates == {"stem_": 0.25, "block1": 0.5, "block2": 1.0}


# --- Gradual unfreezing ---


def test_layers_open_when_the_recipe_says():
    """24 images in batches of 8: three steps an epoch. The audit's own measure of what moved agrees."""
    model = classifier()
    snapshots = [weights(model)]
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: snapshots.append(weights(model)))
    recipe = Recipe(
        epochs=4, learning_rate=0.01, batch_size=8, cosine=False, opens={"block2": 1, "block1": 3}
    )
    finetune.fine_tune(model, make_dataset(), recipe, callbacks=[note])
    moving = [
        {path.split("/")[-2] for path in a if not np.array_equal(a[path], b[path])}
        for a, b in itertools.pairwise(snapshots)
    ]
    top, second = {"head"}, {"head", "block2_conv"}
    assert moving == [top, second, second, second | {"block1_conv"}]


# --- L2-SP ---


def test_l2_sp_of_zero_is_plain_fine_tuning_and_a_large_one_is_the_linear_probe():
    """The pull's step, rate x strength, is below 1, so that it contracts. Tolerance: 5 % of the probe's."""
    ds = make_dataset()
    recipe = Recipe(epochs=30, learning_rate=0.01, batch_size=24, warmup=0, cosine=False, optimizer="sgd")
    plain, zero, held, probe = classifier(), classifier(), classifier(), classifier()
    start = weights(plain)
    finetune.fine_tune(plain, ds, recipe)
    finetune.fine_tune(zero, ds, dataclasses.replace(recipe, l2_sp=0.0))
    finetune.fine_tune(held, ds, dataclasses.replace(recipe, l2_sp=50.0))
    for layer in probe.layers[:-1]:
        layer.trainable = False
    finetune.fine_tune(probe, ds, recipe)
    models = {"plain": plain, "zero": zero, "held": held, "probe": probe}
    after = {name: weights(model) for name, model in models.items()}
    for path in start:
        np.testing.assert_allclose(after["zero"][path], after["plain"][path], rtol=1e-4, atol=1e-6)
    moved_by = {
        name: np.sqrt(sum(np.sum((w[p] - start[p]) ** 2) for p in start if "conv" in p))
        for name, w in after.items()
    }
    assert moved_by["plain"] > 0.01
    assert moved_by["held"] < 0.02 * moved_by["plain"]
    head = [path for path in start if "head" in path]
    assert len(head) == 2
    for path in head:
        moved_by_probe = rms(after["probe"][path] - start[path])
        assert rms(after["held"][path] - after["probe"][path]) < 0.05 * moved_by_probe
    x = data.resize(ds.x_train, 8)
    np.testing.assert_allclose(held.predict(x, verbose=0), probe.predict(x, verbose=0), atol=0.02)


def test_l2_sp_leaves_the_head_free_and_is_taken_off_afterwards():
    model = classifier()
    seen = []
    note = keras.callbacks.LambdaCallback(
        on_train_begin=lambda *_: seen.extend(v.path for v in model.trainable_weights if v.regularizer)
    )
    finetune.fine_tune(
        model, make_dataset(), Recipe(epochs=1, learning_rate=0.01, batch_size=8, l2_sp=0.1), callbacks=[note]
    )
    assert {path.split("/")[-2] for path in seen} == {"block1_conv", "block2_conv"}
    assert not any(v.regularizer for v in model.trainable_weights)


def test_l2_sp_holds_what_is_above_a_cached_trunk_but_not_its_head():
    backbone = make_backbone()
    model = finetune.build_classifier(backbone, 3)
    finetune.freeze(backbone, up_to="block1")
    seen = []
    note = keras.callbacks.LambdaCallback(
        on_train_begin=lambda *_: seen.extend(v.path for v in model.trainable_weights if v.regularizer)
    )
    recipe = Recipe(epochs=1, learning_rate=0.01, batch_size=8, l2_sp=0.1)
    finetune.fine_tune(model, make_dataset(), recipe, cache=True, callbacks=[note])
    assert {path.split("/")[-2] for path in seen} == {"block2_conv"}


def test_l2_sp_with_nothing_to_hold_is_an_error():
    with pytest.raises(ValueError, match="Nothing but the head"):
        finetune.fine_tune(
            classifier(up_to="block2"),
            make_dataset(),
            Recipe(epochs=1, learning_rate=0.01, batch_size=8, l2_sp=0.1),
        )


# --- Averages ---


def test_averaging_ends_at_the_moving_average_of_the_weights():
    model = classifier()
    path = "block2_conv/kernel"
    average = None

    def follow(*_, **__):
        nonlocal average
        if hasattr(model, "jax_state_sync"):
            model.jax_state_sync()  # within an epoch JAX keeps the weights to itself
        now = next(w for p, w in weights(model).items() if p.endswith(path))
        average = now if average is None else 0.5 * average + 0.5 * now

    note = keras.callbacks.LambdaCallback(on_train_batch_end=follow)
    finetune.fine_tune(
        model,
        make_dataset(),
        Recipe(epochs=3, learning_rate=0.05, batch_size=8, average=0.5),
        callbacks=[note],
    )
    found = next(w for p, w in weights(model).items() if p.endswith(path))
    np.testing.assert_allclose(found, average, rtol=1e-4, atol=1e-6)


# --- Giving away ---


def test_a_saved_model_has_no_augmentation_and_gives_equal_answers(tmp_path):
    augmentation = keras.Sequential([keras.layers.RandomFlip("horizontal"), keras.layers.RandomRotation(0.1)])
    model = finetune.build_classifier(make_backbone(), 3, dropout=0.2, augmentation=augmentation)
    recipe = Recipe(
        epochs=1,
        learning_rate=0.01,
        batch_size=8,
        rates={"block1": 0.1},
        opens={"block2": 1},
        l2_sp=0.1,
        average=0.9,
    )
    finetune.fine_tune(model, make_dataset(), recipe)
    x = data.resize(make_dataset().x_train, 8)
    exported = finetune.for_inference(model)
    assert any("random" in layer.name for layer in augmentation.layers)
    assert not any("random" in layer.name for layer in layers.leaves(exported))
    assert any(layer.name == trunk.AUGMENTATION for layer in model.layers)
    exported.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), exported.predict(x, verbose=0))
    np.testing.assert_allclose(exported.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)


# --- Freezing by name ---


def test_freezing_up_to_a_block_freezes_all_below_it():
    backbone = make_backbone()
    assert backbone.blocks == ("block1", "block2")
    finetune.freeze(backbone, up_to="block1")
    assert {w.path.split("/")[0] for w in backbone.model.trainable_weights} == {"block2_conv"}
    finetune.freeze(backbone, up_to="block2")
    assert not backbone.model.trainable_weights
    finetune.freeze_batchnorm(backbone)
    assert len(backbone.model.trainable_weights) == 4


def test_freezing_says_when_a_name_is_wrong():
    backbone = make_backbone()
    for options in ({"up_to": "block7"}, {"blocks": ("block1", "blok2")}):
        with pytest.raises(ValueError, match=r"blo(ck7|k2).*block2"):
            finetune.freeze(backbone, **options)
    with pytest.raises(ValueError, match="not both"):
        finetune.freeze(backbone, blocks=("block1",), up_to="block1")


@pytest.mark.parametrize("empty", [(), [], ""])
def test_an_empty_list_of_blocks_frees_nothing_in_silence(empty):
    backbone = make_backbone()
    finetune.freeze(backbone)
    with pytest.raises(ValueError, match="freeze_batchnorm"):
        finetune.freeze(backbone, blocks=empty)
    assert not backbone.model.trainable_weights


def test_one_block_may_be_named_by_a_string():
    one, several = make_backbone(), make_backbone()
    finetune.freeze(one, blocks="block1")
    finetune.freeze(several, blocks=["block1"])
    flags = [[layer.trainable for layer in b.model.layers] for b in (one, several)]
    assert flags[0] == flags[1]
    assert {w.path.split("/")[0] for w in one.model.trainable_weights} == {"block2_conv"}


def test_the_audit_agrees_with_gradual_unfreezing():
    """A base that opens later is not one that never moves; one that should never move, but opens, is."""
    train = (data.resize(make_dataset().x_train, 8), make_dataset().y_train)
    recipe = Recipe(epochs=3, learning_rate=1e-3, batch_size=8, opens={"block1": 2, "block2": 1})
    model = pretend(classifier())
    watch = audit.Callback(train, base="fine-tuned", on_finding="raise")
    finetune.fine_tune(model, make_dataset(), recipe, callbacks=[watch])
    assert watch.report.codes == ()
    never = dataclasses.replace(recipe, rates={"block1": 0.0, "block2": 0.0}, opens={})
    watch = audit.Callback(train, base="fine-tuned")
    finetune.fine_tune(pretend(classifier()), make_dataset(), never, callbacks=[watch])
    assert "base-still" in watch.report.codes
    watch = audit.Callback(train, base="frozen")
    finetune.fine_tune(classifier(), make_dataset(), recipe, callbacks=[watch])
    assert "base-moves" in watch.report.codes
