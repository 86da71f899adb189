"""Images that belong together, such as those of one patient: on one side of a split, all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlhelpers.data._errors import DataError
from tlhelpers.data._labels import read_column

__all__ = ["cut", "groups_of", "numbered"]

Indices = NDArray[np.int64]


def groups_of(rule: str, names: Sequence[str]) -> dict[str, str]:
    """Returns the group of each file that has one.

    Args:
        rule: A CSV file with file names and groups; or a regular expression whose first group, or all that it
            finds, in a file's path names the group.
        names: The files.

    Raises:
        DataError: The rule cannot be used, or fits no file.
    """
    path = Path(rule).expanduser()
    if rule.lower().endswith((".csv", ".tsv")):
        if not path.is_file():
            raise DataError(f"--group {rule}: there is no such file.")
        return read_column(path.name, path.read_bytes(), names)
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise DataError(f"--group {rule} is no regular expression: {error}.") from error
    found = {n: (m[1] if pattern.groups else m[0]) for n in names if (m := pattern.search(n))}
    if not any(found.values()):
        raise DataError(f"--group {rule} fits no file; one is {names[0]}.")
    return {name: group for name, group in found.items() if group}


def numbered(
    names: Sequence[str], together: Iterable[Sequence[str]], groups: Mapping[str, str]
) -> dict[str, int]:
    """Returns a number for each file, equal for those that belong together; nothing where each is alone."""
    leader: dict[object, object] = {}

    def top(key: object) -> object:
        while leader.setdefault(key, key) != key:
            key = leader[key]
        return key

    for members in together:
        for name in members[1:]:
            leader[top(name)] = top(members[0])
    for name, group in groups.items():
        leader[top(name)] = top(("group", group))
    tops = [top(name) for name in names]
    number = {key: i for i, key in enumerate(dict.fromkeys(tops))}
    alone = len(number) == len(names)
    return {} if alone else {name: number[key] for name, key in zip(names, tops, strict=True)}


def cut(
    labels: Indices, groups: Indices, share: float, seed: int, say: Callable[[int], str], spare: int = 1
) -> Indices:
    """Chooses a share of each class in whole groups.

    Args:
        labels: int64 (n,).
        groups: int64 (n,), equal for images that belong together.
        share: Part of each class, at least one group and never all of them.
        seed: Of the order in which groups are tried.
        say: From a label to its name, for messages.
        spare: Groups of each class that are left, where it has so many.

    Returns:
        Positions of the chosen images, int64, ascending.

    Raises:
        DataError: A class lies in one group.
    """
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    shuffled = np.random.default_rng([seed, 3]).permutation(len(members))
    members = [members[i] for i in shuffled]
    counts = np.stack([np.bincount(labels[m], minlength=labels.max() + 1) for m in members])
    alone = [say(int(c)) for c in np.unique(labels) if (counts[:, c] > 0).sum() < 2]
    if alone:
        raise DataError(
            f"all images of {', '.join(alone)} belong to one group, which cannot be split. "
            "Add images of other groups, or put test images of their own into test/."
        )
    total = counts.sum(axis=0)
    taken, chosen = np.zeros(len(total)), np.zeros(len(members), bool)
    left = (counts > 0).sum(axis=0)  # groups of each class that are not chosen
    for c in np.argsort(total, kind="stable"):  # the smallest class first: it has the least choice
        wanted = share * total[c]
        for i in np.flatnonzero((counts[:, c] > 0) & ~chosen):
            here = counts[i] > 0
            closer = abs(taken[c] + counts[i, c] - wanted) < abs(taken[c] - wanted)
            if (left[here] > spare).all() and (closer or not taken[c]):
                chosen[i] = True
                taken, left = taken + counts[i], left - here
    return np.sort(
        np.concatenate([m for m, is_in in zip(members, chosen, strict=True) if is_in] or [order[:0]])
    )
