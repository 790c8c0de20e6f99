"""Spanning trees that use all links of a described machine at once, for collectives that reach its bound on any graph.

docs/packing.md tells what they are for. The method is ForestColl's (Zhao et al., arXiv 2402.06787): find the best rate
by maximum flows, take out the switches, pack trees that are rooted at ranks.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b
from pathlib import PurePath

import numpy as np

from ..bound.graph import graph_of
from ..bound.tree import tree_of
from ..errors import InvalidArgument
from ..topology import Topology, load
from .packer import Packer as Packer
from .packer import Packing as Packing

__all__ = ["Packer", "Packing", "named", "offered", "packer"]

_MOST_CHOSEN, _MOST_SWITCHED = 64, 32  # ranks, for which packing takes seconds; where there are switches
_MOST_KEPT = 64

_kept: dict[str, Topology] = {}  # machines that cannot be loaded by their names, the latest ones


def offered(topology: Topology) -> str:
    """Return the name of algorithms that may be the best ones on a machine, as `named` does; "" where others are.

    On a tree they are no better than others are; on more than 64 ranks, or 32 with switches, nobody waits for them
    unasked.
    """
    most = _MOST_CHOSEN if topology.vertices == topology.size else _MOST_SWITCHED
    if not 2 < topology.size <= most or tree_of(graph_of(topology).with_twins_merged()) is not None:
        return ""
    return named(topology)


def named(topology: Topology) -> str:
    """Return the name by which algorithms for a machine are found: "packed(torus:4x4)".

    What cannot be loaded by the machine's name is kept for this process under its name and a digest of its links.
    """
    name = re.sub(r"[ ()]", "", topology.name)
    try:
        known = _digest(load(name)) == _digest(topology)
    except InvalidArgument:
        known = False
    if not known:
        name = f"{name}#{_digest(topology)}"
        _kept[name] = topology
        while len(_kept) > _MOST_KEPT:
            _kept.pop(next(iter(_kept)))
    return f"packed({name})"


@lru_cache(maxsize=_MOST_KEPT)
def packer(machine: str) -> Packer:
    """Return what packs trees on a machine.

    Args:
        machine: as `pycomm.topology.load` takes it, without spaces; or what `named` has given.

    Raises:
        InvalidArgument: there is no such machine, or its ranks are too many.
    """
    if machine in _kept:
        return Packer(machine, _kept[machine])
    topology = load(machine)
    of_file = PurePath(machine.partition(",")[0]).suffix in (".toml", ".xml")
    return Packer(f"{machine}#{_digest(topology)}" if of_file else machine, topology)


def _digest(topology: Topology) -> str:
    """Return what tells apart machines on which other trees may be packed: eight hexadecimal digits."""
    links = topology.links
    parts = (np.array([topology.size, topology.vertices]), links.source, links.target, links.bandwidth, links.latency)
    return blake2b(b"".join(part.tobytes() for part in parts), digest_size=4).hexdigest()
