"""The page "Teach a network": the place where it happens, and its result as a figure where no script runs.

Directive:
    ``{teach}`` is where ``_static/teach/teach.js`` puts its boxes and buttons. Below stands a finished
    result, made of the sample pictures and of what ``benchmarks/teach.py`` recorded.

At the end of a build the network's weights and the sample pictures are written beside the scripts.
"""

import html
import os
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from tools import teach
from tools.numbers import stored

logger = logging.getLogger(__name__)
PAGE = "book/teach"
FOLDER = "_static/teach/"


def picture(path: Path, prefix: str, words: str, size: int = 56) -> str:
    """Return a sample picture as HTML, with words for those who do not see it."""
    source = prefix + path.relative_to(teach.STATIC).as_posix()
    return (
        f'<img class="dark-light" src="{source}" alt="{html.escape(words)}" '
        f'width="{size}" height="{size}" loading="lazy">'
    )


def share(name: str, value: float) -> str:
    """Return a probability as HTML: a bar, with its words."""
    return (
        f'<label>{html.escape(name)} {100 * value:.0f} %<meter value="{value:.3f}" max="1"></meter></label>'
    )


def row(kind: str, paths: list[Path], wrong: dict[str, str], prefix: str) -> str:
    """Return a kind's pictures as HTML; a wrong one is framed, and says so in words."""
    items = ""
    for path in paths:
        name = spoken(path)
        verdict, mark = (
            (f"taken for {wrong[name]}", ' class="wrong"') if name in wrong else ("named rightly", "")
        )
        items += f"<li{mark}>{picture(path, prefix, f'{name}, {verdict}')}</li>"
    return f'<div><p>{html.escape(kind)}</p><ul class="pictures">{items}</ul></div>'


def spoken(path: Path) -> str:
    """Return what a sample picture shows."""
    return path.stem.replace("-", " ")


def finished(result: dict[str, Any], prefix: str) -> str:
    """Return a finished result as HTML.

    Args:
        result: What the benchmark recorded.
        prefix: The address of the page's static files, from the page.
    """
    pictures, n = teach.samples(), result["pictures"]
    wrong = {mistake["picture"]: mistake["taken_for"] for mistake in result["wrong"]}
    kinds = "".join(row(kind, paths, wrong, prefix) for kind, paths in pictures["train"].items())
    mistakes = "; ".join(
        f"{m['picture']} ({m['kind']}) is taken for {m['taken_for']}" for m in result["wrong"]
    )
    new = result["new"][0]
    path = next(path for path in pictures["new"][new["kind"]] if spoken(path) == new["picture"])
    shares, right = new["probabilities"], result["views"]["features"]["10"]["right"]
    best = max(shares, key=shares.__getitem__)
    meters = "".join(share(kind, value) for kind, value in shares.items())
    return f"""<figure class="teach-finished" id="teach-finished">
<figcaption>What the button gives: {n} pictures, each named by a head that had not seen it.</figcaption>
<div class="kinds">{kinds}</div>
<p class="score"><strong>{right} of {n} right.</strong>
Guessing: {result["guess"]} of {n}.</p>
<p>Wrong, and framed: {html.escape(mistakes)}.</p>
<div class="answer">{picture(path, prefix, f"a {new['picture']}", 112)}
<div class="shares"><p>A new picture. It says: <strong>{html.escape(best)}.</strong></p>{meters}</div></div>
</figure>"""


class Teach(SphinxDirective):
    """``{teach}``."""

    def run(self) -> list[nodes.Node]:
        """Return the place for the script, and the figure."""
        address = self.env.app.builder.get_relative_uri
        prefix = "../" * self.env.docname.count("/") + FOLDER
        result = stored.read_benchmarks().get("teach")
        if result is None and not os.environ.get("COURSE_DRAFT"):
            logger.warning("benchmarks/teach.py has recorded nothing.", location=self.get_location())
        chapter = address(self.env.docname, "notebooks/01_first_result") + "#from-page-to-keras"
        place = f'<div class="teach" id="teach-here" data-folder="{prefix}" data-chapter="{chapter}"></div>'
        place += "<noscript><p>Where no script runs, this is a finished result.</p></noscript>"
        return [nodes.raw("", place + (finished(result, prefix) if result else ""), format="html")]


def add_files(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Add script and style to this page alone."""
    if page == PAGE:
        app.add_css_file("teach/teach.css")
        app.add_js_file("teach/teach.js", loading_method="defer")


def write_scripts(app: Sphinx, error: Exception | None) -> None:
    """Write what the first click loads."""
    if error is None and app.builder.format == "html":
        teach.write(Path(app.outdir) / FOLDER)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive and what is done for the page."""
    app.add_directive("teach", Teach)
    app.connect("html-page-context", add_files)
    app.connect("build-finished", write_scripts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
