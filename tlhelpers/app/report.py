"""The report of `tlhelpers run`: one HTML page that needs nothing from elsewhere."""

import base64
import io
import re
from collections.abc import Iterable
from importlib import metadata, resources
from typing import Any

import jinja2
import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from tlhelpers import data, plots
from tlhelpers.app.verdict import Outcome, judge
from tlhelpers.data.folder_check import SPLIT_WORDS, counted
from tlhelpers.data.pictures import decoder_source
from tlhelpers.evaluation import calibration, errors
from tlhelpers.evaluation.confusion import confusion

__all__ = ["html"]

MATRIX_CLASSES = 20  # more make a matrix that nobody reads: then the frequent confusions are listed
SHOWN = 12  # mistakes
SAMPLES = 8  # training images
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


def html(
    outcome: Outcome,
    x_test: np.ndarray | data.ImageSequence,
    x_train: np.ndarray | data.ImageSequence | None = None,
) -> str:
    """Returns the report as one page, with its pictures inside.

    Args:
        outcome: What to show.
        x_test: The test images, uint8 (n, h, w, 3).
        x_train: The training images, of which some are shown as the model sees them.
    """
    o = outcome
    error_as_trained, error = (
        calibration.calibration_error(o.y_test, p, n_bins=BINS) for p in (o.uncalibrated(), o.probabilities)
    )
    chart, chart_in_words = _reliability_svg(o)
    return _template().render(
        _tables(o),
        o=o,
        verdict=judge(o),
        samples=[] if x_train is None else _samples(o, x_train),
        n_unsure=int((o.probabilities.max(axis=1) < o.unsure_below).sum()),
        decoder=decoder_source(),
        most_frequent=np.bincount(o.y_test).max() / len(o.y_test),
        error=error,
        error_as_trained=error_as_trained,
        split_off=[SPLIT_WORDS[split] for split in ("val", "test") if split not in o.check.shipped],
        smallest=o.check.sizes.min(axis=0),
        largest=o.check.sizes.max(axis=0),
        short_side=np.median(o.check.sizes.min(axis=1)),
        matrix=_matrix(o, x_test),
        mistakes=_mistakes(o, x_test),
        n_mistakes=len(o.y_test) - o.hits,
        chart=chart,
        chart_in_words=chart_in_words,
        keras_file=_first(o.sizes, ".keras"),
        onnx_file=_first(o.sizes, ".onnx"),
        classes_file=_first(o.sizes, ".txt"),
        versions=", ".join(f"{package} {metadata.version(package)}" for package in _PACKAGES),
    )


def _template() -> jinja2.Template:
    page = resources.files("tlhelpers.app").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "counted": counted,
        "file_size": _file_size,
        "percent": _percent,
        "points": lambda share: f"{100 * share:.1f} points",
        "thousands": lambda n: f"{n:,.0f}",
    }
    return environment.from_string(page)


def _tables(o: Outcome) -> dict[str, Any]:
    """What the tables show: rows of whole numbers and words, and what belongs to them."""
    counts = [(name, *(o.check.counts[split][name] for split in SPLIT_WORDS)) for name in o.class_names]
    counts.append(("all", *(sum(o.check.counts[split].values()) for split in SPLIT_WORDS)))
    found = errors.by_class(o.y_test, o.predicted, o.class_names)
    return {
        "counts": counts,
        "tried": [
            (c.name, _ABOUT[c.name], _percent(c.val_accuracy), f"{c.seconds:.0f} s") for c in o.candidates
        ],
        "kept": [c.name for c in o.candidates].index(o.chosen),
        "by_class": [
            (
                row.name,
                row.count,
                _percent(row.accuracy),
                f"{_percent(row.low)} to {_percent(row.high)}",
                "" if np.isnan(row.precision) else _percent(row.precision),
            )
            for row in found
        ],
        "class_mean": np.mean([row.accuracy for row in found]),
        "confusions": _confusions(o),
    }


def _confusions(o: Outcome) -> list[tuple[str, str, int]]:
    """True class, predicted class and how often, the most frequent confusion first."""
    wrong = o.predicted != o.y_test
    found, counts = np.unique(
        np.stack([o.y_test[wrong], o.predicted[wrong]], axis=1), axis=0, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")
    return [(o.class_names[found[i, 0]], o.class_names[found[i, 1]], int(counts[i])) for i in order]


def _matrix(o: Outcome, x_test: np.ndarray | data.ImageSequence) -> str:
    """The matrix as HTML with escaped names; empty where there are too many classes."""
    if len(o.class_names) > MATRIX_CLASSES:
        return ""
    return confusion(x_test, o.y_test, o.predicted, o.class_names)._repr_html_()  # type: ignore[arg-type]


def _mistakes(o: Outcome, x_test: np.ndarray | data.ImageSequence) -> list[dict[str, Any]]:
    """What is shown of the most confident mistakes."""
    return [
        {
            "picture": _jpeg(x_test[i]),
            "actual": o.class_names[o.y_test[i]],
            "named": o.class_names[o.predicted[i]],
            "confidence": o.probabilities[i].max(),
            "file": o.check.files["test"][i],
        }
        for i in errors.confident_mistakes(o.y_test, o.probabilities)[:SHOWN].tolist()
    ]


def _samples(o: Outcome, x_train: np.ndarray | data.ImageSequence) -> list[tuple[str, str]]:
    """Some training images as the model sees them, each with its file's name."""
    places = np.linspace(0, len(x_train) - 1, min(SAMPLES, len(x_train))).astype(int)
    return [(_jpeg(x_train[int(i)]), o.check.files["train"][i]) for i in dict.fromkeys(places.tolist())]


def _reliability_svg(o: Outcome) -> tuple[str, str]:
    """The diagram as inline SVG whose colours follow the page's, and in words."""
    last = "as trained" if o.temperature == 1 else "with temperature"
    curves = {last: calibration.reliability(o.y_test, o.probabilities, n_bins=BINS)}
    if o.temperature != 1:
        curves["as trained"] = calibration.reliability(o.y_test, o.uncalibrated(), n_bins=BINS)
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


def _first(names: Iterable[str], suffix: str) -> str:
    """The first name with this ending; empty where there is none."""
    return next((name for name in names if name.endswith(suffix)), "")


def _file_size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e5 else f"{max(1, round(n_bytes / 1e3))} kB"


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"
