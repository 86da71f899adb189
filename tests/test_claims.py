"""Claims: every number in the prose was recorded, over seeds, and smoke runs record what they can."""

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tlhelpers import intervals
from tools.numbers import contrasts, kernel, stored
from tools.numbers.provenance import ROOT, is_exact

NOTEBOOKS = kernel.notebooks()
CLAIMS = stored.read_claims()


def test_there_are_claims() -> None:
    """A suite that compared nothing would prove nothing."""
    assert CLAIMS, "no notebook stores a claim"


@pytest.mark.parametrize("name", sorted(CLAIMS))
def test_stored_claim_is_a_mean_of_seeds(name: str) -> None:
    """What the book prints is a mean of at least three seeds, inside its interval and its range."""
    claim = CLAIMS[name]
    assert claim["n"] >= contrasts.FEWEST, (
        f"{name} is a mean of {claim['n']}; measure more: make notebooks MEASURE=1"
    )
    lowest, highest = intervals.RANGES.get(claim["unit"], (-math.inf, math.inf))
    assert lowest <= claim["low"] <= claim["mean"] <= claim["high"] <= highest
    assert all(lowest <= value <= highest for value in claim["values"])


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_smoke_records_each_claim(path: Path, smoke_run: Callable[[str], kernel.Run]) -> None:
    """The smoke run records each claim that a run can: it proves the code, its values mean nothing.

    Claims that take more than one run can afford are read from stored measurements; they store no live value.
    In `smoke` nothing is stored, and the weekly job measures these, too.
    """
    here = [claim for claim in CLAIMS.values() if claim["notebook"] == path.stem]
    if is_exact(path):
        assert not here, "nbval runs this chapter, and its printed lines are compared; it records no claims"
        return
    found = {claim["name"]: claim for claim in smoke_run(path.stem).claims}
    measured_now = {claim["name"] for claim in here if claim["live"] is not None}
    assert measured_now <= set(found) <= {claim["name"] for claim in here}
    for name, claim in found.items():
        lowest, highest = intervals.RANGES.get(claim["unit"], (-math.inf, math.inf))
        assert claim["values"], name
        # A difference of two recorded quantities has no live value of its own.
        live = [] if claim["live"] is None else [claim["live"]]
        for value in (*claim["values"], *live):
            assert math.isfinite(value), f"{name}: {value}"
            assert lowest <= value <= highest, f"{name}: {value} (unit {claim['unit']!r})"


def test_prose_and_notebooks_agree() -> None:
    """Every claim is used by some prose, and every name in prose is recorded."""
    used = stored.names_in_prose()
    assert used, "the prose uses no claim"
    unknown = {name: files for name, files in used.items() if name not in CLAIMS}
    assert not unknown, f"no notebook records: {unknown}"
    unused = sorted(set(CLAIMS) - set(used))
    assert not unused, f"no prose uses: {unused}"


def test_prose_shows_every_claim() -> None:
    """Each claim can be printed whole, as mean and as interval."""
    for claim in CLAIMS.values():
        assert stored.shown(claim, "mean") in stored.shown(claim)
        assert " to " in stored.shown(claim, "interval")


def test_no_draft() -> None:
    """The switch that lets unknown names pass is off."""
    assert not os.environ.get("COURSE_DRAFT")


def test_every_benchmark_is_shown_and_complete() -> None:
    """A result has a table, a script and a machine; a page shows it; and no page names another one."""
    results = stored.read_benchmarks()
    assert len(results) >= 4, sorted(results)
    prose = "\n".join(stored.prose().values())
    # As a table of its own, one of several, or as what an explorer or a table of results is made of.
    assert set(re.findall(r"^(?:```\{benchmark\}|file:) (\w+)$", prose, re.M)) <= set(results)
    shown = set(re.findall(r"^(?:```\{benchmark\}|file:) (\w+)(?: \w+)?$", prose, re.M))
    assert set(results) <= shown
    assert all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in shown - set(results))
    for name, content in results.items():
        for table in (content["table"], *content.get("tables", {}).values()):
            assert table["rows"], name
            assert all(len(row) == len(table["columns"]) for row in table["rows"]), name
            assert all(isinstance(text, str) for row in table["rows"] for text in row), name
        assert (ROOT / content["script"]).is_file(), name
        assert re.fullmatch(r"[0-9a-f]{64}", content["code"]), name
        assert {"cpu", "cores", "versions", "date"} <= set(content["machine"]), name


def test_a_number_of_a_benchmark_in_prose() -> None:
    """Numbers are found by their place and rounded; what is not there, or no number, is an error."""
    assert stored.measured({"a": 4.6e-6}, "a") == "4.6 · 10⁻⁶"
    content = {"rows": [{"a": 0.1234, "n": 12}, {"a": 1234.6, "b": True, "text": "x"}]}
    assert stored.measured(content, "rows.0.a") == "0.12"
    assert stored.measured(content, "rows.0.a", "%") == "12.3 %"
    assert stored.measured(content, "rows.0.n") == "12"
    assert stored.measured(content, "rows.1.a") == "1,235"
    for path in ("rows.2.a", "rows.x", "rows.0.c", "rows.0.a.b", "rows", "rows.1.b", "rows.1.text", ""):
        with pytest.raises(ValueError, match="benchmark has"):
            stored.measured(content, path)


def test_every_claim_has_a_sentence_of_its_own() -> None:
    """The page of all numbers quotes the first sentence with each claim, whole and without a list's dash."""
    said = stored.sentences()
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
    assert stored.sentences(tmp_path) == {
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
        return stored.measured_on({"name": name, "values": values, "profile": profile}, tmp_path)

    assert on("a", [0.0, 0.1, 0.2]) == "2026-01-01 to 2026-01-03"
    assert on("a", [0.2]) == "2026-01-02"
    assert on("a", [0.2, 0.3]) == ""
    assert on("c", [0.2]) == ""
    assert on("a", [0.2], "smoke") == ""
