"""A barrier that says who did not come: rank 0 hears each rank, then tells all of them.

Its errors begin with the words of torch's own, by which programs know them.
"""

from __future__ import annotations

import time

import torch

from ..errors import DeadlineExceeded, PycommError
from .engine import MOST_TAGS, Engine

_COME, _GO = MOST_TAGS, MOST_TAGS + 1
_LONGER = 10.0  # times the timeout: rank 0 gives the verdict, so that nobody else's deadline comes first


def monitored_barrier(engine: Engine, timeout: float, wait_all_ranks: bool) -> None:
    """Wait for all ranks; see PycommGroup.monitored_barrier. `timeout` is in seconds."""
    if engine.rank:
        _report(engine, timeout * _LONGER)
    else:
        _gather(engine, timeout, wait_all_ranks)


def _report(engine: Engine, patience: float) -> None:
    word = torch.zeros(1, dtype=torch.uint8)
    try:
        engine.send(word, 0, _COME, patience).wait()
        engine.receive(word, 0, _GO, None, [], patience).wait()
    except PycommError as error:
        error.args = (
            f"Rank {engine.rank} successfully reached monitoredBarrier, but received errors while waiting for "
            f"send/recv from rank 0: {error}",
        )
        raise


def _gather(engine: Engine, timeout: float, wait_all_ranks: bool) -> None:
    if timeout <= 0:
        raise DeadlineExceeded(f"Rank 0 timed out in monitoredBarrier after {timeout:g} s: give a positive timeout", 0)
    until = time.monotonic() + timeout
    words = torch.zeros((engine.size, 1), dtype=torch.uint8)
    arrivals = {r: engine.receive(words[r], r, _COME, None, [], timeout * _LONGER) for r in range(1, engine.size)}
    missing = []
    for rank, arrival in arrivals.items():
        if not arrival.advance(until):
            missing.append(rank)
            if not wait_all_ranks:
                break
        elif (error := arrival.exception()) is not None:
            raise error
    if missing:
        ranks = ", ".join(map(str, missing))
        why = f"Rank{'s' * (len(missing) > 1)} {ranks} failed to pass monitoredBarrier in {timeout:g} s"
        engine.comm.Abort(why)
        raise DeadlineExceeded(f"{why}: look at what they do instead", missing[0])
    for work in [engine.send(words[0], r, _GO, timeout * _LONGER) for r in range(1, engine.size)]:
        work.wait()
