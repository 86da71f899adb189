"""Explorers and tables of results: what the directives write, and what they warn of."""

import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

import components
from tlhelpers.intervals import format_value, mean_interval
from tools.numbers import stored
from tools.numbers.provenance import ROOT

ACCURACIES = {"probe_5": [0.46, 0.44, 0.45], "probe_20": [0.57, 0.58, 0.56], "probe_100": [0.68, 0.69, 0.69]}
LOSSES = {"big_loss": [0.6, 0.62, 0.64], "no_loss": [0.01, -0.03, 0.0]}


def over_seeds(values: dict[str, list[float]]) -> dict:
    """Return measurements as `claims.over_seeds` stores them."""
    seeds = range(3)
    records = {
        str(s): {"values": {k: v[s] for k, v in values.items()}, "date": f"2026-01-0{s + 1}"} for s in seeds
    }
    return {"chapter": "x", "profile": "laptop", "records": records}


RESULTS = {
    "x.laptop": over_seeds(ACCURACIES | LOSSES),
    "computed": {"script": "benchmarks/l2sp.py", "code": "old", "values": {"risk_0": 0.5, "risk_0.1": 0.75}},
    "compared": {
        "columns": ["recipe", {"name": "seconds", "unit": "s", "filter": [10, 60]}],
        "rows": [["a <b>", [1.0, 2.0, 3.0]], ["c", None]],
    },
}
EXPLORER = """
file: x.laptop
x: images a class
y: accuracy
unit: "%"
scale: log
at: [5, 20, 100]
series: [{name: linear probe, key: "probe_{}"}]
"""
BARS = """
file: x.laptop
x: fault
y: accuracy lost
unit: pp
at: {big: first note, "no": second note}
series: [{name: lost, key: "{}_loss"}]
"""
COMPUTED = """
file: computed
x: weight
y: risk
scale: even
at: [0, 0.1]
series: [{name: risk, key: "risk_{}"}]
"""
TABLE = """
columns: [{name: recipe, filter: true}, {name: images, filter: true}, {name: accuracy, unit: "%"}, why]
rows:
  - [probe, 2000, {file: x.laptop, key: probe_100}, quick]
  - [scratch, 500, null, slow]
"""


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Builds a page with one directive; returns its HTML and the warnings."""

    def run(name: str, body: str) -> tuple[str, str]:
        (tmp_path / "conf.py").write_text("extensions = ['components']\n")
        text = "\n".join("   " + line for line in body.strip().splitlines())
        (tmp_path / "index.rst").write_text(f"Page\n====\n\n.. {name}:: The <title>\n\n{text}\n")
        warnings = io.StringIO()
        with docutils_namespace():
            folders = [str(tmp_path / part) for part in ("out", "trees")]
            source = str(tmp_path)
            app = Sphinx(source, source, *folders, "html", status=None, warning=warnings, freshenv=True)
            app.build()
        return (tmp_path / "out" / "index.html").read_text(encoding="utf-8"), warnings.getvalue()

    monkeypatch.setattr(stored, "read_results", lambda: RESULTS)
    return run


def rows(page: str) -> list[list[str]]:
    """Return the texts of the table's cells, row by row."""
    found = re.findall(r"<tr>(.*?)</tr>", page, re.S)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in found]


@pytest.mark.parametrize("unit", ["%", "pp", ""])
def test_numbers_look_as_in_the_notebooks(unit: str) -> None:
    """Mean and ends are printed as `claims.record` prints them."""
    values = [0.71234, 0.7, 0.69]
    mean, low, high = (format_value(value, unit) for value in mean_interval(values, unit))
    assert stored.with_interval(values, unit) == f"{mean} ({low.split()[0]} to {high.split()[0]})"
    assert stored.with_interval(values[:1], unit) == format_value(values[0], unit)


def test_explorer_is_a_table_without_a_script(build) -> None:
    """All numbers are in an open table; what needs the script is hidden; nothing comes from elsewhere."""
    page, warnings = build("explorer", EXPLORER)
    assert not warnings
    assert '<div class="tl-control" hidden>' in page
    assert "<details open>" in page
    assert "The &lt;title&gt;" in page
    assert rows(page)[0] == ["images a class", "linear probe"]
    for row, (key, values) in zip(rows(page)[1:], ACCURACIES.items(), strict=True):
        assert row == [key.removeprefix("probe_"), stored.with_interval(values, "%")]
    assert "over 3 seeds, last measured on 2026-01-03" in page
    component = page[page.index('<div class="tl-component') : page.index("last measured")]
    assert "http" not in component


def test_explorer_draws_means_and_interval(build) -> None:
    """The line runs through the means, in proportion; the band through the ends."""
    page, _ = build("explorer", EXPLORER)
    line = np.array(
        [p.split(",") for p in re.search(r'<polyline points="([^"]+)"', page)[1].split()], dtype=float
    )
    band = np.array(
        [p.split(",") for p in re.search(r'<polygon points="([^"]+)"', page)[1].split()], dtype=float
    )
    ends = 100 * np.array([mean_interval(v, "%") for v in ACCURACIES.values()])
    steps = np.diff(np.log([5, 20, 100]))
    np.testing.assert_allclose(np.diff(line[:, 0]) / np.ptp(line[:, 0]), steps / steps.sum(), atol=1e-3)
    scale = -(line[2, 1] - line[0, 1]) / (ends[2, 0] - ends[0, 0])
    np.testing.assert_allclose(line[0, 1] - line[:, 1], scale * (ends[:, 0] - ends[0, 0]), atol=0.2)
    np.testing.assert_allclose(line[0, 1] - band[:3, 1], scale * (ends[:, 2] - ends[0, 0]), atol=0.2)
    np.testing.assert_allclose(line[0, 1] - band[:2:-1, 1], scale * (ends[:, 1] - ends[0, 0]), atol=0.2)
    assert re.findall(r'<g data-at="(\d)">', page) == ["0", "1", "2"]
    assert 'type="range"' in page
    assert 'max="2"' in page


def test_explorer_of_cases_has_bars_and_notes(build) -> None:
    """Names instead of numbers: a button and a bar a case; a loss below zero stays inside the figure."""
    page, warnings = build("explorer", BARS)
    assert not warnings
    assert page.count('type="radio"') == page.count('class="tl-bar"') == 2
    big = stored.with_interval(LOSSES["big_loss"], "pp")
    assert rows(page)[:2] == [["fault", "lost", "what it means"], ["big", big, "first note"]]
    lows = [float(x) for x in re.findall(r'tl-interval" d="M([\d.-]+) ', page)]
    assert len(lows) == 2
    assert min(lows) >= 0


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (41.3, 74.7, [40, 50, 60, 70, 80]),
        (-0.03, 0.64, [-0.2, 0, 0.2, 0.4, 0.6, 0.8]),
        (2, 2, [2, 3]),
        (0.5, 0.5, [0, 1]),
    ],
)
def test_ticks_are_round_and_span_the_values(low: float, high: float, expected: list[float]) -> None:
    """Also where all values are the same."""
    assert components.ticks(low, high) == pytest.approx(expected)


def test_explorer_of_computed_numbers_has_no_interval(build) -> None:
    """A benchmark's single values are shown alone, and the line below says if its script has changed."""
    page, warnings = build("explorer", COMPUTED)
    assert not warnings
    assert rows(page) == [["weight", "risk"], ["0", "0.5"], ["0.1", "0.75"]]
    assert "Made by benchmarks/l2sp.py; the code has changed since." in page


def test_results_can_be_filtered_and_sorted(build) -> None:
    """Numbers carry their value for the script, filters list what there is, and what is missing is a dash."""
    page, warnings = build("results", TABLE)
    assert not warnings
    accuracy = stored.with_interval(ACCURACIES["probe_100"], "%")
    assert rows(page)[1:] == [["probe", "2,000", accuracy, "quick"], ["scratch", "500", "–", "slow"]]
    assert re.findall(r'data-number="([\d.]+)"', page) == ["2000", "0.6866666667", "500"]
    assert re.findall(r'<option value="([^"]*)">(.*?)</option>', page) == [
        *[("", "any"), ("probe", "probe"), ("scratch", "scratch")],
        *[("", "any"), ("500", "at most 500"), ("2000", "at most 2,000")],
    ]
    assert len(re.findall(r'<label for="(tl-\d+)">', page)) == page.count("<select") == 2


def test_results_from_a_file(build) -> None:
    """Columns and rows may be stored, with one number a seed in a cell, and limits of choice."""
    page, warnings = build("results", "file: compared")
    assert not warnings
    assert rows(page) == [["recipe", "seconds"], ["a &lt;b&gt;", "2.0 s (0.6 to 6.9)"], ["c", "–"]]
    assert [text for _, text in re.findall(r'<option value="([^"]*)">(.*?)</option>', page)] == [
        *["any", "at most 10 s", "at most 60 s"],
    ]


def test_values_of_a_benchmark_may_be_one_a_seed() -> None:
    """So a benchmark with seeds is shown with its intervals."""
    results = {
        "b": {"script": "benchmarks/l2sp.py", "code": "x", "values": {"one": 0.5, "three": [1.0, 2.0, 3.0]}}
    }
    assert stored.quantity(results, "b", "one") == [0.5]
    assert stored.quantity(results, "b", "three") == [1.0, 2.0, 3.0]
    for bad in ([], [1.0, None]):
        results["b"]["values"]["bad"] = bad
        with pytest.raises(ValueError, match="no number 'bad'"):
            stored.quantity(results, "b", "bad")


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("explorer", EXPLORER.replace("x.laptop", "y.laptop"), "no result 'y.laptop'"),
        ("explorer", EXPLORER.replace("probe_{}", "prob_{}"), "no number 'prob_5'"),
        ("explorer", COMPUTED.replace("0.1]", "0.2]"), "no number 'risk_0.2'"),
        ("explorer", EXPLORER.replace("y: accuracy", ""), "y must be given"),
        ("explorer", EXPLORER.replace("scale: log", "scale: cubic"), "scale is one of"),
        ("explorer", EXPLORER.replace("scale:", "scales:"), "unknown: scales"),
        ("explorer", EXPLORER.replace("[5, 20, 100]", "[5]"), "two places or more"),
        ("explorer", BARS.replace("}]", '}, {name: again, key: "{}_loss"}]'), "1 to 1 series"),
        ("explorer", EXPLORER.replace("]", ""), "while parsing"),
        ("explorer", "just a text", "not a mapping"),
        ("results", TABLE.replace("probe_100", "probe_7"), "no number 'probe_7'"),
        ("results", TABLE.replace(", slow]", "]"), "4 columns"),
        ("results", TABLE.replace("filter: true", "filtre: true"), "unknown: filtre"),
        ("results", "file: elsewhere", "no result 'elsewhere'"),
        ("results", "columns: [a]", "rows must be given"),
    ],
)
def test_what_cannot_be_shown_is_a_warning(build, name: str, body: str, words: str) -> None:
    """So that a strict build fails, and a draft shows question marks."""
    page, warnings = build(name, body)
    assert words in warnings
    assert "WARNING" in warnings
    assert "??The &lt;title&gt;??" in page
    assert "tl-component" not in page


def test_pages_use_them() -> None:
    """A suite of components that no page uses would prove nothing."""
    prose = "\n".join(stored.prose().values())
    assert len(re.findall(r"^```\{explorer\} \S", prose, re.M)) >= 3
    assert len(re.findall(r"^```\{results\} \S", prose, re.M)) >= 1


def test_l2sp_agrees_with_its_chapter() -> None:
    """The explorer of the penalty's weight shows what chapter 2 prints for the same weights."""
    cells = nbformat.read(ROOT / "notebooks" / "02_losses.ipynb", as_version=4).cells
    printed = "".join(o.get("text", "") for c in cells if c.cell_type == "code" for o in c.outputs)
    lines = re.findall(r"^alpha +([\d.]+) +target risk ([\d.]+) +moved by ([\d.]+)$", printed, re.M)
    assert len(lines) >= 5
    values = stored.read_results()["l2sp"]["values"]
    for alpha, risk, moved in lines:
        assert values[f"risk_{float(alpha):g}"] == float(risk)
        assert values[f"moved_{float(alpha):g}"] == float(moved)
