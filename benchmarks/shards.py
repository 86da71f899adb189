"""Features of many files in shards, by processes and by Ray, against `features.extract` in one process.

    pip install ray
    python benchmarks/shards.py [--count 60000] [--workers 2] [--rounds 3]

All ways read the same PNG files, pictures of CIFAR-10, and take turns. Nothing is cached: each round of the
shards writes to an empty folder, and `extract` touches no file. The time of the shards holds the start of the
workers (of Ray, too) and the writing; that of `extract` holds that it reads each file a second time, to see
that it has not changed. The graph is exported before. All must have the same features, to the last bit.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from _common import table, write
from PIL import Image
from ray import __version__ as ray_version

from tlhelpers import backbones, data, features, scale

NAME, SIZE = "efficientnet_lite0", 96
TRAINING_SHARE = 5 / 6  # of CIFAR-10


def files(folder: Path, count: int) -> None:
    """Writes pictures into class folders."""
    n_train = round(TRAINING_SHARE * count)
    ds = data.load("cifar10", n_train=n_train, n_val=0, n_test=count - n_train)
    for split, x, y in (("train", ds.x_train, ds.y_train), ("test", ds.x_test, ds.y_test)):
        for i, (pixels, label) in enumerate(zip(np.asarray(x), y, strict=True)):
            path = folder / split / ds.class_names[label] / f"{i:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def ratio(rates: dict[str, list[float]], way: str) -> float:
    """Returns how many times as fast a way is as one process: the median over the rounds."""
    pairs = zip(rates[way], rates["in one process"], strict=True)
    return statistics.median(a / b for a, b in pairs)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=60_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    backbone = backbones.load(NAME, image_size=SIZE)
    features.graph(backbone)
    ways = {"shards": "local", "shards, finished before": "local", "shards by Ray": "ray"}
    rates: dict[str, list[float]] = {way: [] for way in ("in one process", *ways)}
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder, "pictures")
        files(pictures, args.count)
        ds = data.load(pictures, image_size=SIZE, n_val=0, lazy=True)
        x = ds.x_train.followed_by(ds.x_test)
        features.extract(backbone, x[:24], engine="onnx", cache=False)  # the session is made
        for i in range(args.rounds):
            start = time.perf_counter()
            f = features.extract(backbone, x, engine="onnx", cache=False)
            rates["in one process"].append(args.count / (time.perf_counter() - start))
            ordered = np.sort(f, axis=0)  # orders differ, but each feature has the same values
            for way, runner in ways.items():
                out = Path(folder, f"{runner}{i}")
                start = time.perf_counter()
                shards = scale.extract_files(pictures, out, backbone, workers=args.workers, runner=runner)
                rates[way].append(args.count / (time.perf_counter() - start))
                assert np.array_equal(np.sort(shards.read()[0], axis=0), ordered), way
            print(", ".join(f"{way}: {values[-1]:.0f}/s" for way, values in rates.items()), flush=True)
        n_bytes = sum(path.stat().st_size for path in shards.files)
    rows = [
        [way, f"{statistics.median(values):,.0f}", f"{ratio(rates, way):.2f}"]
        for way, values in rates.items()
    ]
    shown = table(["way", "images a second", "times as fast"], rows)
    about = {"count": args.count, "workers": args.workers, "image_size": SIZE, "ray": ray_version}
    write("shards", shown, about | {"rates": rates, "bytes_an_image": n_bytes / args.count})


if __name__ == "__main__":
    main()
