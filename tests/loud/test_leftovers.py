"""Worlds leave nothing behind: no memory, no descriptors, no threads, no processes; and strangers do them no harm."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
from conformance import INPROC, SHM, TCP, TRANSPORTS, descriptors, on_ranks

import pycomm
from pycomm.job.launch import spawn
from pycomm.world import World


def use(comm: pycomm.Comm) -> None:
    own = comm.Split(comm.rank % 2)
    assert own is not None
    total = np.empty(100_000)
    comm.Allreduce(np.ones(100_000), total)
    own.Iallreduce(pycomm.IN_PLACE, total)  # dropped
    comm.Isend(total, comm.rank)
    comm.Irecv(np.empty(100_000), comm.rank).Wait()
    comm.Isend(np.zeros(3), (comm.rank + 1) % comm.size)  # never received
    comm.Barrier()
    if comm.rank == 0:
        own.Free()


def memory() -> int:
    return psutil.Process().memory_info().rss


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_fifty_worlds_in_one_process(transport: str) -> None:
    for _ in range(5):
        on_ranks(transport, 3, use)
    gc.collect()
    before = descriptors(), threading.active_count(), len(psutil.Process().threads())
    rss = memory()
    for _ in range(45):
        on_ranks(transport, 3, use)
    gc.collect()
    assert (descriptors(), threading.active_count(), len(psutil.Process().threads())) == before
    assert memory() - rss < 45 * 3 * 200_000, "less than a quarter of one array a rank and world"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_freeing_while_others_connect_loses_nobody(transport: str) -> None:
    """A communicator that one side frees while its channels are being opened takes nothing else along."""

    def rank(comm: pycomm.Comm) -> None:
        for _ in range(100):
            own = comm.Split(0)
            assert own is not None
            with contextlib.suppress(pycomm.PycommError):  # it may have been freed already
                own.Iallreduce(pycomm.IN_PLACE, np.zeros(1))  # dropped
            if comm.rank == 0:
                own.Free()
            comm.Barrier()

    on_ranks(transport, 3, rank)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_receives_that_nobody_answers(transport: str) -> None:
    """Channels that only one side has opened go away with their world."""

    def rank(comm: pycomm.Comm) -> None:
        own = comm.Split(0)
        assert own is not None
        if comm.rank == 0:
            own.Irecv(np.zeros(1))

    for _ in range(3):
        on_ranks(transport, 3, rank)
    before, maps = descriptors(), len(psutil.Process().memory_maps(grouped=False))
    for _ in range(20):
        on_ranks(transport, 3, rank)
    assert descriptors() == before
    assert len(psutil.Process().memory_maps(grouped=False)) < maps + 20


def shared_files() -> set[str]:
    """What is in /dev/shm, without the files of MPIs, whose jobs other tests start and end meanwhile."""
    mpis = ("open_mpi", "sm_segment", "mpich_shm", "Intel_MPI")
    return {name for name in os.listdir("/dev/shm") if not name.startswith(mpis)}


@pytest.mark.parametrize("transport", (SHM, TCP))
def test_a_job_leaves_no_process_and_no_file(transport: str) -> None:
    def rank() -> list[str]:
        comm = pycomm.init()
        with contextlib.suppress(pycomm.Recoverable):  # another may have left already, with this in flight
            comm.Allreduce(np.ones(10), np.empty(10))
            comm.Iallreduce(np.ones(10), np.empty(10))
        return [transport]

    shared = shared_files()
    children = {p.pid for p in psutil.Process().children(recursive=True)}
    outcomes = spawn(3, rank, env={"PYCOMM_TRANSPORTS": transport}, timeout=40.0)
    assert [o.code for o in outcomes] == [0, 0, 0]
    assert {p.pid for p in psutil.Process().children(recursive=True)} <= children
    assert shared_files() == shared


@pytest.mark.parametrize("transport", (SHM, TCP))
def test_a_receive_from_anybody_goes_on_without_those_who_have_left(transport: str) -> None:
    def rank() -> list[str]:
        comm = pycomm.init()
        unused = comm.Dup()  # no two of its ranks are connected yet
        pids = comm.allgather(os.getpid())
        if comm.rank == 1:
            return ["left"]
        with contextlib.suppress(psutil.NoSuchProcess):
            while psutil.Process(pids[1]).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
        if comm.rank == 2:
            time.sleep(0.3)
            unused.send("late", 0)
            said = unused.recv(source=0)
            comm.send("heard", 0)  # before `unused` fails
            return [said]
        said = unused.recv(source=pycomm.ANY_SOURCE)
        unused.send(said, 2)
        comm.recv(source=2)
        with pytest.raises(pycomm.PeerLost, match="rank 1 has left"):
            unused.recv(source=1)
        return [said]

    outcomes = spawn(3, rank, env={"PYCOMM_TRANSPORTS": transport}, timeout=40.0)
    assert [(o.error, o.value) for o in outcomes] == [(None, ["late"]), (None, ["left"]), (None, ["late"])]


def test_the_interpreter_ends_with_operations_in_flight() -> None:
    program = """
import threading, time
import numpy as np, pycomm
from pycomm.world import World
worlds = [World(r, 2, job=7, transports="shm") for r in range(2)]
for w in worlds:
    w.set_peers([x.address() for x in worlds])
comms = [pycomm.Comm(w, 1, range(2)) for w in worlds]
requests = [comms[0].Iallreduce(np.ones(100_000), np.ones(100_000)), comms[0].Irecv(np.ones(5), 1, 3)]
def blocked():
    try:
        comms[0].Recv(np.ones(5), 1, 4)
    except pycomm.Recoverable:  # aborted, or lost if the other world was closed first
        print("told")
        time.sleep(0.1)
t = threading.Thread(target=blocked, daemon=True)
t.start()
time.sleep(0.3)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Exception" not in done.stderr, done.stderr


def test_close_twice_and_calls_afterwards() -> None:
    world = World(0, 1, transports=INPROC)
    comm = pycomm.Comm(world, 1, [0])
    comm.Barrier()
    request = comm.Irecv(np.zeros(1), 0)
    world.close()
    world.close()
    with pytest.raises(pycomm.Aborted):
        request.Wait()
    for call in (comm.Barrier, lambda: comm.Send(np.zeros(1), 0), lambda: comm.Allreduce(np.zeros(1), np.zeros(1))):
        with pytest.raises(pycomm.InvalidArgument, match="freed"):
            call()
    for ask in (world.address, world.trace, lambda: world.transport(0), lambda: world.refused,
                lambda: pycomm.Comm(world, 2, [0])):  # fmt: skip
        with pytest.raises(pycomm.InvalidArgument, match="closed"):
            ask()


def test_strangers_at_the_door_do_no_harm() -> None:
    """Connections that talk nonsense, say nothing, or leave at once, during all-reduces over tcp."""

    def listening() -> list[tuple[str, int]]:
        return [tuple(c.laddr) for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN]

    known = set(listening())

    def rank(comm: pycomm.Comm) -> int:
        comm.Barrier()
        if comm.rank == 0:
            doors = set(listening()) - known
            assert len(doors) >= comm.size
            strangers = []
            for where in doors:
                for words in (b"", b"GET / HTTP/1.0\r\n\r\n", b"\0" * 4096, os.urandom(300)):
                    stranger = socket.create_connection(where, timeout=5)
                    stranger.sendall(words)
                    strangers.append(stranger)
                socket.create_connection(where, timeout=5).close()
        for i in range(30):
            total = np.empty(10_000)
            comm.Allreduce(np.full(10_000, float(i)), total)
            assert (total == comm.size * i).all()
        comm.Barrier()
        refused = comm._world.refused
        if comm.rank == 0:
            for stranger in strangers:
                stranger.close()
        return refused

    refused = pycomm.run_threads(3, rank, transports=TCP, secret=b"secret")
    assert all(count >= 2 for count in refused), refused
