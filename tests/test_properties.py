"""Properties that hold for all inputs, tried by Hypothesis on inputs that it makes up.

In continuous integration the inputs are the same each time; without ``CI``, new ones are tried.
"""

import copy
import io
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from test_losses import gradient
from tlhelpers import cache, checks, evaluation, fingerprint, intervals, losses
from tlhelpers.data import _copies, _decoding, _scan, _splits  # the arithmetic alone, without files
from tlhelpers.evaluation import calibration, confusion, errors, transferability
from tlhelpers.features import _key

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=40, database=None)
settings.register_profile(
    "here", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci" if os.environ.get("CI") else "here")

SEEDS = st.integers(0, 2**32 - 1)
# Labels of 2 to 6 classes of unequal sizes, in any order.
LABELS = st.lists(st.integers(0, 5), min_size=9, max_size=60).map(np.array)
FEW = settings(max_examples=12)  # for what is computed by a backend


def floats(shape, largest: float = 10) -> st.SearchStrategy:
    """Arrays of sound numbers in single precision."""
    return arrays.arrays(np.float32, shape, elements=st.floats(-largest, largest, width=32))


# --- Intervals ---


@given(st.data(), st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (0.0, np.inf), (-2.0, 2.0)]), st.booleans())
def test_intervals_stay_where_the_quantity_can_be(data, between, of_points):
    """Whatever the seeds: the mean lies inside the interval, and the interval inside the quantity's range."""
    most = min(between[1], 1e6)
    values = data.draw(
        st.lists(st.floats(between[0], most) | st.sampled_from([between[0], most]), min_size=1)
    )
    unit = "pp" if of_points and between == (-1.0, 1.0) else ""
    mean, low, high = intervals.mean_interval(values, unit, between)
    rounding = 1e-9 * max(1, abs(mean))
    assert between[0] <= low <= mean + rounding
    assert mean - rounding <= high <= between[1]


# --- Splits ---


def counts(y: np.ndarray, k: int) -> np.ndarray:
    return np.bincount(y, minlength=k)


@given(LABELS, SEEDS)
@example(np.repeat(np.arange(6), [300, 10, 10, 10, 10, 10]), 0)
@example(np.repeat(np.arange(4), [1, 1, 1, 97]), 1)
def test_each_beginning_of_an_order_is_stratified(y, seed):
    order = _splits.stratified_order(y, seed)
    assert sorted(order) == list(range(len(y)))
    shares = counts(y, 6) / len(y)
    for n in range(1, len(y) + 1):
        assert np.abs(counts(y[order[:n]], 6) - n * shares).max() < 1


@given(LABELS, st.none() | LABELS, LABELS, st.integers(1, 4), st.integers(1, 4), st.integers(1, 9), SEEDS)
def test_splits_are_disjoint_stratified_of_exact_size_and_fixed_by_the_seed(
    y, shipped, test, n_train, n_val, n_test, seed
):
    """Validation images come out of the training pool, or out of one that is shipped."""
    asked = {"n_train": n_train, "n_val": n_val, "n_test": n_test}
    found = _splits.choose(y, shipped, test, asked, seed, "a set")
    whole = _splits.choose(y, shipped, test, {**asked, "n_train": None, "n_test": None}, seed, "a set")
    assert [len({*chosen}) for chosen in found] == [n_train, n_val, n_test]
    for part, all_of_it in zip(found, whole, strict=True):  # a smaller set is the beginning of a larger one
        np.testing.assert_array_equal(part, all_of_it[: len(part)])
    left = np.setdiff1d(np.arange(len(y)), whole[1]) if shipped is None else np.arange(len(y))
    assert [sorted(whole[0]), sorted(whole[2])] == [list(left), list(range(len(test)))]
    assert len(whole[1]) == n_val
    val_pool = y if shipped is None else shipped
    for pool, chosen in ((y[left], y[found[0]]), (val_pool, val_pool[found[1]]), (test, test[found[2]])):
        share = len(chosen) * counts(pool, 6) / len(pool)
        assert np.abs(counts(chosen, 6) - share).max() < 1


@given(LABELS, st.floats(0.05, 0.5))
def test_a_test_pool_has_its_share_of_each_class(y, share):
    rest, pool = _splits.cut_test_pool(y, share)
    np.testing.assert_array_equal(np.sort(np.concatenate([rest, pool])), np.arange(len(y)))
    present = counts(y, 6)
    expected = np.where(present > 0, np.maximum(1, [round(share * n) for n in present]), 0)
    np.testing.assert_array_equal(counts(y[pool], 6), expected)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["test", "val", "train"])), min_size=2, max_size=12)
)
def test_copies_of_a_picture_never_lie_in_two_splits(pictures):
    """Each number is a picture; files with one number are copies, of which one is used."""
    entries = [(f"{i}.png", split, "cat") for i, (_, split) in enumerate(pictures)]
    looks = {
        name: _scan.Look(bytes([which]), (16, 16), which, np.zeros((16, 16, 3), np.float32), None, False)
        for (name, _, _), (which, _) in zip(entries, pictures, strict=True)
    }
    for policy in ("group", "drop", "keep"):
        left_out = _copies.find_copies(entries, looks, policy).left_out
        used = [
            which for (name, _, _), (which, _) in zip(entries, pictures, strict=True) if name not in left_out
        ]
        every = sorted(which for which, _ in pictures)
        assert sorted(used) == (every if policy == "keep" else sorted(set(every)))


# --- Keys ---

PICTURES = arrays.arrays(np.uint8, arrays.array_shapes(min_dims=4, max_dims=4, max_side=5))


@given(PICTURES, st.data())
def test_equal_images_have_equal_keys_and_one_changed_value_another(x, draw):
    assert _key.digest(x) == _key.digest(np.asfortranarray(x.copy()))
    place = tuple(draw.draw(st.integers(0, side - 1)) for side in x.shape)
    changed = x.copy()
    changed[place] ^= 1 << draw.draw(st.integers(0, 7))
    assert _key.digest(changed) != _key.digest(x)
    if x.shape[1] != x.shape[2]:
        assert _key.digest(x.reshape(x.shape[0], x.shape[2], x.shape[1], x.shape[3])) != _key.digest(x)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | PICTURES,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, min_size=1, max_size=3)
    ),
    max_leaves=5,
)


def reader(value):
    def function():
        return value

    return function


@given(VALUES, VALUES)
def test_what_a_function_reads_is_told_apart(first, second):
    assert fingerprint.of(reader(first)) == fingerprint.of(reader(copy.deepcopy(first)))
    if repr(first) != repr(second):
        assert fingerprint.of(reader(first)) != fingerprint.of(reader(second))


@given(
    arrays.arrays(
        st.sampled_from([np.float16, np.float32]), arrays.array_shapes(min_dims=2, max_dims=3, max_side=6)
    ),
    st.integers(1, 4),
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_cache_gives_back_every_bit(tmp_path, monkeypatch, rows, step):
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path))
    key = fingerprint.of(reader(rows)).popitem()[1]
    parts = cache.Parts(key, rows.shape[1:], rows.dtype)
    for start in range(0, len(rows), step):
        parts.append(rows[start : start + step])
    parts.finish("an example")
    found = cache.load(key)
    assert (found.dtype, found.shape, found.tobytes()) == (rows.dtype, rows.shape, rows.tobytes())


# --- Decoding ---

SIDES = st.tuples(st.integers(1, 24), st.integers(1, 24))


def saved(image: Image.Image, kind: str = "PNG", **options) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    stream.seek(0)
    return stream


def pixels(draw, size: tuple[int, int], *channels: int, dtype: type = np.uint8) -> np.ndarray:
    return draw.draw(arrays.arrays(dtype, (*size, *channels)))


@given(SIDES, st.sampled_from(["RGB", "L", "1", "P", "LA", "RGBA", "I;16"]), st.data())
def test_a_picture_of_any_mode_comes_back(size, mode, draw):
    """Exactly, but for half-transparent pixels and 16 bits, which round: by 1 of 255 at the most."""
    if mode == "RGB":
        x = expected = pixels(draw, size, 3)
        image = Image.fromarray(x)
    elif mode == "RGBA":
        x = pixels(draw, size, 4)
        share = x[..., 3:] / 255
        image, expected = Image.fromarray(x), x[..., :3] * share + 255 * (1 - share)
    elif mode == "LA":
        x = pixels(draw, size, 2)
        share = x[..., 1:] / 255
        image, expected = (
            Image.fromarray(x, "LA"),
            np.repeat(x[..., :1] * share + 255 * (1 - share), 3, axis=2),
        )
    elif mode == "I;16":
        x = pixels(draw, size, dtype=np.uint16)
        image, expected = Image.fromarray(x), np.repeat(x[..., None] / 257, 3, axis=2)
    else:
        x = pixels(draw, size)
        image = Image.fromarray(x)
        if mode == "P":
            image.putpalette([(7 * i + c) % 256 for i in range(256) for c in range(3)])
            expected = (7 * x[..., None].astype(int) + np.arange(3)) % 256
        elif mode == "1":
            image, expected = (
                image.convert("1", dither=Image.Dither.NONE),
                255 * (x[..., None] >= 128).repeat(3, 2),
            )
        else:
            expected = np.repeat(x[..., None], 3, axis=2)
    found = _decoding.decode(saved(image), None, white=65535)
    assert found.dtype == np.uint8
    assert found.shape == (*size, 3)
    exact = mode in ("RGB", "L", "1", "P")
    assert np.abs(found.astype(float) - expected).max() <= (0 if exact else 1)


@given(SIDES, st.integers(1, 8), st.data())
def test_a_picture_is_turned_as_its_exif_says(size, orientation, draw):
    x = pixels(draw, size, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = {
        1: x,
        2: x[:, ::-1],
        3: x[::-1, ::-1],
        4: x[::-1],
        5: x.transpose(1, 0, 2),
        6: np.rot90(x, -1),
        7: np.rot90(x, 2).transpose(1, 0, 2),
        8: np.rot90(x),
    }[orientation]
    stream = saved(Image.fromarray(x), exif=exif)
    np.testing.assert_array_equal(_decoding.decode(stream, None), turned)
    stream.seek(0)
    assert _decoding.oriented_size(stream) == turned.shape[:2]


@given(SIDES, st.integers(1, 16), st.data())
def test_a_crop_is_the_centre_and_stays_within_its_range(size, side, draw):
    x = pixels(draw, size, 3)
    found = _decoding.decode(saved(Image.fromarray(x)), side)
    assert found.shape == (side, side, 3)
    short, long = sorted(size)
    start = (long - short) // 2
    if short == side and (long - short) % 2 == 0:  # nothing is scaled: the centre square, exactly
        rows, columns = (slice(0, short), slice(start, start + short))
        np.testing.assert_array_equal(found, x[rows, columns] if size[0] == short else x[columns, rows])
    plain = _decoding.decode(saved(Image.fromarray(np.full_like(x, x[0, 0]))), side)
    assert (plain == x[0, 0]).all(), "one colour stays one colour"


# --- Losses ---

ROWS = st.tuples(st.integers(2, 5), st.integers(2, 5), st.integers(1, 3))


@st.composite
def samples(draw, largest: float = 3) -> tuple[np.ndarray, np.ndarray]:
    m, n, d = draw(ROWS)
    return draw(floats((m, d), largest)), draw(floats((n, d), largest))


@FEW
@given(samples(), st.floats(0.5, 5), SEEDS)
def test_distances_of_samples(both, bandwidth, seed):
    """Not negative, symmetric, 0 of a sample with itself; order and a common shift change nothing."""
    z, u = both
    rng = np.random.default_rng(seed)
    for loss in (lambda a, b: losses.mmd2(a, b, bandwidth, unbiased=False), losses.coral):
        value = float(loss(z, u))
        close = pytest.approx(value, rel=1e-3, abs=1e-4)
        assert value >= -1e-5
        assert float(loss(u, z)) == close
        assert float(loss(rng.permutation(z), rng.permutation(u))) == close
        assert float(loss(z + 1, u + 1)) == close
        assert float(loss(z, z)) == pytest.approx(0, abs=1e-5)
    assert float(losses.mmd2(z, u, bandwidth, unbiased=False)) <= 2


@FEW
@given(samples(1), SEEDS)
def test_gradients_are_those_of_finite_differences(both, seed):
    """In a direction drawn by chance, in double precision."""
    z, u = (a.astype(np.float64) for a in both)
    step = 1e-4 * np.random.default_rng(seed).normal(size=z.shape)
    for loss in (
        lambda v: losses.mmd2(v, u),
        lambda v: losses.coral(v, u),
        lambda v: losses.l2_sp([v], [z[::-1]]),
    ):
        slope = (float(loss(z + step)) - float(loss(z - step))) / 2
        np.testing.assert_allclose(np.sum(gradient(loss, z) * step), slope, atol=1e-8, rtol=1e-4)


@FEW
@given(floats((3, 2)), floats((3, 2)), st.floats(0, 10))
def test_the_penalty_is_half_the_squared_distance(w, start, alpha):
    value = float(losses.l2_sp([w], [start], alpha))
    assert value == pytest.approx(
        alpha / 2 * float(np.sum((w.astype(float) - start) ** 2)), rel=1e-4, abs=1e-5
    )
    assert float(losses.l2_sp([w, w], [start, start], alpha)) == pytest.approx(2 * value, rel=1e-4)


# --- Scores ---


@st.composite
def predictions(draw) -> tuple[np.ndarray, np.ndarray]:
    """Labels of at least two classes, and logits."""
    y = np.concatenate(
        [[0, 1, 2], draw(arrays.arrays(np.int64, st.integers(3, 20), elements=st.integers(0, 2)))]
    )
    return y, draw(floats((len(y), 3)))


@given(predictions(), SEEDS)
def test_the_order_of_images_changes_no_score(both, seed):
    y, z = both
    proba = (
        calibration.with_temperature(z, 1) if not _looks_like_probabilities(z) else np.full(z.shape, 1 / 3)
    )
    order = np.random.default_rng(seed).permutation(len(y))
    predicted = proba.argmax(axis=1)
    for score, low, high in (
        (lambda i: evaluation.accuracy(y[i], predicted[i]), 0, 1),
        (lambda i: evaluation.compare(y[i], predicted[i], y[i], draws=50).difference, -1, 0),
        (lambda i: calibration.calibration_error(y[i], proba[i], draws=5).value, 0, 1),
        (lambda i: transferability.nce(predicted[i], y[i]), -np.log(3), 0),
        (lambda i: transferability.leep(proba[i], y[i]), -np.log(3) - 1e-6, 0),
        (
            lambda i: sum(row.count * row.accuracy for row in errors.by_class(y[i], predicted[i], "abc")),
            0,
            len(y),
        ),
    ):
        value = score(np.arange(len(y)))
        assert low - 1e-9 <= value <= high + 1e-9
        assert score(order) == pytest.approx(value, abs=1e-9)
    matrix = confusion.confusion(np.zeros((len(y), 4, 4, 3), np.uint8), y, predicted, "abc").counts
    assert np.trace(matrix) / len(y) == pytest.approx(evaluation.accuracy(y, predicted))
    assert set(errors.label_errors(y, proba)) <= set(range(len(y)))


def _looks_like_probabilities(z: np.ndarray) -> bool:
    try:
        checks.logits(z)
    except ValueError:
        return True
    return False


@given(predictions(), st.floats(0.1, 10), SEEDS)
def test_scores_of_features_do_not_see_their_scale_or_direction(both, scale, seed):
    y, f = both
    f = f + 5 * np.eye(3)[y]  # something must vary
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    order = np.random.default_rng(seed).permutation(len(y))
    for score in (transferability.logme, transferability.h_score):
        value = score(f, y)
        assert np.isfinite(value)
        for other in (score(scale * f @ turn, y), score(f[order], y[order])):
            assert other == pytest.approx(value, rel=1e-4, abs=1e-4)
    assert -1e-9 <= transferability.h_score(f, y) <= 2 + 1e-9


@given(st.integers(0, 200), st.integers(1, 200), st.floats(0.5, 0.99))
@example(0, 1, 0.95)
def test_an_interval_holds_its_share_and_grows_with_its_level(hits, n, level):
    hits = min(hits, n)
    low, high = evaluation.wilson_interval(hits, n, level)
    assert 0 <= low <= hits / n <= high <= 1
    wider = evaluation.wilson_interval(hits, n, (1 + level) / 2)
    assert wider[0] <= low
    assert wider[1] >= high


@given(floats((8, 3)), st.floats(0.1, 10))
def test_logarithms_and_a_temperature_of_1_give_probabilities_back(z, t):
    proba = np.exp(z.astype(float) / t) / np.exp(z.astype(float) / t).sum(axis=1, keepdims=True)
    back = calibration.with_temperature(calibration.log_probabilities(proba), 1)
    np.testing.assert_allclose(back, proba, atol=1e-9)
    assert (calibration.with_temperature(np.log(proba) - 1, t).argmax(axis=1) == proba.argmax(axis=1)).all()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_nothing_beats_what_lies_on_the_front(points):
    cost, value = np.array(points).T
    front = evaluation.pareto_front(cost, value)

    def beaten(i: int) -> bool:
        at_least, more = (cost <= cost[i]) & (value >= value[i]), (cost < cost[i]) | (value > value[i])
        return bool((at_least & more).any())

    assert not any(map(beaten, front))
    assert {(cost[i], value[i]) for i in front} == {
        (cost[i], value[i]) for i in range(len(cost)) if not beaten(i)
    }
