"""Claims: the numbers that the text may use.

A notebook measures something once a seed. `over_seeds` keeps the measurements in a small file beside the
book, so that a chapter need not repeat hours of work; `record` publishes one quantity under a name. The text
pulls the number in by that name.

A stored measurement knows the code that made it. The tool that runs the notebooks knows the code of today and
hands its hash in; where nobody does, as on Colab, the stored code is not checked.
"""

import datetime
import importlib.metadata
import json
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from tlhelpers import data
from tlhelpers.course import profiles
from tlhelpers.intervals import RANGES, format_value, mean_interval
from tlhelpers.paths import atomic_path

GLUE_PREFIX = "application/papermill.record/"  # how myst-nb marks an output that the text may use
CODE = "TLHELPERS_CODE"  # environment: measurements -> {notebook or script that makes them: hash of its code}
_PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "onnxruntime", "scikit-learn", "numpy")
_INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
_SETTINGS = (
    "KERAS_BACKEND",
    "OMP_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "TF_ENABLE_ONEDNN_OPTS",
)


def record(
    name: str,
    values: float | Sequence[float] | np.ndarray,
    unit: str = "%",
    *,
    live: float | None = None,
    between: tuple[float, float] | None = None,
) -> None:
    """Publishes a measured quantity under a name.

    Prints name, mean and 95 % interval (`tlhelpers.intervals.mean_interval`), and stores the values in the
    notebook's output: what the book shows is computed from them.

    Args:
        name: Lower-case letters, digits and underscores; one name is recorded once in the whole course.
        values: One number a seed ``(k,)``.
        unit: ``"%"`` (values are fractions 0..1), ``"pp"`` (differences of such fractions), ``"s"``
            (seconds), ``"nats"``, or any other word, or ``""``.
        live: What this run itself measured, where ``values`` are stored measurements.
        between: The smallest and the largest value that there can be. Needed where the unit does not say it.

    Raises:
        ValueError: If the name or a value cannot be used; a value outside its range is one that cannot be.

    Example:
        >>> from tlhelpers.course import claims
        >>> claims.record("probe_accuracy", 0.812)
        probe_accuracy: 81.2 % (one seed)
    """
    if not name.isidentifier() or name.lower() != name:
        raise ValueError(
            f"A claim's name is made of lower-case letters, digits and underscores; this is {name!r}."
        )
    v = np.atleast_1d(np.asarray(values, float))
    if v.ndim != 1 or len(v) == 0 or not np.isfinite(v).all():
        raise ValueError(f"The claim {name!r} needs finite numbers, one a seed; these are {values!r}.")
    if between is None and unit not in RANGES:
        raise ValueError(f"What can {name!r} be? Its unit {unit!r} does not say: give between=(low, high).")
    lowest, highest = RANGES[unit] if between is None else between
    for value in (*v, *(() if live is None else (live,))):
        if not lowest <= value <= highest:
            raise ValueError(
                f"The claim {name!r} (unit {unit!r}) lies in {lowest:g} to {highest:g}; {value:g} cannot be."
            )
    mean, low, high = (format_value(end, unit) for end in mean_interval(v.tolist(), unit, between))
    text = f"{name}: {mean} ("
    text += f"95 % interval {low} to {high}, {len(v)} seeds)" if len(v) > 1 else "one seed)"
    claim = {"name": name, "values": v.round(6).tolist(), "unit": unit}
    claim["live"] = None if live is None else round(float(live), 6)
    if between is not None:  # JSON has no infinity
        claim["between"] = [end if math.isfinite(end) else None for end in between]
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
    """Measurements over seeds. Returned by `over_seeds`.

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
    """Returns the folder with the course's measurements, or ``None`` where only the package is installed.

    Example:
        >>> from tlhelpers.course import claims
        >>> folder = claims.results_dir()  # None, if there is no checkout
    """
    override = os.environ.get("TLHELPERS_RESULTS")
    folder = Path(override) if override else Path(__file__).parents[2] / "benchmarks" / "results"
    return folder if folder.is_dir() else None


def machine() -> dict[str, Any]:
    """Returns what measurements may depend on beside their code: processor, threads, settings, versions.

    Example:
        >>> from tlhelpers.course import claims
        >>> "numpy" in claims.machine()["versions"]
        True
    """
    model, flags = platform.processor() or platform.machine(), set()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = dict(line.split("\t", 1) for line in info.read_text().splitlines() if "\t" in line)
        model = lines.get("model name", ": " + model).partition(":")[2].strip()
        flags = set(lines.get("flags", "").split())
    affinity = getattr(os, "sched_getaffinity", None)
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": model,
        "instructions": [name for name in _INSTRUCTIONS if name in flags],
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "settings": {name: os.environ[name] for name in _SETTINGS if name in os.environ},
        "versions": versions,
    }


def read_records(path: Path) -> dict[str, dict[str, Any]]:
    """Returns the stored measurements of one file: seed -> record; nothing where there is no file.

    A record holds ``values`` (quantity -> number), ``seconds``, ``date``, and, since records know their
    code, ``by``, ``code``, ``data`` and ``machine``.

    Raises:
        ValueError: If the file is damaged.

    Example:
        >>> from pathlib import Path
        >>> from tlhelpers.course import claims
        >>> claims.read_records(Path("not_yet.json"))
        {}
    """
    if not path.is_file():
        return {}
    try:
        records = json.loads(path.read_text(encoding="utf-8"))["records"]
        for seed, found in records.items():
            int(seed)
            if not all(math.isfinite(value) for value in found["values"].values()):
                raise ValueError("a value is no finite number")
    except (ValueError, TypeError, KeyError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}). Take it from git again "
            f"(git checkout -- {path.name}, in its folder), or delete it and measure with MEASURE = True."
        ) from error
    return records


def over_seeds(
    chapter: str,
    profile: str,
    measure: Callable[[int], dict[str, float]],
    seeds: Sequence[int],
    *,
    live: dict[str, float] | None = None,
    measure_missing: bool = False,
) -> Measurements:
    """Combines the stored measurements of a chapter with one made now.

    Args:
        chapter: Name of the file with the measurements, such as ``"03_model_based"``.
        profile: Name of the profile.
        measure: Takes a seed and returns quantity -> number. It is the chapter's own code.
        seeds: All seeds of the claim.
        live: What was already measured now with the first seed, all quantities or some. ``None`` measures
            it here.
        measure_missing: Whether to measure, and store, the seeds for which nothing is stored, and those that
            other code has measured. Each seed is stored when it is done, so that a run that was stopped goes
            on where it was; several processes may measure at once.

    Returns:
        The stored measurements of all seeds beside the live one; where a seed is missing, the live one alone.

    Raises:
        FileNotFoundError: If there is no folder to store measurements in.
        ValueError: If a measured value is no finite number, if the file is damaged, or if the stored
            quantities are not those that are measured now.

    Example:
        >>> from tlhelpers.course import claims
        >>> found = claims.over_seeds("my_chapter", "smoke", lambda seed: {"gain": 0.1}, seeds=(0, 1))
        >>> found["gain"].tolist()
        [0.1]
    """
    folder = results_dir()
    path = folder / f"{chapter}.{profile}.json" if folder else None
    makers: dict[str, str] = json.loads(os.environ.get(CODE, "{}")).get(chapter, {})
    for seed in seeds if measure_missing else ():
        if path is None:
            raise FileNotFoundError(
                "There is no folder for the measurements. Run from a checkout of the course, "
                "or set TLHELPERS_RESULTS."
            )
        if is_current(read_records(path).get(str(seed)), makers):  # read anew: others measure, too
            continue
        start = time.perf_counter()
        values = _finite(measure(seed), chapter, seed)
        made = {"by": next(iter(makers)), "code": next(iter(makers.values()))} if makers else {}
        found = {"values": values, "seconds": round(time.perf_counter() - start, 1)}
        about = {
            "date": datetime.date.today().isoformat(),
            "data": data.source_of(profiles.get(profile).dataset),
            "machine": machine(),
        }
        _keep(path, chapter, profile, seed, found | made | about)
        if live is None and seed == seeds[0]:
            live = values
    if live is None:
        live = _finite(measure(seeds[0]), chapter, seeds[0])
    records = read_records(path) if path else {}
    if not all(str(s) in records for s in seeds):
        alone = {k: np.array([float(v)]) for k, v in live.items()}
        return Measurements(
            alone, (seeds[0],), live, f"this run alone, seed {seeds[0]}: no stored measurements"
        )
    names = list(records[str(seeds[0])]["values"])
    if any(set(records[str(s)]["values"]) != set(names) for s in seeds) or not set(live) <= set(names):
        raise ValueError(
            f"{path} holds other quantities than the notebook measures now, or not the same for each seed. "
            "Measure again (MEASURE = True; without the tool that runs the notebooks, delete the file first)."
        )
    values_by_name = {k: np.array([records[str(s)]["values"][k] for s in seeds]) for k in names}
    others = sum(not is_current(records[str(s)], makers) for s in seeds)
    checked = f"{others} of them by other code than today's" if others else "by the code of today"
    source = f"stored measurements of {len(seeds)} seeds ({checked if makers else 'code not checked'})"
    return Measurements(
        values_by_name, tuple(seeds), live, f"{source}; seed {seeds[0]} measured again in this run"
    )


def is_current(record: dict[str, Any] | None, makers: dict[str, str]) -> bool:
    """Returns whether a stored measurement is there and made by the code of today.

    Args:
        record: One seed's, or ``None`` where there is none.
        makers: Notebook or script -> hash of its code today. Empty: not known, so that each record will do.

    Example:
        >>> from tlhelpers.course.claims import is_current
        >>> is_current(None, {}), is_current({"by": "03", "code": "a1"}, {"03": "a1"})
        (False, True)
    """
    return record is not None and (not makers or makers.get(record.get("by", "")) == record.get("code", ""))


def _finite(values: dict[str, float], chapter: str, seed: int) -> dict[str, float]:
    found = {name: float(value) for name, value in values.items()}
    if bad := [f"{name} = {value}" for name, value in found.items() if not math.isfinite(value)]:
        raise ValueError(f"{chapter}, seed {seed}: {', '.join(bad)} is no finite number, and is not stored.")
    return found


def lock_of(path: Path) -> Path:
    """Returns the file that is locked while a file of measurements is changed.

    Example:
        >>> from pathlib import Path
        >>> from tlhelpers.course import claims
        >>> claims.lock_of(Path("01.laptop.json")).name
        '.01.laptop.json.lock'
    """
    return path.with_name(f".{path.name}.lock")


def _keep(path: Path, chapter: str, profile: str, seed: int, record: dict[str, Any]) -> None:
    """Adds one record to a file, beside what other processes have added meanwhile."""
    with filelock.FileLock(lock_of(path)):
        records = read_records(path) | {str(seed): record}
        ordered = {s: records[s] for s in sorted(records, key=int)}
        with atomic_path(path) as part:
            content = {"chapter": chapter, "profile": profile, "records": ordered}
            part.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
