"""What to try with how many labels follows from the stored runs; all who give advice read it in one place."""

import json
import subprocess
import sys

import pytest

from tlhelpers import decision
from tlhelpers.course import comparison
from tools.numbers import decision as derived
from tools.numbers.provenance import ROOT


def runs(**by_method: dict[int, list[float]]) -> derived.Runs:
    """Return made runs: method -> labels -> one accuracy a seed, the same on both data sets."""
    return {
        f"{data}/{method}/{n}/{seed}": {"accuracy": accuracy}
        for data in derived.DATA.values()
        for method, by_size in by_method.items()
        for n, accuracies in by_size.items()
        for seed, accuracy in enumerate(accuracies)
    }


def near(table: dict) -> list[tuple[str, int, int | None]]:
    return [(r["method"], r["at_least"], r["below"]) for r in table["advice"] if r["distance"] == "near"]


def test_the_table_is_what_follows_from_the_stored_runs():
    assert derived.text() == derived.TABLE.read_text(encoding="utf-8"), "python -m tools.numbers.decision"


def test_a_better_method_is_advised_from_where_it_was_better():
    made = runs(
        probe={5: [0.5, 0.51, 0.52], 50: [0.6, 0.61, 0.62], 500: [0.7, 0.71, 0.72]},
        top_blocks={5: [0.4, 0.41, 0.42], 50: [0.7, 0.71, 0.72], 500: [0.8, 0.81, 0.82]},
    )
    assert near(derived.derive(made)) == [("probe", 1, 16), ("top_blocks", 16, None)]


def test_a_higher_mean_alone_is_not_enough():
    made = runs(probe={50: [0.5, 0.6, 0.7]}, top_blocks={50: [0.7, 0.55, 0.7]})
    assert near(derived.derive(made)) == [("probe", 1, None)]


def test_a_lead_in_every_seed_is_enough():
    """Here the interval contains zero: three seeds scatter."""
    made = runs(probe={50: [0.5, 0.6, 0.7]}, top_blocks={50: [0.51, 0.8, 0.85]})
    assert near(derived.derive(made)) == [("top_blocks", 1, None)]


def test_the_same_seeds_or_nothing():
    made = runs(probe={50: [0.5, 0.6, 0.7]}, top_blocks={50: [0.7, 0.7]})
    with pytest.raises(SystemExit, match="top_blocks"):
        derived.derive(made)


def test_every_advice_can_be_carried_out():
    """A method of the comparison, for every number of labels at each distance."""
    assert set(decision.METHODS) <= set(comparison.METHODS)
    for distance in decision.DISTANCES:
        rows = [row for row in decision.advice() if row.distance == distance]
        assert rows[0].at_least == 1
        assert rows[-1].below == float("inf")
        assert [a.below for a in rows[:-1]] == [b.at_least for b in rows[1:]]
        assert all(decision.advise(n, distance) in rows for n in (1, 7, 30, 10_000))


@pytest.mark.parametrize("wrong", [{"labels": 0}, {"labels": 5, "distance": "mars"}])
def test_a_question_without_an_answer(wrong):
    with pytest.raises(ValueError, match=r"smallest class|mars"):
        decision.advise(**wrong)


def test_it_needs_no_keras():
    """The website's small environment reads it, too."""
    code = "import sys; from tlhelpers import decision; decision.advise(5); print('keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


PAGES = ("book/cheat_sheet.md", "book/faq.md")
CHAPTERS = ("notebooks/08_comparison.ipynb", "notebooks/14_your_own_images.ipynb")


@pytest.mark.parametrize("page", [*PAGES, *CHAPTERS])
def test_pages_ask_the_table(page):
    """They print its words; so none of them can say otherwise."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if page in CHAPTERS:
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert "{advice}`" in text or "{decision}" in text
