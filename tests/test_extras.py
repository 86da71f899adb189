"""The package without its extras: what it still does, and what it says where one is missing."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from test_house import files, module_name
from tlhelpers.extras import MissingExtraError, extra
from tools.make_env import venv_python
from tools.numbers.provenance import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# What brings an extra that part of the package cannot do without. The report is loaded by `run` alone.
NEEDS = {
    "tlhelpers.plots": "plots",
    "tlhelpers.tuning": "tuning",
    "tlhelpers.app.audit_command": "app",
    "tlhelpers.app.cli": "app",
    "tlhelpers.app.commands": "app",
    "tlhelpers.app.methods": "app",
    "tlhelpers.app.verdict": "app",
    "tlhelpers.app.run": "app",
    "tlhelpers.scale.command": "app",
    "the command": "app",
    "engine='onnx'": "onnx",
    "engine='openvino'": "openvino",
}
UNGUARDED = {"tlhelpers.app.report"}
SCRIPT = ROOT / "tests" / "core_alone.py"


def brought_by(name: str) -> set[str]:
    """Return the distributions that an extra of the package brings, through other extras, too."""
    found = set()
    for requirement in PROJECT["optional-dependencies"][name]:
        own = re.fullmatch(r"tlhelpers\[(.*)\]", requirement)
        inner = (
            (brought_by(other) for other in own[1].split(",")) if own else [{requirement_name(requirement)}]
        )
        found |= set().union(*inner)
    return found


def requirement_name(requirement: str) -> str:
    """Return the name of a requirement such as ``numpy>=2.0``."""
    return re.match(r"[\w-]+", requirement)[0]


def examine(found: dict) -> None:
    """Compare what the script printed with what the core has to do."""
    said = found["said"]
    assert set(NEEDS) <= set(said)
    assert set(said) <= set(NEEDS) | UNGUARDED, said
    for part, name in NEEDS.items():
        message = re.fullmatch(r'(\w+) is not installed\. Run: pip install "tlhelpers\[(\w+)\]"', said[part])
        assert message, said[part]
        assert message[2] == name
        assert message[1] in brought_by(name)
    names = {module_name(path) for path in files()} - {"tlhelpers"}
    assert set(found["imported"]) == names - set(said)
    assert found["features by Keras"]


def test_the_core_is_imported_where_no_extra_is_installed(tmp_path: Path) -> None:
    """Whatever an extra brings passes for not installed; the backend and what Keras needs work on."""
    modules = set().union(*map(brought_by, ("app", "tuning", "openvino", "parquet", "ray", "hub")))
    assert {"jinja2", "matplotlib", "onnx", "onnxruntime", "optuna", "psutil", "rich", "tensorflow"} < modules
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TLHELPERS_CACHE": str(tmp_path)}
    command = [sys.executable, str(SCRIPT), *sorted(modules)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-3000:]
    examine(json.loads(done.stdout.splitlines()[-1]))


def environment(folder: Path, *packages: str) -> tuple[Path, Callable[..., subprocess.CompletedProcess]]:
    """Make an environment of the package without extras, and say how to run something in it.

    Real pip, and a copy of the source, so that the tree stays clean.

    Args:
        folder: An empty folder.
        packages: What else is installed.
    """
    if not os.environ.get("TLHELPERS_EMPTY_ENVIRONMENT"):
        pytest.skip("takes minutes and a package index: weekly, and where TLHELPERS_EMPTY_ENVIRONMENT is set")
    source, venv = folder / "source", folder / "venv"
    shutil.copytree(ROOT / "tlhelpers", source / "tlhelpers", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    python = venv_python(venv)
    env = {k: v for k, v in os.environ.items() if k not in ("KERAS_BACKEND", "PYTHONPATH")}
    env |= {"TLHELPERS_CACHE": str(folder / "cache"), "KERAS_HOME": str(folder / "keras")}

    def run(*command: object, cwd: Path = folder, **more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            list(map(str, command)),
            env={**env, **more},
            cwd=cwd,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    for command in (
        [sys.executable, "-m", "venv", venv],
        [python, "-m", "pip", "install", source, *packages],
    ):
        done = run(*command)
        assert done.returncode == 0, done.stderr[-3000:]
    return python, run


OLDEST = next(r for r in PROJECT["dependencies"] if r.startswith("keras>=")).replace(">=", "==") + ".*"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "packages"),
    [
        ("jax", (OLDEST, "jax==0.5.*")),
        ("torch", ("keras", "torch")),
    ],  # newer JAX: no training
)
def test_the_auditor_finds_the_same_elsewhere(
    backend: str, packages: tuple[str, str], tmp_path: Path
) -> None:
    """The oldest Keras and the newest, on other backends, where TensorFlow is not installed."""
    python, run = environment(tmp_path, *packages, "pytest")
    assert run(python, "-c", "import tensorflow").returncode == 1
    tests = [ROOT / "tests" / f"test_audit_{name}.py" for name in ("faults", "data", "recipes")]
    command = [python, "-m", "pytest", "--noconftest", "-p", "no:cacheprovider", "-q", *tests]
    done = run(*command, "-k", "not the_command", cwd=ROOT, KERAS_BACKEND=backend)  # it needs an extra
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 90


@pytest.mark.slow
def test_the_core_works_in_an_empty_environment(tmp_path: Path) -> None:
    """The package without extras, and JAX."""
    python, run = environment(tmp_path, "jax")
    listed = run(python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check").stdout
    there = {package["name"].lower() for package in json.loads(listed)}
    print(f"{len(there)} packages")
    assert not there & ((brought_by("app") | brought_by("tuning") | brought_by("openvino")) - {"rich"})

    done = run(python, SCRIPT, KERAS_BACKEND="jax")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    examine(found)
    assert found["probe"] == 1
    assert found["fine-tuning"] > 0.9
    assert found["audit"] == []

    done = run(python.with_name("tlhelpers"), "doctor")
    assert done.returncode == 1
    assert done.stderr.strip() == 'typer is not installed. Run: pip install "tlhelpers[app]"'
    # As the page "How to use this book" says.
    assert "No module named 'tensorflow'" in run(python, "-c", "from tlhelpers import audit").stderr


def test_another_failure_of_an_import_keeps_its_error() -> None:
    """To install again would not help."""
    with pytest.raises(ImportError, match="DLL load failed") as caught, extra("onnx"):
        raise ImportError("DLL load failed")
    assert not isinstance(caught.value, MissingExtraError)


def test_extras_that_the_code_names_bring_what_it_imports() -> None:
    """Each ``with extra("name"):`` names an extra of the project that has what is imported below it."""
    seen = 0
    for path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.With) or ast.unparse(node.items[0].context_expr)[:6] != "extra(":
                continue
            seen += 1
            (name,) = node.items[0].context_expr.args
            for statement in node.body:
                assert isinstance(statement, ast.Import | ast.ImportFrom), f"{path.name}: imports only"
                modules = [a.name for a in statement.names]
                modules = [statement.module] if isinstance(statement, ast.ImportFrom) else modules
                roots = {module.split(".")[0] for module in modules}
                brought = {package.replace("-", "_") for package in brought_by(name.value)}
                assert roots <= brought | {"tlhelpers"}, path.name
    assert seen > 4
