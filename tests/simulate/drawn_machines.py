"""Random machines and collectives for property tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from pycomm.schedules import registry
from pycomm.schedules.contract import contract
from pycomm.schedules.traffic import Traffic, traffic
from pycomm.topology import Paths, Topology, generate
from pycomm.topology.board import Board

GENERATED = [
    "flat:{p}", "flat:{p},reduce=20GB", "fat-tree:{p},down=2", "fat-tree:{p},down=4,taper=2", "torus:{p}",
    "torus:2x{p}", "fat-tree:{p},down=2,degrade=nic*1@0.3", "dragonfly:3x2x2", "rails:2x{p}", "boxes:2x{p},nics=1",
    "boxes:3+2+4", "sites:2x{p}", "boxes:2x{p},nics=1,speeds=1+0.5", "torus:3x3,degrade=axis 0*1@0.2",
]  # fmt: skip


@st.composite
def wired(draw: st.DrawFn) -> Topology:
    """Draw ranks and switches at random, joined by a random tree and some cables more."""
    board = Board()
    p, switches = draw(st.integers(2, 8)), draw(st.integers(1, 3))
    for rank in range(p):
        board.rank(f"r{rank}", host=rank // draw(st.sampled_from([1, 2])))
    for switch in range(switches):
        board.switch(f"s{switch}")
    names = board.names[p:] + board.names[:p]
    joined = [(names[i], names[draw(st.integers(0, i - 1))]) for i in range(1, len(names))]
    joined += draw(st.lists(st.sampled_from([(a, b) for a in names for b in names if a < b]), max_size=4))
    for one, other in joined:
        board.cable(one, other, "cable", draw(st.sampled_from([1e9, 2.5e9, 10e9])), draw(st.sampled_from([0.0, 1e-6])))
    return board.topology("wired")


generated = st.builds(lambda text, p: generate(text.format(p=p)), st.sampled_from(GENERATED), st.integers(2, 6))
topologies = st.one_of(generated, wired())
sizes = st.sampled_from([0.0, 1.0, 1e3, 65536.0, 1e6, 1e9])


@st.composite
def collectives(draw: st.DrawFn, size: int, groups: Any = None) -> Traffic:
    """Draw what ranks do: any shipped algorithm for any collective, from any root."""
    nested = groups if groups and any(isinstance(group, tuple) for group in groups) else None
    entries = [entry for entry in registry.listing() if nested or not entry.grouped]
    entry = draw(st.sampled_from(entries))
    root = draw(st.integers(0, size - 1)) if contract(entry.collective).rooted else 0
    return traffic(entry.name, entry.collective, size=size, root=root, groups=nested)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Traffic, Topology]:
    """Draw a machine, and what its ranks do."""
    topology = draw(topologies)
    return draw(collectives(topology.size, topology.groups)), topology


class _Renamed:
    """Routing after ranks were renumbered: `old` says what each was called before."""

    def __init__(self, topology: Topology, old: np.ndarray) -> None:
        self.topology, self.old = topology, old

    def paths(self, source: np.ndarray, target: np.ndarray) -> Paths:
        return self.topology.paths(self.old[source], self.old[target])


def renumbered(given: Traffic, topology: Topology, new: np.ndarray) -> tuple[Traffic, Topology]:
    """Return the same machine and collective where rank r is called new[r]."""
    given, old = given.expand(given.size), np.argsort(new).astype(np.int32)
    vertex = np.concatenate([new, np.arange(topology.size, topology.vertices)]).astype(np.int32)
    links = topology.links._replace(source=vertex[topology.links.source], target=vertex[topology.links.target])
    machine = replace(
        topology, links=links, routing=_Renamed(topology, old), host=topology.host[old], period=topology.size,
        reduce_rate=topology.reduce_rate[old], labels=(),
    )  # fmt: skip
    rounds = [range(given.rounds[r], given.rounds[r + 1]) for r in old]
    order = np.array([round_ for rank in rounds for round_ in rank], np.int64)
    ops = [np.arange(given.ops[k], given.ops[k + 1]) for k in order]
    chosen = np.concatenate([*ops, np.zeros(0, np.int64)]).astype(np.int64)
    peer = given.peer[chosen]
    return (
        replace(
            given,
            rounds=np.cumsum([0, *map(len, rounds)]),
            ops=np.cumsum([0, *map(len, ops)]),
            kind=given.kind[chosen],
            peer=np.where(peer < 0, peer, new[peer]).astype(np.int32),
            chunks=given.chunks[chosen],
        ),
        machine,
    )


def first_ranks(given: Traffic, period: int) -> Traffic:
    """Return the traffic as that of its first ranks, after checking that the others do the same, shifted."""
    given = given.expand(given.size)
    rounds = int(given.rounds[period])
    cut = replace(
        given,
        period=period,
        rounds=given.rounds[: period + 1],
        ops=given.ops[: rounds + 1],
        kind=given.kind[: given.ops[rounds]],
        peer=given.peer[: given.ops[rounds]],
        chunks=given.chunks[: given.ops[rounds]],
    )
    again = cut.expand(given.size)
    for name in ("rounds", "ops", "kind", "peer", "chunks"):
        assert (getattr(again, name) == getattr(given, name)).all(), f"{given.name} is not the same from every rank"
    return cut
