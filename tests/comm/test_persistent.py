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
