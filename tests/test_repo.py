"""The repository as a whole: one address, no machine's paths, small files, quick import, clean code."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import tlhelpers
from tools import licences, lock, repo_url
from tools.numbers import kernel, provenance
from tools.numbers.provenance import ROOT

MAX_BYTES = 1_000_000
VENDORED = ("book/_static/mathjax/",)  # copied unchanged, see the README beside it
SKIPPED = ("_build", "build", "__pycache__", "node_modules", "release", "submitted", "autograded", "feedback")
TEXT = (
    ".py",
    ".md",
    ".ipynb",
    ".toml",
    ".yml",
    ".yaml",
    ".txt",
    ".json",
    ".css",
    ".js",
    ".cff",
    ".bib",
    ".sh",
    "",
)
CHOOSERS = ("finetune", "heads", "tuning", "features/__init__", "losses")
# Calls that train or choose: none may be handed test data.
TRAINERS = {
    "fit",
    "linear_probe",
    "mlp_head",
    "knn_head",
    "fine_tune",
    "adapt",
    "train",
    "search",
    "lp_ft",
    "over_seeds",
    "select",
    "tune",
}
TEST_DATA = re.compile(r"(^|_)test($|_)|^[FXxYy]_?test")


def files() -> list[Path]:
    """Return the repository's files: what git knows, or in an unpacked archive all that look like it."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        names = [n for n in done.stdout.split("\0") if n] if done.returncode == 0 else []
    except FileNotFoundError:
        names = []
    if not names:
        names = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if p.is_file()]
    kept = [Path(n) for n in names]
    return [
        p
        for p in kept
        if not any(s in SKIPPED or s.startswith(".venv") for s in p.parts) and (ROOT / p).is_file()
    ]


def texts() -> Iterator[tuple[Path, str]]:
    """Yield the text files that somebody wrote by hand."""
    for path in files():
        if path.suffix in TEXT and not path.as_posix().startswith(VENDORED) and path.parts[0] != ".git":
            yield path, (ROOT / path).read_text(encoding="utf-8", errors="replace")


def test_files_are_small() -> None:
    """Data, weights and built sites do not belong in a repository."""
    seen = [p for p in files() if not p.as_posix().startswith(VENDORED)]
    assert len(seen) > 50
    large = [
        f"{p} ({(ROOT / p).stat().st_size} bytes)" for p in seen if (ROOT / p).stat().st_size > MAX_BYTES
    ]
    assert not large, large


def test_no_machine_paths() -> None:
    """No file names a folder of somebody's machine."""
    folders = {str(ROOT.parent), str(Path.home())} - {"/", "/root", "/home"}
    patterns = [re.escape(folder) + "/" for folder in folders] + [
        "/home/" + r"\w+/",
        "/Users/" + r"\w+/",
        "/root" + "/",
    ]
    pattern = re.compile("|".join(patterns))
    found = []
    for path, text in texts():
        if path == Path("tests/test_notebooks.py"):
            continue  # it holds such patterns to look for them
        found += [f"{path}: {match[0]}" for match in pattern.finditer(text)]
    assert not found, found


def test_no_registry_hosts_in_locks() -> None:
    """A lock names packages and versions; where they come from is the reader's choice."""
    locks = sorted((ROOT / "locks").glob("*.txt"))
    names = {p.name for p in locks}
    assert {f"{kind}py3.{minor}.txt" for kind in ("", "book-") for minor in (11, 12, 13)} <= names
    for path in locks:
        text = path.read_text().partition("\n")[2]
        package = r"[a-z0-9._\-\[\],]+==[\w.!+]+( ; [^\\\n]*)?( \\\n    --hash=sha256:[0-9a-f]{64})+\n"
        assert len(lock.packages(path)) > 40, path.name
        assert len(re.findall(package, text)) == len(lock.packages(path)), f"{path.name}: one without a hash"
        assert not re.sub(package, "", text), path.name


def test_website_lock_has_no_framework() -> None:
    """The website's environment is small."""
    for path in (ROOT / "locks").glob("book-*.txt"):
        assert not re.search(r"^(tensorflow|keras|onnx)", path.read_text(), re.M), path.name


def test_binder_installs_what_chapters_need() -> None:
    """The versions of the tests without the tools for tests and website; its Python; the smallest profile."""
    folder = ROOT / "binder"
    python = (folder / "runtime.txt").read_text().strip().removeprefix("python-")
    assert (folder / "requirements.txt").read_text().strip() == f"-r ../locks/binder-py{python}.txt"
    binder, tested = (
        set(lock.packages(ROOT / "locks" / name)) for name in (f"binder-py{python}.txt", f"py{python}.txt")
    )
    assert binder < tested
    names = {line.split("==")[0] for line in binder}
    assert {"tensorflow-cpu", "keras", "jupyterquiz", "optuna", "matplotlib"} <= names
    assert not {"pytest", "playwright", "sphinx", "nbgrader", "jupyterlab", "openvino"} & names
    start = folder / "start"
    assert os.access(start, os.X_OK)
    done = subprocess.run(
        [start, "sh", "-c", "echo $TL_PROFILE"], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.stdout == "smoke\n"


def test_locks_and_project_agree() -> None:
    """Each dependency of the package, extras included, is in each lock (TensorFlow as its CPU build).

    Ray and KerasHub are too large for that: the weekly job installs them.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [extra for name, extra in project["optional-dependencies"].items() if name not in ("hub", "ray")]
    found = [*project["dependencies"], *(d for extra in extras for d in extra)]
    names = {re.split(r"[\[<>=~! ]", d)[0].lower() for d in found} - {"tlhelpers"}
    wanted = {"tensorflow-cpu" if name == "tensorflow" else name for name in names}
    assert len(wanted) > 30
    for path in [p for p in (ROOT / "locks").glob("*.txt") if not p.name.startswith(("book-", "binder-"))]:
        locked = {line.split("==")[0] for line in lock.packages(path)}
        assert wanted <= locked, f"{path.name} lacks {sorted(wanted - locked)}; make lock"


def test_one_address() -> None:
    """README, citation and links name the repository as `_config.yml` does, or nothing at all."""
    url = repo_url.stored_url()
    name = url.rsplit("/", 1)[1]
    pattern = re.compile(
        r"(?:github\.com|colab\.research\.google\.com/github|mybinder\.org/v2/gh)/([\w.-]+)/"
        + re.escape(name)
    )
    owner = url.split("/")[-2]
    found = [(path, match[1]) for path, text in texts() for match in pattern.finditer(text)]
    assert sum(path.name == "README.md" for path, _ in found) >= 2, (
        "the README names the repository and has badges"
    )
    own = {Path("tools/repo_url.py"), Path("Makefile"), Path("tests/test_repo.py")}  # examples: "you"
    wrong = [f"{path}: {who}" for path, who in found if who != owner and path not in own]
    assert not wrong, f"run: make repo-url URL={url}: {wrong}"


def test_citation_and_licences() -> None:
    """The citation file is complete and agrees with the package; both licences are there."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] in ("software", "dataset")
    assert citation["message"]
    assert citation["authors"]
    assert all("name" in a or {"family-names", "given-names"} <= set(a) for a in citation["authors"])
    assert citation["title"] == yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["title"]
    assert citation["license"] == project["license"] == "Apache-2.0"
    assert citation["repository-code"] == repo_url.stored_url()
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")[:100]
    text = (ROOT / "LICENSE-text").read_text(encoding="utf-8")
    assert "creativecommons.org/licenses/by/4.0/" in text
    code = ("tlhelpers/", "tools/", "tests/", "benchmarks/", "book/_ext/")
    assert all(folder in text and (ROOT / folder).is_dir() for folder in code)
    for name in ("README.md", "CONTRIBUTING.md"):
        assert name in text
    assert "CONTRIBUTING.md" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_page_of_licences_names_every_package() -> None:
    """No more and no fewer than the lock, each with its terms."""
    rows = re.findall(r"^\| (\S+) \| (.+?) \| (.+?) \|$", licences.PAGE.read_text(encoding="utf-8"), re.M)
    names = [name for name, _, part in rows if part in licences.PARTS]
    assert names == licences.locked(), "run: python -m tools.licences"
    assert len(names) > 150
    assert not {"", "UNKNOWN"} & {terms for _, terms, _ in rows}


def test_version_has_one_source() -> None:
    """The package names its version; pyproject.toml reads it, and what has to repeat it says the same."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in pyproject["project"]
    assert pyproject["project"]["dynamic"] == ["version"]
    assert pyproject["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "tlhelpers.__version__"}
    own = [p for p, text in texts() if p.suffix == ".py" and re.search(r"^__version__\s*=", text, re.M)]
    assert own == [Path("tlhelpers/__init__.py")]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == tlhelpers.__version__
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert versions[:2] == ["Unreleased", tlhelpers.__version__]
    assert len(set(versions)) == len(versions)


def test_address_can_be_changed(tmp_path: Path) -> None:
    """`make repo-url` rewrites all places, and back again gives the same files."""
    for name in ("_config.yml", *repo_url.FILES):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "notebooks").mkdir()
    notebook = tmp_path / "notebooks" / "01_a.ipynb"
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "id": "a",
        "metadata": {},
        "outputs": [],
        "source": ["1"],
    }
    notebook.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    before = repo_url.stored_url(tmp_path)
    repo_url.set_url(before, tmp_path)
    first = {p: p.read_text() for p in tmp_path.rglob("*") if p.is_file()}
    changed = repo_url.set_url("https://github.com/somebody/another-name.git", tmp_path)
    assert {"_config.yml", "README.md", "notebooks/01_a.ipynb"} <= set(changed)
    assert repo_url.stored_url(tmp_path) == "https://github.com/somebody/another-name"
    assert "colab.research.google.com/github/somebody/another-name" in (tmp_path / "README.md").read_text()
    assert "git+https://github.com/somebody/another-name" in notebook.read_text()
    assert before not in (tmp_path / "README.md").read_text()
    repo_url.set_url(before, tmp_path)
    assert {p: p.read_text() for p in tmp_path.rglob("*") if p.is_file()} == first
    with pytest.raises(ValueError, match="looks like"):
        repo_url.set_url("ftp://nowhere", tmp_path)


# What Colab had in August 2026, as its runtime listed it: the cell must leave all of it alone.
COLAB = {"keras": "3.13.2", "numpy": "2.1.3", "protobuf": "5.29.6", "psutil": "5.9.5", "tensorflow": "2.20.0"}


def test_colab_cell_leaves_alone_what_is_there(tmp_path: Path) -> None:
    """Real pip, in an environment that has Colab's versions; then the first chapter runs there."""
    if not os.environ.get("TLHELPERS_EMPTY_ENVIRONMENT"):
        pytest.skip("takes minutes and a package index: weekly, and where TLHELPERS_EMPTY_ENVIRONMENT is set")
    venv = tmp_path / "venv"
    python = venv / "bin" / "python"
    source = tmp_path / "source"
    shutil.copytree(ROOT / "tlhelpers", source / "tlhelpers", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    cell = repo_url.cell_source(repo_url.stored_url()).replace(
        f"git+{repo_url.stored_url()}", source.as_uri()
    )
    assert source.as_uri() in cell
    script = f"import sys, types; sys.modules['google.colab'] = types.ModuleType('google.colab')\n{cell}"
    pins = [f"{name}=={version}" for name, version in COLAB.items()]
    commands = [
        [sys.executable, "-m", "venv", venv],
        [python, "-m", "pip", "install", "-q", *pins, "ipykernel", "nbclient", "papermill"],
        [python, "-c", script],
        [
            python,
            "-m",
            "tools.numbers.run",
            "--profile",
            "smoke",
            "--no-store",
            "--notebook",
            "01_first_result",
        ],
    ]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    for command in commands:
        here = ROOT if "tools.numbers.run" in command else tmp_path
        done = subprocess.run(
            list(map(str, command)),
            cwd=here,
            env=env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        if script in command:
            assert done.stdout.splitlines()[-1] == "changed []"


def test_colab_cell_does_nothing_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Outside Colab nothing is installed and nothing is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it ran a command"))
    exec(repo_url.cell_source(repo_url.stored_url()), {})
    assert not list(tmp_path.iterdir())


def test_colab_requirements_allow_colab() -> None:
    """The package's own bounds accept what Colab brings; otherwise the constraints could not be met."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert "colab" in extras
    lines = [*project["dependencies"], *extras["tensorflow"], *extras["app"], "protobuf"]
    requirements = {r.name: r for r in map(Requirement, lines)}
    for name, version in COLAB.items():
        assert requirements[name].specifier.contains(version), (
            f"{name}: {requirements[name]} refuses {version}"
        )


def test_import_is_quick() -> None:
    """`import tlhelpers` takes under 0.2 s of the processor and does not import a framework."""
    code = (
        "import time, sys; t = time.process_time(); import tlhelpers; s = time.process_time() - t;"
        "print(s, *(m for m in ('tensorflow', 'keras', 'torch', 'jax') if m in sys.modules))"
    )
    best = 9.0
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        seconds, *loaded = done.stdout.split()
        assert not loaded, f"import tlhelpers imports {loaded}"
        best = min(best, float(seconds))
    assert best < 0.2, f"{best:.2f} s"


def test_no_chooser_takes_test_data() -> None:
    """No function of the package that trains or chooses has a parameter for test data."""
    seen, found = 0, []
    for name in CHOOSERS:
        path = ROOT / "tlhelpers" / f"{name}.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                seen += 1
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                found += [f"{path.name}: {node.name}({a.arg})" for a in arguments if TEST_DATA.search(a.arg)]
    assert seen > 5, "no function was looked at"
    assert not found, found


def names_in(node: ast.AST) -> set[str]:
    """Return the names and attributes that stand anywhere in an expression."""
    return {
        n.id if isinstance(n, ast.Name) else n.attr
        for n in ast.walk(node)
        if isinstance(n, ast.Name | ast.Attribute)
    }


def handed_test_data(tree: ast.AST) -> tuple[int, list[str]]:
    """Return how many training calls a tree holds, and those that are handed test arrays."""
    seen, found = 0, []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        values = [*node.args, *(k.value for k in node.keywords)]
        validation = [k.value for k in node.keywords if k.arg and k.arg.startswith("validation")]
        if name in TRAINERS or validation:
            seen += 1
            if any(TEST_DATA.search(n) for v in values for n in names_in(v)):
                found.append(f"line {node.lineno}: {ast.unparse(node)[:100]}")
    return seen, found


@pytest.mark.parametrize(
    ("code", "is_bad"),
    [
        ("model.fit(ds.x_train, ds.y_train, validation_data=(ds.x_test, ds.y_test))", True),
        ("probe = heads.linear_probe(F_train, ds.y_train, F_test, ds.y_test)", True),
        ("model.fit(x_train, y_train, validation_data=(x_val, y_val))", False),
        ("model.evaluate(ds.x_test, ds.y_test)", False),
        ("train(d, validation=test_ds)", True),
    ],
)
def test_the_check_for_test_data_works(code: str, is_bad: bool) -> None:
    """The check below finds what it is for, and nothing else."""
    assert bool(handed_test_data(ast.parse(code))[1]) == is_bad


def test_no_notebook_trains_on_test_data() -> None:
    """No chapter hands test arrays to a call that trains or chooses."""
    seen, found = 0, []
    for path in kernel.notebooks():
        for text in provenance.code_cells(json.loads(path.read_text(encoding="utf-8"))):
            if "# WRONG" in text:
                continue  # a cell that shows the fault says so
            number, bad = handed_test_data(provenance.parse(text))
            seen += number
            found += [f"{path.stem}: {b}" for b in bad]
    assert seen > 3, "no training call was looked at"
    assert not found, found


def test_solutions_can_be_run(tmp_path: Path) -> None:
    """The code of the exercises' solutions is found, and goes behind the chapter's own cells."""
    n_cells = 0
    for path in kernel.notebooks():
        copy = kernel.with_solutions(path, tmp_path)
        source = path.read_text(encoding="utf-8")
        assert (copy is None) == ("````{solution}" not in source), path.name
        if copy is not None:
            cells = json.loads(copy.read_text(encoding="utf-8"))["cells"]
            before = json.loads(source)["cells"]
            assert len(cells) > len(before)
            for cell in cells[len(before) :]:
                ast.parse(provenance.source(cell))
                n_cells += 1
    assert n_cells >= 6


def test_unknown_parameter_is_an_error(tmp_path: Path) -> None:
    """papermill would print a line and go on."""
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "id": "a",
        "outputs": [],
        "source": ["PROFILE = None"],
    }
    cell["metadata"] = {"tags": ["parameters"]}
    path = tmp_path / "a.ipynb"
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"cells": [cell], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))
    kernel.check_parameters(path, {"PROFILE": "smoke"})
    with pytest.raises(kernel.RunError, match="PROFLE"):
        kernel.check_parameters(path, {"PROFLE": "smoke"})


def test_tests_that_share_something_dear_are_grouped(request: pytest.FixtureRequest) -> None:
    """In parallel runs pytest-xdist has read the groups: the site is built once, a chapter runs once."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        assert request.node.nodeid.endswith("@test_repo")


WORKFLOWS = ROOT / ".github" / "workflows"
PINNED = re.compile(r"\s*(?:- )?uses: ([\w.-]+/[\w./-]+)@[0-9a-f]{40} # v\d+\.\d+\.\d+")
PUBLISHES = "actions/deploy-pages"
RUN = "github.event.workflow_run"
PASSED = {f"{RUN}.conclusion == 'success'", f"{RUN}.event == 'push'"}


def triggers(workflow: dict) -> dict:
    """Return what starts a workflow. YAML 1.1 reads the key `on` as true."""
    return workflow.get("on") or workflow.get(True) or {}


def workflow_faults(text: str) -> list[str]:
    """Return what a workflow does that none should: foreign code that can change, rights, no end."""
    workflow = yaml.safe_load(text)
    found = [] if triggers(workflow) else ["nothing starts it"]
    if workflow.get("permissions") != {"contents": "read"}:
        found.append("at the top, its rights are not `contents: read`")
    uses = []
    for name, job in workflow["jobs"].items():
        own = [step["uses"] for step in job.get("steps", []) if "uses" in step] + [job.get("uses", "")]
        uses += [u for u in own if u]
        if not isinstance(job.get("timeout-minutes"), int):
            found.append(f"{name}: no timeout-minutes")
        rights = job.get("permissions", {})
        publishing = {"pages": "write", "id-token": "write"} if any(PUBLISHES in u for u in own) else {}
        if any("git push" in step.get("run", "") for step in job.get("steps", [])):
            publishing = {"contents": "write"}
        if rights and rights != publishing:
            found.append(f"{name}: has the rights {rights}")
    lines = [line for line in text.splitlines() if re.search(r"^(?!\s*#).*\buses\b[\"']?\s*:", line)]
    found += [f"not pinned to a commit: {line.strip()}" for line in lines if not PINNED.fullmatch(line)]
    if len(lines) != len(uses):
        found.append(f"{len(uses)} actions on {len(lines)} lines")
    return found


def waiting_faults(text: str) -> list[str]:
    """Return why a workflow might publish a commit whose tests have not passed."""
    workflow = yaml.safe_load(text)
    found = []
    if set(triggers(workflow)) != {"workflow_run"}:
        return ["something else than the tests' end starts it"]
    run = triggers(workflow)["workflow_run"]
    if (run["workflows"], run["types"], run.get("branches")) != (["tests"], ["completed"], ["main"]):
        found.append("it waits for something else than the tests on main")
    for name, job in workflow["jobs"].items():
        conditions = str(job.get("if", "")).split(" && ")
        if "needs" not in job and set(conditions) != PASSED:
            found.append(f"{name}: does not ask whether the tests of a push have passed")
        if "needs" in job and "if" in job:
            found.append(f"{name}: a condition of its own can run it after a failure")
        for step in job["steps"]:
            tested = {"ref": f"${{{{ {RUN}.head_sha }}}}"}
            if "actions/checkout" in step.get("uses", "") and step.get("with") != tested:
                found.append(f"{name}: checks out another commit than the tested one")
    return found


def test_yaml_files_load() -> None:
    """A mistake in one of them would show only where it is used."""
    seen = [p for p in files() if p.suffix in (".yml", ".yaml", ".cff")]
    assert {p.name for p in seen} >= {"_config.yml", "_toc.yml", "dependabot.yml", ".pre-commit-config.yaml"}
    for path in seen:
        assert yaml.safe_load((ROOT / path).read_text(encoding="utf-8")), path


def test_workflows_are_pinned_and_bounded() -> None:
    """Actions by commit, one commit an action; few rights; each job ends."""
    paths = sorted(WORKFLOWS.glob("*.y*ml"))
    assert len(paths) >= 4
    pins = set()
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert not workflow_faults(text), f"{path.name}: {workflow_faults(text)}"
        pins |= set(re.findall(r"uses: (.+)", text))
    assert len({pin.split("@")[0] for pin in pins}) == len(pins), sorted(pins)


def test_pages_wait_for_tests() -> None:
    """The website is published once the tests of a push to main have passed, and from that commit."""
    publishing = [p.name for p in WORKFLOWS.glob("*.y*ml") if PUBLISHES in p.read_text(encoding="utf-8")]
    assert publishing == ["pages.yml"]
    assert not waiting_faults((WORKFLOWS / "pages.yml").read_text(encoding="utf-8"))
    tests = yaml.safe_load((WORKFLOWS / "tests.yml").read_text(encoding="utf-8"))
    assert tests["name"] == "tests"
    assert triggers(tests)["push"] == {"branches": ["main"]}


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("@cd2ce8fcbc39b97be8ca5fce6e763baed58fa128", "@v5", "not pinned"),
        ("@cd2ce8fcbc39b97be8ca5fce6e763baed58fa128", "@cd2ce8f", "not pinned"),
        (" # v5.0.0", "", "not pinned"),
        ("  deploy:\n", "  deploy:\n    uses: you/yours/.github/workflows/a.yml@main\n", "not pinned"),
        ("    steps:\n      - id", "    steps:\n      - {uses: you/yours@main}\n      - id", "not pinned"),
        ("    timeout-minutes: 10\n", "", "no timeout"),
        ("permissions:\n  contents: read\n", "", "at the top"),
        ("  contents: read\n", "  contents: read\n  pages: write\n", "at the top"),
        ("permissions:\n  contents: read\n", "permissions: write-all\n", "at the top"),
        ("      id-token: write\n", "      id-token: write\n      contents: write\n", "has the rights"),
        ("  build:\n", "  build:\n    permissions: write-all\n", "has the rights"),
        ("on:\n", "off:\n", "nothing starts it"),
        ("  workflow_run:\n", "  workflow_dispatch:\n  workflow_run:\n", "something else"),
        ("[tests]", "[weekly]", "waits for something else"),
        ("    branches: [main]\n", "", "waits for something else"),
        ("conclusion == 'success' && ", "conclusion != '' && ", "does not ask"),
        (" && github", " || github", "does not ask"),
        ("event == 'push'", "event != ''", "does not ask"),
        ("    needs: build\n", "", "does not ask"),
        ("    needs: build\n", "    needs: build\n    if: always()\n", "a condition of its own"),
        ("workflow_run.head_sha", "workflow_run.head_branch", "another commit"),
    ],
)
def test_the_checks_of_workflows_work(old: str, new: str, fault: str) -> None:
    """Each fault that is put into `pages.yml` is found."""
    text = (WORKFLOWS / "pages.yml").read_text(encoding="utf-8")
    assert old in text
    broken = text.replace(old, new)
    assert any(fault in found for found in workflow_faults(broken) + waiting_faults(broken))


def test_forms_have_fields() -> None:
    """GitHub shows a form with a fault in it to nobody, and says so nowhere."""
    paths = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.y*ml"))
    assert len(paths) == 3
    assert (ROOT / ".github" / "pull_request_template.md").is_file()
    for path in paths:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert set(form) == {"name", "description", "labels", "body"}, path.name
        ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
        labels = [field["attributes"]["label"] for field in form["body"] if "id" in field]
        assert ids, path.name
        assert len(set(ids)) == len(ids) == len(set(labels)), path.name
        for field in form["body"]:
            assert field["type"] in ("markdown", "input", "textarea", "dropdown", "checkboxes"), path.name
            assert field["attributes"]["value" if field["type"] == "markdown" else "label"], path.name
            options = field["attributes"].get("options", [])
            assert (field["type"] in ("dropdown", "checkboxes")) == bool(options), path.name
            assert all(isinstance(o, str | dict) for o in options), path.name
            assert len({str(o) for o in options}) == len(options), path.name


def test_hooks_use_the_locked_checkers() -> None:
    """pre-commit takes the lock's version of the linter, and what runs in `.venv` is there."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    repos = {repo["repo"].rsplit("/", 1)[-1]: repo for repo in config["repos"]}
    for minor in (11, 12, 13):
        locked = lock.packages(ROOT / "locks" / f"py3.{minor}.txt")
        rev = repos["ruff-pre-commit"]["rev"].removeprefix("v")
        assert f"ruff=={rev}" in locked, f"rev in .pre-commit-config.yaml is not that of py3.{minor}.txt"
    ids = {hook["id"] for repo in repos.values() for hook in repo["hooks"]}
    assert {"ruff-check", "ruff-format", "mypy", "tidy-notebooks", "stored-outputs", "check-yaml"} <= ids
    for hook in repos["local"]["hooks"]:
        python, option, module, *arguments = hook["entry"].split()
        assert (python, option) == (".venv/bin/python", "-m"), hook["id"]
        own = ROOT / f"{module.replace('.', '/')}.py"
        assert own.is_file() == module.startswith("tools."), hook["id"]
        assert all((ROOT / a).is_file() for a in arguments if a.startswith("tests/")), hook["id"]
    (large,) = [h for h in repos["pre-commit-hooks"]["hooks"] if h["id"] == "check-added-large-files"]
    (limit,) = [int(a.removeprefix("--maxkb=")) for a in large["args"]]
    assert limit * 1024 <= MAX_BYTES < (limit + 1) * 1024


def check(*command: str) -> None:
    """Run a checker of this environment and show what it found."""
    env = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        pytest.fail(f"{' '.join(command)}:\n{(done.stdout + done.stderr)[-6000:]}", pytrace=False)


def test_ruff_check() -> None:
    """Lint, notebooks included."""
    check("ruff", "check", "--output-format", "concise", ".")


def test_ruff_format() -> None:
    """Layout, notebooks included."""
    check("ruff", "format", "--check", "--quiet", ".")


@pytest.mark.slow
def test_mypy() -> None:
    """Types."""
    start = time.perf_counter()
    check("mypy")
    print(f"mypy: {time.perf_counter() - start:.0f} s")
