"""What messages cost the processors of a real machine, by transport and size: terms that measurements are fitted to.

docs/simulator.md has the equations. The ranks of a host are taken to be dealt out to its processors in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgument
from ..schedules.schedule import COPY, REDUCE, REDUCE_FROM, SEND
from ..topology import Topology
from .pricing import Messages, Reals, Terms

FRAGMENT = 1 << 16  # bytes that a receiver can work on while the rest is still being sent (PCM_FRAGMENT)
LENT = 1 << 18  # bytes from which on a message in shared memory is read where it lies (PCM_LEND)
MOVING = 1 << 12  # bytes from which on it counts that memory is shared, too
IN_USE = np.log2([1 << 17, 1 << 20, 1 << 23, 1 << 26])  # bytes of a host's buffers, at which costs of a byte are fitted
_CACHED = 16.0  # processors that caches serve at once
_COPIED = ("allgather", "alltoall", "gather", "scatter")  # a rank's own block goes from its one buffer to the other


@dataclass(frozen=True)
class Rates:
    """The terms of one transport: seconds of a message or a call, seconds per byte, and factors.

    Attributes:
        latency: from the end of the send until the receiver can see the message.
        send, receive: a message, whatever its length, at its two ends.
        fragment: each fragment after the first, at both ends.
        push, pull, reduce: a byte that is sent, received, received with a reduction.
        lend: a byte that is read where it lies: instead of `push` and `pull`, or of `push` and beside `reduce`.
        combine: a byte that is copied or reduced locally.
        own: a byte of a rank's own block, from the one buffer to the other.
        warm, cool, cold: factors to the cost of a byte where a host's buffers are 1, 8, 64 MiB instead of 128 KiB.
        streams_warm, streams_cool, streams_cold: processors that can move bytes at once at full speed, likewise.
        beside: factor to the cost of a byte that comes from another rank of the same processor.
        turn: added to `latency` for each other rank of the receiver's processor.
        swap: added to `send` and `receive`, likewise.
        call, crowd: the whole call; and added to that, for each other rank of a processor.
    """

    latency: float
    send: float
    receive: float
    fragment: float
    push: float
    pull: float
    reduce: float
    lend: float
    combine: float
    own: float
    warm: float
    cool: float
    cold: float
    streams_warm: float
    streams_cool: float
    streams_cold: float
    beside: float
    turn: float
    swap: float
    call: float
    crowd: float


NAMES = tuple(field.name for field in fields(Rates))

# Fitted on two cores of an AMD EPYC 9004 (Zen 4) under KVM; `pycomm tune` fits them to another machine.
SHM = Rates(
    latency=4.76e-09,
    send=9.76e-09,
    receive=2.39e-08,
    fragment=2e-07,
    push=6.92e-11,
    pull=1.05e-10,
    reduce=9.9e-11,
    lend=8.67e-11,
    combine=8.08e-11,
    own=9.1e-11,
    warm=0.615,
    cool=0.831,
    cold=0.78,
    streams_warm=1.39,
    streams_cool=1.47,
    streams_cold=1.31,
    beside=2.28,
    turn=1.36e-06,
    swap=2.28e-07,
    call=4.21e-07,
    crowd=3.69e-06,
)
# Fitted on sixteen cores of an Intel Xeon with 2 MiB of second-level cache each, under KVM, with 2, 3, 4 and 8 ranks.
# What only ranks that share processors show is as above.
SHM_MANY = replace(
    SHM,
    latency=1.31e-07,
    send=1.49e-07,
    receive=3.01e-07,
    fragment=6.18e-07,
    push=1.92e-10,
    pull=1.36e-10,
    reduce=1.67e-10,
    lend=2.95e-10,
    combine=5.53e-11,
    own=1.38e-10,
    warm=0.502,
    cool=0.829,
    cold=1.17,
    streams_warm=2.87,
    streams_cool=7.47,
    call=6.4e-07,
)
MANY = 4  # processors of a host, from which on it is taken for one like that
TCP = Rates(
    latency=7.68e-07,
    send=5.3e-06,
    receive=7.83e-07,
    fragment=5.09e-06,
    push=1.94e-10,
    pull=1.35e-10,
    reduce=1.64e-10,
    lend=1e-10,
    combine=9.36e-11,
    own=4.52e-11,
    warm=0.595,
    cool=0.653,
    cold=0.76,
    streams_warm=1.88,
    streams_cool=2.25,
    streams_cold=2.0,
    beside=4.36,
    turn=8.64e-06,
    swap=1.45e-06,
    call=1.48e-06,
    crowd=1.12e-05,
)
ERRORS = 0.15, 0.12  # mean, below and above 64 KiB, of 2 ranks in shared memory: docs/simulator.md has the others


def exactness(priced: bool) -> str:
    """Return a sentence for below a drawing: how far times that were simulated are off.

    Args:
        priced: whether processors had costs; else there were links alone.
    """
    if not priced:
        return (
            "links alone are exact against closed forms; shared links, incast and ECMP are idealised: docs/simulator.md"
        )
    below, above = (f"{error:.0%}".replace("%", " %") for error in ERRORS)
    return f"measured on one machine: mean error {above} above 64 KiB, {below} below; see docs/simulator.md"


@dataclass(frozen=True)
class Calibration:
    """The costs of a machine.

    Attributes:
        near, far: of messages within a host, and between hosts.
        lends: whether long messages within a host are read where they lie.
        processors: of each host.
    """

    near: Rates
    far: Rates
    lends: bool
    processors: tuple[int, ...]

    def cores(self, topology: Topology) -> npt.NDArray[np.int32]:
        """Return which processor of its host each rank runs on."""
        return _cores(topology, self.processors)

    def memory(self, topology: Topology, whole: float) -> Reals:
        """Return how many processors of each host can move bytes at once without slowing each other down."""
        in_use = np.log2(np.maximum(whole * np.bincount(topology.host), 1.0))
        near = self.near
        at_knots = [_CACHED, near.streams_warm, near.streams_cool, near.streams_cold]
        streams: Reals = np.maximum(1.0, np.interp(in_use, IN_USE, at_knots))
        return streams

    def apply(self, terms: Terms, messages: Messages, topology: Topology) -> None:
        """Fill in what messages cost processors; see `pycomm.simulator.simulate.Costs`."""
        n, kind, rank = messages.nbytes, messages.kind, messages.rank
        remote = messages.peer >= 0
        near = ~remote | (topology.host[rank] == topology.host[np.maximum(messages.peer, 0)])
        rate = {name: np.where(near, getattr(self.near, name), getattr(self.far, name)) for name in NAMES}
        others = _others(topology, self.processors)[rank]
        members = np.bincount(topology.host)[topology.host[rank]]
        in_use = np.log2(np.maximum(messages.whole * members, 1.0))
        byte = np.where(near, _by_use(self.near, in_use), _by_use(self.far, in_use))
        lent = near & remote & (n >= LENT) & self.lends
        cores = self.cores(topology)
        beside = near & remote & (cores[rank] == cores[np.maximum(messages.peer, 0)])
        push = byte * np.where(lent, 0, rate["push"])
        fetched = byte * np.where(lent, rate["lend"], rate["pull"])
        pull = np.where(kind == REDUCE_FROM, byte * (rate["reduce"] + np.where(lent, rate["lend"], 0)), fetched)
        pull = pull * np.where(beside, rate["beside"], 1.0)
        rest = rate["swap"] * others + np.maximum(0.0, np.ceil(n / FRAGMENT) - 1) * rate["fragment"]
        first = np.minimum(n, FRAGMENT)
        sends, receives = kind == SEND, remote & (kind != SEND)
        local = (kind == COPY) | (kind == REDUCE)
        terms["send"] = np.where(sends, rate["send"] + rest + n * push, np.where(local, n * byte * rate["combine"], 0))
        terms["receive"] = np.where(receives, rate["receive"] + rest + n * pull, 0)
        whole = lent | (n <= FRAGMENT)
        terms["first"] = np.where(sends & ~whole, rate["send"] + first * push, terms["send"])
        terms["last"] = np.where(receives & ~whole, first * pull, terms["receive"])
        terms["latency"] += np.where(remote, rate["latency"] + rate["turn"] * others, 0)
        terms["lent"] = lent
        terms["moves"] = n >= MOVING

    def fastest(self, whole: float, topology: Topology) -> float:
        """Return the bytes per second that a rank takes in at best, where n is `whole`."""
        in_use = np.log2(np.maximum(whole * np.bincount(topology.host).max(), 1.0))
        kinds = [self.near, self.far] if topology.host.any() else [self.near]
        least = min(float(_by_use(k, in_use)) * min(k.pull, k.reduce, k.lend) * min(k.beside, 1.0) for k in kinds)
        return 1 / least

    def least(self, messages: float, topology: Topology) -> float:
        """Return seconds that so many messages among all ranks cannot beat: their costs, were all processors busy."""
        others = float(_others(topology, self.processors).min())
        each = min(rates.send + rates.receive + 2 * rates.swap * others for rates in (self.near, self.far))
        ranks = np.bincount(topology.host)
        return messages * each / float(np.minimum(ranks, np.resize(self.processors, len(ranks))).sum())

    def call(self, collective: str, nbytes: float, topology: Topology) -> float:
        """Return the seconds of a call that are in no message."""
        others = float(_others(topology, self.processors).max())
        rates = self.far if int(topology.host.max()) else self.near
        copied = nbytes / topology.size * self.near.own * (1 + others) if collective in _COPIED else 0.0
        return rates.call + rates.crowd * others + copied


def calibrated(terms: Mapping[str, Mapping[str, float]], processors: Sequence[int], *, shared: bool) -> Calibration:
    """Return the costs of a machine.

    Args:
        terms: from a table: for "shm" and "tcp" the names and values of `Rates`; what is missing is as on the machines
            that pycomm was tuned on.
        processors: of each host.
        shared: whether the ranks of a host reach each other through its memory.

    Raises:
        InvalidArgument: a name is no term, or a value no positive number.
    """
    within = SHM_MANY if max(processors, default=1) >= MANY else SHM
    shm, tcp = (_rates(name, standard, terms.get(name, {})) for name, standard in (("shm", within), ("tcp", TCP)))
    return Calibration(shm if shared else tcp, tcp, shared, tuple(processors))


def _rates(transport: str, standard: Rates, terms: Mapping[str, float]) -> Rates:
    if not isinstance(terms, Mapping):
        raise InvalidArgument(f"the calibration of {transport} must be a section: [calibration.{transport}]")
    for name, value in terms.items():
        if name not in NAMES:
            raise InvalidArgument(f"the calibration of {transport} has a term {name!r}; there are: {', '.join(NAMES)}")
        if not isinstance(value, int | float) or not 0 < value < 1e300:
            raise InvalidArgument(f"the calibration of {transport} says {name} = {value!r}, which must be positive")
    return Rates(**{**asdict(standard), **terms})


@lru_cache(maxsize=32)
def _cores(topology: Topology, processors: tuple[int, ...]) -> npt.NDArray[np.int32]:
    order = np.argsort(topology.host, kind="stable")
    start = np.flatnonzero(np.diff(topology.host[order], prepend=-1))
    place = np.empty(topology.size, np.int32)
    place[order] = np.arange(topology.size) - np.repeat(start, np.diff(np.append(start, topology.size)))
    seat: npt.NDArray[np.int32] = place % np.asarray(processors, np.int32)[topology.host]
    return seat


@lru_cache(maxsize=32)
def _others(topology: Topology, processors: tuple[int, ...]) -> Reals:
    """How many other ranks each rank shares its processor with."""
    seat = topology.host.astype(np.int64) * max(processors) + _cores(topology, processors)
    others: Reals = np.bincount(seat)[seat] - 1.0
    return others


def _by_use(rates: Rates, in_use: npt.NDArray[Any]) -> Reals:
    factor: Reals = np.exp2(np.interp(in_use, IN_USE, np.log2([1.0, rates.warm, rates.cool, rates.cold])))
    return factor
