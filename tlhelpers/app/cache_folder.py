"""The folder of the cache: what is in it, whether it is sound, and how to empty it."""

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from tlhelpers import cache
from tlhelpers.paths import cache_dir, leftovers


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


def left_behind() -> tuple[list[Path], int]:
    """Returns what killed processes left in the cache and nothing reads, and its bytes.

    What is a day old goes when something is written to its folder; `clear` removes all of it.
    """
    places = [cache_dir(), *(path for path in cache_dir().rglob("*") if path.is_dir())]
    found = [path for place in places for path in leftovers(place, age=0)]
    return found, sum(path.stat().st_size for path in found if path.is_file())


def clear() -> int:
    """Removes all arrays, graphs, parts and leftovers. Returns the number of bytes that became free."""
    found, freed = left_behind()
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for place in (cache.folder(), cache_dir() / "onnx"):
        freed += sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        shutil.rmtree(place, ignore_errors=True)
    return freed
