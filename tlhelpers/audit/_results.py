"""What an audit gives: its findings, the table of the model's parts, the report of both."""

import textwrap
from dataclasses import dataclass
from typing import Literal

Intent = Literal["frozen", "fine-tuned", "scratch"]  # what a pretrained part is meant to be
Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One fault. Returned by `check`, in a `Report`.

    Attributes:
        code: Short name that stays the same, such as ``"stale-compile"``.
        severity: ``"error"`` (the result is not what the code says) or ``"warning"`` (it may still work).
        what: What was found.
        why: Why it matters.
        mend: What to do.
        link: Page of the book about it.
    """

    code: str
    severity: Severity
    what: str
    why: str
    mend: str
    link: str

    def __str__(self) -> str:
        lines = [f"[{self.severity}] {self.code}: {self.what}", f"    why:  {self.why}"]
        lines += [f"    mend: {self.mend}", f"    see:  {self.link}"]
        return "\n".join(textwrap.fill(line, 100, subsequent_indent=" " * 10) for line in lines)


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
    """What an audit found. Returned by `check`.

    Attributes:
        model: Name of the model.
        base: What the base is meant to be, told or inferred; ``None`` if the model has no base.
        parts: The table.
        findings: The faults; empty if there are none.
    """

    model: str
    base: Intent | None
    parts: tuple[Part, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of the findings, in their order."""
        return tuple(finding.code for finding in self.findings)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("part", "parameters", "trainable", "as compiled", "moved")]
        for part in self.parts:
            moved = "no step" if part.moved is None else f"{len(part.moved)} of {part.tensors} tensors"
            counts = (f"{n:,}" for n in (part.parameters, part.trainable, part.compiled))
            rows.append((part.name + " (base)" * part.is_base, *counts, moved))
        width = max(len(row[0]) for row in rows)
        table = [f"{a:<{width}}  {b:>11}  {c:>11}  {d:>11}  {e}" for a, b, c, d, e in rows]
        base = "no pretrained base" if self.base is None else f"the base is meant to be {self.base}"
        count = len(self.findings)
        title = f"Audit of {self.model}: {base}; {count or 'no'} finding{'s' * (count != 1)}"
        return "\n".join([title, "", *table, "", *map(str, self.findings)]).rstrip()

    __repr__ = __str__  # what a notebook shows


class AuditError(RuntimeError):
    """A fault was found inside ``fit``. Raised by `Callback`."""


def fault(
    code: str, what: str, *, why: str, mend: str, severity: Severity = "error", link: str = "book/listings"
) -> Finding:
    """Returns a finding: an error, explained on the page about the listings, if nothing else is said."""
    return Finding(code, severity, what, why, mend, link)
