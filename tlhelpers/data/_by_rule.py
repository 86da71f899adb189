"""Splits and classes of images by a rule that a reader gives: a CSV file, a level of folders, a pattern."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from tlhelpers.data._errors import DataError
from tlhelpers.data._labels import Labels
from tlhelpers.data._layout import Layout, Plan, some
from tlhelpers.data._split_words import FLAT_KINDS, kind_of
from tlhelpers.data._tree import Folder

__all__ = ["by_rule"]


def by_rule(
    root: Folder,
    chosen: dict[str, list[Folder]],
    layout: Layout,
    labels: Labels | None,
    where: str,
) -> Plan:
    """Classes from a CSV file, from the name of a folder so many levels down, or from a pattern."""
    name, depth = _namer(layout, labels, where)
    made, missed = Plan({}), []
    named = any(chosen.values())
    for split, top, file in _with_splits(root, chosen, depth):
        label = name(file.removeprefix(f"{top}/") if top and depth else file)
        if label is not None:
            split = labels.splits.get(file, split) if labels else split
            to = split if split in ("train", "val") else "test"
            made.by_class.setdefault(to, {}).setdefault(label, []).append(file)
        elif split in FLAT_KINDS:
            made.unlabelled.append(file)
        else:
            missed.append(file)
    if "train" not in made.by_class:
        how = "--labels" if labels is not None else f"--classes-from {layout.classes_from}"
        raise DataError(
            f"{where}: {how} gives no training image a class; the first one is "
            f"{(missed or made.unlabelled or ['missing'])[0]}."
        )
    if missed:
        what = "outside of the folders that were named, or " if named else ""
        made.notes.append(
            f"{len(missed):,} images are {what}without a class, and not used: {some(missed, 3)}."
        )
    return made


def _namer(layout: Layout, labels: Labels | None, where: str) -> tuple[Callable[[str], str | None], int]:
    """Returns the function from a file to its class, and the level at which a folder names it."""
    if labels is not None:
        return labels.classes.get, 0
    wanted = str(layout.classes_from)
    if wanted.isdecimal():
        depth = int(wanted)
        if depth < 1:
            raise DataError(f"{where}: --classes-from 1 is the first level of folders; there is no level 0.")
        return lambda file: file.split("/")[depth - 1] if file.count("/") >= depth else None, depth
    try:
        pattern = re.compile(wanted)
    except re.error as error:
        raise DataError(f"{where}: --classes-from {wanted} is no regular expression: {error}.") from error

    def match(file: str) -> str | None:
        path = re.sub(r"\.[^./]*$", "", file)
        found = pattern.search(path.rpartition("/")[2]) or pattern.search(path)
        return (found[1] if pattern.groups else found[0]) or None if found else None

    return match, 0


def _with_splits(root: Folder, chosen: dict[str, list[Folder]], depth: int) -> Iterable[tuple[str, str, str]]:
    """Yields the split of each image, the folder from which levels are counted, and the image."""
    if any(chosen.values()):
        tops = [(split, f) for split, folders in chosen.items() for f in folders]
        if not chosen["train"]:
            tops.append(("train", root.without([f for _, f in tops])))
        for split, folder in tops:
            for file in folder.all_files():
                yield split, folder.path, file
        return
    for file in root.all_files():
        above = file.split("/")[:-1]
        above = above[: depth - 1] if depth else above
        kinds = [kind[0] for part in above if (kind := kind_of(part)) and not kind[1]]
        yield kinds[0] if kinds else "train", "", file
