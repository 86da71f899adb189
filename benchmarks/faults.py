"""Faults that the tests plant, counted, each with what its user saw.

A test says where its fault belongs by ``@pytest.mark.fault("area")``; the names of its parameters say what is
planted. This runs these tests, and writes the table of the page on reliability.

    python benchmarks/faults.py
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from _common import RESULTS, table, write

ROOT = RESULTS.parents[1]
LONGEST = 160  # characters of a message that the table shows


class Watch:
    """A plugin of pytest: what was planted, how it ended, and the first message that was raised or logged."""

    def __init__(self) -> None:
        self.areas: dict[str, list[dict[str, Any]]] = {}
        self.texts: list[str] = []
        self.raises = pytest.raises
        pytest.raises = self.recording  # type: ignore[assignment]

    @contextmanager
    def recording(self, *args: Any, **options: Any) -> Iterator[Any]:
        """As `pytest.raises`; notes what was raised."""
        with self.raises(*args, **options) as caught:
            yield caught
        if issubclass(caught.type, Exception):  # not the KeyboardInterrupt of a test that stops something
            self.texts.append(f"{caught.type.__name__}: {caught.value}")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Start with no messages; add those that were logged."""
        self.texts.clear()
        yield
        handler = getattr(item, "funcargs", {}).get("caplog")
        self.texts += [r.getMessage() for r in handler.records if r.levelname == "WARNING"] if handler else []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> Iterator[Any]:
        """Count a test that ran."""
        report = yield
        marker = item.get_closest_marker("fault")
        if marker and report.when == "call" and not report.skipped:
            properties = dict(report.user_properties)
            said = [str(properties["saw"])] if "saw" in properties else self.texts
            case = {
                "what": words(item),
                "times": int(properties.get("times", 1)),
                "saw": tidied(said[0]) if said else "the right result",
            }
            self.areas.setdefault(marker.args[0], []).append(case)
        return report


def words(item: pytest.Item) -> str:
    """Returns what a test plants: the name of its parameters, or its own."""
    callspec = getattr(item, "callspec", None)
    return callspec.id if callspec else item.name.removeprefix("test_").replace("_", " ")


def tidied(text: str) -> str:
    """Returns a message in a line, without the folders of a test."""
    text = re.sub(r"(/[\w.+-]+)*/pytest-of-\w+/pytest-\d+/[\w.+-]+/?", "", re.sub(r"\s+", " ", text))
    return text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0] + " ..."


def main() -> None:
    """Run the tests that plant a fault and write what was seen."""
    watch = Watch()
    code = pytest.main([str(ROOT / "tests"), "-m", "fault", "-q", "-p", "no:cacheprovider"], plugins=[watch])
    if code:
        sys.exit("A planted fault was not met as its test demands. Nothing is written.")
    areas = dict(sorted(watch.areas.items(), key=lambda item: -len(item[1])))
    rows = []
    for area, cases in areas.items():
        shown = next((c for c in cases if c["saw"] != "the right result"), cases[0])
        n_times = sum(case["times"] for case in cases)
        rows.append([area, len(cases), f"{n_times:,}", shown["what"], shown["saw"]])
    columns = ["What was planted", "Kinds", "Times", "One of them", "What its user saw"]
    every = [case for cases in areas.values() for case in cases]
    about = {"n_kinds": len(every), "planted": sum(case["times"] for case in every)}
    write("faults", table(columns, rows), about | {"areas": areas})


if __name__ == "__main__":
    main()
