"""Behaviour of `tlhelpers.data`: splits, named sets, folders, resizing."""

import gc
import os
import sys
import tarfile
import types
import weakref
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlhelpers import data
from tlhelpers.data import _image_files, _splits, _tells
from tlhelpers.data._scan import Look


def have_cifar10() -> bool:
    root = os.environ.get("TLHELPERS_DATA", "")
    return bool(root) and any((Path(root) / name).exists() for name in ("cifar10.zip", "cifar10"))


needs_cifar10 = [
    pytest.mark.needs_cifar10,
    pytest.mark.skipif(not have_cifar10(), reason="no cifar10.zip or cifar10/ in TLHELPERS_DATA"),
]


def rows(x):
    """Each image as bytes, so that sets of images can be compared."""
    return [image.tobytes() for image in x]


def save(path, colour=(255, 0, 0), mode="RGB", size=(10, 10), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)


def class_folders(root, counts, size=(8, 8), suffix=".png", start=0):
    """One folder a class; image k of all has a colour of its own, so that every image differs."""
    k = start
    for name, n in counts.items():
        for i in range(n):
            save(root / name / f"{i:03}{suffix}", (k % 256, k // 256, 77), size=size)
            k += 1
    return root


@pytest.fixture
def no_root(monkeypatch):
    monkeypatch.delenv("TLHELPERS_DATA", raising=False)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pets"
    class_folders(root / "train", {"cat": 40, "dog": 25, "emu": 5})
    class_folders(root / "test", {"cat": 8, "dog": 5, "emu": 2}, start=500)
    return root


# ---------------------------------------------------------------- orders


def test_order_depends_on_the_seed_alone():
    labels = np.repeat(np.arange(4), 30)
    assert np.array_equal(_splits.stratified_order(labels, 3), _splits.stratified_order(labels, 3))
    assert not np.array_equal(_splits.stratified_order(labels, 3), _splits.stratified_order(labels, 4))


# ---------------------------------------------------------------- splits, on a set that needs no download


def test_digits_have_the_promised_types():
    ds = data.load("digits", n_train=100, n_val=30, n_test=50)
    for x, y, n in (
        (ds.x_train, ds.y_train, 100),
        (ds.x_val, ds.y_val, 30),
        (ds.x_test, ds.y_test, 50),
    ):
        assert x.shape == (n, 8, 8, 3)
        assert x.dtype == np.uint8
        assert y.shape == (n,)
        assert y.dtype == np.int64
    assert ds.x_train.max() == 255
    assert ds.x_train.min() == 0
    assert ds.class_names == tuple("0123456789")
    assert ds.n_classes == 10
    assert "scikit-learn" in ds.source
    assert "100 training" in repr(ds)


def test_digits_labels_belong_to_their_images():
    sklearn = pytest.importorskip("sklearn.datasets").load_digits()
    truth = {}
    for image, label in zip(sklearn.images, sklearn.target, strict=True):
        truth.setdefault(np.rint(image * 255 / 16).astype(np.uint8).tobytes(), set()).add(int(label))
    ds = data.load("digits")
    for x, y in ((ds.x_train, ds.y_train), (ds.x_val, ds.y_val), (ds.x_test, ds.y_test)):
        assert all(int(label) in truth[image[..., 0].tobytes()] for image, label in zip(x, y, strict=True))


def test_none_takes_all_there_is():
    ds = data.load("digits")
    assert len(ds.y_train) + len(ds.y_val) + len(ds.y_test) == 1797
    assert len(ds.y_test) == pytest.approx(1797 / 3, abs=5)
    assert len(ds.y_val) == round(0.1 * (1797 - len(ds.y_test)))


def test_seed_changes_the_choice_but_never_the_test_pool():
    first, second = (data.load("digits", n_val=0, seed=seed) for seed in (0, 1))  # validation takes none
    assert not np.array_equal(first.x_train, second.x_train)
    assert not np.array_equal(first.x_test, second.x_test)
    assert sorted(rows(first.x_test)) == sorted(rows(second.x_test))
    assert set(rows(data.load("digits", n_val=20, seed=0).x_val)) != set(
        rows(data.load("digits", n_val=20, seed=1).x_val)
    )


def test_splits_are_disjoint_and_a_smaller_set_is_the_beginning_of_a_larger_one(folder):
    ds = data.load(folder)
    train, val, test = (set(rows(x)) for x in (ds.x_train, ds.x_val, ds.x_test))
    assert len(train) == len(ds.y_train) == 63
    assert len(val) == len(ds.y_val) == 7
    assert len(test) == len(ds.y_test) == 15
    assert not train & val
    assert not (train | val) & test
    assert not np.array_equal(ds.x_train, data.load(folder, seed=1).x_train)
    small = data.load(folder, n_train=9, n_val=7, n_test=4)
    for part, whole in ((small.x_train, ds.x_train), (small.x_val, ds.x_val), (small.x_test, ds.x_test)):
        assert np.array_equal(part, whole[: len(part)])
    for part, whole in ((small.y_train, ds.y_train), (small.y_val, ds.y_val), (small.y_test, ds.y_test)):
        assert np.array_equal(part, whole[: len(part)])


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"n_test": 16}, r"n_test=16.*15 test images"),
        ({"n_val": 10, "n_train": 61}, r"n_train=61.*70 training images.*takes 10.*at most 60"),
        ({"n_train": 64}, r"takes 7.*at most 63"),
        ({"n_val": 70}, r"n_val=70.*at most 69"),
    ],
)
def test_more_than_there_is_says_how_many_there_are(folder, counts, message):
    with pytest.raises(ValueError, match=message):
        data.load(folder, **counts)


@pytest.mark.parametrize("argument", ["n_train", "n_val", "n_test", "image_size"])
def test_counts_must_be_whole_and_positive(argument):
    for wrong, error in (
        (0, ValueError),
        (-3, ValueError),
        (2.0, TypeError),
        (True, TypeError),
        ("9", TypeError),
    ):
        if argument == "n_val" and wrong == 0:
            continue  # who chooses nothing, or chooses on the training images, needs none
        with pytest.raises(error, match=argument):
            data.load("digits", **{argument: wrong})


def test_without_validation_images_all_may_train():
    ds = data.load("digits", n_val=0)
    assert len(ds.y_val) == len(ds.x_val) == 0
    assert len(ds.y_train) == len(data.load("digits", n_val=1).y_train) + 1


def test_numpy_integers_are_whole_numbers():
    assert len(data.load("digits", n_train=np.int64(12)).y_train) == 12


@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (0.5, TypeError), (None, TypeError)])
def test_seed_is_checked(seed, error):
    with pytest.raises(error, match="seed"):
        data.load("digits", seed=seed)


# ---------------------------------------------------------------- counts


def test_class_counts_include_absent_classes():
    assert data.class_counts(np.array([0, 2, 2]), ("a", "b", "c")) == {"a": 1, "b": 0, "c": 2}
    with pytest.raises(ValueError, match="3 class names"):
        data.class_counts(np.array([3]), ("a", "b", "c"))


# ---------------------------------------------------------------- resize


def test_resize_matches_pillow_image_by_image():
    x = np.random.default_rng(0).integers(0, 256, (130, 20, 30, 3), dtype=np.uint8)
    for size in (8, 48):
        out = data.resize(x, size)
        assert out.shape == (130, size, size, 3)
        assert out.dtype == np.uint8
        for i in (0, 63, 64, 129):
            assert np.array_equal(
                out[i], Image.fromarray(x[i]).resize((size, size), Image.Resampling.BICUBIC)
            )


def test_resize_hands_back_the_same_array_where_nothing_is_to_do():
    x = np.zeros((2, 8, 8, 3), np.uint8)
    assert data.resize(x, 8) is x
    assert data.resize(x[:0], 16).shape == (0, 16, 16, 3)


def test_resize_is_antialiased():
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 255
    assert np.abs(data.resize(stripes, 8).astype(int) - 127).max() <= 12


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), TypeError, "float32"),
        ([1, 2], TypeError, "list"),
        (np.zeros((8, 8, 3), np.uint8), ValueError, r"\(8, 8, 3\)"),
        (np.zeros((2, 8, 8, 1), np.uint8), ValueError, r"\(2, 8, 8, 1\)"),
    ],
)
def test_resize_says_what_it_got(x, error, message):
    with pytest.raises(error, match=message):
        data.resize(x, 8)


# ---------------------------------------------------------------- class folders


def test_folder_without_test_cuts_a_fixed_fifth_of_each_class(tmp_path):
    root = class_folders(tmp_path / "pets", {"cat": 40, "dog": 20, "emu": 3})
    sets = [data.load(root, seed=seed) for seed in (0, 1)]
    for ds in sets:
        assert np.bincount(ds.y_test).tolist() == [8, 4, 1]
        assert np.bincount(ds.y_train, minlength=3).min() >= 1
        assert "fixed fifth" in ds.source
        assert str(tmp_path) not in ds.source
        everything = rows(ds.x_train) + rows(ds.x_val) + rows(ds.x_test)
        assert len(set(everything)) == len(everything) == 63
    assert set(rows(sets[0].x_test)) == set(rows(sets[1].x_test))


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_shipped_validation_images_are_used(folder, val):
    class_folders(folder / val, {"cat": 4, "dog": 3, "emu": 2}, start=700)
    ds = data.load(folder)
    assert (len(ds.y_train), len(ds.y_val), len(ds.y_test)) == (70, 9, 15)
    assert len(data.load(folder, n_val=5).y_val) == 5
    with pytest.raises(ValueError, match="9 validation images"):
        data.load(folder, n_val=10)


def test_images_of_one_size_stay_as_they_are(tmp_path):
    root = class_folders(tmp_path / "wide", {"a": 5, "b": 5}, size=(20, 12))
    assert data.load(root).x_train.shape[1:] == (12, 20, 3)
    assert data.load(root, image_size=16).x_train.shape[1:] == (16, 16, 3)


def test_images_of_several_sizes_are_brought_to_one(tmp_path):
    root = class_folders(tmp_path / "mixed", {"a": 5, "b": 5}, size=(20, 12))
    save(root / "a" / "tall.png", size=(30, 50))
    ds = data.load(root, n_train=1)  # also where the odd one out is not among those chosen
    assert ds.x_train.shape[1:] == (224, 224, 3)
    assert "224" in ds.source


def test_large_images_are_cropped_in_the_centre(tmp_path):
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = 255  # only the centre square is white
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.fromarray(wide).save(tmp_path / name / f"{i}.png")
    assert data.load(tmp_path, image_size=20).x_train[:, :, 1:-1].min() >= 250


def one_image(tmp_path, name, write):
    """What `load` makes of one file among the images of a class."""
    root = class_folders(tmp_path / "set" / "train", {"a": 3, "b": 3}, size=(10, 6)).parent
    (root / "test" / "b").mkdir(parents=True)
    save(root / "test" / "b" / "0.png", size=(10, 6))
    (root / "test" / "a").mkdir()
    write(root / "test" / "a" / name)
    ds = data.load(root)
    return ds.x_test[ds.y_test == 0][0]


def uniform(image):
    assert len(np.unique(image.reshape(-1, 3), axis=0)) == 1
    return image[0, 0].tolist()


@pytest.mark.parametrize(
    ("name", "mode", "colour", "expected"),
    [
        ("x.png", "L", 90, [90, 90, 90]),
        ("x.png", "1", 1, [255, 255, 255]),
        ("x.png", "RGBA", (255, 0, 0, 0), [255, 255, 255]),
        ("x.png", "RGBA", (255, 0, 0, 255), [255, 0, 0]),
        ("x.png", "LA", (0, 0), [255, 255, 255]),
        ("x.png", "I;16", 65535, [255, 255, 255]),
        ("x.png", "I;16", 257 * 200, [200, 200, 200]),
        ("x.png", "I;16", 4095, [255, 255, 255]),  # 12 bits in 16
        ("x.png", "I;16", 512, [128, 128, 128]),  # 10
        ("x.tif", "I;16", 4095 * 2 // 3, [170, 170, 170]),
        ("x.tif", "CMYK", (0, 255, 255, 0), [255, 0, 0]),
        ("x.tif", "F", 0.2, [51, 51, 51]),
        ("x.PNG", "RGB", (1, 2, 3), [1, 2, 3]),
        ("x.gif", "L", 90, [90, 90, 90]),
    ],
)
def test_image_modes_become_rgb(tmp_path, name, mode, colour, expected):
    image = one_image(tmp_path, name, lambda path: Image.new(mode, (10, 6), colour).save(path))
    assert uniform(image) == expected


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    image = one_image(
        tmp_path, "x.jpg", lambda path: Image.new("CMYK", (10, 6), (0, 255, 255, 0)).save(path, quality=95)
    )
    assert image[..., 0].min() > 200
    assert image[..., 1:].max() < 50


def test_palette_images_become_rgb(tmp_path):
    def write(path):
        image = Image.new("P", (10, 6), 1)
        image.putpalette([0, 0, 0, 10, 200, 30])
        image.save(path)

    assert uniform(one_image(tmp_path, "x.png", write)) == [10, 200, 30]


def test_transparent_palette_is_laid_on_white(tmp_path):
    def write(path):
        image = Image.new("P", (10, 6), 1)
        image.putpalette([0, 0, 0, 10, 200, 30])
        image.save(path, transparency=1)

    assert uniform(one_image(tmp_path, "x.png", write)) == [255, 255, 255]


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif", "x.webp"])
def test_exif_rotation_is_applied(tmp_path, name):
    def write(path):
        lying = np.zeros((10, 6, 3), np.uint8)
        lying[:5] = 255  # white above; orientation 6 turns it to the right
        exif = Image.Exif()
        exif[0x0112] = 6
        options = {"quality": 95} if name == "x.jpg" else {"lossless": True} if name == "x.webp" else {}
        Image.fromarray(lying).save(path, exif=exif, **options)

    image = one_image(tmp_path, name, write)  # 6 x 10 in the file, 10 x 6 as shown: one size with the rest
    assert image.shape == (6, 10, 3)
    assert image[:, 6:].min() > 200
    assert image[:, :4].max() < 50


def corrupt(path):
    save(path, size=(60, 60))
    path.write_bytes(path.read_bytes()[:-60])


def test_corrupt_image_is_named(tmp_path):
    for write in (
        corrupt,
        lambda path: path.write_bytes(b"no image at all"),
        lambda path: path.write_bytes(b""),
    ):
        root = class_folders(tmp_path / "set", {"a": 5, "b": 5}, size=(60, 60))
        write(root / "a" / "broken_one.png")
        with pytest.raises(data.DataError, match=r"a/broken_one\.png"):
            data.load(root)


def test_all_corrupt_images_are_named_at_once(tmp_path):
    root = class_folders(tmp_path / "set", {"a": 8, "b": 8}, size=(60, 60))
    for i in range(3):
        (root / "a" / f"broken_{i}.png").write_bytes(b"no image")
    with pytest.raises(data.DataError, match=r"cannot read 3 images") as caught:
        data.load(root, image_size=8)
    assert all(f"a/broken_{i}.png" in str(caught.value) for i in range(3))


def test_other_files_are_ignored_and_counted(folder):
    (folder / "README.md").write_text("hello")
    (folder / "train" / "cat" / "Thumbs.db").write_bytes(b"x")
    (folder / "train" / "cat" / ".hidden.png").write_bytes(b"x")
    class_folders(folder / "train" / ".cache", {"zebra": 1})
    ds = data.load(folder)
    assert len(ds.y_train) + len(ds.y_val) == 70
    assert ds.class_names == ("cat", "dog", "emu")
    assert "4 other files ignored" in ds.source


def test_number_names_are_sorted_as_numbers(tmp_path):
    root = class_folders(tmp_path / "n", {str(k): 3 for k in range(11)})
    assert data.load(root).class_names == tuple(str(k) for k in range(11))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda r: class_folders(r, {"a": 5, "b": 1}), r"class b \(1\)"),
        (lambda r: class_folders(r, {"a": 5}), r"one class folder \(a\)"),
        (lambda r: r.mkdir(), "no class folders"),
        (lambda r: class_folders(r / "test", {"a": 5, "b": 5}), "no train/"),
        (lambda r: (r / "train").mkdir(parents=True), "no class folders"),
        (
            lambda r: (
                class_folders(r / "train", {"a": 5, "b": 5}),
                class_folders(r / "test", {"a": 5, "c": 5}),
            ),
            "Only in train: b; only in test: c",
        ),
        (
            lambda r: [class_folders(r / s, {"a": 5, "b": 5}) for s in ("train", "val", "valid")],
            "val, valid mean the same",
        ),
        (lambda r: (r.mkdir(), save(r / "train" / "a.png")), "train/ holds no class"),
    ],
)
def test_unusable_folders_say_why(tmp_path, build, message):
    build(tmp_path / "set")
    with pytest.raises(data.DataError, match=message):
        data.load(tmp_path / "set")


# ---------------------------------------------------------------- zip files


def pack(folder, path, inside=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):  # the order in the file must not matter
            archive.write(file, f"{inside}{file.relative_to(folder).as_posix()}")
    return path


@pytest.mark.parametrize("inside", ["", "pets/"])
def test_zip_and_folder_give_the_same_data(folder, tmp_path, inside):
    packed = data.load(pack(folder, tmp_path / "pets.zip", inside), n_train=30, seed=3)
    plain = data.load(folder, n_train=30, seed=3)
    for field in ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test", "class_names"):
        assert np.array_equal(getattr(packed, field), getattr(plain, field))


@pytest.mark.parametrize("suffix", ["tgz", "tar.gz", "tar", "tar.xz"])
def test_a_tar_file_with_a_wrapper_gives_the_same_data(folder, tmp_path, suffix):
    path = tmp_path / f"pets.{suffix}"
    mode = {"tgz": "w:gz", "tar.gz": "w:gz", "tar": "w", "tar.xz": "w:xz"}[suffix]
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        archive.add(folder, "pets")
    packed, plain = data.load(path, n_train=30, seed=3), data.load(folder, n_train=30, seed=3)
    for field in ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test", "class_names"):
        assert np.array_equal(getattr(packed, field), getattr(plain, field))


def test_a_tar_file_that_was_cut_short_is_named(folder, tmp_path):
    path = tmp_path / "pets.tgz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "pets")
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(data.DataError, match=r"pets\.tgz .*unpacked"):
        data.load(path)


def test_broken_zip_is_named(tmp_path):
    path = tmp_path / "bad.zip"
    path.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(data.DataError, match=r"bad\.zip .*readable"):
        data.load(path)


def test_encrypted_zip_is_refused(folder, tmp_path):
    path = pack(folder, tmp_path / "locked.zip")
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")  # the flag that says "needs a password", first central entry
    content[entry + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(data.DataError, match="encrypted"):
        data.load(path)


def test_damaged_image_in_a_zip_is_named(folder, tmp_path):
    path = pack(folder, tmp_path / "pets.zip")
    with zipfile.ZipFile(path) as archive:
        victim = next(m for m in archive.infolist() if m.filename == "train/cat/000.png")
    content = bytearray(path.read_bytes())
    start = victim.header_offset + 30 + len(victim.filename)
    content[start + 20 : start + 24] = b"\xff" * 4
    path.write_bytes(content)
    with pytest.raises(data.DataError, match=r"train/cat/000\.png"):
        data.load(path)


# ---------------------------------------------------------------- images that stay in their files


@pytest.fixture(params=["folder", "zip"])
def source(request, folder, tmp_path):
    """The same set as a folder and as a zip file."""
    return folder if request.param == "folder" else pack(folder, tmp_path / "pets.zip")


def test_lazy_images_are_the_same_images(source):
    lazy, eager = data.load(source, lazy=True, seed=3), data.load(source, seed=3)
    for split in ("train", "val", "test"):
        found, expected = getattr(lazy, f"x_{split}"), getattr(eager, f"x_{split}")
        assert isinstance(found, data.ImageSequence)
        assert isinstance(expected, np.ndarray)
        assert (found.shape, found.dtype, found.ndim) == (expected.shape, expected.dtype, expected.ndim)
        assert len(found) == len(expected)
        assert np.array_equal(np.asarray(found), expected)
        assert np.array_equal(getattr(lazy, f"y_{split}"), getattr(eager, f"y_{split}"))
    assert repr(lazy) == repr(eager)


@pytest.mark.parametrize(
    "key",
    [
        slice(None),
        slice(3, 9),
        slice(-4, None),
        slice(20, 3, -5),
        slice(60, 999),
        slice(5, 5),
        [4],
        [7, 0, 7],
        np.array([5, -1, 2]),
        np.arange(63) % 3 == 1,
        np.zeros(0, int),
        0,
        -1,
        np.int64(9),
        -63,
    ],
)
def test_lazy_images_are_indexed_as_arrays_are(source, key):
    lazy, eager = data.load(source, lazy=True).x_train, data.load(source).x_train
    found = lazy[key]
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.uint8
    assert found.shape == eager[key].shape
    assert np.array_equal(found, eager[key])


@pytest.mark.parametrize("key", [63, -64, [0, 63], "a", 1.5, np.s_[0, 0], np.s_[:, ::2]])
def test_lazy_images_that_are_not_there(folder, key):
    with pytest.raises(IndexError):
        data.load(folder, lazy=True).x_train[key]


def test_lazy_images_are_iterated(folder):
    lazy, eager = data.load(folder, lazy=True).x_val, data.load(folder).x_val
    assert rows(lazy) == rows(eager)


def test_lazy_images_become_arrays_of_another_type(folder):
    lazy = data.load(folder, lazy=True).x_val
    found = np.asarray(lazy, dtype=np.float32)
    assert found.dtype == np.float32
    assert np.array_equal(found, np.array(lazy).astype(np.float32))
    assert np.array_equal(data.resize(lazy, 5), data.resize(np.asarray(lazy), 5))


def test_lazy_images_are_mirrored_without_being_read(folder):
    lazy = data.load(folder, lazy=True).x_train
    mirrored = lazy.mirrored()
    assert np.array_equal(mirrored[1:3], lazy[1:3][:, :, ::-1])
    assert np.array_equal(mirrored[2], lazy[2][:, ::-1])
    assert np.array_equal(np.asarray(mirrored.mirrored()), np.asarray(lazy))
    assert mirrored.shape == lazy.shape
    assert len({lazy.digest(), mirrored.digest()}) == 2
    assert mirrored.mirrored().digest() == lazy.digest()


def test_lazy_images_of_several_sizes(tmp_path):
    root = class_folders(tmp_path / "mixed", {"a": 5, "b": 5}, size=(20, 12))
    save(root / "a" / "tall.png", size=(30, 50))
    for size in (None, 16):
        lazy, eager = data.load(root, lazy=True, image_size=size), data.load(root, image_size=size)
        assert lazy.x_train.shape[1:] == (size or 224, size or 224, 3)
        assert np.array_equal(np.asarray(lazy.x_train), eager.x_train)


def test_lazy_decodes_nothing_until_it_is_asked(folder):
    name = next((folder / "train" / "cat").iterdir()).relative_to(folder).as_posix()
    corrupt(folder / name)
    with pytest.raises(data.DataError, match=name):
        data.load(folder, image_size=8)
    ds = data.load(folder, image_size=8, lazy=True)
    places = [i for i, other in enumerate(ds.x_train._names) if other == name]
    assert len(places) == 1  # in the training images, with this seed
    others = np.delete(np.arange(len(ds.x_train)), places)
    assert len(ds.x_train[others]) == len(others)
    with pytest.raises(data.DataError, match=name):
        ds.x_train[places]


def test_sets_that_come_as_arrays_are_arrays_all_the_same():
    assert isinstance(data.load("digits", n_train=10, lazy=True).x_train, np.ndarray)


def test_a_zip_file_stays_open_as_long_as_it_is_needed_and_no_longer(folder, tmp_path, monkeypatch):
    path, opened = pack(folder, tmp_path / "pets.zip"), []
    real = zipfile.ZipFile.__init__

    def watched(self, *arguments, **options):
        real(self, *arguments, **options)
        opened.append(self)  # so that it is not closed just because nothing refers to it

    monkeypatch.setattr(zipfile.ZipFile, "__init__", watched)
    data.load(path)
    with pytest.raises(ValueError, match="n_test"):
        data.load(path, n_test=99)
    assert [archive.fp for archive in opened] == [None, None]

    def is_open():
        archive = last()
        return archive is not None and archive.fp is not None

    ds = data.load(path, lazy=True)
    last = weakref.ref(opened.pop())
    assert is_open()
    assert len(ds.x_val[:2]) == 2
    images = ds.x_test
    del ds
    assert len(images[:2]) == 2  # the other splits are gone
    del images
    gc.collect()
    assert not is_open()


def test_the_digest_of_lazy_images_is_that_of_their_content(folder, tmp_path):
    first = data.load(folder, lazy=True)
    digest = first.x_train.digest()
    assert data.load(folder, lazy=True).x_train.digest() == digest
    assert data.load(pack(folder, tmp_path / "pets.zip"), lazy=True).x_train.digest() == digest
    others = [
        first.x_val.digest(),
        data.load(folder, lazy=True, n_train=62).x_train.digest(),
        data.load(folder, lazy=True, seed=1).x_train.digest(),
        data.load(folder, lazy=True, image_size=16).x_train.digest(),
    ]
    victim = folder / first.x_train._names[0]
    content = victim.read_bytes()
    victim.write_bytes(content + b" ")  # the same pixels: the bytes are what counts
    others.append(first.x_train.digest())
    assert len({digest, *others}) == 6
    victim.write_bytes(content)
    assert first.x_train.digest() == digest


# ---------------------------------------------------------------- where named sets come from


def test_named_set_comes_from_the_data_folder(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("TLHELPERS_DATA", str(tmp_path))
    assert data.load("pets").source.startswith("pets/")
    pack(folder, tmp_path / "pets.zip")
    assert data.load("pets").source.startswith("pets.zip")


def test_folder_in_the_current_directory(folder, monkeypatch, no_root):
    monkeypatch.chdir(folder.parent)
    assert len(data.load("pets").y_test) == 15
    assert len(data.load("./pets").y_test) == 15


def test_cifar10_from_jpeg_files_says_so(monkeypatch, tmp_path):
    names = dict.fromkeys(("cat", "dog"), 4)
    for split in ("train", "test"):
        class_folders(tmp_path / "cifar10" / split, names, size=(32, 32), suffix=".jpg")
        class_folders(tmp_path / "mine" / split, names, size=(32, 32), suffix=".jpg")
    monkeypatch.setenv("TLHELPERS_DATA", str(tmp_path))
    assert "JPEG re-encoded" in data.load("cifar10").source
    assert "JPEG re-encoded" in data.load(tmp_path / "cifar10").source
    assert "JPEG" not in data.load("mine").source


def test_named_set_of_another_size_asks_for_image_size(monkeypatch, tmp_path):
    for split in ("train", "test"):
        class_folders(tmp_path / "cifar10" / split, {"cat": 4, "dog": 4}, size=(64, 64))
    monkeypatch.setenv("TLHELPERS_DATA", str(tmp_path))
    with pytest.raises(data.DataError, match=r"64 x 64.*image_size"):
        data.load("cifar10")
    assert data.load("cifar10", image_size=48).x_train.shape[1:] == (48, 48, 3)
    assert data.load(tmp_path / "cifar10").x_train.shape[1:] == (64, 64, 3)


@pytest.fixture
def fake_keras(monkeypatch, no_root):
    """A stand-in for Keras whose loaders do what a test tells them."""
    keras = types.ModuleType("keras")
    keras.datasets = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "keras", keras)

    def offer(name, load_data):
        setattr(keras.datasets, name, types.SimpleNamespace(load_data=load_data))

    return offer


def test_keras_loader_is_the_fallback(fake_keras):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (90, 28, 28), dtype=np.uint8), np.arange(90, dtype=np.uint8) % 10
    fake_keras("mnist", lambda: ((x[:60], y[:60]), (x[60:], y[60:])))
    ds = data.load("mnist", n_val=10)
    assert ds.x_train.shape == (50, 28, 28, 3)
    assert ds.x_train.dtype == np.uint8
    assert ds.y_train.dtype == np.int64
    assert ds.class_names == tuple("0123456789")
    assert "keras" in ds.source
    by_image = {image.tobytes(): label for image, label in zip(x, y, strict=True)}
    assert all(by_image[i[..., 2].tobytes()] == label for i, label in zip(ds.x_test, ds.y_test, strict=True))


@pytest.mark.parametrize("channels_first", [False, True])
def test_keras_labels_in_a_column_and_either_order_of_channels(fake_keras, channels_first):
    x = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    y = (np.arange(40) % 10)[:, None]
    given = x.transpose(0, 3, 1, 2) if channels_first else x
    fake_keras("cifar10", lambda: ((given, y), (given, y)))
    ds = data.load("cifar10")
    assert ds.class_names[:2] == ("airplane", "automobile")
    assert sorted(rows(ds.x_test)) == sorted(rows(x))
    assert data.load("cifar10", image_size=16).x_val.shape[1:] == (16, 16, 3)


def test_unavailable_set_says_what_was_tried_and_what_to_do(fake_keras, monkeypatch, tmp_path):
    def fail():
        raise OSError("no route to host")

    fake_keras("cifar10", fail)
    with pytest.raises(data.DataUnavailableError) as caught:
        data.load("cifar10")
    for words in ("TLHELPERS_DATA: not set", "no route to host", "cifar10.zip", "digits"):
        assert words in str(caught.value)
    monkeypatch.setenv("TLHELPERS_DATA", str(tmp_path))
    with pytest.raises(data.DataUnavailableError, match=r"neither cifar10\.zip"):
        data.load("cifar10")
    monkeypatch.setenv("TLHELPERS_DATA", str(tmp_path / "gone"))
    with pytest.raises(data.DataUnavailableError, match="is not a folder"):
        data.load("cifar10")


def test_missing_keras_is_unavailable_not_a_crash(monkeypatch, no_root):
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(data.DataUnavailableError, match="ModuleNotFoundError"):
        data.load("mnist")


def test_unknown_name_suggests_a_known_one(no_root):
    with pytest.raises(data.DataUnavailableError, match="Write 'cifar10'"):
        data.load("CIFAR-10")
    with pytest.raises(data.DataUnavailableError, match="no file or folder"):
        data.load("./nowhere")


# ---------------------------------------------------------------- the real thing


class TestCifar10:
    """On the files in TLHELPERS_DATA."""

    pytestmark = needs_cifar10

    def test_splits(self):
        small = data.load("cifar10", n_train=200, n_val=100, n_test=150)
        large = data.load("cifar10", n_train=1000, n_val=100, n_test=150)
        assert small.x_train.shape == (200, 32, 32, 3)
        assert np.bincount(large.y_train).tolist() == [100] * 10
        assert np.bincount(large.y_val).tolist() == [10] * 10
        assert np.bincount(large.y_test).tolist() == [15] * 10
        assert small.class_names[0] == "airplane"
        assert small.class_names[9] == "truck"
        assert np.array_equal(small.x_train, large.x_train[:200])
        assert np.array_equal(small.x_val, large.x_val)
        assert np.array_equal(small.x_test, large.x_test)
        assert not set(rows(large.x_train)) & set(rows(large.x_val))

    def test_labels_are_those_of_the_folders(self):
        root = Path(os.environ["TLHELPERS_DATA"])
        if not (root / "cifar10.zip").exists():
            pytest.skip("no cifar10.zip in TLHELPERS_DATA")
        ds = data.load("cifar10", n_train=2, n_val=1, n_test=3, seed=2)
        with zipfile.ZipFile(root / "cifar10.zip") as archive:
            for image, label in zip(ds.x_test, ds.y_test, strict=True):
                inside = f"test/{ds.class_names[label]}/"
                names = [m for m in archive.namelist() if m.startswith(inside) and m.endswith(".jpg")]
                found = (np.asarray(Image.open(archive.open(m)).convert("RGB")) for m in names)
                assert any(np.array_equal(image, other) for other in found)

    def test_more_than_there_is(self):
        with pytest.raises(ValueError, match="10,000 test images"):
            data.load("cifar10", n_test=10_001)


def test_how_much_memory_is_free_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the unit of what is asked for; and what fits is not refused."""
    psutil = pytest.importorskip("psutil", reason="psutil comes with the extra app")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=3 * 2**30))
    with pytest.raises(_image_files.DataError, match=r"take 6\.0 GiB and 3\.0 GiB"):
        _image_files._check_memory(6 * 2**30, "here")
    _image_files._check_memory(3 * 2**30, "here")


def test_files_are_watched_only_inside_the_block(tmp_path: Path) -> None:
    """A changed file is refused while features are computed, and read as it is before and after."""
    for i in range(20):
        (tmp_path / str(i % 2)).mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (i, 9 * i, 0)).save(tmp_path / str(i % 2) / f"{i}.png")
    x = data.load(str(tmp_path), lazy=True).x_train
    x.digest()
    with x.unchanged():
        before = x[:]
    for path in tmp_path.rglob("*.png"):
        Image.new("RGB", (8, 8), (250, 250, 250)).save(path)
    assert not np.array_equal(x[:], before)
    with x.unchanged(), pytest.raises(data.DataError, match="changed"):
        x[:]


def seen(*thumbnails: np.ndarray) -> dict[str, Look]:
    """Return looks at pictures that differ in nothing but their thumbnails."""
    looks = (
        Look(bytes([i]), (32, 32), i, x.astype(np.float32), None, False) for i, x in enumerate(thumbnails)
    )
    return {f"{i}.png": look for i, look in enumerate(looks)}


@pytest.mark.parametrize(
    ("x", "empty"),
    [
        (np.linspace(0, 23, 192).reshape(8, 8, 3), True),
        (np.linspace(0, 24, 192).reshape(8, 8, 3), False),
        (np.linspace(200, 203, 64).reshape(8, 8, 1) * np.ones(3), True),
        (np.linspace(200, 204, 64).reshape(8, 8, 1) * np.ones(3), False),
        (np.ones((8, 8, 3)) * (0, 128, 255), True),  # of one colour, though its channels differ
    ],
)
def test_pictures_that_show_next_to_nothing_are_noted(x: np.ndarray, empty: bool) -> None:
    """Nearly black, or of one colour; and only where they are many."""
    rich = np.linspace(0, 255, 192).reshape(8, 8, 3)
    assert bool(_tells.odd_files(seen(x, x, x, rich))) == empty
    assert not _tells.odd_files(seen(x, x, rich, rich))
    assert not _tells.odd_files(seen(*[x] * 3, *[rich] * 28))


def test_without_psutil_nobody_knows_how_much_memory_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a large request is tried, as numpy would try it."""
    with pytest.raises(_image_files.DataError, match=r"take 1073741824\.0 GiB"):
        _image_files._check_memory(2**60, "here")
    monkeypatch.setitem(sys.modules, "psutil", None)
    _image_files._check_memory(2**60, "here")
