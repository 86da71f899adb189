"""Which files are pictures: by their suffix, and where there is none, by how they begin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

__all__ = ["EXTENSIONS", "begins_like_a_picture", "is_heic", "is_picture", "left_out", "readable"]

#: What Pillow reads; HEIC with `pillow-heif`, which the extra `app` brings.
EXTENSIONS = (
    *(".apng", ".avif", ".avifs", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".j2k", ".jfif", ".jp2"),
    *(
        ".jpe",
        ".jpeg",
        ".jpf",
        ".jpg",
        ".jpx",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tga",
        ".tif",
        ".tiff",
    ),
    ".webp",
)
_RAW = "photographs as the sensor saw them"
#: Pictures that are not read -> what they are.
_OTHERS = (
    dict.fromkeys(
        (".3fr", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".pef", ".raf", ".rw2", ".srw"), _RAW
    )
    | dict.fromkeys((".dcm", ".dicom", ".mha", ".nii", ".nrrd"), "medical pictures")
    | dict.fromkeys((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm", ".wmv"), "films")
    | dict.fromkeys((".ai", ".eps", ".pdf", ".psd", ".svg", ".xcf"), "drawings or documents")
    | dict.fromkeys((".exr", ".hdr", ".jxl", ".jxr", ".h5", ".npy", ".npz", ".czi", ".svs"), "pictures")
)
_BEGINNINGS = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n",
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"\0\0\0\x0cjP  ",
    b"P5",
    b"P6",
)
_HEIC = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def _suffix(name: str) -> str:
    last = name.rpartition("/")[2]
    return f".{last.rpartition('.')[2].lower()}" if "." in last else ""


def readable(name: str) -> bool:
    """Whether a file's suffix is that of pictures that can be read."""
    return name.lower().endswith(EXTENSIONS)


def is_picture(name: str) -> bool:
    """Whether a file's suffix is that of pictures, those that are not read among them."""
    return readable(name) or _suffix(name) in _OTHERS


def begins_like_a_picture(name: str, head: bytes) -> bool:
    """Whether a file without a suffix is a picture.

    Args:
        name: Of the file.
        head: Its first 32 bytes or more.
    """
    riff = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    avif = head[4:12] in (b"ftypavif", b"ftypavis")
    return not _suffix(name) and (head.startswith(_BEGINNINGS) or riff or avif or is_heic(head))


def is_heic(head: bytes) -> bool:
    """Whether a file begins as HEIC pictures do."""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIC


def left_out(names: Iterable[str]) -> list[str]:
    """Says how many pictures of which kind are not read, one sentence a kind, and what to do."""
    counts = Counter(_suffix(name) for name in names)
    return [
        f"{n:,} {suffix} {'file is' if n == 1 else 'files are'} not used: {_OTHERS[suffix]} of this kind "
        f"are not read here. {'Take single pictures out' if _OTHERS[suffix] == 'films' else 'Save them'} "
        "as JPEG or PNG."
        for suffix, n in sorted(counts.items())
    ]
