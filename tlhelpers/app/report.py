"""The report of `tlhelpers run`: one HTML page that needs nothing from elsewhere."""

import base64
import html as htmllib
import io
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import metadata, resources
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from tlhelpers import data, plots
from tlhelpers.data.folder_check import FolderCheck
from tlhelpers.evaluation import calibration, errors, wilson_interval
from tlhelpers.evaluation.calibration import CalibrationError
from tlhelpers.evaluation.confusion import confusion

__all__ = ["Candidate", "Outcome", "html"]

MATRIX_CLASSES = 20  # more make a matrix that nobody reads: then the frequent confusions are listed
SHOWN = 12  # mistakes
LISTED = 6  # names in a list
BINS = 10  # of confidence
PICTURE_SIDE = 200
_PACKAGES = ("keras", "onnxruntime", "scikit-learn", "numpy")
_ABOUT = {
    "linear probe": "a linear layer on the last layer of a frozen network",
    "several depths": "a linear layer on several depths of a frozen network",
    "fine-tuning": "the upper blocks trained on, too",
}
_INK = "#012345"  # stands for the colour of the text
# Colours of a figure -> those of the page, which has a light and a dark side.
_COLOURS = {_INK: "currentColor", "#777777": "currentColor"}
_COLOURS |= {"#0072b2": "var(--after)", "#e69f00": "var(--before)"}


@dataclass(frozen=True)
class Candidate:
    """A model that might have been kept.

    Attributes:
        name: As in ``plots.METHODS``.
        val_accuracy: Accuracy on the validation images, 0..1; the best of several is optimistic.
        seconds: Time that it took.
    """

    name: str
    val_accuracy: float
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """All that a report shows.

    Attributes:
        check: What was found in the folder.
        class_names: One name a class.
        candidates: The models that were tried.
        chosen: Name of the one that was kept.
        temperature: What its logits are divided by.
        n_val: Number of validation images.
        n_tuned: Number of training images that fine-tuning took.
        backbone: Name of the pretrained network.
        image_size: Side of its input, in pixels.
        seed: Of the split and the training.
        date: Day of the run.
        y_test: Labels of the test images, int64 (n,).
        probabilities: What the exported model says of the test images, (n, k), temperature included.
        export: How the exported files were checked, in words.
        sizes: Written file -> bytes.
        seconds: Time of the whole run.
    """

    check: FolderCheck
    class_names: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    chosen: str
    temperature: float
    n_val: int
    n_tuned: int
    backbone: str
    image_size: int
    seed: int
    date: str
    y_test: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    probabilities: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    export: str = ""
    sizes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def predicted(self) -> np.ndarray:
        """Predicted labels of the test images, int64 (n,)."""
        return self.probabilities.argmax(axis=1)

    @property
    def hits(self) -> int:
        """Number of test images whose class was named."""
        return int((self.predicted == self.y_test).sum())

    @property
    def accuracy(self) -> float:
        """Accuracy on the test images, 0..1."""
        return self.hits / len(self.y_test)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy (Wilson, 1927)."""
        return wilson_interval(self.hits, len(self.y_test))

    def uncalibrated(self) -> np.ndarray:
        """Returns the probabilities (n, k) before temperature scaling."""
        logits = self.temperature * calibration.log_probabilities(self.probabilities)
        return calibration.with_temperature(logits, 1.0)


def html(outcome: Outcome, x_test: np.ndarray | data.ImageSequence) -> str:
    """Returns the report as one page, with its pictures inside.

    Args:
        outcome: What to show.
        x_test: The test images, uint8 (n, h, w, 3).
    """
    template = string.Template(
        resources.files("tlhelpers.app").joinpath("report.html").read_text(encoding="utf-8")
    )
    return template.substitute(
        title=_text(
            f"Telling apart {_n(len(outcome.class_names), 'class', 'classes')} of images: "
            f"{outcome.check.name.rstrip('/')}"
        ),
        verdict=_verdict(outcome),
        cards=_cards(outcome),
        meaning="".join(f"<li>{line}</li>" for line in _meaning(outcome)),
        images=_images(outcome),
        choice=_choice(outcome),
        test=_test(outcome),
        confusion=_confusions(outcome, x_test),
        mistakes=_mistakes(outcome, x_test),
        confidence=_confidence(outcome),
        use=_use(outcome),
        footer=_footer(outcome),
    )


def _verdict(o: Outcome) -> str:
    low, high = o.interval
    return (
        f"The model names the class of {o.hits:,} of {_n(len(o.y_test), 'test image')} rightly: "
        f"<strong>{_percent(o.accuracy)}</strong>. On many more images like these, expect between "
        f"{_percent(low)} and {_percent(high)} (95 % interval)."
    )


def _cards(o: Outcome) -> str:
    low, high = o.interval
    model = next((n for n in o.sizes if n.endswith(".onnx")), next(iter(o.sizes), ""))
    cards = [
        (_percent(o.accuracy), f"accuracy on test images ({_percent(low)} to {_percent(high)})"),
        (f"{o.check.n_images:,}", f"images in {_n(len(o.class_names), 'class', 'classes')}"),
        (_text(o.chosen), "the method that was kept"),
        (f"{o.sizes.get(model, 0) / 1e6:.0f} MB", "size of the model"),
        (f"{o.seconds:.0f} s", "from folder to report"),
    ]
    return "".join(f"<li><strong>{big}</strong>{small}</li>" for big, small in cards)


def _meaning(o: Outcome) -> list[str]:
    share = np.bincount(o.y_test, minlength=len(o.class_names)).max() / len(o.y_test)
    lines = [f"Always naming the most frequent class would be right in {_percent(share)} of the test images."]
    pairs = _pairs(o)
    if pairs:
        (i, j), count = pairs[0]
        names = o.class_names
        lines.append(
            f"The most frequent mistake: {_text(names[i])} taken for {_text(names[j])}, {_n(count, 'time')}."
        )
    else:
        lines.append("No test image was named wrongly. That is not proof of perfection: see the interval.")
    lines.append(_trust(calibration.calibration_error(o.y_test, o.probabilities, BINS)))
    lines += [_text(note) for note in o.check.notes()]
    lines.append(
        "All this holds for images that come from where these came from. Another camera, season or place "
        "is a "
        "new question: collect a few hundred images there, and test again. Images of one object or person "
        "must "
        "not lie on both sides of the split, and only you can know that."
    )
    return lines


def _images(o: Outcome) -> str:
    check = o.check
    height, width = check.sizes[:, 0], check.sizes[:, 1]
    here = [s for s in ("val", "test") if s not in check.shipped]
    words = {"val": "validation", "test": "test"}
    none = " and no ".join(words[s] for s in here)
    made = f"The folder has no {none} images of its own; they were split off, "
    parts = [
        f"<p>{made}each class by its share (seed {o.seed}).</p>"
        if here
        else "<p>The split into training, validation and test images is the folder's own.</p>",
        f"<p>Sizes: {width.min():,} × {height.min():,} to {width.max():,} × {height.max():,} pixels; half "
        f"of the "
        f"images have a short side of at least {np.median(check.sizes.min(axis=1)):,.0f}. The network sees "
        f"the centre "
        f"square at {o.image_size} × {o.image_size}.</p>",
    ]
    if check.n_ignored:
        parts.append(
            f"<p>{_n(check.n_ignored, 'other file')} in the folder "
            f"{'is no image or lies' if check.n_ignored == 1 else 'are no images or lie'} "
            "outside of class folders.</p>"
        )
    splits = ("train", "val", "test")
    rows = [(name, *(check.counts[s][name] for s in splits)) for name in o.class_names]
    rows.append(("all", *(sum(check.counts[s].values()) for s in splits)))
    counts = _table("Images of each class", ("class", "training", "validation", "test"), rows)
    parts.append(_folded(counts, f"Images of each of the {len(o.class_names)} classes", len(rows) > 30))
    parts.append(_listing("Files that could not be read", (f"{n}: {w}" for n, w in check.unreadable.items())))
    parts.append(
        _listing(
            "Copies of one picture",
            (
                f"{', '.join(c.names)} ({'equal files' if c.exact else 'look alike'}"
                f"{', in more than one class' if len(c.classes) > 1 else ''})"
                for c in check.copies
            ),
        )
    )
    parts.append(_listing("Images left out", (f"{n}: {w}" for n, w in check.left_out.items())))
    if not (check.unreadable or check.copies):
        parts.append("<p>Every file could be read, and no picture is there twice.</p>")
    return "".join(parts)


def _choice(o: Outcome) -> str:
    rows = [(c.name, _ABOUT[c.name], _percent(c.val_accuracy), f"{c.seconds:.0f} s") for c in o.candidates]
    kept = [c.name for c in o.candidates].index(o.chosen)
    n_train = sum(o.check.counts["train"].values())
    part = ""
    if 0 < o.n_tuned < n_train:
        part = f" Fine-tuning took {o.n_tuned:,} of the {n_train:,} training images, to spare time."
    return (
        f"<p>All start from {_text(o.backbone)}, a network trained on the photographs of ImageNet. "
        f"{_n(o.n_val, 'validation image')} chose between them; of equals, the simpler one was kept. "
        "The accuracy of the winner is a little too good here, since it was chosen by it. "
        f"The test below is not.{part}</p>"
        + _table(
            "What was tried", ("method", "what is trained", "validation accuracy", "time"), rows, kept, 2
        )
    )


def _test(o: Outcome) -> str:
    low, high = o.interval
    found = errors.by_class(o.y_test, o.predicted, o.class_names)
    table = _table(
        "Test images of each class, the hardest class first",
        ("class", "test images", "named rightly", "95 % interval", "right when it is named"),
        [
            (
                r.name,
                r.count,
                _percent(r.accuracy),
                f"{_percent(r.low)} to {_percent(r.high)}",
                "" if np.isnan(r.precision) else _percent(r.precision),
            )
            for r in found
        ],
    )
    return (
        f"<p>The test images were looked at once, by the exported model, after everything was chosen. "
        f"{o.hits:,} of {len(o.y_test):,} were named rightly: {_percent(o.accuracy)}, with the 95 % interval "
        f"{_percent(low)} to {_percent(high)} (Wilson). The mean over classes, where each counts the same, "
        f"is "
        f"{_percent(float(np.mean([r.accuracy for r in found])))}.</p>"
        + _folded(table, "Each class by itself", len(found) > 30)
    )


def _pairs(o: Outcome) -> list[tuple[tuple[int, int], int]]:
    """(true, predicted) -> how often, the most frequent confusion first."""
    wrong = o.predicted != o.y_test
    found, counts = np.unique(
        np.stack([o.y_test[wrong], o.predicted[wrong]], axis=1), axis=0, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")
    return [((int(found[i, 0]), int(found[i, 1])), int(counts[i])) for i in order]


def _confusions(o: Outcome, x_test: np.ndarray | data.ImageSequence) -> str:
    if len(o.class_names) <= MATRIX_CLASSES:
        matrix = confusion(x_test, o.y_test, o.predicted, o.class_names)  # type: ignore[arg-type]
        return (
            "<p>A row is the true class, a column the class that the model named. Open a line below to see "
            "the "
            f"pictures.</p>{matrix._repr_html_()}"
        )
    names = o.class_names
    rows = [(names[i], names[j], count) for (i, j), count in _pairs(o)[:20]]
    if not rows:
        return "<p>Nothing: every test image was named rightly.</p>"
    return _table("The most frequent confusions", ("true class", "taken for", "test images"), rows, left=2)


def _mistakes(o: Outcome, x_test: np.ndarray | data.ImageSequence) -> str:
    wrong = errors.confident_mistakes(o.y_test, o.probabilities)
    if not len(wrong):
        return "<p>There are none: every test image was named rightly.</p>"
    worst = wrong[:SHOWN]
    shown_images = []
    for i in worst.tolist():
        true, named = (_text(o.class_names[k]) for k in (o.y_test[i], o.predicted[i]))
        file = _text(o.check.files["test"][i])
        shown_images.append(
            f'<figure><img src="{_jpeg(x_test[i])}" alt="Test image of the class {true}, named {named}">'
            f"<figcaption><b>{named}</b>, {_percent(o.probabilities[i].max(), 0)} sure<br>is "
            f"<b>{true}</b><br>{file}"
            "</figcaption></figure>"
        )
    shown = (
        f"{len(worst)} of {_n(len(wrong), 'mistake')}"
        if len(worst) < len(wrong)
        else ("All mistakes" if len(wrong) > 1 else "The only mistake")
    )
    return (
        f"<p>{shown}, the most confident first. Look for wrong labels, for two things in one picture, and "
        f"for what "
        "the background gives away. Repair the training images by what you learn; test images that were used "
        f'so are no longer a test.</p><div class="pictures">{"".join(shown_images)}</div>'
    )


def _trust(error: CalibrationError) -> str:
    """What the calibration error says, measured against what chance alone would give."""
    verdict = (
        "more than chance explains: take its confidence with care."
        if error.value > error.ceiling
        else "no more than chance explains: nothing speaks against its confidence."
    )
    return (
        f"Its stated confidence is off by {_points(error.value)} on average. A perfectly calibrated model "
        f"would "
        f"show about {_points(error.chance)} on so many images, and seldom over {_points(error.ceiling)}; "
        f"so this "
        f"is {verdict}"
    )


def _confidence(o: Outcome) -> str:
    before, after = (
        calibration.calibration_error(o.y_test, p, BINS) for p in (o.uncalibrated(), o.probabilities)
    )
    if o.temperature == 1:
        how = (
            f"The {_n(o.n_val, 'validation image')} could not set a temperature, since all or none of them "
            f"were "
            "named rightly. The probabilities are left as they are."
        )
    else:
        how = (
            f"{_n(o.n_val, 'validation image')} set the temperature, {o.temperature:.2f}: there the model "
            f"was too "
            f"{'sure' if o.temperature > 1 else 'cautious'}, and the exported files correct it. The expected "
            f"calibration error (ECE) on the test images went from {_points(before.value)} to "
            f"{_points(after.value)}."
        )
    svg, words = _reliability_svg(o)
    return (
        "<p>When the model says 80 %, is it right in 80 % of the cases? Each point stands for images about "
        "which it was about equally sure. On the dashed line, confidence and accuracy agree; below it, the "
        f'model is too sure.</p><figure class="chart" role="img" aria-label="{_text(words)}">{svg}</figure>'
        f"<p>{how}</p><p>{_trust(after)}</p>"
    )


def _use(o: Outcome) -> str:
    keras_file, onnx_file, classes = (
        next((n for n in o.sizes if n.endswith(suffix)), "") for suffix in (".keras", ".onnx", ".txt")
    )
    listing = "".join(f"<li><code>{_text(n)}</code>, {_size(size)}</li>" for n, size in o.sizes.items())
    side = o.image_size
    read = (
        "import numpy as np\nfrom PIL import Image, ImageOps\n\n"
        f'names = open("{classes}", encoding="utf-8").read().splitlines()\n'
        'image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")\n'
        f"image = ImageOps.fit(image, ({side}, {side}), Image.Resampling.BICUBIC)\n"
        "x = np.asarray(image, np.float32)[None]  # pixels from 0 to 255\n\n"
    )
    onnx_code = (
        f'import onnxruntime\n\nsession = onnxruntime.InferenceSession("{onnx_file}")\n'
        "(p,) = session.run(None, {session.get_inputs()[0].name: x})\n"
    )
    keras_code = f'import keras\n\np = keras.models.load_model("{keras_file}").predict(x)\n'
    code = (
        read + (onnx_code if onnx_file else keras_code) + 'print(f"{names[p[0].argmax()]}: {p[0].max():.0%}")'
    )
    also = (
        f"<p>In Keras, the line is <code>p = "
        f"keras.models.load_model(&quot;{_text(keras_file)}&quot;).predict(x)</code>."
        "</p>"
        if onnx_file
        else ""
    )
    return (
        f'<ul class="files">{listing}</ul><p>{_text(o.export)}</p>'
        f'<pre tabindex="0" aria-label="Code to use the model"><code>{_text(code)}</code></pre>{also}'
    )


def _footer(o: Outcome) -> str:
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in _PACKAGES)
    return (
        f"Made by <code>tlhelpers run</code> on {o.date}, {_text(o.backbone)} at {o.image_size} pixels, "
        f"seed {o.seed}. "
        f"{versions}."
    )


def _reliability_svg(o: Outcome) -> tuple[str, str]:
    """The diagram as inline SVG whose colours follow the page's, and in words."""
    last = "as trained" if o.temperature == 1 else "with temperature"
    curves = {last: calibration.reliability(o.y_test, o.probabilities, BINS)}
    if o.temperature != 1:
        curves["as trained"] = calibration.reliability(o.y_test, o.uncalibrated(), BINS)
    parts = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    style: dict[str, Any] = dict.fromkeys(parts, _INK)
    style |= {"svg.fonttype": "none", "svg.hashsalt": "tlhelpers", "font.size": 11}
    with rc_context(style):  # type: ignore[arg-type]
        figure = Figure(figsize=(5.6, 4.4), layout="constrained")
        ax, words = plots.reliability(curves, figure.subplots())
        ax.legend(loc="upper left", frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)
    for colour, variable in _COLOURS.items():
        svg = svg.replace(colour, variable)
    return svg.replace("<svg", '<svg aria-hidden="true"', 1), words


def _jpeg(image: np.ndarray) -> str:
    picture = Image.fromarray(np.asarray(image))
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    kept: int | None = None,
    left: int = 1,
) -> str:
    """A table that scrolls by itself; the first ``left`` columns are words, row ``kept`` stands out."""

    def cell(i: int, value: object) -> str:
        tag, scope = ("th", ' scope="row"') if i == 0 else ("td", "")
        words = ' class="words"' if i < left else ""
        shown = f"{value:,}" if isinstance(value, int) else _text(str(value))
        return f"<{tag}{scope}{words}>{shown}</{tag}>"

    heads = "".join(
        f'<th scope="col"{" class=words" if i < left else ""}>{_text(h)}</th>' for i, h in enumerate(head)
    )
    body = "".join(
        f"<tr{' class=kept' if n == kept else ''}>{''.join(cell(i, v) for i, v in enumerate(row))}</tr>"
        for n, row in enumerate(rows)
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{_text(caption)}"><table>'
        f"<caption>{_text(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _folded(content: str, summary: str, fold: bool) -> str:
    return f"<details><summary>{_text(summary)}</summary>{content}</details>" if fold else content


def _listing(title: str, lines: Iterable[str]) -> str:
    """A titled list; what is beyond the first few is folded."""
    items = [f"<li>{_text(line)}</li>" for line in lines]
    if not items:
        return ""
    rest = "".join(items[LISTED:])
    more = (
        f"<details><summary>{len(items) - LISTED:,} more</summary><ul class=files>{rest}</ul></details>"
        if rest
        else ""
    )
    return f"<h3>{title} ({len(items):,})</h3><ul class=files>{''.join(items[:LISTED])}</ul>{more}"


def _text(words: str) -> str:
    return htmllib.escape(words)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e5 else f"{max(1, round(n_bytes / 1e3))} kB"


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def _n(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"
