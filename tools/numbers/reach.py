"""Which code a result depends on, found by reading it: the definitions that an expression reaches.

A **unit** is a statement at the top level of a module or of a notebook: a function, a class, an assignment, a
loop. From an expression, such as the function `measure` of a chapter, the names that it uses lead to the
units that bind them, these to further names, and so on, through the notebook and the package. The rules take
rather too much than too little:

- a name that several statements bind reaches all of them, and a class is reached as a whole;
- a module that is used other than as `module.name` is reached as a whole; so is one that looks names up
  itself (`globals`, `eval`, `import *`), and the whole package where a module is imported by a computed name;
- what a module does while it is imported (statements that are no definitions, decorators that may register)
  counts wherever the module is imported;
- a statement of a notebook that may change a reached object counts: one that assigns to its parts, calls it
  or its methods, or hands it to a function, unless that function only looks (`trees.LOOKS`, `trees.READS`).

What a library keeps to itself (the state of a random generator, say) is followed no further than to the
statements of the notebook that call the library and drop the result. Standard library only.
"""

import ast
import builtins
import functools
from collections.abc import Iterable
from pathlib import Path

from tools.numbers.effects import changes, watch
from tools.numbers.trees import (
    PACKAGE,
    Import,
    Module,
    Unit,
    bound_name,
    canonical,
    chains,
    is_bare,
    last_name,
    own_nodes,
    root_name,
    unit_of,
)

PROFILES = "PROFILES"  # the table of the profiles: only the entry of one of them counts
SEEDS = "seeds"  # and of it not which seeds are asked for, unless they are used: each is measured by itself
BY_NAME = {"eval", "exec", "globals", "locals", "vars"}  # who uses them may use any name of its module
# Who uses these words may read what is no code in the package; `files` counts where resources are imported.
FILES = {"__file__", "__path__", "__spec__", "get_data", "getfile", "getsourcefile", "resources"}


class Reach:
    """Collects what some code reaches.

    Args:
        root: The folder that holds the package.
        home: The notebook or script where the search begins.
        folder: Where modules lie that the script may import; ``None`` for a notebook.
        profile: Name of the profile that counts; ``None`` counts all.
        cut: Names, each with its module, that are not followed.

    Attributes:
        units: The units reached, and the module of each.
    """

    def __init__(
        self,
        root: Path,
        home: Module,
        folder: Path | None = None,
        profile: str | None = None,
        cut: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.root, self.home, self.folder, self.profile = root, home, folder, profile
        self.units: dict[Unit, Module] = {}
        self._libraries: set[str] = set()
        self._files: set[Path] = set()
        self._loaded: set[str] = set()
        self._names: set[tuple[str, str, tuple[str, ...]]] = set()
        self._cut = set(cut)
        self._wholes: set[str] = set()
        self._modules: dict[str, Module | None] = {home.name: home}
        for unit in home.units:  # all its imports have run before anything is measured
            self._load_imported([*unit.imports, *unit.inner_imports], home)

    def everything(self, module: Module) -> None:
        """Reach all units of a module."""
        if module.name not in self._wholes:
            self._wholes.add(module.name)
            self._load(module.name)
            for unit in module.units:
                self.unit(unit, module)

    def expression(self, node: ast.expr) -> None:
        """Reach what an expression of the notebook uses, and what may change that."""
        asked = unit_of(ast.Expr(node))
        if unknown := {n for n in asked.uses if n not in self.home.binders and not hasattr(builtins, n)}:
            raise ValueError(f"{self.home.name}: not at the top level: {', '.join(sorted(unknown))}")
        if isinstance(node, ast.Name):
            self._follow(asked, self.home)
        else:  # a lambda, a partial: its own text counts
            self.unit(asked, self.home)
        binders = self.home.binders.items()
        modules = {name for name, units in binders if any(unit.imports for unit in units)}
        libraries = {name for name, units in binders if any(unit.imports_library for unit in units)}
        before = -1
        while before != len(self.units):
            before = len(self.units)
            known = {
                name for unit, module in self.units.items() if module is self.home for name in unit.binds
            }
            watched = watch(self.home.units, known, known & self.home.mutable, modules, libraries)
            for unit in self.home.units:
                if unit.acts if unit.is_definition else changes(own_nodes(unit.node), watched):
                    self.unit(unit, self.home)

    def unit(self, unit: Unit, module: Module) -> None:
        """Reach one unit and what it uses."""
        if unit not in self.units:
            self.units[unit] = module
            self._load(module.name)
            self._follow(unit, module)

    def text(self, docstrings: bool = False) -> list[str]:
        """Return what was reached, one text each, in an order that does not depend on the search.

        Args:
            docstrings: Whether they count.
        """

        def line(unit: Unit, module: Module) -> str:
            name, counted = "" if module is self.home else module.name, self._counted(unit, module)
            same = counted is unit.node and not docstrings
            return f"{name}: {unit.canonical if same else canonical(counted, docstrings)}"

        lines = [f"import {name}" for name in sorted(self._libraries)]
        lines += [f"file {path.name} {path.read_bytes().hex()}" for path in sorted(self._files)]
        for module in sorted(set(self.units.values()), key=lambda m: m.name):
            own = [u for u, m in self.units.items() if m is module and u not in module.units]  # expressions
            reached = own + [u for u in module.units if u in self.units and not u.is_import]
            if not docstrings:
                reached = [u for u in reached if not is_bare(u.node)]
            free = {
                u for u in reached if u.is_definition and all(len(module.binders[n]) == 1 for n in u.binds)
            }
            lines += sorted(line(unit, module) for unit in free)
            lines += [line(unit, module) for unit in reached if unit not in free]
        return lines

    def _follow(self, unit: Unit, module: Module) -> None:
        counted = self._counted(unit, module)
        paths = unit.chains if counted is unit.node else chains(counted)
        if unit.uses & BY_NAME:
            self.everything(module)
        if unit.words & FILES or ("files" in unit.words and imports_resources(module)):
            inside = (self.root / PACKAGE).rglob("*")
            found = {p for p in inside if p.is_file() and p.suffix not in (".py", ".pyc", ".typed")}
            # A file named like a module is read by it alone.
            own = self.root.joinpath(*module.name.split("."))
            self._files |= {
                p for p in found if p.with_suffix("") == own or not p.with_suffix(".py").is_file()
            }
        if unit.computes_imports:
            for file in sorted((self.root / PACKAGE).rglob("*.py")):
                parts = file.relative_to(self.root).with_suffix("").parts
                if (target := self._module(".".join(p for p in parts if p != "__init__"))) is not None:
                    self.everything(target)
        self._load_imported(unit.inner_imports, module)
        for node in unit.inner_imports:
            for name in map(bound_name, node.names):
                for path in paths.get(name, {()}):
                    self._import(node, name, module, path)
        for name in unit.uses:
            for path in paths.get(name, {()}):
                self._name(module, name, path)

    def _name(self, module: Module, name: str, path: tuple[str, ...] = ()) -> None:
        """Reach what `name.path` means in a module."""
        if (module.name, name, path) in self._names or (module.name, name) in self._cut:
            return
        self._names.add((module.name, name, path))
        self._load(module.name)
        for binder in module.binders.get(name, ()):
            for node in binder.imports:
                self._import(node, name, module, path)
            if not binder.is_import:
                self.unit(binder, module)
        if name in module.binders:
            return
        for star in module.stars:
            for source in module.sources(star):
                if (target := self._module(source)) is not None:
                    self.everything(target)
        known = hasattr(builtins, name) or name.startswith("__")
        if not known and not module.stars and module is not self.home:
            self.everything(module)  # made while the module runs: who knows from what

    def _import(self, node: Import, name: str, module: Module, path: tuple[str, ...]) -> None:
        """Reach what `name.path` means, where an import binds the name."""
        for alias in node.names:
            if bound_name(alias) != name:
                continue
            where = "" if module is self.home else f"{module.name}:"
            if isinstance(node, ast.Import):
                self._dotted(alias.name if alias.asname else name, path, where + name)
            else:
                self._dotted(module.sources(node)[0], (alias.name, *path), where + name)

    def _dotted(self, dotted: str, path: tuple[str, ...], name: str) -> None:
        """Reach `dotted.path`, known under a name: a submodule, a name of a module, or another library's."""
        while path and self._module(f"{dotted}.{path[0]}") is not None:
            dotted, path = f"{dotted}.{path[0]}", path[1:]
        target = self._module(dotted)
        if path or target is None:
            self._libraries.add(f"{name}={'.'.join((dotted, *path[:1]))}")
        if target is None:
            return
        if path:
            self._name(target, path[0], path[1:])
        else:
            self.everything(target)

    def _load_imported(self, nodes: list[Import], module: Module) -> None:
        for node in nodes:
            for dotted in module.sources(node):
                self._load(dotted)
                for alias in node.names if isinstance(node, ast.ImportFrom) else ():
                    self._load(f"{dotted}.{alias.name}")

    def _load(self, dotted: str) -> None:
        """Reach what a module does while it is imported, and what it imports."""
        module = self._module(dotted)
        if module is None or dotted in self._loaded:
            return
        self._loaded.add(dotted)
        if module is self.home:
            return
        self._load(dotted.rpartition(".")[0])
        for unit in module.units:
            self._load_imported(unit.imports, module)
            if unit.acts and dotted.startswith(PACKAGE):  # beside a script: what it needs to be found
                self.unit(unit, module)

    def _module(self, dotted: str) -> Module | None:
        """The module of the package, or beside the script; ``None`` for those of other libraries."""
        if dotted not in self._modules:
            base = self.root.joinpath(*dotted.split("."))
            files = [base / "__init__.py", base.with_suffix(".py")] if dotted.split(".")[0] == PACKAGE else []
            files += [self.folder / f"{dotted}.py"] if self.folder else []
            file = next((path for path in files if path.is_file()), None)
            if file is None:
                self._modules[dotted] = None
            else:
                text = file.read_text(encoding="utf-8")
                self._modules[dotted] = parsed(dotted, text, file.name == "__init__.py")
        return self._modules[dotted]

    def _counted(self, unit: Unit, module: Module) -> ast.AST:
        """The part of a unit that counts: of the table of profiles, one entry."""
        if not self.profile or PROFILES not in unit.binds or not module.name.endswith(".profiles"):
            return unit.node
        others = [node for u, m in self.units.items() if m is not module for node in ast.walk(u.node)]
        if any(self._asks_for_another_profile(node) for node in others):
            return unit.node
        asked = any(isinstance(node, ast.Attribute) and node.attr == SEEDS for node in others)
        return only_profile(unit.node, self.profile, asked)

    def _asks_for_another_profile(self, node: ast.AST) -> bool:
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name) if name == PROFILES:
                return True
            case ast.Call(func=func, args=[ast.Constant(value=name)]) if last_name(func) == "get":
                return root_name(func) == "profiles" and name not in (None, self.profile)
        return False


def imports_resources(module: Module) -> bool:
    """Whether a module can have `importlib.resources.files` under the name `files`."""
    nodes = [node for unit in module.units for node in (*unit.imports, *unit.inner_imports)]
    return any("resources" in ast.unparse(node) or "*" in ast.unparse(node) for node in nodes)


def only_profile(node: ast.stmt, profile: str, with_seeds: bool) -> ast.AST:
    """Return the part of the table of profiles that belongs to one.

    Where the table has another form than expected, all of it.
    """
    value = getattr(node, "value", None)
    if isinstance(value, ast.Dict):
        for key, entry in zip(value.keys, value.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == profile and isinstance(entry, ast.Call):
                seeds = [a for a in entry.args if isinstance(a, ast.Tuple)]  # the only tuple of a profile
                kept = [a for a in entry.args if with_seeds or len(seeds) != 1 or a is not seeds[0]]
                words = [k for k in entry.keywords if with_seeds or k.arg != SEEDS]
                return ast.Call(entry.func, kept, words)
    return node


@functools.lru_cache(maxsize=256)
def parsed(dotted: str, text: str, is_package: bool) -> Module:
    """Return a parsed module."""
    return Module(dotted, text, is_package)
