"""What happened in a simulated collective, told: the critical path in words, and a trace for Perfetto or Chrome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from ..errors import InvalidArgument
from ..schedules.schedule import COPY
from ..topology.units import say_seconds
from .simulate import WHATS, Records, Result

_WIRE = WHATS.index("wire")


@dataclass(frozen=True)
class Step:
    """One thing on the critical path.

    Attributes:
        what: one of `pycomm.simulator.simulate.WHATS`.
        rank, peer: who did it, and the other end of a message (-1: local work).
        slice: of the buffer, counted from 0.
        nbytes: of the message, or that were worked on.
        start, end: seconds; each step starts where the one before ends.
        words: what it is, without its time.
    """

    what: str
    rank: int
    peer: int
    slice: int
    nbytes: float
    start: float
    end: float
    words: str

    @property
    def seconds(self) -> float:
        """How long it made everybody wait."""
        return self.end - self.start


def critical_path(result: Result) -> list[Step]:
    """Return what the last rank had to wait for, from the beginning on: the steps' seconds add up to `result.seconds`.

    Raises:
        InvalidArgument: the result has no records.
    """
    records = _records(result)
    if not len(records):
        return []
    ends = records["end"]
    chain = [int(np.flatnonzero(ends == ends.max())[-1])]
    while records["cause"][chain[-1]] >= 0:
        chain.append(int(records["cause"][chain[-1]]))
    chain.reverse()
    steps, at = [], 0.0
    for index, after in zip(chain, [*chain[1:], None], strict=True):
        end = result.seconds if after is None else max(at, _until(records[index], records[after]))
        steps.append(_step(result, records[index], at, end))
        at = end
    return [step for step in steps if step.end > step.start] or steps[-1:]


def _until(record: Any, after: Any) -> float:
    """Return when what comes after a record had no longer to wait for it."""
    wires = record["what"] == after["what"] == _WIRE
    if wires and record["rank"] != after["rank"]:  # the port that both enter takes one after the other
        return float(record["end"])
    return float(min(record["end"], after["start"]))  # a port that both leave is free before the first has arrived


def path_text(steps: Sequence[Step]) -> str:
    """Return the critical path as lines, with runs of equal steps folded: "... 14 more like it"."""
    lines = []
    for _, run in groupby(steps, key=_likeness):
        alike = list(run)
        lines.append(f"{_time(alike[0].start)}  {alike[0].words} ({say_seconds(alike[0].seconds)})")
        if len(alike) == 2:
            lines.append(f"{_time(alike[1].start)}  {alike[1].words} ({say_seconds(alike[1].seconds)})")
        elif len(alike) > 2:
            lines.append(f"{'':>10}  ... {len(alike) - 1} more like it, until {say_seconds(alike[-1].end)}")
    return "\n".join(lines)


def chrome_trace(result: Result) -> dict[str, Any]:
    """Return a trace in Chrome's format, for ui.perfetto.dev: hosts are processes, ranks threads, messages arrows.

    Raises:
        InvalidArgument: the result has no records.
    """
    records = _records(result)
    topology = result.topology
    events: list[dict[str, Any]] = []
    for host in np.unique(topology.host[: topology.size]).tolist():
        events.append({"name": "process_name", "ph": "M", "pid": host, "tid": 0, "args": {"name": f"host {host}"}})
    for rank in range(topology.size):
        name = {"name": topology.label(rank)}
        events.append({"name": "thread_name", "ph": "M", "pid": int(topology.host[rank]), "tid": rank, "args": name})
    for number, record in enumerate(records):
        events += _events(result, number, record)
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": {"name": _title(result)}}


def _events(result: Result, number: int, record: Any) -> list[dict[str, Any]]:
    host = result.topology.host
    start, end = 1e6 * float(record["start"]), 1e6 * float(record["end"])
    rank, peer = int(record["rank"]), int(record["peer"])
    step = _step(result, record, float(record["start"]), float(record["end"]))
    place = {"pid": int(host[rank]), "tid": rank}
    about = {"bytes": step.nbytes, "slice": step.slice}
    if step.what != "wire":
        return [
            {"name": step.words, "cat": step.what, "ph": "X", "ts": start, "dur": end - start, **place, "args": about}
        ]
    # Messages of a rank overlap, which slices of a thread must not: so they are asynchronous, and arrows to the peer.
    one = {"cat": "wire", "id": number, **place}
    arrow = {"name": "message", "cat": "message", "id": number}
    return [
        {"name": step.words, "ph": "b", "ts": start, **one, "args": about},
        {"name": step.words, "ph": "e", "ts": end, **one},
        {"ph": "s", "ts": start, **place, **arrow},
        {"ph": "f", "bp": "e", "ts": end, "pid": int(host[peer]), "tid": peer, **arrow},
    ]


def _step(result: Result, record: Any, start: float, end: float) -> Step:
    what, rank, peer, op = WHATS[record["what"]], int(record["rank"]), int(record["peer"]), int(record["op"])
    traffic = result.traffic
    nbytes = float(traffic.chunks[op]) * traffic.share * result.nbytes / result.slices
    size = say_bytes(nbytes)
    if what == "wire":
        words = f"rank {rank} sends {size} to rank {peer}{_over(result, rank, peer)}"
    elif what == "send":
        words = f"rank {rank} prepares {size} for rank {peer}"
    elif what == "receive":
        words = f"rank {rank} takes {size} from rank {peer}"
    else:
        words = f"rank {rank} {'copies' if traffic.kind[op] == COPY else 'adds'} {size}"
    return Step(what, rank, peer, int(record["slice"]), nbytes, start, end, words)


def _over(result: Result, source: int, target: int) -> str:
    """Return " over nic and leaf": the kinds of links on the way."""
    links = result.topology.paths([source], [target]).links
    kinds = dict.fromkeys(result.topology.kinds[kind] for kind in result.topology.links.kind[links].tolist())
    return f" over {' and '.join(kinds)}" if kinds else ""


def _likeness(step: Step) -> tuple[Any, ...]:
    kinds = step.words.partition(" over ")[2]
    return step.what, step.nbytes, float(f"{step.seconds:.3g}"), kinds


def _records(result: Result) -> Records:
    if result.records is None:
        raise InvalidArgument("the simulation kept no records: simulate with record=True")
    return result.records


def _title(result: Result) -> str:
    return f"{result.traffic.collective} {result.traffic.name} of {say_bytes(result.nbytes)} on {result.topology.name}"


def _time(seconds: float) -> str:
    return f"{say_seconds(seconds):>10}"


def say_bytes(nbytes: float) -> str:
    """Return bytes as people say them, to four digits: 1 MiB, 97.66 KiB."""
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if nbytes >= 1 << power:
            return f"{nbytes / (1 << power):.4g} {unit}"
    return f"{nbytes:.4g} B"
