"""Seeded, stratified orders: the arithmetic under `data.load`."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

__all__ = ["choose", "cut_test_pool", "stratified_order"]

Indices = NDArray[np.int64]

# The test pool of a set that ships none must be the same for every seed, so its seed is fixed.
_TEST_POOL_SEED = 20101
# Each pool has an order of its own inside one `seed`, so that none depends on another's count.
_TRAIN, _VALIDATION, _TEST = 0, 1, 2
# Of the training pool, where no number is asked for and the set ships no validation images.
VALIDATION_SHARE = 0.1


def _shuffled_classes(labels: NDArray[np.int64], rng: np.random.Generator) -> list[Indices]:
    """The positions of each class that occurs, each shuffled. Ties of random keys do not matter."""
    keys = rng.random(len(labels))
    order = np.lexsort((keys, labels))
    starts = np.flatnonzero(np.diff(labels[order])) + 1
    return [np.asarray(part, dtype=np.int64) for part in np.split(order, starts)] if len(labels) else []


def stratified_order(labels: NDArray[np.int64], *seed: int) -> Indices:
    """A random order of all images in which every prefix is stratified.

    In the first k images, a class that makes up a share p of all has more than k p - 1 and fewer than
    k p + 1 images, for every k at once. The j-th image of a class may come no earlier than place
    floor(j / p) and no later than place ceil((j + 1) / p) - 1; serving the nearest deadline first
    keeps every such window. Orders that only sort by relative rank miss that bound when classes differ
    in size. (Baruah, Cohen, Plaxton and Varvel, "Proportionate progress", Algorithmica 15, 1996.)

    Args:
        labels: int64 (n,), class of each image.
        seed: One or more whole numbers; equal numbers give an equal order.

    Returns:
        int64 (n,), a permutation of 0..n-1.
    """
    rng = np.random.default_rng(list(seed))
    classes = _shuffled_classes(labels, rng)
    n = len(labels)
    ties = rng.random(n)
    released: list[list[tuple[int, int]]] = [[] for _ in range(n)]
    for c, members in enumerate(classes):
        for j in range(len(members)):
            released[j * n // len(members)].append((c, j))
    order = np.empty(n, dtype=np.int64)
    waiting: list[tuple[int, float, int]] = []
    for place in range(n):
        for c, j in released[place]:
            size = len(classes[c])
            image = int(classes[c][j])
            heapq.heappush(waiting, (-(-(j + 1) * n // size), ties[image], image))
        order[place] = heapq.heappop(waiting)[2]
    return order


def cut_test_pool(labels: NDArray[np.int64], share: float) -> tuple[Indices, Indices]:
    """Cut a fixed test pool off a set that ships none. The same for every seed.

    Args:
        labels: int64 (n,).
        share: Part of each class that becomes the test pool, rounded, at least one image.

    Returns:
        Positions of the rest and positions of the test pool, int64, each in ascending order.
    """
    rng = np.random.default_rng(_TEST_POOL_SEED)
    test = [members[: max(1, round(share * len(members)))] for members in _shuffled_classes(labels, rng)]
    test_pool = np.sort(np.concatenate(test))
    return np.setdiff1d(np.arange(len(labels), dtype=np.int64), test_pool), test_pool


def choose(
    train: NDArray[np.int64],
    val: NDArray[np.int64] | None,
    test: NDArray[np.int64],
    asked: dict[str, int | None],
    seed: int,
    name: str,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Which images `data.load` takes.

    Args:
        train: int64 (n,), labels of the training pool.
        val: Labels of the validation pool, or None: then validation comes out of the training pool.
        test: Labels of the test pool.
        asked: "n_train", "n_val" and "n_test"; None takes all (of `n_val` without a pool: a tenth).
        seed: 0 or larger.
        name: What messages call the data set.

    Returns:
        int64 positions of the training, validation and test images, each in its pool.

    Raises:
        ValueError: More asked for than there is; the message says how many there are.
    """
    n_test = _at_most("n_test", asked["n_test"], len(test), f"{name} has {len(test):,} test images")
    n_val = asked["n_val"]
    if val is not None:
        n_val = _at_most("n_val", n_val, len(val), f"{name} has {len(val):,} validation images")
        chosen_val = stratified_order(val, seed, _VALIDATION)[:n_val]
        left, reason = np.arange(len(train)), f"{name} has {len(train):,} training images"
    else:
        n_val = max(1, round(VALIDATION_SHARE * len(train))) if n_val is None else n_val
        has = f"{name} has {len(train):,} training images, validation included"
        n_val = _at_most("n_val", n_val, len(train) - 1, f"{has}, and at least one must be left for training")
        chosen_val = stratified_order(train, seed, _VALIDATION)[:n_val]
        left = np.setdiff1d(np.arange(len(train)), chosen_val)
        reason = f"{has}; validation takes {n_val:,} of them, so {len(left):,} are left"
    n_train = _at_most("n_train", asked["n_train"], len(left), reason)
    chosen_train = left[stratified_order(train[left], seed, _TRAIN)[:n_train]]
    return chosen_train, chosen_val, stratified_order(test, seed, _TEST)[:n_test]


def _at_most(argument: str, asked: int | None, there: int, reason: str) -> int:
    if asked is not None and asked > there:
        raise ValueError(
            f"{argument}={asked:,}, but {reason}. Ask for at most {there:,}, or None to take all."
        )
    return there if asked is None else asked
