"""Downloads that other packages make: none waits for ever."""

import contextlib
import socket
from collections.abc import Iterator

__all__ = ["SECONDS", "no_endless_waiting"]

SECONDS = 30.0  # between two signs of life of the other side, not for the whole download


@contextlib.contextmanager
def no_endless_waiting(seconds: float = SECONDS) -> Iterator[None]:
    """Gives Keras' downloads the timeout that they lack: behind a silent firewall they would hang.

    Args:
        seconds: How long nothing may arrive.

    Example:
        >>> import socket
        >>> from tlhelpers.downloads import no_endless_waiting
        >>> with no_endless_waiting(5):
        ...     socket.getdefaulttimeout()
        5.0
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
