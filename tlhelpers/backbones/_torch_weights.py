"""Reads a PyTorch ``state_dict`` file without PyTorch, and without running what is inside it.

A ``.pth`` file is a pickle, and a pickle can call any function when it is loaded. This reader builds tensors
and dictionaries of them; a file that asks for anything else is refused before anything is called.
"""

import math
import pickle
import re
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of the format that torch.save wrote before PyTorch 1.6
PROTOCOL = 1001
_ADVICE = "Install its package again, or take the file from its original source."
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class WeightsFileError(ValueError):
    """A weights file is damaged, or holds something that is no tensor."""


@dataclass
class _Storage:
    """One block of numbers; ``data`` is filled when the end of the file is read."""

    dtype: np.dtype
    size: int
    data: np.ndarray | None = None


@dataclass
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        # A pickle can also set attributes of what it built: only the numbers that were read are believed.
        data = self.storage.data
        if not isinstance(data, np.ndarray):
            raise WeightsFileError("A tensor points to numbers that the file does not hold.")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if (
            min((*self.shape, 1)) < 1
            or min((*self.strides, 0)) < 0
            or self.offset < 0
            or last >= data.size
            or math.prod(self.shape) > data.size
        ):
            raise WeightsFileError("A tensor reaches beyond the numbers that the file holds for it.")
        view = np.lib.stride_tricks.as_strided(
            data[self.offset :],
            self.shape,
            tuple(s * data.itemsize for s in self.strides),
            writeable=False,
        )
        return view.copy()


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise WeightsFileError("A tensor has no storage.")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler with an allow-list: dictionaries, numbers, strings and tensors."""

    def __init__(self, file: BinaryIO, storages: dict[str, _Storage]):
        super().__init__(file)
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise WeightsFileError(
            f"The file asks for {module}.{name}. Only tensors are read here, since a pickle can run any code."
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, size, view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or view is not None:
            raise WeightsFileError(f"The file holds an object of kind {kind!r} that is no plain tensor.")
        return self.storages.setdefault(str(key), _Storage(dtype, int(size)))


def check_hash(path: Path, remedy: str = _ADVICE) -> None:
    """Compares a file with the beginning of its SHA-256, where its name ends in that: ``name-57934424.pth``.

    Args:
        path: The ``.pth`` file.
        remedy: What the message says is to be done.

    Raises:
        WeightsFileError: If they differ.
    """
    named = re.search(r"-([0-9a-f]{8,64})\.pth$", path.name)
    found = sha256(path.read_bytes()).hexdigest() if named else ""
    if named and not found.startswith(named[1]):
        raise WeightsFileError(
            f"{path} was altered or is damaged: by its name its SHA-256 begins with {named[1]}, but it "
            f"begins with {found[:8]}. {remedy} If that part of the name is no hash, rename the file."
        )


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a ``state_dict`` that an older ``torch.save`` wrote.

    Args:
        path: The ``.pth`` file.

    Returns:
        Name of each tensor -> array, float32 or int64, in the order of the file.

    Raises:
        WeightsFileError: If the file is damaged, of another format, or asks for anything but tensors.
    """
    storages: dict[str, _Storage] = {}
    try:
        with open(path, "rb") as file:
            if _TensorUnpickler(file, {}).load() != MAGIC or _TensorUnpickler(file, {}).load() != PROTOCOL:
                raise WeightsFileError("It is no PyTorch file of the format before version 1.6.")
            if not _TensorUnpickler(file, {}).load().get("little_endian"):
                raise WeightsFileError("Its numbers are not little-endian.")
            tensors = _TensorUnpickler(file, storages).load()
            for key in _TensorUnpickler(file, {}).load():
                storage = storages[key]
                if int.from_bytes(file.read(8), "little") != storage.size:
                    raise WeightsFileError("A block of numbers has another length than its header says.")
                block = file.read(storage.size * storage.dtype.itemsize)
                storage.data = np.frombuffer(block, storage.dtype)
                if storage.data.size != storage.size:
                    raise WeightsFileError("It ends too early.")
            if not isinstance(tensors, dict) or not all(isinstance(t, _Tensor) for t in tensors.values()):
                raise WeightsFileError("It is no dictionary of tensors.")
            return {str(name): tensor.array() for name, tensor in tensors.items()}
    except WeightsFileError as error:
        raise WeightsFileError(f"Cannot read the weights in {path}. {error} {_ADVICE}") from None
    except (
        pickle.UnpicklingError,
        EOFError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        OverflowError,
        MemoryError,
    ) as error:
        raise WeightsFileError(
            f"Cannot read the weights in {path}: the file is damaged or of another format ({error}). "
            + _ADVICE
        ) from error
