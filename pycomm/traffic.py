"""What all ranks do in a collective, without the numbers of chunks: the messages that the simulator prices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Traffic:
    """The rounds of all ranks, as arrays.

    Attributes:
        name, collective, size, root: what this is; `size` ranks.
        share: the size of one chunk as a part of n, the bytes of a rank's full vector (see `Schedule.share`).
        period: the rounds of ranks 0 to period - 1 are here; rank r does what rank r - period does, with all peers
            shifted by `period`. `size` where ranks differ.
        rounds: rank r has the rounds rounds[r] to rounds[r + 1] - 1 (length period + 1).
        ops: round k has the operations ops[k] to ops[k + 1] - 1.
        kind: of each operation: SEND, RECV, REDUCE_FROM (messages), COPY, REDUCE (rows of local work).
        peer: the other rank of a message, -1 for local work.
        chunks: how many chunks a message has, or a row of local work.
    """

    name: str
    collective: str
    size: int
    root: int
    share: float
    period: int
    rounds: Offsets
    ops: Offsets
    kind: npt.NDArray[np.uint8]
    peer: npt.NDArray[np.int32]
    chunks: npt.NDArray[np.int32]
