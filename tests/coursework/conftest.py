"""Releases, built once for all tests: nbgrader takes seconds for each."""

import pytest

from tools.grading import course, release


class Releases(dict):
    """Name -> released notebook."""

    def __init__(self, folder):
        super().__init__(release.build([course.load(name) for name in course.names()], folder))
        self.folder = folder


@pytest.fixture(scope="session")
def released(tmp_path_factory):
    """The releases."""
    return Releases(tmp_path_factory.mktemp("release"))


@pytest.fixture
def graded(released, monkeypatch):
    """The command's `grade`, with releases that are there already."""
    from tools import coursework

    monkeypatch.setattr(
        release, "build", lambda assignments, out: {a.name: released[a.name] for a in assignments}
    )
    return coursework.grade
