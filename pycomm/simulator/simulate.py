"""The simulator: what a collective takes on a machine, by its own schedules; docs/simulator.md has the model."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from math import lcm
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core import check, ffi, lib
from ..errors import InvalidArgument
from ..schedules.contract import contract
from ..schedules.schedule import SEND
from ..schedules.traffic import Traffic
from ..topology import Topology, check_period
from .pricing import TERM, Costs, Kinds, Messages, Reals, Terms, kinds, messages, only_ports

RECORD = np.dtype([("start", "f8"), ("end", "f8"), ("cause", "i8"), ("op", "i8"), ("rank", "i4"), ("peer", "i4"),
                   ("slice", "u4"), ("what", "i4")])  # fmt: skip
assert TERM.itemsize == ffi.sizeof("struct pcm_sim_term") and RECORD.itemsize == ffi.sizeof("struct pcm_sim_record")
WHATS = ("send", "wire", "receive", "local")  # what a record is, by its `what`

_MOST_RECORDS = 4_000_000
_STEADY = 16, 24  # slices; their difference is a multiple of every usual window
_MANY = 1 << 18  # operations of a slice, of which so many are not simulated, but only a window and another one

Records = npt.NDArray[Any]  # of dtype RECORD
Watch = Callable[[float], None]


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
    def algbw(self) -> float:
        """Algorithm bandwidth: n / seconds, in bytes per second."""
        return self.nbytes / self.seconds if self.seconds else float("inf")

    @property
    def busbw(self) -> float:
        """Bus bandwidth, in bytes per second: algorithm bandwidth times the collective's `bus_factor`."""
        return self.algbw * contract(self.traffic.collective).bus_factor(self.traffic.size)


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
        traffic: what all ranks do, from `pycomm.schedules.traffic.traffic`.
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
        period = topology.size if contention else lcm(traffic.period, topology.period)
        if period < topology.size:
            _rotation(topology, period)
        self.traffic = traffic.expand(period)
        self.topology, self.nbytes = topology, nbytes
        self.slices, self.window, self.contention = slices, min(window, slices), contention
        self._messages = messages(self.traffic, nbytes / slices, nbytes)
        self._kinds = kinds(self._messages, topology)

    def seconds(self, costs: Costs | None = None, *, watch: Watch | None = None) -> float:
        """Return what it takes. Of many slices some are simulated: each further one takes as long as the one before.

        Where links are shared it is no less than what the busiest one needs, to which few slices may come too near.
        """
        first, second = _STEADY if len(self.traffic.kind) < _MANY else (self.window, 2 * self.window)
        if self.slices <= second:
            return self.run(costs, watch=watch).seconds
        few, more = (self.run(costs, slices=n, watch=watch).seconds for n in (first, second))
        least = self._busiest if self.contention else 0.0
        return max(more + (more - few) * (self.slices - second) / (second - first), least)

    @cached_property
    def _busiest(self) -> float:
        """Seconds for which the busiest link is needed."""
        return float(
            (link_bytes(self.traffic, self.topology, self.nbytes) / self.topology.links.bandwidth).max(initial=0)
        )

    def called(self, costs: Costs) -> float:
        """Return what a call takes whose ranks come at the same time: also what is in no message."""
        return self.seconds(costs) + costs.call(self.traffic.collective, self.nbytes, self.topology)

    def run(
        self,
        costs: Costs | None = None,
        *,
        slices: int | None = None,
        record: bool = False,
        watch: Watch | None = None,
    ) -> Result:
        """Simulate it.

        Args:
            costs, record: as for `simulate`.
            slices: how many of the slices to run; default: all.
            watch: called ten times a second with the part that is done, 0 to 1; if it raises, the simulation ends.
        """
        terms = self._kinds.wire.copy()
        if costs is not None:
            self._check_hosts()
            costs.apply(terms, self._kinds.examples, self.topology)
        slices = slices or self.slices
        run = _Run(
            self.traffic, slices, min(self.window, slices), terms, self._kinds, self.topology, costs, self.nbytes
        )
        if self.contention:
            run.share_links(self.topology, self._messages)
        seconds, finish, records = run.go(record, watch)
        if not self.contention and not only_ports(self.topology):
            seconds = max(seconds, self._busiest * slices / self.slices)
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

    def _check_hosts(self) -> None:
        period, host = self.traffic.period, self.topology.host
        if period < len(host) and np.isin(host[:period], host[period:]).any():
            raise InvalidArgument(
                f"{self.topology.name}: ranks that share a host, and so its processors, are not all among the {period} "
                "that stand for the others: give the topology a period of whole hosts"
            )


def link_bytes(traffic: Traffic, topology: Topology, nbytes: float) -> Reals:
    """Return how many bytes cross each link of a topology in a collective of n = nbytes.

    Raises:
        InvalidArgument: the topology is not as symmetric as it claims to be (see `pycomm.topology.check_period`).
    """
    period = lcm(traffic.period, topology.period)
    what = messages(traffic.expand(period), nbytes, nbytes)
    sends = what.kind == SEND
    total = np.zeros(len(topology.links.source))
    source, target, amount = what.rank[sends], what.peer[sends], what.nbytes[sends]
    for at in range(0, len(source), 1 << 20):  # a million at a time, for the paths are longer than the messages
        part = slice(at, at + (1 << 20))
        paths = topology.paths(source[part], target[part])
        weight = np.repeat(amount[part], np.diff(paths.start))
        total += np.bincount(paths.links, weight, minlength=len(total))
    return _turned(topology, period, total)


@lru_cache(maxsize=8)
def _rotation(topology: Topology, period: int) -> npt.NDArray[np.integer]:
    """Return which link takes the place of which when ranks are rotated by `period`, which is proved."""
    return check_period(replace(topology, period=period))


def _turned(topology: Topology, period: int, total: Reals) -> Reals:
    """Return all ranks' bytes, from those of the first `period` ranks: each link has the mean of its orbit."""
    turns = topology.size // period
    if turns == 1:
        return total
    reach, turn = _rotation(topology, period), 1
    orbit = np.arange(len(reach))
    while turn < turns:  # the least number of an orbit's links names it
        orbit = np.minimum(orbit, orbit[reach])
        reach, turn = reach[reach], 2 * turn
    members = np.bincount(orbit, minlength=len(total))
    mean: Reals = np.bincount(orbit, total, minlength=len(total))[orbit] / members[orbit] * turns
    return mean


class _Run:
    """The input of the engine in C, and the arrays that it points to."""

    def __init__(
        self, traffic: Traffic, slices: int, window: int, terms: Terms, kinds: Kinds, topology: Topology,
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

    def go(self, record: bool, watch: Watch | None) -> tuple[float, Reals, Records | None]:
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
        if watch is None:
            check(lib.pcm_simulate(self.input, output))
        else:
            self._watched(output, watch)
        return float(output.seconds), finish, records[: output.recorded] if record else None

    def _watched(self, output: Any, watch: Watch) -> None:
        """Let another thread simulate, and look on: a signal is heard, too."""
        total = max(len(self.traffic.kind) * self.slices, 1)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(lambda: check(lib.pcm_simulate(self.input, output)))  # where its error can be read
            try:
                while not wait([running], 0.1).done:
                    watch(output.done / total)
            except BaseException:
                output.stop = 1
                raise
            running.result()
