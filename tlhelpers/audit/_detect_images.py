"""Detectors of the images: how they are prepared, and what is in their pixels."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tlhelpers import backbones
from tlhelpers.audit._draw import images_in, is_image, mapped, small
from tlhelpers.audit._facts import Facts, noise
from tlhelpers.audit._preprocessing import (
    COLOURS,
    RAW,
    STYLES,
    TWICE,
    Prepare,
    expected_by,
    scales_inside,
    style_of,
)
from tlhelpers.audit._probe import at_first_convolution
from tlhelpers.audit._results import Finding, fault

OUTSIDE = 0.5  # of the range in inference: what augmentation may leave it by


def preprocessing(facts: Facts) -> Iterator[Finding | str]:
    """preprocessing"""
    base = facts.base
    if base is None or facts.intent == "scratch":
        return
    styles = facts.styles
    reached = {style: _colours(facts, STYLES[style]) for style in dict.fromkeys(styles.values()) or STYLES}
    if any(got is None for got in reached.values()):
        yield "the first convolution gets no colours of the images"
        return
    if base.family is None:
        yield "the family of the base is unknown, and so is what its weights expect"
        for style, got in reached.items():
            if styles and got is not None and np.ptp(got) < 0.02:
                names = ", ".join(name for name in styles if styles[name] == style)
                what = f"from black to white, only {np.ptp(got):.2g} reaches the first convolution ({names})"
                yield fault("preprocessing-twice", f"Scaled twice: {what}.", np.ptp(got), line="Scale")
        return
    expected = expected_by(base.family)
    faults = {style: _preprocessing_fault(got, expected) for style, got in reached.items() if got is not None}
    if not styles and all(
        found is not None for found in faults.values()
    ):  # without images, any way to prepare them may be meant
        styles = {"raw": RAW}
    for style in dict.fromkeys(styles.values()):
        found = faults[style]
        if found is not None:
            names = ", ".join(name for name in styles if styles[name] == style)
            what = f"With these images ({names}), {found[1]}; the network is of {base.family}'s family."
            yield fault(found[0], what, found[2], line=_line(base.family))


def _line(family: str) -> str:
    if scales_inside(family) and family not in backbones.names():
        return "Raw pixels of 0 to 255"
    module = getattr(backbones.preprocessing(family), "__module__", "").rsplit(".", 1)[-1]
    module = {"vgg16": "vgg16", "resnet50": "resnet", "densenet121": "densenet"}.get(family, module)
    if family.startswith("efficientnet_lite"):
        return "x = (x - 127) / 128"
    raw = " (it does nothing: give raw pixels of 0 to 255)" if scales_inside(family) else ""
    return f"x = keras.applications.{module}.preprocess_input(x){raw}"


def _colours(facts: Facts, prepare: Prepare) -> NDArray | None:
    """Returns what images of one colour, prepared like the set, become at the first convolution: ``(k, 3)``.

    Resizing and padding change nothing in the middle of such images.
    """
    assert facts.base is not None
    like = noise(facts.model) if facts.rows is None else facts.rows.x
    colours = np.asarray(prepare(COLOURS), np.float32)

    def plain(value: NDArray) -> NDArray:
        if not is_image(value) or value.shape[3] != 3:
            return np.repeat(value[:1], len(colours), axis=0)
        return np.tile(colours[:, None, None], (1, *value.shape[1:3], 1))

    x = facts.prepared(facts.fitting(mapped(plain, like)))
    got = at_first_convolution(facts.model, facts.base, x)
    if got is None or got.ndim != 4:
        return None
    middle = got[:, got.shape[1] // 2, got.shape[2] // 2]
    return middle if middle.shape == COLOURS.shape else None


def _preprocessing_fault(got: NDArray, expected: list[Prepare]) -> tuple[str, str, float] | None:
    """Says what is wrong with the colours at the first convolution: code, words, largest difference."""
    wanted = [prepare(COLOURS) for prepare in expected]
    if any(_same(got, want) for want in wanted):
        return None
    other, twice = "preprocessing-other", "preprocessing-twice"
    known = [("preprocessing-missing", "raw pixels reach the first convolution", COLOURS)]
    for style, done in STYLES.items():
        if style != TWICE:
            words = f"another preprocessing reaches the first convolution ({style})"
            known.append((other, words, done(COLOURS)))
        words = f"two preprocessings follow each other ({style}; then the family's)"
        known += [(twice, words, prepare(done(COLOURS))) for prepare in expected]
    words = "the family's preprocessing is applied twice"
    known += [(twice, words, prepare(prepare(COLOURS))) for prepare in expected]
    known.append((twice, "pixels are divided by 255 twice", STYLES[TWICE](COLOURS)))
    none = (other, "what reaches the first convolution is no preprocessing known here", got)
    code, words, _ = next((one for one in known if _same(got, one[2])), none)
    return code, words, min(float(np.abs(got - want).max()) for want in wanted)


def _same(got: NDArray, want: NDArray) -> bool:
    return bool(np.abs(got - want).max() <= 0.03 * (want.max() - want.min()))


def augmentation_scale(facts: Facts) -> Iterator[Finding]:
    """augmentation"""
    if facts.base is None or facts.rows is None:
        return
    x = facts.prepared(facts.fitting(facts.rows.rows(16)[0]))
    calm, wild = (at_first_convolution(facts.model, facts.base, x, training) for training in (False, True))
    if calm is None or wild is None or not np.median(calm.std(axis=(1, 2))):
        return
    spread = float(np.ptp(calm))
    outside = float(((wild < calm.min() - OUTSIDE * spread) | (wild > calm.max() + OUTSIDE * spread)).mean())
    flat = float(np.median(wild.std(axis=(1, 2))) / np.median(calm.std(axis=(1, 2))))
    if outside > 0.2 or flat < 0.1:
        what = f"In training mode {outside:.0%} of the values at the first convolution lie far outside of"
        what += f" {calm.min():.3g} to {calm.max():.3g}, and the contrast is {flat:.0%} of that in inference"
        yield fault("augmentation-scale", f"{what}.", outside)


def images_size(facts: Facts) -> Iterator[Finding]:
    """size of the images"""
    if facts.inside_fit or facts.size is None or callable(getattr(facts.model, "preprocessor", None)):
        return
    for name, sample in facts.sets.items():
        sizes = [] if sample.resizes else [x.shape[1:3] for x in images_in(sample.x)]
        if sizes and sizes[0] != facts.size:
            (height, width), (h, w) = sizes[0], facts.size
            what = f"The {name} images have {height} x {width} pixels, the model takes {h} x {w}."
            yield fault("images-size", what, height, height=h, width=w)
            return


def pixels(facts: Facts) -> Iterator[Finding | str]:
    """pixels"""
    greys = {}
    for name, sample in facts.sets.items():
        for x in images_in(sample.x)[:1]:
            yield from _pixel_faults(name, x)
            coloured = small(x)
            greys[name] = x.shape[3] == 3 and bool(
                np.ptp(coloured, axis=3).max() <= 0.01 * max(1e-9, np.ptp(coloured))
            )
    if not greys:
        yield "no images were given"
    styles = facts.styles
    if len(set(styles.values())) > 1 and (facts.base is None or facts.base.family is None):
        what = "; ".join(f"{name}: {style}" for name, style in styles.items())
        yield fault("pixels-differ", f"The sets are prepared in different ways ({what}).")
    if any(greys.values()):
        grey = " and ".join(name for name in greys if greys[name])
        code = "pixels-grey" if all(greys.values()) else "colours-differ"
        rest = "" if all(greys.values()) else ", those of the other sets are not"
        yield fault(code, f"The {grey} images are grey, written three times{rest}.")


def _pixel_faults(name: str, x: NDArray) -> Iterator[Finding]:
    values = x.reshape(len(x), -1)
    broken = int((~np.isfinite(values).all(axis=1)).sum()) if x.dtype.kind == "f" else 0
    if broken:
        yield fault("pixels-broken", f"{broken} of {len(x)} {name} images hold NaN or infinity.", broken)
        return
    low, high = float(values.min()), float(values.max())
    spread = np.ptp(values, axis=1).astype(float)
    empty = float((spread <= max(1.0 if x.dtype.kind in "iub" else 0.0, 1e-3 * (high - low))).mean())
    if empty > 0.2:
        black = " (all values are 0 or 1, in whole numbers)" if x.dtype.kind in "iub" and high <= 1 else ""
        yield fault("pixels-empty", f"{empty:.0%} of the {name} images have one colour{black}.", empty)
    elif len(x) >= 3 and (values == values[0]).all():
        yield fault("pixels-alike", f"All {len(x)} {name} images are the same.", len(x))
    if max(high, -low) > 1000:
        yield fault("pixels-range", f"The {name} pixels go from {low:g} to {high:g}.", high)
    elif style_of(x) == TWICE and empty <= 0.2:
        what = f"The {name} pixels go from {low:.3g} to {high:.3g}: divided by 255 twice."
        yield fault("pixels-empty", what, high)
