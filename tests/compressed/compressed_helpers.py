"""What the tests of compressed collectives share: ranks, numbers, and the documented bound of one encoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import pycomm

KINDS = ("bf16", "int8", "int4")
LEVELS = {"int8": 127, "int4": 7}


def on_ranks(groups: list[list[int]], function: Callable[..., Any], *args: Any, transport: str = "inproc") -> list[Any]:
    def rank(comm: pycomm.Comm) -> Any:
        comm.set_timeout(10)
        return function(comm, *args)

    return pycomm.run_threads(sum(map(len, groups)), rank, transports=transport)


def bound(kind: str, largest: Any) -> Any:
    """Return the documented bound of one encoding's error, for blocks of which this is the largest magnitude."""
    if kind == "bf16":
        return np.maximum(largest * 2.0**-8, 2.0**-134)
    return np.maximum(largest / LEVELS[kind], 2.0**-126) / 2 * (1 + 2.0**-14)


def whole_numbers(rank: int, count: int) -> np.ndarray:
    """Return numbers whose sums are exact in float32, so that all error is compression's."""
    return np.random.default_rng(rank).integers(-1000, 1001, count).astype(np.float32)
