"""One student's result, and how it is kept until the class is done."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tlhelpers.paths import atomic_path
from tools.grading.course import Item


@dataclass
class Row:
    """One student's result.

    Attributes:
        student: Name: a label for people.
        number: The platform's number, or empty. Where there is one, it tells students apart.
        late: Whether the platform marked the submission as late.
        group: Name of the group that handed this in together, or empty.
        points: ``item.part`` -> points; empty where nothing could be graded. Items marked by hand are
            missing until their marks are there.
        messages: ``item.part`` -> what is wrong.
        comments: ``item.part`` -> the marker's comment.
        penalty: Points that lateness costs.
        reason: Why nothing was graded, or what else to know.
        cells: What ran, with outputs, for the feedback page.
        graded: Whether points could be given.
    """

    student: str
    number: str = ""
    late: bool = False
    group: str = ""
    points: dict[str, float] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    penalty: float = 0.0
    reason: str = ""
    cells: list[dict[str, Any]] = field(default_factory=list)
    graded: bool = False

    @property
    def key(self) -> str:
        """What tells this student from all others."""
        return self.number or self.student

    def item_points(self, item: Item) -> float | None:
        """Returns the points of an item; ``None`` where there are none yet."""
        keys = [f"{item.name}.{part}" for part in item.parts]
        if not any(key in self.points for key in keys):
            return None
        return sum(self.points.get(key, 0.0) for key in keys)

    @property
    def total(self) -> float:
        """All points so far, less the penalty for lateness."""
        return max(0.0, round(sum(self.points.values()) - self.penalty, 2))


class Kept:
    """Rows on disk, one file each, written when a student is done: an interrupted run goes on from them.

    A row is used again only if everything that it depends on is the same: its ``stamp``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """Returns the file of a student."""
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"

    def get(self, key: str, stamp: str) -> Row | None:
        """Returns a student's row; ``None`` where there is none of this stamp."""
        try:
            stored = json.loads(self.path(key).read_text(encoding="utf-8"))
            row = Row(**stored["row"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return row if stored.get("stamp") == stamp else None

    def put(self, row: Row, stamp: str) -> None:
        """Writes a row, whole or not at all."""
        with atomic_path(self.path(row.key)) as path:
            path.write_text(json.dumps({"stamp": stamp, "row": asdict(row)}), encoding="utf-8")

    def others(self, keys: set[str]) -> list[Row]:
        """Returns the rows of students who are not among these."""
        found = []
        for path in sorted(self.folder.glob("[!.]*.json")):
            try:
                row = Row(**json.loads(path.read_text(encoding="utf-8"))["row"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if row.key not in keys:
                found.append(row)
        return found


def stamp(parts: Mapping[str, Any]) -> str:
    """Returns a digest of all that a row depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
