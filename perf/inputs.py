"""Inputs whose every reduction is exact in any order, so that a wrong element is always counted and a right one never.

The values of a rank are small integers drawn once from a seeded generator and repeated with a period that is prime, so
that a chunk put in the wrong place, left out or counted twice changes the result (after nccl-tests' verifiable.h).
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from pycomm.errors import InvalidArgument

Array = np.ndarray[Any, np.dtype[Any]]

_PERIOD = 1009
_SEED = 0x70797063

# nccl-tests' name, numpy's name, and the largest integer up to which every integer is exact.
_DTYPES = {
    "int8": ("int8", 127),
    "uint8": ("uint8", 255),
    "int32": ("int32", 2**31 - 1),
    "uint32": ("uint32", 2**32 - 1),
    "int64": ("int64", 2**63 - 1),
    "uint64": ("uint64", 2**63 - 1),
    "half": ("float16", 2**11),
    "float": ("float32", 2**24),
    "double": ("float64", 2**53),
    "bfloat16": ("bfloat16", 2**8),
    "f8e4m3": ("float8_e4m3fn", 2**4),
    "f8e5m2": ("float8_e5m2", 2**3),
}
DTYPES = tuple(_DTYPES)
OPS = {"sum": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum, "avg": np.add}


def dtype_of(name: str) -> np.dtype[Any]:
    """The numpy dtype of nccl-tests' type name (`float`, `half`, `bfloat16`, `f8e4m3`...).

    Raises:
        InvalidArgument: there is no such type, or it needs ml_dtypes, which is not installed.
    """
    if name not in _DTYPES:
        raise InvalidArgument(f"perf knows no type {name!r}: choose from {', '.join(DTYPES)}")
    spelling = _DTYPES[name][0]
    if not hasattr(np, spelling):
        try:
            import ml_dtypes
        except ImportError as error:
            raise InvalidArgument(f"type {name} needs the package ml_dtypes: pip install ml_dtypes") from error
        narrow: np.dtype[Any] = np.dtype(getattr(ml_dtypes, spelling))
        return narrow
    return np.dtype(spelling)


class Inputs:
    """Everybody's inputs to one measured call, and their exact reductions.

    Args:
        dtype: nccl-tests' type name.
        op: one of `OPS`; moving collectives take any.
        ranks: the size of the job.

    Raises:
        InvalidArgument: no average over that many ranks is exact in this type.
    """

    def __init__(self, dtype: str, op: str, ranks: int) -> None:
        self.dtype = dtype_of(dtype)
        self._ranks = ranks
        limit = _DTYPES[dtype][1]
        if op == "avg" and ranks >= limit:
            raise InvalidArgument(f"{dtype} cannot hold an exact average over {ranks} ranks: average in a wider type")
        self._table = _table(op, ranks, min(limit, 120)).astype(self.dtype)

    def of(self, rank: int, start: int, count: int) -> Array:
        """Elements [start, start + count) of a rank's input; shape (count,)."""
        return _repeat(self._table[rank], start, count)

    def reduced(self, op: str, ranks: int, start: int, count: int) -> Array:
        """Elements [start, start + count) of the reduction over ranks [0, ranks); shape (count,)."""
        if count == 0:
            return np.empty(0, self.dtype)
        wide = self._table[:ranks].astype(np.float64)
        total = reduce(OPS[op], wide)
        return _repeat((total / self._ranks if op == "avg" else total).astype(self.dtype), start, count)


def _repeat(period: Array, start: int, count: int) -> Array:
    return np.resize(np.roll(period, -(start % _PERIOD)), count)


def _table(op: str, ranks: int, limit: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """One period of every rank's values, shape (ranks, period), with every partial reduction an integer up to limit."""
    draw = np.random.default_rng(_SEED)
    if op == "prod":  # one rank holds 1, 2 or 4 and all others 1
        table = np.ones((ranks, _PERIOD), np.int64)
        owner = draw.integers(0, ranks, _PERIOD)
        table[owner, np.arange(_PERIOD)] = 2 ** draw.integers(0, 3, _PERIOD)
        return table
    if op == "avg":  # neighbours differ from the mean by as much, in opposite directions
        most = max(1, min(16, limit // (2 * ranks)))
        mean = draw.integers(1, most + 1, _PERIOD)
        table = np.broadcast_to(mean, (ranks, _PERIOD)).copy()
        for rank in range(0, ranks - 1, 2):
            difference = draw.integers(0, mean + 1)
            table[rank] += difference
            table[rank + 1] -= difference
        return table
    if op == "sum":
        most = limit // ranks
        if most == 0:  # more ranks than the type can count to: only the first of them hold ones
            table = np.zeros((ranks, _PERIOD), np.int64)
            table[:limit] = draw.integers(0, 2, (limit, _PERIOD))
            return table
        return draw.integers(0, min(most, 16) + 1, (ranks, _PERIOD))
    return draw.integers(0, limit + 1, (ranks, _PERIOD))
