"""Labels of images from CSV files: which column names the images, and which one their classes."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tlhelpers.data._errors import DataError
from tlhelpers.data._layout import some
from tlhelpers.data._split_words import kind_of

__all__ = ["Labels", "read_column", "read_labels"]

#: Names of a column of labels, the likeliest first.
_LABEL_NAMES = (
    *("label", "class", "category", "target", "labels", "class_name", "classname", "label_name", "species"),
    *("breed", "diagnosis", "dx", "variety", "type", "tag", "tags", "y", "class_id", "category_id"),
    *("klasse", "etikett", "kategorie", "clase", "etiqueta", "classe", "类别", "标签"),
)
_NO_LABEL = ("", "nan", "n/a", "na", "null", "<na>")
_SPLIT_NAMES = ("split", "subset", "set", "partition", "usage", "dataset")
_MANY = (
    20  # whole numbers with more values than that are a quantity, unless the column has a name for classes
)


@dataclass(frozen=True)
class Labels:
    """What CSV files say.

    Attributes:
        classes: Image -> class.
        splits: Image -> "train", "val" or "test", where a column says it.
        notes: What was taken for what, one sentence each.
    """

    classes: dict[str, str]
    splits: dict[str, str]
    notes: list[str]


@dataclass(frozen=True)
class _Table:
    name: str
    header: list[str]
    rows: list[list[str]]
    images: list[str | None]  # that each row names
    column: int  # of the file names

    def values(self, column: int) -> list[str]:
        return [row[column].strip() if column < len(row) else "" for row in self.rows]


def read_labels(tables: Sequence[tuple[str, bytes]], images: Sequence[str], column: str | None) -> Labels:
    """Reads the labels of images.

    Args:
        tables: Name and content of CSV files; the rows of all are taken together.
        images: Paths inside the data set.
        column: Name of the column of labels; None finds it.

    Raises:
        DataError: A table cannot be used; the message says why.
    """
    index = _index(images)
    classes: dict[str, str] = {}
    splits: dict[str, str] = {}
    notes: list[str] = []
    for name, content in tables:
        table = _table(name, content, index)
        what, values, named = _label_values(table, column)
        _check(table, what, values, named, column is not None)
        n_lost = sum(image is None for image in table.images)
        for image, value in zip(table.images, values, strict=True):
            if (
                image is not None
                and value.casefold() not in _NO_LABEL
                and classes.setdefault(image, value) != value
            ):
                raise DataError(
                    f"{name} gives {image} two labels, {classes[image]} and {value}. A classifier names one "
                    "class an image: keep one row for each."
                )
        if len(tables) > 1 and (kind := kind_of(name.rpartition("/")[2].rpartition(".")[0])):  # as test.csv
            splits |= {image: kind[0] for image in table.images if image}
        for i, title in enumerate(table.header):
            kinds = [kind_of(value) for value in table.values(i)]
            if title.casefold() in _SPLIT_NAMES and all(kinds):
                splits |= {im: k[0] for im, k in zip(table.images, kinds, strict=True) if im and k}
            elif title.casefold() in _SPLIT_NAMES and any(kinds):
                odd = next(v for v, kind in zip(table.values(i), kinds, strict=True) if not kind)
                notes.append(f"Column {title} of {name} is not used: {odd!r} in it is no split.")
        labelled = len({*table.images} & classes.keys())
        notes.append(f"Labels come from {name}, {what}: {labelled:,} images.")
        if n_lost:
            lost = [row[table.column] for row, im in zip(table.rows, table.images, strict=True) if im is None]
            notes.append(f"{n_lost:,} rows of {name} name images that are not here: {some(lost, 3)}.")
    if len(set(classes.values())) < 2:
        raise DataError(f"{tables[0][0]} holds fewer than two classes: {some(set(classes.values()))}.")
    return Labels(classes, splits, notes)


def read_column(name: str, content: bytes, images: Sequence[str]) -> dict[str, str]:
    """Reads the first column that is not that of the file names: image -> value."""
    table = _table(name, content, _index(images))
    others = [i for i in range(len(table.header)) if i != table.column]
    if not others:
        raise DataError(f"{name} has one column. It needs two: file name and group.")
    values = table.values(others[0])
    return {image: v for image, v in zip(table.images, values, strict=True) if image and v}


def _key(text: str) -> str:
    return text.strip().replace("\\", "/").casefold().removeprefix("./").strip("/")


def _index(images: Iterable[str]) -> dict[str, str | None]:
    """All that a row may call an image; None where two are called so."""
    found: dict[str, str | None] = {}
    for image in images:
        path = _key(image)
        stem = re.sub(r"\.[^./]+$", "", path)
        parts = {path.split("/", i)[-1] for i in range(path.count("/") + 1)}
        parts |= {stem.split("/", i)[-1] for i in range(stem.count("/") + 1)}
        last = stem.rpartition("/")[2]
        parts |= {str(int(last))} if last.isdecimal() else set()
        for key in parts:
            found[key] = image if key not in found else None
    return found


def _match(index: dict[str, str | None], value: str) -> str | None:
    parts = _key(value).split("/")
    for i in range(len(parts)):
        found = index.get("/".join(parts[i:]), "")
        if found != "":
            return found
    stem = re.sub(r"\.[^.]+$", "", parts[-1])  # of a picture that was saved in another format since
    return index.get(str(int(stem))) if stem.isdecimal() else index.get(stem)


def _is_twice(index: dict[str, str | None], value: str) -> bool:
    return bool(value.strip()) and index.get(_key(value), "") is None


def _table(name: str, content: bytes, index: dict[str, str | None]) -> _Table:
    rows = _rows(name, content)
    width = max(map(len, rows))
    found = [
        [_match(index, row[i]) if i < len(row) and row[i].strip() else None for row in rows]
        for i in range(width)
    ]
    hits = [sum(image is not None for image in column) for column in found]
    column = max(range(width), key=hits.__getitem__)
    n_images = len({*index.values()} - {None})
    if hits[column] < 0.2 * min(len(rows) - 1, n_images) or not hits[column]:
        twice = next((row[i] for row in rows[1:] for i in range(len(row)) if _is_twice(index, row[i])), None)
        if twice is not None:
            raise DataError(
                f"{name}: {twice} lies in several folders, so that nobody can tell which of them is meant. "
                "Write the names with their folders, such as cat/1.jpg."
            )
        seen = next(iter(index), "missing")
        raise DataError(
            f"{name} has no column with the names of the images: the best one, "
            f"{rows[0][column] if column < len(rows[0]) else column + 1}, fits {hits[column]:,} of "
            f"{len(rows) - 1:,} rows. One image is {seen}."
        )
    images = found[column]
    if images[0] is None:
        return _Table(name, [h.strip() for h in rows[0]], rows[1:], images[1:], column)
    return _Table(name, [f"column {i + 1}" for i in range(width)], rows, images, column)


def _rows(name: str, content: bytes) -> list[list[str]]:
    if content[:2] == b"PK" or content[:4] == b"\xd0\xcf\x11\xe0":
        raise DataError(f"{name} is a spreadsheet. Save it as CSV.")
    for encoding in ("utf-16",) if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "latin-1"):
        try:
            text = content.decode(encoding)
            break
        except UnicodeDecodeError:
            continue
    else:
        raise DataError(f"{name} is no text. Save it as CSV in UTF-8.")
    first = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t|", key=first.count)
    if not first.count(delimiter):
        delimiter = " "
    lines = io.StringIO(text) if delimiter != " " else map(str.strip, text.splitlines())
    rows = [row for row in csv.reader(lines, delimiter=delimiter) if any(map(str.strip, row))]
    if len(rows) < 2 or max(map(len, rows)) < 2:
        raise DataError(f"{name} has no two columns with rows. Expected: file name, label.")
    return rows


def _label_values(table: _Table, column: str | None) -> tuple[str, list[str], bool]:
    """What holds the labels, in words; the label of each row; and whether its name says that it does."""
    others = [i for i in range(len(table.header)) if i != table.column]
    by_name = {table.header[i].casefold(): i for i in others}
    if column is not None:
        if column.casefold() not in by_name:
            raise DataError(f"{table.name} has no column {column}. It has {_titles(table, others)}.")
        return f"column {column}", table.values(by_name[column.casefold()]), True
    known = [n for n in _LABEL_NAMES if n in by_name]
    if known or len(others) == 1:
        i = by_name[known[0]] if known else others[0]
        for n in known[1:]:  # names rather than the numbers that stand for them
            if all(map(_is_number, table.values(i))) and not any(map(_is_number, table.values(by_name[n]))):
                i = by_name[n]
        title = table.header[i]
        return title if title.startswith("column ") else f"column {title}", table.values(i), bool(known)
    numbers = {i: table.values(i) for i in others}
    binary = [i for i in others if all(value in ("0", "1", "0.0", "1.0") for value in numbers[i])]
    counted = [i for i in others if i not in binary and all(map(_is_number, numbers[i]))]
    if len(binary) > 1 and len(binary) + sum(len({*numbers[i]}) == len(table.rows) for i in counted) == len(
        others
    ):
        ones = [[i for i in binary if numbers[i][row][0] == "1"] for row in range(len(table.rows))]
        several = next((row for row, found in enumerate(ones) if len(found) != 1), None)
        if several is not None:
            names = some(table.header[i] for i in ones[several])
            raise DataError(
                f"{table.name} gives {table.rows[several][table.column]} {len(ones[several])} labels "
                f"({names}). {_SEVERAL}"
            )
        return "one column a class", [table.header[found[0]] for found in ones], True
    raise DataError(
        f"{table.name}: which column holds the labels? Say --label-column with one of "
        f"{_titles(table, others)} (in Python: layout=data.Layout(label_column=...))."
    )


def _is_number(value: str) -> bool:
    return re.fullmatch(r"[-+]?\d+([.,]\d+)?", value) is not None


_SEVERAL = (
    "A classifier names one class an image. Keep one label, or make each combination a class of its own."
)


def _titles(table: _Table, columns: Iterable[int]) -> str:
    return some((table.header[i] for i in columns), 12)


def _check(table: _Table, what: str, values: list[str], named: bool, given: bool) -> None:
    """Refuses several labels an image, and numbers that are no classes."""
    there = [value for value in values if value.casefold() not in _NO_LABEL]
    counts = Counter(there)
    plural = not given and re.search(r"\b(labels|tags|classes|categories)$", what.casefold())
    words = Counter(word for value in counts for word in {*value.split()})
    for value in counts:
        parts = [p for p in re.split(r"[|;,\s]+", value.strip("[]{}()")) if p]
        listed = "|" in value or ";" in value or (value[:1] in "[{(" and "," in value)
        combined = plural and any(words[p] > 1 for p in parts)
        if len(parts) > 1 and (all(p in counts for p in parts) or listed or combined):
            raise DataError(f"{table.name}, {what}: {value!r} holds several labels. {_SEVERAL}")
    try:
        numbers = {float(value.replace(",", ".")) for value in counts}
    except ValueError:
        return
    if not numbers:
        raise DataError(f"{table.name}, {what}: there is no label in it.")
    whole = all(number.is_integer() for number in numbers)
    headless = what.startswith("column 2")
    if whole and ((headless and len(numbers) <= _MANY) or (named and len(there) >= 3 * len(numbers))):
        return
    if numbers == {0, 1}:
        return
    raise DataError(
        f"{table.name}, {what}: its values are numbers ({some((f'{n:g}' for n in sorted(numbers)), 3)}), "
        "which look like a quantity and not like classes. This makes classifiers; put the numbers into a few "
        "ranges and name these" + (", or, if they are classes, say so with --label-column." if whole else ".")
    )
