"""Record attempt: the best CIFAR-10 test accuracy within five minutes on two cores.

    python benchmarks/record.py [--size 224] [--engine onnx-int8] [--n-train 49000] [--flips]

The clock starts before the imports, the cache is empty, and everything counts: reading and decoding the
images, the export, the calibration, the features of all images, the head, and the answer for all 10,000 test
Settings were chosen on validation images; the test images are read once.
"""

import argparse
import os
import tempfile
import time

BEGIN = time.perf_counter()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from _common import table, write

from tlhelpers import backbones, data, evaluation, features, transfer

LIMIT = 300.0


def main() -> None:
    """Runs once, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--engine", default="onnx-int8", choices=features.ENGINES)
    parser.add_argument("--taps", default="multi", choices=("last", "multi"))
    parser.add_argument("--n-train", type=int, default=49_000)
    parser.add_argument("--n-val", type=int, default=1_000)
    parser.add_argument("--n-test", type=int, default=10_000)
    parser.add_argument("--head", default="mlp", choices=("mlp", "probe"))
    parser.add_argument(
        "--flips", action="store_true", help="mirrored training images, and mirrored test images"
    )
    parser.add_argument("--no-write", action="store_true", help="for trials")
    args = parser.parse_args()
    steps: dict[str, float] = {"imports": time.perf_counter() - BEGIN}

    def lap(name: str) -> None:
        steps[name] = time.perf_counter() - BEGIN - sum(steps.values())

    with tempfile.TemporaryDirectory() as folder:
        os.environ["TLHELPERS_CACHE"] = folder
        ds = data.load("cifar10", n_train=args.n_train, n_val=args.n_val, n_test=args.n_test)
        lap("reading")
        backbone = backbones.load(args.backbone, image_size=args.size)

        def extract(x: np.ndarray) -> np.ndarray:
            return features.extract(backbone, x, args.taps, args.engine, calibration=ds.x_train)

        extract(ds.x_train[:1])
        lap("export")
        f_train, f_val, f_test = (extract(x) for x in (ds.x_train, ds.x_val, ds.x_test))
        y_train, mirrored = ds.y_train, []
        if args.flips:
            mirrored = [
                extract(np.ascontiguousarray(x[:, :, ::-1])) for x in (ds.x_train, ds.x_val, ds.x_test)
            ]
            f_train, y_train = np.concatenate([f_train, mirrored[0]]), np.tile(ds.y_train, 2)
        lap("features")
        fit = transfer.mlp_head if args.head == "mlp" else transfer.linear_probe
        head = fit(f_train, y_train, f_val, ds.y_val)
        lap("head")
        shares = head.predict_proba(f_test) + (head.predict_proba(mirrored[2]) if args.flips else 0)
        accuracy = evaluation.accuracy(ds.y_test, shares.argmax(axis=1))
        lap("answers")
        val = evaluation.accuracy(ds.y_val, head.predict(f_val))
    seconds = time.perf_counter() - BEGIN
    low, high = evaluation.wilson_interval(round(accuracy * len(ds.y_test)), len(ds.y_test))
    table(["step", "seconds"], [*steps.items(), ("all", seconds)])
    print(f"validation accuracy {val:.4f}")
    print(f"test accuracy {accuracy:.4f} ({low:.4f} to {high:.4f}) in {seconds:.0f} s, limit {LIMIT:.0f} s")
    if not args.no_write:
        content = {"settings": vars(args), "data": repr(ds), "seconds": seconds, "steps": steps}
        write("record", content | {"test_accuracy": accuracy, "wilson": [low, high], "val_accuracy": val})


if __name__ == "__main__":
    main()
