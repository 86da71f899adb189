"""Derives what to try with how many labels from the runs behind chapter 8.

    python -m tools.numbers.decision [--check]

At each number of labels that was measured, it takes the cheapest method that no other beat: the method with
the highest mean is not ahead of it in every seed, and not with 95 % confidence (paired t interval). This is
advice, no verdict: with three seeds, a lead of many points may be in doubt and still be worth taking. Between
two numbers of labels where the method changes, the border is their geometric mean, to two figures at most:
nothing was measured there.
"""

import argparse
import itertools
import json
import math
import sys
from pathlib import Path

from tlhelpers import decision, evaluation
from tools.numbers.stored import ROOT

RUNS = ROOT / "benchmarks" / "results" / "comparison.json"
TABLE = ROOT / "tlhelpers" / "decision.json"
DATA = {"near": "cifar10", "far": "digits"}  # which data set stands for which distance

Runs = dict[str, dict[str, float]]


def accuracies(runs: Runs, data: str, labels: int) -> dict[str, dict[int, float]]:
    """Return method -> seed -> test accuracy, of the methods that are advised."""
    found: dict[str, dict[int, float]] = {}
    for key, run in runs.items():
        name, method, n, seed = key.split("/")
        if name == data and int(n) == labels and method in decision.METHODS:
            found.setdefault(method, {})[int(seed)] = run["accuracy"]
    return found


def chosen(runs: Runs, data: str, labels: int) -> str:
    """Return the cheapest method that no other beat.

    Raises:
        SystemExit: The methods have not the same seeds, or fewer than three.
    """
    found = accuracies(runs, data, labels)
    seeds = set.union(*(set(by_seed) for by_seed in found.values()))
    if len(seeds) < 3 or any(set(by_seed) != seeds for by_seed in found.values()):
        have = {method: sorted(by_seed) for method, by_seed in found.items()}
        raise SystemExit(
            f"{data}, {labels} labels a class: each method needs the same three seeds or more, not {have}. "
            "Go on with python benchmarks/comparison.py."
        )
    values = {method: [by_seed[seed] for seed in sorted(seeds)] for method, by_seed in found.items()}
    best = max(values, key=lambda method: sum(values[method]))
    for method in decision.METHODS:  # from cheap to expensive
        if method in values:
            gaps = [a - b for a, b in zip(values[best], values[method], strict=True)]
            if method == best or (min(gaps) <= 0 and evaluation.t_interval(gaps)[1] <= 0):
                return method
    raise AssertionError(best)


def between(a: int, b: int) -> int:
    """Return the geometric mean, to two figures."""
    middle = math.sqrt(a * b)
    step = 10 ** max(0, math.floor(math.log10(middle)) - 1)
    return round(middle / step) * step


def derive(runs: Runs) -> dict:
    """Return the table."""
    rows = []
    for distance, data in DATA.items():
        sizes = sorted({int(key.split("/")[2]) for key in runs if key.split("/")[0] == data})
        sizes = [n for n in sizes if len(accuracies(runs, data, n)) > 1]
        methods = [(n, chosen(runs, data, n)) for n in sizes]
        groups = [
            (method, [n for n, _ in some]) for method, some in itertools.groupby(methods, key=lambda m: m[1])
        ]
        borders = [1, *(between(a[1][-1], b[1][0]) for a, b in itertools.pairwise(groups)), None]
        rows += [
            {"distance": distance, "at_least": low, "below": high, "method": method, "measured": measured}
            | {"data": data}
            for (method, measured), (low, high) in zip(groups, itertools.pairwise(borders), strict=True)
        ]
    return {"derived_by": "python -m tools.numbers.decision", "from": RUNS.name, "advice": rows}


def text(runs: Path = RUNS) -> str:
    """Return the content of the file, as it follows from the runs."""
    return json.dumps(derive(json.loads(runs.read_text(encoding="utf-8"))["runs"]), indent=1) + "\n"


def main() -> None:
    """Write the table, or say that it is not what follows from the runs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the table would change")
    args = parser.parse_args()
    found = text()
    if args.check and found != TABLE.read_text(encoding="utf-8"):
        sys.exit(f"{TABLE.name} is not what follows from {RUNS.name}: run python -m tools.numbers.decision.")
    if not args.check:
        TABLE.write_text(found, encoding="utf-8")
    print(found, end="")


if __name__ == "__main__":
    main()
