"""Behaviour of tlhelpers.course.claims: what a claim stores, and how measurements are kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

import IPython
import IPython.display
import numpy as np
import pytest

from tlhelpers import intervals
from tlhelpers.course import claims


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would display."""
    calls = []
    monkeypatch.setattr(IPython, "get_ipython", object)
    monkeypatch.setattr(IPython.display, "display", lambda *a, **k: calls.append((a, k)))
    return calls


# --- record ---


def test_a_claim_over_seeds(shown, capsys):
    values = [0.80, 0.82, 0.8100004]
    claims.record("acc_probe", values, live=0.8012345678)
    (((data,), options),) = shown
    claim = options["metadata"]["tlhelpers_claim"]
    assert claim == {"name": "acc_probe", "values": [0.8, 0.82, 0.81], "unit": "%", "live": 0.801235}
    text = "acc_probe: 81.0 % (95 % interval 78.4 % to 83.4 %, 3 seeds)"
    assert capsys.readouterr().out == text + "\n"
    # The form of myst-nb's glue.
    assert options["raw"] is True
    assert data == {"application/papermill.record/text/plain": text}
    scrapbook = {"name": "acc_probe", "mime_prefix": "application/papermill.record/"}
    assert options["metadata"]["scrapbook"] == scrapbook
    json.dumps(options["metadata"], allow_nan=False)


@pytest.mark.parametrize("values", [12.5, [12.5], np.array([12.5]), np.float32(12.5)])
def test_a_claim_of_one_seed_has_no_interval(shown, capsys, values):
    claims.record("seconds", values, unit="s")
    assert capsys.readouterr().out == "seconds: 12 s (one seed)\n"
    claim = shown[0][1]["metadata"]["tlhelpers_claim"]
    assert claim == {
        "name": "seconds",
        "values": [12.5],
        "unit": "s",
        "live": None,
    }
    json.dumps(claim)


def test_outside_a_notebook_a_claim_is_only_printed(monkeypatch, capsys):
    def display(*_, **__):
        raise AssertionError("nothing to display on")

    monkeypatch.setattr(IPython.display, "display", display)
    claims.record("acc", [0.5, 0.5])
    assert capsys.readouterr().out.startswith("acc: 50.0 % (95 % interval 50.0 % to 50.0 %, 2 seeds)")


@pytest.mark.parametrize("name", ["", "Acc", "acc probe", "acc-probe", "1st"])
def test_a_name_that_is_none(shown, name):
    with pytest.raises(ValueError, match="lower-case"):
        claims.record(name, [0.5])
    assert not shown


@pytest.mark.parametrize("values", [[], [0.5, float("nan")], [float("inf")], [[0.1], [0.2]]])
def test_values_that_are_none(shown, values):
    with pytest.raises(ValueError, match="'acc' needs finite"):
        claims.record("acc", values)
    assert not shown


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ([0.5, 1.01], {}),
        ([-0.1], {}),
        ([0.5], {"live": 97.0}),
        ([-1.2], {"unit": "pp"}),
        ([-1.0], {"unit": "s"}),
        ([-0.1], {"unit": "nats"}),
        ([1.1], {"unit": "", "between": (-1, 1)}),
    ],
)
def test_values_that_cannot_be(shown, values, options):
    with pytest.raises(ValueError, match="cannot be"):
        claims.record("acc", values, **options)
    assert not shown


def test_a_number_without_a_unit_brings_its_range(shown):
    with pytest.raises(ValueError, match="between"):
        claims.record("rank", [0.5], unit="")
    claims.record("rank", [-1.0, 1.0], unit="", between=(-1, 1))
    claims.record("temperature", [2.5], unit="", between=(0, np.inf))
    assert [s[1]["metadata"]["tlhelpers_claim"]["between"] for s in shown] == [[-1, 1], [0, None]]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.8049, "%", "80.5 %"),
        (0.012, "pp", "1.2 points"),
        (-0.004, "pp", "-0.4 points"),
        (0.25, "s", "0.2 s"),
        (123.4, "s", "123 s"),
        (1.23456, "", "1.23"),
        (98.76, "images/s", "98.8 images/s"),
    ],
)
def test_how_numbers_are_written(value, unit, text):
    assert intervals.format_value(value, unit) == text


# --- over_seeds ---


class Measure:
    """A chapter's measurement: counts its calls, and fails at one seed if told to."""

    def __init__(self, fail_at=None, offset=0.0):
        self.calls, self.fail_at, self.offset = [], fail_at, offset

    def __call__(self, seed):
        self.calls.append(seed)
        if seed == self.fail_at:
            raise RuntimeError("stopped")
        return {"probe": seed / 10 + self.offset, "tuned": seed / 5}


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.delenv(claims.CODE, raising=False)
    monkeypatch.setenv("TLHELPERS_RESULTS", str(tmp_path))
    return tmp_path


def stored(folder) -> dict:
    return json.loads((folder / "03_x.laptop.json").read_text(encoding="utf-8"))["records"]


def test_without_stored_measurements_there_is_only_this_run(folder):
    measure = Measure()
    found = claims.over_seeds("03_x", "laptop", measure, (1, 2, 3))
    assert measure.calls == [1]
    assert found.seeds == (1,)
    np.testing.assert_array_equal(found["probe"], [0.1])
    assert found.live == {"probe": 0.1, "tuned": 0.2}
    assert "alone" in found.source
    assert list(folder.iterdir()) == []


def test_seeds_are_measured_and_stored(folder):
    measure = Measure()
    found = claims.over_seeds("03_x", "laptop", measure, (2, 10, 1), measure_missing=True)
    assert measure.calls == [2, 10, 1]  # the live run is the first seed's measurement
    assert found.seeds == (2, 10, 1)
    np.testing.assert_allclose(found["probe"], [0.2, 1.0, 0.1])
    np.testing.assert_allclose(found["tuned"], [0.4, 2.0, 0.2])
    records = stored(folder)
    assert list(records) == ["1", "2", "10"]  # in order, so that the file changes little
    for record in records.values():
        assert set(record) == {"values", "seconds", "date", "data", "machine"}  # nobody handed a hash in
        machine = record["machine"]
        assert set(machine) == {"cpu", "instructions", "cores", "settings", "versions"}
        assert machine["cpu"]
        assert machine["cores"] >= 1
        assert {"python", "keras", "numpy"} <= set(machine["versions"])
    assert [p.name for p in folder.glob("[!.]*")] == ["03_x.laptop.json"]


def test_a_run_that_was_stopped_goes_on_where_it_was(folder):
    with pytest.raises(RuntimeError, match="stopped"):
        claims.over_seeds("03_x", "laptop", Measure(fail_at=3), (1, 2, 3, 4), measure_missing=True)
    first = stored(folder)
    assert list(first) == ["1", "2"]
    assert len(list(folder.glob("[!.]*"))) == 1

    again = Measure(offset=5.0)
    claims.over_seeds("03_x", "laptop", again, (1, 2, 3, 4), measure_missing=True)
    assert again.calls == [3, 4, 1]  # the last is this run's live measurement
    second = stored(folder)
    assert {s: second[s] for s in first} == first  # what was there stays
    assert second["3"]["values"]["probe"] == pytest.approx(5.3)

    last = Measure(offset=9.0)
    found = claims.over_seeds("03_x", "laptop", last, (1, 2, 3, 4), measure_missing=True)
    assert last.calls == [1]
    assert stored(folder) == second
    np.testing.assert_allclose(found["probe"], [0.1, 0.2, 5.3, 5.4])
    assert found.live["probe"] == pytest.approx(9.1)


def test_stored_seeds_stand_beside_the_live_one(folder):
    claims.over_seeds("03_x", "laptop", Measure(), (1, 2, 3), measure_missing=True)
    measure = Measure(offset=5.0)
    found = claims.over_seeds("03_x", "laptop", measure, (1, 2, 3))
    assert measure.calls == [1]
    np.testing.assert_allclose(found["probe"], [0.1, 0.2, 0.3])
    assert found.live["probe"] == pytest.approx(5.1)
    assert "3 seeds" in found.source
    # One more seed than is stored: this run alone.
    assert claims.over_seeds("03_x", "laptop", Measure(), (1, 2, 3, 4)).seeds == (1,)
    # Another profile and another chapter have files of their own.
    assert claims.over_seeds("03_x", "smoke", Measure(), (1, 2, 3)).seeds == (1,)
    assert claims.over_seeds("04_x", "laptop", Measure(), (1, 2, 3)).seeds == (1,)


def test_what_is_stored_comes_from_measure_alone(folder):
    """A live value may have been computed by other cells; it stands beside, and is not stored."""
    measure = Measure()
    live = {"probe": 0.7}
    found = claims.over_seeds("03_x", "laptop", measure, (1, 2), live=live, measure_missing=True)
    assert measure.calls == [1, 2]
    assert stored(folder)["1"]["values"] == {"probe": 0.1, "tuned": 0.2}
    assert found.live == live
    np.testing.assert_allclose(found["tuned"], [0.2, 0.4])
    quiet = Measure()
    claims.over_seeds("03_x", "laptop", quiet, (1, 2), live=live)
    assert quiet.calls == []


# --- the code of a measurement ---


def hand_in(monkeypatch, code, by="notebooks/03_x.ipynb", **others):
    """Hand in the code of today, as the runner does."""
    monkeypatch.setenv(claims.CODE, json.dumps({"03_x": {by: code} | others}))


def test_a_change_of_code_makes_a_record_stale(folder, monkeypatch):
    hand_in(monkeypatch, "aaa")
    found = claims.over_seeds("03_x", "laptop", Measure(), (1, 2), measure_missing=True)
    assert "by the code of today" in found.source
    assert {(r["by"], r["code"]) for r in stored(folder).values()} == {("notebooks/03_x.ipynb", "aaa")}

    hand_in(monkeypatch, "bbb")
    old = claims.over_seeds("03_x", "laptop", Measure(offset=5.0), (1, 2))
    assert "2 of them by other code" in old.source
    np.testing.assert_allclose(old["probe"], [0.1, 0.2])  # shown, and said

    measure = Measure(offset=5.0)
    new = claims.over_seeds("03_x", "laptop", measure, (1, 2, 3), measure_missing=True)
    assert measure.calls == [1, 2, 3]
    np.testing.assert_allclose(new["probe"], [5.1, 5.2, 5.3])
    assert {r["code"] for r in stored(folder).values()} == {"bbb"}

    again = Measure(offset=9.0)
    claims.over_seeds("03_x", "laptop", again, (1, 2, 3), live={"probe": 5.1}, measure_missing=True)
    assert again.calls == []  # exactly the stale ones are measured


def test_records_without_a_hash_are_measured_anew_where_the_code_is_known(folder, monkeypatch):
    claims.over_seeds("03_x", "laptop", Measure(), (1, 2), measure_missing=True)
    assert "not checked" in claims.over_seeds("03_x", "laptop", Measure(), (1, 2)).source
    hand_in(monkeypatch, "aaa")
    assert "2 of them by other code" in claims.over_seeds("03_x", "laptop", Measure(), (1, 2)).source
    measure = Measure(offset=5.0)
    claims.over_seeds("03_x", "laptop", measure, (1, 2), measure_missing=True)
    assert measure.calls == [1, 2]


def test_records_of_a_script_count_while_its_code_is_the_same(folder, monkeypatch):
    script = "benchmarks/x.py"
    hand_in(monkeypatch, "sss", by=script)
    claims.over_seeds("03_x", "laptop", Measure(), (1, 2), measure_missing=True)
    hand_in(monkeypatch, "nnn", **{script: "sss"})
    assert "by the code of today" in claims.over_seeds("03_x", "laptop", Measure(), (1, 2)).source
    hand_in(monkeypatch, "nnn", **{script: "other"})
    assert "2 of them by other code" in claims.over_seeds("03_x", "laptop", Measure(), (1, 2)).source
    hand_in(monkeypatch, "nnn")
    assert "2 of them by other code" in claims.over_seeds("03_x", "laptop", Measure(), (1, 2)).source


def test_other_quantities_of_other_code_are_replaced(folder, monkeypatch):
    hand_in(monkeypatch, "aaa")
    claims.over_seeds("03_x", "laptop", lambda s: {"old": 0.5}, (1, 2), measure_missing=True)
    hand_in(monkeypatch, "bbb")
    with pytest.raises(ValueError, match="other quantities"):
        claims.over_seeds("03_x", "laptop", Measure(), (1, 2))
    found = claims.over_seeds("03_x", "laptop", Measure(), (1, 2), measure_missing=True)
    assert set(found.values) == {"probe", "tuned"}


# --- what must not be lost, or stored ---


WRITER = """
import sys
from tlhelpers.course import claims
begin = int(sys.argv[1])
claims.over_seeds("03_x", "laptop", lambda s: {"x": s / 100}, range(begin, begin + 15), measure_missing=True)
"""


def test_processes_that_measure_at_once_lose_nothing(folder):
    """Four processes, fifteen seeds each, one file."""
    env = {**os.environ, "TLHELPERS_RESULTS": str(folder), "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", WRITER]
    running = [subprocess.Popen([*command, str(15 * k)], env=env, stderr=subprocess.PIPE) for k in range(4)]
    for process in running:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    records = stored(folder)
    assert list(records) == [str(seed) for seed in range(60)]
    assert all(records[str(seed)]["values"] == {"x": seed / 100} for seed in range(60))


def test_a_seed_that_another_process_measured_meanwhile_is_not_measured_again(folder):
    def measure(seed):
        if seed == 1:
            claims.over_seeds("03_x", "laptop", Measure(), (2,), measure_missing=True)
        assert seed != 2
        return Measure()(seed)

    claims.over_seeds("03_x", "laptop", measure, (1, 2), measure_missing=True)
    assert list(stored(folder)) == ["1", "2"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_stored(folder, value):
    with pytest.raises(ValueError, match=r"seed 2: tuned = (nan|inf)"):
        claims.over_seeds(
            "03_x", "laptop", lambda s: {"tuned": value if s == 2 else 0.1}, (1, 2), measure_missing=True
        )
    assert list(stored(folder)) == ["1"]
    with pytest.raises(ValueError, match="no finite number"):
        claims.over_seeds("04_x", "laptop", lambda s: {"x": value}, (1,))


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"records": {"1": {"values"',
        "[]",
        '{"records": 3}',
        '{"records": {"one": {"values": {}}}}',
        '{"records": {"1": {"values": {"x": NaN}}}}',
        '{"records": {"1": {"values": {"x": "0.5"}}}}',
        '{"records": {"1": {}}}',
        "\udc00",
    ],
)
@pytest.mark.parametrize("measuring", [True, False])
def test_a_damaged_file_is_a_clear_error(folder, content, measuring):
    path = folder / "03_x.laptop.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"damaged .*git checkout"):
        claims.over_seeds("03_x", "laptop", Measure(), (1, 2), measure_missing=measuring)
    assert path.read_bytes() == before


def test_a_failed_write_keeps_what_was_stored(folder, monkeypatch):
    claims.over_seeds("03_x", "laptop", Measure(), (1,), measure_missing=True)
    before = (folder / "03_x.laptop.json").read_bytes()

    def full(self, *_, **__):
        self.write_bytes(b'{"half')
        raise OSError("disk full")

    monkeypatch.setattr(type(folder), "write_text", full)
    with pytest.raises(OSError, match="disk full"):
        claims.over_seeds("03_x", "laptop", Measure(), (1, 2), measure_missing=True)
    assert (folder / "03_x.laptop.json").read_bytes() == before
    assert len(list(folder.glob("[!.]*"))) == 1


def test_where_only_the_package_is_installed(monkeypatch, tmp_path):
    monkeypatch.setenv("TLHELPERS_RESULTS", str(tmp_path / "nowhere"))
    assert claims.results_dir() is None
    assert claims.over_seeds("03_x", "laptop", Measure(), (1, 2)).seeds == (1,)
    with pytest.raises(FileNotFoundError, match="TLHELPERS_RESULTS"):
        claims.over_seeds("03_x", "laptop", Measure(), (1, 2), measure_missing=True)


def test_in_a_checkout_the_results_are_the_courses(monkeypatch):
    monkeypatch.delenv("TLHELPERS_RESULTS", raising=False)
    folder = claims.results_dir()
    assert folder is not None
    assert folder.parts[-2:] == ("benchmarks", "results")
