"""Images in class folders, on disk or inside a zip file: listing, checking, decoding."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tlhelpers.data._decoding import decode, oriented_size
from tlhelpers.data._errors import DataError
from tlhelpers.data._folders import EXTENSIONS, check_classes, group, visible, wrapping_folder

__all__ = ["ImageFiles", "ImageSequence", "Part", "open_images"]

DEFAULT_SIZE = 224  # what most ImageNet backbones were trained on
_CHUNK = 64  # images a thread takes at a time: large enough that queueing costs nothing

T = TypeVar("T")
R = TypeVar("R")


class _FolderStore:
    """Files below a folder on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: list[str] = []
        self.folders: list[str] = []
        seen: set[str] = set()  # a link that points upwards must not send us round in circles
        for parent, folders, files in os.walk(root, followlinks=True):
            real = os.path.realpath(parent)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            relative = Path(parent).relative_to(root)
            self.folders += [(relative / name).as_posix() for name in folders]
            self.files += [(relative / name).as_posix() for name in files]

    def open(self, name: str) -> IO[bytes]:
        return open(self.root / name, "rb")

    def close(self) -> None:
        """Nothing to close."""


class _ZipStore:
    """Members of a zip file. Nothing is extracted."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
            raise DataError(
                f"{path} is not a readable zip file ({error}). Fetch or pack it again; "
                "a download that was cut short looks like this."
            ) from error
        members = self._zip.infolist()
        locked = next((m.filename for m in members if m.flag_bits & 0x1), None)
        if locked is not None:
            self._zip.close()
            raise DataError(f"{path} is encrypted ({locked} needs a password). Pack it again without one.")
        self.files = [m.filename for m in members if not m.is_dir()]
        # Plain strings: pathlib takes seconds for 60,000 names.
        found = {m.filename.rstrip("/") if m.is_dir() else m.filename.rpartition("/")[0] for m in members}
        self.folders = sorted(
            {"/".join(n.split("/")[: i + 1]) for n in found for i in range(n.count("/") + 1)}
        )

    def open(self, name: str) -> IO[bytes]:
        return io.BytesIO(self._zip.read(name))

    def close(self) -> None:
        self._zip.close()


@dataclass(frozen=True)
class Part:
    """Files of one split: `names` (n,) inside the store, `labels` int64 (n,)."""

    names: tuple[str, ...]
    labels: NDArray[np.int64]


class ImageFiles:
    """Class folders that have been listed and checked. No pixel is decoded before `read`.

    A zip file stays open until `close`, or until nothing refers to it any more.

    Attributes:
        parts: Splits by name: always "train"; "val" and "test" where the set ships them.
        class_names: Names of the class folders: by number when all are numbers, else by alphabet.
        n_ignored: Files that are no images by their extension, or hidden.
        jpeg: Whether all images are JPEG files by their extension.
    """

    def __init__(self, store: _FolderStore | _ZipStore, where: str) -> None:
        self._store = store
        self.where = where
        folders = [name for name in store.folders if name not in ("", ".") and visible(name)]
        prefix = wrapping_folder(folders)
        images = [n for n in store.files if n.lower().endswith(EXTENSIONS) and visible(n)]
        by_class = group(images, folders, prefix, where)
        used = sum(len(names) for classes in by_class.values() for names in classes.values())
        self.n_ignored = len(store.files) - used
        self.class_names = check_classes(by_class, where)
        self.parts = {
            split: Part(
                tuple(name for c in self.class_names for name in sorted(classes[c])),
                np.repeat(
                    np.arange(len(self.class_names), dtype=np.int64),
                    [len(classes[c]) for c in self.class_names],
                ),
            )
            for split, classes in by_class.items()
        }
        names = [name for part in self.parts.values() for name in part.names]
        self.jpeg = all(name.lower().endswith((".jpg", ".jpeg")) for name in names)

    def __enter__(self) -> ImageFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the zip file, if it is one."""
        self._store.close()

    def common_size(self) -> tuple[int, int] | None:
        """Returns (height, width) when all images of all splits agree, else None. Reads headers only."""
        sizes: set[tuple[int, int]] = set()
        names = [name for part in self.parts.values() for name in part.names]
        for chunk_sizes in _threaded(
            lambda chunk: {self._guard(oriented_size, n) for n in chunk}, _chunks(names)
        ):
            sizes |= chunk_sizes
        return sizes.pop() if len(sizes) == 1 else None

    def read(
        self, names: Sequence[str], size: tuple[int, int] | int, digests: Mapping[str, bytes] | None = None
    ) -> NDArray[np.uint8]:
        """Decodes images.

        Args:
            names: Which ones, (n,).
            size: (height, width) that every image already has, or a number of pixels: then the short
                side is resized to it (antialiased) and the centre square is kept.
            digests: SHA-256 of the files' content, by name, where a file must still be what it was.

        Returns:
            uint8 (n, height, width, 3), RGB.

        Raises:
            DataError: A file is corrupt, has another size or has changed; the message names it. Or there is
                not enough memory.
        """
        square = size if isinstance(size, int) else None
        height, width = (size, size) if isinstance(size, int) else size
        _check_memory(len(names) * height * width * 3, self.where)
        out = np.empty((len(names), height, width, 3), dtype=np.uint8)

        def decode_chunk(places: Sequence[int]) -> None:
            for i in places:
                pixels = self._decoded(names[i], square, (digests or {}).get(names[i]))
                if pixels.shape != out.shape[1:]:
                    raise DataError(
                        f"{self.where}: {names[i]} has {pixels.shape[1]} x {pixels.shape[0]} pixels where "
                        f"{width} x {height} were expected. Pass image_size to bring all to one size."
                    )
                out[i] = pixels

        for _ in _threaded(decode_chunk, _chunks(range(len(names)))):
            pass
        return out

    def _decoded(self, name: str, square: int | None, digest: bytes | None) -> NDArray[np.uint8]:
        if digest is None:
            return self._guard(lambda stream: decode(stream, square), name)
        content = self.read_bytes(name)
        if sha256(content).digest() != digest:
            raise DataError(f"{self.where}: {name} changed while its features were computed. Run again.")
        return self._guard(lambda _: decode(io.BytesIO(content), square), name)

    def read_bytes(self, name: str) -> bytes:
        """Returns the content of a file, undecoded."""
        return self._guard(lambda stream: stream.read(), name)

    def _guard(self, use: Callable[[IO[bytes]], T], name: str) -> T:
        try:
            with self._store.open(name) as stream:
                return use(stream)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise a dozen kinds of error on broken files
            raise DataError(
                f"{self.where}: cannot read the image {name} ({type(error).__name__}: {error}). "
                "Replace the file or remove it."
            ) from error


class ImageSequence:
    """Images that stay in their files until they are indexed: it looks like an array and takes no memory.

    A slice or an array of positions gives decoded images, uint8 ``(m, h, w, 3)``; one position gives one
    image ``(h, w, 3)``. ``np.asarray`` decodes them all. The files must stay where they are.

    Attributes:
        shape: ``(n, h, w, 3)``.
        dtype: uint8.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from tlhelpers import data
        >>> for i in range(20):
        ...     Path(f"photos/{i % 2}").mkdir(parents=True, exist_ok=True)
        ...     Image.new("RGB", (8, 8), (i, 9 * i, 0)).save(f"photos/{i % 2}/{i}.png")
        >>> data.load("./photos", lazy=True).x_train[:2].shape
        (2, 8, 8, 3)
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self, files: ImageFiles, names: Sequence[str], size: tuple[int, int] | int, mirror: bool = False
    ) -> None:
        self._files, self._names, self._size, self._mirror = files, list(names), size, mirror
        self._digests: dict[str, bytes] = {}
        self._watched = False
        height, width = (size, size) if isinstance(size, int) else size
        self.shape = (len(self._names), height, width, 3)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        places = np.arange(len(self))[key]
        digests = self._digests if self._watched else None
        images = self._files.read([self._names[i] for i in np.atleast_1d(places)], self._size, digests)
        images = images[:, :, ::-1] if self._mirror else images
        return images if places.ndim else images[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:] if dtype is None else self[:].astype(dtype)

    def mirrored(self) -> ImageSequence:
        """Returns the same images with left and right exchanged; they stay in their files, too."""
        return ImageSequence(self._files, self._names, self._size, not self._mirror)

    def digest(self) -> str:
        """Returns a digest of the files' content and of the size to which they are brought."""
        digest = sha256(f"{self._size} {len(self)}{' mirrored' if self._mirror else ''}".encode())
        for name in self._names:
            self._digests[name] = sha256(self._files.read_bytes(name)).digest()
            digest.update(self._digests[name])
        return digest.hexdigest()

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Within the block, to read a file that is not what `digest` read raises a `DataError`."""
        self._watched = True
        try:
            yield
        finally:
            self._watched = False


def open_images(path: Path, where: str) -> ImageFiles:
    """Lists the images of a folder or zip file. Use it in a `with` statement.

    Args:
        path: A folder or a zip file that holds class folders, or train/, val/ and test/ with class
            folders inside.
        where: What messages call it.

    Raises:
        DataError: The zip file is broken or encrypted, or the class folders cannot be used.
    """
    store = _FolderStore(path) if path.is_dir() else _ZipStore(path)
    try:
        return ImageFiles(store, where)
    except BaseException:
        store.close()
        raise


def _chunks(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[i : i + _CHUNK] for i in range(0, len(items), _CHUNK)]


def _threaded(work: Callable[[Sequence[T]], R], chunks: list[Sequence[T]]) -> Iterator[R]:
    """Results of `work` on each chunk, in order. The first error stops what has not begun."""
    if len(chunks) == 1:  # as of a step of `features.extract`, which reads in threads of its own
        yield work(chunks[0])
        return
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        yield from pool.map(work, chunks)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _check_memory(n_bytes: int, where: str) -> None:
    if n_bytes < 2**29:
        return
    try:
        import psutil  # only large requests pay for the import
    except ModuleNotFoundError:  # it comes with the extra `app`; without it nobody knows what is free
        return
    free = psutil.virtual_memory().available
    if n_bytes > free:
        raise DataError(
            f"{where}: these images take {n_bytes / 2**30:.1f} GiB and {free / 2**30:.1f} GiB of memory "
            "are free. Ask for fewer images or a smaller image_size."
        )
