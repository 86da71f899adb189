"""Features of many files in shards: the right ones, however often somebody pulls the plug."""

import json
import os
import pickle
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner

from tiny import make_backbone
from tlhelpers import backbones, data, features, scale, streamed
from tlhelpers.app import cli
from tlhelpers.data import path_list, pictures
from tools.numbers.provenance import ROOT

# Python runs this in each process that starts: workers end, by a real SIGKILL, at a picture that says so.
HOOK = """
import os, signal, time
from PIL import Image
given = Image.open
def opened(stream, *rest, **named):
    time.sleep(float(os.environ.get("SECONDS_A_PICTURE", 0)))
    said = stream.read(200).decode(errors="replace").split()
    stream.seek(0)
    if said[:1] == ["kill"] and not os.path.exists(said[1]):
        if said[2] == "once":
            open(said[1], "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return given(stream, *rest, **named)
Image.open = opened
"""
# No guard of `__main__`: workers shall not run the script that calls, and not import its Keras.
SCRIPT = """
import sys
open("began", "a").write(__name__)
sys.path.insert(0, sys.argv[1])
import tiny
from tlhelpers import scale
scale.extract_files("pictures", "out", tiny.make_backbone(), shard_size=4, workers=2, runner=sys.argv[2])
"""
# A shell that runs commands in the background has them ignore SIGINT, and so would this one.
RUNNER = """
import pickle, signal
from tlhelpers.scale import _runners
signal.signal(signal.SIGINT, signal.default_int_handler)
list(_runners.local(*pickle.load(open("job", "rb"))))
"""


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Work in an empty folder; the graph of the tiny network is exported once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path_factory.getbasetemp() / "scale_cache"))
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(HOOK)
    monkeypatch.setenv("PYTHONPATH", f"{hook}{os.pathsep}{ROOT}", prepend=os.pathsep)


@pytest.fixture(scope="module")
def tiny() -> backbones.Backbone:
    """A network of two blocks, 8 x 8 pixels -> 4 features."""
    return make_backbone()


@pytest.fixture
def on_ray(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where Ray is not installed; otherwise give it a token, which each of its processes must show."""
    token = tmp_path_factory.getbasetemp() / "ray_token"
    if not token.exists():
        token.write_text(secrets.token_hex(32))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # Ray reads these when it is imported
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    reason = "Ray is not installed: runs weekly, and after pip install ray"
    pytest.importorskip("ray", reason=reason)


def draw(folder: str, n: int, suffix: str = ".png", side: int = 12) -> list[str]:
    """Write pictures of noise in two class folders; return their paths below the folder, sorted."""
    names = [f"{'ab'[i % 2]}/{i:03d}{suffix}" for i in range(n)]
    for i, name in enumerate(names):
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (side + i % 5, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return sorted(names)


def expected(backbone: backbones.Backbone, folder: str, names: list[str]) -> np.ndarray:
    """Return the features of pictures as `features.extract` computes them."""
    x = np.stack([pictures.decoded_file(Path(folder, name), backbone.image_size) for name in names])
    return features.extract(backbone, x, engine="onnx", cache=False)


def table(out: str) -> dict[str, list]:
    """Return all shards as another program would read them."""
    files = sorted(map(str, Path(out).glob("*.parquet")))
    return pq.read_table(files).sort_by("index").to_pydict()


def test_to_the_last_bit_what_extract_computes() -> None:
    """Real weights, JPEG files of several sizes, shards that fit no step; as the package loads a folder."""
    names = draw("photos", 26, ".jpg", side=70)
    backbone = backbones.load(image_size=64)
    shards = scale.extract_files("photos", "out", backbone, shard_size=7, workers=2)
    ds = data.load(Path("photos"), image_size=64, lazy=True)
    x = ds.x_train.followed_by(ds.x_val).followed_by(ds.x_test)
    f, labels, index = shards.read()
    assert index.tolist() == list(range(26))
    assert labels.tolist() == [name[0] for name in names]
    assert f.dtype == np.float32
    in_order = [names.index(name) for name in x._names]
    np.testing.assert_array_equal(f[in_order], features.extract(backbone, x, engine="onnx", cache=False))
    found = table("out")
    assert found["path"] == names
    assert found["label"] == labels.tolist()
    np.testing.assert_array_equal(np.array(found["features"], np.float32), f)
    assert [path.name for path in shards.files] == [f"part-{k:05d}-of-00004.parquet" for k in range(4)]
    assert json.loads(Path("out/manifest.json").read_text()) == shards.manifest
    schema = pq.read_schema(shards.files[0])
    kinds = {"index": "int64", "path": "string", "label": "string", "error": "string"}
    assert {name: str(schema.field(name).type) for name in kinds} == kinds
    assert str(schema.field("features").type) == "list<element: float>"


def test_files_that_are_no_pictures_are_rows(tiny: backbones.Backbone) -> None:
    """Corrupt, cut, empty, text, a link that leads nowhere: each says why, and none is lost."""
    names = draw("pictures", 9)
    bad = {
        "a/cut.png": Path("pictures", names[0]).read_bytes()[:60],
        "a/empty.jpg": b"",
        "b/text.png": b"hello",
    }
    bad["b/noise.jpg"] = b"\xff\xd8\xff" + bytes(range(200))
    for name, content in bad.items():
        Path("pictures", name).write_bytes(content)
    os.symlink("nowhere", "pictures/a/link.png")
    shards = scale.extract_files("pictures", "out", tiny, shard_size=5, workers=2)
    assert set(shards.errors) == {*bad, "a/link.png"}
    assert shards.errors["a/empty.jpg"] == "empty file"
    assert shards.errors["b/text.png"] == "not an image, whatever its name says"
    assert all(shards.errors.values())
    found = table("out")
    assert len(shards) == len(found["index"]) == 14
    assert found["index"] == list(range(14))
    for path, error, row in zip(found["path"], found["error"], found["features"], strict=True):
        assert (path in shards.errors) == (error is not None) == (row is None)
    f, _, index = shards.read()
    np.testing.assert_array_equal(f, expected(tiny, "pictures", names))
    assert [found["path"][i] for i in index] == names
    parts = list(shards.batches(2))
    assert max(len(part[0]) for part in parts) == 2
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), f)


def test_nothing_but_errors(tiny: backbones.Backbone) -> None:
    """Then there are no features to read, and no classes."""
    Path("text.png").write_text("hello")
    shards = scale.extract_files(["text.png"], "out", tiny, labels=["a"], workers=1)
    assert (len(shards), len(shards.errors), shards.class_names) == (1, 1, ())
    assert [part.shape for part in shards.read()] == [(0, 4), (0,), (0,)]


def test_what_is_there_is_not_computed_again(
    tiny: backbones.Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing, cut, overwritten, exchanged shards are made anew; a finished job runs nothing at all."""
    names = draw("pictures", 12)
    shards = scale.extract_files("pictures", "out", tiny, shard_size=2, workers=2)
    shards.files[0].unlink()
    shards.files[1].write_bytes(shards.files[1].read_bytes()[:-9])
    shards.files[2].write_bytes(b"")
    shards.files[3].write_bytes(shards.files[4].read_bytes())
    with pytest.raises(data.DataError, match=r"4 of 6 .* part-00000"):
        scale.open_shards("out")
    before = [os.stat(path).st_ino for path in shards.files[4:]]
    again = scale.extract_files("pictures", "out", tiny, shard_size=2, workers=1)
    assert [os.stat(path).st_ino for path in shards.files[4:]] == before
    np.testing.assert_array_equal(again.read()[0], expected(tiny, "pictures", names))
    there = {path: path.stat().st_mtime_ns for path in Path("out").iterdir()}
    assert len(there) == 7  # six shards, the manifest, and nothing that is hidden
    monkeypatch.setattr(scale, "RUNNERS", {"local": None})
    scale.extract_files("pictures", "out", tiny, shard_size=2, workers=1)
    assert {path: path.stat().st_mtime_ns for path in Path("out").iterdir()} == there


def test_a_folder_of_something_else_is_refused(
    tiny: backbones.Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other pictures, labels, network, decoder, size of shards: the message says what differs."""
    names = draw("pictures", 4)
    scale.extract_files("pictures", "out", tiny, workers=1)
    before = {path: path.read_bytes() for path in Path("out").iterdir()}

    def refused(*lines: str, files: object = "pictures", network: object = tiny, **settings: object) -> None:
        with pytest.raises(data.DataError, match="shards of something else") as caught:
            scale.extract_files(files, "out", network, workers=1, **settings)
        said = str(caught.value).splitlines()[1:]
        assert [line.split(":")[0].strip() for line in said] == [*lines]

    refused("shard size", shard_size=3)
    refused("labels", labels="abcd")
    refused("folder", "paths", "labels", files=[Path("pictures", name) for name in names])
    other = make_backbone()
    other.model.get_layer("block1_conv").kernel.assign(np.ones((3, 3, 3, 4)))
    refused("network", network=other)
    with monkeypatch.context() as patch:
        patch.setattr("PIL.__version__", "0.1")
        refused("decoder")
    Image.new("RGB", (99, 99)).save(Path("pictures", names[0]))
    refused("file sizes")
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == before
    Path("mine").mkdir()
    Path("mine/features.parquet").write_bytes(Path("out/part-00000-of-00001.parquet").read_bytes())
    with pytest.raises(data.DataError, match="holds Parquet files"):
        scale.extract_files("pictures", "mine", tiny, workers=1)
    Path("mine/manifest.json").write_text("{")
    with pytest.raises(data.DataError, match=r"manifest.json cannot"):
        scale.extract_files("pictures", "mine", tiny, workers=1)


def test_a_damaged_shard_is_named_when_it_is_read(tiny: backbones.Backbone) -> None:
    """Its end is whole, and a page is not."""
    draw("pictures", 40)
    shards = scale.extract_files("pictures", "out", tiny, workers=1)
    content = bytearray(shards.files[0].read_bytes())
    where = pq.read_metadata(shards.files[0]).row_group(0).column(3)
    content[where.data_page_offset + 200] ^= 255
    shards.files[0].write_bytes(content)
    with pytest.raises(data.DataError, match=r"00000-of-00001.*damaged"):
        scale.open_shards("out").read()


@pytest.mark.fault("a worker is killed")
def test_a_worker_is_killed(tiny: backbones.Backbone) -> None:
    """By SIGKILL, in the midst of a shard, twice: the job ends as if nothing had been."""
    draw("pictures", 20)
    for name in ("a/kill.png", "b/kill.png"):
        Path("pictures", name).write_text(f"kill {Path(name.replace('/', '_')).absolute()} once")
    shards = scale.extract_files("pictures", "out", tiny, shard_size=4, workers=2)
    assert {"a_kill.png", "b_kill.png"} <= set(os.listdir())  # both were killed
    assert set(shards.errors) == {"a/kill.png", "b/kill.png"}
    good = [name for name in table("out")["path"] if "kill" not in name]
    assert len(list(Path("out").iterdir())) == 7  # what the killed ones left behind is cleared
    np.testing.assert_array_equal(shards.read()[0], expected(tiny, "pictures", good))


@pytest.mark.fault("a worker is killed each time")
def test_a_shard_that_always_kills_its_worker_is_named(tiny: backbones.Backbone) -> None:
    """All others are there. When the cause is gone, the job goes on."""
    draw("pictures", 12)
    Path("pictures/b/kill.png").write_text(f"kill {Path('cured').absolute()} always")
    with pytest.raises(RuntimeError, match=r"^part-00003[^,]*killed 3"):
        scale.extract_files("pictures", "out", tiny, shard_size=4, workers=2)
    assert len(list(Path("out").glob("part-*"))) == 3
    assert list(Path("out").glob(".part-*"))
    Path("cured").touch()
    shards = scale.extract_files("pictures", "out", tiny, shard_size=4, workers=2)
    assert set(shards.errors) == {"b/kill.png"}


def killed_after(n: int, how: signal.Signals, *command: str) -> str:
    """Start a job, kill it after some shards, see that none of our processes is left; return what it said."""
    env = os.environ | {"SECONDS_A_PICTURE": "0.1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    order = [sys.executable, *command]
    driver = subprocess.Popen(order, env=env, stderr=subprocess.PIPE, text=True, process_group=0)
    try:
        until = time.monotonic() + 100
        while len(list(Path("out").glob("part-*"))) < n:
            assert time.monotonic() < until
            assert driver.poll() is None, driver.stderr.read()
            time.sleep(0.02)
        workers = psutil.Process(driver.pid).children(recursive=True)
        # A terminal sends Ctrl-C to all processes of the group.
        os.killpg(driver.pid, how) if how == signal.SIGINT else driver.send_signal(how)
        assert driver.wait(20) != 0
    finally:
        driver.kill()
        driver.wait()
    assert len(workers) >= 2
    if "ray" not in command:  # it ends its processes itself, in its own time
        assert not psutil.wait_procs(workers, timeout=20)[1]
    return driver.stderr.read()


def goes_on(backbone: backbones.Backbone, names: list[str]) -> None:
    """See that whole shards were left, and that the next run keeps them and makes the others."""
    there = {path: path.stat().st_mtime_ns for path in Path("out").glob("part-*")}
    assert 2 <= len(there) < 10
    assert all(pq.read_metadata(path).num_rows == 4 for path in there)
    shards = scale.extract_files("pictures", "out", backbone, shard_size=4, workers=2)
    assert {path: path.stat().st_mtime_ns for path in there} == there
    np.testing.assert_array_equal(shards.read()[0], expected(backbone, "pictures", names))


@pytest.mark.fault("the whole job is killed")
@pytest.mark.parametrize("runner", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_the_script_that_calls_is_killed(
    tiny: backbones.Backbone, runner: str, request: pytest.FixtureRequest
) -> None:
    """By SIGKILL, a script as a reader writes it."""
    if runner == "ray":
        request.getfixturevalue("on_ray")
    names = draw("pictures", 40)
    Path("script.py").write_text(SCRIPT)
    killed_after(2, signal.SIGKILL, "script.py", str(ROOT / "tests"), runner)
    assert Path("began").read_text() == "__main__"
    goes_on(tiny, names)


@pytest.mark.fault("the whole job is stopped by Ctrl-C")
def test_ctrl_c(tiny: backbones.Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """One traceback, that of the script, and none of a worker."""
    names = draw("pictures", 40)
    jobs = []
    with monkeypatch.context() as patch:
        patch.setattr(scale, "RUNNERS", {"local": lambda *job: iter(jobs.append(job) or ())})
        with pytest.raises(data.DataError, match="10 of 10 shards"):
            scale.extract_files("pictures", "out", tiny, shard_size=4, workers=2)
    Path("job").write_bytes(pickle.dumps(jobs[0]))
    said = killed_after(2, signal.SIGINT, "-c", RUNNER)
    assert said.count("Traceback") == 1
    assert said.endswith("KeyboardInterrupt\n")
    goes_on(tiny, names)


def test_workers_are_small() -> None:
    """What a worker imports, imports no framework."""
    code = "import sys, tlhelpers.scale; print({'keras', 'pandas', 'scipy', 'sklearn'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_labels_from_folders_tables_and_lists(tiny: backbones.Backbone) -> None:
    """A folder's are the folders' names; a CSV file's its column; others are kept as text."""
    names = draw("pictures", 4)
    Image.new("RGB", (9, 9)).save("pictures/top.png")
    found = path_list.listed("pictures")
    assert found.paths == [*names, "top.png"]
    assert found.labels == ["a", "a", "b", "b", None]
    Path("table.csv").write_text(
        "﻿label,path\n7,pictures/a/000.png\n,pictures/b/001.png\n10,pictures/top.png\n"
    )
    shards = scale.extract_files("table.csv", "out", tiny, workers=1)
    assert shards.read()[1].tolist() == ["7", None, "10"]
    assert shards.class_names == ("7", "10")
    assert table("out")["path"] == ["pictures/a/000.png", "pictures/b/001.png", "pictures/top.png"]
    Path("paths.csv").write_text("path\npictures/top.png\n")
    assert path_list.listed("paths.csv").labels == [None]
    given = path_list.listed((Path("pictures", name) for name in names), np.array([3, 1, 0, 2]))
    assert given.labels == ["3", "1", "0", "2"]
    assert path_list.listed(["pictures/top.png"], [float("nan")]).labels == [None]
    assert path_list.listed("hook/../pictures").root == Path("pictures").absolute()
    everywhere = path_list.listed([Path("pictures/top.png").absolute()])
    os.chdir("hook")
    assert path_list.listed(everywhere.paths) == everywhere


def test_all_that_is_wrong_is_said_at_once(tiny: backbones.Backbone) -> None:
    """Before anything is computed or written."""
    draw("pictures", 2)

    def wrong(files: object, **settings: object) -> list[str]:
        with pytest.raises(ValueError) as caught:  # noqa: PT011  # what it says is looked at below
            scale.extract_files(files, "out", tiny, **settings)
        return str(caught.value).splitlines()

    said = wrong("nowhere", shard_size=0, workers=True, runner="dask", address="auto")
    assert [line.split()[0] for line in said] == [
        "There",
        "An",
        "shard_size",
        f"{Path('nowhere').absolute()}",
    ]
    assert wrong("pictures", workers=0) == ["workers must be a whole number of at least 1, not 0."]
    assert wrong([]) == ["There are no pictures in an empty list."]
    Path("none").mkdir()
    assert wrong("none") == [f"There are no pictures in {Path('none').absolute()}."]
    assert wrong("pictures", labels=["x"]) == ["There are 1 labels and 2 pictures. Pass one label each."]
    Path("some.zip").touch()
    said = wrong(["pictures/a/000.png", "gone.png", "pictures", "some.zip"])
    assert said == [
        "2 of 4 paths are no files, such as 'gone.png'.",
        "Archives are not read here, such as some.zip. Unpack them, and pass the folder.",
    ]
    Path("table.csv").write_text("file,label\nx.png,1\n")
    assert wrong("table.csv")[0].endswith("table.csv has no column path; its columns are: file, label.")
    assert wrong("pictures/a/000.png")[0].endswith("A single picture goes into a list.")
    with pytest.raises(data.DataError, match="nowhere has no manifest"):
        scale.open_shards("nowhere")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("module", "name", "runner"), [("pyarrow", "parquet", "local"), ("ray", "ray", "ray")]
)
def test_what_is_not_installed_is_said(
    module: str, name: str, runner: str, tiny: backbones.Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that installs it, and before anything is computed."""
    for part in [m for m in sys.modules if m.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, part)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'install "tlhelpers\[{name}\]"'):
        scale.extract_files("pictures", "out", tiny, runner=runner)


@pytest.mark.parametrize(("n_classes", "strength"), [(2, 1e-2), (10, 1e-2)])
def test_the_streaming_head_is_that_in_memory(n_classes: int, strength: float) -> None:
    """Sorted by class, in batches: the labels of the head in memory, and its probabilities to 0.002."""
    ds = data.load("digits", n_train=600, n_val=0, n_test=300)
    order = np.argsort(ds.y_train, kind="stable")
    order = order[ds.y_train[order] < n_classes]
    f, y = ds.x_train.reshape(600, -1)[order].astype(np.float32), ds.y_train[order]
    f_test = ds.x_test.reshape(300, -1)[ds.y_test < n_classes].astype(np.float32)
    y_test = ds.y_test[ds.y_test < n_classes]
    regression = LogisticRegression(C=strength, max_iter=5000, tol=1e-8)
    with threadpool_limits(1):
        memory = make_pipeline(StandardScaler(), regression).fit(f.astype(np.float64), y)
    parts = [slice(start, start + 150) for start in range(0, len(f), 150)]
    head = streamed.linear_probe(lambda: ((f[p], y[p]) for p in parts), n_classes, strength=strength)
    np.testing.assert_allclose(head.pipeline[0].mean_, memory[0].mean_, rtol=1e-12)
    np.testing.assert_allclose(head.pipeline[0].scale_, memory[0].scale_, rtol=1e-12)
    np.testing.assert_allclose(head.predict_proba(f_test), memory.predict_proba(f_test), atol=0.002)
    np.testing.assert_array_equal(head.predict(f_test), memory.predict(f_test))
    assert (head.predict(f_test) == y_test).mean() > 0.8
    logits = np.asarray(head.to_keras()(f_test))
    np.testing.assert_array_equal(logits.argmax(axis=1), head.predict(f_test))


def test_the_head_of_shards(tiny: backbones.Backbone) -> None:
    """Trained from files, it is the one of what they hold; rows without a label are left out."""
    names = draw("pictures", 40)
    labels = [None if i % 7 == 0 else name[0] for i, name in enumerate(names)]
    Path("pictures/a/text.png").write_text("hello")
    files = [*(Path("pictures", name) for name in names), "pictures/a/text.png"]
    shards = scale.extract_files(files, "out", tiny, labels=[*labels, "c"], shard_size=16, workers=2)
    head = scale.linear_head(shards, rows=9, strength=1e-2)
    f, read, _ = shards.read()
    known = read != None  # noqa: E711  # element by element
    y = np.array([shards.class_names.index(label) for label in read[known]])
    memory = make_pipeline(StandardScaler(), LogisticRegression(C=1e-2, tol=1e-8)).fit(
        f[known].astype(float), y
    )
    np.testing.assert_allclose(head.predict_proba(f), memory.predict_proba(f.astype(float)), atol=0.002)
    assert np.isnan(head.val_accuracy)
    with pytest.warns(UserWarning, match="has not converged after"):
        scale.linear_head(shards, strength=100.0, max_passes=2)
    with pytest.raises(ValueError, match="strength is 0"):
        scale.linear_head(shards, strength=0)
    alone = scale.extract_files(files[:1], "alone", tiny, workers=1)
    with pytest.raises(ValueError, match="two classes or more"):
        scale.linear_head(alone)


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """It computes, goes on, says what could not be read, and refuses in one sentence."""
    draw("pictures", 3, side=40)
    Path("pictures/a/text.png").write_text("hello")
    order = ["extract", "pictures", "out", "--image-size", "64", "--shard-size", "3", "--workers", "1"]
    for _ in range(2):
        done = CliRunner().invoke(cli.app, order)
        assert done.exit_code == 0, done.output
        assert "a/text.png: not an image" in done.output
        assert "1 not read; files: 2" in done.output
    assert len(scale.open_shards("out")) == 4
    done = CliRunner().invoke(cli.app, [*order, "--runner", "dask"])
    assert done.exit_code == 1
    assert "no runner 'dask'" in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_on_ray(tiny: backbones.Backbone) -> None:
    """The same features, also when a worker is killed; a finished job adds nothing."""
    draw("pictures", 20)
    Path("pictures/a/kill.png").write_text(f"kill {Path('killed').absolute()} once")
    shards = scale.extract_files("pictures", "out", tiny, shard_size=4, workers=2, runner="ray")
    assert Path("killed").exists()
    assert set(shards.errors) == {"a/kill.png"}
    good = [name for name in table("out")["path"] if "kill" not in name]
    np.testing.assert_array_equal(shards.read()[0], expected(tiny, "pictures", good))
    before = {path: path.stat().st_mtime_ns for path in shards.files}
    scale.extract_files("pictures", "out", tiny, shard_size=4, workers=2, runner="ray")
    assert {path: path.stat().st_mtime_ns for path in shards.files} == before


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_a_shard_that_always_kills_its_worker_on_ray(tiny: backbones.Backbone) -> None:
    """It is named among those in flight; without the cause, and without Ray, the job goes on."""
    names = draw("pictures", 12)
    Path("pictures/b/kill.png").write_text(f"kill {Path('cured').absolute()} always")
    with pytest.raises(RuntimeError, match="in flight") as caught:
        scale.extract_files("pictures", "out", tiny, shard_size=4, workers=2, runner="ray")
    assert "part-00003-of-00004" in str(caught.value).split(":")[0]
    Path("cured").touch()
    shards = scale.extract_files("pictures", "out", tiny, shard_size=4, workers=2)
    np.testing.assert_array_equal(shards.read()[0], expected(tiny, "pictures", names))


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_a_cluster_is_joined(tiny: backbones.Backbone) -> None:
    """Two nodes, of one core each; by its address, and with one worker a core that it has."""
    from ray.cluster_utils import Cluster

    names = draw("pictures", 24)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        shards = scale.extract_files(
            "pictures", "out", tiny, shard_size=4, runner="ray", address=cluster.address
        )
    finally:
        cluster.shutdown()
    np.testing.assert_array_equal(shards.read()[0], expected(tiny, "pictures", names))
