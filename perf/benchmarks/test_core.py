"""What a step, a kernel and a call cost by themselves, without another rank. Run with `pytest perf/benchmarks`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from pycomm.communicator.comm import SUM, Comm
from pycomm.core import dtype_code, ffi, lib
from pycomm.schedules.view import emit
from pycomm.world import World

Benchmark = Callable[..., Any]


@pytest.fixture
def alone() -> Iterator[Callable[[int], Comm]]:
    """Yield a maker of communicators over `null`, where what is sent to a peer comes back as what it sends."""
    worlds: list[World] = []

    def make(size: int) -> Comm:
        world = World(0, size, transports="null")
        worlds.append(world)
        world.set_peers([world.address()] * size)
        return Comm(world, 1, range(size))

    yield make
    for world in worlds:
        world.close()


@pytest.mark.parametrize(("algorithm", "size"), [("doubling", 2), ("direct", 64), ("two_shot", 64)])
def test_executor(benchmark: Any, alone: Callable[[int], Comm], algorithm: str, size: int) -> None:
    """Time a small allreduce whose messages go nowhere; `ns_a_step` is its time over the schedule's steps."""
    comm = alone(size)
    a, b = np.ones(64, np.float32), np.empty(64, np.float32)
    comm.Allreduce(a, b, algorithm=algorithm)
    call = comm._prefix("allreduce", a, b, SUM, {"algorithm": algorithm}).call
    benchmark.extra_info["steps"] = steps = len(emit(algorithm, "allreduce", size=size, rank=0).steps)
    benchmark(lib.pcm_run, comm._handle, call, -1.0)
    if benchmark.stats:
        benchmark.extra_info["ns_a_step"] = benchmark.stats.stats.min / steps * 1e9


@pytest.mark.parametrize("elements", [2, 16 * 1024])
def test_call(benchmark: Any, alone: Callable[[int], Comm], elements: int) -> None:
    """Time comm.Allreduce on one rank: the way from Python into the core and back, and one copy."""
    comm = alone(1)
    benchmark(comm.Allreduce, np.ones(elements, np.float32), np.empty(elements, np.float32))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "float16", "bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("nbytes", [64 * 1024, 16 * 1024 * 1024])
def test_reduce(benchmark: Any, dtype: str, nbytes: int) -> None:
    """Time the sum of two arrays; `gb_a_second` counts the bytes of the result."""
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    a, b, out = (np.ones(nbytes // kind.itemsize, kind) for _ in range(3))
    data = [ffi.cast("void *", x.ctypes.data) for x in (out, a, b)]
    benchmark(lib.pcm_reduce_local, dtype_code(kind), SUM, *data, a.size)
    if benchmark.stats:
        benchmark.extra_info["gb_a_second"] = nbytes / benchmark.stats.stats.min / 1e9
