"""Threads and communicators at once: what they have started ends in any order, and user code holds nobody up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
from conformance import PATIENCE, SHM, TCP, TRANSPORTS, on_processes, on_ranks

import pycomm
from pycomm import Request
from pycomm.data.op import Op
from pycomm.errors import PycommError
from pycomm.schedules.view import View

Check = Callable[[], bool]


def together(works: list[Callable[[], None]]) -> None:
    """Run each in a thread, and raise what the first of them raises."""
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def begin(comm: pycomm.Comm, kind: int, n: int) -> tuple[Request, Check]:
    """Start one of several operations with n elements; return it, and what looks at its result."""
    x, total, everything = np.full(n, comm.rank + 1.0), np.empty(n), np.empty(n * comm.size)
    left, right = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
    sum_of_all = comm.size * (comm.size + 1) / 2
    match kind % 5:
        case 0:
            return comm.Iallreduce(x, total), lambda: bool((total == sum_of_all).all())
        case 1:
            return comm.Ibcast(x, kind % comm.size), lambda: bool((x == kind % comm.size + 1).all())
        case 2:
            ranks = np.repeat(np.arange(1.0, comm.size + 1), n)
            return comm.Iallgather(x, everything), lambda: bool((everything == ranks).all())
        case 3:
            request = comm.Isendrecv(x, right, kind, total, left, kind)
            return request, lambda: bool((total == left + 1).all())
        case _:
            return comm.Ibarrier(), lambda: True


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_threads_start_on_communicators_ends_in_any_order(transport: str) -> None:
    """The order of starting is the same on all ranks, for each communicator; that of waiting is each rank's own."""

    def rank(comm: pycomm.Comm) -> None:
        comms = [[own for _ in range(2) if (own := comm.Split(0)) is not None] for _ in range(3)]

        def work(seed: int) -> None:
            alike, own = Random(seed), Random(100 * comm.rank + seed)
            for _ in range(4):
                started = [
                    begin(comms[seed][alike.randrange(2)], alike.randrange(100), alike.choice((1, 100, 30_000)))
                    for _ in range(8)
                ]
                own.shuffle(started)
                if own.random() < 0.5:
                    for request, is_right in started:
                        request.Wait()
                        assert is_right()
                    continue
                while started:
                    place = Request.Waitany([request for request, _ in started])
                    assert started.pop(place)[1]()

        together([lambda seed=seed: work(seed) for seed in range(3)])  # type: ignore[misc]

    on_ranks(transport, 3, rank)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_another_thread_waits_than_started_while_the_first_is_blocked(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        own = comm.Split(0)
        assert own is not None
        total = np.empty(200_000)
        request = comm.Iallreduce(np.ones(total.size), total)
        ended = threading.Event()

        def other() -> None:
            request.Wait()
            assert (total == comm.size).all()
            own.Send(np.zeros(1), own.rank, 5)  # which lets the first thread go
            ended.set()

        together([other, lambda: own.Recv(np.zeros(1), own.rank, 5)])
        assert ended.is_set()

    on_ranks(transport, 2, rank)


class Awaited:
    """An object in whose pickling, and unpickling, something is done."""

    do: Callable[[], None] = staticmethod(lambda: None)

    def __getstate__(self) -> int:
        Awaited.do()
        return 1

    def __setstate__(self, state: int) -> None:
        Awaited.do()


@pytest.mark.parametrize("transport", (SHM, TCP))
def test_no_lock_is_held_across_user_code(transport: str) -> None:
    """While user code runs, in all the places that call some, other threads' operations begin and end."""

    def rank(comm: pycomm.Comm) -> list[str]:
        other = comm.Split(0)
        assert other is not None
        seen: list[str] = []

        def meanwhile(where: str) -> None:
            """Have another thread call on another communicator, and begin to use one, and wait for it."""

            def work() -> None:
                other.Allreduce(np.ones(1000), total := np.empty(1000))
                assert (total == comm.size).all()
                new = other.Split(0)
                assert new is not None
                new.Allreduce(np.ones(5), np.empty(5), algorithm="ring")
                new.Free()
                seen.append(where)

            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"{where} is called under a lock"

        def combine(a: Any, b: Any, _: object) -> None:
            meanwhile("op")
            np.frombuffer(b, np.float64)[:] += np.frombuffer(a, np.float64)

        comm.Allreduce(np.ones(3), total := np.empty(3), op=Op.Create(combine, commute=False))
        assert (total == comm.size).all()

        def algorithm(v: View) -> None:
            if not seen or seen[-1] != "algorithm":
                meanwhile("algorithm")
            with v.round():
                for peer in range(v.size):
                    if peer != v.rank:
                        v.send(v.rank, to=peer)
                        v.recv(peer, frm=peer)

        comm.Allgather(np.full(2, 1.0), np.empty(2 * comm.size), algorithm=pycomm.algorithm("allgather")(algorithm))

        def copy(_: pycomm.Comm, keyval: int, value: object) -> object:
            meanwhile("copy")
            return value

        key = comm.Create_keyval(copy, lambda *_: meanwhile("delete"))
        comm.Set_attr(key, "value")
        twin = comm.Dup()
        twin.Free()
        Awaited.do = staticmethod(lambda: meanwhile("pickle"))
        comm.allgather(Awaited())
        request = comm.Iallreduce(np.ones(3), np.empty(3)).then(lambda _: meanwhile("then"))
        request.Wait()
        comm.Barrier()
        return seen

    for seen in on_processes(transport, 2, rank):
        assert set(seen) == {"op", "algorithm", "copy", "delete", "pickle", "then"}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_communicators_are_made_and_freed_by_threads_at_once(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        comms = [own for _ in range(3) if (own := comm.Split(0)) is not None]

        def work(parent: pycomm.Comm) -> None:
            for turn in range(10):
                own = parent.Split(0, turn)
                assert own is not None
                own.Allreduce(np.ones(turn + 1), total := np.empty(turn + 1))
                assert (total == own.size).all()
                own.Free()
                with pytest.raises(PycommError, match="freed"):
                    own.Barrier()

        together([lambda own=own: work(own) for own in comms])  # type: ignore[misc]

    on_ranks(transport, 2, rank)
