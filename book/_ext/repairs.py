"""Sphinx extension of this book: repairs of the pages that themes and extensions write.

Scripts that two extensions both add to a page run once, and the bibliography's lists carry no roles that
browsers do not know. Exercises count anew on each page. What can only be repaired in the browser is in
``book/_static/course.js``.
"""

import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

# `doc-biblioentry` was withdrawn from ARIA, and a list may not hold anything but list items.
CITATION_ROLES = re.compile(r' role="(?:list|doc-biblioentry)"')


def repair(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Mend a page's scripts and roles just before it is written."""
    seen: set[str] = set()
    kept = []
    for script in context["script_files"]:
        body = getattr(script, "attributes", {}).get("body")
        if not body or body not in seen:  # a constant that is declared twice is an error in the browser
            kept.append(script)
            seen.add(body or "")
    context["script_files"] = kept
    if "citation-list" in context.get("body", ""):
        context["body"] = CITATION_ROLES.sub("", context["body"])


def count_exercises(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Number the exercises of each page from 1; Sphinx numbers them through the book."""
    for numbers in env.toc_fignumbers.values():
        for number, label in enumerate(numbers.get("exercise", {}), 1):
            numbers["exercise"][label] = (number,)
    return []


def setup(app: Sphinx) -> dict[str, Any]:
    """Come after all others that touch the page."""
    app.connect("html-page-context", repair, priority=900)
    app.connect("env-get-updated", count_exercises, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
