"""What a reader takes home: the plain cells of the first chapters are a script that needs only Keras."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tools.numbers import kernel, provenance
from tools.numbers.provenance import ROOT

CHAPTERS = [kernel.find(name) for name in ("01", "03", "04", "04b")]
ALLOWED = {("backbones", "load"), ("data", "load")}
ACCURACY = re.compile(r"accuracy on the test images: ([\d.]+)%")
WIDTH = 79

each = pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)


def tagged(path: Path, tag: str) -> list[nbformat.NotebookNode]:
    """Return the code cells of a chapter with this tag."""
    return [c for c in nbformat.read(path, as_version=4).cells if tag in provenance.tags(c)]


def printed(cells: list[nbformat.NotebookNode]) -> str:
    """Return what cells have printed."""
    return "".join(o.text for c in cells for o in c.outputs if o.get("name") == "stdout")


def plain(path: Path) -> str:
    """Return the plain cells of a chapter, pasted one after another."""
    return "\n\n".join(c.source for c in tagged(path, "plain")) + "\n"


def run(code: str, folder: Path, profile: str = "laptop") -> str:
    """Run a script in a process and a folder of its own; return what it prints."""
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT), "TL_PROFILE": profile}
    (folder / "script.py").write_text(code, encoding="utf-8")
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@each
def test_plain_cells_need_nothing_but_keras(path: Path) -> None:
    """Of the package they use two functions, which stand for the weights and the images."""
    tree = ast.parse(plain(path))
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tlhelpers":
            assert node.module == "tlhelpers", ast.unparse(node)
            modules |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            assert not [a.name for a in node.names if a.name.startswith("tlhelpers")], ast.unparse(node)
    names = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id in modules]
    used = [n.value for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
    assert {n.id for n in names} == modules == {"backbones", "data"}
    assert all(n in used for n in names)
    pairs = {
        (n.value.id, n.attr)
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id in modules
    }
    assert pairs == ALLOWED
    calls = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert {"compile", "fit"} <= calls


@each
def test_settings_and_plain_cells_are_a_whole_script(path: Path) -> None:
    """What the settings cell prints are literals, and with them every name of the plain cells is known."""
    settings = printed(tagged(path, "settings"))
    lines = ast.parse(settings).body
    assert len(lines) == 2
    for line in lines:
        assert isinstance(line, ast.Assign)
        ast.literal_eval(line.value)
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "-"]
    code = settings + plain(path)
    done = subprocess.run(command, input=code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@each
def test_code_fits_the_page(path: Path) -> None:
    """No line has to be scrolled; the Colab cell, which is hidden and everywhere the same, is not counted."""
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    found = [line for c in cells if "colab" not in provenance.tags(c) for line in c.source.splitlines()]
    assert len(found) > 100
    assert not [line for line in found if len(line) > WIDTH]


@pytest.mark.slow
def test_plain_cells_run_in_smoke(tmp_path: Path) -> None:
    """Pasted one after another, all chapters in one script, in the small profile."""
    parts = []
    for path in CHAPTERS:
        (cell,) = tagged(path, "settings")
        settings = cell.source.replace("profiles.get(PROFILE)", "profiles.get()")
        parts.append(run(settings, tmp_path, "smoke") + plain(path))
    found = ACCURACY.findall(run("\n".join(parts), tmp_path))
    expected = ACCURACY.findall("".join(printed(tagged(path, "plain")) for path in CHAPTERS))
    assert len(found) == len(expected) >= len(CHAPTERS)


@each
@pytest.mark.slow
@pytest.mark.needs_cifar10
def test_plain_cells_reach_the_printed_accuracy(path: Path, tmp_path: Path) -> None:
    """As a reader runs them, on CIFAR-10: within three points of what stands in the chapter."""
    if not os.environ.get("TLHELPERS_PLAIN"):
        pytest.skip("takes minutes a chapter, and so runs weekly: set TLHELPERS_PLAIN=1")
    expected = ACCURACY.findall(printed(tagged(path, "plain")))
    found = ACCURACY.findall(run(printed(tagged(path, "settings")) + plain(path), tmp_path))
    assert len(found) == len(expected) >= 1
    for ours, theirs in zip(found, expected, strict=True):
        assert abs(float(ours) - float(theirs)) <= 3, (found, expected)
