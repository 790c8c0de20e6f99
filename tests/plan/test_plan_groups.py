"""Which ranks a degree joins, and what part of the machine one of many groups has."""

from __future__ import annotations

import numpy as np
import pytest

from pycomm.plan import Pricer, Training
from pycomm.plan.cluster import DEGREES, groups
from pycomm.plan.group import share
from pycomm.schedules.traffic import traffic
from pycomm.simulator.simulate import simulate
from pycomm.topology import Topology, generate

TRAINING = Training(64, 1, data=4, tensor=2, pipeline=2, expert=2)


def test_the_first_degree_of_a_layout_is_nearest():
    assert groups(TRAINING, DEGREES, "tensor")[:2].tolist() == [[0, 1], [2, 3]]
    assert groups(TRAINING, DEGREES, "data")[0].tolist() == [0, 2, 4, 6]
    assert groups(TRAINING, DEGREES, "expert")[0].tolist() == [0, 2]
    assert groups(TRAINING, DEGREES, "replica")[0].tolist() == [0, 4]
    assert groups(TRAINING, ("pipeline", "data", "tensor"), "tensor")[0].tolist() == [0, 8]


@pytest.mark.parametrize("degree", [*DEGREES, "expert", "replica"])
def test_each_rank_is_in_one_group(degree: str):
    assert sorted(groups(TRAINING, DEGREES, degree).reshape(-1).tolist()) == list(range(16))


@pytest.mark.parametrize("machine", ["fat-tree:64,hosts=4,nics=4,taper=2,down=8", "rails:8x8,pod=4", "torus:8x8"])
def test_groups_share_the_links_that_several_cross(machine: str):
    topology = generate(machine)
    members = groups(Training(64, 1, data=8, tensor=8), DEGREES, "data")
    part = share(topology, members)
    assert part.topology.size == 8
    crossing = np.zeros(len(topology.links.source))
    for group in members:
        used = topology.paths(np.repeat(group, 8), np.tile(group, 8)).links
        crossing[np.unique(used)] += 1
    widest = (topology.links.bandwidth / np.maximum(crossing, 1)).min()
    assert part.topology.links.bandwidth.min() == pytest.approx(widest)


def all_at_once(topology: Topology, members: np.ndarray, algorithm: str, nbytes: float) -> float:
    """Return what one call in all groups takes, simulated together."""
    from dataclasses import replace

    one = traffic(algorithm, "allreduce", size=members.shape[1])
    one = one.expand(one.size)
    rounds, ops, kind, peer, chunks = [0], [0], [], [], []
    place = {int(rank): (int(row), int(column)) for (row, column), rank in np.ndenumerate(members)}
    for rank in range(topology.size):
        row, column = place[rank]
        for number in range(one.rounds[column], one.rounds[column + 1]):
            for op in range(one.ops[number], one.ops[number + 1]):
                kind.append(one.kind[op])
                peer.append(members[row, one.peer[op]] if one.peer[op] >= 0 else -1)
                chunks.append(one.chunks[op])
            ops.append(len(kind))
        rounds.append(len(ops) - 1)
    together = replace(
        one, size=topology.size, period=topology.size, rounds=np.array(rounds), ops=np.array(ops),
        kind=np.array(kind, np.uint8), peer=np.array(peer, np.int32), chunks=np.array(chunks, np.int32),
    )  # fmt: skip
    return simulate(together, topology, nbytes).seconds


@pytest.mark.parametrize("algorithm", ["ring", "bruck"])
@pytest.mark.parametrize(
    "machine", ["fat-tree:64,hosts=4,nics=4,taper=2,down=8", "boxes:8x8,nics=4", "rails:8x8,pod=4"]
)
def test_one_group_with_its_share_takes_what_all_groups_take_together(machine: str, algorithm: str):
    topology = generate(machine)
    members = groups(Training(64, 1, data=8, tensor=8), DEGREES, "data")
    part = share(topology, members)
    alone = simulate(traffic(algorithm, "allreduce", size=8), part.topology, 1e8).seconds
    assert alone == pytest.approx(all_at_once(topology, members, algorithm, 1e8), rel=0.01)


def test_the_slowest_group_counts():
    topology = generate("boxes:4x4,nics=4,speeds=1+0.5")
    part = share(topology, groups(Training(64, 1, data=4, tensor=4), DEGREES, "tensor"))
    assert part.ranks.tolist() == [8, 9, 10, 11]


def test_messages_share_links():
    topology = generate("sites:2x8,hosts=1,wan=8GB,wan-latency=1ms,bandwidth=50GB,latency=2us")
    pipeline = groups(Training(8, 1, data=8, pipeline=2), DEGREES, "pipeline")
    price = Pricer(topology).call("send", pipeline, 1e9)
    assert price.seconds == pytest.approx(1e9 / 1e9 + 1e-3 + 2e-6, rel=1e-4)
    assert price.kind == "site"


@pytest.mark.parametrize(("ranks", "grouped"), [(4096, True), (4095, False)])
def test_hierarchies_are_tried_on_many_ranks_if_hosts_are_alike(ranks: int, grouped: bool):
    pricer = Pricer(generate(f"fat-tree:{ranks},hosts=8,nics=8,taper=2"))
    choice = pricer.call("allreduce", np.arange(ranks).reshape(1, ranks), 1e9).choice
    assert choice is not None and choice.algorithm.startswith("hierarchical") == grouped
