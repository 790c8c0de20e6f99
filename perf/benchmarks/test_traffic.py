"""What emitting the schedules of all ranks costs: of 10,240 ranks, and of as many as the simulator is made for."""

from __future__ import annotations

from typing import Any

import pytest

from pycomm.schedules.traffic import _traffic, traffic
from pycomm.schedules.view import emit


@pytest.mark.parametrize("size", [10_240, 102_400])
@pytest.mark.parametrize(
    ("algorithm", "collective"),
    [
        ("doubling", "allreduce"),
        ("bruck", "allreduce"),
        ("ring", "allreduce"),
        ("hierarchical", "allreduce"),
        ("hierarchical", "allgather"),
        ("hierarchical", "broadcast"),
        ("binomial", "scatter"),
        ("pairwise", "alltoall"),
    ],
)
def test_traffic(benchmark: Any, algorithm: str, collective: str, size: int) -> None:
    """Time it, on hosts of 8 ranks; `operations` is how many there are within the period."""
    if collective == "alltoall" and size > 1 << 15:
        pytest.skip("too many chunks to be numbered")
    groups = tuple(tuple(range(first, first + 8)) for first in range(0, size, 8))

    def make() -> int:
        _traffic.cache_clear()
        return len(traffic(algorithm, collective, size=size, groups=groups).kind)

    benchmark.extra_info["operations"] = benchmark.pedantic(make, rounds=3)


def test_one_rank(benchmark: Any) -> None:
    """Time emitting one rank's part of a hierarchical allreduce on 10,240 ranks, hosts of 8."""
    groups = tuple(tuple(range(first, first + 8)) for first in range(0, 10_240, 8))
    ranks = iter(range(10_240))
    benchmark.pedantic(
        lambda: emit("hierarchical", "allreduce", size=10_240, rank=next(ranks), groups=groups), rounds=20
    )
