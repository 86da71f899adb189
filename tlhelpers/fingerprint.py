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
        >>> [name for name in fingerprint.of(area) if "code" not in name]
        ['default factor']
    """
    found: dict[str, str] = {}
    whole = function
    while isinstance(whole, functools.partial):
        whole = whole.func
    _follow("", function, str(getattr(whole, "__module__", "")), found, set())
    return found


def _follow(name: str, value: Any, home: str, found: dict[str, str], seen: set[int]) -> None:
    if isinstance(value, functools.partial):
        _follow(name, value.func, home, found, seen)
        _follow(f"{name} arguments".strip(), (value.args, value.keywords), home, found, seen)
    elif inspect.ismethod(value):
        _follow(name, value.__func__, home, found, seen)
        _follow(f"{name} self".strip(), value.__self__, home, found, seen)
    elif not name and not inspect.isroutine(value):  # an object that can be called
        _follow("", value.__call__, home, found, seen)
    elif inspect.isfunction(value):
        if value.__module__ == home and id(value) not in seen:
            seen.add(id(value))
            version = ".".join(platform.python_version_tuple()[:2])
            found[f"{name} code (Python {version})".strip()] = str(_digest(value.__code__, home))
            for read, inner in _reads(value):
                _follow(f"{name}.{read}" if name else read, inner, home, found, seen)
    elif (digest := _digest(value, home)) is not None:
        found[name] = digest


def _reads(function: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of the defaults and of the outer variables that a function reads and never assigns."""
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not parameter.empty:
            yield f"default {name}", parameter.default
    used: dict[str, set[str]] = {"LOAD": set(), "STORE": set()}
    for code in _codes(function.__code__):
        for step in dis.get_instructions(code):
            verb, _, place = step.opname.partition("_")
            if verb in used and place in ("GLOBAL", "DEREF"):
                used[verb].add(step.argval)
    outer = {**function.__globals__, **inspect.getclosurevars(function).nonlocals}
    yield from ((name, outer[name]) for name in sorted(used["LOAD"] - used["STORE"]) if name in outer)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _codes(part)


def _digest(value: Any, home: str) -> str | None:
    """A digest of a value; ``None`` where there is nothing that could be compared."""
    if isinstance(value, CodeType):
        names = (*value.co_names, *value.co_varnames, *value.co_freevars)
        parts: Any = [value.co_code.hex(), names, [_digest(part, home) for part in value.co_consts]]
    elif value is None or isinstance(
        value, bool | int | float | complex | str | bytes | PurePath | np.generic
    ):
        parts = [repr(value)]
    elif isinstance(value, list | tuple | set | frozenset | dict):
        parts = [_digest(part, home) for part in (value.items() if isinstance(value, dict) else value)]
        if not parts and isinstance(value, list | set | dict):
            return None
        parts = sorted(map(str, parts)) if isinstance(value, set | frozenset) else parts
    elif callable(getattr(value, "digest", None)):  # images in files
        parts = [value.digest()]
    elif hasattr(value, "__array__") and (array := np.asarray(value)).dtype.kind not in "OV":
        parts = [array.dtype, array.shape, sha256(np.ascontiguousarray(array).data).hexdigest()]
    elif hasattr(value, "__dict__") and (type(value).__module__ == home or dataclasses.is_dataclass(value)):
        parts = [_digest(dict(vars(value)), home)]
    else:
        return None
    return sha256(repr([type(value).__name__, *parts]).encode()).hexdigest()
