"""What a function's result depends on, as far as can be seen: its code, and what it reads."""

import dataclasses
import dis
import functools
import inspect
import platform
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import PurePath
from types import CodeType
from typing import Any

import numpy as np


def of(function: Callable[..., Any]) -> dict[str, str]:
    """Returns names of what a function depends on -> a digest of each.

    That is its code, defaults, and the variables from around it that it reads: numbers, text, arrays,
    tensors, data sets, collections of them, and functions of the same module, which are followed. Left out
    are names that the function itself assigns, collections that are still empty (logs that will grow),
    models, and all that is imported. The code of one Python version says nothing about that of another.

    Args:
        function: Function, method, `functools.partial`, or object that can be called.

    Example:
        >>> from tlhelpers import fingerprint
        >>> def area(x, factor=3):
        ...     return factor * x * x
        >>> sorted(fingerprint.of(area))[0]
        'default factor'
    """
    found: dict[str, str] = {}
    _follow("", function, found, set())
    return found


def _follow(name: str, value: Any, found: dict[str, str], seen: set[int]) -> None:
    if isinstance(value, functools.partial):
        _follow(name, value.func, found, seen)
        _follow(f"{name} arguments".strip(), (value.args, value.keywords), found, seen)
    elif inspect.ismethod(value):
        _follow(name, value.__func__, found, seen)
        _follow(f"{name} self".strip(), value.__self__, found, seen)
    elif not name and not inspect.isroutine(value):  # an object that can be called
        _follow("", value.__call__, found, seen)
    elif inspect.isfunction(value) and id(value) not in seen:
        seen.add(id(value))
        found[
            f"code{f' of {name}' if name else ''}, Python {'.'.join(platform.python_version_tuple()[:2])}"
        ] = _digest(value.__code__) or ""
        for read, inner in _reads(value):
            if not inspect.isfunction(inner) or inner.__module__ == value.__module__:
                _follow(read, inner, found, seen)
    elif (digest := _digest(value)) is not None:
        found[name] = digest


def _reads(function: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of the defaults and of the outer variables that a function reads and never assigns."""
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not parameter.empty:
            yield f"default {name}", parameter.default
    used: dict[str, set[str]] = {"LOAD": set(), "STORE": set()}
    for code in _codes(function.__code__):
        for step in dis.get_instructions(code):
            if step.opname.endswith(("_GLOBAL", "_DEREF")) and step.opname.split("_")[0] in used:
                used[step.opname.split("_")[0]].add(step.argval)
    outer = inspect.getclosurevars(function)
    for name in sorted(used["LOAD"] - used["STORE"]):
        for values in (outer.nonlocals, function.__globals__):
            if name in values:
                yield name, values[name]
                break


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _codes(part)


def _digest(value: Any) -> str | None:
    """A digest of a value; ``None`` where there is nothing that could be compared."""
    if isinstance(value, CodeType):
        parts: Any = [
            value.co_code.hex(),
            *value.co_names,
            *value.co_varnames,
            *map(_digest, value.co_consts),
        ]
    elif value is None or isinstance(
        value, bool | int | float | complex | str | bytes | PurePath | np.generic
    ):
        parts = [repr(value)]
    elif isinstance(value, list | tuple | set | frozenset | dict):
        items = [_digest(part) for part in (value.items() if isinstance(value, dict) else value)]
        parts = sorted(map(str, items)) if isinstance(value, set | frozenset) else items
        if not parts and not isinstance(value, tuple | frozenset):
            return None
    elif callable(getattr(value, "digest", None)):  # images in files
        parts = [value.digest()]
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [(field.name, _digest(getattr(value, field.name))) for field in dataclasses.fields(value)]
    elif hasattr(value, "__array__") and (array := np.asarray(value)).dtype.kind not in "OV":
        parts = [array.dtype, array.shape, sha256(np.ascontiguousarray(array).data).hexdigest()]
    elif type(value).__module__ == "__main__" and hasattr(value, "__dict__"):
        parts = [type(value).__qualname__, _digest(vars(value))]
    else:
        return None
    return sha256(repr([type(value).__name__, *parts]).encode()).hexdigest()
