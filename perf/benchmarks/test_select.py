"""What choosing an algorithm costs: once, from memory, and on a repeated call, where it must cost nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from pycomm.communicator.comm import Comm
from pycomm.selection.machine import one_host
from pycomm.selection.select import Selector
from pycomm.world import World


@pytest.fixture
def alone() -> Iterator[Callable[[], Comm]]:
    """Yield a maker of communicators of two ranks over `null`, where the other rank sends what it is sent."""
    worlds: list[World] = []

    def make() -> Comm:
        world = World(0, 2, transports="null")
        worlds.append(world)
        world.set_peers([world.address()] * 2)
        return Comm(world, 1, range(2))

    yield make
    for world in worlds:
        world.close()


@pytest.mark.parametrize("chosen_by", ["selector", "caller"])
def test_repeated_call(benchmark: Any, alone: Callable[[], Comm], chosen_by: str) -> None:
    """Time a repeated allreduce of 8 bytes: whoever chose for it, its plan is found in C."""
    comm = alone()
    a, b = np.ones(2, np.float32), np.empty(2, np.float32)
    if chosen_by == "caller":
        comm.adopt("allreduce", a, b, Selector(comm.machine).choose("allreduce", a.nbytes))
    comm.Allreduce(a, b)
    benchmark(comm.Allreduce, a, b)


@pytest.mark.parametrize("size", [2, 8, 64])
@pytest.mark.parametrize("nbytes", [8, 1 << 20])
def test_first_choice(benchmark: Any, size: int, nbytes: int) -> None:
    """Time the pricing of all candidates, as the first call of a size pays it."""
    benchmark(lambda: Selector(one_host(size, 2)).choose("allreduce", nbytes))


def test_known_choice(benchmark: Any) -> None:
    """Time a choice that was made before, as a call with another count of nearly the same size pays it."""
    selector = Selector(one_host(8, 2))
    selector.choose("allreduce", 1 << 20)
    benchmark(selector.choose, "allreduce", (1 << 20) + 4)
