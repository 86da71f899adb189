"""Detectors of the images: how they are prepared, and whether two sets share some."""

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tlhelpers.audit._facts import Facts
from tlhelpers.audit._preprocessing import (
    COLOURS,
    RAW,
    STYLES,
    Prepare,
    at_first_convolution,
    expected_by,
    style_of,
)
from tlhelpers.audit._results import Finding, fault


def preprocessing(facts: Facts) -> Iterator[Finding]:
    """What reaches the first convolution of a known network is not what its weights expect."""
    base = facts.base
    if base is None or base.family is None or facts.intent == "scratch":
        return
    styles = {name: style_of(x) for name, (x, _) in facts.sets.items()}
    expected = expected_by(base.family)
    faults: dict[str, tuple[str, str] | None] = {}
    for style in set(styles.values()) or STYLES:  # plain colours, prepared like the images
        got = at_first_convolution(facts.model, base, STYLES[style](COLOURS))
        faults[style] = None if got is None else _preprocessing_fault(got, expected)
    if not styles and None not in faults.values():  # without images, any way to prepare them may be meant
        styles = {"raw": RAW}
    for style in dict.fromkeys(styles.values()):
        found = faults[style]
        if found is not None:
            names = ", ".join(name for name in styles if styles[name] == style)
            yield fault(
                found[0],
                f"With these images ({names}), {found[1]}; the network is of {base.family}'s family.",
                why="The pretrained weights expect the scale and the order of channels "
                "that they were trained with.",
                mend="Use the preprocess_input of this family, once, best inside the model: "
                "backbones.load does it.",
            )


def _preprocessing_fault(got: NDArray, expected: list[Prepare]) -> tuple[str, str] | None:
    """Says what is wrong with the colours that reach the first convolution: code and words."""
    if any(_same(got, prepare(COLOURS)) for prepare in expected):
        return None
    if _same(got, COLOURS):
        return "preprocessing-missing", "raw pixels reach the first convolution"
    for style, done in STYLES.items():
        if _same(got, done(COLOURS)):
            return "preprocessing-other", f"another preprocessing reaches the first convolution ({style})"
        if any(_same(got, prepare(done(COLOURS))) for prepare in expected):
            return "preprocessing-twice", f"two preprocessings follow each other ({style}; then the family's)"
    if any(_same(got, prepare(prepare(COLOURS))) for prepare in expected):
        return "preprocessing-twice", "the family's preprocessing is applied twice"
    return "preprocessing-other", "what reaches the first convolution is no preprocessing known here"


def _same(got: NDArray, want: NDArray) -> bool:
    return bool(np.abs(got - want).max() <= 0.02 * (want.max() - want.min()))


def shared_images(facts: Facts) -> Iterator[Finding]:
    """The same image in two of the three sets."""
    digests = {name: _digests(x) for name, (x, _) in facts.sets.items()}
    for later, earlier in (("test", "training"), ("test", "validation"), ("validation", "training")):
        known = set(digests.get(earlier, ()))
        n = sum(digest in known for digest in digests.get(later, ()))
        if n:
            yield fault(
                "shared-images",
                f"{n} of {len(digests[later])} {later} images are {earlier} images, too.",
                why="Accuracy on images that were trained on, or that were used to choose, is too good.",
                mend="Cut the sets apart before anything else (data.load does), "
                "and use the test set once, at the end.",
            )


def _digests(x: NDArray) -> list[bytes]:
    if style_of(x) == RAW:
        x = x.astype(np.uint8)  # the same picture, be it uint8 or float
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in x]
