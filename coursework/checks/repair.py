"""Checks of the assignment `repair`.

For each item: `draw_` gives inputs, from the secret; `probe_` runs beside the student's code, and must hold all that it
needs; `check_` runs outside and tells what is wrong. What `check_` knows never reaches the student's code.
Answers are compared by `tools/grading/compare.py` alone, which looks at their form first. A message never repeats
a number that came from the submission: it could be an input.
"""

import numpy as np

from tools.grading.compare import judged, same


def cross_entropy(logits, labels):
    """Mean cross-entropy of logits, by hand."""
    logits = np.asarray(logits, dtype="float64")
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -float(log_probabilities[np.arange(len(labels)), labels].mean())


def draw_scaling(rng):
    return {
        "images": rng.integers(0, 256, (6, 4, 4, 3)).astype("uint8"),
        "kernel": rng.normal(size=(48, 5)).astype("float32"),
    }


def probe_scaling(names, given):
    from types import SimpleNamespace

    import keras
    import numpy as np

    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs))
    dense = keras.layers.Dense(5, use_bias=False)
    model = keras.Model(inputs, dense(x))
    dense.set_weights([given["kernel"]])
    backbone = SimpleNamespace(model=model, n_features=5, image_size=4, name="hidden")
    images = given["images"].copy()
    whole = names["extract_features"](backbone, images)
    floats = names["extract_features"](backbone, given["images"].astype("float32"))
    return {"whole": np.asarray(whole), "floats": np.asarray(floats), "after": images}


def check_scaling(given, found):
    x = given["images"].reshape(6, -1).astype("float64") / 127.5 - 1
    expected = x @ given["kernel"].astype("float64")

    raw = "the features are not those of the raw values."
    yield (
        "raw",
        *judged(
            found["whole"],
            expected,
            f"For whole numbers from 0 to 255 {raw} The backbone preprocesses inside.",
            1e-3,
            1e-3,
        ),
    )
    yield "general", *judged(found["floats"], expected, f"For images of type float32 {raw}", 1e-3, 1e-3)
    yield (
        "general",
        same(found["after"], given["images"]),
        ("extract_features changed the images that it was given."),
    )


def draw_logits(rng):
    classes = int(rng.integers(4, 8))
    return {
        "n_features": 16,
        "n_classes": classes,
        "x": (10.0 * rng.normal(size=(40, 16))).astype("float32"),
        "labels": rng.integers(0, classes, 40),
    }


def probe_logits(names, given):
    import numpy as np

    head = names["build_head"](given["n_features"], given["n_classes"])
    output = np.asarray(head(given["x"]))
    surest = output.argmax(axis=1)
    return {
        "output": output,
        "loss": float(head.loss(given["labels"], output)),
        "surest": float(head.loss(surest, output)),
    }


def check_logits(given, found):
    output = found["output"]
    shape = (40, given["n_classes"])
    if output.shape != shape or not np.isfinite(output).all():
        said = "The outputs are not one finite number for each image and class."
        yield "agree", False, said
        yield "logits", False, said
        return
    probabilities = output.min() >= 0 and np.allclose(output.sum(axis=1), 1.0, atol=1e-3)
    logits = np.log(np.maximum(output.astype("float64"), 1e-7)) if probabilities else output
    yield (
        "agree",
        same(found["surest"], cross_entropy(logits, output.argmax(axis=1)), 0, 0.02),
        "The head and its loss disagree about what the numbers are: logits or probabilities.",
    )
    yield (
        "logits",
        not probabilities and output.min() < 0,
        ("The outputs are probabilities. By the course's convention a head gives logits."),
    )
    yield (
        "logits",
        same(found["loss"], cross_entropy(output, given["labels"]), 1e-3, 1e-3),
        "The compiled loss of these logits is not their cross-entropy.",
    )


def draw_rate(rng):
    centres = rng.normal(size=(5, 64))
    y = np.arange(500) % 5
    x = centres[y] + 1.5 * rng.normal(size=(500, 64))
    return {"x_train": x[:100].astype("float32"), "y_train": y[:100], "x_new": x[100:].astype("float32")}


def probe_rate(names, given):
    import keras
    import numpy as np

    optimizer = names["head_optimizer"]()
    is_optimizer = isinstance(optimizer, keras.optimizers.Optimizer)
    output = np.zeros((len(given["x_new"]), 5))
    if is_optimizer:
        keras.utils.set_random_seed(1)
        head = keras.Sequential([keras.Input((64,)), keras.layers.Dense(5)])
        head.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        head.fit(given["x_train"], given["y_train"], batch_size=32, epochs=10, verbose=0)
        output = np.asarray(head(given["x_new"]))
    return {"is_optimizer": is_optimizer, "output": output}


def check_rate(given, found):
    yield "runs", bool(found["is_optimizer"]), "head_optimizer must return an optimizer of Keras."
    y = np.arange(100, 500) % 5
    right = float(np.mean(found["output"].argmax(axis=1) == y))
    yield (
        "learns",
        right > 0.65,
        (
            "After 10 epochs on new features the head is right on fewer than 65 % of images that it has not seen. "
            "Its weights hardly move, or jump about, at this rate."
        ),
    )


def draw_freeze(rng):
    return {
        "x": rng.integers(0, 256, (24, 6, 6, 3)).astype("float32"),
        "y": np.arange(24) % 3,
    }


def probe_freeze(names, given):
    import keras
    import numpy as np

    keras.utils.set_random_seed(2)
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(keras.layers.Rescaling(1 / 127.5, -1.0)(inputs))
    x = keras.layers.BatchNormalization(momentum=0.5, name="bn")(x)
    base = keras.Model(inputs, keras.layers.Flatten()(x), name="base")
    model = names["build_phase_1"](base, 3)
    everything = {w.path: np.array(w) for w in model.weights}
    in_base = {w.path for w in base.weights}
    model.fit(given["x"], given["y"], batch_size=8, epochs=2, verbose=0)
    found = {
        "classes": int(np.asarray(model(given["x"][:2])).shape[-1]),
        "trainable": len(model.trainable_weights),
    }
    kinds = {"kernels": 0.0, "others": 0.0, "head": 0.0}
    for w in model.weights:
        change = float(np.abs(np.array(w) - everything[w.path]).max())
        kind = "head" if w.path not in in_base else "kernels" if "kernel" in w.path else "others"
        kinds[kind] = max(kinds[kind], change)
    return {**found, **kinds}


def check_freeze(given, found):
    yield (
        "kernels",
        found["kernels"] == 0,
        ("In two epochs a kernel of the base moved; it must stay exactly where it is."),
    )
    yield "kernels", found["head"] > 0, "The head did not move, so nothing was learned."
    yield (
        "everything",
        found["kernels"] == 0 and found["others"] == 0,
        ("Something else in the base, of BatchNorm or a bias, moved: freeze it too."),
    )
    yield (
        "everything",
        found["trainable"] == 2 and found["classes"] == 3,
        ("Other weights can be trained than the two of the head, kernel and bias, or it has other outputs."),
    )


def draw_recompile(rng):
    return {
        "x": rng.integers(0, 256, (24, 6, 6, 3)).astype("float32"),
        "y": np.arange(24) % 3,
        "rate": float(rng.uniform(0.001, 0.004)),
    }


def probe_recompile(names, given):
    import keras
    import numpy as np

    keras.utils.set_random_seed(3)
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 127.5, -1.0)(inputs))
    x = keras.layers.BatchNormalization(momentum=0.5)(x)
    base = keras.Model(inputs, keras.layers.Flatten()(x), name="base")
    base.trainable = False
    images = keras.Input((6, 6, 3))
    model = keras.Model(images, keras.layers.Dense(3, name="head")(base(images, training=False)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(learning_rate=0.03, momentum=0.9), loss, metrics=["accuracy"])
    model.fit(given["x"], given["y"], batch_size=12, epochs=1, verbose=0)
    old, before = model.optimizer, np.asarray(model(given["x"]))
    model = names["start_phase_2"](model, base, given["rate"])
    found = {
        "new_optimizer": model.optimizer is not old,
        "rate": float(model.optimizer.learning_rate),
        "before": before,
        "after": np.asarray(model(given["x"])),
        "loss": float(model.loss(given["y"], before)),
    }
    weights = [np.array(w) for w in base.trainable_weights]
    model.fit(given["x"], given["y"], batch_size=12, epochs=1, verbose=0)
    moved = [
        float(np.abs(np.array(w) - v).max()) for w, v in zip(base.trainable_weights, weights, strict=True)
    ]
    return {**found, "moved": max(moved, default=0.0)}


def check_recompile(given, found):
    yield (
        "learns",
        found["moved"] > 0,
        ("In one epoch of phase 2 the base moved by exactly 0. What fit trains is settled by compile."),
    )
    yield (
        "continues",
        bool(found["new_optimizer"]) and found["moved"] > 0,
        "Phase 2 still uses the old optimizer.",
    )
    yield (
        "continues",
        same(found["rate"], given["rate"], 1e-3, 1e-6),
        ("The learning rate is not the one that was asked for."),
    )
    yield (
        "continues",
        same(found["after"], found["before"], 1e-3, 1e-4),
        ("Before the first step of phase 2, what phase 1 learned is gone."),
    )
    yield (
        "continues",
        same(found["loss"], cross_entropy(found["before"], given["y"]), 1e-3, 1e-3),
        ("The model gives logits, but its new loss is not told so."),
    )


def draw_choice(rng):
    def clouds(n):
        y = np.arange(n) % 2
        return (rng.normal(size=(n, 2)) + np.where(y, 4.0, -4.0)[:, None]).astype("float32"), y

    found = {}
    for part, n in (("train", 40), ("first", 30), ("second", 30)):
        found[f"x_{part}"], found[f"y_{part}"] = clouds(n)
    return found


def probe_choice(names, given):
    from types import SimpleNamespace

    import keras
    import numpy as np

    def class_0(shape, dtype=None):
        return np.array([1.0, 0.0], dtype="float32")

    def make_head(rate):
        dense = keras.layers.Dense(2, kernel_initializer="zeros", bias_initializer=class_0)
        head = keras.Sequential([keras.Input((2,)), dense])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        head.compile(keras.optimizers.SGD(learning_rate=rate), loss, metrics=["accuracy"])
        return head

    reads = []

    class Watched(SimpleNamespace):
        def __getattribute__(self, name):
            if name in ("x_test", "y_test"):
                reads.append(name)
            return super().__getattribute__(name)

    found = {}
    for case in ("first", "second"):
        x, y = given[f"x_{case}"], given[f"y_{case}"]
        y_val, y_test = (y, 0 * y) if case == "first" else (0 * y, y)
        features = Watched(
            x_train=given["x_train"], y_train=given["y_train"], x_val=x, y_val=y_val, x_test=x, y_test=y_test
        )
        rate, scores = names["choose_rate"](make_head, [1e-6, 0.5], features)
        found[case] = np.array([float(rate), float(scores[1e-6]), float(scores[0.5])])
    return {**found, "reads": len(reads)}


def check_choice(given, found):
    yield (
        "without_test",
        found["reads"] == 0,
        ("choose_rate reads the test set. What is chosen with the test images fits them by luck as well."),
    )
    for case, expected in (("first", (0.5, 0.5, 1.0)), ("second", (1e-6, 1.0, 0.5))):
        yield (
            "right",
            same(found[case][0], expected[0], 1e-6, 1e-9),
            (
                "In a case where validation and test images disagree, the rate was not the best on validation images."
            ),
        )
        yield (
            "right",
            same(found[case][1:], expected[1:], 0, 0.05),
            ("The scores are not the accuracies on the validation images."),
        )
