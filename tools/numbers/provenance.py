"""Which code a stored number belongs to.

Each measurement, each notebook's outputs and each benchmark's result is stored with a hash of the code that
it depends on: of the definitions that it reaches (see `reach`) as syntax trees. Comments, docstrings and
layout do not count, so that mending a comment does not ask for hours of computing. What has another hash than
its code has today, or none, is **stale**.

    python -m tools.numbers.provenance     lists what is stale, with the command that makes it anew

Standard library only; the same on every Python.
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.numbers.reach import Reach
from tools.numbers.trees import Module, last_name, own_nodes

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path("benchmarks") / "results"
WRITERS = {("_common", "write")}  # of the benchmarks
STORED = "laptop"  # the profile whose outputs the book shows
# The cell that installs the package on Colab: it changes with the repository's address, the results do not.
IGNORED_TAG = "colab"
EXACT = "nbval-check-output"  # nbval compares this cell's output
# A line of IPython's: a command, perhaps assigned to a name, or a question.
COMMAND = re.compile(r"(\s*)(\w+\s*=\s*)?([%!?].*|.*\?)$")
TIMED = re.compile(r"%time(?:it)?\s+(?!-)(.*)")


def tags(cell: dict[str, Any]) -> list[str]:
    """Return a cell's tags."""
    return cell.get("metadata", {}).get("tags", [])


def source(cell: dict[str, Any]) -> str:
    """Return a cell's text."""
    return "".join(cell["source"])


def code_cells(notebook: dict[str, Any]) -> list[str]:
    """Return the texts of the code cells that count, in order."""
    return [source(c) for c in notebook["cells"] if c["cell_type"] == "code" and IGNORED_TAG not in tags(c)]


def is_exact(path: Path) -> bool:
    """Tell whether nbval compares some of a notebook's outputs."""
    return any(EXACT in tags(c) for c in json.loads(path.read_text(encoding="utf-8"))["cells"])


def parse(text: str) -> ast.Module:
    """Parse Python code, with IPython's ``%magic`` and ``!command`` lines turned into calls of `get_ipython`.

    Raises:
        SyntaxError: the code is not Python.
    """
    if text.lstrip().startswith("%%"):
        first, _, rest = text.lstrip().partition("\n")
        if first[2:].split()[:1] not in (["time"], ["timeit"], ["capture"], ["prun"]):
            return ast.parse(f"get_ipython({text!r})")
        text = rest
    lines = text.split("\n")
    while True:
        try:
            return ast.parse("\n".join(lines))
        except SyntaxError as error:  # of IPython's lines, only where Python takes no line
            at = (error.lineno or 0) - 1
            found = COMMAND.match(lines[at]) if 0 <= at < len(lines) else None
            if not found:
                raise
            indent, target, command = found.groups()
            while command.endswith("\\") and at + 1 < len(lines):
                command = command[:-1] + lines.pop(at + 1)
                lines.append("")
            timed = TIMED.match(command)
            lines[at] = indent + (
                timed[1] if timed and not target else f"{target or ''}get_ipython({command!r})"
            )


def as_module(path: Path, cells: list[str]) -> Module:
    """Return a notebook's cells, or a script, as one module."""
    tree = ast.Module([node for text in cells for node in parse(text).body], [])
    return Module(path.name, ast.unparse(tree))


def digest(found: Reach, with_docstrings: bool = False) -> str:
    """Return the hash of what was reached."""
    lines = found.text(with_docstrings)
    return hashlib.sha256("\0".join(lines).encode()).hexdigest()


def measured(module: Module) -> dict[str, tuple[ast.expr, Module]]:
    """Return what a notebook measures.

    Returns:
        Name of the measurements to the function that takes a seed, and the notebook as far as it has run
        then: what stands below cannot matter.

    Raises:
        ValueError: a call of `over_seeds` does not name its measurements or its function outright, or stands
            inside a function.
    """
    found: dict[str, tuple[ast.expr, Module]] = {}
    for unit in module.units:
        top = set(map(id, own_nodes(unit.node)))
        for node in ast.walk(unit.node):
            if not isinstance(node, ast.Call) or last_name(node.func) != "over_seeds":
                continue
            given = dict(zip(("chapter", "profile", "measure"), node.args, strict=False))
            given |= {word.arg: word.value for word in node.keywords if word.arg}
            chapter = given.get("chapter")
            name = chapter.value if isinstance(chapter, ast.Constant) else None
            if not isinstance(name, str) or "measure" not in given:
                raise ValueError(f"{module.name}: name the measurements outright: {ast.unparse(node)[:80]}")
            if name in found:
                raise ValueError(f"{module.name} measures {name!r} twice; rename one.")
            if id(node) not in top:
                raise ValueError(f"{module.name}: call over_seeds at the top level: {ast.unparse(node)[:80]}")
            compound = not isinstance(
                unit.node, ast.Assign | ast.Expr
            )  # a loop may come back to its beginning
            found[name] = given["measure"], module.until(unit, compound)
    return found


def measurement_code(path: Path, profile: str, root: Path = ROOT) -> dict[str, str]:
    """Return the hashes of what a notebook measures: name of the measurements to the hash of their code.

    Args:
        path: The notebook.
        profile: The profile, whose values count as code.
        root: The folder that holds the package.
    """
    module = as_module(path, code_cells(json.loads(path.read_text(encoding="utf-8"))))
    hashes = {}
    for chapter, (function, before) in measured(module).items():
        found = Reach(root, before, profile=profile)
        found.expression(function)
        hashes[chapter] = digest(found)
    return hashes


def output_code(path: Path, root: Path = ROOT) -> str:
    """Return the hash of all the code of a notebook, which its outputs depend on.

    Args:
        path: The notebook.
        root: The folder that holds the package.
    """
    module = as_module(path, code_cells(json.loads(path.read_text(encoding="utf-8"))))
    found = Reach(root, module, profile=STORED)
    found.everything(module)
    # A notebook that prints source or docstrings shows them.
    return digest(found, with_docstrings="inspect" in {name for unit in module.units for name in unit.uses})


def script_code(path: Path, root: Path = ROOT) -> str:
    """Return the hash of a script and of what it reaches, but for what only writes results down.

    Args:
        path: The script, in Python; modules beside it count, too.
        root: The folder that holds the package.
    """
    module = as_module(path, [path.read_text(encoding="utf-8")])
    found = Reach(root, module, folder=path.parent, cut=WRITERS)
    found.everything(module)
    return digest(found)


def makers(path: Path, profile: str, root: Path = ROOT) -> dict[str, dict[str, str]]:
    """Return what `tlhelpers.course.claims.over_seeds` needs to know, as it stands in ``TLHELPERS_CODE``.

    Args:
        path: The notebook that is to be run.
        profile: The profile.
        root: The repository.

    Returns:
        Name of the measurements to notebook or script to the hash of its code today. The notebook comes
        first: what is measured now is its.
    """
    found = {}
    for chapter, code in measurement_code(path, profile, root).items():
        found[chapter] = {f"notebooks/{path.name}": code}
        for record in read_records(root / RESULTS / f"{chapter}.{profile}.json").values():
            by = record.get("by", "")
            if by.endswith(".py") and (root / by).is_file():  # a benchmark measured for the chapter
                found[chapter][by] = script_code(root / by, root)
    return found


def read_records(path: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a file of measurements, one a seed; nothing where there is no file."""
    return json.loads(path.read_text(encoding="utf-8"))["records"] if path.is_file() else {}


@dataclass(frozen=True)
class Stale:
    """Something stored that other code has made than today's, or code that is not known.

    Attributes:
        what: What it is, in words.
        why: What is wrong with it.
        command: What makes it anew.
    """

    what: str
    why: str
    command: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}; {self.command}"


def stale(root: Path = ROOT) -> list[Stale]:
    """Return everything stored that is not by the code of today: measurements, outputs, benchmarks."""
    return [*stale_measurements(root), *stale_outputs(root), *stale_benchmarks(root)]


def stale_measurements(root: Path = ROOT) -> Iterator[Stale]:
    """Yield the files of measurements that hold seeds of other code, or of code that is not known."""
    owner: dict[str, Path] = {}
    for path in sorted((root / "notebooks").glob("[0-9]*.ipynb")):
        module = as_module(path, code_cells(json.loads(path.read_text(encoding="utf-8"))))
        owner |= dict.fromkeys(measured(module), path)
    known: dict[tuple[Path, str], dict[str, dict[str, str]]] = {}
    for file in sorted((root / RESULTS).glob("*.*.json")):
        chapter, profile = file.stem.rsplit(".", 1)
        records = read_records(file)
        name = f"measurements {file.stem}"
        if chapter not in owner:
            yield Stale(name, "no notebook measures them", f"git rm {RESULTS / file.name}")
            continue
        key = owner[chapter], profile
        known[key] = known.get(key) or makers(*key, root)
        today = known[key][chapter]
        bad: dict[str, list[str]] = {}
        for seed, record in records.items():
            if "code" not in record:
                bad.setdefault("measured before code was stored with them", []).append(seed)
            elif today.get(record.get("by", "")) != record["code"]:
                bad.setdefault("measured by other code", []).append(seed)
        by = next((r["by"] for r in records.values() if r.get("by", "").endswith(".py")), "")
        option = "" if profile == STORED else f" PROFILE={profile}"
        command = f"python {by}" if by else f"make notebooks NOTEBOOK={owner[chapter].stem}{option} MEASURE=1"
        for why, seeds in bad.items():
            word = "seed" if len(seeds) == 1 else "seeds"
            yield Stale(name, f"{word} {', '.join(seeds)} {why}", command)


def stale_outputs(root: Path = ROOT) -> Iterator[Stale]:
    """Yield the notebooks whose stored outputs are not those of today's code."""
    for path in sorted((root / "notebooks").glob("[0-9]*.ipynb")):
        stored = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("tlhelpers", {}).get("code")
        if stored != output_code(path, root):
            why = "made by other code" if stored else "no run is stored"
            yield Stale(f"outputs of {path.stem}", why, f"make notebooks NOTEBOOK={path.stem}")


def stale_benchmarks(root: Path = ROOT) -> Iterator[Stale]:
    """Yield the results of benchmarks whose script, or what it reaches, has changed."""
    for file in sorted((root / RESULTS).glob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        if "script" in content and content["code"] != script_code(root / content["script"], root):
            yield Stale(f"benchmark {file.stem}", "made by other code", f"python {content['script']}")


def main() -> None:
    """Print the list."""
    found = stale()
    print("\n".join(map(str, found)) or "Everything stored is by the code of today.")


if __name__ == "__main__":
    main()
