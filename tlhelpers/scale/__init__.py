"""Features of more images than one machine holds: Parquet files, made by many workers, read in a stream.

Nothing here imports Keras before it is needed: workers import this room, too, and shall be small.
"""

import json
import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL

from tlhelpers.data import DataError, path_list
from tlhelpers.extras import extra
from tlhelpers.paths import leftovers
from tlhelpers.scale._head import linear_head
from tlhelpers.scale._runners import RUNNERS
from tlhelpers.scale._shards import Shards, claimed, open_shards
from tlhelpers.scale._worker import Worker, arrow

if TYPE_CHECKING:
    import tlhelpers.backbones

__all__ = ["Shards", "extract_files", "linear_head", "open_shards"]


def extract_files(
    files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    backbone: "tlhelpers.backbones.Backbone",
    *,
    labels: Iterable[Any] | None = None,
    shard_size: int = 2048,
    workers: int | None = None,
    runner: str = "local",
    address: str | None = None,
) -> Shards:
    """Computes the features of picture files, and writes them to Parquet files, a shard each.

    The features are those of `tlhelpers.features.extract` with the engine ``"onnx"``, to the last bit. A file
    that cannot be read becomes a row with the reason and without features. A shard is written as a whole or
    not at all, so a run that was stopped, in whatever way, goes on where it was.

    Args:
        files: A folder, a CSV file with a column ``path``, or paths: see `tlhelpers.data.path_list.listed`.
        out: The folder to write to. One that holds shards of other pictures, of other labels or of another
            network is refused.
        backbone: From `tlhelpers.backbones.load`.
        labels: One a picture, kept as text. By default those of the CSV file; of a folder, the name of the
            folder in which a picture lies.
        shard_size: Pictures in a file. A worker holds the features of one shard in memory.
        workers: How many work at a time; by default one a core.
        runner: ``"local"``: processes of this machine. ``"ray"``: Ray (the extra ``ray``), here or in a
            cluster. There, each machine needs this package, and finds the files and ``out`` under the same
            paths; a machine with another kind of processor may round otherwise.
        address: Of the Ray cluster to join; None starts Ray on this machine. Give a cluster a token, which
            ``ray get-auth-token --generate`` writes, and name its file in ``RAY_AUTH_TOKEN_PATH`` on each
            machine before Ray starts there: without one, whoever reaches the cluster can run code in it.

    Returns:
        What was written.

    Raises:
        ValueError: If arguments are not as described; the message says all that is wrong with them.
        DataError: If ``out`` holds something else.
        ImportError: If pyarrow, ONNX Runtime or Ray is not installed and needed.
        OSError: If ``out`` cannot be written, for example on a full disk.
        RuntimeError: If the backbone cannot be exported, or the workers of a shard die again and again.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from tlhelpers import backbones, scale
        >>> Path("photos/cats").mkdir(parents=True)
        >>> Image.new("RGB", (60, 40), (90, 60, 30)).save("photos/cats/1.png")
        >>> n = Path("photos/cats/2.png").write_text("not a picture")
        >>> backbone = backbones.load(image_size=32)
        >>> shards = scale.extract_files("photos", "features_of_photos", backbone, workers=1)
        >>> len(shards), shards.errors
        (2, {'cats/2.png': 'not an image, whatever its name says'})
        >>> for f, labels, index in shards.batches():
        ...     print(f.shape, labels, index)
        (1, 1280) ['cats'] [0]
    """
    arrow()
    if runner == "ray":
        with extra("ray"):
            import ray  # noqa: F401
    problems = []
    if runner not in RUNNERS:
        problems.append(f"There is no runner {runner!r}. Choose one of: {', '.join(map(repr, RUNNERS))}.")
    if address is not None and runner != "ray":
        problems.append("An address is that of a Ray cluster: pass runner='ray', too.")
    for name, value in (("shard_size", shard_size), ("workers", 1 if workers is None else workers)):
        if not isinstance(value, int) or value < 1:
            problems.append(f"{name} must be a whole number of at least 1, not {value!r}.")
    try:
        found = path_list.listed(files, labels)
    except DataError as error:
        problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))

    from rich.console import Console  # Keras needs it, too
    from rich.progress import track

    from tlhelpers import features

    network, graph, step = features.graph(backbone)
    asked = {"format": 1, "network": network, "engine": "onnx", "features": backbone.n_features}
    asked |= {"decoder": f"Pillow {PIL.__version__}", "shard size": shard_size}
    asked |= {"folder": str(found.root), "pictures": len(found.paths), "paths": _digest(found.paths)}
    asked |= {"file sizes": _digest(found.sizes), "labels": _digest(found.labels)}
    shards = claimed(Path(out).expanduser().absolute(), asked | {"key": _digest(asked)})
    todo = []
    for k in shards.missing:
        part = slice(k * shard_size, (k + 1) * shard_size)
        pictures = json.dumps([found.paths[part], found.labels[part]])
        todo.append({"name": shards.files[k].name, "first": part.start, "pictures": pictures})
    if todo:
        worker = Worker(shards.folder, found.root, _digest(asked), graph, step, backbone.image_size)
        done = RUNNERS[runner](worker, todo, workers, address)
        # In a notebook Rich would leave a widget for each bar.
        console = Console(stderr=True, quiet=not os.isatty(2), force_jupyter=False)
        for _ in track(done, f"shards of {backbone.name}", len(todo), console=console, transient=True):
            pass
        for path in leftovers(shards.folder, age=0):  # of workers that were killed
            path.unlink(missing_ok=True)
    return open_shards(shards.folder)


def _digest(content: Any) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
