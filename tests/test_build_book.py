"""Behaviour of `tools.build_book`: the last website stays until a whole new one is there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools import build_book
from tools.numbers.provenance import ROOT


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A book of one page."""
    (tmp_path / "_config.yml").write_text("title: Small\nonly_build_toc_files: true\n")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: page\n")
    (tmp_path / "page.md").write_text("# First\n")
    return tmp_path


def title(book: Path) -> str:
    return (book / "_build" / "html" / "page.html").read_text().split("<h1>")[1].split("<")[0].strip()


@pytest.mark.fault("a build of the website that fails or is killed")
def test_a_failed_build_leaves_the_last_website(book: Path) -> None:
    assert build_book.build(book) == ""
    assert title(book) == "First"
    (book / "page.md").write_text("# Second\n\n{ref}`nowhere`\n")
    said = build_book.build(book)
    assert "nowhere" in said
    assert title(book) == "First"
    (book / "page.md").write_text("# Third\n")
    assert build_book.build(book) == ""
    assert title(book) == "Third"
    assert sorted(p.name for p in (book / "_build").iterdir()) == ["html"]


@pytest.mark.fault("a build of the website that fails or is killed")
def test_a_killed_build_leaves_the_last_website(book: Path) -> None:
    assert build_book.build(book) == ""
    (book / "page.md").write_text("# Second\n")
    code = f"import pathlib; from tools import build_book; build_book.build(pathlib.Path({str(book)!r}))"
    running = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True)
    while not (book / "_build" / "new").is_dir():
        assert running.poll() is None
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert title(book) == "First"
    (book / "_build" / "html").rename(
        book / "_build" / "old"
    )  # as if killed between the two steps of the swap
    (book / "page.md").write_text("# Third\n\n{ref}`nowhere`\n")
    assert build_book.build(book) != ""
    assert title(book) == "First"
