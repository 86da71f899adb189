"""A folder of your own images: looked through before anything is trained, then split.

`load` reads every file once. It names the files that cannot be decoded, and finds copies of one picture by
their hashes: a copy on both sides of a split makes a test result too good.
"""

import io
import os
import warnings
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from tlhelpers import data
from tlhelpers.data import _folders, _splits
from tlhelpers.data._images import DEFAULT_SIZE, ImageFiles, open_images
from tlhelpers.data._pixels import decode, oriented_size

__all__ = ["Copies", "FolderCheck", "load"]

# Two pictures count as copies if few bits of their hashes differ, and their thumbnails differ by little of
# their contrast. Saving a photograph again, or in another size, stays far below both.
NEAR_BITS = 6  # of 64
NEAR_CONTRAST = 0.1
FLAT = 4.0  # grey levels of spread: pictures with less are as good as empty, and all alike
_SIDE = 16  # of a thumbnail
_PRIORITY = ("test", "val", "train")  # where the same picture is in two splits, the first one keeps it


@dataclass(frozen=True)
class Copies:
    """Files that show one picture.

    Attributes:
        names: The files, two or more; first the one that is kept, if one is.
        exact: Whether they are equal byte by byte; else they only look alike.
        splits: The shipped splits that they lie in.
        classes: The class folders that they lie in: more than one means that a label is wrong.
    """

    names: tuple[str, ...]
    exact: bool
    splits: tuple[str, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class FolderCheck:
    """What was found in a folder.

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
                f"{_count(len(self.unreadable), 'file')} could not be read and "
                f"{'is' if len(self.unreadable) == 1 else 'are'} left out."
            )
        wrong = [c for c in self.copies if len(c.classes) > 1]
        if wrong:
            found.append(
                f"{_count(len(wrong), 'picture')} {'lies' if len(wrong) == 1 else 'lie'} in more than one "
                "class folder: at least one label must be wrong."
            )
        leaks = [c for c in self.copies if len(c.splits) > 1]
        if leaks:
            sets = " and ".join(word for split, word in _SPLIT_WORDS.items() if split in self.shipped)
            found.append(
                f"{_count(len(leaks), 'picture')} {'lies' if len(leaks) == 1 else 'lie'} in more than one of "
                f"{sets}. What is tested must not be trained on: the copies are left out."
            )
        rest = len(self.copies) - len({*map(id, wrong), *map(id, leaks)})
        if rest:
            more = "more picture" if wrong or leaks else "picture"
            found.append(f"{_count(rest, more)} came with copies, in one and the same set.")
        if self.balance >= 3:
            found.append(
                f"The largest class has {self.balance:.1f} times as many images as the smallest. "
                "Look at the accuracy of each class, not only at the total."
            )
        small = [c for c, n in self.counts["test"].items() if n < 10]
        if small:
            found.append(
                f"{_count(len(small), 'class', 'classes')} {'has' if len(small) == 1 else 'have'} fewer than "
                "10 test images: their own accuracy is a rough guess."
            )
        return found

    def __str__(self) -> str:
        height, width = self.sizes[:, 0], self.sizes[:, 1]
        used = ", ".join(f"{sum(c.values()):,} {_SPLIT_WORDS[s]}" for s, c in self.counts.items())
        lines = [
            f"{self.name}: {len(self.counts['train']):,} classes; {used} images",
            f"sizes: {width.min()} x {height.min()} to {width.max()} x {height.max()} pixels",
        ]
        lines += [f"unreadable: {name} ({why})" for name, why in self.unreadable.items()]
        return "\n".join([*lines, *self.notes()])

    __repr__ = __str__  # what a notebook shows


_SPLIT_WORDS = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class _Look:
    """What one reading of a file tells."""

    digest: bytes
    size: tuple[int, int]
    hash: int
    thumbnail: np.ndarray  # float32 (side, side, 3)


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
    """
    path = _checked_path(folder)
    seed, size = _splits.check_seed(seed), _splits.check_count("image_size", image_size)
    where = path.resolve().name + ("/" if path.is_dir() else "")
    files = open_images(path, where)
    entries = [
        (name, split, files.class_names[label])
        for split, part in files.parts.items()
        for name, label in zip(part.names, part.labels, strict=True)
    ]
    looks: dict[str, _Look] = {}
    unreadable: dict[str, str] = {}
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # of large or slightly odd files, which can be read
        for (name, _, _), look in zip(entries, pool.map(lambda e: _look(files, e[0]), entries), strict=True):
            if isinstance(look, _Look):
                looks[name] = look
            else:
                unreadable[name] = look
            if advance:
                advance(len(looks) + len(unreadable), len(entries))
    if not looks:
        name, why = next(iter(unreadable.items()))
        raise data.DataError(
            f"{where}: none of the {len(entries):,} files could be read as an image; {name}: {why}."
        )
    split_here = not {"val", "test"} <= set(files.parts)
    copies, left_out = _copies([e for e in entries if e[0] in looks], looks, split_here)

    kept = [e for e in entries if e[0] in looks and e[0] not in left_out]
    by_class: dict[str, dict[str, list[str]]] = {
        split: {c: [] for c in files.class_names} for split in files.parts
    }
    for name, split, c in kept:
        by_class[split][c].append(name)
    try:
        _folders.check_classes(by_class, where)
    except data.DataError as error:
        if not unreadable and not left_out:
            raise
        raise data.DataError(
            f"{error} (Left out: {_count(len(unreadable), 'unreadable file')}, "
            f"{_count(len(left_out), 'copy', 'copies')}.)"
        ) from error
    ds, names = _split(files, by_class, where, seed, size)
    check = FolderCheck(
        where,
        tuple(files.parts),
        names,
        {
            "train": data.class_counts(ds.y_train, ds.class_names),
            "val": data.class_counts(ds.y_val, ds.class_names),
            "test": data.class_counts(ds.y_test, ds.class_names),
        },
        unreadable,
        left_out,
        copies,
        np.array([look.size for look in looks.values()]),
        files.n_ignored,
    )
    return ds, check


def _checked_path(folder: str | os.PathLike[str]) -> Path:
    path = Path(folder).expanduser()
    expected = "Expected a folder with one folder a class, and the images of the class inside."
    try:
        if not path.exists():
            raise data.DataError(f"There is no folder {path}. {expected}")
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


def _look(files: ImageFiles, name: str) -> _Look | str:
    """Reads one file; where that fails, returns why."""
    content = b""
    try:
        content = files.read_bytes(name)
        size = oriented_size(io.BytesIO(content))
        pixels = decode(io.BytesIO(content), 4 * _SIDE)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise a dozen kinds of error on broken files
        return _why(error, content)
    picture = Image.fromarray(pixels)
    thumbnail = np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32)
    # The difference hash: whether each pixel of a tiny grey picture is brighter than its neighbour.
    grey = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])
    return _Look(sha256(content).digest(), size, int.from_bytes(bits.tobytes(), "big"), thumbnail)


def _why(error: Exception, content: bytes) -> str:
    cause = error.__cause__ if isinstance(error, data.DataError) and error.__cause__ else error
    if isinstance(cause, PermissionError):
        return "no permission to read it"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    if not content:
        return "empty file"
    if isinstance(cause, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels; save it smaller"
    if isinstance(cause, UnidentifiedImageError):
        return "not an image, whatever its name says"
    return str(cause) or type(cause).__name__


def _copies(
    entries: list[tuple[str, str, str]], looks: dict[str, _Look], split_here: bool
) -> tuple[tuple[Copies, ...], dict[str, str]]:
    """Returns groups of files that show one picture, and the files that are left out for it -> why."""
    order = sorted(range(len(entries)), key=lambda i: (_PRIORITY.index(entries[i][1]), entries[i][0]))
    entries = [entries[i] for i in order]
    exact: dict[bytes, list[int]] = {}
    for i, (name, _, _) in enumerate(entries):
        exact.setdefault(looks[name].digest, []).append(i)
    leaders = [group[0] for group in exact.values()]
    pairs = _near([looks[entries[i][0]] for i in leaders])
    groups = _joined(list(exact.values()), pairs)
    copies: list[Copies] = []
    left_out: dict[str, str] = {}
    for members in groups:
        here = [entries[i] for i in sorted(members)]
        same_bytes = len({looks[name].digest for name, _, _ in here}) == 1
        classes = tuple(dict.fromkeys(c for _, _, c in here))
        splits = tuple(s for s in _PRIORITY[::-1] if any(s == split for _, split, _ in here))
        copies.append(Copies(tuple(name for name, _, _ in here), same_bytes, splits, classes))
        if same_bytes and len(classes) > 1:
            left_out |= {name: f"the same file lies in {' and '.join(classes)}" for name, _, _ in here}
            continue
        first_name, first_split, _ = here[0]
        for name, split, _ in here[1:]:
            if split != first_split or (split == "train" and split_here):
                left_out[name] = f"{'equal to' if same_bytes else 'looks like'} {first_name}"
    return tuple(copies), left_out


def _near(looks: list[_Look]) -> list[tuple[int, int]]:
    """Returns pairs (i, j), i < j, of pictures that look alike."""
    thumbnails = np.stack([look.thumbnail for look in looks])
    spread = np.sqrt(thumbnails.var(axis=(1, 2)).mean(axis=1))  # within each colour
    pixels = thumbnails.reshape(len(looks), -1)
    hashes = np.array([look.hash for look in looks], np.uint64)
    places = np.flatnonzero(spread >= FLAT)
    found: list[tuple[int, int]] = []
    for n, i in enumerate(places):
        others = places[n + 1 :]
        others = others[np.bitwise_count(hashes[others] ^ hashes[i]) <= NEAR_BITS]
        difference = np.sqrt(((pixels[others] - pixels[i]) ** 2).mean(axis=1))
        alike = others[difference <= NEAR_CONTRAST * np.minimum(spread[others], spread[i])]
        found += [(int(i), int(j)) for j in alike]
    return found


def _joined(groups: list[list[int]], pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Merges groups that a pair connects, and returns those of two or more members."""
    leader = list(range(len(groups)))

    def top(i: int) -> int:
        while leader[i] != i:
            i = leader[i]
        return i

    for i, j in pairs:
        a, b = sorted((top(i), top(j)))
        leader[b] = a
    merged: dict[int, list[int]] = {}
    for i, group in enumerate(groups):
        merged.setdefault(top(i), []).extend(group)
    return [group for group in merged.values() if len(group) > 1]


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


def _count(n: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
