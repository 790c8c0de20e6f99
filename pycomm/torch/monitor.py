"""A barrier that says who did not come: rank 0 hears each rank, then tells all of them."""

from __future__ import annotations

import time

import torch

from ..errors import DeadlineExceeded
from .engine import MOST_TAGS, Engine

_COME, _GO = MOST_TAGS, MOST_TAGS + 1
_LONGER = 10.0  # times the timeout: rank 0 gives the verdict, so that nobody else's deadline comes first


def monitored_barrier(engine: Engine, timeout: float, wait_all_ranks: bool) -> None:
    """Wait for all ranks; see PycommGroup.monitored_barrier. `timeout` is in seconds."""
    word = torch.zeros(1, dtype=torch.uint8)
    patience = timeout * _LONGER
    if engine.rank:
        engine.send(word, 0, _COME, patience).wait()
        engine.receive(word, 0, _GO, None, [], patience).wait()
        return
    until = time.monotonic() + timeout
    words = [torch.zeros_like(word) for _ in range(engine.size)]
    arrivals = {r: engine.receive(words[r], r, _COME, None, [], patience) for r in range(1, engine.size)}
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
        why = f"rank{'s' * (len(missing) > 1)} {ranks} did not come to monitored_barrier within {timeout:g} s"
        engine.comm.Abort(why)
        raise DeadlineExceeded(f"{why}: look at what they do instead", missing[0])
    for work in [engine.send(word, r, _GO, patience) for r in range(1, engine.size)]:
        work.wait()
