"""Checks of the assignment `tuning`. How such a file is made up stands at the top of `repair.py`."""

import numpy as np

from tools.grading.compare import judged, same


def draw_objective(rng):
    y = rng.integers(0, 3, 50)
    predicted = np.where(rng.random(50) < 0.7, y, (y + 1) % 3)
    rate = float(10 ** rng.uniform(-4, -1))
    return {"f": rng.normal(size=(50, 2)), "y": y, "predicted": predicted, "rate": rate, "width": 64}


def probe_objective(names, given):
    import numpy as np

    asked, trained = {}, []
    row_of = {tuple(row): i for i, row in enumerate(given["f"])}

    class Trial:
        def suggest_float(self, name, low, high, *, step=None, log=False):
            asked[name] = [float(low), float(high), float(log)]
            return given["rate"]

        def suggest_categorical(self, name, choices):
            asked[name] = [float(c) for c in choices]
            return given["width"]

    def train(rate, width):
        trained.append([float(rate), float(width)])
        return lambda f: given["predicted"][[row_of[tuple(row)] for row in np.asarray(f)]]

    score = names["objective"](Trial(), train, given["f"], given["y"])
    return {"score": score, "asked": {"table": asked, "trained": trained}}


def check_objective(given, found):
    asked, trained = found["asked"]["table"], found["asked"]["trained"]
    yield (
        "ranges",
        same(np.array(asked.get("rate", [0.0, 0.0, 0.0])), [1e-4, 1e-1, 1.0], 1e-6, 1e-9),
        ("The rate must be searched from 0.0001 to 0.1 on a logarithmic scale."),
    )
    yield "ranges", sorted(asked.get("width", [])) == [16, 32, 64], "The width must be one of 16, 32 and 64."
    yield (
        "score",
        len(trained) == 1 and same(np.array(trained[0]), [given["rate"], given["width"]], 1e-6, 1e-9),
        ("What the trial suggested must be trained, once."),
    )
    right = float(np.mean(given["predicted"] == given["y"]))
    yield (
        "score",
        *judged(found["score"], right, "The objective is not the accuracy on the validation features."),
    )


def draw_folds(rng):
    groups = rng.permutation(np.repeat(np.arange(20), 3))
    return {"f": rng.normal(size=(60, 2)), "y": rng.integers(0, 2, 60), "groups": groups}


def probe_folds(names, given):
    import numpy as np

    f, row_of = given["f"], {tuple(row): i for i, row in enumerate(given["f"])}
    fits, labels, held = [], [], []

    def fit(f_part, y_part):
        fits.append([row_of[tuple(row)] for row in np.asarray(f_part)])
        labels.append([int(label) for label in np.asarray(y_part)])
        held.append([])
        mine = held[-1]

        def predict(new):
            mine.extend(row_of[tuple(row)] for row in np.asarray(new))
            return (np.asarray(new)[:, 0] > 0).astype(int)

        return predict

    scores = names["cross_validate"](fit, f, given["y"], given["groups"], 5)
    return {"scores": np.asarray(scores), "rows": {"fits": fits, "labels": labels, "held": held}}


def check_folds(given, found):
    fits, held, labels = (found["rows"][name] for name in ("fits", "held", "labels"))
    groups, y = given["groups"], given["y"]
    apart = all(not set(groups[a]) & set(groups[b]) for a, b in zip(fits, held, strict=True))
    yield (
        "groups",
        len(held) == 5 and all(held) and apart,
        "A group is on both sides of a fold, so twins are seen in training.",
    )
    once = sorted(row for rows in held for row in rows) == list(range(60))
    yield "scores", once, "Each example must be held out exactly once."
    paired = all(
        sorted([*a, *b]) == list(range(60)) and list(y[a]) == c
        for a, b, c in zip(fits, held, labels, strict=True)
    )
    yield "scores", paired, "A fold was not fitted on all other examples, each with its own label."
    right = (given["f"][:, 0] > 0) == y
    expected = [right[rows].mean() for rows in held]
    yield (
        "scores",
        *judged(
            np.sort(found["scores"]),
            sorted(expected),
            "The scores are not the accuracies on the held-out examples.",
        ),
    )


IMAGES = 1600


def draw_paired(rng):
    while True:  # until the difference is far enough from 0 to have a sign
        hard = rng.random(IMAGES)
        a, b = hard < 0.80, (hard < 0.84) ^ (rng.random(IMAGES) < 0.02)
        if abs(b.mean() - a.mean()) > 0.02:
            break
    val, test = rng.permutation(np.linspace(0.7, 0.9, 8)), rng.uniform(0.75, 0.85, 8)
    test[val.argmax()] = 0.72  # the winner had luck
    return {"a": a, "b": b, "val": val, "test": test}


def probe_paired(names, given):
    import numpy as np

    def interval(draws, seed):
        return names["paired_interval"](given["a"], given["b"], draws=draws, seed=seed)

    few = [interval(50, seed) for seed in (1, 1, 2, 3, 4)]
    return {
        "ends": np.array([interval(6000, seed) for seed in (1, 2)]),
        "few": np.array(few),
        "luck": names["winners_luck"](given["val"], given["test"]),
    }


def check_paired(given, found):
    difference = given["b"].astype(float) - given["a"].astype(float)
    half = 1.96 * difference.std() / np.sqrt(IMAGES)
    expected = np.array([difference.mean() - half, difference.mean() + half])
    yield (
        "interval",
        same(found["ends"], np.stack([expected, expected]), 0, 0.09 * half + 0.5 / IMAGES),
        ("The interval is not that of the paired difference b - a: another width or another sign."),
    )
    few = found["few"]
    yield (
        "interval",
        few.shape == (5, 2) and same(few[1], few[0]) and len({tuple(ends) for ends in few}) > 1,
        "The same seed must give the same interval, and other seeds other draws.",
    )
    winner = int(np.argmax(given["val"]))
    yield (
        "luck",
        same(found["luck"], given["val"][winner] - given["test"][winner]),
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
        *judged(
            found["matrix"],
            matrix.astype(int),
            "The counts are not right: rows are true classes, columns predicted ones, also those that do not occur.",
        ),
    )
    expected = {str(s): float(np.mean((given["y"] == given["p"])[given["s"] == s])) for s in range(3)}
    alike = found["slices"].keys() == expected.keys()
    yield (
        "slices",
        alike and all(same(found["slices"][s], expected[s]) for s in expected),
        ("The accuracies on the slices are not right."),
    )


GRID = [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def draw_calibration(rng):
    logits = 2.0 * rng.normal(size=(600, 4))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = np.array([rng.choice(4, p=row) for row in p])
    # Some confidences lie on the borders of bins, exactly. The sure ones are too sure, and the others not sure enough.
    borders = np.repeat([[0.5, 0.25, 0.25], [0.25, 0.75, 0.0]], 15, axis=0)
    mixed = rng.permutation(np.concatenate([rng.dirichlet(np.ones(3), 200), borders]))
    best, confidence = mixed.argmax(axis=1), mixed.max(axis=1)
    right = rng.random(len(mixed)) < 1.3 - confidence
    return {
        "p": mixed,
        "y": np.where(right, best, (best + 1) % 3),
        "logits": logits * float(rng.choice([2.0, 3.0, 4.0])),
        "cold": 0.5 * logits,
        "hot": 6.0 * logits,
        "labels": y,
    }


def probe_calibration(names, given):
    error, temperature = names["expected_calibration_error"], names["best_temperature"]
    grid = [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    return {
        "error": error(given["p"], given["y"], 10),
        "few": error(given["p"], given["y"], 4),
        **{name: temperature(given[name], given["labels"], grid) for name in ("logits", "cold", "hot")},
    }


def check_calibration(given, found):
    confidence, right = given["p"].max(axis=1), given["p"].argmax(axis=1) == given["y"]

    def error(bins):
        places = np.ceil(confidence * bins)
        return sum(
            (places == b).mean() * abs(confidence[places == b].mean() - right[places == b].mean())
            for b in np.unique(places)
        )

    said = (
        "The error is not the mean distance between confidence and accuracy, weighted by the bins' counts. A "
        "confidence on a border belongs to the bin below."
    )
    for name, bins in (("error", 10), ("few", 4)):
        yield "error", *judged(found[name], error(bins), said)

    def loss(logits, t):
        z = logits / t
        z = z - z.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(600), given["labels"]]))

    for name in ("logits", "cold", "hot"):
        yield (
            "temperature",
            same(found[name], min(GRID, key=lambda t, name=name: loss(given[name], t)), 1e-6, 1e-9),
            ("This is not the temperature with the smallest cross-entropy: logits are divided by it."),
        )
