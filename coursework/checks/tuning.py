"""Checks of the assignment `tuning`. How such a file is made up stands at the top of `repair.py`."""

import numpy as np


def draw_objective(rng):
    y = rng.integers(0, 3, 50)
    predicted = np.where(rng.random(50) < 0.7, y, (y + 1) % 3)
    rate = float(10 ** rng.uniform(-4, -1))
    return {"f": rng.normal(size=(50, 2)), "y": y, "predicted": predicted, "rate": rate, "width": 64}


def probe_objective(names, given):
    asked, trained = {}, []

    class Trial:
        def suggest_float(self, name, low, high, *, step=None, log=False):
            asked[name] = [float(low), float(high), float(log)]
            return given["rate"]

        def suggest_categorical(self, name, choices):
            asked[name] = [float(c) for c in choices]
            return given["width"]

    def train(rate, width):
        trained.append([float(rate), float(width)])
        return lambda f: given["predicted"] if len(f) == 50 else given["predicted"][: len(f)]

    score = names["objective"](Trial(), train, given["f"], given["y"])
    return {"score": float(score), "asked": {"table": asked, "trained": trained}}


def check_objective(given, found):
    asked, trained = found["asked"]["table"], found["asked"]["trained"]
    rate = asked.get("rate", [0, 0, 0])
    yield (
        "ranges",
        np.allclose(rate[:2], [1e-4, 1e-1]) and rate[2] == 1,
        ("The rate must be searched from 0.0001 to 0.1 on a logarithmic scale."),
    )
    yield "ranges", sorted(asked.get("width", [])) == [16, 32, 64], "The width must be one of 16, 32 and 64."
    yield (
        "score",
        len(trained) == 1 and np.allclose(trained[0], [given["rate"], given["width"]]),
        ("What the trial suggested must be trained, once."),
    )
    right = float(np.mean(given["predicted"] == given["y"]))
    yield (
        "score",
        abs(float(found["score"]) - right) < 1e-9,
        "The objective is not the accuracy on the validation features.",
    )


def draw_folds(rng):
    groups = rng.permutation(np.repeat(np.arange(20), 3))
    return {"f": rng.normal(size=(60, 2)), "y": rng.integers(0, 2, 60), "groups": groups}


def probe_folds(names, given):
    import numpy as np

    f, row_of = given["f"], {tuple(row): i for i, row in enumerate(given["f"])}
    fits, held = [], []

    def fit(f_part, y_part):
        fits.append([row_of[tuple(row)] for row in f_part])

        def predict(new):
            held.append([row_of[tuple(row)] for row in new])
            return (np.asarray(new)[:, 0] > 0).astype(int)

        return predict

    scores = names["cross_validate"](fit, f, given["y"], given["groups"], 5)
    return {"scores": np.asarray(scores, float), "rows": {"fits": fits, "held": held}}


def check_folds(given, found):
    fits, held = found["rows"]["fits"], found["rows"]["held"]
    groups = given["groups"]
    apart = all(not set(groups[a]) & set(groups[b]) for a, b in zip(fits, held, strict=True))
    yield (
        "groups",
        len(held) == 5 and apart,
        "A group is on both sides of a fold, so twins are seen in training.",
    )
    once = sorted(row for rows in held for row in rows) == list(range(60))
    yield "scores", once, "Each example must be held out exactly once."
    right = (given["f"][:, 0] > 0) == given["y"]
    expected = [right[rows].mean() for rows in held]
    yield (
        "scores",
        found["scores"].shape == (5,) and np.allclose(sorted(found["scores"]), sorted(expected)),
        ("The scores are not the accuracies on the held-out examples."),
    )


def draw_paired(rng):
    while True:  # until the difference is far enough from 0 to have a sign
        hard = rng.random(400)
        a, b = hard < 0.80, (hard < 0.84) ^ (rng.random(400) < 0.02)
        if abs(b.mean() - a.mean()) > 0.02:
            break
    val, test = rng.permutation(np.linspace(0.7, 0.9, 8)), rng.uniform(0.75, 0.85, 8)
    test[val.argmax()] = 0.72  # the winner had luck
    return {
        "a": a,
        "b": b,
        "val": val,
        "test": test,
    }


def probe_paired(names, given):
    import numpy as np

    ends = [names["paired_interval"](given["a"], given["b"], draws=3000, seed=s) for s in (1, 2)]
    return {"ends": np.array(ends, float), "luck": float(names["winners_luck"](given["val"], given["test"]))}


def check_paired(given, found):
    difference = given["b"].astype(float) - given["a"].astype(float)
    half = 1.96 * difference.std() / 20
    expected = np.array([difference.mean() - half, difference.mean() + half])
    yield (
        "interval",
        found["ends"].shape == (2, 2) and np.abs(found["ends"] - expected).max() < 0.25 * half + 0.0025,
        ("The interval is not that of the paired difference b - a: another width or another sign."),
    )
    winner = int(np.argmax(given["val"]))
    yield (
        "luck",
        np.allclose(found["luck"], given["val"][winner] - given["test"][winner]),
        (
            "The winner is the trial with the best validation accuracy; what counts is that accuracy minus its own test accuracy."
        ),
    )


def draw_errors(rng):
    return {"y": rng.integers(0, 4, 80), "p": rng.integers(0, 5, 80), "s": rng.integers(0, 3, 80)}


def probe_errors(names, given):
    by_slice = names["accuracy_by_slice"](given["y"], given["p"], given["s"])
    return {
        "matrix": names["confusion"](given["y"], given["p"], 6),  # the last class does not occur
        "slices": {str(int(key)): float(value) for key, value in by_slice.items()},
    }


def check_errors(given, found):
    matrix = np.zeros((6, 6))
    np.add.at(matrix, (given["y"], given["p"]), 1)
    yield (
        "confusion",
        found["matrix"].shape == (6, 6) and np.array_equal(found["matrix"], matrix),
        (
            "The counts are not right: rows are true classes, columns predicted ones, also those that do not occur."
        ),
    )
    expected = {str(s): float(np.mean((given["y"] == given["p"])[given["s"] == s])) for s in range(3)}
    same = found["slices"].keys() == expected.keys()
    yield (
        "slices",
        same and all(abs(found["slices"][s] - expected[s]) < 1e-9 for s in expected),
        ("The accuracies on the slices are not right."),
    )


GRID = [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def draw_calibration(rng):
    logits = 2.0 * rng.normal(size=(600, 4))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = np.array([rng.choice(4, p=row) for row in p])
    return {
        "p": rng.dirichlet(np.ones(3), 200),
        "y": rng.integers(0, 3, 200),
        "logits": logits * float(rng.choice([2.0, 3.0, 4.0])),
        "labels": y,
    }


def probe_calibration(names, given):
    return {
        "error": float(names["expected_calibration_error"](given["p"], given["y"], 10)),
        "few": float(names["expected_calibration_error"](given["p"], given["y"], 5)),
        "temperature": float(
            names["best_temperature"](given["logits"], given["labels"], [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
        ),
    }


def check_calibration(given, found):
    confidence, right = given["p"].max(axis=1), given["p"].argmax(axis=1) == given["y"]

    def error(bins):
        places = np.ceil(confidence * bins)
        return sum(
            (places == b).mean() * abs(confidence[places == b].mean() - right[places == b].mean())
            for b in np.unique(places)
        )

    yield (
        "error",
        np.allclose([found["error"], found["few"]], [error(10), error(5)], atol=1e-6),
        ("The error is not the mean distance between confidence and accuracy, weighted by the bins' counts."),
    )

    def loss(t):
        z = given["logits"] / t
        z = z - z.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(600), given["labels"]]))

    yield (
        "temperature",
        abs(found["temperature"] - min(GRID, key=loss)) < 1e-9,
        ("This is not the temperature with the smallest cross-entropy: logits are divided by it."),
    )
