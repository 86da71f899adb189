"""Folders as a tree of those that hold images: what one level of a data set looks like."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tlhelpers.data._split_words import certain

__all__ = ["MASKS", "Folder", "is_junk", "mask_files", "tree_of"]

#: Folders that devices and tools leave behind.
_JUNK = ("@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found", "__macosx")
#: Folders of masks beside folders of images: pictures, but none to be classified.
_MASK_WORDS = (
    "mask masks annotation annotations segmentation segmentations groundtruth ground_truth gt labels"
)
MASKS = frozenset(_MASK_WORDS.split())
_MASK_FILE = re.compile(rf"(.+?)[ _-]?({'|'.join(MASKS)}|seg)([ _-]?\d+)?", re.IGNORECASE)


def is_junk(path: str) -> bool:
    """Whether a file or folder is hidden, or left behind by a device or a tool."""
    return any(part.startswith(".") or part.lower() in _JUNK for part in path.split("/"))


def mask_files(images: Iterable[str]) -> list[str]:
    """Returns the pictures that are called like masks of others, such as lung_mask.png beside lung.png."""
    stems = {name: name.rpartition(".")[0] for name in images}
    there = set(stems.values())
    return [n for n, stem in stems.items() if (m := _MASK_FILE.fullmatch(stem)) and m[1] in there]


class Folder:
    """A folder that holds images, here or below.

    Attributes:
        path: Relative to the data set, "" for itself.
        files: The images that lie in it.
        children: Name -> folder inside that holds images.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.files: list[str] = []
        self.children: dict[str, Folder] = {}

    @property
    def name(self) -> str:
        """Its own name."""
        return self.path.rpartition("/")[2]

    def all_files(self) -> Iterator[str]:
        """Yields the images here and below."""
        yield from self.files
        for child in self.children.values():
            yield from child.all_files()

    def unwrapped(self) -> Folder:
        """Returns the folder below those that hold one folder and nothing else.

        Where the only folder is called like a split, it is none that wraps, unless the whole set lies in it.
        """
        here = self
        while len(here.children) == 1 and not here.files:
            (only,) = here.children.values()
            inside = certain(only.unwrapped().children).values() if only.children else ()
            if not only.children or (certain([only.name]) and "train" not in inside):
                break
            here = only
        return here

    def classes(self) -> Folder:
        """Returns the folder whose folders are classes: below wrappers, and below doubled folders."""
        here = self
        while len(here.children) == 1 and not here.files:
            (only,) = here.children.values()
            if not only.children:
                break
            here = only
        if len(here.children) == 1 and not here.files:  # seg_pred/seg_pred/ holds images, and is no class
            (only,) = here.children.values()
            if only.name == here.name or certain([only.name]):
                return only
        return here

    def without(self, others: Iterable[Folder]) -> Folder:
        """Returns a copy in which some folders are missing, and those that are then empty."""
        gone = {other.path for other in others}
        copy = Folder(self.path)
        copy.files = self.files
        for name, child in self.children.items():
            if child.path not in gone:
                kept = child.without(others)
                if kept.files or kept.children:
                    copy.children[name] = kept
        return copy

    def find(self, path: str) -> list[Folder]:
        """Returns the folders that a path given by hand can mean: from the top, else those of that name."""
        wanted = path.replace("\\", "/").strip("/").removeprefix("./").casefold()
        below = [self, *self._below()]
        exact = [f for f in below if f.path.casefold() == wanted]
        found = exact or [f for f in below if f"/{f.path}".casefold().endswith(f"/{wanted}")]
        return [f for f in found if not any(f is not g and f.path.startswith(f"{g.path}/") for g in found)]

    def _below(self) -> Iterator[Folder]:
        for child in self.children.values():
            yield child
            yield from child._below()


def tree_of(images: Iterable[str]) -> Folder:
    """Returns the folders of images, given by their paths with slashes."""
    root = Folder("")
    for name in images:
        here = root
        parts = name.split("/")
        for i, part in enumerate(parts[:-1]):
            here = here.children.setdefault(part, Folder("/".join(parts[: i + 1])))
        here.files.append(name)
    return root
