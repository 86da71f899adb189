"""List the external links of the built website in ``book/links.txt``, so that a maintainer can check them.

    python -m tools.links            # after `make book`; `make links` does both

One link a line, with the pages it stands on (``*``: all of them). Links into the course's own repository are
left out: they follow from the address in ``_config.yml``. Nothing is fetched.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

from tools import repo_url

ROOT = Path(__file__).resolve().parent.parent
LISTED = ROOT / "book" / "links.txt"
HEADER = "# External links and the pages they stand on. Made by `make links`; do not edit.\n"
HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}")


class Anchors(HTMLParser):
    """Collects where a page's links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the target of an ``a``."""
        target = dict(attrs).get("href") if tag == "a" else None
        if target and not target.startswith("#"):
            self.targets.add(target)


def fault(link: str) -> str | None:
    """Return what is wrong with the form of an external link, or ``None``.

    Args:
        link: an address with a scheme, such as ``https://keras.io``.
    """
    try:
        parts = urlsplit(link)
        port = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme not in ("http", "https"):
        return f"the scheme is {parts.scheme!r}"
    if not HOST.fullmatch((parts.hostname or "").lower()):
        return f"{parts.hostname!r} is not a host"
    if port or parts.username:
        return "it names a port or a user"
    if re.search(r"[^!-~]|[<>\"{}|\\^`]", link):
        return "it holds a character that must be escaped"
    if re.search(r"%(?![0-9A-Fa-f]{2})", link):
        return "a % is not followed by two hexadecimal digits"
    if link[-1] in ".,;:!'" or link.count("(") != link.count(")"):
        return "a sentence's punctuation is part of it"
    return None


def site_pages(site: Path) -> list[Path]:
    """Return the site's pages, without the templates that lie among its scripts."""
    return [p for p in sorted(site.rglob("*.html")) if p.relative_to(site).parts[0] != "_static"]


def external_links(site: Path) -> dict[str, list[str]]:
    """Return each external link of a built site and the pages it stands on, both sorted."""
    own = repo_url.stored_url().removeprefix("https://github.com")  # also in Colab's and Binder's addresses
    found: dict[str, list[str]] = {}
    for page in site_pages(site):
        parser = Anchors()
        parser.feed(page.read_text(encoding="utf-8"))
        for target in parser.targets:
            if re.match(r"[a-z][a-z0-9+.-]*:|//", target, re.I) and own not in target:
                found.setdefault(target, []).append(page.relative_to(site).with_suffix("").as_posix())
    return {link: sorted(found[link]) for link in sorted(found)}


def listing(site: Path) -> str:
    """Return what ``book/links.txt`` should hold."""
    links = external_links(site)
    # The entrance only leads on to the first page: it is the one page without a footer.
    n_pages = len(site_pages(site)) - 1
    lines = [f"{link} {' '.join(pages) if len(pages) < n_pages else '*'}" for link, pages in links.items()]
    return HEADER + "\n".join(lines) + "\n"


def main() -> None:
    """Write the list."""
    site = ROOT / "_build" / "html"
    if not (site / "index.html").is_file():
        sys.exit("There is no website yet. Build it first: make book")
    text = listing(site)
    LISTED.write_text(text, encoding="utf-8")
    print(f"{LISTED.relative_to(ROOT)}: {len(text.splitlines()) - 1} links")


if __name__ == "__main__":
    main()
