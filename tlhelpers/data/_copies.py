"""Files that show one picture: found by their hashes, and which of them a data set may use."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tlhelpers.data._scan import Look

__all__ = ["Copies", "Found", "find_copies"]

# Two pictures count as copies if few bits of their hashes differ, and their thumbnails differ by little of
# their contrast. Saving a photograph again, or in another size, stays far below both.
NEAR_BITS = 6  # of 64
NEAR_CONTRAST = 0.1
FLAT = 4.0  # grey levels of spread: pictures with less are as good as empty, and all alike
SCENE = 0.2  # of a class, and more than three: so many pictures that all look alike are one scene
_PRIORITY = ("test", "val", "train")  # where the same picture is in two splits, the first one keeps it


@dataclass(frozen=True)
class Copies:
    """Files that show one picture. Returned by `load`, in a `FolderCheck`.

    Attributes:
        names: The files, two or more; first the one that is kept where others are left out.
        exact: Whether they are equal byte by byte; else they only look alike.
        splits: The shipped splits that they lie in.
        classes: The class folders that they lie in; equal files in more than one have a wrong label.
    """

    names: tuple[str, ...]
    exact: bool
    splits: tuple[str, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What `find_copies` found.

    Attributes:
        copies: Groups of files that show one picture.
        left_out: Files that are not used -> why.
        together: Groups of files of which none may be tested while another is trained on.
        scenes: Classes in which so many pictures look alike that they show one scene.
    """

    copies: tuple[Copies, ...]
    left_out: dict[str, str]
    together: tuple[tuple[str, ...], ...]
    scenes: tuple[str, ...]


def find_copies(
    entries: Sequence[tuple[str, str, str]], looks: Mapping[str, Look], policy: str = "group"
) -> Found:
    """Finds files that show one picture, and decides what becomes of them.

    Equal files of one class are used once. Files that only look alike are a guess: they are kept on one side
    of the split, and used. Where one group of them is a fifth of a class or more, a camera that does not move
    looks at one scene; then they are pictures like all others.

    Args:
        entries: File, shipped split and class folder of each image.
        looks: File -> what was seen in it.
        policy: ``"group"``, as described; ``"keep"`` uses every file; ``"drop"`` uses one of those that look
            alike, too.
    """
    entries = sorted(entries, key=lambda entry: (_PRIORITY.index(entry[1]), entry[0]))
    exact: dict[bytes, list[int]] = {}
    for i, (name, _, _) in enumerate(entries):
        exact.setdefault(looks[name].digest, []).append(i)
    same = list(exact.values())
    pairs = _near([looks[entries[group[0]][0]] for group in same])
    class_of = [entries[group[0]][2] for group in same]
    scenes = _scenes(class_of, pairs)
    pairs = [(i, j) for i, j in pairs if not scenes & {class_of[i], class_of[j]}]
    copies: list[Copies] = []
    left_out: dict[str, str] = {}
    together = []
    for members in _joined(same, pairs):
        here = [entries[i] for i in sorted(members)]
        same_bytes = len({looks[name].digest for name, _, _ in here}) == 1
        classes = tuple(dict.fromkeys(c for _, _, c in here))
        splits = tuple(s for s in _PRIORITY[::-1] if any(s == split for _, split, _ in here))
        copies.append(Copies(tuple(name for name, _, _ in here), same_bytes, splits, classes))
        first: dict[object, str] = {}  # file that is kept, of each class
        for name, _, c in here:
            key = c if policy == "drop" else (c, looks[name].digest)
            kept = first.setdefault(key, name)
            if kept != name and policy != "keep":
                equal = looks[name].digest == looks[kept].digest
                left_out[name] = f"{'equal to' if equal else 'looks like'} {kept}"
        rest = tuple(name for name, _, _ in here if name not in left_out)
        together += [rest] if len(rest) > 1 and policy != "keep" else []
    return Found(tuple(copies), left_out, tuple(together), tuple(sorted(scenes)))


def _scenes(class_of: Sequence[str], pairs: Sequence[tuple[int, int]]) -> set[str]:
    """The classes of which one group of pictures that look alike holds a fifth or more."""
    sizes, found = Counter(class_of), set()
    for group in _joined([[i] for i in range(len(class_of))], pairs):
        counts = Counter(class_of[i] for i in group)
        found |= {c for c, n in counts.items() if n > 3 and n >= SCENE * sizes[c]}
    return found


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
