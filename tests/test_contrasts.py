"""Sentences that compare: each rests on a relation that the stored seeds bear out."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy import stats

from tools.numbers import contrasts, stored
from tools.numbers.provenance import ROOT

CONTRASTS = contrasts.read()


def test_sentences_are_borne_out() -> None:
    """A sentence that its data no longer bear out is named, with its page and its contrast."""
    assert CONTRASTS
    assert contrasts.broken(CONTRASTS) == []


def test_each_contrast_bears_a_sentence() -> None:
    """What no sentence rests on would only weaken the others' tests."""
    used = {name for _, sentence in stored.each_sentence() for name in contrasts.ROLE.findall(sentence)}
    assert used == set(CONTRASTS)
    assert all((ROOT / "notebooks" / f"{c.chapter}.ipynb").is_file() for c in CONTRASTS.values())


@pytest.mark.parametrize("chapter", sorted({contrast.chapter for contrast in CONTRASTS.values()}))
def test_a_difference_is_not_told_without_a_mark(chapter: str) -> None:
    """Where a chapter has contrasts, a paragraph that cites a difference of shares bears a mark."""
    claims = stored.read_claims()
    text = stored.prose()[ROOT / "notebooks" / f"{chapter}.ipynb"]
    for block in stored.BLOCK_END.split(text):
        names = [name for name in stored.CLAIM_ROLE.findall(block) if claims[name]["unit"] == "pp"]
        assert not names or contrasts.ROLE.search(block) or block.startswith("|"), block


NUMBER = r"([\d.]+(?:e-\d+)?)"


@pytest.mark.parametrize(
    ("chapter", "said", "printed", "so"),
    [
        (
            "03_model_based",
            "the backbone has not moved at all",
            f"not compiled again: backbone {NUMBER}, head {NUMBER}",
            lambda backbone, head: backbone == 0 < head,
        ),
        (
            "07_learning_rates",
            "From the solved head it gives none",
            f"solved head: from {NUMBER} to {NUMBER}",
            lambda low, high: high < low < 1e-3,
        ),
        (
            "07_learning_rates",
            "The peak of the recipe lies above both",
            f"random head: from {NUMBER} to {NUMBER}",
            lambda low, high: low < high < 1e-3,
        ),
        (
            "11_evaluating",
            "it nearly agrees with Wilson's formula",
            f"2,000 images: {NUMBER}% to {NUMBER}%.*\nbootstrap, all of them: {NUMBER}% to {NUMBER}%",
            lambda low, high, a, b: max(abs(low - a), abs(high - b)) < 0.5,
        ),
    ],
)
def test_a_sentence_about_one_run(chapter: str, said: str, printed: str, so: Callable[..., bool]) -> None:
    """Where a sentence reads what the cell above it printed, the stored output says so."""
    path = ROOT / "notebooks" / f"{chapter}.ipynb"
    assert said in " ".join(stored.prose()[path].split())
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "".join("".join(o.get("text", "")) for c in cells for o in c.get("outputs", ()))
    found = re.search(printed, text)
    assert found, f"{chapter} prints no such line"
    assert so(*map(float, found.groups())), found[0]


@pytest.fixture
def book(tmp_path: Path):
    """A book of one chapter: `plant(relation, sentence)` gives what its build would complain of."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "book").mkdir()
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    values = {
        "a": [0.80, 0.82, 0.81, 0.80, 0.81, 0.82, 0.80, 0.81],
        "b": [0.70, 0.73, 0.70, 0.71, 0.70, 0.73, 0.69, 0.71],
        "same": [0.81, 0.81, 0.80, 0.81, 0.80, 0.83, 0.80, 0.81],
        "three": [0.1, 0.6, 0.9],
        "a_seconds": [12.0, 11.0, 13.0],
    }
    seeds = {str(s): {"values": {k: v[s] for k, v in values.items() if s < len(v)}} for s in range(8)}
    (results / "01_x.laptop.json").write_text(json.dumps({"records": seeds}), encoding="utf-8")

    def plant(relations: dict[str, str], sentence: str = "") -> list[str]:
        lines = [f"{name} = {json.dumps(relation)}" for name, relation in relations.items()]
        (tmp_path / "book" / "contrasts.toml").write_text("\n".join(["[01_x]", *lines]), encoding="utf-8")
        (tmp_path / "book" / "page.md").write_text(f"Some text. {sentence} More.", encoding="utf-8")
        return contrasts.broken(contrasts.read(tmp_path), tmp_path)

    return plant


@pytest.mark.parametrize(
    ("relation", "holds"),
    [
        ("a > b", True),
        ("b > a", False),  # a planted wrong sentence
        ("a > b + 5 points", True),
        ("a > b + 12 points", False),
        ("a - b > 0.05", True),
        ("a > same > b", False),
        ("same > b > 10 %", True),
        ("a = same", True),
        ("a = b", False),
        ("a ? same", True),
        ("a ? b", False),
        ("each seed: a > b", True),
        ("each seed: a > same", False),
        ("three > 0", False),
        ("three = 0.6", False),  # no difference is seen, but by three seeds
        ("three ? 0.6", True),
    ],
)
def test_a_planted_sentence(book, relation: str, holds: bool) -> None:
    """Where the seeds do not bear it, the build names page, sentence and contrast."""
    found = book({"planted": relation}, "A beats B {finds}`planted`.")
    assert (not found) == holds
    if not holds:
        assert found[0].startswith(f"book/page.md: “A beats B .” is not borne out: planted ({relation}): ")


def test_an_unknown_contrast(book) -> None:
    """A name that is not written down is an error of the page."""
    (line,) = book({"known": "a > b"}, "A beats B {finds}`unknown`.")
    assert "names the contrast 'unknown'" in line


@pytest.mark.parametrize(
    ("relations", "message"),
    [
        ({f"c{k}": "a > b" for k in range(9)}, "tests 9 contrasts; 8 are the most"),
        ({"c": "a > nobody"}, "stored for nobody"),
        ({"c": "a > three"}, "the same 3 seeds or more"),
        ({"c": "1 > 0"}, "the same 3 seeds or more"),
        ({"c": "a"}, "write a > b"),
        ({"c": "a > b = same"}, "write a > b"),
        ({"c": "each seed: a = b"}, "write a > b"),
        ({"c": "a > b c"}, "no sum"),
        ({"c": "a > "}, "no sum"),
        ({"c": "a >= b"}, "write a > b"),
        ({"c": "a > b * 2"}, "no sum"),
    ],
)
def test_what_is_no_contrast(book, relations: dict[str, str], message: str) -> None:
    """What cannot be decided stops the build, with its name."""
    with pytest.raises(ValueError, match=message):
        book(relations)


def test_a_claim_is_a_quantity(book, tmp_path: Path) -> None:
    """What a notebook derives can be compared; a measurement of the same name counts first."""
    claims = ({"name": "derived", "values": [0.9, 0.8, 0.7]}, {"name": "three", "values": [0.0, 0.0, 0.0]})
    outputs = [{"metadata": {"tlhelpers_claim": claim | {"unit": "nats"}}} for claim in claims]
    notebook = {"cells": [{"cell_type": "code", "source": [], "outputs": outputs}], "metadata": {}}
    (tmp_path / "notebooks" / "01_x.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    assert book({"x": "each seed: derived > 0.6", "y": "each seed: three > 0"}) == []
    found = contrasts.read(tmp_path)
    assert found["x"].holds
    assert found["x"].gap == "0.9, 0.8, 0.7 nats"
    assert found["y"].holds


def test_seconds_are_not_shares(book, tmp_path: Path) -> None:
    """A difference of seconds is shown in seconds."""
    book({"x": "each seed: a_seconds > 10"})
    assert contrasts.read(tmp_path)["x"].gap.endswith(" s")


def test_tests_are_those_of_scipy() -> None:
    """The paired t test; Holm's correction by hand."""
    gap = (0.01, 0.03, 0.05, 0.02, 0.03)
    assert contrasts.p_value(gap) == pytest.approx(stats.ttest_1samp(gap, 0).pvalue)
    assert contrasts.p_value((0.0, 0.0, 0.0)) == 1
    assert contrasts.p_value((0.1, 0.1, 0.1)) == 0
    assert contrasts.holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "c": 0.06, "b": 0.06}
    )


def test_a_test_is_corrected_and_a_description_is_not(book, tmp_path: Path) -> None:
    """Each further test makes the others harder; relations without a verdict do not."""
    book({"x": "three > 0"})
    alone = contrasts.read(tmp_path)["x"].p
    book({"x": "three > 0", "y": "each seed: a > b", "z": "a ? same"})
    assert contrasts.read(tmp_path)["x"].p == alone
    book({"x": "three > 0", "y": "b > a"})
    assert contrasts.read(tmp_path)["x"].p == pytest.approx(2 * alone)


def test_the_difference_that_would_have_been_seen() -> None:
    """A true difference of that size is found in four cases of five (SciPy's noncentral t agrees)."""
    gap = (0.01, 0.03, 0.05, 0.02, 0.03, 0.0, 0.01, 0.04)
    size, n = contrasts.detectable(gap), len(gap)
    noncentral = size / (stats.tstd(gap) / n**0.5)
    assert 1 - stats.nct.cdf(stats.t.ppf(0.975, n - 1), n - 1, noncentral) == pytest.approx(0.8, abs=0.03)


@pytest.mark.slow
def test_marks_lead_to_the_results(site: Path) -> None:
    """Each contrast has a row on the page of numbers; a mark leads there, and says what it rests on."""
    numbers = (site / "book" / "numbers.html").read_text(encoding="utf-8")
    for name in CONTRASTS:
        assert f'id="finds-{name}"' in numbers
    page = (site / "notebooks" / "01_first_result.html").read_text(encoding="utf-8")
    mark = re.search(r'<a class="finds[^"]*" href="../book/numbers.html#finds-first_tuned_wins"[^>]*>', page)
    assert mark
    assert 'title="Tested over seeds: first_tuned &gt; first_scratch"' in mark[0]
