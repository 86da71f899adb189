"""The engines side by side: how exactly each computes, what is said of a lower precision, what is missing."""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from test_features import ALL, FAMILIES, crops, direct, make_backbone, n_entries, noise, relative
from tlhelpers import backbones, data, features
from tlhelpers.backbones import Backbone
from tlhelpers.features import _engines, _graphs, _openvino, _processor
from tools.numbers.provenance import ROOT

HAS_OPENVINO = "openvino" in features.available()
needs_openvino = pytest.mark.skipif(
    not HAS_OPENVINO, reason="no OpenVINO here, or a Keras that cannot export to it"
)
HAS_BF16 = "openvino-bf16" in features.available()


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty cache, and nothing remembered of other tests."""
    _graphs.forget()
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def tiny():
    """A network that is exported quickly."""
    return make_backbone()


@pytest.fixture
def x():
    """A few images."""
    return noise(9)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine of each row of one with that of the other."""
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


# --- Precision ---


@needs_openvino
def test_openvino_agrees_with_keras_on_photographs():
    """In float32 to 1e-4 of the largest feature; in fewer bits in direction."""
    backbone, images = backbones.load("efficientnet_lite0", image_size=64), crops(40, 64)
    by_keras = features.extract(backbone, images, engine="keras")
    by_openvino = features.extract(backbone, images, engine="openvino", batch_size=4)
    assert by_openvino.shape == by_keras.shape
    assert by_openvino.dtype == np.float32
    assert relative(by_openvino, by_keras) < 1e-4
    if HAS_BF16:
        short = features.extract(backbone, images, engine="openvino-bf16")
        assert 1e-4 < relative(short, by_keras) < 0.5
        assert cosines(short, by_keras).mean() > 0.98
    else:
        print("openvino-bf16 is not compared: this processor has no bfloat16")


@needs_openvino
@pytest.mark.slow
@pytest.mark.parametrize("name", backbones.names() if ALL else FAMILIES)
def test_openvino_agrees_with_keras_on_every_family(name):
    """Weekly: one network a family, or each network."""
    if not ALL and name != "mobilenet":
        pytest.skip("takes half a minute: runs weekly, and where TLHELPERS_ALL_BACKBONES is set")
    keras.utils.set_random_seed(0)
    backbone, images = backbones.load(name, image_size=96, weights=None), crops(3, 96)
    by_keras = features.extract(backbone, images, engine="keras", cache=False)
    assert np.ptp(by_keras, axis=0).max() > 0  # the images differ
    assert relative(features.extract(backbone, images, engine="openvino", cache=False), by_keras) < 1e-4
    if HAS_BF16:
        short = features.extract(backbone, images, engine="openvino-bf16", cache=False)
        assert cosines(short, by_keras).mean() > 0.98
    keras.backend.clear_session()


@needs_openvino
@pytest.mark.parametrize("batch_size", [1, 2, 4, None])
def test_steps_change_nothing(tiny, x, batch_size):
    """The last step is smaller than the others."""
    found = features.extract(tiny, x, engine="openvino", batch_size=batch_size)
    np.testing.assert_allclose(found, direct(tiny, x), rtol=1e-4, atol=1e-6)


@needs_openvino
def test_taps_maps_and_normalization(x):
    """As with the other engines."""
    inputs = keras.Input((16, 16, 3))
    y = keras.layers.Normalization(mean=[9.0, 4.0, 3.0], variance=[2.0, 3.0, 1.0])(inputs)
    y = keras.layers.Conv2D(4, 3, strides=2, name="conv")(y)
    backbone = Backbone("norm", 16, keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(y)), "random")
    for options in ({}, {"taps": ["conv", "last"]}, {"taps": ["conv"], "pooled": False}):
        found, expected = (features.extract(backbone, x, engine=e, **options) for e in ("openvino", "keras"))
        assert found.dtype == expected.dtype
        assert relative(found.astype(np.float32), expected.astype(np.float32)) < 2e-3


# --- Keys ---


def test_each_engine_has_an_entry_of_its_own_that_no_other_reads(tiny, x, monkeypatch):
    """What lies under a key is what its engine computed, whatever else lies there."""
    engines = [name for name in features.available() if _engines.ENGINES[name].precision == "float32"]
    mark = {name: number for number, name in enumerate(features.available(), start=1)}
    monkeypatch.setattr(
        features,
        "_runner",
        lambda engine, *_: lambda images: np.full((len(images), 4), mark[engine], np.float32),
    )
    for _ in range(2):
        for name in features.available():
            found = features.extract(tiny, x, engine=name, calibration=x[:4])
            assert (found == mark[name]).all()
    assert len(engines) > 1
    assert n_entries() == len(mark)


@needs_openvino
def test_the_keys_follow_versions(tiny, x, monkeypatch):
    """Another OpenVINO may round otherwise."""
    features.extract(tiny, x, engine="openvino")
    real = features._key.importlib.metadata.version
    monkeypatch.setattr(
        features._key.importlib.metadata, "version", lambda p: "99" if p == "openvino" else real(p)
    )
    features.extract(tiny, x, engine="openvino")
    assert n_entries() == 2


# --- Which engine ---


def test_auto_never_lowers_precision_and_takes_the_first_that_is_here(tiny, x, monkeypatch):
    """In the order that the benchmark found."""
    monkeypatch.setattr(features, "_on_accelerator", lambda: False)
    assert all(_engines.ENGINES[name].precision == "float32" for name in _engines.FASTEST)
    assert _engines.FASTEST[-1] == "keras"  # it runs whatever it has made
    real, ran = features._runner, []
    monkeypatch.setattr(features, "_runner", lambda engine, *a: (ran.append(engine), real(engine, *a))[1])
    missing: set[str] = set()
    monkeypatch.setattr(_engines.Engine, "available", lambda self: self.name not in missing)
    here = [name for name in _engines.FASTEST if name in ("keras", "onnx") or HAS_OPENVINO]
    for name in here:
        assert relative(features.extract(tiny, x, cache=False), direct(tiny, x)) < 1e-4
        missing.add(name)
    assert ran == here


# --- What a lower precision changes ---


@needs_openvino
def test_a_lower_precision_is_compared_and_said(tiny, x, capsys):
    """Once in words, and to the caller as numbers."""
    features.extract(tiny, x, engine="openvino-int8", calibration=x)
    said = capsys.readouterr().out
    assert said.startswith("openvino-int8 against float32 on 9 images: mean cosine ")
    assert "accuracy" not in said
    found = features.difference(tiny, x, "openvino-int8", calibration=x)
    assert said.strip() == str(found)
    full = features.extract(tiny, x)
    short = features.extract(tiny, x, engine="openvino-int8", calibration=x)
    capsys.readouterr()
    assert found.cosine == pytest.approx(cosines(short, full).mean(), abs=1e-6)
    assert found.lowest == pytest.approx(cosines(short, full).min(), abs=1e-6)
    features.extract(tiny, x)
    assert not capsys.readouterr().out  # in float32 there is nothing to say


def test_with_labels_the_accuracy_of_a_probe_is_compared(capsys):
    """Bright and dark images are told apart with any precision."""
    rng = np.random.default_rng(0)
    y = np.repeat([7, 3], 40)
    x = (rng.integers(0, 100, (80, 16, 16, 3)) + 100 * (y == 7)[:, None, None, None]).astype(np.uint8)
    features.extract(make_backbone(), x, engine="onnx-int8", calibration=x, labels=y)
    assert "100.00%, in float32 100" in capsys.readouterr().out
    found = features.difference(make_backbone(), x, "onnx-int8", labels=y, calibration=x)
    assert found.accuracy == found.full_accuracy == 1.0
    alone = features.difference(make_backbone(), x[:3], "onnx-int8", labels=y[:3], calibration=x)
    assert alone.accuracy is None  # one class


def test_the_comparison_looks_at_few_images_evenly_spread():
    """Sorted classes are all seen."""
    y = np.repeat(np.arange(10), 1000)
    assert len(features._difference.sample(10_000, None)) == 64
    chosen = features._difference.sample(10_000, y)
    assert len(chosen) == 512
    assert np.bincount(y[chosen]).min() > 40
    with pytest.raises(ValueError, match=r"\(3,\).* 4 images"):
        features._difference.sample(4, y[:3])


def test_an_engine_is_compared_by_its_name(tiny, x):
    """There is no lower precision behind 'auto'."""
    with pytest.raises(ValueError, match="by its name"):
        features.difference(tiny, x, "auto")


# --- What is missing ---


@needs_openvino
def test_a_processor_without_bfloat16_is_told_what_it_has(tiny, x, monkeypatch):
    """And what to take."""
    monkeypatch.setattr(_processor, "instructions", lambda: {"fpu", "avx", "avx2", "sse4_1"})
    monkeypatch.setattr(_processor, "name", lambda: "Old Processor 1")
    with pytest.raises(
        RuntimeError,
        match=r"avx512_bf16 .*\(Old Processor 1\) has avx, avx2.*engine='openvino'",
    ):
        features.extract(tiny, x, engine="openvino-bf16")
    assert "openvino-bf16" not in features.available()
    monkeypatch.setattr(_processor, "instructions", lambda: {"avx512f", "avx512_bf16"})
    assert "openvino-bf16" in features.available()


@needs_openvino
def test_a_network_that_keras_cannot_export_says_so(tiny, x, monkeypatch):
    """Whatever stood in the way."""

    def fail(*_, **__):
        raise ValueError("Unrecognized format=openvino")

    monkeypatch.setattr(keras.Model, "export", fail)
    with pytest.raises(RuntimeError, match=r"OpenVINO.*format=openvino"):
        features.extract(tiny, x, engine="openvino")


@needs_openvino
def test_a_keras_that_is_too_old_says_so(tiny, x, monkeypatch):
    """The lowest version that the package takes cannot export to OpenVINO."""
    monkeypatch.setattr(keras, "__version__", "3.8.0")
    with pytest.raises(RuntimeError, match=r"3\.8\.0 cannot .*3\.11"):
        features.extract(tiny, x, engine="openvino")
    assert not [name for name in features.available() if name.startswith("openvino")]


@needs_openvino
def test_a_graph_that_differs_from_keras_is_not_used(tiny, x, monkeypatch):
    """Whatever the exporter did."""
    real = _openvino.session

    def wrong(*arguments):
        run = real(*arguments)
        return lambda images: run(images) * 1.001

    monkeypatch.setattr(_openvino, "session", wrong)
    with pytest.raises(RuntimeError, match=r"differs .*1\.0e-03"):
        features.extract(tiny, x, engine="openvino")


WITHOUT = """
import json, sys
for name in ("openvino", "openvino_telemetry"):
    sys.modules[name] = None
sys.path.insert(0, sys.argv[1])
import numpy as np
from tiny import images, make_backbone
from tlhelpers import features
tiny, x = make_backbone(), images(5)
found = {"available": features.available(), "said": {}}
for name in ("openvino", "openvino-bf16", "openvino-int8"):
    try:
        features.extract(tiny, x, engine=name, calibration=x)
    except ImportError as error:
        found["said"][name] = str(error)
auto, by_onnx, by_keras = (features.extract(tiny, x, engine=e) for e in ("auto", "onnx", "keras"))
found["auto is onnx"] = bool(np.array_equal(auto, by_onnx))
found["close"] = bool(np.abs(auto - by_keras).max() < 1e-4 * np.abs(by_keras).max())
print(json.dumps(found))
"""


def test_without_the_extra_all_works_as_before(tmp_path: Path):
    """A process in which OpenVINO cannot be imported."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TLHELPERS_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", WITHOUT, str(ROOT / "tests")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["available"] == ["onnx", "onnx-int8", "keras"]
    expected = 'openvino is not installed. Run: pip install "tlhelpers[openvino]"'
    assert found["said"] == dict.fromkeys(("openvino", "openvino-bf16", "openvino-int8"), expected)
    assert found["auto is onnx"]
    assert found["close"]


def test_the_processor_is_known():
    """By name and by what it can."""
    assert _processor.name()
    if Path("/proc/cpuinfo").is_file():
        assert _processor.instructions()


def test_a_set_on_disk_gives_the_same_features(tiny, tmp_path):
    """Images are decoded in the threads that compute."""
    from test_features import image_folder

    root = image_folder(tmp_path / "set", ((20, 16), (30, 40)))
    lazy, eager = (data.load(root, lazy=lazy, image_size=24) for lazy in (True, False))
    for engine in features.available():
        options = {"engine": engine, "batch_size": 4, "calibration": eager.x_train, "cache": False}
        found = features.extract(tiny, lazy.x_train, **options)
        np.testing.assert_array_equal(found, features.extract(tiny, eager.x_train, **options))


# --- What was measured ---

MEASURED = ROOT / "benchmarks" / "results" / "engines.json"
TIE = 0.9  # of the speed of another engine: so much do two measurements of one speed differ


@pytest.mark.skipif(not MEASURED.is_file(), reason="benchmarks/engines.py has not been run yet")
def test_auto_takes_the_engine_that_was_measured_to_be_fastest():
    """On each processor of which there are results, alone and from files."""
    processors = json.loads(MEASURED.read_text(encoding="utf-8"))["processors"]
    assert processors
    for processor, found in processors.items():
        for where in ("alone 96", "alone 224", "files"):
            rates = found["parts"][where]["rates"]
            first, *others = (name for name in _engines.FASTEST if name in rates)
            for other in others:
                ratios = [a / b for a, b in zip(rates[first], rates[other], strict=True)]
                assert np.median(ratios) > TIE, f"{processor}, {where}: {other} is faster than {first}"


@pytest.fixture
def benchmark(monkeypatch):
    """`benchmarks/engines.py`, imported."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("engines_benchmark", ROOT / "benchmarks" / "engines.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stored(ways: dict[str, float]) -> dict:
    """Return what a processor's results look like: two rounds, so many images a second."""
    part = {"rates": {way: [rate, rate + 1] for way, rate in ways.items()}, "limits": [[1e9, 1e8]] * 2}
    exact = {way: [1e-6, 1.0] for way in ways}
    probes = {way: 0.9 - 0.002 * way.endswith("int8") for way in ways if way != "predict"}
    return {
        "machine": {"cores": 2, "versions": {"keras": "3.15.1"}, "date": "2026-01-01"},
        "parts": {
            "alone 224": part | {"per_image": [2e6, 1e5], "exactness": exact},
            "alone 96": part | {"per_image": [2e6, 1e5], "exactness": exact},
            "files": part,
            **{f"first {way}": {"first": 2.0, "later": 1.0, "peak_mb": None} for way in ways},
            "installed": {"onnx": 100.0, "openvino": 200.0},
            **{f"probes {name} {seed}": probes for name in ("flowers12", "cifar10") for seed in range(2)},
        },
    }


def test_the_tables_put_processors_side_by_side_and_say_what_was_not_measured(benchmark):
    """A processor without bfloat16 has a row for it all the same."""
    new = {"predict": 100, "keras": 100, "onnx": 200, "openvino": 210, "openvino-bf16": 290, "onnx-int8": 300}
    old = {way: rate for way, rate in new.items() if "openvino" not in way}
    tables = benchmark.tables({"new chip": stored(new), "old chip": stored(old)})
    assert tables["processors"]["rows"] == [
        ["A", "new chip", "2", "keras 3.15.1", "2026-01-01"],
        ["B", "old chip", "2", "keras 3.15.1", "2026-01-01"],
    ]
    assert ["224", "onnx", "A", "200", "2.00", "40%", "20%"] in tables["alone"]["rows"]
    missing = ["openvino-bf16", "B", "not measured on this processor", ""]
    assert missing in tables["files"]["rows"]
    assert ["onnx", "B", "2.0", "1.0", "–"] in tables["first"]["rows"]
    points = ["flowers12", "224", "onnx-int8", "A", "0.20", "0.20 to 0.20", "1.0000", "1.0e-06"]
    assert points in tables["probe"]["rows"]
    reached = {(row[0], row[1]): row[-1] for row in tables["aims"]["rows"]}
    assert reached["openvino-bf16, alone 224", "A"] == "no"  # 2.9 times
    assert reached["openvino-bf16, files", "A"] == "yes"
    assert reached["auto (onnx), files", "B"] == "yes"
    for table in tables.values():
        assert {len(row) for row in table["rows"]} == {len(table["columns"])}
        assert all(isinstance(text, str) for row in table["rows"] for text in row)


def test_what_is_finished_is_not_measured_again(benchmark, monkeypatch, tmp_path):
    """A run that is stopped goes on with the part in which it was."""
    monkeypatch.setattr(benchmark, "LOG", tmp_path / "engines.log")
    done = []

    def parts(settings):
        for name in ("one", "two", "three"):
            yield name, lambda name=name: (done.append(name), {"value": 1 / (len(done) != 2)})[1]

    monkeypatch.setattr(benchmark, "parts", parts)
    settings = argparse.Namespace(rounds=1)
    with pytest.raises(ZeroDivisionError):
        benchmark.measured(settings)
    found, _ = benchmark.measured(settings)
    assert done == ["one", "two", "two", "three"]
    assert set(found) == {"one", "two", "three"}
    assert "one: kept" in (tmp_path / "engines.log").read_text()


def test_the_room_of_an_extra_is_that_of_what_it_alone_brings(benchmark):
    """ONNX Runtime's files are tens of megabytes; what TensorFlow needs anyway is not counted."""
    names = benchmark.needed("tlhelpers[onnx]", set())
    assert {"onnx", "onnxruntime", "keras"} <= names
    assert "onnxruntime" not in benchmark.needed("tlhelpers", set())
    assert benchmark.installed_mb()["onnx"] > 10
