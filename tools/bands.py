"""Write `tests/claims.toml`, the band that each claim must land in, from the committed measurements.

    python tools/bands.py

A band is the mean plus or minus three sample standard deviations (n - 1 in the denominator) of the measured
seeds. The values stand beside their band, so that the tests can check the band against them. Sections of
claims that have no measurements under ``benchmarks/results/`` are left as they are.
"""

import json
import math
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import stored_claims

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path("tests") / "claims.toml"
RESULTS = Path("benchmarks") / "results"
WIDTH = 3.0
MIN_SEEDS = 3
TOLERANCE = 1e-9
HEADER = """\
# The band that each claim must land in, by profile. Written by `python tools/bands.py` from the measurements
# in benchmarks/results/: `values` are the seeds, a band is their mean plus or minus 3 standard deviations.
"""

Bands = dict[str, dict[str, dict[str, Any]]]


def standard_deviation(values: Sequence[float]) -> float:
    """Return the sample standard deviation (n - 1 in the denominator) of at least two values."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def band(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the band of some measured values.

    Raises:
        ValueError: there are fewer than three values.
    """
    if len(values) < MIN_SEEDS:
        raise ValueError(f"A band needs at least {MIN_SEEDS} seeds; there are {len(values)}.")
    mean = math.fsum(values) / len(values)
    half = WIDTH * standard_deviation(values)
    return mean - half, mean + half


def measured(root: Path = ROOT) -> dict[str, dict[str, list[float]]]:
    """Return the committed measurements: claim name to profile to one value a seed.

    Raises:
        ValueError: two files measure the same claim in the same profile.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for path in sorted((root / RESULTS).glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if "records" not in content:
            continue  # runs.json, and tables that are no claims
        profile = content["profile"]
        here: dict[str, list[float]] = {}
        for seed in sorted(content["records"], key=int):
            for name, value in content["records"][seed]["values"].items():
                here.setdefault(name, []).append(float(value))
        for name, values in here.items():
            if profile in found.get(name, {}):
                raise ValueError(f"{path.name} measures {name!r} in {profile} a second time; rename one.")
            found.setdefault(name, {})[profile] = values
    return found


def holds(band: dict[str, Any], value: float) -> bool:
    """Return whether a value lies in a band; what a sum of equal numbers loses to rounding does not count."""
    return bool(band["low"] - TOLERANCE <= value <= band["high"] + TOLERANCE)


def read_bands(root: Path = ROOT) -> Bands:
    """Return the stored bands: claim name to profile to ``low``, ``high``, ``values``."""
    path = root / TARGET
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def number(value: float) -> str:
    """Return a number as TOML, with 9 significant digits."""
    text = f"{value:.12g}"
    return text if any(c in text for c in ".en") else f"{text}.0"


def as_toml(bands: Bands) -> str:
    """Return the text of the file."""
    lines = [HEADER]
    for name in sorted(bands):
        for profile in sorted(bands[name]):
            section = bands[name][profile]
            values = ", ".join(number(v) for v in section["values"])
            lines.append(
                f"[{name}.{profile}]\nlow = {number(section['low'])}\nhigh = {number(section['high'])}\n"
                f"values = [{values}]\n"
            )
    return "\n".join(lines)


def update(root: Path = ROOT) -> tuple[Bands, list[str]]:
    """Return the new bands, and what could not be given one.

    Only claims that a notebook records get a band; other measured quantities are left out.
    """
    bands, problems = read_bands(root), []
    claims = stored_claims.read_claims(root)
    bands = {name: profiles for name, profiles in bands.items() if name in claims}
    for name, profiles in measured(root).items():
        for profile, values in profiles.items():
            if name not in claims:
                continue
            try:
                low, high = band(values)
            except ValueError as error:
                problems.append(f"{name} ({profile}): {error}")
                continue
            bands.setdefault(name, {})[profile] = {"low": low, "high": high, "values": values}
    for name in claims:
        for profile in ("smoke", "laptop"):
            if profile not in bands.get(name, {}):
                problems.append(
                    f"{name} has no band for {profile}: make notebooks PROFILE={profile} MEASURE=1"
                )
    return bands, problems


def main() -> None:
    """Write the file and say what is missing."""
    bands, problems = update()
    (ROOT / TARGET).write_text(as_toml(bands), encoding="utf-8")
    print(f"{TARGET}: {sum(map(len, bands.values()))} bands of {len(bands)} claims")
    if problems:
        sys.exit("Missing:\n  " + "\n  ".join(problems))


if __name__ == "__main__":
    main()
