"""Communicators made of others: who is in them, in which order, and that they do not disturb each other."""

from __future__ import annotations

import numpy as np
import pytest
from conformance import TRANSPORTS, on_processes, on_ranks

import pycomm

pytestmark = pytest.mark.parametrize("transport", TRANSPORTS)


def members(comm: pycomm.Comm, world: int) -> list[int]:
    ranks = np.empty(comm.size, np.int64)
    comm.Allgather(np.array([world]), ranks)
    return ranks.tolist()


def test_colors_and_keys(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        me = comm.rank
        even = comm.Split(me % 2)
        assert even is not None and members(even, me) == [r for r in range(comm.size) if r % 2 == me % 2]
        assert even.rank == me // 2
        backwards = comm.Split(7, -me)
        assert backwards is not None and members(backwards, me) == list(range(comm.size))[::-1]
        ties = comm.Split(-5, me // 2)
        assert ties is not None and members(ties, me) == list(range(comm.size))
        some = comm.Split(None if me == 1 else 0)
        assert (some is None) == (me == 1)
        if some is not None:
            assert members(some, me) == [r for r in range(comm.size) if r != 1]
        own = comm.Split(me)
        assert own is not None and own.size == 1 and members(own, me) == [me]
        large = comm.Split(2**62 + me % 2, -(2**62))
        assert large is not None and large.size in (2, 3)

    on_ranks(transport, 5, rank)


def test_splits_of_splits(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        me = comm.rank
        row, column = comm.Split(me // 3), comm.Split(me % 3)
        assert row is not None and column is not None
        total, partial = np.array([me]), np.empty(1, np.int64)
        row.Allreduce(total, partial)
        column.Allreduce(pycomm.IN_PLACE, partial)
        assert partial[0] == sum(range(6))
        pair = row.Split(0 if row.rank < 2 else None, key=-row.rank)
        if pair is not None:
            assert members(pair, me) == [me // 3 * 3 + 1, me // 3 * 3]
            again = pair.Split(0)
            assert again is not None and members(again, me) == members(pair, me)

    on_ranks(transport, 6, rank)


def test_traffic_of_one_is_not_seen_by_another(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        one, other = comm.Split(0), comm.Split(0)
        assert one is not None and other is not None
        got = np.empty(1, np.int64)
        if comm.rank == 0:
            for i, c in enumerate((comm, one, other)):
                c.Send(np.array([i]), 1, 4)
        else:
            for i, c in reversed(list(enumerate((comm, one, other)))):
                c.Recv(got, 0, 4)
                assert got[0] == i
        requests = [c.Iallreduce(pycomm.IN_PLACE, np.full(100, c.rank)) for c in (comm, one, other)]
        pycomm.Request.Waitall(requests[:: 1 if comm.rank else -1])

    on_ranks(transport, 2, rank)


def test_groups_follow(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        comm.groups = [[[0, 1], [2, 3]], [[4], [5, 6]]]
        own = comm.Split(None if comm.rank in (1, 4) else 0)
        if own is not None:
            assert own.groups == [[[0], [1, 2]], [[3, 4]]]
            total = np.ones(10)
            own.Allreduce(pycomm.IN_PLACE, total, algorithm="hierarchical")
            assert (total == 5).all()

    on_ranks(transport, 7, rank)


def test_what_a_split_refuses(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        for arguments in (("red", 0), (1.5, 0), (0, 1 << 70), (1 << 70, 0)):
            with pytest.raises(pycomm.InvalidArgument, match="color|key"):
                comm.Split(*arguments)
        comm.Barrier()

    on_ranks(transport, 2, rank)


def test_freed_groups_can_be_made_again(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        for i in range(30):
            own = comm.Split(0)
            assert own is not None
            own.Allreduce(pycomm.IN_PLACE, x := np.array([i]))
            assert x[0] == i * comm.size
            own.Free()

    on_ranks(transport, 3, rank)


def test_between_processes(transport: str) -> None:
    if "inproc" in transport:
        pytest.skip("inproc is for the threads of one process")

    def rank(comm: pycomm.Comm) -> None:
        assert comm.groups == [list(range(comm.size))]
        own = comm.Split(comm.rank % 2)
        assert own is not None and members(own, comm.rank) == list(range(comm.rank % 2, comm.size, 2))

    on_processes(transport, 5, rank)


def test_another_name_of_a_communicator(transport: str) -> None:
    """As classes that are derived from mpi4py's Intracomm are made; it goes with the communicator."""

    class Named(pycomm.Comm):
        def twice(self) -> int:
            total = np.array([2])
            self.Allreduce(pycomm.IN_PLACE, total)
            return int(total[0])

    def rank(comm: pycomm.Comm) -> None:
        twin = comm.Dup()
        named = Named(twin)
        assert named == twin and hash(named) == hash(twin) and named != comm
        assert [named.twice() for _ in range(3)] == [2 * comm.size] * 3
        twin.Allreduce(np.ones(1), np.ones(1))
        named.Free()
        for each in (named, twin):
            with pytest.raises(pycomm.InvalidArgument, match="was freed"):
                each.Allreduce(np.ones(1), np.ones(1))

    on_ranks(transport, 2, rank)
