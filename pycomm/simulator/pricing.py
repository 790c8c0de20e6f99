"""What the operations of a collective cost on a machine: each kind of them once, as terms that the simulator takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ..schedules.schedule import COPY, REDUCE, REDUCE_FROM, SEND
from ..schedules.traffic import Traffic
from ..topology import Topology

# One struct pcm_sim_term; csrc/simulate.h says what the fields mean. Seconds, but for `bytes`.
TERM = np.dtype([(name, "f8") for name in (
    "send", "receive", "first", "last", "gap", "out", "in", "transfer", "latency", "bytes")]
    + [("lent", "i4"), ("moves", "i4")])  # fmt: skip

Terms = npt.NDArray[Any]  # of dtype TERM
Reals = npt.NDArray[np.float64]

_FEW = 64  # ranks that are told apart; kinds of operations that are told apart by looking for each


@dataclass(frozen=True, eq=False)
class Messages:
    """The operations of a collective as a cost model sees them, one array element each.

    Attributes:
        kind: SEND, RECV, REDUCE_FROM, COPY or REDUCE.
        rank: who does it.
        peer: the other end of a message; -1 for local work.
        nbytes: of one slice of it.
        whole: n, the bytes of a rank's full vector, for costs that depend on caches.
    """

    kind: npt.NDArray[np.uint8]
    rank: npt.NDArray[np.int32]
    peer: npt.NDArray[np.int32]
    nbytes: Reals
    whole: float


class Costs(Protocol):
    """What operations cost the ranks' processors, over what the links of the topology cost."""

    def apply(self, terms: Terms, messages: Messages, topology: Topology) -> None:
        """Fill in `send`, `receive`, `first`, `last`, `lent`, `moves`, and add to `latency` and `gap`."""
        ...

    def cores(self, topology: Topology) -> npt.NDArray[np.int32]:
        """Return which processor of its host each rank runs on, counted from 0."""
        ...

    def memory(self, topology: Topology, whole: float) -> Reals:
        """Return how many processors of each host can move bytes at once without slowing each other down."""
        ...

    def call(self, collective: str, nbytes: float, topology: Topology) -> float:
        """Return the seconds of a call that are in no message."""
        ...


class Kinds(NamedTuple):
    """The operations of a collective, told apart by what they may cost.

    Attributes:
        examples: one operation of each kind.
        of: of which kind each operation is.
        wire: what the links, and reducing, cost each kind.
        port: of its rank, that each operation takes; there are `ports`.
    """

    examples: Messages
    of: npt.NDArray[np.uint32]
    wire: Terms
    port: npt.NDArray[np.uint8]
    ports: int


def messages(traffic: Traffic, slice_bytes: float, whole: float) -> Messages:
    """Return the operations of a slice of `slice_bytes` of a buffer of `whole` bytes."""
    per_rank = np.diff(traffic.ops[traffic.rounds])
    rank = np.repeat(np.arange(traffic.period, dtype=np.int32), per_rank)
    nbytes = traffic.chunks.astype(np.float64) * (traffic.share * slice_bytes)
    return Messages(traffic.kind, rank, traffic.peer, nbytes, whole)


def kinds(what: Messages, topology: Topology) -> Kinds:
    """Tell operations apart, and price what is the links' affair."""
    sends, remote = what.kind == SEND, what.peer >= 0
    source, target = np.where(sends, what.rank, what.peer), np.where(sends, what.peer, what.rank)
    np.copyto(source, target, where=~remote)  # from a rank to itself there is no link
    ends = topology.ends(source, target)
    bandwidth = topology.links.bandwidth
    out_port, in_port = _ports(topology)
    port = np.where(remote, np.where(sends, out_port[ends.first], in_port[ends.last]), 0).astype(np.uint8)
    first, last = bandwidth[ends.first], bandwidth[ends.last]
    reduces = (what.kind == REDUCE_FROM) | (what.kind == REDUCE)
    rate = np.where(reduces, topology.reduce_rate[what.rank], np.inf)
    columns: list[npt.NDArray[Any]] = [
        what.kind,
        what.nbytes,
        ends.latency,
        ends.bandwidth,
        first,
        last,
        rate,
        *_places(what, topology),
    ]
    examples, of = _tell_apart(columns)
    terms = np.zeros(len(examples), TERM)
    n: Reals = what.nbytes[examples]
    some = Messages(what.kind[examples], what.rank[examples], what.peer[examples], n, what.whole)
    terms["bytes"], terms["latency"] = n, ends.latency[examples]
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, way in (("out", first), ("in", last), ("transfer", ends.bandwidth)):
            terms[name] = np.where(some.peer >= 0, n / way[examples], 0)
        work = n / rate[examples]
    terms["receive"] = np.where(some.kind == REDUCE_FROM, work, 0)
    terms["send"] = np.where((some.kind == REDUCE) | (some.kind == COPY), work, 0)
    terms["first"], terms["last"] = terms["send"], terms["receive"]
    return Kinds(some, of, terms, port, int(port.max(initial=0)) + 1)


def only_ports(topology: Topology) -> bool:
    """Whether every link ends in a rank: then no two messages share one unless they share a port."""
    return bool(((topology.links.source < topology.size) | (topology.links.target < topology.size)).all())


def _places(what: Messages, topology: Topology) -> list[npt.NDArray[Any]]:
    """What a cost model may have to know of the two ranks: who they are, or of many ranks how they lie in hosts."""
    if topology.size <= _FEW:
        return [what.rank, what.peer]
    members = np.bincount(topology.host)[topology.host]
    return [members[what.rank], topology.host[what.rank] == topology.host[np.maximum(what.peer, 0)]]


def _tell_apart(columns: list[npt.NDArray[Any]]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint32]]:
    """Return an example of each kind of row, and of which kind each row is."""
    key = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        if len(column) and (column == column[0]).all():
            continue
        word = column.view(np.uint64) if column.dtype == np.float64 else column.astype(np.uint64)
        key = (key ^ word) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    if len(key) < _FEW**2:
        _, some, which = np.unique(key, return_index=True, return_inverse=True)
        return some, which.astype(np.uint32)
    of = np.empty(len(key), np.uint32)
    examples: list[int] = []
    left = np.arange(len(key))
    while len(left) and len(examples) < _FEW:  # usually there are few kinds, and sorting millions takes seconds
        here = key[left] == key[left[0]]
        of[left[here]] = len(examples)
        examples.append(int(left[0]))
        left = left[~here]
    _, first, rest = np.unique(key[left], return_index=True, return_inverse=True)
    of[left] = rest + len(examples)
    return np.concatenate([np.array(examples, np.intp), left[first]]), of


@lru_cache(maxsize=32)
def _ports(topology: Topology) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return for each link which port of its source it is, and which of its target."""
    return _numbered(topology.links.source), _numbered(topology.links.target)


def _numbered(vertex: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """Number the links that have a vertex in common: the ports of ranks."""
    order = np.argsort(vertex, kind="stable")
    ordered = vertex[order]
    start = np.flatnonzero(np.diff(ordered, prepend=-1))
    number = np.arange(len(vertex)) - np.repeat(start, np.diff(np.append(start, len(vertex))))
    out = np.zeros(len(vertex), np.uint8)
    out[order] = np.minimum(number, 255)  # of switches, which have more, nobody asks
    return out
