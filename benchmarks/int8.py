"""What integers of 8 bits cost: the validation accuracy of a linear probe, over seeds.

    python benchmarks/int8.py

Each seed draws a split, calibrates on 160 of its training images, and trains a probe on the features of each
engine. Test images are not used.
"""

import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from _common import table, write

from tlhelpers import backbones, data, evaluation, features, heads

SETS = (("flowers12", 224, 480, 240), ("cifar10", 96, 5000, 2000))  # name, pixels, training, validation
SEEDS = (0, 1, 2)


def loss(backbone: backbones.Backbone, ds: data.Dataset) -> float:
    """Returns the validation accuracy that features in 8 bits cost a linear probe, as a fraction.

    Both probes are trained and compared on their own features; the calibration takes training images.
    """
    best = {}
    for engine in ("onnx", "onnx-int8"):
        f_train, f_val = (
            features.extract(backbone, x, engine=engine, calibration=ds.x_train)
            for x in (ds.x_train, ds.x_val)
        )
        probe = heads.linear_probe(f_train, ds.y_train, f_val, ds.y_val)
        best[engine] = probe.val_accuracy
    return best["onnx"] - best["onnx-int8"]


def losses(name: str, size: int, n_train: int, n_val: int) -> list[float]:
    """Returns the accuracy lost, as a fraction, one value a seed."""
    backbone = backbones.load("efficientnet_lite0", image_size=size)
    found = []
    for seed in SEEDS:
        ds = data.load(name, n_train=n_train, n_val=n_val, seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TLHELPERS_CACHE"] = folder
            found.append(loss(backbone, ds))
    return found


def main() -> None:
    """Measures, prints and writes."""
    rows, found = [], []
    for name, size, n_train, n_val in SETS:
        lost = losses(name, size, n_train, n_val)
        mean, low, high = evaluation.t_interval(lost)
        rows.append([name, size, n_train, n_val, *(f"{100 * value:.2f}" for value in (mean, low, high))])
        found.append({"data": name, "image_size": size, "lost": lost, "mean": mean, "interval": [low, high]})
    columns = ["images", "pixels", "training", "validation", "points lost", "interval from", "to"]
    write("int8", table(columns, rows), {"backbone": "efficientnet_lite0", "seeds": SEEDS, "sets": found})


if __name__ == "__main__":
    main()
