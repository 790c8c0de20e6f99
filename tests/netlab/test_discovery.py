"""What a job finds out by itself about the hosts of a laboratory, and that what it then chooses is right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import pycomm
from pycomm.lab import Lab

MakeLab = Callable[[str], Lab]

SLOW = """
[[host]]
count = 3
nics = ["400Mbit"]
processors = 1
ranks = 2

[[host]]
name = "slow"
nics = ["100Mbit"]
processors = 1
ranks = 1
"""
SITES = """
[[host]]
name = "north"
count = 2
nics = ["400Mbit"]
processors = 1
site = "north"

[[host]]
name = "south"
nics = ["400Mbit"]
processors = 1
site = "south"

[[trunk]]
sites = ["north", "south"]
rate = "50Mbit"
delay = "40ms"
"""


def look(elements: int):
    comm = pycomm.init()
    own = (np.arange(elements) % 97 + comm.rank).astype(np.float64)
    total = np.empty_like(own)
    comm.Allreduce(own, total)
    expected = comm.size * (np.arange(elements) % 97) + comm.size * (comm.size - 1) // 2
    right = bool((total == expected).all())
    counts = np.array([[(s + 2 * t) % 4 for t in range(comm.size)] for s in range(comm.size)])  # [source][target]
    got = np.empty(counts[:, comm.rank].sum(), np.int32)
    comm.Alltoallv(
        [np.repeat(np.arange(comm.size, dtype=np.int32) + 100 * comm.rank, counts[comm.rank]), counts[comm.rank]],
        [got, counts[:, comm.rank]],
    )
    right &= np.array_equal(got, np.repeat(100 * np.arange(comm.size) + comm.rank, counts[:, comm.rank]))
    gathered = [record["algorithm"] for record in comm.trace() if record["collective"] == "alltoall"][-1]
    chosen = next(str(row.choice) for row in comm.explain("allreduce", own.nbytes).rows if row.chosen)
    return right, comm.machine.network, comm.groups, chosen, gathered


def test_a_slow_host(make_lab: MakeLab, monkeypatch) -> None:
    monkeypatch.setenv("PYCOMM_NETWORK", "fresh")
    found = make_lab(SLOW).run_ranks(7, look, 500_009)
    _, network, groups, chosen, gathered = found[0]
    assert all(each[0] for each in found)
    assert all(each[1:] == found[0][1:] for each in found)  # all ranks know and choose the same
    assert network.uneven and network.rates[3] == min(network.rates)
    assert len(network.sites) == 1
    assert groups == [[0, 1], [2, 3], [4, 5], [6]]
    assert "two_shot(" in chosen
    assert gathered == "hierarchical"


def test_two_sites(make_lab: MakeLab, monkeypatch) -> None:
    monkeypatch.setenv("PYCOMM_NETWORK", "fresh")
    found = make_lab(SITES).run_ranks(3, look, 10_007)
    _, network, groups, *_ = found[0]
    assert all(each[0] for each in found)
    assert network.sites == ((0, 1), (2,))
    assert network.far_latency >= 0.04 > network.latency
    assert max(network.far_rates) < network.rates[0]
    assert groups == [[[0], [1]], [[2]]]
