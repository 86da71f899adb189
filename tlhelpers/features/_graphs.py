"""A network as it is at this moment, and graphs that were exported from it: in memory, and on disk."""

import logging
import tempfile
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from importlib import metadata
from pathlib import Path

import keras
import numpy as np

from tlhelpers.paths import atomic_path, cache_dir

Run = Callable[[np.ndarray], np.ndarray]  # uint8 images (m, s, s, 3) -> features

TOLERANCE = 1e-4  # of the largest feature: so far may a graph in float32 be from Keras
EXPORTERS = ("keras", "tf2onnx", "onnxruntime", "openvino", "tensorflow")  # others may export what failed
FAILURE_LASTS = 24 * 3600  # seconds: what stood in the way may be gone tomorrow
_SESSIONS = 4  # compiled graphs that one process holds

_sessions: OrderedDict[str, Run] = OrderedDict()
_failures: dict[str, str] = {}


@dataclass(frozen=True)
class Network:
    """What is to be computed.

    Attributes:
        name: Of the backbone.
        image_size: Side of its input.
        model: From images to features.
        key: A digest of all that ``model`` computes with, at the moment when this was made.
        probe: Images, uint8 ``(2, s, s, 3)``.
        expected: Features of them, by Keras, at that moment.
        on_disk: Whether graphs are read and kept in the cache folder.
    """

    name: str
    image_size: int
    model: keras.Model
    key: str
    probe: np.ndarray
    expected: np.ndarray
    on_disk: bool

    def graph_name(self, *depends: str) -> str:
        """Returns the name of a graph of this network, which is another for any other network."""
        digest = sha256(" ".join((self.key, f"keras {keras.__version__}", *depends)).encode()).hexdigest()
        return f"{self.name}-{self.image_size}-{digest[:24]}"


def session(name: str, make: Callable[[], Run]) -> Run:
    """Returns the compiled graph of a name, from this process's memory where it is there."""
    run = _sessions.pop(name, None) or make()
    _sessions[name] = run
    while len(_sessions) > _SESSIONS:
        _sessions.popitem(last=False)
    return run


def forget() -> None:
    """Empties this process's memory, as in a new process."""
    _sessions.clear()
    _failures.clear()


def kept(name: str, kind: str, network: Network, make: Callable[[], bytes]) -> bytes:
    """Returns a graph from disk, or makes and keeps it. Its checksum is in its file's name."""
    if not network.on_disk:
        return make()
    folder = cache_dir() / "onnx"
    for path in sorted(folder.glob(f"{name}.*.{kind}")):
        graph = path.read_bytes()
        if path.name == f"{name}.{sha256(graph).hexdigest()[:16]}.{kind}":
            return graph
        logging.getLogger(__name__).warning("%s was altered and is made again.", path)
        path.unlink(missing_ok=True)
    graph = make()
    with atomic_path(folder / f"{name}.{sha256(graph).hexdigest()[:16]}.{kind}") as part:
        part.write_bytes(graph)
    return graph


def exported(
    network: Network, name: str, form: str, write: Callable[[Path], bytes], run: Callable[[bytes], Run]
) -> bytes:
    """Exports a network and checks the graph against Keras on the two images of the probe.

    Args:
        network: What to export.
        name: Of the graph.
        form: ``"ONNX"`` or ``"OpenVINO"``, for messages.
        write: From an empty folder to the graph.
        run: From the graph to a function that runs it in float32.

    Raises:
        RuntimeError: If it cannot be exported, or the graph does not compute what Keras computes. That is
            noted, on disk or in memory, so that it is tried once a day, and again with other versions.
    """
    note = cache_dir() / "onnx" / f"{name}.failed"
    if (known := _noted(note) if network.on_disk else _failures.get(name)) is not None:
        raise RuntimeError(known)
    with tempfile.TemporaryDirectory() as folder:
        try:
            with warnings.catch_warnings():  # the converter asks numpy for a name that it deprecates
                warnings.simplefilter("ignore", FutureWarning)
                graph = write(Path(folder))
            error = relative(run(graph)(network.probe), network.expected)
            if not error < TOLERANCE:
                raise RuntimeError(f"the graph differs from Keras by {error:.1e} of the largest feature")
        except (OSError, MemoryError, ImportError):  # of this machine at this moment, not of the network
            raise
        except Exception as error:
            message = f"{network.name} cannot be exported to {form}: {type(error).__name__}: {error}"[:500]
            if _lacks_package(error):
                raise RuntimeError(message) from error
            if network.on_disk:
                message += f" To try again, run tlhelpers cache clear, or delete {note}."
                with atomic_path(note) as part:
                    part.write_text(f"{_versions()}\n{message}", encoding="utf-8")
            else:
                _failures[name] = message
            raise RuntimeError(message) from error
    return graph


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest difference, as a share of the largest expected value."""
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-12))


def _versions() -> str:
    found = []
    for package in EXPORTERS:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:  # tensorflow has several names; another exporter needs none
            found.append(f"{package} none")
    return ", ".join(found)


def _noted(note: Path) -> str | None:
    """Returns what a note says, if it is of these versions and of the last day."""
    if not note.is_file() or not 0 <= time.time() - note.stat().st_mtime < FAILURE_LASTS:
        return None
    versions, _, message = note.read_text(encoding="utf-8", errors="replace").partition("\n")
    return message if versions == _versions() else None


def _lacks_package(error: BaseException | None) -> bool:
    """Returns whether an error comes from a package that is not there: installing it is the remedy."""
    while error is not None and not isinstance(error, ImportError):
        error = error.__cause__
    return error is not None
