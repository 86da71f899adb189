"""Write today's hash under measurements that other code has made, after measuring one of them again.

    python -m tools.numbers.stamp 03_model_based [--profile laptop]

For a change that cannot have changed a number, such as a function that was renamed. One seed of each stale
file is measured anew, on the same processor with as many cores. Only where every value but the seconds is
equal to the last bit do the seeds that the same code made on that processor get the new hash; each notes
which hash it had and which seed was measured. Measurements without a hash, or from other processors, are
never stamped.
"""

import argparse
import copy
import datetime
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import filelock

from tlhelpers.course import claims
from tools.numbers import provenance
from tools.numbers.kernel import PROFILES, RunError, execute, find
from tools.numbers.provenance import RESULTS, ROOT, STORED, read_records
from tools.numbers.run import replace

Records = dict[str, dict[str, Any]]


def place(record: dict[str, Any]) -> Any:
    """Return what has to be the same for values to be equal to the last bit, beside the code."""
    machine = record.get("machine", {})
    return [machine.get(key) for key in ("cpu", "instructions", "cores", "settings")]


def candidates(records: Records, by: str, code: str, here: Any) -> list[str]:
    """Return the seeds that one measurement can speak for: of one stale hash, made here by this notebook.

    Args:
        records: All of a file.
        by: The notebook.
        code: Its hash today.
        here: `place` of this machine.
    """
    groups: dict[str, list[str]] = {}
    for seed, record in records.items():
        if record.get("by") == by and record.get("code", code) != code and place(record) == here:
            groups.setdefault(record["code"], []).append(seed)
    return max(groups.values(), key=len, default=[])


def stamp(name: str, profile: str = STORED, root: Path = ROOT) -> list[str]:
    """Measure one seed of each stale file of a notebook again, and stamp what it bears out.

    Args:
        name: The notebook.
        profile: The profile.
        root: The repository.

    Returns:
        What was done, a line each.

    Raises:
        RunError: nothing can be stamped, or a value has changed; then nothing is written.
    """
    path = find(name, root)
    by, today = f"notebooks/{path.name}", provenance.measurement_code(path, profile, root)
    files = {chapter: root / RESULTS / f"{chapter}.{profile}.json" for chapter in today}
    before = {chapter: read_records(file) for chapter, file in files.items()}
    here = place({"machine": claims.machine()})
    seeds = {c: found for c, r in before.items() if (found := candidates(r, by, today[c], here))}
    if not seeds:
        raise RunError(
            f"{path.stem}: nothing to stamp. Only measurements with a hash, made on this processor by other "
            "code, can be stamped; the others are measured anew: make notebooks MEASURE=1."
        )
    with tempfile.TemporaryDirectory(prefix="tlhelpers-") as tmp:
        results = Path(tmp) / "results"
        results.mkdir()
        for chapter, records in before.items():  # all but one seed pass for current, so that one is measured
            trial = copy.deepcopy(records)
            for record in trial.values():
                record |= {"by": by, "code": today[chapter]}
            if chapter in seeds:
                del trial[seeds[chapter][0]]
            content = {"chapter": chapter, "profile": profile, "records": trial}
            (results / files[chapter].name).write_text(json.dumps(content), encoding="utf-8")
        execute(path, profile, Path(tmp), {"MEASURE": True}, results=results)
        again = {c: read_records(results / files[c].name)[seeds[c][0]]["values"] for c in seeds}
    changed = [
        f"{chapter}, seed {seeds[chapter][0]}: {name} was {old}, is {again[chapter].get(name)}"
        for chapter in seeds
        for name, old in before[chapter][seeds[chapter][0]]["values"].items()
        if again[chapter].get(name) != old and not name.endswith("seconds")
    ]
    if changed:
        raise RunError("Not stamped, since values have changed:\n  " + "\n  ".join(changed))
    return [write(files[c], seeds[c], today[c]) for c in seeds]


def write(file: Path, seeds: list[str], code: str) -> str:
    """Write the hash under the records of some seeds, the first of which was measured again."""
    with filelock.FileLock(claims.lock_of(file)):
        content = json.loads(file.read_text(encoding="utf-8"))
        for seed in seeds:
            record = content["records"][seed]
            note = {
                "date": datetime.date.today().isoformat(),
                "from": record["code"],
                "measured_seed": seeds[0],
            }
            record["stamped"] = [*record.get("stamped", []), note]
            record["code"] = code
        replace(file, json.dumps(content, indent=1) + "\n")
    return f"{file.name}: seed {seeds[0]} measured again, equal to the last bit; stamped: {', '.join(seeds)}"


def main() -> None:
    """Read the command line and stamp."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebook", help="by name or number")
    parser.add_argument("--profile", default=STORED, choices=PROFILES)
    args = parser.parse_args()
    try:
        print("\n".join(stamp(args.notebook, args.profile)))
    except RunError as error:
        sys.exit(f"FAILED: {error}")


if __name__ == "__main__":
    main()
