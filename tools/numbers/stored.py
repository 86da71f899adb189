"""Read what was recorded: claims from stored outputs, runtimes from ``runs.json``, tables of benchmarks.

Standard library only: the website's small environment and the tests use it too.
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.numbers import provenance

ROOT = Path(__file__).resolve().parents[2]
RUNS = Path("benchmarks") / "results" / "runs.json"
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
CLAIM_ROLE = re.compile(r"\{claim\}`([a-z_][a-z0-9_]*)(?::(?:mean|interval))?`")
# A paragraph ends at an empty line, an item of a list or a row of a table; a sentence at a full stop.
BLOCK_END = re.compile(r"\n\s*\n|\n(?=- |\| )")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z*{])")


def claims_in(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the claims stored in a notebook's outputs, in the order of the cells.

    Args:
        notebook: A notebook as read from its JSON.
    """
    found = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            claim = output.get("metadata", {}).get("tlhelpers_claim")
            if claim:
                found.append(claim)
    return found


def read_claims(root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """Return all claims stored in ``notebooks/`` by name, with ``notebook`` and ``profile`` added.

    Raises:
        ValueError: two notebooks, or two cells, record the same name.
    """
    claims: dict[str, dict[str, Any]] = {}
    for path in sorted((root / "notebooks").glob("[0-9]*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        profile = notebook["metadata"].get("tlhelpers", {}).get("profile", "")
        for claim in claims_in(notebook):
            name = claim["name"]
            if name in claims:
                raise ValueError(
                    f"The claim {name!r} is recorded in {claims[name]['notebook']} and again in {path.stem}. "
                    "A name is recorded once in the whole course; rename one."
                )
            claims[name] = {**claim, "notebook": path.stem, "profile": profile}
    return claims


def names_recorded(path: Path) -> list[str]:
    """Return the names of the claims that a notebook's stored outputs record."""
    return [claim["name"] for claim in claims_in(json.loads(path.read_text(encoding="utf-8")))]


def shown(claim: dict[str, Any], part: str = "") -> str:
    """Return a claim as the prose shows it.

    The numbers come from the line that `claims.record` printed, so that book and notebook agree.

    Args:
        claim: A stored claim.
        part: ``""`` for everything, ``"mean"`` or ``"interval"``.

    Raises:
        ValueError: there is no such part, or an interval was asked of a single value.
    """
    text = claim["text"].removeprefix(f"{claim['name']}: ")
    match = re.fullmatch(
        r"(?P<mean>.+?) \((?:95 % interval (?P<low>.+) to (?P<high>.+), (?P<n>\d+) seeds|one seed)\)", text
    )
    if not match:
        raise ValueError(f"The claim {claim['name']!r} has a text of unknown form: {claim['text']!r}.")
    if part == "mean":
        return match["mean"]
    if part not in ("", "interval"):
        raise ValueError(f"A claim has no part {part!r}; write `name`, `name:mean` or `name:interval`.")
    if match["low"] is None:
        if part == "interval":
            raise ValueError(f"The claim {claim['name']!r} is a single value and has no interval.")
        return text
    low, high = match["low"], match["high"]
    low_unit, high_unit = low.partition(" ")[2], high.partition(" ")[2]
    interval = f"{low.partition(' ')[0] if low_unit == high_unit else low} to {high}"
    return (
        interval if part == "interval" else f"{match['mean']} (95 % interval {interval}, {match['n']} seeds)"
    )


def read_runs(root: Path = ROOT) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the stored runs: notebook, profile, then ``seconds``, ``peak_mb``, ``date``, ``cores``."""
    path = root / RUNS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def read_results(root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """Return everything under ``benchmarks/results/`` by name: measurements of chapters, and benchmarks."""
    paths = sorted((root / RUNS).parent.glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def read_benchmarks(root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """Return the results of the benchmarks by name: those files that hold a ``table``."""
    return {name: content for name, content in read_results(root).items() if "table" in content}


def made_by(content: dict[str, Any], root: Path = ROOT) -> str:
    """Return in words which script made a benchmark's result, and whether its code has changed since."""
    changed = provenance.script_code(root / content["script"], root) != content["code"]
    return f"Made by {content['script']}" + ("; the code has changed since" if changed else "")


def quantity(results: dict[str, dict[str, Any]], file: str, key: str) -> list[float]:
    """Return a measured quantity, one number a seed.

    Args:
        results: From `read_results`.
        file: Name of the result: measurements of a chapter, or a benchmark with ``values`` (one, or a list).
        key: Name of the quantity.

    Raises:
        ValueError: there is no such file, or it has no such quantity for each seed.
    """
    if file not in results:
        raise ValueError(f"There is no result {file!r} in {RUNS.parent}.")
    content = results[file]
    if "records" in content:
        seeds = [record["values"].get(key) for record in content["records"].values()]
    else:
        value = content.get("values", {}).get(key)
        seeds = value if isinstance(value, list) else [value]
    if not seeds or not all(isinstance(value, int | float) for value in seeds):
        raise ValueError(f"The result {file!r} has no number {key!r}, or not one for each seed.")
    return seeds


def t_quantile(df: int, level: float = 0.95) -> float:
    """Return the two-sided quantile of Student's t distribution: |t| stays below it with probability `level`.

    For whole degrees of freedom the distribution is a finite sum (Abramowitz and Stegun, 26.7.3 and 26.7.4).
    The website's environment has no SciPy.
    """

    def inside(angle: float) -> float:
        """The probability of |t| < tan(angle) * sqrt(df)."""
        odd = df % 2
        term, total = (math.cos(angle) if odd else 1.0), 0.0
        for k in range(2 + odd, df + 1, 2):
            total += term
            term *= (k - 1) / k * math.cos(angle) ** 2
        return (angle + math.sin(angle) * total) * 2 / math.pi if odd else math.sin(angle) * total

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < level else (low, middle)
    return math.tan(low) * math.sqrt(df)


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean, lower and upper end of the 95 % t interval; a single value is all three."""
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return mean, mean, mean
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = t_quantile(n - 1) * spread / math.sqrt(n)
    return mean, mean - half, mean + half


def with_interval(values: Sequence[float], unit: str) -> str:
    """Return a quantity as a table shows it: ``83.9 % (82.8 to 84.9)``, or the number alone.

    Args:
        values: One number a seed.
        unit: ``"%"`` for shares, ``"pp"`` for differences of shares, or any other word, or ``""``.
    """
    factor, digits, word = {"%": (100, ".1f", "%"), "pp": (100, ".1f", "points")}.get(unit, (1, ".3g", unit))
    mean, low, high = (f"{factor * value:{digits}}" for value in t_interval(values))
    text = f"{mean} {word}".strip()
    return f"{text} ({low} to {high})" if len(values) > 1 else text


def measured(content: dict[str, Any], path: str, form: str = "") -> str:
    """Return a number of a benchmark as the prose shows it.

    Args:
        content: Of a benchmark, from `read_benchmarks`.
        path: Where the number stands, such as ``depths.1.ratio``.
        form: ``"%"`` for a share in percent; else two digits, or all digits of a whole number.

    Raises:
        ValueError: there is no number in that place.
    """
    value: Any = content
    for step in path.split("."):
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, TypeError, ValueError):
            raise ValueError(f"The benchmark has nothing at {path!r}; {step!r} is not there.") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"What the benchmark has at {path!r} is not a number: {value!r}.")
    if form == "%":
        return f"{100 * value:.1f} %"
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    digits, _, power = f"{value:.2g}".partition("e")
    return f"{digits} · 10{str(int(power)).translate(SUPERSCRIPT)}" if power else digits


def duration(seconds: float) -> str:
    """Return a duration in words: ``41 s``, ``6 min``."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def memory(megabytes: float) -> str:
    """Return an amount of memory in words: ``640 MB``, ``1.9 GB``."""
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def prose(root: Path = ROOT) -> dict[Path, str]:
    """Return the texts that readers see: the Markdown of the notebooks, then that of the book."""
    texts = {}
    for path in sorted((root / "notebooks").glob("[0-9]*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts[path] = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return texts | {p: p.read_text(encoding="utf-8") for p in sorted((root / "book").glob("**/*.md"))}


def names_in_prose(root: Path = ROOT) -> dict[str, list[str]]:
    """Return the claims that the prose uses: name to the files that use it."""
    used: dict[str, list[str]] = {}
    for path, text in prose(root).items():
        for name in CLAIM_ROLE.findall(text):
            used.setdefault(name, []).append(path.name)
    return used


def sentences(root: Path = ROOT) -> dict[str, str]:
    """Return what the book says with each claim: name to the first sentence that uses it, in Markdown.

    A claim has no description of its own, which could say something else than the text does.
    """
    found: dict[str, str] = {}
    for text in prose(root).values():
        for block in BLOCK_END.split(text):
            for sentence in SENTENCE_END.split(block.strip().removeprefix("- ")):
                words = " ".join(sentence.split())
                if words.startswith("|"):  # a row of a table: its head, then its cells
                    words = words.strip("| ").replace(" | ", ": ", 1).replace(" | ", "; ")
                for name in CLAIM_ROLE.findall(sentence):
                    found.setdefault(name, words)
    return found


def measured_on(claim: dict[str, Any], root: Path = ROOT) -> str:
    """Return the day, or the first and the last day, on which a claim's values were measured.

    Args:
        claim: From `read_claims`.
        root: The repository.

    Returns:
        ISO dates from the measurements under ``benchmarks/results/``; empty where these values are not there.
    """
    name, values = claim["name"], claim["values"]
    for path in sorted((root / RUNS).parent.glob(f"*.{claim['profile']}.json")):
        records = json.loads(path.read_text(encoding="utf-8")).get("records", {})
        # A claim shows six digits of what is stored.
        stored = [(round(r["values"][name], 6), r["date"]) for r in records.values() if name in r["values"]]
        if set(values) <= {value for value, _ in stored}:
            days = sorted({date for value, date in stored if value in values})
            return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return ""
