"""Sphinx extension of this book: notebooks that read well where no MyST is known, as in Colab and on GitHub.

Builder ``learner``: writes each notebook with its code cells, outputs, ids and metadata untouched. In text
cells, what only MyST knows is replaced: a role by what Sphinx makes of it, as inline Markdown with absolute
links; a directive by plain Markdown, folded by ``<details>`` where the page folds it. What no rule covers is
a warning, and so an error in a strict build.

On the website, a line below a chapter's title leads to its notebook in Colab.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from html import escape, unescape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.frontend import get_default_settings
from docutils.parsers.rst import Parser
from docutils.utils import new_document
from myst_parser.mdit_to_docutils.sphinx_ import SphinxRenderer
from myst_parser.parsers.mdit import create_md_parser
from sphinx.application import Sphinx
from sphinx.builders import Builder
from sphinx.util import logging
from sphinx.util.docutils import sphinx_domains

import diagrams
from tools.repo_url import derived

logger = logging.getLogger(__name__)
# A fenced block: the longer fence may hold shorter ones. Without a name in braces it is a listing.
FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,}|:{3,})(?:\{(?P<name>[\w:-]+)\} *(?P<argument>[^\n]*)|[^\n{]*)\n"
    r"(?P<body>.*?)^(?P=indent)(?P=fence) *$\n?",
    re.M | re.S,
)
OPTION = re.compile(r"\A(?: *:(\w+): *(.*)\n| *\n)")
TARGET = re.compile(r"^\([\w.-]+\)= *\n", re.M)
LABEL = re.compile(r"^(\$\$) *\(([\w.-]+)\) *$", re.M)  # of a formula
# Code is matched, too, so that it is left alone. In a formula nothing is a role.
ROLE = re.compile(r"\{[\w:]+\}`[^`]+`|(?P<code>(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))", re.S)
LEFT = re.compile(r"\{[\w:-]+\}`|^[ >]*(?:`{3,}|:{3,})\{|^\([\w.-]+\)=|\?\?\S+\?\?", re.M)
ADMONITIONS = {"admonition", "note", "tip", "warning", "important", "hint", "caution", "danger", "seealso"}


def cells_of(html: str) -> list[list[str]]:
    """Return the cells of a table, row by row, as plain text."""
    rows = re.findall(r"<tr.*?>(.*?)</tr>", html, re.S)
    found = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.S) for row in rows]
    return [[unescape(re.sub(r"<[^>]+>", "", cell)).replace("|", "\\|") for cell in row] for row in found]


def folded(summary: str, body: str) -> str:
    """Return text that opens on a click; Colab needs the empty line, and no indentation."""
    return f"<details>\n<summary><b>{summary}</b></summary>\n\n{body.strip()}\n\n</details>"


def addresses(app: Sphinx) -> dict[str, str]:
    """Return the addresses that follow from the repository's."""
    return derived(app.config.html_theme_options["repository_url"])


def colab(app: Sphinx, docname: str) -> str:
    """Return the address of a notebook in Colab."""
    branch = app.config.html_theme_options["repository_branch"]
    return f"{addresses(app)['colab']}/blob/{branch}/{docname}.ipynb"


class Page:
    """Turns the text cells of one page into plain Markdown."""

    def __init__(self, builder: "LearnerBuilder", docname: str) -> None:
        self.builder, self.env, self.docname = builder, builder.env, docname
        self.parser = create_md_parser(self.env.myst_config, SphinxRenderer)
        self.directives: dict[str, Callable[[str, dict[str, str], str, str], str]] = {
            "exercise": self.exercise,
            "solution": self.solution,
            "diagram": self.diagram,
            "table": self.table,
            "explorer": self.interactive,
            "results": self.interactive,
            **dict.fromkeys(ADMONITIONS, self.admonition),
        }

    def text(self, source: str) -> str:
        """Return Markdown without directives, targets and roles."""
        source, parts, end = TARGET.sub("", source), [], 0
        for match in FENCE.finditer(source):
            parts += [self.prose(source[end : match.start()]), self.block(match)]
            end = match.end()
        return "".join([*parts, self.prose(source[end:])])

    def block(self, match: re.Match[str]) -> str:
        """Return a directive as Markdown, or a listing as it is."""
        name, body, options = match["name"], match["body"], {}
        if name is None:
            return match[0]
        if name not in self.directives:
            self.complain(f"no Markdown is known for the directive {name!r}")
            return match[0]
        indent = match["indent"]
        body = re.sub(rf"^{indent}", "", body, flags=re.M)
        while found := OPTION.match(body):
            if found[1]:
                options[found[1]] = found[2].strip()
            body = body[found.end() :]
        made = self.directives[name](match["argument"], options, body, match[0]).strip("\n")
        return "".join(f"{indent if line else ''}{line}\n" for line in made.split("\n"))

    def exercise(self, title: str, options: dict[str, str], body: str, source: str) -> str:
        """Its number, its title, its text."""
        head = f"Exercise {self.number('exercise', options['label'])}" + (f" ({title})" if title else "")
        return f"**{self.prose(head)}**\n\n{self.text(body)}"

    def solution(self, title: str, options: dict[str, str], body: str, source: str) -> str:
        """Folded."""
        return folded(f"Solution to exercise {self.number('exercise', title)}", self.text(body))

    def admonition(self, title: str, options: dict[str, str], body: str, source: str) -> str:
        """A quotation with a bold title."""
        name = re.search(r"\{(\w+)\}", source)
        assert name
        text = f"**{self.prose(title) or name[1].capitalize()}**\n\n{self.text(body).strip()}"
        return "\n".join(f"> {line}".rstrip() for line in text.splitlines())

    def diagram(self, name: str, options: dict[str, str], body: str, source: str) -> str:
        """A picture that stands beside the website, and its caption."""
        words = diagrams.WORDS[name]() if name in diagrams.WORDS else options["alt"]
        caption = " ".join(self.text(body).split())
        if caption and "name" in options:
            caption = f"\n\n*Fig. {self.number('figure', options['name'])}: {caption}*"
        return f"![{words}]({self.builder.picture(name, words)}){caption}"

    def table(self, title: str, options: dict[str, str], body: str, source: str) -> str:
        """Its number and caption, then the table itself."""
        number = f"Table {self.number('table', options['name'])}: " if "name" in options else ""
        return f"*{number}{self.prose(title)}*\n\n{self.text(body)}"

    def interactive(self, title: str, options: dict[str, str], body: str, source: str) -> str:
        """The numbers, folded, and a link to where they can be played with."""
        head, *rows = cells_of(self.parsed(source).astext())
        lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
        page = self.builder.get_target_uri(self.docname)
        link = f"[**{self.prose(title)}**, interactive on the web page]({page})"
        return f"{link}\n\n{folded(f'{escape(title)}: all numbers', chr(10).join(lines))}"

    def prose(self, text: str) -> str:
        """Return text with its roles replaced, and the numbers of formulas in them; code stays."""
        equations = self.env.get_domain("math").equations
        text = LABEL.sub(lambda m: f"\\tag{{{equations[m[2]][1]}}}\n{m[1]}", text)
        return ROLE.sub(lambda m: m[0] if m["code"] else self.role(m[0]), text)

    def role(self, source: str) -> str:
        """Return what Sphinx makes of a role, as inline Markdown."""
        return "".join(map(self.inline, self.parsed(source).children[0].children))

    def parsed(self, source: str) -> nodes.document:
        """Return what Sphinx makes of some Markdown of this page, its references resolved."""
        document = new_document(self.docname, self.builder.settings)
        self.parser.options["document"] = document
        self.env.temp_data["docname"] = self.docname
        with sphinx_domains(self.env):
            self.parser.render(source, {})
        self.env.resolve_references(document, self.docname, self.builder)
        return document

    def inline(self, node: nodes.Node) -> str:
        """Return a piece of a paragraph as Markdown."""
        if isinstance(node, nodes.Text):
            return re.sub(r"([*_])", r"\\\1", node.astext())
        if isinstance(node, nodes.math):
            return f"${node.astext()}$"
        classes = set(node.get("classes", ())) if isinstance(node, nodes.Element) else set()
        if isinstance(node, nodes.literal) and not classes & {"xref", "eq"}:
            return f"`{node.astext()}`"
        inner = "".join(map(self.inline, node.children))
        if isinstance(node, nodes.reference):
            page = self.builder.get_target_uri(self.docname)
            address = node["refuri"] if "refuri" in node else f"#{node['refid']}"
            return f"[{inner}]({address if '://' in address else page + address})"
        if isinstance(node, nodes.strong) or "outcome" in classes:
            return f"**{inner}**"
        return f"*{inner}*" if isinstance(node, nodes.emphasis) else inner

    def number(self, kind: str, label: str) -> str:
        """Return the number of a figure or an exercise."""
        return ".".join(map(str, self.env.toc_fignumbers[self.docname][kind][label]))

    def complain(self, what: str) -> None:
        """Warn."""
        logger.warning(f"learner: {what}", location=self.docname, type="course")


class LearnerBuilder(Builder):
    """Writes the notebooks and their diagrams."""

    name = format = "learner"
    epilog = "The learner's notebooks are in %(outdir)s."

    def init(self) -> None:
        """Read the website's address, where links lead."""
        self.base = addresses(self.app)["pages"] + "/"
        self.settings = get_default_settings(Parser)
        self.settings.env = self.env

    def get_outdated_docs(self) -> Iterator[str]:
        """Return the pages that are notebooks."""
        yield from (d for d in sorted(self.env.found_docs) if self.env.doc2path(d).endswith(".ipynb"))

    def get_target_uri(self, docname: str, typ: str | None = None) -> str:
        """Return the address of a page on the website."""
        return f"{self.base}{docname}.html"

    def get_relative_uri(self, from_: str, to: str, typ: str | None = None) -> str:
        """Return an absolute address: a notebook may lie anywhere."""
        return self.get_target_uri(to, typ)

    def picture(self, name: str, words: str) -> str:
        """Write a diagram as a file; return its address."""
        path = Path(self.outdir) / "_images" / f"diagram-{name}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(diagrams.alone(name, words, self.get_target_uri), encoding="utf-8")
        return f"{self.base}_images/{path.name}"

    def prepare_writing(self, docnames: set[str]) -> None:
        """Nothing is to be prepared."""

    def write(self, build_docnames: Any, updated_docnames: Sequence[str], method: str = "update") -> None:
        """Write all notebooks."""
        for docname in self.get_outdated_docs():
            source = Path(self.env.doc2path(docname))
            notebook, page = json.loads(source.read_text(encoding="utf-8")), Page(self, docname)
            texts = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
            for number, cell in enumerate(texts):
                text = page.text("".join(cell["source"]) + "\n").strip("\n")
                if number == 0:  # below the title
                    title, rest = text.split("\n", 1)
                    page_link = f"[Web page]({self.get_target_uri(docname)})"
                    colab_link = f"[Open in Colab]({colab(self.app, docname)})"
                    text = f"{title}\n\n{page_link} · {colab_link}\n{rest}"
                if left := LEFT.search(text):
                    page.complain(f"{left[0]!r} is left")
                cell["source"] = text.splitlines(keepends=True)
            path = Path(self.outdir) / source.name
            path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def finish(self) -> None:
        """Nothing is left to be done."""


def invite(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Put a link to Colab below the title of a chapter."""
    if doctree is not None and app.env.doc2path(page).endswith(".ipynb"):
        link = f'<p class="open-in"><a href="{escape(colab(app, page))}">Open in Colab</a></p>'
        context["body"] = context["body"].replace("</h1>", f"</h1>\n{link}", 1)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the builder and the link."""
    app.add_builder(LearnerBuilder)
    app.connect("html-page-context", invite)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
