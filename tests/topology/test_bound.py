"""The bound: known values, brute force over all cuts, and what must hold for every machine."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pycomm.bound import bound, search
from pycomm.schedules import registry
from pycomm.schedules.contract import CONTRACTS, contract
from pycomm.schedules.traffic import traffic
from pycomm.simulator.simulate import simulate
from pycomm.topology import Links, Topology, flat
from pycomm.topology.generators import generate

INF = float("inf")
Arc = tuple[int, int, float, float]  # source, target, bandwidth, latency


def machine(size: int, vertices: int, arcs: Sequence[Arc], hosts: Sequence[int] = (), period: int = 0) -> Topology:
    """A topology of directed links, which nobody routes on."""
    source, target, bandwidth, latency = zip(*arcs, strict=True)
    host = np.array(hosts or range(size), np.int32)
    groups = tuple(tuple(np.flatnonzero(host == h).tolist()) for h in np.unique(host)) if hosts else tuple(range(size))
    links = Links(
        np.array(source, np.int32), np.array(target, np.int32), np.array(bandwidth, float), np.array(latency, float),
        np.zeros(len(arcs), np.uint8),
    )  # fmt: skip
    rates = np.full(size, INF)
    routing: Any = None
    return Topology("test", size, vertices, links, ("link",), routing, groups, host, rates, period or size)


def both(edges: Iterable[Arc]) -> list[Arc]:
    return [arc for u, v, b, x in edges for arc in ((u, v, b, x), (v, u, b, x))]


def star(ports: Sequence[float], latency: float = 0.0) -> Topology:
    p = len(ports)
    return machine(p, p + 1, both((r, p, b, latency / 2) for r, b in enumerate(ports)))


def torus(*extents: int) -> Topology:
    size = int(np.prod(extents))
    grid = np.arange(size).reshape(extents)
    edges = {
        (min(u, v), max(u, v))
        for axis in range(len(extents))
        for u, v in zip(grid.flat, np.roll(grid, -1, axis).flat, strict=True)
    }
    return machine(size, size, both((int(u), int(v), 1.0, 0.0) for u, v in sorted(edges)), period=extents[-1])


def seconds(collective: str, topology: Topology, nbytes: float = 1.0, root: int = 0) -> float:
    return bound(collective, topology, nbytes, root).seconds


# ---- known values ----


@pytest.mark.parametrize("p", [2, 3, 8])
def test_flat_machines_have_the_bounds_of_the_literature(p: int):
    n, rate, latency = 1e9, 50e9, 10e-6
    topology = flat(p, bandwidth=rate, latency=latency)
    each, whole = (p - 1) / p * n / rate + latency, n / rate + latency
    expected = dict.fromkeys(("allgather", "reduce_scatter", "alltoall", "scatter", "gather"), each)
    expected |= dict.fromkeys(("broadcast", "reduce", "scan"), whole) | {
        "allreduce": 2 * (p - 1) / p * n / rate + latency
    }
    expected |= {"exscan": whole, "barrier": latency}
    assert {name: seconds(name, topology, n) for name in CONTRACTS} == pytest.approx(expected, rel=1e-12)


def test_additions_bind_where_ranks_reduce_slowly():
    topology = flat(4, bandwidth=50e9, latency=0, reduce_rate=5e9)
    for collective in ("allreduce", "reduce", "reduce_scatter", "scan"):
        assert seconds(collective, topology, 1e9) == pytest.approx(3 / 20)
        assert "additions" in bound(collective, topology, 1e9).cut
    assert seconds("exscan", topology, 1e9) == pytest.approx(2 / 20)
    assert seconds("broadcast", topology, 1e9) == pytest.approx(1 / 50)


@pytest.mark.parametrize(("slow", "expected"), [(1.0, 1.75), (0.5, 2.0), (0.45, 1 / 0.45)])
def test_a_slow_port_binds_an_allreduce_alone_or_with_the_others(slow: float, expected: float):
    ports = [1.0] * 7 + [slow]
    expected = max(14 / sum(ports), 1 / slow)
    assert seconds("allreduce", star(ports)) == pytest.approx(expected)


@pytest.mark.parametrize(("out", "into"), [(1.0, 2.0), (2.0, 1.0)])
def test_the_worse_direction_of_the_ports_binds_an_allreduce(out: float, into: float):
    arcs = [arc for r in range(4) for arc in ((r, 4, out, 0.0), (4, r, into, 0.0))]
    assert seconds("allreduce", machine(4, 5, arcs)) == pytest.approx(2 * 3 / 4)


def test_the_parts_that_bind_an_allreduce_hang_at_several_switches_or_at_one():
    ports = [(r, 6 + r // 3, 1.0, 0.0) for r in range(6)]
    wide = machine(6, 9, both([*ports, (6, 8, 10.0, 0.0), (7, 8, 10.0, 0.0)]))
    assert bound("allreduce", wide, 1.0).cut == "the links out of all 6 ranks together, 6 B/s"
    assert seconds("allreduce", wide) == pytest.approx(2 * 5 / 6)
    hosts = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    ports = [(r, 9 + r // 3, 10.0, 0.0) for r in range(9)]
    narrow = machine(9, 13, both([*ports, *((9 + h, 12, 1.0, 0.0) for h in range(3))]), hosts)
    assert bound("allreduce", narrow, 1.0).cut == "the links out of all 3 hosts together, 3 B/s"
    assert seconds("allreduce", narrow) == pytest.approx(2 * 2 / 3)


def test_an_allgather_on_a_dgx_1_takes_seven_sixths():
    """The hybrid cube mesh of eight V100, six links of NVLink each (Cai et al., "SCCL", PPoPP 2021: 7/6 is optimal)."""
    twice = [(0, 3), (0, 4), (1, 2), (1, 5), (2, 3), (4, 7), (5, 6), (6, 7)]
    once = [(0, 1), (0, 2), (1, 3), (2, 6), (3, 7), (4, 5), (4, 6), (5, 7)]
    topology = machine(8, 8, both((u, v, 1.0, 0.0) for u, v in [*twice, *twice, *once]))
    assert seconds("allgather", topology, 8.0) == pytest.approx(7 / 6)
    assert seconds("allreduce", topology, 8.0) == pytest.approx(14 / 6)
    assert seconds("alltoall", topology, 8.0) == pytest.approx(16 / 6)


def hosts_of_four(*uplinks: float) -> Topology:
    """Hosts of four ranks on a switch each, and these on one, with uplinks of the given bandwidths."""
    k = len(uplinks)
    edges = [(r, 4 * k + r // 4, 300.0, 1e-6) for r in range(4 * k)]
    edges += [(4 * k + h, 5 * k, bandwidth, 5e-6) for h, bandwidth in enumerate(uplinks)]
    return machine(4 * k, 5 * k + 1, both(edges), [r // 4 for r in range(4 * k)])


def test_a_hierarchy_binds_at_its_hosts():
    topology = hosts_of_four(50.0, 50.0)
    assert bound("allgather", topology, 800.0).cut == "the links from each host to the rest, 50 B/s"
    assert seconds("allgather", topology, 800.0) == pytest.approx(400 / 50 + 12e-6)
    assert seconds("alltoall", topology, 800.0) == pytest.approx(1600 / 50 + 12e-6)
    assert seconds("allreduce", topology, 800.0) == pytest.approx(800 / 50 + 12e-6)
    assert seconds("broadcast", topology, 800.0) == pytest.approx(800 / 50 + 12e-6)
    assert seconds("barrier", topology) == pytest.approx(12e-6)


def test_a_sentence_names_the_host_that_binds():
    topology = hosts_of_four(50.0, 50.0, 40.0)
    assert bound("alltoall", generate("fat-tree:64,hosts=1,down=4,taper=4"), 1e6).cut.startswith(
        "the leaf links from each group of 4 ranks to the rest"
    )
    expected = "bound 20 s: the links from the rest to host 2, 40 B/s, bind"
    assert bound("allgather", topology, 1200.0).sentence == expected
    assert "to the rest" in bound("reduce_scatter", topology, 1200.0).cut
    assert "from host 1" in bound("scatter", topology, 1200.0, root=5).cut
    assert bound("barrier", topology, 0).sentence.startswith("bound 12 us: the latencies on the way from rank 0 to")


@pytest.mark.parametrize(
    ("extents", "expected"), [((8, 8), 64.0), ((16, 16), 512.0), ((4, 4, 4), 32.0), ((6, 10), 75.0)]
)
def test_the_bisection_of_a_torus_binds_its_alltoall(extents: tuple[int, ...], expected: float):
    topology = torus(*extents)
    assert seconds("alltoall", topology, topology.size) == pytest.approx(expected)
    assert seconds("allgather", topology, topology.size) == pytest.approx((topology.size - 1) / (2 * len(extents)))


# ---- every cut of small machines ----


def volume(collective: str, p: int, root: int, inside: frozenset[int]) -> float:
    """What must leave a set of ranks, as a part of n: by the contract, block by block."""
    promise = contract(collective)
    outside = [rank for rank in range(p) if rank not in inside]
    total = 0.0
    for block in range(promise.nblocks(p)):
        where = [rank for rank in outside if block in promise.gets(rank, p, root)]
        needed = {source for rank in where for source in promise.holds(np.array([block]), rank, p, root)[0].tolist()}
        total += bool(needed & inside) / (1 if promise.blocks == "one" else p)
    return total


def brute(collective: str, topology: Topology, root: int) -> float:
    """The largest of all cuts' volumes over their capacities."""
    links, worst = topology.links, 0.0
    for chosen in itertools.product((False, True), repeat=topology.vertices):
        side = np.array(chosen)
        inside = frozenset(np.flatnonzero(side[: topology.size]).tolist())
        capacity = links.bandwidth[side[links.source] & ~side[links.target]].sum()
        amount = volume(collective, topology.size, root, inside)
        if amount:
            worst = max(worst, amount / capacity if capacity else INF)
    return worst


def partitions(items: list[int]) -> Iterable[list[list[int]]]:
    if not items:
        yield []
        return
    for rest in partitions(items[1:]):
        yield [[items[0]], *rest]
        for at, part in enumerate(rest):
            yield [*rest[:at], [items[0], *part], *rest[at + 1 :]]


def brute_partition(topology: Topology) -> float:
    """The largest 2(k - 1) over what can leave, or enter, the parts, each with the switches that suit it."""
    links, p = topology.links, topology.size
    switches = list(itertools.product((False, True), repeat=topology.vertices - p))

    def least(part: list[int], source: Any, target: Any) -> float:
        capacities = []
        for chosen in switches:
            side = np.array([rank in part for rank in range(p)] + list(chosen))
            capacities.append(links.bandwidth[side[source] & ~side[target]].sum())
        return min(capacities)

    worst = 0.0
    for parts in partitions(list(range(p))):
        if len(parts) > 1:
            for ends in ((links.source, links.target), (links.target, links.source)):
                worst = max(worst, 2 * (len(parts) - 1) / sum(least(part, *ends) for part in parts))
    return worst


BANDWIDTHS = st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 3.0])


@st.composite
def graphs(draw: Callable[..., Any], most: int = 6, latency: float = 0.0) -> Topology:
    """Strongly connected machines of some ranks and switches: a ring of all vertices, and other links."""
    size = draw(st.integers(2, most - 1))
    vertices = draw(st.integers(size, most))
    ring = draw(st.permutations(range(vertices)))
    pairs = list(zip(ring, ring[1:] + ring[:1], strict=True))
    pairs += draw(st.lists(st.tuples(*[st.integers(0, vertices - 1)] * 2), max_size=8))
    arcs = [(u, v, draw(BANDWIDTHS), latency * draw(st.integers(1, 3))) for u, v in pairs if u != v]
    assume(arcs)
    return machine(size, vertices, both(arcs) if draw(st.booleans()) else arcs)


@st.composite
def trees(draw: Callable[..., Any], most: int = 7) -> Topology:
    """Ranks and switches without a cycle; the two directions of a link may differ."""
    size = draw(st.integers(2, most - 1))
    vertices = draw(st.integers(size, most))
    name = draw(st.permutations(range(vertices)))
    arcs = []
    for v in range(1, vertices):
        u = draw(st.integers(0, v - 1))
        there, latency = draw(BANDWIDTHS), draw(st.integers(1, 3))
        back = there if draw(st.booleans()) else draw(BANDWIDTHS)
        arcs += [(name[u], name[v], there, latency), (name[v], name[u], back, latency)]
    return machine(size, vertices, arcs)


COLLECTIVES = sorted(set(CONTRACTS) - {"barrier"})
RATIOS = sorted(set(CONTRACTS) - {"barrier", "allreduce", "alltoall"})


@pytest.mark.parametrize("collective", RATIOS)
@given(topology=graphs() | trees(), data=st.data())
def test_no_cut_binds_more(collective: str, topology: Topology, data: st.DataObject):
    root = data.draw(st.integers(0, topology.size - 1))
    found = bound(collective, topology, 1.0, root).bandwidth_seconds
    assert found == pytest.approx(brute(collective, topology, root if contract(collective).rooted else 0))


@given(topology=graphs(), collective=st.sampled_from(RATIOS), data=st.data())
def test_merging_twins_hides_no_cut(topology: Topology, collective: str, data: st.DataObject):
    root = data.draw(st.integers(0, topology.size - 1)) if contract(collective).rooted else 0
    with mock.patch.object(search, "_WHOLE", 0):  # as in large graphs
        found = bound(collective, topology, 1.0, root).bandwidth_seconds
    assert found == pytest.approx(brute(collective, topology, root))


@given(topology=trees(6) | graphs(6))
def test_no_cut_and_no_partition_binds_an_allreduce_more(topology: Topology):
    expected = max(brute("allreduce", topology, 0), brute_partition(topology))
    assert bound("allreduce", topology, 1.0).bandwidth_seconds == pytest.approx(expected)


@given(topology=trees())
def test_no_cut_of_a_tree_binds_an_alltoall_more(topology: Topology):
    assert bound("alltoall", topology, 1.0).bandwidth_seconds == pytest.approx(brute("alltoall", topology, 0))


@settings(derandomize=True, max_examples=50)
@given(topology=graphs())
def test_no_cut_of_a_small_graph_binds_an_alltoall_more(topology: Topology):
    assert bound("alltoall", topology, 1.0).bandwidth_seconds >= brute("alltoall", topology, 0) * (1 - 1e-9)


# ---- what must hold everywhere ----


@pytest.mark.parametrize("collective", COLLECTIVES)
@settings(derandomize=True, max_examples=30)
@given(topology=graphs(latency=1e-1) | trees(), data=st.data())
def test_a_worse_link_never_helps(collective: str, topology: Topology, data: st.DataObject):
    at = data.draw(st.integers(0, len(topology.links.source) - 1))
    bandwidth, latency = topology.links.bandwidth.copy(), topology.links.latency.copy()
    bandwidth[at] *= data.draw(st.sampled_from([1.0, 0.7, 0.1]))
    latency[at] += data.draw(st.sampled_from([0.0, 0.3]))
    worse = replace(topology, links=topology.links._replace(bandwidth=bandwidth, latency=latency))
    before, after = bound(collective, topology, 1.0), bound(collective, worse, 1.0)
    assert after.seconds >= before.seconds * (1 - 1e-9)
    assert after.bandwidth_seconds >= before.bandwidth_seconds * (1 - 1e-9)
    assert after.latency_seconds >= before.latency_seconds * (1 - 1e-9)


@pytest.mark.parametrize("collective", sorted(set(COLLECTIVES) - {"scan", "exscan"}))
@settings(derandomize=True, max_examples=30)
@given(topology=graphs(latency=1e-1) | trees(), data=st.data())
def test_names_do_not_matter(collective: str, topology: Topology, data: st.DataObject):
    p, links = topology.size, topology.links
    ranks = np.array(data.draw(st.permutations(range(p))))
    vertices = np.concatenate([ranks, p + np.array(data.draw(st.permutations(range(topology.vertices - p))), int)])
    root = data.draw(st.integers(0, p - 1))
    order = np.array(data.draw(st.permutations(range(len(links.source)))))
    renamed = links._replace(
        source=vertices[links.source].astype(np.int32), target=vertices[links.target].astype(np.int32)
    )
    shuffled = Links(*(column[order] for column in renamed))
    found = [
        bound(collective, topology, 1.0, root),
        bound(collective, replace(topology, links=shuffled), 1.0, int(ranks[root])),
    ]
    assert found[0].seconds == pytest.approx(found[1].seconds)
    assert found[0].latency_seconds == pytest.approx(found[1].latency_seconds)


@pytest.mark.parametrize("collective", sorted(CONTRACTS))
@settings(derandomize=True, max_examples=30)
@given(topology=graphs(latency=1.0) | trees())
def test_the_parts_and_the_whole_fit(collective: str, topology: Topology):
    found = bound(collective, topology, 1.0)
    most = max(found.latency_seconds, found.bandwidth_seconds)
    assert most <= found.seconds * (1 + 1e-9) <= (found.latency_seconds + found.bandwidth_seconds) * (1 + 2e-9)
    assert found.sentence.endswith(f": {found.cut}, bind")


# ---- beside the simulator ----


@pytest.mark.parametrize(
    "text",
    [
        "flat:7",
        "boxes:4+3,nics=2",
        "fat-tree:16,hosts=4,taper=2,down=2",
        "rails:4x4,pod=2,taper=2",
        "sites:2x4,hosts=2",
        "torus:3x4",
        "dragonfly:3x2x2",
    ],
)
def test_no_schedule_is_simulated_to_beat_the_bound(text: str):
    topology = generate(text)
    for entry in registry.listing():
        groups = topology.groups if entry.grouped else None
        done = traffic(entry.name, entry.collective, size=topology.size, groups=groups)
        for nbytes in (64.0, 1e5, 1e9):
            best = bound(entry.collective, topology, nbytes)
            for slices in (1, 8):
                took = simulate(done, topology, nbytes, slices=slices).seconds
                assert took >= best.seconds * (1 - 1e-9), f"{entry.name} {entry.collective} of {nbytes}: {best}"
