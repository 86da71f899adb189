"""Record attempt: the best CIFAR-10 test accuracy within five minutes on two cores.

    python benchmarks/record.py [--size 96] [--frozen 4] [--n-train 30000] [--rate 1e-3]

The clock starts before the imports, the cache is empty, and everything counts: reading and decoding the
images, exports, the head, the activations of the frozen trunk, fine-tuning above it, and the answers for
all 10,000 test images and their mirror images. Choose settings with --trial, which looks at validation images
alone; the test images are read once, in the end.
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace

BEGIN = time.perf_counter()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from _common import table, write

from tlhelpers import backbones, data, evaluation, features, finetune, heads, recipes

LIMIT = 300.0
N_HEAD = 5_000  # images that fit the head


def main() -> None:
    """Runs once, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--frozen", type=int, default=4, help="number of frozen blocks, of 7")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--n-train", type=int, default=30_000)
    parser.add_argument("--n-val", type=int, default=1_000)
    parser.add_argument("--trial", action="store_true", help="stop before the test images; write nothing")
    args = parser.parse_args()
    steps: dict[str, float] = {"imports": time.perf_counter() - BEGIN}

    def lap(name: str) -> None:
        steps[name] = time.perf_counter() - BEGIN - sum(steps.values())
        print(f"{name}: {steps[name]:.1f} s", flush=True)

    def answers(x: np.ndarray) -> np.ndarray:
        """Logits by ONNX Runtime, those of an image and its mirror image added."""
        views = (x, np.ascontiguousarray(x[:, :, ::-1]))
        return sum(features.extract(backbone, view) @ kernel + bias for view in views)

    with tempfile.TemporaryDirectory() as folder:
        os.environ["TLHELPERS_CACHE"] = folder
        ds = data.load("cifar10", n_train=args.n_train, n_val=args.n_val, n_test=10_000)
        lap("reading")
        keras.utils.set_random_seed(0)
        backbone = backbones.load("efficientnet_lite0", image_size=args.size)
        f_train = features.extract(backbone, ds.x_train[:N_HEAD])
        f_val = features.extract(backbone, ds.x_val)
        probe = heads.linear_probe(f_train, ds.y_train[:N_HEAD], f_val, ds.y_val)
        model = finetune.build_classifier(backbone, ds.n_classes, head=probe.to_keras(), dropout=0.2)
        lap("head")
        finetune.freeze(backbone, up_to=f"block{args.frozen}")
        mirror = np.random.default_rng(0).random(len(ds.x_train)) < 0.5
        x_train = np.where(mirror[:, None, None, None], ds.x_train[:, :, ::-1], ds.x_train)
        unwatched = replace(ds, x_train=x_train, x_val=ds.x_val[:0], y_val=ds.y_val[:0])
        recipe = recipes.Recipe(epochs=args.epochs, learning_rate=args.rate, batch_size=args.batch)
        finetune.fine_tune(model, unwatched, recipe, cache=True)
        lap("fine-tuning")
        kernel, bias = model.get_layer("head").get_weights()
        if args.trial:
            val = evaluation.accuracy(ds.y_val, answers(ds.x_val).argmax(axis=1))
            print(f"validation accuracy {val:.4f} with {vars(args)}; {time.perf_counter() - BEGIN:.0f} s")
            return
        logits = answers(ds.x_test)
        lap("answers")
    seconds = time.perf_counter() - BEGIN
    accuracy = evaluation.accuracy(ds.y_test, logits.argmax(axis=1))
    low, high = evaluation.wilson_interval(round(accuracy * len(ds.y_test)), len(ds.y_test))
    shown = table(["step", "seconds"], [(k, f"{v:.1f}") for k, v in [*steps.items(), ("all", seconds)]])
    print(f"test accuracy {accuracy:.4f} ({low:.4f} to {high:.4f}) in {seconds:.0f} s, limit {LIMIT:.0f} s")
    content = {"settings": vars(args), "data": repr(ds), "seconds": seconds, "steps": steps}
    write("record", shown, content | {"test_accuracy": accuracy, "wilson": [low, high]})


if __name__ == "__main__":
    main()
