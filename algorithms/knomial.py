"""K-nomial trees, of degree 4: a binomial tree with more branches, so that a message passes fewer ranks on its way."""

from __future__ import annotations

from pycomm.schedules.registry import algorithm
from pycomm.schedules.view import View

from ._shapes import knomial_children, knomial_parent

K = 4
CITE = "Wilkins et al., Generalized Collective Algorithms for the Exascale Era, IEEE CLUSTER 2023"


@algorithm("broadcast", name="knomial", cite=CITE)
def broadcast(v: View) -> None:
    """Send the buffer on to three others at once, to the farthest first: ceil(log4 p) rounds of up to 3 n bytes."""
    node = (v.rank - v.root) % v.size
    if node:
        with v.round():
            v.recv(0, frm=v.root + knomial_parent(node, K))
    for children in knomial_children(node, v.size, K):
        with v.round():
            for child in children:
                v.send(0, to=v.root + child)


@algorithm("reduce", name="knomial", cite=CITE)
def reduce(v: View) -> None:
    """Every rank sends its sum to its parent, three at once: the reversal of the broadcast."""
    v.backwards(lambda: broadcast(v))
