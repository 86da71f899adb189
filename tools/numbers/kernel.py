"""Runs one notebook in a fresh kernel, cleans its outputs, and says in one line why it failed."""

import contextlib
import json
import os
import re
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import psutil

from tools.numbers import provenance, stored, tidy
from tools.numbers.provenance import ROOT

PROFILES = ("smoke", "laptop", "gpu")
CELL_SECONDS = {"smoke": 600, "laptop": 3600, "gpu": 7200}  # the longest that a cell may take
MEASURING = 24  # so many times as long while seeds are measured
INJECTED = "injected-parameters"
# In a kernel `exit()` ends the run without an error; here it is one.
NO_EXIT = "def exit(*_):\n    raise RuntimeError('exit() ends the notebook before its end')\nquit = exit"
# What TensorFlow, Keras and their libraries write to stderr, whatever the code does.
NOISE = re.compile(
    r"oneDNN custom operations|cpu_feature_guard|TF-TRT|port\.cc|computation_placer|cuda_|cudart|AVX2|"
    r"All log messages before absl::InitializeLog|external/local_(tsl|xla)|successful NUMA node|"
    r"To enable the following instructions|Unable to register cu|XLA service|StreamExecutor|Compiled cluster|"
    r"triggered tf\.function retracing"  # it counts one trace for each new model as if they were one function
)
WARNING = re.compile(r"\b(\w*Warning): ")
SOLUTION = re.compile(r"^````\{solution\} ([\w-]+)\n(.*?)^````$", re.M | re.S)
CODE = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


class RunError(Exception):
    """A notebook could not be run, or its outputs cannot be stored; the message says where and why."""


@dataclass
class Run:
    """One run of one notebook.

    Attributes:
        name: The notebook's name without its suffix.
        profile: The profile.
        path: Where the executed notebook lies.
        seconds: Wall-clock time.
        cpu_seconds: What the processor worked in the kernel and its children, all cores added up.
        peak_mb: Highest resident memory of the kernel and its children, in MB (10^6 bytes).
        claims: Claims that it recorded.
    """

    name: str
    profile: str
    path: Path
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    claims: list[dict[str, Any]] = field(default_factory=list)


def notebooks(root: Path = ROOT) -> list[Path]:
    """Return the chapters, in order."""
    return sorted((root / "notebooks").glob("[0-9]*.ipynb"))


def find(name: str, root: Path = ROOT) -> Path:
    """Return the chapter of this name.

    Args:
        name: ``03_model_based``, with or without suffix or folder; the number alone will do.

    Raises:
        RunError: there is no such chapter.
    """
    wanted = Path(name).name.removesuffix(".ipynb")
    there = {p.stem: p for p in notebooks(root)}
    matches = [stem for stem in there if stem == wanted or stem.split("_")[0] == wanted]
    if len(matches) != 1:
        raise RunError(f"There is no notebook {name!r}. There are: {', '.join(there) or 'none'}.")
    return there[matches[0]]


class Watch:
    """Samples memory and processor time of this process's descendants while it is open."""

    def __init__(self, interval: float = 0.2) -> None:
        self.interval = interval
        self.peak = 0
        self.cpu: dict[int, float] = {}  # process -> seconds; those that have ended, too
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(self.interval):
            total = 0
            for child in me.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    total += child.memory_info().rss
                    times = child.cpu_times()
                    self.cpu[child.pid] = times.user + times.system
            self.peak = max(self.peak, total)


def check_parameters(path: Path, parameters: dict[str, Any]) -> None:
    """Compare parameters with those that the notebook's ``parameters`` cell defines.

    Raises:
        RunError: one of them is unknown. papermill alone would only print a line about it.
    """
    import papermill

    known = papermill.inspect_notebook(str(path))
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise RunError(
            f"{path.name}: unknown parameter {', '.join(unknown)}. Its cell tagged `parameters` defines: "
            f"{', '.join(known) or 'nothing'}."
        )


@contextlib.contextmanager
def environment(
    profile: str, makers: dict[str, dict[str, str]], results: Path | None = None
) -> Iterator[None]:
    """Set what kernels inherit: the profile, this checkout's package, the code of today, no log noise.

    Args:
        profile: The profile.
        makers: From `provenance.makers`.
        results: Where measurements lie; ``None`` for the repository's.
    """
    wanted = {"TL_PROFILE": profile, "TF_CPP_MIN_LOG_LEVEL": "3", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    # The outputs carry a hash of this checkout's package, so this is the one that has to be used.
    wanted["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    wanted["TLHELPERS_CODE"] = json.dumps(makers)
    if results is not None:
        wanted["TLHELPERS_RESULTS"] = str(results)
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def with_solutions(path: Path, folder: Path) -> Path | None:
    """Return a copy of a notebook that ends with the code of its exercises' solutions, one cell each.

    Where no solution holds code, there is no copy.
    """
    notebook = nbformat.read(path, as_version=4)
    prose = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    found = [(label, "".join(CODE.findall(text))) for label, text in SOLUTION.findall(prose)]
    cells = [nbformat.v4.new_code_cell(f"# solution of {label}\n{code}") for label, code in found if code]
    if not cells:
        return None
    notebook.cells += cells
    copy = folder / f"{path.stem}_solutions.ipynb"
    nbformat.write(notebook, copy)
    return copy


def execute(
    path: Path,
    profile: str,
    out_dir: Path,
    parameters: dict[str, Any] | None = None,
    cell_seconds: int | None = None,
    results: Path | None = None,
) -> Run:
    """Run one notebook in one profile, into a folder.

    Args:
        path: The notebook; it is not changed.
        profile: ``"smoke"``, ``"laptop"`` or ``"gpu"``.
        out_dir: Where the executed notebook goes.
        parameters: Values for names in the notebook's ``parameters`` cell. The profile needs none.
        cell_seconds: How long a cell may take; ``None``: see `CELL_SECONDS`.
        results: Where measurements lie. ``None``: those of the repository; in ``smoke``, whose values mean
            nothing and are not kept, a new folder beside the executed notebook.

    Returns:
        The run. Noise is already removed from its outputs.

    Raises:
        RunError: an unknown parameter; a cell that failed, took too long, ended the notebook, or whose kernel
            died. Notebook, cell and error are named.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    given = {"PROFILE": profile, **(parameters or {})}
    check_parameters(path, given)
    run = Run(path.stem, profile, out_dir / path.name)
    if results is None and profile == "smoke":
        results = out_dir / f"results-{path.stem}"
        results.mkdir(exist_ok=True)
    if cell_seconds is None:
        cell_seconds = CELL_SECONDS[profile] * (MEASURING if given.get("MEASURE") else 1)
    makers = provenance.makers(path, profile)
    start = time.perf_counter()
    with environment(profile, makers, results), Watch() as watch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            papermill.execute_notebook(
                str(path),
                str(run.path),
                parameters=given,
                kernel_name="python3",
                cwd=str(ROOT / "notebooks"),
                progress_bar=False,
                log_output=False,
                execution_timeout=cell_seconds,
                extra_arguments=["--IPKernelApp.log_level=50", f"--IPKernelApp.exec_lines={NO_EXIT}"],
            )
        except PapermillExecutionError as error:
            raise RunError(f"{where(path, run.path)}: {error.ename}: {error.evalue}") from None
        except CellTimeoutError:
            raise RunError(
                f"{where(path, run.path)}: stopped after {cell_seconds} s; --timeout allows another time"
            ) from None
        except DeadKernelError:
            raise RunError(
                f"{where(path, run.path)}, or the one before: the kernel died. The usual reason is too "
                f"little memory; it had used {stored.memory(watch.peak / 1e6)}"
            ) from None
    run.seconds = time.perf_counter() - start
    run.cpu_seconds = sum(watch.cpu.values())
    run.peak_mb = watch.peak / 1e6
    notebook = nbformat.read(run.path, as_version=4)
    if not_ended := unfinished(notebook):
        raise RunError(f"{path.name}, {not_ended}")
    clean(notebook)
    nbformat.write(notebook, run.path)
    run.claims = stored.claims_in(notebook)
    return run


def own_cells(notebook: Any) -> Iterator[tuple[int, Any]]:
    """Yield the cells of the stored notebook with their numbers, without those that papermill added."""
    own = (
        cell
        for cell in notebook.cells
        if not any(t == INJECTED or t.startswith("papermill-error") for t in cell.metadata.get("tags", []))
    )
    yield from enumerate(own, 1)


def named(number: int, cell: Any) -> str:
    """Return a cell's number and its first line."""
    first = next((line for line in cell.source.splitlines() if line.strip()), "")
    return f"cell {number} ({first.strip()[:80]!r})"


def where(path: Path, executed: Path) -> str:
    """Return the notebook, and the cell at which a run ended: one with an error, else the last that began."""
    cells = list(own_cells(nbformat.read(executed, as_version=4))) if executed.exists() else []
    began = [
        c for c in cells if c[1].cell_type == "code" and c[1].metadata.get("papermill", {}).get("start_time")
    ]
    failed = [c for c in began if error_of(c[1])]
    return ", ".join([path.name, *(named(*cell) for cell in (failed[:1] or began[-1:]))])


def error_of(cell: Any) -> str:
    """Return the name of the error in a cell's outputs; empty if there is none."""
    return next((o.ename for o in cell.get("outputs", []) if o.output_type == "error"), "")


def unfinished(notebook: Any) -> str:
    """Return what shows that a run without an error did not reach the notebook's end; empty if nothing does.

    papermill takes ``sys.exit()`` for a success.
    """
    for number, cell in own_cells(notebook):
        if cell.cell_type == "code" and cell.source.strip():
            if found := error_of(cell):
                return f"{named(number, cell)}: {found}: the notebook ended here"
            if cell.execution_count is None:
                return f"{named(number, cell)}: not reached"
    return ""


def clean(notebook: Any) -> None:
    """Remove, in place, what papermill added and what would differ between equal runs."""
    notebook.cells = [c for c in notebook.cells if INJECTED not in c.metadata.get("tags", [])]
    tidy.tidy(notebook)
    count = 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if cell.execution_count is not None:
            # Without the injected cell the numbers would have a gap.
            count += 1
            cell.execution_count = count
        cell.outputs = list(clean_outputs(cell.outputs, cell.execution_count))


def clean_outputs(outputs: list[Any], count: int | None) -> Iterator[Any]:
    """Yield outputs without noise lines, with pieces of one stream joined."""
    joined: list[Any] = []
    for output in outputs:
        if output.output_type == "stream" and joined and joined[-1].get("name") == output.name:
            joined[-1]["text"] += output.text
        else:
            joined.append(output)
    for output in joined:
        if output.output_type == "execute_result":
            output["execution_count"] = count
        if output.output_type == "stream":
            # In a notebook TensorFlow logs to stdout.
            begin = "" if output.name == "stderr" else "WARNING:tensorflow"
            lines = output.text.splitlines(keepends=True)
            lines = [line for line in lines if not (line.startswith(begin) and NOISE.search(line))]
            output["text"] = "".join(lines)
            if not output["text"].strip():
                continue
        yield output


def unfit(notebook: Any) -> list[str]:
    """Return what makes a run's outputs unfit to be stored: warnings, and other text on stderr."""
    found = []
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            if output.output_type != "stream":
                continue
            lines = output.text.strip().splitlines()
            if output.name == "stderr":
                line = next((text for text in lines if WARNING.search(text)), lines[0])
                found.append(f"cell {number} writes to stderr: {line.strip()[:200]}")
            elif logged := [line for line in lines if line.startswith("WARNING:")]:
                found.append(f"cell {number} logs a warning: {logged[0][:200]}")
    return found
