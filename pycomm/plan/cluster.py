"""Where it is trained: a described machine, its cards, and which of them a degree of parallelism joins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..topology import Topology
from .model import Training

Ranks = npt.NDArray[np.int32]
Reals = npt.NDArray[np.float64]

DEGREES = ("tensor", "data", "pipeline")


class Cards(NamedTuple):
    """Cards of one kind.

    Attributes:
        name: for reports.
        hosts: how many hosts in a row have them; 0: all of them, or an equal part where there are several kinds.
        flops: operations a second of one, as its data sheet says.
        memory: bytes of one.
    """

    name: str
    hosts: int
    flops: float
    memory: float


@dataclass(frozen=True, eq=False)
class Cluster:
    """A machine with cards.

    Attributes:
        topology: a rank is a card.
        cards: their kinds, for the hosts in order.
        kind: of each rank, an index into `cards`.
        layout: the degrees of parallelism, the one whose ranks are nearest to each other first.
    """

    topology: Topology
    cards: tuple[Cards, ...]
    kind: npt.NDArray[np.int32]
    layout: tuple[str, ...]

    @property
    def flops(self) -> Reals:
        """Operations a second of each rank."""
        return np.array([card.flops for card in self.cards])[self.kind]

    def kinds_of(self, ranks: Ranks) -> Ranks:
        """Return which kinds some ranks are of."""
        return np.unique(self.kind[ranks])


def kinds_of_hosts(cards: tuple[Cards, ...], hosts: int) -> npt.NDArray[np.int32]:
    """Return which kind of card each host has; where none says how many hosts it has, they have equal parts."""
    if all(card.hosts for card in cards):
        return np.repeat(np.arange(len(cards), dtype=np.int32), [card.hosts for card in cards])
    return (np.arange(hosts) * len(cards) // hosts).astype(np.int32)


def groups(training: Training, layout: tuple[str, ...], degree: str) -> Ranks:
    """Return the ranks of each group of a degree, shape (groups, ranks of each).

    Args:
        training: says how many ranks each degree has.
        layout: the order of degrees on ranks, nearest first.
        degree: one of `DEGREES`, or of "expert" (neighbours among the data-parallel ranks, which share out the
            experts) and "replica" (data-parallel ranks that have the same experts).
    """
    size, stride = {}, 1
    strides: dict[str, int] = {}
    for name in layout:
        size[name], strides[name] = getattr(training, name), stride
        stride *= size[name]
    size["expert"], strides["expert"] = training.expert, strides["data"]
    size["replica"], strides["replica"] = training.data // training.expert, strides["data"] * training.expert
    ranks = np.arange(training.cards, dtype=np.int32)
    firsts = ranks[ranks // strides[degree] % size[degree] == 0]
    members: Ranks = firsts[:, None] + np.arange(size[degree], dtype=np.int32) * np.int32(strides[degree])
    return members
