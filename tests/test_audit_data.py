"""The auditor takes what people have: any data and model, inside and outside of fit, in a shell."""

import json
import re

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from audit_models import LOGITS, compiled, head, known, photos, scaled, unknown
from tlhelpers import audit

X, Y = photos(32)
WRONG = (X / 255).astype("float32")  # for MobileNetV2; and for a model that scales by itself
TF = keras.backend.backend() == "tensorflow"
needs_tf = pytest.mark.skipif(not TF, reason="tf.data is TensorFlow's; on other backends fit takes it, too")


class Batches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int):
        rows = slice(8 * index, 8 * index + 8)
        return WRONG[rows], Y[rows]


def as_generator():
    while True:
        for index in range(4):
            yield Batches()[index]


def as_tf_data(x=WRONG, shuffle: bool = False):
    import tensorflow as tf

    found = tf.data.Dataset.from_tensor_slices((x, Y))
    return (found.shuffle(32) if shuffle else found).batch(8).prefetch(1)


GIVEN = {
    "a pair": lambda: (WRONG, Y),
    "a triple": lambda: (WRONG, Y, np.ones(32)),
    "a list of batches": lambda: [(WRONG[:8], Y[:8]), (WRONG[8:], Y[8:])],
    "a PyDataset": Batches,
}
GIVEN |= {"tf.data": as_tf_data, "a batch of tensors": lambda: next(iter(as_tf_data()))} if TF else {}


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return compiled(head(unknown(), before=layers.Rescaling(1 / 255)))


@pytest.mark.parametrize("name", GIVEN)
def test_whatever_fit_takes_is_looked_at(name, model):
    report = audit.check(model, GIVEN[name]())
    assert report.codes == ("preprocessing-twice",)
    assert report.parts[-1].moved
    assert not [line for line in report.unchecked if "training set" in line]


def test_a_generator_is_not_consumed(model):
    given = as_generator()
    assert "a generator can be read only once" in "\n".join(audit.check(model, given).unchecked)
    np.testing.assert_equal(next(given)[0], WRONG[:8])


FITTED = GIVEN | {"a generator": as_generator}


@pytest.mark.parametrize("name", [n for n in FITTED if n not in ("a list of batches", "a batch of tensors")])
def test_the_callback_sees_what_fit_sees(name, model, capsys):
    """And takes no batch away: fit makes as many steps as without it."""
    auditor, given = audit.Callback(), FITTED[name]()
    arrays = isinstance(given, tuple)
    arguments = dict(zip(("x", "y", "sample_weight"), given if arrays else (given,), strict=False))
    arguments |= {"batch_size": 8} if arrays else {"steps_per_epoch": 4}
    compiled(model)
    model.fit(**arguments, epochs=2, verbose=0, callbacks=[auditor])
    assert auditor.report.codes == ("preprocessing-twice",)
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 8
    assert "preprocessing-twice" in capsys.readouterr().out
    assert type(model.train_function).__name__ != "Tap"


class Subclassed(keras.Model):
    def __init__(self, base: keras.Model, end: str | None = None) -> None:
        super().__init__()
        self.base, self.pool = base, layers.GlobalAveragePooling2D()
        self.out = layers.Dense(2, activation=end)

    def call(self, x, training=False):
        return self.out(self.pool(self.base(x, training=False)))


def test_a_subclassed_model_is_seen_from_inside():
    model = compiled(Subclassed(known(), "softmax"))
    assert audit.check(model, (WRONG, Y)).codes == ("preprocessing-other", "head-logits")
    assert audit.check(compiled(Subclassed(known())), (X / 127.5 - 1, Y)).ok


@pytest.mark.parametrize("kind", ["subclassed", "Sequential"])
def test_the_callback_takes_a_model_without_weights(kind):
    steps = [unknown(), layers.GlobalAveragePooling2D(), layers.Dense(2, "softmax")]
    model = compiled(Subclassed(unknown(), "softmax") if kind == "subclassed" else keras.Sequential(steps))
    auditor = audit.Callback()
    model.fit(WRONG, Y, batch_size=8, verbose=0, callbacks=[auditor])
    assert auditor.report.codes == ("head-logits",)


def two_outputs(dictionary: bool) -> keras.Model:
    image = keras.Input((32, 32, 3))
    x = layers.GlobalAveragePooling2D()(known()(image))
    ends = {"kind": layers.Dense(2, "softmax", name="kind")(x), "side": layers.Dense(2, name="side")(x)}
    model = keras.Model(image, ends if dictionary else list(ends.values()))
    losses = {"kind": "sparse_categorical_crossentropy", "side": LOGITS}
    model.compile("adam", losses if dictionary else list(losses.values()))
    return model


@pytest.mark.parametrize("dictionary", [True, False])
def test_several_outputs(dictionary):
    model = two_outputs(dictionary)
    labels = {"kind": Y, "side": Y} if dictionary else [Y, Y]
    assert audit.check(model, (X / 127.5 - 1, labels)).ok
    wrong = {"kind": LOGITS, "side": LOGITS}
    model.compile("adam", wrong if dictionary else list(wrong.values()))
    report = audit.check(model, (X / 127.5 - 1, labels))
    assert report.codes == ("head-logits",)
    assert "'kind'" in report.findings[0].what
    assert audit.check(model).codes == ("head-logits",)  # without data, too


def test_several_inputs_and_one_network_for_two_images():
    base, image, other = known(), keras.Input((32, 32, 3), name="image"), keras.Input((5,), name="table")
    pooled = layers.GlobalAveragePooling2D()
    x = layers.Concatenate()([pooled(base(image)), layers.Dense(4)(other)])
    model = compiled(keras.Model([image, other], layers.Dense(2)(x)))
    table = np.random.default_rng(0).random((32, 5)).astype("float32")
    assert audit.check(model, ([X / 127.5 - 1, table], Y)).ok
    assert audit.check(model, ({"image": X / 127.5 - 1, "table": table}, Y)).ok
    assert audit.check(model, ([WRONG, table], Y)).codes == ("preprocessing-other",)
    second = keras.Input((32, 32, 3), name="second")
    x = layers.Concatenate()([pooled(base(image)), pooled(base(second))])
    model = compiled(keras.Model([image, second], layers.Dense(1, "sigmoid")(x)), "binary_crossentropy")
    assert audit.check(model, ([X / 127.5 - 1, X[::-1] / 127.5 - 1], Y)).ok


def test_a_step_and_a_compile_of_ones_own():
    class Own(keras.Model):
        def compile(self, optimizer, alpha):
            super().compile(optimizer)
            self.alpha = alpha

    model = good = head(known())
    own = Own(good.input, model.output)
    own.compile("adam", 0.5)
    report = audit.check(own, (X, Y))
    assert report.ok
    assert "cannot be compiled a second time" in "\n".join(report.unchecked)
    assert own.alpha == 0.5


@needs_tf
def test_another_order_in_each_pass(model):
    good = X / 127.5 - 1
    arrays = (good[:8], Y[:8])
    assert "order-changes" in audit.check(model, arrays, val=as_tf_data(good, shuffle=True)).codes
    assert "order-changes" not in audit.check(model, arrays, val=as_tf_data(good)).codes


# --- Inside fit ---


def test_an_audit_that_fails_does_not_stop_a_training(model, monkeypatch):
    def broken(*arguments, **more):
        raise RuntimeError("a fault of the auditor")

    monkeypatch.setattr(audit._checks, "gather", broken)
    auditor = audit.Callback(on_finding="raise")
    model.fit(X[:8], Y[:8], verbose=0, callbacks=[auditor])
    assert "a fault of the auditor" in auditor.report.unchecked[0]


@pytest.mark.parametrize("hook", ["on_train_begin", "on_train_batch_end", "on_epoch_end", "_see", "_judge"])
def test_whatever_fails_in_the_callback_is_said_and_stops_nothing(hook, model, monkeypatch):
    inner = {"on_train_begin": "_tap", "on_train_batch_end": "_losses", "on_epoch_end": "_logs"}.get(hook)

    class Broken(audit.Callback):
        def _fail(self, *arguments, **more):
            raise RuntimeError("a fault of the callback")

        if hook == "on_train_begin":
            _tap = _fail
        if hook == "_judge":
            _judge = _fail
        if hook == "_see":
            _samples = _fail
        if inner in ("_losses", "_logs"):
            vars()[inner] = property(_fail, lambda self, value: None)

    auditor = Broken(on_finding="raise")
    compiled(model)
    history = model.fit(X.astype("float32"), Y, batch_size=8, epochs=2, verbose=0, callbacks=[auditor])
    assert len(history.history["loss"]) == 2
    assert "a fault of the callback" in "\n".join(auditor.report.unchecked)
    assert type(model.train_function).__name__ != "Tap"


class Sizes(keras.utils.PyDataset):
    """Batches whose images have another size each."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int):
        x, y = photos(8, 32 + 8 * (index % 3), seed=index)
        return x / 255, y


def any_size() -> keras.Model:
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, name="base")(image)
    base = keras.Model(image, x)
    base.trainable = False
    image = keras.Input((None, None, 3))
    return compiled(keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(base(image)))))


def test_batches_of_several_sizes():
    model, auditor = any_size(), audit.Callback(base="scratch")
    model.fit(Sizes(), epochs=2, verbose=0, callbacks=[auditor])
    report = audit.check(model, Sizes(), base="scratch")
    assert auditor.report.ok
    assert report.ok
    assert "stopped" not in "\n".join([*auditor.report.unchecked, *report.unchecked])


def image_and(name: str, other, dtype: str = "float32", sparse: bool = False) -> keras.Model:
    image, more = keras.Input((32, 32, 3), name="image"), None
    more = keras.Input(other[0], name=name, dtype=dtype, sparse=sparse)
    x = [layers.GlobalAveragePooling2D()(known()(image)), other[1](more)]
    return compiled(keras.Model({"image": image, name: more}, layers.Dense(2)(layers.Concatenate()(x))))


@needs_tf
def test_a_sparse_input():
    import tensorflow as tf

    words = (np.random.default_rng(0).random((32, 50)) > 0.9).astype("float32")
    model = image_and("words", ((50,), layers.Dense(4)), sparse=True)
    x = {"image": X / 127.5 - 1, "words": tf.sparse.from_dense(words)}
    given = tf.data.Dataset.from_tensor_slices((x, Y)).batch(8)
    auditor = audit.Callback()
    model.fit(given, verbose=0, callbacks=[auditor])
    assert int(model.optimizer.iterations) == 4
    for report in (auditor.report, audit.check(model, given)):
        assert report.ok
        assert not [line for line in report.unchecked if "stop" in line or "could not" in line]


@needs_tf
def test_an_input_of_texts():
    import tensorflow as tf

    lookup = layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
    model = image_and("place", ((1,), lookup), dtype="string")
    x = {"image": X / 127.5 - 1, "place": np.array([["a"], ["b"]] * 16)}
    report = audit.check(model, tf.data.Dataset.from_tensor_slices((x, Y)).batch(8))
    assert report.ok
    assert report.parts[-1].moved


@needs_tf
def test_a_data_set_that_can_be_read_once_is_said(model):
    import tensorflow as tf

    batches = iter([(WRONG[:8], Y[:8])] * 2)
    form = (tf.TensorSpec((None, 32, 32, 3)), tf.TensorSpec((None,), tf.int64))
    once = tf.data.Dataset.from_generator(lambda: batches, output_signature=form)
    report = audit.check(model, once)
    assert report.codes == ("preprocessing-twice",)
    assert "make it anew before fit" in "\n".join(report.unchecked)


def test_an_output_without_labels():
    image = keras.Input((32, 32, 3))
    x = layers.GlobalAveragePooling2D()(known()(image))
    model = keras.Model(image, [layers.Dense(2, name="kind")(x), layers.Identity(name="vector")(x)])
    model.compile("adam", [LOGITS, None])
    report = audit.check(model, (X / 127.5 - 1, [Y, None]))
    assert report.ok
    assert "form of the labels" in report.looked_at


OF_DATA = """augmentation, size of the images, pixels, images in two sets, order of the sets,
images against labels, form of the labels, several labels a row, NaN in labels, number of outputs,
classes of each set, order of batches, loss of a step, first losses, training against inference,
a training step, preprocessing"""
OF_A_BASE = "freezing, batch normalization, fine-tuning, pretrained weights, preprocessing, learning rate"
OF_DATA, OF_A_BASE = (re.split(r",\s", topics) for topics in (OF_DATA, OF_A_BASE))


def test_nothing_is_looked_at_that_was_not_there():
    looked_at = audit.check(compiled(head(known()))).looked_at
    assert not {*OF_DATA} & {*looked_at}
    assert {"flags as compiled", "freezing", "pretrained weights", "logits and probabilities"} <= {*looked_at}
    image = keras.Input((16,))
    report = audit.check(keras.Model(image, layers.Dense(2)(image)))
    assert not {*OF_DATA, *OF_A_BASE, "flags as compiled", "metrics"} & {*report.looked_at}
    topics = ", ".join([*report.looked_at, *(line.split(":")[0] for line in report.unchecked)])
    assert all(topic in topics for topic in (*OF_DATA, *OF_A_BASE))
    two = audit.check(compiled(head(known())), (X, Y), photos(16, seed=9))
    assert {*OF_DATA} - {*two.looked_at} == {
        "order of batches",
        "first losses",
        "training against inference",
        "images against labels",
    }


def test_a_second_network_is_named():
    image = keras.Input((32, 32, 3))
    x = [layers.GlobalAveragePooling2D()(base(scaled(image))) for base in (known(), unknown())]
    report = audit.check(compiled(keras.Model(image, layers.Dense(2)(layers.Concatenate()(x)))), (X, Y))
    assert any(line.startswith("own: ") for line in report.unchecked)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="it has the weights elsewhere in an epoch")
@pytest.mark.parametrize(("rate", "large"), [(0.5, True), (1e-3, False)])
def test_steps_that_have_to_be_measured_are_in_fit(rate, large):
    base = unknown(trainable=True)
    for layer in base.layers:
        layer.trainable = not isinstance(layer, layers.BatchNormalization)
    model = compiled(head(base), optimizer=keras.optimizers.Adagrad(rate))
    auditor = audit.Callback(base="fine-tuned")
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[auditor])
    assert ("rate-large" in auditor.report.codes) is large
    assert "learning rate" in auditor.report.looked_at


def test_validation_split_of_sorted_rows():
    order = np.argsort(Y, kind="stable")
    auditor = audit.Callback()
    model = compiled(head(unknown()))
    model.fit(X[order], Y[order], batch_size=8, validation_split=0.25, verbose=0, callbacks=[auditor])
    assert "classes-missing" in auditor.report.codes


def test_validation_in_the_order_of_its_classes():
    """Images of the first batches are enough; labels are needed of all."""
    order = np.argsort(np.tile(Y, 8), kind="stable")
    given = np.tile(X, (8, 1, 1, 1))[order], np.tile(Y, 8)[order]
    auditor = audit.Callback()
    model = compiled(head(unknown()))
    model.fit(
        X, Y, batch_size=8, validation_data=given, validation_batch_size=8, verbose=0, callbacks=[auditor]
    )
    assert "classes-missing" not in auditor.report.codes


def test_losses_that_explode():
    auditor = audit.Callback()
    model = compiled(head(unknown()), optimizer=keras.optimizers.SGD(1e4))
    model.fit(X, Y, batch_size=8, verbose=0, callbacks=[auditor])
    assert "loss-explodes" in auditor.report.codes


@pytest.mark.parametrize("metric", ["accuracy", "by another name", "of two outputs", "none"])
@pytest.mark.parametrize("lagging", [True, False])
def test_training_unlike_inference(lagging, metric):
    """Statistics that follow the batches slowly: good in the epoch, bad afterwards."""
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2)(scaled(image))
    momentum = 0.9999 if lagging else 0.5
    x = layers.ReLU()(layers.BatchNormalization(momentum=momentum, name="norm")(x))
    x, two = layers.GlobalAveragePooling2D()(x), metric == "of two outputs"
    ends = [layers.Dense(2, name=name)(x) for name in "ab"]
    model = keras.Model(image, ends if two else ends[0])
    if lagging:
        model.get_layer("norm").moving_mean.assign(np.full(8, 30.0))
    other = keras.metrics.SparseCategoricalAccuracy(name="right")
    metrics = {"accuracy": ["accuracy"], "by another name": [other], "of two outputs": [["accuracy"]] * 2}
    model.compile(keras.optimizers.Adam(0.02), [LOGITS] * 2 if two else LOGITS, metrics=metrics.get(metric))
    auditor = audit.Callback()
    model.fit(X, [Y, Y] if two else Y, batch_size=8, epochs=6, verbose=0, callbacks=[auditor])
    report = auditor.report
    assert ("modes-differ" in report.codes) is (lagging and metric != "none")
    assert ("training against inference" in report.looked_at) is (metric != "none")


# --- The report for machines ---


def test_the_report_as_data():
    report = audit.check(compiled(head(known(), before=None)), (WRONG, Y))
    found = json.loads(json.dumps(report.to_dict()))
    assert (found["ok"], found["exit_code"], report.exit_code) == (False, 1, 1)
    (finding,) = found["findings"]
    assert finding["code"] == "preprocessing-other"
    assert finding["measured"] > 0
    assert "keras.applications.mobilenet_v2.preprocess_input" in finding["mend"]
    assert "flags as compiled" in found["looked_at"]
    assert audit.check(compiled(head(known())), (X, Y)).exit_code == 0


def test_every_text_can_be_filled():
    from tlhelpers.audit import _results

    words = dict.fromkeys(
        ("optimizer", "base", "line", "height", "width", "classes", "activation", "limit"), "it"
    )
    assert len(_results.texts()) > 40
    for code in _results.texts():
        finding = _results.fault(code, "What.", **words)
        assert finding.link.startswith("https://keras.io/")
        assert not re.search(r"[{}]", finding.why + finding.mend)


def test_the_command(tmp_path):
    from typer.testing import CliRunner

    from tlhelpers.app.cli import app

    for i, (image, label) in enumerate(zip(*photos(24, 32), strict=True)):
        (tmp_path / "data" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "data" / str(label) / f"{i}.png")
    compiled(head(unknown(), end="softmax")).save(tmp_path / "wrong.keras")
    compiled(head(unknown())).save(tmp_path / "right.keras")

    def run(*arguments: str):
        return CliRunner().invoke(app, ["audit", *map(str, arguments)])

    done = run(tmp_path / "wrong.keras", "--data", tmp_path / "data", "--json")
    assert done.exit_code == 1, done.output
    assert [f["code"] for f in json.loads(done.stdout)["findings"]] == ["head-logits"]
    done = run(tmp_path / "right.keras", "--data", tmp_path / "data", "--base", "frozen")
    assert done.exit_code == 0, done.output
    assert "no findings" in done.stdout
    for arguments in ((tmp_path / "none.keras",), (tmp_path / "right.keras", "--data", tmp_path / "none")):
        done = run(*arguments)
        assert (done.exit_code, "Not done" in done.output) == (2, True)
