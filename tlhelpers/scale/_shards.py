"""A folder of shards: whose it is, what is there and whole, and how it is read."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tlhelpers import checks
from tlhelpers.data import DataError
from tlhelpers.paths import atomic_path
from tlhelpers.scale._worker import KEY, arrow

_MANIFEST = "manifest.json"
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Shards:
    """Features of many pictures, in Parquet files. Returned by `open_shards`.

    Each file has the columns ``index`` (the picture's position), ``path``, ``label``, ``features`` and
    ``error``. A picture that could not be read has an error and no features.

    Attributes:
        folder: Where they lie.
        manifest: What they were made of, as ``manifest.json`` has it.
    """

    folder: Path
    manifest: dict[str, Any]

    def __len__(self) -> int:
        """Number of rows, those without features among them."""
        return self.manifest["pictures"]

    @cached_property
    def files(self) -> list[Path]:
        """The files, in order."""
        n = -(-len(self) // self.manifest["shard size"])
        return [self.folder / f"part-{k:05d}-of-{n:05d}.parquet" for k in range(n)]

    @property
    def missing(self) -> list[int]:
        """Numbers of the files that are not there, not whole, or not of this manifest."""
        key = self.manifest["key"]
        return [k for k, path in enumerate(self.files) if _key_of(path) != f"{key} {path.name}"]

    @cached_property
    def errors(self) -> dict[str, str]:
        """Path of each picture without features -> why it has none."""
        columns = self._columns(["path", "error"], arrow().compute.field("error").is_valid())
        return dict(zip(*(column.to_pylist() for column in columns), strict=True))

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Labels of pictures that have features, in order of number if all are numbers, else of alphabet."""
        (labels,) = self._columns(["label"], arrow().compute.field("error").is_null())
        names = {*labels.unique().to_pylist()} - {None}
        return tuple(sorted(names, key=int if all(map(str.isdecimal, names)) else None))

    def batches(self, rows: int = 1024) -> Iterator[Batch]:
        """Yields features float32 ``(m, d)``, labels ``(m,)`` and positions ``(m,)``, of few rows at a time.

        Args:
            rows: So many at most. Those without features are left out.

        Raises:
            DataError: A file is damaged.
        """
        checks.whole(rows, "rows")
        for path in self.files:
            try:
                with arrow().parquet.ParquetFile(path, page_checksum_verification=True) as file:
                    for part in file.iter_batches(rows, columns=["index", "label", "features"]):
                        part = part.filter(part["features"].is_valid())
                        if len(part):
                            f = np.array(part["features"].flatten()).reshape(len(part), -1)
                            yield f, np.array(part["label"].to_pylist(), object), np.array(part["index"])
            except (arrow().ArrowException, OSError) as error:
                said = "Delete it and run extract_files again, which makes it anew."
                raise DataError(f"{path} is damaged ({error}). {said}") from error

    def read(self) -> Batch:
        """Returns all batches as one."""
        none = (np.zeros((0, self.manifest["features"]), np.float32), np.zeros(0, object), np.zeros(0, int))
        f, labels, index = map(np.concatenate, zip(none, *self.batches(), strict=True))
        return f, labels, index

    def _columns(self, names: list[str], where: Any) -> list[Any]:
        files = list(map(str, self.files))
        return arrow().parquet.read_table(files, columns=names, filters=where, partitioning=None).columns


def _key_of(path: Path) -> str:
    try:
        found = arrow().parquet.read_metadata(path)  # from the file's end: one that was cut has none
    except (OSError, arrow().ArrowException):
        return ""
    return (found.metadata or {}).get(KEY, b"").decode()


def open_shards(out: str | os.PathLike[str]) -> Shards:
    """Opens what `extract_files` wrote, and looks whether all of it is there.

    Args:
        out: The folder.

    Raises:
        DataError: There is no such folder, or shards are missing, damaged or of something else.
        ImportError: pyarrow is not installed.

    Example:
        >>> from tlhelpers import scale
        >>> scale.open_shards("nowhere")
        Traceback (most recent call last):
        tlhelpers.data._errors.DataError: nowhere has no manifest.json: extract_files has not written it.
    """
    folder = Path(out).expanduser()
    manifest = _manifest(folder)
    if manifest is None:
        raise DataError(f"{folder} has no {_MANIFEST}: extract_files has not written it.")
    found = Shards(folder, manifest)
    if missing := [found.files[k].name for k in found.missing]:
        names = ", ".join(missing[:8]) + (", ..." if len(missing) > 8 else "")
        said = f"{folder}: {len(missing):,} of {len(found.files):,} shards are missing or not whole"
        raise DataError(f"{said}: {names}. Run extract_files again: it makes these, and no others.")
    return found


def claimed(folder: Path, manifest: dict[str, Any]) -> Shards:
    """Returns the shards of a folder, whether they are there or not; writes the manifest if there is none.

    Raises:
        DataError: The folder holds something else.
    """
    there = _manifest(folder)
    if there is None and any(folder.glob("[!.]*.parquet")):
        raise DataError(f"{folder} holds Parquet files and no {_MANIFEST}. Choose another folder.")
    if there is None:
        with atomic_path(folder / _MANIFEST) as part:
            part.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    elif there != manifest:
        differ = [k for k, v in manifest.items() if there.get(k) != v and k != "key"]
        lines = [f"  {k}: {there.get(k)} there, {manifest[k]} asked" for k in differ]
        said = f"{folder} holds shards of something else. Choose another folder, or delete this one."
        raise DataError("\n".join([said, *lines]))
    return Shards(folder, manifest)


def _manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / _MANIFEST
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}). Choose another folder, or delete this one."
        ) from error
