"""What was found in a folder of images, and what of it is worth knowing."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tlhelpers.data._copies import Copies
from tlhelpers.data._layout import joined, some

__all__ = ["SPLIT_WORDS", "FolderCheck", "counted"]

SPLIT_WORDS = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class FolderCheck:
    """What was found in a folder. Returned by `load`.

    Attributes:
        name: Name of the folder.
        shipped: The splits that the folder itself has: "train" alone, or with "val" and "test".
        files: Split -> the files of its images, in the order of the data set.
        counts: Split -> class -> number of images that are used.
        unreadable: Files that cannot be decoded -> why.
        left_out: Images that could be read and are not used -> why.
        copies: Files that show one picture.
        sizes: int (n, 2): height and width of the readable images, in pixels.
        n_ignored: Files whose names are not those of images, or that lie outside of class folders.
        said: How the folder was read and what of it is not used, one sentence each.
        scenes: Classes in which so many pictures look alike that they show one scene.
        unlabelled: Images of a test folder without class folders.
        white: What counts as white in pictures of 16 bits; None where there are none.
        leaks: Test images that belong together with a training image.
        tells: What sets whole classes apart and is no part of what the pictures show, one sentence each.
        groups: File -> number, equal for those that belong together; empty where each is alone.
    """

    name: str
    shipped: tuple[str, ...]
    files: dict[str, tuple[str, ...]]
    counts: dict[str, dict[str, int]]
    unreadable: dict[str, str]
    left_out: dict[str, str]
    copies: tuple[Copies, ...]
    sizes: np.ndarray
    n_ignored: int
    said: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    white: int | None = None
    leaks: tuple[str, ...] = ()
    tells: tuple[str, ...] = ()
    groups: dict[str, int] = field(default_factory=dict)

    @property
    def n_images(self) -> int:
        """Number of images that are used."""
        return sum(sum(classes.values()) for classes in self.counts.values())

    @property
    def balance(self) -> float:
        """Images of the largest class over those of the smallest, all splits together."""
        sums = [sum(classes[c] for classes in self.counts.values()) for c in self.counts["train"]]
        return max(sums) / min(sums)

    def notes(self) -> list[str]:
        """Returns what is worth knowing before a result is believed, one sentence each."""
        found = list(self.said)
        if self.unreadable:
            found.append(_unreadable(self.unreadable))
        found += self._about_copies()
        if self.balance >= 3:
            found.append(
                f"The largest class has {self.balance:.1f} times as many images as the smallest. "
                "Look at the accuracy of each class, not only at the total."
            )
        small = [c for c, n in self.counts["test"].items() if 0 < n < 10]
        if small:
            found.append(
                f"{counted(len(small), 'class', 'classes')} {'has' if len(small) == 1 else 'have'} fewer "
                "than 10 test images: their own accuracy is a rough guess."
            )
        return found

    def _about_copies(self) -> list[str]:
        found = []
        wrong = [c for c in self.copies if len(c.classes) > 1 and c.exact]
        if wrong:
            found.append(
                f"{counted(len(wrong), 'picture')} {'lies' if len(wrong) == 1 else 'lie'} in more than one "
                "class folder, as equal files: at least one label must be wrong. They are used as they are."
            )
        alike = [c for c in self.copies if len(c.classes) > 1 and not c.exact]
        if alike:
            found.append(
                f"{counted(len(alike), 'picture')} {'has' if len(alike) == 1 else 'have'} a look-alike in "
                "another class: look at their labels."
            )
        same = [c for c in self.copies if len(c.classes) == 1]
        shared = [c for c in same if len(c.splits) > 1 and set(c.names) & set(self.left_out)]
        if shared:
            sets = " and ".join(word for split, word in SPLIT_WORDS.items() if split in self.shipped)
            found.append(
                f"{counted(len(shared), 'picture')} {'lies' if len(shared) == 1 else 'lie'} in more than one "
                f"of {sets}. What is tested must not be trained on: the copies are left out."
            )
        near = [c for c in same if not c.exact and c not in shared]
        if near:
            dropped = any(set(c.names) & set(self.left_out) for c in near)
            used = "one of each is used" if dropped else "all are used, and kept together in the split"
            found.append(f"{counted(len(near), 'group')} of pictures that look alike: {used}.")
        rest = len(same) - len(shared) - len(near)
        if rest:
            found.append(
                f"{counted(rest, 'more picture' if wrong or shared else 'picture')} came with copies."
            )
        if self.leaks:
            found.append(
                f"{counted(len(self.leaks), 'test image')} {'belongs' if len(self.leaks) == 1 else 'belong'} "
                f"together with training images ({some(self.leaks, 3)}): the accuracy may be too good. "
                "--copies drop leaves out look-alikes."
            )
        if self.scenes:
            found.append(
                f"In {some(self.scenes)} many pictures look alike, as from a camera that does not move. All "
                "are used. The accuracy then holds for this camera and this scene alone, and pictures taken "
                "shortly after each other make it too good: --group keeps a day or a series on one side."
            )
        return found

    def __str__(self) -> str:
        height, width = self.sizes[:, 0], self.sizes[:, 1]
        used = ", ".join(f"{sum(c.values()):,} {SPLIT_WORDS[s]}" for s, c in self.counts.items())
        lines = [
            f"{self.name}: {len(self.counts['train']):,} classes; {used} images",
            f"sizes: {width.min()} x {height.min()} to {width.max()} x {height.max()} pixels",
        ]
        lines += [f"unreadable: {name} ({why})" for name, why in self.unreadable.items()]
        return "\n".join([*lines, *self.tells, *self.notes()])

    __repr__ = __str__  # what a notebook shows


def counted(n: int, one: str, many: str = "") -> str:
    """Returns a number with its noun; without ``many``, the plural ends in s.

    Example:
        >>> from tlhelpers.data.folder_check import counted
        >>> counted(1, "image"), counted(2, "copy", "copies")
        ('1 image', '2 copies')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def _unreadable(files: Mapping[str, str]) -> str:
    """How many files of which kind could not be read, and what to do."""
    kinds = Counter(name.rpartition(".")[2].lower() for name in files)
    listed = joined(f"{n:,} .{kind}" for kind, n in kinds.most_common(4))
    text = (
        f"{counted(len(files), 'file')} could not be read and {'is' if len(files) == 1 else 'are'} left out"
    )
    if len(kinds) > 1 or len(files) > 9:
        text += f" ({listed})"
    name, why = next(iter(files.items()))
    return f"{text}. The first is {name}: {why}."
