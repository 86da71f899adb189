"""Weights files that were made to crash, to hang or to fill the memory: each ends in a clear error, soon."""

import gzip
import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from in_a_child import Outcome, read_all
from weights_files import HEADER, Block, LongStorage, Tensor, content, dumps, floats

pytestmark = pytest.mark.fault("weights files, damaged or hostile")

ADVICE = "Install its package again, or take the file from its original source."


def pickled(body: bytes, blocks: bytes = b"") -> bytes:
    """A file whose tensors are described by these instructions."""
    return HEADER + b"\x80\x02" + body + b"." + (blocks or dumps([]))


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def tensor(shape: tuple, strides: tuple, offset: object = 0) -> bytes:
    """A file with one tensor on a block of six numbers."""
    block = Block("0", floats(6))
    return content({"a": Tensor(block, shape, strides, offset)}, block)


def repeated() -> bytes:
    """4 MB of numbers, and a thousand tensors that each hold them all."""
    block = Block("0", floats(1_000_000))
    return content({f"t{i}": Tensor(block, (1_000_000,), (1,)) for i in range(1000)}, block)


def described_twice() -> bytes:
    a, b = Block("0", floats(6)), Block("0", np.arange(6, dtype="<i8"), LongStorage)
    return content({"a": Tensor(a, (6,), (1,)), "b": Tensor(b, (6,), (1,))}, a)


def listed_twice() -> bytes:
    block = Block("0", floats(6))
    return content({"a": Tensor(block, (6,), (1,))}, block, block)


def zipped(ratio: bool) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50_000_000) if ratio else dumps({}))
    return stream.getvalue()


NEST = b"\x85"  # TUPLE1
FLOATS = b"ctorch\nFloatStorage\n"
BLOCK = b"(" + text("storage") + FLOATS + text("0") + text("cpu") + b"K\x06NtQ"
SYSTEM = text("touch called")

# What was planted, in words -> (the bytes of the file, what the message must say).
PLANTED: dict[str, tuple[Callable[[], bytes], str]] = {
    "nested tuples 10,000 deep": (lambda: pickled(b")" + NEST * 10_000), "tuples more than 2 levels"),
    "nested tuples 500,000 deep": (lambda: pickled(b")" + NEST * 500_000), "tuples more than 2 levels"),
    "nested tuples as the name of a tensor": (
        lambda: pickled(b"}" + b")" + NEST * 500_000 + b"K\x01s"),
        "tuples more than 2 levels",
    ),
    "a tuple that doubles itself 60 times": (
        lambda: pickled(b")" + b"q\x00h\x00\x86" * 60),
        "tuples more than 2 levels",
    ),
    "nested lists 90,000 deep": (lambda: pickled(b"]" + b"]" * 40_000 + b"a" * 40_000), "no dictionary"),
    "a list that holds itself": (lambda: pickled(b"]q\x00h\x00a"), "no dictionary of tensors"),
    "a dictionary that holds itself": (
        lambda: pickled(b"}q\x00" + text("a") + b"h\x00s"),
        "no dictionary of tensors",
    ),
    "groups that are opened 100,000 times": (lambda: pickled(b"(" * 100_000), "more than 16 levels"),
    "a million instructions": (lambda: pickled(b"N" * 1_000_000), "more than 100,000 instructions"),
    "40 MB of instructions": (lambda: pickled(b"N" * 40_000_000), "more than 100,000 instructions"),
    "a tuple of 90,000 parts": (lambda: pickled(b"(" + b"N" * 90_000 + b"t"), "more than 64 parts"),
    "a name of 900,000 characters": (lambda: pickled(text("a" * 900_000)), "more than 1,000 characters"),
    "a name that announces 4 GB": (lambda: pickled(b"X\xf0\xff\xff\xffabc"), "damaged or of another format"),
    "a memory place of number 4,294,967,295": (
        lambda: pickled(b"}r\xff\xff\xff\xff"),
        "",  # the place is one of few in a dictionary: an empty file of tensors, and no memory taken
    ),
    "a memory place that was never filled": (lambda: pickled(b"j\x01\x00\x00\x00"), "damaged"),
    "90,000 memory places": (
        lambda: pickled(b"}" + b"".join(b"r" + struct.pack("<I", i * 47_000) for i in range(90_000))),
        "",
    ),
    "a whole number of 2,000,000,000 bytes": (lambda: pickled(b"\x8b\x00\x94\x35\x77"), "instruction LONG4"),
    "a whole number of 900,000 digits": (lambda: pickled(b"L" + b"9" * 900_000 + b"L\n"), "instruction LONG"),
    "an integer of 900,000 digits": (lambda: pickled(b"I" + b"9" * 900_000 + b"\n"), "instruction INT"),
    "bytes that announce 8 EB": (lambda: pickled(b"\x96" + b"\xff" * 7 + b"\x7f"), "instruction BYTEARRAY8"),
    "a frame that announces 8 EB": (lambda: pickled(b"\x95" + b"\xff" * 7 + b"\x7f"), "instruction FRAME"),
    "a buffer from outside": (lambda: pickled(b"\x97"), "instruction NEXT_BUFFER"),
    "a set": (lambda: pickled(b"\x8f"), "instruction EMPTY_SET"),
    "os.system by STACK_GLOBAL": (
        lambda: pickled(text("os") + text("system") + b"\x93" + SYSTEM + b"\x85R"),
        "instruction STACK_GLOBAL",
    ),
    "os.system by INST": (lambda: pickled(b"(" + SYSTEM + b"ios\nsystem\n"), "instruction INST"),
    "os.system by OBJ": (lambda: pickled(b"(cos\nsystem\n" + SYSTEM + b"o"), "asks for os.system"),
    "os.system by NEWOBJ": (lambda: pickled(b"cos\nsystem\n" + SYSTEM + b"\x85\x81"), "asks for os.system"),
    "an object by its number": (lambda: pickled(b"\x84\x01\x00\x00\x00"), "instruction EXT4"),
    "a reference by a line of text": (lambda: pickled(b"P0\n"), "instruction PERSID"),
    "eval by its old name": (
        lambda: pickled(b"c__builtin__\neval\n" + SYSTEM + b"\x85R"),
        "__builtin__.eval",
    ),
    "a name of 900,000 letters that is asked for": (
        lambda: pickled(b"c" + b"o" * 900_000 + b"\nsystem\n"),
        "asks for ooo",
    ),
    "numpy.dtype in place of a storage": (lambda: pickled(b"cnumpy\ndtype\n"), "asks for numpy.dtype"),
    "a type of numbers that is called": (lambda: pickled(FLOATS + b")R"), "builds no tensor"),
    "a dictionary made of arguments": (
        lambda: pickled(b"ccollections\nOrderedDict\n]\x85R"),
        "builds no tensor",
    ),
    "a number that is called": (lambda: pickled(b"K\x01)R"), "builds no tensor"),
    "attributes set on a block": (lambda: pickled(BLOCK + b"}b"), "no dictionary"),
    "attributes set on a type of numbers": (lambda: pickled(FLOATS + b"}b"), "no dictionary"),
    "an entry without a name": (lambda: pickled(b"}K\x01K\x02s"), "an entry has no name"),
    "an odd number of parts in entries": (lambda: pickled(b"}(" + text("a") + b"u"), "an entry has no name"),
    "entries set on a list": (lambda: pickled(b"]" + text("a") + b"Ns"), "an entry has no name"),
    "a part that is added to a dictionary": (lambda: pickled(b"}K\x01a"), "a list was expected"),
    "a group that takes what lies below it": (lambda: pickled(b"N(\x85"), "lacks its parts"),
    "a group that was never opened": (lambda: pickled(b"Nt"), "damaged or of another format"),
    "nothing at the end": (lambda: pickled(b""), "damaged or of another format"),
    "a block that is a view of another": (
        lambda: pickled(BLOCK.replace(b"NtQ", b"\x85tQ").replace(b"K\x06\x85", b"K\x06)")),
        "no plain one",
    ),
    "a block whose type is a dictionary": (
        lambda: pickled(BLOCK.replace(FLOATS, b"ccollections\nOrderedDict\n")),
        "no plain one",
    ),
    "a block whose size is true": (lambda: pickled(BLOCK.replace(b"K\x06", b"\x88")), "no plain one"),
    "a block whose size is a text": (lambda: pickled(BLOCK.replace(b"K\x06", text("6"))), "no plain one"),
    "a block without a name": (lambda: pickled(BLOCK.replace(text("0"), b"N")), "no plain one"),
    "one block of two types": (described_twice, "one block of numbers in two ways"),
    "one block listed twice": (listed_twice, "list of blocks does not fit"),
    "a list of blocks that holds dictionaries": (
        lambda: pickled(b"}", b"\x80\x02](}}e."),
        "list of blocks does not fit",
    ),
    "a block that no tensor has": (lambda: pickled(b"}", dumps(["9"])), "list of blocks does not fit"),
    "4 MB of numbers that a thousand tensors repeat": (repeated, "more numbers than the file"),
    "bytes after the end": (lambda: tensor((6,), (1,)) + bytes(9), "9 bytes follow where it should end"),
    "60 dimensions of 1": (lambda: tensor((1,) * 60, (1,) * 60), "60 dimensions; 8 are the limit"),
    "60 dimensions of 2, each repeated": (lambda: tensor((2,) * 60, (0,) * 60), "60 dimensions; 8 are"),
    "one number repeated a million million times": (lambda: tensor((10**12,), (0,)), "beyond the numbers"),
    "a shape of 10^300": (lambda: tensor((10**300,), (1,)), "beyond the numbers"),
    "a step of 10^300 over one number": (lambda: tensor((1,), (10**300,)), "beyond the numbers"),
    "a step that goes back": (lambda: tensor((3,), (-1,), 2), "beyond the numbers"),
    "a beginning before the numbers": (lambda: tensor((1,), (1,), -1), "beyond the numbers"),
    "a shape one larger than its numbers": (lambda: tensor((7,), (1,)), "beyond the numbers"),
    "a negative shape": (lambda: tensor((-6,), (1,)), "beyond the numbers"),
    "more steps than dimensions": (lambda: tensor((6,), (1, 1)), "no shape"),
    "a shape of texts": (lambda: tensor(("6",), (1,)), "not made of whole numbers"),
    "a shape of truths": (lambda: tensor((True,), (1,)), "not made of whole numbers"),
    "a beginning that is a tuple": (lambda: tensor((6,), (1,), (0,)), "not made of whole numbers"),
    "a shape that is a list": (lambda: tensor([6], (1,)), "no shape"),  # type: ignore[arg-type]
    "a block of 2^62 numbers": (
        lambda: (
            HEADER
            + dumps({"a": Tensor(Block("0", floats(1), claimed=2**62), (2,), (1,))})
            + dumps(["0"])
            + (2**62).to_bytes(8, "little")
        ),
        "ends too early",
    ),
    "numbers that are cut off": (lambda: tensor((6,), (1,))[:-1], "ends too early"),
    "a zip file, as PyTorch writes since 1.6": (lambda: zipped(False), "damaged or of another format"),
    "a zip file with 50 MB of zeros": (lambda: zipped(True), "damaged or of another format"),
    "a file packed with gzip": (lambda: gzip.compress(tensor((6,), (1,))), "another format"),
    "an HDF5 file": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(500), "another format"),
    "a web page": (lambda: b"<!DOCTYPE html><title>404</title>", "another format"),
    "an empty file": (lambda: b"", "another format"),
    "zeros only": (lambda: bytes(1_000_000), "another format"),
    "a pickle of numpy": (lambda: pickle.dumps(np.zeros(3), 2), "asks for numpy"),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("weights")
    paths = {}
    for i, (name, (make, _)) in enumerate(PLANTED.items()):
        paths[name] = folder / f"{i}.pth"
        paths[name].write_bytes(make())
    found = read_all("weights", list(paths.values()))
    assert not (folder / "called").exists()
    return {name: found[path] for name, path in paths.items()}


@pytest.mark.parametrize("name", PLANTED, ids=[f"weights: {name}" for name in PLANTED])
def test_a_hostile_file_ends_in_a_clear_error(name, outcomes, record_property):
    outcome, expected = outcomes[name], PLANTED[name][1]
    record_property("saw", outcome.text)
    if expected:
        assert outcome.kind == "WeightsFileError", outcome
        assert expected in outcome.text
        assert outcome.text.endswith(ADVICE)
        assert ".pth" in outcome.text
        assert len(outcome.text) < 700
    else:
        assert outcome.kind == "read", outcome
    assert outcome.seconds < 3


def test_the_real_files_are_read_within_the_limits(record_property):
    """The same child, the same limits: what is refused above is not refused for want of memory."""
    from tlhelpers.backbones import efficientnet_lite

    files = [efficientnet_lite.weights_file(f"efficientnet_lite{k}") for k in (0, 1, 2)]
    here = [path for path in files if path is not None]
    found = read_all("weights", here)
    assert {outcome.kind for outcome in found.values()} == {"read"}
    record_property("times", len(here))


# --- What is no ordinary file ---


def special(folder: Path) -> dict[str, tuple[Path, str]]:
    os.mkfifo(folder / "pipe.pth")
    (folder / "folder.pth").mkdir()
    with open(folder / "large.pth", "wb") as file:
        file.write(tensor((6,), (1,)))
        file.truncate(600_000_000)  # sparse: it takes no room
    return {
        "a named pipe": (folder / "pipe.pth", "is no file. Give the .pth file"),
        "a folder": (folder / "folder.pth", "is no file. Give the .pth file"),
        "a device that never ends": (Path("/dev/zero"), "is no file. Give the .pth file"),
        "a file of 600 MB": (folder / "large.pth", "has 600 MB; 537 MB are the limit"),
    }


@pytest.mark.parametrize(
    "name",
    ["a named pipe", "a folder", "a device that never ends", "a file of 600 MB"],
    ids="weights: {}".format,
)
def test_what_is_no_ordinary_file(name, tmp_path, record_property):
    path, expected = special(tmp_path)[name]
    outcome = read_all("weights", [path])[path]
    record_property("saw", outcome.text)
    assert outcome.kind == "WeightsFileError", outcome
    assert expected in outcome.text


# --- Chance ---


def small_file() -> bytes:
    """A file with all that a real one has: names, layers' versions, hooks, both types of numbers."""
    tensors, blocks = OrderedDict(), []
    for i in range(6):
        block = Block(str(94_000 + i), floats(12))
        tensors[f"blocks.{i}.weight"] = Tensor(block, (2, 3, 2), (6, 2, 1))
        count = Block(str(95_000 + i), np.array([i], "<i8"), LongStorage)
        tensors[f"blocks.{i}.num_batches_tracked"] = Tensor(count, (), ())
        blocks += [block, count]
    return content(tensors, *blocks)


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Bits flipped, pieces cut out, doubled or exchanged, instructions inserted."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        at, length = int(rng.integers(len(changed))), int(rng.integers(1, 40))
        match rng.integers(6):
            case 0:
                changed[at] ^= 1 << int(rng.integers(8))
            case 1:
                del changed[at : at + length]
            case 2:
                changed[at:at] = changed[at : at + length] * int(rng.integers(1, 4))
            case 3:
                changed[at:at] = bytes(
                    rng.choice(np.frombuffer(b"()]}NK\x85\x86tueasbRQqrhj.\x8aXc", np.uint8), 3)
                )
            case 4:
                changed[at] = int(rng.integers(256))
            case _:
                other = int(rng.integers(len(changed)))
                changed[at : at + length] = changed[other : other + length]
        if not changed:
            return b""
    return bytes(changed)


@pytest.mark.parametrize("seed", [0], ids=["weights: 1,500 files damaged at random"])
def test_files_damaged_at_random(seed, tmp_path, record_property):
    rng, data = np.random.default_rng(seed), small_file()
    paths = [tmp_path / f"{i}.pth" for i in range(1500)]
    for path in paths:
        path.write_bytes(mutated(data, rng))
    (tmp_path / "sound.pth").write_bytes(data)
    found = read_all("weights", [*paths, tmp_path / "sound.pth"])
    assert found.pop(tmp_path / "sound.pth").kind == "read"
    odd = {path.name: found[path] for path in paths if found[path].kind not in ("read", "WeightsFileError")}
    assert not odd
    refused = sum(outcome.kind == "WeightsFileError" for outcome in found.values())
    assert refused > 1000  # a number that was flipped cannot be told from a right one without the hash
    assert max(outcome.seconds for outcome in found.values()) < 2
    assert max(outcome.megabytes for outcome in found.values()) < 50
    record_property("times", len(paths))
    record_property("saw", f"{refused:,} refused with a clear error, the others differ in numbers or names")
