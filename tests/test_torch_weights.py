"""The reader of PyTorch weights: tensors are read right, and everything else in a file is refused."""

import contextlib
import io
import os
import pickle
import re
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from tlhelpers.backbones import _torch_weights
from tlhelpers.backbones._torch_weights import WeightsFileError, read_state_dict
from weights_files import (
    HEADER,
    Block,
    HalfStorage,
    LongStorage,
    Tensor,
    content,
    dumps,
    floats,
)

# What to do must stand in every message.
ADVICE = r"Install its package again, or take the file from its original source\."


class Call:
    """Pickled as a call of any function: what a hostile file does."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def read(tmp_path: Path, data: bytes) -> dict[str, np.ndarray]:
    path = tmp_path / "weights.pth"
    path.write_bytes(data)
    return read_state_dict(path)


def good() -> bytes:
    block = Block("0", floats(6))
    return content(OrderedDict(a=Tensor(block, (2, 3), (3, 1))), block)


# --- What is read ---


def test_tensors_come_back_in_order(tmp_path):
    weights, count = Block("17", floats(16)), Block("18", np.array([5], "<i8"), LongStorage)
    tensors = OrderedDict(
        b=Tensor(weights, (2, 3), (3, 1)),
        a=Tensor(weights, (3, 2), (1, 3)),  # the transpose of the same numbers
        tail=Tensor(weights, (4,), (2,), offset=5),
        steps=Tensor(count, (), ()),
    )
    found = read(tmp_path, content(tensors, weights, count))
    assert list(found) == ["b", "a", "tail", "steps"]
    np.testing.assert_array_equal(found["b"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(found["a"], found["b"].T)
    np.testing.assert_array_equal(found["tail"], [5, 7, 9, 11])
    assert found["steps"] == 5
    assert [v.dtype.str for v in found.values()] == ["<f4", "<f4", "<f4", "<i8"]


def test_the_real_file_is_read():
    from tlhelpers.backbones import efficientnet_lite

    path = efficientnet_lite.weights_file("efficientnet_lite0")
    assert path is not None
    weights = read_state_dict(path)
    values = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    assert all(v.dtype == np.float32 and np.isfinite(v).all() for v in values.values())
    assert next(iter(values.values())).shape == (32, 3, 3, 3)
    assert [v.shape for v in list(values.values())[-2:]] == [(1000, 1280), (1000,)]


# --- What is refused before anything is called ---


def hostile_calls(marker: Path) -> dict[str, Call]:
    return {
        "os.system": Call(os.system, f"touch {marker}"),
        "builtins.eval": Call(eval, f"open({str(marker)!r}, 'w')"),
        "builtins.open": Call(open, str(marker), "w"),
        "numpy.save": Call(np.save, str(marker), 1),
    }


@pytest.mark.parametrize("place", ["first", "among the tensors", "as the tensors", "last"])
@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "builtins.open", "numpy.save"])
def test_a_call_is_refused_before_it_is_made(tmp_path, name, place):
    marker = tmp_path / "called"
    call = dumps(hostile_calls(marker)[name])
    data = {
        "first": call,
        "among the tensors": HEADER + dumps({"a": hostile_calls(marker)[name]}),
        "as the tensors": HEADER + call,
        "last": HEADER + dumps({}) + call,
    }[place]
    with contextlib.suppress(Exception):  # the plant works: plain pickle does run it
        stream = io.BytesIO(data)
        while True:
            pickle.Unpickler(stream).load()
    planted = list(tmp_path.glob("called*"))
    assert planted, "the planted call does nothing, so that this test shows nothing"
    for path in planted:
        path.unlink()

    with pytest.raises(WeightsFileError, match=rf"asks for \w+\.\w+\. .*{ADVICE}"):
        read(tmp_path, data)
    assert not list(tmp_path.glob("called*"))


@pytest.mark.parametrize(
    "line",
    [
        "torch\nload",
        "torch\nHalfStorage",
        "torch._utils\n_rebuild_parameter",
        "collections\nOrderedDict.fromkeys",
    ],
)
def test_names_near_the_allowed_ones_are_refused(tmp_path, line):
    module, name = line.split("\n")
    with pytest.raises(WeightsFileError, match=re.escape(f"asks for {module}.{name}")):
        read(tmp_path, HEADER + f"c{line}\n.".encode())


def test_a_half_precision_tensor_is_refused(tmp_path):
    block = Block("0", np.zeros(2, "<f2"), HalfStorage)
    with pytest.raises(WeightsFileError, match=r"torch\.HalfStorage"):
        read(tmp_path, content({"a": Tensor(block, (2,), (1,))}, block))


def test_a_block_with_a_forged_length_cannot_read_other_memory(tmp_path):
    """A pickle can set attributes of what it built: here a block gets one number and a length of 10,000."""
    storage = dumps(Block("1", floats(1)))[2:-1]  # without protocol and stop
    forged = b"}(X\x04\x00\x00\x00sizeM\x10\x27X\x04\x00\x00\x00data](G\x3f\xf0\x00\x00\x00\x00\x00\x00eub"
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + forged + b"K\x00M\xe8\x03\x85K\x01\x85\x89}tR"
    )
    body = b"\x80\x02}X\x01\x00\x00\x00a" + tensor + b"s."
    with pytest.raises(WeightsFileError, match=f"BINFLOAT .*{ADVICE}"):
        read(tmp_path, HEADER + body + dumps([]))


# --- Damaged files ---


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file(tmp_path, share):
    data = good()
    with pytest.raises(WeightsFileError, match=rf"weights\.pth.*{ADVICE}"):
        read(tmp_path, data[: int(share * len(data))])


def test_every_truncation_is_an_error_of_ours(tmp_path):
    data = good()
    assert list(read(tmp_path, data)) == ["a"]
    for length in range(len(data)):
        with pytest.raises(WeightsFileError):
            read(tmp_path, data[:length])


@pytest.mark.parametrize("data", [dumps(1), dumps({}), dumps(_torch_weights.MAGIC) + dumps(7)])
def test_wrong_magic_or_protocol(tmp_path, data):
    with pytest.raises(WeightsFileError, match=f"before version 1.6. {ADVICE}"):
        read(tmp_path, data + good())


@pytest.mark.parametrize(
    "data", [b"PK\x03\x04" + bytes(60), b"\x89HDF\r\n\x1a\n" + bytes(60), b"<html>", bytes(9)]
)
def test_another_format(tmp_path, data):
    with pytest.raises(WeightsFileError, match=f"another format: .*{ADVICE}"):
        read(tmp_path, data)


def test_big_endian_numbers(tmp_path):
    header = dumps(_torch_weights.MAGIC) + dumps(_torch_weights.PROTOCOL) + dumps({"little_endian": False})
    with pytest.raises(WeightsFileError, match="not little-endian"):
        read(tmp_path, header + dumps({}) + dumps([]))


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((7,), (1,), 0),
        ((6,), (1,), 1),
        ((2, 3), (4, 1), 0),
        ((1,), (1,), 6),
        ((1,), (1,), -1),
        ((3,), (-1,), 2),
        ((-1,), (1,), 0),
        ((10**12,), (0,), 0),  # one number, repeated until the memory is full
        ((1,), (10**30,), 0),
        ((2, 3), (1,), 0),
    ],
)
def test_a_tensor_beyond_its_block(tmp_path, shape, strides, offset):
    block = Block("0", floats(6))
    with pytest.raises(WeightsFileError, match=ADVICE):
        read(tmp_path, content({"a": Tensor(block, shape, strides, offset)}, block))


@pytest.mark.parametrize("claimed", [5, 7, 2**62, -1])
def test_a_block_of_another_length_than_claimed(tmp_path, claimed):
    block = Block("0", floats(6), claimed=claimed)
    with pytest.raises(WeightsFileError, match=f"another length .*{ADVICE}"):
        read(tmp_path, content({"a": Tensor(block, (2,), (1,))}, block))


def test_a_block_larger_than_any_memory(tmp_path):
    size = 2**62
    block = Block("0", floats(1), claimed=size)
    data = HEADER + dumps({"a": Tensor(block, (2,), (1,))}) + dumps(["0"]) + size.to_bytes(8, "little")
    with pytest.raises(WeightsFileError, match=ADVICE):
        read(tmp_path, data)


def test_a_block_that_is_not_there(tmp_path):
    block = Block("0", floats(6))
    with pytest.raises(WeightsFileError, match=f"does not hold. {ADVICE}"):
        read(tmp_path, HEADER + dumps({"a": Tensor(block, (2,), (1,))}) + dumps([]))


@pytest.mark.parametrize("thing", [[1, 2], "text", None, {"a": 1}, {"a": "text"}, {"a": [1]}])
def test_no_dictionary_of_tensors(tmp_path, thing):
    with pytest.raises(WeightsFileError, match=f"dictionary of tensors. {ADVICE}"):
        read(tmp_path, content(thing))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_state_dict(tmp_path / "nowhere.pth")


# --- The hash in the name ---


@pytest.mark.parametrize("place", [0.001, 0.3, 0.5, 0.8, 0.9999])
@pytest.mark.parametrize("bit", [1, 128])
def test_a_flipped_bit_in_the_real_file_is_seen(tmp_path, place, bit):
    from tlhelpers.backbones import efficientnet_lite

    source = efficientnet_lite.weights_file("efficientnet_lite0")
    data = bytearray(source.read_bytes())
    data[int(place * len(data))] ^= bit
    path = tmp_path / source.name
    path.write_bytes(data)
    with pytest.raises(
        WeightsFileError,
        match=r"57934424, .*force-reinstall efficientnet-lite0.* rename",
    ):
        efficientnet_lite.load_weights(types.SimpleNamespace(name="efficientnet_lite0"), path)


@pytest.mark.parametrize("name", ["weights.pth", "lite0-final.pth", "lite0-abc.pth", "57934424.pth"])
def test_a_name_without_a_hash_is_not_compared(tmp_path, name):
    (tmp_path / name).write_bytes(good())
    _torch_weights.check_hash(tmp_path / name)
