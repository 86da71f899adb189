"""What an audit gives: its findings, the table of the model's parts, the report of both."""

import math
import textwrap
import tomllib
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

Intent = Literal["frozen", "fine-tuned", "scratch"]  # what a pretrained part is meant to be
Severity = Literal["error", "warning", "note"]

GUIDE = "https://keras.io/guides/transfer_learning/"
PAGE = 'the page "When fine-tuning fails" of the book'


@dataclass(frozen=True)
class Finding:
    """One fault. Returned by `check`, in a `Report`.

    Attributes:
        code: Short name that stays the same, such as ``"stale-compile"``.
        severity: ``"error"`` (the result is not what the code says), ``"warning"`` (it may still work) or
            ``"note"`` (worth knowing; no fault).
        what: What was found.
        why: Why it matters.
        mend: What to do, with the line that does it.
        link: Address of a page about it.
        measured: The number that was measured, or ``None``.
    """

    code: str
    severity: Severity
    what: str
    why: str
    mend: str
    link: str
    measured: float | None = None

    def __str__(self) -> str:
        lines = [f"[{self.severity}] {self.code}: {self.what}", f"    why:  {self.why}"]
        lines += [f"    mend: {self.mend}", f"    see:  {self.link}"]
        return "\n".join(_wrapped(line, 10) for line in lines)


@dataclass(frozen=True)
class Part:
    """One row of the table: a layer or a network inside the model. Returned by `check`, in a `Report`.

    Attributes:
        name: Name of the layer; of its family for a network whose layers lie open in the model.
        is_base: Whether this is the pretrained part.
        parameters: Number of parameters.
        trainable: Parameters that are trainable by the flags of this moment.
        compiled: Parameters that the training function trains, as Keras built it after the last ``compile``;
            the same as `trainable` if it is not built yet.
        tensors: Number of weight tensors, statistics of batch normalization included.
        moved: Paths of the tensors that moved; ``None`` if no step was made.
    """

    name: str
    is_base: bool
    parameters: int
    trainable: int
    compiled: int
    tensors: int
    moved: tuple[str, ...] | None


@dataclass(frozen=True)
class Report:
    """What an audit found, and what it looked at. Returned by `check`.

    Attributes:
        model: Name of the model.
        base: What the base is meant to be, told or inferred; ``None`` if the model has no base.
        parts: The table.
        findings: The faults and the notes; empty if there are none.
        looked_at: What was looked at, in words.
        unchecked: What was not, and why.
        told: Whether the user said what is meant.
    """

    model: str
    base: Intent | None
    parts: tuple[Part, ...]
    findings: tuple[Finding, ...]
    looked_at: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    told: bool = False

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that are no mere notes."""
        return tuple(finding for finding in self.findings if finding.severity != "note")

    @property
    def ok(self) -> bool:
        """Whether no fault was found. What is in `unchecked` may still hold some."""
        return not self.faults

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of the faults, in their order."""
        return tuple(finding.code for finding in self.faults)

    @property
    def exit_code(self) -> int:
        """What a script may end with, which is 1 if a finding is an error, else 0."""
        return int(any(finding.severity == "error" for finding in self.findings))

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it as dictionaries, lists, texts and numbers, for JSON."""
        return {**asdict(self), "ok": self.ok, "exit_code": self.exit_code}

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("part", "parameters", "trainable", "as compiled", "moved")]
        for part in self.parts:
            moved = "no step" if part.moved is None else f"{len(part.moved)} of {part.tensors} tensors"
            counts = (f"{n:,}" for n in (part.parameters, part.trainable, part.compiled))
            rows.append((part.name + " (base)" * part.is_base, *counts, moved))
        width = max(len(row[0]) for row in rows)
        table = [f"{a:<{width}}  {b:>11}  {c:>11}  {d:>11}  {e}" for a, b, c, d, e in rows]
        meant = "is meant to be" if self.told else "is taken, by its flags, to be"
        base = "no pretrained base" if self.base is None else f"the base {meant} {self.base}"
        count = len(self.faults)
        title = f"Audit of {self.model}: {base}; {count or 'no'} finding{'s' * (count != 1)}"
        told = [*map(str, self.findings)]
        told += [f"More about each: {PAGE}."] if self.findings else []
        looked = _wrapped(f"Looked at: {', '.join(self.looked_at) or 'nothing'}.", 4)
        missed = [_wrapped(f"    {line}.", 8) for line in self.unchecked]
        missed = ["Not checked:", *missed] if missed else []
        return "\n".join([title, "", *table, "", *told, looked, *missed])

    __repr__ = __str__  # what a notebook shows


class AuditError(RuntimeError):
    """A fault was found inside ``fit``. Raised by `Callback`."""


@cache
def texts() -> dict[str, dict[str, str]]:
    """Returns what each finding says, by its code."""
    return tomllib.loads(files("tlhelpers.audit").joinpath("findings.toml").read_text("utf-8"))


def fault(
    code: str, what: str, measured: float | None = None, severity: Severity | None = None, **words: Any
) -> Finding:
    """Returns a finding with the texts of its code.

    Args:
        code: A key of ``findings.toml``.
        what: What was found.
        measured: The number that was measured.
        severity: Another one than the code has.
        **words: What stands in braces in the texts.
    """
    text = texts()[code]
    why, mend = (text[key].format(**words) for key in ("why", "mend"))
    known: Any = severity or text.get("severity", "error")
    number = float(measured) if measured is not None and abs(measured) < math.inf else None
    return Finding(code, known, what, why, mend, text.get("see", GUIDE), number)


def _wrapped(line: str, indent: int) -> str:
    return textwrap.fill(
        line, 100, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
