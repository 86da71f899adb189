"""Odd files and folders of images: named, left out or refused in words, and never waited for."""

import functools
import io
import os
import re
import socket
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from in_a_child import Outcome, read_all
from tlhelpers.data import _damage

pytestmark = pytest.mark.fault("images, folders and archives that are odd or damaged")


def photo(seed: int = 0, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """Something with large shapes and fine detail, as photographs have."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noise = rng.normal(0, 12, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))


def saved(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@functools.cache
def jpeg(seed: int = 0, **options: object) -> bytes:
    return saved(photo(seed), quality=80, **options)


def sound(root: Path) -> Path:
    """Two classes of six pictures each."""
    for i in range(12):
        path = root / ("cat", "dog")[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(i))
    return root


# --- One odd file among sound ones ---


def middle(data: bytes, replace: Callable[[bytes], bytes], length: int = 600) -> bytes:
    """Another content for a piece in the middle of a file."""
    at = len(data) // 2
    return data[:at] + replace(data[at : at + length]) + data[at + length :]


def noise(piece: bytes) -> bytes:
    return np.random.default_rng(1).integers(0, 255, len(piece), np.uint8).tobytes()


def exchanged(data: bytes) -> bytes:
    """The third and the fifth restart mark change places."""
    return data.replace(b"\xff\xd2", b"\0\0").replace(b"\xff\xd4", b"\xff\xd2").replace(b"\0\0", b"\xff\xd4")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(kind: bytes, data: bytes) -> bytes:
    png = saved(photo(), "PNG")
    return png[:33] + chunk(kind, data) + png[33:]


def png_of(width: int, height: int) -> bytes:
    """A file that has this size by its header, and holds nothing."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def without_interval(data: bytes) -> bytes:
    return data[: data.index(b"\xff\xd1")] + data[data.index(b"\xff\xd2") :]


def with_strips(data: bytes) -> bytes:
    """The number of strips of a TIFF file becomes the largest that there is."""
    strips = b"\x11\x01\x04\0"
    assert strips in data
    return data.replace(strips + data[data.index(strips) + 4 :][:4], strips + b"\xff" * 4)


ENDS = "a damaged JPEG file: "
LIMIT = "above the limit of 89.5 million pixels; save it smaller"
# What was planted, in words -> (name, content, what is said about it).
FILES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "an empty file": ("x.jpg", lambda: b"", "empty file"),
    "a text": ("x.png", lambda: b"no picture at all", "not an image"),
    "a web page": ("x.jpg", lambda: b"<!DOCTYPE html><title>404</title>", "not an image"),
    "a zip file": ("x.png", lambda: b"PK\5\6" + bytes(18), "not an image"),
    "a JPEG file cut off": ("x.jpg", lambda: jpeg()[:2000], ENDS + "it ends too early"),
    "a JPEG file cut off and closed": (
        "x.jpg",
        lambda: jpeg()[:2000] + b"\xff\xd9",
        ENDS + "data is missing",
    ),
    "a JPEG file with a hole": ("x.jpg", lambda: middle(jpeg(), lambda _: b""), ENDS + "data is missing"),
    "a JPEG file with a small hole": (
        "x.jpg",
        lambda: middle(jpeg(), lambda _: b"", 100),
        ENDS + "data is missing",
    ),
    "a JPEG file with a hole of zeros": (
        "x.jpg",
        lambda: middle(jpeg(), lambda piece: bytes(len(piece))),
        ENDS + "a part of it was overwritten with zeros",
    ),
    "a JPEG file with a hole of noise": ("x.jpg", lambda: middle(jpeg(), noise), ENDS),
    "a large JPEG file with a hole": (
        "x.jpg",
        lambda: middle(saved(photo(size=(1300, 900))), lambda _: b"", 5000),
        ENDS + "data is missing",
    ),
    "a progressive JPEG file cut off and closed": (
        "x.jpg",
        lambda: jpeg(progressive=True)[:3000] + b"\xff\xd9",
        ENDS + "data is missing",
    ),
    "a JPEG file whose restart marks are out of order": (
        "x.jpg",
        lambda: exchanged(jpeg(restart_marker_rows=1)),
        ENDS + "a part from the middle is missing",
    ),
    "a JPEG file that lacks a restart interval": (
        "x.jpg",
        lambda: without_interval(jpeg(restart_marker_rows=1)),
        ENDS + "a part from the middle is missing",
    ),
    "a JPEG file with filling before a mark that lacks a restart interval": (
        "x.jpg",
        lambda: without_interval(jpeg(restart_marker_rows=1)).replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1),
        ENDS + "a part from the middle is missing",
    ),
    "a JPEG file with a mark in the middle": (
        "x.jpg",
        lambda: middle(jpeg(), lambda piece: b"\xff\x5a" + piece[2:]),
        "",
    ),
    "a JPEG file without its tables": ("x.jpg", lambda: jpeg()[:2] + jpeg()[400:], ""),
    "a PNG file cut off": ("x.png", lambda: saved(photo(), "PNG")[:3000], "image file is truncated"),
    "a PNG file with a hole": ("x.png", lambda: middle(saved(photo(), "PNG"), lambda _: b""), ""),
    "a PNG file of 100 million pixels": ("x.png", lambda: png_of(10_000, 10_000), LIMIT),
    "a PNG file of 4,000 million pixels": ("x.png", lambda: png_of(80_000, 50_000), LIMIT),
    "a PNG file without pixels": ("x.png", lambda: png_of(0, 10), ""),
    "a PNG file whose text inflates to 100 MB": (
        "x.png",
        lambda: with_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000), 1)),
        "",
    ),
    "a GIF file of 65,535 x 65,535 pixels": (
        "x.gif",
        lambda: b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\0;",
        LIMIT,
    ),
    "a TIFF file whose directory leads to itself": (
        "x.tif",
        lambda: b"II*\0\x08\0\0\0\x01\0\0\x01\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",
        "",
    ),
    "a TIFF file that announces 4,294,967,295 strips": (
        "x.tif",
        lambda: with_strips(saved(photo(), "TIFF")),
        "",
    ),
    "a TIFF file cut off": ("x.tif", lambda: saved(photo(), "TIFF")[:5000], ""),
    "a BMP file cut off": ("x.bmp", lambda: saved(photo(), "BMP")[:5000], "image file is truncated"),
    "a WebP file cut off": ("x.webp", lambda: saved(photo(), "WEBP")[:500], ""),
}
SPECIAL = {
    "a named pipe": "a named pipe, and no file",
    "a link to a named pipe": "a named pipe, and no file",
    "a socket": "a socket, and no file",
    "a link to a device that never ends": "a device, and no file",
    "a link that leads nowhere": "a link that leads nowhere",
    "a link that leads to itself": "a link that leads nowhere",
    "a file of 600 MB": "more than 268,435,456 bytes, the limit for one picture",
}


def make_special(name: str, path: Path) -> None:
    if name == "a named pipe":
        os.mkfifo(path)
    elif name == "a link to a named pipe":
        os.mkfifo(path.parent.parent / "pipe")
        path.symlink_to(path.parent.parent / "pipe")
    elif name == "a socket":
        here = os.getcwd()
        os.chdir(path.parent)  # the name of a socket must be short
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
        os.chdir(here)
    elif name == "a file of 600 MB":
        with open(path, "wb") as file:
            file.truncate(600_000_000)  # sparse: it takes no room
    else:
        target = {"a link that leads nowhere": "gone.jpg", "a link that leads to itself": path.name}
        path.symlink_to(target.get(name, "/dev/zero"))


@pytest.fixture(scope="module")
def in_folders(tmp_path_factory) -> dict[str, Outcome]:
    paths = {}
    for i, name in enumerate([*FILES, *SPECIAL]):
        paths[name] = sound(tmp_path_factory.mktemp(f"f{i}") / "pets")
        if name in FILES:
            file, make, _ = FILES[name]
            (paths[name] / "cat" / file).write_bytes(make())
        else:
            make_special(name, paths[name] / "cat" / "x.jpg")
    found = read_all("folder", list(paths.values()), megabytes=1000)
    return {name: found[path] for name, path in paths.items()}


def n_used(outcome: Outcome) -> int:
    """How many pictures are trained on, chosen with and tested on."""
    (counts,) = re.findall(r"(\d+) training, (\d+) validation, (\d+) test", outcome.text)
    return sum(map(int, counts))


@pytest.mark.parametrize("name", [*FILES, *SPECIAL], ids="images: {}".format)
def test_an_odd_file_is_named_and_left_out(name, in_folders, record_property):
    outcome = in_folders[name]
    file, expected = (FILES[name][0], FILES[name][2]) if name in FILES else ("x.jpg", SPECIAL[name])
    assert outcome.kind == "read", outcome
    (said,) = [line for line in outcome.text.splitlines() if line.startswith("unreadable")]
    record_property("saw", said)
    assert said.startswith(f"unreadable: cat/{file} ({expected}")
    assert len(said) < 300
    assert n_used(outcome) == 12
    assert outcome.seconds < 4
    assert outcome.megabytes < 150


# --- Odd zip files ---


def bomb(method: int, claimed: int, packed: bytes) -> bytes:
    """A zip file of pictures, and a member with this content and size that is said to be a picture."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        fill(archive)
        archive.writestr("cat/x.png", packed)
    data = bytearray(stream.getvalue())
    head = data.index(b"cat/x.png") - 30
    note = data.rindex(b"cat/x.png") - 46
    for place in (head + 8, note + 10):
        struct.pack_into("<H", data, place, method)
        struct.pack_into("<I", data, place + 14, claimed)
    return bytes(data)


def fill(archive: zipfile.ZipFile, rename: Callable[[str], str] = str) -> None:
    for i in range(12):
        archive.writestr(rename(f"{('cat', 'dog')[i % 2]}/{i}.jpg"), jpeg(i))


def renamed(rename: Callable[[str], str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        fill(archive, rename)
    return stream.getvalue()


def deflated(megabytes: int) -> bytes:
    """Zeros, packed by Deflate: the same block again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * megabytes + packer.flush()


def packed(method: int) -> bytes:
    """20 MB of zeros, as a member is packed by this method."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("x", bytes(20_000_000))
        info = archive.getinfo("x")
    start = info.header_offset + 30 + len("x")
    return stream.getvalue()[start : start + info.compress_size]


def encrypted() -> bytes:
    data = bytearray(renamed(str))
    struct.pack_into("<H", data, 6, 1)
    struct.pack_into("<H", data, data.index(b"PK\1\2") + 8, 1)
    return bytes(data)


def damaged_member() -> bytes:
    data = bytearray(renamed(str))
    data[data.index(b"\xff\xda") + 500] ^= 8
    return bytes(data)


def overlapping() -> bytes:
    """All names lead to the data of the first member."""
    data = bytearray(renamed(str))
    place = data.index(b"PK\1\2")
    while place >= 0:
        struct.pack_into("<I", data, place + 42, 0)
        place = data.find(b"PK\1\2", place + 1)
    return bytes(data)


def twice() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        fill(archive)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("cat/0.jpg", jpeg(40))
    return stream.getvalue()


READ = ""
TOO_LARGE = "unreadable: cat/x.png (more than 268,435,456 bytes"
ZIPS: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "with absolute names": (lambda: renamed(lambda n: f"/{n}"), "read", READ),
    "with names of another machine's drive": (lambda: renamed(lambda n: f"C:/{n}"), "read", READ),
    "with backslashes": (lambda: renamed(lambda n: n.replace("/", "\\")), "read", READ),
    "with absolute names and backslashes": (
        lambda: renamed(lambda n: "C:\\" + n.replace("/", "\\")),
        "read",
        READ,
    ),
    "with names that begin with ../": (lambda: renamed(lambda n: f"../../{n}"), "read", READ),
    "with names that go up and down": (lambda: renamed(lambda n: f"a/../{n}"), "read", READ),
    "with names that begin with ./": (lambda: renamed(lambda n: f"./{n}"), "read", READ),
    "with a name twice": (twice, "read", READ),
    "that is encrypted": (encrypted, "DataError", "is encrypted (cat/0.jpg needs a password)"),
    "with a member of 600 MB": (lambda: bomb(8, 600_000_000, deflated(600)), "read", TOO_LARGE),
    "with a member that is 600 MB and says 1,000 bytes": (
        lambda: bomb(8, 1000, deflated(600)),
        "read",
        "unreadable: cat/x.png (",
    ),
    "with a member of 50 MB of zeros": (
        lambda: bomb(8, 50_000_000, deflated(50)),
        "read",
        "unreadable: cat/x.png (",
    ),
    "with a member packed by LZMA that says 1,000 bytes": (
        lambda: bomb(zipfile.ZIP_LZMA, 1000, packed(zipfile.ZIP_LZMA)),
        "read",
        "unreadable: cat/x.png (",
    ),
    "with a member packed by bzip2 that says 1,000 bytes": (
        lambda: bomb(zipfile.ZIP_BZIP2, 1000, packed(zipfile.ZIP_BZIP2)),
        "read",
        "unreadable: cat/x.png (",
    ),
    "with a member packed by an unknown method": (
        lambda: bomb(99, 1000, b"?" * 100),
        "read",
        "unreadable: cat/x.png (",
    ),
    "with a member whose bit flipped": (damaged_member, "read", "unreadable: cat/0.jpg ("),
    "whose members lie in one place": (overlapping, "DataError", ""),
    "cut off": (lambda: renamed(str)[:-300], "DataError", "pets.zip"),
    "with nothing in it": (lambda: b"PK\5\6" + bytes(18), "DataError", "no class folders"),
    "that is a web page": (lambda: b"<!DOCTYPE html>", "DataError", "not a readable zip file"),
    "that is empty": (lambda: b"", "DataError", "not a readable zip file"),
}


@pytest.fixture(scope="module")
def zips(tmp_path_factory) -> dict[str, Outcome]:
    paths = {}
    for i, (name, (make, _, _)) in enumerate(ZIPS.items()):
        paths[name] = tmp_path_factory.mktemp(f"z{i}") / "pets.zip"
        paths[name].write_bytes(make())
    found = read_all("folder", list(paths.values()), megabytes=1000)
    assert not [path for where in paths.values() for path in where.parent.iterdir() if path != where]
    return {name: found[path] for name, path in paths.items()}


@pytest.mark.parametrize("name", ZIPS, ids="images: a zip file {}".format)
def test_an_odd_zip_file(name, zips, record_property):
    outcome, (_, kind, expected) = zips[name], ZIPS[name]
    record_property("saw", outcome.text)
    assert outcome.kind == kind, outcome
    assert expected in outcome.text
    if kind == "read":
        assert n_used(outcome) == (11 if "cat/0.jpg" in outcome.text else 12)
        assert "pets.zip: 2 classes" in outcome.text
    assert outcome.seconds < 4
    assert outcome.megabytes < 300


def test_a_named_pipe_in_place_of_a_zip_file(tmp_path, record_property):
    """The command must not wait for somebody to write into it."""
    os.mkfifo(tmp_path / "pets.zip")
    outcome = read_all("folder", [tmp_path / "pets.zip"])[tmp_path / "pets.zip"]
    record_property("saw", outcome.text)
    assert outcome.kind == "DataError", outcome
    assert "neither a folder nor a" in outcome.text


# --- JPEG files: no false alarm, and what is found ---


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_sound_jpeg_files_raise_no_alarm(mode):
    """Flat, grey, tiny and detailed ones, of all kinds of coding."""
    half = Image.new("RGB", (100, 80), "white")
    half.paste((128, 128, 128), (0, 40, 100, 80))
    pictures = [photo(), photo(size=(1300, 900)), photo(size=(7, 3)), half]
    pictures += [Image.new("RGB", (100, 80), colour) for colour in ("white", "black", (128, 128, 128), "red")]
    codings = [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}]
    codings += [{"quality": 20, "subsampling": 0}, {"quality": 98}, {"restart_marker_blocks": 1}]
    for picture in pictures:
        for coding in codings:
            assert _damage.damage(saved(picture.convert(mode), **coding)) is None, (picture.size, coding)
    assert _damage.damage(jpeg() + b"what telephones put behind") is None
    assert _damage.damage(saved(photo(), "PNG")) is None


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "300 bytes missing": lambda piece: b"",
    "300 bytes of zeros": lambda piece: bytes(len(piece)),
    "300 bytes of noise": noise,
}


@pytest.mark.parametrize("name", DAMAGES, ids="images: 100 JPEG files with {}".format)
def test_most_holes_are_found(name, record_property):
    """The share is measured here; what is written about it elsewhere is this share."""
    found = sum(bool(_damage.damage(middle(jpeg(seed), DAMAGES[name], 300))) for seed in range(100))
    record_property("times", 100)
    record_property("saw", f"{found} of 100 named as damaged")
    assert found >= 85


# --- Chance ---


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.integers(1, 8)):
        at, length = int(rng.integers(len(changed))), int(rng.integers(1, 60))
        match rng.integers(5):
            case 0:
                changed[at] ^= 1 << int(rng.integers(8))
            case 1:
                del changed[at : at + length]
            case 2:
                changed[at:at] = changed[at : at + length]
            case 3:
                changed[at % 64 % len(changed)] = int(rng.choice([0, 1, 127, 255]))  # in the header
            case _:
                changed[at : at + length] = bytes(length)
        if not changed:
            return b""
    return bytes(changed)


@pytest.mark.parametrize("seed", [0], ids=["images: 700 files damaged at random"])
def test_pictures_damaged_at_random(seed, tmp_path, record_property):
    rng = np.random.default_rng(seed)
    small = photo(size=(40, 30))
    kinds = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]
    suffixes = {"JPEG": "jpg", "TIFF": "tif"}
    paths = []
    for i in range(700):
        kind = kinds[i % len(kinds)]
        path = tmp_path / ("cat", "dog")[i % 2] / f"{i}.{suffixes.get(kind, kind.lower())}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(mutated(saved(small, kind), rng))
        paths.append(path)
    found = read_all("picture", paths, megabytes=1000)
    assert not {path.name: found[path] for path in paths if found[path].kind != "read"}
    named = Counter(path.suffix for path in paths if found[path].text)
    assert min(named[path.suffix] for path in paths) >= 10  # BMP and PPM have no checksums
    assert max(outcome.seconds for outcome in found.values()) < 3
    assert max(outcome.megabytes for outcome in found.values()) < 400
    record_property("times", len(paths))
    record_property("saw", f"{sum(named.values())} of {len(paths)} named as unreadable, the others shown")
