"""Runs one submission, inside the sandbox: first its cells, then the grader's probes.

It gets cells on its standard input and answers on its standard output, as `wire` says. After the last cell
it says so, and only then the grader sends probes: functions that call what the student wrote, on inputs, and
return numbers. What is right, how it is checked and how many points it gives never come here.
"""

import base64
import binascii
import contextlib
import io
import os
import signal
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

import numpy as np

from . import wire

MAX_TEXT = 20_000  # characters of printed text that are kept of a cell
MAX_IMAGES = 2 << 20  # bytes of pictures that are kept of a cell


class TooLong(BaseException):
    """A cell or a probe has used up its time. No Exception: ``except Exception`` lets it through."""


class Capped(io.TextIOBase):
    """Keeps the beginning of what is printed, and forgets the rest."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.size < MAX_TEXT:
            self.parts.append(text[: MAX_TEXT - self.size])
            if self.size + len(text) > MAX_TEXT:
                self.parts.append("\n[the rest of the output was left out]")
        self.size += len(text)
        return len(text)


def limit(memory: int, file_size: int) -> None:
    """Limits what this process may use, where the system can do that."""
    try:
        import resource
    except ImportError:  # Windows
        return
    # Data, not address space: TensorFlow reserves addresses that it never uses.
    for kind, value in (
        *(("RLIMIT_DATA", memory), ("RLIMIT_FSIZE", file_size)),
        *(("RLIMIT_CORE", 0), ("RLIMIT_NOFILE", 256)),
    ):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(getattr(resource, kind), (value, value))


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Interrupts what runs in here after so long, and again every second in case it is ignored."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def make_shell() -> Any:
    """Returns an IPython without history, colours or files of its own."""
    from IPython.core.displayhook import CapturingDisplayHook
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Shell(InteractiveShell):
        def enable_gui(self, gui: Any = None) -> None:
            pass

        def showtraceback(self, *args: Any, **kwargs: Any) -> None:
            pass

        def showsyntaxerror(self, *args: Any, **kwargs: Any) -> None:
            pass

    config = Config()
    config.HistoryManager.enabled = False
    shell = Shell.instance(config=config, colors="NoColor")
    shell.display_pub = CapturingDisplayPublisher()
    shell.display_trap.hook = CapturingDisplayHook(shell=shell, outputs=shell.display_pub.outputs)
    return shell


def place(error: BaseException | None) -> tuple[int, int]:
    """Returns the cell and the line of it where an error came from; -1 where it is in no cell."""
    found = (-1, -1)
    if isinstance(error, SyntaxError) and str(error.filename).startswith("<cell "):
        return int(str(error.filename)[6:-1]), error.lineno or -1
    for frame, line in traceback.walk_tb(error.__traceback__ if error else None):
        name = frame.f_code.co_filename
        if name.startswith("<cell "):
            found = int(name[6:-1]), line
    return found


def described(error: BaseException | None) -> dict[str, Any] | None:
    """Returns an error as plain data."""
    if error is None:
        return None
    cell, line = place(error)
    name = "TooLong" if isinstance(error, TooLong) else type(error).__name__
    try:
        text = str(error)
    except Exception:
        text = ""
    return {"type": name[:80], "text": text[:2000], "cell": cell, "line": line}


def run_cell(shell: Any, index: int, source: str, seconds: float) -> bytes:
    """Runs one cell and returns the frame of what it printed, showed and raised."""
    printed = Capped()
    shell.display_pub.outputs.clear()
    shell.compile.get_code_name = lambda *args: f"<cell {index}>"
    error: BaseException | None = None
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), within(seconds):
            result = shell.run_cell(source, store_history=False)
        error = result.error_before_exec or result.error_in_exec
    except BaseException as other:
        error = other
    images: dict[str, bytes] = {}
    for shown in list(shell.display_pub.outputs):
        data = shown.get("data", {}) if isinstance(shown, dict) else getattr(shown, "data", None) or {}
        png = data.get("image/png")
        with contextlib.suppress(binascii.Error, ValueError):
            png = base64.b64decode(png) if isinstance(png, str) else png
        if (
            isinstance(png, bytes)
            and sum(map(len, images.values())) + len(png) <= MAX_IMAGES
            and len(images) < 8
        ):
            images[str(len(images))] = png
        else:
            printed.write(str(data.get("text/plain", "")) + "\n")
    meta = {"event": "cell", "cell": index, "text": "".join(printed.parts), "error": described(error)}
    return wire.pack(meta, {name: np.frombuffer(png, "uint8") for name, png in images.items()})


def run_probe(names: dict[str, Any], source: str, given: dict[str, Any], seconds: float) -> bytes:
    """Runs one probe and returns the frame of what it found."""
    space: dict[str, Any] = {}
    try:
        exec(compile(source, "<probe>", "exec"), space)
        with contextlib.redirect_stdout(Capped()), contextlib.redirect_stderr(Capped()), within(seconds):
            texts: dict[str, Any] = {}
            arrays: dict[str, Any] = {}
            for name, value in space["probe"](names, given).items():
                if isinstance(value, str | dict):
                    texts[name] = value
                    continue
                try:
                    wire.pack({}, {name: value})
                    arrays[name] = value
                except Exception:  # no numbers, or far too many: the other answers count all the same
                    texts[name] = None
            return wire.pack({"event": "found", "texts": texts}, arrays)
    except BaseException as error:
        return wire.pack({"event": "found", "error": described(error)})


def main() -> None:
    """Talks with the grader until it closes the line."""
    inbox, outbox = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)

    def send(frame: bytes) -> None:
        wire.write(outbox, frame)

    job = wire.read(inbox)
    if job is None:
        return
    settings = job[0]
    limit(settings["memory"], settings["file_size"])
    shell = make_shell()
    for index, source in settings["cells"]:
        send(wire.pack({"event": "begin", "cell": index}))
        send(run_cell(shell, index, source, settings["cell_seconds"]))
        if (
            wire.read(inbox) is None
        ):  # the grader looks at what this cell left behind before the next one runs
            return
    send(wire.pack({"event": "ran"}))
    while (question := wire.read(inbox)) is not None:
        meta, given = question
        inputs = {**meta["given"], **{name: array.copy() for name, array in given.items()}}
        send(run_probe(shell.user_ns, meta["source"], inputs, settings["probe_seconds"]))
    os._exit(0)  # a thread that the submission started does not keep the process


if __name__ == "__main__":
    main()
