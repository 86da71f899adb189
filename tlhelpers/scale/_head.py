"""A linear head on the features of shards, which need not fit into memory."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tlhelpers.scale._shards import Shards

if TYPE_CHECKING:
    import tlhelpers.heads


def linear_head(shards: Shards, *, rows: int = 4096, **settings: float) -> "tlhelpers.heads.LinearProbe":
    """Trains a linear classifier on shards, a batch in memory at a time: see `tlhelpers.streamed`.

    Args:
        shards: From `extract_files` or `open_shards`, with labels. Rows without a label are left out.
        rows: In a batch, at most.
        settings: ``strength`` and ``max_passes``, as `tlhelpers.streamed.linear_probe` takes them.

    Returns:
        The head. Its label ``i`` means ``shards.class_names[i]``.

    Raises:
        ValueError: If there are fewer than two classes, or an argument is not as described.
        DataError: If a file is damaged.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from tlhelpers import backbones, scale
        >>> for name, colour in (("blue", (0, 0, 200)), ("red", (200, 0, 0))):
        ...     Path("colours", name).mkdir(parents=True)
        ...     for i in range(4):
        ...         Image.new("RGB", (32 + i, 32), colour).save(f"colours/{name}/{i}.png")
        >>> shards = scale.extract_files("colours", "shards", backbones.load(image_size=32), workers=1)
        >>> head = scale.linear_head(shards)
        >>> f, labels, index = shards.read()
        >>> [shards.class_names[i] for i in head.predict(f)] == labels.tolist()
        True
    """
    from tlhelpers import streamed

    number = {name: i for i, name in enumerate(shards.class_names)}
    if len(number) < 2:
        raise ValueError(f"A head needs two classes or more. The labels of these shards: {[*number]}.")

    def labelled() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for f, labels, _ in shards.batches(rows):
            y = np.array([number.get(label, -1) for label in labels])
            if (y >= 0).any():
                yield f[y >= 0], y[y >= 0]

    return streamed.linear_probe(labelled, len(number), **settings)  # type: ignore[arg-type]
