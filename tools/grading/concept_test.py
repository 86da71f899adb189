"""The concept test: a sheet to print, a key, and a file that Moodle imports."""

import random
import re
import tomllib
from html import escape
from pathlib import Path
from typing import Any

from tools.grading.course import COURSE
from tools.grading.report import write_page

LETTERS = "ABCD"


def questions() -> list[dict[str, Any]]:
    """Returns the questions, each with its answers in a mixed order: text, and why it is given."""
    table = tomllib.loads((COURSE / "concept_test.toml").read_text(encoding="utf-8"))["question"]
    order = random.Random(15)
    for question in table:
        answers = [(question["right"], ""), *(tuple(pair) for pair in question["wrong"])]
        order.shuffle(answers)
        question["answers"] = answers
    return list(table)


def write(out: Path) -> list[Path]:
    """Writes the sheet, the key and Moodle's GIFT file; returns their paths."""
    sheet, key, gift = [], [], []
    for number, question in enumerate(questions(), start=1):
        head = f"<h2>{number}</h2><p>{escape(question['text'])}</p>"
        sheet.append(head + _list(question["answers"], with_reasons=False))
        ids = ", ".join(question["outcomes"])
        key.append(head + _list(question["answers"], with_reasons=True) + f"<p>Outcomes: {ids}</p>")
        lines = [_gift_answer(text, reason) for text, reason in question["answers"]]
        gift.append(f"::Q{number:02d}::{_plain(question['text'])} {{\n" + "\n".join(lines) + "\n}\n")
    paths = [out / "concept_test.html", out / "concept_test_key.html", out / "concept_test.gift.txt"]
    write_page(paths[0], "Concept test", ["<h1>Concept test</h1><p>One answer a question.</p>", *sheet])
    write_page(paths[1], "Concept test: key", ["<h1>Concept test: key for the instructor</h1>", *key])
    paths[2].write_text("\n".join(gift), encoding="utf-8")
    return paths


def _list(answers: list[tuple[str, str]], with_reasons: bool) -> str:
    lines = []
    for letter, (text, reason) in zip(LETTERS, answers, strict=True):
        note = f" <em>{escape(reason or 'Right.')}</em>" if with_reasons else ""
        lines.append(f"<p>{letter}. {escape(text)}{note}</p>")
    return "".join(lines)


def _gift_answer(text: str, reason: str) -> str:
    return f"~{_plain(text)} #{_plain(reason)}" if reason else f"={_plain(text)}"


def _plain(text: str) -> str:
    """Returns a text with the characters that mean something in GIFT escaped."""
    return re.sub(r"([~=#{}:\\])", r"\\\1", text)
