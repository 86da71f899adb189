"""`tlhelpers predict`, the report's code and the report itself say the same of every picture."""

import csv
import html
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import tiny
from tlhelpers import data
from tlhelpers.app import cli, model_file, predict
from tlhelpers.app import run as pipeline
from tlhelpers.evaluation import calibration

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (210, 40, 50)}


@pytest.fixture(autouse=True, scope="module")
def tidy_machine(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLHELPERS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("COLUMNS", "200")
        yield


def pixels(name: str, seed: int, size=(24, 20)) -> np.ndarray:
    """A picture of coarse noise around a colour."""
    noise = np.random.default_rng(seed).normal(0, 50, (5, 6, 3))
    small = Image.fromarray(np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8))
    return np.asarray(small.resize(size, Image.Resampling.BICUBIC))


def cut_out(x: np.ndarray) -> Image.Image:
    picture = Image.fromarray(x).convert("RGBA")
    mask = np.zeros(x.shape[:2], np.uint8)
    mask[4:-4, 4:-4] = 255
    picture.putalpha(Image.fromarray(mask))
    return picture


def deep(x: np.ndarray, top: int) -> Image.Image:
    return Image.fromarray((x.mean(axis=2) / 255 * top).astype(np.uint16))


def turned(x: np.ndarray, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(x).save(path, exif=exif, quality=92)


# What people have -> how it is written. Each stands in each class, in training and in test.
KINDS = {
    "a.jpg": lambda x, p: Image.fromarray(np.repeat(np.repeat(x, 9, 0), 9, 1)).save(p, quality=90),
    "turned.jpg": turned,
    "cmyk.jpg": lambda x, p: Image.fromarray(x).convert("CMYK").save(p),
    "grey.png": lambda x, p: Image.fromarray(x).convert("L").save(p),
    "palette.gif": lambda x, p: Image.fromarray(x).save(p),
    "cut_out.png": lambda x, p: cut_out(x).save(p),
    "twelve.png": lambda x, p: deep(x, 4095).save(p),
    "ten.tif": lambda x, p: deep(x, 1023).save(p),
    "sixteen.tif": lambda x, p: deep(x, 65535).save(p),
    "wide.webp": lambda x, p: Image.fromarray(np.concatenate([x, x], axis=1)).save(p),
    "new.avif": lambda x, p: Image.fromarray(x).save(p),
    "old.jp2": lambda x, p: Image.fromarray(x).save(p),
    "saved.jfif": lambda x, p: Image.fromarray(x).save(p, format="JPEG"),
    "bare": lambda x, p: Image.fromarray(x).save(p, format="PNG"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of pictures of many kinds, and what a run made of it."""
    root = tmp_path_factory.mktemp("pictures") / "colours"
    for split, n in (("train", 2), ("test", 1)):
        for k, name in enumerate(COLOURS):
            (root / split / name).mkdir(parents=True)
            for j, (kind, write) in enumerate(KINDS.items()):
                for i in range(n):
                    seed = 1000 * k + 10 * j + i + 500 * (split == "test")
                    write(pixels(name, seed), root / split / name / f"{i}_{kind}")
    (root / "test" / "unknown").mkdir()
    (root / "test" / "unknown").rmdir()
    (root / "unlabelled").mkdir()
    for i in range(3):
        Image.fromarray(pixels("red", 9000 + i)).save(root / "unlabelled" / f"{i}.png")
    outcome = pipeline.from_folder(
        root, root.parent / "report", backbone=tiny.make_backbone(), border="block1", epochs=1
    )
    return root, root.parent / "report", outcome


def call(*arguments):
    result = CliRunner().invoke(cli.app, ["predict", *map(str, arguments)])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def rows(path: Path) -> dict[str, dict[str, str]]:
    with open(path, encoding="utf-8-sig", newline="") as stream:
        return {row["file"]: row for row in csv.DictReader(stream)}


@pytest.mark.parametrize("model", ["model.keras", "model.onnx"])
def test_it_says_of_each_picture_what_the_report_says(made, tmp_path, model):
    root, report, outcome = made
    result = call(report / model, root / "test", "--out", tmp_path / "names.csv", "--ground-truth")
    assert result.exit_code == 0, result.output
    found = rows(tmp_path / "names.csv")
    assert len(found) == len(outcome.y_test) == 3 * len(KINDS)
    names = outcome.class_names
    for file, p, label in zip(
        outcome.check.files["test"], outcome.probabilities, outcome.y_test, strict=True
    ):
        row = found[f"{root}/{file}"]
        np.testing.assert_allclose([float(row[f"p({name})"]) for name in names], p, atol=2e-5, err_msg=file)
        assert (row["predicted"], row["actual"]) == (names[p.argmax()], names[label])
        assert row["unsure"] == ("yes" if p.max() < outcome.unsure_below else "no")
    assert f"{outcome.accuracy:.1%} of {len(found)} pictures named as their folder" in result.output


def test_the_code_in_the_report_gives_the_same_numbers(made, monkeypatch, capsys):
    root, report, outcome = made
    text = (report / "report.html").read_text(encoding="utf-8")
    code = html.unescape(
        next(c for c in re.findall(r"<code>(.*?)</code>", text, re.S) if "import onnxruntime" in c)
    )
    assert "tlhelpers" not in code
    monkeypatch.chdir(report)
    for file, p in zip(outcome.check.files["test"], outcome.probabilities, strict=True):
        exec(code.replace("photo.jpg", (root / file).as_posix()), names := {})
        np.testing.assert_allclose(names["p"][0], p, atol=1e-5, err_msg=file)
    assert capsys.readouterr().out.count("%") == len(outcome.y_test)


def test_a_zip_and_single_files_are_named_like_a_folder(made, tmp_path):
    root, report, _ = made
    packed = tmp_path / "test.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted((root / "test").rglob("*")):
            archive.write(path, f"wrapper/{path.relative_to(root)}")
    single = next((root / "test" / "red").glob("*.avif"))
    whole, about = predict.from_files(report / "model.onnx", [root / "test"])
    zipped, _ = predict.from_files(report / "model.onnx", [packed, single])
    np.testing.assert_allclose(zipped.probabilities[:-1], whole.probabilities, atol=1e-6)
    place = whole.files.index(str(single))
    np.testing.assert_allclose(zipped.probabilities[-1], whole.probabilities[place], atol=1e-6)
    assert zipped.actual[:-1] == whole.actual
    assert about.class_names == tuple(COLOURS)


def test_images_without_labels_are_named_by_the_run(made):
    root, report, outcome = made
    assert len(outcome.check.unlabelled) == 3
    found = rows(report / "predictions.csv")
    assert set(found) == {f"unlabelled/{i}.png" for i in range(3)}
    again, _ = predict.from_files(report / "model.onnx", [root / "unlabelled"])
    np.testing.assert_allclose(
        [float(r["probability"]) for r in found.values()], again.probabilities.max(axis=1), atol=1e-6
    )


def test_what_cannot_be_read_is_named(made, tmp_path):
    _, report, _ = made
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "words.png").write_text("words")
    (tmp_path / "film.mp4").write_bytes(b"x")
    Image.fromarray(pixels("red", 1)).save(tmp_path / "=1+1.png")
    result = call(report / "model.onnx", tmp_path, "--out", tmp_path / "n.csv")
    assert result.exit_code == 0
    for words in ("empty.jpg: empty file", "words.png: not an image", "2 could not be read", "1 .mp4 file"):
        assert words in result.output
    assert rows(tmp_path / "n.csv")[f"{tmp_path}/empty.jpg"]["error"] == "empty file"
    (tmp_path / "=1+1.png").unlink()
    assert call(report / "model.onnx", tmp_path).exit_code == 1


def test_answers_can_be_called_unsure(made):
    root, report, _ = made
    assert "42 of them unsure" in call(report / "model.onnx", root / "test", "--unsure-below", 1).output
    assert " 0 of them unsure" in call(report / "model.onnx", root / "test", "--unsure-below", 0).output


def test_unsure_is_what_was_wrong_or_never_right():
    y = np.array([0] * 40)
    sure = np.linspace(0.99, 0.6, 40)
    p = np.stack([sure, 1 - sure], axis=1)
    assert calibration.unsure_below(y, p) == pytest.approx(0.6)
    y[-10:] = 1
    bound = calibration.unsure_below(y, p)
    answered = p.max(axis=1) >= bound
    assert np.mean(y[answered] == 0) >= 0.95
    assert answered.sum() >= 30
    assert calibration.unsure_below(np.ones(5, int), p[:5]) == 1


def test_a_model_says_what_it_is(made):
    _, report, outcome = made
    found = [model_file.read(report / name)[1] for name in ("model.keras", "model.onnx")]
    assert found[0] == found[1]
    assert found[0].class_names == outcome.class_names
    assert found[0].white == outcome.check.white == 4095
    assert found[0].unsure_below == outcome.unsure_below
    assert (found[0].made, found[0].accuracy) == (outcome.date, outcome.accuracy)


def rewritten(source: Path, to: Path, text: str | None) -> Path:
    """A .keras file that says something else of itself, or nothing."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(to, "w") as new:
        for member in old.namelist():
            if member != "tlhelpers.json":
                new.writestr(member, old.read(member))
        if text is not None:
            new.writestr("tlhelpers.json", text)
    return to


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (None, "does not say which classes it names"),
        ({"format": 99, "version": "9.9"}, "was made by tlhelpers 9.9"),
        ({"class_names": None}, "is damaged"),
        ("[1, 2", "is damaged"),
    ],
    ids=["a model from elsewhere", "a later version", "names that are none", "half a description"],
)
def test_a_model_that_cannot_be_read_rightly_is_refused(made, tmp_path, change, words):
    root, report, _ = made
    with zipfile.ZipFile(report / "model.keras") as archive:
        said = json.loads(archive.read("tlhelpers.json"))
    text = json.dumps(said | change) if isinstance(change, dict) else change
    model = rewritten(report / "model.keras", tmp_path / "model.keras", text)
    result = call(model, root / "test")
    assert result.exit_code == 1
    assert words in result.output


def test_fields_of_a_later_version_of_the_same_format_are_no_harm(made, tmp_path):
    _, report, _ = made
    with zipfile.ZipFile(report / "model.keras") as archive:
        said = json.loads(archive.read("tlhelpers.json"))
    model = rewritten(report / "model.keras", tmp_path / "m.keras", json.dumps(said | {"more": 1}))
    assert model_file.read(model)[1] == model_file.read(report / "model.keras")[1]


@pytest.mark.parametrize(
    ("model", "pictures", "words"),
    [
        ("gone.onnx", "test", "There is no model file"),
        ("report.html", "test", "is no model file"),
        ("broken.onnx", "test", "cannot be read as an ONNX file"),
        ("broken.keras", "test", "is no model file"),
        ("model.onnx", "gone", "There is no file or folder"),
        ("model.onnx", "empty", "There is no picture in"),
    ],
)
def test_what_cannot_be_done_gets_a_clear_word(made, model, pictures, words):
    root, report, _ = made
    (report / "broken.onnx").write_bytes(b"x")
    (report / "broken.keras").write_bytes(b"x")
    (root.parent / "empty").mkdir(exist_ok=True)
    where = root.parent / "empty" if pictures == "empty" else root / pictures
    result = call(report / model, where)
    assert result.exit_code == 1
    assert words in result.output


def test_ground_truth_needs_folders_called_like_classes(made, tmp_path):
    _, report, _ = made
    Image.fromarray(pixels("red", 1)).save(tmp_path / "a.png")
    result = call(report / "model.onnx", tmp_path / "a.png", "--ground-truth")
    assert result.exit_code == 1
    assert "no picture lies" in result.output


# --- sixteen bits ---


@pytest.mark.parametrize("top", [255, 1023, 4095, 16383, 65535])
def test_sixteen_bits_lose_nothing_against_eight(tmp_path, top):
    x = pixels("red", 3).mean(axis=2)
    x = x - x.min()
    x = x / x.max() * 255
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.fromarray((x / 255 * top).astype(np.uint16)).save(tmp_path / name / f"{i}.png")
    found = data.load(tmp_path).x_train[0, :, :, 0]
    assert np.abs(found.astype(float) - x).max() <= 1.01


@pytest.mark.parametrize(
    ("kind", "low", "top"),
    [
        *(("f4", 0, top) for top in (1, 255, 4095)),
        *(("f4", -1, 1), ("f4", -1000, 1000), ("i4", 0, 4095), ("i4", 0, 2**20 - 1), ("i4", -1000, 1000)),
    ],
)
def test_pictures_of_32_bits_use_the_range_that_they_have(tmp_path, kind, low, top):
    x = np.linspace(0, 255, 400).reshape(20, 20)
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(3):
            deep = (np.roll(x, i, 0) / 255 * (top - low) + low).astype(kind)
            Image.fromarray(deep).save(tmp_path / name / f"{i}.tif")
    found = data.load(tmp_path).x_train[0, :, :, 0].astype(float)
    assert np.abs(np.sort(found.ravel()) - x.ravel()).max() <= 2


def test_a_dark_picture_stays_dark_among_others_of_its_range(made):
    from tlhelpers.data import folder_check

    root, _, _ = made
    ds, check = folder_check.load(root, 8)
    assert check.white == 4095
    name = next(n for n in check.files["train"] if "ten.tif" in n)
    seen = ds.x_train[check.files["train"].index(name)]
    assert seen.max() <= 64, "10 bits among pictures of 12: a quarter of the range"
