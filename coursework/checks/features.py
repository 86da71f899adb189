"""Checks of the assignment `features`: networks and probes. How such a file is made up stands at the top of `repair.py`."""

import numpy as np

from tools.grading.compare import judged, same


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
        "after": np.asarray(extractor(given["x"], training=False)),  # nothing was trained meanwhile
        "weights": len(extractor.weights),
    }


def check_extract(given, found):
    z = given["x"].astype("float64") @ given["w1"]
    expected = (z - given["mean"]) / np.sqrt(given["variance"] + 1e-3)
    yield (
        "extractor",
        *judged(
            found["output"],
            expected,
            "The extractor does not give the output of the layer that was asked for.",
            1e-3,
            1e-3,
        ),
    )
    yield (
        "extractor",
        same(found["weights"], 3),
        "Up to that layer the model has 3 weights; something was added or left out.",
    )
    stored = "The features are not those of BatchNorm's stored statistics: inference mode is missing."
    yield "inference", *judged(found["all"], expected, stored, 1e-3, 1e-3)
    yield (
        "inference",
        *judged(found["part"], expected[:2], "An image has other features in another batch.", 1e-3, 1e-3),
    )
    yield "inference", same(found["after"], expected, 1e-3, 1e-3), stored


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


def own_statistics(f, y):
    """The strength that is chosen where validation features are standardised by themselves."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    train, val = StandardScaler().fit_transform(f[:60]), StandardScaler().fit_transform(f[60:160])
    fitted = {c: LogisticRegression(C=c, max_iter=1000).fit(train, y[:60]) for c in STRENGTHS}
    return max(STRENGTHS, key=lambda c: (fitted[c].predict(val) == y[60:160]).mean())


def draw_probe(rng):
    scale = np.array([1.0, 50.0, 0.02, 1.0, 5.0, 1.0])
    while True:  # until plausible mistakes choose another strength, and no two are equally good
        y = rng.integers(0, 3, 260)
        f = (rng.normal(size=(260, 6)) + 0.6 * rng.normal(size=(3, 6))[y]) * scale
        f[60:] += scale  # validation features lie elsewhere: statistics of all features would be others
        found = fitted_probes(f, y)
        on_train, on_val = (max(STRENGTHS, key=lambda c, i=i: found[c][i]) for i in (1, 2))
        if on_val == on_train or len({found[c][2] for c in STRENGTHS}) < 3:
            continue
        if own_statistics(f, y) != on_val:
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
        *judged(
            found["only"],
            fitted[1.0][0],
            "With one strength, the probabilities are not those of a probe that was standardised and fitted on the "
            "training features alone.",
            0,
            5e-3,
        ),
    )
    yield "choice", same(found["strength"], best), "The strength is not the best on the validation features."
    yield (
        "choice",
        *judged(found["p"], fitted[best][0], "The pipeline is not the one of the best strength.", 0, 5e-3),
    )
    yield (
        "choice",
        1.0 if same(found["tie"], 1.0, 0, 1e-9) else 0.5,
        "Of strengths that are right equally often, the smallest one counts.",
    )


def draw_depths(rng):
    return {
        "x": rng.normal(size=(5, 3, 3, 2)).astype("float32"),
        "w1": rng.normal(size=(1, 1, 2, 3)).astype("float32"),
        "w2": rng.normal(size=(3, 4)).astype("float32"),
        "mean": rng.normal(size=3).astype("float32"),
        "variance": rng.uniform(1.0, 4.0, 3).astype("float32"),
    }


def probe_depths(names, given):
    import keras
    import numpy as np

    inputs = keras.Input((3, 3, 2))
    conv = keras.layers.Conv2D(3, 1, use_bias=False, activation="relu", name="conv")
    dense = keras.layers.Dense(4, use_bias=False, name="dense")
    norm = keras.layers.BatchNormalization(center=False, scale=False, epsilon=1e-3, name="norm")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(norm(conv(inputs)))
    model = keras.Model(inputs, dense(x))
    conv.set_weights([given["w1"]])
    norm.set_weights([given["mean"], given["variance"]])
    dense.set_weights([given["w2"]])
    joined = names["multi_depth"](model, ["dense", "conv"], given["x"])
    trunk, top = names["cut"](model, "conv")
    middle = np.asarray(trunk(given["x"], training=False))
    once = len(trunk.weights) == 1 and len(top.weights) == 3
    found = {"joined": joined, "middle": middle, "top": np.asarray(top(middle, training=False)), "once": once}
    conv.set_weights([2 * given["w1"]])  # what shares the weights follows
    dense.set_weights([-given["w2"]])
    return {
        **found,
        "middle_later": np.asarray(trunk(given["x"], training=False)),
        "top_later": np.asarray(top(middle, training=False)),
    }


def check_depths(given, found):
    middle = np.maximum(given["x"] @ given["w1"][0, 0], 0)
    output = ((middle - given["mean"]) / np.sqrt(given["variance"] + 1e-3)).mean(axis=(1, 2)) @ given["w2"]
    joined = np.concatenate([output, middle.mean(axis=(1, 2))], axis=1)
    yield (
        "joined",
        *judged(
            found["joined"],
            joined,
            "The numbers are not the averaged outputs of the layers, in the order of their names.",
            1e-3,
            1e-3,
        ),
    )
    yield (
        "trunk",
        *judged(found["middle"], middle, "The lower part does not give the output of the layer.", 1e-3, 1e-3),
    )
    yield (
        "trunk",
        same(found["top"], output, 1e-3, 1e-3) and bool(found["once"]),
        ("The upper part does not go on where the lower one ends, or a layer is in both."),
    )
    yield (
        "trunk",
        same(found["middle_later"], 2 * middle, 1e-3, 1e-3) and same(found["top_later"], -output, 1e-3, 1e-3),
        "The two parts have copies of the weights. They must have the model's own: the layers are shared.",
    )
