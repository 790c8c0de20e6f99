"""Packed trees between real ranks: what they compute is right, in slices, from any root, within a hierarchy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conformance import INPROC, SHM, TCP, Case, on_ranks, perform

import pycomm
from pycomm.job.launch import run_ranks

DGX1 = Path(__file__).parents[2] / "examples" / "topologies" / "dgx1.toml"
COLLECTIVES = ("allgather", "reduce_scatter", "allreduce", "broadcast", "reduce")


def every_collective(comm: pycomm.Comm, machine: str) -> None:
    for collective in COLLECTIVES:
        for count, slices in ((0, 1), (5, 1), (30_000, 5)):
            how = {"algorithm": f"packed({machine})", "slices": slices}
            root = comm.size - 1 if collective in ("broadcast", "reduce") else 0
            perform(comm, Case(collective, count, np.int64, root=root, how=how))


@pytest.mark.parametrize("transport", (INPROC, SHM, TCP))
def test_on_a_torus(transport: str) -> None:
    on_ranks(transport, 6, every_collective, "torus:2x3")


def test_on_a_machine_from_a_file() -> None:
    on_ranks(INPROC, 8, every_collective, str(DGX1))


def many_reductions(comm: pycomm.Comm) -> None:
    """Of a round in which a chunk comes twice, the second time with others, the first must not be passed on alone."""
    own, total = np.arange(30_000) % 5 + comm.rank, np.empty(30_000, np.int64)
    for _ in range(40):
        comm.Reduce(own, total, root=7, algorithm=f"packed({DGX1})")
        assert comm.rank != 7 or (total == 8 * (np.arange(30_000) % 5) + 28).all()


def test_nothing_is_passed_on_too_early() -> None:
    on_ranks(SHM, 8, many_reductions)


def what_was_asked_for() -> tuple[set[float], str]:
    """Make a call in the usual way, and tell how it was run."""
    comm = pycomm.init()
    total = np.zeros(1000)
    comm.Allreduce(np.full(1000, comm.rank + 1.0), total)
    return set(total.tolist()), comm.trace()[-1]["algorithm"]


def test_asked_for_by_a_variable() -> None:
    said = run_ranks(4, what_was_asked_for, env={"PYCOMM_ALGO": "allreduce:packed(torus:2x2)"})
    assert said == [({10.0}, "packed(torus:2x2)")] * 4


def test_within_a_hierarchy() -> None:
    def rank(comm: pycomm.Comm) -> None:
        comm.groups = ((0, 1, 2, 3), (4, 5, 6, 7))
        for collective in COLLECTIVES:
            perform(comm, Case(collective, 100, how={"algorithm": "hierarchical(packed(torus:2x2), ring)"}))

    on_ranks(INPROC, 8, rank)
