"""The report of `tlhelpers run`: one HTML page that needs nothing from elsewhere."""

import base64
import html as htmllib
import io
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import metadata, resources

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from tlhelpers import data
from tlhelpers._confusion import confusion
from tlhelpers.evaluation import wilson_interval
from tlhelpers.own_images import FolderCheck

__all__ = ["Candidate", "Outcome", "calibration_error", "html", "reliability"]

MATRIX_CLASSES = 20  # more make a matrix that nobody reads: then the frequent confusions are listed
SHOWN = 12  # mistakes, and names in a list
BINS = 10  # of confidence
PICTURE_SIDE = 200
_PACKAGES = ("keras", "onnxruntime", "scikit-learn", "numpy")
_ABOUT = {
    "linear probe": "a linear layer on the last layer of a frozen network",
    "several depths": "a linear layer on several depths of a frozen network",
    "fine-tuning": "the upper blocks trained on, too",
}
_INK = "#012345"  # a colour that stands for that of the text until the figure is in the page


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
        logits = self.temperature * np.log(np.maximum(self.probabilities, 1e-30))
        logits -= logits.max(axis=1, keepdims=True)
        shares = np.exp(logits)
        return shares / shares.sum(axis=1, keepdims=True)


def reliability(probabilities: np.ndarray, y: np.ndarray, bins: int = BINS) -> list[tuple[int, float, float]]:
    """Sorts predictions into bins of equal width by their confidence.

    Args:
        probabilities: (n, k).
        y: Labels (n,).
        bins: Number of bins between 0 and 1.

    Returns:
        For each bin that is not empty: number of predictions, mean confidence, accuracy.
    """
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == y
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = [place == b for b in range(bins)]
    return [(int(r.sum()), float(confidence[r].mean()), float(hit[r].mean())) for r in rows if r.any()]


def calibration_error(probabilities: np.ndarray, y: np.ndarray, bins: int = BINS) -> float:
    """Returns the expected calibration error: the mean gap between confidence and accuracy.

    It is that of Naeini et al. (2015).

    Args:
        probabilities: (n, k).
        y: Labels (n,).
        bins: Number of bins of equal width.
    """
    return sum(n * abs(c - a) for n, c, a in reliability(probabilities, y, bins)) / len(y)


def _chance_error(probabilities: np.ndarray, draws: int = 200) -> float:
    """Returns the calibration error that a perfectly calibrated model shows on so few images, on average."""
    rng = np.random.default_rng(0)
    confidence = probabilities.max(axis=1)
    two = np.stack([confidence, np.zeros_like(confidence)], axis=1)  # labels: 0 is a hit, 1 a miss
    return float(
        np.mean(
            [calibration_error(two, (rng.random(len(two)) >= confidence).astype(int)) for _ in range(draws)]
        )
    )


def html(outcome: Outcome, x_test: np.ndarray | data.ImageSequence) -> str:
    """Returns the report as one page, with its pictures inside.

    Args:
        outcome: What to show.
        x_test: The test images, uint8 (n, h, w, 3).
    """
    template = string.Template(
        resources.files("tlhelpers").joinpath("report.html").read_text(encoding="utf-8")
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
    after = calibration_error(o.probabilities, o.y_test)
    lines.append(
        f"Its stated confidence is off by {_points(after)} on average; a perfectly calibrated model would "
        f"show "
        f"about {_points(_chance_error(o.probabilities))} on so many images."
    )
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
    rows = [(name, *(check.counts[s][name] for s in ("train", "val", "test"))) for name in o.class_names]
    rows.append(("all", *(sum(row[i] for row in rows) for i in (1, 2, 3))))
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
    correct = o.predicted == o.y_test
    rows = []
    shares = []
    for k, name in enumerate(o.class_names):
        n, hits = int((o.y_test == k).sum()), int(correct[o.y_test == k].sum())
        if n:
            a, b = wilson_interval(hits, n)
            shares.append(hits / n)
            rows.append((name, n, hits, _percent(hits / n), f"{_percent(a)} to {_percent(b)}"))
    rows.sort(key=lambda row: row[2] / row[1])
    table = _table(
        "Test images of each class, the hardest class first",
        ("class", "test images", "named rightly", "share", "95 % interval"),
        rows,
    )
    return (
        f"<p>The test images were looked at once, by the exported model, after everything was chosen. "
        f"{o.hits:,} of {len(o.y_test):,} were named rightly: {_percent(o.accuracy)}, with the 95 % interval "
        f"{_percent(low)} to {_percent(high)} (Wilson). The mean over classes, where each counts the same, "
        f"is "
        f"{_percent(float(np.mean(shares)))}.</p>" + _folded(table, "Each class by itself", len(rows) > 30)
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
    confidence = o.probabilities.max(axis=1)
    wrong = np.flatnonzero(o.predicted != o.y_test)
    if not len(wrong):
        return "<p>There are none: every test image was named rightly.</p>"
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:SHOWN]
    figures = []
    for i in worst.tolist():
        true, named = (_text(o.class_names[k]) for k in (o.y_test[i], o.predicted[i]))
        file = _text(o.check.files["test"][i])
        figures.append(
            f'<figure><img src="{_jpeg(x_test[i])}" alt="Test image of the class {true}, named {named}">'
            f"<figcaption><b>{named}</b>, {_percent(confidence[i], 0)} sure<br>is <b>{true}</b><br>{file}"
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
        f'so are no longer a test.</p><div class="pictures">{"".join(figures)}</div>'
    )


def _confidence(o: Outcome) -> str:
    before, after = (calibration_error(p, o.y_test) for p in (o.uncalibrated(), o.probabilities))
    if o.temperature == 1:
        how = (
            f"None of the {o.n_val:,} validation images was named wrongly, so nothing could tell how sure "
            f"to be, and "
            "the probabilities are left as they are."
        )
    else:
        how = (
            f"{_n(o.n_val, 'validation image')} set the temperature, {o.temperature:.2f}: the model was too "
            f"{'sure' if o.temperature > 1 else 'cautious'}, and the exported files correct it. The expected "
            f"calibration error on the test images went from {_points(before)} to {_points(after)}."
        )
    bins = reliability(o.probabilities, o.y_test)
    heard = "; ".join(f"{_percent(c, 0)} sure: {_percent(a, 0)} right, {_n(n, 'image')}" for n, c, a in bins)
    figure = (
        f'<figure class="chart" role="img" aria-label="Reliability diagram after temperature scaling. '
        f'{heard}.">'
        f"{_reliability_svg(o)}</figure>"
    )
    return (
        "<p>When the model says 80 %, is it right in 80 % of the cases? Each point stands for images about "
        "which it "
        "was about equally sure. On the diagonal, confidence and accuracy agree; below it, the model is "
        "too sure. "
        f"Bars are 95 % intervals.</p>{figure}<p>{how} A perfectly calibrated model would show about "
        f"{_points(_chance_error(o.probabilities))} on so many images, by chance alone.</p>"
    )


def _use(o: Outcome) -> str:
    keras_file, onnx_file, classes = (
        next((n for n in o.sizes if n.endswith(suffix)), "") for suffix in (".keras", ".onnx", ".txt")
    )
    listing = "".join(f"<li><code>{_text(n)}</code>, {size / 1e6:.1f} MB</li>" for n, size in o.sizes.items())
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


def _reliability_svg(o: Outcome) -> str:
    """The diagram as inline SVG whose colours follow the page's."""
    colours = {"#a34400": "var(--before)", "#005a91": "var(--after)", _INK: "currentColor"}
    style = {
        f"{part}": _INK
        for part in ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    }
    with rc_context(style | {"svg.fonttype": "none", "svg.hashsalt": "tlhelpers", "font.size": 11}):
        figure = Figure(figsize=(5.6, 4.4), layout="constrained")
        ax = figure.subplots()
        ax.plot([0, 100], [0, 100], "--", color=_INK, linewidth=1)
        for label, p, colour, marker in (
            ("as trained", o.uncalibrated(), "#a34400", "s"),
            ("with temperature", o.probabilities, "#005a91", "o"),
        ):
            if label == "as trained" and o.temperature == 1:
                continue
            bins = reliability(p, o.y_test)
            ends = np.array([wilson_interval(round(a * n), n) for n, _, a in bins])
            c, a = 100 * np.array([b[1:] for b in bins]).T
            ax.errorbar(
                c,
                a,
                np.maximum(0, [a - 100 * ends[:, 0], 100 * ends[:, 1] - a]),
                fmt=marker,
                color=colour,
                capsize=3,
                label=label,
            )
        ax.set(xlabel="confidence (%)", ylabel="accuracy (%)", xlim=(0, 102), ylim=(0, 102))
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        ax.legend(loc="upper left", frameon=False)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)
    for colour, variable in colours.items():
        svg = svg.replace(colour, variable)
    return svg.replace("<svg", '<svg aria-hidden="true"', 1)


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
    """A titled list; what is beyond the first dozen is folded."""
    items = [f"<li>{_text(line)}</li>" for line in lines]
    if not items:
        return ""
    rest = "".join(items[SHOWN:])
    more = (
        f"<details><summary>{len(items) - SHOWN:,} more</summary><ul class=files>{rest}</ul></details>"
        if rest
        else ""
    )
    return f"<h3>{title} ({len(items):,})</h3><ul class=files>{''.join(items[:SHOWN])}</ul>{more}"


def _text(words: str) -> str:
    return htmllib.escape(words)


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def _n(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"
