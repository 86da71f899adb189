"""Behaviour of `tlhelpers.paths`."""

import platformdirs
import pytest

from tlhelpers import paths


def test_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path / "mine"))
    assert paths.cache_dir() == tmp_path / "mine"
    assert not (tmp_path / "mine").exists()


def test_cache_is_on_drive_when_drive_is_mounted(monkeypatch, tmp_path):
    monkeypatch.delenv("TLHELPERS_CACHE", raising=False)
    monkeypatch.setattr(paths, "DRIVE", tmp_path)
    assert paths.cache_dir() == tmp_path / "tlhelpers-cache"


def test_cache_is_the_users_else(monkeypatch, tmp_path):
    monkeypatch.setenv("TLHELPERS_CACHE", "  ")
    monkeypatch.setattr(paths, "DRIVE", tmp_path / "not mounted")
    assert str(paths.cache_dir()) == platformdirs.user_cache_dir("tlhelpers")


def test_atomic_write_shows_nothing_until_it_is_done(tmp_path):
    final = tmp_path / "new" / "a.npy"
    with paths.atomic_path(final) as path:
        assert path.parent == final.parent
        assert path.suffix == ".npy"
        path.write_bytes(b"half")
        assert not final.exists()
    assert final.read_bytes() == b"half"
    assert list(final.parent.iterdir()) == [final]


def test_failed_write_keeps_the_old_file_and_no_rest(tmp_path):
    final = tmp_path / "a.txt"
    final.write_text("old")

    def fail():
        with paths.atomic_path(final) as path:
            path.write_text("half")
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        fail()
    assert final.read_text() == "old"
    assert list(tmp_path.iterdir()) == [final]


def test_writing_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing was written"), paths.atomic_path(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []
