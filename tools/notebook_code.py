"""What results depend on: the code of a notebook or benchmark, and the modules of `tlhelpers` that it uses.

`code_hash` is stored with the outputs. Comments, blank lines, docstrings and layout do not count, so that
mending a comment does not ask for hours of computing. Standard library only; the same on every Python.
"""

import ast
import hashlib
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "tlhelpers"
# The cell that installs the package on Colab: it changes with the repository's address, the results do not.
IGNORED_TAG = "colab"
EXACT = "nbval-check-output"  # nbval compares this cell's output


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
    """Parse Python code, with IPython's ``%magic`` and ``!command`` lines turned into expressions.

    Raises:
        SyntaxError: the code is not Python.
    """
    lines = []
    for line in text.splitlines():
        bare = line.lstrip()
        if bare.startswith(("%", "!")):
            line = line[: len(line) - len(bare)] + repr(bare)
        lines.append(line)
    return ast.parse("\n".join(lines))


def canonical(node: Any) -> str:
    """Return a text of a syntax tree that is equal for code of equal meaning, on every Python version.

    `ast.dump` will not do: Python 3.13 leaves out empty fields where earlier versions print them.
    """
    if isinstance(node, ast.AST):
        fields = []
        for name, value in ast.iter_fields(node):
            if name in ("ctx", "kind", "type_comment", "type_ignores") or value is None or value == []:
                continue
            if name == "body" and isinstance(value, list):
                value = [s for i, s in enumerate(value) if not (i == 0 and is_docstring(node, s))]
            if isinstance(node, ast.JoinedStr):  # Python 3.12 adds empty pieces to some f-strings
                value = [v for v in value if not (isinstance(v, ast.Constant) and v.value == "")]
            fields.append(f"{name}={canonical(value)}")
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return f"[{','.join(map(canonical, node))}]"
    return repr(node)


def is_docstring(parent: ast.AST, first: ast.AST) -> bool:
    """Tell whether the first statement of a body is a docstring."""
    return (
        isinstance(parent, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )


def module_file(dotted: str, root: Path) -> Path | None:
    """Return the file of a module of the package, or ``None`` if there is no such module."""
    base = root.joinpath(*dotted.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def imported(tree: ast.AST, root: Path, package: str = "") -> set[str]:
    """Return the dotted names of the package's modules that a syntax tree imports, wherever in it.

    Args:
        tree: What to look through.
        root: The folder that holds the package.
        package: The dotted name of the package that the code stands in, for relative imports.
    """
    found: set[str] = set()
    aliases: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name.split(".")[0] == PACKAGE:
                    found.add(name.name)
                    aliases.add(name.asname or PACKAGE)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            if base.split(".")[0] == PACKAGE:
                found.add(base)
                found.update(f"{base}.{name.name}" for name in node.names)
    # `import tlhelpers`, then `tlhelpers.data.load(...)`: submodules load on first use.
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            found.add(f"{PACKAGE}.{node.attr}")
    return {dotted for dotted in found if module_file(dotted, root)}


def modules_used(cells: list[str], root: Path = ROOT) -> list[str]:
    """Return the dotted names of the package's modules that the cells use, directly or through others."""
    todo: set[str] = set()
    for text in cells:
        todo |= imported(parse(text), root)
    done: set[str] = set()
    while todo:
        dotted = todo.pop()
        done.add(dotted)
        path = module_file(dotted, root)
        assert path is not None
        inside = dotted if path.name == "__init__.py" else dotted.rpartition(".")[0]
        todo |= imported(ast.parse(path.read_text(encoding="utf-8")), root, inside) - done
    return sorted(done)


def code_hash(path: Path, root: Path = ROOT) -> str:
    """Return the hash of the code of a notebook or script, and of the part of the package that it uses.

    Args:
        path: The notebook, or a script in Python.
        root: The folder that holds the package.

    Raises:
        SyntaxError: a cell or a module is not Python.
    """
    text = path.read_text(encoding="utf-8")
    cells = [text] if path.suffix == ".py" else code_cells(json.loads(text))
    digest = hashlib.sha256()
    for text in cells:
        digest.update(canonical(parse(text)).encode() + b"\0")
    for dotted in modules_used(cells, root):
        file = module_file(dotted, root)
        assert file is not None
        digest.update(f"{dotted}:{canonical(ast.parse(file.read_text(encoding='utf-8')))}".encode() + b"\0")
    return digest.hexdigest()
