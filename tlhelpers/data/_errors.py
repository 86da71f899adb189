"""Errors of the data modules; use them as `data.DataError` and `data.DataUnavailableError`."""

__all__ = ["DataError", "DataUnavailableError"]


class DataError(ValueError):
    """Images or folders that cannot be used; the message names the file or folder. Raised by `load`."""


class DataUnavailableError(DataError):
    """A named data set cannot be had here; the message says what was tried and what to do.

    Raised by `load`.
    """
