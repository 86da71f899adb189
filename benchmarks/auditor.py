"""What the auditor costs: a check of many large images, and the callback in an epoch of training.

    python benchmarks/auditor.py [--images 10000] [--rounds 3]

Images are pictures of CIFAR-10. For `check` they are brought to 224 pixels, and given in three ways: as
arrays, as a `tf.data.Dataset` of these, and as a folder of JPEG files. A tenth as many are for
validation. The base is open but for batch normalization, which makes the one step of the check dear. Each
check runs in a process of its own, since one calls it once. For the callback, what it spends in a training of
one epoch is set against the same epoch without it: two epochs differ by more than that, so their difference
would not tell. It looks at a bounded number of images, so that its share falls with the length of the epoch.
Seconds are medians. Processor seconds are those of all threads: on a machine that has other work, too, they
tell more.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from _common import table, write
from PIL import Image

from tlhelpers import audit, backbones, data, finetune

LARGE, SMALL, BATCH = 224, 96, 32
CLOCKS = ("seconds", "processor")
AIM_CHECK, AIM_CALLBACK = 10, 0.05
WAYS = {
    "arrays": "arrays",
    "tf.data": "a tf.data.Dataset",
    "folder": "a folder of JPEG files",
}
RATES = {"frozen": 1e-3, "fine-tuned": 1e-4}  # of Adam, by what is meant
EPOCHS: dict[str, tuple[audit.Intent, int, int]] = {  # what is meant, pixels, images
    "frozen, small": ("frozen", SMALL, 5000),
    "fine-tuned, small": ("fine-tuned", SMALL, 5000),
    "frozen, large": ("frozen", LARGE, 10_000),
}


def clock() -> tuple[float, float]:
    """Returns seconds on the wall and of the processor."""
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> dict[str, float]:
    """Returns the seconds since a clock."""
    return {key: b - a for key, a, b in zip(CLOCKS, start, clock(), strict=True)}


class Timed(audit.Callback):
    """The callback, and how long it takes: all that it does begins in one of these."""

    def __init__(self, base: audit.Intent) -> None:
        super().__init__(base=base)
        self.spent = dict.fromkeys(CLOCKS, 0.0)


def _timed(name: str) -> Callable:
    method = getattr(audit.Callback, name)

    def call(self: Timed, *args: Any, **kwargs: Any) -> Any:
        start = clock()
        try:
            return method(self, *args, **kwargs)
        finally:
            for key, seconds in since(start).items():
                self.spent[key] += seconds

    return call


for name in [name for name in vars(audit.Callback) if name[:3] == "on_"] + ["_see"]:  # that: in a step
    setattr(Timed, name, _timed(name))


def classifier(size: int, base: audit.Intent) -> keras.Model:
    """Returns a compiled classifier whose base is frozen, or open but for batch normalization."""
    keras.utils.set_random_seed(0)
    backbone = backbones.load("efficientnet_lite0", image_size=size)
    (finetune.freeze if base == "frozen" else finetune.freeze_batchnorm)(backbone)
    model = finetune.build_classifier(backbone, 10)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(RATES[base]), loss, metrics=["accuracy"])
    return model


def prepare(folder: Path, images: int) -> None:
    """Writes the images of `check`, as arrays and as files."""
    ds = data.load("cifar10", n_train=images, n_val=images // 10, n_test=10)
    for split, x, y in (("train", ds.x_train, ds.y_train), ("val", ds.x_val, ds.y_val)):
        large = np.lib.format.open_memmap(folder / f"{split}.npy", "w+", np.uint8, (len(x), LARGE, LARGE, 3))
        np.save(folder / f"{split}_y.npy", y)
        for i, (pixels, label) in enumerate(zip(x, y, strict=True)):
            path = folder / split / ds.class_names[label] / f"{i:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(pixels).resize((LARGE, LARGE))
            picture.save(path)
            large[i] = picture


def one(way: str, folder: Path) -> None:
    """Checks once and prints the seconds and what was found, as JSON."""
    import tensorflow as tf

    given = []
    for split in ("train", "val"):
        if way == "folder":
            size = {"image_size": (LARGE, LARGE), "batch_size": BATCH, "shuffle": split == "train"}
            given.append(keras.utils.image_dataset_from_directory(folder / split, verbose=False, **size))
            continue
        x, y = np.load(folder / f"{split}.npy"), np.load(folder / f"{split}_y.npy")
        given.append(
            (x, y) if way == "arrays" else tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH).prefetch(2)
        )
    model = classifier(LARGE, "fine-tuned")
    start = clock()
    report = audit.check(model, *given, base="fine-tuned")
    print(json.dumps(since(start) | {"codes": report.codes}))


def checks(images: int, rounds: int) -> dict[str, dict]:
    """Returns seconds of `check` for each way to give images."""
    found: dict[str, list[dict]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), images)
        for _ in range(rounds):
            for way in WAYS:
                command = [sys.executable, __file__, "--one", way, name]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found[way].append(json.loads(done.stdout.strip().splitlines()[-1]))
                print(way, found[way][-1], flush=True)
    return {
        way: {key: statistics.median(run[key] for run in runs) for key in CLOCKS} | {"rounds": runs}
        for way, runs in found.items()
    }


def callback(base: audit.Intent, size: int, images: int, rounds: int) -> dict:
    """Returns the seconds of an epoch, those of the callback in it, and these as a share of the epoch."""
    ds = data.load("cifar10", n_train=images, n_val=images // 10, n_test=10)
    x, x_val = (data.resize(part, size) for part in (ds.x_train, ds.x_val))
    model = classifier(size, base)

    def epoch(callbacks: list) -> dict[str, float]:
        start = clock()
        model.fit(x, ds.y_train, BATCH, verbose=0, callbacks=callbacks, validation_data=(x_val, ds.y_val))
        return since(start)

    epoch([])  # builds the graphs
    runs: list[dict] = []
    for _ in range(rounds):
        plain, auditor = epoch([]), Timed(base)
        watched = epoch([auditor])
        assert auditor.report is not None
        runs.append({"plain": plain, "watched": watched, "spent": auditor.spent})
        runs[-1]["codes"] = auditor.report.codes
        print(base, size, runs[-1], flush=True)
    found: dict = {"rounds": runs}
    for key in CLOCKS:
        found[f"epoch_{key}"] = statistics.median(run["plain"][key] for run in runs)
        found[f"spent_{key}"] = statistics.median(run["spent"][key] for run in runs)
        found[f"share_{key}"] = found[f"spent_{key}"] / found[f"epoch_{key}"]
    return found


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(args.one[0], Path(args.one[1]))
        return
    check = checks(args.images, args.rounds)
    epochs = {name: callback(*what, args.rounds) for name, what in EPOCHS.items()}
    rows = [
        [f"check, {args.images:,} images of {LARGE} pixels: {words}"]
        + [f"{check[way][key]:.1f} s" for key in CLOCKS]
        + [f"{AIM_CHECK} s"]
        for way, words in WAYS.items()
    ]
    for name, r in epochs.items():
        base, size, images = EPOCHS[name]
        shares = [f"{r[f'share_{key}']:.1%} of {r[f'epoch_{key}']:.1f} s" for key in CLOCKS]
        what = f"callback, epoch of {images:,} images of {size} pixels: {base} base"
        rows.append([what, *shares, f"{AIM_CALLBACK:.0%}"])
    about = {"images": args.images, "aims": [AIM_CHECK, AIM_CALLBACK]}
    shown = table(["what", "on the clock", "processor", "aim, at most"], rows)
    write("auditor", shown, about | {"check": check, "callback": epochs})


if __name__ == "__main__":
    main()
