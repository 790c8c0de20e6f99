"""What the tests of topologies share: walks along paths, and the machines that they are tried on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
EXAMPLES = sorted((HERE.parents[1] / "examples" / "topologies").glob("*.toml"))
GENERATED = [
    "flat:1", "flat:5", "fat-tree:16", "fat-tree:100,down=8", "fat-tree:96,hosts=8,taper=2,down=4",
    "fat-tree:60,hosts=8,nics=4,down=2", "fat-tree:64,hosts=4,nics=4,down=4", "torus:5", "torus:2x2", "torus:4x3x2",
    "torus:6x1x5", "dragonfly:9x4x2", "dragonfly:3x4x2", "dragonfly:1x4x2", "dragonfly:4x1x2",
    "dragonfly:5x3x1,ports=4", "rails:4x8", "rails:12x4,pod=4,taper=2", "rails:3x1", "boxes:1x8", "boxes:4x8,nics=4",
    "boxes:8+4+8+4", "boxes:8+8+3+1,nics=2", "sites:2x16,hosts=4", "sites:3x4", "boxes:2x4,speeds=1+0.5",
    "fat-tree:64,degrade=nic*10%@0.5",
]  # fmt: skip


def all_pairs(topology):
    source, target = (axis.reshape(-1).astype(np.int32) for axis in np.indices((topology.size, topology.size)))
    return source, target


def walk(topology, source, target):
    """Follow all paths at once; raise if one is no chain of links from its source to its target."""
    start, links = topology.paths(source, target)
    assert start[0] == 0 and start[-1] == len(links) and len(start) == len(source) + 1
    lengths = np.diff(start)
    assert ((lengths == 0) == (np.asarray(source) == np.asarray(target))).all()
    here = np.asarray(source).copy()
    for step in range(lengths.max(initial=0)):
        going = np.flatnonzero(lengths > step)
        link = links[start[going] + step]
        assert (topology.links.source[link] == here[going]).all()
        here[going] = topology.links.target[link]
    assert (here == target).all()
    return lengths
