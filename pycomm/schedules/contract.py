"""What each collective promises: which blocks every rank brings, which it gets, and whose contributions those hold.

This table is the definition of the collectives. The view takes the numbering of chunks from it, `Schedule.lower` the
layout of the buffers, and the verifier the pre- and postcondition. (A pre- and postcondition as the definition of a
collective: Cai et al., "Synthesizing Optimal Collective Algorithms", PPoPP 2021.)

Blocks are what the collective talks about: one for the whole buffer, or one a rank, or one an ordered pair of ranks.
A block is cut into `cut` balanced pieces, the chunks: chunk number = block * cut + piece.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgument

Blocks = Callable[[int, int, int], Sequence[int]]  # (rank, size, root) -> block numbers, in the order of the buffer
Ranks = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Contract:
    """The promise of one collective.

    Attributes:
        name: the collective.
        blocks: "one" (the whole buffer), "rank" (one a rank) or "pair" (source * size + destination).
        brings: the blocks in a rank's input buffer, in order.
        gets: the blocks in a rank's output buffer, in order.
        holds: (blocks, rank, size, root) -> for each block that `rank` gets, a row of the ranks whose contributions it
            must hold, each exactly once; a single row stands for all blocks.
        rooted: whether one rank is special.
        reduces: whether contributions are combined.
        idempotent: whether a contribution may arrive more than once, and is never forgotten (the barrier's news).
    """

    name: str
    blocks: str
    brings: Blocks
    gets: Blocks
    holds: Callable[[Ranks, int, int, int], Ranks]
    rooted: bool = False
    reduces: bool = False
    idempotent: bool = False

    def nblocks(self, size: int) -> int:
        """Return how many blocks there are among `size` ranks."""
        return {"one": 1, "rank": size, "pair": size * size}[self.blocks]

    def bus_factor(self, size: int) -> float:
        """Return bus over algorithm bandwidth among `size` ranks (nccl-tests, doc/PERFORMANCE.md).

        It is what each rank must at least send, or receive, as a part of its full vector: perf/README.md derives it.
        """
        if self.name == "allreduce":
            return 2 * (size - 1) / size
        return 1.0 if self.blocks == "one" else (size - 1) / size


def _whole(rank: int, size: int, root: int) -> Sequence[int]:
    return (0,)


def _whole_at_root(rank: int, size: int, root: int) -> Sequence[int]:
    return (0,) if rank == root else ()


def _own(rank: int, size: int, root: int) -> Sequence[int]:
    return (rank,)


def _every(rank: int, size: int, root: int) -> Sequence[int]:
    return range(size)


def _every_at_root(rank: int, size: int, root: int) -> Sequence[int]:
    return range(size) if rank == root else ()


def _from_all(blocks: Ranks, rank: int, size: int, root: int) -> Ranks:
    return np.arange(size)[None, :]


def _from_root(blocks: Ranks, rank: int, size: int, root: int) -> Ranks:
    return np.array([[root]])


def _from_owner(blocks: Ranks, rank: int, size: int, root: int) -> Ranks:
    return blocks[:, None]


CONTRACTS = {
    contract.name: contract
    for contract in (
        Contract("allreduce", "one", _whole, _whole, _from_all, reduces=True),
        Contract("reduce", "one", _whole, _whole_at_root, _from_all, rooted=True, reduces=True),
        Contract("broadcast", "one", _whole_at_root, _whole, _from_root, rooted=True),
        Contract("allgather", "rank", _own, _every, _from_owner),
        Contract("reduce_scatter", "rank", _every, _own, _from_all, reduces=True),
        Contract("gather", "rank", _own, _every_at_root, _from_owner, rooted=True),
        Contract("scatter", "rank", _every_at_root, _own, _from_root, rooted=True),
        Contract(
            "alltoall",
            "pair",
            lambda r, p, root: range(r * p, r * p + p),
            lambda r, p, root: range(r, p * p, p),
            lambda blocks, r, p, root: blocks[:, None] // p,
        ),
        Contract("scan", "one", _whole, _whole, lambda blocks, r, p, root: np.arange(r + 1)[None, :], reduces=True),
        Contract(
            "exscan",
            "one",
            _whole,
            lambda r, p, root: (0,) if r else (),
            lambda blocks, r, p, root: np.arange(r)[None, :],
            reduces=True,
        ),
        Contract("barrier", "one", _whole, _whole, _from_all, reduces=True, idempotent=True),
    )
}


def contract(collective: str) -> Contract:
    """Return the contract of a collective, or raise InvalidArgument naming the collectives there are."""
    try:
        return CONTRACTS[collective]
    except KeyError:
        raise InvalidArgument(f"there is no collective {collective!r}; there are: {', '.join(CONTRACTS)}") from None
