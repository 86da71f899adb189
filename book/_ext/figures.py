"""Sphinx extension of this book: a notebook's figures become part of the page, and follow its theme.

A file that a page shows keeps its colours, and so is a pale box on a dark page. Here the drawing stands in
the page itself, and each of its colours is a variable whose default is the stored colour: ``custom.css`` sets
the variables of the dark theme. On a telephone a figure is as wide as its letters need, and scrolls in its
own box. The notebooks, and their copies for learners, keep what was stored.
"""

import math
import re
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

SMALLEST = 11  # height of a letter in pixels
# What no reader sees, or what would change the page around the figure: the style sets how all lines end.
LEFT_OUT = re.compile(r"\A.*?(?=<svg\b)|<!--.*?-->|<metadata>.*?</metadata>|<style\b.*?</style>", re.S)
OPENING = re.compile(r"<svg\b[^>]*>")
BOX = re.compile(r'viewBox="0 0 ([\d.]+) [\d.]+"')
LETTERS = re.compile(r"scale\(([\d.]+) -")  # they are drawn upside down, a hundred times too large
STYLE = re.compile(r'(?<= style=")[^"]*')
COLOUR = re.compile(r"#([0-9a-f]{6})\b")
ID = re.compile(r'((?: id=")|(?:href="#)|(?:url\(#))')


def inline(svg: str, words: str, prefix: str) -> str:
    """Return a figure of matplotlib's as a part of a page.

    Args:
        svg: The file's text.
        words: What it shows.
        prefix: Makes its ids those of this figure alone.
    """
    svg = LEFT_OUT.sub("", svg)
    opening = OPENING.match(svg)
    box = opening and BOX.search(opening[0])
    if not opening or not box:
        raise ValueError("This is no figure of matplotlib's: its <svg> has no viewBox that begins at 0 0.")
    width, sizes = float(box[1]), [100 * float(size) for size in LETTERS.findall(svg)]
    least = math.ceil(SMALLEST * width / min(sizes)) if sizes else 0
    body = STYLE.sub(lambda style: COLOUR.sub(r"var(--plot-\1, #\1)", style[0]), svg[opening.end() :])
    body = ID.sub(rf"\1{prefix}", body)
    return (
        f'<svg class="plot" role="img" aria-label="{escape(words)}" {box[0]} '
        f'style="width: {width * 4 / 3:.0f}px; --least: {least}px">{body}'
    )


def include(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put the figures of a notebook's outputs into its page."""
    if app.builder.format != "html":
        return
    for number, image in enumerate(list(doctree.findall(nodes.image))):
        path = Path(app.srcdir, image["uri"])
        if path.suffix == ".svg" and "jupyter_execute" in path.parts:
            text = inline(path.read_text(encoding="utf-8"), image.get("alt", ""), f"plot-{number}-")
            image.replace_self(nodes.raw("", text, format="html"))


def setup(app: Sphinx) -> dict[str, Any]:
    """Come when a page's outputs have been chosen, and before its images are copied."""
    app.connect("doctree-resolved", include)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
