"""Ways to use a pretrained backbone, on the same images with as many passes: accuracy, time, memory.

    python benchmarks/comparison.py [--seeds 0 1 2] [--methods probe naive ...]

Takes hours. Each run is kept when it is done, and the same call goes on where it was stopped. A process of
its own trains one method with one seed, so that its peak memory can be read. Seconds are those of the
processor, both cores added up: they count work, not waiting, and so hardly depend on what else the machine
does.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from _common import RESULTS, memory_kb, table, write

import notebook_code
from tlhelpers import claims, comparison, data, evaluation
from tlhelpers.recipes import Recipe

IMAGE_SIZE, N_TEST, MOST_VALIDATION = 96, 2000, 1000
# Data set -> images a class, and the methods. The backbone was not made for digits.
PLAN = {
    "cifar10": ((5, 50, 500), tuple(comparison.METHODS)),
    "digits": ((5, 50), ("scratch", "probe", "naive", "probe_then_full")),
}


def runs(seeds: list[int], methods: list[str]) -> Iterator[tuple[str, str, int]]:
    """Yields data set, method and seed: everything with the first seed comes first."""
    for seed in seeds:
        for name, (_, planned) in PLAN.items():
            yield from ((name, method, seed) for method in planned if method in methods)


def key(name: str, method: str, per_class: int, seed: int) -> str:
    """Returns the name of a run in the file."""
    return f"{name}/{method}/{per_class}/{seed}"


def train(name: str, method: str, seed: int, per_class: int) -> dict[str, float]:
    """Trains one method once and tests it."""
    n_train = 10 * per_class
    loaded = data.load(
        name,
        n_train=n_train,
        n_val=min(n_train, MOST_VALIDATION),
        n_test=N_TEST if name != "digits" else None,
        seed=seed,
    )
    recipe = Recipe(comparison.epochs_for(n_train), 1e-3)
    setting = comparison.Setting(
        loaded, recipe, name != "digits", seed, "efficientnet_lite0", image_size=IMAGE_SIZE
    )
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
    begin, cpu = time.perf_counter(), time.process_time()
    accuracy, n_trained = comparison.accuracy(method, setting, loaded.x_test, loaded.y_test)
    return {
        "accuracy": accuracy,
        "cpu_seconds": time.process_time() - cpu,
        "wall_seconds": time.perf_counter() - begin,
        "peak_mb": memory_kb("VmHWM") / 1024,
        "n_trained": n_trained,
    }


def child(name: str, method: str, seed: int, sizes: list[int]) -> None:
    """Trains one method with one seed at several sizes; prints a line of JSON for each."""
    for per_class in sizes:
        found = train(name, method, seed, per_class)
        print(json.dumps({"key": key(name, method, per_class, seed)} | found), flush=True)


def grouped(done: dict[str, dict[str, float]]) -> Iterator[tuple[str, int, str, list[dict[str, float]]]]:
    """Yields data set, images a class, method, and its runs, one a seed; in the order of the plan."""
    for name, (sizes, methods) in PLAN.items():
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
                f"{means['cpu_seconds']:.0f}",
                f"{means['peak_mb']:.0f}",
                f"{means['n_trained']:,.0f}",
            ]
        )
    columns = ["data", "images a class", "method", "test accuracy", "seeds"]
    return table([*columns, "processor seconds", "peak MB", "trained weights"], rows)


def for_site(done: dict[str, dict[str, float]]) -> dict:
    """Returns ``columns`` and ``rows`` of the table that can be filtered, and ``values`` of the explorer."""
    columns: list[dict] = [{"name": name, "filter": True} for name in ("data", "images a class", "method")]
    columns += [
        {"name": "test accuracy (95 % interval)", "unit": "%"},
        {"name": "processor seconds", "filter": [30, 100, 300, 1000]},
        {"name": "peak memory (MB)"},
        {"name": "trained weights"},
    ]
    rows, values = [], {}
    for name, per_class, method, runs in grouped(done):
        accuracies, seconds = ([run[k] for run in runs] for k in ("accuracy", "cpu_seconds"))
        means = [
            round(sum(run[k] for run in runs) / len(runs)) for k in ("cpu_seconds", "peak_mb", "n_trained")
        ]
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


def values(done: dict[str, dict[str, float]], seed: int) -> dict[str, float] | None:
    """Returns accuracies and seconds of chapter 8 for one seed, like ``probe_few`` and ``probe_few_seconds``.

    ``None`` if a run is missing.
    """
    sizes, methods = PLAN["cifar10"]
    wanted = {
        f"{method}_{size}": key("cifar10", method, n, seed)
        for method in methods
        for size, n in zip(("few", "some", "many"), sizes, strict=True)
    }
    if not all(run in done for run in wanted.values()):
        return None
    accuracies = {claim: done[run]["accuracy"] for claim, run in wanted.items()}
    return accuracies | {f"{claim}_seconds": done[run]["cpu_seconds"] for claim, run in wanted.items()}


def main() -> None:
    """Goes on with what is not done yet; prints and writes after each process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(comparison.METHODS), choices=comparison.METHODS)
    parser.add_argument(
        "--keep", action="store_true", help="runs of other code stay: the change touched no result"
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
    if done and stored["code"] != notebook_code.code_hash(Path(__file__)) and not args.keep:
        raise SystemExit(
            f"{path.name} was measured with other code. Delete it to begin anew, or give --keep "
            "if what changed since cannot change a result."
        )
    for name, method, seed in runs(args.seeds, args.methods):
        missing = [n for n in PLAN[name][0] if key(name, method, n, seed) not in done]
        if not missing:
            continue
        command = [sys.executable, __file__, "--child", name, method, str(seed), *map(str, missing)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                found = json.loads(line)
                done[found.pop("key")] = found
                print(line.strip(), flush=True)
        if process.wait():
            raise SystemExit(f"{name}, {method}, seed {seed} failed: see above. What was done is kept.")
        store(done)
    store(done)  # also where nothing was missing: the code may be another one
    measured = {seed: found for seed in args.seeds if (found := values(done, seed))}
    if measured:
        claims.over_seeds(
            "08_comparison",
            "laptop",
            measured.__getitem__,
            list(measured),
            live=next(iter(measured.values())),
            measure_missing=True,
        )


if __name__ == "__main__":
    main()
