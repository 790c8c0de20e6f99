"""What the bound of a machine costs the first time; later calls look it up. Run with `pytest perf/benchmarks`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pycomm.bound import bound
from pycomm.topology import Links, Topology, flat

COLLECTIVES = ["allreduce", "allgather", "broadcast", "alltoall"]


def random_network(hosts: int, degree: int, uplink: float) -> Topology:
    """Return hosts on a switch each, and these joined by `degree` / 2 random rings."""
    numbers, order = np.random.default_rng(1), np.arange(hosts)
    rings = [numbers.permutation(hosts) for _ in range(degree // 2)]
    source = np.concatenate([order, *(hosts + ring for ring in rings)])
    target = np.concatenate([hosts + order, *(hosts + np.roll(ring, 1) for ring in rings)])
    bandwidth = np.repeat([50e9, uplink], [hosts, hosts * len(rings)])
    links = Links(
        np.concatenate([source, target]).astype(np.int32),
        np.concatenate([target, source]).astype(np.int32),
        np.tile(bandwidth, 2),
        np.full(2 * len(source), 1e-6),
        np.zeros(2 * len(source), np.uint8),
    )
    machine = flat(hosts, bandwidth=50e9, latency=2e-6)
    return replace(machine, name="random", vertices=2 * hosts, links=links, period=hosts)


@pytest.mark.parametrize("collective", COLLECTIVES)
@pytest.mark.parametrize("uplink", [25e9, 5e9], ids=["ports-bind", "network-binds"])
def test_64_hosts_with_switches(benchmark: Any, collective: str, uplink: float) -> None:
    """Time the flows through a network of 128 vertices without any symmetry."""
    benchmark.pedantic(bound, setup=lambda: ((collective, random_network(64, 6, uplink), 1e9), {}), rounds=3)


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_a_tree_of_102400_ranks(benchmark: Any, collective: str) -> None:
    """Time the cuts of all single links."""
    benchmark.pedantic(
        bound, setup=lambda: ((collective, flat(102400, bandwidth=50e9, latency=1e-6), 1e9), {}), rounds=3
    )
