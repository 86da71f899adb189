"""Read what was recorded: claims from stored outputs, runtimes from ``runs.json``, tables of benchmarks.

Standard library only: the website's small environment and the tests use it too.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tlhelpers.intervals import format_value, mean_interval
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
    """Return all claims stored in ``notebooks/`` by name, with ``notebook``, ``profile`` and interval added.

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
            between = claim.get("between")
            if between is not None:  # JSON has no infinity
                low, high = between
                between = (-math.inf if low is None else low, math.inf if high is None else high)
            ends = mean_interval(claim["values"], claim["unit"], between)
            claims[name] = claim | dict(zip(("mean", "low", "high"), ends, strict=True))
            claims[name] |= {"n": len(claim["values"]), "notebook": path.stem, "profile": profile}
    return claims


def names_recorded(path: Path) -> list[str]:
    """Return the names of the claims that a notebook's stored outputs record."""
    return [claim["name"] for claim in claims_in(json.loads(path.read_text(encoding="utf-8")))]


def spread(ends: Sequence[float], unit: str) -> str:
    """Return the ends of an interval in words, the unit once."""
    texts = [format_value(end, unit) for end in ends]
    numbers, units = zip(*(text.split(" ", 1) if " " in text else (text, "") for text in texts), strict=True)
    return " to ".join([numbers[0] if units[0] == units[1] else texts[0], texts[1]])


def shown(claim: dict[str, Any], part: str = "") -> str:
    """Return a claim as the prose shows it.

    Args:
        claim: From `read_claims`.
        part: ``""`` for everything, ``"mean"`` or ``"interval"``.

    Raises:
        ValueError: there is no such part, or an interval was asked of a single value.
    """
    mean, unit = format_value(claim["mean"], claim["unit"]), claim["unit"]
    if part not in ("", "mean", "interval"):
        raise ValueError(f"A claim has no part {part!r}; write `name`, `name:mean` or `name:interval`.")
    if part == "mean":
        return mean
    if claim["n"] == 1:
        if part == "interval":
            raise ValueError(f"The claim {claim['name']!r} is a single value and has no interval.")
        return f"{mean} (one seed)"
    interval = spread((claim["low"], claim["high"]), unit)
    return interval if part == "interval" else f"{mean} (95 % interval {interval}, {claim['n']} seeds)"


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


def with_interval(values: Sequence[float], unit: str) -> str:
    """Return a quantity as a table shows it: ``83.9 % (82.8 to 84.9)``, or the number alone.

    Args:
        values: One number a seed.
        unit: ``"%"`` for shares, ``"pp"`` for differences of shares, or any other word, or ``""``.
    """
    mean, low, high = (format_value(value, unit) for value in mean_interval(values, unit))
    return f"{mean} ({low.split()[0]} to {high.split()[0]})" if len(values) > 1 else mean


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


def each_sentence(root: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """Yield each sentence, item and row of what readers see, in Markdown, with its file."""
    for path, text in prose(root).items():
        for block in BLOCK_END.split(text):
            for sentence in SENTENCE_END.split(block.strip().removeprefix("- ")):
                words = " ".join(sentence.split())
                if words.startswith("|"):  # a row of a table: its head, then its cells
                    words = words.strip("| ").replace(" | ", ": ", 1).replace(" | ", "; ")
                yield path, words


def sentences(root: Path = ROOT) -> dict[str, str]:
    """Return what the book says with each claim: name to the first sentence that uses it, in Markdown.

    A claim has no description of its own, which could say something else than the text does.
    """
    found: dict[str, str] = {}
    for _, words in each_sentence(root):
        for name in CLAIM_ROLE.findall(words):
            found.setdefault(name, words)
    return found


def quantities(profile: str, root: Path = ROOT) -> dict[str, dict[str, float]]:
    """Return the stored measurements of a profile: quantity to its value by seed.

    Chapter 8's accuracies on digits are there as well, which its benchmark stores run by run.

    Raises:
        ValueError: two files measure the same quantity.
    """
    found: dict[str, dict[str, float]] = {}
    for key, run in read_results(root).get("comparison", {}).get("runs", {}).items():
        name, method, per_class, seed = key.split("/")
        if name == "digits":
            found.setdefault(f"digits_{method}_n{per_class}", {})[seed] = float(run["accuracy"])
    for path in sorted((root / RUNS).parent.glob(f"*.{profile}.json")):
        here: dict[str, dict[str, float]] = {}
        for seed, record in json.loads(path.read_text(encoding="utf-8"))["records"].items():
            for name, value in record["values"].items():
                here.setdefault(name, {})[seed] = float(value)
        if twice := sorted(set(here) & set(found)):
            raise ValueError(f"{path.name} measures {twice[0]!r} a second time; rename one.")
        found |= here
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
