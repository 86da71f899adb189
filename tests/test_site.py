"""The website in a browser: what readers see, hear, click, search and print, without a network.

Chromium opens every page from disk, once. What it saw is kept, and each test judges one side of it.
"""

import functools
import http.server
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright
from pypdf import PdfReader

from tools import links, print_pdf
from tools.numbers.provenance import ROOT

pytestmark = pytest.mark.slow

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
MAX_CHAPTER_BYTES, MAX_SITE_BYTES = 1_500_000, 60_000_000
MAX_FIRST_PAGE_SECONDS = 1.0
MAX_WIDE_CODE = 0.05  # of the blocks of code that scroll sideways on a desk
MAX_STOPS = 35  # of the Tab key, to the text
SHARED = ("_static", "searchindex.js")
GENERATED = ["genindex", "prf-prf", "py-modindex", "search"]
# One page of each kind is also looked at with dark colours and over http.
KINDS = ["book/index", "book/formulation", "notebooks/01_first_result", "book/api", "search"]
CHAPTER = "notebooks/01_first_result"
LIVE = "notebooks/06_freezing"  # its code can run on Binder: chapter 1 needs too much memory
# What people type, and a page that answers it.
QUERIES = {
    "linear probe": "notebooks/04_feature_based",
    "BatchNorm": "book/faq",
    "grayscale": "book/faq",
    "mixed precision": "book/fine_tuning_fails",
    "how many images": "book/faq",
    "learning rate": "notebooks/07_learning_rates",
    "warm-up": "notebooks/07_learning_rates",
    "freeze layers": "notebooks/06_freezing",
    "which layers to unfreeze": "notebooks/06_freezing",
    "overfitting": "book/fine_tuning_fails",
    "loss nan": "book/fine_tuning_fails",
    "my model is not learning": "book/fine_tuning_fails",
    "imbalanced classes": "book/faq",
    "confusion matrix": "notebooks/12_errors_calibration",
    "wrong labels": "notebooks/12_errors_calibration",
    "confidence interval": "notebooks/11_evaluating",
    "cross-validation": "notebooks/11_evaluating",
    "out of memory": "book/how_to_use",
    "install on windows": "book/how_to_use",
    "colab": "book/how_to_use",
    "onnx": "book/speed",
    "resnet": "book/model_zoo",
    "vgg16": "notebooks/09_vgg16",
    "preprocess_input": "notebooks/04b_listings",
    "hyperparameter search": "notebooks/10_tuning",
    "domain adaptation": "book/related_learning",
    "lora": "notebooks/16_sentences",
    "text classification": "notebooks/16_sentences",
    "negative transfer": "notebooks/13_choosing_the_source",
    "homework": "book/instructors",
    "distillation": "notebooks/18_compression",
    "pruning": "notebooks/18_compression",
    "grad-cam": "notebooks/22_seeing",
    "spurious correlation": "notebooks/22_seeing",
    "adversarial attack": "notebooks/23_robustness",
    "data parallel": "notebooks/24_beyond_one_machine",
    "large dataset": "notebooks/24_beyond_one_machine",
    "train on my own images": "notebooks/14_your_own_images",
    "save model": "notebooks/14_your_own_images",
}
# For axe, which would take minutes, alike things are there once: an API section has three entries, a colour
# of code stands in one place a page, and formulas are empty, since MathJax answers for its own output.
THIN_OUT = """() => {
  const seen = new Set();
  document.querySelectorAll('mjx-container').forEach((formula) => formula.replaceChildren());
  document.querySelectorAll('dl.py ~ dl.py ~ dl.py ~ dl.py').forEach((entry) => entry.remove());
  document.querySelectorAll('div.highlight pre span, span.pre').forEach((token) => {
    if (seen.has(token.className)) token.replaceWith(...token.childNodes);
    seen.add(token.className);
  });
}"""
# `preload` fetches style sheets, which a page from disk may not.
AXE = "axe.run(document, {resultTypes: ['violations'], preload: false})"
# A dark page fades in from light colours: axe judges what stays, not a moment on the way.
TRANSITIONS = """() => Promise.allSettled(
  document.getAnimations().filter((a) => a instanceof CSSTransition).map((a) => a.finished)
).then(() => null)"""
FACTS = """() => ({
  formulas: [...document.querySelectorAll('.math')].filter((m) => m.textContent.trim()).length,
  unset: [...document.querySelectorAll('.math')]
    .filter((m) => m.textContent.trim() && !m.querySelector('mjx-container'))
    .map((m) => m.textContent.trim().slice(0, 60)),
  broken: [...document.querySelectorAll('mjx-merror, [data-mjx-error]')].map((m) => m.textContent),
  images: document.images.length,
  missing: [...document.images].filter((i) => !(i.complete && i.naturalWidth > 0)).map((i) => i.src),
  previous: document.querySelector('.prev-next-footer a.left-prev')?.href,
  next: document.querySelector('.prev-next-footer a.right-next')?.href,
})"""
# On a telephone: what can be read only with a magnifying glass, in diagrams, explorers and figures.
SMALL = """() => {
  const all = (selector) => [...document.querySelectorAll(`article ${selector}`)];
  const letters = [
    ...all('svg text:not(:empty)').map((t) => [t, parseFloat(getComputedStyle(t).fontSize)]),
    ...all('.plot g[transform*="scale("]').map((g) => [g, 100])];
  return letters.filter(([t]) => t.checkVisibility() && t.getScreenCTM()).map(([t, size]) => {
    const m = t.getScreenCTM();
    return [Math.hypot(m.a, m.b) * size, t.closest('.plot')?.ariaLabel.slice(0, 60) ?? t.textContent];
  });
}"""
# On a desk: whether blocks of code scroll sideways, those that are folded included.
CODE = """() => {
  const closed = [...document.querySelectorAll('article details:not([open])')];
  closed.forEach((details) => { details.open = true; });
  const wide = [...document.querySelectorAll('article div.highlight pre')]
    .filter((pre) => pre.checkVisibility() && !pre.closest('.cell_output'))
    .map((pre) => pre.scrollWidth > pre.clientWidth + 1);
  closed.forEach((details) => { details.open = false; });
  return wide;
}"""
# The control that has the keyboard: whether that is seen, and whether it stands in the text.
FOCUSED = """() => {
  const at = document.activeElement;
  if (!at || at === document.body) return null;
  const ring = at.matches('.MCButton input') ? at.closest('.MCButton') : at;
  const { outlineStyle, outlineWidth, outlineColor } = getComputedStyle(ring);
  const what = at.outerHTML.slice(0, 120);
  const seen = outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2;
  const coloured = !/, 0\\)|transparent/.test(outlineColor);
  return { seen: seen && coloured, inside: Boolean(at.closest('article')), what };
}"""
WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"


@dataclass
class Visit:
    """What happened on one page."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    letters: list[tuple[float, str]] = field(default_factory=list)
    wide_code: list[bool] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def launch(playwright: Any) -> Browser:
    """Start the installed Chromium; Playwright's own browsers are never downloaded."""
    executable = print_pdf.find_browser()
    if not executable:
        pytest.skip(f"no browser here: install chromium (looked for {', '.join(print_pdf.BROWSERS)})")
    return playwright.chromium.launch(executable_path=executable, args=print_pdf.as_root())


def context(browser: Browser, theme: str = "light", **options: Any) -> BrowserContext:
    """Return a fresh reader, who chose a theme once."""
    new = browser.new_context(viewport=WIDE, color_scheme=theme, **options)
    new.set_default_timeout(30_000)
    return new


def shown(line: ConsoleMessage) -> str:
    """Return what stands in the console, and where it comes from."""
    return f"{line.text} ({line.location['url']})"


def watch(page: Page, visit: Visit) -> None:
    """Note errors and requests of a page."""
    page.on("pageerror", lambda error: visit.errors.append(f"{error} {error.stack or ''}"))
    page.on("console", lambda line: visit.errors.append(shown(line)) if line.type == "error" else None)
    page.on("request", lambda request: visit.requests.append(request.url))
    page.on("requestfailed", lambda request: visit.failed.append(request.url))


def settle(page: Page) -> None:
    """Wait until the formulas are set. On a busy machine MathJax itself may still be loading."""
    page.wait_for_function(
        "!document.querySelector('script[src*=mathjax]') || window.MathJax?.startup?.promise"
    )
    page.evaluate("window.MathJax?.startup?.promise.then(() => null)")


def violations(page: Page) -> list[str]:
    """Return what axe calls serious or critical. The page is not whole afterwards."""
    page.evaluate(THIN_OUT)
    page.evaluate(TRANSITIONS)
    page.evaluate(AXE_SCRIPT)
    return [
        f"{v['id']} ({v['impact']}): {node['html'][:200]}"
        for v in page.evaluate(AXE)["violations"]
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"][:3]
    ]


def visit_pages(site: Path, names: list[str]) -> dict[str, Visit]:
    """Open pages one after the other in a browser of their own: on a phone, which then grows."""
    visits = {}
    with sync_playwright() as playwright:
        browser = launch(playwright)
        reader = context(browser)
        for name in names:
            visits[name] = visit = Visit()
            page = reader.new_page()
            watch(page, visit)
            page.set_viewport_size(NARROW)
            page.goto((site / f"{name}.html").as_uri())
            settle(page)
            visit.widths = page.evaluate(WIDTHS)
            visit.letters = page.evaluate(SMALL)
            page.set_viewport_size(WIDE)
            visit.facts = page.evaluate(FACTS)
            visit.wide_code = page.evaluate(CODE)
            visit.violations = violations(page)
            page.close()
        browser.close()
    return visits


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for what is clicked."""
    with sync_playwright() as playwright:
        started = launch(playwright)
        yield started
        started.close()


@pytest.fixture(scope="module")
def names(site: Path) -> list[str]:
    """All pages: those of the table of contents, and those that Sphinx generates. The entrance leads on."""
    found = {p.relative_to(site).with_suffix("").as_posix() for p in links.site_pages(site)}
    expected = [*print_pdf.toc_files(), *GENERATED]
    assert found == {*expected, "index"}
    return expected


@pytest.fixture(scope="module")
def visits(site: Path, names: list[str]) -> dict[str, Visit]:
    """Every page, opened once, by two browsers at a time."""
    if not print_pdf.find_browser():
        pytest.skip(f"no browser here: install chromium (looked for {', '.join(print_pdf.BROWSERS)})")
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        halves = pool.map(functools.partial(visit_pages, site), (names[::2], names[1::2]))
        done = {name: visit for half in halves for name, visit in half.items()}
    print(f"{len(done)} pages in {time.perf_counter() - start:.0f} s")
    return done


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The site over http on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Keep silent."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def by_page(found: dict[str, list[str]]) -> str:
    """Return what was found, a line each, or an empty text."""
    return "\n".join(f"{name}: {line}" for name, lines in found.items() for line in dict.fromkeys(lines))


def test_every_page_is_visited(visits: dict[str, Visit], names: list[str]) -> None:
    """No page is left out, so none of the tests below holds for want of pages."""
    assert len(names) == len(print_pdf.toc_files()) + len(GENERATED) > 20
    assert sorted(visits) == sorted(names)
    assert all(visit.requests for visit in visits.values())


def test_no_errors(visits: dict[str, Visit]) -> None:
    """The browser's console stays free of errors."""
    assert not by_page({name: visit.errors for name, visit in visits.items()})


def test_no_network(site: Path, visits: dict[str, Visit]) -> None:
    """Scripts, styles, fonts and data lie in the site itself and are there; live code loads when clicked."""
    own = (site.as_uri() + "/", "data:", "blob:")
    foreign = {name: [r for r in v.requests if not r.startswith(own)] for name, v in visits.items()}
    assert not by_page(foreign)
    assert not by_page({name: visit.failed for name, visit in visits.items()})


def test_accessible(visits: dict[str, Visit]) -> None:
    """axe finds nothing serious or critical with light colours."""
    assert not by_page({name: visit.violations for name, visit in visits.items()})


@pytest.mark.parametrize("name", KINDS)
def test_accessible_in_the_dark(name: str, site: Path, browser: Browser) -> None:
    """axe finds nothing serious or critical with dark colours either."""
    reader = context(browser, "dark")
    page = reader.new_page()
    page.goto((site / f"{name}.html").as_uri())
    settle(page)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    found = violations(page)
    reader.close()
    assert not found, "\n".join(found)


def test_no_page_scrolls_sideways(visits: dict[str, Visit]) -> None:
    """On a phone, only wide tables, formulas and code scroll, each in its own box."""
    wide = {n: [f"{v.widths[0]} pixels"] for n, v in visits.items() if v.widths[0] > v.widths[1]}
    assert all(visit.widths[1] == NARROW["width"] for visit in visits.values())
    assert not by_page(wide)


def test_letters_in_pictures_are_large_enough(visits: dict[str, Visit]) -> None:
    """On a phone, no letter of a diagram, an explorer or a figure is lower than 11 pixels."""
    assert sum(len(visit.letters) for visit in visits.values()) > 500
    small = {
        name: [f"{size:.1f} pixels: {words}" for size, words in visit.letters if size < 10.99]
        for name, visit in visits.items()
    }
    assert not by_page(small)


def test_code_fits_its_column(visits: dict[str, Visit]) -> None:
    """On a desk, at most one block of code in twenty scrolls sideways."""
    judged = {name: visit.wide_code for name, visit in visits.items()}
    wide = {name: sum(found) for name, found in judged.items() if any(found)}
    n = sum(map(len, judged.values()))
    print(f"{sum(wide.values())} of {n} blocks of code are too wide: {wide}")
    assert n > 200
    assert sum(wide.values()) <= MAX_WIDE_CODE * n, wide


def test_pages_load_what_they_need(visits: dict[str, Visit]) -> None:
    """The script that sets formulas comes with formulas alone, and no page loads a script to draw icons."""
    with_formulas = {name for name, visit in visits.items() if visit.facts["formulas"]}
    assert 5 < len(with_formulas) < len(visits) - 5
    loading = {name for name, v in visits.items() if any("tex-mml-chtml" in r for r in v.requests)}
    assert loading == with_formulas
    assert not by_page({n: [r for r in v.requests if "fontawesome.js" in r] for n, v in visits.items()})


def test_formulas_are_set(visits: dict[str, Visit]) -> None:
    """MathJax set every formula, without an error."""
    assert sum(visit.facts["formulas"] for visit in visits.values()) > 100
    assert not by_page({name: visit.facts["unset"] + visit.facts["broken"] for name, visit in visits.items()})


def test_images_are_shown(visits: dict[str, Visit]) -> None:
    """Every image is there and can be decoded."""
    assert sum(visit.facts["images"] for visit in visits.values()) > 5
    assert not by_page({name: visit.facts["missing"] for name, visit in visits.items()})


def test_pages_lead_to_their_neighbours(site: Path, visits: dict[str, Visit], browser: Browser) -> None:
    """Next and previous follow the table of contents; a click goes there."""
    order = print_pdf.toc_files()
    targets = [(site / f"{name}.html").as_uri() for name in order]
    for i, name in enumerate(order):
        facts = visits[name].facts
        assert facts.get("previous") == (targets[i - 1] if i else None), name
        assert facts.get("next") == (targets[i + 1] if i + 1 < len(order) else None), name
    reader = context(browser)
    page = reader.new_page()
    page.goto(targets[0])
    page.click(".prev-next-footer a.right-next")
    page.wait_for_url(targets[1])
    page.click(".prev-next-footer a.left-prev")
    page.wait_for_url(targets[0])
    reader.close()


def test_chapters_are_light(site: Path, visits: dict[str, Visit]) -> None:
    """A page, its images and its data stay small; what all pages share is loaded once."""
    heavy = {}
    for name in print_pdf.toc_files():
        loaded = {Path(unquote(urlsplit(r).path)) for r in visits[name].requests if r.startswith("file:")}
        own = [p for p in loaded if p.is_file() and p.relative_to(site).parts[0] not in SHARED]
        assert site / f"{name}.html" in own, name
        size = sum(p.stat().st_size for p in own)
        if size > MAX_CHAPTER_BYTES:
            heavy[name] = [f"{size} bytes"]
    assert not by_page(heavy)


def test_site_is_light(site: Path) -> None:
    """The whole site can be carried on a small stick, or mailed."""
    size = sum(p.stat().st_size for p in site.rglob("*") if p.is_file())
    assert 1_000_000 < size < MAX_SITE_BYTES, size


def test_first_page_is_quick(site: Path, browser: Browser) -> None:
    """From disk, the first page is there within a second of the processor (best of three).

    Seconds of the page's main thread are counted, not of the clock, which runs on while others work.
    """
    reader = context(browser)
    seconds, shown = [], []
    for _ in range(3):
        page = reader.new_page()
        counter = reader.new_cdp_session(page)
        counter.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.goto((site / "index.html").as_uri())
        page.wait_for_url((site / "book" / "index.html").as_uri())
        page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
        metrics = {m["name"]: m["value"] for m in counter.send("Performance.getMetrics")["metrics"]}
        seconds.append(metrics["TaskDuration"])
        shown.append(
            page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000")
        )
        page.close()
    reader.close()
    print(f"first page: {min(seconds):.2f} s of the processor, shown after {min(shown):.2f} s")
    assert 0.01 < min(seconds) < MAX_FIRST_PAGE_SECONDS, seconds


def test_copy_buttons(site: Path, browser: Browser) -> None:
    """A code cell's button copies its text, as a reader would paste it."""
    reader = context(browser)
    page = reader.new_page()
    page.goto((site / f"{CHAPTER}.html").as_uri())
    cell = page.locator("div.cell_input:visible").first
    code = cell.locator("pre").inner_text().strip()
    assert len(code) > 20
    cell.hover()
    cell.locator("button.copybtn").click()
    page.evaluate("document.querySelector('article').prepend(document.createElement('textarea'))")
    page.focus("article textarea")
    page.keyboard.press("Control+V")
    assert page.input_value("article textarea").strip() == code
    reader.close()


def test_quizzes_answer(site: Path, browser: Browser) -> None:
    """In each notebook every question answers a wrong choice, and a right one by keyboard, with words."""
    chapters = [name for name in print_pdf.toc_files() if name.startswith("notebooks/")]
    assert len(chapters) >= 4
    reader = context(browser)
    for name in chapters:
        page = reader.new_page()
        page.goto((site / f"{name}.html").as_uri())
        questions = page.locator(".Quiz").all()
        assert len(questions) >= 3, name
        for question in questions:
            feedback = question.locator(".Feedback")
            assert feedback.inner_text().strip() == ""
            question.locator(".MCButton[data-correct='false']").first.click()
            wrong = feedback.inner_text().strip()
            assert len(wrong) > 10, name
            question.locator(".MCButton[data-correct='true'] input").first.press("Space")
            assert feedback.inner_text().strip() not in ("", wrong), name
        page.close()
    reader.close()


def component_pages(site: Path, kind: str) -> list[str]:
    """Return the pages that show a component of this class."""
    shown = re.compile(rf'class="[^"]*\b{kind}\b')
    pages = links.site_pages(site)
    return [page.as_uri() for page in pages if shown.search(page.read_text(encoding="utf-8"))]


def test_explorers(site: Path, browser: Browser) -> None:
    """By keyboard and by pointing, an explorer says other numbers; the table holds them all."""
    pages = component_pages(site, "tl-explorer")
    assert len(pages) >= 3
    reader = context(browser)
    page = reader.new_page()
    page.set_viewport_size(NARROW)
    for address in pages:
        page.goto(address)
        for explorer in page.locator(".tl-explorer").all():
            value, table = explorer.locator(".tl-value"), explorer.locator("table")
            assert not table.is_visible()
            first = value.inner_text()
            explorer.locator("input").first.press("ArrowRight")
            assert value.inner_text() != first
            numbers = value.locator("strong").all_text_contents()
            explorer.locator(".tl-figure [data-at='0']").first.dispatch_event("click")
            assert value.inner_text() == first
            explorer.locator("summary").press("Enter")
            assert table.is_visible()
            assert numbers
            assert set(numbers) <= set(table.locator("tbody tr").nth(1).locator("td, th").all_text_contents())
    reader.close()


def test_results_tables(site: Path, browser: Browser) -> None:
    """A filter leaves fewer rows and says how many; a column sorts in both directions, numbers by size."""
    pages = component_pages(site, "tl-results")
    assert pages
    reader = context(browser)
    page = reader.new_page()
    for address in pages:
        page.goto(address)
        for table in page.locator(".tl-results").all():
            rows = table.locator("tbody tr")
            total = rows.count()
            assert table.locator(".tl-count").inner_text() == f"{total} of {total} rows"
            table.locator("select").first.select_option(index=1)
            left = table.locator("tbody tr:visible").count()
            assert 0 < left < total
            assert table.locator(".tl-count").inner_text() == f"{left} of {total} rows"
            head = table.locator("thead th:has(button)", has_text="accuracy").first
            column = head.evaluate("(cell) => cell.cellIndex")
            for _ in range(2):
                head.locator("button").press("Enter")
                found = rows.evaluate_all(
                    f"rows => rows.map((r) => Number(r.cells[{column}].dataset.number))"
                )
                descending = head.get_attribute("aria-sort") == "descending"
                assert found == sorted(found, reverse=descending)
            assert head.get_attribute("aria-sort") == "ascending"  # the second time the other way
    reader.close()


def test_confusion_matrices(site: Path, browser: Browser) -> None:
    """A framed number shows its pictures, each with words, and hides them again."""
    pages = component_pages(site, "tl-confusion")
    assert pages
    reader = context(browser)
    page = reader.new_page()
    for address in pages:
        page.goto(address)
        for matrix in page.locator(".tl-confusion").all():
            assert matrix.locator("img:visible").count() == 0
            buttons = matrix.locator("td button").all()
            assert len(buttons) > 3
            for button in buttons[:2]:
                button.press("Enter")
                assert button.get_attribute("aria-expanded") == "true"
                shown = matrix.locator("img:visible").all()
                assert shown
                assert all(len(picture.get_attribute("alt") or "") > 10 for picture in shown)
                last = shown[-1].bounding_box()
                assert last
                assert 0 <= last["y"] <= WIDE["height"] - last["height"], "its pictures are out of sight"
            button.press("Enter")
            assert matrix.locator("img:visible").count() == 0
    reader.close()


def test_components_without_scripts(site: Path, browser: Browser) -> None:
    """Where no script runs, every table of a component stands open, and no dead button is shown."""
    kinds = ("tl-explorer", "tl-results", "tl-confusion")
    reader = context(browser, java_script_enabled=False)
    page = reader.new_page()
    for kind in kinds:
        address = component_pages(site, kind)[0]
        page.goto(address)
        part = page.locator(f".{kind}").first
        assert part.locator("table").first.is_visible(), kind
        assert part.locator("button:visible, input:visible, select:visible").count() == 0, kind
    reader.close()


def test_solutions_fold(site: Path, browser: Browser) -> None:
    """A solution is hidden until it is asked for, and can be hidden again."""
    reader = context(browser)
    page = reader.new_page()
    page.goto((site / f"{CHAPTER}.html").as_uri())
    solutions = page.locator(".solution.dropdown").all()
    assert len(solutions) >= 2
    for solution in solutions:
        text = solution.locator("p").nth(1)
        for shown in (False, True, False):
            assert text.is_visible() == shown
            solution.locator("button.toggle-button").press("Enter")
    reader.close()


def test_theme_switch(site: Path, browser: Browser) -> None:
    """The button goes through light and dark, the background follows, and the next page remembers."""
    reader = context(browser)
    page = reader.new_page()
    page.goto((site / "book/index.html").as_uri())
    colours = {}
    for _ in range(3):
        page.locator("button.theme-switch-button:visible").first.click()
        mode = page.evaluate("document.documentElement.dataset.mode")
        colours[mode] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        if mode == "dark":
            page.goto((site / "book/faq.html").as_uri())
            assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert set(colours) == {"light", "dark", "auto"}
    assert colours["light"] == colours["auto"] != colours["dark"]
    reader.close()


def test_search_from_disk(site: Path, browser: Browser) -> None:
    """What people type leads them to a page that answers it: among the first three, with an excerpt."""
    assert len(QUERIES) >= 30
    reader = context(browser)
    page = reader.new_page()
    visit = Visit()
    watch(page, visit)
    page.goto((site / "book/index.html").as_uri())
    missed = {}
    for query, wanted in QUERIES.items():
        page.locator("button.search-button__button:visible").first.click()
        page.locator("input[name=q]:visible").first.fill(query)
        page.keyboard.press("Enter")
        page.wait_for_url("**/search.html?q=*")
        page.wait_for_function("document.querySelector('.search-summary')?.textContent.includes('found')")
        page.wait_for_selector("#search-results li p.context")
        found = page.locator("#search-results ul.search > li > a").evaluate_all(
            "links => links.slice(0, 3).map((a) => a.getAttribute('href').replace(/\\.html.*/, ''))"
        )
        if wanted not in found:
            missed[query] = found
        page.goto((site / "book/index.html").as_uri())
    reader.close()
    assert not missed
    assert not visit.errors + visit.failed


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_keyboard_is_seen(theme: str, site: Path, browser: Browser) -> None:
    """Few presses of Tab lead to the text, and every control that has the keyboard says so."""
    reader = context(browser, theme)
    page = reader.new_page()
    unseen, stops = [], {}
    for name in [*KINDS, "notebooks/12_errors_calibration"]:
        page.goto((site / f"{name}.html").as_uri())
        settle(page)
        for press in range(1, 150):
            page.keyboard.press("Tab")
            found = page.evaluate(FOCUSED)
            if found is None:
                break
            if not found["seen"]:
                unseen.append(f"{name}: {found['what']}")
            if found["inside"]:
                stops.setdefault(name, press)
    reader.close()
    print(f"presses of Tab to the text: {stops}")
    assert not unseen, "\n".join(unseen)
    assert len(stops) > len(KINDS) - 1
    assert max(stops.values()) <= MAX_STOPS, stops


def test_no_pale_boxes_in_the_dark(site: Path, browser: Browser) -> None:
    """Outputs have the ground of the page: figures, quizzes and tables; text in figures is light."""
    reader = context(browser, "dark")
    page = reader.new_page()
    pale = {}
    for name in (CHAPTER, "notebooks/12_errors_calibration"):
        page.goto((site / f"{name}.html").as_uri())
        page.evaluate(TRANSITIONS)
        pale[name] = page.evaluate(
            """() => {
            const light = (colour) => {
              const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
              return a > 0.5 && 0.2126 * r + 0.7152 * g + 0.0722 * b > 110;
            };
            const boxes = [...document.querySelectorAll('div.cell_output, div.cell_output *:not(svg *)')];
            const plots = [...document.querySelectorAll('.plot')];
            const grounds = [...document.querySelectorAll('.plot > g > g:first-child > path:first-child')];
            return [
              ...boxes.filter((box) => light(getComputedStyle(box).backgroundColor)),
              ...grounds.filter((path) => light(getComputedStyle(path).fill)),
              ...plots.filter((plot) => !light(getComputedStyle(plot).fill)),
            ].map((element) => element.outerHTML.slice(0, 200));
            }"""
        )
        assert page.locator(".plot").count() >= 3
    reader.close()
    assert not by_page(pale)


def test_over_http(address: str, browser: Browser) -> None:
    """From a web server a page of each kind is as quiet; the search has excerpts, live code is offered."""
    reader = context(browser)
    for name in [*KINDS, LIVE]:
        page = reader.new_page()
        visit = Visit()
        watch(page, visit)
        page.goto(f"{address}/{name}.html" + ("?q=BatchNorm" if name == "search" else ""))
        settle(page)
        if name == "search":
            page.wait_for_selector("#search-results p.context")
        if name == LIVE:
            assert "needs the network" in (
                page.locator(".btn-launch-thebe").first.get_attribute("title") or ""
            )
        assert not visit.errors + visit.failed, name
        assert not [r for r in visit.requests if not r.startswith((address, "data:", "blob:"))], name
        page.close()
    reader.close()


def test_no_live_code_from_disk(site: Path, browser: Browser) -> None:
    """Read from disk, a chapter does not offer what cannot work there; the links to Colab and Binder stay."""
    reader = context(browser)
    page = reader.new_page()
    page.goto((site / f"{LIVE}.html").as_uri())
    assert page.locator(".btn-launch-thebe").count() == 0
    assert page.locator("a[href^='https://colab.research.google.com']").count() > 0
    reader.close()


def test_external_links_are_listed(site: Path) -> None:
    """`book/links.txt` holds every external link, each of a valid form; a maintainer can follow them."""
    found = links.external_links(site)
    assert len(found) > 50
    assert not {link: links.fault(link) for link in found if links.fault(link)}
    assert links.LISTED.read_text(encoding="utf-8") == links.listing(site), "run: make links"


@pytest.mark.parametrize(
    ("link", "is_good"),
    [
        ("https://keras.io/api/applications/", True),
        ("https://en.wikipedia.org/wiki/Kernel_(statistics)", True),
        ("https://keras.io/a%20b", True),
        ("htps://keras.io", False),
        ("https://keras", False),
        ("https://keras.io:99999/", False),
        ("https://keras..io/", False),
        ("https://keras.io/a b", False),
        ("https://keras.io/a%2", False),
        ("https://keras.io/a.", False),
        ("https://keras.io/a)", False),
        ("javascript:alert(1)", False),
    ],
)
def test_the_check_of_links_works(link: str, is_good: bool) -> None:
    """The form of a link is judged as a browser would."""
    assert (links.fault(link) is None) == is_good


@pytest.mark.usefixtures("browser")
def test_a_chapter_prints(site: Path, tmp_path: Path) -> None:
    """A chapter's PDF is tagged and whole, solutions included; its links name no folder of this machine."""
    executable = print_pdf.find_browser()
    assert executable
    order = print_pdf.toc_files()
    pdfs = {name: tmp_path / print_pdf.pdf_name(name) for name in ("book/index", CHAPTER)}
    for name, pdf in pdfs.items():
        print_pdf.print_page(executable, site / f"{name}.html", pdf)
        print_pdf.relink(pdf, site, order)
    reader = PdfReader(pdfs[CHAPTER])
    root = reader.trailer["/Root"]
    assert root["/MarkInfo"]["/Marked"]
    assert "/StructTreeRoot" in root
    assert 8 <= len(reader.pages) <= 16
    assert all(sheet.extract_text().strip() for sheet in reader.pages), "an empty sheet"
    text = " ".join(" ".join(sheet.extract_text() for sheet in reader.pages).split())
    solution = "The half-width is 4.303 times 0.02"  # folded on the screen
    assert solution in text
    assert "def warm_up_then_fall(" in text
    assert "Launch" not in text
    assert "Skip to main content" not in text
    print_pdf.join(pdfs, tmp_path / print_pdf.JOINED)
    joined = PdfReader(tmp_path / print_pdf.JOINED)
    assert len(joined.pages) == len(PdfReader(pdfs["book/index"]).pages) + len(reader.pages)
    assert len(joined.outline) >= 2
    for pdf in (*pdfs.values(), tmp_path / print_pdf.JOINED):
        uris = [
            str(a.get_object().get("/A", {}).get("/URI", ""))
            for sheet in PdfReader(pdf).pages
            for a in sheet.get("/Annots", [])
        ]
        assert any(uris), pdf.name
        assert not [uri for uri in uris if uri.startswith("file:")], pdf.name


def test_print_is_light(site: Path, browser: Browser) -> None:
    """Paper is white for a reader of dark pages, and solutions are open; then the screen is as before."""
    reader = context(browser, "dark")
    page = reader.new_page()
    page.goto((site / f"{CHAPTER}.html").as_uri())
    settle(page)
    theme = "document.documentElement.dataset.theme"
    hidden = "document.querySelectorAll('.solution.toggle-hidden').length"
    before = page.evaluate(f"[{theme}, {hidden}]")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(f"[{theme}, {hidden}]") == ["light", 0]
    page.emulate_media(media="print")
    for selector in ("#pst-primary-sidebar", ".bd-header-article", ".bd-sidebar-secondary", ".copybtn"):
        assert not page.locator(selector).first.is_visible(), selector
    page.emulate_media(media="screen")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(f"[{theme}, {hidden}]") == before
    assert before[0] == "dark"
    assert before[1] > 0
    reader.close()


def test_printing_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a browser, or without a website, the printer says what to do."""
    monkeypatch.setattr("sys.argv", ["print_pdf.py", "--site", str(tmp_path), "--out", str(tmp_path / "pdf")])
    monkeypatch.setattr(print_pdf, "find_browser", lambda: None)
    with pytest.raises(SystemExit, match="apt-get install chromium"):
        print_pdf.main()
    monkeypatch.setattr(print_pdf, "find_browser", lambda: "/usr/bin/true")
    with pytest.raises(SystemExit, match="make book"):
        print_pdf.main()


def test_ci_installs_a_browser() -> None:
    """CI has a browser, so that there none of these tests is skipped."""
    assert "chromium" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
