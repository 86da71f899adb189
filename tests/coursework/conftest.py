"""Releases, built once for all tests: nbgrader takes seconds for each."""

import pytest

from tools.grading import course, release


class Releases(dict):
    """Name -> released notebook, built by nbgrader when it is asked for."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.build = release.build

    def __missing__(self, name):
        self.update(self.build([course.load(name)], self.folder))
        return self[name]


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
