"""Syntax trees of modules and notebooks: their top-level statements, what these bind and use, and may change.

Standard library only; the same answers on every Python version.
"""

import ast
import functools
import symtable
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

PACKAGE = "tlhelpers"
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# Decorators that do nothing but change what they decorate (the last two are the auditor's: what a detector
# needs); any other one may register it somewhere.
PURE_DECORATORS = {
    "cache", "cached_property", "classmethod", "contextmanager", "dataclass", "lru_cache", "overload",
    "property", "staticmethod", "total_ordering", "wraps", "needs", "_harmless",
}  # fmt: skip
COMPUTED_IMPORTS = {"__import__", "import_module"}
Import = ast.Import | ast.ImportFrom


@dataclass(eq=False)
class Unit:
    """A statement at the top level, and the names that it binds and uses there.

    Attributes:
        node: Its syntax tree.
        binds: Names that it binds in its module.
        uses: Names of its module, or built-in, that it uses.
    """

    node: ast.stmt
    binds: set[str] = field(default_factory=set)
    uses: set[str] = field(default_factory=set)

    @property
    def is_definition(self) -> bool:
        """Whether it only defines a function or a class."""
        return isinstance(self.node, SCOPES)

    @property
    def is_import(self) -> bool:
        """Whether it is an import."""
        return isinstance(self.node, Import)

    @functools.cached_property
    def imports_library(self) -> bool:
        """Whether it imports something that is not of the package."""
        names = [n.module or "" if isinstance(n, ast.ImportFrom) else n.names[0].name for n in self.imports]
        return any(name.split(".")[0] != PACKAGE for name in names)

    @functools.cached_property
    def acts(self) -> bool:
        """Whether it may do more, while its module is imported, than bind a name."""
        match self.node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                return any(last_name(one) not in PURE_DECORATORS for one in self.node.decorator_list)
            case ast.Assign(targets=targets):
                return not all(isinstance(target, ast.Name | ast.Tuple) for target in targets)
            case ast.Expr(value=value):
                return not isinstance(value, ast.Constant)
        return not isinstance(self.node, Import | ast.AnnAssign)

    @functools.cached_property
    def canonical(self) -> str:
        """Its text, without docstrings."""
        return canonical(self.node)

    @functools.cached_property
    def chains(self) -> dict[str, set[tuple[str, ...]]]:
        """Each name in it with the attributes that follow."""
        return chains(self.node)

    @functools.cached_property
    def words(self) -> set[str]:
        """All names, attributes and imported names in it."""
        found = set(self.uses)
        for n in ast.walk(self.node):
            match n:
                case ast.Attribute(attr=word):
                    found.add(word)
                case ast.alias(name=name):
                    found |= set(name.split("."))
        return found

    @functools.cached_property
    def imports(self) -> list[Import]:
        """The imports that run when it runs."""
        return [node for node in own_nodes(self.node) if isinstance(node, Import)]

    @functools.cached_property
    def inner_imports(self) -> list[Import]:
        """The imports inside its functions."""
        return [n for n in ast.walk(self.node) if isinstance(n, Import) and n not in self.imports]

    @functools.cached_property
    def computes_imports(self) -> bool:
        """Whether it imports modules by computed names."""
        calls = (node for node in ast.walk(self.node) if isinstance(node, ast.Call))
        return any(last_name(call.func) in COMPUTED_IMPORTS for call in calls)


class Module:
    """The units of a module or notebook.

    Args:
        name: Dotted name, or the file's name.
        text: Its source, as Python.
        is_package: Whether it is an ``__init__.py``.
    """

    def __init__(self, name: str, text: str, is_package: bool = False) -> None:
        self.name, self.is_package = name, is_package
        self._take([unit_of(node) for node in ast.parse(text).body])

    def until(self, last: Unit, with_it: bool) -> "Module":
        """Return the same module as far as it has run when one of its units runs."""
        part = Module(self.name, "", self.is_package)
        part._take(self.units[: self.units.index(last) + with_it])
        return part

    def _take(self, units: list[Unit]) -> None:
        self.units = units
        self.binders: dict[str, list[Unit]] = {}
        for unit in self.units:
            for bound in unit.binds:
                self.binders.setdefault(bound, []).append(unit)
        every = [node for unit in self.units for node in [*unit.imports, *unit.inner_imports]]
        self.stars = [node for node in every if any(alias.name == "*" for alias in node.names)]

    @functools.cached_property
    def mutable(self) -> set[str]:
        """Names of objects whose state a statement can change: not of functions, modules and plain values."""
        plain: set[str] = set()
        while True:
            more = {n for n, units in self.binders.items() if all(binds_plain(u.node, plain) for u in units)}
            if more == plain:
                return set(self.binders) - plain
            plain = more

    def sources(self, node: Import) -> list[str]:
        """Return the dotted names of the modules that an import of this module names."""
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        base = node.module or ""
        if node.level:
            parts = self.name.split(".")
            parents = parts[: len(parts) - node.level + (1 if self.is_package else 0)]
            base = ".".join([*parents, base] if base else parents)
        return [base]


def unit_of(node: ast.stmt) -> Unit:
    """Return a statement with the names of its module that it binds and uses, by Python's rules of scope."""
    unit = Unit(node)

    def look(table: symtable.SymbolTable, top: bool) -> None:
        for symbol in table.get_symbols():
            if not top and table.get_type() == "class" and symbol.is_assigned() and symbol.is_referenced():
                unit.uses.add(symbol.get_name())  # x = x reads the outer one
            if top or symbol.is_global():
                if symbol.is_assigned() or symbol.is_imported() or (top and symbol.is_namespace()):
                    unit.binds.add(symbol.get_name())
                if symbol.is_referenced():
                    unit.uses.add(symbol.get_name())
        for child in table.get_children():
            look(child, False)

    copy = Generators().visit(ast.parse(ast.unparse(node)))
    look(symtable.symtable(ast.unparse(copy), "unit", "exec"), True)
    return unit


class Generators(ast.NodeTransformer):
    """Turns comprehensions into generators: since Python 3.12 only these keep their names to themselves."""

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp) -> ast.AST:
        self.generic_visit(node)
        return ast.GeneratorExp(node.elt, node.generators)

    visit_SetComp = visit_ListComp

    def visit_DictComp(self, node: ast.DictComp) -> ast.AST:
        self.generic_visit(node)
        return ast.GeneratorExp(ast.Tuple([node.key, node.value], ast.Load()), node.generators)


def binds_plain(node: ast.stmt, plain: set[str]) -> bool:
    """Whether all that a statement binds cannot be changed: functions, classes, modules, plain values."""
    if isinstance(node, ast.If):
        return all(binds_plain(inner, plain) for inner in [*node.body, *node.orelse])
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
        return is_plain(node.value, plain)
    return isinstance(node, (*SCOPES, ast.Import, ast.ImportFrom))


def is_plain(value: ast.expr, plain: set[str]) -> bool:
    """Whether an expression's value cannot be changed: a constant, or made of such; or a profile, frozen."""
    match value:
        case ast.Constant() | ast.Lambda() | ast.Compare() | ast.JoinedStr():
            return True
        case ast.Name(id=name):
            return name in plain
        case ast.Attribute(value=inner) | ast.Subscript(value=inner) | ast.UnaryOp(operand=inner):
            return is_plain(inner, plain)
        case ast.Tuple(elts=parts) | ast.BoolOp(values=parts):
            return all(is_plain(part, plain) for part in parts)
        case ast.BinOp(left=one, right=other) | ast.IfExp(body=one, orelse=other):
            return is_plain(one, plain) and is_plain(other, plain)
        case ast.Call(func=ast.Attribute(value=ast.Name(id="profiles"), attr="get")):
            return True
        case ast.Call(func=ast.Name(id="bool" | "float" | "int" | "len" | "round" | "str")):
            return True
    return False


def root_name(node: ast.AST) -> str | None:
    """Return ``a`` of ``a.b[c].d``, or of a call of it."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call | ast.Starred):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None


def last_name(node: ast.expr) -> str:
    """Return ``c`` of ``a.b.c``, or of a call of it."""
    if isinstance(node, ast.Call):
        return last_name(node.func)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def bound_name(alias: ast.alias) -> str:
    """Return the name that an import binds."""
    return alias.asname or alias.name.split(".")[0]


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what runs when a statement runs: not the bodies of functions that it defines."""
    yield node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from own_nodes(child)


def chains(node: ast.AST) -> dict[str, set[tuple[str, ...]]]:
    """Return each name with the attributes that follow it: ``("b", "c")`` for ``a.b.c``, ``()`` for ``a``."""
    found: dict[str, set[tuple[str, ...]]] = {}
    inner = set()
    for n in ast.walk(node):  # from the outside to the inside
        if isinstance(n, ast.Attribute | ast.Name) and n not in inner:
            path: tuple[str, ...] = ()
            at: ast.AST = n
            while isinstance(at, ast.Attribute):
                path, at = (at.attr, *path), at.value
                inner.add(at)
            if isinstance(at, ast.Name):
                found.setdefault(at.id, set()).add(path)
    return found


def canonical(node: Any, docstrings: bool = False) -> str:
    """Return a text of a syntax tree that is equal for code of equal meaning, on every Python version.

    `ast.dump` will not do: Python 3.13 leaves out empty fields where earlier versions print them.

    Args:
        node: The tree, or a part of it.
        docstrings: Whether they count.
    """
    if isinstance(node, ast.AST):
        fields = []
        for name, value in ast.iter_fields(node):
            if name in ("ctx", "kind", "type_comment", "type_ignores") or value is None or value == []:
                continue
            if name == "body" and isinstance(value, list) and not docstrings:
                value = [s for s in value if not is_bare(s)]
            if isinstance(node, ast.JoinedStr):  # Python 3.12 adds empty pieces to some f-strings
                value = [v for v in value if not (isinstance(v, ast.Constant) and v.value == "")]
            fields.append(f"{name}={canonical(value, docstrings)}")
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return f"[{','.join(canonical(part, docstrings) for part in node)}]"
    return repr(node)


def is_bare(node: ast.AST) -> bool:
    """Whether a statement is a mere constant: a docstring of a module, class, function or attribute."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
