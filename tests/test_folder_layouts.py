"""Which folders are classes and which are splits, on names alone: what people's data sets look like."""

from pathlib import Path

import pytest

from tlhelpers.data import DataError, Layout
from tlhelpers.data._listing import Listing, listed


def sort(spec: str, layout: Layout | None = None, tables: dict[str, str] | None = None) -> Listing:
    """Sort a made-up data set: each word is a folder with a number of images, ``a/b:3``, or a file."""
    files, folders = [], set()
    for word in spec.split():
        path, _, n = word.replace("~", " ").partition(":")
        files += [f"{path}/{i}.jpg" for i in range(int(n))] if n else [] if path.endswith("/") else [path]
        folders |= {path.rstrip("/")} if n or path.endswith("/") else set()
    contents = {name: text.encode() for name, text in (tables or {}).items()}
    files += [*contents]
    folders |= {"/".join(f.split("/")[:i]) for f in files for i in range(1, f.count("/") + 1)}
    folders |= {"/".join(f.split("/")[:i]) for f in folders for i in range(1, f.count("/") + 1)}
    return listed(
        files,
        sorted(folders),
        lambda n: contents.get(n, b""),
        layout or Layout(),
        "set/",
        Path("/nowhere/set"),
    )


def counts(found: Listing) -> dict[str, str]:
    """Class and number of images of each split, as words."""
    return {
        split: " ".join(f"{c}:{len(classes[c])}" for c in found.class_names)
        for split, classes in found.by_class.items()
    }


# --- levels that are no class ---

READ = {
    "Training and Testing": ("Training/a:5 Training/b:5 Testing/a:2 Testing/b:2", "a:5 b:5", "a:2 b:2"),
    "a wrapper around capitals": (
        "brain/TRAIN/a:5 brain/TRAIN/b:5 brain/TEST/a:2 brain/TEST/b:2",
        "a:5 b:5",
        "a:2 b:2",
    ),
    "doubled folders": (
        "seg_train/seg_train/a:5 seg_train/seg_train/b:5 seg_test/seg_test/a:2 seg_test/seg_test/b:2",
        *("a:5 b:5", "a:2 b:2"),
    ),
    "set behind the word": (
        "d/training_set/a:5 d/training_set/b:5 d/test_set/a:2 d/test_set/b:2",
        "a:5 b:5",
        "a:2 b:2",
    ),
    "doubled sets": (
        "training_set/training_set/a:5 training_set/training_set/b:5 test_set/test_set/a:2 "
        "test_set/test_set/b:2",
        *("a:5 b:5", "a:2 b:2"),
    ),
    "camel case": ("TrainData/a:5 TrainData/b:5 TestData/a:2 TestData/b:2", "a:5 b:5", "a:2 b:2"),
    "words in front": (
        "flowers-train/a:5 flowers-train/b:5 flowers-test/a:2 flowers-test/b:2",
        "a:5 b:5",
        "a:2 b:2",
    ),
    "years": ("train2017/a:5 train2017/b:5 test2017/a:2 test2017/b:2", "a:5 b:5", "a:2 b:2"),
    "numbers in front": ("1_train/a:5 1_train/b:5 2_test/a:2 2_test/b:2", "a:5 b:5", "a:2 b:2"),
    "images in a folder of their own": (
        "train/images/a:5 train/images/b:5 test/images/a:2 test/images/b:2",
        *("a:5 b:5", "a:2 b:2"),
    ),
    "splits below images": (
        "images/train/a:5 images/train/b:5 images/test/a:2 images/test/b:2",
        "a:5 b:5",
        "a:2 b:2",
    ),
    "another language": ("训练集/a:5 训练集/b:5 测试集/a:2 测试集/b:2", "a:5 b:5", "a:2 b:2"),
    "a second test of many things": (
        "Training/a:5 Training/b:5 Test/a:2 Test/b:2 test-multiple_fruits:7",
        *("a:5 b:5", "a:2 b:2"),
    ),
    "the set once more inside": (
        "x/train/a:5 x/train/b:5 x/test/a:2 x/test/b:2 x/x/train/a:5 x/x/train/b:5 x/x/test/a:2 x/x/test/b:2",
        *("a:5 b:5", "a:2 b:2"),
    ),
    "splits inside of classes": ("a/train:5 a/test:2 b/train:5 b/test:2", "a:5 b:5", "a:2 b:2"),
    "split and class in one name": ("train_a:5 train_b:5 test_a:2 test_b:2", "a:5 b:5", "a:2 b:2"),
    "the whole set in a folder called test": (
        "test/train/a:5 test/train/b:5 test/test/a:2 test/test/b:2",
        "a:5 b:5",
        "a:2 b:2",
    ),
    "Daisy and daisy": (
        "train/Daisy:5 train/iris:5 test/daisy:2 test/Iris:2",
        "Daisy:5 iris:5",
        "Daisy:2 iris:2",
    ),
    "blanks and underscores": (
        "train/sun~flower:5 train/b:5 test/sun_flower:2 test/b:2",
        "b:5 sun flower:5",
        "b:2 sun flower:2",
    ),
    "words with accents": ("entraînement/a:5 entraînement/b:5 essai/a:2 essai/b:2", "a:5 b:5", "a:2 b:2"),
    "Japanese": ("訓練データ/a:5 訓練データ/b:5 テストデータ/a:2 テストデータ/b:2", "a:5 b:5", "a:2 b:2"),
    "Korean": ("학습/a:5 학습/b:5 테스트/a:2 테스트/b:2", "a:5 b:5", "a:2 b:2"),
    "Russian": ("обучение/a:5 обучение/b:5 тест/a:2 тест/b:2", "a:5 b:5", "a:2 b:2"),
    "a set beside pictures of its repository": (
        "assets:5 docs/img:3 data/train/a:5 data/train/b:5 data/test/a:2 data/test/b:2",
        *("a:5 b:5", "a:2 b:2"),
    ),
}


@pytest.mark.parametrize(("spec", "train", "test"), READ.values(), ids=READ)
def test_folders_called_like_splits_are_splits(spec, train, test):
    assert counts(sort(spec)) == {"train": train, "test": test}


WITHOUT = {
    "class folders": ("a:5 b:5", "a:5 b:5"),
    "a wrapper": ("flower_photos/a:5 flower_photos/b:5", "a:5 b:5"),
    "two wrappers, and words beside them": ("x/y/a:5 x/y/b:5 x/README.md x/y/LICENSE.txt", "a:5 b:5"),
    "a wrapper called like a split of something": ("flowers-train/a:5 flowers-train/b:5", "a:5 b:5"),
    "only training": ("Training/a:5 Training/b:5", "a:5 b:5"),
    "classes with the words of splits": ("test~tube:5 train~station:5", "test tube:5 train station:5"),
    "a train among vehicles": ("car:5 plane:5 train:5", "car:5 plane:5 train:5"),
    "days inside of classes": ("cat/2023-01-05:3 cat/2023-01-06:2 dog/2023-02-07:5", "cat:5 dog:5"),
    "films inside of classes": ("run/v1:3 run/v2:2 walk/v3:5", "run:5 walk:5"),
    "faces by number": ("s1:5 s2:5", "s1:5 s2:5"),
    "the set once more beside its classes": ("yes:5 no:5 brain/yes:5 brain/no:5", "no:5 yes:5"),
    "one folder in each class": ("cat/images:5 dog/images:5", "cat:5 dog:5"),
    "masks beside the images": ("ill/images:5 ill/masks:5 well/images:5 well/masks:5", "ill:5 well:5"),
    "what a network drive leaves": ("a:5 b:5 a/@eaDir:4 @eaDir:3 b/.thumbs:2", "a:5 b:5"),
    "an empty folder": ("a:5 b:5 todo/", "a:5 b:5"),
}


@pytest.mark.parametrize(("spec", "train"), WITHOUT.values(), ids=WITHOUT)
def test_folders_that_are_classes_stay_classes(spec, train):
    assert counts(sort(spec)) == {"train": train}


REFUSED = {
    "parts of one set": ("part1/a:5 part1/b:5 part2/a:5 part2/b:5", "--classes-from 2"),
    "versions of one set": ("color/a:5 color/b:5 gray/a:5 gray/b:5", "--train color"),
    "patients": ("p1/ill:5 p1/well:5 p2/ill:5 p2/well:5", "hold folders of the same names"),
    "years inside of classes": ("cat/2021:5 cat/2022:5 dog/2021:5 dog/2022:5", "--classes-from 1"),
    "parts below a wrapper": ("x/part1/a:5 x/part1/b:5 x/part2/a:5 x/part2/b:5", "--classes-from 3"),
    "test beside classes": ("test:5 daisy:5 iris:5", "--test test"),
    "valid and invalid": ("valid:5 invalid:5", "--classes-from 1"),
    "only a test set": ("Testing/a:5 Testing/b:5", "there is Testing/ but no train/"),
    "a test set beside another": ("Testing/a:5 Testing/b:5 dogs/a:5 dogs/b:5", "--train dogs --test Testing"),
    "two tests": ("train/a:5 train/b:5 test/a:5 test/b:5 Testing/a:5 Testing/b:5", "mean the same split"),
    "training images without classes": ("train:5 test/a:5 test/b:5", "train/ holds no class folders"),
    "no classes at all": ("train:5 test:5", "train/ holds no class folders"),
    "two spellings in one split": ("Daisy:5 daisy:5 iris:5", "differ only in spelling"),
    "splits inside of classes, and pictures beside them": (
        "a/train:5 a/test:2 a:1 b/train:5 b/test:2",
        "--classes-from 2",
    ),
    "splits inside of classes, and another folder": (
        "a/train:5 a/test:2 a/rest:2 b/train:5 b/test:2",
        "--classes-from 2",
    ),
    "splits inside of classes, without one to train on": (
        "a/test:5 a/val:2 b/val:3 b/test:2",
        "--classes-from 2",
    ),
    "nothing": ("", "no class folders"),
    "images alone": ("a.jpg b.jpg", "no class folders"),
    "one class": ("a:5", "only one class folder"),
    "classes and their kinds": ("cat/persian:3 cat/siamese:2 dog/beagle:5", "--classes-from 2"),
    "a set beside other pictures": ("assets:5 dataset/A:5 dataset/B:5", "--train dataset"),
    "kinds inside of splits": (
        "train/man/old:5 train/man/young:5 train/woman/old:5 train/woman/young:5 test/man/old:5",
        "--classes-from 3",
    ),
    "two sets with splits": (
        "raw/train/a:5 raw/train/b:5 big/train/a:5 big/train/b:5",
        "--train raw/train",
    ),
    "days": ("2023-01-05:5 2023-01-06:5", "and not like classes"),
    "years": ("2021/05:5 2021/06:5 2022/07:5", "--classes-from 2"),
    "patients alone": ("patient_01:5 patient_02:5", "--classes-from 1"),
    "patients with one finding each": ("p/patient1/ill:5 p/patient2/well:5", "--classes-from 3"),
    "parts without classes": ("fold1:5 fold2:5 fold3:5", "--labels FILE"),
    "folders of a camera": ("DCIM/100APPLE:5 DCIM/101APPLE:5", "and not like classes"),
    "a copy by Windows": ("cat:5 cat~-~Copy:5 dog:5", "differ only in spelling"),
    "a heap beside classes": ("cat:5 dog:5 unsorted:9", "--test unsorted"),
    "pictures and masks": ("images:5 masks:5", "as for segmentation, and no classes"),
    "splits of pictures and masks": (
        "train/image:5 train/labels:5 test/image:2 test/labels:2",
        "for segmentation",
    ),
    "boxes of a detector": ("images:5 labels/0.txt", "object detection"),
    "boxes in one file": ("train/0.jpg train/_annotations.coco.json", "object detection"),
}


@pytest.mark.parametrize(("spec", "words"), REFUSED.values(), ids=REFUSED)
def test_what_can_be_read_in_two_ways_is_refused_with_the_flag_that_decides(spec, words):
    with pytest.raises(DataError) as caught:
        sort(spec)
    assert words in str(caught.value)


DECIDED = {
    "parts": (
        "part1/a:5 part1/b:5 part2/a:2 part2/b:2",
        {"train": "part1", "test": "part2"},
        "a:5 b:5",
        "a:2 b:2",
    ),
    "one of two versions": ("color/a:5 color/b:5 gray/a:4 gray/b:4", {"train": "color"}, "a:5 b:5", ""),
    "several parts": (
        "f1/a:5 f1/b:5 f2/a:5 f2/b:5 f3/a:2 f3/b:2",
        *({"train": ("f1", "f2"), "test": "f3"}, "a:10 b:10", "a:2 b:2"),
    ),
    "the second level": ("p1/a:5 p1/b:5 p2/a:4 p2/b:4", {"classes_from": 2}, "a:9 b:9", ""),
    "the first level": (
        "cat/2021:5 cat/2022:5 dog/2021:5 dog/2022:5",
        {"classes_from": 1},
        "cat:10 dog:10",
        "",
    ),
    "the second level below splits": (
        "train/x/a:5 train/x/b:5 test/x/a:2 test/x/b:2",
        *({"classes_from": 3}, "a:5 b:5", "a:2 b:2"),
    ),
    "classes called like splits": ("valid:5 invalid:4", {"classes_from": 1}, "invalid:4 valid:5", ""),
    "only the test": ("dogs/a:5 dogs/b:5 Testing/a:2 Testing/b:2", {"test": "Testing"}, "a:5 b:5", "a:2 b:2"),
    "a folder far down": (
        "x/y/a:5 x/y/b:5 x/z/a:2 x/z/b:2",
        {"train": "x/y", "test": "./X/Z/"},
        "a:5 b:5",
        "a:2 b:2",
    ),
    "only the test, and a level": (
        "cat/2021:5 dog/2021:5 dog/2022:1 kept/cat/2023:2 kept/dog/2023:3",
        *({"classes_from": 1, "test": "kept"}, "cat:5 dog:6", "cat:2 dog:3"),
    ),
    "both, and a pattern": (
        "all/cat1.jpg all/cat2.jpg all/dog1.jpg all/dog2.jpg kept/dog3.jpg kept/cat4.jpg more/cat5.jpg",
        *({"classes_from": "cat|dog", "train": "all", "test": "kept"}, "cat:2 dog:2", "cat:1 dog:1"),
    ),
    "names of files": (
        "cat.0.jpg cat.1.jpg cat.2.jpg dog.0.jpg dog.1.jpg dog.2.jpg",
        {"classes_from": r"^(.+?)[_. (-]*\d"},
        "cat:3 dog:3",
        "",
    ),
    "names with several words": (
        "all/great_dane_1.jpg all/great_dane_2.jpg all/great_dane_3.jpg all/pug_1.jpg all/pug_2.jpg "
        "all/pug_3.jpg",
        *({"classes_from": r"^(.+?)[_. (-]*\d"}, "great_dane:3 pug:3", ""),
    ),
}


@pytest.mark.parametrize(("spec", "said", "train", "test"), DECIDED.values(), ids=DECIDED)
def test_flags_decide(spec, said, train, test):
    expected = {"train": train} | ({"test": test} if test else {})
    assert counts(sort(spec, Layout(**said))) == expected


def test_a_flag_that_names_no_folder_says_which_there_are():
    with pytest.raises(DataError, match=r"--train colour: .*color/ and gray/"):
        sort("color/a:5 color/b:5 gray/a:5 gray/b:5", Layout(train="colour"))
    with pytest.raises(DataError, match="there are several"):
        sort("a/images:5 b/images:5", Layout(test="images"))


def test_names_that_begin_with_classes_are_noticed():
    with pytest.raises(DataError, match=r"cat, dog.*--classes-from"):
        sort("train/cat.0.jpg train/cat.1.jpg train/dog.0.jpg train/dog.1.jpg test/1.jpg")


UNLABELLED = {
    "a flat test": ("train/a:5 train/b:5 test:7", 7),
    "a doubled flat folder": ("seg_train/a:5 seg_train/b:5 seg_pred/seg_pred:7", 7),
    "single prediction": (
        "training_set/a:5 training_set/b:5 test_set/a:2 test_set/b:2 single_prediction:3",
        3,
    ),
    "a test beside the wrapper": (
        "plants/plants/train/a:5 plants/plants/train/b:5 plants/plants/valid/a:2 plants/plants/valid/b:2 "
        "test/test:4",
        4,
    ),
    "one unknown folder in a test": ("asl_train/a:5 asl_train/b:5 asl_test/asl_test:4", 4),
    "one folder that is no class": ("train/a:5 train/b:5 test/images:4", 4),
    "images of a challenge": ("train/a/images:5 train/b/images:5 val/images:3 test/images:4", 4),
}


@pytest.mark.parametrize(("spec", "n"), UNLABELLED.values(), ids=UNLABELLED)
def test_a_test_without_classes_is_kept_for_the_finished_model(spec, n):
    assert len(sort(spec).unlabelled) == n


# --- what is not used is said ---

SAID = {
    "an empty folder": ("a:5 b:5 todo/", "todo/"),
    "folders beside the splits": ("train/a:5 train/b:5 extra/c:9", "extra/ (9)"),
    "images beside the classes": ("a:5 b:5 stray.jpg", "1 images beside"),
    "images beside the classes of a split": ("train/a:5 train/b:5 train/stray.jpg", "1 images in train/"),
    "raw photographs": ("a:5 b:5 a/x.CR2 b/y.cr2 b/z.nef", "2 .cr2 files are not used"),
    "films": ("a:5 b:5 a/x.mp4", "1 .mp4 file is not used"),
    "how splits were read": ("Training/a:5 Training/b:5 Testing/a:2 Testing/b:2", "Testing/ as test images"),
    "folders inside of classes": ("cat/2021:3 cat/2022:2 dog/2023:5", "--classes-from 2"),
    "what may be the test": (
        "train/a:5 train/b:5 extra/a:2 extra/b:2",
        "If extra/ is the test: --test extra",
    ),
    "masks beside pictures": ("a:5 b:5 a/0_mask.jpg a/0_mask_1.jpg", "2 pictures are called like masks"),
    "a set once more": ("a:5 b:5 old/a:5 old/b:5", "old/ holds folders called like those beside it"),
    "what lies beside the set": ("x:2 d/train/a:5 d/train/b:5", "Images elsewhere are not used: x/"),
    "a test folder that is no class": ("train/a:5 train/b:5 test/0:4", "test/0/ is called like no class"),
    "masks": ("ill/images:5 ill/masks:5 well/images:5 well/masks:5", "ill/masks/"),
    "a spelling": ("train/Daisy:5 train/iris:5 test/daisy:2 test/iris:2", "daisy as Daisy"),
    "classes that were skipped": ("a:5 b:5 c:1", "The class c is left out"),
}


@pytest.mark.parametrize(("spec", "words"), SAID.values(), ids=SAID)
def test_what_was_guessed_or_left_out_is_said(spec, words):
    assert words in " ".join(sort(spec, Layout(skip_small=True)).notes)


def test_a_plain_folder_needs_no_words():
    assert not sort("train/a:5 train/b:5 val/a:2 val/b:2 test/a:2 test/b:2 README.md").notes


# --- one small thing ---


def test_all_problems_are_said_at_once():
    with pytest.raises(DataError) as caught:
        sort("train/a:5 train/b:5 train/c:1 test/a:2 test/b:2 test/d:2 train/raw/1.nef")
    for words in ("3 problems", "class c (1)", "Only in train: c", "only in test: d", "raw", "--skip-small"):
        assert words in str(caught.value)


def test_small_classes_are_left_out_when_asked():
    found = sort("train/a:5 train/b:5 train/c:1 test/a:2 test/b:2 test/d:2", Layout(skip_small=True))
    assert counts(found) == {"train": "a:5 b:5", "test": "a:2 b:2"}
    assert len([note for note in found.notes if "left out" in note]) == 2


def test_too_little_stays_an_error_when_asked():
    with pytest.raises(DataError, match=r"too few .* class b"):
        sort("a:5 b:1", Layout(skip_small=True))


# --- labels elsewhere ---

FLAT = "train/1.jpg train/2.jpg train/3.jpg train/4.jpg train/5.jpg train/6.jpg"
ROWS = [("1", "cat"), ("2", "dog"), ("3", "cat"), ("4", "dog"), ("5", "cat"), ("6", "dog")]


def table(rows=ROWS, header="id,label", pattern="{},{}"):
    return "\n".join([header, *(pattern.format(*row) for row in rows)]) + "\n"


TABLES = {
    "names without a suffix": table(),
    "names with a suffix": table(pattern="{}.jpg,{}"),
    "paths": table(pattern="train/{}.jpg,{}"),
    "paths of another machine": table(pattern=r"C:\data\train\{}.jpg,{}"),
    "capitals": table(pattern="{}.JPG,{}"),
    "labels first": table([(b, a) for a, b in ROWS], "label,id"),
    "semicolons": table(header="id;label", pattern="{};{}"),
    "tabs": table(header="id\tlabel", pattern="{}\t{}"),
    "no header": "\n".join(f"{a},{b}" for a, b in ROWS),
    "a mark of byte order": "\ufeff" + table(),
    "ends of lines of Windows": table().replace("\n", "\r\n"),
    "quotes": table(pattern='"{}","{}"'),
    "leading zeros": table(pattern="000{},{}"),
    "other columns": table([(a, b, 3) for a, b in ROWS], "id,breed,age", "{},{},{}"),
    "one column a class": table(
        [(a, int(b == "cat"), int(b == "dog")) for a, b in ROWS], "id,cat,dog", "{},{},{}"
    ),
    "one column a class, and a number of the row": table(
        [(int(a) + 9, a, int(b == "cat"), int(b == "dog")) for a, b in ROWS], "n,id,cat,dog", "{},{},{},{}"
    ),
    "names beside their numbers": table(
        [(a, len(b) + (b == "cat"), b) for a, b in ROWS], "id,label,class_name", "{},{},{}"
    ),
    "pictures saved in another format": table(pattern="{}.dcm,{}"),
    "other words": table(header="Datei;Klasse;Datum", pattern="{};{};2023-01-05"),
    "few of many images": table([*ROWS, *((f"x{i}", "cat") for i in range(90))]),
    "rows of images that are not here": table([*ROWS, ("99", "cat")]),
}


@pytest.mark.parametrize("given", [True, False], ids=["named", "found"])
@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
def test_labels_come_from_a_table(text, given):
    layout = Layout(labels="labels.csv") if given else Layout()
    found = sort(FLAT + " test/7.jpg test/8.jpg", layout, {"labels.csv": text})
    assert counts(found) == {"train": "cat:3 dog:3"}
    assert found.unlabelled == ("test/7.jpg", "test/8.jpg")
    assert "labels.csv" in found.notes[0]


def test_a_table_may_name_the_splits():
    text = table([(a, b, "train" if int(a) < 5 else "Test") for a, b in ROWS], "id,label,split", "{},{},{}")
    spec = FLAT.replace("train/", "images/")
    assert counts(sort(spec, None, {"labels.csv": text})) == {"train": "cat:2 dog:2", "test": "cat:1 dog:1"}


def test_tables_of_splits_are_taken_together():
    parts = [table(rows=rows, pattern="{}.jpg,{}") for rows in (ROWS[:4], ROWS[4:])]
    spec = FLAT.replace("train/", "images/")
    expected = {"train": "cat:2 dog:2", "test": "cat:1 dog:1"}
    assert counts(sort(spec, None, dict(zip(("train.csv", "test.csv"), parts, strict=True)))) == expected
    assert (
        counts(
            sort(
                FLAT.replace("train/5", "test/5").replace("train/6", "test/6"),
                None,
                dict(zip(("train/_classes.csv", "test/_classes.csv"), parts, strict=True)),
            )
        )
        == expected
    )
    made_up = {"train.csv": table(), "sample_submission.csv": "id,label\n7,cat\n8,dog\n"}
    assert len(sort(FLAT + " test/7.jpg test/8.jpg", None, made_up).unlabelled) == 2


def test_labels_may_stand_in_a_text_file():
    found = sort(FLAT, None, {"list.txt": "".join(f"train/{a}.jpg {b}\n" for a, b in ROWS)})
    assert counts(found) == {"train": "cat:3 dog:3"}


def test_a_text_file_far_below_is_not_taken_for_labels():
    """In the folder or one below it may be a list of labels; deeper lie other things."""
    text = "".join(f"train/{a}.jpg {b}\n" for a, b in ROWS)
    assert counts(sort(FLAT, None, {"lists/list.txt": text})) == {"train": "cat:3 dog:3"}
    with pytest.raises(DataError):
        sort(FLAT, None, {"lists/old/list.txt": text})


def test_a_column_of_splits_that_says_too_little_is_not_used_in_silence():
    text = table([(a, b, "test" if a == "6" else "") for a, b in ROWS], "id,label,split", "{},{},{}")
    assert "Column split of x.csv" in " ".join(sort(FLAT, None, {"x.csv": text}).notes)


NOT_LABELS = {
    "a list of labels": (table(pattern="{},\"['{}', 'x']\""), "holds several labels"),
    "words that are put together": (
        table([(a, f"{b} road") for a, b in ROWS], "id,tags"),
        "holds several labels",
    ),
    "several labels": (table([("1", "cat dog"), *ROWS[1:]]), "holds several labels"),
    "several labels with bars": (table([("1", "x|y"), *ROWS[1:]]), "holds several labels"),
    "two rows for an image": (table([*ROWS, ("1", "dog")]), "two labels, cat and dog"),
    "no class of several": (
        table([(a, 1, 1) for a, _ in ROWS], "id,cat,dog", "{},{},{}"),
        "2 labels (cat, dog)",
    ),
    "a weight": (table([(a, f"{int(a)}.5") for a, _ in ROWS], "id,weight"), "look like a quantity"),
    "a number called a label": (table([(a, f"{int(a)}.5") for a, _ in ROWS]), "look like a quantity"),
    "an index beside text": (
        table(
            [(a, b, i % 2, 1 - i % 2) for i, (a, b) in enumerate(ROWS)],
            "id,animal,male,female",
            "{},{},{},{}",
        ),
        "--label-column with one of animal, female, male",
    ),
    "an age": (table([(a, 20 + int(a)) for a, _ in ROWS], "id,age"), "look like a quantity"),
    "two columns that may be meant": (
        table([(a, b, b) for a, b in ROWS], "id,animal,sort", "{},{},{}"),
        "--label-column with one of animal, sort",
    ),
    "other images": (table([(f"x{a}", b) for a, b in ROWS]), "no column with the names of the images"),
    "one class": (table([(a, "cat") for a, _ in ROWS]), "fewer than two classes"),
    "a spreadsheet": ("PK\x03\x04", "Save it as CSV"),
    "one column": ("1\n2\n", "no two columns"),
}


@pytest.mark.parametrize(("text", "words"), NOT_LABELS.values(), ids=NOT_LABELS)
def test_a_table_that_holds_no_classes_is_refused_with_the_reason(text, words):
    with pytest.raises(DataError) as caught:
        sort(FLAT, Layout(labels="labels.csv"), {"labels.csv": text})
    assert words in str(caught.value)
    with pytest.raises(DataError) as caught:  # and where it was not named, it is
        sort(FLAT, None, {"labels.csv": text})
    assert "--labels labels.csv" in str(caught.value)


def test_a_name_that_lies_in_two_folders_is_refused():
    with pytest.raises(DataError, match=r"1\.jpg lies in several"):
        sort("x/1.jpg x/2.jpg y/1.jpg y/2.jpg", Layout(labels="l.csv"), {"l.csv": table(pattern="{}.jpg,{}")})


def test_two_tables_are_not_guessed_between():
    with pytest.raises(DataError, match=r"a\.csv, b\.csv lie there"):
        sort(FLAT, None, {"a.csv": table(), "b.csv": table()})
    assert counts(sort(FLAT, Layout(labels="b.csv"), {"a.csv": table(), "b.csv": table()})) == {
        "train": "cat:3 dog:3"
    }


def test_the_column_can_be_named():
    text = table([(a, b, b.upper()) for a, b in ROWS], "id,animal,sort", "{},{},{}")
    found = sort(FLAT, Layout(labels="x.csv", label_column="Sort"), {"x.csv": text})
    assert found.class_names == ("CAT", "DOG")
    with pytest.raises(DataError, match=r"breed.*animal, sort"):
        sort(FLAT, Layout(labels="x.csv", label_column="breed"), {"x.csv": text})


def test_class_folders_are_believed_more_than_a_table_beside_them():
    found = sort("a/1.jpg a/2.jpg a/3.jpg b/4.jpg b/5.jpg b/6.jpg", None, {"labels.csv": table()})
    assert found.class_names == ("a", "b")
