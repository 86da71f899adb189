"""Wrong solutions, generated: the official solution of a task with one thing in it done wrong."""

import ast
import copy
from collections.abc import Iterator

import planted

Slot = tuple[ast.AST, str, int | None, ast.AST]  # parent, field, place in a list, node

OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}
COMPARISONS = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
}
OTHERS = {
    "mean": "sum",
    "sum": "mean",
    "min": "max",
    "max": "min",
    "argmax": "argmin",
    "argmin": "argmax",
    "ceil": "floor",
    "std": "var",
    "percentile": "quantile",
    "flatnonzero": "argsort",
    "ppf": "cdf",
    "predict": "fit_predict",
    "fit": "fit_transform",
    "GroupKFold": "KFold",
    "zeros": "ones",
}
UNWRAPPED = {"abs", "sorted", "reversed", "sqrt", "exp", "log", "argsort", "unique", "cov", "rankdata"}


def solution_cells(notebook: planted.Notebook) -> dict[str, str]:
    """Return the solved text of each task's cell. The marks of the solution stay in it, as comments."""
    return {
        name: planted.BROKEN.sub("", planted.text_of(cell))
        for name, cell in planted.cells_by_id(notebook).items()
        if cell["metadata"]["nbgrader"].get("solution") and cell["cell_type"] == "code"
    }


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """Yield what was changed, and the text of the changed cell; each text once.

    Only what the student writes is changed: the lines of the solution.
    """
    tree, own = ast.parse(source), _own_lines(source)
    seen = {ast.unparse(tree)}
    slots = list(_slots(tree))
    for number, slot in enumerate(slots):
        node = slot[3]
        if getattr(node, "lineno", _first_line(node)) not in own:
            continue
        for label, new in _changes(slot, _parameters(tree, node), _texts(tree)):
            changed = copy.deepcopy(tree)
            parent, field, place, _ = list(_slots(changed))[number]
            if place is None:
                setattr(parent, field, new)
            else:
                getattr(parent, field)[place] = new or ast.Pass()
            text = ast.unparse(ast.fix_missing_locations(changed))
            if text not in seen:
                seen.add(text)
                yield f"{label}: {ast.unparse(node).splitlines()[0][:90]}", text


def _own_lines(source: str) -> set[int]:
    own: set[int] = set()
    inside = False
    for number, line in enumerate(source.split("\n"), start=1):
        if "### BEGIN SOLUTION" in line or "### END SOLUTION" in line:
            inside = "BEGIN" in line
        elif inside:
            own.add(number)
    return own


def _first_line(node: ast.AST) -> int:
    """Return the line of a node without one, such as a slice: that of what is in it."""
    return next((n.lineno for n in ast.walk(node) if hasattr(n, "lineno")), 0)


def _slots(tree: ast.AST) -> Iterator[Slot]:
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            if isinstance(value, list):
                yield from ((parent, field, i, v) for i, v in enumerate(value) if isinstance(v, ast.AST))
            elif isinstance(value, ast.AST):
                yield parent, field, None, value


def _parameters(tree: ast.AST, node: ast.AST) -> list[str]:
    """Return the parameters of the outermost function that a node is in."""
    for function in getattr(tree, "body", []):
        if isinstance(function, ast.FunctionDef) and any(node is inner for inner in ast.walk(function)):
            return [argument.arg for argument in function.args.args]
    return []


def _texts(tree: ast.AST) -> list[str]:
    return sorted(
        {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    )


def _changes(slot: Slot, parameters: list[str], texts: list[str]) -> Iterator[tuple[str, ast.AST | None]]:
    parent, field, place, node = slot
    if isinstance(node, ast.stmt):
        if (
            not isinstance(node, ast.FunctionDef | ast.Return | ast.Import | ast.ImportFrom)
            and place is not None
        ):
            yield "left out", None
        if isinstance(node, ast.If):
            yield "negated", ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield from _of_a_name(node, parent, parameters)
    elif isinstance(node, ast.Constant):
        yield from _of_a_constant(node, parent, field, texts)
    elif isinstance(node, ast.Call):
        yield from _of_a_call(node)
    elif isinstance(node, ast.expr):
        yield from _of_an_expression(node)


def _of_a_name(node: ast.Name, parent: ast.AST, parameters: list[str]) -> Iterator[tuple[str, ast.AST]]:
    if node.id not in parameters:
        return
    if isinstance(parent, ast.Call) and ast.unparse(parent.func) == "len":  # any of the same length will do
        yield "the first left out", ast.parse(f"{node.id}[1:]", mode="eval").body
        return
    yield "reversed", ast.parse(f"{node.id}[::-1]", mode="eval").body
    yield "the first left out", ast.parse(f"{node.id}[1:]", mode="eval").body
    yield "ignored", ast.Constant(1)
    for other in parameters:
        if other != node.id:
            yield f"replaced by {other}", ast.Name(other, ast.Load())


def _of_a_constant(
    node: ast.Constant, parent: ast.AST, field: str, texts: list[str]
) -> Iterator[tuple[str, ast.AST]]:
    value = node.value
    if isinstance(value, bool):
        yield "flipped", ast.Constant(not value)
    elif isinstance(value, int):
        yield "one more", ast.Constant(value + 1)
        yield "one less", ast.Constant(value - 1)
    elif isinstance(value, float):
        yield "doubled", ast.Constant(2 * value)
    elif isinstance(value, str) and len(texts) > 1:
        yield "another text", ast.Constant(texts[(texts.index(value) + 1) % len(texts)])


def _of_a_call(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in OTHERS:
        new = copy.deepcopy(node)
        if isinstance(new.func, ast.Attribute):
            new.func.attr = OTHERS[name]
        else:
            new.func = ast.Name(OTHERS[name], ast.Load())
        yield f"{OTHERS[name]} for {name}", new
    if name in UNWRAPPED and node.args:
        yield f"without {name}", node.args[0]
    if len(node.args) > 1 and not any(isinstance(a, ast.Starred) for a in node.args):
        yield (
            "arguments swapped",
            ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords),
        )
    for i, keyword in enumerate(node.keywords):
        rest = [k for k in node.keywords if k is not node.keywords[i]]
        yield f"without {keyword.arg}", ast.Call(node.func, node.args, rest)
    if ast.unparse(node.func) == "keras.Model":
        yield "a copy for the shared layers", ast.Call(ast.Name("copied", ast.Load()), [node], [])


def _of_an_expression(node: ast.expr) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Sub | ast.Div | ast.Pow | ast.MatMult):
            yield "operands swapped", ast.BinOp(node.right, node.op, node.left)
        if type(node.op) in OPERATORS:
            yield "another operator", ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
        yield "only the left side", node.left
        yield "only the right side", node.right
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        for other in COMPARISONS.get(type(node.ops[0]), ()):
            yield "another comparison", ast.Compare(node.left, [other()], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield "and for or", ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        yield "only the first", node.values[0]
        yield "only the second", node.values[1]
    elif isinstance(node, ast.UnaryOp):
        yield "without the sign", node.operand
    elif isinstance(node, ast.IfExp):
        yield "the other branch", ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Tuple | ast.List) and isinstance(getattr(node, "ctx", None), ast.Load):
        if len(node.elts) == 2:
            yield "order swapped", type(node)(node.elts[::-1], ast.Load())
    elif isinstance(node, ast.Slice):
        for end in ("lower", "upper"):
            bound = getattr(node, end)
            if bound is not None:
                yield (
                    f"{end} end one less",
                    ast.Slice(
                        **{
                            "lower": node.lower,
                            "upper": node.upper,
                            "step": node.step,
                            end: ast.BinOp(bound, ast.Sub(), ast.Constant(1)),
                        }
                    ),
                )
