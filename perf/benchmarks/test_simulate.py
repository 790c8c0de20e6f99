"""How fast the simulator is, on one processor. Run with `pytest perf/benchmarks/test_simulate.py`."""

from __future__ import annotations

from typing import Any

import pytest

from pycomm.schedules.traffic import traffic
from pycomm.simulator.simulate import Bound, Result
from pycomm.topology import generate

TREE = "fat-tree:1024,hosts=8"
LARGE = [10240, 102400]


def price(collective: str, algorithm: str, topology: str, nbytes: float, *, contention: bool) -> Result:
    """Emit the schedules of all ranks and simulate them, as a user who asks for the first time."""
    machine = generate(topology)
    what = traffic(algorithm, collective, size=machine.size, groups=machine.groups)
    return Bound(what, machine, nbytes, 1, 1, contention=contention).run()


def test_messages_a_second(benchmark: Any) -> None:
    """Simulate half a million messages over ports; `messages_a_second` is of the engine and what prepares it."""
    machine = generate("flat:512,degrade=port*1@0.5")  # so that no rank stands for others
    what = traffic("pairwise", "alltoall", size=512).expand(512)
    bound = Bound(what, machine, 1e6, 2, 2, contention=False)
    result = benchmark(bound.run)
    if benchmark.stats:
        benchmark.extra_info["messages_a_second"] = result.messages / benchmark.stats.stats.min


@pytest.mark.parametrize(
    ("collective", "algorithm"),
    [
        ("allreduce", "ring"),
        ("allreduce", "bruck"),
        ("allreduce", "hierarchical(ring, ring)"),
        ("alltoall", "pairwise"),
    ],
)
def test_shared_links(benchmark: Any, collective: str, algorithm: str) -> None:
    """Simulate a fat tree of 1,024 ranks with contention."""
    benchmark.pedantic(price, (collective, algorithm, TREE, 1 << 30), {"contention": True}, rounds=1)


@pytest.mark.parametrize("size", LARGE)
@pytest.mark.parametrize("algorithm", ["doubling", "bruck", "hierarchical(ring, bruck)"])
def test_large_machines(benchmark: Any, algorithm: str, size: int) -> None:
    """Simulate an allreduce of many ranks over ports."""
    arguments = ("allreduce", algorithm, f"fat-tree:{size},hosts=8", 1 << 30)
    benchmark.pedantic(price, arguments, {"contention": False}, rounds=1)


@pytest.mark.parametrize("size", LARGE)
@pytest.mark.parametrize("collective", ["allreduce", "allgather", "broadcast", "barrier"])
def test_traffic_of_nested_groups(benchmark: Any, collective: str, size: int) -> None:
    """Emit for all ranks of three or four levels of groups."""
    groups = generate(f"fat-tree:{size},hosts=8").groups
    benchmark.pedantic(traffic, ("hierarchical", collective), {"size": size, "groups": groups}, rounds=1)


@pytest.mark.parametrize(("collective", "algorithm"), [("allreduce", "ring"), ("alltoall", "pairwise")])
def test_ranks_that_do_the_same(benchmark: Any, collective: str, algorithm: str) -> None:
    """Simulate 10,240 ranks of which one stands for all: 2e8 messages."""
    benchmark.pedantic(price, (collective, algorithm, "flat:10240", 1 << 30), {"contention": False}, rounds=1)
