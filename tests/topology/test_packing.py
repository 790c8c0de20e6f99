"""Packed trees: right on any graph, as fast as the bound says where messages can take all ways, and found by name."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycomm.bound import bound
from pycomm.bound.flow import max_flow
from pycomm.errors import InvalidArgument
from pycomm.packing import Packer, named, offered, packer
from pycomm.schedules import registry
from pycomm.schedules.contract import contract
from pycomm.schedules.traffic import traffic
from pycomm.schedules.verify import verify
from pycomm.selection.predict import Described, machine_of
from pycomm.selection.select import Selector
from pycomm.simulator.simulate import link_bytes, simulate
from pycomm.topology import Topology, load
from pycomm.topology.board import Board

EXAMPLES = Path(__file__).parents[2] / "examples" / "topologies"
COLLECTIVES = ("allgather", "reduce_scatter", "allreduce", "broadcast", "reduce")
LARGE = 1e9  # bytes, of which latencies are no part worth counting


def board(ranks: int, *cables: tuple[int, int, float], switches: int = 0) -> Topology:
    """Ranks and switches, numbered one after the other, and cables of so many GB/s."""
    made = Board()
    for number in range(ranks):
        made.rank(f"v{number}", number)
    for number in range(ranks, ranks + switches):
        made.switch(f"v{number}")
    for one, other, rate in cables:
        made.cable(f"v{one}", f"v{other}", "cable", rate * 1e9, 1e-6)
    return made.topology("board")


def ring(n: int, rate: float = 10) -> list[tuple[int, int, float]]:
    return [(k, (k + 1) % n, rate) for k in range(n)]


MACHINES = {
    "torus 3x3": load("torus:3x3"),
    "torus 4x4": load("torus:4x4"),
    "torus 2x3x4": load("torus:2x3x4"),
    "hypercube 8": load("torus:2x2x2"),
    "hypercube 16": load("torus:2x2x2x2"),
    "ring with a chord": board(6, *ring(6), (0, 3, 10)),
    "uneven rates": board(5, *ring(5), (0, 2, 25), (1, 3, 5), (1, 4, 2.5)),
    "torus with a dead link": board(9, *(  # as torus:3x3, but for one cable
        (3 * x + y, to, 10) for x in range(3) for y in range(3) for to in (3 * x + (y + 1) % 3, 3 * ((x + 1) % 3) + y)
        if (3 * x + y, to) != (0, 1)
    )),
    "dgx1": load(EXAMPLES / "dgx1.toml"),
    "two switches": board(6, *((k, 6 + k // 3, 10) for k in range(6)), (6, 7, 20), (0, 3, 5), switches=2),
}  # fmt: skip
HARD = {  # where messages cannot take all ways that the bound counts on, or ranks are told apart by little
    "ring of switches": board(8, *((k, 8 + k // 2, 10) for k in range(8)), *((8 + a, 8 + b, r) for a, b, r in ring(4)),
                              switches=4),
    "dragonfly": load("dragonfly:3x2x2"),
    "odd": load(EXAMPLES / "odd.toml"),
    "pair": board(2, (0, 1, 10), (0, 2, 10), (1, 2, 10), switches=1),
    "alone": load("flat:1"),
}  # fmt: skip


def roots(collective: str, size: int) -> list[int]:
    return [0, size - 1] if contract(collective).rooted else [0]


@pytest.mark.parametrize("collective", COLLECTIVES)
@pytest.mark.parametrize("name", [*MACHINES, *HARD])
def test_the_verifier_finds_nothing(name: str, collective: str) -> None:
    topology = (MACHINES | HARD)[name]
    for root in roots(collective, topology.size):
        verify(named(topology), collective, size=topology.size, root=root)


@pytest.mark.parametrize("collective", COLLECTIVES)
@pytest.mark.parametrize("name", MACHINES)
def test_no_link_carries_more_than_the_bound_needs(name: str, collective: str) -> None:
    topology = MACHINES[name]
    for root in roots(collective, topology.size):
        what = traffic(named(topology), collective, size=topology.size, root=root)
        busiest = (link_bytes(what, topology, LARGE) / topology.links.bandwidth).max()
        limit = bound(collective, topology, LARGE, root).bandwidth_seconds
        assert limit * (1 - 1e-6) <= busiest <= limit * 1.05
        if collective in ("allgather", "broadcast"):
            trees = packer(named(topology)[len("packed(") : -1])
            packing = trees.at_all() if collective == "allgather" else trees.at_one(root)
            assert busiest == pytest.approx(limit / packing.efficiency, rel=1e-4), "what it says of itself is true"


@pytest.mark.parametrize("collective", COLLECTIVES)
@pytest.mark.parametrize("name", ["torus 4x4", "dgx1", "uneven rates", "two switches"])
def test_in_many_slices_the_simulator_comes_near_to_the_bound(name: str, collective: str) -> None:
    topology = MACHINES[name]
    what = traffic(named(topology), collective, size=topology.size)
    seconds = simulate(what, topology, LARGE, slices=256, window=8).seconds
    enough = 0.88 if collective == "allreduce" else 0.94  # which has more rounds than slices are under way at once
    assert bound(collective, topology, LARGE).seconds / seconds > enough


def test_trees_are_as_flat_as_the_machine() -> None:
    for text, hops in (("torus:4x4", 4), ("torus:2x2x2x2", 4), ("flat:8", 1)):
        assert packer(text).at_all().depth.max() == hops


def test_an_allreduce_is_rooted_where_it_is_best() -> None:
    """Ranks with one slow leg: each half of an allreduce with equal shares would wait for it."""
    topology = board(5, (0, 1, 10), (1, 2, 10), (0, 2, 10), (0, 3, 10), (1, 3, 10), (2, 3, 10), (3, 4, 5))
    shares = (Packer("leg", topology).at_any().parents < 0).sum(axis=0)
    assert shares[4] == shares[:4].sum(), "of what crosses the leg, half goes each way in each half of the allreduce"
    half = traffic(named(topology), "allgather", size=5)
    free = traffic(named(topology), "allreduce", size=5)
    limit = bound("allreduce", topology, LARGE).bandwidth_seconds
    seconds = [(link_bytes(one, topology, LARGE) / topology.links.bandwidth).max() for one in (half, free)]
    assert seconds[1] < limit * 1.01 < 2 * seconds[0]


@st.composite
def wired(draw: st.DrawFn) -> Topology:
    """Draw ranks and switches on a closed way, some of it one way only, and links more."""
    made = Board()
    ranks = draw(st.integers(2, 6))
    for number in range(ranks):
        made.rank(f"r{number}", number)
    for number in range(draw(st.integers(0, 2))):
        made.switch(f"s{number}")
    names, rate = draw(st.permutations(made.names)), st.sampled_from([1e9, 2.5e9, 3.3e9, 1e10])
    add = draw(st.sampled_from([made.link, made.cable]))
    for one, other in itertools.pairwise([*names, names[0]]):
        if one != other:
            add(one, other, "way", draw(rate), 1e-6)
    pairs = [(one, other) for one in names for other in names if one != other]
    for one, other in draw(st.lists(st.sampled_from(pairs), max_size=6)):
        add(one, other, "more", draw(rate), 0.0)
    return made.topology("wired")


@settings(max_examples=40, deadline=None)
@given(wired(), st.sampled_from(COLLECTIVES), st.data())
def test_on_random_machines(topology: Topology, collective: str, data: st.DataObject) -> None:
    root = data.draw(st.integers(0, topology.size - 1)) if contract(collective).rooted else 0
    name = named(topology)
    verify(name, collective, size=topology.size, root=root)
    what = traffic(name, collective, size=topology.size, root=root)
    busiest = (link_bytes(what, topology, LARGE) / topology.links.bandwidth).max()
    assert busiest >= bound(collective, topology, LARGE, root).bandwidth_seconds * (1 - 1e-6)
    if collective == "allgather":
        limit = bound(collective, topology, LARGE).bandwidth_seconds
        assert busiest == pytest.approx(limit / packer(name[len("packed(") : -1]).at_all().efficiency, rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.data())
def test_a_flow_is_the_least_cut(n: int, data: st.DataObject) -> None:
    pairs = data.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), min_size=1, max_size=12))
    pairs = [(u, v) for u, v in pairs if u != v]
    amounts = [data.draw(st.tuples(st.integers(0, 9), st.integers(0, 9))) for _ in pairs]
    head = np.array([end for u, v in pairs for end in (v, u)], np.int32)
    capacity = np.array(amounts, float).reshape(-1)
    arcs = [(int(head[a ^ 1]), int(head[a]), float(capacity[a])) for a in range(len(head))]

    def leaving(side: set[int]) -> float:
        return sum(c for u, v, c in arcs if u in side and v not in side)

    inner = range(1, n - 1)
    least = min(leaving({0, *some}) for k in range(n - 1) for some in itertools.combinations(inner, k))
    value, side = max_flow(n, head, capacity.copy(), 0, n - 1, float("inf"))
    assert value == least and side is not None and leaving(set(np.flatnonzero(side))) == least
    assert max_flow(n, head, capacity.copy(), 0, n - 1, least)[0] == least


@pytest.mark.parametrize(
    ("size", "name", "why"),
    [
        (4, "packed", "say in brackets what packed is for"),
        (4, "packed(torus:2x2", "a bracket is not closed"),
        (5, "packed(torus:2x2)", "is for 4 ranks and is asked for on 5"),
        (4, "packed(nowhere:4)", "nowhere"),
        (200, "packed(torus:200)", "128 at most"),
    ],
)
def test_what_is_wrong_with_a_name_is_told(size: int, name: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        verify(name, "allgather", size=size)


def test_names() -> None:
    assert registry.has("allgather", "packed") and not registry.has("alltoall", "packed")
    assert "packed" not in registry.names("allgather") and "packed(...)" in registry.known("allgather")
    assert named(load("torus:2x2")) == "packed(torus:2x2)"
    own, other = named(MACHINES["ring with a chord"]), named(MACHINES["uneven rates"])
    assert own != other and own.startswith("packed(board#")
    assert registry.find("allgather", own).name == own


def test_ranks_with_other_files_have_other_names(tmp_path: Path) -> None:
    """The name is compared between ranks, so that a file which is not the same everywhere is an error."""
    path = tmp_path / "machine.toml"
    found = []
    for shape in ("2x2", "4"):
        packer.cache_clear()
        path.write_text(f'generator = "torus:{shape}"\n')
        found.append(packer(str(path)).name)
    packer.cache_clear()
    assert found[0].startswith(f"{path}#") and found[0] != found[1]


def test_it_is_chosen_where_it_is_fastest() -> None:
    topology = load("torus:4x4")
    selector = Selector(machine_of(topology), Described(topology))
    for collective in COLLECTIVES:
        assert selector.choose(collective, 64 << 20).algorithm == "packed(torus:4x4)"
    assert selector.choose("allreduce", 1 << 10).algorithm == "direct"


def test_it_is_not_offered_where_others_do_as_well() -> None:
    for text in ("flat:8", "fat-tree:16,down=4", "sites:2x4", "torus:9x9", "torus:2"):
        assert offered(load(text)) == ""
    assert offered(load("torus:8x8")) == "packed(torus:8x8)"
