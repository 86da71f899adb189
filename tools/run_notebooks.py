"""Run chapters with papermill, and store the outputs of the ``laptop`` profile.

    python tools/run_notebooks.py --profile laptop [--notebook 03_model_based] [--measure] [--set NAME=VALUE]

A notebook is never run in place. The run goes to a temporary folder; if it succeeds, its outputs are cleaned
and replace the stored ones in one step, so a failure leaves the stored notebook untouched.
"""

import argparse
import contextlib
import datetime
import json
import os
import re
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import psutil
import yaml

import bands
import notebook_code
import stored_claims

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ("smoke", "laptop", "gpu")
STORED = "laptop"  # the profile whose outputs the book shows
INJECTED = "injected-parameters"
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
        peak_mb: Highest resident memory of the kernel and its children, in MB (10^6 bytes).
        claims: Claims that it recorded.
    """

    name: str
    profile: str
    path: Path
    seconds: float = 0.0
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


class PeakMemory:
    """Samples the resident memory of this process's descendants while it is open."""

    def __init__(self, interval: float = 0.2) -> None:
        self.interval = interval
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "PeakMemory":
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
def quiet_environment(profile: str) -> Iterator[None]:
    """Set the environment that kernels inherit: the profile, this checkout's package, no log noise."""
    wanted = {"TL_PROFILE": profile, "TF_CPP_MIN_LOG_LEVEL": "3", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    # The outputs carry a hash of this checkout's package, so this is the one that has to be used.
    wanted["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
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


def execute(path: Path, profile: str, out_dir: Path, parameters: dict[str, Any] | None = None) -> Run:
    """Run one notebook in one profile, into a folder.

    Args:
        path: The notebook; it is not changed.
        profile: ``"smoke"``, ``"laptop"`` or ``"gpu"``.
        out_dir: Where the executed notebook goes.
        parameters: Values for names in the notebook's ``parameters`` cell. The profile needs none.

    Returns:
        The run. Noise is already removed from its outputs.

    Raises:
        RunError: an unknown parameter, or a cell that failed: notebook, cell and error are named.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    given = {"PROFILE": profile, **(parameters or {})}
    check_parameters(path, given)
    run = Run(path.stem, profile, out_dir / path.name)
    start = time.perf_counter()
    with quiet_environment(profile), PeakMemory() as memory, warnings.catch_warnings():
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
                extra_arguments=["--IPKernelApp.log_level=50"],
            )
        except PapermillExecutionError as error:
            raise RunError(describe(path, run.path, error)) from None
    run.seconds = time.perf_counter() - start
    run.peak_mb = memory.peak / 1e6
    notebook = nbformat.read(run.path, as_version=4)
    clean(notebook)
    nbformat.write(notebook, run.path)
    run.claims = stored_claims.claims_in(notebook)
    return run


def describe(path: Path, executed: Path, error: Any) -> str:
    """Return one line about a failed cell, numbered as in the stored notebook, and the cell's first line."""
    cells = nbformat.read(executed, as_version=4).cells if executed.exists() else []
    index = 0
    first = ""
    for cell in cells:
        if any(tag == INJECTED or tag.startswith("papermill-error") for tag in cell.metadata.get("tags", [])):
            continue
        index += 1
        outputs = cell.get("outputs", [])
        if any(
            o.output_type == "error" and "raises-exception" not in cell.metadata.get("tags", [])
            for o in outputs
        ):
            first = next((line for line in cell.source.splitlines() if line.strip()), "")
            break
    return f"{path.name}, cell {index} ({first.strip()!r}): {error.ename}: {error.evalue}"


def clean(notebook: Any) -> None:
    """Remove, in place, what papermill added and what would differ between equal runs."""
    notebook.cells = [c for c in notebook.cells if INJECTED not in c.metadata.get("tags", [])]
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python"}
    count = 0
    for cell in notebook.cells:
        for key in ("papermill", "execution", "ExecuteTime", "collapsed"):
            cell.metadata.pop(key, None)
        if cell.metadata.get("tags") == []:
            cell.metadata.pop("tags")
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


def replace(path: Path, text: str) -> None:
    """Write a file in one step: readers see the old one or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def store(run: Run, path: Path, before: bytes, code: str) -> None:
    """Replace a stored notebook by its run.

    Args:
        run: The run.
        path: The stored notebook.
        before: What the stored notebook held when the run began.
        code: Its code hash when the run began.

    Raises:
        RunError: the outputs are unfit, or notebook or package were edited during the run.
    """
    notebook = nbformat.read(run.path, as_version=4)
    problems = unfit(notebook)
    if problems:
        raise RunError(f"{path.name}: not stored. " + "; ".join(problems))
    if path.read_bytes() != before or notebook_code.code_hash(path) != code:
        raise RunError(
            f"{path.name}: not stored, since it or the package was edited while it ran. Run it again."
        )
    notebook.metadata["tlhelpers"] = {
        "profile": run.profile,
        "code": code,
        "date": datetime.date.today().isoformat(),
    }
    nbformat.validate(notebook)
    replace(path, nbformat.writes(notebook) + "\n")


def note_run(run: Run, root: Path = ROOT) -> None:
    """Write seconds and peak memory of a run into ``benchmarks/results/runs.json``."""
    path = root / stored_claims.RUNS
    path.parent.mkdir(parents=True, exist_ok=True)
    runs = stored_claims.read_runs(root)
    runs.setdefault(run.name, {})[run.profile] = {
        "seconds": round(run.seconds, 1),
        "peak_mb": round(run.peak_mb),
        "date": datetime.date.today().isoformat(),
        "cores": os.cpu_count(),
    }
    replace(path, json.dumps(runs, indent=1, sort_keys=True) + "\n")


def table(runs: list[Run]) -> str:
    """Return the closing table."""
    width = max(8, *(len(run.name) for run in runs))
    lines = [f"{'notebook':<{width}}  profile  seconds  peak memory  claims"]
    for run in runs:
        memory = stored_claims.memory(run.peak_mb)
        lines.append(
            f"{run.name:<{width}}  {run.profile:<7}  {run.seconds:7.1f}  {memory:>11}  {len(run.claims):6d}"
        )
    return "\n".join(lines)


def outside_bands(runs: list[Run]) -> list[str]:
    """Return the claims whose mean or live value is outside the profile's band, or that have no band."""
    known = bands.read_bands()
    found = []
    for run in runs:
        for claim in run.claims:
            band = known.get(claim["name"], {}).get(run.profile)
            values = [v for v in (claim["mean"], claim.get("live")) if v is not None]
            if band is None:
                found.append(f"{run.name}: {claim['name']} has no band for {run.profile}")
            elif out := [v for v in values if not bands.holds(band, v)]:
                ends = f"{band['low']:.4g} to {band['high']:.4g}"
                found.append(f"{run.name}: {out[-1]:.4g} is outside {ends} ({claim['text']})")
    if not any(run.claims for run in runs):
        found.append("no claim was recorded, so none was compared")
    return found


def run_all(args: argparse.Namespace) -> list[Run]:
    """Run what the command line asks for.

    Raises:
        RunError: as `execute` and `store`.
    """
    paths = [find(args.notebook)] if args.notebook else notebooks()
    if not paths:
        raise RunError("There are no notebooks in notebooks/.")
    extra: dict[str, Any] = {}
    for setting in args.set:
        name, equals, value = setting.partition("=")
        if not equals:
            raise RunError(f"--set takes NAME=VALUE; this is {setting!r}.")
        extra[name] = yaml.safe_load(value)
    for path in paths:  # before anything runs
        check_parameters(
            path, {"PROFILE": args.profile, **({"MEASURE": True} if args.measure else {}), **extra}
        )
    runs = []
    with tempfile.TemporaryDirectory(prefix="tlhelpers-") as tmp:
        for number, path in enumerate(paths, 1):
            label = f"[{number}/{len(paths)}] {path.stem} ({args.profile})"
            if args.measure:
                print(f"{label} measuring ...", flush=True)
                execute(path, args.profile, Path(tmp), {"MEASURE": True, **extra})
            print(f"{label} ...", flush=True)
            if args.solutions:
                copy = with_solutions(path, Path(tmp))
                if copy is None:
                    print(f"{label}: no solution holds code")
                else:
                    runs.append(execute(copy, args.profile, Path(tmp), extra))
                continue
            before, code = path.read_bytes(), notebook_code.code_hash(path)
            run = execute(path, args.profile, Path(tmp), extra)
            runs.append(run)
            # A run with other parameters is not what the book shows.
            if args.store and not extra:
                if args.profile == STORED:
                    store(run, path, before, code)
                note_run(run)
    if not runs:
        raise RunError("Nothing was run.")
    return runs


def main() -> None:
    """Read the command line, run, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", default=STORED, choices=PROFILES)
    parser.add_argument("--notebook", help="one chapter, by name or number; otherwise all")
    parser.add_argument(
        "--measure", action="store_true", help="first measure, and keep, the seeds that are missing"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another parameter")
    parser.add_argument("--no-store", dest="store", action="store_false", help="run, but keep nothing")
    parser.add_argument(
        "--solutions", action="store_true", help="run the exercises' solutions, too, and keep nothing"
    )
    parser.add_argument("--check-bands", action="store_true", help="fail if a claim leaves its band")
    args = parser.parse_args()
    try:
        runs = run_all(args)
    except RunError as error:
        sys.exit(f"FAILED: {error}")
    print(table(runs))
    if args.check_bands and (outside := outside_bands(runs)):
        sys.exit("FAILED:\n  " + "\n  ".join(outside))


if __name__ == "__main__":
    main()
