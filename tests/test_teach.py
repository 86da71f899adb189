"""The page "Teach a network", opened from disk without a network: does it compute what Keras computes?"""

import base64
import contextlib
import io
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from PIL import Image
from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

from test_site import NARROW, TRANSITIONS, Visit, context, launch, watch
from tools import teach
from tools.numbers import stored
from tools.numbers.provenance import ROOT

pytestmark = pytest.mark.slow

DATA = "document.getElementById('teach-here').dataset"
HEAVY = ("weights.js", "samples.js", "network.js", "head.js", "pictures.js")
N_COMPARED = 3
# The work that a machine's speed is known by, and how many times its seconds the answer may take: 2.0 to 2.2
# on two cores, alone and beside four busy processes; 34 without WebAssembly.
YARDSTICK = "() => { let x = 1; for (let i = 0; i < 3e8; i++) x = x * 0.999 + i % 7; return x; }"
MAX_RATIO = 9
CODE = "## From the page to Keras"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser of this module's own."""
    with sync_playwright() as playwright:
        started = launch(playwright)
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(site: Path) -> str:
    """The page, from disk."""
    return (site / "book" / "teach.html").as_uri()


@contextlib.contextmanager
def opened(
    browser: Browser, address: str, theme: str = "light", **options: Any
) -> Iterator[tuple[Page, Visit]]:
    """Open the page offline on a telephone's width, and note what happens."""
    reader = context(browser, theme, offline=True, **options)
    page, visit = reader.new_page(), Visit()
    page.set_viewport_size(NARROW)
    watch(page, visit)
    page.goto(address)
    yield page, visit
    reader.close()


def done(page: Page, act: Any) -> None:
    """Do something, and wait until the head is trained again."""
    page.evaluate(f"delete {DATA}.trained")
    act()
    page.wait_for_function(f"{DATA}.trained")


def added(page: Page, act: Any) -> None:
    """Do something, and wait until the files were read."""
    number = f"({DATA}.added ?? '0')"
    before = page.evaluate(number)
    act()
    page.wait_for_function(f"{number} !== {json.dumps(before)}")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Sample pictures as PNG of 224 pixels, which every decoder reads alike."""
    folder = tmp_path_factory.mktemp("pictures")
    found: dict[str, list[Path]] = {}
    for part, n in (("train", 4), ("new", 2)):
        for kind, paths in teach.samples()[part].items():
            for path in paths[:n]:
                copy = folder / f"{path.stem}.png"
                Image.open(path).convert("RGB").save(copy)
                found.setdefault(kind if part == "train" else "new", []).append(copy)
    return found


@pytest.fixture(scope="module")
def keras_features(pictures: dict[str, list[Path]]) -> dict[bool, np.ndarray]:
    """What the backbone makes of the pictures: as it is (``False``), and with rounded kernels (``True``)."""
    from tlhelpers import backbones

    model, found = backbones.load().model, {}
    pixels = np.stack([np.asarray(Image.open(path)) for path in pictures["new"][:N_COMPARED]])
    for whole in (False, True):
        for layer in model.layers if whole else ():
            if "conv" in layer.name:
                (kernel,) = layer.get_weights()
                order = (2, 3, 0, 1) if "dwconv" in layer.name else (3, 2, 0, 1)
                weight = kernel.transpose(order)
                numbers, step = teach.rounded(weight)
                layer.set_weights([(numbers * step[:, None, None, None]).transpose(np.argsort(order))])
        found[whole] = np.asarray(model(pixels, training=False))
    return found


@pytest.mark.parametrize(("whole", "plain"), [(True, False), (True, True), (False, False)])
def test_features_are_those_of_keras(
    whole: bool, plain: bool, browser: Browser, address: str, pictures: Any, keras_features: Any
) -> None:
    """On the same pixels, with and without WebAssembly, with rounded weights and with float32."""
    pixels = [np.asarray(Image.open(path)) for path in pictures["new"][: 1 if plain else N_COMPARED]]
    rgba = [np.dstack([p, np.full(p.shape[:2], 255, "u1")]).tobytes() for p in pixels]
    with opened(browser, address) as (page, _):
        page.add_script_tag(content=(teach.STATIC / "network.js").read_text(encoding="utf-8"))
        page.add_script_tag(content=teach.network_script(whole))
        found = page.evaluate(
            "([plain, all]) => { const net = Network.load(TEACH_NETWORK, {plain}); return [net.isCompiled,"
            " all.map((text) => [...net.features(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)))])]; }",
            [plain, [base64.b64encode(one).decode() for one in rgba]],
        )
    assert found[0] != plain
    expected = keras_features[whole][: len(pixels)]
    assert expected.std() > 0.1
    np.testing.assert_allclose(np.array(found[1]), expected, atol=1e-4, rtol=0)


def busy(counter: CDPSession) -> float:
    """Return the seconds that a page's main thread has worked."""
    return {m["name"]: m["value"] for m in counter.send("Performance.getMetrics")["metrics"]}["TaskDuration"]


def work(page: Page, counter: CDPSession) -> float:
    """Return the seconds that a fixed piece of work takes in this page."""
    before = busy(counter)
    assert page.evaluate(YARDSTICK) > 0
    return busy(counter) - before


def test_a_button_and_an_answer(browser: Browser, address: str, site: Path) -> None:
    """Nothing heavy loads before the click, nothing foreign ever; the answer comes soon, and as recorded.

    Seconds of the page's main thread are counted, not of the clock, which runs on while others work; and
    in those of a fixed piece of work, since a core is slower where its other half is busy.
    """
    recorded = stored.read_results()["teach"]
    ratios: list[float] = []
    while len(ratios) < 3 and min(ratios, default=np.inf) >= MAX_RATIO:
        with opened(browser, address) as (page, visit):
            assert not [r for r in visit.requests if r.split("?")[0].endswith(HEAVY)]
            counter = page.context.new_cdp_session(page)
            counter.send("Performance.enable", {"timeDomain": "threadTicks"})
            yardstick = work(page, counter)
            before, start = busy(counter), time.perf_counter()
            page.click("#teach-sample")
            page.wait_for_function(f"{DATA}.answer")
            clock, seconds = time.perf_counter() - start, busy(counter) - before
            page.wait_for_function(f"{DATA}.trained")
            yardstick = (yardstick + work(page, counter)) / 2
            ratios.append(seconds / yardstick)
            print(
                f"button to answer: {seconds:.2f} s of the processor, {ratios[-1]:.1f} times "
                f"the yardstick's {yardstick:.2f} s; {clock:.2f} s of the clock"
            )
            assert {r.rsplit("/", 1)[1] for r in visit.requests} >= set(HEAVY)
            own = (site.as_uri() + "/", "data:", "blob:")
            assert not [r for r in visit.requests if not r.startswith(own)]
            assert not visit.errors + visit.failed
            right = int(page.inner_text(".teach .score strong").split()[0])
            assert abs(right - recorded["views"]["features"]["10"]["right"]) <= 1  # decoders differ a little
            assert page.inner_text(".teach .shares strong").startswith("birds")
            assert not page.locator("#teach-finished").is_visible()
    assert 0.1 < min(ratios) < MAX_RATIO, ratios


def test_switches_slider_and_keyboard(browser: Browser, address: str) -> None:
    """Each view has its own score, which stays in the table; fewer pictures train; all of it by keyboard."""
    recorded = stored.read_results()["teach"]["views"]
    with opened(browser, address) as (page, _):
        done(page, lambda: page.locator("#teach-sample").press("Enter"))
        for view in ("pixels", "random"):
            done(page, lambda: page.locator("input[name=teach-view]:checked").press("ArrowDown"))
            assert page.evaluate(f"{DATA}.trained") == f"{view} 30"
            right = int(page.inner_text(".teach .score strong").split()[0])
            assert abs(right - recorded[view]["10"]["right"]) <= 3, view
        assert "not tried yet" not in page.inner_text(".teach table")
        done(page, lambda: page.locator(".teach .slider input").press("Home"))
        assert page.evaluate(f"{DATA}.trained") == "random 6"
        wrong = page.locator(".teach li.wrong img").evaluate_all("images => images.map((i) => i.alt)")
        assert wrong
        beside = page.locator(
            ".teach .mistakes li:has(img)"
        ).all_inner_texts()  # in sight where the page jumps to
        assert [words.split(" (")[0] for words in beside] == [words.split(", taken")[0] for words in wrong]
        assert all(", taken for " in words for words in wrong)
        first = page.locator(".teach .pictures button").first
        opacity = "(button) => getComputedStyle(button).opacity"
        assert first.evaluate(opacity) == "0", "what removes a picture covers it"
        first.focus()
        assert first.evaluate(opacity) == "1"
        name = page.locator(".teach .pictures button").nth(1).get_attribute("aria-label")
        done(page, lambda: first.press("Enter"))
        assert page.evaluate("document.activeElement.ariaLabel") == name
        for _ in range(3):
            done(page, lambda: page.click("text=Another new sample picture"))
        assert "none of these kinds" in page.inner_text(".teach .shares")
        page.locator("text=Start over").press("Enter")
        assert page.locator("#teach-finished").is_visible()
        assert page.locator(".teach .pictures li").count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_accessible(theme: str, browser: Browser, address: str) -> None:
    """axe finds nothing serious or critical on a telephone, with all on the screen; nothing is too wide."""
    with opened(browser, address, theme) as (page, _):
        done(page, lambda: page.click("#teach-sample"))
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        assert page.evaluate("document.documentElement.scrollWidth") == NARROW["width"]
        page.evaluate(TRANSITIONS)
        page.evaluate(AXE_SCRIPT)
        found = page.evaluate("axe.run('#teach-here', {resultTypes: ['violations'], preload: false})")
    assert len(found["passes"]) > 5
    assert not [(v["id"], v["nodes"][0]["html"]) for v in found["violations"]]


def damaged(folder: Path) -> dict[str, str]:
    """Write files that are no pictures; return a word for each that the page must say."""
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "PNG")
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    contents = {
        "notes.txt": (b"no picture", "is no picture"),
        "renamed.png": (b"no picture either", "is no picture"),
        "photo.HEIC": (heic, "HEIC"),
        "photo.jpg": (heic, "HEIC"),
        "broken.png": (buffer.getvalue()[:40], "is damaged"),
        "empty.jpg": (b"", "is empty"),
        "scan.tif": (b"II*\0" + bytes(100), "TIFF"),
        "film.mp4": (b"\0\0\0\x18ftypisom" + bytes(100), "film"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    return {name: word for name, (_, word) in contents.items()}


def test_files_that_are_no_pictures(browser: Browser, address: str, tmp_path: Path, pictures: Any) -> None:
    """Each is named with what is wrong; the good ones among them are taken."""
    words = damaged(tmp_path)
    files = [*(tmp_path / name for name in words), *pictures["birds"][:2]]
    with opened(browser, address) as (page, visit):
        chooser = page.locator(".teach .boxes input[type=file]").first
        added(page, lambda: chooser.set_input_files(files))
        said = page.locator(".teach .problems p").all_inner_texts()
        assert len(said) == len(words)
        for name, word in words.items():
            assert any(line.startswith(name) and word in line for line in said), (name, said)
        assert page.locator(".teach .pictures li").count() == 2
        assert "two classes" in page.inner_text(".teach .status")
        assert not visit.errors


def test_a_new_file_that_is_no_picture_clears_the_old_answer(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    """The old answer would pass for the answer to the file; what is wrong stands where the file was given."""
    (tmp_path / "notes.png").write_bytes(b"no picture")
    with opened(browser, address) as (page, visit):
        done(page, lambda: page.click("#teach-sample"))
        assert page.inner_text(".teach .answer").strip()
        chooser = page.locator(".teach .result input[type=file]")
        added(page, lambda: chooser.set_input_files(tmp_path / "notes.png"))
        assert not page.inner_text(".teach .answer").strip()
        (said,) = page.locator(".teach .result .problems p").all_inner_texts()
        assert said.startswith("notes.png")
        assert not visit.errors


def test_own_pictures_are_not_thrown_away_unasked(browser: Browser, address: str, pictures: Any) -> None:
    """Who says no keeps them; who says yes gets the samples."""
    asked: list[str] = []
    with opened(browser, address) as (page, _):
        chooser = page.locator(".teach .boxes input[type=file]").first
        added(page, lambda: chooser.set_input_files(pictures["birds"][:2]))
        page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        page.click("#teach-sample")
        assert page.locator(".teach .pictures li").count() == 2
        page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.accept()))
        done(page, lambda: page.click("#teach-sample"))
        assert page.locator(".teach .pictures li").count() > 10
    assert len(asked) == 2
    assert "own pictures" in asked[0]


def chapter_cell() -> str:
    """Return the code of chapter 1 that loads what was taught."""
    cells = json.loads((ROOT / "notebooks" / "01_first_result.ipynb").read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    (place,) = [i for i, text in enumerate(texts) if CODE in text]
    assert cells[place + 1]["cell_type"] == "code"
    return texts[place + 1]


def test_what_was_taught_is_the_same_in_keras(
    browser: Browser, address: str, pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The download and chapter 1's cell: five new pictures have the same shares."""
    import keras

    from tlhelpers import backbones

    new = pictures["new"][:5]
    with opened(browser, address) as (page, _):
        for i, kind in enumerate(("birds", "flowers", "sweets")):
            page.locator(".teach .boxes .box > input").nth(i).fill(kind.upper())
            chooser = page.locator(".teach .boxes input[type=file]").nth(i)
            added(page, lambda: chooser.set_input_files(pictures[kind]))  # noqa: B023
        chooser = page.locator(".teach .result input[type=file]")
        for path in new:
            done(page, lambda: chooser.set_input_files(path))  # noqa: B023
        with page.expect_download() as download:
            page.click("#teach-download")
        download.value.save_as(tmp_path / "taught_network.json")
    taught = json.loads((tmp_path / "taught_network.json").read_text(encoding="utf-8"))
    assert taught["normalisation"] == "l2"
    assert taught["classes"] == ["BIRDS", "FLOWERS", "SWEETS"]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"Path": Path, "json": json, "np": np, "keras": keras, "backbones": backbones}
    exec(chapter_cell(), names)
    assert len(taught["answers"]) == len(new) == 5
    for path, answer in zip(new, taught["answers"], strict=True):
        assert answer["picture"] == path.stem
        in_keras = list(names["shares"](path).values())
        np.testing.assert_allclose(in_keras, answer["probabilities"], atol=1e-3)


def test_without_scripts_a_result_stands_there(browser: Browser, address: str) -> None:
    """Pictures, a score and words for what is wrong."""
    recorded = stored.read_results()["teach"]
    with opened(browser, address, java_script_enabled=False) as (page, _):
        figure = page.locator("#teach-finished")
        assert figure.is_visible()
        text = figure.inner_text()
        assert f"{recorded['views']['features']['10']['right']} of {recorded['pictures']} right" in text
        wrong = figure.locator("li.wrong img").evaluate_all("images => images.map((i) => i.alt)")
        assert len(wrong) == len(recorded["wrong"]) > 0
        assert all(
            f"{m['picture']} ({m['kind']}) is taken for {m['taken_for']}" in text for m in recorded["wrong"]
        )


def test_sixty_pictures_stay_fluent(browser: Browser, address: str) -> None:
    """While the head judges 60 pictures, the page looks at its reader again and again."""
    with opened(browser, address) as (page, _):
        done(page, lambda: page.click("#teach-sample"))
        page.evaluate("""() => {
          window.longest = 0; let last = performance.now();
          const look = () => {
            const now = performance.now();
            window.longest = Math.max(window.longest, now - last);
            last = now;
            setTimeout(look);
          };
          look();
        }""")
        for i, paths in enumerate(teach.samples()["train"].values()):
            chooser = page.locator(".teach .boxes input[type=file]").nth(i)
            added(page, lambda: chooser.set_input_files(paths))  # noqa: B023
        page.wait_for_function(f"{DATA}.trained === 'features 60'")
        assert page.evaluate("window.longest") < 500
        assert "The same picture twice" in page.inner_text(".teach .mistakes")


def test_the_kernel_is_built_from_its_source(browser: Browser, address: str, tmp_path: Path) -> None:
    """Compiled anew, the loops give the numbers of the stored bytes; by the same compiler, the same bytes."""
    if not shutil.which("clang") or not shutil.which("wasm-ld"):
        pytest.skip("no compiler here: install clang and lld")
    target = tmp_path / "kernel.wasm"
    source = (teach.STATIC / "kernel.c").read_text(encoding="utf-8")
    (line,) = [line for line in source.splitlines() if line.strip().startswith("clang ")]
    command = [str(target) if word == "kernel.wasm" else word for word in line.split()]
    subprocess.run(command, cwd=teach.STATIC, check=True, stdin=subprocess.DEVNULL)
    kernels = [base64.b64encode(p.read_bytes()).decode() for p in (teach.STATIC / "kernel.wasm", target)]
    with opened(browser, address) as (page, _):
        page.add_script_tag(content=(teach.STATIC / "network.js").read_text(encoding="utf-8"))
        page.add_script_tag(content=teach.network_script())
        found = page.evaluate(
            "(kernels) => kernels.map((kernel) => [...Network.load({...TEACH_NETWORK, kernel})"
            ".features(Uint8Array.from({length: 4 * 224 * 224}, (_, i) => (i * 37) % 251))])",
            kernels,
        )
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    version = subprocess.run(["clang", "--version"], capture_output=True, text=True, check=True).stdout
    if "version 14.0.6" in version:
        assert target.read_bytes() == (teach.STATIC / "kernel.wasm").read_bytes()
