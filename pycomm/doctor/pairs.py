"""Measures pairs of ranks: how long a short message takes, how many bytes a second pass each way, how clocks differ."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..communicator.comm import Comm

_ALL = 16  # ranks of a host, and hosts, up to which all pairs are tried; beyond, those 1, 2, 4, ... places apart
_PINGS = (10, 200)  # at least and at most
_PINGING = 0.1  # seconds
_FIRST, _LARGEST = 1 << 17, 1 << 25  # bytes
_LONG = 0.06  # seconds that the last transfer takes at least
_ROUND_TRIPS = 12  # and that many round trips: windows grow by doubling
_STEP = 8  # times as long as the transfer before one is at most
_REPEATS = 3  # of the longest: what else runs makes some slow, and none fast

Round = tuple[tuple[int, int], ...]


class Line(NamedTuple):
    """What two ranks have found, as `Pair` has it: `there` is from the first of them to the second."""

    latency: float
    there: float
    back: float
    ahead: float


def rounds(hosts: Sequence[Sequence[int]]) -> list[Round]:
    """Return the pairs of ranks to be measured, in rounds in which no host has two: they would share a card.

    Among the ranks of a host, and among the first ranks of hosts, all pairs; of more than 16, those 1, 2, 4, ...
    places apart.

    Args:
        hosts: the ranks of each.
    """
    host_of = {rank: number for number, ranks in enumerate(hosts) for rank in ranks}
    pairs = [*_pairs([ranks[0] for ranks in hosts]), *(pair for ranks in hosts for pair in _pairs(ranks))]
    made: list[list[tuple[int, int]]] = []
    busy: list[set[int]] = []
    for a, b in pairs:
        both = {host_of[a], host_of[b]}
        place = next((place for place, used in enumerate(busy) if not used & both), len(made))
        if place == len(made):
            made.append([])
            busy.append(set())
        made[place].append((a, b))
        busy[place] |= both
    return [tuple(one) for one in made]


def _pairs(ranks: Sequence[int]) -> Iterable[tuple[int, int]]:
    size = len(ranks)
    shifts = range(1, size) if size <= _ALL else [1 << k for k in range(size.bit_length()) if 1 << k < size]
    found = {tuple(sorted((ranks[i], ranks[(i + shift) % size]))) for shift in shifts for i in range(size)}
    return sorted((a, b) for a, b in found)


def connect(pair: Comm) -> None:
    """Have the two ranks of a communicator reach each other.

    Raises:
        PycommError: they do not, or not in time.
    """
    _ping_once(pair, np.zeros(1))


def measure(pair: Comm) -> Line:
    """Measure; both ranks of a communicator that is connected must call this, and get the same.

    Raises:
        PycommError: something has failed on the way, or took too long.
    """
    latency, ahead = _ping(pair)
    there, back = (_rate(pair, sender, latency) for sender in (0, 1))
    return Line(latency, there, back, ahead)


def clock() -> float:
    """Return the time of this host's clock, in seconds."""
    return time.time()


def _ping(pair: Comm) -> tuple[float, float]:
    """Return the latency, and how far the second rank's clock is ahead: by the answer that came soonest (as in NTP)."""
    best = np.array([np.inf, 0.0])
    message = np.zeros(1)
    count = np.array([min(_PINGS[1], max(_PINGS[0], int(_PINGING / max(_ping_once(pair, message)[0], 1e-9))))])
    _tell(pair, count, 0)
    for _ in range(int(count[0])):
        took, ahead = _ping_once(pair, message)
        if took < best[0]:
            best[:] = took, ahead
    _tell(pair, best, 0)
    return float(best[0]) / 2, float(best[1])


def _ping_once(pair: Comm, message: np.ndarray) -> tuple[float, float]:
    if pair.rank:
        pair.Recv(message, 0)
        message[0] = clock()
        pair.Send(message, 0)
        return 0.0, 0.0
    before, sent = time.perf_counter(), clock()
    pair.Send(message, 1)
    pair.Recv(message, 1)
    took, received = time.perf_counter() - before, clock()
    return took, float(message[0]) - (sent + received) / 2


def _rate(pair: Comm, sender: int, latency: float) -> float:
    """Return the bytes per second from one to the other, by transfers that grow until the last one is long enough."""
    long = max(_LONG, _ROUND_TRIPS * 2 * latency)
    nbytes = _FIRST
    while (took := _transfer(pair, sender, nbytes, latency)) < long and nbytes < _LARGEST:
        nbytes = min(_LARGEST, nbytes * min(_STEP, max(2, round(long / took))))
    return nbytes / min(
        took, *(_transfer(pair, sender, nbytes, latency) for _ in range(_REPEATS if took < 4 * long else 1))
    )


def _transfer(pair: Comm, sender: int, nbytes: int, latency: float) -> float:
    """Return the seconds in which the receiver got so many bytes, from when it has asked for them, but for the way."""
    took = np.zeros(1)
    if pair.rank == sender:
        data = np.ones(nbytes, np.uint8)
        _tell(pair, took, 1 - sender)
        pair.Send(data, 1 - sender)
    else:
        room = np.ones(nbytes, np.uint8)  # whose pages are there
        request = pair.Irecv(room, sender)
        before = time.perf_counter()
        _tell(pair, took, 1 - sender)
        request.Wait()
        took[0] = time.perf_counter() - before
        took[0] = max(took[0] - 2 * latency, took[0] / 4)
    _tell(pair, took, 1 - sender)
    return float(took[0])


def _tell(pair: Comm, values: np.ndarray, source: int) -> None:
    """Give both what one has."""
    if pair.rank == source:
        pair.Send(values, 1 - source)
    else:
        pair.Recv(values, source)
