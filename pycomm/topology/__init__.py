"""Described machines: what schedules are priced on. Made by generators, or read from TOML or NCCL's XML."""

from .generators import FAMILIES, generate
from .model import Ends, Links, Paths, Topology, flat

__all__ = ["FAMILIES", "Ends", "Links", "Paths", "Topology", "flat", "generate"]
