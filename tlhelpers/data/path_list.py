"""Pictures by their paths, with labels: from a folder, a CSV file or a list. No picture is opened."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlhelpers.data._errors import DataError
from tlhelpers.data._tar import is_archive
from tlhelpers.data.pictures import Pictures

__all__ = ["PathList", "listed"]


@dataclass(frozen=True)
class PathList:
    """Pictures in their order. Returned by `listed`.

    Attributes:
        root: The folder that paths start from, absolute.
        paths: As they were given: below the folder, in the CSV file, in the list.
        labels: One a picture; None where it has none.
        sizes: Of the files in bytes; -1 where there is none, such as behind a broken link.
    """

    root: Path
    paths: list[str]
    labels: list[str | None]
    sizes: list[int]


def listed(
    files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], labels: Iterable[Any] | None = None
) -> PathList:
    """Lists pictures.

    Args:
        files: A folder: all pictures below it, sorted. Or a CSV file with a column ``path``, from where the
            file lies, and perhaps a column ``label``. Or paths.
        labels: One a picture, kept as text. By default those of the CSV file; of a folder, the name of the
            folder in which a picture lies, and none for those at its top.

    Raises:
        DataError: There are no pictures, or not as many labels; a path leads to no file, or to an archive.
            The message says all that is wrong.

    Example:
        >>> from pathlib import Path
        >>> from tlhelpers.data import path_list
        >>> for name in ("cats/1.png", "dogs/2.png", "3.png"):
        ...     Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        ...     n = Path("photos", name).write_bytes(b"")
        >>> found = path_list.listed("photos")
        >>> found.paths, found.labels
        (['3.png', 'cats/1.png', 'dogs/2.png'], [None, 'cats', 'dogs'])
    """
    is_place = isinstance(files, str | os.PathLike)
    given = Path(os.path.abspath(Path(files).expanduser())) if is_place else None  # type: ignore[arg-type]
    root, paths, own = _read(files, given)
    if paths and all(map(os.path.isabs, paths)):
        root = Path(root.anchor)  # then it does not matter from where they were listed
    own = own if labels is None else [None if x is None or x != x else str(x) for x in labels]
    sizes = [p.stat().st_size if p.is_file() else -1 for p in (root / path for path in paths)]
    missing = [path for path, size in zip(paths, sizes, strict=True) if size < 0 and root != given]
    packed = [path for path in paths if is_archive(path)]
    problems = []
    if not paths:
        problems.append(f"There are no pictures in {given or 'an empty list'}.")
    if len(own) != len(paths):
        problems.append(f"There are {len(own):,} labels and {len(paths):,} pictures. Pass one label each.")
    if missing:
        problems.append(f"{len(missing):,} of {len(paths):,} paths are no files, such as {missing[0]!r}.")
    if packed:
        problems.append(f"Archives are not read here, such as {packed[0]}. Unpack them, and pass the folder.")
    if problems:
        raise DataError("\n".join(problems))
    return PathList(root, paths, own, sizes)


def _read(files: Any, given: Path | None) -> tuple[Path, list[str], list[str | None]]:
    """Returns the folder that paths start from, the paths, and the labels that come with them."""
    if given is None:
        paths = [os.fspath(path) for path in files]
        return Path.cwd(), paths, [None] * len(paths)
    if given.is_dir():
        with Pictures(given) as found:
            for note in found.notes:
                warnings.warn(note, stacklevel=4)
            return given, found.names, [os.path.basename(os.path.dirname(n)) or None for n in found.names]
    if given.suffix.lower() != ".csv" or not given.is_file():
        raise DataError(f"{given} is neither a folder nor a CSV file. A single picture goes into a list.")
    with open(given, newline="", encoding="utf-8-sig") as stream:
        table = csv.DictReader(stream)
        if "path" not in (table.fieldnames or ()):
            raise DataError(
                f"{given} has no column path; its columns are: {', '.join(table.fieldnames or ())}."
            )
        rows = list(table)
    return given.parent, [row["path"] for row in rows], [row.get("label") or None for row in rows]
