"""The package's plan: rooms in one order, nobody's private names used next door, no file too long to read."""

import ast
import functools
import io
import tokenize
from pathlib import Path

from tools.numbers import trees
from tools.numbers.provenance import ROOT

PACKAGE = ROOT / "tlhelpers"
# From the bottom to the top: a room imports from rooms below it, never from beside or above.
ORDER = (
    {"checks", "decision", "downloads", "extras", "fingerprint", "intervals", "layers", "paths", "batches"},
    {"cache", "data", "staging"},
    {"backbones", "losses", "recipes", "evaluation"},
    {"features", "plots"},
    {"heads", "trunk", "resume"},
    {"finetune", "streamed"},
    {"tuning", "scale"},
    {"audit", "course"},
    {"app"},
)
LINES = 350  # of a file, docstrings included
# Code lines of a room; core is all that is in none of the others.
LIMITS = {"audit": 1935, "app": 1550, "course": 400, "scale": 350, "core": 6350}
FUNCTION = 60  # code lines of a function, but for two that do one thing after another
LONG = {"_features": 70, "load": 65}  # all of `extract`; every check of a folder


def files() -> list[Path]:
    """Return the modules of the package."""
    found = sorted(PACKAGE.rglob("*.py"))
    assert len(found) > 30
    return found


def room(dotted: str) -> str:
    """Return the room of a module of the package; empty for the package itself."""
    return [*dotted.split("."), ""][1]


def module_name(path: Path) -> str:
    """Return the dotted name of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def imports(path: Path) -> list[tuple[str, str]]:
    """Return what a module imports of the package: modules, each with the name in it or ``""``."""
    module = trees.Module(module_name(path), path.read_text(encoding="utf-8"), path.name == "__init__.py")
    found = []
    for node in (n for u in module.units for n in [*u.imports, *u.inner_imports]):
        for source in module.sources(node):
            if source.split(".")[0] == "tlhelpers":
                names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else [""]
                found += [(source, name) for name in names]
    return [(f"{s}.{name}", "") if is_module(f"{s}.{name}") else (s, name) for s, name in found]


def is_module(dotted: str) -> bool:
    """Return whether a dotted name is a module of the package."""
    path = ROOT.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


@functools.cache
def lines_with_code(path: Path) -> set[int]:
    """Return the lines of a file that hold code: no docstrings, comments, blank lines."""
    text = path.read_text(encoding="utf-8")
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.NAME, tokenize.NUMBER, tokenize.STRING, tokenize.OP):
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and trees.is_bare(body[0]):
            lines -= set(range(body[0].lineno, body[0].end_lineno + 1))
    return lines


def code_lines(path: Path) -> int:
    """Return how many lines of a file hold code."""
    return len(lines_with_code(path))


def test_rooms_are_imported_in_one_order() -> None:
    """Data flows one way, and nothing looks up at what stands on it."""
    level = {name: number for number, names in enumerate(ORDER) for name in names}
    assert {room(module_name(path)) for path in files()} - {""} == set(level)
    seen, found = 0, []
    for path in files():
        here = room(module_name(path))
        for source, _ in imports(path):
            there = room(source)
            if here and there and here != there:
                seen += 1
                if level[there] >= level[here]:
                    found.append(f"{path.relative_to(ROOT)} imports {source}")
    assert seen > 30
    assert not found, "\n".join(found)


def test_no_room_uses_anothers_private_names() -> None:
    """What another room needs has a public name."""
    found = []
    for path in files():
        here = room(module_name(path))
        for source, name in imports(path):
            private = any(part.startswith("_") for part in (*source.split("."), name))
            if private and room(source) != here:
                found.append(f"{path.relative_to(ROOT)} imports {source} {name}")
        modules = {source.split(".")[-1] for source, name in imports(path) if not name}
        for name, paths in trees.chains(ast.parse(path.read_text(encoding="utf-8"))).items():
            used = sorted(chain[0] for chain in paths if chain and chain[0].startswith("_"))
            if name in modules and used:
                found.append(f"{path.relative_to(ROOT)} uses {name}.{used[0]}")
    assert not found, "\n".join(found)


def test_rooms_keep_their_budgets() -> None:
    """Code lines, without docstrings, comments and blank lines."""
    found: dict[str, int] = {}
    for path in files():
        here = room(module_name(path))
        here = here if here in LIMITS else "core"
        found[here] = found.get(here, 0) + code_lines(path)
    assert min(found.values()) > 0
    assert {name: found[name] for name, limit in LIMITS.items() if found[name] > limit} == {}


def test_no_function_is_too_long() -> None:
    """What does not fit on a screen has parts, which have names."""
    found = {}
    for path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                lines = lines_with_code(path) & set(range(node.lineno, node.end_lineno + 1))
                found[f"{path.relative_to(ROOT)} {node.name}"] = len(lines)
    assert len(found) > 300
    too_long = {name: n for name, n in found.items() if n > LONG.get(name.split()[-1], FUNCTION)}
    assert not too_long


def test_no_circle_inside_a_room() -> None:
    """Modules of a room import each other one way when they run."""
    below: dict[str, set[str]] = {}
    for path in files():
        module = trees.Module(module_name(path), path.read_text(encoding="utf-8"), path.name == "__init__.py")
        found = below[module_name(path)] = set()
        for node in (n for unit in module.units for n in unit.imports):
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            for source in module.sources(node):
                modules = {f"{source}.{name}" for name in names if is_module(f"{source}.{name}")}
                found |= modules or {source}
    below = {name: names & below.keys() for name, names in below.items()}
    assert sum(map(len, below.values())) > 100
    while leaves := [name for name, names in below.items() if not names & below.keys()]:
        for name in leaves:
            del below[name]
    assert not below, f"In a circle: {', '.join(sorted(below))}"


def test_no_file_is_too_long() -> None:
    """No file above 350 lines: what is longer has two subjects."""
    found = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in files()}
    assert {name: n for name, n in found.items() if n > LINES} == {}


def test_code_lines_are_counted(tmp_path: Path) -> None:
    """A docstring, a comment and an empty line are none; a text that is used is."""
    path = tmp_path / "a.py"
    path.write_text(
        '"""Doc.\n\nMore.\n"""\n\n# why\nx = """a\nb"""\n\n\ndef f():\n    """Doc."""\n    return x\n'
    )
    assert code_lines(path) == 4
