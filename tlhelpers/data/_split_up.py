"""Images of a checked folder, split as `load` splits them, with what belongs together on one side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tlhelpers import data
from tlhelpers.data import _groups, _splits
from tlhelpers.data._image_files import ImageFiles, ImageSequence

__all__ = ["split_up"]


def split_up(
    files: ImageFiles,
    by_class: dict[str, dict[str, list[str]]],
    class_names: tuple[str, ...],
    seed: int,
    size: int,
    groups: Mapping[str, int],
) -> tuple[data.Dataset, dict[str, tuple[str, ...]]]:
    """Splits images where the folder does not; returns the data set and the names of its files.

    Without groups it is the split of `tlhelpers.data.load`.

    Args:
        files: Where the images lie.
        by_class: Split -> class -> files, those that the folder has.
        class_names: In the order of the labels.
        seed: Of the split.
        size: Side in pixels.
        groups: File -> number, equal for those that belong together; empty where each is alone.

    Raises:
        DataError: A class cannot be split, since all its images belong together.
    """
    names: dict[str, list[str]] = {}
    labels: dict[str, np.ndarray] = {}
    for split, classes in by_class.items():
        names[split] = [name for c in class_names for name in classes[c]]
        counts = [len(classes[c]) for c in class_names]
        labels[split] = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    source = files.where
    if groups:
        numbers = np.array([groups[name] for name in names["train"]])
        for split, share, cut_seed in (("test", data.TEST_SHARE, 0), ("val", _splits.VALIDATION_SHARE, seed)):
            if split not in names:
                spare = 2 if split == "test" and "val" not in names else 1  # one of them for validation
                pool = _groups.cut(labels["train"], numbers, share, cut_seed, class_names.__getitem__, spare)
                rest = np.setdiff1d(np.arange(len(numbers)), pool)
                names[split], labels[split] = [names["train"][i] for i in pool], labels["train"][pool]
                names["train"], labels["train"] = [names["train"][i] for i in rest], labels["train"][rest]
                numbers = numbers[rest]
    elif "test" not in names:
        rest, pool = _splits.cut_test_pool(labels["train"], data.TEST_SHARE)
        names["test"], labels["test"] = [names["train"][i] for i in pool], labels["train"][pool]
        names["train"], labels["train"] = [names["train"][i] for i in rest], labels["train"][rest]
        source += "; no test/ inside, so a fixed fifth of each class is the test pool"
    asked = dict.fromkeys(("n_train", "n_val", "n_test"))
    chosen = _splits.choose(labels["train"], labels.get("val"), labels["test"], asked, seed, files.where)
    pools = ("train", "val" if "val" in names else "train", "test")
    picked = {
        split: tuple(names[pool][i] for i in places)
        for split, pool, places in zip(("train", "val", "test"), pools, chosen, strict=True)
    }
    y = [labels[pool][places] for pool, places in zip(pools, chosen, strict=True)]
    x = [ImageSequence(files, chosen_names, size) for chosen_names in picked.values()]
    return data.Dataset(x[0], y[0], x[1], y[1], x[2], y[2], class_names, source), picked
