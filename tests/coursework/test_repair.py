"""The assignment: its source, its release, and the points of planted submissions."""

import ast
import csv
import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import pytest

import coursework

HERE = Path(__file__).resolve().parent
_spec = importlib.util.spec_from_file_location("planted", HERE / "planted.py")
assert _spec is not None
assert _spec.loader is not None
planted = importlib.util.module_from_spec(_spec)
sys.modules["planted"] = planted
_spec.loader.exec_module(planted)

SOURCE = json.loads((coursework.COURSE / "source" / "repair" / "repair.ipynb").read_text(encoding="utf-8"))
BOUNDS = json.loads((HERE / "bounds.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course root with the release in it."""
    root = tmp_path_factory.mktemp("coursework") / "course"
    coursework.build(root)
    return root


@pytest.fixture(scope="module")
def released(course):
    """The notebook that students get."""
    return json.loads((course / "release" / "repair" / "repair.ipynb").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def graded(course, released, tmp_path_factory):
    """All planted submissions, graded: rows by student, the CSV, the executed notebooks."""
    folder = tmp_path_factory.mktemp("grading")
    planted.plant(SOURCE, released, folder / "in")
    (folder / "in" / "wrong name").mkdir()
    (folder / "in" / "wrong name" / "Untitled.ipynb").write_text("{}", encoding="utf-8")
    (folder / "in" / "cut off.ipynb").write_text('{"cells": [', encoding="utf-8")
    rows = coursework.grade(
        folder / "in",
        ["perfect", "absent"],
        jobs=min(2, os.cpu_count() or 1),
        keep=folder / "out",
        course=course,
    )
    coursework.write_csv(rows, folder / "grades.csv")
    return {row.student: row for row in rows}, folder / "grades.csv", folder / "out"


def test_points():
    assert tuple(coursework.tasks()) == planted.TASKS
    points = coursework.max_points()
    assert sum(points.values()) == 20
    by_task = tuple(sum(points[f"{task}_{part}"] for part in coursework.PARTS) for task in planted.TASKS)
    assert by_task == planted.FULL
    assert all(value > 0 for value in points.values())


def test_release_holds_the_faults_and_no_solution(released):
    text = json.dumps(released)
    assert not re.search(r"(BEGIN|END) (SOLUTION|HIDDEN)|BROKEN|NotImplementedError|hidden_", text)
    before, after = planted.cells_by_id(SOURCE), planted.cells_by_id(released)
    assert before.keys() == after.keys()
    for task in planted.TASKS:
        region = planted.REGION.search(planted.text_of(before[task]))
        solution = planted.BROKEN.sub("", region[1]).strip()
        assert solution
        assert solution not in planted.text_of(after[task])
        broken = [line.split("### BROKEN: ")[1] for line in region[1].split("\n") if "### BROKEN: " in line]
        assert broken
        assert all(line in planted.text_of(after[task]) for line in broken)
        ast.parse(planted.text_of(after[task]))
    assert all(not cell.get("outputs") for cell in released["cells"])


def test_every_check_has_a_message_that_teaches():
    checks = 0
    for name in coursework.max_points():
        for node in ast.walk(ast.parse(planted.text_of(planted.cells_by_id(SOURCE)[name]))):
            if isinstance(node, ast.Assert):
                checks += 1
                assert node.msg is not None, f"{name}: an assert without a message"
                assert len(ast.unparse(node.msg)) > 30, f"{name}: too short to teach: {ast.unparse(node.msg)}"
    assert checks >= 20


def test_source_has_no_outputs():
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in SOURCE["cells"])


def test_bound_of_the_rate_task_is_far_from_both_sides():
    """The bound in the hidden test against accuracies measured over seeds, for right and wrong rates."""
    text = planted.text_of(planted.cells_by_id(SOURCE)["rate_hidden"])
    bound = float(re.search(r"hidden_accuracy > ([0-9.]+)", text)[1])
    right = [value for values in BOUNDS["right"].values() for value in values]
    wrong = [value for values in BOUNDS["wrong"].values() for value in values]
    assert min(map(len, [*BOUNDS["right"].values(), *BOUNDS["wrong"].values()])) >= 4
    assert max(wrong) + 0.10 < bound < min(right) - 0.10


@pytest.mark.slow
@pytest.mark.parametrize("name", planted.SUBMISSIONS)
def test_planted_submission_gets_its_points(graded, name):
    row, expected = graded[0][name], planted.SUBMISSIONS[name]
    if expected.points is None:
        assert not row.graded
        assert expected.reason in row.reason
        return
    assert row.graded, row.reason
    got = {task: row.task_points(task) for task in planted.TASKS}
    assert got == dict(zip(planted.TASKS, map(float, expected.points), strict=True))


@pytest.mark.slow
def test_no_student_vanishes(graded):
    rows, path, _ = graded
    assert "no repair.ipynb" in rows["wrong name"].reason
    assert "Untitled.ipynb" in rows["wrong name"].reason
    assert "not a valid notebook" in rows["cut off"].reason
    assert rows["absent"].reason == "nothing was handed in"
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = {line["student"]: line for line in csv.DictReader(file)}
    assert set(lines) == {*planted.SUBMISSIONS, "wrong name", "cut off", "absent"}
    for student, line in lines.items():
        assert (line["status"] == "graded") == bool(line["points"]) == bool(line["scaling_hidden"])
        assert line["status"] == "graded" or line["reason"], f"{student} has neither points nor a reason"
    assert lines["perfect"]["points"] == lines["perfect"]["max_points"] == "20"
    assert lines["half-right"]["rate_visible"] == "1"
    assert lines["half-right"]["rate_hidden"] == "0"


@pytest.mark.slow
def test_visible_messages_reach_the_student(graded):
    """As released, each visible test fails with its own message, not with an error of its own."""
    notebook = json.loads((graded[2] / "empty" / "repair.ipynb").read_text(encoding="utf-8"))
    words = {
        "scaling": "scaled twice",
        "logits": "a softmax in the head makes two",
        "rate": "The argument lr is gone",
        "freeze": "must be exactly 0",
        "recompile": "Compile again",
        "choice": "reads the test set",
    }
    for task in planted.TASKS:
        outputs = planted.cells_by_id(notebook)[f"{task}_visible"]["outputs"]
        errors = [output for output in outputs if output["output_type"] == "error"]
        assert [error["ename"] for error in errors] == ["AssertionError"], task
        assert words[task] in errors[0]["evalue"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(coursework.CourseworkError, match="There is no folder"):
        coursework.find_submissions(tmp_path / "nowhere")


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(coursework.CourseworkError, match="neither subfolders nor notebooks"):
        coursework.find_submissions(tmp_path)


def test_two_submissions_of_one_student_are_an_error(tmp_path):
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada.ipynb").write_text("{}", encoding="utf-8")
    with pytest.raises(coursework.CourseworkError, match="two submissions of ada"):
        coursework.find_submissions(tmp_path)


def test_a_notebook_without_its_test_cells_is_named(tmp_path):
    (tmp_path / "repair.ipynb").write_text('{"cells": []}', encoding="utf-8")
    assert "12 test cells are missing" in coursework.unreadable(tmp_path / "repair.ipynb")
