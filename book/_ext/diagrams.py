"""Sphinx extension of this book: diagrams that are drawn by code, as inline SVG.

Directive:
    ``{diagram} name`` with ``:alt:`` (required where no function tells it), ``:name:`` to refer to it, and a
    caption as content.

A diagram is a function below. Its colours are classes that ``custom.css`` fills, so that they follow the
theme and the printer. It is 480 units wide, with letters of 16: on a telephone these are 11 pixels high.
"""

import re
import textwrap
from collections.abc import Callable
from html import escape
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from tlhelpers import decision as table
from tools.numbers import stored
from tools.numbers.provenance import ROOT

logger = logging.getLogger(__name__)
RULES = re.compile(r"^\.diagram[^{]*\{[^}]*\}", re.M)  # of the style sheet, light
WIDTH = 480
LINE = 20  # from one line of text to the next
Point = tuple[float, float]
Picture = tuple[float, list[str]]  # height, and the pieces of SVG

# What a page's line "You need" asks for; the tests compare both.
NEEDS: dict[str, tuple[str, ...]] = {
    "notebooks/01_first_result": (),
    "notebooks/03_model_based": ("notebooks/01_first_result",),
    "notebooks/04_feature_based": ("notebooks/01_first_result",),
    "notebooks/04b_listings": ("notebooks/03_model_based", "notebooks/04_feature_based"),
    "notebooks/14_your_own_images": ("notebooks/03_model_based", "notebooks/04_feature_based"),
    "notebooks/16_sentences": ("notebooks/03_model_based", "notebooks/04_feature_based"),
    "notebooks/18_compression": ("notebooks/03_model_based", "notebooks/04_feature_based"),
    "notebooks/22_seeing": ("notebooks/03_model_based", "notebooks/04_feature_based"),
    "notebooks/23_robustness": ("notebooks/03_model_based", "notebooks/04_feature_based"),
    "book/speed": ("notebooks/04_feature_based",),
    "notebooks/05_transferability_of_layers": ("notebooks/03_model_based",),
    "notebooks/06_freezing": ("notebooks/03_model_based",),
    "notebooks/07_learning_rates": ("notebooks/03_model_based",),
    "notebooks/08_comparison": ("notebooks/03_model_based", "notebooks/04_feature_based"),
    "notebooks/09_vgg16": ("notebooks/03_model_based", "notebooks/04_feature_based"),
    "notebooks/10_tuning": ("notebooks/03_model_based", "notebooks/04_feature_based"),
    "notebooks/11_evaluating": ("notebooks/04_feature_based",),
    "notebooks/12_errors_calibration": ("notebooks/04_feature_based", "notebooks/11_evaluating"),
    "notebooks/13_choosing_the_source": ("notebooks/04_feature_based", "notebooks/11_evaluating"),
    "notebooks/24_beyond_one_machine": ("notebooks/04_feature_based", "notebooks/10_tuning"),
    "book/concepts": (),
    "book/formulation": ("book/concepts",),
    "notebooks/02_losses": ("book/formulation",),
    "book/article_claims": ("book/concepts", "book/formulation"),
    "book/trends": ("book/concepts", "book/formulation"),
    "book/related_learning": ("book/concepts",),
    "book/taxonomy": ("book/concepts",),
}
# The theory behind these chapters: it helps, and they can be read without it.
HELPS = {
    "notebooks/03_model_based": ("book/formulation",),
    "notebooks/04_feature_based": ("book/formulation",),
}


def text(x: float, y: float, words: str, style: str = "", anchor: str = "middle") -> str:
    """Return one line of text, with its baseline at ``y``."""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{style}">{escape(words)}</text>'


def box(x: float, y: float, w: float, h: float, words: str, kind: str = "plain", link: str = "") -> str:
    """Return a box with lines of text in its middle.

    Args:
        x: Left edge.
        y: Upper edge.
        w: Width.
        h: Height.
        words: Lines, parted by a line feed; one that begins with ``*`` is bold.
        kind: Class: ``plain``, ``frozen``, ``gone``, ``run``, or a method: ``scratch``, ``probe``, ``tuned``.
        link: Page to lead to.
    """
    lines = words.split("\n")
    first = y + h / 2 - LINE * (len(lines) - 1) / 2 + 5.5
    parts = [f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="6"/>']
    for number, line in enumerate(lines):
        style = "strong" if line.startswith("*") else ""
        parts.append(text(x + w / 2, first + LINE * number, line.removeprefix("*"), style))
    group = f'<g class="box {kind}">{"".join(parts)}</g>'
    # The address is known when the page is written.
    return f'<a href="@@{link}@@">{group}</a>' if link else group


def arrow(*points: Point, kind: str = "") -> str:
    """Return a line through some points, level or upright, with a head at its end."""
    (x1, y1), (x2, y2) = points[-2:]
    dx, dy = (x2 > x1) - (x2 < x1), (y2 > y1) - (y2 < y1)
    tips = [(x2, y2), *((x2 - 9 * dx + s * 5 * dy, y2 - 9 * dy + s * 5 * dx) for s in (1, -1))]
    way = [*points[:-1], (x2 - 8 * dx, y2 - 8 * dy)]
    path = " ".join(f"{x:g},{y:g}" for x, y in way)
    head = " ".join(f"{x:g},{y:g}" for x, y in tips)
    return f'<g class="arrow {kind}"><polyline points="{path}"/><polygon points="{head}"/></g>'


def transfer() -> Picture:
    """From source training to target training."""
    x, w, step = (0, 128, 256, 384), 96, 128
    parts = [text(0, 18, "1  Source training, often by somebody else", "strong", "start")]
    rows = {
        40: ("source\nimages", "backbone\nφ(x; θ)", "source\nhead g", "loss S"),
        206: ("target\nimages", "backbone\nfrom θ*", "target\nhead h", "loss T"),
    }
    kinds = {40: ("plain", "frozen", "gone", "plain"), 206: ("plain", "frozen", "tuned", "plain")}
    for y, words in rows.items():
        parts += [box(x[i], y, w, 60, words[i], kinds[y][i]) for i in range(4)]
        parts += [arrow((x[i] + w, y + 30), (x[i] + step, y + 30)) for i in range(3)]
    parts += [
        text(304, 120, "thrown away", "quiet"),
        arrow((176, 100), (176, 206), kind="thick"),
        text(192, 152, "copy θ*, then freeze it", "strong", "start"),
        text(192, 172, "or train it further", "strong", "start"),
        text(304, 286, "new, random", "quiet"),
        text(0, 316, "2  Target training, this course", "strong", "start"),
    ]
    return 324, parts


def settings() -> Picture:
    """Which transfer setting it is."""
    leaves = (
        ("*inductive\nImageNet to\nCIFAR-10", "plain"),
        ("*unsuper-\n*vised\nno labels", "plain"),
        ("*trans-\n*ductive\nday to night", "plain"),
        ("*ordinary\nlearning", "gone"),
    )
    parts = [
        box(80, 0, 320, 56, "Is the target task the same\nas the source task?"),
        arrow((170, 56), (170, 78), (115, 78), (115, 104)),
        arrow((310, 56), (310, 78), (365, 78), (365, 104)),
        text(104, 92, "no", "quiet", "end"),
        text(376, 92, "yes", "quiet", "start"),
        box(0, 104, 230, 56, "Are there labels\nin the target?"),
        box(250, 104, 230, 56, "Are the domains\ndifferent?"),
    ]
    for i, (words, kind) in enumerate(leaves):
        x = (0, 120, 250, 370)[i]
        parts += [
            arrow((x + 55, 160), (x + 55, 204)),
            text(x + 65, 184, ("yes", "no")[i % 2], "quiet", "start"),
            box(x, 204, 110, 76, words, kind),
        ]
    return 282, parts


def freezing() -> Picture:
    """What is copied, frozen and trained by four methods."""
    columns = (
        ("scratch", "scratch", ("random,\ntrains",) * 3),
        ("linear\nprobe", "probe", ("new,\ntrains", "frozen", "frozen")),
        ("fine-\ntuning", "tuned", ("new,\ntrains", "copied,\ntrains", "copied,\ntrains")),
        ("phase 1", "probe", ("new,\ntrains", "frozen", "frozen")),
        ("phase 2", "tuned", ("kept,\ntrains", "copied,\ntrains", "frozen")),
    )
    parts = [
        text(400, 16, "head first, then", "strong"),
        text(400, 36, "the upper blocks", "strong"),
    ]
    for row, name in enumerate(("head", "upper\nblocks", "lower\nblocks")):
        for number, line in enumerate(lines := name.split("\n")):
            parts.append(
                text(0, 97 + 62 * row + LINE * number - 10 * (len(lines) - 1), line, "quiet", "start")
            )
    for i, (name, kind, cells) in enumerate(columns):
        x = (64, 146, 228, 320, 402)[i]
        lines = name.split("\n")
        parts += [
            text(x + 39, 58 - LINE * (len(lines) - 1 - n), line, "strong" if i < 3 else "quiet")
            for n, line in enumerate(lines)
        ]
        for row, words in enumerate(cells):
            parts.append(box(x, 66 + 62 * row, 78, 52, words, "frozen" if words == "frozen" else kind))
    return 246, parts


def features() -> Picture:
    """Features are computed once and read by many heads."""
    parts = [
        text(0, 18, "Once", "strong", "start"),
        box(0, 30, 124, 60, "images: train,\nvalidate, test"),
        arrow((124, 60), (178, 60)),
        box(178, 30, 124, 60, "*backbone\nfrozen", "frozen"),
        arrow((302, 60), (356, 60)),
        box(356, 30, 124, 60, "*features\nkept on disk"),
        text(0, 134, "As often as you like", "strong", "start"),
        text(0, 154, "each in seconds", "quiet", "start"),
    ]
    for x, words, kind in ((0, "k-NN", "knn"), (178, "linear probe", "probe"), (356, "MLP", "mlp")):
        middle = x + 62
        way = (
            [(418, 90), (418, 172), (middle, 172), (middle, 196)] if middle < 418 else [(418, 90), (418, 196)]
        )
        parts += [arrow(*way), box(x, 196, 124, 44, f"*{words}", kind)]
    return 242, parts


def trunk() -> Picture:
    """Lower blocks run once; the blocks above train on what they gave."""
    return 268, [
        text(0, 18, "Once", "strong", "start"),
        box(0, 30, 124, 60, "images and\nmirror images"),
        arrow((124, 60), (178, 60)),
        box(178, 30, 124, 60, "*lower blocks\nfrozen", "frozen"),
        arrow((302, 60), (356, 60)),
        box(356, 30, 124, 60, "*activations\nkept on disk"),
        text(0, 134, "In every epoch", "strong", "start"),
        box(0, 160, 124, 60, "activations\nread again"),
        arrow((418, 90), (418, 144), (62, 144), (62, 160)),
        arrow((124, 190), (178, 190)),
        box(178, 160, 124, 60, "*upper blocks\ntrain", "tuned"),
        arrow((302, 190), (356, 190)),
        box(356, 160, 124, 60, "*head\ntrains", "tuned"),
        arrow((418, 220), (418, 240), (240, 240), (240, 220), kind="dashed"),
        text(240, 262, "gradients stop at the border", "quiet"),
    ]


def path() -> Picture:
    """The chapters of the course and what each of them needs."""
    columns = (
        (
            "01_first_result 03_model_based 04_feature_based 04b_listings speed 14_your_own_images "
            "11_evaluating 12_errors_calibration 13_choosing_the_source 10_tuning 24_beyond_one_machine",
            "First result|Model-based|Feature-based|Two listings|Speed|Own images|Evaluating|Errors|Source|"
            "Tuning|Many machines",
        ),
        (
            "concepts formulation 02_losses article_claims trends",
            "Concepts|Formulas|Losses by hand|Claims|Trends",
        ),
        (
            "- related_learning taxonomy - - 05_transferability_of_layers 06_freezing "
            "07_learning_rates 08_comparison 09_vgg16 16_sentences 18_compression "
            "22_seeing 23_robustness",
            "-|Neighbours|Map of kinds|-|-|Layers|Freezing|Learning rates|Comparison|VGG16|Sentences|Compression|Seeing|"
            "Robustness",
        ),
    )
    places: dict[str, Point] = {}
    parts = [
        text(66 + 169 * i, 16, head, "quiet") for i, head in enumerate(("see it work", "ideas", "read on"))
    ]
    boxes = []
    for column, (names, labels) in enumerate(columns):
        for row, (name, label) in enumerate(zip(names.split(), labels.split("|"), strict=True)):
            page = next((p for p in NEEDS if p.endswith(f"/{name}")), "")
            if page:
                places[page] = (column * 169, 28 + 66 * row)
                kind = "run" if page.startswith("notebooks/") else "plain"
                boxes.append(box(*places[page], 132, 42, label, kind, link=page))
    for needs, kind in ((HELPS, "dashed"), (NEEDS, "")):
        for page, wanted in needs.items():
            indirect = {far for near in wanted for far in all_needs(near)}
            parts += [between(places[w], places[page], kind) for w in wanted if w not in indirect]
    return 970, [*parts, *boxes, text(0, 964, "Bold border: to run. Dashed: helps.", "quiet", "start")]


def all_needs(page: str) -> set[str]:
    """Return what a page needs, and what that needs."""
    return {n for near in NEEDS[page] for n in (near, *all_needs(near))}


def between(start: Point, end: Point, kind: str) -> str:
    """Return the arrow from one chapter to another: down, or along the lane between two columns."""
    (x1, y1), (x2, y2) = start, end
    if x1 == x2 and y2 - y1 < 70:
        return arrow((x1 + 66, y1 + 42), (x2 + 66, y2), kind=kind)
    if x1 == x2:  # past other chapters of the same column
        return arrow(
            (x1 + 132, y1 + 27), (x1 + 144, y1 + 27), (x1 + 144, y2 + 29), (x2 + 132, y2 + 29), kind=kind
        )
    if x1 < x2:
        return arrow((x1 + 132, y1 + 15), (x1 + 154, y1 + 15), (x1 + 154, y2 + 21), (x2, y2 + 21), kind=kind)
    return arrow((x1, y1 + 21), (x1 - 15, y1 + 21), (x1 - 15, y2 + 13), (x2 + 132, y2 + 13), kind=kind)


SHOWN = {  # claims of chapter 1
    "first_scratch": ("from random weights", "scratch"),
    "first_head": ("pretrained and frozen, with a new head", "probe"),
    "first_tuned": ("pretrained, then fine-tuned", "tuned"),
}


def result_words() -> str:
    """Return the first result in words."""
    found = stored.read_claims(ROOT)
    parts = [f"{words}: {stored.shown(found[name], 'mean')}" for name, (words, _) in SHOWN.items()]
    return f"Bars: test accuracy of three networks that learned from the same pictures. {'; '.join(parts)}."


def result() -> Picture:
    """What three networks learn from the same pictures."""
    found, parts = stored.read_claims(ROOT), []
    for row, (name, (words, kind)) in enumerate(SHOWN.items()):
        claim, top = found[name], 64 * row
        low, high = (400 * claim[key] for key in ("low", "high"))
        parts += [
            text(0, top + 16, words, "strong", "start"),
            box(0, top + 24, 400 * claim["mean"], 26, "", kind),
            f'<g class="arrow"><polyline points="{low:g},{top + 37} {high:g},{top + 37}"/></g>',
            text(high + 10, top + 43, stored.shown(claim, "mean"), "", "start"),
        ]
    return 64 * len(SHOWN), parts


KINDS = {"scratch": "scratch", "probe": "probe", "depths": "probe"}  # the other methods fine-tune


def decision_words() -> str:
    """Return the decision in words, from the same table as the picture."""
    found = []
    for distance, words in table.DISTANCES.items():
        rows = [r for r in table.advice() if r.distance == distance]
        found.append(f"For {words}: " + "; ".join(f"{labels(r)}, {r.words}" for r in rows) + ".")
    return "Decision tree. First question: do your images look like the source's photographs? " + " ".join(
        found
    )


def labels(row: table.Advice) -> str:
    """Return how many labels a class a row of the table is for."""
    if row.below == float("inf"):
        return f"{row.at_least} labels a class and more" if row.at_least > 1 else "any number of labels"
    return f"up to {row.below - 1:g} labels a class"


def decision() -> Picture:
    """What to try first with how many labels, at what distance from the source."""
    parts = [
        box(80, 0, 320, 56, "Do your images look like\nthe source's photographs?"),
        arrow((170, 56), (170, 78), (115, 78), (115, 104)),
        arrow((310, 56), (310, 78), (365, 78), (365, 104)),
        text(104, 92, "yes", "quiet", "end"),
        text(376, 92, "no", "quiet", "start"),
    ]
    lowest = 0
    for left, distance in zip((0, 250), table.DISTANCES, strict=True):
        top = 104
        for row in table.advice():
            if row.distance == distance:
                words = textwrap.wrap(row.words, 24)
                height = LINE * (len(words) + 1) + 20
                label = "\n".join([labels(row), *(f"*{line}" for line in words)])
                parts.append(box(left, top, 230, height, label, KINDS.get(row.method, "tuned")))
                top += height + 10
        lowest = max(lowest, top)
    return lowest - 8, parts


DIAGRAMS: dict[str, Callable[[], Picture]] = {
    f.__name__: f for f in (transfer, settings, freezing, features, trunk, path, decision, result)
}
# What a diagram shows, where data say it.
WORDS: dict[str, Callable[[], str]] = {"decision": decision_words, "result": result_words}


def svg(name: str, alt: str, serial: int = 0, address: Callable[[str], str] = str) -> str:
    """Return a diagram as inline SVG.

    Args:
        name: Of ``DIAGRAMS``.
        alt: What it shows, in words.
        serial: Number of the diagram on its page: ids are unique.
        address: Turns the name of a page into its address.
    """
    function = DIAGRAMS[name]
    height, parts = function()
    title, ids = (function.__doc__ or name).rstrip("."), f"diagram-{name}-{serial}"
    body = re.sub("@@(.+?)@@", lambda match: escape(address(match[1])), "".join(parts))
    # A picture has no parts for a screen reader, so that one with links is a group.
    role = "group" if "<a " in body else "img"
    return (
        f'<svg class="diagram" viewBox="-2 -2 {WIDTH + 4} {height + 4:g}" role="{role}" '
        f'aria-labelledby="{ids}-title" aria-describedby="{ids}-desc">'
        f'<title id="{ids}-title">{escape(title)}</title><desc id="{ids}-desc">{escape(alt)}</desc>'
        f"{body}</svg>"
    )


def alone(name: str, alt: str, address: Callable[[str], str] = str) -> str:
    """Return a diagram as a file of its own, with the colours of the light theme."""
    css = (ROOT / "book" / "_static" / "custom.css").read_text(encoding="utf-8")
    style = (
        f"<style>{' '.join(RULES.findall(css))} svg.diagram {{ margin: 0; font-family: sans-serif }}</style>"
    )
    drawn = svg(name, alt, address=address)
    drawn = drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" width="640" ', 1)
    return drawn.replace("<title", f"{style}<title", 1) + "\n"


class diagram(nodes.General, nodes.Element):
    """A diagram in a page."""


class DiagramDirective(SphinxDirective):
    """``{diagram} name``."""

    required_arguments = 1
    has_content = True
    option_spec = {"alt": directives.unchanged_required, "name": directives.unchanged}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        """Return the diagram, in a numbered figure if there is a caption."""
        name = self.arguments[0]
        alt = WORDS[name]() if name in WORDS else self.options.get("alt", "")
        if name not in DIAGRAMS or len(alt) < 40:
            reason = (
                f"there are {', '.join(DIAGRAMS)}" if name not in DIAGRAMS else "`:alt:` says what it shows"
            )
            logger.warning(f"diagram {name!r}: {reason}", location=self.get_location(), type="course")
            return []
        picture = diagram("", diagram=name, alt=alt, serial=self.env.new_serialno("diagram"))
        self.set_source_info(picture)
        if not self.content:
            self.add_name(picture)
            return [picture]
        figure = nodes.figure("", picture, align="center")
        self.set_source_info(figure)
        words, messages = self.parse_inline(" ".join(self.content))
        figure += nodes.caption("", "", *words)
        self.add_name(figure)
        return [figure, *messages]


def visit_html(self: Any, node: nodes.Element) -> None:
    """Write the SVG."""
    here = self.builder.current_docname
    address = lambda page: self.builder.get_relative_uri(here, page)  # noqa: E731
    self.body.append(svg(node["diagram"], node["alt"], node["serial"], address))
    raise nodes.SkipNode


def visit_text(self: Any, node: nodes.Element) -> None:
    """Other formats have the words."""
    self.add_text(node["alt"]) if hasattr(self, "add_text") else self.body.append(self.encode(node["alt"]))
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    words = (visit_text, None)
    app.add_node(diagram, html=(visit_html, None), latex=words, text=words)
    app.add_directive("diagram", DiagramDirective)
    return {"version": "1", "parallel_read_safe": True, "env_version": 1}
