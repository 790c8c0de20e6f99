"""The part of a compressed reduction within groups: sums, of which the next is added up while one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from ..communicator.request import Request
from ..data.buffer import Array
from .codec import Floats

Piece = TypeVar("Piece")


def sums(pieces: Sequence[Piece], start: Callable[[Piece], tuple[Request, Array]]) -> Iterator[Floats]:
    """Yield what this rank carries of the group's sum of each piece; the group adds up the next one meanwhile.

    Args:
        pieces: of a vector.
        start: starts to add one up; returns the request, and the elements that are there when it is done.
    """
    started = deque([start(piece) for piece in pieces[:1]])
    for following in [*pieces[1:], None]:
        if following is not None:
            started.append(start(following))
        request, shard = started.popleft()
        request.Wait()
        with np.errstate(over="ignore"):  # what is too large for float32 becomes an infinity, and is seen
            yield shard.astype(np.float32, copy=False)
