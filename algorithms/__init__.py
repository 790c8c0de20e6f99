"""The shipped algorithms, one small file a family; importing this enters them in the register."""

from . import bruck, direct, doubling, hierarchical, knomial, packed, pairwise, ring, tree

__all__ = ["bruck", "direct", "doubling", "hierarchical", "knomial", "packed", "pairwise", "ring", "tree"]
