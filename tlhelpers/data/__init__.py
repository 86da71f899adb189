"""Data sets: named ones and folders of your own, split into training, validation and test images."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlhelpers import checks
from tlhelpers.data import _known_sets, _splits
from tlhelpers.data._errors import DataError, DataUnavailableError
from tlhelpers.data._image_files import DEFAULT_SIZE, ImageFiles, ImageSequence, open_images
from tlhelpers.data._layout import Layout

__all__ = [
    "DataError",
    "DataUnavailableError",
    "Dataset",
    "ImageSequence",
    "Layout",
    "class_counts",
    "load",
    "resize",
    "source_of",
]

TEST_SHARE = 0.2  # of each class, where a folder ships no test images


@dataclass(frozen=True, repr=False, eq=False)
class Dataset:
    """Images and labels, split in three. No image is in two splits. Returned by `load`.

    Attributes:
        x_train: uint8 (n_train, h, w, 3), RGB, 0..255: an array, or an `ImageSequence` from
            ``load(..., lazy=True)``.
        y_train: int64 (n_train,), positions in `class_names`.
        x_val: uint8 (n_val, h, w, 3).
        y_val: int64 (n_val,).
        x_test: uint8 (n_test, h, w, 3).
        y_test: int64 (n_test,).
        class_names: One name a class.
        source: Where the images came from, in words.
    """

    x_train: NDArray[np.uint8] | ImageSequence
    y_train: NDArray[np.int64]
    x_val: NDArray[np.uint8] | ImageSequence
    y_val: NDArray[np.int64]
    x_test: NDArray[np.uint8] | ImageSequence
    y_test: NDArray[np.int64]
    class_names: tuple[str, ...]
    source: str

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def __repr__(self) -> str:
        height, width = self.x_train.shape[1:3]
        counts = [f"{len(y):,}" for y in (self.y_train, self.y_val, self.y_test)]
        return (
            f"Dataset({counts[0]} training, {counts[1]} validation, {counts[2]} test images, "
            f"{width} x {height} pixels, {self.n_classes} classes; {self.source})"
        )


def load(
    name_or_path: str | os.PathLike[str],
    *,
    n_train: int | None = None,
    n_val: int | None = None,
    n_test: int | None = None,
    seed: int = 0,
    image_size: int | None = None,
    lazy: bool = False,
    layout: Layout | None = None,
) -> Dataset:
    """Loads a data set and splits it: stratified, disjoint, and the same for the same seed.

    For one seed the validation and the test images stay the same whatever `n_train` is, and a smaller
    training set is the beginning of a larger one. So learning curves compare like with like. In every
    such beginning each class has its share of the images, to less than one image. (The training set
    does depend on `n_val`, because validation images are taken out of the training images, never out
    of the test images.)

    A name is looked for in this order: the folder in the environment variable `TLHELPERS_DATA`
    (`<name>.zip`, then `<name>/`), Keras' own loader where it has one, a folder of that name in the current
    directory. "digits" comes with scikit-learn: 8 x 8 pixels, a fixed third of it is the test pool.
    Nothing else is ever loaded in place of a set that is missing.

    A folder (or zip or tar file) holds one folder a class, or train/, val/ and test/ with class folders
    inside, under names such as Training or test_set, too. What can be read in two ways is refused; `layout`
    decides. Without test/, a fixed fifth of each class becomes the test pool, the same for every seed. Grey,
    palette, CMYK and 16-bit images become 8-bit RGB, transparent ones are laid on white, and
    rotation marks of cameras are applied. Labels follow the class names: by number where all are
    numbers, else by alphabet.

    Args:
        name_or_path: "digits", "cifar10", "mnist" or another name, or a path (one with a slash, one that
            starts with a dot or ~, one that ends in .zip or .tgz, or a `pathlib.Path`).
        n_train: Training images. None: all that validation leaves.
        n_val: Validation images, 0 for none. None: all of val/ where the set ships one, else a tenth of
            the training pool.
        n_test: Test images. None: all of the test pool.
        seed: Chooses which images; 0 or larger.
        image_size: Side in pixels: the short side is resized to it, antialiased, and the centre square kept.
            None: images stay as they are where all have one size, else 224.
        lazy: Whether images from a folder or zip file stay there, and are decoded when they are used: for
            more images than memory holds. Sets that come as arrays are arrays all the same.
        layout: How a folder is to be read, where the names in it leave that open.

    Returns:
        The data set, uint8 images (n, h, w, 3) and int64 labels (n,).

    Raises:
        DataUnavailableError: The named set cannot be had here.
        DataError: A file or folder cannot be used.
        ValueError: More images asked for than there are; the message says how many there are.
        TypeError: A count, size or seed is not a whole number.

    Example:
        >>> from tlhelpers import data
        >>> ds = data.load("digits", n_train=100, n_val=50, n_test=50)
        >>> ds.x_train.shape, ds.n_classes
        ((100, 8, 8, 3), 10)
    """
    counts = {"n_train": n_train, "n_val": n_val, "n_test": n_test}
    least = {"n_train": 1, "n_val": 0, "n_test": 1}
    asked = {key: None if v is None else checks.whole(v, key, least[key]) for key, v in counts.items()}
    seed = checks.whole(seed, "seed", 0)
    size = None if image_size is None else checks.whole(image_size, "image_size")
    path, name = _find(name_or_path)
    if path is not None:
        files = open_images(path, name, layout)
        try:
            return _from_files(files, path, name, asked, seed, size, lazy)
        finally:
            if not lazy:
                files.close()
    return _from_arrays(name, asked, seed, size)


def source_of(name: str) -> str:
    """Tells where `load` would take a named set from here, in words.

    Args:
        name: As `load` takes it.

    Example:
        >>> from tlhelpers import data
        >>> data.source_of("digits")
        'scikit-learn'
    """
    path, _ = _find(name)
    if path is not None:
        return f"TLHELPERS_DATA/{path.name}"
    return "scikit-learn" if name == "digits" else "keras.datasets"


def resize(x: NDArray[np.uint8] | ImageSequence, size: int) -> NDArray[np.uint8]:
    """Brings images to `size` x `size` pixels, bicubic, antialiased when they get smaller.

    Images that are not square are stretched; `load(..., image_size=...)` crops instead.

    Args:
        x: uint8 (n, h, w, 3). An `ImageSequence` is decoded into memory.
        size: Side of the result in pixels.

    Returns:
        uint8 (n, size, size, 3). The very array `x` where it has that size already.

    Raises:
        TypeError: `x` is not a uint8 array.
        ValueError: `x` has another shape.

    Example:
        >>> import numpy as np
        >>> from tlhelpers import data
        >>> data.resize(np.zeros((5, 8, 8, 3), np.uint8), 32).shape
        (5, 32, 32, 3)
    """
    x = np.asarray(x) if isinstance(x, ImageSequence) else x
    _check_images(x)
    size = checks.whole(size, "size")
    if x.shape[1:3] == (size, size):
        return x
    out = np.empty((len(x), size, size, 3), dtype=np.uint8)

    def work(start: int) -> None:
        for i in range(start, min(start + 64, len(x))):
            image = Image.fromarray(np.ascontiguousarray(x[i]))
            out[i] = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))

    if len(x) <= 64:  # as in the steps of `features.extract`, which are threads already
        work(0)
        return out
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(work, range(0, len(x), 64)))
    return out


def class_counts(y: NDArray[np.int64], class_names: tuple[str, ...]) -> dict[str, int]:
    """Counts the images of each class.

    Args:
        y: int64 (n,), labels such as `ds.y_train`.
        class_names: `ds.class_names`.

    Returns:
        Class name to count, in the order of `class_names`; 0 for a class that does not occur.

    Raises:
        ValueError: A label has no name.

    Example:
        >>> import numpy as np
        >>> from tlhelpers import data
        >>> data.class_counts(np.array([0, 1, 1]), ("cat", "dog", "owl"))
        {'cat': 1, 'dog': 2, 'owl': 0}
    """
    y = np.asarray(y)
    if y.size and (y.min() < 0 or y.max() >= len(class_names)):
        raise ValueError(
            f"labels go from {y.min()} to {y.max()} but there are {len(class_names)} class names; "
            "pass the class_names of the same data set"
        )
    return dict(
        zip(class_names, np.bincount(y.astype(np.int64), minlength=len(class_names)).tolist(), strict=True)
    )


def _find(name_or_path: str | os.PathLike[str]) -> tuple[Path | None, str]:
    """The folder or zip file to read and what messages call it, or None for a set that a package has."""
    text = os.fspath(name_or_path)
    if not isinstance(name_or_path, str) or not re.fullmatch(r"[A-Za-z0-9][\w-]*", text):
        path = Path(text).expanduser()
        if not text or not path.exists():
            raise DataUnavailableError(f"there is no file or folder {text!r}. Check the path.")
        # The slash keeps a folder of the reader's that happens to be called mnist apart from MNIST.
        return path, path.resolve().name + ("" if path.is_file() else "/")
    if text == "digits":
        return None, text
    root = os.environ.get("TLHELPERS_DATA", "").strip()
    for candidate in (Path(root).expanduser() / f"{text}.zip", Path(root).expanduser() / text):
        if root and candidate.exists():
            return candidate, text
    if text not in _known_sets.KERAS_SETS and Path(text).is_dir():
        return Path(text), f"{text}/"
    return None, text


def _from_files(
    files: ImageFiles,
    path: Path,
    name: str,
    asked: dict[str, int | None],
    seed: int,
    size: int | None,
    lazy: bool,
) -> Dataset:
    train = files.parts["train"]
    val, test = files.parts.get("val"), files.parts.get("test")
    notes = [_described(files, path)]
    test_names: tuple[str, ...] | list[str]
    if test is None:
        rest, pool = _splits.cut_test_pool(train.labels, TEST_SHARE)
        notes.append("no test/ inside, so a fixed fifth of each class is the test pool")
        test_names, test_labels = [train.names[i] for i in pool], train.labels[pool]
        names, labels = [train.names[i] for i in rest], train.labels[rest]
    else:
        test_names, test_labels = test.names, test.labels
        names, labels = list(train.names), train.labels
    chosen = _splits.choose(labels, None if val is None else val.labels, test_labels, asked, seed, name)
    to = size or _known_sets.NATIVE_SIZE.get(name) or files.common_size() or DEFAULT_SIZE
    if size is None and to == DEFAULT_SIZE:
        notes.append(f"images of several sizes, brought to {DEFAULT_SIZE} pixels")
    val_names, val_labels = (names, labels) if val is None else (list(val.names), val.labels)

    wanted = [
        [pool[i] for i in places] for pool, places in zip((names, val_names, test_names), chosen, strict=True)
    ]
    x: list[NDArray[np.uint8] | ImageSequence]
    if lazy:
        x = [ImageSequence(files, part, to) for part in wanted]
    else:  # all in one, so that an error names every file that is broken
        ends = np.cumsum([len(part) for part in wanted])[:-1]
        x = list(np.split(files.read([name for part in wanted for name in part], to), ends))
    y = (labels[chosen[0]], val_labels[chosen[1]], test_labels[chosen[2]])
    return Dataset(x[0], y[0], x[1], y[1], x[2], y[2], files.class_names, "; ".join(notes))


def _described(files: ImageFiles, path: Path) -> str:
    """The beginning of `source`: no absolute path, because notebooks print and store it."""
    text = path.resolve().name + ("" if path.is_file() else "/")
    if files.jpeg and path.resolve().stem in _known_sets.LOSSLESS:
        text += " (JPEG re-encoded: pixels differ slightly from the original)"
    if files.n_ignored:
        text += f" ({files.n_ignored:,} other files ignored)"
    return " ".join([text, *files.notes])


def _from_arrays(name: str, asked: dict[str, int | None], seed: int, size: int | None) -> Dataset:
    arrays = _known_sets.digits() if name == "digits" else _known_sets.from_keras(name)
    chosen = _splits.choose(arrays.y_train, None, arrays.y_test, asked, seed, name)
    x, y = arrays.x_train, arrays.y_train

    def sized(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return images if size is None else resize(images, size)

    return Dataset(
        sized(x[chosen[0]]),
        y[chosen[0]],
        sized(x[chosen[1]]),
        y[chosen[1]],
        sized(arrays.x_test[chosen[2]]),
        arrays.y_test[chosen[2]],
        arrays.class_names,
        arrays.source,
    )


def _check_images(x: object) -> None:
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8:
        kind = f"a {x.dtype} array" if isinstance(x, np.ndarray) else f"a {type(x).__name__}"
        raise TypeError(
            f"expected uint8 images with values 0..255, got {kind}; convert with .astype('uint8')"
        )
    if x.ndim != 4 or x.shape[3] != 3:
        raise ValueError(f"expected images of shape (n, height, width, 3), got {x.shape}")
