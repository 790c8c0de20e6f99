"""Which way tokens go: to the ranks of their experts at once, or to the hosts of those and on from there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

import torch
from torch.nn import functional

from ..errors import InvalidArgument
from ..torch.tensors import Tensor
from .exchange import Exchange, Staging, room

_SUMMED = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class Hop:
    """One exchange of rows in which each goes to some ranks of a communicator, once to each; and the way back.

    Making one is collective: the ranks tell each other how many rows come.

    Attributes:
        rows: how many this rank has.
        received: how many it receives, its own included; they are ordered by sender, then as the sender has them.

    Args:
        exchange: the communicator.
        staging: where rows wait.
        to: bool [rows, ranks]: which row goes to which rank.
    """

    def __init__(self, exchange: Exchange, staging: Staging, to: Tensor) -> None:
        self._exchange, self._staging = exchange, staging
        self.rows = to.size(0)
        by_rank = to.t().contiguous()
        sent = by_rank.sum(1)
        self._sent, self._got = sent.tolist(), exchange.counts(sent)
        self._at = [0, *accumulate(self._got)]
        self.received = self._at[-1]
        # What stays here is gathered right into its place, and leaves no trace in what is sent.
        self._staying = by_rank[exchange.rank].nonzero().view(-1)
        others = by_rank.clone()
        others[exchange.rank] = False
        self._leaving = others.nonzero()[:, 1].contiguous()
        # On the way back a row's copies lie where they were sent from, rank by rank; its bag holds their places.
        places = (by_rank.view(-1).cumsum(0) - 1).view(by_rank.shape).t()
        self._bags = places[to]
        self._ends = functional.pad(to.sum(1).cumsum(0), (1, 0))

    def scatter(self, x: Tensor) -> Tensor:
        """Send rows on their way, and return those that come: [rows, n] to [received, n]."""
        here, out = self._exchange.rank, room(self.received, x.size(1), x.dtype)
        sent, got = _without(self._sent, here), _without(self._got, here)
        torch.index_select(x, 0, self._staying, out=out[self._at[here] : self._at[here + 1]])
        with self._staging.rows(len(self._leaving), x.size(1), x.dtype) as leaving:
            torch.index_select(x, 0, self._leaving, out=leaving)
            self._exchange.rows(leaving, sent, out, got, self._at[:-1])
        return out

    def gather(self, y: Tensor) -> Tensor:
        """Send rows back to where they came from, and return the sum of what comes: [received, n] to [rows, n].

        Copies are added in the order of the ranks, in float32 (float64 as itself), and rounded once.
        """
        if y.dtype not in _SUMMED:
            raise InvalidArgument(f"rows of {y.dtype} cannot be added up: use {', '.join(map(str, _SUMMED))}")
        with self._staging.rows(sum(self._sent), y.size(1), y.dtype) as back:
            at = [0, *accumulate(self._sent)][:-1]
            self._exchange.rows(y.contiguous(), self._got, back, self._sent, at)
            return functional.embedding_bag(self._bags, back, self._ends, mode="sum", include_last_offset=True)


class Route:
    """The way of some tokens through one or two hops.

    Attributes:
        tokens: how many this rank has.
        received: how many come to its experts.
        number: which of the buffer's routes it is.

    Args:
        hops: the hops that are made, in the order in which they are taken.
        number: which of the buffer's routes it is.
    """

    def __init__(self, hops: Sequence[Hop], number: int) -> None:
        self._hops, self.number = tuple(hops), number
        self.tokens, self.received = hops[0].rows, hops[-1].received

    def scatter(self, x: Tensor) -> Tensor:
        """Send rows to the ranks of their experts: [tokens, n] to [received, n]."""
        for hop in self._hops:
            x = hop.scatter(x)
        return x

    def gather(self, y: Tensor) -> Tensor:
        """Return the sums of the rows that come back: [received, n] to [tokens, n]."""
        for hop in reversed(self._hops):
            y = hop.gather(y)
        return y


def ranks_of(topk_idx: Tensor, rank_of_expert: Tensor, size: int) -> Tensor:
    """Return which token goes to which rank: bool [tokens, size].

    Args:
        topk_idx: int64 [tokens, k], experts; -1: none.
        rank_of_expert: int64 [experts + 1]; `size`: none of these ranks. Its last element stands for -1.
        size: ranks.
    """
    chosen = torch.zeros((topk_idx.size(0), size + 1), dtype=torch.bool)
    return chosen.scatter_(1, rank_of_expert[topk_idx], True)[:, :size]


def table(ranks: Iterable[int], experts_each: int, nobody: int) -> Tensor:
    """Return the `rank_of_expert` of experts that lie evenly, in order, in places whose ranks are given."""
    return torch.tensor([rank for rank in ranks for _ in range(experts_each)] + [nobody])


def _without(counts: Sequence[int], rank: int) -> list[int]:
    return [0 if r == rank else n for r, n in enumerate(counts)]
