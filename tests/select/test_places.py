"""Ranks bound to sockets, memory nodes and caches of a host: what they tell, the groups, and what runs on them."""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import pycomm
from pycomm import start
from pycomm.job.launch import run_ranks
from pycomm.schedules.verify import verify
from pycomm.schedules.view import emit
from pycomm.selection.candidates import algorithms
from pycomm.selection.machine import Machine
from pycomm.selection.network import Network
from pycomm.selection.places import ANYWHERE, Place, place_of
from pycomm.selection.predict import topology_of
from pycomm.selection.select import Selector


def host_of_two_sockets(root: Path) -> Path:
    """Write a sysfs of 16 processors: two sockets, each one memory node with two last-level caches of 4."""

    def write(name: str, said: str) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(said + "\n")

    for cpu in range(16):
        place, half = f"devices/system/cpu/cpu{cpu}", cpu // 8
        write(f"{place}/topology/package_cpus_list", ("0-7", "8-15")[half])
        write(f"{place}/cache/index0/level", "1")
        write(f"{place}/cache/index0/shared_cpu_list", str(cpu))
        write(f"{place}/cache/index3/level", "3")
        write(f"{place}/cache/index3/shared_cpu_list", f"{cpu // 4 * 4}-{cpu // 4 * 4 + 3}")
        write(f"{place}/node{half}/cpulist", ("0-7", "8-15")[half])
        write(f"devices/system/node/node{half}/cpulist", ("0-7", "8-15")[half])
    return root


def bound_to(*processors: int) -> tuple[Place, ...]:
    """Return where ranks are that are bound to one processor each, on the host above."""
    return tuple(Place(cpu // 8 * 8, cpu // 8 * 8, cpu // 4 * 4) for cpu in processors)


@pytest.mark.parametrize(
    ("processors", "place"),
    [
        ({5}, Place(0, 0, 4)),
        ({8, 9, 10, 11}, Place(8, 8, 8)),
        ({3, 4}, Place(0, 0, ANYWHERE)),
        ({7, 8}, Place()),
        (set(range(16)), Place()),
    ],
)
def test_what_a_rank_is_bound_to(tmp_path: Path, processors: set[int], place: Place) -> None:
    assert place_of(processors, host_of_two_sockets(tmp_path)) == place


def test_a_host_that_tells_nothing(tmp_path: Path) -> None:
    assert place_of({0}, tmp_path) == Place()


@pytest.mark.parametrize(
    ("places", "groups"),
    [
        (bound_to(0, 1, 4, 5, 8, 9, 12, 13), (((0, 1), (2, 3)), ((4, 5), (6, 7)))),
        (bound_to(0, 8, 1, 9), ((0, 2), (1, 3))),
        (bound_to(0, 1, 2, 4), ((0, 1, 2), (3,))),  # one socket, so that only caches part them
        (bound_to(0, 4, 8, 9), ((0, 1), (2, 3))),  # of whom two share no cache
        (bound_to(0, 1, 4, 8), (((0, 1), (2,)), (3,))),
        (bound_to(0, 1, 2, 3), (0, 1, 2, 3)),
        (bound_to(0, 4, 8, 12), ((0, 1), (2, 3))),
        (bound_to(0, 8), (0, 1)),  # each alone: nobody is nearer
        ((Place(0, 0), Place(0, 0), Place(8, 8), Place(8, 8)), ((0, 1), (2, 3))),
        ((*bound_to(0, 1, 8), Place()), (0, 1, 2, 3)),  # one may be anywhere
        ((), (0, 1, 2)),
    ],
)
def test_groups_within_a_host(places: tuple[Place, ...], groups: tuple) -> None:
    size = len(places) or 3
    machine = Machine((tuple(range(size)),), (size,), places=places)
    assert machine.groups == (groups,)
    leveled = isinstance(groups[0], tuple)
    assert machine.grouped == leveled
    for collective in ("allreduce", "broadcast", "alltoall", "barrier"):
        assert ("hierarchical" in algorithms(collective, machine)) == leveled
        if leveled:
            verify("hierarchical", collective, size=size, groups=machine.groups)
    assert not Selector(machine).passes  # messages in shared memory are too cheap to be gathered
    assert Selector(machine).choose("allreduce", 1 << 20) in [
        one.choice for one in Selector(machine).ranked("allreduce", 1 << 20)
    ]


def test_of_some_ranks() -> None:
    machine = Machine((tuple(range(8)),), (8,), places=bound_to(0, 1, 4, 5, 8, 9, 12, 13))
    assert machine.among({5: 0, 4: 1, 0: 2, 1: 3}).groups == (((0, 1), (2, 3)),)
    assert machine.among({0: 0, 4: 1}).groups == ((0, 1),)


@pytest.mark.parametrize("sites", [((0, 1),), ((0,), (1,))])
def test_levels_are_nested_below_hosts_and_hosts_below_sites(sites: tuple) -> None:
    far = {"far_rates": (1e9, 1e9), "far_latency": 1e-2} if len(sites) > 1 else {}
    network = Network((1e9, 1e9), 2e-5, sites, **far)
    hosts = ((0, 1, 2, 3), (4, 5, 6, 7))
    machine = Machine(hosts, (4, 4), network=network, places=bound_to(0, 1, 8, 9, 0, 1, 8, 9))
    within = (((0, 1), (2, 3)), ((4, 5), (6, 7)))
    assert machine.groups == (within if len(sites) == 1 else tuple((host,) for host in within))
    names = [name for name in algorithms("allreduce", machine) if name.startswith("hierarchical(")]
    assert all(name.count("bruck, ") == 1 + len(sites) for name in names) and names
    for name in names:
        verify(name, "allreduce", size=8, groups=machine.groups)
    assert topology_of(machine).period == (4 if len(sites) == 1 else 8)
    unlike = Machine(hosts, (4, 4), network=network, places=bound_to(0, 1, 8, 9, 0, 8, 1, 9))
    assert topology_of(unlike).period == 8


def test_across_sockets_goes_the_least_there_is() -> None:
    """Four ranks of a socket together send their half of the vector across, and the sum of the other one back."""
    machine = Machine((tuple(range(8)),), (8,), places=bound_to(0, 1, 4, 5, 8, 9, 12, 13))

    def crossing(name: str) -> Fraction:
        schedules = [emit(name, "allreduce", size=8, rank=rank, groups=machine.groups) for rank in range(4)]
        return sum(
            (
                len(op.chunks) * s.share
                for s in schedules
                for ops in s.rounds()
                for op in ops
                if op.kind == 0 and op.peer > 3
            ),
            Fraction(0),
        )

    assert crossing("hierarchical") == 1
    assert crossing("direct") == 16


def _calls() -> tuple[list, set[str], bool]:
    comm = pycomm.init()
    comm.set_timeout(20)
    total = np.empty(1000, np.int64)
    comm.Allreduce(np.arange(1000) * (comm.rank + 1), total)
    right = np.array_equal(total, np.arange(1000) * sum(range(1, comm.size + 1)))
    every = np.empty((comm.size, 100), np.int64)
    comm.Allgather(np.full(100, comm.rank), every)
    right &= all((row == number).all() for number, row in enumerate(every))
    got = np.empty(comm.size, np.int64)
    comm.Alltoall(np.arange(comm.size) + 100 * comm.rank, got)
    right &= np.array_equal(got, 100 * np.arange(comm.size) + comm.rank)
    comm.Alltoallv([np.arange(comm.size) + 100 * comm.rank, [1] * comm.size], [got, [1] * comm.size])
    right &= np.array_equal(got, 100 * np.arange(comm.size) + comm.rank)
    used = {record["algorithm"] for record in comm.trace()} - {"lengths"}  # which ranks tell each other before
    return comm.groups, used, right


@pytest.mark.parametrize("asked", ["", "hierarchical"])
def test_ranks_that_are_bound_find_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: str) -> None:
    """Real ranks on a host that is made up: two sockets of two caches, on which three, one, two and none are."""
    seats = (0, 1, 4, 8, 9, 2)
    monkeypatch.setattr(start, "SYS", host_of_two_sockets(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {seats[int(os.environ["LOCAL_RANK"])]})
    for groups, used, right in run_ranks(len(seats), _calls, env={"PYCOMM_ALGO": asked}):
        assert groups == [[[[0, 1, 5], [2]], [3, 4]]] and right
        assert not asked or used == {asked}


def test_who_may_run_anywhere_has_no_level(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(start, "SYS", host_of_two_sockets(tmp_path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    found = run_ranks(2, _calls)
    assert all(groups == [[0, 1]] and right for groups, _, right in found)
