"""Who is who, tables for people and platforms, marks by hand, messages."""

import csv
import io
import re
import zipfile

import planted
import pytest
from classroom import NAMES, SECRET, settings, table, write

from tools import coursework
from tools.grading import course, engine, report, tables, who

CONCEPTS = course.load("concepts")


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("lovelaceada_12345_67890_repair", ("lovelaceada", "12345", False)),
        ("lovelaceada_LATE_12345_67890_repair-2", ("lovelaceada", "12345", True)),
        ("doe2_12345_67890_week_1_2_repair", ("doe2", "12345", False)),
        ("müllerjörg_12345_67890_Copy of repair (1)", ("müllerjörg", "12345", False)),
        ("अनीता_12345_67890_repair", ("अनीता", "12345", False)),
        ("doe_१२_१३_repair", ("doe_१२_१३_repair", "", False)),
        ("anon_aB3x9_67890_repair", ("anon_aB3x9", "", False)),
        ("LATE_anon_12345_67890_repair", ("anon_12345", "", True)),
        ("van_der_berg_12345_67890_repair", ("van_der_berg", "12345", False)),
        ("Ada Lovelace_4711_assignsubmission_file_", ("Ada Lovelace", "4711", False)),
        ("Ada Lovelace_4711_assignsubmission_file", ("Ada Lovelace", "4711", False)),
        ("Ada Lovelace_4711_assignsubmission_file_repair", ("Ada Lovelace", "4711", False)),
        ("Participant_4711_assignsubmission_file_", ("Participant", "4711", False)),
        ("ada", ("ada", "", False)),
        ("ada_lovelace", ("ada_lovelace", "", False)),
        ("ada_2024", ("ada_2024", "", False)),
    ],
)
def test_names_of_learning_platforms(file, expected):
    assert who.identity(file) == expected


def found(folder, roster=(), groups=()):
    return {one.key: one for one in who.find(folder, CONCEPTS, roster, groups)}


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["concepts.ipynb"], ["concepts.ipynb"]),
        (["concepts (1).ipynb"], ["concepts (1).ipynb"]),
        (["Copy of concepts.ipynb"], ["Copy of concepts.ipynb"]),
        (["Concepts_final.IPYNB"], ["Concepts_final.IPYNB"]),
        (["Untitled.ipynb"], ["Untitled.ipynb"]),
        (["repair.ipynb", "concepts-2.ipynb"], ["concepts-2.ipynb"]),
        (["concepts (1).ipynb", "concepts.ipynb"], ["concepts.ipynb", "concepts (1).ipynb"]),
        (["handed in/concepts/concepts.ipynb"], ["concepts.ipynb"]),
        ([".ipynb_checkpoints/concepts-checkpoint.ipynb", "x.ipynb"], ["x.ipynb"]),
        (["a.ipynb", "b.ipynb"], []),
        (["notes.txt"], []),
    ],
)
def test_the_notebook_is_found_whatever_it_is_called(names, chosen, tmp_path):
    for name in names:
        path = tmp_path / "ada" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}", encoding="utf-8")
    one = found(tmp_path)["ada"]
    assert [p.name for p in (one.path, *one.others) if p] == chosen
    assert bool(one.reason) == (not chosen)


def test_the_number_is_the_key_and_the_name_a_label(tmp_path):
    for name in ("doejane_11_901_concepts", "doejane_LATE_12_902_concepts", "müllerjörg_13_903_concepts"):
        (tmp_path / f"{name}.ipynb").write_text("{}", encoding="utf-8")
    (tmp_path / "José.ipynb").write_text("{}", encoding="utf-8")
    (tmp_path / "Jose.ipynb").write_text("{}", encoding="utf-8")
    assert set(found(tmp_path)) == {"11", "12", "13", "José", "Jose"}
    roster = ["Jane Doe;12", "Jane Doe", "Jörg Müller", "Doe, John", "José", "Jose"]
    by_key = found(tmp_path, roster)
    assert {(key, one.student) for key, one in by_key.items()} == {
        ("11", "Jane Doe"),
        ("12", "Jane Doe"),
        ("13", "Jörg Müller"),
        ("Doe John", "Doe John"),
        ("José", "José"),
        ("Jose", "Jose"),
    }
    assert by_key["12"].late
    assert not by_key["11"].late
    assert by_key["Doe John"].reason == "nothing was handed in"
    assert found(tmp_path, ["Jane Doe;12"])["13"].notes == ["not on the roster"]
    (tmp_path / "4711").mkdir()
    named = found(tmp_path, ["Bob Roe;4711"])["4711"]
    assert (named.student, named.reason) == ("Bob Roe", "no concepts.ipynb; the folder is empty")
    pages = report.page_names((one.student, one.number) for one in by_key.values())
    assert len({page.casefold() for page in pages.values()}) == len(by_key)


def test_a_folder_and_a_file_of_one_student_are_two_tries(tmp_path):
    write(tmp_path / "Ada", b"{}")
    (tmp_path / "ada.ipynb").write_text("{}", encoding="utf-8")
    (one,) = found(tmp_path).values()
    assert len(one.others) == 1


def test_nobody_vanishes_who_handed_in_something_else(tmp_path):
    """What Canvas or Moodle exported belongs to somebody, whatever it is; a roster in the folder does not."""
    for name in (
        "doejane_11_901_concepts.zip",
        "anon_aB3x9_902_essay.pdf",
        "Jo Li_13_assignsubmission_onlinetext_onlinetext.html",
        "Ada_14_assignsubmission_file_concepts.ipynb",
        "Ada_14_assignsubmission_onlinetext_onlinetext.html",
        "bob.zip",
        "names.txt",
    ):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    (tmp_path / "Kai_15_assignsubmission_onlinetext").mkdir()
    (tmp_path / "Kai_15_assignsubmission_onlinetext" / "onlinetext.html").touch()
    said = {key: one.reason for key, one in found(tmp_path).items()}
    assert said == {
        "11": "no concepts.ipynb; there is: doejane_11_901_concepts.zip",
        "anon_aB3x9": "no concepts.ipynb; there is: anon_aB3x9_902_essay.pdf",
        "13": "no concepts.ipynb, but a text",
        "14": "",
        "15": "no concepts.ipynb, but a text",
        "bob": "no concepts.ipynb; there is: bob.zip",
    }


def test_a_folder_that_cannot_be_graded_is_named(tmp_path):
    with pytest.raises(course.CourseworkError, match="There is no folder"):
        who.find(tmp_path / "nowhere", CONCEPTS)
    with pytest.raises(course.CourseworkError, match="neither subfolders"):
        who.find(tmp_path, CONCEPTS)


def row(name, number="", points=2.0, **more):
    """A row with so many points in every part."""
    parts = [f"{item.name}.{part}" for item in CONCEPTS.items for part in item.parts]
    return engine.Row(name, number, points=dict.fromkeys(parts, points), graded=True, **more)


def test_moodle_imports_the_worksheet_and_the_zip(tmp_path):
    """As its importers read them: columns by name, the number behind `Participant `, names split at `_`."""
    # mod/assign/feedback/offline/importgradeslib.php: the columns; `substr($idstr, strlen("Participant "))`.
    # mod/assign/feedback/offline/locallib.php: a grade that is empty or above the maximum is passed over.
    # mod/assign/feedback/comments/locallib.php: a comment is kept as FORMAT_HTML.
    # mod/assign/feedback/file/importziplib.php: `explode('_', $pathpart, 5)`; the second is the number.
    rows = [row("Ada_King, Countess", "4711", messages={"roles.roles": "no; = a < b"}), row("Bob")]
    tables.write_moodle(rows, CONCEPTS, tmp_path / "moodle.csv")
    lines = list(csv.reader(io.StringIO((tmp_path / "moodle.csv").read_text("utf-8-sig"), newline="")))
    header = lines[0]
    assert {"Identifier", "Grade", "Last modified (grade)"} <= set(header)
    assert header.index("Feedback comments") > 0  # a first column of feedback is not read
    assert all(len(line) == len(header) for line in lines)
    assert lines[1][header.index("Identifier")][len("Participant ") :] == "4711"
    assert lines[1][header.index("Grade")] == f"{rows[0].total:g}"
    assert lines[1][header.index("Feedback comments")] == "roles.roles: no; = a &lt; b"
    pages = report.page_names((one.student, one.number) for one in rows)
    for one in rows:
        report.write_feedback(one, CONCEPTS, tmp_path / pages[one.key])
    tables.write_feedback_zip(rows, pages, tmp_path)
    with zipfile.ZipFile(tmp_path / "moodle_feedback.zip") as zipped:
        (name,) = zipped.namelist()
    first, *rest = name.split("_", 4)
    assert rest == ["4711", "assignsubmission", "file", "/feedback.html"]
    assert first == "Ada King, Countess"


@pytest.mark.parametrize(("delimiter", "encoding"), [(",", "utf-8-sig"), (";", "cp1252"), ("\t", "utf-16")])
def test_moodles_own_worksheet_is_filled_in(delimiter, encoding, tmp_path):
    header = [
        "Identifier",
        "Full name",
        "Status",
        "Grade",
        "Maximum grade",
        "Last modified (grade)",
        "Feedback comments",
    ]
    there = [
        ["Participant 1", "Jörg", "x", "", "35", "Monday, 4 May", ""],
        ["Participant 2", "Ida", "x", "7", "35", "-", "old"],
    ]
    text = "\n".join(delimiter.join(f'"{cell}"' for cell in line) for line in [header, *there])
    (tmp_path / "sheet.csv").write_text(text, encoding=encoding)
    tables.write_moodle([row("Jörg", "1", 0.5)], CONCEPTS, tmp_path / "out.csv", tmp_path / "sheet.csv")
    lines = table(tmp_path / "out.csv")
    assert list(lines[0]) == header
    assert (lines[0]["Grade"], lines[0]["Last modified (grade)"]) == (
        f"{row('', '', 0.5).total:g}",
        "Monday, 4 May",
    )
    assert (lines[1]["Grade"], lines[1]["Feedback comments"]) == ("7", "old")
    (tmp_path / "sheet.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(course.CourseworkError, match="columns Identifier"):
        tables.write_moodle([], CONCEPTS, tmp_path / "out.csv", tmp_path / "sheet.csv")


def test_canvas_gets_its_columns(tmp_path):
    """As its importer reads them, lib/gradebook_importer.rb; names as lib/content_zipper.rb writes them."""
    rows = [row("doejane", "11"), engine.Row("absent", "12", reason="nothing was handed in")]
    tables.write_canvas(rows, CONCEPTS, tmp_path / "canvas.csv")
    header, first, line = list(csv.reader(io.StringIO((tmp_path / "canvas.csv").read_text("utf-8-sig"))))
    # `row_has_student_headers?`, `update_column_count`, `last_student_info_column`
    assert header[:5] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
    # `parse_assignments`: what ends in a number in parentheses is taken for an assignment's id
    assert not any(re.search(r"\(\d+\)$|(Current|Final|Override) ", course.load(n).title) for n in NAMES)
    # `check_for_non_student_row`; `no_change_to_value?`: an empty field clears a grade
    assert first[0].strip() == "Points Possible"
    assert (line[1], line[5], first[5]) == ("11", f"{row('').total:g}", f"{CONCEPTS.points:g}")


def project(released, folder, name="ada"):
    (folder / name).mkdir(parents=True, exist_ok=True)
    write(folder / name, released["project"], "project")


@pytest.mark.parametrize(
    ("delimiter", "encoding", "mark"),
    [(",", "utf-8", "2.5"), (";", "cp1252", "2,5"), ("\t", "utf-16", "2.5")],
)
def test_marks_by_hand_go_into_a_sheet_and_come_back(delimiter, encoding, mark, released, graded, tmp_path):
    assignment = course.load("project")
    project(released, tmp_path / "in", "Jörg_7_assignsubmission_file_")
    out, marks = tmp_path / "out", tmp_path / "marks.csv"
    graded("project", tmp_path / "in", out, settings(), say=False)
    assert table(out / "grades.csv")[0]["status"] == "to be marked"
    # Nobody gets a zero meanwhile.
    moodle = table(out / "moodle.csv")[0]
    assert (moodle["Grade"], moodle["Feedback comments"]) == ("", "some marks are still to come")
    sheet = table(out / "marks.csv")
    assert len(sheet) == sum(len(item.parts) for item in assignment.items)
    lines = [list(sheet[0])] + [[*list(line.values())[:5], mark, "très bien"] for line in sheet]
    quoted = "\n".join(delimiter.join(f'"{cell}"' for cell in line) for line in lines)
    marks.write_text(quoted, encoding=encoding)
    known = coursework.Class(marks=marks)
    rows = graded("project", tmp_path / "in", out, settings(), known, say=False)
    assert rows[0].total == 2.5 * len(sheet)
    assert table(out / "moodle.csv")[0]["Grade"] == f"{rows[0].total:g}"
    page = next((out / "feedback").glob("*.html")).read_text(encoding="utf-8")
    assert "très bien" in page


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ada,,data,data,6,7,", "go from 0 to 6"),
        ("eve,,data,data,6,1,", "no such student"),
        ("ada,,data,nothing,6,1,", "no such student, item or criterion"),
        ("ada,,data,data,6,good,", "is no number"),
        ("ada,,data,data,6,,", "no line has points"),
        ("ada,data,6,1", "another number of fields"),
    ],
)
def test_marks_that_cannot_be_used_are_named(line, said, released, graded, tmp_path):
    project(released, tmp_path / "in")
    marks = tmp_path / "marks.csv"
    marks.write_text(f"{','.join(tables.SHEET)}\n{line}\n", encoding="utf-8")
    with pytest.raises(course.CourseworkError, match=said):
        graded(
            "project", tmp_path / "in", tmp_path / "out", settings(), coursework.Class(marks=marks), say=False
        )


def test_late_is_a_column_and_may_cost(released, graded, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("ada_LATE_1_2_project", "bob_3_4_project"):
        write(tmp_path / "in", released["project"], name)
    marks = tmp_path / "marks.csv"
    lines = [f"x,{n},data,data,6,5," for n in (1, 3)]
    marks.write_text("\n".join([",".join(tables.SHEET), *lines]), encoding="utf-8")
    known = coursework.Class(marks=marks, late_penalty=10)
    rows = graded("project", tmp_path / "in", tmp_path / "out", settings(), known, say=False)
    points = course.load("project").points
    assert [one.total for one in rows] == [max(0.0, 5 - points / 10), 5]
    assert [line["late"] for line in table(tmp_path / "out" / "grades.csv")] == ["late", ""]
    page = (tmp_path / "out" / "feedback" / "ada_1.html").read_text(encoding="utf-8")
    assert "because it came late" in page


def test_a_group_hands_in_once_and_every_member_gets_it(released, graded, tmp_path):
    project(released, tmp_path / "in", "ada")
    project(released, tmp_path / "in", "dora")
    known = coursework.Class(["Ada", "Bob;12", "Cleo", "Dora"], ["ada; bob ;Cleo"])
    rows = graded("project", tmp_path / "in", tmp_path / "out", settings(), known, say=False)
    assert [(one.student, one.number, one.graded, bool(one.group)) for one in rows] == [
        ("Ada", "", True, True),
        ("Bob", "12", True, True),
        ("Cleo", "", True, True),
        ("Dora", "", True, False),
    ]


def test_a_spreadsheet_runs_no_formula_of_a_student(tmp_path):
    tables.write_grades([engine.Row("=1+1", reason="@evil")], course.load("repair"), tmp_path / "grades.csv")
    text = (tmp_path / "grades.csv").read_text(encoding="utf-8-sig")
    assert "'=1+1" in text
    assert "'@evil" in text


LEAK = """
bound_says = {"sum": "says", "alike": "silent", "joint": "silent", "harm": "silent"}
def right_hand_side(*errors):
    return 0.0
def dann_step(w, g_task, g_domain, rate, strength):
"""
KINDS = (
    "KeyError",
    "IndexError",
    "OSError",
    "ValueError",
    "TypeError",
    "NameError",
    "EOFError",
    "LookupError",
)


@pytest.mark.slow
def test_messages_say_what_is_wrong_and_no_hidden_input(released, graded, tmp_path):
    """A syntax error, an untouched task, and a task that wants to tell a hidden number by where it stops."""
    perfect = planted.solved(CONCEPTS.source(), released["concepts"])
    cells = planted.cells_by_id(perfect)
    cells["risk"]["source"] = "def empirical_risk(logits, labels)\n    return 1"
    cells["trends"]["source"] = planted.text_of(planted.cells_by_id(released["concepts"])["trends"])
    cells["importance"]["source"] = "import numpy as np\nanswer = undefined + 1"
    stops = [f"    if int(w[0] * 4) % 8 == {i}: raise {kind}({i})" for i, kind in enumerate(KINDS)]
    cells["bound"]["source"] = LEAK + "\n".join(stops)
    write(tmp_path / "in" / "ada", perfect)
    (one,) = graded("concepts", tmp_path / "in", tmp_path / "out", settings(), say=False)
    said = one.messages
    assert "line 1, 'def empirical" in said["risk.value"]
    assert "Not attempted" in said["trends.tests"]
    assert "NameError in line 2" in said["importance.risk"]
    assert not re.search("|".join([*KINDS, "raise", r"\d"]), said["bound.reversal"])
    assert "stopped with an error" in said["bound.reversal"]
    lost = {"risk": 3, "trends": 4, "importance": 3, "bound": 3}
    assert one.total == CONCEPTS.points - sum(lost.values())
    page = (tmp_path / "out" / "feedback" / "ada.html").read_text(encoding="utf-8")
    assert all(report.escape(item.title) in page for item in CONCEPTS.items)
    assert SECRET not in page
