"""The simulator: what a collective takes on a machine, by its own schedules; docs/simulator.md has the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import lcm
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from .core import check, ffi, lib
from .errors import InvalidArgument
from .schedule import COPY, REDUCE, REDUCE_FROM, SEND
from .topology import Topology
from .traffic import Traffic

# One struct pcm_sim_term; csrc/simulate.h says what the fields mean. Seconds, but for `bytes`.
TERM = np.dtype([(name, "f8") for name in (
    "send", "receive", "first", "last", "gap", "out", "in", "transfer", "latency", "bytes")]
    + [("lent", "i4"), ("moves", "i4")])  # fmt: skip
RECORD = np.dtype([("start", "f8"), ("end", "f8"), ("cause", "i8"), ("op", "i8"), ("rank", "i4"), ("peer", "i4"),
                   ("slice", "u4"), ("what", "i4")])  # fmt: skip
assert TERM.itemsize == ffi.sizeof("struct pcm_sim_term") and RECORD.itemsize == ffi.sizeof("struct pcm_sim_record")
WHATS = ("send", "wire", "receive", "local")  # what a record is, by its `what`

_MOST_RECORDS = 4_000_000
_STEADY = 16, 24  # slices; their difference is a multiple of every usual window
_FEW = 64  # ranks that are told apart; kinds of messages that are told apart by looking for each

Terms = npt.NDArray[Any]  # of dtype TERM
Records = npt.NDArray[Any]  # of dtype RECORD
Reals = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Messages:
    """The operations of a collective as a cost model sees them, one array element each.

    Attributes:
        kind: SEND, RECV, REDUCE_FROM, COPY or REDUCE.
        rank: who does it.
        peer: the other end of a message; -1 for local work.
        nbytes: of one slice of it.
        whole: bytes of the whole collective that a rank has in hand (n), for costs that depend on caches.
    """

    kind: npt.NDArray[np.uint8]
    rank: npt.NDArray[np.int32]
    peer: npt.NDArray[np.int32]
    nbytes: Reals
    whole: float


class Costs(Protocol):
    """What operations cost a rank's processor, over what the links of the topology cost."""

    def apply(self, terms: Terms, messages: Messages, topology: Topology) -> None:
        """Fill in `send`, `receive`, `first`, `last`, `lent`, and add to `latency` and `gap`, where they are not 0."""
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


@dataclass(frozen=True, eq=False)
class Result:
    """What a collective takes.

    Attributes:
        traffic, topology: of what, and where.
        nbytes: n, the bytes of a rank's full vector.
        slices, window: how it was run.
        contention: whether messages shared links, or only ports.
        seconds: from the common start until the last rank has finished.
        finish: when each rank of the period has, in seconds.
        records: what took time, of dtype RECORD; None if it was not asked for.
    """

    traffic: Traffic
    topology: Topology
    nbytes: float
    slices: int
    window: int
    contention: bool
    seconds: float
    finish: Reals = field(repr=False)
    records: Records | None = field(default=None, repr=False)

    @property
    def messages(self) -> int:
        """How many messages all ranks send."""
        sends = int(np.count_nonzero(self.traffic.kind == SEND))
        return sends * self.slices * (self.topology.size // self.traffic.period)

    @cached_property
    def link_bytes(self) -> Reals:
        """Bytes that cross each link of the topology."""
        return link_bytes(self.traffic, self.topology, self.nbytes)

    @property
    def busbw(self) -> float:
        """n / seconds, in bytes per second (what nccl-tests call algbw)."""
        return self.nbytes / self.seconds if self.seconds else float("inf")


def simulate(
    traffic: Traffic,
    topology: Topology,
    nbytes: float,
    *,
    slices: int = 1,
    window: int | None = None,
    contention: bool = True,
    costs: Costs | None = None,
    record: bool = False,
) -> Result:
    """Run a collective in virtual time.

    Args:
        traffic: what all ranks do, from `pycomm.traffic.traffic`.
        topology: of as many ranks.
        nbytes: n, the bytes of a rank's full vector; see `Schedule.share`.
        slices: equal pieces of the buffer that go through the rounds one after the other.
        window: how many of them at once; default: all, but no more than 8.
        contention: whether messages share links with max-min fairness. Without, a message takes the ports of its two
            ranks, as fast as the slowest link on its way; the result is then no less than what the busiest link needs.
            Ranks that do the same as others, on a machine that looks the same from there, are simulated once.
        costs: what messages cost the ranks' processors; None: nothing, but that reducing takes what the topology says.
        record: keep what happened, for `Result.records`.

    Raises:
        InvalidArgument: the arguments do not fit each other.
        ScheduleError: the schedules do not fit each other, so that a rank waits for ever.
    """
    window = min(slices, 8) if window is None else window
    return Bound(traffic, topology, nbytes, slices, window, contention=contention).run(costs, record=record)


class Bound:
    """A collective bound to a machine, a size and a way to run, to be simulated under one cost model after another.

    Args: as for `simulate`.
    """

    def __init__(
        self, traffic: Traffic, topology: Topology, nbytes: float, slices: int, window: int, *, contention: bool = True
    ) -> None:
        if traffic.size != topology.size:
            raise InvalidArgument(f"the traffic is of {traffic.size} ranks and {topology.name} has {topology.size}")
        if slices < 1 or window < 1:
            raise InvalidArgument(f"slices is {slices} and window {window}: both must be at least 1")
        if not nbytes >= 0:
            raise InvalidArgument(f"nbytes is {nbytes} and must not be negative")
        self.traffic = traffic.expand(topology.size if contention else lcm(traffic.period, topology.period))
        self.topology, self.nbytes = topology, nbytes
        self.slices, self.window, self.contention = slices, min(window, slices), contention
        self._messages = _messages(self.traffic, nbytes / slices, nbytes)
        self._kinds = _kinds_of(self._messages, topology)

    def seconds(self, costs: Costs | None = None) -> float:
        """Return what it takes. Of many slices some are simulated: each further one takes as long as the one before."""
        if self.slices <= _STEADY[1]:
            return self.run(costs).seconds
        few, more = (self.run(costs, slices=n).seconds for n in _STEADY)
        return more + (more - few) * (self.slices - _STEADY[1]) / (_STEADY[1] - _STEADY[0])

    def called(self, costs: Costs) -> float:
        """Return what a call takes whose ranks come at the same time: also what is in no message."""
        return self.seconds(costs) + costs.call(self.traffic.collective, self.nbytes, self.topology)

    def run(self, costs: Costs | None = None, *, slices: int | None = None, record: bool = False) -> Result:
        """Simulate it.

        Args:
            costs, record: as for `simulate`.
            slices: how many of the slices to run; default: all.
        """
        kinds = self._kinds
        terms = kinds.wire.copy()
        if costs is not None:
            costs.apply(terms, kinds.examples, self.topology)
        slices = slices or self.slices
        run = _Run(self.traffic, slices, min(self.window, slices), terms, kinds, self.topology, costs, self.nbytes)
        if self.contention:
            run.share_links(self.topology, self._messages)
        seconds, finish, records = run.go(record)
        if not self.contention and not _only_ports(self.topology):
            busiest = (link_bytes(self.traffic, self.topology, self.nbytes) / self.topology.links.bandwidth).max()
            seconds = max(seconds, float(busiest) * slices / self.slices)
        return Result(
            self.traffic,
            self.topology,
            self.nbytes,
            self.slices,
            self.window,
            self.contention,
            seconds,
            finish,
            records,
        )


def link_bytes(traffic: Traffic, topology: Topology, nbytes: float) -> Reals:
    """Return how many bytes cross each link of a topology in a collective of n = nbytes."""
    what = _messages(traffic.expand(topology.size), nbytes, nbytes)
    sends = what.kind == SEND
    total = np.zeros(len(topology.links.source))
    source, target, amount = what.rank[sends], what.peer[sends], what.nbytes[sends]
    for at in range(0, len(source), 1 << 20):  # a million at a time, for the paths are longer than the messages
        part = slice(at, at + (1 << 20))
        paths = topology.paths(source[part], target[part])
        weight = np.repeat(amount[part], np.diff(paths.start))
        total += np.bincount(paths.links, weight, minlength=len(total))
    return total


def _messages(traffic: Traffic, slice_bytes: float, whole: float) -> Messages:
    per_rank = np.diff(traffic.ops[traffic.rounds])
    rank = np.repeat(np.arange(traffic.period, dtype=np.int32), per_rank)
    nbytes = traffic.chunks.astype(np.float64) * (traffic.share * slice_bytes)
    return Messages(traffic.kind, rank, traffic.peer, nbytes, whole)


class _Kinds(NamedTuple):
    """Operations told apart by what they may cost: `examples` has one of each kind, `of` says which one each one is."""

    examples: Messages
    of: npt.NDArray[np.uint32]
    wire: Terms  # what links cost
    port: npt.NDArray[np.uint8]  # of its rank, that each operation takes
    ports: int


def _kinds_of(what: Messages, topology: Topology) -> _Kinds:
    sends, messages = what.kind == SEND, what.peer >= 0
    source = np.where(sends, what.rank, what.peer)[messages]
    target = np.where(sends, what.peer, what.rank)[messages]
    latency, narrowest, first, last = (np.zeros(len(what.kind)) for _ in range(4))
    port = np.zeros(len(what.kind), np.uint8)
    ends = topology.ends(source, target)
    bandwidth = topology.links.bandwidth
    latency[messages], narrowest[messages] = ends.latency, ends.bandwidth
    first[messages], last[messages] = bandwidth[ends.first], bandwidth[ends.last]
    out_port, in_port = _ports(topology)
    port[messages] = np.where(sends[messages], out_port[ends.first], in_port[ends.last])
    rate = np.where((what.kind == REDUCE_FROM) | (what.kind == REDUCE), topology.reduce_rate[what.rank], np.inf)
    places = _places(what, topology)
    examples, of = _tell_apart([what.kind, what.nbytes, latency, narrowest, first, last, rate, *places])
    terms = np.zeros(len(examples), TERM)
    n: Reals = what.nbytes[examples]
    wire = messages[examples]
    terms["bytes"], terms["latency"] = n, latency[examples]
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, way in (("out", first), ("in", last), ("transfer", narrowest)):
            terms[name] = np.where(wire, n / way[examples], 0)
        work = n / rate[examples]
    reduces, local = what.kind[examples] == REDUCE_FROM, (what.kind[examples] == REDUCE) | (what.kind[examples] == COPY)
    terms["receive"], terms["send"] = np.where(reduces, work, 0), np.where(local, work, 0)
    terms["first"], terms["last"] = terms["send"], terms["receive"]
    some = Messages(what.kind[examples], what.rank[examples], what.peer[examples], n, what.whole)
    return _Kinds(some, of, terms, port, int(max(out_port.max(), in_port.max(), 0)) + 1)


def _places(what: Messages, topology: Topology) -> list[npt.NDArray[Any]]:
    """What a cost model may have to know of the two ranks: who they are, or of many ranks how they lie in hosts."""
    if topology.size <= _FEW:
        return [what.rank, what.peer]
    members = np.bincount(topology.host)[topology.host]
    if (members == 1).all():
        return []
    return [members[what.rank], topology.host[what.rank] == topology.host[np.maximum(what.peer, 0)]]


def _tell_apart(columns: list[npt.NDArray[Any]]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint32]]:
    """Tell rows apart: return an example of each kind of row, and of which kind each row is."""
    key = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        word = np.asarray(column, np.float64).view(np.uint64)
        key = (key ^ word) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    term = np.empty(len(key), np.uint32)
    examples: list[int] = []
    left = np.arange(len(key))
    while len(left) and len(examples) < _FEW:  # usually there are few kinds, and sorting millions takes seconds
        here = key[left] == key[left[0]]
        term[left[here]] = len(examples)
        examples.append(int(left[0]))
        left = left[~here]
    _, first, rest = np.unique(key[left], return_index=True, return_inverse=True)
    term[left] = rest + len(examples)
    return np.concatenate([np.array(examples, np.intp), left[first]]), term


def _ports(topology: Topology) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return for each link which port of its source it is, and which of its target."""
    return _numbered(topology.links.source), _numbered(topology.links.target)


def _numbered(vertex: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    order = np.argsort(vertex, kind="stable")
    ordered = vertex[order]
    start = np.flatnonzero(np.diff(ordered, prepend=-1))
    number = np.arange(len(vertex)) - np.repeat(start, np.diff(np.append(start, len(vertex))))
    out = np.zeros(len(vertex), np.uint8)
    out[order] = np.minimum(number, 255)  # only ranks' ports matter, and none has so many
    return out


def _only_ports(topology: Topology) -> bool:
    """Whether every link ends in a rank: then no two messages share one unless they share a port."""
    return bool(((topology.links.source < topology.size) | (topology.links.target < topology.size)).all())


class _Run:
    """The input of the engine in C, and the arrays that it points to."""

    def __init__(
        self, traffic: Traffic, slices: int, window: int, terms: Terms, kinds: _Kinds, topology: Topology,
        costs: Costs | None, whole: float,
    ) -> None:  # fmt: skip
        self.traffic, self.slices = traffic, slices
        ranks = topology.host[: traffic.period]
        place, memory = np.zeros(len(ranks), np.int32), np.full(int(ranks.max()) + 1, np.inf)
        if costs is None:  # nobody's processor is shared
            place = np.arange(len(ranks), dtype=np.int32)
        else:
            place, memory = costs.cores(topology)[: traffic.period], costs.memory(topology, whole)
        cores, core = np.unique(ranks.astype(np.int64) << 32 | place, return_inverse=True)
        self.keep: list[Any] = []
        self.input = ffi.new("struct pcm_sim_input *", {
            "size": traffic.size, "period": traffic.period, "rounds": self.pointer("int64_t", traffic.rounds),
            "ops": self.pointer("int64_t", traffic.ops), "kind": self.pointer("uint8_t", traffic.kind),
            "peer": self.pointer("int32_t", traffic.peer), "term": self.pointer("uint32_t", kinds.of),
            "terms": self.pointer("struct pcm_sim_term", terms), "nterms": len(terms),
            "port": self.pointer("uint8_t", kinds.port), "ports": kinds.ports, "slices": slices, "window": window,
            "core": self.pointer("int32_t", core.astype(np.int32)), "cores": len(cores),
            "host": self.pointer("int32_t", (cores >> 32).astype(np.int32)), "hosts": len(memory),
            "memory": self.pointer("double", memory),
        })  # fmt: skip

    def pointer(self, kind: str, array: npt.NDArray[Any]) -> Any:
        array = np.ascontiguousarray(array)
        self.keep.append(array)
        return ffi.cast(f"const {kind} *", ffi.from_buffer(array))

    def share_links(self, topology: Topology, what: Messages) -> None:
        sends = what.kind == SEND
        pairs, which = np.unique(
            what.rank[sends].astype(np.int64) * topology.size + what.peer[sends], return_inverse=True
        )
        paths = topology.paths(pairs // topology.size, pairs % topology.size)
        route = np.full(len(what.kind), -1, np.int32)
        route[sends] = which
        self.input.bandwidth = self.pointer("double", topology.links.bandwidth)
        self.input.links = len(topology.links.bandwidth)
        self.input.route = self.pointer("int32_t", route)
        self.input.route_start = self.pointer("int64_t", paths.start)
        self.input.route_links = self.pointer("int32_t", paths.links)

    def go(self, record: bool) -> tuple[float, Reals, Records | None]:
        finish = np.zeros(self.traffic.period)
        records = np.zeros(0, RECORD)
        output = ffi.new("struct pcm_sim_output *", {"finish": ffi.cast("double *", ffi.from_buffer(finish))})
        if record:
            wanted = 3 * len(self.traffic.kind) * self.slices
            if wanted > _MOST_RECORDS:
                raise InvalidArgument(f"{wanted} records are too many to keep: fewer ranks, or fewer slices")
            records = np.zeros(wanted, RECORD)
            output.records = ffi.cast("struct pcm_sim_record *", ffi.from_buffer(records))
            output.capacity = wanted
        check(lib.pcm_simulate(self.input, output))
        return float(output.seconds), finish, records[: output.recorded] if record else None
