"""What messages cost the processors of a real machine, by transport and size: terms that measurements are fitted to."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from .schedule import COPY, REDUCE, REDUCE_FROM, SEND
from .simulate import Messages, Reals, Terms
from .topology import Topology

FRAGMENT = 1 << 16  # bytes that a receiver can work on while the rest is still being sent (PCM_FRAGMENT)
LENT = 1 << 18  # bytes from which on a message in shared memory is read where it lies (PCM_LEND)
KNOTS = np.log2([1 << 17, 1 << 20, 1 << 23, 1 << 26])  # bytes in use on a host, at which the cost of a byte is fitted


@dataclass(frozen=True)
class Rates:
    """The terms of one transport; seconds, and seconds per byte.

    Attributes:
        latency: from the end of the send until the receiver sees the message.
        send, receive: of a message, whatever its length.
        fragment: of each fragment, at both ends.
        push, pull, reduce: of a byte sent, received, and received with a reduction.
        lend: of a byte read where it lies, in place of `pull`, or beside `reduce`.
        combine: of a byte copied or reduced locally.
        warm, cool, cold: how much more a byte costs where a host's buffers take 1, 8, 64 MiB, against 128 KiB.
        turn: later arrival for each rank more than one that a processor has.
        swap: of a message, at both ends, likewise.
        call: of the whole call; crowd: likewise.
    """

    latency: float = 1e-7
    send: float = 1e-7
    receive: float = 1e-7
    fragment: float = 1e-7
    push: float = 1e-10
    pull: float = 1e-10
    reduce: float = 1e-10
    lend: float = 6e-11
    combine: float = 5e-11
    warm: float = 1.2
    cool: float = 1.5
    cold: float = 2.0
    two: float = 2.0
    eight: float = 1.8
    all: float = 1.5
    own: float = 1e-10
    mix: float = 0.5
    turn: float = 3e-6
    swap: float = 3e-7
    call: float = 1e-7
    crowd: float = 1e-6


NAMES = tuple(field.name for field in fields(Rates))


@dataclass(frozen=True)
class Calibration:
    """Costs of messages within a host (`near`) and between hosts (`far`), and the processors of each host."""

    near: Rates
    far: Rates
    processors: float
    lends: bool = True

    def cores(self, topology: Topology) -> npt.NDArray[np.int32]:
        """Return which processor of its host each rank runs on: they are dealt out in turn."""
        order = np.argsort(topology.host, kind="stable")
        start = np.flatnonzero(np.diff(topology.host[order], prepend=-1))
        place = np.empty(topology.size, np.int32)
        place[order] = np.arange(topology.size) - np.repeat(start, np.diff(np.append(start, topology.size)))
        return place % np.int32(self.processors)

    def memory(self, topology: Topology, whole: float) -> Reals:
        """Return how many ranks of each host can move bytes at once without slowing each other down."""
        members = np.bincount(topology.host)
        near = self.near
        streams = np.interp(np.log2(np.maximum(whole * members, 1.0)), KNOTS, [16.0, near.two, near.eight, near.all])
        return np.maximum(1.0, streams)

    def apply(self, terms: Terms, messages: Messages, topology: Topology) -> None:
        """Fill in what messages cost processors; see `pycomm.simulate.Costs`."""
        members = np.bincount(topology.host)[topology.host[messages.rank]]
        remote = messages.peer >= 0
        near = ~remote | (topology.host[messages.rank] == topology.host[np.where(remote, messages.peer, 0)])
        seat = topology.host * int(self.processors) + self.cores(topology)
        crowd = np.bincount(seat)[seat[messages.rank]] - 1.0
        n, kind = messages.nbytes, messages.kind
        rate = {name: np.where(near, getattr(self.near, name), getattr(self.far, name)) for name in NAMES}
        in_use = np.log2(np.maximum(messages.whole * members, 1.0))
        byte = np.where(near, _interpolated(self.near, in_use), _interpolated(self.far, in_use))
        byte = byte * (1 + rate["mix"] * np.maximum(0.0, crowd - 1) * np.interp(in_use, [20, 23], [0.0, 1.0]))
        rest = np.maximum(0.0, np.ceil(n / FRAGMENT) - 1) * rate["fragment"]
        swap = rate["swap"] * crowd
        lent = near & (n >= LENT) & self.lends & remote
        fetch = np.where(lent, rate["lend"], rate["pull"])
        pull = byte * np.where(kind == REDUCE_FROM, rate["reduce"] + np.where(lent, rate["lend"], 0), fetch)
        push = byte * np.where(lent, 0, rate["push"])
        whole = np.minimum(n, FRAGMENT)
        send, receive = kind == SEND, remote & (kind != SEND)
        local = (kind == COPY) | (kind == REDUCE)
        terms["send"] = np.where(send, rate["send"] + swap + rest + n * push, np.where(local, n * byte * rate["combine"], 0))
        terms["receive"] = np.where(receive, rate["receive"] + swap + rest + n * pull, 0)
        terms["first"] = np.where(lent | ~send, terms["send"], rate["send"] + swap + whole * push)
        terms["last"] = np.where(lent | ~receive, terms["receive"], whole * pull)
        terms["latency"] += np.where(remote, rate["latency"] + rate["turn"] * crowd, 0)
        terms["lent"] = lent & remote
        terms["moves"] = n >= 4096

    def call(self, topology: Topology) -> float:
        """Return the seconds of a call that are in no message."""
        members = np.bincount(topology.host).max()
        rates = self.far if topology.host.max() else self.near
        return rates.call + rates.crowd * max(0.0, -(-members // self.processors) - 1)


def _interpolated(rates: Rates, at: npt.NDArray[Any]) -> Reals:
    return np.exp2(np.interp(at, KNOTS, np.log2([1.0, rates.warm, rates.cool, rates.cold])))
