"""The weights of the chapter on sentences: one hash everywhere, and another file is not taken for them."""

from pathlib import Path

from tools import text_weights
from tools.numbers import kernel


def test_the_chapter_and_the_command_want_the_same_file() -> None:
    """Package, version and hash are written in both."""
    chapter = kernel.find("16_sentences").read_text(encoding="utf-8")
    for text in (text_weights.PACKAGE, text_weights.VERSION, text_weights.SHA256):
        assert text in chapter


def test_another_file_is_refused(tmp_path: Path) -> None:
    """A file of another content, and none at all."""
    other = tmp_path / "model.safetensors"
    assert not text_weights.is_right(other)
    other.write_bytes(b"no weights")
    assert not text_weights.is_right(other)
    assert not text_weights.is_right(None)


def test_installed_weights_are_the_right_ones() -> None:
    """Where they are installed."""
    found = text_weights.file()
    assert found is None or text_weights.is_right(found)
