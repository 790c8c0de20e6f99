"""Operations that are started many times: what they send is what lies in their buffers at each start."""

from __future__ import annotations

import numpy as np
import pytest
from conformance import TRANSPORTS, on_ranks

import pycomm
from pycomm.errors import InvalidArgument

pytestmark = pytest.mark.parametrize("transport", TRANSPORTS)


def test_collectives(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        mine, total = np.zeros(3), np.zeros(3)
        strided, into = np.zeros((3, 2))[:, 0], np.zeros((3, 2))[:, 1]
        blocks, moved = np.zeros(comm.size, int), np.zeros(comm.size, int)
        counts = [1] * comm.size
        part = np.zeros(1)
        requests = [
            comm.Allreduce_init(mine, total),
            comm.Allreduce_init(strided, into),
            comm.Alltoall_init(blocks, moved),
            comm.Alltoallv_init(pycomm.IN_PLACE, [(own := np.zeros(comm.size, int)), counts]),
            comm.Reduce_scatter_init(np.ones(comm.size), part),
            comm.Barrier_init(),
        ]
        for turn in range(4):
            mine[:], strided[:] = comm.rank + turn, turn
            blocks[:] = own[:] = 10 * turn + comm.rank
            into[:] = total[:] = part[:] = moved[:] = -1
            pycomm.Prequest.Startall(requests)
            pycomm.Request.Waitall(requests)
            assert (total == sum(range(comm.size)) + turn * comm.size).all()
            assert (into == turn * comm.size).all()
            assert moved.tolist() == own.tolist() == [10 * turn + r for r in range(comm.size)]
            assert part[0] == comm.size

    on_ranks(transport, 3, rank)


def test_the_life_of_one(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        total = np.zeros(1)
        request = comm.Allreduce_init(np.ones(1), total)
        for _ in range(3):
            request.Start()
            with pytest.raises(InvalidArgument, match="wait for it first"):
                request.Start()
            request.Wait()
            assert request and total[0] == comm.size
        request.Free()
        with pytest.raises(InvalidArgument, match="was freed"):
            request.Start()

    on_ranks(transport, 2, rank)


def test_after_its_communicator_has_gone(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        twin = comm.Dup()
        request = twin.Allreduce_init(np.ones(1), np.zeros(1))
        for _ in range(2):
            request.Start()
            request.Wait()
        twin.Free()
        with pytest.raises(InvalidArgument, match="was freed"):
            request.Start()

    on_ranks(transport, 2, rank)


def test_a_premultiplied_sum(transport: str) -> None:
    """Each rank multiplies by its own factor, once a start; what it brings is left as it is."""

    def rank(comm: pycomm.Comm) -> None:
        mul, ranks = pycomm.Op.Create_premul_sum(comm.rank + 1), range(comm.size)
        weights = sum(r + 1 for r in ranks)
        for dtype in (np.float32, np.float16, np.int32, np.complex64):
            own, got = np.full(2 * comm.size, 3, dtype), np.zeros(2 * comm.size, dtype)
            comm.Allreduce(own, got, mul)
            assert (own == 3).all() and (got == 3 * weights).all()
            comm.Allreduce(pycomm.IN_PLACE, own, mul)
            assert (own == 3 * weights).all()
            comm.Reduce(got, own if comm.rank == 1 else None, mul, root=1)
            assert (own == 3 * weights**2).all() == (comm.rank == 1)
            comm.Reduce_scatter_block(pycomm.IN_PLACE, (block := got.copy()), mul)
            assert (block[:2] == 3 * weights**2).all()
            comm.Reduce_scatter(got, (part := np.zeros(2, dtype)), None, mul)
            assert (part == 3 * weights**2).all()
            comm.Scan(np.ones(1, dtype), (upto := np.zeros(1, dtype)), mul)
            assert upto[0] == sum(range(1, comm.rank + 2))
        request = comm.Allreduce_init(own, got, mul)
        for turn in range(3):
            own[:] = turn
            request.Start()
            request.Wait()
            assert (got == turn * weights).all()
        with pytest.raises(InvalidArgument, match="one number of that kind"):
            comm.Allreduce(np.ones(1, int), np.ones(1, int), pycomm.Op.Create_premul_sum(0.5))
        with pytest.raises(InvalidArgument, match="does not combine two"):
            mul.Reduce_local(np.ones(1), np.ones(1))

    on_ranks(transport, 3, rank)
