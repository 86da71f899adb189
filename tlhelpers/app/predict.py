"""Names for pictures by a finished model: what `tlhelpers predict` does."""

import csv
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tlhelpers import data
from tlhelpers.app import model_file
from tlhelpers.app.model_file import About, Predict
from tlhelpers.data.pictures import Pictures
from tlhelpers.paths import atomic_path

__all__ = ["Named", "from_files", "named", "write_csv"]

BATCH = 32  # pictures that are decoded and named at a time


@dataclass
class Named:
    """What a model says of pictures.

    Attributes:
        files: Their paths, as they were given or found.
        probabilities: ``(n, k)``.
        actual: Class by the folder that each lies in, or None where no folder is called like a class.
        unreadable: Files that could not be read -> why.
        notes: What was not used, one sentence each.
    """

    files: list[str] = field(default_factory=list)
    probabilities: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    actual: list[int | None] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def predicted(self) -> np.ndarray:
        """Predicted labels, int64 (n,)."""
        return self.probabilities.argmax(axis=1)

    def graded(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels and predicted labels of the pictures that lie in a folder called like a class."""
        known = [i for i, label in enumerate(self.actual) if label is not None]
        return np.array([self.actual[i] for i in known], np.int64), self.predicted[known]


def from_files(
    model: str | os.PathLike[str],
    paths: Sequence[str | os.PathLike[str]],
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Named, About]:
    """Names pictures by the model of a file.

    Args:
        model: A ``.keras`` or ``.onnx`` file of `tlhelpers run`.
        paths: Pictures, folders, zip files or tar files.
        advance: Is called with the number of pictures done, and of all in the same path.

    Raises:
        ValueError: The model file cannot be used.
        DataError: A path leads nowhere, or there is no picture at all.
        OSError: Something cannot be read.
    """
    predict_one, about = model_file.read(Path(model).expanduser())
    found = named([Path(p).expanduser() for p in paths], predict_one, about, advance=advance)
    if not found.files and not found.unreadable:
        what = f" ({' '.join(found.notes)})" if found.notes else ""
        raise data.DataError(f"There is no picture in {', '.join(map(str, paths))}.{what}")
    return found, about


def named(
    paths: Sequence[Path],
    predict_one: Predict,
    about: About,
    *,
    only: Collection[str] | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Named:
    """Names pictures by a function from images to probabilities.

    Args:
        paths: Pictures, folders or archives.
        predict_one: From uint8 images (n, s, s, 3) to probabilities.
        about: How pictures are decoded for it.
        only: Names inside of the path to which it is limited.
        advance: Is called with the number of pictures done, and of all in the same path.
    """
    result, parts = Named(), [np.zeros((0, len(about.class_names)), np.float32)]
    labels = {name.casefold(): i for i, name in enumerate(about.class_names)}
    for path in paths:
        with Pictures(path) as pictures:
            result.notes += pictures.notes
            names = [n for n in pictures.names if only is None or n in only]
            for start in range(0, len(names), BATCH):
                x, good, bad = pictures.batch(names[start : start + BATCH], about.image_size, about.white)
                parts += [predict_one(x)] if good else []
                shown = {n: str(path) if path.is_file() and n == path.name else f"{path}/{n}" for n in names}
                result.files += [n if only is not None else shown[n] for n in good]
                result.unreadable |= {n if only is not None else shown[n]: why for n, why in bad.items()}
                result.actual += [_class_of(shown[n], labels) for n in good]
                advance(min(start + BATCH, len(names)), len(names))
    result.probabilities = np.concatenate(parts)
    return result


def _class_of(file: str, labels: dict[str, int]) -> int | None:
    """The label of the nearest folder that is called like a class."""
    above = file.replace("\\", "/").split("/")[:-1]
    return next((labels[part.casefold()] for part in above[::-1] if part.casefold() in labels), None)


def write_csv(found: Named, about: About, path: Path) -> None:
    """Writes a row a picture: file, predicted, probability, unsure, actual, error, and one column a class."""
    top = found.probabilities.max(axis=1) if found.files else np.zeros(0)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["file", "predicted", "probability", "unsure", "actual", "error"]
            + [f"p({name})" for name in about.class_names]
        )
        for i, file in enumerate(found.files):
            actual = found.actual[i]
            row = [file, about.class_names[found.predicted[i]], f"{top[i]:.6f}"]
            row += ["yes" if top[i] < about.unsure_below else "no"]
            row += ["" if actual is None else about.class_names[actual], ""]
            writer.writerow([_plain(v) for v in row] + [f"{p:.6f}" for p in found.probabilities[i]])
        for file, why in found.unreadable.items():
            writer.writerow([_plain(v) for v in [file, "", "", "", "", why]])


def _plain(value: str) -> str:
    """Spreadsheets take a text that begins so for a formula."""
    return f"'{value}" if value.startswith(("=", "+", "@", "\t")) else value
