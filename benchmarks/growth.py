"""What more images cost: seconds and memory of the extraction of 1,000 to 50,000 images.

    python benchmarks/growth.py [--counts 1000 5000 20000 50000]

Each count runs in a process of its own with an empty cache. RssAnon is the memory that is not backed by a
file; it is sampled while `extract` runs. The images are noise in a memory-mapped file: their content does
not change the time. Linux only, since RssAnon comes from /proc.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from _common import memory_kb, table, write

SIZE, PIXELS = 96, 32


def one(n: int) -> None:
    """Extracts ``n`` images and prints seconds and the highest RssAnon in MB, as JSON."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import numpy as np

    from tlhelpers import backbones, features

    backbone = backbones.load("efficientnet_lite0", image_size=SIZE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.npy")
        images = np.lib.format.open_memmap(path, "w+", np.uint8, (n, PIXELS, PIXELS, 3))
        rng = np.random.default_rng(0)
        for start in range(0, n, 1000):
            images[start : start + 1000] = rng.integers(0, 256, images[start : start + 1000].shape, np.uint8)
        del images
        images = np.load(path, mmap_mode="r")
        features.extract(backbone, images[:64])  # the export
        peak, stop = [memory_kb()], threading.Event()

        def sample() -> None:
            while not stop.wait(0.05):
                peak[0] = max(peak[0], memory_kb())

        thread = threading.Thread(target=sample)
        thread.start()
        start_time = time.perf_counter()
        found = features.extract(backbone, images)
        seconds = time.perf_counter() - start_time
        stop.set()
        thread.join()
        assert found.shape == (n, 1280)
    print(json.dumps({"n": n, "seconds": round(seconds, 1), "rss_anon_mb": round(peak[0] * 1024 / 1e6)}))


def main() -> None:
    """Runs one process a count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 5000, 20000, 50000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(args.one)
        return
    rows = []
    for n in args.counts:
        with tempfile.TemporaryDirectory() as cache:
            command = [sys.executable, __file__, "--one", str(n)]
            env = {**os.environ, "TLHELPERS_CACHE": cache}
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
        print(rows[-1], flush=True)
    shown = table(["images", "seconds", "memory (MB)"], [list(row.values()) for row in rows])
    grown = rows[-1]["rss_anon_mb"] - rows[0]["rss_anon_mb"]
    content = {"backbone": "efficientnet_lite0", "image_size": SIZE, "rows": rows, "grown_mb": grown}
    write("growth", shown, content)


if __name__ == "__main__":
    main()
