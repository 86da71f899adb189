"""A folder of your own images: looked through before anything is trained, then split.

`load` reads every file once. It names the files that cannot be decoded, and finds copies of one picture by
their hashes: a copy on both sides of a split makes a test result too good.
"""

import functools
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from tlhelpers import checks, data
from tlhelpers.data._class_check import settled
from tlhelpers.data._copies import Copies, find_copies
from tlhelpers.data._decoding import white_of
from tlhelpers.data._findings import SPLIT_WORDS, FolderCheck, counted
from tlhelpers.data._groups import groups_of, numbered
from tlhelpers.data._image_files import DEFAULT_SIZE, ImageFiles, open_images
from tlhelpers.data._layout import Plan
from tlhelpers.data._scan import look_through
from tlhelpers.data._split_up import split_up
from tlhelpers.data._tells import odd_files, tells

__all__ = ["SPLIT_WORDS", "Copies", "FolderCheck", "counted", "load", "pooled"]

POLICIES = ("group", "keep", "drop")


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
    seed, size = checks.whole(seed, "seed", 0), checks.whole(image_size, "image_size")
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
    if not any(plan.by_class["train"].values()) and found.left_out:
        raise data.DataError(
            f"{where}: each training image is a copy of a test or validation image. What is tested must not "
            "be trained on. Put other pictures into test/, or remove it: then a fifth of each class is taken."
        )
    class_names = _settled(plan, where, layout.skip_small, len(unreadable), len(found.left_out))
    used = [name for classes in plan.by_class.values() for names in classes.values() for name in names]
    groups = numbered(used, found.together, groups_of(group, used) if group is not None else {})
    groups, tight = _released(groups, plan) if group is None else (groups, set())
    all_of = {c: [n for part in plan.by_class.values() for n in part[c]] for c in class_names}
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
        said=(*files.notes, *plan.notes, *odd_files(looks)),
        scenes=tuple(sorted({*found.scenes, *tight})),
        unlabelled=files.unlabelled,
        white=files.white,
        leaks=_leaks(names, groups, [] if found.scenes else found.copies),
        tells=tells(all_of, looks),
        groups=groups,
    )


def pooled(ds: data.Dataset, check: FolderCheck) -> tuple[data.Dataset, FolderCheck, np.ndarray | None]:
    """Puts all images of a small folder among the training images, for cross-validation.

    Test images that the folder ships stay what they are. Else the test images are all images, too.

    Args:
        ds: The data set that `load` returned.
        check: What it found.

    Returns:
        Both, changed; and the number of the group of each training image, or None where each is alone.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from tlhelpers import data
        >>> from tlhelpers.data import folder_check
        >>> for i, image in enumerate(data.load("digits").x_train[:20]):
        ...     Path(f"few/{i % 2}").mkdir(parents=True, exist_ok=True)
        ...     Image.fromarray(image).save(f"few/{i % 2}/{i}.png")
        >>> ds, check, groups = folder_check.pooled(*folder_check.load("few", image_size=32))
        >>> len(ds.y_train), len(ds.y_test), check.counts["train"]
        (20, 20, {'0': 10, '1': 10})
    """
    parts = ["train", "val"] if "test" in check.shipped else ["train", "val", "test"]
    y = np.concatenate([getattr(ds, f"y_{part}") for part in parts])
    x = functools.reduce(data.ImageSequence.followed_by, [getattr(ds, f"x_{part}") for part in parts])
    names = tuple(name for part in parts for name in check.files[part])
    none = dict.fromkeys(ds.class_names, 0)
    counts = {"train": data.class_counts(y, ds.class_names), "val": none, "test": none}
    files = {"train": names, "val": (), "test": names}
    if "test" in check.shipped:
        counts["test"], files["test"] = check.counts["test"], check.files["test"]
    else:
        ds = replace(ds, x_test=x, y_test=y)
    groups = np.array([check.groups[name] for name in names]) if check.groups else None
    return replace(ds, x_train=x, y_train=y), replace(check, counts=counts, files=files), groups


def _leaks(
    names: Mapping[str, tuple[str, ...]], groups: Mapping[str, int], copies: Collection[Copies]
) -> tuple[str, ...]:
    """The test images that belong together with one of training or validation, or show the same picture."""
    train, test = {*names["train"], *names["val"]}, set(names["test"])
    trained = {groups[name] for name in train} if groups else set()
    found = {name for name in test if groups and groups[name] in trained}
    for same in copies:
        if train.intersection(same.names):
            found |= test.intersection(same.names)
    return tuple(name for name in names["test"] if name in found)


def _released(groups: dict[str, int], plan: Plan) -> tuple[dict[str, int], set[str]]:
    """Lets go of pictures that look alike, where a class could not be split otherwise; and these classes."""
    needed = 1 + ("val" not in plan.by_class) + ("test" not in plan.by_class)
    numbers = {c: {groups[n] for n in names} for c, names in plan.by_class["train"].items()} if groups else {}
    tight = {c for c, found in numbers.items() if len(found) < needed}
    free = {number for c in tight for number in numbers[c]}
    apart = {n: len(groups) + i if number in free else number for i, (n, number) in enumerate(groups.items())}
    return apart, tight


def _checked_path(folder: str | os.PathLike[str]) -> Path:
    path = Path(folder).expanduser()
    expected = "Expected a folder with one folder a class, and the images of the class inside."
    try:
        if not path.exists():
            raise data.DataError(f"There is no folder {path}. {expected}")
        if not path.is_file() and not path.is_dir():
            raise data.DataError(f"{path} is neither a folder nor a file. {expected}")
        if path.is_file():
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
