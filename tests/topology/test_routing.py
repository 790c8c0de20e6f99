"""Paths are chains from source to target, and the shortest where the family promises it."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import GENERATED, all_pairs, walk

from pycomm.errors import InvalidArgument
from pycomm.topology import Links, Topology, generate
from pycomm.topology.board import Board
from pycomm.topology.routing import Graph, Tree


def distances(topology, source):
    """Breadth first, over switches only."""
    near = [[] for _ in range(topology.vertices)]
    for one, other in zip(topology.links.source.tolist(), topology.links.target.tolist(), strict=True):
        near[one].append(other)
    far = {source: 0}
    queue = deque([source])
    while queue:
        here = queue.popleft()
        if here >= topology.size or here == source:
            for there in near[here]:
                if there not in far:
                    far[there] = far[here] + 1
                    queue.append(there)
    return [far.get(rank, -1) for rank in range(topology.size)]


@pytest.mark.parametrize("text", GENERATED)
def test_paths_are_chains(text):
    topology = generate(text)
    walk(topology, *all_pairs(topology))


@pytest.mark.parametrize("text", [text for text in GENERATED if not text.startswith(("torus", "rails", "dragonfly"))])
def test_no_path_is_longer_than_it_must_be(text):
    topology = generate(text)
    lengths = walk(topology, *all_pairs(topology)).reshape(topology.size, topology.size)
    assert lengths.tolist() == [distances(topology, rank) for rank in range(topology.size)]


@given(st.data())
@settings(derandomize=True, max_examples=60, deadline=None)
def test_any_tree(data):
    """Ranks hang on switches of any depth; the paths are those that a search finds."""
    switches = data.draw(st.integers(1, 8))
    size = data.draw(st.integers(1, 12))
    over = [data.draw(st.integers(0, s - 1)) for s in range(1, switches)]
    under = [data.draw(st.integers(0, switches - 1)) for _ in range(size)]
    parent = np.array([size + s for s in under] + [-1] + [size + s for s in over], np.int32)
    below = np.flatnonzero(parent >= 0).astype(np.int32)
    up, down = np.full((2, size + switches), -1, np.int32)
    up[below], down[below] = 2 * np.arange(len(below)), 2 * np.arange(len(below)) + 1
    ends = np.stack([below, parent[below], parent[below], below], axis=1).reshape(-1, 2)
    ones = np.ones(len(ends))
    links = Links(ends[:, 0], ends[:, 1], ones, ones, np.zeros(len(ends), np.uint8))
    ranks = np.arange(size, dtype=np.int32)
    routing = Tree(size, parent, up, down)
    topology = Topology("any", size, size + switches, links, ("k",), routing, (0,), ranks, np.ones(size), size)
    lengths = walk(topology, *all_pairs(topology)).reshape(size, size)
    assert lengths.tolist() == [distances(topology, rank) for rank in range(size)]


def test_a_forest_has_no_way_across():
    tree = Tree(2, np.array([2, 3, -1, -1]), *np.zeros((2, 4), np.int32))
    with pytest.raises(InvalidArgument, match="no common ancestor"):
        tree.paths(np.array([0]), np.array([1]))


def test_a_loop_is_no_tree():
    with pytest.raises(InvalidArgument, match="his own ancestor"):
        Tree(1, np.array([1, 2, 1]), *np.zeros((2, 3), np.int32))


@pytest.mark.parametrize("shape", [(5,), (4, 4), (2, 3, 4), (1, 7)])
def test_a_torus_goes_the_shortest_way_round(shape):
    topology = generate("torus:" + "x".join(map(str, shape)))
    source, target = all_pairs(topology)
    expected = np.zeros(len(source), int)
    for one, other, length in zip(*(np.unravel_index(ranks, shape) for ranks in (source, target)), shape, strict=True):
        expected += np.minimum((other - one) % length, (one - other) % length)
    assert (walk(topology, source, target) == expected).all()


def test_a_torus_finishes_its_first_dimension_first():
    topology = generate("torus:4x5")
    kinds = topology.links.kind[topology.paths([0], [1 * 5 + 2]).links]
    assert kinds.tolist() == [0, 1, 1]


def test_a_dragonfly_takes_one_global_link_between_groups():
    topology = generate("dragonfly:9x4x2")
    source, target = all_pairs(topology)
    start, links = topology.paths(source, target)
    passed = np.concatenate([[0], np.cumsum(topology.links.kind[links] == 2)])
    assert (passed[start[1:]] - passed[start[:-1]] == (source // 8 != target // 8)).all()
    assert np.diff(start).max() == 5
    assert np.bincount(links, minlength=len(topology.links.source)).min() > 0  # every link is of use


def test_groups_with_several_links_between_them_use_them_all():
    topology = generate("dragonfly:3x4x2")
    _, links = topology.paths(*all_pairs(topology))
    assert np.bincount(links, minlength=len(topology.links.source)).min() > 0


def test_rails_are_changed_within_the_host():
    topology = generate("rails:4x8")
    labels = [topology.label(int(v)) for v in topology.links.target[topology.paths([1], [8 + 5]).links]]
    assert labels == ["host 0", "rank 5", "rail 5", "rank 13"]


def board(*cables):
    made = Board()
    for rank in range(3):
        made.rank(f"r{rank}", rank)
    for switch in "ab":
        made.switch(switch)
    for one, other, bandwidth in cables:
        made.cable(one, other, "k", bandwidth, 1e-6)
    return made.topology("by hand")


def test_a_graph_takes_what_is_fastest():
    topology = board(("r0", "a", 1e9), ("r1", "a", 1e9), ("r0", "b", 9e9), ("r1", "b", 9e9), ("r2", "a", 1e9))
    assert isinstance(topology.routing, Graph)
    assert topology.links.target[topology.paths([0], [1]).links].tolist() == [4, 1]


def test_of_equally_fast_ways_the_lower_number_wins():
    topology = board(("r0", "a", 1e9), ("r1", "a", 1e9), ("r0", "b", 1e9), ("r1", "b", 1e9), ("r2", "a", 1e9))
    assert topology.links.target[topology.paths([0], [1]).links].tolist() == [3, 1]


def test_ranks_pass_on_only_what_has_no_way_around():
    slow = board(("r0", "r1", 9e9), ("r1", "r2", 9e9), ("r0", "a", 1e6), ("r2", "a", 1e6))
    assert slow.links.target[slow.paths([0], [2]).links].tolist() == [3, 2]
    chain = board(("r0", "r1", 1e9), ("r1", "r2", 1e9), ("a", "b", 1e9))
    assert chain.links.target[chain.paths([0], [2]).links].tolist() == [1, 2]


def test_parallel_cables_are_one_link():
    topology = board(("r0", "a", 1e9), ("r0", "a", 2e9), ("r1", "a", 1e9), ("r2", "a", 1e9), ("b", "a", 1e9))
    assert isinstance(topology.routing, Tree)
    assert topology.ends([0], [0]).bandwidth[0] == 0
    assert topology.links.bandwidth[topology.paths([0], [1]).links].tolist() == [3e9, 1e9]


def test_what_cannot_be_reached_is_named():
    with pytest.raises(InvalidArgument, match="no way from rank 0 to rank 2"):
        board(("r0", "a", 1e9), ("r1", "a", 1e9), ("r2", "b", 1e9))


def test_too_large_a_graph_is_refused():
    with pytest.raises(InvalidArgument, match="too many for free-form routing"):
        Graph(2, Graph.MOST + 1, generate("flat:2").links)


def test_ends_are_those_of_the_path():
    topology = generate("fat-tree:96,hosts=8,taper=2,down=4")
    source, target = all_pairs(topology)
    start, links = topology.paths(source, target)
    ends = topology.ends(source, target)
    for i in range(0, len(source), 97):
        path = links[start[i] : start[i + 1]]
        if len(path):
            facts = (ends.latency[i], ends.bandwidth[i], ends.first[i], ends.last[i])
            expected = topology.links.latency[path].sum(), topology.links.bandwidth[path].min(), path[0], path[-1]
            assert facts == pytest.approx(expected)
    assert (ends.latency[source == target] == 0).all()


def test_half_way_round_a_torus_goes_upwards():
    topology = generate("torus:4")
    for rank in range(4):
        assert topology.links.target[topology.paths([rank], [rank ^ 2]).links[0]] == (rank + 1) % 4
