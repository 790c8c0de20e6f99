"""Finds out what no rank can know alone: how fast the hosts of a job reach each other; and keeps it for later jobs."""

from .network import discover

__all__ = ["discover"]
