"""Whoever has not the job's secret gets nothing from the hub or from a rank, is counted, and harms nobody."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zmq
from launch_helpers import as_rank, free_port, hub_in_rank_0, my_rank

import pycomm
from pycomm.data import pickles
from pycomm.job.keys import curve_pair, derive
from pycomm.job.launch import run_ranks
from pycomm.job.rendezvous import Rendezvous

SECRET = b"s" * 32


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "the hub has not counted the stranger"
        time.sleep(0.01)


def raw(port: int, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(data)
        connection.settimeout(0.5)
        try:
            while connection.recv(4096):
                pass
        except OSError:
            pass


def garbage(port: int) -> None:
    raw(port, bytes(range(256)) * 16)


def http(port: int) -> None:
    raw(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")


def plain_zmq(port: int) -> None:
    knock(port, lambda dealer: None)


def wrong_secret(port: int) -> None:
    def dress(dealer: zmq.Socket[bytes]) -> None:
        dealer.curve_publickey, dealer.curve_secretkey = curve_pair(b"w" * 32, "rank")
        dealer.curve_serverkey = curve_pair(b"w" * 32, "hub")[0]

    knock(port, dress)


def right_hub_wrong_rank_key(port: int) -> None:
    def dress(dealer: zmq.Socket[bytes]) -> None:
        dealer.curve_publickey, dealer.curve_secretkey = zmq.curve_keypair()
        dealer.curve_serverkey = curve_pair(SECRET, "hub")[0]

    knock(port, dress)


def knock(port: int, dress: Callable[[zmq.Socket[bytes]], None]) -> None:
    context = zmq.Context(1)
    dealer = context.socket(zmq.DEALER)
    dealer.linger = 0
    dress(dealer)
    dealer.connect(f"tcp://127.0.0.1:{port}")
    dealer.send_multipart([b"hello", b"1", b"2", b"4660", b"0", b"%d" % os.getpid(), b"x", b"y"])
    dealer.send_multipart([b"blob", b"0", b"false"])
    assert not dealer.poll(300), "the hub has answered a stranger"
    dealer.close()
    context.term()


@pytest.mark.parametrize("stranger", [garbage, http, plain_zmq, wrong_secret, right_hub_wrong_rank_key])
def test_a_stranger_is_refused_counted_and_harmless(stranger: Callable[[int], None]) -> None:
    port = free_port()
    base = hub_in_rank_0(2, f"tcp://127.0.0.1:{port}", SECRET)
    gate = os.pipe()

    def rank() -> tuple[list[bytes], list[bytes]]:
        if my_rank() == 1:
            # The stranger comes before the ranks have met, and again after.
            os.read(gate[0], 1)
        rendezvous = Rendezvous(as_rank(base, my_rank()))
        told: list[int] = []
        rendezvous.watch(lambda lost, why: told.append(lost))
        if my_rank() == 0:
            stranger(port)
            wait_until(lambda: rendezvous.refused > 0)
            os.write(gate[1], b"x")
        first = rendezvous.exchange(b"first %d" % my_rank())
        if my_rank() == 0:
            before = rendezvous.refused
            stranger(port)
            wait_until(lambda: rendezvous.refused > before)
        second = rendezvous.exchange(b"second %d" % my_rank())
        assert told == []
        rendezvous.close()
        return first, second

    assert run_ranks(2, rank) == [([b"first 0", b"first 1"], [b"second 0", b"second 1"])] * 2


def test_keys_differ_by_secret_and_purpose() -> None:
    keys = {derive(secret, purpose) for secret in (b"a" * 16, b"b" * 16, b"c" * 100) for purpose in ("x", "y")}
    assert len(keys) == 6
    assert derive(b"a" * 16, "x") == derive(b"a" * 16, "x")
    assert len(derive(b"a" * 16, "x", 8)) == 8


def ports() -> list[int]:
    """Return the ports at which this process listens."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as known:
            if known.family == socket.AF_INET and known.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.append(known.getsockname()[1])
    return found


def test_strangers_change_no_result() -> None:
    """Hundreds of them knock at the ranks' own ports during allreduces."""
    words = (b"GET / HTTP/1.1\r\n\r\n", b"pycomm\r\n" + bytes(128), bytes(64), b"")

    def rank() -> tuple[int, int]:
        comm = pycomm.init(transports="tcp")
        own = np.arange(1 << 18, dtype=np.float32) + comm.rank
        wanted = 2 * np.arange(1 << 18, dtype=np.float32) + 1
        doors = [port for each in comm.allgather(ports()) for port in each]
        held = []
        for call in range(40):
            for number in range(8):
                if comm.rank == 0:
                    held.append(socket.create_connection(("127.0.0.1", doors[number % len(doors)]), timeout=10))
                    held[-1].sendall(words[number // len(doors) % len(words)])
            out = np.zeros_like(own)
            comm.Allreduce(own, out)
            assert np.array_equal(out, wanted)
            if call % 2:
                while held:
                    held.pop().close()
        return len(doors), comm._world.refused

    (doors, first), (_, second) = run_ranks(2, rank)
    assert doors >= 2
    assert first > 0 and second > 0


def test_objects_are_unpickled_from_ranks_alone() -> None:
    """A stranger who brings a pickle to every port of a rank in `recv` has none of it run."""

    def rank(folder: str) -> object:
        class Mischief:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return os.mkdir, (folder,)

        comm = pycomm.init(transports="tcp")
        frame = bytes(pickles.dumps(Mischief()))
        doors = [port for each in comm.allgather(ports()) for port in each]
        if comm.rank == 1:
            for port in doors:
                for said in (frame, b"pycomm\r\n" + bytes(128) + frame, bytes(16) + frame, pickle.dumps(Mischief())):
                    raw(port, said)
            comm.send("what a rank sends", 0)
            return None
        return comm.recv()

    with tempfile.TemporaryDirectory() as place:
        assert run_ranks(2, rank, f"{place}/made") == ["what a rank sends", None]
        assert not Path(place, "made").exists()
