"""The doors to what Keras keeps to itself: each leads to what it names, and says so where it does not."""

import keras
import numpy as np
import pytest
from keras import layers

from tlhelpers import audit
from tlhelpers.audit import _keras


@pytest.fixture
def model() -> keras.Model:
    """A network in a network, compiled, with a schedule."""
    image = keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="deep")], name="inner")
    model = keras.Model(image, layers.Dense(2, name="last")(inner(image)))
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    model.compile(keras.optimizers.Adam(rate), "mse", metrics=["mae"])
    return model


def fit(model: keras.Model, **more) -> keras.callbacks.History:
    return model.fit(np.ones((8, 4)), np.ones((8, 2)), batch_size=4, verbose=0, **more)


def test_layers_at_any_depth(model):
    assert {"inner", "deep", "last"} <= {layer.name for layer in _keras.layers_inside(model)}
    found = {layer.name for layer in _keras.leaves(model)}
    assert {"deep", "last"} <= found
    assert "inner" not in found


def test_the_rate_as_it_was_given(model):
    assert isinstance(_keras.learning_rate(model.optimizer), keras.optimizers.schedules.ExponentialDecay)
    fixed = _keras.learning_rate(keras.optimizers.SGD(0.25))
    assert float(keras.ops.convert_to_numpy(fixed)) == 0.25


def test_the_counter_of_steps_is_a_variable(model):
    fit(model)
    counter = _keras.iterations(model.optimizer)
    assert int(keras.ops.convert_to_numpy(counter)) == 2
    counter.assign(7)
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 7


def test_what_an_optimizer_was_built_for(model):
    model.get_layer("inner").trainable = False
    fit(model)
    last = model.get_layer("last")
    assert {id(v) for v in _keras.optimized(model.optimizer)} == {id(v) for v in last.trainable_variables}


def test_metrics_are_taken_off(model):
    assert "mae" in str(fit(model).history)
    _keras.drop_metrics(model)
    model.compile("sgd", "mse")
    assert list(fit(model).history) == ["loss"]


def test_the_flags_of_the_last_compile(model):
    """Keras 3.15 remembers them; before, there are none."""
    flags = _keras.flags_at_compile(model)
    new = tuple(map(int, keras.__version__.split(".")[:2])) >= _keras.TESTED[1]
    assert bool(flags) is new
    model.get_layer("last").trainable = False
    assert all(flag for layer, flag in flags.items() if layer is model.get_layer("last"))


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("3.7.0", False),
        ("3.8.0", True),
        ("3.10.1", True),
        ("3.15.9", True),
        ("3.16.0", False),
        ("4.0.0", False),
    ],
)
def test_a_keras_that_was_not_tried_is_said(version, known, monkeypatch, model):
    monkeypatch.setattr(keras, "__version__", version)
    assert (_keras.untested() is None) is known
    told = [
        line for line in audit.check(model).unchecked if line.startswith(f"Keras {version} was not tried")
    ]
    assert bool(told) is not known
    assert all("3.8 to 3.15" in line for line in told)


def test_a_door_that_leads_nowhere_says_which():
    with pytest.raises(RuntimeError, match=r"object\._learning_rate is missing: .*Keras 3\."):
        _keras.learning_rate(object())
