"""Doubling: in every round what a rank knows is twice as much. Fewest rounds; for small messages."""

from __future__ import annotations

from pycomm.schedules.registry import algorithm
from pycomm.schedules.view import View

from ._shapes import folded, log2_ceil, unfolded


@algorithm("allreduce", name="doubling", cite="Thakur, Rabenseifner & Gropp, IJHPCA 19 (2005)")
def allreduce(v: View) -> None:
    """Exchange everything with partners 1, 2, 4, ... away: log2 p rounds of n bytes, 2 more if p is no power of 2."""
    partner, number = folded(v.rank, v.size)
    if partner >= 0:
        with v.round():
            if number < 0:
                v.send(0, to=partner)
            else:
                v.reduce(0, frm=partner)
    if number >= 0:
        for k in range(v.size.bit_length() - 1):
            peer = unfolded(number ^ 1 << k, v.size)
            with v.round():
                v.send(0, to=peer)
                v.reduce(0, frm=peer)
    if partner >= 0:
        with v.round():
            if number < 0:
                v.recv(0, frm=partner)
            else:
                v.send(0, to=partner)


@algorithm("scan", name="doubling", cite="Hillis & Steele, Commun. ACM 29 (1986)")
def scan(v: View) -> None:
    """Send everything 1, 2, 4, ... ranks up: ceil(log2 p) rounds of n bytes, any p."""
    for k in range(log2_ceil(v.size)):
        with v.round():
            if v.rank + (1 << k) < v.size:
                v.send(0, to=v.rank + (1 << k))
            if v.rank >= 1 << k:
                v.reduce(0, frm=v.rank - (1 << k))


@algorithm("scan", name="chain", cite="MPI standard 4.1, section 6.11")
def chain_scan(v: View) -> None:
    """Pass the sum so far from each rank to the next: p-1 hops, which slices run through as a pipeline."""
    if v.rank:
        with v.round():
            v.reduce(0, frm=v.rank - 1)
    if v.rank < v.size - 1:
        with v.round():
            v.send(0, to=v.rank + 1)


@algorithm("exscan", name="doubling", cite="Hillis & Steele, Commun. ACM 29 (1986)")
def exscan(v: View) -> None:
    """Hand each part one rank up, then scan those: 1 + ceil(log2(p-1)) rounds of n bytes."""
    _one_up(v)
    if v.rank:
        scan(v.sub(range(1, v.size)))


@algorithm("exscan", name="chain", cite="MPI standard 4.1, section 6.11")
def chain_exscan(v: View) -> None:
    """Hand each part one rank up, then pass the sum so far along: p-1 hops, run through as a pipeline."""
    _one_up(v)
    if v.rank:
        chain_scan(v.sub(range(1, v.size)))


@algorithm("barrier", name="dissemination", cite="Hensgen, Finkel & Manber, Int. J. Parallel Program. 17 (1988)")
def barrier(v: View) -> None:
    """Tell ranks 1, 2, 4, ... up what was heard: ceil(log2 p) rounds, any p."""
    for k in range(log2_ceil(v.size)):
        with v.round():
            v.send(0, to=v.rank + (1 << k))
            v.reduce(0, frm=v.rank - (1 << k))


def _one_up(v: View) -> None:
    with v.round():
        if v.rank < v.size - 1:
            v.send(0, to=v.rank + 1)
        if v.rank:
            v.recv(0, frm=v.rank - 1)
