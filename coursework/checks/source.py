"""Checks of the assignment `source`. How such a file is made up stands at the top of `repair.py`."""

import numpy as np


def draw_rank(rng):
    scores = rng.integers(0, 6, (5, 8)).astype(float)
    return {"scores": scores, "accuracies": scores / 10 + rng.normal(0, 0.3, (5, 8))}


def probe_rank(names, given):
    import numpy as np

    pairs = zip(given["scores"], given["accuracies"], strict=True)
    values = [names["rank_correlation"](list(a), list(b)) for a, b in pairs]
    return {
        "values": np.array(values, float),
        "constant": float(names["rank_correlation"]([2.0, 2.0, 2.0], [1.0, 2.0, 3.0])),
    }


def check_rank(given, found):
    from scipy.stats import spearmanr

    expected = [spearmanr(a, b).statistic for a, b in zip(given["scores"], given["accuracies"], strict=True)]
    yield (
        "value",
        np.allclose(found["values"], expected, atol=1e-6),
        "This is not the correlation of ranks, ties sharing their mean.",
    )
    yield "constant", found["constant"] == 0, "Where the score does not vary, the answer is 0."


def draw_leep(rng):
    return {"theta": rng.dirichlet(np.full(4, 0.7), 90), "y": np.r_[np.arange(3), rng.integers(0, 3, 87)]}


def probe_leep(names, given):
    table = names["conditional"](given["theta"], given["y"], 3)
    return {"table": table, "score": float(names["leep"](given["theta"], given["y"], 3))}


def check_leep(given, found):
    theta, y = given["theta"], given["y"]
    joint = np.stack([theta[y == k].sum(axis=0) for k in range(3)])
    table = joint / joint.sum(axis=0)
    yield (
        "conditional",
        found["table"].shape == (3, 4) and np.allclose(found["table"], table),
        (
            "P(y | z) is the joint over the sum of its column: how the labels are spread where the source says z."
        ),
    )
    score = np.log((theta @ table.T)[np.arange(90), y]).mean()
    yield (
        "score",
        np.allclose(found["score"], score, atol=1e-6),
        "The score is the mean of the log of the expected P(y | z).",
    )


def draw_pareto(rng):
    accuracy, seconds = rng.uniform(0.5, 0.95, 12), rng.uniform(1, 100, 12)
    accuracy[1], seconds[1] = accuracy[0], seconds[0] + 5
    rows = [
        {"name": f"m{i}", "accuracy": float(a), "seconds": float(s)}
        for i, (a, s) in enumerate(zip(accuracy, seconds, strict=True))
    ]
    rows += [
        {"name": "fast", "accuracy": 0.3, "seconds": 0.5},
        {"name": "best", "accuracy": 0.99, "seconds": 200.0},
        {"name": "second", "accuracy": 0.97, "seconds": 150.0},
    ]
    return {"rows": [rows[i] for i in rng.permutation(len(rows))]}


def probe_pareto(names, given):
    return {
        "found": {"names": [str(name) for name in names["not_beaten"]([dict(row) for row in given["rows"]])]}
    }


def check_pareto(given, found):
    rows = given["rows"]

    def beaten(row):
        return any(
            other["accuracy"] >= row["accuracy"] and other["seconds"] <= row["seconds"] and other is not row
            for other in rows
        )

    expected = [row["name"] for row in sorted(rows, key=lambda row: row["seconds"]) if not beaten(row)]
    yield (
        "names",
        sorted(found["found"]["names"]) == sorted(expected),
        "These are not the methods that no other one beats.",
    )
    yield "order", found["found"]["names"] == expected, "The methods that are not beaten, the fastest first."


def draw_harm(rng):
    without = 0.7 + 0.02 * rng.normal(size=(4, 6))
    noise = 0.01 * rng.normal(size=6)
    noise = (noise - noise.mean()) / noise.std(ddof=1) / 100
    gains = [
        0.1 + noise,
        -0.1 + noise,
        0.003 + noise,
        0.02 + noise,
    ]  # the third is less than the interval's half
    without[3] += 0.1 * rng.normal(size=6)  # the last is clear only when it is paired
    return {"with": without + np.array(gains), "without": without}


def probe_harm(names, given):
    found = [names["verdict"](a, b) for a, b in zip(given["with"], given["without"], strict=True)]
    return {"gain": [float(mean) for mean, _ in found], "words": {"list": [str(word) for _, word in found]}}


def check_harm(given, found):
    from scipy.stats import t

    expected = []
    for gain in given["with"] - given["without"]:
        half = t.ppf(0.975, 5) * gain.std(ddof=1) / np.sqrt(6)
        expected.append("unclear" if abs(gain.mean()) <= half else "helps" if gain.mean() > 0 else "harms")
    means = (given["with"] - given["without"]).mean(axis=1)
    yield (
        "gain",
        np.allclose(found["gain"], means),
        "The mean gain is the accuracy with the source minus the one without.",
    )
    yield (
        "verdict",
        found["words"]["list"] == expected,
        ("In a case the verdict is not that of the interval of the paired differences."),
    )


def draw_choose(rng):
    order = [str(name) for name in rng.permutation(["a", "b", "c", "d"])]
    best = float(rng.uniform(0.8, 0.9))
    table = [
        {"source": name, "n": 50, "accuracy": best - d}
        for name, d in zip(order, (0.2, 0.015, 0.0, 0.01), strict=True)
    ]
    table += [{"source": name, "n": 20, "accuracy": 0.99 if name == order[0] else 0.5} for name in order]
    return {"table": table, "order": order}


def probe_choose(names, given):
    rows, order = given["table"], given["order"]
    cases = [(20, 0.02), (50, 0.02), (50, 0.012), (50, 0.001)]
    return {
        "found": {
            "list": [str(names["choose"]([dict(r) for r in rows], n, list(order), t)) for n, t in cases[:2]]
            + [
                str(names["choose"]([dict(r) for r in rows], n, list(reversed(order)), t))
                for n, t in cases[2:]
            ]
        }
    }


def check_choose(given, found):
    order, got = given["order"], found["found"]["list"]
    yield (
        "best",
        got[0] == order[0] and got[3] == order[2],
        "Where one source is clearly best at this number of labels, take it.",
    )
    yield (
        "equals",
        got[1] == order[1] and got[2] == order[3],
        ("Of the sources that are at most the tolerance below the best, take the first of cheapest_first."),
    )
