"""Files that show one picture: found by their hashes, and which of them a data set may use."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tlhelpers.data._scan import Look

__all__ = ["Copies", "find_copies"]

# Two pictures count as copies if few bits of their hashes differ, and their thumbnails differ by little of
# their contrast. Saving a photograph again, or in another size, stays far below both.
NEAR_BITS = 6  # of 64
NEAR_CONTRAST = 0.1
FLAT = 4.0  # grey levels of spread: pictures with less are as good as empty, and all alike
_PRIORITY = ("test", "val", "train")  # where the same picture is in two splits, the first one keeps it


@dataclass(frozen=True)
class Copies:
    """Files that show one picture. Returned by `load`, in a `FolderCheck`.

    Attributes:
        names: The files, two or more; first the one that is kept, if one is.
        exact: Whether they are equal byte by byte; else they only look alike.
        splits: The shipped splits that they lie in.
        classes: The class folders that they lie in: more than one means that a label is wrong.
    """

    names: tuple[str, ...]
    exact: bool
    splits: tuple[str, ...]
    classes: tuple[str, ...]


def find_copies(
    entries: Sequence[tuple[str, str, str]], looks: Mapping[str, Look], split_here: bool
) -> tuple[tuple[Copies, ...], dict[str, str]]:
    """Finds files that show one picture, and decides which of them are used.

    Args:
        entries: File, shipped split and class folder of each image.
        looks: File -> what was seen in it.
        split_here: Whether images are still to be split off: then no two copies may stay in training.

    Returns:
        The groups of files; and the files that are left out -> why.
    """
    entries = sorted(entries, key=lambda entry: (_PRIORITY.index(entry[1]), entry[0]))
    exact: dict[bytes, list[int]] = {}
    for i, (name, _, _) in enumerate(entries):
        exact.setdefault(looks[name].digest, []).append(i)
    leaders = [group[0] for group in exact.values()]
    pairs = _near([looks[entries[i][0]] for i in leaders])
    groups = _joined(list(exact.values()), pairs)
    copies: list[Copies] = []
    left_out: dict[str, str] = {}
    for members in groups:
        here = [entries[i] for i in sorted(members)]
        same_bytes = len({looks[name].digest for name, _, _ in here}) == 1
        classes = tuple(dict.fromkeys(c for _, _, c in here))
        splits = tuple(s for s in _PRIORITY[::-1] if any(s == split for _, split, _ in here))
        copies.append(Copies(tuple(name for name, _, _ in here), same_bytes, splits, classes))
        if same_bytes and len(classes) > 1:
            left_out |= {name: f"the same file lies in {' and '.join(classes)}" for name, _, _ in here}
            continue
        first_name, first_split, _ = here[0]
        for name, split, _ in here[1:]:
            if split != first_split or (split == "train" and split_here):
                left_out[name] = f"{'equal to' if same_bytes else 'looks like'} {first_name}"
    return tuple(copies), left_out


def _near(looks: list[Look]) -> list[tuple[int, int]]:
    """Returns pairs (i, j), i < j, of pictures that look alike."""
    thumbnails = np.stack([look.thumbnail for look in looks])
    spread = np.sqrt(thumbnails.var(axis=(1, 2)).mean(axis=1))  # within each colour
    pixels = thumbnails.reshape(len(looks), -1)
    hashes = np.array([look.hash for look in looks], np.uint64)
    places = np.flatnonzero(spread >= FLAT)
    found: list[tuple[int, int]] = []
    for n, i in enumerate(places):
        others = places[n + 1 :]
        others = others[np.bitwise_count(hashes[others] ^ hashes[i]) <= NEAR_BITS]
        difference = np.sqrt(((pixels[others] - pixels[i]) ** 2).mean(axis=1))
        alike = others[difference <= NEAR_CONTRAST * np.minimum(spread[others], spread[i])]
        found += [(int(i), int(j)) for j in alike]
    return found


def _joined(groups: list[list[int]], pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Merges groups that a pair connects, and returns those of two or more members."""
    leader = list(range(len(groups)))

    def top(i: int) -> int:
        while leader[i] != i:
            i = leader[i]
        return i

    for i, j in pairs:
        a, b = sorted((top(i), top(j)))
        leader[b] = a
    merged: dict[int, list[int]] = {}
    for i, group in enumerate(groups):
        merged.setdefault(top(i), []).extend(group)
    return [group for group in merged.values() if len(group) > 1]
