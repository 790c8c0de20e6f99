"""Requests: they progress while Python computes, outlive their communicator, and keep their buffers."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest
from conformance import PATIENCE, TRANSPORTS, on_processes, on_ranks, until

import pycomm
from pycomm import Request, core
from pycomm.world import World

pytestmark = pytest.mark.parametrize("transport", TRANSPORTS)


@pytest.mark.parametrize("room", [False, True], ids=["", "a processor for each thread"])
def test_progress_while_nobody_waits(transport: str, room: bool) -> None:
    """Both sides start a long all-reduce and then do not touch the library: its threads must finish it."""

    def rank(comm: pycomm.Comm, done: threading.Barrier) -> None:
        n = 1_000_000
        if room:
            comm._world.set_local_ranks(1)
        mine, total = np.full(n, comm.rank + 1.0), np.zeros(n)
        request = comm.Iallreduce(mine, total)
        assert until(lambda: total[0] == 6 and total[-1] == 6), "the library made no progress on its own"
        done.wait()  # what a rank has may still have to go to others
        assert until(request.Test)
        assert (total == 6).all()

    on_ranks(transport, 3, rank, threading.Barrier(3))


def test_done_by_test_alone(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        if comm.rank == 0:
            request = comm.Ibcast(np.arange(300_000), 0)
        else:
            request = comm.Ibcast(got := np.zeros(300_000, np.int64), 0)
        assert until(request.Test)
        if comm.rank:
            assert got[-1] == 299_999

    on_ranks(transport, 3, rank)


def test_more_at_once_than_lanes(transport: str) -> None:
    """Twenty operations in flight, some of several slices; waited for from the last to the first."""

    def rank(comm: pycomm.Comm) -> None:
        for _ in range(3):
            totals = [np.full(20_000 + i, float(comm.rank + i)) for i in range(20)]
            requests = [comm.Iallreduce(pycomm.IN_PLACE, t, slices=1 + i % 4) for i, t in enumerate(totals)]
            requests.append(comm.Ibarrier())
            for request in reversed(requests):
                request.Wait()
            for i, total in enumerate(totals):
                assert (total == sum(range(comm.size)) + comm.size * i).all()

    on_ranks(transport, 3, rank)


def test_a_blocking_call_behind_unfinished_ones(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        big = [np.ones(200_000) for _ in range(10)]
        requests = [comm.Iallreduce(pycomm.IN_PLACE, x) for x in big]
        total = np.array([1])
        comm.Allreduce(pycomm.IN_PLACE, total)
        assert total[0] == comm.size
        Request.Waitall(requests)
        assert all((x == comm.size).all() for x in big)

    on_ranks(transport, 3, rank)


def test_a_late_rank_stalls_one_communicator_only(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        one, other = comm.Split(0), comm.Split(0)
        assert one is not None and other is not None
        held = one.Iallreduce(pycomm.IN_PLACE, first := np.ones(3)) if comm.rank else None
        for _ in range(20):
            other.Allreduce(pycomm.IN_PLACE, x := np.ones(1000))
            assert (x == comm.size).all()
        other.Barrier()
        if held is None:
            one.Allreduce(pycomm.IN_PLACE, first := np.ones(3))
        else:
            held.Wait()
        assert (first == comm.size).all()

    on_ranks(transport, 3, rank)


def test_threads_with_a_communicator_each(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        comms = [comm.Split(0) for _ in range(3)]
        failures: list[BaseException] = []

        def work(own: pycomm.Comm, seed: int) -> None:
            try:
                for i in range(60):
                    x = np.full(1 + (i * 977 * seed) % 5000, own.rank + seed)
                    own.Allreduce(pycomm.IN_PLACE, x)
                    assert (x == sum(range(own.size)) + seed * own.size).all()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(own, i + 1)) for i, own in enumerate(comms)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    on_ranks(transport, 2, rank)


def test_wait_gives_up_without_ending_the_operation(transport: str) -> None:
    def rank(comm: pycomm.Comm, late: threading.Event) -> None:
        if comm.rank:
            late.wait(PATIENCE)
            comm.Barrier()
            return
        request = comm.Ibarrier()
        with pytest.raises(pycomm.DeadlineExceeded, match="it goes on"):
            request.Wait(timeout=0.1)
        assert not request.Test()
        late.set()
        request.Wait()
        assert request.Test(), "done stays done"
        request.Wait()

    on_ranks(transport, 2, rank, threading.Event())


def test_a_dropped_request_goes_on_with_its_buffers(transport: str) -> None:
    """Nobody keeps the request nor the arrays: the memory must stay theirs until the operation is done."""

    def rank(comm: pycomm.Comm, late: threading.Event) -> None:
        if comm.rank == 0:
            data = np.arange(200_000)
            alive = weakref.ref(data)
            comm.Isend(data, 1, 1)
            del data
            gc.collect()
            assert alive() is not None, "the core still reads from it"
            late.set()
            comm.Barrier()
            comm.Isend(np.zeros(1), 0, 2).Wait()
            assert until(lambda: alive() is None or comm.Isend(np.zeros(1), 0, 2).Test() is None, 2.0)
        else:
            late.wait(PATIENCE)
            got = np.empty(200_000, np.int64)
            comm.Recv(got, 0, 1)
            np.testing.assert_array_equal(got, np.arange(200_000))
            comm.Barrier()

    on_ranks(transport, 2, rank, threading.Event())


def test_requests_fail_when_their_communicator_is_freed(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        own = comm.Split(0)
        assert own is not None
        own.Barrier()
        comm.Barrier()  # nobody is still in the other one
        if comm.rank == 0:
            requests = [own.Irecv(np.zeros(3), 1, 1), own.Ibarrier(), own.Isend(np.zeros(100_000), 1, 7)]
            own.Free()
            for request in requests:
                with pytest.raises(pycomm.Aborted, match="freed"):
                    request.Wait()
                request.Wait()  # it has told its error
            for call in (own.Barrier, own.Ibarrier, own.Free, lambda: own.Allreduce(np.zeros(1), np.zeros(1)),
                         lambda: own.Send(np.zeros(1), 1), lambda: own.Irecv(np.zeros(1), 1), own.Split, own.Abort,
                         lambda: own.set_timeout(3.0)):  # fmt: skip
                if call == own.Free:
                    call()
                    continue
                with pytest.raises(pycomm.InvalidArgument, match="freed"):
                    call()
        else:
            with pytest.raises((pycomm.PeerLost, pycomm.Aborted)):
                own.Recv(np.zeros(3), 0, 2)
        comm.Barrier()

    on_ranks(transport, 2, rank)


def test_a_call_ends_when_another_thread_frees_the_communicator(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        own = comm.Split(0)
        assert own is not None
        if comm.rank == 0:
            timer = threading.Timer(0.1, own.Free)
            timer.start()
            with pytest.raises(pycomm.Aborted):
                own.Barrier()
            timer.join()
        comm.Barrier()

    on_ranks(transport, 2, rank)


def test_the_world_may_end_while_another_thread_frees_a_communicator(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Overtaken:
        def __getattr__(self, name: str) -> object:
            return getattr(core.lib, name)

        def pcm_comm_free(self, handle: object) -> None:
            core.lib.pcm_comm_free(handle)
            world.close()  # as another thread may, for this one does not hold the interpreter here

    world = World(0, 1, transports=transport)
    comm = pycomm.Comm(world, 1, [0])
    comm.Allreduce(np.ones(3), np.zeros(3))
    monkeypatch.setattr("pycomm.communicator.comm.lib", Overtaken())
    comm.Free()
    comm.Free()
    with pytest.raises(pycomm.InvalidArgument, match="freed"):
        comm.Barrier()


def test_waitall_waits_for_the_others_when_one_fails(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        if comm.rank == 0:
            comm.Send(np.zeros(5), 1, 1)
            comm.Send(np.ones(5), 1, 2)
        else:
            got = np.zeros(5)
            with pytest.raises(pycomm.Truncated):
                Request.Waitall([comm.Irecv(np.zeros(2), 0, 1), comm.Irecv(got, 0, 2)])
            assert (got == 1).all()
        comm.Barrier()

    on_ranks(transport, 2, rank)


def test_a_long_blocking_call_leaves_the_caller_nothing_to_do(transport: str) -> None:
    """A reduction's leaf returns as soon as its part is on its way; what is left of it must go without its help."""

    def rank(comm: pycomm.Comm, received: threading.Event) -> None:
        n = 500_000
        total = np.zeros(n)
        comm.Reduce(np.ones(n), total, root=1)
        if comm.rank == 1:
            assert (total == comm.size).all()
            received.set()
        assert received.wait(PATIENCE)

    on_ranks(transport, 3, rank, threading.Event())


def test_overlap_between_processes(transport: str) -> None:
    if "inproc" in transport:
        pytest.skip("inproc is for the threads of one process")

    def rank(comm: pycomm.Comm) -> None:
        total = np.ones(1_000_000)
        request = comm.Iallreduce(pycomm.IN_PLACE, total)
        assert until(lambda: total[0] == 3 and total[-1] == 3)
        request.Wait()
        comm.Barrier()

    on_processes(transport, 3, rank)
