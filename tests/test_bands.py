"""Where a new run is expected: what a band is made of, and how often alarms are false and shifts found."""

import argparse
import ast
import json
import math
from pathlib import Path

import numpy as np
import pytest

from tools.numbers import bands, provenance, run, stored
from tools.numbers.kernel import Run, find

CLAIMS = {name: c for name, c in stored.read_claims().items() if c["live"] is not None}
COUNTS = {  # of images; where all seeds are equal, no size can be read off
    name: claim
    for name, claim in CLAIMS.items()
    if bands.sampling_variance(claim["values"], claim["unit"]) and len(set(claim["values"])) > 1
}


def test_the_sampling_variance_is_read_off_the_values() -> None:
    """The test set has as many images as make all values whole; what counts no images has none."""
    share = (0.7 * 100 + 1) / 102
    assert bands.sampling_variance([0.70, 0.69, 0.71], "%") == pytest.approx(share * (1 - share) / 100)
    assert bands.sampling_variance([0.50, 0.49, 0.51], "pp") == pytest.approx(0.25 / 100)
    assert bands.sampling_variance([0.01, -0.01, 0.0], "pp") == pytest.approx(0.1 / 100)
    assert bands.sampling_variance([math.pi / 4, 0.5, 0.5], "%") is None
    assert bands.sampling_variance([1.0, 2.0, 3.0], "s") is None


def test_what_variances_have_in_common() -> None:
    """Drawn around 2 with 6 degrees of freedom; all the same, which is not quite believed; or too few."""
    draw = np.random.default_rng(0)
    of_claims = 2 * 6 / draw.chisquare(6, 20_000)
    freedom, size = bands.prior(of_claims * draw.chisquare(4, 20_000) / 4, [4] * 20_000)
    assert freedom == pytest.approx(6, rel=0.1)
    assert size == pytest.approx(2, rel=0.05)
    freedom, size = bands.prior(2 * draw.chisquare(4, 20_000) / 4, [4] * 20_000)
    assert freedom == pytest.approx(bands.ALIKE)
    assert size == pytest.approx(2, rel=0.15)
    assert bands.prior([1.0, 2.0], [2, 2])[0] == 0


def test_no_band_is_narrower_than_its_test_set_allows() -> None:
    """Seeds that agree by luck do not make a new value certain."""
    known = {f"c{k}": [0.70, 0.70, 0.71] for k in range(5)}
    for band in bands.bands(known, dict.fromkeys(known, "%")).values():
        assert band.variance >= 0.7 * 0.3 / 100
        assert band.ends(0.05)[1] - band.mean > 2 * math.sqrt(0.7 * 0.3 / 100)
        assert band.ends(0.05, 2)[1] < band.ends(0.05)[1] < band.ends(0.01)[1]


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "share"), [(3, 0.35), (5, 0.85), (8, 0.95)])
def test_alarms_and_what_is_found(seeds: int, share: float) -> None:
    """Runs of the book's claims, whose spreads differ as those that are stored do.

    A whole run raises an alarm for nothing in at most 1 % of the cases. A shift of 5.5 deviations of a
    new value from the stored mean is found in more than 95 %, if eight seeds are stored. With fewer it is
    found less often.
    """
    draw = np.random.default_rng(seeds)
    names, units = list(COUNTS), {name: claim["unit"] for name, claim in COUNTS.items()}
    sampling = np.array([bands.sampling_variance(COUNTS[name]["values"], units[name]) for name in names])
    ratio = np.array([np.var(COUNTS[name]["values"], ddof=1) for name in names]) / sampling
    unit = np.array([units[name] for name in names])
    size = np.round(0.2 / sampling)
    mean, least = np.array([COUNTS[name]["mean"] for name in names]), np.where(unit == "%", 0, -1)
    d = np.array([COUNTS[name]["n"] - 1 for name in names])
    kinds = {u: bands.prior(ratio[unit == u], d[unit == u]) for u in ("%", "pp")}
    alarms, found, runs = 0, [], 1200
    level = bands.level(seeds, len(CLAIMS))
    for _ in range(runs):
        spread = np.array([common * d0 / draw.chisquare(d0) for d0, common in (kinds[u] for u in unit)])
        variance = np.maximum(spread, 1) * sampling
        values = mean + np.sqrt(variance) * draw.normal(size=(seeds, len(names)))
        values = np.clip(np.round(values * size) / size, least, 1)
        new = np.sqrt(variance + bands.MACHINE * sampling)
        live, fresh = mean + new * draw.normal(size=(2, len(names))) / [[1], [math.sqrt(len(bands.FRESH))]]
        expected = bands.bands({n: v.tolist() for n, v in zip(names, values.T, strict=True)}, units)
        ends = [(*expected[n].ends(bands.SCREEN), *expected[n].ends(level, len(bands.FRESH))) for n in names]
        low, high, lowest, highest = np.array(ends).T
        alarms += bool(np.any(((live < low) | (live > high)) & ((fresh < lowest) | (fresh > highest))))
        off = 5.5 * np.sqrt(new**2 + variance / seeds)
        found.append((live + off > high) & (fresh + off > highest))
    print(f"{seeds} seeds: {alarms / runs:.2%} alarms for nothing, {np.mean(found):.1%} of shifts found")
    assert alarms <= 0.01 * runs
    assert np.mean(found) >= share


def test_a_suspect_is_looked_at_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What leaves its band is measured with fresh seeds, and named with what they say."""
    results = tmp_path / provenance.RESULTS
    results.mkdir(parents=True)
    values = {"0": 0.5, "1": 0.6, "2": 0.7}
    content = {"records": {seed: {"values": {"a": value, "b": 0.5}} for seed, value in values.items()}}
    (results / "01_n.laptop.json").write_text(json.dumps(content), encoding="utf-8")
    claims = [{"name": n, "live": v, "unit": ""} for n, v in (("a", 2.9), ("b", 0.5), ("c", 0.5))]
    found, compared = bands.suspects([Run("01_n", "laptop", tmp_path, claims=claims)], tmp_path)
    assert ([s.name for s in found], compared) == (["a"], 2)
    assert bands.verdict(found[0], 2, [])[-28:] == "no fresh seeds were measured"
    assert "as expected" in bands.verdict(found[0], 2, [0.6, 0.61, 0.6])
    assert "ALARM" in bands.verdict(found[0], 2, [9.0, 9.1, 9.0])

    def execute(path: Path, profile: str, out: Path, given: dict, seconds: None, folder: Path) -> None:
        assert given == {"MEASURE": True}
        seeds = ast.literal_eval(path.read_text(encoding="utf-8"))
        record = {"records": {str(seed): {"values": {"a": 9.0}} for seed in seeds}}
        (folder / "01_n.laptop.json").write_text(json.dumps(record), encoding="utf-8")

    (tmp_path / "01_n.ipynb").write_text("(*P.seeds, 3, 4)", encoding="utf-8")
    monkeypatch.setattr(run, "execute", execute)
    monkeypatch.setattr(run, "find", lambda chapter: tmp_path / f"{chapter}.ipynb")
    monkeypatch.setattr(bands, "suspects", lambda runs: (found, compared))
    lines = run.check_bands([], argparse.Namespace(profile="laptop", timeout=None))
    assert "ALARM" in lines[0]
    assert lines[1:] == ["2 live values compared, 1 looked at twice"]


def test_each_chapter_takes_its_seeds_from_the_profile() -> None:
    """So that fresh ones can be put in their place."""
    for claim in CLAIMS.values():
        text = find(claim["notebook"]).read_text(encoding="utf-8")
        assert text.count("P.seeds") == text.count("claims.over_seeds("), claim["notebook"]
