"""A folder of your own images: looked through before anything is trained, then split.

`load` reads every file once. It names the files that cannot be decoded, and finds copies of one picture by
their hashes: a copy on both sides of a split makes a test result too good.
"""

import os
import zipfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tlhelpers import checks, data
from tlhelpers.data import _folders, _splits
from tlhelpers.data._copies import Copies, find_copies
from tlhelpers.data._image_files import DEFAULT_SIZE, ImageFiles, open_images
from tlhelpers.data._scan import look_through

__all__ = ["Copies", "FolderCheck", "load"]

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
        found = []
        if self.unreadable:
            found.append(
                f"{counted(len(self.unreadable), 'file')} could not be read and "
                f"{'is' if len(self.unreadable) == 1 else 'are'} left out."
            )
        wrong = [c for c in self.copies if len(c.classes) > 1]
        if wrong:
            found.append(
                f"{counted(len(wrong), 'picture')} {'lies' if len(wrong) == 1 else 'lie'} in more than one "
                "class folder: at least one label must be wrong."
            )
        leaks = [c for c in self.copies if len(c.splits) > 1]
        if leaks:
            sets = " and ".join(word for split, word in SPLIT_WORDS.items() if split in self.shipped)
            found.append(
                f"{counted(len(leaks), 'picture')} {'lies' if len(leaks) == 1 else 'lie'} in more than one "
                f"of {sets}. What is tested must not be trained on: the copies are left out."
            )
        rest = len(self.copies) - len({*map(id, wrong), *map(id, leaks)})
        if rest:
            more = "more picture" if wrong or leaks else "picture"
            found.append(f"{counted(rest, more)} came with copies, in one and the same set.")
        if self.balance >= 3:
            found.append(
                f"The largest class has {self.balance:.1f} times as many images as the smallest. "
                "Look at the accuracy of each class, not only at the total."
            )
        small = [c for c, n in self.counts["test"].items() if n < 10]
        if small:
            found.append(
                f"{counted(len(small), 'class', 'classes')} {'has' if len(small) == 1 else 'have'} fewer "
                "than 10 test images: their own accuracy is a rough guess."
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
        return "\n".join([*lines, *self.notes()])

    __repr__ = __str__  # what a notebook shows


def load(
    folder: str | os.PathLike[str],
    image_size: int = DEFAULT_SIZE,
    seed: int = 0,
    advance: Callable[[int, int], None] | None = None,
) -> tuple[data.Dataset, FolderCheck]:
    """Looks through a folder (or zip file) of images and splits it.

    The layout is that of `tlhelpers.data.load`: one folder a class, or train/, val/ and test/ with class
    folders inside. What is missing is split off by the same rules: a fixed fifth of each class for test, a
    tenth of the rest for validation. Unreadable files are left out. Of copies of one picture only one is used
    where the split is made here. Where the folder ships splits, training images that are in validation or
    test, and validation images that are in test, are left out. Equal files in folders of different classes
    are left out, all of them.

    Args:
        folder: The folder or zip file.
        image_size: Side in pixels to which the centre square of each image is brought.
        seed: Of the split; 0 or larger.
        advance: Is called with the number of files looked at, and the number of all files.

    Returns:
        The data set, whose images stay in their files until they are used; and what was found.

    Raises:
        DataError: The folder cannot be used; the message says what to do.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from tlhelpers import data
        >>> from tlhelpers.data import folder_check
        >>> for i, image in enumerate(data.load("digits").x_train[:40]):
        ...     Path(f"photos/{i % 2}").mkdir(parents=True, exist_ok=True)
        ...     Image.fromarray(image).save(f"photos/{i % 2}/{i}.png")
        >>> ds, check = folder_check.load("photos", image_size=32)
        >>> ds.class_names, len(check.unreadable)
        (('0', '1'), 0)
    """
    path = _checked_path(folder)
    seed, size = checks.whole(seed, "seed", 0), checks.whole(image_size, "image_size")
    where = path.resolve().name + ("/" if path.is_dir() else "")
    files = open_images(path, where)
    entries = [
        (name, split, files.class_names[label])
        for split, part in files.parts.items()
        for name, label in zip(part.names, part.labels, strict=True)
    ]
    looks, unreadable = look_through(files, [name for name, _, _ in entries], advance)
    if not looks:
        name, why = next(iter(unreadable.items()))
        raise data.DataError(
            f"{where}: none of the {len(entries):,} files could be read as an image; {name}: {why}."
        )
    split_here = not {"val", "test"} <= set(files.parts)
    copies, left_out = find_copies([e for e in entries if e[0] in looks], looks, split_here)
    by_class = _used(files, entries, unreadable, left_out, where)
    ds, names = _split(files, by_class, where, seed, size)
    labels = {"train": ds.y_train, "val": ds.y_val, "test": ds.y_test}
    counts = {split: data.class_counts(y, ds.class_names) for split, y in labels.items()}
    sizes, shipped = np.array([look.size for look in looks.values()]), tuple(files.parts)
    check = FolderCheck(where, shipped, names, counts, unreadable, left_out, copies, sizes, files.n_ignored)
    return ds, check


def _checked_path(folder: str | os.PathLike[str]) -> Path:
    path = Path(folder).expanduser()
    expected = "Expected a folder with one folder a class, and the images of the class inside."
    try:
        if not path.exists():
            raise data.DataError(f"There is no folder {path}. {expected}")
        if not path.is_file() and not path.is_dir():
            raise data.DataError(f"{path} is neither a folder nor a file. {expected}")
        if path.is_file():
            if not zipfile.is_zipfile(path):
                raise data.DataError(f"{path} is a file. {expected}")
            return path
        closed: list[str] = []
        for _ in os.walk(path, onerror=lambda error: closed.append(str(error.filename))):
            pass
        if closed:
            raise PermissionError(0, "no permission", closed[0])
    except PermissionError as error:
        raise data.DataError(
            f"{error.filename or path} cannot be opened: no permission. "
            "Give yourself the right to read it, or copy the images elsewhere."
        ) from error
    return path


def _used(
    files: ImageFiles,
    entries: list[tuple[str, str, str]],
    unreadable: Collection[str],
    left_out: Collection[str],
    where: str,
) -> dict[str, dict[str, list[str]]]:
    """Returns split -> class -> the files that are used.

    Raises:
        DataError: They are too few; the message says how many were left out.
    """
    by_class: dict[str, dict[str, list[str]]] = {
        split: {c: [] for c in files.class_names} for split in files.parts
    }
    for name, split, c in entries:
        if name not in unreadable and name not in left_out:
            by_class[split][c].append(name)
    try:
        _folders.check_classes(by_class, where)
    except data.DataError as error:
        if not unreadable and not left_out:
            raise
        raise data.DataError(
            f"{error} (Left out: {counted(len(unreadable), 'unreadable file')}, "
            f"{counted(len(left_out), 'copy', 'copies')}.)"
        ) from error
    return by_class


def _split(
    files: ImageFiles, by_class: dict[str, dict[str, list[str]]], where: str, seed: int, size: int
) -> tuple[data.Dataset, dict[str, tuple[str, ...]]]:
    """Splits as `data.load` does; returns the names of the files, too."""
    names: dict[str, list[str]] = {}
    labels: dict[str, np.ndarray] = {}
    for split, classes in by_class.items():
        names[split] = [name for c in files.class_names for name in classes[c]]
        counts = [len(classes[c]) for c in files.class_names]
        labels[split] = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    source = where
    if "test" not in names:
        rest, pool = _splits.cut_test_pool(labels["train"], data.TEST_SHARE)
        names["test"], labels["test"] = [names["train"][i] for i in pool], labels["train"][pool]
        names["train"], labels["train"] = [names["train"][i] for i in rest], labels["train"][rest]
        source += "; no test/ inside, so a fixed fifth of each class is the test pool"
    asked = dict.fromkeys(("n_train", "n_val", "n_test"))
    chosen = _splits.choose(labels["train"], labels.get("val"), labels["test"], asked, seed, where)
    pools = ("train", "val" if "val" in names else "train", "test")
    picked = {
        split: tuple(names[pool][i] for i in places)
        for split, pool, places in zip(("train", "val", "test"), pools, chosen, strict=True)
    }
    y = [labels[pool][places] for pool, places in zip(pools, chosen, strict=True)]
    x = [data.ImageSequence(files, chosen_names, size) for chosen_names in picked.values()]
    ds = data.Dataset(x[0], y[0], x[1], y[1], x[2], y[2], files.class_names, source)
    return ds, picked


def counted(n: int, one: str, many: str = "") -> str:
    """Returns a number with its noun; without ``many``, the plural ends in s.

    Example:
        >>> from tlhelpers.data.folder_check import counted
        >>> counted(1, "image"), counted(2, "copy", "copies")
        ('1 image', '2 copies')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"
