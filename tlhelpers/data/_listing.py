"""From the files of a folder or archive to images with classes: by names, or by a CSV file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlhelpers.data import _file_kinds
from tlhelpers.data._class_check import settled
from tlhelpers.data._errors import DataError, NoClassFoldersError
from tlhelpers.data._folders import plan
from tlhelpers.data._labels import Labels, read_labels
from tlhelpers.data._layout import Layout, Plan, joined, some
from tlhelpers.data._split_words import kind_of
from tlhelpers.data._tar import is_archive
from tlhelpers.data._tree import is_junk, mask_files

__all__ = ["Listing", "listed", "pictures"]

_TABLES = (".csv", ".tsv")
_SHEETS = (".xlsx", ".xls", ".ods")
#: Suffixes of what people and devices keep beside pictures.
_NOTE_WORDS = "aae csv db html ini json md txt tsv url xls xlsx xml xmp yaml yml"
_NOTES = frozenset(_NOTE_WORDS.split())


@dataclass(frozen=True)
class Listing:
    """Images, sorted.

    Attributes:
        by_class: Split -> class -> files.
        class_names: In the order of the labels.
        unlabelled: Images of a test folder without labels.
        notes: What was guessed or left out, one sentence each.
    """

    by_class: dict[str, dict[str, list[str]]]
    class_names: tuple[str, ...]
    unlabelled: tuple[str, ...]
    notes: tuple[str, ...]


def pictures(files: Sequence[str], read: Callable[[str], bytes]) -> list[str]:
    """Returns the files that are pictures, those that cannot be read here among them.

    Args:
        files: All files, paths with slashes.
        read: From a file to its beginning, for those without a suffix.
    """

    def begins(name: str) -> bool:
        if "." in name.rpartition("/")[2]:
            return False
        try:
            return _file_kinds.begins_like_a_picture(name, read(name))
        except Exception:  # whatever it is, it is no picture that can be used
            return False

    return [n for n in files if not is_junk(n) and (_file_kinds.is_picture(n) or begins(n))]


def listed(
    files: Sequence[str],
    folders: Sequence[str],
    read: Callable[[str], bytes],
    layout: Layout,
    where: str,
    path: Path,
) -> Listing:
    """Sorts the files of a folder or archive.

    Args:
        files: All files, paths with slashes.
        folders: All folders.
        read: From a file to its content.
        layout: What the reader said.
        where: What messages call it.
        path: Where it lies.

    Raises:
        DataError: It cannot be used; the message says what to do.
    """
    images = pictures(files, read)
    masks = mask_files(images)
    images = sorted({*images} - {*masks}) if masks else images
    tables = [n for n in files if n.lower().endswith(_TABLES) and not is_junk(n)]
    if layout.labels:
        found = read_labels(
            [_opened(p, tables, read, path) for p in layout.labels], images, layout.label_column
        )
        return _settled(images, files, folders, layout, where, found)
    try:
        return _settled(images, files, folders, layout, where, None)
    except NoClassFoldersError as error:
        if layout.classes_from is not None:
            raise DataError(str(error)) from error
        lists = [n for n in files if n.lower().endswith(".txt") and n.count("/") < 2 and not is_junk(n)]
        usable, why = _usable(tables, images, read, layout)
        usable = usable or _usable(lists, images, read, layout)[0]
        if (
            len({image for classes in usable.values() for image in classes})
            == sum(map(len, usable.values()))
            > 0
        ):
            contents = [(name, read(name)) for name in usable]
            found = read_labels(contents, images, layout.label_column)
            return _settled(images, files, folders, layout, where, found)
        beside = [p.name for p in sorted(path.resolve().parent.glob("*.csv"))]
        sheets = [n for n in files if n.lower().endswith(_SHEETS) and not is_junk(n)]
        there = [*(tables or sheets), *(f"../{name}" for name in beside)]
        if not images and (packed := [n for n in files if is_archive(n) and not is_junk(n)]):
            raise DataError(f"{error} In it lie archives ({some(packed, 3)}): unpack them first.") from error
        if not there or not images:
            raise DataError(f"{error}{_of_a_detector(files, images)}") from error
        first = there[0] if tables or beside else re.sub(r"\.[^.]+$", ".csv", there[0])
        saved = "" if first == there[0] else "save it as CSV and "
        hint = f" {some(there)} {'lies' if len(there) == 1 else 'lie'} there: if the labels are in it, "
        hint += f"{saved}say --labels {first} (in Python: layout=data.Layout(labels={first!r}))."
        hint += f" ({why[0]})" if why and not usable else ""
        raise DataError(f"{error}{hint}") from error


def _usable(
    tables: Sequence[str], images: Sequence[str], read: Callable[[str], bytes], layout: Layout
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The CSV files that label images, with what they say, and what is wrong with the others."""
    usable, why = {}, []
    for name in tables[:50]:
        if (kind_of(name.rpartition("/")[2].rpartition(".")[0]) or ("",))[0] == "predict":
            continue  # as sample_submission.csv, whose labels are made up
        try:
            usable[name] = read_labels([(name, read(name))], images, layout.label_column).classes
        except DataError as error:
            why.append(str(error))
    return usable, why


def _of_a_detector(files: Sequence[str], images: Sequence[str]) -> str:
    """A sentence on files of boxes, where such lie beside the images."""
    stems = {name.rpartition("/")[2].rpartition(".")[0] for name in images}
    for name in files:
        stem, _, suffix = name.rpartition("/")[2].lower().rpartition(".")
        own = suffix in ("txt", "xml") and name.rpartition("/")[2].rpartition(".")[0] in stems
        if own or (suffix == "json" and re.search(r"coco|^instances_", stem)):
            return (
                f" {name} belongs to object detection, which finds things in a picture; this names one class "
                "a picture. Export the set for classification: one folder a class."
            )
    return ""


def _opened(given: str, tables: Sequence[str], read: Callable[[str], bytes], path: Path) -> tuple[str, bytes]:
    """Name and content of a CSV file that was named: from here, from beside the images, or among them."""
    for place in (Path(given).expanduser(), path.parent / given, path / given):
        if place.is_file():
            return place.name, place.read_bytes()
    wanted = Path(given).name.casefold()
    found = [n for n in tables if n.rpartition("/")[2].casefold() == wanted]
    if len(found) == 1:
        return found[0], read(found[0])
    raise DataError(f"there is no CSV file {given}; among the images lie {some(tables)}.")


def _settled(
    images: list[str],
    files: Sequence[str],
    folders: Sequence[str],
    layout: Layout,
    where: str,
    labels: Labels | None,
) -> Listing:
    made = plan(images, layout, where, labels)
    unread = [n for n in images if not _file_kinds.readable(n) and "." in n.rpartition("/")[2]]
    if unread:
        gone = set(unread)
        for classes in made.by_class.values():
            for name, names in classes.items():
                classes[name] = [n for n in names if n not in gone]
        made.unlabelled = [n for n in made.unlabelled if n not in gone]
        made.notes += _file_kinds.left_out(unread)
    _say_empty(made, images, folders)
    _say_unknown(made, files)
    if masks := mask_files(files):
        made.notes.append(f"{len(masks):,} pictures are called like masks of others: {masks[0]}. Not used.")
    if labels is not None:
        made.notes = [*labels.notes, *made.notes]
    class_names = settled(made, where, layout.skip_small)
    for classes in made.by_class.values():
        for names in classes.values():
            names.sort()
    return Listing(made.by_class, class_names, tuple(sorted(made.unlabelled)), tuple(made.notes))


def _say_unknown(made: Plan, files: Sequence[str]) -> None:
    """Notes files beside the pictures of a class whose names are neither those of pictures nor of notes."""
    used = {n for classes in made.by_class.values() for names in classes.values() for n in names}
    places = {n.rpartition("/")[0] for n in used} - {""}
    beside = [n for n in files if n not in used and n.rpartition("/")[0] in places and not is_junk(n)]
    found = Counter(n.rpartition(".")[2].lower() for n in beside if "." in n.rpartition("/")[2])
    odd = [(n, s) for s, n in found.items() if s not in _NOTES and not _file_kinds.is_picture(f"x.{s}")]
    if odd:
        kinds = joined(f"{n:,} .{suffix}" for n, suffix in sorted(odd, reverse=True)[:4])
        made.notes.append(f"Beside the images lie files not called like pictures: {kinds}. Not used.")


def _say_empty(made: Plan, images: list[str], folders: Sequence[str]) -> None:
    """Notes the topmost folders that hold no picture."""
    full = {"/".join(parts[:i]) for n in images for parts in [n.split("/")] for i in range(len(parts))}
    empty = [
        f"{f}/"
        for f in folders
        if f not in ("", ".") and not is_junk(f) and f not in full and f.rpartition("/")[0] in full
    ]
    if empty:
        made.notes.append(f"Without images, and left out: {some(empty)}.")
