"""Which rank lives on which host of a laboratory, and how a process gets there; all that a rank needs to know of it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import knobs
from ..errors import InvalidArgument, LaunchError
from .namespaces import enter


@dataclass(frozen=True)
class Place:
    """A host that is there.

    Attributes:
        name: its host name.
        keeper: the process that holds its namespaces.
        address: the address on its first card.
        processors: the processors of this machine that it has.
        ranks: how many ranks of a job it takes; None: as many as the others.
    """

    name: str
    keeper: int
    address: str
    processors: tuple[int, ...]
    ranks: int | None

    def enter(self) -> None:
        """Move this process, which has one thread, to the host."""
        enter(self.keeper)
        os.sched_setaffinity(0, self.processors)


def dumps(places: Sequence[Place]) -> str:
    """Return the text that `from_environment` reads."""
    return json.dumps([asdict(place) for place in places])


def from_environment() -> list[Place]:
    """Return the hosts of the laboratory in which this process was started; none if there is no laboratory.

    Raises:
        LaunchError: PYCOMM_LAB names one that is gone.
    """
    path = knobs.LAB.value()
    if not path:
        return []
    try:
        found = json.loads(Path(path).read_text())
    except (OSError, ValueError) as why:
        raise LaunchError(f"PYCOMM_LAB={path} names no laboratory that is there: {why}") from None
    return [Place(**{**place, "processors": tuple(place["processors"])}) for place in found]


def counts(room: Sequence[int | None], size: int) -> list[int]:
    """Return how many of a job's ranks each host gets; the first host gets the first ranks.

    Args:
        room: how many ranks each host takes; None for all: as many as the others.
        size: the job's ranks.

    Raises:
        InvalidArgument: the hosts have room for another number of ranks.
    """
    given = [ranks for ranks in room if ranks is not None]
    if not given:
        return [size * (k + 1) // len(room) - size * k // len(room) for k in range(len(room))]
    if sum(given) != size:
        raise InvalidArgument(f"the hosts of the laboratory take {sum(given)} ranks together, not {size}")
    return given


def spread(places: Sequence[Place], size: int) -> list[int]:
    """Return how many of a job's ranks each host gets, as `counts`."""
    return counts([place.ranks for place in places], size)


def enter_as_rank(places: Sequence[Place], size: int, rank: int) -> None:
    """Move this process, which has one thread, to the host of its rank, and tell its environment of that."""
    first = 0
    for place, count in zip(places, spread(places, size), strict=True):
        if first <= rank < first + count:
            place.enter()
            os.environ.update(LOCAL_RANK=str(rank - first), LOCAL_WORLD_SIZE=str(count), MASTER_ADDR=places[0].address)
            # It is at home now: a job that it starts itself runs there.
            os.environ.pop(knobs.LAB.name, None)
        first += count


def here(places: Sequence[Place]) -> Place:
    """Return the host that this process is on.

    Raises:
        LaunchError: it is on none of them.
    """
    name = os.uname().nodename
    for place in places:
        if place.name == name:
            return place
    raise LaunchError(f"PYCOMM_LAB is set, but this is {name}, which is none of the laboratory's hosts")
