"""What the links of a laboratory do: rates, delays, losses, cables; seen by plain sockets."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pycomm.errors import InvalidArgument
from pycomm.lab import Event, Lab
from pycomm.lab.model import address

MakeLab = Callable[[str], Lab]

_TYPE = 0x88B5  # of Ethernet frames: IEEE 802's first one for local experiments
_SECONDS = 0.3


def _connected(lab: Lab, source: int, target: int, rail: int = 0) -> tuple[socket.socket, socket.socket]:
    with lab.network(target), socket.create_server((address(target, rail), 0)) as listener:
        with lab.network(source):
            one = socket.create_connection(listener.getsockname(), 10)
        other, _ = listener.accept()
    other.settimeout(10)
    return one, other


def _rate(lab: Lab, source: int, target: int, rail: int = 0) -> float:
    """Bytes that a stream carries a second, after its first ones."""
    one, other = _connected(lab, source, target, rail)
    with one, other:
        sending = threading.Thread(target=_send, args=(one,))
        sending.start()
        other.recv(1 << 20)
        start, got = time.perf_counter(), 0
        while piece := other.recv(1 << 20):
            got += len(piece)
        rate = got / (time.perf_counter() - start)
        sending.join()
    return rate


def _send(stream: socket.socket) -> None:
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        stream.sendall(bytes(1 << 14))
    stream.shutdown(socket.SHUT_WR)


def _round_trip(lab: Lab, source: int, target: int) -> float:
    """The least of a few round trips, in seconds."""
    one, other = _connected(lab, source, target)
    with one, other:
        trips = []
        for _ in range(3):
            start = time.perf_counter()
            one.sendall(b"x")
            other.sendall(other.recv(1))
            one.recv(1)
            trips.append(time.perf_counter() - start)
    return min(trips)


def _raw(lab: Lab, host: int) -> socket.socket:
    """A socket for Ethernet frames of the type for experiments."""
    with lab.network(host):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_TYPE))
        raw.bind(("eth0", _TYPE))
    raw.settimeout(0.3)
    return raw


def _broadcast(raw: socket.socket, number: int) -> None:
    raw.sendto(struct.pack("!I", number), ("eth0", _TYPE, 0, 0, b"\xff" * 6))


def _numbers(raw: socket.socket) -> list[int]:
    """The numbers in the frames that come, until none comes."""
    found = []
    try:
        while True:
            found += struct.unpack("!I", raw.recv(2048)[:4])
    except TimeoutError:
        return found


def test_each_rail_has_its_rate(make_lab: MakeLab) -> None:
    lab = make_lab('[[host]]\ncount = 2\nnics = ["80Mbit", "20Mbit"]')
    for rail, nominal in enumerate((10e6, 2.5e6)):
        assert 0.5 * nominal < _rate(lab, 0, 1, rail) < 1.2 * nominal


def test_a_rate_changes(make_lab: MakeLab) -> None:
    lab = make_lab('[[host]]\ncount = 2\nnics = ["80Mbit"]')
    lab.set_rate("host1", 0, 1e6)
    assert 0.5e6 < _rate(lab, 0, 1) < 1.2e6
    lab.set_rate("host1", 0, float("inf"))
    assert _rate(lab, 0, 1) > 1.2e6


def test_delays_add_up(make_lab: MakeLab) -> None:
    lab = make_lab(
        '[[host]]\nname = "n"\nsite = "n"\nnics = ["inf"]\ndelay = "3ms"\n'
        '[[host]]\nname = "s"\nsite = "s"\nnics = ["inf"]\n'
        '[[trunk]]\nsites = ["n", "s"]\nrate = "80Mbit"\ndelay = "5ms"'
    )
    assert _round_trip(lab, 0, 1) >= 2 * (0.003 + 0.005)
    assert 0.5 * 10e6 < _rate(lab, 0, 1) < 1.2 * 10e6


SITES = """
[[host]]
name = "n"
site = "n"
nics = ["inf", "inf"]
[[host]]
name = "s"
site = "s"
nics = ["inf", "inf"]
[[trunk]]
sites = ["n", "s"]
rate = "80Mbit"
"""


def test_the_rate_of_a_line_between_sites_changes_on_all_rails(make_lab: MakeLab) -> None:
    lab = make_lab(SITES)
    lab.set_trunk_rate(["s", "n"], 1e6)
    for rail in (0, 1):
        assert 0.5e6 < _rate(lab, 0, 1, rail) < 1.2e6
    lab.apply(Event(0.0, sites=("n", "s"), rate=float("inf")))
    assert _rate(lab, 1, 0) > 1.2e6


@pytest.mark.parametrize("delay", ["0ms", "1ms"])
def test_a_line_between_sites_is_cut_and_mended(make_lab: MakeLab, delay: str) -> None:
    lab = make_lab(f'{SITES}delay = "{delay}"')
    with _raw(lab, 0) as one, _raw(lab, 1) as other:
        _broadcast(other, 0)
        assert _numbers(one) == [0]
        lab.apply(Event(0.0, sites=("n", "s"), up=False))
        _broadcast(other, 1)
        assert _numbers(one) == []
        lab.trunk_up(["n", "s"])
        _until_heard(one, other)


def test_a_cable_is_pulled_and_plugged_in(make_lab: MakeLab) -> None:
    lab = make_lab('[[host]]\ncount = 2\nnics = ["inf"]')
    with _raw(lab, 0) as one, _raw(lab, 1) as other:
        lab.down("host0")
        _broadcast(other, 1)
        assert _numbers(one) == []
        lab.up("host0")
        _until_heard(one, other)


def _until_heard(one: socket.socket, other: socket.socket) -> None:
    """Broadcast frames until one comes: a switch takes a moment to see a cable."""
    deadline, number = time.monotonic() + 10, 1
    while not (got := _numbers(one)) and time.monotonic() < deadline:
        _broadcast(other, number := number + 1)
    assert got and got[0] > 1


def _arrived(lab: Lab, frames: int) -> list[int]:
    with _raw(lab, 0) as one, _raw(lab, 1) as other:
        for number in range(frames):
            _broadcast(one, number)
        return _numbers(other)


def test_losses_replay(make_lab: MakeLab) -> None:
    """Half of the frames are lost, and the same ones with the same seed."""
    text = 'seed = {}\n[[host]]\nnics = ["inf"]\nloss = 0.5\n[[host]]\nname = "b"\nnics = ["inf"]'
    first, again, other = (_arrived(make_lab(text.format(seed)), 200) for seed in (1, 1, 2))
    assert first == again != other
    assert 60 < len(first) < 140


def test_frames_do_not_go_in_circles_among_sites(make_lab: MakeLab) -> None:
    names = ("a", "b", "c")
    hosts = [f'[[host]]\nname = "{name}"\nsite = "{name}"\nnics = ["inf"]' for name in names]
    trunks = [f'[[trunk]]\nsites = ["{a}", "{b}"]\nrate = "1Gbit"' for a, b in ("ab", "bc", "ac")]
    lab = make_lab("\n".join([*hosts, *trunks]))
    with _raw(lab, 0) as one, _raw(lab, 1) as second, _raw(lab, 2) as third:
        _broadcast(one, 5)
        assert (_numbers(second), _numbers(third), _numbers(one)) == ([5], [5], [])


def test_a_host_sees_itself_alone(make_lab: MakeLab) -> None:
    lab = make_lab('congestion = "reno"\n[[host]]\ncount = 2\nnics = ["inf", "inf"]')

    def look() -> tuple[str, list[str], str]:
        congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
        return socket.gethostname(), sorted(p.name for p in Path("/sys/class/net").iterdir()), congestion

    assert lab.run_ranks(2, look) == [(f"host{number}", ["eth0", "eth1", "lo"], "reno") for number in range(2)]


def test_what_is_not_there_cannot_be_changed(make_lab: MakeLab) -> None:
    lab = make_lab('[[host]]\ncount = 2\nnics = ["inf"]')
    with pytest.raises(InvalidArgument, match="no host 'x'"):
        lab.down("x")
    with pytest.raises(InvalidArgument, match="no card 1"):
        lab.set_rate(0, 1, 1e6)
    with pytest.raises(InvalidArgument, match="a rate is above 0"):
        lab.set_rate(0, 0, 0.0)
    with pytest.raises(InvalidArgument, match="no line between 'a' and 'b'"):
        lab.trunk_down(["a", "b"])
