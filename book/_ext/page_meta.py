"""Sphinx extension of this book: each page says what it is, for search engines, previews and catalogues.

A page's description is the ``description`` of its front matter (``html_meta``), else its first sentences. It
goes into the meta tag, into Open Graph, and into JSON-LD: the welcome page is a Course, all others are
LearningResources.
"""

import json
import re
from html import escape, unescape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

SHORT, LONG = 50, 200  # characters of a description
LICENCE = "https://creativecommons.org/licenses/by/4.0/"
GENERATED = {"genindex": "Index", "search": "Search"}  # pages without a title of their own
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
WRITTEN = re.compile(r'<meta content="([^"]*)" (?:lang="[^"]*" )?name="description"')


def shortened(sentences: list[str]) -> str:
    """Return as many sentences as fit; a first one that is too long is cut at a word."""
    text = ""
    for sentence in sentences:
        if text and len(text) + 1 + len(sentence) > LONG:
            break
        text = f"{text} {sentence}".strip()
    return text if len(text) <= LONG else text[: LONG - 1].rsplit(" ", 1)[0].rstrip(",;:") + "…"


def description(doctree: nodes.document | None, title: str, course: str) -> str:
    """Return the first sentences of a page; of a generated one, such as the index, two names."""
    sentences: list[str] = []
    for paragraph in doctree.findall(nodes.paragraph) if doctree else ():
        if isinstance(paragraph.parent, nodes.section) and len(" ".join(sentences)) < SHORT:
            sentences += SENTENCE_END.split(" ".join(paragraph.astext().split()))
    return shortened(sentences) or f"{title}: a page made for finding things in the course “{course}”."


def outcomes(doctree: nodes.document | None) -> list[str]:
    """Return what a page teaches: the items of its list of outcomes, without their ids."""
    found = []
    for item in doctree.findall(nodes.list_item) if doctree else ():
        first = next(iter(item.findall(nodes.inline)), None)
        if first is not None and "outcome" in first["classes"] and item.astext().startswith(first.astext()):
            words = " ".join(item.astext().removeprefix(first.astext()).split())
            found.append(words.rstrip(";."))
    return found


def structured(
    app: Sphinx, page: str, title: str, about: str, doctree: nodes.document | None
) -> dict[str, Any]:
    """Return a page's data in the words of schema.org."""
    data: dict[str, Any] = {"@context": "https://schema.org", "name": title, "description": about}
    data |= {"inLanguage": "en", "isAccessibleForFree": True, "license": LICENCE}
    if app.config.html_baseurl:
        data["url"] = f"{app.config.html_baseurl.rstrip('/')}/{app.builder.get_target_uri(page)}"
    course = app.config.html_title
    if page == app.config.root_doc:
        pages = [p for p in app.env.toctree_includes.get(page, []) if p in app.env.titles]
        parts = [{"@type": "LearningResource", "name": app.env.titles[p].astext()} for p in pages]
        provider = {"@type": "Organization", "name": app.config.author}
        return data | {"@type": "Course", "name": course, "provider": provider, "hasPart": parts}
    kind = "notebook" if page.startswith("notebooks/") else "chapter"
    data |= {"@type": "LearningResource", "learningResourceType": kind}
    if teaches := outcomes(doctree):
        data["teaches"] = teaches
    return data | {"isPartOf": {"@type": "Course", "name": course}}


def add(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Add the tags to the head of a page."""
    title = context.get("title") or context.get("indextitle") or GENERATED.get(page, page)
    title = unescape(re.sub("<[^>]+>", "", title))
    course = app.config.html_title
    written = WRITTEN.search(context.get("metatags", ""))
    about = unescape(written[1]) if written else description(doctree, title, course)
    app.course_descriptions[page] = about  # for the search
    tags = [] if written else [f'<meta name="description" content="{escape(about)}"/>']
    kind = "website" if page == app.config.root_doc else "article"
    properties = {"type": kind, "site_name": course, "title": title, "description": about}
    tags += [f'<meta property="og:{key}" content="{escape(value)}"/>' for key, value in properties.items()]
    if doctree is not None:
        # "</" would end the script.
        data = json.dumps(structured(app, page, title, about, doctree), ensure_ascii=False).replace(
            "</", "<\\/"
        )
        tags.append(f'<script type="application/ld+json">{data}</script>')
    context["metatags"] = context.get("metatags", "") + "\n" + "\n".join(tags)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register what is done when a page is written."""
    app.connect("html-page-context", add)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
