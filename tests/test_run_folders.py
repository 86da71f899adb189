"""`tlhelpers run` on folders as people bring them: nothing goes by a guess, and what it says is true."""

import functools
import inspect
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

import tiny
from test_run import COLOURS, fill, made_up, picture, tidy_machine  # noqa: F401
from tlhelpers import data, decision, finetune, heads, recipes
from tlhelpers.app import cli, commands, methods, report, verdict
from tlhelpers.app import run as pipeline
from tlhelpers.data import folder_check


@pytest.fixture
def command(monkeypatch):
    """The command `tlhelpers run`, with the network of two blocks."""
    quick = functools.partial(pipeline.from_folder, border="block1", backbone=tiny.make_backbone())
    monkeypatch.setattr(pipeline, "from_folder", quick)

    def call(*arguments):
        result = CliRunner().invoke(cli.app, ["run", *map(str, arguments)])
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return re.sub(r"\s+", " ", result.output), result.exit_code

    return call


# --- one camera ---


def scene(seed: int) -> Image.Image:
    return picture((120, 130, 110), seed, (160, 120)).resize((160, 120), Image.Resampling.BICUBIC)


def moments(folder: Path, n: int, marked: bool, seed: int = 0, places=(0,)) -> None:
    """Pictures of one camera, or of several: the same scene with noise, with or without a thing in it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed + marked)
    for i in range(n):
        im = scene(places[i % len(places)])
        if marked:
            x, y = 70 + int(rng.integers(-3, 4)), 50 + int(rng.integers(-3, 4))
            ImageDraw.Draw(im).rectangle(
                [x, y, x + 18, y + 12], fill=tuple(int(v) for v in rng.integers(0, 255, 3))
            )
        noisy = np.asarray(im).astype(float) * (1 + rng.normal(0, 0.02)) + rng.normal(0, 4, (120, 160, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{i:03}.jpg", quality=88)


@pytest.mark.parametrize("policy", ["group", "keep"])
def test_a_camera_that_does_not_move_loses_no_picture(tmp_path, policy):
    for marked, name in enumerate(("free", "occupied")):
        moments(tmp_path / "parking" / name, 32, bool(marked))
    _, check = folder_check.load(tmp_path / "parking", 8, copies=policy)
    assert check.n_images == 64
    assert not check.left_out
    said = " ".join(check.notes())
    assert "label" not in said
    assert "free" in check.scenes
    assert "camera that does not move" in said


def test_several_cameras_are_kept_apart_and_used(tmp_path):
    for marked, name in enumerate(("ok", "scratched")):
        moments(tmp_path / "parts" / name, 48, bool(marked), places=range(8))
    _, check = folder_check.load(tmp_path / "parts", 8)
    assert check.n_images == 96
    assert not check.left_out
    if not check.scenes:
        sides = {check.groups[n]: set() for names in check.files.values() for n in names}
        for split, names in check.files.items():
            for name in names:
                sides[check.groups[name]].add(split)
        assert max(map(len, sides.values())) == 1


def test_a_few_pictures_saved_again_stay_on_one_side(tmp_path):
    folder = fill(tmp_path / "colours", n=30, size=(200, 160))
    for i in range(4):
        Image.open(folder / "blue" / f"{i}.png").save(folder / "blue" / f"again{i}.jpg", quality=70)
    for seed in range(3):
        _, check = folder_check.load(folder, 8, seed=seed)
        assert check.n_images == 94
        side = {name: split for split, names in check.files.items() for name in names}
        assert all(side[f"blue/{i}.png"] == side[f"blue/again{i}.jpg"] for i in range(4))
        shares = np.array(
            [[check.counts[s][c] for c in COLOURS if c != "white"] for s in ("train", "val", "test")]
        )
        assert (np.abs(shares / shares.sum(axis=0) - [[0.72], [0.08], [0.2]]) < 0.07).all()


def test_equal_files_of_one_class_are_used_once(tmp_path):
    folder = fill(tmp_path / "colours", n=10)
    for i in range(3):
        (folder / "red" / f"again{i}.png").write_bytes((folder / "red" / "0.png").read_bytes())
    _, check = folder_check.load(folder, 8)
    assert set(check.left_out) == {"red/again0.png", "red/again1.png", "red/again2.png"}
    _, kept = folder_check.load(folder, 8, copies="keep")
    assert kept.n_images == 33
    with pytest.raises(ValueError, match="one of group, keep, drop"):
        folder_check.load(folder, 8, copies="forget")


def test_look_alikes_never_keep_a_class_from_being_split(tmp_path):
    """Three pictures of a class of five are one picture saved thrice: a guess stops nothing."""
    folder = fill(tmp_path / "colours", ("blue", "red"), n=12, size=(200, 160))
    for i in range(3):
        (folder / "green").mkdir(exist_ok=True)
        Image.open(folder / "blue" / "0.png").save(folder / "green" / f"{i}.jpg", quality=60 + i)
    _, check = folder_check.load(folder, 8)
    assert sum(split["green"] for split in check.counts.values()) == 3
    assert all(split["green"] for split in check.counts.values())
    assert "green" in check.scenes


def test_a_test_that_is_the_training_is_no_test(tmp_path):
    for split in ("train", "test"):
        fill(tmp_path / "set" / split, n=6)
    with pytest.raises(data.DataError, match="copy of a test"):
        folder_check.load(tmp_path / "set", 8)
    _, check = folder_check.load(tmp_path / "set", 8, copies="keep")
    assert len(check.leaks) == 18


# --- what is no part of what is shown ---


def test_a_trait_that_gives_the_classes_away_is_said_and_weighs(tmp_path):
    folder = fill(tmp_path / "set", ("blue", "red"), n=12)
    assert not folder_check.load(folder, 8)[1].tells
    for path in (folder / "red").iterdir():
        Image.open(path).convert("L").resize((30, 20)).save(path.with_suffix(".jpg"))
        path.unlink()
    tells = folder_check.load(folder, 8)[1].tells
    for words in (
        "in their colour: those of blue are coloured and those of red are grey",
        "in their size: those of blue are 20 x 16 pixels large and those of red are 30 x 20",
        "in their kind of file: those of blue are .png files and those of red are .jpg files",
    ):
        assert words in " ".join(tells)
    found = judged(0.98, check={"tells": tells})
    assert found.level == "fair"
    assert found.reasons == tells


def test_files_of_several_pictures_are_said(tmp_path):
    folder = fill(tmp_path / "set", ("blue", "red"), n=4)
    pages = [picture(COLOURS["red"], 50 + i) for i in range(3)]
    for name in ("pages.tif", "film.gif", "film.webp"):
        pages[0].save(folder / "red" / name, save_all=True, append_images=pages[1:])
    assert "3 files hold several" in " ".join(folder_check.load(folder, 8)[1].said)


@pytest.mark.parametrize("colour", [(3, 2, 9), (120, 120, 120)], ids=["nearly black", "one colour"])
def test_pictures_that_show_nothing_are_said(tmp_path, colour):
    folder = fill(tmp_path / "set", ("blue", "red"), n=9)
    for i in range(4):
        Image.new("RGB", (9 + i, 9), colour).save(folder / "red" / f"mask{i}.png")
    assert "4 of 22 pictures" in " ".join(folder_check.load(folder, 8)[1].said)


# --- groups ---

GROUPS = {
    "the beginning of the name": (r"/(p\d+)_", lambda name: name.split("/")[1].split("_")[0]),
    "a table": ("groups.csv", lambda name: name.split("/")[1].split("_")[0]),
}


@pytest.mark.parametrize(("rule", "group_of"), GROUPS.values(), ids=GROUPS)
@pytest.mark.parametrize("seed", [0, 1])
def test_patients_stay_on_one_side(tmp_path, rule, group_of, seed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = ["file,patient"]
    for k, name in enumerate(("ill", "well")):
        (tmp_path / "xray" / name).mkdir(parents=True)
        for p in range(12):
            for i in range(4):
                file = f"p{p}_{i}.png"
                picture(COLOURS["red"], 1000 * k + 10 * p + i).save(tmp_path / "xray" / name / file)
                lines.append(f"{name}/{file},p{p}")
    Path("groups.csv").write_text("\n".join(lines))
    _, check = folder_check.load(tmp_path / "xray", 8, seed=seed, group=rule)
    patients = {split: {group_of(name) for name in names} for split, names in check.files.items()}
    assert check.n_images == 96
    assert not patients["train"] & patients["test"]
    assert not patients["train"] & patients["val"]
    assert 0.1 < sum(check.counts["test"].values()) / 96 < 0.3


def test_one_group_a_class_cannot_be_split(tmp_path):
    folder = fill(tmp_path / "colours", n=10)
    with pytest.raises(data.DataError, match="blue, green, red belong"):
        folder_check.load(folder, 8, group="^(blue|green|red)")
    for rule, words in (
        ("(", "no regular expression"),
        ("nothing", "fits no file"),
        ("g.csv", "no such file"),
    ):
        with pytest.raises(data.DataError, match=words):
            folder_check.load(folder, 8, group=rule)


def test_groups_are_kept_in_cross_validation(tmp_path):
    """Pictures that only their group's number tells apart: across groups nothing can be learned of them."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(("a", "b")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for g in range(6):
            colour = rng.integers(30, 220, 3)
            for i in range(4):
                noisy = np.clip(colour + rng.normal(0, 12, (12, 12, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(noisy).save(tmp_path / "set" / name / f"g{6 * k + g}_{i}.png")
    found = {}
    for rule in (None, r"/(g\d+)_"):
        outcome = pipeline.from_folder(
            tmp_path / "set",
            tmp_path / f"out{rule is None}",
            backbone=tiny.make_backbone(),
            group=rule,
            copies="keep",
        )
        assert outcome.cross_validated
        found[rule] = outcome.accuracy
    assert found[None] > found[r"/(g\d+)_"] + 0.15


# --- files ---


def test_many_files_of_one_kind_that_cannot_be_read_are_said_on_the_terminal(tmp_path, command):
    folder = fill(tmp_path / "colours", n=10)
    for name in ("blue", "red"):
        for i in range(20):
            (folder / name / f"IMG_{i}.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
        (folder / name / "raw.NEF").write_bytes(b"x")
    said, code = command(folder, "--out", tmp_path / "report")
    assert code == 0
    assert "left out (40 .heic)" in said
    assert "2 .nef files are not used" in said


def test_files_beside_the_pictures_are_said(tmp_path):
    folder = fill(tmp_path / "colours", n=4)
    for name in ("a.part", "b.part", "c.xyz", "notes.txt", "d.aae", "Thumbs.db", ".hidden.part"):
        (folder / "red" / name).write_bytes(b"x")
    assert "2 .part and 1 .xyz." in " ".join(folder_check.load(folder, 8)[1].said)


def packed(path: Path, mode: str, folder: Path) -> Path:
    with tarfile.open(path, mode) as archive:
        archive.add(folder, "wrapper/set")
    return path


@pytest.mark.parametrize("name", ["set.tar", "set.tgz", "set.gz", "set.zip", "set"])
def test_an_archive_is_known_by_its_content(tmp_path, name):
    folder = fill(tmp_path / "colours", n=4)
    found = data.load(packed(tmp_path / name, "w" if name == "set.tar" else "w:gz", folder), image_size=8)
    assert found.class_names == ("blue", "green", "red")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.7z", b"7z\xbc\xaf", "7z archive"),
        ("a.rar", b"Rar!\x1a", "RAR archive"),
        ("a.zip", b"Rar!\x1a", "not a readable zip"),
        ("a.csv", b"file,label", "say --labels a.csv"),
        ("a.jpg", b"\xff\xd8\xff", "with one picture"),
        ("folder/train.zip", b"PK", "archives (train.zip)"),
    ],
)
def test_other_files_are_refused_with_the_reason(tmp_path, name, content, words):
    (tmp_path / "folder").mkdir()
    (tmp_path / name).write_bytes(content)
    for load in (data.load, folder_check.load):
        with pytest.raises(data.DataError, match=re.escape(words)):
            load(tmp_path / name.partition("/")[0])


def test_telephone_pictures_are_read(tmp_path):
    pillow_heif = pytest.importorskip(
        "pillow_heif", reason="pillow-heif is not installed: pip install tlhelpers[app]"
    )
    folder = fill(tmp_path / "colours", n=4)
    for name in ("blue", "green", "red"):
        for i in range(3):
            image = picture(COLOURS[name], 700 + i, (64, 48))
            pillow_heif.from_pillow(image).save(folder / name / f"{i}.HEIC", quality=90)
    _, check = folder_check.load(folder, 8)
    assert check.n_images == 21
    assert not check.unreadable


def test_without_pillow_heif_the_reason_says_what_to_install(monkeypatch):
    from tlhelpers.data import pictures
    from tlhelpers.data._scan import why_not

    assert pictures.decoder_source()
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    why = why_not(Image.UnidentifiedImageError("x"), b"\0\0\0\x18ftypheic" + bytes(20))
    monkeypatch.setitem(Image.OPEN, "HEIF", None)
    assert "damaged" in why_not(Image.UnidentifiedImageError("x"), b"\0\0\0\x18ftypheic" + bytes(20))
    assert 'pip install "tlhelpers[app]"' in why


# --- what the command is told ---


def test_the_commands_flags_reach_the_folder(tmp_path, command):
    for part, first in (("one", 0), ("two", 100)):
        fill(tmp_path / "set" / part, n=10, first=first)
    out = tmp_path / "report"
    said, code = command(tmp_path / "set", "--out", out)
    assert code == 1
    assert "--train one --test two" in said
    said, code = command(tmp_path / "set", "--out", out, "--train", "one", "--test", "two", "--time", "5m")
    assert code == 0
    assert "of 30 test images" in said
    said, code = command(tmp_path / "set", "--out", out, "--classes-from", "2", "--overwrite")
    assert code == 0
    assert "of 60 images" in said


def test_a_class_that_cannot_be_tested_is_left_out_when_asked(tmp_path, command):
    fill(tmp_path / "set" / "train", n=10)
    fill(tmp_path / "set" / "test", ("blue", "red"), n=10, first=200)
    (tmp_path / "set" / "train" / "odd").mkdir()
    picture((1, 2, 3), 0).save(tmp_path / "set" / "train" / "odd" / "0.png")
    said, code = command(tmp_path / "set", "--out", tmp_path / "report")
    assert code == 1
    assert "Only in train: green, odd" in said
    said, code = command(tmp_path / "set", "--out", tmp_path / "report", "--skip-small")
    assert code == 0
    assert "The class green is left out: it is missing in test" in said
    assert (tmp_path / "report" / "classes.txt").read_text().split() == ["blue", "red"]


def test_a_class_of_corrupt_files_is_left_out_when_asked(tmp_path, command):
    folder = fill(tmp_path / "colours")
    for path in (folder / "green").iterdir():
        path.write_bytes(b"x")
    said, code = command(folder, "--out", tmp_path / "report", "--skip-small")
    assert code == 0
    assert "green is left out" in said


def test_labels_from_a_table_and_names_for_the_rest(tmp_path, command):
    lines = ["image_id,label"]
    for split, n, first in (("train", 10, 0), ("test", 4, 500)):
        (tmp_path / "set" / split).mkdir(parents=True)
        for k, name in enumerate(("blue", "red")):
            for i in range(n):
                stem = f"{split}_{k}{i}"
                picture(COLOURS[name], 1000 * k + i + first).save(tmp_path / "set" / split / f"{stem}.png")
                lines += [f"{stem},{name}"] if split == "train" else []
    (tmp_path / "set" / "train.csv").write_text("\n".join(lines))
    said, code = command(tmp_path / "set", "--out", tmp_path / "report")
    assert code == 0
    assert "column label: 20 images" in said
    assert "predictions.csv" in said
    assert len((tmp_path / "report" / "predictions.csv").read_text().splitlines()) == 9


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1h", 3600), ("0.5 min", 30), ("7", 7)]
)
def test_a_budget_is_read(text, seconds):
    assert commands._seconds(text) == seconds


def test_a_budget_that_is_none_is_refused(tmp_path, command):
    for text in ("soon", "0s", "-3m"):
        said, code = command(fill(tmp_path / "colours"), "--out", tmp_path / "report", f"--time={text}")
        assert code == 1
        assert "say it as 90s, 5m or 1h" in said


# --- few and many images, time ---


def test_few_images_are_cross_validated_and_all_are_used(tmp_path):
    outcome = pipeline.from_folder(
        fill(tmp_path / "colours", n=5), tmp_path / "report", backbone=tiny.make_backbone()
    )
    assert outcome.cross_validated
    assert len(outcome.y_test) == 15
    assert outcome.check.counts["train"] == {"blue": 5, "green": 5, "red": 5}
    assert outcome.candidates[0].val_accuracy == outcome.accuracy
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "cross-validated in 5" in text
    assert "test image" not in re.sub(r"(?s)<section aria-labelledby=.words.*", "", text).replace(
        "Test images</dt>", ""
    )


@pytest.mark.parametrize(("n", "names"), [(29, 1), (30, 2)])
def test_the_number_of_images_decides_what_is_tried(tmp_path, n, names):
    outcome = pipeline.from_folder(
        fill(tmp_path / "colours", n=n), tmp_path / "report", backbone=tiny.make_backbone(), epochs=0
    )
    assert len(outcome.candidates) == names


def test_each_number_of_images_has_one_choice():
    borders = [choice.below for choice in methods.CHOICES]
    assert borders == sorted(borders)
    assert borders[-1] == float("inf")
    assert all(choice.why for choice in methods.CHOICES)


def test_what_is_tried_is_what_the_table_advises(monkeypatch):
    """From where there are images to choose by: near photographs, which is what most people have."""
    names = {"linear probe": {"probe"}, "several depths": {"depths"}, "fine-tuning": {"top_blocks"}}
    for n in (methods.ENOUGH, 100, 1000):
        tried = methods.choice_for(n).methods
        assert decision.advise(n).method in set.union(*(names[name] for name in tried))
    followed = []
    monkeypatch.setattr(finetune, "fine_tune", lambda *args, **options: followed.append(args))
    monkeypatch.setattr(finetune, "freeze", lambda backbone, up_to: followed.append(up_to))
    f, y = np.random.default_rng(0).normal(size=(24, 4)), tiny.make_dataset().y_train
    probe = heads.linear_probe(f, y, f, y)
    border = inspect.signature(pipeline.from_folder).parameters["border"].default
    methods._tuned(tiny.make_dataset(), probe, 5, settings(border=border), lambda done: None)
    assert followed[0] == decision.BORDER
    assert followed[1][2] == recipes.Recipe(epochs=5)


def settings(**changes):
    fields = {"backbone": tiny.make_backbone(), "seed": 0, "epochs": 4, "mirror": True, "border": "block1"}
    return methods.Settings(**fields | {"deadline": float("inf"), "step": None} | changes)


def test_a_budget_takes_fewer_images_or_none_and_says_so(monkeypatch):
    monkeypatch.setattr(methods.time, "perf_counter", lambda: 0.0)
    ds = replace(tiny.make_dataset(), x_train=tiny.images(600), y_train=np.arange(600) % 3)
    part, epochs, note = methods._affordable(ds, 4, 0.01, settings())
    assert (len(part.y_train), epochs, note) == (600, 4, "")
    part, epochs, note = methods._affordable(ds, 4, 0.01, settings(deadline=33.0))
    assert (len(part.y_train), epochs) == (600, 3)
    assert "took 600 of 600 training images, 3 times each: the time allows" in note
    part, epochs, note = methods._affordable(ds, 4, 0.01, settings(deadline=6.0))
    assert (len(part.y_train), epochs) == (120, 3)
    assert "took 120 of 600 training images, 3 times each: the time allows" in note
    part, _, note = methods._affordable(ds, 4, 0.01, settings(deadline=0.5))
    assert part is None
    assert "left out: the time" in note


# --- the verdict ---


def judged(accuracy: float, n: int = 200, k: int = 2, **changes):
    """The verdict on a model that names so many of the images rightly."""
    outcome, _, _ = made_up(k, n)
    y = np.arange(n) % k
    wrong = np.arange(n) >= round(accuracy * n)
    p = np.full((n, k), 0.05)
    p[np.arange(n), np.where(wrong, (y + 1) % k, y)] = 1 - 0.05 * (k - 1)
    check = replace(outcome.check, copies=(), left_out={}, unreadable={}, **changes.pop("check", {}))
    return verdict.judge(replace(outcome, y_test=y, probabilities=p, check=check, **changes))


def test_a_good_model_is_usable():
    found = judged(0.98)
    assert found.level == "good"
    assert found.headline.startswith("Usable. Of 100 new pictures like these, it names about 98 rightly")
    assert not found.reasons


def test_no_better_than_the_most_frequent_class_is_said():
    found = judged(0.52)
    assert found.level == "bad"
    assert "Not usable" in found.headline
    assert "not shown to be better than always naming class <0>" in found.reasons[0]
    assert "are the labels right" in found.to_do[0]


def test_a_test_far_below_validation_is_no_surprise_to_keep():
    shipped = {"shipped": ("train", "test")}
    assert judged(
        0.6, check=shipped, n_val=300, candidates=(methods.Candidate("fine-tuning", 0.94, 1.0),)
    ).shifted
    found = judged(0.6, check=shipped, n_val=300, candidates=(methods.Candidate("fine-tuning", 0.94, 1.0),))
    assert any("another kind (camera, place, time), or their labels are wrong" in r for r in found.reasons)
    assert not judged(
        0.92, check=shipped, n_val=300, candidates=(methods.Candidate("fine-tuning", 0.94, 1.0),)
    ).shifted
    assert not judged(
        0.6, check=shipped, n_val=6, candidates=(methods.Candidate("fine-tuning", 0.8, 1.0),)
    ).shifted


def test_the_weakest_class_and_what_to_do_are_named():
    found = judged(0.75, n=400)
    assert "taken for" in found.weakest
    assert any("Take more training pictures of" in step for step in found.to_do)
    assert any("it has 600)" in step for step in found.to_do), "what the reader has, not what was trained on"
    assert any("Look at these labels" in step for step in found.to_do)
    assert judged(1.0).weakest == ""


def test_leaks_and_scenes_speak_against_a_figure():
    leaks = tuple(f"{k}.png" for k in range(3))
    found = judged(0.98, check={"leaks": leaks, "scenes": ("a",)})
    assert len(found.reasons) == 2
    assert "Without them it is" in found.reasons[1]


def test_a_test_of_copies_shows_nothing():
    found = judged(1.0, check={"leaks": tuple(f"{k}.png" for k in range(200))})
    assert found.level == "bad"
    assert "most of the test pictures are like those that it learned from" in found.headline
    assert "There are no others" in found.reasons[0]


def test_the_verdict_comes_first_and_temperature_claims_only_what_it_did():
    outcome, x, _ = made_up()
    text = report.html(outcome, x, x)
    assert text.index("What to do next") < text.index("What this means")
    assert text.count("as the model sees it") == report.SAMPLES
    worse = replace(outcome, temperature=0.2, probabilities=outcome.uncalibrated())
    both = [report.html(o, x) for o in (outcome, worse)]
    assert sum("It did not help on the test images" in t for t in both) == 1
    for word in ("Calibration error", "Cross-validation", "95 % interval"):
        assert f"<dt>{word}</dt>" in text
