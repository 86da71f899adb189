"""Errors of the data modules; use them as `data.DataError` and `data.DataUnavailableError`."""

__all__ = ["DataError", "DataUnavailableError"]


class DataError(ValueError):
    """Images or folders that cannot be used; the message names the file or folder. Raised by `load`."""


class DataUnavailableError(DataError):
    """A named data set cannot be had here; the message says what was tried and what to do.

    Raised by `load`.
    """


class NoClassFoldersError(DataError):
    """Folders do not tell the classes of the images: a CSV file may. It leaves here as a `DataError`."""


def together(messages: list[str], where: str) -> str:
    """One message of several, each without what they have in common."""
    if len(messages) == 1:
        return messages[0]
    head, tail = f"{where}: cannot read the image ", " Replace the file or remove it."
    lines = [m.removeprefix(head).removesuffix(tail) for m in messages]
    more = [f"  - and {len(lines) - 30:,} more"] if len(lines) > 30 else []
    said = "\n".join([f"  - {line}" for line in lines[:30]] + more)
    return f"{where}: cannot read {len(lines):,} images. Replace the files or remove them.\n{said}"
