"""What to say where a part of the package is used without the extra that it needs."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["MissingExtraError", "extra"]


class MissingExtraError(ImportError):
    """A package is not installed that comes with an extra of this one; the message has the command.

    Raised by `extra`.
    """


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Surrounds imports of what an extra brings.

    Args:
        name: Of the extra, as in ``pip install "tlhelpers[plots]"``.

    Raises:
        MissingExtraError: If one of the imports finds nothing. A package that is there but cannot be loaded
            has another cause, and keeps its own error.

    Example:
        >>> from tlhelpers.extras import extra
        >>> with extra("plots"):
        ...     import matplotlib.pyplot as plt
    """
    try:
        yield
    except ModuleNotFoundError as error:
        message = f'{error.name} is not installed. Run: pip install "tlhelpers[{name}]"'
        raise MissingExtraError(message, name=error.name) from error
