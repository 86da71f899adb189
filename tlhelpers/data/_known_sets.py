"""Data sets that come with a package: scikit-learn's digits and what Keras can load."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlhelpers import downloads
from tlhelpers.data import _splits
from tlhelpers.data._errors import DataUnavailableError

__all__ = ["KERAS_SETS", "LOSSLESS", "NATIVE_SIZE", "Arrays", "digits", "from_keras"]

_CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly "
    "camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile "
    "cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp "
    "lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree "
    "orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum "
    "rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider "
    "squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train "
    "trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
#: Sets that Keras has a loader for, with their class names in the order of the labels.
KERAS_SETS: dict[str, tuple[str, ...]] = {
    "cifar10": (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
    "cifar100": tuple(_CIFAR100.split()),
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "mnist": tuple("0123456789"),
}
#: (height, width) of named sets, so that no header of 60,000 files is read to find it out.
NATIVE_SIZE = {"cifar10": (32, 32), "cifar100": (32, 32), "fashion_mnist": (28, 28), "mnist": (28, 28)}
#: Sets whose original is not JPEG, so that JPEG files of them are not the original.
LOSSLESS = frozenset(KERAS_SETS)


@dataclass(frozen=True)
class Arrays:
    """A whole set: images uint8 (n, h, w, 3), labels int64 (n,), names, and where it came from."""

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]
    class_names: tuple[str, ...]
    source: str


def digits() -> Arrays:
    """Scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, in RGB. A fixed third is the test pool."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = _rgb(np.rint(bunch.images * (255 / 16)).astype(np.uint8))  # ink comes as 0..16
    y = bunch.target.astype(np.int64)
    train, test = _splits.cut_test_pool(y, 1 / 3)
    source = "digits of scikit-learn (8 x 8 pixels), a fixed third of each class is the test pool"
    return Arrays(x[train], y[train], x[test], y[test], tuple("0123456789"), source)


def from_keras(name: str) -> Arrays:
    """A set through Keras' own loader: from its cache, else downloaded.

    Raises:
        DataUnavailableError: Keras has no such set, is not installed, or cannot download it.
    """
    if name not in KERAS_SETS:
        raise DataUnavailableError(_unavailable(name, "it has no data set of this name"))
    try:
        # Keras prints a bar while it downloads; on stderr it stays out of a notebook's compared output.
        with contextlib.redirect_stdout(sys.stderr), downloads.no_endless_waiting():
            import keras

            (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except MemoryError:
        raise
    except Exception as error:  # a missing package, no network, a cut download, a wrong checksum ...
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise DataUnavailableError(_unavailable(name, what)) from error
    y_train, y_test = (np.asarray(y).reshape(-1).astype(np.int64) for y in (y_train, y_test))
    source = f"{name} of keras.datasets"
    return Arrays(_channels_last(x_train), y_train, _channels_last(x_test), y_test, KERAS_SETS[name], source)


def _channels_last(x: NDArray) -> NDArray[np.uint8]:
    x = np.asarray(x, dtype=np.uint8)
    if x.ndim == 3:
        return _rgb(x)
    # Keras' loaders hand out channels first when keras.json asks for that.
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if x.shape[1] == 3 != x.shape[3] else x


def _rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=3)


def _unavailable(name: str, keras_said: str) -> str:
    """The message for a set that cannot be had: what was tried and what to do."""
    root = os.environ.get("TLHELPERS_DATA", "").strip()
    folder = Path(root).expanduser()
    here: list[str] = []
    if not root:
        looked = "not set"
    elif not folder.is_dir():
        looked = f"{root} is not a folder"
    else:
        looked = f"neither {name}.zip nor {name}/ in {root}"
        here = [p.stem for p in folder.iterdir() if p.suffix == ".zip" or p.is_dir()]
    similar = difflib.get_close_matches(name.lower(), ["digits", *KERAS_SETS, *here], n=1, cutoff=0.7)
    todo = [f"Write {similar[0]!r}, if that is what you mean."] if similar and similar[0] != name else []
    todo += [f"Set TLHELPERS_DATA to a folder with {name}.zip or {name}/ (train/<class>/*, test/<class>/*)."]
    if name in KERAS_SETS:
        todo += ["Or connect to the internet and try again: Keras downloads this set once and keeps it."]
    todo += ["Or pass the path of a folder with one folder of images a class."]
    todo += ["Or use 'digits', which needs no download (profile smoke)."]
    tried = [f"TLHELPERS_DATA: {looked}", f"Keras' loader: {keras_said}"]
    lines = [f"the data set {name!r} cannot be had here.", "Tried:", *(f"  - {t}" for t in tried)]
    return "\n".join([*lines, "To do, one of these:", *(f"  - {t}" for t in todo)])
