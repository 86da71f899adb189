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
from tlhelpers.data._errors import DataError, together
from tlhelpers.data._layout import Layout
from tlhelpers.data._listing import listed
from tlhelpers.data._stores import FolderStore, ZipStore
from tlhelpers.data._tar import is_tar, not_read, unpacked

__all__ = ["ImageFiles", "ImageSequence", "Part", "open_images", "open_store"]

DEFAULT_SIZE = 224  # what most ImageNet backbones were trained on
_CHUNK = 64  # images a thread takes at a time: large enough that queueing costs nothing

T = TypeVar("T")
R = TypeVar("R")


class _TarStore(FolderStore):
    """Files of a tar file, laid into a folder that goes when this is closed."""

    def __init__(self, path: Path) -> None:
        self._place = unpacked(path)
        super().__init__(Path(self._place.name))

    def close(self) -> None:
        self._place.cleanup()


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
        unlabelled: Images of a test folder without class folders.
        notes: What was guessed or left out, one sentence each.
        white: What counts as white in pictures of 16 bits; None leaves it to each picture.
        n_ignored: Files that are no images by their extension, or hidden.
        jpeg: Whether all images are JPEG files by their extension.
    """

    white: int | None = None

    def __init__(self, store: FolderStore | ZipStore, where: str, layout: Layout, path: Path) -> None:
        self._store = store
        self.where = where
        found = listed(store.files, store.folders, self.read_bytes, layout, where, path)
        self.class_names, self.unlabelled = found.class_names, found.unlabelled
        self.notes = (*store.notes, *found.notes)
        used = sum(len(names) for classes in found.by_class.values() for names in classes.values())
        self.n_ignored = len(store.files) - used - len(found.unlabelled)
        self.parts = {
            split: Part(
                tuple(name for c in self.class_names for name in classes[c]),
                np.repeat(
                    np.arange(len(self.class_names), dtype=np.int64),
                    [len(classes[c]) for c in self.class_names],
                ),
            )
            for split, classes in found.by_class.items()
        }
        names = [name for part in self.parts.values() for name in part.names]
        self.jpeg = all(name.lower().endswith((".jpg", ".jpeg", ".jpe", ".jfif")) for name in names)

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
            DataError: Files are corrupt, have changed, or one has another size; the message names them. Or
                there is not enough memory.
        """
        failed: list[str] = []
        square = size if isinstance(size, int) else None
        height, width = (size, size) if isinstance(size, int) else size
        _check_memory(len(names) * height * width * 3, self.where)
        out = np.empty((len(names), height, width, 3), dtype=np.uint8)

        def decode_chunk(places: Sequence[int]) -> None:
            for i in places:
                try:
                    pixels = self._decoded(names[i], square, (digests or {}).get(names[i]))
                except DataError as error:
                    failed.append(str(error))
                    continue
                if pixels.shape != out.shape[1:]:
                    raise DataError(
                        f"{self.where}: {names[i]} has {pixels.shape[1]} x {pixels.shape[0]} pixels where "
                        f"{width} x {height} were expected. Pass image_size to bring all to one size."
                    )
                out[i] = pixels

        for _ in _threaded(decode_chunk, _chunks(range(len(names)))):
            pass
        if failed:
            raise DataError(together(sorted(failed), self.where))
        return out

    def _decoded(self, name: str, square: int | None, digest: bytes | None) -> NDArray[np.uint8]:
        if digest is None:
            return self._guard(lambda stream: decode(stream, square, self.white), name)
        content = self.read_bytes(name)
        if sha256(content).digest() != digest:
            raise DataError(f"{self.where}: {name} changed while its features were computed. Run again.")
        return self._guard(lambda _: decode(io.BytesIO(content), square, self.white), name)

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

    def followed_by(self, other: ImageSequence) -> ImageSequence:
        """Returns these images and then those of another sequence out of the same folder or archive."""
        return ImageSequence(self._files, [*self._names, *other._names], self._size, self._mirror)

    def digest(self) -> str:
        """Returns a digest of the files' content and of the size to which they are brought."""
        white = f" white {self._files.white}" if self._files.white else ""
        digest = sha256(f"{self._size} {len(self)}{' mirrored' if self._mirror else ''}{white}".encode())
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


def open_images(path: Path, where: str, layout: Layout | None = None) -> ImageFiles:
    """Lists the images of a folder or archive. Use it in a `with` statement.

    Args:
        path: A folder, zip file or tar file that holds class folders, or train/, val/ and test/ with class
            folders inside.
        where: What messages call it.
        layout: How it is to be read, where its names leave that open.

    Raises:
        DataError: The archive is broken or encrypted, or the classes cannot be used.
    """
    store = open_store(path)
    try:
        return ImageFiles(store, where, layout or Layout(), path)
    except BaseException:
        store.close()
        raise


def open_store(path: Path) -> FolderStore | ZipStore:
    """Returns the files of a folder, a zip file or a tar file; it has to be closed.

    Raises:
        DataError: The archive is broken or encrypted.
    """
    if path.is_dir():
        return FolderStore(path)
    if path.is_file() and not zipfile.is_zipfile(path):
        if is_tar(path):
            return _TarStore(path)
        if not path.name.lower().endswith(".zip"):
            raise DataError(not_read(path))
    return ZipStore(path)


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
