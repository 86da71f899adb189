"""Work in steps: read and computed ahead in threads, shown, and put together without a second copy."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from joblib import cpu_count


def in_threads(function: Callable[[int], np.ndarray], items: Sequence[int]) -> Iterator[np.ndarray]:
    """Yields ``function(item)`` in the order of the items; a thread a core works, and few results wait."""
    cores = cpu_count()
    with ThreadPoolExecutor(cores) as pool:
        waiting: deque = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * cores:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def narrowed(part: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Returns features in a type that may hold less; they must fit into it."""
    if dtype == np.float16 and np.abs(part).max(initial=0) > np.finfo(np.float16).max:
        raise ValueError(
            "This map has values above 65,504, which half precision cannot hold. Choose a layer behind a "
            "normalisation or a bounded activation."
        )
    return part.astype(dtype, copy=False)


def joined(parts: Iterator[np.ndarray], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Returns parts as one array, without holding them twice."""
    found = np.empty(shape, dtype)
    done = 0
    for part in parts:
        found[done : done + len(part)] = part
        done += len(part)
    return found


def gathered(batches: Iterator[np.ndarray], n_rows: int) -> Iterator[np.ndarray]:
    """Yields the same rows in larger pieces of at least ``n_rows`` rows, but the last."""
    held: list[np.ndarray] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= n_rows:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


@contextmanager
def progress(what: str, total: int, done: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar for work of more than a few seconds, on a terminal alone."""
    if total < 2000 or os.environ.get("CI") or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console  # Keras needs it, too
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda count: bar.advance(task, count)
