"""Draw the README's picture, and the preview that others show beside a link, from the numbers of chapter 1.

python -m tools.readme    # after chapter 1 has been measured anew; the preview needs Chromium
"""

import hashlib
import html
import importlib
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import yaml

from tools import print_pdf
from tools.numbers.provenance import ROOT

PICTURE = ROOT / "book" / "_static" / "result.svg"
PREVIEW = PICTURE.with_suffix(".png")
SIZE = (1200, 630)  # what most sites show
CARD = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; padding: 44px 90px; font: 32px sans-serif; color: #1c2430; background: #fff }}
h1 {{ margin: 0 0 12px; font-size: 44px; white-space: nowrap }} p {{ margin: 0 0 28px }}
body svg.diagram {{ width: 960px; max-width: none }}
</style><h1>{title}</h1><p>Three networks, the same pictures: test accuracy</p>{picture}
"""


def drawn() -> str:
    """Return the picture, as the website draws it."""
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    diagrams = importlib.import_module("diagrams")
    return diagrams.alone("result", diagrams.result_words())


def card() -> str:
    """Return the preview as a page."""
    title = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["title"]
    return CARD.format(title=html.escape(title), picture=drawn())


def digest(page: str) -> bytes:
    """Return what stands in the preview for the page that it was made of."""
    return hashlib.sha256(page.encode()).hexdigest().encode()


def preview(page: str) -> bytes:
    """Return a page as PNG, with its digest as a comment.

    Raises:
        SystemExit: there is no browser.
    """
    browser = print_pdf.find_browser()
    if not browser:
        sys.exit(
            f"The preview needs a browser (looked for {', '.join(print_pdf.BROWSERS)}): install Chromium."
        )
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "card.html"), Path(folder, "card.png")
        source.write_text(page, encoding="utf-8")
        options = ["--headless", "--hide-scrollbars", f"--window-size={SIZE[0]},{SIZE[1]}"]
        command = [browser, *print_pdf.as_root(), *options, f"--screenshot={target}", source.as_uri()]
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        picture = target.read_bytes()
    text = b"tEXt" + b"Source\0" + digest(page)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    end = 8 + 25  # the signature, and the header
    return picture[:end] + chunk + picture[end:]


if __name__ == "__main__":
    PICTURE.write_text(drawn(), encoding="utf-8")
    PREVIEW.write_bytes(preview(card()))
    print(PICTURE.relative_to(ROOT), PREVIEW.relative_to(ROOT))
