"""Chapters: they run in ``smoke``, and what is stored of them is fit to publish and up to date."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tools import repo_url
from tools.numbers import kernel, provenance, tidy
from tools.numbers.provenance import ROOT, is_exact

NOTEBOOKS = kernel.notebooks()
FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
MAX_LINES_CELL, MAX_LINES, WIDTH, MAX_BYTES, MAX_OUTPUT_BYTES = 25, 400, 79, 700_000, 200_000
# Of the processor, all cores added up: 60 s of two cores. What else a machine does counts for nothing there;
# a slow or shared core takes up to twice as long as those where this was measured.
SMOKE_CPU_SECONDS = 120.0 * 2

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    """Return the stored code cells that hold code."""
    cells = nbformat.read(path, as_version=4).cells
    return [c for c in cells if c.cell_type == "code" and c.source.strip()]


def texts(cell: nbformat.NotebookNode) -> str:
    """Return everything textual in a cell's outputs."""
    parts = []
    for output in cell.outputs:
        parts.append(output.get("text", ""))
        parts += [
            v for k, v in output.get("data", {}).items() if k.startswith("text/") and isinstance(v, str)
        ]
        parts += output.get("traceback", [])
    return "\n".join(parts)


def test_there_are_chapters() -> None:
    """A suite that looked at no notebook would prove nothing."""
    assert NOTEBOOKS, "notebooks/ holds no chapter"


@each
@pytest.mark.slow
def test_runs_in_smoke(path: Path, request: pytest.FixtureRequest, record_property) -> None:
    """Each chapter runs once, in about a minute: by nbval where outputs are exact, else by papermill."""
    if is_exact(path):
        env = {**os.environ, "TL_PROFILE": "smoke", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "pytest", str(path), "--nbval-lax", "--nbval-current-env", "-q"]
        command += [
            "--nbval-cell-timeout=300",
            "-p",
            "no:cacheprovider",
            "--durations=0",
            f"--rootdir={path.parent}",
        ]
        command += ["-c", os.devnull]
        with kernel.Watch() as watch:
            done = subprocess.run(command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        seconds = sum(watch.cpu.values())
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert re.search(r"\d+ passed", done.stdout), f"nbval ran no cell:\n{done.stdout[-2000:]}"
    else:
        seconds = request.getfixturevalue("smoke_run")(path.stem).cpu_seconds
    print(f"{path.stem}: {seconds:.1f} s of the processor in smoke")
    record_property("cpu_seconds", round(seconds, 1))
    assert 1 < seconds < SMOKE_CPU_SECONDS, f"{path.stem} took {seconds:.0f} s of the processor in smoke"


def test_what_tensorflow_logs_to_stdout_is_noise_or_unfit() -> None:
    """In a notebook its warnings arrive on stdout. Nobody else's lines are taken away."""
    retraced = "WARNING:tensorflow:5 out of the last 7 calls to <f> triggered tf.function retracing. ...\n"
    other = "WARNING:tensorflow:something else\n"
    said = "triggered tf.function retracing, said the author\n"
    for text, kept, fit in (
        (retraced, None, True),
        (retraced + said, said, True),
        (other, other, False),
        ("plain\n", "plain\n", True),
    ):
        cell = nbformat.v4.new_code_cell(
            "x", outputs=[nbformat.v4.new_output("stream", name="stdout", text=text)]
        )
        cell.outputs = list(kernel.clean_outputs(cell.outputs, 1))
        assert [output.text for output in cell.outputs] == ([kept] if kept else [])
        assert (not kernel.unfit(nbformat.v4.new_notebook(cells=[cell]))) == fit


@each
@pytest.mark.slow
def test_smoke_output_has_no_warning(path: Path, request: pytest.FixtureRequest) -> None:
    """A run writes nothing to stderr but what TensorFlow always writes."""
    if is_exact(path):
        pytest.skip("compared by nbval, which keeps no outputs")
    run = request.getfixturevalue("smoke_run")(path.stem)
    assert not kernel.unfit(nbformat.read(run.path, as_version=4))


@each
def test_stored_run_is_complete(path: Path) -> None:
    """Stored outputs come from one run, top to bottom, without an error."""
    cells = code_cells(path)
    counts = [c.execution_count for c in cells]
    assert counts == list(range(1, len(cells) + 1)), (
        f"not one run in order: {counts}; make notebooks NOTEBOOK={path.stem}"
    )
    for number, cell in enumerate(cells, 1):
        if "raises-exception" not in provenance.tags(cell):
            assert not [o for o in cell.outputs if o.output_type == "error"], (
                f"code cell {number} stores an error"
            )


@each
def test_stored_outputs_are_clean(path: Path) -> None:
    """No log noise, progress bars, machine paths, addresses of objects, times of day or widgets."""
    forbidden = {
        "text on stderr": None,
        "a machine path": re.compile(r"(?<![\w.])(/(?:home|root|tmp|work|Users|content)/|[A-Z]:\\\\)"),
        "an object's address": re.compile(r"\b0x[0-9a-f]{6,}"),
        "a progress bar": re.compile(r"\d+/\d+ [━=\[]|[█▏▎▍▌▋▊▉]|\r|\x08|it/s\b"),
        "a time of day": re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d|\b\d\d:\d\d:\d\d\b"),
    }
    found = []
    for number, cell in enumerate(code_cells(path), 1):
        if any(o.output_type == "stream" and o.name == "stderr" for o in cell.outputs):
            found.append(f"code cell {number}: text on stderr")
        if any("widget-view" in kind for o in cell.outputs for kind in o.get("data", {})):
            found.append(f"code cell {number}: a widget, which a page cannot show")
        text = texts(cell)
        if "display_quiz" in cell.source:
            continue  # the quiz's own page, a script of its package
        for what, pattern in forbidden.items():
            match = pattern.search(text) if pattern else None
            if match:
                found.append(
                    f"code cell {number}: {what}: {text[max(0, match.start() - 20) : match.end() + 30]!r}"
                )
    assert not found, "\n".join(found)


def test_tidy_keeps_outputs_and_nothing_of_the_editor(tmp_path: Path) -> None:
    """What JupyterLab, VS Code, Colab and papermill write beside a run goes; the run itself stays."""
    output = nbformat.v4.new_output("stream", name="stdout", text="1\n")
    cell = nbformat.v4.new_code_cell("print(1)", execution_count=3, outputs=[output], id="one")
    cell.metadata = {"tags": ["hide-input"], "mystnb": {"image": {"alt": "a line"}}}
    about = {"kernelspec": tidy.KERNEL, "language_info": {"name": "python"}, "tlhelpers": {"code": "c"}}
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata=about)
    wanted = nbformat.writes(notebook) + "\n"
    assert tidy.tidied(wanted) == wanted
    cell.metadata |= {"execution": {"iopub.execute_input": "2026-11-24"}, "ExecuteTime": {}, "scrolled": True}
    cell.metadata |= {"papermill": {"duration": 1.0}, "colab": {"height": 34}, "collapsed": True}
    notebook.cells.append(nbformat.v4.new_markdown_cell("Text", metadata={"tags": []}, id="two"))
    notebook.metadata["kernelspec"] = {"display_name": "mine (3.13)", "language": "python", "name": "mine"}
    notebook.metadata["language_info"] |= {"version": "3.13.1", "file_extension": ".py"}
    notebook.metadata |= {"widgets": {"state": {}}, "papermill": {}, "vscode": {}, "colab": {"toc": []}}
    path = tmp_path / "n.ipynb"
    nbformat.write(notebook, path)
    tidy.main([str(path)])
    left = nbformat.read(path, as_version=4)
    assert left.cells.pop().metadata == {}
    assert nbformat.writes(left) + "\n" == wanted


@each
def test_stored_metadata_is_tidy(path: Path) -> None:
    """No times of execution, states of widgets or notes of an editor; everywhere the same kernel."""
    text = path.read_text(encoding="utf-8")
    assert tidy.tidied(text) == text, f"run: python -m tools.numbers.tidy notebooks/{path.name}"


@each
def test_is_small(path: Path) -> None:
    """Short cells and chapters, small files and outputs. What is folded is not counted."""
    assert path.stat().st_size < MAX_BYTES, f"{path.stat().st_size} bytes"
    for number, cell in enumerate(code_cells(path), 1):
        size = max((len(json.dumps(output)) for output in cell.outputs), default=0)
        assert size < MAX_OUTPUT_BYTES, f"code cell {number}: an output of {size} bytes"
    total = 0
    for cell in code_cells(path):
        if FOLDED & set(provenance.tags(cell)):
            continue
        lines = [line for line in cell.source.splitlines() if line.strip()]
        total += len(lines)
        assert len(lines) <= MAX_LINES_CELL, f"a cell of {len(lines)} lines: {lines[0]!r}"
    assert 0 < total <= MAX_LINES, f"{total} lines of code"


@each
def test_code_needs_no_scrolling(path: Path) -> None:
    """A line of code fits on the page. The Colab cell holds an address, and a quiz is text."""
    cells = [c for c in code_cells(path) if repo_url.TAG not in provenance.tags(c)]
    lines = [line for c in cells if "display_quiz" not in c.source for line in c.source.splitlines()]
    assert not [line for line in lines if len(line) > WIDTH]


@each
def test_figures_have_alt_text(path: Path) -> None:
    """Each cell that shows an image says in words what it shows."""
    for cell in code_cells(path):
        if any(
            "image/png" in o.get("data", {}) or "image/svg+xml" in o.get("data", {}) for o in cell.outputs
        ):
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt) > 20, f"no alt text (cell metadata mystnb.image.alt): {cell.source[:80]!r}"


@each
def test_follows_the_template(path: Path) -> None:
    """Label, title, outcomes, runtime, summary, exercises with folded solutions, a quiz."""
    notebook = nbformat.read(path, as_version=4)
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    assert re.match(r"\([\w-]+\)=\n# ", notebook.cells[0].source), "the first cell is a label and a title"
    outcomes = set(re.findall(r"\{outcome\}`(tl-\w\w-\d+)`", prose))
    assert 3 <= len(outcomes) <= 5, f"three to five outcomes, not {sorted(outcomes)}"
    own = "li" if path.stem == "04b_listings" else path.stem[:2]
    assert all(o.startswith(f"tl-{own}-") for o in outcomes), sorted(outcomes)
    assert f"{{runtime}}`{path.stem}`" in prose
    assert re.search(r"^## Summary", prose, re.M)
    exercises = set(re.findall(r"\{exercise(?:-start)?\}[^\n]*\n(?:[:`]*\n)?:label: ([\w-]+)", prose))
    solutions = set(re.findall(r"\{solution(?:-start)?\} ([\w-]+)", prose))
    assert 2 <= len(exercises) <= 4, f"two to four exercises, not {sorted(exercises)}"
    assert exercises == solutions
    assert prose.count(":class: dropdown") >= len(solutions), "solutions are folded: `:class: dropdown`"
    assert any("display_quiz" in c.source for c in code_cells(path)), "no quiz"


@each
def test_stored_profile_is_laptop(path: Path) -> None:
    """The book shows the runs on real data."""
    stored = nbformat.read(path, as_version=4).metadata.get("tlhelpers", {})
    assert stored.get("profile") == provenance.STORED, f"make notebooks NOTEBOOK={path.stem}"


@each
def test_colab_cell(path: Path) -> None:
    """The first code cell is the Colab cell for the repository's address."""
    first = code_cells(path)[0]
    assert repo_url.TAG in provenance.tags(first)
    assert first.source == repo_url.cell_source(repo_url.stored_url()), "run: python -m tools.repo_url"
    assert not first.outputs
