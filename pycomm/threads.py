"""Ranks as threads of one process, over the inproc transport (or another): for tests, notebooks and a first look."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from typing import Any

from . import knobs
from .communicator.comm import Comm
from .selection import table
from .selection.machine import one_host
from .world import World

_jobs = itertools.count(1)


def run_threads(
    size: int, function: Callable[..., Any], *args: Any, transports: str = "inproc", secret: bytes | None = None
) -> list[Any]:
    """Run `function(comm, *args)` on `size` ranks, each a thread, and return their results in rank order.

    The core lets go of the interpreter's lock, so that ranks communicate at once; their Python code takes turns.

    Raises:
        Exception: the first rank's that failed; to the others it is lost, so that they raise PeerLost.
    """
    job = os.getpid() << 32 | next(_jobs)
    worlds = [World(r, size, job=job, transports=transports, secret=secret) for r in range(size)]
    addresses = [world.address() for world in worlds]
    machine = one_host(size, shared=transports != "tcp", table=table.find(knobs.ALGO.value().table))
    results: list[Any] = [None] * size
    failures: list[tuple[int, BaseException]] = []

    def lose(r: int, why: str) -> None:
        for world in worlds:
            world.peer_lost(r, why)

    def rank(r: int) -> None:
        try:
            worlds[r].set_peers(addresses)
            results[r] = function(Comm(worlds[r], 1, range(size), machine), *args)
        except BaseException as error:
            failures.append((r, error))
            lose(r, f"it raised {type(error).__name__}: {error}")

    threads = [threading.Thread(target=rank, args=(r,), name=f"rank {r}") for r in range(size)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException as error:  # Ctrl-C
        for r in range(size):
            lose(r, f"its program was ended by {type(error).__name__}")
        for thread in threads:
            thread.join()
        raise
    finally:
        for world in worlds:
            world.close()
    if failures:
        raise failures[0][1]
    return results
