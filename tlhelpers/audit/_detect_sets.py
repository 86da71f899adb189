"""Detectors of the data sets: images in two of them, their order, images and labels that belong together."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score
from sklearn.preprocessing import normalize, scale

from tlhelpers.audit._draw import images_in, small
from tlhelpers.audit._facts import Facts, needs
from tlhelpers.audit._heads import as_classes
from tlhelpers.audit._results import Finding, fault
from tlhelpers.evaluation import transferability

# Two images are one picture if their thumbnails, each brought to one brightness and contrast, correlate so.
NEAR = 0.99
SIDE = 16  # of a thumbnail
AMONG, ACCIDENT = 200, 0.05  # images compared with those of their own set; the share of pairs that are chance
ENOUGH = 40  # rows from which on neighbours tell something
# Labels say nothing if a larger share of random orders fits the images as well. Right labels of a hard task
# can look so where rows or classes are few; then the images have to fall into as many clear groups.
CHANCE = 0.1
MANY, FEW = 100, 3  # rows, classes
CLEAR = 0.12  # silhouette of such groups, above that of features without groups


@needs("two sets")
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
            if looks[earlier].alike:
                yield f"{looks[earlier].alike:.0%} of the {earlier} images are as alike themselves as copies"
            if equal or near:
                also = f", {near} of them changed (turned, mirrored, brightened, saved again)" if near else ""
                what = f"{equal + near} of {len(looks[later].pixels)} {later} images are {earlier} images"
                yield fault("shared-images", f"{what}, too{also}.", equal + near)


class _Thumbnails:
    """Images as they are compared.

    Attributes:
        exact: A number for each image that equal ones share.
        pixels: float32 (n, d): thumbnails of mean 0 and length 1; 0 for images that cannot be told apart.
        upright: The same, turned and mirrored alike, whatever way the image lies.
        alike: Share of images that look like another one of their set, where these are no accident.
        near: Correlation from which on an image of another set is a changed copy: where the images of one set
            are all alike, as of one part under one lamp, it has to be nearer than they are to each other.
    """

    def __init__(self, images: NDArray) -> None:
        few = small(images)
        rows = np.round(few.reshape(len(few), -1).astype(np.float32), 3) + 0.0  # no -0, which has other bytes
        self.exact = np.array([hash(row.tobytes()) for row in rows])
        self.pixels = self.upright = np.zeros((len(few), SIDE * SIDE * few.shape[3]), np.float32)
        if min(few.shape[1:3]) >= 2 * SIDE:  # of fewer pixels there is not enough to look at
            edges = [np.linspace(0, n, SIDE + 1).astype(int)[:-1] for n in few.shape[1:3]]
            sums = np.add.reduceat(np.add.reduceat(few.astype(np.float32), edges[0], 1), edges[1], 2)
            sums /= np.add.reduceat(np.add.reduceat(np.ones((*few.shape[1:3], 1)), edges[0], 0), edges[1], 1)
            self.pixels, self.upright = _normal(sums), _normal(_upright(sums))
        some = np.random.default_rng(0).permutation(len(few))[:AMONG]
        found = np.maximum(self.pixels[some] @ self.pixels.T, self.upright[some] @ self.upright.T)
        found[self.exact[some][:, None] == self.exact] = 0  # themselves, and the same picture twice
        nearest = found.max(axis=1)
        share, far = float((nearest >= NEAR).mean()), float(np.quantile(nearest, 0.98))
        self.alike, self.near = (share, max(NEAR, (1 + far) / 2)) if share > ACCIDENT else (0.0, NEAR)


def _upright(thumbnails: NDArray) -> NDArray:
    """Turns and mirrors images, so that all eight views of one are the same."""
    ramp = np.arange(SIDE) - (SIDE - 1) / 2
    across, down = (np.einsum(f"nhwc,{side}->n", thumbnails, ramp) for side in "wh")
    found = thumbnails.copy()
    found[across < 0] = found[across < 0, :, ::-1]
    found[down < 0] = found[down < 0, ::-1]
    turned = abs(down) > abs(across)
    found[turned] = found[turned].swapaxes(1, 2)
    return found


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
            for a, b in ((later.pixels, earlier.pixels), (later.upright, earlier.upright)):
                near[part] |= (a[part] @ b.T).max(axis=1) >= earlier.near
    return int(equal.sum()), int((near & ~equal).sum())


@needs("batches", "images")
def batches_repeat(facts: Facts) -> Iterator[Finding | str]:
    """images of each batch"""
    sample, images = facts.sets["training"], facts.images.get("training")
    n = 0 if images is None else len(np.unique(_Thumbnails(images).exact))
    if images is None or len(images) <= max(sample.sizes):
        yield "the images of one batch alone were seen"
    elif 1 < n <= max(sample.sizes):
        what = f"The first {len(images)} training images, of several batches, are {n} images again and again"
        yield fault("batches-repeat", f"{what}.", n)


@needs("order")
def order_changes(facts: Facts) -> Iterator[Finding]:
    """order of the sets"""
    for name in ("validation", "test"):
        if name in facts.sets and facts.sets[name].reordered:
            yield fault("order-changes", f"The {name} set gives another order in each pass.")


@needs("base", "care", "images", "labels")
def labels_meaningless(facts: Facts) -> Iterator[Finding | str]:
    """images against labels"""
    rows, features = facts.rows, facts.seen.features
    alone = rows is not None and len(facts.heads) == len(images_in(rows.x)) == 1
    y = as_classes(rows.y) if rows is not None and alone and isinstance(rows.y, np.ndarray) else None
    if y is None or features is None:
        yield "there are no labels of one class each, or several inputs or outputs"
        return
    if facts.fresh[0] > facts.fresh[1] // 4 or any(f.code.startswith("pixels-") for f in facts.findings):
        yield "the base or the images say nothing"
        return
    y, features = y[: len(features)], features[: len(y)]
    classes, y = np.unique(y, return_inverse=True)
    rare = len(y) - int(np.bincount(y).max()) < ENOUGH // 4  # all but one class
    if len(y) < max(ENOUGH, 2 * len(classes)) or rare or not 0 < np.ptp(features, axis=0).max() < np.inf:
        yield f"{len(y)} rows of {len(classes)} classes are too few, or their features say nothing"
        return
    share = transferability.by_chance(features, y)
    if share > CHANCE:
        what = f"{len(y)} images fit their labels no better than labels in random order do"
        if (len(y) >= MANY and len(classes) > FEW) or _in_groups(features, len(classes)):
            yield fault("labels-meaningless", f"{what}: {share:.0%} of 200 orders fit as well.", share)
        else:
            yield f"{what}, but a hard task with so few classes or rows may look so, too"


def _in_groups(features: NDArray, n: int) -> bool:
    """Returns whether features fall into n groups, more clearly than if each feature had its own order."""
    unit = normalize(scale(features.astype(np.float64)))  # in float32 it warns of rounding
    apart = np.random.default_rng(0).permuted(unit, axis=0)
    clear = []
    for values in (unit, apart):
        groups = KMeans(n, n_init=3, random_state=0).fit_predict(values)
        clear.append(silhouette_score(values, groups) if len(np.unique(groups)) == n else 0.0)
    return clear[0] - clear[1] > CLEAR
