"""Ways to use a pretrained backbone, on the same labels with as many passes: accuracy, time, memory.

    python benchmarks/comparison.py [--seeds 0 1 2] [--methods probe naive ...] [--most 100] [--stamp]

Takes hours. Each run is kept when it is done, and the same call goes on where it was stopped. A process of
its own trains one method with one seed, so that its peak memory can be read, and has one core to itself.
Seconds are those that this core worked, from loading the backbone to the last test image, with an empty
cache. Where the code has changed since, --stamp first trains one run of each method again; it goes on with
the stored runs only if these come out as they were stored.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from _common import RESULTS, memory_kb, table, write

from tlhelpers import data, evaluation
from tlhelpers.course import claims, comparison
from tlhelpers.recipes import Recipe, epochs_for
from tools.numbers import provenance

IMAGE_SIZE, N_TEST = 96, 2000
# Data set, labels a class, methods. The backbone was not made for digits.
PLAN: list[tuple[str, tuple[int, ...], tuple[str, ...]]] = [
    ("cifar10", (5, 10, 20, 50, 100, 500), comparison.CORE),
    ("cifar10", (5, 50, 500), tuple(m for m in comparison.EQUAL if m not in comparison.CORE)),
    ("digits", (5, 50), (*comparison.CORE, "depths")),
    ("cifar10", (500,), ("more_of_all",)),
]
CHAPTER = {"08_comparison": comparison.EQUAL, "08_more": ("more_of_all",)}  # its two measurements


def runs(seeds: list[int], methods: list[str]) -> Iterator[tuple[str, str, int, tuple[int, ...]]]:
    """Yields data set, method, seed and sizes: everything with the first seed comes first."""
    for seed in seeds:
        for name, sizes, planned in PLAN:
            yield from ((name, method, seed, sizes) for method in planned if method in methods)


def key(name: str, method: str, per_class: int, seed: int) -> str:
    """Returns the name of a run in the file."""
    return f"{name}/{method}/{per_class}/{seed}"


def train(name: str, method: str, seed: int, per_class: int) -> dict[str, float]:
    """Trains one method once and tests it."""
    n_train = 10 * per_class
    n_test = N_TEST if name != "digits" else None
    loaded = data.load(name, n_train=n_train, n_val=0, n_test=n_test, seed=seed)
    recipe = Recipe(epochs=epochs_for(n_train), learning_rate=1e-3)
    setting = comparison.Setting(
        loaded, recipe, name != "digits", seed, "efficientnet_lite0", image_size=IMAGE_SIZE
    )
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as empty:
        os.environ["TLHELPERS_CACHE"] = empty
        accuracy, n_trained = comparison.accuracy(method, setting, loaded.x_test, loaded.y_test)
    return {
        "accuracy": accuracy,
        "seconds": time.process_time() - begin,
        "peak_mb": memory_kb("VmHWM") / 1024,
        "n_trained": n_trained,
    }


def train_apart(name: str, method: str, seed: int, sizes: list[int]) -> list[dict]:
    """Trains in a process of its own; returns what it printed."""
    command = [sys.executable, __file__, "--child", name, method, str(seed), *map(str, sizes)]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if printed.returncode:
        raise SystemExit(f"{name}, {method}, seed {seed} failed: see above. What was done before is kept.")
    return [json.loads(line) for line in printed.stdout.splitlines() if line.startswith("{")]


def take_core(cores: queue.SimpleQueue) -> None:
    """Binds a thread, and the processes that it starts, to one core, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cores.get()})


def child(name: str, method: str, seed: int, sizes: list[int]) -> None:
    """Trains one method with one seed at several sizes; prints a line of JSON for each."""
    for per_class in sizes:
        found = train(name, method, seed, per_class)
        print(json.dumps({"key": key(name, method, per_class, seed)} | found), flush=True)


def grouped(done: dict[str, dict[str, float]]) -> Iterator[tuple[str, int, str, list[dict[str, float]]]]:
    """Yields data set, images a class, method, and its runs, one a seed; in the order of the plan."""
    for name, sizes, methods in PLAN:
        for per_class in sizes:
            for method in methods:
                begin = f"{name}/{method}/{per_class}/"
                seeds = sorted(k for k in done if k.startswith(begin))
                if seeds:
                    yield name, per_class, method, [done[k] for k in seeds]


def show(done: dict[str, dict[str, float]]) -> dict:
    """Returns the table of everything that is done."""
    rows = []
    for name, per_class, method, runs in grouped(done):
        accuracies = [run["accuracy"] for run in runs]
        text = f"{100 * sum(accuracies) / len(runs):.1f} %"
        if len(runs) > 1:
            _, low, high = evaluation.t_interval(accuracies)
            text += f" ({100 * low:.1f} to {100 * high:.1f})"
        means = {k: sum(run[k] for run in runs) / len(runs) for k in runs[0]}
        rows.append(
            [
                name,
                per_class,
                method,
                text,
                len(runs),
                f"{means['seconds']:.0f}",
                f"{means['peak_mb']:.0f}",
                f"{means['n_trained']:,.0f}",
            ]
        )
    columns = ["data", "labels a class", "method", "test accuracy", "seeds"]
    return table([*columns, "seconds on one core", "peak MB", "trained weights"], rows)


def for_site(done: dict[str, dict[str, float]]) -> dict:
    """Returns ``columns`` and ``rows`` of the table that can be filtered, and ``values`` of the explorer."""
    columns: list[dict] = [{"name": name, "filter": True} for name in ("data", "labels a class", "method")]
    columns += [
        {"name": "test accuracy (95 % interval)", "unit": "%"},
        {"name": "seconds on one core", "filter": [30, 100, 300, 1000]},
        {"name": "peak memory (MB)"},
        {"name": "trained weights"},
    ]
    rows, values = [], {}
    for name, per_class, method, runs in grouped(done):
        accuracies, seconds = ([run[k] for run in runs] for k in ("accuracy", "seconds"))
        means = [round(sum(run[k] for run in runs) / len(runs)) for k in ("seconds", "peak_mb", "n_trained")]
        rows.append([name, per_class, method.replace("_", " "), accuracies, *means])
        values |= {
            f"{name}_{method}_{per_class}_accuracy": accuracies,
            f"{name}_{method}_{per_class}_seconds": seconds,
        }
    return {"columns": columns, "rows": rows, "values": values}


def store(done: dict[str, dict[str, float]]) -> None:
    """Prints the table of everything that is done, and writes it with the runs."""
    about = {"image_size": IMAGE_SIZE, "n_test": N_TEST, "runs": done}
    write("comparison", show(done), about | for_site(done))


def values(
    done: dict[str, dict[str, float]], chosen: Sequence[str], seed: int, most: int = 500
) -> dict[str, float] | None:
    """Returns what chapter 8 says of some methods and one seed: like ``probe_n5`` and ``probe_n5_seconds``.

    ``None`` if a run is missing.
    """
    wanted = {
        f"{method}_n{n}": key(name, method, n, seed)
        for name, sizes, methods in PLAN
        for method in methods
        for n in sizes
        if name == "cifar10" and method in chosen and n <= most
    }
    if not wanted or not all(run in done for run in wanted.values()):
        return None
    found = {claim: done[run]["accuracy"] for claim, run in wanted.items()}
    if chosen == comparison.EQUAL:
        found |= comparison.differences(found)
    return found | {f"{claim}_seconds": done[run]["seconds"] for claim, run in wanted.items()}


def check_again(done: dict[str, dict[str, float]]) -> None:
    """Trains the first and smallest stored run of each method again.

    Raises:
        SystemExit: One has another accuracy than before.
    """
    first = {}
    for name, per_class, method, _ in grouped(done):
        seed = min(int(k.rsplit("/", 1)[1]) for k in done if k.startswith(f"{name}/{method}/{per_class}/"))
        first.setdefault(method, (name, method, seed, per_class))
    for name, method, seed, per_class in first.values():
        (found,) = train_apart(name, method, seed, [per_class])
        before = done[found["key"]]["accuracy"]
        print(f"{found['key']}: accuracy {before} stored, {found['accuracy']} now", flush=True)
        if found["accuracy"] != before:
            raise SystemExit("Not stamped: the code gives another number, or this is another processor.")


def main() -> None:
    """Goes on with what is not done yet; prints and writes after each process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(comparison.METHODS), choices=comparison.METHODS)
    parser.add_argument("--most", type=int, default=500, help="labels a class, at most")
    parser.add_argument(
        "--stamp", action="store_true", help="go on with runs of other code, if some come out the same again"
    )
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        name, method, seed, *sizes = args.child
        child(name, method, int(seed), [int(n) for n in sizes])
        return
    path = RESULTS / "comparison.json"
    stored = json.loads(path.read_text()) if path.is_file() else {"runs": {}}
    done = stored["runs"]
    code = provenance.script_code(Path(__file__))
    if done and stored["code"] != code:
        if not args.stamp:
            raise SystemExit(
                f"{path.name} was measured with other code. Delete it to begin anew, or give --stamp "
                "if what changed since cannot change a result."
            )
        check_again(done)
    missing = [
        (name, method, seed, left)
        for name, method, seed, sizes in runs(args.seeds, args.methods)
        if (left := [n for n in sizes if n <= args.most and key(name, method, n, seed) not in done])
    ]
    cores: queue.SimpleQueue = queue.SimpleQueue()
    for core in os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else [0]:
        cores.put(core)
    with ThreadPoolExecutor(cores.qsize(), initializer=take_core, initargs=(cores,)) as pool:
        try:
            for future in as_completed([pool.submit(train_apart, *run) for run in missing]):
                for found in future.result():
                    done[found.pop("key")] = found
                store(done)
        finally:
            pool.shutdown(cancel_futures=True)
    store(done)  # also where nothing was missing: the code may be another one
    os.environ[claims.CODE] = json.dumps({c: {f"benchmarks/{Path(__file__).name}": code} for c in CHAPTER})
    for chapter, methods in CHAPTER.items():
        measured = {seed: found for seed in args.seeds if (found := values(done, methods, seed, args.most))}
        if measured:
            claims.over_seeds(
                chapter,
                "laptop",
                measured.__getitem__,
                list(measured),
                live=next(iter(measured.values())),
                measure_missing=True,
            )


if __name__ == "__main__":
    main()
