"""Where a new run is expected to land: a report, which fails nothing.

A band is a prediction interval around the mean of the stored seeds. Few seeds say little about their spread.
So variances are moderated, drawn towards that of all claims of one kind (Smyth, 2004, Linear Models and
Empirical Bayes Methods for Assessing Differential Expression, sections 4 and 6.2). What claims of a kind have
in common is how their variance compares with the sampling variance of their test set, below which none is
taken. A run on another processor is taken to add as much as that again.

There are two stages. A claim whose live value is unlikely is suspected, one of fifty for nothing. Then three
fresh seeds are measured and judged by themselves, so strictly that a whole run may raise an alarm for
nothing in 1 % of the cases at most. Few stored seeds say little, and so it must be stricter there and finds
less. `tests/test_bands.py` simulates how often that happens, and which shifts are found.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize, special

from tools.numbers import stored
from tools.numbers.provenance import ROOT

if TYPE_CHECKING:
    from tools.numbers.kernel import Run

MIN_SEEDS = 3
ALARM = 0.01  # how often a whole run may raise an alarm though nothing changed
SCREEN = 0.02  # how often a claim is suspected though nothing changed
# The stored mean is off for both stages, and so an innocent suspect is condemned so many times as often.
# Set by simulation, for so many stored seeds and more.
SHARED = {3: 60.0, 5: 12.0}
FRESH = (1000, 1001, 1002)  # seeds of the second stage
OWN = re.compile(r"\(\*P\.seeds[^)]*\)|P\.seeds")  # a chapter's seeds: the profile's, or these and more
ALIKE = 8.0  # degrees of freedom that a kind lends at most: that its claims are all alike is never sure
SIZES = np.arange(20, 2001)  # of test sets
DISAGREE = 0.1  # two networks differ on at least so many images; fewer would make their difference too sure
MACHINE = 1.0  # variance of a run on another processor, in sampling variances


@dataclass(frozen=True)
class Band:
    """Where new values are expected.

    Attributes:
        mean: Of the stored seeds.
        error: Variance of that mean.
        variance: Of a new value.
        freedom: Degrees of freedom of the variances.
        seeds: How many are stored.
    """

    mean: float
    error: float
    variance: float
    freedom: float
    seeds: int

    def ends(self, level: float, values: int = 1) -> tuple[float, float]:
        """Return the ends that the mean of so many new values leaves with this probability."""
        deviation = math.sqrt(self.variance / values + self.error)
        half = deviation * float(special.stdtrit(self.freedom, 1 - level / 2))
        return self.mean - half, self.mean + half


def sampling_variance(values: Sequence[float], unit: str) -> float | None:
    """Return what the finite test set alone adds; ``None`` where the values are no counts of images.

    The size of the test set is read off the values: the smallest of which all are multiples.
    """
    hits = np.outer(values, SIZES)
    fitting = SIZES[(abs(hits - hits.round()) < 1e-6).all(axis=0)]
    mean = abs(math.fsum(values)) / len(values)
    if not len(fitting) or unit not in ("%", "pp"):
        return None
    size = int(fitting[0])
    share = (mean * size + 1) / (size + 2)  # never 0 or 1
    return (max(mean * (1 - mean), DISAGREE) if unit == "pp" else share * (1 - share)) / size


def prior(variances: Sequence[float], freedom: Sequence[int]) -> tuple[float, float]:
    """Return the degrees of freedom and the size of the variance that claims of a kind have in common."""
    if len(variances) < 3:  # no kind
        return 0.0, 1.0
    d = np.array(freedom) / 2
    logs = np.log(variances) - special.digamma(d) + np.log(d)
    excess = float(logs.var(ddof=1) - special.polygamma(1, d).mean())
    excess = max(excess, special.polygamma(1, ALIKE / 2))
    half = optimize.brentq(lambda x: special.polygamma(1, x) - excess, 1e-6, ALIKE)
    return 2 * half, float(np.exp(logs.mean() + special.digamma(half) - np.log(half)))


def bands(known: Mapping[str, Sequence[float]], units: Mapping[str, str]) -> dict[str, Band]:
    """Return the bands of some claims.

    Args:
        known: Claim to its stored values, one a seed, three or more.
        units: Claim to its unit.
    """
    scales = {name: sampling_variance(values, units[name]) for name, values in known.items()}
    kinds: dict[tuple[str, bool], list[str]] = {}
    for name in known:
        kinds.setdefault((units[name], scales[name] is None), []).append(name)
    found = {}
    for (_, free), names in kinds.items():
        scale = np.array([scales[name] or 1.0 for name in names])
        ratio = np.array([np.var(known[name], ddof=1) for name in names]) / scale
        d = np.array([len(known[name]) - 1 for name in names])
        d0, common = prior(ratio[ratio > 0], d[ratio > 0])
        weight = d0 / (d0 + d)
        variance = scale * np.maximum(weight * common + (1 - weight) * ratio, 0.0 if free else 1.0)
        for name, v, s, k in zip(names, variance, scale, d, strict=True):
            machine = v if free else MACHINE * s
            found[name] = Band(
                float(np.mean(known[name])), v / (k + 1), v + machine, float(d0 + k), int(k) + 1
            )
    return found


@dataclass(frozen=True)
class Suspect:
    """A claim whose live value is unlikely."""

    chapter: str
    name: str
    value: float
    band: Band


def with_seeds(notebook: str, seeds: tuple[int, ...] = FRESH) -> str:
    """Return a notebook that measures other seeds in place of its own."""
    return OWN.sub(str(seeds), notebook)


def level(seeds: int, compared: int) -> float:
    """Return how unlikely the fresh seeds must be, where so many are stored and so many claims compared."""
    shared = SHARED[max(least for least in SHARED if least <= seeds)]
    return ALARM / compared / SCREEN / shared


def suspects(runs: "Sequence[Run]", root: Path = ROOT) -> tuple[list[Suspect], int]:
    """Return the claims whose live value lies outside its band, and how many have a band."""
    live: dict[str, tuple[Run, dict]] = {}
    stored_values: dict[str, list[float]] = {}
    for run in runs:
        known = stored.quantities(run.profile, root)
        for claim in run.claims:
            values = [*known.get(claim["name"], {}).values()]
            if claim.get("live") is not None and len(values) >= MIN_SEEDS:
                live[claim["name"]], stored_values[claim["name"]] = (run, claim), values
    found = bands(stored_values, {name: claim["unit"] for name, (_, claim) in live.items()})
    outside = []
    for name, (run, claim) in live.items():
        low, high = found[name].ends(SCREEN)
        if not low <= claim["live"] <= high:
            outside.append(Suspect(run.name, name, claim["live"], found[name]))
    return outside, len(live)


def verdict(suspect: Suspect, compared: int, fresh: Sequence[float]) -> str:
    """Return what the fresh seeds say of a suspect, as a line."""
    low, high = suspect.band.ends(level(suspect.band.seeds, compared), len(FRESH))
    line = f"{suspect.chapter}: {suspect.name} is {suspect.value:.4g} now, stored {suspect.band.mean:.4g}"
    if len(fresh) < len(FRESH):
        return f"{line}; no fresh seeds were measured"
    mean = math.fsum(fresh) / len(fresh)
    word = "as expected" if low <= mean <= high else "ALARM, outside"
    return f"{line}; {len(FRESH)} fresh seeds give {mean:.4g}, {word} {low:.4g} to {high:.4g}"
