"""A folder of your own images: looked through before anything is trained, then split.

`load` reads every file once. It names the files that cannot be decoded, and finds copies of one picture by
their hashes: a copy on both sides of a split makes a test result too good.
"""

import os
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tlhelpers import data
from tlhelpers.data import _splits
from tlhelpers.data._class_check import settled
from tlhelpers.data._copies import Copies, find_copies
from tlhelpers.data._decoding import white_of
from tlhelpers.data._groups import groups_of, numbered
from tlhelpers.data._image_files import DEFAULT_SIZE, ImageFiles, open_images
from tlhelpers.data._layout import Plan, joined, some
from tlhelpers.data._scan import look_through
from tlhelpers.data._split_up import split_up
from tlhelpers.data._tar import TAR_SUFFIXES

__all__ = ["Copies", "FolderCheck", "load"]

POLICIES = ("group", "keep", "drop")
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
        return "\n".join([*lines, *self.notes()])

    __repr__ = __str__  # what a notebook shows


def load(
    folder: str | os.PathLike[str],
    image_size: int = DEFAULT_SIZE,
    seed: int = 0,
    advance: Callable[[int, int], None] | None = None,
    *,
    layout: data.Layout | None = None,
    copies: str = "group",
    group: str | None = None,
) -> tuple[data.Dataset, FolderCheck]:
    """Looks through a folder (or zip or tar file) of images and splits it.

    The layout is that of `tlhelpers.data.load`: one folder a class, or train/, val/ and test/ with class
    folders inside. What is missing is split off by the same rules: a fixed fifth of each class for test, a
    tenth of the rest for validation. Unreadable files are left out. Of equal files in one class one is used,
    that of the test where they lie in several splits. Pictures that only look alike are all used, on one side
    of the split, unless a fifth of a class or more look alike: then a camera looks at one scene.

    Args:
        folder: The folder or archive.
        image_size: Side in pixels to which the centre square of each image is brought.
        seed: Of the split; 0 or larger.
        advance: Is called with the number of files looked at, and the number of all files.
        layout: How the folder is to be read, where the names in it leave that open.
        copies: ``"group"``, as described; ``"keep"`` uses every file, wherever it falls; ``"drop"`` uses one
            of the pictures that look alike.
        group: What belongs together and on one side of the split, such as the pictures of one patient: a
            regular expression whose first group, or all that it finds, in a file's path names the group; or
            a CSV file with file names and groups.

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
    if copies not in POLICIES:
        raise ValueError(f"copies is one of {', '.join(POLICIES)}, not {copies!r}.")
    path = _checked_path(folder)
    seed, size = _splits.check_seed(seed), _splits.check_count("image_size", image_size)
    where = path.resolve().name + ("/" if path.is_dir() else "")
    layout = layout or data.Layout()
    files = open_images(path, where, layout)
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
    deep = [look.top for look in looks.values() if look.top is not None]
    files.white = white_of(deep) if deep else None
    found = find_copies([e for e in entries if e[0] in looks], looks, copies)
    plan = _used(files, entries, unreadable, found.left_out)
    class_names = _settled(plan, where, layout.skip_small, len(unreadable), len(found.left_out))
    used = [name for classes in plan.by_class.values() for names in classes.values() for name in names]
    groups = numbered(used, found.together, groups_of(group, used) if group is not None else {})
    try:
        ds, names = split_up(files, plan.by_class, class_names, seed, size, groups)
    except data.DataError as error:
        raise data.DataError(f"{where}: {error}") from error
    labels = {"train": ds.y_train, "val": ds.y_val, "test": ds.y_test}
    return ds, FolderCheck(
        name=where,
        shipped=tuple(files.parts),
        files=names,
        counts={split: data.class_counts(y, ds.class_names) for split, y in labels.items()},
        unreadable=unreadable,
        left_out=found.left_out,
        copies=found.copies,
        sizes=np.array([look.size for look in looks.values()]),
        n_ignored=files.n_ignored,
        said=(*files.notes, *plan.notes),
        scenes=found.scenes,
        unlabelled=files.unlabelled,
        white=files.white,
        leaks=_leaks(names, groups),
        groups=groups,
    )


def _leaks(names: Mapping[str, tuple[str, ...]], groups: Mapping[str, int]) -> tuple[str, ...]:
    """The test images that belong together with a training image: only where the folder ships its splits."""
    trained = {groups[name] for name in names["train"]} if groups else set()
    return tuple(name for name in names["test"] if trained and groups[name] in trained)


def _checked_path(folder: str | os.PathLike[str]) -> Path:
    path = Path(folder).expanduser()
    expected = "Expected a folder with one folder a class, and the images of the class inside."
    try:
        if not path.exists():
            raise data.DataError(f"There is no folder {path}. {expected}")
        if not path.is_file() and not path.is_dir():
            raise data.DataError(f"{path} is neither a folder nor a file. {expected}")
        if path.is_file():
            if not (zipfile.is_zipfile(path) or path.name.lower().endswith(TAR_SUFFIXES)):
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
) -> Plan:
    """Returns split -> class -> the files that are used."""
    by_class: dict[str, dict[str, list[str]]] = {
        split: {c: [] for c in files.class_names} for split in files.parts
    }
    for name, split, c in entries:
        if name not in unreadable and name not in left_out:
            by_class[split][c].append(name)
    return Plan(by_class)


def _settled(plan: Plan, where: str, skip_small: bool, n_unreadable: int, n_copies: int) -> tuple[str, ...]:
    """The class names, once all classes are found to be usable; an error says how much was left out."""
    hint = ""
    if n_unreadable or n_copies:
        hint = (
            f" (Left out: {counted(n_unreadable, 'unreadable file')}, {counted(n_copies, 'copy', 'copies')}.)"
        )
    return settled(plan, where, skip_small, hint)


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
