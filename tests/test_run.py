"""`tlhelpers run`: a folder of images in, a report and a model out, and a clear word where that cannot be."""

import functools
import html
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import tiny
from tlhelpers import data, features, heads
from tlhelpers.app import cli, methods, model_file, report
from tlhelpers.app import run as pipeline
from tlhelpers.app.methods import Candidate
from tlhelpers.app.verdict import Outcome
from tlhelpers.data import folder_check
from tools import print_pdf

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (210, 40, 50), "white": (225, 225, 225)}


@pytest.fixture(autouse=True)
def tidy_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


def picture(colour, seed, size=(20, 16)):
    """A picture of coarse noise around a colour: no two look alike."""
    noise = np.random.default_rng(seed).normal(0, 60, (5, 4, 3))
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


def fill(root: Path, classes=("blue", "green", "red"), n=10, first=0, size=(20, 16)) -> Path:
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            colour = COLOURS.get(name, tuple(np.random.default_rng(k).integers(0, 256, 3)))
            picture(colour, 1000 * k + i + first, size).save(root / name / f"{i + first}.png")
    return root


def work(folder, out, **options):
    """A whole run with a network of two blocks."""
    return pipeline.from_folder(
        folder, out, **{"epochs": 1, "border": "block1", "backbone": tiny.make_backbone(), **options}
    )


@pytest.fixture
def command(monkeypatch):
    """The command `tlhelpers run`, with the network of two blocks."""
    quick = functools.partial(pipeline.from_folder, border="block1", backbone=tiny.make_backbone())
    monkeypatch.setattr(pipeline, "from_folder", quick)

    def call(*arguments):
        result = CliRunner().invoke(cli.app, ["run", *map(str, arguments)])
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return call


class Page(HTMLParser):
    """What a page holds that matters here."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images, self.addresses, self.ids, self.tags, self.words = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        if tag == "img":
            self.images.append(found)
        self.addresses += [found[k] for k in ("src", "href", "action", "data", "srcset") if k in found]
        self.addresses += [found["xlink:href"]] if "xlink:href" in found else []

    def handle_data(self, data):
        self.words.append(data.strip())


# --- the whole run ---


def test_a_run_writes_a_report_and_models_that_agree(tmp_path):
    folder = fill(tmp_path / "my <colours>", n=30)
    out = tmp_path / "new" / "report"
    outcome = work(folder, out)
    assert sorted(p.name for p in out.iterdir()) == [
        "classes.txt",
        "model.keras",
        "model.onnx",
        "report.html",
    ]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["report"]
    tried = ["linear probe", "several depths", "fine-tuning"]
    perfect = max(c.val_accuracy for c in outcome.candidates[:2]) == 1
    assert [c.name for c in outcome.candidates] == tried[: 2 if perfect else 3]
    best = max(c.val_accuracy for c in outcome.candidates)
    assert outcome.chosen == next(c.name for c in outcome.candidates if c.val_accuracy == best)
    assert (out / "classes.txt").read_text().split() == ["blue", "green", "red"]
    ds, _ = folder_check.load(folder, tiny.SIZE)
    model = keras.models.load_model(out / "model.keras")
    shares = np.asarray(model.predict_on_batch(np.asarray(ds.x_test)))
    assert shares.sum(axis=1) == pytest.approx(1)
    np.testing.assert_allclose(shares, outcome.probabilities, atol=1e-5)
    assert outcome.accuracy == pytest.approx(np.mean(shares.argmax(axis=1) == ds.y_test))

    text = (out / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert all(a.startswith(("data:", "#")) for a in page.addresses)
    assert not re.search(r"@import|url\((?!#)|<script|<link", text)
    assert "my &lt;colours&gt;" in text
    assert "my <colours>" not in text
    assert len(page.ids) == len(set(page.ids))
    assert all(len(image["alt"]) > 10 for image in page.images)
    assert f"{100 * outcome.accuracy:.1f} %" in text
    assert "$" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S)
    assert "prefers-color-scheme: dark" in text


def test_the_code_in_the_report_works(tmp_path, monkeypatch, capsys):
    out = tmp_path / "report"
    work(fill(tmp_path / "colours", n=30), out)
    text = (out / "report.html").read_text(encoding="utf-8")
    monkeypatch.chdir(out)
    picture(COLOURS["red"], 1).save("photo.jpg")
    codes = [html.unescape(c) for c in re.findall(r"<code>(.*?)</code>", text, re.S)]
    exec(next(c for c in codes if "import onnxruntime" in c), names := {})
    first = capsys.readouterr().out
    assert re.fullmatch(r"(blue|green|red): \d+%( \(unsure\))?\n", first)
    keras_line = next(c for c in codes if c.startswith("p = keras"))
    onnx_p = names["p"]
    exec(f"import keras\n{keras_line}", names)
    np.testing.assert_allclose(names["p"], onnx_p, atol=1e-5)


@pytest.mark.parametrize("winner", ["linear probe", "several depths", "fine-tuning"])
def test_whatever_wins_is_what_is_exported(tmp_path, monkeypatch, winner):
    """Fine-tuning must not move the weights under a probe that wins."""
    folder = fill(tmp_path / "colours", n=30)
    real = methods.candidate

    def rigged(name, predicted, ds, seconds):
        seen[name] = predicted
        return Candidate(name, 0.9 if name == winner else 0.1, seconds)

    seen = {}
    monkeypatch.setattr(methods, "candidate", rigged)
    monkeypatch.setattr(methods, "REFIT_SECONDS", 0)
    outcome = work(folder, tmp_path / "report", epochs=3)
    assert outcome.chosen == winner
    ds, _ = folder_check.load(folder, tiny.SIZE)
    model = keras.models.load_model(tmp_path / "report" / "model.keras")
    shares = np.asarray(model.predict_on_batch(np.asarray(ds.x_val)))
    if winner == "fine-tuning":
        np.testing.assert_array_equal(shares.argmax(axis=1), seen[winner])
    else:  # once chosen, a probe is trained again, with the validation images
        taps, backbone = "multi" if winner == "several depths" else "last", tiny.make_backbone()
        f, g = (features.extract(backbone, x, taps=taps, engine="keras") for x in (ds.x_train, ds.x_val))
        strength = heads.linear_probe(f, ds.y_train, g, ds.y_val).strength
        both = np.concatenate([f, g]), np.concatenate([ds.y_train, ds.y_val])
        again = heads.linear_probe(*both, *both, strengths=[strength])
        np.testing.assert_array_equal(shares.argmax(axis=1), again.predict(g))
    assert real("a", ds.y_val, ds, 0.0).val_accuracy == 1


def test_fine_tuning_can_be_left_out(tmp_path):
    outcome = work(fill(tmp_path / "colours", n=30), tmp_path / "report", epochs=0)
    assert [c.name for c in outcome.candidates] == ["linear probe", "several depths"]


def test_a_model_that_cannot_be_an_onnx_file_is_still_delivered(tmp_path, monkeypatch):
    def broken(path):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(model_file, "session", broken)
    outcome = work(fill(tmp_path / "colours"), tmp_path / "report", epochs=0)
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == [
        "classes.txt",
        "model.keras",
        "report.html",
    ]
    assert "no such operator" in outcome.export
    assert "load_model" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_the_same_seed_gives_the_same_report(tmp_path):
    folder = fill(tmp_path / "colours")
    first, second = (work(folder, tmp_path / name) for name in "ab")
    np.testing.assert_allclose(first.probabilities, second.probabilities, atol=1e-5)


# --- what a folder may hold ---


def test_splits_inside_the_folder_are_used(tmp_path):
    for split, n, first in (("train", 9, 0), ("val", 4, 100), ("test", 5, 200)):
        fill(tmp_path / "set" / split, n=n, first=first)
    ds, check = folder_check.load(tmp_path / "set", 8)
    assert check.shipped == ("train", "val", "test") or set(check.shipped) == {"train", "val", "test"}
    assert (len(ds.y_train), len(ds.y_val), len(ds.y_test)) == (27, 12, 15)
    assert all(name.startswith("test/") for name in check.files["test"])
    assert check.notes() == [n for n in check.notes() if "fewer than 10 test" in n]


def test_the_split_is_that_of_data_load(tmp_path):
    folder = fill(tmp_path / "colours", n=15)
    ds, _ = folder_check.load(folder, 8, seed=3)
    same = data.load(folder, image_size=8, seed=3)
    for part in ("train", "val", "test"):
        np.testing.assert_array_equal(getattr(ds, f"x_{part}"), getattr(same, f"x_{part}"))
        np.testing.assert_array_equal(getattr(ds, f"y_{part}"), getattr(same, f"y_{part}"))


def test_corrupt_files_are_named_and_left_out(tmp_path, command):
    folder = fill(tmp_path / "colours", n=12)
    (folder / "red" / "empty.jpg").touch()
    (folder / "red" / "notes.png").write_text("these are words")
    whole = (folder / "blue" / "3.png").read_bytes()
    (folder / "blue" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "red" / "readme.txt").write_text("not counted")
    result = command(folder, "--out", tmp_path / "report", "--epochs", 0)
    assert result.exit_code == 0, result.output
    assert "3 files could not be read" in result.output
    text = (tmp_path / "report" / "report.html").read_text()
    for name in ("red/empty.jpg: empty file", "red/notes.png: not an image", "blue/cut.png: "):
        assert name in text
    assert "0x" not in text.split("could not be read")[1][:2000]
    _, check = folder_check.load(folder, 8)
    assert sorted(check.unreadable) == ["blue/cut.png", "red/empty.jpg", "red/notes.png"]
    assert check.n_images == 36
    assert check.n_ignored == 1


def test_a_class_of_corrupt_files_only(tmp_path, command):
    folder = fill(tmp_path / "colours")
    for path in (folder / "green").iterdir():
        path.write_bytes(b"x")
    result = command(folder, "--out", tmp_path / "report")
    assert result.exit_code == 1
    assert "green" in result.output
    assert "10 unreadable files" in result.output


def test_nothing_but_corrupt_files(tmp_path):
    folder = fill(tmp_path / "colours", n=3)
    for path in folder.rglob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(data.DataError, match="none of the 9"):
        folder_check.load(folder)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda p: fill(p, classes=("red",)), "only one class folder"),
        (lambda p: fill(p, classes=("red",), n=1), "only one class folder"),
        (lambda p: fill(p, n=1), "too few images in the class blue (1)"),
        (lambda p: p.mkdir(), "no class folders"),
        (lambda p: (p / "red").mkdir(parents=True), "no class folders with images"),
        (lambda p: p.write_text("a file"), "is a file. Expected a folder"),
        (lambda p: picture((1, 2, 3), 0).save(p, "PNG"), "is a file. Expected a folder"),
        (lambda p: None, "There is no folder"),
        (lambda p: [p.mkdir(), picture((1, 2, 3), 0).save(p / "a.png")], "no class folders"),
    ],
)
def test_a_folder_that_cannot_be_used_gets_a_clear_word(tmp_path, command, build, words):
    build(tmp_path / "pictures")
    result = command(tmp_path / "pictures", "--out", tmp_path / "report")
    assert result.exit_code == 1
    assert "Not done" in result.output
    assert words in result.output
    assert not (tmp_path / "report").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], "nothing half-written stays"


@pytest.mark.parametrize("closed", ["", "green"])
def test_a_folder_that_may_not_be_read(tmp_path, command, monkeypatch, closed):
    folder = fill(tmp_path / "colours")
    target = str(folder / closed) if closed else str(folder)
    real = os.scandir

    def scandir(path="."):
        if str(path).rstrip("/") == target:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    result = command(folder, "--out", tmp_path / "report")
    assert result.exit_code == 1
    assert f"{target} cannot be opened: no permission" in result.output


def test_200_classes(tmp_path, command):
    names = [f"class {i:03}" for i in range(200)]
    folder = fill(tmp_path / "many", classes=names, n=4, size=(8, 8))
    result = command(folder, "--out", tmp_path / "report", "--epochs", 0)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "report" / "report.html").read_text()
    assert "most frequent confusions" in text
    assert "cross-validated" in text
    assert len(text) < 1_000_000


def test_huge_images(tmp_path, monkeypatch):
    folder = fill(tmp_path / "colours", n=6)
    Image.new("RGB", (9000, 7000), (200, 40, 50)).save(folder / "red" / "large.jpg", quality=30)
    picture(COLOURS["red"], 77).resize((400, 400)).save(folder / "red" / "bomb.png")
    ds, check = folder_check.load(folder, 8)
    assert [7000, 9000] in check.sizes.tolist()
    assert not check.unreadable
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000)  # Pillow refuses twice as many
    (folder / "red" / "large.jpg").unlink()
    ds, check = folder_check.load(folder, 8)
    assert list(check.unreadable) == ["red/bomb.png"]
    assert "million pixels; save it smaller" in check.unreadable["red/bomb.png"]
    assert len(ds.y_train) + len(ds.y_val) + len(ds.y_test) == 18


def test_odd_modes_and_rotation_marks(tmp_path):
    folder = fill(tmp_path / "colours", n=6)
    for mode in ("L", "P", "CMYK", "RGBA"):
        suffix = "tif" if mode == "CMYK" else "png"
        picture(COLOURS["red"], 50 + len(mode)).convert(mode).save(folder / "red" / f"{mode}.{suffix}")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(COLOURS["red"], 90, size=(40, 10)).save(folder / "red" / "turned.jpg", exif=turned)
    _, check = folder_check.load(folder, 8)
    assert not check.unreadable
    assert [40, 10] in check.sizes.tolist()


# --- copies ---


def test_copies_do_not_cross_the_split(tmp_path):
    for split, n, first in (("train", 8, 0), ("val", 4, 100), ("test", 10, 200)):
        fill(tmp_path / "set" / split, n=n, first=first)
    original = tmp_path / "set" / "test" / "red" / "200.png"
    (tmp_path / "set" / "train" / "red" / "copy.png").write_bytes(original.read_bytes())
    (tmp_path / "set" / "val" / "red" / "copy.png").write_bytes(original.read_bytes())
    ds, check = folder_check.load(tmp_path / "set", 8)
    (found,) = check.copies
    assert found.exact
    assert found.names[0] == "test/red/200.png"
    assert set(found.splits) == {"train", "val", "test"}
    assert set(check.left_out) == {"train/red/copy.png", "val/red/copy.png"}
    assert (len(ds.y_train), len(ds.y_val), len(ds.y_test)) == (24, 12, 30)
    assert any("more than one of training and validation and test" in note for note in check.notes())


def test_pictures_saved_again_are_found(tmp_path):
    folder = tmp_path / "colours"
    fill(folder, n=10, size=(200, 160))
    original = Image.open(folder / "blue" / "0.png")
    original.save(folder / "blue" / "again.jpg", quality=60)
    original.resize((100, 80)).save(folder / "blue" / "small.png")
    _, check = folder_check.load(folder, 8)
    (found,) = check.copies
    assert set(found.names) == {"blue/0.png", "blue/again.jpg", "blue/small.png"}
    assert not found.exact
    assert not check.left_out
    assert check.n_images == 32
    sides = {s for s, names in check.files.items() if set(names) & set(found.names)}
    assert len(sides) == 1, "they are on one side of the split"
    _, dropped = folder_check.load(folder, 8, copies="drop")
    assert (len(dropped.left_out), dropped.n_images) == (2, 30)


def test_one_file_in_two_classes_is_said_and_used(tmp_path):
    folder = fill(tmp_path / "colours", n=10)
    (folder / "red" / "odd.png").write_bytes((folder / "blue" / "0.png").read_bytes())
    _, check = folder_check.load(folder, 8)
    assert not check.left_out
    assert check.n_images == 31
    assert any("at least one label must be wrong" in note for note in check.notes())


def test_empty_pictures_are_not_all_copies(tmp_path):
    folder = fill(tmp_path / "colours", n=8)
    for i in range(3):
        Image.new("RGB", (20, 16), (200 + i, 40, 50)).save(folder / "red" / f"plain{i}.png")
    _, check = folder_check.load(folder, 8)
    assert not check.copies


# --- where the report goes ---


def test_an_html_name_puts_the_models_beside_it(tmp_path, command):
    folder = fill(tmp_path / "colours")
    result = command(folder, "--out", tmp_path / "mine.html", "--epochs", 0)
    assert result.exit_code == 0, result.output
    made = {p.name for p in tmp_path.iterdir()} - {"colours", "cache"}
    assert made == {"mine.html", "mine.keras", "mine.onnx", "mine.classes.txt"}
    assert "mine.onnx" in (tmp_path / "mine.html").read_text()


def test_what_exists_is_not_overwritten_unless_told(tmp_path, command):
    folder = fill(tmp_path / "colours")
    out = tmp_path / "report"
    out.mkdir()
    assert command(folder, "--out", out, "--epochs", 0).exit_code == 0  # an empty folder is no loss
    before = (out / "report.html").read_bytes()
    (out / "mine.txt").write_text("keep me")
    refused = command(folder, "--out", out, "--epochs", 0)
    assert refused.exit_code == 1
    assert "say --overwrite" in refused.output
    assert (out / "report.html").read_bytes() == before
    assert command(folder, "--out", out, "--epochs", 0, "--overwrite", "--seed", 1).exit_code == 0
    assert (out / "report.html").read_bytes() != before
    assert (out / "mine.txt").read_text() == "keep me"


def test_a_place_that_cannot_be_written(tmp_path, command, monkeypatch):
    folder = fill(tmp_path / "colours")
    (tmp_path / "file").touch()
    for out in (
        tmp_path / "file",
        tmp_path / "file" / "report",
        folder / "report",
        folder / "red" / "r.html",
    ):
        result = command(folder, "--out", out)
        assert result.exit_code == 1
        assert "Not done" in result.output

    made = Path.mkdir

    def refuse(path, *arguments, **options):
        if path.suffix == ".tmp":
            raise PermissionError(13, "Permission denied")
        made(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    result = command(folder, "--out", tmp_path / "report")
    assert result.exit_code == 1
    assert "cannot be written (Permission denied)" in result.output


def test_a_run_that_breaks_leaves_nothing(tmp_path, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("no ink")

    monkeypatch.setattr(report, "html", broken)
    with pytest.raises(RuntimeError, match="no ink"):
        work(fill(tmp_path / "colours"), tmp_path / "report", epochs=0)
    assert {p.name for p in tmp_path.iterdir()} == {"colours", "cache"}


# --- confidence ---


def test_temperature_is_left_alone_where_nothing_sets_it():
    assert pipeline.temperature(np.arange(3), np.eye(3) * 5) == 1
    assert pipeline.temperature(np.array([1, 2, 0]), np.eye(3) * 5) == 1
    assert pipeline.temperature(np.array([0, 1, 0]), np.eye(3) * 5) > 1


def made_up(n_classes=3, n=60, temperature=2.5, **changes) -> tuple[Outcome, np.ndarray, np.ndarray]:
    """An outcome without training, its test images, and its logits before the temperature."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % n_classes
    logits = rng.normal(0, 2, (n, n_classes)) + 3 * np.eye(n_classes)[y]
    shares = np.exp(logits / temperature)
    names = tuple(f"class <{k}>" for k in range(n_classes))
    counts = {split: dict.fromkeys(names, n // n_classes) for split in ("train", "val", "test")}
    check = folder_check.FolderCheck(
        name="pictures/",
        shipped=("train",),
        files=dict.fromkeys(("train", "test"), tuple(f"{k}.png" for k in range(n))),
        counts=counts,
        unreadable={f"broken & {i}.png": "empty file" for i in range(14)},
        left_out={"b.png": "equal to a.png"},
        copies=(folder_check.Copies(("a.png", "b.png"), True, ("train",), names[:2]),),
        sizes=np.array([[20, 30], [40, 10]]),
        n_ignored=1,
    )
    outcome = Outcome(
        check=check,
        class_names=names,
        candidates=(Candidate("linear probe", 0.8, 1.0), Candidate("fine-tuning", 0.9, 2.0)),
        chosen="fine-tuning",
        temperature=temperature,
        n_val=30,
        n_tuned=20,
        backbone="tiny",
        image_size=8,
        seed=0,
        date="2026-01-01",
        y_test=y,
        probabilities=shares / shares.sum(axis=1, keepdims=True),
        export="They agree.",
        sizes={"report.html": 1, "model.keras": 20_000_000, "model.onnx": 20_000_000, "classes.txt": 30},
        seconds=50.0,
    )
    return replace(outcome, **changes), tiny.images(n), logits


def test_probabilities_before_and_after_temperature():
    outcome, _, logits = made_up()
    shares = np.exp(logits)
    np.testing.assert_allclose(outcome.uncalibrated(), shares / shares.sum(axis=1, keepdims=True), atol=1e-9)


# --- the page ---


def test_names_are_escaped_and_long_lists_folded():
    outcome, x, _ = made_up()
    text = report.html(outcome, x)
    assert "class <" not in text
    assert "class &lt;1&gt;" in text
    assert "broken &amp; 3.png" in text
    assert "<summary>8 more</summary>" in text


def test_names_from_a_folder_stay_text(tmp_path):
    """Whatever a reader's folders and files are called, in the page it is text, and no element."""
    names = ('<b>&"x', "<script>'y")
    folder = fill(tmp_path / '"><h6>pictures', names, n=10)
    (folder / names[0] / '"><h5>.png').write_text("no image")
    (folder / names[1] / "copy.png").write_bytes((folder / names[0] / "0.png").read_bytes())
    ds, check = folder_check.load(folder, 8)
    outcome, _, _ = made_up(
        n_classes=2,
        check=check,
        class_names=ds.class_names,
        y_test=ds.y_test,
        probabilities=np.eye(2)[1 - ds.y_test] * 0.8 + 0.1,  # all are mistakes
        export="<h4>",
        sizes={"\"'><s>.keras": 1, "\"'><s>.onnx": 1, "classes.txt": 1},
    )
    page = Page(report.html(outcome, ds.x_test))
    assert not {"script", "h4", "h5", "h6", "s"} & set(page.tags)
    assert page.tags.count("b") == 2 * len(ds.y_test) + 3, "those of the captions and of the verdict"
    assert {*names, "<h4>", "\"'><s>.onnx"} <= set(page.words)
    for words in (
        '"><h6>pictures',
        f'{names[0]}/"><h5>.png: not an image',
        f"{names[0]}/0.png, {names[1]}/copy.png (equal files",
        'InferenceSession(""\'><s>.onnx")',
    ):
        assert any(words in text for text in page.words), words
    alts = {image["alt"] for image in page.images}
    assert {f"Test image of the class {a}, named {b}" for a, b in (names, names[::-1])} <= alts


def test_no_mistakes_is_said_so():
    outcome, x, _ = made_up()
    certain = np.eye(3)[outcome.y_test] * 0.97 + 0.01
    text = report.html(replace(outcome, probabilities=certain, temperature=1.0), x)
    assert "There are none: every test image was named rightly" in text
    assert "not proof of perfection" in text
    assert "left as they are" in text


@pytest.mark.slow
def test_the_page_in_a_browser(tmp_path):
    """Nothing is fetched, nothing is wider than a telephone, and it can be read in light and dark."""
    from axe_playwright_python.base import AXE_SCRIPT
    from playwright.sync_api import sync_playwright

    executable = print_pdf.find_browser()
    if not executable:
        pytest.skip("no browser here: install chromium")
    pages = {}
    for name, n_classes in (("few", 3), ("twelve", 12), ("many", 40)):
        outcome, x, _ = made_up(n_classes, 5 * n_classes)
        pages[name] = tmp_path / f"{name}.html"
        pages[name].write_text(report.html(outcome, x), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=print_pdf.as_root())
        for theme in ("light", "dark"):
            for width in (390, 1280):
                reader = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
                for path in pages.values():
                    page, requests, errors = reader.new_page(), [], []
                    page.on("request", lambda request, seen=requests: seen.append(request.url))
                    page.on("console", lambda line, seen=errors: seen.append(line.text))
                    page.goto(path.as_uri())
                    outside = [r for r in requests if not r.startswith(("data:", path.as_uri()))]
                    assert not outside
                    assert not errors
                    scrolled = page.evaluate("document.documentElement.scrollWidth")
                    assert scrolled <= width, (path.name, width)
                    page.evaluate(AXE_SCRIPT)
                    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
                    assert not [f"{v['id']}: {v['nodes'][0]['html'][:150]}" for v in found]
                reader.close()
        browser.close()


# --- real photographs ---


@pytest.mark.slow
def test_twelve_kinds_of_flower(tmp_path):
    """With real weights: the report of a shipped test set, better than 0.95."""
    source = Path(os.environ.get("TLHELPERS_DATA", "")) / "flowers12.zip"
    if not os.environ.get("TLHELPERS_DATA") or not source.is_file():
        pytest.skip("no flowers here: set TLHELPERS_DATA to a folder that holds flowers12.zip")
    outcome = pipeline.from_folder(source, tmp_path / "report")
    assert len(outcome.y_test) == 240
    assert outcome.accuracy >= 0.95
