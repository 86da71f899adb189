"""Interactive parts of a page, which are plain tables where no script runs.

Directives:
    ``{explorer} Title`` draws measured numbers with their intervals, and lets the reader walk through them.
    ``{results} Title`` shows a table of results that can be filtered and sorted.

Both are described in YAML. This module writes everything into the page, numbers and figure included;
``_static/components.js`` chooses, filters and sorts what is there. So a page works from a file.
A result or quantity that is not stored is a warning, and so an error in a strict build.
"""

import html
import math
from collections.abc import Sequence
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from tlhelpers.intervals import mean_interval
from tools.numbers import stored

logger = logging.getLogger(__name__)
# Okabe and Ito's colours, as in `tlhelpers.plots`, and a dash pattern each, for print in grey.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
DASHES = ("", "7 4", "2 3", "9 3 2 3")
WIDTH, HEIGHT = 420, 250  # of a figure, in units of which a phone shows nearly one a pixel
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 14, 44  # its margins
BAR = 44  # height of a row of bars


def escape(text: Any) -> str:
    """Return a text as HTML."""
    return html.escape(str(text))


def check(options: dict[str, Any], needed: set[str], allowed: set[str]) -> None:
    """Look for misspelt and missing names.

    Raises:
        ValueError: a name is missing or unknown.
    """
    if missing := sorted(needed - set(options)):
        raise ValueError(f"{', '.join(missing)} must be given.")
    if unknown := sorted(set(options) - needed - allowed):
        raise ValueError(f"unknown: {', '.join(unknown)}. There are {', '.join(sorted(needed | allowed))}.")


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Return about ``n`` round numbers that span low to high."""
    raw = (high - low) / n or 1.0
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(f * size for f in (1, 2, 5, 10) if raw <= f * size * (1 + 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 10) for k in range(first, max(last, first + 1) + 1)]


def cell(text: Any, key: float | str | None = None, head: bool = False) -> str:
    """Return a cell of a table as HTML, with the number, if it is one, to sort and filter by."""
    tag, scope = ("th", ' scope="row"') if head else ("td", "")
    number = f' data-number="{key:.10g}"' if isinstance(key, int | float) else ""
    return f"<{tag}{scope}{number}>{escape(text)}</{tag}>"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> str:
    """Return an HTML table in a box of its own that scrolls.

    Args:
        columns: Plain texts.
        rows: HTML of the cells, with their ``td`` or ``th``.
        label: What the table holds, for those who do not see it.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join(f"<tr>{''.join(row)}</tr>\n" for row in rows)
    return (
        f'<div class="tl-scroll" role="region" tabindex="0" aria-label="{escape(label)}">'
        f'<table class="table"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'
    )


class Component(SphinxDirective):
    """What both directives share: a title, a description in YAML, and a warning where it cannot be used."""

    has_content = True
    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Return the HTML, or the title with question marks and a warning."""
        self.results = self.env.app.course_results
        try:
            options = yaml.safe_load("\n".join(self.content))
            if not isinstance(options, dict):
                raise ValueError("its description is not a mapping.")
            inner = self.draw(options)
        except (ValueError, yaml.YAMLError) as error:
            message = f"The {self.name} {self.arguments[0]!r}: {error}"
            logger.warning(message, location=self.get_location(), type="course")
            text = f"??{self.arguments[0]}??"
            return [nodes.paragraph(text, text)]
        title = f'<p class="tl-title">{escape(self.arguments[0])}</p>'
        text = f'<div class="tl-component tl-{self.name}">\n{title}\n{inner}\n</div>'
        return [nodes.raw("", text, format="html")]

    def draw(self, options: dict[str, Any]) -> str:
        """Return the HTML below the title."""
        raise NotImplementedError

    def new_id(self) -> str:
        """Return an id that no other part of the page has."""
        return f"tl-{self.env.new_serialno('component')}"

    def source(self, file: str) -> str:
        """Return a line that says where numbers come from."""
        content = self.results[file]
        if "records" not in content:
            return f"{stored.made_by(content)}."
        records = content["records"]
        last = max(record["date"] for record in records.values())
        return f"Mean and 95 % interval over {len(records)} seeds, last measured on {last}."


class Explorer(Component):
    """``{explorer}``: numbers along an axis (a slider), or one number a case (bars)."""

    def draw(self, options: dict[str, Any]) -> str:
        """Return control, figure and table."""
        check(options, {"file", "x", "y", "at", "series"}, {"unit", "scale", "zero"})
        self.unit = options.get("unit", "")
        self.cases = isinstance(options["at"], dict)  # name of a case -> a note on it
        self.at = list(options["at"])
        most = 1 if self.cases else len(COLORS)
        if len(self.at) < 2 or not 1 <= len(options["series"]) <= most:
            raise ValueError(f"at needs two places or more, and there may be 1 to {most} series.")
        self.values = []
        for series in options["series"]:
            check(series, {"name", "key"}, set())
            keys = [series["key"].format(place) for place in self.at]
            self.values.append([stored.quantity(self.results, options["file"], key) for key in keys])
        names = [series["name"] for series in options["series"]]
        scaled = 100 if self.unit in ("%", "pp") else 1
        self.ends = [
            [[scaled * end for end in mean_interval(v, self.unit)] for v in row] for row in self.values
        ]
        word = {"%": " (%)", "pp": " (points)", "": ""}.get(self.unit, f" ({self.unit})")
        if self.cases:
            figure = self.bars(f"{options['y']}{word}")
        else:
            figure = self.lines(options["x"], f"{options['y']}{word}", names, options)
        columns = [options["x"], *names, *(["what it means"] if self.cases else [])]
        rows = []
        for i, place in enumerate(self.at):
            texts = [stored.with_interval(row[i], self.unit) for row in self.values]
            cells = [cell(text, row[i][0]) for text, row in zip(texts, self.ends, strict=True)]
            notes = [cell(options["at"][place])] if self.cases else []
            rows.append([cell(self.name_of(place), head=True), *cells, *notes])
        label = f"All numbers: {self.arguments[0]}"
        return "\n".join(
            [
                self.control(options["x"]),
                figure,
                '<p class="tl-value" role="status"></p>',  # below the figure, which so stays where it is
                f"<details open><summary>All numbers</summary>{table(columns, rows, label)}</details>",
                f'<p class="tl-source">{escape(self.source(options["file"]))}</p>',
            ]
        )

    def name_of(self, place: Any) -> str:
        """Return a place as readers see it."""
        return str(place).replace("_", " ") if self.cases else f"{place:,}"

    def control(self, label: str) -> str:
        """Return what chooses a place, hidden until the script shows it: a slider, or a button a case."""
        name, last = self.new_id(), len(self.at) - 1
        if self.cases:
            buttons = "".join(
                f'<label><input type="radio" name="{name}" value="{i}"> {escape(self.name_of(place))}</label>'
                for i, place in enumerate(self.at)
            )
            control = f"<fieldset><legend>{escape(label)}</legend>{buttons}</fieldset>"
        else:
            control = (
                f'<label for="{name}">{escape(label)}</label>'
                f'<input type="range" id="{name}" min="0" max="{last}" step="1" value="0">'
            )
        return f'<div class="tl-control" hidden>{control}</div>'

    def lines(self, x_label: str, y_label: str, names: list[str], options: dict[str, Any]) -> str:
        """Return a line and a band a series over the places, each place with a marker to be shown."""
        place_of = {"log": math.log10, "linear": float, "even": self.at.index}
        scale = options.get("scale", "linear")
        if scale not in place_of:
            raise ValueError(f"scale is one of {', '.join(place_of)}, not {scale!r}.")
        where = [place_of[scale](place) for place in self.at]
        lows, highs = zip(*((e[1], e[2]) for row in self.ends for e in row), strict=True)
        grid = ticks(min(0, *lows) if options.get("zero") else min(lows), max(highs))

        def px(value: float) -> float:
            return LEFT + 10 + (value - where[0]) / (where[-1] - where[0]) * (WIDTH - LEFT - RIGHT - 20)

        def py(value: float) -> float:
            return HEIGHT - BOTTOM - (value - grid[0]) / (grid[-1] - grid[0]) * (HEIGHT - BOTTOM - TOP)

        parts = []
        for tick in grid:
            y = py(tick)
            parts.append(f'<path class="tl-grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
        for place, value in zip(self.at, where, strict=True):
            y = HEIGHT - BOTTOM + 17
            parts.append(f'<text x="{px(value):.1f}" y="{y}" text-anchor="middle">{place:,}</text>')
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
        for row, color, dash in zip(self.ends, COLORS, DASHES, strict=False):
            line = " ".join(f"{px(w):.1f},{py(e[0]):.1f}" for w, e in zip(where, row, strict=True))
            upper = [f"{px(w):.1f},{py(e[2]):.1f}" for w, e in zip(where, row, strict=True)]
            lower = [f"{px(w):.1f},{py(e[1]):.1f}" for w, e in zip(where, row, strict=True)]
            parts.append(f'<polygon points="{" ".join(upper + lower[::-1])}" fill="{color}" opacity="0.2"/>')
            parts.append(f'<polyline points="{line}" stroke="{color}" stroke-dasharray="{dash}"/>')
        for i, value in enumerate(where):
            x = px(value)
            marks = [f'<path class="tl-mark" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>']
            for row, color in zip(self.ends, COLORS, strict=False):
                marks.append(f'<circle cx="{x:.1f}" cy="{py(row[i][0]):.1f}" r="4" fill="{color}"/>')
            marks.append(f'<rect x="{x - 18:.1f}" y="{TOP}" width="36" height="{HEIGHT - TOP}" opacity="0"/>')
            parts.append(f'<g data-at="{i}">{"".join(marks)}</g>')
        legend = "".join(
            f'<li><svg viewBox="0 0 30 10" aria-hidden="true"><path d="M0 5H30" stroke="{color}" '
            f'stroke-dasharray="{dash}"/></svg> {escape(name)}</li>'
            for name, color, dash in zip(names, COLORS, DASHES, strict=False)
        )
        return f'{self.figure(HEIGHT, parts, y_label, x_label)}\n<ul class="tl-legend">{legend}</ul>'

    def bars(self, y_label: str) -> str:
        """Return one bar a case, with its interval."""
        lows, highs = zip(*((e[1], e[2]) for e in self.ends[0]), strict=True)
        grid = ticks(min(0, *lows), max(highs))
        height = len(self.at) * BAR + BOTTOM

        def px(value: float) -> float:
            return RIGHT + (value - grid[0]) / (grid[-1] - grid[0]) * (WIDTH - 2 * RIGHT)

        parts = []
        for tick in grid:
            parts.append(f'<path class="tl-grid" d="M{px(tick):.1f} 0V{height - BOTTOM}"/>')
            y = height - BOTTOM + 17
            parts.append(f'<text x="{px(tick):.1f}" y="{y}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{WIDTH / 2}" y="{height - 8}" text-anchor="middle">{escape(y_label)}</text>')
        for i, (place, (mean, low, high)) in enumerate(zip(self.at, self.ends[0], strict=True)):
            y = i * BAR
            left, right = sorted((px(0), px(mean)))
            marks = [
                f'<rect x="0" y="{y}" width="{WIDTH}" height="{BAR}" opacity="0"/>',
                f'<text x="{px(0) + 3:.1f}" y="{y + 15}">{escape(self.name_of(place))}</text>',
                f'<rect class="tl-bar" x="{left:.1f}" y="{y + 21}" width="{right - left:.1f}" height="16"/>',
                f'<path class="tl-interval" d="M{px(low):.1f} {y + 29}H{px(high):.1f}'
                f'M{px(low):.1f} {y + 24}v10M{px(high):.1f} {y + 24}v10"/>',
            ]
            parts.append(f'<g data-at="{i}">{"".join(marks)}</g>')
        return self.figure(height, parts, y_label, "")

    def figure(self, height: float, parts: list[str], y_label: str, x_label: str) -> str:
        """Return an SVG figure. It has a name; its numbers are those of the table below it."""
        against = f" against {x_label}" if x_label else ""
        label = f"Figure: {y_label}{against}. The table below has its numbers."
        above = f'<p class="tl-axis" aria-hidden="true">{escape(y_label)}</p>' if x_label else ""
        return (
            f'{above}<svg class="tl-figure" role="img" aria-label="{escape(label)}" '
            f'viewBox="0 0 {WIDTH} {height}">{"".join(parts)}</svg>'
        )


class Results(Component):
    """``{results}``: a table with filters above it and headings that sort."""

    def draw(self, options: dict[str, Any]) -> str:
        """Return filters and table."""
        if "file" in options:
            if options["file"] not in self.results:
                raise ValueError(f"There is no result {options['file']!r} in {stored.RUNS.parent}.")
            content = self.results[options["file"]]
            options = {name: content[name] for name in ("columns", "rows") if name in content} | options
        check(options, {"columns", "rows"}, {"file"})
        columns = [c if isinstance(c, dict) else {"name": c} for c in options["columns"]]
        for column in columns:
            check(column, {"name"}, {"unit", "filter"})
        rows = []
        for row in options["rows"]:
            if len(row) != len(columns):
                raise ValueError(f"{len(columns)} columns, but the row {row} has {len(row)} cells.")
            rows.append([self.shown(value, c) for value, c in zip(row, columns, strict=True)])
        cells = [[cell(text, key, head=i == 0) for i, (text, key) in enumerate(row)] for row in rows]
        filters = "".join(
            self.filter(i, c, [row[i] for row in rows]) for i, c in enumerate(columns) if c.get("filter")
        )
        control = (
            f'<div class="tl-control tl-filters" hidden>{filters}</div><p class="tl-count" role="status"></p>'
        )
        return control + "\n" + table([c["name"] for c in columns], cells, f"Table: {self.arguments[0]}")

    def shown(self, value: Any, column: dict[str, Any]) -> tuple[str, float | str | None]:
        """Return what a cell shows, and what it is sorted by.

        Args:
            value: A text, a number, one number a seed, where such numbers are stored
                (``{file: ..., key: ...}``), or ``None`` where nothing was measured.
            column: Its column.
        """
        if value is None:
            return "–", None
        if isinstance(value, dict):
            check(value, {"file", "key"}, set())
            value = stored.quantity(self.results, value["file"], value["key"])
        if isinstance(value, int) and "unit" not in column:
            return f"{value:,}", value
        if isinstance(value, int | float):
            value = [value]
        if isinstance(value, list):
            return stored.with_interval(value, column.get("unit", "")), sum(value) / len(value)
        return str(value), str(value)

    def filter(self, index: int, column: dict[str, Any], cells: list[tuple[str, float | str | None]]) -> str:
        """Return a list to choose from: an upper limit for numbers, one of the texts for texts."""
        name, found = self.new_id(), {key: text for text, key in cells if key is not None}
        limits = column["filter"] if isinstance(column["filter"], list) else None
        if limits or all(isinstance(key, int | float) for key in found):
            chosen = [(key, f"at most {self.shown(key, column)[0]}") for key in sorted(limits or found)]
            kind = "most"
        else:
            chosen, kind = [(key, found[key]) for key in sorted(found)], "equal"
        choices = "".join(f'<option value="{escape(key)}">{escape(text)}</option>' for key, text in chosen)
        return (
            f'<span><label for="{name}">{escape(column["name"])}</label> '
            f'<select id="{name}" data-column="{index}" data-kind="{kind}">'
            f'<option value="">any</option>{choices}</select></span>'
        )


def read(app: Sphinx) -> None:
    """Read all stored results once a build."""
    app.course_results = stored.read_results()


def setup(app: Sphinx) -> dict[str, Any]:
    """Register directives, script and style."""
    app.connect("builder-inited", read)
    app.add_directive("explorer", Explorer)
    app.add_directive("results", Results)
    app.add_css_file("components.css")
    app.add_js_file("components.js", loading_method="defer")
    return {"version": "1", "parallel_read_safe": False, "env_version": 1}
