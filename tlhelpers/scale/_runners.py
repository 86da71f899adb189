"""Who runs the workers: processes of this machine, or Ray. Both only map shards to workers."""

import logging
import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing import get_context, parent_process
from types import ModuleType
from typing import Any

from joblib import cpu_count

from tlhelpers.scale._worker import Shard, Worker

_DEATHS = 2  # of workers that had a shard alone: then it is given up
_DEADLY = 3  # shards that are given up: then something else is wrong

_worker: Worker  # of this process, where it is one of `local`


def local(worker: Worker, shards: list[Shard], workers: int | None, address: str | None) -> Iterator[Shard]:
    """Runs shards in processes of this machine; yields each that is done.

    When a worker is killed, its pool is lost. The shards that were in flight then run one at a time, so that
    the one that kills is known.

    Raises:
        RuntimeError: A shard killed its worker again and again. The others are done, unless three did so.
    """
    waiting, suspects, deadly = deque(shards), deque[Shard](), deque[Shard]()
    deaths = Counter[str]()
    while (waiting or suspects) and len(deadly) < _DEADLY:
        todo, n = (suspects, 1) if suspects else (waiting, min(workers or cpu_count(), len(waiting)))
        flying: dict[futures.Future, Shard] = {}
        pool = futures.ProcessPoolExecutor(n, get_context("spawn"), _begin, (worker,))
        with suppress(futures.BrokenExecutor), pool:
            while todo or flying:
                with _no_main():
                    while todo and len(flying) < n:
                        future = pool.submit(_run, todo[0])
                        flying[future] = todo.popleft()
                for future in futures.wait(flying, return_when=futures.FIRST_COMPLETED).done:
                    yield future.result()
                    del flying[future]
        for shard in flying.values():
            deaths[shard["name"]] += todo is suspects
            (suspects if deaths[shard["name"]] < _DEATHS else deadly).append(shard)
    if deadly:
        names = ", ".join(shard["name"] for shard in deadly)
        said = f"{names}: the worker was killed {_DEATHS + 1} times. Does the memory suffice?"
        raise RuntimeError(f"{said} The shards that are done stay, and the next run goes on there.")


@contextmanager
def _no_main() -> Iterator[None]:
    """Processes that start within would import the script that calls this, and what it imports: Keras."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _begin(worker: Worker) -> None:
    global _worker
    _worker = worker
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends this process at once, and says nothing
    threading.Thread(target=_leave_with, args=(parent_process(),), daemon=True).start()


def _leave_with(parent: Any) -> None:
    parent.join()  # a worker does not outlive the process that started it, not even when that is killed
    os._exit(1)


def _run(shard: Shard) -> Shard:
    return _worker(shard)


def on_ray(worker: Worker, shards: list[Shard], n: int | None, address: str | None) -> Iterator[Shard]:
    """Runs shards in actors of Ray, here or in a cluster; yields each that is done.

    Raises:
        RuntimeError: A worker died again and again, or raised an error.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.util import ActorPool

    here = {"num_cpus": n or cpu_count(), "object_store_memory": 1 << 28, "include_dashboard": False}
    where: dict[str, Any] = {"address": address} if address else here
    own = not ray.is_initialized()
    with ray.init(**where, log_to_driver=False, logging_level=logging.ERROR) if own else nullcontext():
        before = {*worker.out.glob(".part-*")}
        size = min(n or int(ray.cluster_resources()["CPU"]), len(shards))
        how: dict[str, Any] = {"num_cpus": 1, "max_restarts": 2, "max_task_retries": 2}
        actor = ray.remote(**how, scheduling_strategy="SPREAD")(Worker)
        graph = ray.put(worker.graph)  # once, for all of them and for those that start again
        try:
            actors = [actor.remote(**vars(worker) | {"graph": graph}) for _ in range(size)]
            pool = ActorPool(actors)
            yield from pool.map_unordered(lambda actor, shard: actor.__call__.remote(shard), shards)
        except ray.exceptions.RayError as error:
            left = {*worker.out.glob(".part-*")} - before  # .part-00003-of-00004-...
            names = sorted({"-".join(path.name[1:].split("-")[:4]) for path in left})
            said = f"{', '.join(names)}: in flight when a worker of Ray failed, or died again and again"
            raise RuntimeError(f"{said}. What is done stays; the next run goes on there. {error}") from error


RUNNERS = {"local": local, "ray": on_ray}
