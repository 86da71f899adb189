"""Features of many files in shards, by processes, against `features.extract` in one process.

    python benchmarks/shards.py [--count 60000] [--workers 2] [--rounds 3]

Both ways read the same PNG files, pictures of CIFAR-10, and take turns. Nothing is cached: each round of the
shards writes to an empty folder, and `extract` touches no file. The time of the shards holds the start of the
workers and the writing; that of `extract` holds that it reads each file a second time, to see that it has not
changed. The graph is exported before. Both must have the same features, to the last bit.
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
    rates: dict[str, list[float]] = {"in one process": [], "shards": [], "shards, finished before": []}
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder, "pictures")
        files(pictures, args.count)
        ds = data.load(pictures, image_size=SIZE, n_val=0, lazy=True)
        x = ds.x_train.followed_by(ds.x_test)
        features.extract(backbone, x[:24], engine="onnx", cache=False)  # the session is made
        for i in range(args.rounds):
            out = Path(folder, f"shards{i}")
            start = time.perf_counter()
            f = features.extract(backbone, x, engine="onnx", cache=False)
            rates["in one process"].append(args.count / (time.perf_counter() - start))
            for way in ("shards", "shards, finished before"):
                start = time.perf_counter()
                shards = scale.extract_files(pictures, out, backbone, workers=args.workers)
                rates[way].append(args.count / (time.perf_counter() - start))
            print(", ".join(f"{way}: {values[-1]:.0f}/s" for way, values in rates.items()), flush=True)
        # The orders differ: whatever they are, each feature has the same values.
        assert np.array_equal(np.sort(shards.read()[0], axis=0), np.sort(f, axis=0))
        n_bytes = sum(path.stat().st_size for path in shards.files)
    rows = [
        [way, f"{statistics.median(values):,.0f}", f"{ratio(rates, way):.2f}"]
        for way, values in rates.items()
    ]
    shown = table(["way", "images a second", "times as fast"], rows)
    about = {"count": args.count, "workers": args.workers, "image_size": SIZE, "rates": rates}
    write("shards", shown, about | {"bytes_an_image": n_bytes / args.count})


if __name__ == "__main__":
    main()
