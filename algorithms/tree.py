"""Trees: from a root to all and back, along one binomial tree or along two trees at once."""

from __future__ import annotations

import numpy as np

from pycomm.schedules.registry import algorithm
from pycomm.schedules.view import View

from ._shapes import binomial_children, binomial_parent, two_trees

BINOMIAL = "Thakur, Rabenseifner & Gropp, IJHPCA 19 (2005)"
TWO_TREES = "Sanders, Speck & Traeff, Parallel Computing 35 (2009)"


@algorithm("broadcast", name="binomial", cite=BINOMIAL)
def broadcast(v: View) -> None:
    """Every rank that has the buffer sends it on, to the farthest first: ceil(log2 p) rounds of n bytes."""
    node = (v.rank - v.root) % v.size
    if node:
        with v.round():
            v.recv(0, frm=v.root + binomial_parent(node))
    for child, _ in binomial_children(node, v.size):
        with v.round():
            v.send(0, to=v.root + child)


@algorithm("reduce", name="binomial", cite=BINOMIAL)
def reduce(v: View) -> None:
    """Every rank sends its sum to its parent: the reversal of the broadcast."""
    v.backwards(lambda: broadcast(v))


@algorithm("scatter", name="binomial", cite=BINOMIAL)
def scatter(v: View) -> None:
    """Hand on half of the blocks in hand, again and again: ceil(log2 p) rounds, (p-1)/p n bytes from the root."""
    node = (v.rank - v.root) % v.size
    if node:
        span = next(s for child, s in binomial_children(binomial_parent(node), v.size) if child == node)
        with v.round():
            v.recv(v.rank + np.arange(span), frm=v.root + binomial_parent(node))
    for child, span in binomial_children(node, v.size):
        with v.round():
            v.send(v.root + child + np.arange(span), to=v.root + child)


@algorithm("gather", name="binomial", cite=BINOMIAL)
def gather(v: View) -> None:
    """Hand the blocks of a subtree to its parent: the reversal of the scatter."""
    v.backwards(lambda: scatter(v), reducing=False)


@algorithm("broadcast", name="double_tree", chunks=2, cite=TWO_TREES)
def two_tree_broadcast(v: View) -> None:
    """One half down each of two trees, where nobody has children in both: about n bytes a rank, in slices."""
    node = (v.rank - v.root) % v.size
    trees = list(enumerate(two_trees(node, v.size)))
    inner = [(half, parent, children) for half, (parent, children) in trees if children]
    leaf = [(half, parent) for half, (parent, children) in trees if not children]
    with v.round():
        for half, parent, _ in inner:
            if node:
                v.recv(half, frm=v.root + parent)
    with v.round():
        for half, _, children in inner:
            for child in children:
                v.send(half, to=v.root + child)
        for half, parent in leaf:
            v.recv(half, frm=v.root + parent)


@algorithm("reduce", name="double_tree", chunks=2, cite=TWO_TREES)
def two_tree_reduce(v: View) -> None:
    """One half up each of two trees: the reversal of the broadcast."""
    v.backwards(lambda: two_tree_broadcast(v))


@algorithm("allreduce", name="double_tree", chunks=2, cite=TWO_TREES)
def two_tree_allreduce(v: View) -> None:
    """One half up and down each of two trees: O(log p) rounds, about 2 n bytes a rank, in slices."""
    two_tree_reduce(v)
    two_tree_broadcast(v)
