"""Write the repository's address wherever it stands: `_config.yml`, README, citation file, Colab cells.

    python -m tools.repo_url https://github.com/you/transfer-learning-keras

Without an argument it only rewrites the Colab cells and links from the address in `_config.yml`, which is the
single source. Standard library only.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+?)")
FILES = (
    "README.md",
    "CITATION.cff",
    "pyproject.toml",
    "book/how_to_use.md",
    "book/instructors.md",
    "book/index.md",
)
TAG = "colab"
# The first code cell of each notebook. It does nothing outside Colab. What is there keeps its version: pip
# takes the newest that fit beside it, or says what does not.
CELL = """\
# On Google Colab this installs the course's package and changes nothing that
# is there. Anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    import importlib
    import subprocess
    from importlib.metadata import distributions
    from pathlib import Path

    def installed():
        found = {}
        for package in distributions():
            found.setdefault(package.metadata["Name"], package.version)
        return found

    before = installed()
    lines = [f"{name}=={version}\\n" for name, version in before.items()]
    Path("constraints.txt").write_text("".join(lines))
    package = "tlhelpers[colab] @ git+@@URL@@"
    pip = ["-m", "pip", "install", "-q", "-c", "constraints.txt"]
    subprocess.run([sys.executable, *pip, package], check=True)
    importlib.invalidate_caches()
    now = installed().items()
    print("changed", [n for n, v in now if before.get(n, v) != v])
"""
FOLD = {"code_prompt_show": "Colab setup", "code_prompt_hide": "Colab setup"}


def stored_url(root: Path = ROOT) -> str:
    """Return the address in `_config.yml`.

    Raises:
        ValueError: there is none, or it is not an address on GitHub.
    """
    match = re.search(
        r"^repository:\n(?:  .*\n)*?  url: (\S+)$", (root / "_config.yml").read_text("utf-8"), re.M
    )
    if not match or not ADDRESS.fullmatch(match[1]):
        raise ValueError("_config.yml needs, under `repository:`, `url: https://github.com/OWNER/NAME`.")
    return match[1]


def cell_source(url: str) -> str:
    """Return the text of the Colab cell for an address."""
    return CELL.replace("@@URL@@", url).rstrip("\n")


def derived(url: str) -> dict[str, str]:
    """Return the other addresses that contain the repository's: name to address."""
    match = ADDRESS.fullmatch(url)
    assert match
    owner, name = match.groups()
    return {
        "repository": url,
        "colab": f"https://colab.research.google.com/github/{owner}/{name}",
        "binder": f"https://mybinder.org/v2/gh/{owner}/{name}",
        "pages": f"https://{owner.lower()}.github.io/{name}",
    }


def write_notebook(path: Path, url: str) -> bool:
    """Write the Colab cell into a notebook; return whether that changed it.

    The cell replaces the one tagged ``colab``, or else comes before the first code cell.
    """
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    lines = cell_source(url).splitlines(keepends=True)
    cells = [c for c in notebook["cells"] if TAG in c.get("metadata", {}).get("tags", [])]
    if cells:
        cells[0]["source"] = lines
        cells[0]["metadata"] = {"mystnb": FOLD, "tags": [TAG, "hide-cell"]}
    else:
        first = next(
            (i for i, c in enumerate(notebook["cells"]) if c["cell_type"] == "code"), len(notebook["cells"])
        )
        cell: dict[str, Any] = {
            "cell_type": "code",
            "execution_count": None,
            "id": "colab",
            "outputs": [],
            "source": lines,
        }
        cell["metadata"] = {"mystnb": FOLD, "tags": [TAG, "hide-cell"]}
        notebook["cells"].insert(first, cell)
    new = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if new != text:
        path.write_text(new, encoding="utf-8")
    return new != text


def set_url(url: str, root: Path = ROOT) -> list[str]:
    """Write an address everywhere.

    Returns:
        The files that changed.

    Raises:
        ValueError: it is not an address on GitHub.
    """
    url = url.removesuffix("/").removesuffix(".git")
    if not ADDRESS.fullmatch(url):
        raise ValueError(f"An address looks like https://github.com/OWNER/NAME; this is {url!r}.")
    old, new = derived(stored_url(root)), derived(url)
    changed = []
    for name in ("_config.yml", *FILES):
        path = root / name
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        fresh = text
        for key in old:
            fresh = re.sub(re.escape(old[key]) + r"(?![\w-])", new[key], fresh)
        if fresh != text:
            path.write_text(fresh, encoding="utf-8")
            changed.append(name)
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        if write_notebook(path, url):
            changed.append(f"notebooks/{path.name}")
    return changed


def main() -> None:
    """Write the address given, or the stored one."""
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    try:
        changed = set_url(sys.argv[1] if len(sys.argv) == 2 else stored_url())
    except ValueError as error:
        sys.exit(f"Nothing written. {error}")
    print("\n".join(changed) if changed else "Nothing to change.")


if __name__ == "__main__":
    main()
