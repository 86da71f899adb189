"""Shared by all tests: whether CIFAR-10 can be had, one smoke run of each chapter, the built website."""

import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools import build_book
from tools.numbers import kernel
from tools.numbers.provenance import ROOT

BOOK_NEEDS = (
    "_config.yml",
    "_toc.yml",
    "CONTRIBUTING.md",
    "book",
    "notebooks",
    "tlhelpers",
    "tools",
    "benchmarks",
    "coursework/items.toml",
)

# Under a limit of oneDNN below what the processor has, OpenVINO ends the process: oneDNN inside it obeys the
# limit, its own kernels do not (OpenVINO's pull request 36980; seen with 2026.4). It counts as not installed.
if "AVX2" in os.environ.get("ONEDNN_MAX_CPU_ISA", "") and "avx512f" in Path("/proc/cpuinfo").read_text():
    sys.modules["openvino"] = None  # type: ignore[assignment]


def cifar10_source() -> str | None:
    """Return where real CIFAR-10 can be had without a download, or ``None``."""
    folder = os.environ.get("TLHELPERS_DATA")
    if folder:
        archive = Path(folder) / "cifar10.zip"
        if zipfile.is_zipfile(archive) or (Path(folder) / "cifar10").is_dir():
            return "TLHELPERS_DATA"
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "datasets"
    names = ("cifar-10-batches-py-target", "cifar-10-batches-py", "cifar-10-batches-py.tar.gz")
    return "Keras' cache" if any((home / name).exists() for name in names) else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that need CIFAR-10 where it cannot be had, and say so."""
    if item.get_closest_marker("needs_cifar10") and cifar10_source() is None:
        pytest.skip("no CIFAR-10 here: set TLHELPERS_DATA to a folder that holds cifar10.zip or cifar10/")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share something dear go to one process, where it is made once: the site, a chapter's run.

    What takes longest comes first, so that in the end no process waits long for the other. pytest-xdist keeps
    this order with ``--no-loadscope-reorder``.
    """
    long = {}
    for item in items:
        path = getattr(item, "callspec", None) and item.callspec.params.get("path")
        if item.path.stem in ("test_book", "test_site", "test_components", "test_learner", "test_teach"):
            group = "site"
        elif isinstance(path, Path) and path.suffix == ".ipynb":
            group = path.stem
        else:
            group = item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
        long[item] = 2 - (group == "site") - (group != item.path.stem)
    items.sort(key=long.__getitem__)


@pytest.fixture(scope="session")
def cifar10() -> str | None:
    """Where real CIFAR-10 can be had without a download, or ``None``."""
    return cifar10_source()


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], kernel.Run]:
    """Run a chapter in ``smoke``, once a session, whoever asks first."""
    folder = tmp_path_factory.mktemp("smoke")
    done: dict[str, kernel.Run | kernel.RunError] = {}

    def run(name: str) -> kernel.Run:
        if name not in done:
            try:
                done[name] = kernel.execute(kernel.find(name), "smoke", folder)
            except kernel.RunError as error:
                done[name] = error
        result = done[name]
        if isinstance(result, kernel.RunError):
            pytest.fail(str(result), pytrace=False)
        return result

    return run


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The built website, once a session. It is built from a copy: the checkout is left alone."""
    copy = tmp_path_factory.mktemp("book")
    for name in BOOK_NEEDS:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
            )
        elif (ROOT / name).exists():
            (copy / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COURSE_DRAFT", raising=False)
        text = re.sub(r"\x1b\[[0-9;]*m", "", build_book.build(copy))
    if text:
        found = [
            line.replace(f"{copy}/", "") for line in text.splitlines() if "WARNING" in line or "ERROR" in line
        ]
        pytest.fail("The book does not build:\n" + ("\n".join(found[:60]) or text[-4000:]), pytrace=False)
    yield copy / "_build" / "html"
    shutil.rmtree(copy, ignore_errors=True)
