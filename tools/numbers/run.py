"""Run chapters with papermill, store the outputs of the ``laptop`` profile, and measure seeds.

    python -m tools.numbers.run --profile laptop [--notebook 03_model_based] [--measure] [--set NAME=VALUE]

A notebook is never run in place. The run goes to a temporary folder; if it succeeds, its outputs are cleaned
and replace the stored ones in one step, so a failure leaves the stored notebook untouched.
"""

import argparse
import contextlib
import datetime
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import nbformat
import psutil
import yaml

from tools.numbers import bands, provenance, stored
from tools.numbers.kernel import (
    PROFILES,
    Run,
    RunError,
    check_parameters,
    execute,
    find,
    notebooks,
    unfit,
    with_solutions,
)
from tools.numbers.provenance import ROOT, STORED


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
    if path.read_bytes() != before or provenance.output_code(path) != code:
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
    path = root / stored.RUNS
    path.parent.mkdir(parents=True, exist_ok=True)
    runs = stored.read_runs(root)
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
        memory = stored.memory(run.peak_mb)
        lines.append(
            f"{run.name:<{width}}  {run.profile:<7}  {run.seconds:7.1f}  {memory:>11}  {len(run.claims):6d}"
        )
    return "\n".join(lines)


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters that the command line sets.

    Raises:
        RunError: one is no setting, or may not be set so.
    """
    extra: dict[str, Any] = {}
    for setting in args.set:
        name, equals, value = setting.partition("=")
        if not equals:
            raise RunError(f"--set takes NAME=VALUE; this is {setting!r}.")
        if name in ("PROFILE", "MEASURE"):
            raise RunError(f"--set does not take {name}; there is --{name.lower()}.")
        extra[name] = yaml.safe_load(value)
    if extra and args.measure:
        raise RunError("--measure takes no --set: what is stored belongs to the notebook's own parameters.")
    return extra


def run_all(args: argparse.Namespace) -> list[Run]:
    """Run what the command line asks for.

    Raises:
        RunError: as `execute` and `store`.
    """
    paths = [find(args.notebook)] if args.notebook else notebooks()
    if not paths:
        raise RunError("There are no notebooks in notebooks/.")
    extra = settings(args)
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
                execute(path, args.profile, Path(tmp), {"MEASURE": True}, args.timeout)
            print(f"{label} ...", flush=True)
            if args.solutions:
                copy = with_solutions(path, Path(tmp))
                if copy is None:
                    print(f"{label}: no solution holds code")
                else:
                    runs.append(execute(copy, args.profile, Path(tmp), extra, args.timeout))
                continue
            before, code = path.read_bytes(), provenance.output_code(path)
            run = execute(path, args.profile, Path(tmp), extra, args.timeout)
            runs.append(run)
            if args.measure and (
                missing := set(stored.names_recorded(path)) - {c["name"] for c in run.claims}
            ):
                raise RunError(
                    f"{path.name}: after measuring, these claims are not recorded: {sorted(missing)}"
                )
            # A run with other parameters is not what the book shows.
            if args.store and not extra:
                if args.profile == STORED:
                    store(run, path, before, code)
                note_run(run)
    if not runs:
        raise RunError("Nothing was run.")
    return runs


def check_bands(runs: list[Run], args: argparse.Namespace) -> list[str]:
    """Return a line for each live value outside its band, after fresh seeds of its chapter."""
    suspects, compared = bands.suspects(runs)
    fresh: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="tlhelpers-") as tmp:
        results = Path(tmp, provenance.RESULTS)
        results.mkdir(parents=True)
        for chapter in sorted({suspect.chapter for suspect in suspects}):
            print(f"{chapter} ({args.profile}) measuring fresh seeds ...", flush=True)
            copy = Path(tmp, f"{chapter}.ipynb")
            text = find(chapter).read_text(encoding="utf-8")
            copy.write_text(bands.with_seeds(text), encoding="utf-8")
            try:
                execute(copy, args.profile, results, {"MEASURE": True}, args.timeout, results)
            except RunError as error:
                print(f"{chapter}: {error}")
        fresh = stored.quantities(args.profile, Path(tmp))
    lines = [bands.verdict(s, compared, [*fresh.get(s.name, {}).values()]) for s in suspects]
    return [*lines, f"{compared} live values compared, {len(suspects)} looked at twice"]


def stop(*_: Any) -> NoReturn:
    """End as Ctrl-C does."""
    raise KeyboardInterrupt


def main() -> None:
    """Read the command line, run, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", default=STORED, choices=PROFILES)
    parser.add_argument("--notebook", help="one chapter, by name or number; otherwise all")
    parser.add_argument(
        "--measure", action="store_true", help="first measure, and keep, the seeds that are missing or stale"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another parameter")
    parser.add_argument("--timeout", type=int, metavar="SECONDS", help="the longest that a cell may take")
    parser.add_argument("--no-store", dest="store", action="store_false", help="run, but keep nothing")
    parser.add_argument(
        "--solutions", action="store_true", help="run the exercises' solutions, too, and keep nothing"
    )
    parser.add_argument(
        "--check-bands",
        action="store_true",
        help="report claims that leave their band, after fresh seeds",
    )
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)
    try:
        runs = run_all(args)
        print(table(runs))
        if args.check_bands:
            print("\n".join(["Bands (a report; nothing fails):", *check_bands(runs, args)]))
    except RunError as error:
        sys.exit(f"FAILED: {error}")
    except KeyboardInterrupt:
        for child in psutil.Process().children(recursive=True):  # a kernel would work on for nobody
            with contextlib.suppress(psutil.Error):
                child.kill()
        print(
            "\nSTOPPED: no outputs were stored; seeds that were measured to their end are kept.",
            file=sys.stderr,
        )
        sys.exit(130)


if __name__ == "__main__":
    main()
