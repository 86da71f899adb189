"""Which statements of a notebook may change an object, a definition, a module, or the state of a library.

Standard library only.
"""

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field

from tools.numbers.trees import Unit, own_nodes, root_name

# What is handed to these is not changed: built-in functions, what draws, and what is usually called so.
LOOKS = {
    "abs", "all", "any", "bool", "display", "enumerate", "float", "getattr", "hasattr", "int", "isinstance",
    "len", "list", "max", "min", "print", "range", "repr", "round", "set", "sorted", "str", "sum", "tuple",
    "type", "zip", "ax", "axes", "claims", "display_quiz", "fig", "figure", "figures", "inspect", "plots",
    "plt",
}  # fmt: skip
# Methods of lists, dictionaries, texts and arrays that change nothing.
READS = {
    "astype", "copy", "count", "endswith", "format", "get", "index", "items", "join", "keys", "max", "mean",
    "min", "reshape", "round", "split", "startswith", "sum", "values",
}  # fmt: skip
# These hand on what they are given: what is changed through their result is changed.
PASS_ON = {
    "enumerate",
    "filter",
    "getattr",
    "iter",
    "list",
    "map",
    "next",
    "reversed",
    "set",
    "sorted",
    "tuple",
    "zip",
}


@dataclass
class Watched:
    """Names whose change matters.

    Attributes:
        objects: Objects that were reached, and other names for them or their parts.
        definitions: Reached functions, classes and plain values: only a store into them can change them.
        modules: Everything that was imported.
        libraries: What of it is from other packages; a call whose result is dropped may change their state.
        changers: Functions of the notebook that change something watched when they are called.
        droppers: Functions of the notebook that call a library and drop the result.
    """

    objects: set[str] = field(default_factory=set)
    definitions: set[str] = field(default_factory=set)
    modules: set[str] = field(default_factory=set)
    libraries: set[str] = field(default_factory=set)
    changers: set[str] = field(default_factory=set)
    droppers: set[str] = field(default_factory=set)


def changes(nodes: Iterable[ast.AST], watched: Watched) -> bool:
    """Whether one of these nodes may change what is watched."""
    return any(_changes(node, watched) for node in nodes)


def _changes(node: ast.AST, watched: Watched) -> bool:
    match node:
        case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
            return root_name(node) in watched.objects | watched.definitions | watched.modules
        case ast.AugAssign(target=target):
            return root_name(target) in watched.objects
        case ast.Expr(value=ast.Call() as call):
            return _drops(call, watched)
        case ast.Call(func=func):
            root = root_name(func)
            if root in watched.changers:
                return True
            if root in LOOKS and not isinstance(func, ast.Call):
                return False
            handed = handed_names([*node.args, *(word.value for word in node.keywords)])
            if isinstance(func, ast.Call):  # getattr(x, "append")(1)
                handed |= handed_names(func.args)
            changing = isinstance(func, ast.Attribute) and func.attr not in READS
            return bool(handed & watched.objects) or (changing and root in watched.objects)
    return False


def _drops(call: ast.Call, watched: Watched) -> bool:
    """Whether a call whose result nobody takes may have been made for what it changes."""
    root = root_name(call)
    if root in LOOKS:
        return False
    of_object = isinstance(call.func, ast.Attribute)
    of_part = isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Attribute)
    return (
        root in watched.libraries | watched.droppers | {"get_ipython"}
        or (of_object and root in watched.definitions)
        or (of_part and root in watched.modules)  # comparison.METHODS.update(...)
    )


def watch(
    units: list[Unit], known: set[str], objects: set[str], modules: set[str], libraries: set[str]
) -> Watched:
    """Return what to watch in a notebook.

    Args:
        units: Of the notebook.
        known: Names that were reached.
        objects: Those of them that are objects, whose state can change.
        modules: Names that were imported.
        libraries: Those of them that are from other packages.
    """
    statements = [node for unit in units if not unit.is_definition for node in own_nodes(unit.node)]
    found = Watched(aliases(statements, objects), known - objects, modules, libraries)
    functions = [(unit, list(ast.walk(unit.node))) for unit in units if unit.is_definition]
    before = -1
    while before != len(found.changers) + len(found.droppers):
        before = len(found.changers) + len(found.droppers)
        for unit, inside in functions:
            (name,) = unit.binds & {getattr(unit.node, "name", "")} or {""}
            seen = unit.uses | unit.binds
            mine = Watched(
                aliases(inside, objects & seen),
                (known & seen) - {name},
                set(),
                set(),
                found.changers - {name},
            )
            if (unit.binds - {name}) & known or changes(inside, mine):  # a global name, or an object
                found.changers.add(name)
            drops = Watched(libraries=libraries & seen, droppers=(found.droppers & seen) - {name})
            if changes(inside, drops):
                found.droppers.add(name)
    return found


def handed_names(values: Iterable[ast.AST]) -> set[str]:
    """Return the names of what is handed to a call, in lists and tables, too; inner calls stand alone."""
    found: set[str] = set()
    todo = list(values)
    while todo:
        value = todo.pop()
        match value:
            case ast.Call() | ast.Compare() | ast.JoinedStr() | ast.BinOp() | ast.UnaryOp():
                continue
            case ast.Attribute() | ast.Subscript() | ast.Starred() | ast.Name():
                found.add(root_name(value) or "")
            case _:
                todo += ast.iter_child_nodes(value)
    return found - {""}


def passed_on(value: ast.AST) -> set[str]:
    """Return the names of the objects of which a value may be a part, or another name."""
    match value:
        case ast.Call(func=ast.Name(id=name), args=args) if name in PASS_ON:
            return set().union(*map(passed_on, args))
        case ast.Call(func=ast.Attribute(attr="get" | "items" | "values" | "keys", value=inner)):
            return passed_on(inner)
        case ast.Call():
            return set()
    return handed_names([value])


def aliases(nodes: Iterable[ast.AST], objects: set[str]) -> set[str]:
    """Return names that may stand for one of these objects, or for a part of one; themselves included."""
    pairs: list[tuple[ast.AST, ast.AST]] = []
    for node in nodes:
        match node:
            case ast.Assign(targets=targets, value=value):
                pairs += [(target, value) for target in targets]
            case ast.AnnAssign(target=target, value=value) | ast.NamedExpr(target=target, value=value) if (
                value
            ):
                pairs.append((target, value))
            case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
                pairs.append((target, value))
            case ast.withitem(optional_vars=target, context_expr=value) if target:
                pairs.append((target, value))
    found = set(objects)
    while True:
        more = {
            name.id
            for target, value in pairs
            if passed_on(value) & found
            for name in ast.walk(target)
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
        } - found
        if not more:
            return found
        found |= more
