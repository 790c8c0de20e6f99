"""Packed: spanning trees that use all links of a machine at once, for machines that are no trees: tori, meshes, rings.

The machine is a part of the name, as `pycomm topo` takes it: "packed(torus:4x4)", "packed(box.xml)". Each tree has a
chunk, which goes from the root to all ranks, a hop a round; in a reduction it goes backwards.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from pycomm.errors import InvalidArgument
from pycomm.schedules.registry import Algorithm, Groups, add_builder
from pycomm.schedules.view import View

if TYPE_CHECKING:
    from pycomm.packing import Packer, Packing

CITE = "Zhao et al., ForestColl, arXiv 2402.06787"


def allgather(v: View, machine: Packer) -> None:
    """Send the blocks down trees that are rooted at all ranks and use all links at once."""
    _down(v, machine.at_all())


def reduce_scatter(v: View, machine: Packer) -> None:
    """Add up along trees that are rooted at all ranks: the reversal of an all-gather."""
    v.backwards(lambda: _down(v, machine.at_all(inwards=True)))


def allreduce(v: View, machine: Packer) -> None:
    """Add up along trees to their roots, then send down along trees, which are rooted where it is best."""
    v.backwards(lambda: _down(v, machine.at_any(inwards=True)))
    _down(v, machine.at_any())


def broadcast(v: View, machine: Packer) -> None:
    """Send a part down each of several trees from the root, which share no link beyond its bandwidth."""
    _down(v, machine.at_one(v.root))


def reduce(v: View, machine: Packer) -> None:
    """Add up a part along each of several trees to the root: the reversal of a broadcast."""
    v.backwards(lambda: _down(v, machine.at_one(v.root, inwards=True)))


def _down(v: View, packing: Packing) -> None:
    """Send chunk k from the root of tree k to all ranks."""
    rank, parents, depth = int(v.rank), packing.parents, packing.depth
    for hop in range(1, int(depth.max(initial=0)) + 1):
        arriving = depth == hop
        with v.round():
            for k in range(1, v.size):
                sent = np.flatnonzero(arriving[:, (rank + k) % v.size] & (parents[:, (rank + k) % v.size] == rank))
                v.send(sent, to=rank + k)
            for k in range(1, v.size):
                received = np.flatnonzero(arriving[:, rank] & (parents[:, rank] == (rank - k) % v.size))
                v.recv(received, frm=rank - k)


def _enter(collective: str, compose: Callable[[View, Packer], None], trees: Callable[[Packer], int]) -> None:
    @cache
    def build(*parts: str) -> Algorithm:
        from pycomm.packing import packer  # here: who asks for no trees need not load machines

        machine = packer(",".join(parts))

        def write(v: View) -> None:
            if v.size != machine.size:
                raise InvalidArgument(
                    f"packed({machine.name}) is for {machine.size} ranks and is asked for on {v.size}"
                )
            compose(v, machine)

        def cut(size: int, groups: Groups | None) -> int:
            return trees(machine)

        about = (compose.__doc__ or "").partition("\n")[0]
        return Algorithm(f"packed({machine.name})", collective, write, cut, about, CITE)

    add_builder(collective, "packed", build)


_enter("allgather", allgather, lambda machine: len(machine.at_all().parents) // machine.size)
_enter("reduce_scatter", reduce_scatter, lambda machine: len(machine.at_all(inwards=True).parents) // machine.size)
_enter("allreduce", allreduce, lambda machine: len(machine.at_any().parents))
_enter("broadcast", broadcast, lambda machine: machine.trees_of_one())
_enter("reduce", reduce, lambda machine: machine.trees_of_one(inwards=True))
