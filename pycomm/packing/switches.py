"""Takes the switches out of a network: what goes through them becomes arcs between ranks, as messages go."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt

from .network import Counts, Matrix, Network, all_reached

Way = tuple[int, ...]  # vertices, from one to another
Pieces = dict[Way, float]  # what goes along each way


def without_switches(capacity: Matrix, roots: Counts, routes: Collection[Way], *, strictly: bool) -> Matrix:
    """Return capacities between ranks alone that the links and switches of a machine have room for, all at once.

    Two arcs, into a switch and out of it, are replaced by one past it as far as all trees still reach every rank. First
    it is tried to spread what enters evenly, so that ranks on one switch reach each other directly; and ways that
    messages would not take come last. Where as much enters each switch as leaves it, all trees reach every rank in the
    end (Bang-Jensen, Frank and Jackson, "Preserving and increasing local edge-connectivity in mixed graphs", 1995; for
    collectives: Zhao et al., "ForestColl", arXiv 2402.06787); elsewhere, and strictly, perhaps not.

    Args:
        capacity: whole numbers, of shape (vertices, vertices); ranks come first.
        roots: trees at each rank, all of which reach every rank.
        routes: the ways between ranks that messages take, and all parts of them.
        strictly: whether other ways are no ways at all.
    """
    ranks, n = len(roots), len(capacity)
    links = zip(*(ends.tolist() for ends in np.nonzero(capacity)), strict=True)
    pieces: Pieces = {(u, v): float(capacity[u, v]) for u, v in links if (u, v) in routes or not strictly}
    order = list(range(ranks))
    for switch in range(n - 1, ranks - 1, -1):
        _take_out(pieces, n, switch, roots, routes, strictly, order)
    return _matrix(pieces, n)[:ranks, :ranks]


def _take_out(
    pieces: Pieces, n: int, switch: int, roots: Counts, routes: Collection[Way], strictly: bool, order: list[int]
) -> None:
    entering = [way for way in pieces if way[-1] == switch]
    leaving = [way for way in pieces if way[0] == switch]
    shape = len(entering), len(leaving)
    usable = np.array([a + b[1:] in routes for a in entering for b in leaving], np.bool_).reshape(shape)
    shares = _shares([pieces[way] for way in entering], [pieces[way] for way in leaving], usable)
    spread = dict(pieces)
    for i, j in zip(*np.nonzero(shares), strict=True):
        _move(spread, entering[i], leaving[j], shares[i, j])
    if all_reached(_matrix(spread, n), roots):
        pieces.clear()
        pieces.update(spread)
        shares[:] = 0.0
    others = np.array([a[0] != b[-1] and not strictly for a in entering for b in leaving], np.bool_).reshape(shape)
    for most in (shares, np.where(usable, np.inf, 0.0), np.where(others, np.inf, 0.0)):
        for i, j in zip(*np.nonzero(most), strict=True):
            into, out = entering[i], leaving[j]
            amount = min(pieces.get(into, 0.0), pieces.get(out, 0.0), most[i, j])
            if amount >= 1:
                _move(pieces, into, out, _spared(_matrix(pieces, n), roots, (into[0], switch, out[-1]), amount, order))
    for way in (*entering, *leaving):  # what is left goes nowhere
        pieces.pop(way, None)


def _shares(entering: list[float], leaving: list[float], usable: npt.NDArray[np.bool_]) -> Matrix:
    """Return how much goes from each arc into a switch to each one out of it if all is spread evenly.

    Args:
        entering, leaving: what the arcs carry.
        usable: from which to which something may go.
    """
    spread = usable * np.array(leaving)[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        spread *= np.nan_to_num(np.array(entering) / spread.sum(axis=1), posinf=0.0)[:, None]
        spread *= np.minimum(1.0, np.nan_to_num(np.array(leaving) / spread.sum(axis=0), posinf=0.0))
    whole: Matrix = np.floor(spread * (1 + 1e-12))
    return whole


def _spared(capacity: Matrix, roots: Counts, way: Way, most: float, order: list[int]) -> float:
    """Return how much may go past a switch instead of to it and from it, so that all trees still reach every rank.

    Args:
        capacity, roots: as for `without_switches`.
        way: from where, the switch, and to where.
        most: no more than this is looked for.
        order: the ranks; one that binds comes first from then on, as it may bind again.
    """
    network, wanted, ranks = Network(capacity, roots), float(roots.sum()), len(roots)
    u, switch, v = way
    near = [rank for rank in (u, v) if rank < ranks]
    # Two kinds of cuts lose what goes past: those with u and v on the source's side and the switch on the other, ...
    cuts: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = [
        (rank, (switch, rank), (u, v)) for rank in order if rank not in near
    ]
    # ... and those with u and v on the other side, where there is some rank, which one of them may be.
    cuts += [(rank, (u, v, rank), (switch,)) for rank in near[:1] or order]
    for rank, sinks, also in cuts:
        spared = network.flow(sinks, wanted + most, also) - wanted
        if spared < most:
            order.remove(rank)
            order.insert(0, rank)
            most = spared
        if most < 1:
            return 0.0
    return most


def _move(pieces: Pieces, into: Way, out: Way, amount: float) -> None:
    """Let some of what goes to a switch and on from it go past it."""
    if amount > 0:
        for way, more in ((into, -amount), (out, -amount), (into + out[1:], amount)):
            pieces[way] = pieces.get(way, 0.0) + more
            if not pieces[way]:
                del pieces[way]


def _matrix(pieces: Pieces, n: int) -> Matrix:
    capacity = np.zeros((n, n))
    for way, amount in pieces.items():
        capacity[way[0], way[-1]] += amount
    return capacity


def parts(ways: Iterator[Way]) -> set[Way]:
    """Return all parts of some ways that are a link or more."""
    return {way[i:j] for way in ways for i in range(len(way)) for j in range(i + 2, len(way) + 1)}
