"""Layers by name, one by one, and all of them as text, with the code that they run."""

import functools
import json
import re
import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any

import keras
import numpy as np

# where Keras' description of a model names a layer
_NAMING = ("name", "keras_history", "input_layers", "output_layers")
_LEFT_OUT = ("trainable", "seed")
# Of these the version says what they do; it is no part of the text.
_GIVEN = {"keras", "tensorflow", "jax", "jaxlib", "torch", "numpy", "openvino", "ml_dtypes", "optree"}
_GIVEN |= set(sys.stdlib_module_names) - {"__main__"}
_OF_A_CLASS = {"__dict__", "__doc__", "__firstlineno__", "__module__", "__qualname__", "__weakref__"}
_OF_A_CLASS |= {"__annotations__", "__static_attributes__", "__annotate_func__", "__annotations_cache__"}


def begins(name: str, beginning: str) -> bool:
    """Tells whether a layer's name begins so; a number must match as a whole.

    Example:
        >>> from tlhelpers import layers
        >>> layers.begins("block1_conv", "block1"), layers.begins("block10_conv", "block1")
        (True, False)
    """
    rest = name[len(beginning) :]
    return name.startswith(beginning) and not (beginning[-1:].isdigit() and re.match(r"\d", rest))


def beginnings(
    given: str | Iterable[str], argument: str, parts: Sequence[keras.layers.Layer]
) -> tuple[str, ...]:
    """Returns beginnings of layers' names, one or several, as a tuple; each fits a layer.

    Args:
        given: One beginning, or several.
        argument: Where they were given, for the message.
        parts: The layers.

    Raises:
        TypeError: If one is no text.
        ValueError: If there is none, or one is empty or fits no layer.

    Example:
        >>> import keras
        >>> from tlhelpers import layers
        >>> parts = [keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2, name="head")]
        >>> layers.beginnings("hid", "up_to", parts)
        ('hid',)
    """
    found = (given,) if isinstance(given, str) else tuple(given)
    if not found:
        raise ValueError(f"{argument} is empty, expected the beginning of a layer's name, or several.")
    for beginning in found:
        if not isinstance(beginning, str):
            raise TypeError(f"{argument} holds {beginning!r}, expected beginnings of layers' names.")
        if not beginning or not any(begins(part.name, beginning) for part in parts):
            named = ", ".join(part.name for part in parts if part.weights)
            raise ValueError(
                f"{argument}: no layer's name begins with {beginning!r}. The layers with weights: {named}."
            )
    return found


def leaves(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yields the layers of a model, and those of the models in it, from the input to the output.

    Example:
        >>> import keras
        >>> from tlhelpers import layers
        >>> inner = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="hidden")])
        >>> model = keras.Sequential([inner, keras.layers.Dense(2, name="head")])
        >>> [layer.name for layer in layers.leaves(model)]
        ['hidden', 'head']
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaves(layer)
        else:
            yield layer


def structure(model: keras.Model) -> str:
    """Returns the layers and their connections as text, the same each time that the model is built.

    Keras numbers layers without a name through a whole process, so names give way to positions. Which layers
    are frozen, and random seeds, change no output, and are left out. What Keras' description does not say is
    added as a digest: arrays that a layer holds beside its weights, attributes of layers of one's own, and
    code, with the globals that it reads. The text is made anew at each call.

    Example:
        >>> from tlhelpers import finetune, layers
        >>> first, second = finetune.small_cnn(8, 10), finetune.small_cnn(8, 10)
        >>> layers.structure(first) == layers.structure(second)
        True
    """
    places: dict[str, int] = {}

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            if "layers" in value:  # a model, which may be a layer of another one
                for part in (value, *(layer["config"] for layer in value["layers"])):
                    places.setdefault(part.get("name"), len(places))
            value = list(value.values())
        for part in value if isinstance(value, list | tuple) else ():
            collect(part)

    def renamed(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            if (
                value.get("class_name") == "__lambda__"
            ):  # bytes that name a file and a line: `_Walk` has the code
                return "lambda"
            return {k: renamed(v, k) for k, v in value.items() if k not in _LEFT_OUT}
        if isinstance(value, list | tuple):
            return [renamed(v, key) for v in value]
        return places.get(value, value) if key in _NAMING and isinstance(value, str) else value

    config = model.get_config()
    collect(config)
    walk = _Walk(model.weights)
    walk.add(model)
    return f"{json.dumps(renamed(config), sort_keys=True, default=str)} {walk.digest.hexdigest()}"


class _Walk:
    """A digest of what layers hold and run beside their weights: arrays, attributes, code."""

    def __init__(self, known: list) -> None:
        self.digest = sha256()
        self.known = {id(value): i for i, value in enumerate(known)}
        self.held = list(known)  # what is gone could hand its id on

    def say(self, text: str) -> None:
        self.digest.update(f"{len(text)} {text}".encode(errors="surrogatepass"))

    def add(self, value: Any) -> None:
        """Adds a value; one that was added before is only named."""
        if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
            self.say(f"{type(value).__name__} {value!r}")
        elif id(value) in self.known:
            self.say(f"known {self.known[id(value)]}")
        else:
            self.known[id(value)] = len(self.known)
            self.held.append(value)
            self._add(value)

    def _add(self, value: Any) -> None:
        if isinstance(value, dict | types.MappingProxyType):
            self.many("dict", [part for key in sorted(value, key=str) for part in (key, value[key])])
        elif isinstance(value, list | tuple | deque):
            self.many("list", list(value))
        elif isinstance(value, set | frozenset):
            self.many("set", sorted(value, key=repr))
        elif isinstance(value, types.FunctionType):
            self.function(value)
        elif isinstance(value, types.MethodType):
            self.many("method", [value.__func__, value.__self__])
        elif isinstance(value, functools.partial):
            self.many("partial", [value.func, value.args, value.keywords])
        elif isinstance(value, staticmethod | classmethod):
            self.add(value.__func__)
        elif isinstance(value, property):
            self.many("property", [value.fget, value.fset])
        elif isinstance(value, type):
            self.type(value)
        elif isinstance(value, keras.KerasTensor | types.ModuleType):
            self.say(type(value).__name__)
        elif isinstance(value, keras.layers.Layer):
            self.layer(value)
        elif isinstance(value, keras.Variable) or hasattr(value, "__array__"):
            self.array(value)
        else:
            self.thing(value)

    def many(self, kind: str, values: list) -> None:
        self.say(f"{kind} {len(values)}")
        for value in values:
            self.add(value)

    def array(self, value: Any) -> None:
        try:
            found = keras.ops.convert_to_numpy(value)
        except Exception:  # a tensor of a graph has no value yet
            self.say(type(value).__name__)
            return
        self.say(f"{found.dtype} {found.shape}")
        self.digest.update(np.ascontiguousarray(found).tobytes())

    def layer(self, layer: keras.layers.Layer) -> None:
        """Adds a layer: of Keras' own the description has all but arrays, functions and inner layers."""
        self.type(type(layer))
        own, held = not _is_given(type(layer)), vars(layer)
        if isinstance(layer, keras.Model):
            self.many("layers", layer.layers)
            held = held if own else {k: v for k, v in held.items() if k == "call"}
        for name in sorted(set(held) - _bookkeeping()):
            value = held[name]
            there = hasattr(value, "__array__") or isinstance(
                value, types.FunctionType | types.MethodType | keras.layers.Layer | list | functools.partial
            )
            if own or there:
                self.say(name)
                self.add(value)

    def type(self, value: type) -> None:
        """Adds a class: the code of all that it has of its own, and of the classes that it comes from."""
        for kind in value.__mro__:
            if _is_given(kind):
                self.say(f"{kind.__module__}.{kind.__qualname__}")
                return
            self.say(kind.__name__)
            self.many("class", [p for k in sorted(set(vars(kind)) - _OF_A_CLASS) for p in (k, vars(kind)[k])])

    def function(self, value: types.FunctionType) -> None:
        if _is_given(value):
            self.say(f"{value.__module__}.{value.__qualname__}")
            return
        self.many("function", [value.__defaults__, value.__kwdefaults__])
        self.many("closure", [_content(cell) for cell in value.__closure__ or ()])
        self.many("wrapped", [getattr(value, "__wrapped__", None)])
        self.code(value.__code__, value.__globals__)

    def code(self, code: types.CodeType, scope: dict[str, Any]) -> None:
        """Adds code, and the globals that it reads, also those that are in modules of one's own."""
        self.digest.update(code.co_code)
        self.say(f"{code.co_names} {code.co_varnames} {code.co_freevars}")
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self.code(constant, scope)
            else:
                self.add(constant)
        for name in code.co_names:
            value = scope.get(name)
            if isinstance(value, types.ModuleType) and not _is_given(value):
                self.many(name, [getattr(value, part) for part in code.co_names if hasattr(value, part)])
            elif name in scope:
                self.many(name, [value])

    def thing(self, value: Any) -> None:
        self.type(type(value))
        if not _is_given(type(value)) or isinstance(value, types.SimpleNamespace):
            self.add(getattr(value, "__dict__", None))
            slots = getattr(type(value), "__slots__", ())
            self.many("slots", [getattr(value, name, None) for name in slots if isinstance(slots, tuple)])
        self.add(getattr(value, "__wrapped__", None))  # as of a function that TensorFlow has compiled


def _is_given(value: Any) -> bool:
    """Returns whether a class, function or module comes with Python, Keras or what Keras runs on."""
    name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
    return str(name).split(".")[0] in _GIVEN


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing was put into it yet
        return None


@functools.cache
def _bookkeeping() -> frozenset[str]:
    """Returns the attributes in which Keras keeps its accounts; any layer and model has them."""
    inputs = keras.Input((1,), name="any")  # with names, so that the numbers of the user's layers stay
    plain = keras.layers.Identity(name="plain")
    model = keras.Model(inputs, plain(inputs), name="any")
    kept = set().union(*map(vars, (plain, model, keras.Model(name="any"))))
    return frozenset(kept | set(_LEFT_OUT)) - {"call"}
