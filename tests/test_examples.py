"""The examples in the docstrings of `tlhelpers`: each public object has one, and each is true."""

import dataclasses
import doctest
import importlib
import inspect
import pkgutil
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tlhelpers

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
SLOW = {"tlhelpers.features", "tlhelpers.scale"}  # they export networks, and begin processes
OTHERWISE = re.compile(r"(Returned|Raised) by\s+`(\w+)`|One\s+of\s+`(\w+)`: see\s+`(\w+)`")


def modules() -> list[str]:
    """Return the public modules of the package; the command line has examples of another kind."""
    names = [m.name for m in pkgutil.walk_packages(tlhelpers.__path__, "tlhelpers.")]
    return [
        n for n in names if "._" not in n and not n.startswith(("tlhelpers.app", "tlhelpers.scale.command"))
    ]


def public(module: ModuleType) -> dict[str, Any]:
    """Return the functions and classes that a module offers: defined in it, or listed from a private file."""
    found = {}
    for name, value in vars(module).items():
        home = getattr(value, "__module__", "") or ""
        listed = name in getattr(module, "__all__", ()) and home.startswith(f"{module.__package__}._")
        inside = home == module.__name__ or listed
        if not name.startswith("_") and inside and (inspect.isfunction(value) or inspect.isclass(value)):
            found[name] = value
    return found


def examples(name: str, value: Any, module: ModuleType) -> Iterator[doctest.DocTest]:
    """Yield the docstrings with examples of an object: its own, and those of its methods."""
    finder = doctest.DocTestFinder(recurse=False, exclude_empty=True)
    parts = [(name, value)]
    if inspect.isclass(value):
        parts += [(f"{name}.{k}", v) for k, v in vars(value).items() if inspect.isfunction(v)]
    for label, part in parts:
        for test in finder.find(part, f"{module.__name__}.{label}", module=False, globs={}):
            if test.examples:
                yield test


def own(value: Any) -> bool:
    """Return whether an object's docstring has an example."""
    return bool(doctest.DocTestParser().get_examples(value.__doc__ or ""))


def holds(hint: Any, wanted: type, seen: list[Any]) -> bool:
    """Return whether a type is the wanted one, or is made of it: by its arguments, bases and fields."""
    if any(hint is known for known in seen):
        return False
    seen.append(hint)
    parts = [*typing.get_args(hint), *getattr(hint, "__orig_bases__", ())]
    if dataclasses.is_dataclass(hint):
        parts += typing.get_type_hints(hint).values()
    return hint is wanted or any(holds(part, wanted, seen) for part in parts)


def complaint(name: str, value: Any, offered: dict[str, Any], module: ModuleType) -> str:
    """Return what is missing of an object's example; empty if nothing is.

    A class that a function returns or raises, and a function in a table of the module, may refer to the
    function that shows it.
    """
    if own(value):
        return ""
    found = OTHERWISE.search(value.__doc__ or "")
    if found is None:
        return f"{name} has no example"
    how, by, table, see = found.groups()
    shown = offered.get(by or see)
    if shown is None or not own(shown):
        return f"{name} refers to {by or see}, which has no example"
    if table:
        fits = value in getattr(module, table).values()
    elif how == "Raised":
        fits = inspect.isclass(value) and issubclass(value, Exception) and name in inspect.getsource(shown)
    else:
        hint = typing.get_type_hints(shown).get("return")
        fits = inspect.isclass(value) and holds(hint, value, [])
    return "" if fits else f"{name} refers to {by or see}, which has nothing to do with it"


def run(tests: list[doctest.DocTest]) -> tuple[int, str]:
    """Run examples, each docstring alone; return how many lines there were, and what failed."""
    lines, said = 0, []
    for test in tests:
        runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
        lines += runner.run(test, out=said.append).attempted
    return lines, "".join(said)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Examples write where nothing is, and draw no windows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TLHELPERS_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.delenv("TLHELPERS_DATA", raising=False)
    yield
    from matplotlib import pyplot

    pyplot.close("all")
    pyplot.rcdefaults()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in modules()]
)
def test_examples_are_there_and_true(name: str) -> None:
    """Each can be pasted alone: it gets no names but its own."""
    module = importlib.import_module(name)
    offered = public(module)
    missing = [text for key, value in offered.items() if (text := complaint(key, value, offered, module))]
    assert not missing, "\n".join(missing)
    tests = [test for key, value in offered.items() for test in examples(key, value, module)]
    skipped = [t.name for t in tests for e in t.examples if doctest.SKIP in e.options]
    assert not skipped, f"skipped: {skipped}"
    _, failed = run(tests)
    assert not failed, failed


def test_enough_is_looked_at() -> None:
    """A collection that finds nothing would pass."""
    found = {name: importlib.import_module(name) for name in modules()}
    offered = [(n, v, m) for m in found.values() for n, v in public(m).items()]
    assert len(found) >= 24
    assert set(found) >= SLOW
    assert len(offered) >= 110
    assert sum(own(value) for _, value, _ in offered) >= 80


def test_a_wrong_or_missing_example_is_found() -> None:
    """What fails, fails; what refers to something else is looked at."""

    class Result:
        """Returned by `make`."""

    def make() -> Result:
        """Makes it.

        Example:
            >>> 1 + 1
            3
        """
        return Result()

    def bare() -> None:
        """Has none."""

    def number() -> int:
        """Returned by `make`."""
        return 0

    module = ModuleType("tlhelpers.made_up")
    make.__annotations__["return"] = Result
    offered = {"make": make, "Result": Result, "bare": bare, "number": number}
    found = {name: complaint(name, value, offered, module) for name, value in offered.items()}
    assert found["make"] == found["Result"] == ""
    assert found["bare"] == "bare has no example"
    assert found["number"].endswith("nothing to do with it")
    assert complaint("Result", Result, {"make": bare}, module).endswith("which has no example")
    lines, failed = run(list(examples("make", make, module)))
    assert lines == 1
    assert "Expected:\n    3\nGot:\n    2" in failed
