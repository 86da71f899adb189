"""What another processor changes: one seed of some chapters, measured again on two emulated machines.

    python benchmarks/machines.py [--chapters 04_feature_based ...]

A machine is emulated by what its libraries are allowed to use: AVX2 in place of AVX-512, and TensorFlow
without oneDNN. ONNX Runtime's kernels are not emulated by these settings, so frozen features differ less than
on real machines. Each run is kept when it is done, and the same call goes on where it was stopped. A change
is compared with the sampling error of the test set: it is a few images that fall to the other side, or more.
"""

import argparse
import json
import math
import os
import tempfile
from pathlib import Path

from _common import RESULTS, table, write

from tools.numbers import bands, stored
from tools.numbers.kernel import execute, find
from tools.numbers.provenance import ROOT, STORED

SEED = 0
MACHINES: dict[str, dict[str, str]] = {
    "this one": {},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell"},
    "without oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "0"},
}
# Two or three quantities a chapter: one that was trained, one that was solved or computed.
CHAPTERS: dict[str, tuple[str, ...]] = {
    "01_first_result": ("first_tuned", "first_head", "first_scratch"),
    "04_feature_based": ("linear_head", "depths_head", "mlp_head"),
    "05_transferability_of_layers": ("layers_near_frozen_3", "layers_near_tuned_3", "depth_photos_last"),
    "06_freezing": ("unfreeze_lpft", "unfreeze_probe", "surgery_labels_head"),
    "07_learning_rates": ("rates_base", "rates_base_constant", "rates_probe"),
    "10_tuning": ("tuned_usual", "search_random_test"),
    "11_evaluating": ("cv_finetuned", "cv_accuracy", "copies_leaked"),
    "12_errors_calibration": ("slice_all", "ece_raw", "label_cost"),
    "13_choosing_the_source": ("source_quality_late", "start_random", "source_objects_lite0"),
    "14_your_own_images": ("own_kept", "own_probe"),
}


def measured(chapter: str, settings: dict[str, str]) -> dict[str, float]:
    """Returns what one seed of a chapter gives under some settings."""
    before = {key: os.environ.get(key) for key in settings}
    os.environ.update(settings)
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy, results = Path(folder, f"{chapter}.ipynb"), Path(folder, "benchmarks", "results")
            results.mkdir(parents=True)
            text = find(chapter).read_text(encoding="utf-8")
            copy.write_text(bands.with_seeds(text, (SEED,)), encoding="utf-8")
            execute(copy, STORED, results, {"MEASURE": True}, results=results)
            found = stored.quantities(STORED, Path(folder))
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})
    return {name: found[name][str(SEED)] for name in CHAPTERS[chapter]}


def rows(runs: dict[str, dict[str, dict[str, float]]]) -> list[list[str]]:
    """Returns a row a quantity: its values, the largest change, and the error of its test set."""
    units = {name: claim["unit"] for name, claim in stored.read_claims(ROOT).items()}
    seeds = stored.quantities(STORED, ROOT)
    found = []
    for chapter, names in CHAPTERS.items():
        if len(machines := runs.get(chapter, {})) < len(MACHINES):
            continue
        for name in names:
            values = [machines[machine][name] for machine in MACHINES]
            change = max(abs(value - values[0]) for value in values)
            variance = bands.sampling_variance([*seeds[name].values()], units.get(name, "%"))
            error = "" if variance is None else f"{100 * math.sqrt(variance):.1f}"
            found.append([chapter, name, *(f"{100 * v:.1f}" for v in values), f"{100 * change:.1f}", error])
    return found


def main() -> None:
    """Runs what is missing, a chapter on a machine at a time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chapters", nargs="+", default=list(CHAPTERS), choices=CHAPTERS)
    args = parser.parse_args()
    path = RESULTS / "machines.json"
    runs = json.loads(path.read_text())["runs"] if path.is_file() else {}
    columns = ["chapter", "quantity", *MACHINES, "largest change", "error of its test set"]
    for chapter in args.chapters:
        for machine, settings in MACHINES.items():
            if machine not in runs.get(chapter, {}):
                print(f"{chapter} on {machine} ...", flush=True)
                runs.setdefault(chapter, {})[machine] = measured(chapter, settings)
                write("machines", table(columns, rows(runs)), {"seed": SEED, "runs": runs})


if __name__ == "__main__":
    main()
