"""Machines described in TOML; docs/topology.md tells what may be written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import InvalidArgument
from . import units
from .board import Board
from .check import smallest_period
from .generators import NVLINK, NVLINK_LATENCY, generate
from .model import Topology
from .modify import Degrade, degrade, speed_of_ranks
from .tables import Table, names, read


def read_toml(path: Path) -> Topology:
    """Read a machine.

    Raises:
        InvalidArgument: the file cannot be read, or something in it is wrong; the message says where.
    """
    return read(path, lambda table: _machine(table, path.stem))


class _Host(NamedTuple):
    """What one [[host]] says; its hosts are called `names`."""

    names: Sequence[str]
    ranks: int
    speed: float
    rate: float  # bytes per second that a rank reduces
    inside: float
    inside_latency: float
    group: str


def _machine(table: Table, stem: str) -> Topology:
    name = table.take("name", str, stem)
    if table.has("generator"):
        topology = replace(generate(table.take("generator", str)), name=name)
    else:
        topology = _wired(table, name)
    changes = [_degrade(entry) for entry in table.tables("degrade")]
    table.done()
    for change in changes:
        topology = degrade(topology, change)
    return topology


def _degrade(table: Table) -> Degrade:
    keeps = table.read("keeps", units.factor)
    if table.has("link"):
        ends = table.take("link", list)
        if len(ends) != 2 or not all(isinstance(end, str) for end in ends):
            raise InvalidArgument(f"[[degrade]]: link = {ends!r} must be the names of two ends")
        change = Degrade((ends[0], ends[1]), 1, False, keeps)
    else:
        kind = table.take("kind", str)
        part = not table.has("count")
        amount = table.read("part", units.factor, 1.0) if part else table.read("count", units.count)
        change = Degrade(kind, amount, part, keeps)
    table.done()
    return change


def _wired(table: Table, name: str) -> Topology:
    board = Board()
    described = [_host(entry) for entry in table.tables("host")]
    hosts = [(label, host) for host in described for label in host.names]
    for number, (label, host) in enumerate(hosts):
        for k in range(host.ranks):
            board.rank(f"{label}/{k}", number)
    for label, host in hosts:
        board.switch(label)
        for k in range(host.ranks):
            board.cable(f"{label}/{k}", label, "inside", host.inside, host.inside_latency / 2)
    for entry in table.tables("switch"):
        for label in names(entry, "switch"):
            board.switch(label)
        entry.done()
    for entry in table.tables("link"):
        _link(entry, board)
    ranks = [host for _, host in hosts for _ in range(host.ranks)]
    levels = max((host.group.count("/") + 1 for host in ranks), default=0)
    near = [_numbered([host.group.split("/")[: level + 1] for host in ranks]) for level in range(levels)]
    topology = board.topology(name, near)
    rates, speeds = (np.array([getattr(host, what) for host in ranks], float) for what in ("rate", "speed"))
    return smallest_period(speed_of_ranks(replace(topology, reduce_rate=rates), speeds))


def _host(table: Table) -> _Host:
    labels = names(table, "host")
    ranks = table.read("ranks", units.count)
    cores = table.read("cores", units.count, ranks)
    usual = NVLINK_LATENCY if ranks > 1 else 0.0
    host = _Host(
        labels, ranks, table.read("speed", units.factor, 1.0),
        table.read("reduce", units.rate, np.inf) * min(1.0, cores / ranks),
        table.read("inside", units.rate, NVLINK), table.read("inside_latency", units.seconds, usual),
        table.take("group", str, ""),
    )  # fmt: skip
    table.done()
    return host


def _link(table: Table, board: Board) -> None:
    ones, others = (_matching(board, table.take(end, str)) for end in ("from", "to"))
    kind = table.take("kind", str, "link")
    bandwidth, latency = table.read("bandwidth", units.rate), table.read("latency", units.seconds)
    one_way = table.take("one_way", bool, False)
    table.done()
    if np.isinf(bandwidth):
        raise InvalidArgument("[[link]]: a link's bandwidth is finite")
    for one, other in product(ones, others):
        if one != other:
            board.link(one, other, kind, bandwidth, latency)
            if not one_way:
                board.link(other, one, kind, bandwidth, latency)


def _matching(board: Board, pattern: str) -> list[str]:
    """Return the names that a pattern is for; a * does not go over a /."""
    depth = pattern.count("/")
    found = [name for name in board.names if name.count("/") == depth and fnmatchcase(name, pattern)]
    if not found:
        some = board.names[:3] + board.names[-3:]
        raise InvalidArgument(f"[[link]]: nothing is called {pattern!r}; there are {', '.join(dict.fromkeys(some))}")
    return found


def _numbered(keys: Sequence[Sequence[str]]) -> list[int]:
    numbers: dict[tuple[str, ...], int] = {}
    return [numbers.setdefault(tuple(key), len(numbers)) for key in keys]
