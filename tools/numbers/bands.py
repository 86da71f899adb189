"""Where a new measurement is expected to land: a report, which fails nothing.

A band is the mean of the stored seeds plus or minus three sample standard deviations (n - 1 in the
denominator). Of three seeds it is a guess: a fourth one lies outside in about one case of eight.
"""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tools.numbers.provenance import RESULTS, ROOT

if TYPE_CHECKING:
    from tools.numbers.kernel import Run

WIDTH = 3.0
MIN_SEEDS = 3
TOLERANCE = 1e-9  # what a sum of equal numbers loses to rounding


def band(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the band of some measured values.

    Raises:
        ValueError: there are fewer than three values.
    """
    if len(values) < MIN_SEEDS:
        raise ValueError(f"A band needs at least {MIN_SEEDS} seeds; there are {len(values)}.")
    mean, half = math.fsum(values) / len(values), WIDTH * statistics.stdev(values) + TOLERANCE
    return mean - half, mean + half


def measured(profile: str, root: Path = ROOT) -> dict[str, list[float]]:
    """Return the stored measurements of a profile: quantity to one value a seed.

    Raises:
        ValueError: two files measure the same quantity.
    """
    found: dict[str, list[float]] = {}
    for path in sorted((root / RESULTS).glob(f"*.{profile}.json")):
        here: dict[str, list[float]] = {}
        for record in json.loads(path.read_text(encoding="utf-8"))["records"].values():
            for name, value in record["values"].items():
                here.setdefault(name, []).append(float(value))
        if twice := sorted(set(here) & set(found)):
            raise ValueError(f"{path.name} measures {twice[0]!r} a second time; rename one.")
        found |= here
    return found


def report(runs: "Sequence[Run]", root: Path = ROOT) -> list[str]:
    """Return a line for each live value outside its band, and how many were compared."""
    lines, compared, without = [], 0, 0
    for run in runs:
        known = measured(run.profile, root)
        for claim in run.claims:
            value = claim.get("live")
            if value is None or len(known.get(claim["name"], ())) < MIN_SEEDS:
                without += 1
                continue
            low, high = band(known[claim["name"]])
            compared += 1
            if not low <= value <= high:
                lines.append(
                    f"{run.name}: {claim['name']} is {value:.4g} now, outside {low:.4g} to {high:.4g}"
                )
    return [*lines, f"{compared} live values compared, {len(lines)} outside, {without} claims without one"]
