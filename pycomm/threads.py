"""Ranks as threads of one process, over the inproc transport (or another): for tests, notebooks and a first look."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from typing import Any

from .comm import Comm
from .select import Machine
from .world import World

_jobs = itertools.count(1)


def run_threads(
    size: int, function: Callable[..., Any], *args: Any, transports: str = "inproc", secret: bytes | None = None
) -> list[Any]:
    """Run `function(comm, *args)` on `size` ranks, each a thread, and return their results in rank order.

    The core lets go of the interpreter's lock, so that ranks communicate at once; their Python code takes turns.

    Raises:
        Exception: the first rank's that failed; the others' communicators are aborted by then.
    """
    job = os.getpid() << 32 | next(_jobs)
    worlds = [World(r, size, job=job, transports=transports, secret=secret) for r in range(size)]
    addresses = [world.address() for world in worlds]
    machine = Machine(crowded=size > len(os.sched_getaffinity(0)), far=transports == "tcp")
    results: list[Any] = [None] * size
    failures: list[tuple[int, BaseException]] = []

    def rank(r: int) -> None:
        comm = None
        try:
            worlds[r].set_peers(addresses)
            comm = Comm(worlds[r], 1, range(size), [list(range(size))], machine)
            results[r] = function(comm, *args)
        except BaseException as error:
            failures.append((r, error))
            if comm is not None:
                comm.Abort(f"rank {r} raised {type(error).__name__}: {error}")

    threads = [threading.Thread(target=rank, args=(r,), name=f"rank {r}") for r in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for world in worlds:
        world.close()
    if failures:
        raise failures[0][1]
    return results
