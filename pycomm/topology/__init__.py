"""Described machines: what schedules are priced on. Made by generators, or read from TOML or NCCL's XML."""

from .model import Links, Paths, Topology, flat

__all__ = ["Links", "Paths", "Topology", "flat"]
