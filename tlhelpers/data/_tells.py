"""What gives classes away without a look at what is shown: grey or coloured, a size, a kind of file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from tlhelpers.data._layout import joined
from tlhelpers.data._scan import Look

__all__ = ["odd_files", "tells"]

MOST = 0.9  # of the pictures of a class
FEW = 10  # pictures of a class: with fewer, chance does it
_SUFFIXES = {"jpeg": "jpg", "jpe": "jpg", "jfif": "jpg", "tiff": "tif"}


def _is_grey(look: Look) -> bool:
    return bool(np.ptp(look.thumbnail, axis=2).max() < 3)


def _kind(name: str) -> str:
    suffix = name.rpartition(".")[2].lower()
    return _SUFFIXES.get(suffix, suffix)


def tells(by_class: Mapping[str, Sequence[str]], looks: Mapping[str, Look]) -> tuple[str, ...]:
    """Returns what sets whole classes apart and is no part of what their pictures show, one sentence each.

    Args:
        by_class: Class -> its files.
        looks: File -> what was seen in it.
    """
    traits = {
        "colour": lambda name: "grey" if _is_grey(looks[name]) else "coloured",
        "size": lambda name: "{1} x {0} pixels large".format(*looks[name].size),
        "kind of file": lambda name: f".{_kind(name)} files",
    }
    found = []
    for trait, value_of in traits.items():
        usual: dict[str, list[str]] = {}
        for c, names in by_class.items():
            value, n = Counter(map(value_of, names)).most_common(1)[0] if names else ("", 0)
            if n >= max(FEW, MOST * len(names)):
                usual.setdefault(value, []).append(c)
        if len(usual) > 1 and sum(map(len, usual.values())) == len(by_class):
            said = joined(f"those of {joined(cs[:3])} are {value}" for value, cs in list(usual.items())[:3])
            found.append(
                f"The pictures of the classes differ in their {trait}: {said}. A model may tell them apart "
                "by that alone, and fail where it does not hold."
            )
    return tuple(found)


def odd_files(looks: Mapping[str, Look]) -> list[str]:
    """Notes files of several pictures, and pictures in which next to nothing is to be seen."""
    several = [name for name, look in looks.items() if look.several]
    found = _about_empty(looks)
    if several:
        found.append(
            f"{len(several):,} files hold several pictures, such as {several[0]}: the first is used."
        )
    return found


def _about_empty(looks: Mapping[str, Look]) -> list[str]:
    seen = [look.thumbnail for look in looks.values()]
    empty = [name for name, x in zip(looks, seen, strict=True) if x.max() < 24 or np.ptp(x, (0, 1)).max() < 4]
    if len(empty) < max(3, 0.1 * len(seen)):
        return []
    return [
        f"{len(empty):,} of {len(seen):,} pictures are nearly black or of one colour, such as {empty[0]}: "
        "look at them. Masks look so, and pictures whose brightness uses only a part of their bits."
    ]
