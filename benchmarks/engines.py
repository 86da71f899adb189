"""The engines of `features.extract` side by side: speed, first call, memory, room on disk, exactness.

    python benchmarks/engines.py [--rounds 5] [--images 512] [--seeds 5]

Within a round the engines take turns on the same images, so that what disturbs the machine disturbs them
alike; ratios are medians over the rounds. Alone, an engine gets an array in memory; from files, each way
reads the same photographs, as a reader would: ``data.load(lazy=True)`` and ``extract``, or Keras'
``image_dataset_from_directory`` and ``predict``. Before each measurement the way computes a few images, which
is not timed; its cost in a new process, with an empty cache, is measured apart. The limits are a large matrix
product in float32, and copies of arrays larger than any cache, on all cores, in the same rounds.

Results are kept by processor. What was stopped goes on: finished parts, and the log, are in the cache folder.
"""

import argparse
import functools
import json
import os
import shutil
import statistics
import string
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from importlib import metadata
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from _common import RESULTS, machine, memory_kb, provenance, table, write
from packaging.requirements import Requirement

from tlhelpers import backbones, data, evaluation, features, heads
from tlhelpers.paths import atomic_path, cache_dir

NAME = "efficientnet_lite0"
USUAL = "predict"  # what a reader has without this package
FULL = 512  # images at 224 pixels
SIZES = {224: 1, 96: 4}  # pixels -> how many times as many images
SETS = {"flowers12": (224, 480, 240), "cifar10": (96, 2000, 2000)}  # pixels, training, validation
EXTRAS = ("onnx", "openvino")
NONE = "not measured on this processor"
TIE = 0.1  # by so much may two equal speeds differ in a measurement
ALL = (USUAL, "keras", "onnx", "openvino", "openvino-bf16", "onnx-int8", "openvino-int8")
LETTERS = string.ascii_uppercase
LOG = cache_dir() / "benchmarks" / "engines.log"


def ways() -> list[str]:
    """Returns the ways to compute features here; Keras' own comes first."""
    return [way for way in ALL if way == USUAL or way in features.available()]


def computed(backbone: backbones.Backbone, x: np.ndarray | data.ImageSequence, way: str) -> np.ndarray:
    """Returns features of images, computed one way."""
    if way == USUAL:
        return backbone.model.predict(x, batch_size=32, verbose=0)
    shutil.rmtree(cache_dir() / "features", ignore_errors=True)
    ranges = photographs(backbone.image_size)
    return features.extract(backbone, x, engine=way, compare=False, calibration=ranges)


@functools.cache
def photographs(size: int) -> np.ndarray:
    """Returns photographs, uint8 ``(n, size, size, 3)``."""
    return data.resize(data.load("flowers12").x_train, size)


def taking_turns(
    run: Callable[[str], int], warm: Callable[[str], object], rounds: int, limits: Callable[[], list[float]]
) -> dict:
    """Returns images a second of each way in each round, and the limits in the same rounds."""
    rates: dict[str, list[float]] = {way: [] for way in ways()}
    found = []
    for i in range(rounds):
        for way in rates:
            warm(way)
            start = time.perf_counter()
            n = run(way)
            rates[way].append(n / (time.perf_counter() - start))
        found.append(limits())
        log(f"  round {i + 1}: " + ", ".join(f"{way} {values[-1]:.0f}/s" for way, values in rates.items()))
    return {"rates": rates, "limits": found}


def operations_and_bytes(model: keras.Model) -> tuple[float, float]:
    """Returns what one image asks for: operations of the convolutions, and bytes of their maps.

    A multiply-add counts as two; each map is written once and read once, in float32.
    """
    operations = moved = 0.0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            height, width, channels = layer.output.shape[1:]
            kernel = layer.kernel.shape
            inputs = 1 if isinstance(layer, keras.layers.DepthwiseConv2D) else kernel[2]
            operations += 2.0 * kernel[0] * kernel[1] * inputs * channels * height * width
            moved += 2.0 * 4 * channels * height * width
    return operations, moved


def limits() -> list[float]:
    """Returns operations a second of a matrix product in float32, and bytes a second of copies; all cores."""
    a = np.random.default_rng(0).standard_normal((2048, 2048)).astype(np.float32)
    a @ a
    start = time.perf_counter()
    for _ in range(4):
        a @ a
    operations = 4 * 2.0 * len(a) ** 3 / (time.perf_counter() - start)
    cores = machine()["cores"]
    source, target = np.ones((2, cores, 1 << 28), np.uint8)
    with ThreadPoolExecutor(cores) as pool:
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            list(pool.map(np.copyto, target, source))
            seconds.append(time.perf_counter() - start)
    return [operations, 2 * source.nbytes / min(seconds)]


def alone(size: int, n: int, rounds: int) -> dict:
    """Returns the speed of each way on an array in memory, and how far its features are from Keras'."""
    backbone = backbones.load(NAME, image_size=size)
    images = np.resize(photographs(size), (n, size, size, 3))
    found = taking_turns(
        lambda way: len(computed(backbone, images, way)),
        lambda way: computed(backbone, images[:32], way),
        rounds,
        limits,
    )
    some = photographs(size)[::10]
    expected = computed(backbone, some, USUAL)
    for way in ways():
        f = computed(backbone, some, way)
        cosine = (f * expected).sum(1) / np.linalg.norm(f, axis=1) / np.linalg.norm(expected, axis=1)
        largest = np.abs(f - expected).max() / np.abs(expected).max()
        found.setdefault("exactness", {})[way] = [float(largest), float(cosine.mean())]
    return found | {"n": n, "per_image": operations_and_bytes(backbone.model)}


def from_files(rounds: int) -> dict:
    """Returns the speed of each way on a folder of JPEG files, decoding included."""
    backbone = backbones.load(NAME, image_size=224)
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(Path(os.environ["TLHELPERS_DATA"], "flowers12.zip")) as archive:
            archive.extractall(folder)
        n = sum(1 for _ in Path(folder).rglob("*.jpg"))

        def run(way: str) -> int:
            if way == USUAL:
                usual = functools.partial(
                    keras.utils.image_dataset_from_directory,
                    label_mode=None,
                    image_size=(224, 224),
                    shuffle=False,
                    verbose=False,
                )
                parts = [usual(Path(folder, split)) for split in ("train", "test")]
            else:
                ds = data.load(Path(folder), image_size=224, lazy=True)
                parts = [ds.x_train, ds.x_val, ds.x_test]
            assert sum(len(computed(backbone, part, way)) for part in parts) == n
            return n

        some = photographs(224)[:32]
        return taking_turns(run, lambda way: computed(backbone, some, way), rounds, lambda: [0.0]) | {"n": n}


def first_call(way: str) -> None:
    """Prints, as JSON, what the first call costs in this process, and the most memory that it held."""
    backbone = backbones.load(NAME, image_size=224)
    images = photographs(224)
    seconds = []
    for part in (images[:64], images[64:128]):
        start = time.perf_counter()
        computed(backbone, part, way)
        seconds.append(time.perf_counter() - start)
    try:
        peak: float | None = memory_kb("VmHWM") * 1024 / 1e6
    except OSError:
        peak = None
    print(json.dumps({"first": seconds[0], "later": seconds[1], "peak_mb": peak}))


def in_new_process(way: str) -> dict:
    """Returns what `first_call` prints in a new process with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--first", way]
        env = {**os.environ, "TLHELPERS_CACHE": folder}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def needed(requirement: str, seen: set[str]) -> set[str]:
    """Returns ``seen`` and the distributions that a requirement brings here, by name."""
    wanted = Requirement(requirement)
    try:
        found = metadata.distribution(wanted.name)
    except metadata.PackageNotFoundError:
        return seen
    name = found.metadata["Name"].lower().replace("_", "-")
    if f"{name}{sorted(wanted.extras)}" in seen:
        return seen
    seen = seen | {name, f"{name}{sorted(wanted.extras)}"}
    for line in found.requires or ():
        marker = Requirement(line).marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*wanted.extras, "")):
            seen = needed(line, seen)
    return seen


def installed_mb() -> dict[str, float]:
    """Returns what each extra adds on disk to the core with TensorFlow, in MB, without compiled files."""

    def size(names: set[str]) -> float:
        files = [file for name in names if "[" not in name for file in metadata.files(name) or ()]
        paths = [Path(file.locate()) for file in files if file.suffix != ".pyc"]
        return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6

    core = needed("tlhelpers", set()) | needed("tensorflow", set()) | needed("tensorflow-cpu", set())
    return {extra: size(needed(f"tlhelpers[{extra}]", set()) - core) for extra in EXTRAS}


def probes(name: str, seed: int, share: float) -> dict[str, float]:
    """Returns the validation accuracy of a linear probe on the features of each engine.

    Each probe is trained and judged on its engine's features. Integers take their ranges from the training
    images. With a share below one there are as many fewer images, to try the script.
    """
    size, *counts = SETS[name]
    n_train, n_val = (max(24, int(share * count)) for count in counts)
    backbone = backbones.load(NAME, image_size=size)
    ds = data.load(name, n_train=n_train, n_val=n_val, seed=seed)
    found = {}
    for engine in ways()[1:]:
        options = {"engine": engine, "calibration": ds.x_train, "compare": False}
        f_train, f_val = (features.extract(backbone, x, **options) for x in (ds.x_train, ds.x_val))
        found[engine] = heads.linear_probe(f_train, ds.y_train, f_val, ds.y_val).val_accuracy
    return found


@contextmanager
def own_cache() -> Iterator[None]:
    """Lends an empty cache folder, so that the reader's own is left alone."""
    before = os.environ.get("TLHELPERS_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TLHELPERS_CACHE"] = folder
        try:
            yield
        finally:
            os.environ.pop("TLHELPERS_CACHE") if before is None else os.environ.update(TLHELPERS_CACHE=before)


def parts(settings: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict]]]:
    """Yields the name of each part of the measurement, and what measures it."""
    for size, factor in SIZES.items():
        yield f"alone {size}", lambda s=size, n=settings.images * factor: alone(s, n, settings.rounds)
    yield "files", lambda: from_files(-(-settings.rounds // 2))
    for way in ways():
        yield f"first {way}", lambda way=way: in_new_process(way)
    yield "installed", installed_mb
    share = min(1.0, settings.images / FULL)
    for name in SETS:
        for seed in range(settings.seeds):
            yield f"probes {name} {seed}", lambda name=name, seed=seed, share=share: probes(name, seed, share)


def log(text: str) -> None:
    """Prints a line, and adds it to the log."""
    line = f"{time.strftime('%H:%M:%S')} {text}"
    print(line, flush=True)
    with LOG.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def measured(settings: argparse.Namespace) -> tuple[dict[str, dict], Path]:
    """Returns all parts, and the file that keeps them; what it holds already is not measured again."""
    code = provenance.script_code(Path(__file__).resolve())
    key = sha256(json.dumps([code, machine()["cpu"], vars(settings)]).encode()).hexdigest()[:12]
    kept = LOG.with_name(f"engines-{key}.json")
    log(f"finished parts: {kept}; log: {LOG}")
    found = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    with own_cache():
        for name, measure in parts(settings):
            if name in found:
                log(f"{name}: kept")
                continue
            start = time.perf_counter()
            found[name] = measure()
            log(f"{name}: {time.perf_counter() - start:.0f} s")
            with atomic_path(kept) as part:
                part.write_text(json.dumps(found), encoding="utf-8")
    return found, kept


# --- Tables of all processors of which there are results; these are called A, B, ... ---

Processors = dict[str, dict]


Cells = Callable[[dict, str], list[str] | None]


def by_engine(processors: Processors, columns: list[str], cells: Cells, first: int = 0) -> list[list[str]]:
    """Returns a row for each engine and processor: both, and then ``cells``, or that it is not measured."""
    here = {way for found in processors.values() for way in found["parts"]["files"]["rates"]}
    rows = []
    for way in [way for way in ALL if way in here or way.startswith("openvino")][first:]:
        for letter, found in zip(LETTERS, processors.values(), strict=False):
            texts = cells(found["parts"], way) or [NONE]
            rows.append([way, letter, *texts, *[""] * (len(columns) - len(texts))])
    return rows


def ratio(rates: dict[str, list[float]], way: str, to: str = USUAL) -> float:
    """Returns how many times as fast a way is as another: the median over the rounds."""
    return statistics.median(a / b for a, b in zip(rates[way], rates[to], strict=True))


def speed(part: dict, way: str) -> list[str] | None:
    """Returns the cells of a speed: images a second, times `predict`, shares of the limits if measured."""
    rates = part["rates"]
    if way not in rates:
        return None
    texts = [f"{statistics.median(rates[way]):.0f}", f"{ratio(rates, way):.2f}"]
    for i, per_image in enumerate(part.get("per_image", ())):
        pairs = zip(rates[way], part["limits"], strict=True)
        texts.append(f"{statistics.median(rate * per_image / most[i] for rate, most in pairs):.0%}")
    return texts


def lost(parts: dict, name: str, engine: str) -> list[float]:
    """Returns the points of accuracy that an engine loses against Keras, one value a seed."""
    seeds = [part for key, part in parts.items() if key.startswith(f"probes {name} ")]
    return [100 * (part["keras"] - part[engine]) for part in seeds if engine in part]


def exactness(parts: dict, name: str, engine: str) -> list[str] | None:
    """Returns the cells of a probe's accuracy, and of how far features are from Keras'."""
    points = lost(parts, name, engine)
    if not points:
        return None
    mean, low, high = evaluation.t_interval(points) if len(points) > 1 else points * 3
    largest, cosine = parts[f"alone {SETS[name][0]}"]["exactness"][engine]
    return [f"{mean:.2f}", f"{low:.2f} to {high:.2f}", f"{cosine:.4f}", f"{largest:.1e}"]


def first(parts: dict, way: str) -> list[str] | None:
    """Returns the cells of a first call: seconds, those of the next one, and memory."""
    found = parts.get(f"first {way}")
    if not found:
        return None
    peak = found["peak_mb"]
    return [f"{found['first']:.1f}", f"{found['later']:.1f}", "–" if peak is None else f"{peak:.0f}"]


def aims(parts: dict) -> Iterator[tuple[str, str, float, bool]]:
    """Yields what was aimed at: the subject, the aim, what was measured, and whether it is reached."""
    for where, least in (*((f"alone {size}", 3.0) for size in SIZES), ("files", 2.5)):
        rates = parts[where]["rates"]
        auto = next(name for name in features.FASTEST if name in rates)
        lowest = min(ratio(rates, auto, other) for other in features.FASTEST if other in rates)
        yield f"auto ({auto}), {where}", "no slower than the others in float32", lowest, lowest > 1 - TIE
        if "openvino-bf16" in rates:
            found = ratio(rates, "openvino-bf16")
            yield f"openvino-bf16, {where}", f"at least {least} times {USUAL}", found, found >= least
    for name in SETS:
        if points := lost(parts, name, "openvino-bf16"):
            mean = statistics.mean(points)
            yield f"openvino-bf16, probe on {name}", "at most 0.5 points lost", mean, mean <= 0.5


def tables(processors: Processors) -> dict[str, dict]:
    """Returns all tables, by name."""
    columns = ["engine", "processor", "images/s", f"times {USUAL}", "of float32 product", "of memory"]
    alone = [
        [str(size), *row]
        for size in SIZES
        for row in by_engine(
            processors, columns[2:], lambda parts, way, key=f"alone {size}": speed(parts[key], way)
        )
    ]
    files = by_engine(processors, columns[2:4], lambda parts, way: speed(parts["files"], way))
    calls = ["first 64 images (s)", "next 64 (s)", "most memory (MB)"]
    points = ["points lost", "95 % interval", "mean cosine", "largest difference"]
    probe = [
        [name, str(SETS[name][0]), *row]
        for name in SETS
        for row in by_engine(
            processors, points, lambda parts, way, name=name: exactness(parts, name, way), first=2
        )
    ]
    reached = [
        [what, letter, aim, f"{value:.2f}", "yes" if enough else "no"]
        for letter, found in zip(LETTERS, processors.values(), strict=False)
        for what, aim, value, enough in aims(found["parts"])
    ]
    room, about = [], []
    for letter, (key, found) in zip(LETTERS, processors.items(), strict=False):
        room += [[extra, letter, f"{mb:.0f}"] for extra, mb in found["parts"]["installed"].items()]
        on = found["machine"]
        software = ", ".join(f"{name} {version}" for name, version in on["versions"].items())
        about.append([letter, key, str(on["cores"]), software, on["date"]])
    return {
        "processors": table(["", "processor, instruction sets", "cores", "versions", "date"], about),
        "alone": table(["pixels", *columns], alone),
        "files": table(columns[:4], files),
        "first": table([*columns[:2], *calls], by_engine(processors, calls, first)),
        "installed": table(["extra", "processor", "MB"], room),
        "probe": table(["images", "pixels", *columns[:2], *points], probe),
        "aims": table(["what", "processor", "aim", "measured", "reached"], reached),
    }


def main() -> None:
    """Measures what is missing, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=FULL, help="at 224 pixels; fewer to try the script")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.first:
        first_call(args.first)
        return
    LOG.parent.mkdir(parents=True, exist_ok=True)
    here = machine()
    finished, kept = measured(args)
    path = RESULTS / "engines.json"
    processors = json.loads(path.read_text(encoding="utf-8"))["processors"] if path.is_file() else {}
    key = ", ".join([here["cpu"], *here["instructions"]])
    processors[key] = {"machine": here, "settings": vars(args), "parts": finished}
    made = tables(processors)
    write("engines", made["alone"], {"backbone": NAME, "tables": made, "processors": processors})
    kept.unlink()


if __name__ == "__main__":
    main()
