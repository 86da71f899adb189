"""What a reader says about a folder of images, and what is made of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["Classes", "Layout", "Plan", "in_python", "joined", "some"]

Classes = dict[str, list[str]]


@dataclass(frozen=True)
class Layout:
    """Says how a folder of images is to be read, where its names leave that open.

    Attributes:
        train: Folders inside that hold the class folders of the training images.
        val: The same for validation images.
        test: The same for test images. It may hold images without class folders: then they have no labels.
        classes_from: What names the class of an image. A number: the folder so many levels down, where 1 is
            directly inside. A regular expression: its first group, or all that it finds, in the name of the
            file without its suffix, or else in its path.
        labels: CSV files with a column of file names and one of labels.
        label_column: Its name, where there are several that could be meant.
        skip_small: Whether classes that are too small, or missing in one of the splits, are left out.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from tlhelpers import data
        >>> Path("animals").mkdir()
        >>> for i in range(20):
        ...     Image.new("RGB", (8, 8), (i, 9 * i, 0)).save(f"animals/{('cat', 'dog')[i % 2]}{i}.png")
        >>> data.load("./animals", layout=data.Layout(classes_from="(cat|dog)")).class_names
        ('cat', 'dog')
    """

    train: str | Sequence[str] | None = ()
    val: str | Sequence[str] | None = ()
    test: str | Sequence[str] | None = ()
    classes_from: int | str | None = None
    labels: str | Sequence[str] | None = ()
    label_column: str | None = None
    skip_small: bool = False

    def __post_init__(self) -> None:
        for name in ("train", "val", "test", "labels"):
            value = getattr(self, name)
            one = isinstance(value, str | os.PathLike)
            object.__setattr__(self, name, (value,) if one else tuple(value or ()))


@dataclass
class Plan:
    """What the names of files say.

    Attributes:
        by_class: Split -> class -> files.
        unlabelled: Images of a test folder without class folders.
        notes: What was guessed or left out, one sentence each.
    """

    by_class: dict[str, Classes]
    unlabelled: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def in_python(name: str, value: object) -> str:
    """The end of a sentence that names a flag of the command: the same for `load`."""
    return f" (in Python: layout=data.Layout({name}={value!r}))."


def some(names: Iterable[str], shown: int = 5) -> str:
    """The first few names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - shown:,} more" if len(ordered) > shown else ""
    return (", ".join(ordered[:shown]) + more) or "none"


def joined(names: Iterable[str]) -> str:
    """Names with commas, and "and" before the last."""
    every = list(names)
    return ", ".join(every[:-1]) + " and " + every[-1] if len(every) > 1 else "".join(every)
