"""Claims: the numbers that the text may use.

A notebook measures something once a seed. `over_seeds` keeps the measurements in a small file beside the
book, so that a chapter need not repeat hours of work; `record` publishes one quantity under a name. The text
pulls the number in by that name, and the tests compare it with its band.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tlhelpers.evaluation import t_interval
from tlhelpers.paths import atomic_path

GLUE_PREFIX = "application/papermill.record/"  # how myst-nb marks an output that the text may use
_PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "onnxruntime", "scikit-learn", "numpy")


def format_value(value: float, unit: str) -> str:
    """Formats a number for the text: ``%`` takes fractions, ``pp`` (points) differences of fractions."""
    if unit == "%":
        return f"{100 * value:.1f} %"
    if unit == "pp":
        return f"{100 * value:.1f} points"
    if unit == "s":
        return f"{value:.0f} s" if abs(value) >= 10 else f"{value:.1f} s"
    return f"{value:.3g}{' ' + unit if unit else ''}"


def record(
    name: str, values: float | Sequence[float] | np.ndarray, unit: str = "%", live: float | None = None
) -> None:
    """Publishes a measured quantity under a name.

    Prints one line and stores name, values, mean and 95 % t interval in the notebook's output.

    Args:
        name: Lower-case letters, digits and underscores; one name is recorded once in the whole course.
        values: One number a seed ``(k,)``.
        unit: ``"%"`` (values are fractions 0..1), ``"pp"`` (differences of such fractions), ``"s"``
            (seconds), or any other word, or ``""``.
        live: What this run itself measured, where ``values`` are stored measurements: it must fall into the
            same band.

    Raises:
        ValueError: If the name or a value cannot be used.
    """
    if not name.isidentifier() or name.lower() != name:
        raise ValueError(
            f"A claim's name is made of lower-case letters, digits and underscores; this is {name!r}."
        )
    v = np.atleast_1d(np.asarray(values, float))
    if v.ndim != 1 or len(v) == 0 or not np.isfinite(v).all():
        raise ValueError(f"The claim {name!r} needs finite numbers, one a seed; these are {values!r}.")
    mean, low, high = t_interval(v) if len(v) > 1 else (float(v[0]), None, None)
    text = f"{name}: {format_value(mean, unit)}"
    if low is not None and high is not None:
        text += f" (95 % interval {format_value(low, unit)} to {format_value(high, unit)}, {len(v)} seeds)"
    else:
        text += " (one seed)"
    claim = {"name": name, "values": v.round(6).tolist(), "mean": mean, "low": low, "high": high}
    claim |= {
        "unit": unit,
        "n": len(v),
        "text": text,
        "live": None if live is None else round(float(live), 6),
    }
    print(text)
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return
    if get_ipython() is not None:
        display(
            {f"{GLUE_PREFIX}text/plain": text},
            raw=True,
            metadata={"scrapbook": {"name": name, "mime_prefix": GLUE_PREFIX}, "tlhelpers_claim": claim},
        )


@dataclass(frozen=True)
class Measurements:
    """Measurements over seeds.

    Attributes:
        values: Quantity -> one number a seed, ``(k,)``, in the order of ``seeds``.
        seeds: The seeds.
        live: What this very run measured with the first seed.
        source: Where the values come from, in words.
    """

    values: dict[str, np.ndarray]
    seeds: tuple[int, ...]
    live: dict[str, float]
    source: str

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[name]


def results_dir() -> Path | None:
    """Returns the folder with the course's measurements, or ``None`` where only the package is installed."""
    override = os.environ.get("TLHELPERS_RESULTS")
    folder = Path(override) if override else Path(__file__).parents[1] / "benchmarks" / "results"
    return folder if folder.is_dir() else None


def over_seeds(
    chapter: str,
    profile: str,
    measure: Callable[[int], dict[str, float]],
    seeds: Sequence[int],
    live: dict[str, float] | None = None,
    partial: bool = False,
    measure_missing: bool = False,
) -> Measurements:
    """Combines the stored measurements of a chapter with one made now.

    Args:
        chapter: Name of the file with the measurements, such as ``"03_model_based"``.
        profile: Name of the profile.
        measure: Takes a seed and returns quantity -> number. It is the chapter's own code.
        seeds: All seeds of the claim.
        live: What was already measured now with the first seed. ``None`` measures it here.
        partial: Whether ``live`` holds only some of the quantities that ``measure`` returns.
        measure_missing: Whether to measure, and store, the seeds for which nothing is stored. Each seed is
            stored when it is done, so that a run that was stopped goes on where it was.

    Returns:
        The stored measurements of all seeds beside the live one; where a seed is missing, the live one alone.

    Raises:
        FileNotFoundError: If there is no folder to store measurements in.
        ValueError: If the stored quantities are not those that are measured now.
    """
    folder = results_dir()
    path = folder / f"{chapter}.{profile}.json" if folder else None
    records = json.loads(path.read_text(encoding="utf-8"))["records"] if path and path.is_file() else {}
    elapsed: float | None = None  # unknown where the caller measured
    if live is None:
        start = time.perf_counter()
        live, partial = measure(seeds[0]), False
        elapsed = time.perf_counter() - start
    for seed in seeds if measure_missing else ():
        if path is None:
            raise FileNotFoundError(
                "There is no folder for the measurements. Run from a checkout of the course, "
                "or set TLHELPERS_RESULTS."
            )
        if str(seed) in records:
            continue
        if seed == seeds[0] and not partial:
            values, seconds = live, elapsed
        else:
            start = time.perf_counter()
            values = measure(seed)
            seconds = time.perf_counter() - start
        records[str(seed)] = {
            "values": {k: round(float(v), 6) for k, v in values.items()},
            "seconds": None if seconds is None else round(seconds, 1),
            "date": datetime.date.today().isoformat(),
            "versions": _versions(),
        }
        content = {
            "chapter": chapter,
            "profile": profile,
            "records": {s: records[s] for s in sorted(records, key=int)},
        }
        with atomic_path(path) as part:
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if not all(str(s) in records for s in seeds):
        alone = {k: np.array([float(v)]) for k, v in live.items()}
        return Measurements(
            alone, (seeds[0],), live, f"this run alone, seed {seeds[0]}: no stored measurements"
        )
    names = list(records[str(seeds[0])]["values"])
    if any(set(records[str(s)]["values"]) != set(names) for s in seeds) or not set(live) <= set(names):
        raise ValueError(
            f"{path} holds other quantities than the notebook measures now, or not the same for each seed. "
            "Delete the file and measure again (MEASURE = True)."
        )
    values_by_name = {k: np.array([records[str(s)]["values"][k] for s in seeds]) for k in names}
    source = f"stored measurements of {len(seeds)} seeds; seed {seeds[0]} measured again in this run"
    return Measurements(values_by_name, tuple(seeds), live, source)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
