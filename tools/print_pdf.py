"""Print the built website: one tagged PDF a page, and all pages joined in one file.

    python -m tools.print_pdf            # after `make book`; `make pdf` does both

A Chromium that is installed here prints the pages as its own "Save as PDF" does. Links between pages then
lead from file to file, and inside the joined file from page to page. The joined file has bookmarks but no
tags: for a screen reader take the single files.
"""

import argparse
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from pypdf import PdfReader, PdfWriter
from pypdf.annotations import Link
from pypdf.generic import DictionaryObject, Fit, NameObject, TextStringObject

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
JOINED = "course.pdf"
logging.getLogger("pypdf").setLevel(logging.ERROR)  # it remarks on each trailer that Chromium writes


def toc_files(root: Path = ROOT) -> list[str]:
    """Return the pages that the table of contents names, in its order."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])]


def find_browser() -> str | None:
    """Return the path of an installed Chromium, or ``None``."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def as_root() -> list[str]:
    """Return the option without which Chromium refuses to be started by root."""
    return ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []


def pdf_name(page: str) -> str:
    """Return the name of a page's PDF: ``book/index`` becomes ``book_index.pdf``."""
    return page.replace("/", "_") + ".pdf"


def print_page(browser: str, page: Path, target: Path) -> None:
    """Print one page.

    Args:
        browser: Chromium's path.
        page: the HTML file.
        target: the PDF to write.

    Raises:
        RuntimeError: Chromium failed or wrote nothing.
    """
    with tempfile.TemporaryDirectory() as profile:  # its own profile: an open browser window does not matter
        command = [browser, "--headless", "--disable-gpu", *as_root(), f"--user-data-dir={profile}"]
        command += ["--no-pdf-header-footer", "--export-tagged-pdf", "--generate-pdf-document-outline"]
        # Virtual time runs while the page has something to do: formulas are set before it is printed.
        command += ["--virtual-time-budget=30000", f"--print-to-pdf={target}", page.as_uri()]
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=180, check=False
        )
    if done.returncode or not target.is_file():
        raise RuntimeError(f"{browser} did not print {page.name}:\n{done.stderr[-2000:]}")


def linked_page(annotation: DictionaryObject, site: Path) -> str | None:
    """Return the page of the site that an annotation of a PDF leads to, or ``None``."""
    uri = urlsplit(str(annotation.get("/A", {}).get("/URI", "")))
    path = Path(unquote(uri.path))
    if uri.scheme != "file" or not path.is_relative_to(site):
        return None
    return path.relative_to(site).with_suffix("").as_posix()


def relink(pdf: Path, site: Path, names: list[str]) -> None:
    """Make a printed page's links lead to the PDFs beside it; no folder of this machine stays in it."""
    writer = PdfWriter(clone_from=pdf)
    for sheet in writer.pages:
        for reference in sheet.get("/Annots", []):
            annotation = reference.get_object()
            name = linked_page(annotation, site)
            if name in names:
                annotation["/A"][NameObject("/URI")] = TextStringObject(pdf_name(name))
            elif str(annotation.get("/A", {}).get("/URI", "")).startswith("file:"):
                del annotation[NameObject("/A")]  # a download or an index page, which has no PDF
    writer.write(pdf)


def join(pdfs: dict[str, Path], target: Path) -> None:
    """Join printed pages; a link to another page's PDF becomes a link inside the joined file."""
    writer = PdfWriter()
    first: dict[str, int] = {}
    for pdf in pdfs.values():
        first[pdf.name] = len(writer.pages)
        reader = PdfReader(pdf)
        title = reader.metadata.title if reader.metadata else None
        writer.append(reader, outline_item=(title or pdf.stem).split(" — ")[0])
    for number, sheet in enumerate(writer.pages):
        for reference in list(sheet.get("/Annots", [])):
            annotation = reference.get_object()
            wanted = first.get(str(annotation.get("/A", {}).get("/URI", "")))
            if wanted is not None:
                box = tuple(annotation["/Rect"])
                writer.add_annotation(
                    number, Link(rect=box, target_page_index=wanted, fit=Fit.fit_horizontally())
                )
                del annotation[NameObject("/A")]
    writer.compress_identical_objects()
    writer.write(target)


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--site", type=Path, default=ROOT / "_build" / "html", help="the built website")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "pdf", help="where the PDFs go")
    args = parser.parse_args()
    site, out = args.site.resolve(), args.out.resolve()
    browser = find_browser()
    if not browser:
        sys.exit(
            f"No browser to print with (looked for {', '.join(BROWSERS)}).\n"
            "Install Chromium, on Debian or Ubuntu: sudo apt-get install chromium"
        )
    names = toc_files()
    missing = [name for name in names if not (site / f"{name}.html").is_file()]
    if missing:
        sys.exit(f"{site} lacks {', '.join(missing)}. Build the website first: make book")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    pdfs = {name: out / pdf_name(name) for name in names}

    def printed(name: str) -> None:
        print_page(browser, site / f"{name}.html", pdfs[name])
        relink(pdfs[name], site, names)

    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(printed, names))
    join(pdfs, out / JOINED)
    print(f"{len(pdfs)} files, and all in one: {out / JOINED}")


if __name__ == "__main__":
    main()
