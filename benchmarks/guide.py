"""This package against the usual recipe, in which the frozen backbone runs again in every epoch.

    python benchmarks/guide.py [--folder PATH] [--size 224] [--epochs 20] [--name flowers]
    python benchmarks/guide.py --folder cifar10 --n-train 2000 --n-val 500 --size 96 --name cifar10_2000

The recipe is that of the Keras guide on transfer learning: flips and rotations as layers, a frozen
backbone, pooling, dropout of 0.2 and one Dense layer, Adam with its usual rate, 20 epochs. Ours: features
that are computed once, and a linear probe whose penalty is chosen on the validation images. Both get the same
backbone, images and machine. The recipe's test accuracy is measured outside the clock, after each epoch.
Imports are timed apart.
"""

import argparse
import os
import tempfile
import time

BEGIN = time.perf_counter()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from _common import table, write

from tlhelpers import backbones, data, evaluation, features, finetune, heads

IMPORTS = time.perf_counter() - BEGIN


def ours(ds: data.Dataset, size: int, cold: bool) -> dict[str, float]:
    """Returns seconds of each step and the test accuracy; ``cold`` starts from an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        if cold:
            before, os.environ["TLHELPERS_CACHE"] = os.environ.get("TLHELPERS_CACHE"), folder
        start = time.perf_counter()
        backbone = backbones.load("efficientnet_lite0", image_size=size)
        if cold:
            features.extract(backbone, ds.x_train[:1], cache=False)
        exported = time.perf_counter()
        f_train, f_val = features.extract(backbone, ds.x_train), features.extract(backbone, ds.x_val)
        extracted = time.perf_counter()
        probe = heads.linear_probe(f_train, ds.y_train, f_val, ds.y_val)
        end = time.perf_counter()
        accuracy = evaluation.accuracy(ds.y_test, probe.predict(features.extract(backbone, ds.x_test)))
        if cold:
            os.environ.pop("TLHELPERS_CACHE") if before is None else os.environ.update(TLHELPERS_CACHE=before)
    steps = {
        "load_and_export": exported - start,
        "extraction": extracted - exported,
        "probe": end - extracted,
    }
    return steps | {"seconds": end - start, "test_accuracy": accuracy}


def recipe(ds: data.Dataset, size: int, epochs: int) -> dict[str, list[float]]:
    """Returns the seconds so far, and the test accuracy, after each epoch of the usual recipe."""
    f_test = features.extract(backbones.load("efficientnet_lite0", image_size=size), ds.x_test)  # not timed
    keras.utils.set_random_seed(0)
    start = time.perf_counter()
    backbone = backbones.load("efficientnet_lite0", image_size=size)
    finetune.freeze(backbone)
    layers = [keras.layers.RandomFlip("horizontal"), keras.layers.RandomRotation(0.1)]
    model = finetune.build_classifier(
        backbone, ds.n_classes, dropout=0.2, augmentation=keras.Sequential(layers)
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(), loss, metrics=["accuracy"])
    x_train, x_val = data.resize(ds.x_train, size), data.resize(ds.x_val, size)
    paused, seconds, accuracy = 0.0, [], []

    def after_epoch(epoch: int, logs: dict) -> None:
        nonlocal paused
        now = time.perf_counter()
        seconds.append(now - start - paused)
        kernel, bias = model.get_layer("head").get_weights()
        accuracy.append(evaluation.accuracy(ds.y_test, (f_test @ kernel + bias).argmax(1)))
        paused += time.perf_counter() - now

    watch = keras.callbacks.LambdaCallback(on_epoch_end=after_epoch)
    validation = (x_val, ds.y_val)
    model.fit(
        x_train,
        ds.y_train,
        epochs=epochs,
        batch_size=64,
        validation_data=validation,
        callbacks=[watch],
        verbose=0,
    )
    return {"seconds": seconds, "test_accuracy": accuracy}


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", default="flowers12", help="a folder of class folders, or a named set")
    parser.add_argument("--name", default="flowers", help="of the result")
    parser.add_argument("--n-train", type=int)
    parser.add_argument("--n-val", type=int)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument(
        "--rounds", type=int, default=3, help="of ours; the recipe runs once, in their middle"
    )
    args = parser.parse_args()
    start = time.perf_counter()
    ds = data.load(args.folder, n_train=args.n_train, n_val=args.n_val)
    reading = time.perf_counter() - start
    print(ds)
    cold = [ours(ds, args.size, cold=True) for _ in range(args.rounds // 2)]
    theirs = recipe(ds, args.size, args.epochs)
    cold += [ours(ds, args.size, cold=True) for _ in range(args.rounds - args.rounds // 2)]
    ours(ds, args.size, cold=False)
    warm = [ours(ds, args.size, cold=False) for _ in range(args.rounds)]
    ours_cold = sorted(cold, key=lambda r: r["seconds"])[len(cold) // 2]
    ours_warm = sorted(warm, key=lambda r: r["seconds"])[len(warm) // 2]
    target = min(ours_cold["test_accuracy"], max(theirs["test_accuracy"]))
    reached = next(i for i, a in enumerate(theirs["test_accuracy"]) if a >= target)
    ratios = {
        "whole_recipe": theirs["seconds"][-1] / ours_cold["seconds"],
        "whole_recipe_with_imports": (theirs["seconds"][-1] + IMPORTS) / (ours_cold["seconds"] + IMPORTS),
        "to_equal_accuracy": theirs["seconds"][reached] / ours_cold["seconds"],
        "warm_cache": theirs["seconds"][-1] / ours_warm["seconds"],
    }
    rows = [
        ("features once, cold cache", ours_cold["seconds"], ours_cold["test_accuracy"]),
        ("features once, warm cache", ours_warm["seconds"], ours_warm["test_accuracy"]),
        (f"backbone in the loop, {args.epochs} epochs", theirs["seconds"][-1], theirs["test_accuracy"][-1]),
        (f"the same, first at {target:.1%}", theirs["seconds"][reached], theirs["test_accuracy"][reached]),
    ]
    columns = ["method", "seconds", "test accuracy"]
    shown = table(columns, [(name, f"{seconds:.1f}", f"{accuracy:.1%}") for name, seconds, accuracy in rows])
    print("times faster:", {name: round(value, 1) for name, value in ratios.items()})
    content = {
        "data": repr(ds),
        "image_size": args.size,
        "imports_seconds": IMPORTS,
        "reading_seconds": reading,
    }
    content |= {"ours_cold": cold, "ours_warm": warm, "recipe": theirs, "ratios": ratios}
    write(f"guide_{args.name}", shown, content)


if __name__ == "__main__":
    main()
