"""The folder of the cache: what is in it, whether it is sound, and how to empty it."""

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from tlhelpers import cache
from tlhelpers.paths import cache_dir


@dataclass(frozen=True)
class Entry:
    """An array in the cache.

    Attributes:
        key: Its name, a digest of all that it depends on.
        path: The file with the array.
        n_bytes: Size on disk.
        made: Day on which it was computed.
        about: What it is, in words: backbone, images, engine.
    """

    key: str
    path: Path
    n_bytes: int
    made: str
    about: str


def entries() -> list[Entry]:
    """Returns the complete entries, the largest first."""
    found = []
    for note in cache.folder().glob("*.json"):
        array = note.with_suffix(".npy")
        try:
            meta = json.loads(note.read_text(encoding="utf-8"))
            found.append(Entry(note.stem, array, array.stat().st_size, meta["made"], meta["about"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # `verify` names it
    return sorted(found, key=lambda entry: -entry.n_bytes)


def verify() -> list[str]:
    """Reads everything; returns what is wrong, one line a file."""
    problems = []
    for note in sorted(cache.folder().glob("*.json")):
        logger = logging.getLogger("tlhelpers.cache")
        before, logger.disabled = logger.disabled, True
        try:
            if cache.load(note.stem) is None:
                problems.append(f"{note.stem}.npy is missing or damaged")
        finally:
            logger.disabled = before
    for array in sorted(cache.folder().glob("*.npy")):
        if not array.with_suffix(".json").is_file():
            problems.append(f"{array.name} has no note, so it is never read")
    return problems


def stopped() -> list[Path]:
    """Returns the folders of runs that were stopped, or are at work: the next run goes on behind them."""
    return sorted(cache.folder().glob("*.parts"))


def clear() -> int:
    """Removes all arrays, exported graphs and parts. Returns the number of bytes that became free."""
    freed = 0
    for place in (cache.folder(), cache_dir() / "onnx"):
        freed += sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        shutil.rmtree(place, ignore_errors=True)
    return freed
