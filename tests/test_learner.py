"""The notebooks that readers download, or open in Colab: the same code, and text that needs no MyST."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from tools.numbers import kernel
from tools.numbers.provenance import ROOT

pytestmark = pytest.mark.slow
# What MyST alone knows. A formula or a listing may hold such characters, so both are taken out first.
CODE = re.compile(r"^( *)(`{3,})\w*\n.*?^\1\2$|`[^`\n]+`|\$\$.*?\$\$|\$[^$\n]+\$", re.M | re.S)
RAW = re.compile(r"\{[\w:-]+\}`|^[ >]*(?:`{3,}|:{3,})\{|^:{3,}|^\([\w.-]+\)=|\?\?|^:\w+: ", re.M)
# What a learner's notebook says and its page does not: links out, and what is folded or drawn there.
ONLY_HERE = re.compile(
    r"^(?:Web page · Open in Colab|Solution to exercise .*|.*interactive on the web page|Fig\. .*)$"
)


def learners(site: Path, path: Path) -> dict[str, Any]:
    """Return the notebook that the website offers."""
    return json.loads((site / "_sources" / "notebooks" / path.name).read_text(encoding="utf-8"))


def texts(notebook: dict[str, Any]) -> list[str]:
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]


def letters(text: str) -> str:
    """Return the letters and digits of a text: quotation marks and spaces are set by the typesetter."""
    return re.sub(r"[\W_]+", "", html.unescape(text)).lower()


@pytest.fixture(params=kernel.notebooks(), ids=lambda p: p.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_everything_but_the_text_is_the_same(site: Path, path: Path) -> None:
    """Code, outputs, ids, metadata: a run of one is a run of the other."""
    ours, theirs = json.loads(path.read_text(encoding="utf-8")), learners(site, path)
    for a, b in zip(ours.pop("cells"), theirs.pop("cells"), strict=True):
        if a["cell_type"] == "markdown":
            a, b = ({k: v for k, v in cell.items() if k != "source"} for cell in (a, b))
        assert a == b
    assert ours == theirs


def test_nothing_is_left_that_only_myst_knows(site: Path, path: Path) -> None:
    """Not even between the backquotes of a role."""
    found = texts(learners(site, path))
    assert found[0].startswith("# ")
    for text in found:
        plain = CODE.sub("", text)
        assert not RAW.search(plain), RAW.search(plain)
        assert text.count("<details>") == text.count("</details>") == text.count("</summary>\n\n")


def test_it_says_what_the_page_says(site: Path, path: Path) -> None:
    """Each paragraph, item and heading stands on the web page, letter by letter; formulas are set there."""
    page = (site / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
    body = page[page.index("<article") : page.index("</article>")]
    on_page = letters(re.sub(r"<(script|style)\b.*?</\1>|<[^>]+>", " ", body, flags=re.S))
    looked_at, missing = 0, []
    for text in texts(learners(site, path)):
        made = MarkdownIt().render(re.sub(r"^> ?", "", text, flags=re.M))
        for found in re.findall(r"<(?:p|li|h\d)>(.*?)</(?:p|li|h\d)>", made, re.S):
            words = re.sub(r"<[^>]+>", "", found)
            if "$" in words or ONLY_HERE.fullmatch(html.unescape(words)) or "|---" in words:
                continue
            looked_at += 1
            if letters(words) not in on_page:
                missing.append(words)
    assert looked_at > 30
    assert not missing, missing[:3]


def test_diagrams_are_pictures_beside_the_website(site: Path, path: Path) -> None:
    """SVG by address: Colab shows no other, and an alternative text says what it shows."""
    for words, address in re.findall(r"!\[(.*?)\]\((\S+?)\)", "\n".join(texts(learners(site, path)))):
        assert len(words) > 40
        name = address.rsplit("/", 1)[1]
        assert "xmlns=" in (site / "_images" / name).read_text(encoding="utf-8")


def test_a_directive_without_a_rule_is_an_error() -> None:
    """All that the notebooks use are known; another one would be a warning, and the build is strict."""
    source = (ROOT / "book" / "_ext" / "learner.py").read_text(encoding="utf-8")
    used = {
        name
        for notebook in kernel.notebooks()
        for text in texts(json.loads(notebook.read_text(encoding="utf-8")))
        for name in re.findall(r"^ *(?:`{3,}|:{3,})\{([\w:-]+)\}", text, re.M)
    }
    assert {"exercise", "solution"} <= used
    assert all(f'"{name}"' in source for name in used)
