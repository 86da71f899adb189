"""Checks of the assignment `source`. How such a file is made up stands at the top of `repair.py`."""

import numpy as np

from tools.grading.compare import judged, same


def draw_rank(rng):
    scores = rng.integers(0, 6, (5, 8)).astype(float)
    return {"scores": scores, "accuracies": scores / 10 + rng.normal(0, 0.3, (5, 8))}


def probe_rank(names, given):
    import numpy as np

    pairs = zip(given["scores"], given["accuracies"], strict=True)
    values = [names["rank_correlation"](list(a), list(b)) for a, b in pairs]
    return {
        "values": np.array(values, float),
        "constant": names["rank_correlation"]([2.0, 2.0, 2.0], [1.0, 2.0, 3.0]),
        "flat": names["rank_correlation"]([1.0, 2.0, 3.0], [0.5, 0.5, 0.5]),
    }


def check_rank(given, found):
    from scipy.stats import spearmanr

    expected = [spearmanr(a, b).statistic for a, b in zip(given["scores"], given["accuracies"], strict=True)]
    yield (
        "value",
        same(found["values"], np.array(expected), 1e-4, 1e-6),
        "This is not the correlation of ranks, ties sharing their mean.",
    )
    said = "Where the score or the accuracy does not vary, the answer is 0."
    yield "constant", same(found["constant"], 0.0, 0, 1e-9) and same(found["flat"], 0.0, 0, 1e-9), said


def draw_leep(rng):
    return {"theta": rng.dirichlet(np.full(4, 0.7), 90), "y": np.r_[np.arange(3), rng.integers(0, 3, 87)]}


def probe_leep(names, given):
    table = names["conditional"](given["theta"], given["y"], 3)
    return {"table": table, "score": names["leep"](given["theta"], given["y"], 3)}


def check_leep(given, found):
    theta, y = given["theta"], given["y"]
    joint = np.stack([theta[y == k].sum(axis=0) for k in range(3)])
    table = joint / joint.sum(axis=0)
    yield (
        "conditional",
        *judged(
            found["table"],
            table,
            "P(y | z) is the joint over the sum of its column: how the labels are spread where the source says z.",
        ),
    )
    score = np.log((theta @ table.T)[np.arange(90), y]).mean()
    yield (
        "score",
        same(found["score"], score),
        "The score is the mean of the log of the expected P(y | z).",
    )


def draw_pareto(rng):
    accuracy = 0.4 + 0.1 * np.arange(5) + rng.uniform(0.0, 0.05, 5)
    seconds = 10.0 * 2 ** np.arange(5) * rng.uniform(1.0, 1.2, 5)
    best = list(zip(accuracy, seconds, strict=True))  # none of these beats another
    beaten = [
        (accuracy[1], seconds[1] * 1.1),  # as accurate, and slower
        (accuracy[2] - 0.01, seconds[2]),  # as fast, and less accurate
        *((a - 0.02 - 0.05 * rng.random(), s * (1.05 + rng.random())) for a, s in best),
    ]
    twin = best[3]  # as good as another one in both: neither beats the other
    rows = [best[1], *(x for i, x in enumerate(best) if i not in (1, 2)), *beaten, twin, best[2]]
    middle = rng.permutation(np.arange(1, len(rows) - 1))
    order = [0, *(int(i) for i in middle), len(rows) - 1]
    return {
        "rows": [
            {"name": f"m{k}", "accuracy": float(rows[i][0]), "seconds": float(rows[i][1])}
            for k, i in enumerate(order)
        ]
    }


def probe_pareto(names, given):
    return {
        "found": {"names": [str(name) for name in names["not_beaten"]([dict(row) for row in given["rows"]])]}
    }


def check_pareto(given, found):
    rows, got = given["rows"], found["found"]["names"]

    def beaten(row):
        return any(
            other["accuracy"] >= row["accuracy"]
            and other["seconds"] <= row["seconds"]
            and (other["accuracy"] > row["accuracy"] or other["seconds"] < row["seconds"])
            for other in rows
        )

    seconds = {row["name"]: row["seconds"] for row in rows if not beaten(row)}
    right = sorted(got) == sorted(seconds)
    yield "names", right, "These are not the methods that no other one beats."
    in_order = right and [seconds[name] for name in got] == sorted(seconds.values())
    yield "order", in_order, "The methods that are not beaten, the fastest first."


def draw_harm(rng):
    from scipy.stats import t

    without = 0.7 + 0.1 * rng.normal(size=(8, 6))  # clear only when it is paired
    noise = rng.normal(size=(8, 6))
    noise = 0.01 * (noise - noise.mean(axis=1, keepdims=True)) / noise.std(axis=1, ddof=1, keepdims=True)
    half = t.ppf(0.975, 5) * 0.01 / np.sqrt(6)
    means = rng.permutation([3.0, -3.0, 1.03, -1.03, 0.975, -0.975, 0.3, -0.3]) * half
    return {"with": without + noise + means[:, None], "without": without}


def probe_harm(names, given):
    import numpy as np

    found = [names["verdict"](a, b) for a, b in zip(given["with"], given["without"], strict=True)]
    return {
        "gain": np.array([float(mean) for mean, _ in found]),
        "words": {"list": [str(word) for _, word in found]},
    }


def check_harm(given, found):
    from scipy.stats import t

    expected = []
    for gain in given["with"] - given["without"]:
        half = t.ppf(0.975, 5) * gain.std(ddof=1) / np.sqrt(6)
        expected.append("unclear" if abs(gain.mean()) <= half else "helps" if gain.mean() > 0 else "harms")
    means = (given["with"] - given["without"]).mean(axis=1)
    yield (
        "gain",
        same(found["gain"], means),
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
    below = dict(zip(order, (0.2, 0.015, 0.0, 0.01), strict=True))
    table = [
        {"source": name, "n": 50, "accuracy": best - below[name]} for name in (order[2], *order[:2], order[3])
    ]
    table += [{"source": name, "n": 20, "accuracy": 0.99 if name == order[0] else 0.5} for name in order]
    # Nearly the cheapest, and measured with other numbers of labels only.
    return {"table": [*table, {"source": "e", "n": 200, "accuracy": 0.995}], "order": order}


def probe_choose(names, given):
    rows, order = given["table"], given["order"]
    cases = [(20, 0.02, order), (50, 0.02, order), (50, 0.012, order[::-1]), (50, 0.001, order[::-1])]
    return {
        "found": {
            "list": [
                str(names["choose"]([dict(r) for r in rows], n, [o[0], "e", *o[1:]], t)) for n, t, o in cases
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
