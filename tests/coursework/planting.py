"""What a planted submission is: the solution with small edits, and the points that it loses."""

from collections.abc import Callable
from dataclasses import dataclass, field

Edit = Callable[[str], str]

NONE = -1.0  # in `lost`: all points of the item


@dataclass(frozen=True)
class Planted:
    """One planted submission.

    Attributes:
        lost: Item -> points that it loses; all others are full.
        edits: Item -> the edit of its solved cell.
        as_released: Items whose cell is left as it was released.
        reason: What the reason in the student's row must hold.
    """

    lost: dict[str, float] = field(default_factory=dict)
    edits: dict[str, Edit] = field(default_factory=dict)
    as_released: tuple[str, ...] = ()
    reason: str = ""


def replace(*pairs: tuple[str, str]) -> Edit:
    """Return an edit that replaces texts, each of which must occur once."""

    def edit(text: str) -> str:
        for old, new in pairs:
            assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in:\n{text}"
            text = text.replace(old, new)
        return text

    return edit
