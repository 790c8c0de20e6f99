"""Every shipped algorithm, run by the C core with ranks as threads: out of place and in place, whole and in slices."""

import numpy as np
import pytest
from reference import case, roots

import pycomm
from pycomm.schedules.registry import listing

SIZES = {2: [[0], [1]], 3: [[0, 2], [1]], 5: [[0, 3], [1, 2, 4]], 8: [[[0, 1], [2, 3, 4]], [[5], [6, 7]]]}


def call(comm, collective, own, out, root, how):
    """Make the call by the name that mpi4py gives it."""
    match collective:
        case "allreduce" | "scan" | "exscan" | "allgather" | "alltoall":
            getattr(comm, collective.capitalize())(own, out, **how)
        case "reduce_scatter":
            comm.Reduce_scatter_block(own, out, **how)
        case "reduce" | "gather" | "scatter":
            getattr(comm, collective.capitalize())(own, out, root=root, **how)
        case "broadcast":
            comm.Bcast(out, root=root, **how)
        case "barrier":
            comm.Barrier(**how)


def rank_program(comm, collective, name, groups, root, lengths):
    comm.groups = groups
    for length in lengths:
        inputs, expected = case(collective, comm.size, root, [length])
        own = np.concatenate([np.empty(0), *inputs[comm.rank]])
        right = np.concatenate([np.empty(0), *expected[comm.rank]])
        for slices in (None, 3):
            how = {"algorithm": name, "slices": slices}
            kept = own.copy()
            # The first rank of an exscan has a buffer that is left alone.
            out = np.full(len(own) if collective == "exscan" else len(right), -1.0)
            if collective == "broadcast" and comm.rank == root:
                out[:] = own
            call(comm, collective, own if len(own) else None, out if len(out) else None, root, how)
            np.testing.assert_array_equal(own, kept, "the input was written")
            np.testing.assert_array_equal(out[: len(right)], right)
            if collective in ("allreduce", "scan", "exscan"):
                call(comm, collective, pycomm.IN_PLACE, kept, 0, how)
                np.testing.assert_array_equal(kept[: len(right)], right)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("entry", listing(), ids=lambda entry: f"{entry.name}-{entry.collective}")
def test_the_core_computes_the_collective(entry, size):
    for root in roots(entry.collective, size)[-2:]:
        pycomm.run_threads(size, rank_program, entry.collective, entry.name, SIZES[size], root, [1000, 1])
