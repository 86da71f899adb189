"""SIGKILL at random moments: a cache that is filled, a training, a search. Each goes on to the same result.

The cache is killed here a few times; all three a hundred times where ``TLHELPERS_KILLS`` says so, weekly.
Kills at the worst moments, on purpose, are in the tests of `resume` and `tuning`.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

KILLS = int(os.environ.get("TLHELPERS_KILLS", "0"))
HERE = Path(__file__).resolve().parent

CACHE = """
import time
import numpy as np
from tlhelpers import cache
print("begin", flush=True)
with cache.lock("rows"):
    parts = cache.Parts("rows", (500,), np.dtype(np.float32))
    for start in range(parts.done, 120, 4):
        time.sleep(0.01)
        parts.append(np.random.default_rng(start).normal(size=(4, 500)).astype(np.float32))
    found = parts.finish("rows")
np.save("done.tmp.npy", found)
"""
TRAINING = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from pathlib import Path
import test_resume
model = test_resume.classifier()
print("begin", flush=True)
test_resume.train(Path("backups"), model)
np.save("done.tmp.npy", np.concatenate([w.ravel() for w in model.get_weights()]))
"""
SEARCH = """
import time
import numpy as np
from tlhelpers import tuning
def objective(trial):
    x = trial.suggest_float("x", -1, 1)
    time.sleep(0.02)
    return -x * x
print("begin", flush=True)
study = tuning.search(objective, 16, "search.db", seed=3)
np.save("done.tmp.npy", [t.params["x"] for t in study.trials if t.state.name == "COMPLETE"])
"""


def start(script: str, folder: Path) -> subprocess.Popen:
    """Start a job in its folder and return when it begins."""
    folder.mkdir(exist_ok=True)
    env = {**os.environ, "TLHELPERS_CACHE": str(folder / "cache"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    env["PYTHONPATH"] = str(HERE.parent)
    # What it finishes takes its last name outside: a job is done, or it is not.
    code = script + '\nimport os; os.replace("done.tmp.npy", "done.npy")\n'
    command = [sys.executable, "-c", code, str(HERE)]
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begin\n"
    return process


@pytest.mark.slow
@pytest.mark.fault("a process is killed")
@pytest.mark.parametrize(
    ("script", "n"),
    [(CACHE, max(6, KILLS)), (TRAINING, KILLS), (SEARCH, KILLS)],
    ids=[
        f"kills: at random moments of {job}" for job in ("features being written", "a training", "a search")
    ],
)
def test_killed_at_random_moments(script: str, n: int, tmp_path: Path, record_property) -> None:
    """After each kill the job is begun again; whenever it gets to its end, that is the undisturbed one."""
    if n == 0:
        pytest.skip("takes minutes: runs weekly, and where TLHELPERS_KILLS says how often")
    assert start(script, tmp_path / "undisturbed").wait() == 0
    expected = np.load(tmp_path / "undisturbed" / "done.npy")
    begun, process = time.monotonic(), start(script, tmp_path / "timed")
    startup = time.monotonic() - begun
    assert process.wait() == 0
    seconds = time.monotonic() - begun - startup
    rng = np.random.default_rng(0)
    killed, jobs = 0, 0
    folder = tmp_path / "job0"
    while killed < n:
        process = start(script, folder)
        time.sleep(rng.uniform(0, seconds))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        if (folder / "done.npy").is_file():
            np.testing.assert_array_equal(np.load(folder / "done.npy"), expected)
            jobs += 1
            folder = tmp_path / f"job{jobs}"
    assert start(script, folder).wait() == 0
    np.testing.assert_array_equal(np.load(folder / "done.npy"), expected)
    said = f"{killed} kills, {jobs + 1} jobs begun again to their ends: the right result each time"
    print(said)
    record_property("times", killed)
    record_property("saw", "the job, begun again, came to the undisturbed result")
