"""The coursework: sources, releases and outcomes."""

import ast
import json
import re
import zipfile

import planted
import pytest
from classroom import AUTOGRADED, NAMES, SECRET

from tools.grading import course, release


@pytest.mark.parametrize("name", NAMES)
def test_items_and_notebook_agree(name):
    assignment = course.load(name)
    cells = planted.cells_by_id(assignment.source())
    assert [c for c in cells if cells[c]["metadata"]["nbgrader"].get("solution")] == [
        item.name for item in assignment.items
    ]
    text = planted.text_of(cells["intro"])
    assert f"{assignment.points:g} points" in text, (
        f"the introduction must name the {assignment.points:g} points"
    )
    for item in assignment.items:
        assert all(points > 0 for points in item.parts.values())
        said = f"({item.points:g} points)"
        assert said in planted.text_of(cells[f"{item.name}_text"]), f"{item.name}: the text must say {said}"
        if item.by_hand:
            assert cells[item.name]["metadata"]["nbgrader"]["points"] == item.points
        else:
            assert f"{item.name}_visible" in cells
            for kind in ("probe", "check"):
                assert hasattr(assignment.checks, f"{kind}_{item.name}")


@pytest.mark.parametrize("name", NAMES)
def test_release_holds_no_solution(name, released):
    notebook = released[name]
    text = json.dumps(notebook)
    assert not re.search(r"(BEGIN|END) (SOLUTION|HIDDEN)|BROKEN|def probe_|check_\w+\(given", text)
    before = planted.cells_by_id(course.load(name).source())
    after = planted.cells_by_id(notebook)
    assert set(after) == {*before, "colab"}
    for item in course.load(name).items:
        if item.by_hand:
            continue
        regions = planted.REGION.findall(planted.text_of(before[item.name]))
        assert regions
        for region in regions:
            solved = planted.BROKEN.sub("", region).strip()
            assert solved
            assert solved not in planted.text_of(after[item.name])
        ast.parse(planted.text_of(after[item.name]))
    assert all(not cell.get("outputs") for cell in notebook["cells"])
    with zipfile.ZipFile(released.folder / f"{name}.zip") as archive:
        assert archive.namelist() == [f"{name}/{name}.ipynb"]
    assert "colab.research.google.com" in planted.text_of(after["intro"])


@pytest.mark.parametrize("name", AUTOGRADED)
def test_every_visible_check_has_a_message_that_teaches(name):
    cells = planted.cells_by_id(course.load(name).source())
    checks = 0
    for cell_id, cell in cells.items():
        if not cell_id.endswith("_visible"):
            continue
        for node in ast.walk(ast.parse(planted.text_of(cell))):
            if isinstance(node, ast.Assert):
                checks += 1
                assert node.msg is not None, f"{cell_id}: an assert without a message"
                assert len(ast.unparse(node.msg)) > 30, f"{cell_id}: too short to teach"
    assert checks >= len(course.load(name).items)


@pytest.mark.parametrize("name", NAMES)
def test_source_has_no_outputs(name):
    cells = course.load(name).source()["cells"]
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in cells)


@pytest.mark.parametrize("name", AUTOGRADED)
def test_probes_hold_all_that_they_need_and_nothing_that_is_right(name):
    """A probe is sent alone: it may use its arguments, what it imports and what is built in."""
    assignment = course.load(name)
    for item in [item for item in assignment.items if not item.by_hand]:
        function = ast.parse(assignment.probe(item)).body[0]
        assert isinstance(function, ast.FunctionDef)
        code = compile(assignment.probe(item), "probe", "exec").co_consts[0]
        unknown = set(code.co_names) & set(vars(assignment.checks)) - set(dir(__builtins__))
        assert not unknown - {"np"}, f"{item.name}: {unknown} lies outside of the probe"
        given = assignment.draw(item, SECRET, 0)
        again = course.load(name).draw(item, SECRET, 0)
        other = assignment.draw(item, "another secret", 0)
        same = [key for key in given if str(given[key]) != str(again[key])]
        assert not same, f"{item.name}: {same} differ for the same secret"
        if len(given) > 1:
            assert str(given) != str(other), f"{item.name}: the inputs do not depend on the secret"


def test_every_outcome_is_assessed():
    missing = sorted(set(course.outcomes_of_book()) - set(course.assessed()))
    assert not missing, (
        f"no graded item assesses {', '.join(missing)}: add them to items in coursework/items.toml"
    )


def test_items_assess_outcomes_that_exist():
    unknown = sorted(set(course.assessed()) - set(course.outcomes_of_book()))
    assert not unknown, f"coursework/items.toml names {', '.join(unknown)}, which no page promises"


def test_the_button_leads_to_the_instructors_file(released, tmp_path):
    """The package comes from the public course; the notebook does not have to be public."""
    assignment = course.load("project")
    intro = planted.text_of(released["project"]["cells"][0])
    assert "(https://colab.research.google.com/) Then upload `project.ipynb`" in intro
    address = "https://colab.research.google.com/github/me/mine/blob/main/{name}.ipynb"
    notebook = release.build([assignment], tmp_path, address)["project"]
    assert "/me/mine/blob/main/project.ipynb)" in planted.text_of(notebook["cells"][0])
    assert release.repo_url.stored_url() in planted.text_of(planted.cells_by_id(notebook)["colab"])


@pytest.mark.parametrize(
    ("url", "warned"), [("https://github.com/OWNER/a", True), ("https://github.com/me/a", False)]
)
def test_a_release_without_an_address_is_warned_of(url, warned, monkeypatch):
    monkeypatch.setattr(release.repo_url, "stored_url", lambda: url)
    assert any("OWNER" in text for text in release.warnings()) == warned
