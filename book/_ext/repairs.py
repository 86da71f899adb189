"""Sphinx extension of this book: repairs of the pages that themes and extensions write.

Scripts that two extensions both add to a page run once, formulas' alone with formulas, and the bibliography's
lists carry no roles that browsers do not know. Exercises count anew on each page. The navigation's groups are
closed but for the page's own. Icons come from the theme's fonts (0.3 MB), not from its script (1.5 MB). A
chapter that needs more memory than Binder has does not offer it. What can only be repaired in the browser is
in ``book/_static/course.js``.
"""

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from tools.numbers import stored

# `doc-biblioentry` was withdrawn from ARIA, and a list may not hold anything but list items.
CITATION_ROLES = re.compile(r' role="(?:list|doc-biblioentry)"')

ICON_SCRIPT = re.compile(r'\s*<script defer src="[^"]*fontawesome\.js[^"]*"></script>')
ICON = re.compile(r'<(i|span) (?=class="(?:theme-switch )?fa[srb]?[ -])')
BINDER_MB = 1700  # of the 2,048 that it gives; JupyterLab needs some of the rest


def repair(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Mend a page's scripts and roles just before it is written."""
    seen: set[str] = set()
    kept = []
    for script in context["script_files"]:
        body = getattr(script, "attributes", {}).get("body")
        if "mathjax" in str(script) and ' class="math ' not in context.get("body", ""):
            continue  # Sphinx gives it to the parents of pages with formulas, too
        if not body or body not in seen:  # a constant that is declared twice is an error in the browser
            kept.append(script)
            seen.add(body or "")
    context["script_files"] = kept
    if "citation-list" in context.get("body", ""):
        context["body"] = CITATION_ROLES.sub("", context["body"])
    # A quiz asks for MathJax's version half a second after it is drawn, when MathJax may not be there yet.
    context["body"] = context.get("body", "").replace("(version[0] ==", "(version?.[0] ==")
    if not fits_binder(Path(page).name):
        for group in context.get("header_buttons", ()):
            if "buttons" in group:
                group["buttons"] = [b for b in group["buttons"] if not runs_on_binder(b)]


def fits_binder(chapter: str) -> bool:
    """Return whether a chapter's measured memory, in `smoke` where that is known, is what Binder gives."""
    runs = stored.read_runs().get(chapter, {})
    run = runs.get("smoke") or runs.get("laptop")
    return run is not None and run["peak_mb"] <= BINDER_MB


def runs_on_binder(button: dict[str, Any]) -> bool:
    """Return whether a button leads to Binder, itself or as live code in the page."""
    return button.get("text") == "Binder" or button.get("label") == "launch-thebe"


def fold_navigation(app: Sphinx, config: Any) -> None:
    """Close the groups of the navigation: an option that the configuration's file has no name for."""
    config.html_theme_options["show_navbar_depth"] = 0


def lighten(app: Sphinx, exception: Exception | None) -> None:
    """Take the theme's script of icons out of all pages. Its fonts draw them, which say nothing aloud."""
    if exception is not None or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        page.write_text(ICON.sub(r'<\1 aria-hidden="true" ', ICON_SCRIPT.sub("", text)), encoding="utf-8")
    for path in Path(app.outdir, "_static", "scripts").glob("fontawesome.js*"):
        path.unlink()


def count_exercises(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Number the exercises of each page from 1; Sphinx numbers them through the book."""
    for numbers in env.toc_fignumbers.values():
        for number, label in enumerate(numbers.get("exercise", {}), 1):
            numbers["exercise"][label] = (number,)
    return []


def setup(app: Sphinx) -> dict[str, Any]:
    """Come after all others that touch the page."""
    app.connect("config-inited", fold_navigation)
    app.connect("html-page-context", repair, priority=900)
    app.connect("env-get-updated", count_exercises, priority=900)
    app.connect("build-finished", lighten)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
