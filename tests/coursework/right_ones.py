"""Right solutions that differ from ours, and from each other: in method, in type, in what they return.

They stand in `right/<assignment>*.txt`. A line ``#: item / piece | forms`` begins one way to write a piece
of an item's cell; further blocks of the same name are other ways. Forms are what else the piece may hand
out and still be right.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent / "right"
FORMS = """
import collections as _collections
import types as _types


def _each(value, change):
    if isinstance(value, (tuple, list)):
        return type(value)(_each(v, change) for v in value)
    if isinstance(value, (float, np.floating)) or (isinstance(value, np.ndarray) and value.dtype.kind == "f"):
        return change(value)
    return value


def _returning(function, change):
    return lambda *given, **named: change(function(*given, **named))


def _float32(function):
    return _returning(function, lambda found: _each(found, np.float32))


def _numpy(function):
    return _returning(function, np.asarray)


def _list(function):
    return _returning(function, list)


def _tolist(function):
    return _returning(function, lambda found: found.tolist())


def _sorted(table):
    return dict(sorted(table.items()))


def _ordered(table):
    kind = _collections.OrderedDict
    return kind(table) if isinstance(table, dict) else _returning(table, kind)


def _extra(table):
    return {**table, "a note of my own": "a"}


def _proxy(table):
    return _types.MappingProxyType(table)


def _pairs(table):
    return _collections.ChainMap(dict(table))
"""


def pieces(assignment: str) -> dict[str, dict[str, list[str]]]:
    """Return item -> piece -> the ways to write it."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in sorted(FOLDER.glob(f"{assignment}*.txt")):
        for block in path.read_text(encoding="utf-8").split("#: ")[1:]:
            head, _, text = block.partition("\n")
            name, _, forms = head.partition("|")
            item, piece = (part.strip() for part in name.split("/"))
            ways = found.setdefault(item, {}).setdefault(piece, [])
            ways.append(text)
            defined = [
                n.name if hasattr(n, "name") else n.targets[0].id for n in ast.parse(text).body if _names(n)
            ]
            ways += [f"{text}{defined[-1]} = _{form}({defined[-1]})\n" for form in forms.split()]
    return found


def _names(node: ast.stmt) -> bool:
    simple = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    return simple or isinstance(node, ast.FunctionDef | ast.ClassDef)


def solutions(assignment: str) -> dict[str, list[str]]:
    """Return item -> right solutions, all different; each way to write a piece is in one of them."""
    found = {}
    for item, parts in pieces(assignment).items():
        most = max(9, *(len(ways) for ways in parts.values()))
        texts: dict[str, None] = {}
        for number in range(4 * most):
            # Pieces with equally many ways do not go in step: later rounds combine them otherwise.
            chosen = [
                ways[(number + k * (number // len(ways))) % len(ways)]
                for k, ways in enumerate(parts.values())
            ]
            texts["\n".join(chosen)] = None
        used = list(texts)[: max(most, 9)]
        assert all(any(way in text for text in used) for ways in parts.values() for way in ways), item
        found[item] = [FORMS + text for text in used]
    return found


def every(assignment: str) -> Iterator[tuple[str, int, str]]:
    """Yield item, number and text of every right solution of an assignment."""
    for item, texts in solutions(assignment).items():
        yield from ((item, number, text) for number, text in enumerate(texts))
