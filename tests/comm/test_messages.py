"""Messages between two ranks: matching, sizes, statuses, many at once, several threads and communicators."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from conformance import TRANSPORTS, on_processes, on_ranks, until

import pycomm
from pycomm import ANY_SOURCE, ANY_TAG, Request, Status

SIZES = (
    0,
    1,
    24,
    25,
    1000,
    32 * 1024,
    32 * 1024 + 1,
    65536,
    200_000,
)  # bytes: inline, eager, announced, many fragments

pytestmark = pytest.mark.parametrize("transport", TRANSPORTS)


def content(seed: int, nbytes: int) -> np.ndarray:
    return ((np.arange(nbytes, dtype=np.uint32) * 31 + seed * 17) % 251).astype(np.uint8)


def test_sizes_and_statuses(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        other = 1 - comm.rank
        for tag, nbytes in enumerate(SIZES):
            got, status = np.full(nbytes + 5, 7, np.uint8), Status()
            if comm.rank == 0:
                comm.Send(content(tag, nbytes), other, tag)
                comm.Recv(got, other, tag, status)
            else:
                comm.Recv(got, other, tag, status)
                comm.Send(content(tag, nbytes), other, tag)
            assert (status.source, status.tag, status.nbytes) == (other, tag, nbytes)
            np.testing.assert_array_equal(got[:nbytes], content(tag, nbytes))
            assert (got[nbytes:] == 7).all()

    on_ranks(transport, 2, rank)


def test_both_send_first(transport: str) -> None:
    """Twenty megabytes each way: sending must not need the other side to have received."""

    def rank(comm: pycomm.Comm) -> None:
        nbytes, other = 20_000_000, 1 - comm.rank
        send = comm.Isend(content(comm.rank, nbytes), other)
        got = np.empty(nbytes, np.uint8)
        comm.Recv(got, other)
        send.Wait()
        assert (got == content(other, nbytes)).all()

    on_ranks(transport, 2, rank)


def test_tags_out_of_order(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        tags = [3, 0, 2**31 - 1, 1, 2]
        for size in (100, 100_000):
            if comm.rank == 0:
                Request.Waitall([comm.Isend(content(tag % 97, size), 1, tag) for tag in tags])
            else:
                for tag in sorted(tags):
                    got = np.empty(size, np.uint8)
                    comm.Recv(got, 0, tag)
                    np.testing.assert_array_equal(got, content(tag % 97, size))

    on_ranks(transport, 2, rank)


def test_messages_of_one_tag_keep_their_order(transport: str) -> None:
    """Also where short and long ones, which travel differently, alternate."""

    def rank(comm: pycomm.Comm) -> None:
        sizes = [40_000 if i % 3 == 0 else i for i in range(60)]
        if comm.rank == 0:
            Request.Waitall([comm.Isend(content(i, n), 1, 5) for i, n in enumerate(sizes)])
            comm.Barrier()
            Request.Waitall([comm.Isend(content(i, n), 1, 5) for i, n in enumerate(sizes)])
            return
        for late in (False, True):  # posted before the messages come, then after
            if late:
                comm.Barrier()
            got = [np.empty(40_000, np.uint8) for _ in sizes]
            if not late:
                Request.Waitall([comm.Irecv(buf, 0, 5) for buf in got])
            else:
                for buf, tag in zip(got, [5, ANY_TAG] * 30, strict=True):
                    comm.Recv(buf, ANY_SOURCE, tag)
            for i, (buf, n) in enumerate(zip(got, sizes, strict=True)):
                np.testing.assert_array_equal(buf[:n], content(i, n))

    on_ranks(transport, 2, rank)


def test_any_source_and_any_tag(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        if comm.rank:
            for i in range(10):
                comm.Send(np.array([comm.rank, i]), 0, comm.rank * 100 + i)
            return
        seen: dict[int, list[int]] = {r: [] for r in range(1, comm.size)}
        for _ in range(10 * (comm.size - 1)):
            got, status = np.empty(2, np.int64), Status()
            comm.Recv(got, ANY_SOURCE, ANY_TAG, status)
            assert status.source == got[0] and status.tag == got[0] * 100 + got[1] and status.nbytes == 16
            seen[status.source].append(int(got[1]))
        assert all(order == list(range(10)) for order in seen.values())

    on_ranks(transport, 5, rank)


def test_a_receive_from_one_rank_passes_over_others(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        if comm.rank < 2:
            comm.Send(np.array([comm.rank], np.int32), 2, 9)
            comm.Barrier()
        else:
            comm.Barrier()  # both are here, unexpected
            got = np.empty(1, np.int32)
            for source in (1, 0):
                comm.Recv(got, source)
                assert got[0] == source

    on_ranks(transport, 3, rank)


def test_to_oneself(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        for nbytes in SIZES:
            got, status = np.empty(nbytes, np.uint8), Status()
            comm.Send(content(1, nbytes), comm.rank, 4)
            comm.Recv(got, ANY_SOURCE, ANY_TAG, status)
            np.testing.assert_array_equal(got, content(1, nbytes))
            assert (status.source, status.tag, status.nbytes) == (comm.rank, 4, nbytes)
            receive = comm.Irecv(got, comm.rank, 5)
            assert not receive.Test()
            comm.Send(content(2, nbytes), comm.rank, 5)
            receive.Wait()
            np.testing.assert_array_equal(got, content(2, nbytes))

    on_ranks(transport, 2, rank)


@pytest.mark.parametrize("nbytes", (10, 50_000, 300_000))
@pytest.mark.parametrize("late", (False, True))
def test_too_long_for_its_buffer(transport: str, nbytes: int, late: bool) -> None:
    """Truncated on the receiver alone; the rest of the traffic goes on."""

    def rank(comm: pycomm.Comm) -> None:
        if comm.rank == 0:
            if not late:
                comm.Barrier()
            send = comm.Isend(content(0, nbytes), 1, 1)
            comm.Isend(content(1, nbytes), 1, 2).Wait()
            send.Wait()
            if late:
                comm.Barrier()
            return
        short, full = np.full(nbytes - 1, 3, np.uint8), np.empty(nbytes, np.uint8)
        status = Status()
        if late:
            second = comm.Irecv(full, 0, 2)
            second.Wait()
            request = comm.Irecv(short, 0, 1)
        else:
            request = comm.Irecv(short, 0, 1)
            comm.Barrier()
        with pytest.raises(pycomm.Truncated, match=f"{nbytes} bytes from rank 0 with tag 1 .* {nbytes - 1} bytes"):
            request.Wait(status)
        assert (short == 3).all(), "nothing is written where it does not fit"
        if late:
            comm.Barrier()
        else:
            comm.Recv(full, 0, 2)
        np.testing.assert_array_equal(full, content(1, nbytes))

    on_ranks(transport, 2, rank)


def test_other_dtype_is_a_mismatch_on_both_sides(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        with pytest.raises(
            pycomm.Mismatch, match="rank 0 sends float32 with tag 3 where rank 1 receives int32"
        ) as caught:
            if comm.rank == 0:
                comm.Send(np.zeros(4, np.float32), 1, 3)
                comm.Recv(np.zeros(1), 1, 4)
            else:
                comm.Recv(np.zeros(4, np.int32), 0, 3)
        assert caught.value.rank == 1 - comm.rank

    on_ranks(transport, 2, rank)


def test_many_in_flight_complete_in_any_order(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        random = np.random.default_rng(comm.rank)
        plan = np.random.default_rng(99).integers(0, 90_000, (comm.size, comm.size, 12))  # [source, target, tag]
        receives = {}
        sends = []
        for tag in random.permutation(12):
            for peer in random.permutation(comm.size):
                receives[peer, tag] = (np.empty(90_000, np.uint8), None)
                buf = receives[peer, tag][0]
                receives[peer, tag] = (buf, comm.Irecv(buf, int(peer), int(tag)))
                n = int(plan[comm.rank, peer, tag])
                sends.append(comm.Isend(content(comm.rank + int(tag), n), int(peer), int(tag)))
        left = list(receives)
        while left:
            at = left[random.integers(len(left))]
            buf, request = receives[at]
            status = Status()
            if request.Test(status):
                left.remove(at)
                assert (status.source, status.tag, status.nbytes) == (at[0], at[1], plan[at[0], comm.rank, at[1]])
                n = status.nbytes
                np.testing.assert_array_equal(buf[:n], content(at[0] + at[1], n))
        Request.Waitall(sends)

    on_ranks(transport, 4, rank)


def test_messages_beside_collectives(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
        for i in range(50):
            got, total = np.empty(30_000 + i), np.array([1.0])
            receive = comm.Irecv(got, left, i)
            reduce = comm.Iallreduce(pycomm.IN_PLACE, total)
            send = comm.Isend(np.full(30_000 + i, float(comm.rank)), right, i)
            comm.Barrier()
            Request.Waitall([receive, reduce, send])
            assert (got == left).all() and total[0] == comm.size

    on_ranks(transport, 3, rank)


def test_several_threads_at_once(transport: str) -> None:
    """Each pair of threads talks by a tag of its own, on one communicator."""

    def rank(comm: pycomm.Comm) -> None:
        failures: list[BaseException] = []

        def talk(tag: int) -> None:
            try:
                for i in range(40):
                    n = (tag * 7919 + i * 104_729) % 60_000
                    got = np.empty(n, np.uint8)
                    receive = comm.Irecv(got, 1 - comm.rank, tag)
                    comm.Send(content(i + tag, n), 1 - comm.rank, tag)
                    receive.Wait()
                    np.testing.assert_array_equal(got, content(i + tag, n))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=talk, args=(tag,)) for tag in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    on_ranks(transport, 2, rank)


def test_what_was_sent_is_delivered_though_the_sender_leaves(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        own = comm.Split(0)
        assert own is not None
        if comm.rank == 0:
            for i in range(3):
                own.Send(content(i, 30_000), 1, i)
            own.Free()
            comm.Barrier()
        else:
            got = np.empty(30_000, np.uint8)
            own.Recv(got, 0, 0)
            comm.Barrier()
            for i in (1, 2):
                own.Recv(got, 0, i)
                np.testing.assert_array_equal(got, content(i, 30_000))
            with pytest.raises(pycomm.PeerLost) as caught:
                own.Recv(got, 0, 3)
            assert caught.value.rank == 0

    on_ranks(transport, 2, rank)


def test_an_unmatched_receive_from_anybody_ends_when_nobody_is_left(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        own = comm.Split(0)
        assert own is not None
        own.Barrier()
        if comm.rank:
            own.Send(np.zeros(1), 0)
            own.Free()
        else:
            for _ in range(comm.size - 1):
                own.Recv(np.zeros(1))
            with pytest.raises(pycomm.PeerLost):
                own.Recv(np.zeros(1))
        comm.Barrier()

    on_ranks(transport, 3, rank)


def test_wrong_arguments(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        for call in (
            lambda peer, tag: comm.Isend(np.zeros(1), peer, tag),
            lambda peer, tag: comm.Irecv(np.zeros(1), peer, tag),
        ):
            for peer in (2, 100, -3, 1 << 40):
                with pytest.raises(pycomm.InvalidArgument, match=r"no rank .* in a communicator of 2"):
                    call(peer, 0)
            for tag in (-2, 1 << 31):
                with pytest.raises(pycomm.InvalidArgument, match="tag"):
                    call(0, tag)
        with pytest.raises(pycomm.InvalidArgument, match="no rank -1"):
            comm.Send(np.zeros(1), ANY_SOURCE)
        with pytest.raises(pycomm.InvalidArgument, match="tag"):
            comm.Send(np.zeros(1), 0, ANY_TAG)
        frozen = np.zeros(1)
        frozen.flags.writeable = False
        comm.Isend(frozen, comm.rank)
        with pytest.raises(pycomm.InvalidArgument, match="read-only"):
            comm.Recv(frozen, comm.rank)

    on_ranks(transport, 2, rank)


def test_between_processes(transport: str) -> None:
    if "inproc" in transport:
        pytest.skip("inproc is for the threads of one process")

    def rank(comm: pycomm.Comm) -> None:
        receives = [np.empty(n, np.uint8) for n in SIZES]
        for peer in range(comm.size):
            requests = [comm.Irecv(buf, peer, tag) for tag, buf in enumerate(receives)]
            if comm.rank == peer:
                for target in range(comm.size):
                    requests += [comm.Isend(content(peer, n), target, tag) for tag, n in enumerate(SIZES)]
            Request.Waitall(requests)
            for buf in receives:
                np.testing.assert_array_equal(buf, content(peer, buf.size))

    on_processes(transport, 5, rank)


def test_from_oneself_after_all_others_have_left(transport: str) -> None:
    """A receive from any rank is no reason to fail as long as this rank may still send to itself."""

    def rank(comm: pycomm.Comm) -> None:
        own = comm.Split(0)
        assert own is not None
        own.Sendrecv(np.zeros(1), 1 - comm.rank, 1, np.zeros(1), 1 - comm.rank, 1)
        if comm.rank == 1:
            own.Free()
        comm.Barrier()
        if comm.rank == 0:
            own.Iprobe()  # so that it is known that the other has left
            got = np.zeros(1)
            request = own.Irecv(got, ANY_SOURCE, 5)
            assert not request.Test()
            own.Send(np.array([7.0]), 0, 5)
            request.Wait()
            assert got[0] == 7
            with pytest.raises(pycomm.PeerLost, match="rank 1 has left"):
                own.Recv(got, ANY_SOURCE, 6)
        comm.Barrier()

    on_ranks(transport, 2, rank)


def test_short_messages_that_wait_leave_together(transport: str) -> None:
    """More than the lane holds, of all lengths, some announced; received before they come, and after."""
    lengths = [(977 * k) % 3000 if k % 50 else 40_000 for k in range(400)]

    def rank(comm: pycomm.Comm) -> None:
        peer = 1 - comm.rank
        for late in (False, True):
            own = [np.full(n, k % 251, np.uint8) for k, n in enumerate(lengths)]
            got = [np.zeros(n, np.uint8) for n in lengths]
            if late:
                sent = [comm.Isend(block, peer, k % 7) for k, block in enumerate(own)]
                comm.Barrier()
            statuses: list[Status] = []
            received = [comm.Irecv(block, peer, k % 7) for k, block in enumerate(got)]
            if not late:
                comm.Barrier()
                sent = [comm.Isend(block, peer, k % 7) for k, block in enumerate(own)]
            Request.Waitall(received, statuses)
            Request.Waitall(sent)
            assert all((block == k % 251).all() for k, block in enumerate(got))
            assert [(s.source, s.tag, s.nbytes) for s in statuses] == [(peer, k % 7, n) for k, n in enumerate(lengths)]

    on_ranks(transport, 2, rank)


def test_a_message_of_a_pack_that_does_not_fit_fails_alone(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        if comm.rank == 0:
            Request.Waitall([comm.Isend(np.full(1 + (k == 30), k), 1) for k in range(60)])
            return
        got = [np.full(1, -1) for _ in range(60)]
        with pytest.raises(pycomm.Truncated, match="16 bytes from rank 0"):
            Request.Waitall([comm.Irecv(block, 0) for block in got])
        assert [block[0] for block in got] == [-1 if k == 30 else k for k in range(60)]

    on_ranks(transport, 2, rank)


def test_progress_while_nobody_waits(transport: str) -> None:
    """Long messages, and more short ones than the lane holds: the library's threads must move them."""

    def rank(comm: pycomm.Comm, done: threading.Barrier) -> None:
        if comm.rank == 0:
            requests = [comm.Isend(np.full(n, 3.0), 1) for n in (300_000, *[4] * 50)]
        else:
            got = [np.zeros(n) for n in (300_000, *[4] * 50)]
            requests = [comm.Irecv(block, 0) for block in got]
            assert until(lambda: all(block[-1] == 3 for block in got)), "the library made no progress on its own"
        done.wait()
        Request.Waitall(requests)

    on_ranks(transport, 2, rank, threading.Barrier(2))
