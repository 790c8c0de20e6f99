"""PYCOMM_ENCRYPT=1: what crosses a network is hidden, what was changed on the way is an error, and all ranks agree."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest

import pycomm
from pycomm.job.launch import run_ranks
from pycomm.world import World

MARK = np.frombuffer(b"what nobody but the ranks may see: " * 8, np.uint8)


class Relay:
    """Somebody between two ranks, who hears all that the caller says, and may change it."""

    def __init__(self, door: tuple[str, int], behind: tuple[str, int]) -> None:
        self.heard, self.change = bytearray(), False
        self._behind = behind
        self._door = socket.create_server(door)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._door.accept()
            except OSError:
                return
            other = socket.create_connection(self._behind)
            threading.Thread(target=self._pass, args=(caller, other, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(other, caller, False), daemon=True).start()

    def _pass(self, source: socket.socket, to: socket.socket, listen: bool) -> None:
        try:
            while data := bytearray(source.recv(1 << 16)):
                if listen and self.change:
                    data[-1] ^= 1
                    self.change = False
                if listen:
                    self.heard += data
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()


@contextmanager
def pair(encrypt: bool) -> Iterator[tuple[list[pycomm.Comm], Relay]]:
    """Two ranks in this process; rank 0 reaches rank 1 by way of a relay, and calls first."""
    with ExitStack() as stack:
        worlds = [
            World(r, 2, job=5, transports="tcp", secret=b"s" * 32, listen="127.0.0.1", encrypt=encrypt,
                  advertise="127.0.0.2" if r else None)
            for r in range(2)
        ]  # fmt: skip
        for world in worlds:
            stack.callback(world.close)
        addresses = [world.address() for world in worlds]
        port = int.from_bytes(addresses[1][12:14], "little")  # 3, tcp, length, mark, family, port
        relay = Relay(("127.0.0.2", port), ("127.0.0.1", port))
        stack.callback(relay.close)
        for world in worlds:
            world.set_peers(addresses)
        comms = [pycomm.Comm(world, 1, range(2)) for world in worlds]
        for comm in comms:
            comm.set_timeout(20)
        yield comms, relay


def send_one(comms: list[pycomm.Comm]) -> None:
    got = np.zeros_like(MARK)
    sent = comms[0].Isend(MARK, 1, 3)
    comms[1].Recv(got, 0, 3)
    sent.Wait()
    assert np.array_equal(got, MARK)


@pytest.mark.parametrize("encrypt", [False, True])
def test_who_listens_hears_nothing(encrypt: bool) -> None:
    with pair(encrypt) as (comms, relay):
        for _ in range(5):
            send_one(comms)
        assert len(relay.heard) > 5 * MARK.size
        assert (MARK.tobytes()[:32] in relay.heard) != encrypt  # the other case shows that the relay does hear


def test_one_bit_that_was_flipped_is_an_error() -> None:
    with pair(True) as (comms, relay):
        send_one(comms)
        relay.change = True
        sent = comms[0].Isend(MARK, 1, 3)
        with pytest.raises(pycomm.PeerLost, match="changed on the way") as caught:
            comms[1].Recv(np.zeros_like(MARK), 0, 3)
        assert caught.value.rank == 0
        sent.Wait()


def test_collectives_and_objects_are_encrypted() -> None:
    def rank() -> tuple[float, list[int]]:
        comm = pycomm.init(transports="tcp")
        big = np.full(1 << 20, comm.rank + 1.0)
        out = np.empty_like(big)
        for _ in range(3):
            comm.Allreduce(big, out)
        assert (out == 6.0).all()
        return float(out[0]), comm.allgather(comm.rank)

    assert run_ranks(3, rank, env={"PYCOMM_ENCRYPT": "1"}) == [(6.0, [0, 1, 2])] * 3


def test_ranks_that_differ_are_told() -> None:
    def rank() -> str:
        os.environ["PYCOMM_ENCRYPT"] = os.environ["PYCOMM_RANK"]
        comm = pycomm.init(transports="tcp")
        with pytest.raises(pycomm.Mismatch, match="PYCOMM_ENCRYPT") as caught:
            comm.Barrier()
        assert caught.value.rank == 1 - comm.rank
        return str(caught.value)

    first, second = run_ranks(2, rank)
    assert "rank 1 encrypts its connections, and this rank does not" in first
    assert "rank 0 does not encrypt its connections, and this rank does" in second


HIDE = "for f in $(ldconfig -p | sed -n 's/.*libcrypto.*=> //p'); do mount --bind /dev/null $(readlink -f $f); done; "


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="only root can hide a library")
def test_without_openssl_it_says_so() -> None:
    program = "from pycomm.world import World; World(0, 2, transports='shm,tcp', secret=b's' * 32, encrypt=True)"
    command = ["unshare", "-m", "sh", "-c", HIDE + 'exec "$0" -c "$1"', sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "InvalidArgument: encryption is asked for, and there is no OpenSSL (libcrypto.so.3" in done.stderr


@pytest.mark.parametrize(
    ("transports", "how", "why"),
    [
        ("shm,mpi:1", {"encrypt": True, "secret": b"s" * 32}, "what goes over MPI is not encrypted"),
        ("shm,tcp", {"encrypt": True}, "there is no secret"),
        ("shm,tcp", {"streams": 9}, "`streams` is 9"),
    ],
)
def test_a_transport_that_cannot_do_as_it_is_told_is_not_left_out(transports: str, how: Any, why: str) -> None:
    with pytest.raises(pycomm.InvalidArgument, match=why):
        World(0, 2, transports=transports, **how)
