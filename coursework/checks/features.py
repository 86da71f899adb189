"""Checks of the assignment `features`. How such a file is made up stands at the top of `repair.py`."""

import numpy as np


def draw_extract(rng):
    return {
        "x": rng.integers(0, 256, (7, 6)).astype("float32"),
        "w1": rng.normal(size=(6, 4)).astype("float32"),
        "w2": rng.normal(size=(4, 3)).astype("float32"),
        "mean": (100 * rng.normal(size=4)).astype("float32"),
        "variance": rng.uniform(1e3, 1e4, 4).astype("float32"),
    }


def probe_extract(names, given):
    import keras
    import numpy as np

    inputs = keras.Input((6,))
    first = keras.layers.Dense(4, use_bias=False, name="first")
    norm = keras.layers.BatchNormalization(center=False, scale=False, epsilon=1e-3, name="norm")
    last = keras.layers.Dense(3, use_bias=False, name="last")
    model = keras.Model(inputs, last(norm(first(inputs))))
    first.set_weights([given["w1"]])
    norm.set_weights([given["mean"], given["variance"]])
    last.set_weights([given["w2"]])
    extractor = names["make_extractor"](model, "norm")
    output = np.asarray(extractor(given["x"], training=False))  # before statistics can move
    return {
        "output": output,
        "all": names["compute_features"](extractor, given["x"]),
        "part": names["compute_features"](extractor, given["x"][:2]),
        "weights": len(extractor.weights),
    }


def check_extract(given, found):
    z = given["x"].astype("float64") @ given["w1"]
    expected = (z - given["mean"]) / np.sqrt(given["variance"] + 1e-3)
    output = found["output"]
    yield (
        "extractor",
        output.shape == expected.shape and np.allclose(output, expected, rtol=1e-3, atol=1e-2),
        ("The extractor does not give the output of the layer that was asked for."),
    )
    yield (
        "extractor",
        found["weights"] == 3,
        "Up to that layer the model has 3 weights; something was added or left out.",
    )
    yield (
        "inference",
        found["all"].shape == expected.shape and np.allclose(found["all"], expected, rtol=1e-3, atol=1e-2),
        ("The features are not those of BatchNorm's stored statistics: inference mode is missing."),
    )
    yield (
        "inference",
        np.allclose(found["part"], found["all"][:2], rtol=1e-3, atol=1e-2),
        ("An image has other features in another batch."),
    )


STRENGTHS = (0.01, 1.0, 100.0)


def fitted_probes(f, y):
    """For each strength: probabilities of the new features, accuracy on training and on validation features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = {}
    for strength in STRENGTHS:
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
        pipeline.fit(f[:60], y[:60])
        right = pipeline.predict(f) == y
        found[strength] = pipeline.predict_proba(f[160:]), right[:60].mean(), right[60:160].mean()
    return found


def draw_probe(rng):
    scale = np.array([1.0, 50.0, 0.02, 1.0, 5.0, 1.0])
    while True:  # until training and validation features disagree about the strength
        y = rng.integers(0, 3, 260)
        f = (rng.normal(size=(260, 6)) + 0.6 * rng.normal(size=(3, 6))[y]) * scale
        f[60:] += scale  # validation features lie elsewhere: statistics of all features would be others
        found = fitted_probes(f, y)
        best = [max(STRENGTHS, key=lambda c: found[c][which]) for which in (1, 2)]
        if best[0] != best[1] and len({found[c][2] for c in STRENGTHS}) == 3:
            return {"f": f, "y": y}


def probe_probe(names, given):
    f, y = given["f"], given["y"]
    pipeline, strength = names["fit_probe"](f[:60], y[:60], f[60:160], y[60:160], (0.01, 1.0, 100.0))
    only, _ = names["fit_probe"](f[:60], y[:60], f[60:160], y[60:160], (1.0,))
    return {
        "strength": float(strength),
        "p": pipeline.predict_proba(f[160:]),
        # Strengths so near to each other that they are right equally often.
        "tie": float(names["fit_probe"](f[:60], y[:60], f[60:160], y[60:160], (1.000001, 1.0))[1]),
        "only": only.predict_proba(f[160:]),
    }


def check_probe(given, found):
    fitted = fitted_probes(given["f"], given["y"])
    best = max(STRENGTHS, key=lambda c: fitted[c][2])
    yield (
        "training_only",
        found["only"].shape == (100, 3) and np.allclose(found["only"], fitted[1.0][0], atol=5e-3),
        (
            "With one strength, the probabilities are not those of a probe that was standardised and fitted on the "
            "training features alone."
        ),
    )
    yield (
        "choice",
        abs(found["strength"] - best) < 1e-9,
        "The strength is not the best on the validation features.",
    )
    yield (
        "choice",
        np.allclose(found["p"], fitted[best][0], atol=5e-3),
        "The pipeline is not the one of the best strength.",
    )
    yield (
        "choice",
        1.0 if abs(found["tie"] - 1.0) < 1e-9 else 0.5,
        "Of strengths that are right equally often, the smallest one counts.",
    )


def draw_leak(rng):
    x_train = rng.integers(0, 256, (30, 4, 4, 3)).astype("uint8")
    x_test = rng.integers(0, 256, (20, 4, 4, 3)).astype("uint8")
    twins = rng.choice(20, 7, replace=False)
    x_test[twins] = x_train[rng.choice(30, 7, replace=False)]
    near = [i for i in range(20) if i not in twins][:2]
    x_test[near] = x_train[:2]
    x_test[near, 0, 0, 0] ^= 1  # one pixel differs: another image
    y = rng.integers(0, 5, 20)
    return {
        "x_train": x_train,
        "x_test": x_test,
        "y": y,
        "predicted": np.where(rng.random(20) < 0.6, y, (y + 1) % 5),
    }


def probe_leak(names, given):
    accuracy = names["accuracy_without_leak"](
        given["predicted"], given["y"], given["x_train"], given["x_test"]
    )
    return {"leaked": names["leaked"](given["x_train"], given["x_test"]), "accuracy": accuracy}


def check_leak(given, found):
    same = (given["x_test"][:, None] == given["x_train"][None]).all(axis=(2, 3, 4)).any(axis=1)
    yield (
        "found",
        found["leaked"].shape == same.shape and np.array_equal(found["leaked"].astype(bool), same),
        ("The test images that are training images, to the last pixel, were not found, or others were."),
    )
    right = float(np.mean(given["predicted"][~same] == given["y"][~same]))
    yield (
        "accuracy",
        np.allclose(found["accuracy"], right),
        "The accuracy is not the one on the images without a twin.",
    )


def draw_fair(rng):
    return {"labels": rng.permutation(np.arange(60) % 3), "x": rng.normal(size=(60, 2))}


def probe_fair(names, given):
    import numpy as np

    x, y = given["x"], given["labels"]
    log = {"train": [], "test": 0}
    answers = {tuple(row): int(label) for row, label in zip(x, y, strict=True)}

    def method(right_on_val, right_on_test):
        def train(x_train, y_train, x_val, y_val):
            log["train"].append(
                (np.array(x_train).sum(), np.array(y_train).sum(), len(x_train), np.array(x_val).sum())
            )

            def predict(images):
                truth = np.array([answers[tuple(row)] for row in images])
                testing = bool(len(images)) and tuple(images[0]) in {tuple(row) for row in x[40:]}
                log["test"] += testing
                share = right_on_test if testing else right_on_val
                return np.where(np.arange(len(truth)) < share * len(truth), truth, (truth + 1) % 3)

            return predict

        return train

    methods = {"a": method(0.5, 0.9), "b": method(0.8, 0.7), "c": method(0.3, 0.95)}
    name, accuracy = names["compare"](methods, x[:20], y[:20], x[20:40], y[20:40], x[40:], y[40:])
    return {
        "name": str(name),
        "accuracy": accuracy,
        "train": np.array(log["train"], float),
        "test": log["test"],
    }


def check_fair(given, found):
    x, y = given["x"], given["labels"]
    expected = [x[:20].sum(), y[:20].sum(), 20, x[20:40].sum()]
    yield (
        "same_images",
        found["train"].shape == (3, 4) and np.allclose(found["train"], expected),
        ("Each method must be trained once, on the training images, with the validation images beside them."),
    )
    yield "chosen", found["name"] == "b", "The method was not chosen by the validation images."
    yield (
        "test_once",
        found["test"] == 1 and np.allclose(found["accuracy"], 0.7),
        ("Only the chosen method may see the test images, once; its accuracy there is what is returned."),
    )


def draw_interval(rng):
    probabilities = rng.dirichlet(np.ones(4), 30)
    return {"hits": int(rng.integers(60, 90)), "n": 100, "p": probabilities, "y": rng.integers(0, 4, 30)}


def probe_interval(names, given):
    import numpy as np

    mistakes = names["surest_mistakes"](given["p"], given["y"], 5)
    return {
        "wilson": np.array([*names["wilson"](given["hits"], given["n"]), *names["wilson"](0, 20)], float),
        "mistakes": np.array(mistakes, int),
    }


def check_interval(given, found):
    from scipy.stats import binomtest

    expected = [
        *binomtest(given["hits"], 100).proportion_ci(method="wilson"),
        *binomtest(0, 20).proportion_ci(method="wilson"),
    ]
    yield (
        "wilson",
        np.allclose(found["wilson"], expected, atol=1e-3),
        "The ends are not those of Wilson's interval.",
    )
    predicted = given["p"].argmax(axis=1)
    wrong = np.flatnonzero(predicted != given["y"])
    order = wrong[np.argsort(-given["p"][wrong, predicted[wrong]])][:5]
    yield (
        "mistakes",
        np.array_equal(found["mistakes"], order),
        ("These are not the mistakes with the largest probability of the wrong answer, the surest first."),
    )


def draw_curve(rng):
    return {
        "f": rng.normal(size=(50, 2)),
        "y": rng.integers(0, 2, 50),
        "f_val": rng.normal(size=(40, 2)),
        "y_val": rng.integers(0, 2, 40),
    }


def probe_curve(names, given):
    import numpy as np

    calls = []

    def fit(f, y):
        f, y = np.asarray(f), np.asarray(y)
        calls.append([len(f), f.sum()])
        direction = f[y == 1].sum(axis=0) - f[y == 0].sum(axis=0)
        return lambda f_new: (np.asarray(f_new) @ direction > 0).astype(int)

    sizes = (5, 20, 50)
    curve = names["learning_curve"](fit, given["f"], given["y"], given["f_val"], given["y_val"], sizes)
    cases = [(0.80, 0.85, 30), (0.80, 0.81, 30), (0.80, 0.75, 30), (0.80, 0.85, 19), (0.80, 0.85, 21)]
    decisions = [bool(names["pays"]({100: a, 200: b}, 100, 200, 1, value)) for a, b, value in cases]
    return {
        "curve": np.array([curve[n] for n in sizes], float),
        "calls": np.array(calls),
        "decisions": np.array(decisions),
    }


def check_curve(given, found):
    f, y = given["f"], given["y"]
    expected = []
    for n in (5, 20, 50):
        direction = f[:n][y[:n] == 1].sum(axis=0) - f[:n][y[:n] == 0].sum(axis=0)
        expected.append(np.mean((given["f_val"] @ direction > 0) == given["y_val"]))
    yield (
        "curve",
        np.allclose(found["curve"], expected),
        (
            "The accuracies are not those of the first n training examples, measured on the validation features."
        ),
    )
    yield (
        "decision",
        list(found["decisions"]) == [True, False, False, False, True],
        (
            "It pays if the points of accuracy gained, times their value, exceed the new labels, times their price."
        ),
    )


def draw_augment(rng):
    return {
        "x": rng.normal(size=(6, 3, 4, 3)),
        "y": rng.integers(0, 5, 6),
        "x_val": rng.normal(size=(4, 3, 4, 3)),
    }


def probe_augment(names, given):
    calls = []

    def extract(images):
        calls.append(len(images))
        return images.reshape(len(images), -1)

    f, y, f_val = names["augmented"](extract, given["x"], given["y"], given["x_val"])
    return {"f": f, "y": y, "f_val": f_val, "calls": len(calls)}


def check_augment(given, found):
    x, y = given["x"], given["y"]
    rows = {(tuple(image.ravel()), int(label)) for image, label in zip(x, y, strict=True)}
    rows |= {(tuple(image[:, ::-1].ravel()), int(label)) for image, label in zip(x, y, strict=True)}
    got = [(tuple(f), int(label)) for f, label in zip(found["f"], found["y"], strict=True)]
    yield (
        "views",
        len(got) == 12 and set(got) == rows,
        (
            "The training features are not those of each image and of its mirror image (left to right), with their labels."
        ),
    )
    yield (
        "validation",
        np.array_equal(found["f_val"], given["x_val"].reshape(4, -1)) and found["calls"] <= 3,
        (
            "The validation features must be those of the images as they are, and extract is called at most three times."
        ),
    )


def draw_depths(rng):
    return {
        "x": rng.normal(size=(5, 3, 3, 2)).astype("float32"),
        "w1": rng.normal(size=(1, 1, 2, 3)).astype("float32"),
        "w2": rng.normal(size=(3, 4)).astype("float32"),
    }


def probe_depths(names, given):
    import keras
    import numpy as np

    inputs = keras.Input((3, 3, 2))
    conv = keras.layers.Conv2D(3, 1, use_bias=False, activation="relu", name="conv")
    dense = keras.layers.Dense(4, use_bias=False, name="dense")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(conv(inputs))
    model = keras.Model(inputs, dense(x))
    conv.set_weights([given["w1"]])
    dense.set_weights([given["w2"]])
    joined = names["multi_depth"](model, ["dense", "conv"], given["x"])
    trunk, top = names["cut"](model, "conv")
    middle = np.asarray(trunk(given["x"], training=False))
    shares = len(trunk.weights) == 1 and len(top.weights) == 1
    return {
        "joined": joined,
        "middle": middle,
        "top": np.asarray(top(middle, training=False)),
        "shares": shares,
    }


def check_depths(given, found):
    middle = np.maximum(given["x"] @ given["w1"][0, 0], 0)
    output = middle.mean(axis=(1, 2)) @ given["w2"]
    joined = np.concatenate([output, middle.mean(axis=(1, 2))], axis=1)
    yield (
        "joined",
        found["joined"].shape == joined.shape and np.allclose(found["joined"], joined, atol=1e-3),
        ("The numbers are not the averaged outputs of the layers, in the order of their names."),
    )
    yield (
        "trunk",
        found["middle"].shape == middle.shape and np.allclose(found["middle"], middle, atol=1e-3),
        ("The lower part does not give the output of the layer."),
    )
    yield (
        "trunk",
        np.allclose(found["top"], output, atol=1e-3) and bool(found["shares"]),
        ("The upper part does not go on where the lower one ends, or a layer is in both."),
    )
