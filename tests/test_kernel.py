"""Running notebooks: every way to fail ends in one clear line, and nothing half-done is stored."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from tlhelpers.course import claims
from tools.numbers import kernel, provenance, run, stamp
from tools.numbers.kernel import RunError
from tools.numbers.provenance import ROOT

PARAMETERS = "PROFILE = None\nMEASURE = False"


def write_notebook(path: Path, *cells: str) -> Path:
    """Write a notebook of a parameters cell and these."""
    kinds = [nbformat.v4.new_code_cell(text) for text in (PARAMETERS, *cells)]
    kinds[0].metadata["tags"] = ["parameters"]
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=kinds, metadata={"kernelspec": kernelspec})
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder for what is executed."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("1 / 0", r"cell 3 \('1 / 0'\): ZeroDivisionError: division by zero"),
        ("exit()", r"cell 3 \('exit\(\)'\): RuntimeError: exit\(\) ends the notebook"),
        ("import sys\nsys.exit()", r"cell 3 \('import sys'\): SystemExit: the notebook ended here"),
        ("raise SystemExit(2)", "cell 3 .*SystemExit: 2"),
        ("import os\nos._exit(0)", r"cell 3 \('import os'\).*the kernel died"),
        ("import os\nos.kill(os.getpid(), 9)", r"cell 3 \('import os'\).*the kernel died"),
    ],
)
@pytest.mark.parametrize("last", [True, False])
def test_a_failed_run_names_the_cell(tmp_path: Path, out: Path, cell: str, message: str, last: bool) -> None:
    """Whether the cell is the last one or others follow; in one line, and soon."""
    path = write_notebook(tmp_path / "n.ipynb", "print(1)", cell, *(() if last else ("print(2)", "print(3)")))
    message = message.replace("cell 3", "cell [34]") if "kernel died" in message and not last else message
    with pytest.raises(RunError, match=message.replace(r"\('import os'\)", ".*")) as caught:
        kernel.execute(path, "laptop", out)
    assert str(caught.value).startswith("n.ipynb, cell ")
    assert "\n" not in str(caught.value)


def test_a_cell_that_takes_too_long(tmp_path: Path, out: Path) -> None:
    """It is stopped, and the kernel with it."""
    path = write_notebook(tmp_path / "n.ipynb", "import time\ntime.sleep(600)")
    with pytest.raises(RunError, match=r"cell 2 .* 2 s; --timeout"):
        kernel.execute(path, "laptop", out, cell_seconds=2)
    assert not [c for c in psutil.Process().children(recursive=True) if "ipykernel" in " ".join(c.cmdline())]


# A shell that runs commands in the background has them ignore SIGINT, and so would this one.
COMMAND = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from tools.numbers import kernel, run
kernel.notebooks.__defaults__ = (Path(sys.argv.pop(1)),)
kernel.find.__defaults__ = kernel.notebooks.__defaults__
run.main()
"""


def start(root: Path, *arguments: str) -> subprocess.Popen:
    """Start the command on the notebooks of another folder."""
    command = [sys.executable, "-c", COMMAND, str(root), "--no-store", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped(tmp_path: Path, number: int) -> None:
    """Ctrl-C and `kill` end in one line, and no kernel stays behind."""
    (tmp_path / "notebooks").mkdir()
    started = tmp_path / "started"
    cell = f"import time\nfrom pathlib import Path\nPath({str(started)!r}).touch()\ntime.sleep(600)"
    write_notebook(tmp_path / "notebooks" / "01_n.ipynb", cell)
    process = start(tmp_path, "--notebook", "01")
    deadline = time.monotonic() + 120
    while not started.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip() == "STOPPED: no outputs were stored; seeds that were measured to their end are kept."
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "PROFILE=big"), "--set does not take PROFILE; there is --profile"),
        (("--set", "MEASURE=1"), "--set does not take MEASURE; there is --measure"),
        (("--set", "X"), "--set takes NAME=VALUE"),
        (("--measure", "--set", "X=1"), "--measure takes no --set"),
        (("--set", "X=1"), "unknown parameter X"),
        (("--notebook", "99"), "There is no notebook '99'"),
    ],
)
def test_a_command_that_cannot_be_run(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """It says why before anything runs."""
    (tmp_path / "notebooks").mkdir()
    write_notebook(tmp_path / "notebooks" / "01_n.ipynb", "1 / 0")
    process = start(tmp_path, *arguments)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert said.startswith("FAILED: ")
    assert message in said
    assert len(said.strip().splitlines()) == 1


MEASURED = """
import os
from tlhelpers.course import claims
results = claims.over_seeds("01_n", PROFILE, MEASURE_FUNCTION, (0, 1), measure_missing=MEASURE)
claims.record("n_x", results["x"], live=results.live["x"])
""".strip()


def measured_cell(value: str) -> tuple[str, str]:
    """Return cells that measure a value, written as code with `seed` in it."""
    return f"def measure(seed):\n    return {{'x': {value}}}", MEASURED.replace("MEASURE_FUNCTION", "measure")


def test_measuring_keeps_hashes_and_smoke_keeps_nothing(tmp_path: Path, out: Path, monkeypatch) -> None:
    """What is measured is stored with notebook and hash; in `smoke` it goes to a folder beside the run."""
    results = tmp_path / "results"
    results.mkdir()
    monkeypatch.setenv("TLHELPERS_RESULTS", str(results))
    path = write_notebook(tmp_path / "01_n.ipynb", *measured_cell("0.5 + seed / 10"))
    kernel.execute(path, "smoke", out, {"MEASURE": True})
    assert list(results.iterdir()) == []
    run_ = kernel.execute(path, "laptop", out, {"MEASURE": True})
    assert [claim["values"] for claim in run_.claims] == [[0.5, 0.6]]
    records = provenance.read_records(results / "01_n.laptop.json")
    code = provenance.measurement_code(path, "laptop")["01_n"]
    assert {(r["by"], r["code"]) for r in records.values()} == {("notebooks/01_n.ipynb", code)}


def test_a_stamp_needs_an_equal_measurement(tmp_path: Path, monkeypatch) -> None:
    """After a change that leaves the numbers alone records are stamped; after another nothing is written."""
    root = tmp_path
    (root / "notebooks").mkdir()
    results = root / provenance.RESULTS
    results.mkdir(parents=True)
    (root / "tlhelpers").symlink_to(ROOT / "tlhelpers")
    path = write_notebook(root / "notebooks" / "01_n.ipynb", *measured_cell("0.5 + seed / 10"))
    monkeypatch.setenv("TLHELPERS_RESULTS", str(results))
    kernel.execute(path, "laptop", tmp_path, {"MEASURE": True})
    file = results / "01_n.laptop.json"
    first = provenance.read_records(file)
    with pytest.raises(RunError, match="nothing to stamp"):
        stamp.stamp("01", root=root)

    write_notebook(path, *measured_cell("0.5 + seed * 2 / 20"))
    (line,) = stamp.stamp("01", root=root)
    assert line == "01_n.laptop.json: seed 0 measured again, equal to the last bit; stamped: 0, 1"
    second = provenance.read_records(file)
    assert (
        second["0"]["code"] == provenance.measurement_code(path, "laptop", root)["01_n"] != first["0"]["code"]
    )
    for seed, record in second.items():
        assert record["values"] == first[seed]["values"]
        assert [(s["from"], s["measured_seed"]) for s in record["stamped"]] == [(first[seed]["code"], "0")]

    write_notebook(path, *measured_cell("0.5 + 2e-16 + seed / 10"))
    before = file.read_bytes()
    with pytest.raises(RunError, match=r"x was 0\.5, is 0\.500000000"):
        stamp.stamp("01", root=root)
    assert file.read_bytes() == before

    # Made on another processor, or without a hash: never stamped.
    write_notebook(path, *measured_cell("0.5 + seed * 3 / 30"))
    content = json.loads(before)
    content["records"]["0"]["machine"]["cpu"] = "another"
    del content["records"]["1"]["code"]
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RunError, match="nothing to stamp"):
        stamp.stamp("01", root=root)


def test_outputs_of_an_edited_notebook_are_not_stored(tmp_path: Path, out: Path) -> None:
    """The run belongs to the cells as they were."""
    path = write_notebook(tmp_path / "01_n.ipynb", "print(1)")
    before, code = path.read_bytes(), provenance.output_code(path)
    done = kernel.execute(path, "laptop", out)
    write_notebook(path, "print(2)")
    with pytest.raises(RunError, match="edited while it ran"):
        run.store(done, path, before, code)
    before, code = path.read_bytes(), provenance.output_code(path)
    run.store(kernel.execute(path, "laptop", out), path, before, code)
    assert json.loads(path.read_text())["metadata"]["tlhelpers"]["code"] == provenance.output_code(path)


def test_the_machine_of_a_measurement_is_where_a_stamp_looks() -> None:
    """The two agree on names."""
    machine = claims.machine()
    assert stamp.place({"machine": machine}) == [
        machine[key] for key in ("cpu", "instructions", "cores", "settings")
    ]
