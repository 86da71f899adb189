"""What to try with how many labels, at which distance from the source: one table for all who give advice.

The cheat sheet, the questions, chapters 8 and 14 and ``tlhelpers run`` read it here. `decision.json` is
derived from the runs behind chapter 8 by ``python -m tools.numbers.decision``, never written by hand.
"""

import json
from dataclasses import dataclass
from importlib.resources import files

__all__ = ["BORDER", "DISTANCES", "METHODS", "Advice", "advice", "advise"]

BORDER = "block4"  # of "top blocks": it and what is below it stay frozen
DISTANCES = {
    "near": "images like the source's photographs",
    "far": "images unlike the source's photographs",
}
# From cheap to expensive. The names are those of `tlhelpers.course.comparison.METHODS`.
METHODS = {
    "probe": "a linear probe",
    "depths": "a linear probe on several depths",
    "scratch": "a small network from scratch",
    "top_blocks": "the probe as head, then the upper blocks",
    "probe_then_full": "the probe as head, then all blocks",
}


@dataclass(frozen=True)
class Advice:
    """What to try with so many labels. Returned by `advise`.

    Attributes:
        distance: One of `DISTANCES`.
        at_least: Labels of the smallest class from which on it holds.
        below: Labels of the smallest class up to which it holds; infinite at the end.
        method: One of `METHODS`: the cheapest that no other beat.
        measured: Labels a class at which it was measured.
        data: The data set that stood for the distance.
    """

    distance: str
    at_least: int
    below: float
    method: str
    measured: tuple[int, ...]
    data: str

    @property
    def words(self) -> str:
        """The method in words."""
        return METHODS[self.method]


def advice() -> tuple[Advice, ...]:
    """Returns the whole table: by distance, then by the number of labels.

    Example:
        >>> from tlhelpers import decision
        >>> {row.distance for row in decision.advice()} == set(decision.DISTANCES)
        True
    """
    rows = json.loads(files(__package__).joinpath("decision.json").read_text(encoding="utf-8"))["advice"]
    return tuple(
        Advice(
            row["distance"],
            row["at_least"],
            float("inf") if row["below"] is None else row["below"],
            row["method"],
            tuple(row["measured"]),
            row["data"],
        )
        for row in rows
    )


def advise(labels: int, distance: str = "near") -> Advice:
    """Returns what to try first.

    Args:
        labels: Labelled images of the smallest class, those for validation included.
        distance: One of `DISTANCES`.

    Raises:
        ValueError: If there is no such distance, or no label.

    Example:
        >>> from tlhelpers import decision
        >>> decision.advise(5).words
        'a linear probe'
    """
    if distance not in DISTANCES:
        raise ValueError(f"distance must be one of {', '.join(DISTANCES)}, not {distance!r}.")
    if labels < 1:
        raise ValueError(
            f"labels counts the labelled images of the smallest class, at least 1, not {labels}."
        )
    return next(row for row in advice() if row.distance == distance and row.at_least <= labels < row.below)
