"""Detectors of the data sets: images in two of them, their order, images and labels that belong together."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tlhelpers.audit._draw import images_in, small
from tlhelpers.audit._facts import Facts
from tlhelpers.audit._heads import as_classes
from tlhelpers.audit._results import Finding, fault

# Two images are one picture if their thumbnails, each brought to one brightness and contrast, correlate so.
NEAR = 0.99
SIDE = 16  # of a thumbnail
ENOUGH = 40  # rows from which on neighbours tell something


def shared_images(facts: Facts) -> Iterator[Finding | str]:
    """images in two sets"""
    looks = {}
    for name, sample in facts.sets.items():
        images = sample.source if sample.source is not None else next(iter(images_in(sample.x)), None)
        if images is not None:
            looks[name] = _Thumbnails(images)
        if not sample.whole or (sample.source is None and looks):
            yield f"only {len(sample)} {name} images were compared with those of other sets"
    for later, earlier in (("test", "training"), ("test", "validation"), ("validation", "training")):
        if later in looks and earlier in looks:
            equal, near = _shared(looks[later], looks[earlier])
            if equal or near:
                also = f", {near} of them changed (mirrored, brightened or saved again)" if near else ""
                what = (
                    f"{equal + near} of {len(looks[later].pixels)} {later} images are {earlier} images, too"
                )
                yield fault("shared-images", f"{what}{also}.", equal + near)


class _Thumbnails:
    """Images as they are compared.

    Attributes:
        exact: A number for each image that equal ones share.
        pixels: float32 (n, d): thumbnails of mean 0 and length 1; 0 for images that cannot be told apart.
        mirrored: The same with left and right exchanged.
    """

    def __init__(self, images: NDArray) -> None:
        few = small(images)
        steps = np.round(few.reshape(len(few), -1).astype(np.float32), 3)
        weights = np.random.default_rng(0).normal(size=steps.shape[1])
        self.exact = np.round(steps @ weights, 3)
        self.pixels = self.mirrored = np.zeros((len(few), SIDE * SIDE * few.shape[3]), np.float32)
        if min(few.shape[1:3]) >= 2 * SIDE:  # of fewer pixels there is not enough to look at
            edges = [np.linspace(0, n, SIDE + 1).astype(int)[:-1] for n in few.shape[1:3]]
            sums = np.add.reduceat(np.add.reduceat(few.astype(np.float32), edges[0], 1), edges[1], 2)
            sums /= np.add.reduceat(np.add.reduceat(np.ones(few.shape[1:3]), edges[0], 0), edges[1], 1)[
                ..., None
            ]
            self.pixels, self.mirrored = _normal(sums), _normal(sums[:, :, ::-1])


def _normal(thumbnails: NDArray) -> NDArray:
    centred = thumbnails - thumbnails.mean(axis=(1, 2), keepdims=True)
    spread = centred.std(axis=(1, 2, 3))
    # What is flat, or a single stroke on an even ground, looks like many others.
    plain = (np.abs(centred) < 0.25 * spread[:, None, None, None]).mean(axis=(1, 2, 3)) > 0.5
    flat = centred.reshape(len(centred), -1)
    length = np.linalg.norm(flat, axis=1)
    telling = (spread > 0.03 * max(1e-9, float(np.ptp(thumbnails)))) & ~plain
    return (flat / np.where(telling, length, np.inf)[:, None]).astype(np.float32)


def _shared(later: _Thumbnails, earlier: _Thumbnails) -> tuple[int, int]:
    """Counts images of one set that are in another: unchanged, and changed a little."""
    equal = np.isin(later.exact, earlier.exact)
    near = np.zeros(len(equal), bool)
    if later.pixels.shape[1] == earlier.pixels.shape[1]:
        for start in range(0, len(equal), 1000):
            part = slice(start, start + 1000)
            for pixels in (later.pixels[part], later.mirrored[part]):
                near[part] |= (pixels @ earlier.pixels.T).max(axis=1) >= NEAR
    return int(equal.sum()), int((near & ~equal).sum())


def order_changes(facts: Facts) -> Iterator[Finding]:
    """order of the sets"""
    for name in ("validation", "test"):
        if name in facts.sets and facts.sets[name].reordered:
            yield fault("order-changes", f"The {name} set gives another order in each pass.")


def labels_meaningless(facts: Facts) -> Iterator[Finding | str]:
    """images against labels"""
    head = facts.heads[0] if len(facts.heads) == 1 else None
    y = None if head is None or facts.rows is None else _classes_of_rows(facts)
    features = facts.seen.features
    if facts.base is None or facts.intent == "scratch" or y is None or features is None:
        yield "there is no base, or there are no labels of one class each"
        return
    if facts.fresh[0] > facts.fresh[1] // 4 or any(f.code.startswith("pixels-") for f in facts.findings):
        yield "the base or the images say nothing"
        return
    y, features = y[: len(features)], features[: len(y)]
    counts = np.unique(y, return_counts=True)[1]
    if len(y) < ENOUGH or len(counts) < 2 or not np.isfinite(features).all():
        yield f"{len(y)} rows are too few to compare neighbours"
        return
    scaled = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-6)
    unit = scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-9)
    nearness = unit @ unit.T
    np.fill_diagonal(nearness, -np.inf)
    right = float((y[nearness.argmax(axis=1)] == y).mean())
    chance = float((counts * (counts - 1)).sum() / (len(y) * (len(y) - 1)))
    noise = (chance * (1 - chance) / len(y)) ** 0.5
    if (chance < 0.8 and right < chance + 2 * noise) and noise * 2 < 0.4 * (1 - chance):
        what = f"Of {len(y)} images, {right:.0%} have the label of their nearest neighbour in the features"
        yield fault("labels-meaningless", f"{what}; by chance it would be {chance:.0%}.", right)


def _classes_of_rows(facts: Facts) -> NDArray | None:
    y = None if facts.rows is None else facts.rows.y
    return as_classes(y) if isinstance(y, np.ndarray) and len(images_in(facts.rows.x)) == 1 else None  # type: ignore[union-attr]
