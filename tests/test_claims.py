"""Claims: every number in the prose was recorded and lies in its band, and bands are honest."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import bands
import run_notebooks
import stored_claims
from notebook_code import ROOT, is_exact

NOTEBOOKS = run_notebooks.notebooks()
CLAIMS = stored_claims.read_claims()
BANDS = bands.read_bands()
SECTIONS = [(name, profile) for name in sorted(BANDS) for profile in sorted(BANDS[name])]


def inside(claim: dict, profile: str) -> str:
    """Return what is wrong with a claim's mean or its live value against the band; empty if nothing."""
    band = BANDS.get(claim["name"], {}).get(profile)
    if band is None:
        return f"{claim['name']}: no band for {profile}"
    for what in ("mean", "live"):
        value = claim.get(what)
        if value is not None and not bands.holds(band, value):
            ends = f"{band['low']:.6g} to {band['high']:.6g}"
            return f"{claim['name']}: {what} {value:.6g} is outside {ends} ({profile})"
    return ""


def test_there_are_claims_and_bands() -> None:
    """A suite that compared nothing would prove nothing."""
    assert CLAIMS, "no notebook stores a claim"
    assert SECTIONS, "tests/claims.toml holds no band"


def test_every_claim_has_bands_and_every_band_a_claim() -> None:
    """Names agree in both directions, and each claim has a band in both profiles that CI compares."""
    assert sorted(CLAIMS) == sorted(BANDS)
    for name in CLAIMS:
        assert {"smoke", "laptop"} <= set(BANDS[name]), f"{name}: bands for {sorted(BANDS[name])} only"


@pytest.mark.parametrize(("name", "profile"), SECTIONS)
def test_band_is_honest(name: str, profile: str) -> None:
    """At least three measured seeds, and a half-width of at most three of their standard deviations."""
    section = BANDS[name][profile]
    values = section["values"]
    assert len(values) >= bands.MIN_SEEDS
    half = (section["high"] - section["low"]) / 2
    assert 0 <= half <= bands.WIDTH * bands.standard_deviation(values) + bands.TOLERANCE
    centre = (section["high"] + section["low"]) / 2
    assert centre == pytest.approx(sum(values) / len(values), abs=1e-6), (
        "the band is not centred on its values"
    )


def test_bands_come_from_the_committed_measurements() -> None:
    """A section's values are those under ``benchmarks/results/``, wherever its claim was measured there."""
    compared = 0
    for name, profiles in bands.measured().items():
        for profile, values in profiles.items():
            if name in BANDS:
                assert BANDS[name].get(profile, {}).get("values") == pytest.approx(values), (
                    f"{name} ({profile}): run python tools/bands.py"
                )
                compared += 1
    assert compared, "no band has measurements under benchmarks/results/"


@pytest.mark.parametrize("name", sorted(CLAIMS))
def test_stored_claim_is_in_its_band(name: str) -> None:
    """What the book prints lies in the band of ``laptop``: a mean of at least three seeds, with interval."""
    claim = CLAIMS[name]
    assert not (problem := inside(claim, run_notebooks.STORED)), problem
    assert claim["n"] >= bands.MIN_SEEDS, (
        f"{name} is a mean of {claim['n']}; measure more: make notebooks MEASURE=1"
    )
    assert claim["low"] is not None
    assert claim["low"] <= claim["mean"] <= claim["high"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_smoke_claims_are_in_their_bands(path: Path, smoke_run: Callable[[str], run_notebooks.Run]) -> None:
    """The smoke run records each of the chapter's claims, inside its band."""
    if is_exact(path):
        claims = [
            c for c in CLAIMS.values() if c["notebook"] == path.stem
        ]  # nbval compared their printed lines
    else:
        claims = smoke_run(path.stem).claims
    here = [name for name, claim in CLAIMS.items() if claim["notebook"] == path.stem]
    assert sorted(c["name"] for c in claims) == sorted(here)
    assert not (problems := [p for p in (inside(c, "smoke") for c in claims) if p]), "\n".join(problems)


def test_prose_and_notebooks_agree() -> None:
    """Every claim is used by some prose, and every name in prose is recorded."""
    used = stored_claims.names_in_prose()
    assert used, "the prose uses no claim"
    unknown = {name: files for name, files in used.items() if name not in CLAIMS}
    assert not unknown, f"no notebook records: {unknown}"
    unused = sorted(set(CLAIMS) - set(used))
    assert not unused, f"no prose uses: {unused}"


def test_prose_shows_every_claim() -> None:
    """Each claim can be printed whole, as mean and as interval."""
    for claim in CLAIMS.values():
        assert stored_claims.shown(claim, "mean") in stored_claims.shown(claim)
        assert " to " in stored_claims.shown(claim, "interval")


def test_no_draft() -> None:
    """The switch that lets unknown names pass is off."""
    assert not os.environ.get("COURSE_DRAFT")


def test_every_benchmark_is_shown_and_complete() -> None:
    """A result has a table, a script and a machine; a page shows it; and no page names another one."""
    results = stored_claims.read_benchmarks()
    assert len(results) >= 4, sorted(results)
    prose = "\n".join(stored_claims.prose().values())
    # As a table of its own, or as what an explorer or a table of results is made of.
    assert set(re.findall(r"^(?:```\{benchmark\}|file:) (\w+)$", prose, re.M)) == set(results)
    for name, content in results.items():
        table = content["table"]
        assert table["rows"], name
        assert all(len(row) == len(table["columns"]) for row in table["rows"]), name
        assert all(isinstance(text, str) for row in table["rows"] for text in row), name
        assert (ROOT / content["script"]).is_file(), name
        assert re.fullmatch(r"[0-9a-f]{64}", content["code"]), name
        assert {"cpu", "cores", "versions", "date"} <= set(content["machine"]), name


def test_a_number_of_a_benchmark_in_prose() -> None:
    """Numbers are found by their place and rounded; what is not there, or no number, is an error."""
    assert stored_claims.measured({"a": 4.6e-6}, "a") == "4.6 · 10⁻⁶"
    content = {"rows": [{"a": 0.1234, "n": 12}, {"a": 1234.6, "b": True, "text": "x"}]}
    assert stored_claims.measured(content, "rows.0.a") == "0.12"
    assert stored_claims.measured(content, "rows.0.a", "%") == "12.3 %"
    assert stored_claims.measured(content, "rows.0.n") == "12"
    assert stored_claims.measured(content, "rows.1.a") == "1,235"
    for path in ("rows.2.a", "rows.x", "rows.0.c", "rows.0.a.b", "rows", "rows.1.b", "rows.1.text", ""):
        with pytest.raises(ValueError, match="benchmark has"):
            stored_claims.measured(content, path)


def test_every_claim_has_a_sentence_of_its_own() -> None:
    """The page of all numbers quotes the first sentence with each claim, whole and without a list's dash."""
    said = stored_claims.sentences()
    assert set(said) == set(CLAIMS)
    for name, sentence in said.items():
        assert re.search(rf"\{{claim\}}`{name}[:`]", sentence)
        assert sentence == sentence.strip("-| \n")
        assert len(sentence) > len(name) + 20, sentence


def test_the_sentence_of_a_claim(tmp_path: Path) -> None:
    """Notebooks come before the book; sentences end at full stops, items and rows."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "book").mkdir()
    source = "Some words.\nAt last\n{claim}`one` of it. More.\n\n"
    source += "- **Two** costs {claim}`two:mean`: much.\n- Three."
    cell = {"cell_type": "markdown", "source": [source], "metadata": {}}
    (tmp_path / "notebooks" / "01_a.ipynb").write_text(json.dumps({"cells": [cell]}), encoding="utf-8")
    (tmp_path / "book" / "a.md").write_text(
        "Other {claim}`one`.\n\n| x | {claim}`three` | y |\n| y | z | z |\n", "utf-8"
    )
    assert stored_claims.sentences(tmp_path) == {
        "one": "At last {claim}`one` of it.",
        "two": "**Two** costs {claim}`two:mean`: much.",
        "three": "x: {claim}`three`; y",
    }


def test_when_a_claim_was_measured(tmp_path: Path) -> None:
    """The days stand beside the stored measurements; other values, or another profile, have no day."""
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    records = {
        str(seed): {"values": {"a": seed / 10, "b": 0.5}, "date": f"2026-01-0{day}"}
        for seed, day in ((0, 3), (1, 1), (2, 2))
    }
    content = {"chapter": "01_x", "profile": "laptop", "records": records}
    (folder / "01_x.laptop.json").write_text(json.dumps(content), encoding="utf-8")

    def on(name: str, values: list[float], profile: str = "laptop") -> str:
        return stored_claims.measured_on({"name": name, "values": values, "profile": profile}, tmp_path)

    assert on("a", [0.0, 0.1, 0.2]) == "2026-01-01 to 2026-01-03"
    assert on("a", [0.2]) == "2026-01-02"
    assert on("a", [0.2, 0.3]) == ""
    assert on("c", [0.2]) == ""
    assert on("a", [0.2], "smoke") == ""
