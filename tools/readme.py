"""Draw the picture of the README from the numbers of chapter 1.

python -m tools.readme    # after chapter 1 has been measured anew
"""

import importlib
import sys

from tools.numbers.provenance import ROOT

PICTURE = ROOT / "book" / "_static" / "result.svg"


def drawn() -> str:
    """Return the picture, as the website draws it."""
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    diagrams = importlib.import_module("diagrams")
    return diagrams.alone("result", diagrams.result_words())


if __name__ == "__main__":
    PICTURE.write_text(drawn(), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))
