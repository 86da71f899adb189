"""Sphinx extension of this book: recorded numbers, runtimes and outcome badges.

Roles:
    ``{claim}`name```, ``{claim}`name:mean```, ``{claim}`name:interval``` print a number that was recorded.
    ``{runtime}`03_model_based``` prints how long a chapter takes and how much memory, by profile.
    ``{outcome}`tl-03-2``` prints the id of a learning outcome as a badge.
    ``{measured}`growth:rows.0.seconds``` prints a number of a benchmark, ``{measured}`...:%``` in percent.
    ``{advice}`near 20``` prints what to try first with so many labels a class at that distance.
    ``{finds}`name``` marks a sentence that compares, and leads to its contrast (`tools.numbers.contrasts`).

Directives:
    ``{runtimes}`` prints the table of all chapters and profiles.
    ``{benchmark} growth`` prints the table of a benchmark, and says on what machine and code it was made;
    ``{benchmark} engines files`` prints one of several tables.
    ``{claims}`` prints all claims, each with the sentence that uses it; ``{contrasts}`` all contrasts.
    ``{benchmarks}`` prints all benchmarks, with their machine and date.
    ``{decision}`` prints the table behind ``{advice}``.
    ``{assignments}`` prints the assignments with their points; ``{assessment}`` what assesses each outcome.
    ``{explorer}`` and ``{results}`` stand in ``components``.

A name that no notebook recorded is a warning, and so an error in a strict build; so is a sentence whose
contrast the stored seeds do not bear out. While a text is written
before its notebook is, ``COURSE_DRAFT=1`` turns these into visible question marks.
"""

import itertools
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Union

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.ext.autodoc.mock import _MockObject
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the package, for the API pages; and the reader of notebooks

from tlhelpers import decision  # noqa: E402
from tools.grading import course as coursework  # noqa: E402
from tools.numbers import contrasts, stored  # noqa: E402

logger = logging.getLogger(__name__)
PROFILES = ("smoke", "laptop", "gpu")
NUMBERS = "book/numbers"  # the page with all claims; each number in the text leads there
NOT_MEASURED = "Not measured on this processor yet."
OUTCOME = re.compile(r"tl-[a-z0-9]{2}-\d{1,2}")


def complain(message: str, location: Any) -> None:
    """Warn, unless this is a draft."""
    if not os.environ.get("COURSE_DRAFT"):
        logger.warning(message, location=location, type="course")


def unbroken(text: str) -> str:
    """Return a text in which a number and its unit, and the parts of a date, stay on one line."""
    text = re.sub(r"(?<=\d) (?=%|s\b|points)", "\u00a0", text)
    return re.sub(r"\b(\d{4})-(\d\d)-(\d\d)\b", "\\1\u2011\\2\u2011\\3", text)


class ClaimRole(SphinxRole):
    """``{claim}`name``` and its parts."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the number, or question marks and a warning."""
        name, _, part = self.text.partition(":")
        claims = self.env.app.course_claims
        try:
            if name not in claims:
                raise ValueError(f"No notebook recorded the claim {name!r}.")
            text = stored.shown(claims[name], part)
        except ValueError as error:
            complain(str(error), self.get_location())
            text = f"??{self.text}??"
        text = unbroken(text)
        number = nodes.inline(text, text, classes=["claim"])
        if self.env.docname == NUMBERS or NUMBERS not in self.env.found_docs or text.startswith("??"):
            return [number], []
        return [row_link(self, f"claim-{name}", number, classes=["claim-link"])], []


def row_link(role: SphinxRole, row: str, text: nodes.Node, **options: Any) -> nodes.reference:
    """Return a link to a row of the page with all numbers."""
    address = f"{role.env.app.builder.get_relative_uri(role.env.docname, NUMBERS)}#{row}"
    return nodes.reference("", "", text, refuri=address, internal=True, **options)


class FindsRole(SphinxRole):
    """``{finds}`name```: a small mark behind a sentence that compares."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the mark; `read` complains of a contrast that does not hold."""
        contrast = self.env.app.course_contrasts.get(self.text)
        if contrast is None or NUMBERS not in self.env.found_docs:
            return [], []
        mark, what = ("✓", "Tested over seeds") if contrast.decided else ("○", "No verdict")
        title = f"{what}: {contrast.relation.removeprefix(contrasts.EACH)}"
        text = nodes.inline(mark, mark)
        return [row_link(self, f"finds-{self.text}", text, classes=["finds"], reftitle=title)], []


class RuntimeRole(SphinxRole):
    """``{runtime}`03_model_based```."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return time and memory for each profile that was run."""
        runs = self.env.app.course_runs.get(self.text, {})
        parts: list[str] = []
        for profile in ("laptop", "smoke", "gpu"):
            if profile in runs:
                run = runs[profile]
                about = "about " if not parts else ""
                memory = f", {stored.memory(run['peak_mb'])}" if profile != "smoke" else ""
                parts.append(f"{about}{stored.duration(run['seconds'])}{memory} ({profile})")
        if not parts:
            complain(f"No run of {self.text!r} is stored in {stored.RUNS}.", self.get_location())
        text = "; ".join(parts) or f"??{self.text}??"
        return [nodes.inline(text, text, classes=["runtime"])], []


class MeasuredRole(SphinxRole):
    """``{measured}`trunk:depths.0.split_val_accuracy:%```."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the number, or question marks and a warning."""
        name, _, rest = self.text.partition(":")
        path, _, form = rest.partition(":")
        try:
            if name not in self.env.app.course_benchmarks:
                raise ValueError(f"There is no result of a benchmark {name!r}.")
            text = stored.measured(self.env.app.course_benchmarks[name], path, form)
        except ValueError as error:
            complain(str(error), self.get_location())
            text = f"??{self.text}??"
        text = text.replace(" ", "\u00a0")
        return [nodes.inline(text, text, classes=["claim"])], []


class OutcomeRole(SphinxRole):
    """``{outcome}`tl-03-2```."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the id as a badge."""
        if not OUTCOME.fullmatch(self.text):
            logger.warning(
                f"An outcome's id looks like tl-03-2; this is {self.text!r}.",
                location=self.get_location(),
                type="course",
            )
        return [nodes.inline(self.text, self.text, classes=["outcome"])], []


class AdviceRole(SphinxRole):
    """``{advice}`near 20```."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the method in words."""
        distance, _, labels = self.text.partition(" ")
        try:
            text = decision.advise(int(labels), distance).words
        except ValueError as error:
            complain(f"{{advice}}`{self.text}`: {error}", self.get_location())
            text = f"??{self.text}??"
        return [nodes.inline(text, text, classes=["claim"])], []


class DecisionDirective(SphinxDirective):
    """``{decision}``: what to try first, by distance and labels."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        self.env.note_reread()
        rows = []
        for row in decision.advice():
            until = f"{row.at_least} to {row.below - 1:g}"
            rows.append(
                [
                    decision.DISTANCES[row.distance],
                    f"{row.at_least} and more" if row.below == float("inf") else until,
                    row.words,
                    f"{row.data}, {', '.join(map(str, row.measured))} labels a class",
                ]
            )
        header = ["Your images", "Labels a class", "Try first", "Measured on"]
        return [RuntimesDirective.table(header, rows)]


class RuntimesDirective(SphinxDirective):
    """``{runtimes}``: a table of seconds and peak memory."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        runs = self.env.app.course_runs
        if not runs:
            complain(f"No runs are stored in {stored.RUNS}.", self.get_location())
            text = "No runs are stored yet."
            return [nodes.paragraph(text, text)]
        profiles = [p for p in PROFILES if any(p in run for run in runs.values())]
        rows = []
        for chapter in sorted(runs):
            row = [chapter]
            for profile in profiles:
                run = runs[chapter].get(profile)
                row.append(
                    f"{stored.duration(run['seconds'])}, {stored.memory(run['peak_mb'])}" if run else "–"
                )
            rows.append(row)
        cores = sorted({run["cores"] for by in runs.values() for run in by.values() if "cores" in run})
        table = self.table(["Chapter", *profiles], rows)
        note = (
            f"Wall-clock time and peak memory on {' or '.join(map(str, cores))} CPU cores." if cores else ""
        )
        return [table, nodes.paragraph(note, note)] if note else [table]

    @staticmethod
    def table(header: list[str], rows: list[list[str]]) -> nodes.table:
        """Return a docutils table of plain texts."""

        def row(texts: list[str]) -> nodes.row:
            entries = [nodes.entry("", nodes.paragraph(text, text)) for text in texts]
            return nodes.row("", *entries)

        group = nodes.tgroup("", *[nodes.colspec(colwidth=1) for _ in header], cols=len(header))
        group += nodes.thead("", row(header))
        group += nodes.tbody("", *[row(texts) for texts in rows])
        return nodes.table("", group, classes=["runtimes"])


class AssignmentsDirective(SphinxDirective):
    """``{assignments}``: the assignments, their items and points."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        self.env.note_reread()
        rows = []
        for name, entry in coursework.table().items():
            for item, value in entry["items"].items():
                parts = ", ".join(f"{part} {points:g}" for part, points in value["parts"].items())
                rows.append([name, item, value["title"], parts, ", ".join(value["outcomes"])])
        header = ["Assignment", "Item", "What it asks for", "Parts and points", "Outcomes"]
        return [RuntimesDirective.table(header, rows)]


class AssessmentDirective(SphinxDirective):
    """``{assessment}``: each outcome of the book, and the graded items that assess it."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        self.env.note_reread()
        assessed = coursework.assessed()
        rows = []
        for outcome, sentence in sorted(coursework.outcomes_of_book().items()):
            plain = re.sub(r"\{[\w:]+\}`([^`<]*?)(?: <[^`]*>)?`|`([^`]*)`", r"\1\2", sentence)
            rows.append([outcome, plain, ", ".join(assessed.get(outcome, ["nothing yet"]))])
        return [RuntimesDirective.table(["Outcome", "The reader can", "Assessed by"], rows)]


class BenchmarkDirective(SphinxDirective):
    """``{benchmark} name``: the table that a benchmark printed, or one of several, by its name."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table and a line about the machine and the code."""
        name, *which = self.arguments
        content = self.env.app.course_benchmarks.get(name)
        if content is None and which and (ROOT / "benchmarks" / f"{name}.py").is_file():
            return [nodes.paragraph(NOT_MEASURED, NOT_MEASURED)]
        table = content and (content["tables"].get(which[0]) if which else content["table"])
        if content is None or table is None:
            complain(f"There is no result of a benchmark {' '.join(self.arguments)!r}.", self.get_location())
            text = f"??{' '.join(self.arguments)}??"
            return [nodes.paragraph(text, text)]
        shown = RuntimesDirective.table(table["columns"], table["rows"])
        if which:  # the benchmark has a table of its machines
            return [shown]
        machine, versions = content["machine"], content["machine"]["versions"]
        chosen = ("keras", "tensorflow", "tensorflow-cpu", "onnxruntime", "openvino")
        software = ", ".join(f"{package} {versions[package]}" for package in chosen if package in versions)
        text = f"{machine['date']}, {machine['cores']} cores of {machine['cpu']}; {software}. "
        text += stored.made_by(content) + "."
        return [shown, nodes.paragraph("", "", nodes.emphasis(text, text))]


class BenchmarksDirective(SphinxDirective):
    """``{benchmarks}``: what each benchmark ran on, and when."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        self.env.note_reread()
        rows = []
        for name, content in self.env.app.course_benchmarks.items():
            machine = content["machine"]
            rows.append(
                [name, content["script"], f"{machine['cores']} cores of {machine['cpu']}", machine["date"]]
            )
        return [RuntimesDirective.table(["Name", "Made by", "Machine", "Date"], rows)]


class ClaimsDirective(SphinxDirective):
    """``{claims}``: every claim, chapter by chapter."""

    HEADER = ("What the book says with it", "Mean", "95 % interval", "Seeds", "Measured")

    def run(self) -> list[nodes.Node]:
        """Return a line and a table for each notebook."""
        self.env.note_reread()  # what is stored may change without a change of this page
        chapters: dict[str, list[dict[str, Any]]] = {}
        for claim in self.env.app.course_claims.values():
            chapters.setdefault(claim["notebook"], []).append(claim)
        said = stored.sentences(ROOT)
        found: list[nodes.Node] = []
        for notebook, claims in chapters.items():
            link = page_link(self, notebook)
            profile = f", profile {claims[0]['profile']}:"
            group = nodes.tgroup("", *[nodes.colspec(colwidth=w) for w in (46, 14, 18, 8, 14)], cols=5)
            group += nodes.thead("", self.row([nodes.Text(head)] for head in self.HEADER))
            group += nodes.tbody("", *[self.claim(claim, said.get(claim["name"], "")) for claim in claims])
            found += [
                nodes.paragraph("", "", nodes.strong("", "", link), nodes.Text(profile)),
                nodes.table("", group, classes=["claims"]),
            ]
        return found

    def claim(self, claim: dict[str, Any], sentence: str) -> nodes.row:
        """Return the row of a claim: its sentence, in which numbers are means, and its own numbers."""
        name = claim["name"]
        short = stored.CLAIM_ROLE.sub(
            lambda m: f"**{{claim}}`{m[1]}:mean`**" if m[1] == name else f"{{claim}}`{m[1]}:mean`", sentence
        )
        words, _ = self.parse_inline(short)
        interval = stored.shown(claim, "interval") if claim["n"] > 1 else "–"
        cells: list[list[nodes.Node]] = [[*words, nodes.Text(" "), nodes.literal(name, name)]]
        date = stored.measured_on(claim, ROOT) or "–"
        for text in (stored.shown(claim, "mean"), interval, str(claim["n"]), date):
            cells.append([nodes.Text(unbroken(text))])
        row = self.row(cells)
        # Numbers elsewhere in the book lead to this row.
        row["ids"].append(f"claim-{name}")
        return row

    @staticmethod
    def row(cells: Iterable[list[nodes.Node]]) -> nodes.row:
        """Return a row of a table."""
        return nodes.row("", *[nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells])


class ContrastsDirective(SphinxDirective):
    """``{contrasts}``: every contrast, chapter by chapter."""

    HEADER = ("Relation", "How far ahead", "Seeds", "Result")

    def run(self) -> list[nodes.Node]:
        """Return a line and a table for each chapter."""
        self.env.note_reread()
        found: list[nodes.Node] = []
        every = self.env.app.course_contrasts.values()
        for chapter, group in itertools.groupby(every, lambda contrast: contrast.chapter):
            rows = []
            for c in group:
                texts = [c.gap, str(len(c.gaps[0])), c.verdict]
                relation = nodes.literal(c.relation, c.relation, classes=["wraps"])
                rows.append(ClaimsDirective.row([[relation], *([nodes.Text(unbroken(t))] for t in texts)]))
                rows[-1]["ids"].append(f"finds-{c.name}")
            table = nodes.tgroup("", *[nodes.colspec(colwidth=w) for w in (40, 26, 8, 26)], cols=4)
            table += nodes.thead("", ClaimsDirective.row([nodes.Text(head)] for head in self.HEADER))
            table += nodes.tbody("", *rows)
            found += [
                nodes.paragraph("", "", nodes.strong("", "", page_link(self, chapter))),
                nodes.table("", table, classes=["claims"]),
            ]
        return found


def page_link(directive: SphinxDirective, notebook: str) -> nodes.reference:
    """Return a link to a chapter, by its file's name."""
    address = directive.env.app.builder.get_relative_uri(directive.env.docname, f"notebooks/{notebook}")
    return nodes.reference("", "", nodes.literal(notebook, notebook), refuri=address, internal=True)


def read(app: Sphinx) -> None:
    """Read all stored claims, contrasts, runs and benchmarks once a build."""
    app.course_claims = stored.read_claims(ROOT)
    app.course_runs = stored.read_runs(ROOT)
    app.course_benchmarks = stored.read_benchmarks(ROOT)
    app.course_contrasts = contrasts.read(ROOT)
    for line in contrasts.broken(app.course_contrasts, ROOT):
        complain(line, None)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register roles and directives."""
    # `keras.Model | None` in a signature: autodoc's stand-ins for packages that are not installed lack `|`.
    _MockObject.__or__ = lambda self, other: Union[self, other]  # noqa: UP007
    _MockObject.__ror__ = lambda self, other: Union[other, self]  # noqa: UP007
    app.setup_extension("components")
    app.connect("builder-inited", read)
    app.add_role("claim", ClaimRole())
    app.add_role("finds", FindsRole())
    app.add_role("runtime", RuntimeRole())
    app.add_role("measured", MeasuredRole())
    app.add_role("outcome", OutcomeRole())
    app.add_role("advice", AdviceRole())
    app.add_directive("decision", DecisionDirective)
    app.add_directive("runtimes", RuntimesDirective)
    app.add_directive("benchmark", BenchmarkDirective)
    app.add_directive("benchmarks", BenchmarksDirective)
    app.add_directive("claims", ClaimsDirective)
    app.add_directive("contrasts", ContrastsDirective)
    app.add_directive("assignments", AssignmentsDirective)
    app.add_directive("assessment", AssessmentDirective)
    return {"version": "1", "parallel_read_safe": False, "env_version": 2}
