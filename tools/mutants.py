"""Change the package in one place at a time, and count the changes that its tests notice.

    pip install cosmic-ray==8.7.0
    python -m tools.mutants [--sample 300] [--workers 2]

cosmic-ray finds where a comparison, a number or an operator can be replaced. A sample of such places is drawn
with a fixed seed, and for each place one of its replacements. The tests of the room run against a copy of the
repository; a mutant that they let pass has survived. One run of them without a change tells which tests reach
which line, and these are asked. Where they let a mutant pass whose line is reached otherwise, too, by an
import, a fixture or another process, all tests are asked. What is done stands in `_build/mutants.jsonl`, so
that a run that was stopped goes on, as long as the file that was changed is the same.

Some survivors compute the same as before, so that no test can notice them. The sign for "or" of types is no
operator, and is left alone: the import would fail, which kills for nothing.
"""

import argparse
import hashlib
import json
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import coverage
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from coverage.data import combine_parallel_data

ROOT = Path(__file__).resolve().parent.parent
DONE = ROOT / "_build" / "mutants.jsonl"
LEAST = 0.85  # share of mutants that the tests have to notice
SEED = 0
# What is changed, and the tests that answer for it.
ROOMS = {
    "tlhelpers/data": "data folder_layouts faults_images run_folders paths properties scale",
    "tlhelpers/features": "features stale_features engines properties",
    "tlhelpers/heads.py": "heads checks properties",
    "tlhelpers/losses.py": "losses checks properties",
    "tlhelpers/evaluation": "evaluation calibration errors transferability checks properties",
}

COVERAGE = """
[run]
source = tlhelpers
dynamic_context = test_function
parallel = true
patch = subprocess
"""


@dataclass(frozen=True)
class Mutant:
    """One change: a file as it is, an operator of cosmic-ray and which of its places."""

    path: str
    sha256: str
    operator: str
    occurrence: int
    line: int


def mutants(sample: int) -> list[Mutant]:
    """Return a sample of places, each with one of its replacements; the same for the same code."""
    places: dict[tuple, list[Mutant]] = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")) or [ROOT / room]:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            nodes = list(ast_nodes(get_ast_from_path(path)))
            for name in operator_names():
                if "_BitOr_" in name or get_operator(name).arguments():
                    continue
                operator = get_operator(name)()
                found = [place for node in nodes for place in operator.mutation_positions(node)]
                for k, (start, end) in enumerate(found):
                    mutant = Mutant(str(path.relative_to(ROOT)), digest, name, k, start[0])
                    places.setdefault((mutant.path, start, end), []).append(mutant)
    draw = random.Random(SEED)
    return [draw.choice(places[place]) for place in draw.sample(sorted(places), min(sample, len(places)))]


def tests_of(path: str) -> list[str]:
    """Return the test files that answer for a module."""
    (names,) = [tests for room, tests in ROOMS.items() if path.startswith(room)]
    return [f"tests/test_{name}.py" for name in names.split()]


def run(copy: Path, tests: list[str], seconds: float, tool: Sequence[str] = ("pytest",)) -> bool:
    """Return whether tests pass in a copy of the repository; too slow is not passed."""
    options = ["-x", "-q", "-n", "0", "-m", "not slow"]
    command = [sys.executable, "-m", *tool, *options, *tests]
    env = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    nothing = subprocess.DEVNULL
    with subprocess.Popen(
        command, cwd=copy, env=env, stdout=nothing, stderr=nothing, start_new_session=True
    ) as process:
        try:
            return process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            return False


def reached_by(copy: Path, tests: list[str]) -> dict[tuple[str, int], list[list[str]]]:
    """Run tests without a change, and return for each line of the package whom to ask, in turn."""
    (copy / ".coveragerc").write_text(COVERAGE, encoding="utf-8")
    if not run(copy, tests, 3600, ("coverage", "run", "-m", "pytest")):
        sys.exit(f"Without a change, one of these fails: {' '.join(tests)}")
    data = coverage.CoverageData(str(copy / ".coverage"))
    combine_parallel_data(data, data_paths=[str(copy)])
    reached: dict[tuple[str, int], list[list[str]]] = {}
    for file in data.measured_files():
        path = str(Path(file).relative_to(copy.resolve()))
        for line, contexts in data.contexts_by_lineno(file).items():
            names = [name.rsplit(".", 1) for name in contexts if name]
            exact = [f"tests/{module.split('.')[-1]}.py::{function}" for module, function in names]
            otherwise = "" in contexts or not exact
            reached[path, line] = [asked for asked in (sorted(exact), tests * otherwise) if asked]
    data.erase()
    (copy / ".coveragerc").unlink()
    return reached


def survives(copy: Path, mutant: Mutant, asked: list[list[str]], seconds: float) -> bool:
    """Return whether all tests that are asked let a mutant pass."""
    file = copy / mutant.path
    before = file.read_text(encoding="utf-8")
    changed = mutate_code(before, get_operator(mutant.operator)(), mutant.occurrence)
    if changed is None or changed == before:
        raise RuntimeError(f"{mutant} changes nothing: cosmic-ray counts otherwise than it mutates.")
    file.write_text(changed, encoding="utf-8")
    try:
        return all(run(copy, tests, seconds) for tests in asked)
    finally:
        file.write_text(before, encoding="utf-8")


def copy_of_repository(folder: Path) -> Path:
    """Return a copy of all files that git knows."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def main() -> None:
    """Read the command line, run the sample, print what survived; fails where too much did."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=300, help="how many places are changed (300)")
    parser.add_argument("--workers", type=int, default=2, help="how many are tested at once (2)")
    args = parser.parse_args()
    chosen = mutants(args.sample)
    lines = DONE.read_text(encoding="utf-8").splitlines() if DONE.is_file() else []
    done = {Mutant(**entry["mutant"]): entry["survives"] for entry in map(json.loads, lines)}
    todo = [mutant for mutant in chosen if mutant not in done]
    print(f"{len(chosen)} mutants, {len(chosen) - len(todo)} of them known from before", flush=True)
    with tempfile.TemporaryDirectory(prefix="tlhelpers-mutants-") as tmp:
        copies: queue.Queue[Path] = queue.Queue()
        for k in range(args.workers):
            copies.put(copy_of_repository(Path(tmp) / str(k)))
        limits, reached = {}, {}
        for tests in {tuple(tests_of(mutant.path)) for mutant in todo}:
            start = time.perf_counter()
            reached[tests] = reached_by(copies.queue[0], [*tests])
            limits[tests] = 60 + 4 * (time.perf_counter() - start)
            print(f"{' '.join(tests)}: {time.perf_counter() - start:.0f} s without a change", flush=True)

        def judge(mutant: Mutant) -> tuple[Mutant, bool]:
            copy, tests = copies.get(), tuple(tests_of(mutant.path))
            asked = reached[tests].get((mutant.path, mutant.line), [[*tests]])
            try:
                return mutant, survives(copy, mutant, asked, limits[tests])
            finally:
                copies.put(copy)

        DONE.parent.mkdir(exist_ok=True)
        with ThreadPoolExecutor(args.workers) as pool, DONE.open("a", encoding="utf-8") as log:
            for mutant, survived in pool.map(judge, todo):
                done[mutant] = survived
                print(json.dumps({"mutant": asdict(mutant), "survives": survived}), file=log, flush=True)
    left = [mutant for mutant in chosen if done[mutant]]
    for mutant in sorted(left, key=lambda m: (m.path, m.line)):
        print(f"survived: {mutant.path}:{mutant.line} {mutant.operator.split('/')[-1]} ({mutant.occurrence})")
    killed = 1 - len(left) / len(chosen)
    print(f"{len(chosen) - len(left)} of {len(chosen)} noticed: {killed:.1%}")
    if killed < LEAST:
        sys.exit(f"Less than {LEAST:.0%}.")


if __name__ == "__main__":
    main()
