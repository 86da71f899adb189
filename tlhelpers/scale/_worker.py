"""What a worker does: the pictures of one shard in, one Parquet file out. It needs no Keras."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tlhelpers.data.pictures import decoded_file
from tlhelpers.extras import extra
from tlhelpers.paths import atomic_path

KEY = b"tlhelpers.key"
Shard = dict[str, Any]
_COLUMNS = ("index", "path", "label", "features", "error")
_FORMAT: dict[str, Any] = {"compression": "zstd", "row_group_size": 1024, "write_page_checksum": True}


def arrow() -> Any:
    """Returns pyarrow.

    Raises:
        MissingExtraError: It is not installed.
    """
    with extra("parquet"):
        import pyarrow.compute
        import pyarrow.parquet
    return pyarrow


@dataclass(frozen=True)
class Worker:
    """What all shards have in common, and what is done with each.

    Attributes:
        out: The folder to write to.
        root: The folder that paths start from.
        key: Of all that the shards depend on.
        graph: The network, as `features.graph` gives it.
        step: How many images it takes at once.
        image_size: Side of its input in pixels.
    """

    out: Path
    root: Path
    key: str
    graph: bytes
    step: int
    image_size: int

    @cached_property
    def _network(self) -> Any:
        with extra("onnx"):
            import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # there is a worker a core
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(self.graph, options, providers=["CPUExecutionProvider"])

    def __call__(self, shard: Shard) -> Shard:
        """Computes a shard and writes it: as a whole or, if this process dies, not at all.

        Args:
            shard: The name of its file, the position of its first picture, and paths and labels as JSON.

        Returns:
            The name.
        """
        paths, labels = json.loads(shard["pictures"])
        rows: list[np.ndarray | None] = []
        errors: list[str | None] = []
        pixels = self._network.get_inputs()[0].name
        with atomic_path(self.out / shard["name"]) as part:
            part.touch()  # so a killed worker leaves behind which shard it was
            for start in range(0, len(paths), self.step):
                files = [self.root / path for path in paths[start : start + self.step]]
                found = [decoded_file(file, self.image_size) for file in files]
                images = [image for image in found if not isinstance(image, str)]
                x = np.array(images, np.float32)
                computed = iter(self._network.run(None, {pixels: x})[0] if images else ())
                rows += [None if isinstance(image, str) else next(computed) for image in found]
                errors += [image if isinstance(image, str) else None for image in found]
            index = range(shard["first"], shard["first"] + len(paths))
            self._write(part, shard["name"], (index, paths, labels, rows, errors))
        return {"name": shard["name"]}

    def _write(self, part: Path, name: str, columns: tuple[Any, ...]) -> None:
        text, floats = arrow().string(), arrow().float32()
        # Not lists of fixed size: with a missing one, only the newest versions of pyarrow read them.
        types = (arrow().int64(), text, text, arrow().list_(floats), text)
        schema = arrow().schema(zip(_COLUMNS, types, strict=True), metadata={KEY: f"{self.key} {name}"})
        table = arrow().Table.from_pydict(dict(zip(_COLUMNS, columns, strict=True)), schema)
        arrow().parquet.write_table(table, part, **_FORMAT)
