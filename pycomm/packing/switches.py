"""Takes the switches out of a network: what goes through one becomes arcs between its neighbours."""

from __future__ import annotations

import numpy as np

from .network import Counts, Matrix, Network


def without_switches(capacity: Matrix, roots: Counts) -> Matrix:
    """Return capacities between ranks alone that the links and switches of a machine have room for, all at once.

    Two arcs, into a switch and out of it, are replaced by one past it as far as all trees still reach every rank. Where as
    much enters a switch as leaves it, this uses up all of its arcs (Bang-Jensen, Frank and Jackson, "Preserving and
    increasing local edge-connectivity in mixed graphs", 1995; for collectives: Zhao et al., "ForestColl", arXiv 2402.06787).
    The shares of all pairs of neighbours are tried first, so that ranks on one switch reach each other directly.

    Args:
        capacity: whole numbers, of shape (vertices, vertices); ranks come first.
        roots: trees at each rank, all of which reach every rank.
    """
    ranks = len(roots)
    for switch in range(len(capacity) - 1, ranks - 1, -1):
        capacity = _without_last(capacity[: switch + 1, : switch + 1].copy(), roots)
    return capacity


def _without_last(capacity: Matrix, roots: Counts) -> Matrix:
    switch = len(capacity) - 1
    shares = _shares(capacity[:-1, switch], capacity[switch, :-1])
    split = capacity.copy()
    split[:-1, :-1] += shares
    split[:-1, switch] -= shares.sum(axis=1)
    split[switch, :-1] -= shares.sum(axis=0)
    if Network(split, roots).reaches_all(float(roots.sum())):
        capacity = split
    else:
        for u, v in zip(*np.nonzero(shares), strict=True):
            _split(capacity, roots, int(u), int(v), shares[u, v])
    for u in np.flatnonzero(capacity[:-1, switch]):
        for v in np.flatnonzero(capacity[switch, :-1]):
            if u != v:
                _split(capacity, roots, int(u), int(v), np.inf)
    return capacity[:-1, :-1]


def _shares(entering: Counts, leaving: Counts) -> Matrix:
    """Return what goes from each neighbour of a switch to each other one if all of it is spread evenly."""
    others = leaving.sum() - leaving  # what may leave of that which a neighbour sends in
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.where(others > 0, entering / others, 0.0)[:, None] * leaving[None, :]
        np.fill_diagonal(spread, 0.0)
        spread *= np.minimum(1.0, np.where(leaving > 0, leaving / spread.sum(axis=0), 0.0))
    whole: Matrix = np.floor(spread * (1 + 1e-12))
    return whole


def _split(capacity: Matrix, roots: Counts, u: int, v: int, most: float) -> None:
    """Let as much go from u to v past the last vertex as keeps all trees at every rank; no more than `most`."""
    switch, wanted = len(capacity) - 1, float(roots.sum())
    most = min(most, capacity[u, switch], capacity[switch, v])
    if most < 1:
        return
    network, ranks = Network(capacity, roots), range(len(roots))
    near = [rank for rank in (u, v) if rank in ranks]
    # Two kinds of cuts lose what is split: those that have u and v on the source's side and the switch on the other ...
    for rank in ranks:
        if most > 0 and rank not in near:
            most = min(most, network.flow((switch, rank), wanted + most, also=(u, v)) - wanted)
    # ... and those that have them on the other side, where there must be a rank; u or v may be it.
    for rank in near[:1] or ranks:
        if most > 0:
            most = min(most, network.flow({u, v, rank}, wanted + most, also=(switch,)) - wanted)
    capacity[u, switch] -= most
    capacity[switch, v] -= most
    capacity[u, v] += most
