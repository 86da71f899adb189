"""Detectors of the images: how they are prepared, and what is in their pixels."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlhelpers import backbones
from tlhelpers.audit import _preprocessing
from tlhelpers.audit._draw import images_in, is_image, mapped, small
from tlhelpers.audit._facts import Facts, needs, noise
from tlhelpers.audit._preprocessing import COLOURS, RAW, STYLES, TWICE, Prepare
from tlhelpers.audit._probe import at_first_convolution, learned_before
from tlhelpers.audit._results import Finding, fault

UNKNOWN = "what reaches the first convolution is no preprocessing known here"
SOME = 0.05  # of the images of one colour, in several classes: where they are one class, it is what it shows
OUTSIDE = 0.5  # of the range in inference: what augmentation may leave it by


@needs("base", "care")
def preprocessing(facts: Facts) -> Iterator[Finding | str]:
    """preprocessing"""
    base, styles = facts.base, facts.styles
    assert base is not None
    tried = dict.fromkeys(style for held in styles.values() for style in held)
    got = {style: _colours(facts, STYLES[style]) for style in tried or STYLES}
    reached = {style: colours for style, colours in got.items() if colours is not None}
    if len(reached) < len(got):
        yield "the first convolution gets no colours of the images"
        return
    if base.family is None:
        yield "the family of the base is unknown, and so is what its weights expect"
        for style in dict.fromkeys(held[0] for held in styles.values()):
            if (left := np.ptp(reached[style])) < 0.02:
                what = f"Scaled twice ({_named(facts, style)}): from black to white, only {left:.2g} is left."
                yield fault("preprocessing-twice", what, left, line="Scale")
        return
    faults = {style: _preprocessing_fault(colours, base.family) for style, colours in reached.items()}
    if not styles:  # any way to prepare them may be meant
        yield "no images were given, and they may be prepared outside of the model"
        styles = {"raw": (RAW,)} if None not in faults.values() else {}
    for held in dict.fromkeys(styles.values()):
        found, names = faults[held[0]], _named(facts, held[0])
        if found is None:
            continue
        if any(faults[style] is None for style in held):
            yield f"the {names} images may be {' or '.join(held)}"
        elif found[1] == UNKNOWN and learned_before(facts.model, base, _palette(facts, STYLES[held[0]])):
            yield "layers that learn stand before the base, and change its colours"
        else:
            what = f"With these images ({names}), {found[1]}; the network is of {base.family}'s family."
            yield fault(found[0], what, found[2], line=_line(base.family))


def _named(facts: Facts, style: str) -> str:
    """Returns the names of the sets whose images are likely to be of a style."""
    return ", ".join(name for name, held in facts.styles.items() if held[0] == style) or "raw"


def _line(family: str) -> str:
    if _preprocessing.scales_inside(family) and family not in backbones.names():
        return "Raw pixels of 0 to 255"
    module = getattr(backbones.preprocessing(family), "__module__", "").rsplit(".", 1)[-1]
    module = {"vgg16": "vgg16", "resnet50": "resnet", "densenet121": "densenet"}.get(family, module)
    if family.startswith("efficientnet_lite"):
        return "x = (x - 127) / 128"
    raw = " (it does nothing: give raw pixels of 0 to 255)" if _preprocessing.scales_inside(family) else ""
    return f"x = keras.applications.{module}.preprocess_input(x){raw}"


def _colours(facts: Facts, prepare: Prepare) -> NDArray | None:
    """Returns what images of one colour, prepared like the set, become at the first convolution: ``(k, 3)``.

    Of a model of grey images it is greys. Resizing and padding change nothing in the middle of such images.
    """
    x = _palette(facts, prepare)
    got = None if x is None else at_first_convolution(facts.model, facts.base, x)
    if got is None or got.ndim != 4:
        return None
    middle = got[:, got.shape[1] // 2, got.shape[2] // 2]
    return middle if middle.shape == COLOURS.shape else None


def _palette(facts: Facts, prepare: Prepare) -> Any:
    """Returns images of one colour each, prepared in a style; ``None`` where the model takes no images."""
    like = noise(facts.model) if facts.rows is None else facts.rows.x

    def plain(value: NDArray) -> NDArray:
        if not is_image(value):
            return np.repeat(value[:1], len(COLOURS), axis=0)
        shades = COLOURS if value.shape[3] == 3 else _preprocessing.greys_of(COLOURS)
        colours = np.asarray(prepare(shades), np.float32)
        return np.tile(colours[:, None, None, : value.shape[3]], (1, *value.shape[1:3], 1))

    return facts.prepared(facts.fitting(mapped(plain, like))) if images_in(like) else None


def _preprocessing_fault(got: NDArray, family: str) -> tuple[str, str, float] | None:
    """Says what is wrong with the colours at the first convolution: code, words, largest difference."""
    expected = _preprocessing.expected_by(family)
    grey = np.ptp(got, axis=0).min() > 0 and bool(np.allclose(got[3:6].std(0), 0, atol=1e-5))
    # Grey images, or a model that makes them grey.
    colours = _preprocessing.greys_of(COLOURS) if grey else COLOURS
    wanted = [prepare(colours) for prepare in expected]
    if any(_same(got, want) for want in wanted):
        return None
    other, twice = "preprocessing-other", "preprocessing-twice"
    known = [("preprocessing-missing", "raw pixels reach the first convolution", colours)]
    for style, done in STYLES.items():
        if style != TWICE:
            words = f"another preprocessing reaches the first convolution ({style})"
            known.append((other, words, done(colours)))
        words = f"two preprocessings follow each other ({style}; then the family's)"
        known += [(twice, words, prepare(done(colours))) for prepare in expected]
    words = "the family's preprocessing is applied twice"
    known += [(twice, words, prepare(prepare(colours))) for prepare in expected]
    known.append((twice, "pixels are divided by 255 twice", STYLES[TWICE](colours)))
    code, words, _ = next((one for one in known if _same(got, one[2])), (other, UNKNOWN, got))
    return code, words, min(float(np.abs(got - want).max()) for want in wanted)


def _same(got: NDArray, want: NDArray) -> bool:
    return bool(np.abs(got - want).max() <= 0.03 * (want.max() - want.min()))


@needs("base", "images")
def augmentation_scale(facts: Facts) -> Iterator[Finding | str]:
    """augmentation"""
    x = facts.prepared(facts.fitting(facts.rows.rows(16)[0]))  # type: ignore[union-attr]
    calm, again, wild = (at_first_convolution(facts.model, facts.base, x, m) for m in (False, False, True))
    if calm is None or wild is None or again is None or not np.median(calm.std(axis=(1, 2))):
        yield "nothing of the images reaches the first convolution"
        return
    spread = float(np.ptp(calm))
    if (moved := float(np.abs(again - calm).max())) > 0.01 * spread:
        what = "In inference mode the same images reach the first convolution changed at random"
        yield fault("augmentation-stays", f"{what}, by up to {moved:.3g}.", moved)
    outside = float(((wild < calm.min() - OUTSIDE * spread) | (wild > calm.max() + OUTSIDE * spread)).mean())
    lost = float(((calm < wild.min()) | (calm > wild.max())).mean())
    flat = float(np.median(wild.std(axis=(1, 2))) / np.median(calm.std(axis=(1, 2))))
    if outside > 0.2 or flat < 0.1 or lost > 0.25:
        what = f"In training mode {outside:.0%} of the values at the first convolution lie far outside of"
        what += f" {calm.min():.3g} to {calm.max():.3g}, and the contrast is {flat:.0%} of that in inference"
        what += f"; {lost:.0%} of those in inference have no like in training mode" if lost > 0.25 else ""
        yield fault("augmentation-scale", f"{what}.", max(outside, lost))


@needs("images")
def images_size(facts: Facts) -> Iterator[Finding | str]:
    """size of the images"""
    if facts.inside_fit or facts.size is None or callable(getattr(facts.model, "preprocessor", None)):
        return  # whatever it is, it fits
    for name, x in facts.images.items():
        if not facts.sets[name].resizes and x.shape[1:3] != facts.size:
            (height, width), (h, w) = x.shape[1:3], facts.size
            what = f"The {name} images have {height} x {width} pixels, the model takes {h} x {w}."
            yield fault("images-size", what, height, height=h, width=w)
            return


@needs("images")
def pixels(facts: Facts) -> Iterator[Finding]:
    """pixels"""
    greys = {}
    for name, x in facts.images.items():
        yield from _pixel_faults(name, x, facts.styles[name] == (TWICE,), facts.sets[name].y)
        few = small(x)
        greys[name] = x.shape[3] == 3 and bool(np.ptp(few, axis=3).max() <= 0.01 * max(1e-9, np.ptp(few)))
    styles = facts.styles
    alike = set.intersection(*map(set, styles.values()))
    if not alike and (facts.base is None or facts.base.family is None):
        what = "; ".join(f"{name}: {held[0]}" for name, held in styles.items())
        yield fault("pixels-differ", f"The sets are prepared in different ways ({what}).")
    if any(greys.values()):
        grey = " and ".join(name for name in greys if greys[name])
        code = "pixels-grey" if all(greys.values()) else "colours-differ"
        rest = "" if all(greys.values()) else ", those of the other sets are not"
        yield fault(code, f"The {grey} images are grey, written three times{rest}.")


def _pixel_faults(name: str, x: NDArray, twice: bool, y: Any) -> Iterator[Finding]:
    values = x.reshape(len(x), -1)
    broken = int((~np.isfinite(values).all(axis=1)).sum()) if x.dtype.kind == "f" else 0
    if broken:
        yield fault("pixels-broken", f"{broken} of {len(x)} {name} images hold NaN or infinity.", broken)
        return
    low, high = float(values.min()), float(values.max())
    spread = np.ptp(values, axis=1).astype(float)
    plain = spread <= max(1.0 if x.dtype.kind in "iub" else 0.0, 1e-3 * (high - low))
    empty = float(plain.mean())
    some = empty > SOME and isinstance(y, np.ndarray) and len(np.unique(y[plain], axis=0)) > 1
    if empty > 0.2 or some:
        black = " (all values are 0 or 1, in whole numbers)" if x.dtype.kind in "iub" and high <= 1 else ""
        yield fault("pixels-empty", f"{empty:.0%} of the {name} images have one colour{black}.", empty)
    elif len(x) >= 3 and (values == values[0]).all():
        yield fault("pixels-alike", f"All {len(x)} {name} images are the same.", len(x))
    if max(high, -low) > 1000:
        yield fault("pixels-range", f"The {name} pixels go from {low:g} to {high:g}.", high)
    elif twice and empty <= 0.2:
        what = f"The {name} pixels go from {low:.3g} to {high:.3g}: divided by 255 twice."
        yield fault("pixels-empty", what, high)
