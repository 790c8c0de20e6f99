"""What is between hosts: how it is told, and what is chosen by it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pycomm.discover.network import read
from pycomm.discover.probe import Lines, sites_of
from pycomm.errors import InvalidArgument
from pycomm.selection.machine import Machine
from pycomm.selection.network import Network, loads
from pycomm.selection.predict import topology_of
from pycomm.selection.select import Selector

GBIT = 118e6
HOSTS = ((0, 1), (2, 3), (4, 5), (6, 7))
EVEN = Network((GBIT,) * 4, 5e-5, ((0, 1, 2, 3),))
SITES = Network((GBIT,) * 4, 5e-5, ((0, 2), (1, 3)), (GBIT / 10, GBIT / 10), 0.02)


def machine(network, hosts=HOSTS):
    return Machine(hosts, (1,) * len(hosts), network=network)


def test_a_network_is_read_as_it_was_written():
    assert loads(SITES.dumps()) == SITES


@pytest.mark.parametrize(
    "change", [{"rates": [1, 0, 1, 1]}, {"sites": [[0, 1]]}, {"far_rates": []}, {"latency": "x"}, {"message": -1}]
)
def test_networks_that_are_none(change):
    with pytest.raises(InvalidArgument, match="describes no network"):
        loads(json.dumps(json.loads(SITES.dumps()) | change))


def test_sites_are_told_by_latency():
    near, far = 1e-4, 2e-2
    latency = np.array([[np.inf, far, near, far], [far, np.inf, far, near], [near, far, np.inf, far],
                        [far, near, far, np.inf]])  # fmt: skip
    assert sites_of(latency) == ((0, 2), (1, 3))
    assert sites_of(np.where(latency == far, near, latency)) == ((0, 1, 2, 3),)


def test_rates_that_differ_by_noise_are_the_same():
    latency = np.full((4, 4), 1e-4)
    network = read(Lines(latency, 0.0, ((0, 1, 2, 3),), np.array([1.17e8, 1.1e8, 5.6e7, 1.18e8]), np.zeros(0)))
    assert network.rates[0] == network.rates[1] == network.rates[3] > 1.9 * network.rates[2]
    assert network.uneven


def test_some_of_the_hosts():
    kept = machine(SITES).among({2: 0, 3: 1, 6: 2})
    assert kept.hosts == ((0, 1), (2,)) and kept.network.sites == ((0, 1),) and not kept.network.far_rates
    assert machine(SITES).among({0: 0, 1: 1}).network is None


def test_groups_are_nested_where_there_are_sites():
    assert machine(EVEN).groups == HOSTS
    assert machine(SITES).groups == (((0, 1), (4, 5)), ((2, 3), (6, 7)))


def test_the_topology_has_the_links():
    topology = topology_of(machine(SITES))
    ends = topology.ends([0, 0, 0], [1, 4, 2])
    assert ends.bandwidth[1] == GBIT and ends.bandwidth[2] == GBIT / 10 and ends.bandwidth[0] > 1e12
    np.testing.assert_allclose(ends.latency, [0, 5e-5, 0.02])


@pytest.mark.parametrize("collective", ["allreduce", "allgather", "reduce_scatter", "broadcast", "alltoall"])
@pytest.mark.parametrize("network", [EVEN, SITES], ids=["even", "sites"])
def test_long_vectors_come_near_the_bound(collective, network):
    selector = Selector(machine(network))
    best = selector.ranked(collective, 32 << 20)[0]
    bound = selector.bound(collective, 32 << 20).seconds
    assert 0.97 * bound < best.seconds < 1.12 * bound


def test_a_slow_host_gets_a_small_shard():
    slow = Network((GBIT, GBIT, GBIT, GBIT / 2), 5e-5, ((0, 1, 2, 3),))
    choice = Selector(machine(slow)).choose("allreduce", 32 << 20)
    assert choice.algorithm == "hierarchical(bruck, two_shot(11, 11, 10, 0))"
    alone = Selector(machine(slow, ((3,), (2,), (1,), (0,)))).choose("allreduce", 32 << 20)
    assert alone.algorithm == "two_shot(0, 11, 11, 10)"


def test_short_vectors_cross_the_wide_area_once():
    best = Selector(machine(SITES)).ranked("allreduce", 4096)[0]
    assert best.seconds < 1.3 * SITES.far_latency


def test_few_messages_are_sent_where_each_is_dear():
    hosts, distant = tuple((2 * h, 2 * h + 1) for h in range(8)), Network((GBIT,) * 8, 1e-3, (tuple(range(8)),))
    assert Selector(machine(distant, hosts)).choose("allreduce", 8).algorithm == "direct"
    dear = Selector(machine(replace(distant, message=3e-4), hosts))
    assert dear.choose("allreduce", 8).algorithm in ("doubling", "hierarchical(bruck, doubling)")


def test_the_links_of_many_hosts_are_not_simulated_message_by_message():
    """Else this takes minutes, which the first call of a job would wait for."""
    hosts = tuple(tuple(range(8 * h, 8 * h + 8)) for h in range(32))
    selector = Selector(machine(Network((GBIT,) * 32, 5e-5, (tuple(range(32)),)), hosts))
    for collective in ("allreduce", "alltoall"):
        best = selector.ranked(collective, 32 << 20)[0]
        assert selector.bound(collective, 32 << 20).seconds < 1.001 * best.seconds
