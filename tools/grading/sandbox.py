"""Where a submission runs: a process of its own, with limits, that talks with the grader through two pipes.

`walls` says what it can see. Where bubblewrap is missing or does not work, nothing is graded unless that is
asked for; memory, time, processes and files are watched all the same.
"""

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tools.grading import walls
from tools.grading.box import wire
from tools.grading.course import ROOT

SHARED = 512 << 20  # bytes that libraries take and that the limit on data does not count
SEND_SECONDS = 30.0  # a submission listens when it is its turn to
MAX_PROCESSES = 48  # of one submission
SPARE = 0.05  # share of the machine's memory that must stay free
CROWDED = "the machine was running out of memory"


@dataclass(frozen=True)
class Limits:
    """What a submission may use.

    Attributes:
        cell_seconds: Of one cell.
        seconds: Of the notebook and the probes together.
        probe_seconds: Of one probe.
        memory: Bytes.
        file_size: Bytes of one file that it writes.
        folder_size: Bytes of all files in its folder; `/tmp` and `/dev/shm` have a quarter of that each.
    """

    cell_seconds: float = 120.0
    seconds: float = 600.0
    probe_seconds: float = 60.0
    memory: int = 4 << 30
    file_size: int = 100 << 20
    folder_size: int = 256 << 20


class Ended(Exception):
    """The process of a submission is gone; the message says why."""


class Box:
    """A running submission."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        limits: Limits,
        end: float | None = None,
        folder: Path | None = None,
    ) -> None:
        self._process, self._limits, self._folder = process, limits, folder
        self._frames = wire.Frames()
        self._error = ""
        self._ready: list[tuple[Any, dict[str, np.ndarray]]] = []
        self._deadline = time.monotonic() + limits.seconds if end is None else end
        assert process.stdout is not None
        assert process.stdin is not None
        self._reader, self._writer = selectors.DefaultSelector(), selectors.DefaultSelector()
        self._reader.register(process.stdout, selectors.EVENT_READ)
        self._writer.register(process.stdin, selectors.EVENT_WRITE)
        os.set_blocking(process.stdin.fileno(), False)
        self._known: dict[int, psutil.Process] = {}

    def send(self, frame: bytes) -> None:
        """Sends a frame.

        Raises:
            Ended: If the process is gone, or does not take the frame in time, or uses too much.
        """
        assert self._process.stdin is not None
        view, end = memoryview(frame), min(time.monotonic() + SEND_SECONDS, self._deadline)
        while view:
            if time.monotonic() > end:
                raise Ended("it did not listen to the grader and was stopped")
            self.watch()
            if not self._writer.select(timeout=0.2):
                continue
            try:
                view = view[os.write(self._process.stdin.fileno(), view[: 1 << 16]) :]
            except BlockingIOError:
                continue
            except OSError:
                raise Ended(self._why()) from None

    def receive(self, seconds: float) -> tuple[Any, dict[str, np.ndarray]]:
        """Returns the next frame.

        Raises:
            Ended: If none came in time, or the process is gone or uses too much.
        """
        end = min(time.monotonic() + seconds, self._deadline)
        assert self._process.stdout is not None
        while not self._ready:
            if self._error:
                raise Ended(f"it wrote into the grader's channel ({self._error.rstrip('.')})")
            if time.monotonic() > end:
                raise Ended("it ran too long and was stopped")
            too_much = None
            try:
                self.watch()
            except Ended as ended:
                too_much = ended
            # What it sent before that counts first: it may say that another cell has begun.
            if not self._reader.select(timeout=0 if too_much else 0.2):
                if too_much:
                    raise too_much
                continue
            piece = os.read(self._process.stdout.fileno(), 1 << 20)
            if not piece:
                raise Ended(self._why())
            try:
                for frame in self._frames.feed(piece):
                    self._ready.append(frame)
            except wire.WireError as error:
                self._error = str(error)
        return self._ready.pop(0)

    def close(self) -> None:
        """Ends the process and everything that it started."""
        self._family()
        for process in reversed(list(self._known.values())):
            try:
                process.kill()
            except psutil.Error:
                continue
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        self._reader.close()
        self._writer.close()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()

    def _family(self) -> list[psutil.Process]:
        try:
            head = psutil.Process(self._process.pid)
            now = [head, *head.children(recursive=True)]
        except psutil.Error:
            return []
        self._known |= {process.pid: process for process in now}
        return now

    def watch(self) -> None:
        """Looks at what the submission uses now.

        Raises:
            Ended: If that is too much.
        """
        family, used = self._family(), 0
        if len(family) > MAX_PROCESSES:
            raise Ended(f"it started more than {MAX_PROCESSES} processes and was stopped")
        for process in family:
            with suppress(psutil.Error):
                used += process.memory_info().rss
            used += _in_memory(process.pid)
        if used > self._limits.memory + SHARED:
            raise Ended(f"it used more than {self._limits.memory / 2**30:.3g} GB of memory and was stopped")
        memory = psutil.virtual_memory()
        if memory.available < SPARE * memory.total:  # files in memory and the like count for no process
            raise Ended(f"{CROWDED} and it was stopped")
        if self._folder and _size(self._folder) > self._limits.folder_size:
            raise Ended(f"its files take more than {self._limits.folder_size >> 20} MB and it was stopped")

    def _why(self) -> str:
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed the grader's channel"
        return f"its process ended (exit status {status})"


def _in_memory(pid: int) -> int:
    """Returns the bytes of files that a process holds in memory without a name: they count for no folder."""
    total = 0
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.readlink(entry.path).startswith("/memfd:"):
                    total += os.stat(entry.path).st_blocks * 512
    return total


def _size(folder: Path) -> int:
    """Returns the bytes of all files in a folder."""
    total = 0
    for head, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(head, name)).st_size
    return total


@contextmanager
def opened(limits: Limits, wanted: bool, end: float) -> Iterator[Box]:
    """Starts an empty box; its folder and its processes are gone afterwards.

    Args:
        limits: See there.
        wanted: Whether to use bubblewrap where it works.
        end: When its time is up, on the monotonic clock.
    """
    bwrap = walls.bubblewrap()[0] if wanted else None
    with tempfile.TemporaryDirectory(prefix="box-", ignore_cleanup_errors=True) as name:
        folder = Path(name) / "box"
        folder.mkdir()
        if bwrap:
            line, variables = walls.command(bwrap, limits.folder_size), {"PATH": os.defpath}
        else:
            library = Path(name) / "course"
            (library / "grading").mkdir(parents=True)
            (library / "tlhelpers").symlink_to(ROOT / "tlhelpers")
            (library / "grading" / "box").symlink_to(walls.LIBRARY)
            line = [sys.executable, "-m", "grading.box.runner"]
            variables = walls.environment(str(folder), str(library))
        process = subprocess.Popen(
            line,
            cwd=folder,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )
        box = Box(process, limits, end, None if bwrap else folder)
        try:
            yield box
        finally:
            box.close()
