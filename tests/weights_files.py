"""Weights files as PyTorch wrote them before version 1.6, made without PyTorch."""

import io
import pickle
import sys
import types
from collections import OrderedDict

import numpy as np

from tlhelpers.backbones import _torch_weights

# `torch` is not installed here. These stand in for it while a file is written, and only then.
TORCH = types.ModuleType("torch")
TORCH_UTILS = types.ModuleType("torch._utils")


class FloatStorage:
    pass


class LongStorage:
    pass


class HalfStorage:
    pass


def _rebuild_tensor_v2():
    pass


for _thing in (FloatStorage, LongStorage, HalfStorage):
    _thing.__module__ = "torch"
    setattr(TORCH, _thing.__name__, _thing)
_rebuild_tensor_v2.__module__ = "torch._utils"
TORCH_UTILS._rebuild_tensor_v2 = _rebuild_tensor_v2


class Block:
    """The numbers under one or several tensors."""

    def __init__(self, key, numbers, kind=FloatStorage, claimed=None):
        self.key, self.numbers, self.kind = key, numbers, kind
        self.claimed = numbers.size if claimed is None else claimed


class Tensor:
    """Pickled as PyTorch pickles a tensor: a call of `_rebuild_tensor_v2` on a block."""

    def __init__(self, block, shape, strides, offset=0):
        self.arguments = (block, offset, shape, strides, False, OrderedDict())

    def __reduce__(self):
        return _rebuild_tensor_v2, self.arguments


class _Pickler(pickle.Pickler):
    def persistent_id(self, thing):
        if isinstance(thing, Block):
            return ("storage", thing.kind, thing.key, "cpu", thing.claimed, None)
        return None


def dumps(thing) -> bytes:
    """Pickle with protocol 2, as PyTorch did."""
    stream = io.BytesIO()
    present = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update({"torch": TORCH, "torch._utils": TORCH_UTILS})
    try:
        _Pickler(stream, 2).dump(thing)
    finally:
        for name, module in present.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    return stream.getvalue()


HEADER = dumps(_torch_weights.MAGIC) + dumps(_torch_weights.PROTOCOL) + dumps({"little_endian": True})


def content(tensors, *blocks) -> bytes:
    """The bytes of a file as `torch.save` wrote it before PyTorch 1.6."""
    numbers = b"".join(b.numbers.size.to_bytes(8, "little") + b.numbers.tobytes() for b in blocks)
    return HEADER + dumps(tensors) + dumps([b.key for b in blocks]) + numbers


def floats(n: int) -> np.ndarray:
    return np.arange(n, dtype="<f4")
