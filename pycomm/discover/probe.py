"""Measures the network between hosts, one rank of each: latencies of pairs, then what each can send and receive.

All hosts do the same step at once, each with the host so many places further on. The receivers' clocks tell how long it
takes; nobody needs to know the others'. A host is judged by the best partner that it had, so that one slow host does
not make two look slow. Sizes double until a transfer takes long enough to be told from what buckets and buffers hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np

from ..communicator.comm import MAX, SUM, Comm
from ..data.buffer import IN_PLACE

_NEAR = 4.0  # times the least latency, up to which two hosts are at one site,
_ALWAYS_NEAR = (
    3e-3  # seconds, below which they always are: a busy host answers no sooner, and nobody saves on such a line
)
_ALL_PAIRS = 16  # hosts, up to which every pair is tried for latency; beyond, those 1, 2, 4, ... places apart
_PINGS = 3
_FAN_OUTS = 5  # times that all send to many: the least counts
_MANY = 3  # partners, from which on that tells what a message costs
_FIRST, _LARGEST = 1 << 17, 1 << 28  # bytes
_LONG = 0.06  # seconds that the last transfer takes at least,
_ROUND_TRIPS = 12  # and that many round trips: windows grow by doubling
_LEAD = 4  # a fourth as many bytes go ahead
_STEP = 8  # times as long as the transfer before one is at most: its rate says less of a much longer one
_REPEATS = 3  # transfers of the longest: windows still grow, what else runs makes some slow, and none fast
_PARTNERS = 3  # that a host's rate is measured with


class Lines(NamedTuple):
    """What was measured.

    Attributes:
        latency: seconds from host to host, (hosts, hosts), inf where it was not measured.
        message: seconds that one more message to and from other hosts takes a host; 0 where few hosts do not tell.
        sites: which hosts are near each other.
        rates: bytes per second of each host.
        far_rates: of each site, to the others and back; empty if there is one.
    """

    latency: np.ndarray
    message: float
    sites: tuple[tuple[int, ...], ...]
    rates: np.ndarray
    far_rates: np.ndarray


def measure(leaders: Comm) -> Lines:
    """Measure; all ranks of the communicator, one a host, must call this, and get the same."""
    latency = _latencies(leaders)
    message = _message(leaders)
    sites = sites_of(latency)
    trip = 2 * float(latency[np.isfinite(latency)].min())
    far_trip = 2 * float(latency[np.isfinite(latency)].max())
    own = next(site for site in sites if leaders.rank in site)
    rates = np.zeros(leaders.size)
    most = max(map(len, sites))
    for shift in range(1, 1 + min(_PARTNERS, most - 1)):
        rates = np.maximum(rates, _rates(leaders, _shifted(own, leaders.rank, shift), trip))
    far_rates = np.zeros(0)
    if len(sites) > 1:
        far = _rates(leaders, _across(sites, leaders.rank), far_trip)
        far_rates = np.array([far[list(site)].sum() for site in sites])
        rates = np.maximum(rates, far)  # a site's only host has no other partner
    return Lines(latency, message, sites, rates, far_rates)


def sites_of(latency: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """Return which hosts are near each other: those joined by latencies not far above the least.

    Args:
        latency: seconds between hosts, (hosts, hosts); inf where it was not measured.
    """
    apart = np.where(np.eye(len(latency), dtype=bool), np.inf, np.minimum(latency, latency.T))
    near = apart <= max(_ALWAYS_NEAR, _NEAR * float(apart.min()))
    site = np.arange(len(latency))
    for _ in site:  # each takes the least number among those near it, as often as that changes anything
        least = np.minimum(site, np.where(near, site, len(site)).min(axis=1))
        if (least == site).all():
            break
        site = least
    return tuple(tuple(int(h) for h in np.flatnonzero(site == number)) for number in np.unique(site))


def _shifts(size: int) -> Sequence[int]:
    """Return how many places further on a host's partners are."""
    return range(1, size) if size <= _ALL_PAIRS else [1 << k for k in range(size.bit_length()) if 1 << k < size]


def _latencies(leaders: Comm) -> np.ndarray:
    size, rank = leaders.size, leaders.rank
    own = np.full(size, np.inf)
    token, answer = np.zeros(1, np.uint8), np.zeros(1, np.uint8)
    for shift in _shifts(size):
        to, frm = (rank + shift) % size, (rank - shift) % size
        for ping in range(_PINGS + 1):  # the first one connects
            leaders.Barrier()
            before = perf_counter()
            for there, back in ((to, frm), (frm, to)):
                request = leaders.Irecv(answer, back)
                leaders.Send(token, there)
                request.Wait()
            if ping:
                own[to] = min(own[to], (perf_counter() - before) / 2)
    table = np.empty((size, size))
    leaders.Allgather(own, table)
    return table


def _message(leaders: Comm) -> float:
    """Return what a message costs a host, from how much longer messages to all partners take than one to the farthest.

    What one message takes on its way is latency; the others of a burst wait for processors, cards and whatever passes
    on packets between hosts.
    """
    partners = _shifts(leaders.size)
    if len(partners) < _MANY:
        return 0.0
    alone = max(min(_fan_out(leaders, [shift]) for _ in range(2)) for shift in partners)
    together = min(_fan_out(leaders, partners) for _ in range(_FAN_OUTS))
    return max(0.0, together - alone) / (len(partners) - 1)


def _fan_out(leaders: Comm, shifts: Sequence[int]) -> float:
    """Return the seconds in which every host has sent a short message to each of these partners, and got theirs."""
    size, rank = leaders.size, leaders.rank
    token, answers = np.zeros(1, np.uint8), np.zeros((len(shifts), 1), np.uint8)
    leaders.Barrier()
    before = perf_counter()
    requests = [leaders.Irecv(answer, (rank - shift) % size) for shift, answer in zip(shifts, answers, strict=True)]
    requests += [leaders.Isend(token, (rank + shift) % size) for shift in shifts]
    for request in requests:
        request.Wait()
    return _slowest(leaders, perf_counter() - before)


def _shifted(site: Sequence[int], rank: int, shift: int) -> tuple[int, int] | None:
    """Return whom a host sends to, and from whom it receives, that many places further in its site; None: nobody."""
    place = site.index(rank)
    if shift % len(site) == 0:
        return None
    return site[(place + shift) % len(site)], site[(place - shift) % len(site)]


def _across(sites: Sequence[Sequence[int]], rank: int) -> tuple[int, int] | None:
    """Return the same for a partner in the next site, and in the one before: as many pairs as all sites have hosts."""
    number = next(i for i, site in enumerate(sites) if rank in site)
    place = sites[number].index(rank)
    if place >= min(map(len, sites)):
        return None
    return sites[(number + 1) % len(sites)][place], sites[number - 1][place]


def _rates(leaders: Comm, partners: tuple[int, int] | None, trip: float) -> np.ndarray:
    """Return what each host could both send and receive in a second, while all do; 0 of those without partners."""
    long = max(_LONG, _ROUND_TRIPS * trip)
    nbytes = _FIRST
    while (slowest := _slowest(leaders, _transfer(leaders, partners, nbytes))) < long and nbytes < _LARGEST:
        nbytes = min(_LARGEST, nbytes * min(_STEP, max(2, round(long / slowest))))
    took = min(_transfer(leaders, partners, nbytes) for _ in range(_REPEATS if slowest < 4 * long else 1))
    received, sent = np.zeros((2, leaders.size))
    if partners is not None:
        received[leaders.rank] = sent[partners[1]] = nbytes / took
    leaders.Allreduce(IN_PLACE, received, SUM)
    leaders.Allreduce(IN_PLACE, sent, SUM)
    return np.minimum(received, sent)


def _slowest(leaders: Comm, seconds: float) -> float:
    said = np.array([seconds])
    leaders.Allreduce(IN_PLACE, said, MAX)
    return float(said[0])


def _transfer(leaders: Comm, partners: tuple[int, int] | None, nbytes: int) -> float:
    """Return the seconds in which this host got so many bytes, after some others.

    Those others take what is not the rate: that hosts far away begin later, and that windows open slowly.
    """
    leaders.Barrier()
    if partners is None:
        return 0.0
    to, frm = partners
    lead = nbytes // _LEAD
    data, room = np.zeros(lead + nbytes, np.uint8), np.ones(lead + nbytes, np.uint8)
    receives = [leaders.Irecv(part, frm) for part in (room[:lead], room[lead:])]
    sends = [leaders.Isend(part, to) for part in (data[:lead], data[lead:])]
    receives[0].Wait()
    before = perf_counter()
    receives[1].Wait()
    took = perf_counter() - before
    for send in sends:
        send.Wait()
    return max(took, 1e-6)
