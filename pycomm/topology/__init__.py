"""Described machines: what schedules are priced on. Made by generators, or read from TOML or NCCL's XML."""

from .check import check_period
from .generators import FAMILIES, generate
from .load import load
from .model import Ends, Links, Paths, Topology, flat

__all__ = ["FAMILIES", "Ends", "Links", "Paths", "Topology", "check_period", "flat", "generate", "load"]
