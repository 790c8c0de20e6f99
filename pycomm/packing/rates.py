"""How many trees are packed, rooted where, and how many an arc carries: few that come near to the best rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from .network import Counts, Matrix, Network

_ENOUGH = 0.99  # of the best rate: no more trees are tried
_MOST_TREES = 1024  # of all roots together: each is a chunk
MOST_OF_ROOT = 32  # trees of a rank
_GRADES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, _ENOUGH)  # of the best rate, by which numbers of trees are compared
_ROOTS = 8  # that are tried, of more ranks
_DIGITS = 1e-5  # how exactly the scale of capacities is found


class Rate(NamedTuple):
    """What is to be packed.

    Attributes:
        roots: trees at each rank, whole numbers, of shape (ranks,).
        scale: seconds for each byte of what a tree carries, so that a link has room for scale * bandwidth trees.
        efficiency: the rate over the best one that any number of trees would reach.
    """

    roots: Counts
    scale: float
    efficiency: float

    def capacity(self, bandwidth: Matrix) -> Matrix:
        """Return how many trees each arc can carry, whole numbers, of the shape of `bandwidth`."""
        return _capacity(bandwidth, self.scale)

    def slower(self, factor: float) -> Rate:
        """Return the same trees at a rate that is so much less."""
        return Rate(self.roots, self.scale * factor, self.efficiency / factor)


def equal(bandwidth: Matrix, ranks: int) -> Rate:
    """Return the rate of as many trees at each rank.

    Args:
        bandwidth: bytes per second of each ordered pair of vertices, of which ranks come first.
        ranks: how many.
    """
    best = _least_scale(bandwidth, np.ones(ranks), whole=False)
    counts = range(1, max(1, min(MOST_OF_ROOT, _MOST_TREES // ranks)) + 1)
    return _fewest(bandwidth, ((np.full(ranks, float(k)), k * best) for k in counts))


def fixed(bandwidth: Matrix, roots: Counts) -> Rate:
    """Return the rate of trees that are rooted where somebody says; arguments as for `equal`, `Rate`."""
    return _fewest(bandwidth, [(roots, _least_scale(bandwidth, roots, whole=False))])


def trees_of_any_root(bandwidth: Matrix, ranks: int) -> int:
    """Return how many trees suit all roots: the fewest that come near to the best rate of the worst root."""
    some = range(0, ranks, -(-ranks // _ROOTS))
    best = {root: _least_scale(bandwidth, _at(root, ranks, 1), whole=False) for root in some}
    fewest, reached = 1, 0.0
    for trees in range(1, MOST_OF_ROOT + 1):
        for enough in _GRADES:  # ascending
            if enough > reached:
                if not all(_suffices(bandwidth, _at(root, ranks, trees), trees * best[root] / enough) for root in some):
                    break
                fewest, reached = trees, enough
        if reached >= _ENOUGH:
            break
    return fewest


def free(bandwidth: Matrix, ranks: int) -> Rate:
    """Return the rate of trees that are rooted where it is best; arguments as for `equal`.

    Trees can be packed that are rooted anywhere if and only if each partition of the ranks into k parts lets k - 1
    times as many of them in (Frank, "On disjoint trees and arborescences", 1978), which is the bound of an allreduce.
    """
    best = _least_scale_of_any(bandwidth, ranks, 1.0, whole=False)
    even = equal(bandwidth, ranks)
    scale = float(even.roots.sum()) * best
    even = even._replace(efficiency=scale / _least_scale(bandwidth, even.roots, whole=True))
    rates, trees = [even], ranks
    while max(rate.efficiency for rate in rates) < _ENOUGH and trees <= _MOST_TREES:
        found = _least_scale_of_any(bandwidth, ranks, float(trees), whole=True)
        roots = _fewest_roots(bandwidth, ranks, float(trees), found, whole=True)
        roots[np.argmin(roots)] += trees - roots.sum()  # a partition may leave room for more
        rates.append(Rate(roots, found, trees * best / found))
        trees *= 2
    return max(rates, key=lambda rate: rate.efficiency)


def _fewest(bandwidth: Matrix, tried: Iterable[tuple[Counts, float]]) -> Rate:
    """Return the first of several numbers of trees that comes near to the best rate, or the nearest of all.

    Args:
        bandwidth: see `equal`.
        tried: trees at each rank, and the scale of capacities that would do if they need not be whole.
    """
    best: Rate | None = None
    for roots, scale in tried:
        if best is not None and not _suffices(bandwidth, roots, scale / best.efficiency):
            continue
        found = _least_scale(bandwidth, roots, whole=True)
        rate = Rate(roots, found, scale / found)
        if best is None or rate.efficiency > best.efficiency:
            best = rate
        if best.efficiency >= _ENOUGH:
            break
    assert best is not None
    return best


def _least_scale(bandwidth: Matrix, roots: Counts, *, whole: bool) -> float:
    """Return the least factor to the bandwidths that makes capacities of them which suffice for trees."""
    return _least(bandwidth, float(roots.sum()), lambda scale: _suffices(bandwidth, roots, scale, whole=whole))


def _least_scale_of_any(bandwidth: Matrix, ranks: int, trees: float, *, whole: bool) -> float:
    """Return the least factor that suffices for trees whose roots may be chosen."""

    def suffices(scale: float) -> bool:
        roots = _fewest_roots(bandwidth, ranks, trees, scale, whole=whole)
        return float(roots.sum()) <= trees * (1 + _DIGITS / 10)

    return _least(bandwidth, trees, suffices)


def _least(bandwidth: Matrix, trees: float, suffices: Callable[[float], bool]) -> float:
    low, high = 0.0, trees / float(bandwidth[bandwidth > 0].min())  # there, each arc carries all trees
    while high - low > _DIGITS * high:
        middle = (low + high) / 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def _suffices(bandwidth: Matrix, roots: Counts, scale: float, *, whole: bool = True) -> bool:
    trees = float(roots.sum())
    return Network(_capacity(bandwidth, scale, whole=whole), roots).reaches_all(trees)


def _fewest_roots(bandwidth: Matrix, ranks: int, trees: float, scale: float, *, whole: bool) -> Counts:
    """Return how many of some trees must be rooted at each rank, so that each is reached by all of them.

    The numbers that do make a contrapolymatroid: from any, each rank may give up what no set that it is in needs, and
    the sum in the end is the same. They begin with the least that does for all ranks alike, and ranks give up a tree
    in turn, so that none has much more than others.
    """
    network = Network(_capacity(bandwidth, scale, whole=whole), np.full(ranks, trees))
    low, high = 0.0, trees
    while high - low > (1 if whole else trees * _DIGITS):
        middle = (low + high) // 2 if whole else (low + high) / 2
        network.roots[:] = middle
        low, high = (low, middle) if network.reaches_all(trees) else (middle, high)
    network.roots[:] = high
    step, given_up = (1.0 if whole else trees), True
    while given_up:
        given_up = False
        for rank in range(ranks):
            most = min(step, network.roots[rank])
            spare = min(most, network.flow((rank,), trees + most) - trees)
            if spare >= (1 if whole else trees * _DIGITS):
                network.roots[rank] -= spare
                given_up = True
    return network.roots


def _capacity(bandwidth: Matrix, scale: float, *, whole: bool = True) -> Matrix:
    return np.floor(bandwidth * scale * (1 + 1e-12)) if whole else bandwidth * scale


def _at(root: int, ranks: int, trees: float) -> Counts:
    roots = np.zeros(ranks)
    roots[root] = trees
    return roots
