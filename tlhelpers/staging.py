"""Several files that belong together, written beside and put in their place in one step."""

import ctypes
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tlhelpers.paths import clear_leftovers

__all__ = ["recover", "staged"]


@contextmanager
def staged(files: dict[str, Path], out: Path) -> Iterator[dict[str, Path]]:
    """Gives paths to write to; when the block ends well, the files go where they belong.

    Where ``out`` is a folder, the new one replaces it in one step, so that a run that is killed leaves the
    old report or the new one. Other files in the folder stay. Where it is the name of a file, or a folder
    beside which nothing can be written, the files are put in their place one after another, the report last.

    Args:
        files: Key -> where a file belongs; the key of the report is ``"report"``.
        out: The folder, or the name of the report that ends in ``.html``.

    Raises:
        OSError: The place cannot be written.

    Example:
        >>> from pathlib import Path
        >>> from tlhelpers import staging
        >>> with staging.staged({"report": Path("new/report.html")}, Path("new")) as paths:
        ...     n = paths["report"].write_text("done")
        >>> Path("new/report.html").read_text()
        'done'
    """
    target = Path(os.path.realpath(out))
    folder, whole = _made(target, out)
    try:
        paths = {key: folder / path.name for key, path in files.items()}
        yield paths
        if not (whole and _replaced(folder, target, {path.name for path in files.values()})):
            files["report"].parent.mkdir(exist_ok=True)
            for key in sorted(paths, key=lambda key: key == "report"):
                if paths[key].is_file():
                    os.replace(paths[key], files[key])
                else:
                    files[key].unlink(missing_ok=True)  # of an earlier report
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def recover(out: Path) -> None:
    """Puts a report back that a killed run had moved away, where a folder cannot be exchanged in one step.

    Example:
        >>> from pathlib import Path
        >>> from tlhelpers import staging
        >>> Path(".new-1.old").mkdir()
        >>> staging.recover(Path("new"))
        >>> Path("new").is_dir()
        True
    """
    target = Path(os.path.realpath(out))
    for old in sorted(target.parent.glob(f".{target.name[:60]}-*.old")):
        with suppress(OSError):
            if target.exists():
                shutil.rmtree(old)
            else:
                os.rename(old, target)


def _made(target: Path, out: Path) -> tuple[Path, bool]:
    """Returns a new folder to write to, and whether it lies beside ``out``, so that it can take its place."""
    beside = target.parent
    places = [beside] if out.suffix.lower() == ".html" or not target.is_dir() else [beside, target]
    for place in places:
        folder = place / f".{target.name[:60]}-{os.getpid()}-{uuid.uuid4().hex}.tmp"
        try:
            place.mkdir(parents=True, exist_ok=True)
            clear_leftovers(place)
            folder.mkdir()
        except OSError as error:
            if place == places[-1]:
                said = f"{place} cannot be written ({error.strerror}). Choose another --out."
                raise OSError(said) from error
        else:
            break
    return folder, place == beside and out.suffix.lower() != ".html"


def _replaced(folder: Path, target: Path, ours: set[str]) -> bool:
    """Puts a folder in the place of another; False where the system does not let it."""
    old = folder.with_suffix(".old")
    try:
        if target.is_dir():
            shutil.copymode(target, folder)
            for path in target.iterdir():
                if path.name not in ours:
                    _linked(path, folder / path.name)
        if not target.exists() or not any(target.iterdir()):
            with suppress(FileNotFoundError):
                target.rmdir()
            os.rename(folder, target)
        elif not _exchanged(folder, target):
            os.rename(target, old)
            try:
                os.rename(folder, target)
            except OSError:
                os.rename(old, target)
                raise
    except OSError:  # a disk of its own is mounted there
        return False
    shutil.rmtree(old, ignore_errors=True)
    return True


def _exchanged(one: Path, other: Path) -> bool:
    """Exchanges two folders in one step, where the system and the disk can do that."""
    names = os.fsencode(one), os.fsencode(other)
    try:
        if sys.platform == "linux":
            here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
            return ctypes.CDLL(None).renameat2(here, names[0], here, names[1], exchange) == 0
        if sys.platform == "darwin":
            return ctypes.CDLL(None).renamex_np(*names, 2) == 0  # RENAME_SWAP
    except AttributeError:  # of an older system
        pass
    return False


def _linked(source: Path, to: Path) -> None:
    """The reader's own files lie in both folders until the old one goes."""

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other, follow_symlinks=False)
        except OSError:
            shutil.copy2(one, other, follow_symlinks=False)

    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, to, symlinks=True, copy_function=link)
    else:
        link(str(source), str(to))
