"""Sphinx extension of this book: a search that finds what people type, with excerpts, also from disk.

`search.toml` holds phrases by page. Their words become keywords of the page, which Sphinx' own search reads;
a scorer lifts a page to the top where a search holds all words of one of its phrases. From disk a page cannot
read another one: there, the description of a page (`page_meta`) stands below it, from one file that is loaded
with the results.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)
TABLE = Path(__file__).resolve().parents[1] / "search.toml"
# Sphinx' own points, and 100 more. It calls `score` for each result; the address has what was searched for.
SCORER = """\
const PHRASES = %s;
const searched = new URLSearchParams(location.search).get("q") || "";
const SEARCHED = new Set(
  searched.toLowerCase().split(/[^\\p{L}\\p{N}]+/u).map((word) => word.replace(/s$/, "")));
var Scorer = {
  score: ([page, title, anchor, , score]) => score + (!anchor
    && (PHRASES[page] || []).some((phrase) => phrase.every((word) => SEARCHED.has(word))) ? 100 : 0),
  objNameMatch: 11, objPartialMatch: 6, objPrio: {0: 15, 1: 5, 2: -5}, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
};
"""


def words(phrase: str) -> list[str]:
    """Return the words of a phrase, without an s at their end."""
    return [word.removesuffix("s") for word in re.findall(r"\w+", phrase.lower())]


def prepare(app: Sphinx) -> None:
    """Read the phrases, and write the scorer, which Sphinx puts into its search."""
    app.course_phrases = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    app.course_descriptions = {}
    phrases = {page: [words(phrase) for phrase in found] for page, found in app.course_phrases.items()}
    path = Path(app.doctreedir) / "scorer.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SCORER % json.dumps(phrases), encoding="utf-8")
    app.config.html_search_scorer = str(path)


def add_keywords(app: Sphinx, doctree: nodes.document) -> None:
    """Give a page the words of its phrases: as keywords, which readers do not see."""
    phrases = app.course_phrases.get(app.env.docname, ())
    if found := sorted({word for phrase in phrases for word in re.findall(r"\w+", phrase.lower())}):
        doctree.insert(0, nodes.meta("", name="keywords", content=", ".join(found)))


def check(app: Sphinx, env: Any) -> None:
    """Warn of phrases for a page that is not there."""
    for page in sorted(set(app.course_phrases) - set(env.found_docs)):
        logger.warning(f"search.toml has phrases for {page!r}, which is no page", type="course")


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write the descriptions beside the website's scripts."""
    if exception is None and app.builder.format == "html":
        content = f"window.coursePages = {json.dumps(app.course_descriptions, ensure_ascii=False)};\n"
        (Path(app.outdir) / "_static" / "descriptions.js").write_text(content, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register what is done before, while and after pages are read."""
    app.connect("builder-inited", prepare)
    app.connect("doctree-read", add_keywords)
    app.connect("env-updated", check)
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
