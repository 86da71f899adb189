"""What the page "Teach a network" reaches with its sample pictures: the page itself, in Chromium.

    python benchmarks/teach.py    # after `make book`; COURSE_DRAFT=1 make book where nothing is recorded yet

Each cell is how many of the sample pictures are named rightly, by a head that had not seen them. The numbers
do not depend on the machine.
"""

import json
import sys
from pathlib import Path
from typing import Any

from _common import RESULTS, table, write

sys.path.insert(0, str(RESULTS.parents[1]))

from playwright.sync_api import Page, sync_playwright

from tools import print_pdf, teach

PAGE = RESULTS.parents[1] / "_build" / "html" / "book" / "teach.html"
VIEWS = {"features": "features", "pixels": "raw pixels", "random": "random network"}
SIZES = (2, 3, 5, 10)  # pictures a class
DATA = "document.getElementById('teach-here').dataset"


def trained(page: Page, view: str, size: int) -> int:
    """Sets what the head sees and on how many pictures a class it trains; returns how many are right."""
    page.evaluate(f"delete {DATA}.trained")
    page.check(f"input[name=teach-view][value={view}]")
    page.locator(".teach .slider input").fill(str(size))
    page.wait_for_function(f"{DATA}.trained === '{view} {3 * size}'")
    return int(page.inner_text(".teach .score strong").split()[0])


def asked(page: Page, number: int) -> list[dict[str, Any]]:
    """Asks for the new sample pictures; returns what each is, and the shares that the head gave."""
    page.evaluate(f"delete {DATA}.trained")
    page.check("input[name=teach-view][value=features]")
    page.wait_for_function(f"{DATA}.trained")
    found: list[dict[str, Any]] = []
    while len(found) < number:
        with page.expect_download() as download:
            page.click("#teach-download")
        taught = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
        last = taught["answers"][-1]
        shares = dict(zip(taught["classes"], last["probabilities"], strict=True))
        found.append({"picture": last["picture"], "probabilities": shares})
        page.evaluate(f"delete {DATA}.trained")
        page.click("text=Another new sample picture")
        page.wait_for_function(f"{DATA}.trained")
    return found


def mistakes(page: Page, kinds: dict[str, list[Path]]) -> list[dict[str, str]]:
    """Returns the pictures that are named wrongly."""
    kind_of = {path.stem.replace("-", " "): kind for kind, paths in kinds.items() for path in paths}
    texts = page.locator(".teach .boxes li.wrong img").evaluate_all("images => images.map((i) => i.alt)")
    pairs = [text.split(", taken for ") for text in texts]
    return [{"picture": name, "kind": kind_of[name], "taken_for": taken} for name, taken in pairs]


def main() -> None:
    """Measures, prints and writes."""
    browser_path = print_pdf.find_browser()
    if not browser_path or not PAGE.is_file():
        sys.exit("This needs Chromium and the built website: make book")
    samples = teach.samples()
    kinds_of_new = {p.stem.replace("-", " "): kind for kind, paths in samples["new"].items() for p in paths}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=print_pdf.as_root())
        page = browser.new_page()
        page.goto(PAGE.as_uri())
        page.click("#teach-sample")
        page.wait_for_function(f"{DATA}.trained && {DATA}.answer")
        right = {view: {str(n): {"right": trained(page, view, n)} for n in SIZES} for view in VIEWS}
        new = [{**a, "kind": kinds_of_new[a["picture"]]} for a in asked(page, len(kinds_of_new))]
        wrong = mistakes(page, samples["train"])
        version = browser.version
        browser.close()
    counts = [len(paths) for paths in samples["train"].values()]
    layers = teach.convolutions(teach.weights_file())
    features = len(layers[-1]["bias"])
    rows = [[name, *(right[view][str(n)]["right"] for n in SIZES)] for view, name in VIEWS.items()]
    write(
        "teach",
        table(["the head sees", *(f"{n} pictures a class" for n in SIZES)], rows),
        {
            "browser": version,
            "pictures": sum(counts),
            "guess": max(counts),
            "features": features,
            "weights": len(counts) * (features + 1),
            "frozen": sum(layer["weight"].size + layer["bias"].size for layer in layers),
            "views": right,
            "wrong": wrong,
            "new": new,
        },
    )


if __name__ == "__main__":
    main()
