"""Who handed in what: names of learning platforms, the roster, groups, several notebooks of one student.

The platform's number tells students apart; a name is a label. Two students of one name are two rows.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

from tools.grading.course import Assignment, CourseworkError

# How learning platforms name what they export. Canvas (`lib/content_zipper.rb`) keeps letters, marks and
# digits of a name, and leaves the name out where grading is anonymous: then `anon_` and five signs are all.
CANVAS = re.compile(r"^(?P<name>.+?)(?P<late>_LATE)?_(?P<number>[0-9]+)_[0-9]+_(?P<file>.+)$", re.S)
HIDDEN = re.compile(r"^(?P<late>LATE_)?(?P<name>anon_[0-9A-Za-z]{5})_[0-9]+_(?P<file>.+)$", re.S)
MOODLE = re.compile(
    r"^(?P<name>.+?)_(?P<number>[0-9]+)_assignsubmission_(?P<kind>file|onlinetext)(?:_(?P<file>.*))?$", re.S
)
MOST = 3  # notebooks of one student that are graded; the best counts
LOOK = 500  # entries of a student's folder that are looked at
IGNORED = ("__MACOSX", "__pycache__")
ARCHIVES = (".zip", ".gz", ".7z", ".rar", ".tar")


@dataclass
class Submission:
    """What one student handed in.

    Attributes:
        student: Name, of the folder or the file, or as the roster has it.
        number: The platform's number of the student, where the name holds one.
        path: The notebook; ``None`` where there is none.
        reason: Why there is none.
        late: Whether the platform marked it as late.
        group: The group's name, where one was handed in for several students.
        members: The others of the group who get the same row: name and number of each.
        others: Further notebooks of the same student: the best one counts.
        notes: What the instructor should know.
    """

    student: str
    number: str = ""
    path: Path | None = None
    reason: str = ""
    late: bool = False
    group: str = ""
    members: list[tuple[str, str]] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """What tells this student from all others."""
        return self.number or self.student


def identity(name: str) -> tuple[str, str, bool]:
    """Returns name and platform number from the name of a file or folder, and whether it was late."""
    if match := MOODLE.match(name):
        return match["name"], match["number"], False
    if match := HIDDEN.match(name):
        return match["name"], "", bool(match["late"])
    if match := CANVAS.match(name):
        return match["name"], match["number"], bool(match["late"])
    return name, "", False


def find(
    folder: Path, assignment: Assignment, roster: Sequence[str] = (), groups: Sequence[str] = ()
) -> list[Submission]:
    """Returns a submission for each student, sorted by name.

    A submission is ``folder/<student>/<assignment>.ipynb`` or ``folder/<student>.ipynb``; the names that
    Canvas and Moodle give are understood.

    Args:
        folder: With the submissions.
        assignment: Which.
        roster: One student each: a name, and the platform's number if it is known, with a comma between them.
        groups: One group each: its members' names or numbers, with semicolons between them.

    Raises:
        CourseworkError: If there is no folder, or nothing in it.
    """
    if not folder.is_dir():
        raise CourseworkError(f"There is no folder {folder}. Give one with a subfolder for each student.")
    found: dict[str, Submission] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "__")):
            continue
        online = (match := MOODLE.match(path.name)) and match["kind"] == "onlinetext"
        if path.is_symlink():
            one = Submission(
                *identity(path.stem)[:2], reason="it is a link to another place; nothing was read"
            )
        elif online:  # often beside the file, which then counts
            one = Submission(*identity(path.name)[:2], reason=f"no {assignment.notebook}, but a text")
        elif path.is_dir():
            student, number, late = identity(path.name)
            one = Submission(student, number, late=late)
            _look_into(one, path, assignment)
        else:
            student, number, late = identity(path.stem)
            one = Submission(student, number, late=late)
            if path.suffix.lower() == ".ipynb":
                one.path = path
            elif number or HIDDEN.match(path.name) or path.suffix.lower() in ARCHIVES:
                one.reason = f"no {assignment.notebook}; there is: {path.name[:80]}"
            else:  # a roster, a note
                continue
        key = next((k for k in found if _plain(k) == _plain(one.key)), one.key)
        found[key] = _joined(found[key], one) if key in found else one
    if not found and not roster:
        raise CourseworkError(f"{folder} has neither subfolders nor notebooks in it.")
    every = _with_roster(list(found.values()), roster)
    return sorted(_grouped(every, groups), key=lambda one: (fold(one.student), one.number))


def _joined(first: Submission, second: Submission) -> Submission:
    """Returns two submissions of one student as one, of which the better notebook counts."""
    paths = [p for one in (first, second) for p in (one.path, *one.others) if p]
    first.path, first.others = (paths[0], paths[1:MOST]) if paths else (None, [])
    first.reason = "" if paths else first.reason or second.reason
    first.late = first.late or second.late
    first.notes += second.notes
    return first


def _look_into(one: Submission, folder: Path, assignment: Assignment) -> None:
    """Finds a student's notebooks: of the right name, nearly the right name, or the only one there is."""
    notebooks: list[Path] = []
    others: list[str] = []
    seen = 0
    for head, inner, names in os.walk(folder):  # does not follow links
        inner[:] = sorted(n for n in inner if not n.startswith(".") and n not in IGNORED)
        for name in sorted(names):
            seen += 1
            (notebooks.append(Path(head, name)) if name.lower().endswith(".ipynb") else others.append(name))
        if seen > LOOK:
            break
    wanted = assignment.name.lower()
    named = [p for p in notebooks if wanted in p.stem.lower()]
    exact = [p for p in named if p.name == assignment.notebook]
    chosen = [*exact, *(p for p in named if p not in exact)] or (notebooks if len(notebooks) == 1 else [])
    if chosen:
        one.path, one.others = chosen[0], chosen[1:MOST]
        if chosen[0].name != assignment.notebook:
            one.notes.append(f"the notebook is called {chosen[0].name[:80]}")
        return
    there = [*(p.name for p in notebooks), *others]
    said = f"there is: {', '.join(name[:80] for name in there[:5])}" if there else "the folder is empty"
    one.reason = f"no {assignment.notebook}; {said}"


def _plain(name: str) -> str:
    """Returns a name as file systems compare it. José and Jose are two students."""
    return unicodedata.normalize("NFC", name).casefold().strip()


def fold(name: str) -> str:
    """Returns a name without case, spaces, punctuation and Latin accents; other scripts keep marks."""
    plain = unicodedata.normalize("NFD", name.casefold())
    kept = [c for c in plain if not 0x300 <= ord(c) < 0x370 and unicodedata.category(c)[0] in "LMN"]
    return unicodedata.normalize("NFC", "".join(kept)) or name


def _spellings(name: str) -> set[str]:
    """Returns the folded name with its words in every order: Canvas writes ``doejane`` for Jane Doe."""
    words = [fold(word) for word in re.split(r"[\s,]+", name) if any(c.isalnum() for c in word)]
    return {"".join(order) for order in permutations(words)} if 0 < len(words) <= 5 else {fold(name)}


def entry(line: str) -> tuple[str, str]:
    """Returns name and number of a line of a roster; the number is the part of digits alone, or empty."""
    parts = [part.strip() for part in re.split(r"[,;\t]", line) if part.strip()]
    number = next((part for part in parts if part.isdecimal()), "") if len(parts) > 1 else ""
    return " ".join(part for part in parts if part != number), number


def _match(every: Iterable[Submission], name: str, number: str) -> Submission | None:
    """Returns the submission of a person, by the number if both have one, else by the name."""
    every = list(every)
    for one in every:
        if one.key == (number or name):  # also where a folder is called by the number alone
            return one
    spellings = _spellings(name)
    named = [one for one in every if fold(one.student) in spellings and not (number and one.number)]
    return named[0] if named else None


def _with_roster(every: list[Submission], roster: Sequence[str]) -> list[Submission]:
    """Names submissions as the roster does, and adds who handed in nothing."""
    if not roster:
        return every
    left, result = list(every), []
    # Lines with a number choose first, so that a namesake without one takes what is left.
    for name, number in sorted(map(entry, roster), key=lambda pair: not pair[1]):
        one = _match(left, name, number)
        if one is None:
            result.append(Submission(name, number, reason="nothing was handed in"))
            continue
        left.remove(one)
        one.student, one.number = name, one.number or number
        result.append(one)
    for one in left:
        one.notes.append("not on the roster")
    result = [*result, *left]
    taken: set[str] = set()
    for place, one in enumerate(result):
        if one.key in taken:  # a namesake without a number, who handed in nothing
            one.student += f" ({place + 1})"
        taken.add(one.key)
    return result


def _grouped(every: list[Submission], groups: Sequence[str]) -> list[Submission]:
    """Joins the submissions of each group: handed in once, or several times, it counts for every member."""
    left = list(every)
    for line in groups:
        people = [person.strip() for person in re.split(r"[;\t]", line) if person.strip()]
        members = [(person, _match(left, *entry(person))) for person in people]
        there = [one for _, one in members if one is not None]
        handed_in = [one for one in there if one.path]
        if not handed_in:
            continue
        head = handed_in[0]
        names = [(one.student, one.number) if one else entry(person) for person, one in members]
        for one in handed_in[1:]:
            head = _joined(head, one)
        head.group = ", ".join(name for name, _ in names)
        head.members = [pair for pair in names if pair != (head.student, head.number)]
        left = [one for one in left if one is head or not any(one is other for other in there)]
    return left
