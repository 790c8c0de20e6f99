"""Collectives that compress what crosses slow links, such as those between sites (docs/compression.md)."""

from .compressor import Compressor
from .feedback import Feedback

__all__ = ["Compressor", "Feedback"]
