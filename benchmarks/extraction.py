"""How fast features are computed: engine by input size, against `predict` and the machine's own limit.

    python benchmarks/extraction.py [--sizes 64 96 128 160 224] [--rounds 5]

Within a round the engines take turns on the same images, so that what disturbs the machine disturbs them
alike. Ratios are medians over the rounds. The limit is the rate of a large matrix product in float32,
measured in the same rounds, over the multiplications and additions that the network needs for an image.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from _common import table, write

from tlhelpers import backbones, features

ENGINES = ("predict", "keras", "onnx", "onnx-int8")


def operations(model: keras.Model) -> float:
    """Returns the operations of the convolutions for one image; a multiply-add counts as two."""
    total = 0.0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            height, width, channels = layer.output.shape[1:]
            kernel = layer.kernel.shape
            inputs = 1 if isinstance(layer, keras.layers.DepthwiseConv2D) else kernel[2]
            total += 2.0 * kernel[0] * kernel[1] * inputs * channels * height * width
    return total


def matmul_rate(size: int = 2048) -> float:
    """Returns operations a second of a product of two square matrices, float32, on all cores."""
    a = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    a @ a
    start = time.perf_counter()
    for _ in range(4):
        a @ a
    return 4 * 2.0 * size**3 / (time.perf_counter() - start)


def photographs(n: int, size: int) -> np.ndarray:
    """Returns pieces of scikit-learn's two photographs, uint8 ``(n, size, size, 3)``."""
    from sklearn.datasets import load_sample_image

    rng = np.random.default_rng(0)
    found = []
    for i in range(n):
        image = load_sample_image(("china.jpg", "flower.jpg")[i % 2])
        top, left = (int(rng.integers(0, side - size)) for side in image.shape[:2])
        found.append(image[top : top + size, left : left + size])
    return np.stack(found)


def measure(size: int, rounds: int) -> dict:
    """Returns the images a second of each engine in each round, and the limit."""
    backbone = backbones.load("efficientnet_lite0", image_size=size)
    n = int(512 * (224 / size) ** 1.5) // 64 * 64  # a few seconds of each engine
    images = photographs(n, size)

    def run(engine: str) -> float:
        start = time.perf_counter()
        if engine == "predict":
            backbone.model.predict(images, batch_size=32, verbose=0)
        else:
            features.extract(backbone, images, engine=engine, cache=False, calibration=images[:160])
        return n / (time.perf_counter() - start)

    for engine in ENGINES:  # exports, builds graphs, fills caches
        run(engine)
    rates: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    limits = []
    for _ in range(rounds):
        for engine in ENGINES:
            rates[engine].append(run(engine))
        limits.append(matmul_rate() / operations(backbone.model))
    f = {
        e: features.extract(backbone, images[:64], engine=e, cache=False, calibration=images[:160])
        for e in ENGINES[1:]
    }
    errors = {
        e: float(np.abs(f[e] - f["keras"]).max() / np.abs(f["keras"]).max()) for e in ("onnx", "onnx-int8")
    }
    ratio = {
        e: statistics.median(a / b for a, b in zip(rates[e], rates["predict"], strict=True))
        for e in ENGINES[1:]
    }
    return {
        "image_size": size,
        "n_images": n,
        "gflop_per_image": operations(backbone.model) / 1e9,
        "images_per_second": {e: statistics.median(r) for e, r in rates.items()}
        | {"limit": statistics.median(limits)},
        "ratio_to_predict": ratio,
        "share_of_limit": statistics.median(a / b for a, b in zip(rates["onnx"], limits, strict=True)),
        "largest_relative_error": errors,
        "rounds": {e: [round(v, 1) for v in r] for e, r in rates.items()},
    }


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 128, 160, 224])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    found = [measure(size, args.rounds) for size in args.sizes]
    columns = ["pixels", *ENGINES, "limit", "onnx / predict", "int8 / predict", "onnx / limit"]
    shown = table(
        columns,
        [
            [
                r["image_size"],
                *(f"{v:.0f}" for v in r["images_per_second"].values()),
                r["ratio_to_predict"]["onnx"],
                r["ratio_to_predict"]["onnx-int8"],
                r["share_of_limit"],
            ]
            for r in found
        ],
    )
    write("extraction", shown, {"backbone": "efficientnet_lite0", "unit": "images/s", "sizes": found})


if __name__ == "__main__":
    main()
