"""Sphinx extension of this book: each page says what it is, for search engines, previews and catalogues.

A page's description is the ``description`` of its front matter (``html_meta``), else its first sentences. It
goes into the meta tag, into Open Graph, and into JSON-LD: the welcome page is a Course, all others are
LearningResources.

Where the repository's address is known, so is the website's: it goes into canonical addresses, into that of
the picture that others show beside a link, into ``sitemap.xml`` and into the page for addresses that are not
there, ``404.html``.
"""

import json
import re
from html import escape, unescape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

import diagrams
from tools import repo_url

SHORT, LONG = 50, 200  # characters of a description
PREVIEW = "_static/result.png"  # made by tools/readme.py
LICENCE = "https://creativecommons.org/licenses/by/4.0/"
GENERATED = {"genindex": "Index", "search": "Search"}  # pages without a title of their own
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
# A server shows it in place of a missing page at any depth: its addresses are whole, and its style is inside.
NOT_FOUND = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="robots" content="noindex"><title>Not here: {title}</title>
<style>:root {{ color-scheme: light dark }}
body {{ font: 1.1rem/1.6 system-ui; margin: 4rem auto; max-width: 36rem; padding: 0 1rem }}</style></head>
<body><main><h1>This page is not here</h1>
<p>Pages get new names now and then. Start at <a href="{home}">{title}</a>, or <a href="{search}">search the
course</a>.</p></main></body></html>
"""
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
    if base := app.config.html_baseurl:
        properties |= {"image": base + PREVIEW, "image:alt": diagrams.result_words()}
        tags.append('<meta name="twitter:card" content="summary_large_image"/>')
    tags += [f'<meta property="og:{key}" content="{escape(value)}"/>' for key, value in properties.items()]
    if doctree is not None:
        # "</" would end the script.
        data = json.dumps(structured(app, page, title, about, doctree), ensure_ascii=False).replace(
            "</", "<\\/"
        )
        tags.append(f'<script type="application/ld+json">{data}</script>')
    context["metatags"] = context.get("metatags", "") + "\n" + "\n".join(tags)


def address(app: Sphinx, config: Any) -> None:
    """Set the website's address, unless the repository has none yet or ``_config.yml`` sets another."""
    url = repo_url.stored_url(Path(app.confdir))
    if not config.html_baseurl and url.split("/")[-2] != "OWNER":
        config.html_baseurl = repo_url.derived(url)["pages"] + "/"


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write what concerns the website as a whole."""
    base = app.config.html_baseurl
    if exception is not None or app.builder.format != "html" or not base:
        return
    pages = [app.builder.get_target_uri(page) for page in sorted(app.env.found_docs)]
    lines = "".join(f"<url><loc>{escape(base + page)}</loc></url>\n" for page in pages)
    space = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'
    sitemap = f'<?xml version="1.0" encoding="UTF-8"?>\n<urlset {space}>\n{lines}</urlset>\n'
    (Path(app.outdir) / "sitemap.xml").write_text(sitemap, encoding="utf-8")
    home = escape(base + app.builder.get_target_uri(app.config.root_doc))
    text = NOT_FOUND.format(
        title=escape(app.config.html_title), home=home, search=escape(f"{base}search.html")
    )
    (Path(app.outdir) / "404.html").write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register what is done when the address is known, when a page is written, and at the end."""
    app.connect("config-inited", address)
    app.connect("html-page-context", add)
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
