"""One compressed Allreduce on one rank: a reduce-scatter within groups, an exchange between them, an all-gather."""

from __future__ import annotations

import numpy as np

from ..communicator.comm import Comm
from ..communicator.request import Request
from ..data.buffer import IN_PLACE, Array
from .exchange import Exchange
from .layout import Part
from .near import sums


class Allreduce:
    """One call on one rank.

    All slices are encoded and sent before the first is awaited, so that slow links never wait for a processor.
    """

    def __init__(self, near: Comm, exchange: Exchange, own: Array, out: Array, divisor: int) -> None:
        self._near, self._exchange = near, exchange
        self._own, self._out, self._divisor = own, out, divisor

    def run(self, parts: list[Part]) -> None:
        """Make the call, but for what is still being sent."""
        for part in parts:
            self._exchange.expect(part)
        for part, shard in zip(parts, sums(parts, self._scatter), strict=True):
            self._exchange.scatter(part, shard)
        for part in parts:
            self._exchange.reduce(part)
        Request.Waitall([self._gather(part) for part in parts])

    def _scatter(self, part: Part) -> tuple[Request, Array]:
        shard = np.empty(part.shard.stop - part.shard.start, self._own.dtype)
        return self._near.Ireduce_scatter(self._own[part.span], shard, part.counts), shard

    def _gather(self, part: Part) -> Request:
        """Wait for this rank's shard of the result, and start to exchange shards within the group."""
        whole = self._out[part.span]
        shard = whole[part.shard]
        result = shard if shard.dtype == np.float32 else np.empty(shard.size, np.float32)
        self._exchange.finish(part, result)
        if self._divisor > 1:
            np.divide(result, np.float32(self._divisor), out=result)
        if result is not shard:
            shard[:] = result
        return self._near.Iallgatherv(IN_PLACE, [whole, part.counts])
