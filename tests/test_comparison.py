"""Every method of the comparison trains what it says, on the images that it gets, and on no others."""

import dataclasses
import importlib.util

import numpy as np
import pytest

from tiny import SIZE, make_backbone
from tlhelpers import backbones, data, features, finetune
from tlhelpers.course import comparison
from tlhelpers.recipes import Recipe
from tools.numbers import stored
from tools.numbers.provenance import ROOT

CLASSES = ("dark", "middle", "bright")


@pytest.fixture
def setting(monkeypatch, tmp_path) -> comparison.Setting:
    """Three shades, a network of five blocks, features by Keras: nothing has to be exported."""
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path))
    monkeypatch.setattr(features, "_on_accelerator", lambda: True)
    monkeypatch.setattr(backbones, "load", lambda name, image_size: make_backbone(5, filters=24))
    recipe = Recipe(epochs=30, learning_rate=0.02, batch_size=10)
    return comparison.Setting(shades(), recipe, True, 0, "tiny", SIZE)


def shades() -> data.Dataset:
    """Images of one shade each, a little noisy; without others, which no method may look at."""
    y = np.arange(60) % 3
    noise = np.random.default_rng(0).integers(0, 20, (60, SIZE, SIZE, 3))
    x = ((20 + 100 * y)[:, None, None, None] + noise).astype(np.uint8)
    return data.Dataset(x[:45], y[:45], x[:0], y[:0], x[45:], y[45:], CLASSES, "made")


@pytest.mark.parametrize("method", comparison.METHODS)
def test_each_method_learns_three_shades(setting, method):
    test = shades()
    found, n_trained = comparison.accuracy(method, setting, test.x_test, test.y_test)
    assert found > 0.6  # guessing gives a third
    assert n_trained > 0


def test_what_each_method_trains(setting):
    n = {m: comparison.METHODS[m](setting).n_trained for m in comparison.METHODS if m != "scratch"}
    backbone = make_backbone(5, filters=24)
    head = (backbone.n_features + 1) * 3
    finetune.freeze_batchnorm(backbone)
    blocks = sum(int(np.prod(w.shape)) for w in backbone.model.trainable_weights)
    assert n["probe"] == n["trained_head"] == n["trained_head_augmented"] == head
    assert n["depths"] > head
    assert head < n["top_blocks"] < n["more_of_all"] < head + blocks
    through_all = ("naive_frozen_batchnorm", "full", "probe_then_full", "discriminative", "l2_sp")
    assert {m: n[m] for m in through_all} == dict.fromkeys(through_all, head + blocks)
    every = sum(int(np.prod(w.shape)) for w in make_backbone(5, filters=24).model.trainable_weights)
    assert n["naive"] == head + every > head + blocks


def test_the_naive_recipe_has_no_warm_up_and_the_others_keep_theirs(setting, monkeypatch):
    followed = {}
    plain = finetune.fine_tune

    def noted(model, ds, recipe, **options):
        followed[current] = recipe
        assert not len(ds.y_val)
        return plain(model, ds, dataclasses.replace(recipe, epochs=1), **options)

    monkeypatch.setattr(finetune, "fine_tune", noted)
    for current in ("naive", "naive_frozen_batchnorm", "full", "discriminative", "l2_sp", "scratch"):
        comparison.METHODS[current](setting)
    assert followed["full"] == setting.recipe
    constant = dataclasses.replace(setting.recipe, learning_rate=1e-3, warmup=0, cosine=False)
    assert followed["naive"] == followed["naive_frozen_batchnorm"] == constant
    assert followed["l2_sp"] == dataclasses.replace(setting.recipe, l2_sp=0.01)
    assert followed["discriminative"].rates["block5"] == 1
    assert followed["discriminative"].rates["block1"] == pytest.approx(0.7**4)
    assert followed["scratch"].epochs == comparison.SCRATCH_PASSES * setting.recipe.epochs


def test_an_unknown_method_is_named(setting):
    with pytest.raises(ValueError, match=r"nonsense.*probe_then_full"):
        comparison.accuracy("nonsense", setting, setting.ds.x_test, setting.ds.y_test)


@pytest.fixture
def benchmark(monkeypatch):
    """`benchmarks/comparison.py`, imported."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("benchmark", ROOT / "benchmarks" / "comparison.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_chapter_8_gets_each_method_at_each_size_and_their_differences(benchmark):
    accuracy = {method: (i + 1) / 20 for i, method in enumerate(comparison.EQUAL)}
    done = {
        benchmark.key("cifar10", method, n, 0): {"accuracy": accuracy[method] + n / 10_000, "seconds": n + 1}
        for method in comparison.EQUAL
        for n in ((5, 10, 20, 50, 100, 500) if method in comparison.CORE else (5, 50, 500))
    }
    found = benchmark.values(done, comparison.EQUAL, 0)
    among_core = sum(set(pair) <= set(comparison.CORE) for pair in comparison.PAIRS)
    assert len(found) == 2 * len(done) + 3 * len(comparison.PAIRS) + 3 * among_core
    assert found["depths_n50"] == accuracy["depths"] + 0.005
    assert found["depths_n50_seconds"] == 51
    assert found["probe_over_scratch_n500"] == pytest.approx(0.05)
    few = benchmark.values(done, comparison.EQUAL, 0, most=50)
    assert few == {name: value for name, value in found.items() if "00" not in name}
    assert benchmark.values(done, comparison.EQUAL, 1) is None
    assert benchmark.values(done, ("more_of_all",), 0) is None
    more = {benchmark.key("cifar10", "more_of_all", 500, 0): {"accuracy": 0.9, "seconds": 8.0}}
    found = benchmark.values(more, ("more_of_all",), 0)
    assert found == {"more_of_all_n500": 0.9, "more_of_all_n500_seconds": 8.0}


def test_the_benchmark_writes_what_the_site_reads(benchmark):
    """A row a method with a number a seed, and the same numbers by name for an explorer."""
    run = {"seconds": 3.0, "peak_mb": 900.4, "n_trained": 50}
    done = {
        benchmark.key("cifar10", method, 5, seed): run | {"accuracy": 0.4 + seed / 10}
        for method in ("probe", "top_blocks")
        for seed in (1, 0)
    }
    content = benchmark.for_site(done)
    assert [row[:4] for row in content["rows"]] == [
        ["cifar10", 5, "probe", [0.4, 0.5]],
        ["cifar10", 5, "top blocks", [0.4, 0.5]],
    ]
    assert all(len(row) == len(content["columns"]) for row in content["rows"])
    results = {"comparison": content}
    assert stored.quantity(results, "comparison", "cifar10_probe_5_accuracy") == [0.4, 0.5]
    assert stored.quantity(results, "comparison", "cifar10_top_blocks_5_seconds") == [3.0, 3.0]
