"""A training that survives a stop: its whole state after each epoch, in a file that is checked when read."""

import io
import json
import logging
from hashlib import sha256
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tlhelpers import data, layers
from tlhelpers.paths import atomic_path

KEPT = 2  # generations: the last one, and the one before in case that the last one is damaged


class Backup(keras.callbacks.Callback):
    """Writes the state of a training after each epoch, and puts it back.

    The state is that of all variables of the model and its optimizer, of random generators (dropout,
    augmentation), the seed of the order, and the history. A training that goes on is the training that was
    stopped: it does what it would have done. Other callbacks start anew.

    The files are named by all that the training depends on, but for its random seeds, which are restored:
    pixels and labels of training and validation, the layers and their settings, the weights at the start,
    what is trainable, the recipe, Keras and its backend. Each carries its checksum. Two generations are kept.

    Args:
        folder: Where the files lie; it is made when it is needed.
        model: Compiled, with its weights as they are at the start.
        ds: What it is trained and validated on.
        recipe: Any object whose ``repr`` says all of it.
        seed: Of the order of the images, if this training is a new one.

    Attributes:
        epochs: Finished epochs.
        seed: Of the order of the images.
        history: Quantity -> one number a finished epoch.

    Example:
        >>> from pathlib import Path
        >>> from tlhelpers import data, finetune, resume
        >>> ds = data.load("digits", n_train=32, n_val=10, n_test=10)
        >>> model = finetune.small_cnn(8, ds.n_classes)
        >>> model.compile("sgd", "sparse_categorical_crossentropy")
        >>> backup = resume.Backup(Path("backups"), model, ds, "sgd", seed=0)
        >>> backup.epochs  # nothing was stopped here: a new training
        0
    """

    def __init__(self, folder: Path, model: keras.Model, ds: data.Dataset, recipe: Any, seed: int) -> None:
        super().__init__()
        self.folder, self.key = folder, _key(model, ds, recipe)
        self.epochs, self.seed = 0, seed
        self.history: dict[str, list[float]] = {}
        model.optimizer.build(model.trainable_variables)
        for path in self._files():
            content = path.read_bytes()
            if path.stem.rpartition("-")[2] == sha256(content).hexdigest()[:16]:
                self._restore(content, model)
                break
            logging.getLogger(__name__).warning("%s is not what was written, and is not used.", path)
            path.unlink()

    def _files(self) -> list[Path]:
        """Returns the files of this training, the newest first."""
        return sorted(self.folder.glob(f"{self.key}-[0-9]*.npz"), reverse=True)

    def _restore(self, content: bytes, model: keras.Model) -> None:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            for i, variable in enumerate(_variables(model)):
                variable.assign(file[f"v{i}"])
        self.epochs, self.seed, self.history = about["epochs"], about["seed"], about["history"]

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes what there is now."""
        self.epochs = epoch + 1
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        about = {"epochs": self.epochs, "seed": self.seed, "history": self.history}
        arrays = {f"v{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(_variables(self.model))}
        stream = io.BytesIO()
        np.savez(stream, about=np.array(json.dumps(about)), **arrays)
        content = stream.getvalue()
        name = f"{self.key}-{self.epochs:06d}-{sha256(content).hexdigest()[:16]}.npz"
        with atomic_path(self.folder / name) as part:
            part.write_bytes(content)
        for old in self._files()[KEPT:]:
            old.unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes the files of this training, and what a kill left of one: it is done."""
        for path in (*self._files(), *self.folder.glob(f".{self.key}-*.tmp.npz")):
            path.unlink(missing_ok=True)


def _variables(model: keras.Model) -> list[Any]:
    """Returns all that a training changes, but for metrics, in an order that is the same each time."""
    metrics = {id(variable) for variable in model.metrics_variables}
    optimizer = model.optimizer.variables
    held = metrics | {id(variable) for variable in optimizer}
    return [v for v in model.variables if id(v) not in held] + list(optimizer)


def _key(model: keras.Model, ds: data.Dataset, recipe: Any) -> str:
    found = sha256(f"{recipe!r} {keras.backend.backend()} {keras.__version__}".encode())
    found.update(layers.structure(model).encode())
    found.update(str([weight.trainable for weight in model.weights]).encode())
    for array in (ds.x_train, ds.y_train, ds.x_val, ds.y_val, *model.get_weights()):
        array = np.ascontiguousarray(array)
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(array.data)
    return found.hexdigest()[:32]
