"""A frozen trunk in the training loop against one whose activations are computed once.

    python benchmarks/trunk.py [--images 960] [--rounds 3]

For each depth of the trunk, an epoch over the whole network and an epoch over the part above the trunk take
turns; seconds are medians. What the activations cost is given apart: they are computed once, however
many epochs follow. Two epochs of each, from the same weights and in the same order, end in an accuracy on the
validation images.
"""

import argparse
import os
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from _common import table, write

from tlhelpers import backbones, data, evaluation, features, finetune, heads, trunk

SIZE, BATCH = 96, 64
DEPTHS = {f"block{k}": ("stem", *(f"block{i}" for i in range(1, k + 1))) for k in (3, 4, 5)}


def classifier(ds: data.Dataset, frozen: tuple[str, ...]) -> keras.Model:
    """Returns a classifier on a backbone with frozen blocks, whose head was fitted first."""
    keras.utils.set_random_seed(0)
    backbone = backbones.load("efficientnet_lite0", image_size=SIZE)
    f_train, f_val = features.extract(backbone, ds.x_train), features.extract(backbone, ds.x_val)
    head = heads.linear_probe(f_train, ds.y_train, f_val, ds.y_val).to_keras()
    model = finetune.build_classifier(backbone, ds.n_classes, head=head)
    finetune.freeze(backbone, blocks=frozen)
    return model


def epoch(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    """Trains for one epoch, and returns the seconds of its steps."""
    clock: list[float] = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: clock.append(time.perf_counter()),
        on_epoch_end=lambda epoch, logs: clock.append(time.perf_counter()),
    )
    model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=[watch])
    return clock[1] - clock[0]  # behind it, `fit` may wait for a thread of tf.data, in either way alike


def measure(ds: data.Dataset, name: str, rounds: int) -> dict:
    """Returns seconds of both ways, and the accuracies that two epochs reach."""
    found: dict = {"trunk_up_to": name}
    whole = classifier(ds, DEPTHS[name])
    split = classifier(ds, DEPTHS[name])
    start = time.perf_counter()
    top, activations = trunk.above(split, ds)
    found["trunk_seconds"] = time.perf_counter() - start
    x_whole = data.resize(ds.x_train, SIZE)
    for model in (whole, top):
        model.compile(
            keras.optimizers.Adam(1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
    for key, model, x in (("whole", whole, x_whole), ("split", top, activations.x_train)):
        keras.utils.set_random_seed(1)
        for _ in range(2):
            epoch(model, x, ds.y_train)  # the first builds the graph
        trained = whole if key == "whole" else split
        found[f"{key}_val_accuracy"] = evaluation.accuracy(ds.y_val, finetune.predict(trained, ds.x_val))
    times = [
        (epoch(whole, x_whole, ds.y_train), epoch(top, activations.x_train, ds.y_train))
        for _ in range(rounds)
    ]
    found["whole_seconds"], found["split_seconds"] = (
        statistics.median(way) for way in zip(*times, strict=True)
    )
    return found | {"ratio": statistics.median(a / b for a, b in times), "rounds": times}


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=960)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    ds = data.load("cifar10", n_train=args.images, n_val=1000, n_test=1000)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TLHELPERS_CACHE"] = folder
        found = [measure(ds, name, args.rounds) for name in DEPTHS]
    columns = ["frozen up to", "epoch, whole network (s)", "epoch, above the trunk (s)", "times faster"]
    columns += ["the trunk, once (s)", "accuracy, whole", "accuracy, above"]
    shown = table(
        columns,
        [
            [
                r["trunk_up_to"],
                *(f"{r[key]:.1f}" for key in ("whole_seconds", "split_seconds", "ratio", "trunk_seconds")),
                *(f"{r[key]:.1%}" for key in ("whole_val_accuracy", "split_val_accuracy")),
            ]
            for r in found
        ],
    )
    write("trunk", shown, {"data": repr(ds), "image_size": SIZE, "batch": BATCH, "depths": found})


if __name__ == "__main__":
    main()
