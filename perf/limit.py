"""What the machine itself allows, measured in the same run: bytes a second through memory, and through a socket.

Each probe is run by all ranks of a job at once, from its own barrier, for about a third of a second.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from time import perf_counter

import numpy as np

from .bench import Library, last_level_cache
from .cases import Case

_SECONDS = 0.3
_STREAMS = 4
_PIECE = 1 << 20
_PATIENCE = 30.0


def memory_rate(library: Library) -> float:
    """Bytes that this rank reads and writes a second while all ranks copy arrays which no cache can hold."""
    nbytes = max(32 << 20, 2 * last_level_cache() // library.size)
    source, target = np.ones(nbytes, np.uint8), np.zeros(nbytes, np.uint8)
    library.barrier()
    moved, start = 0, perf_counter()
    while perf_counter() - start < _SECONDS:
        np.copyto(target, source)  # the C library's memcpy, which streams past the caches at this size
        moved += 2 * nbytes
    return moved / (perf_counter() - start)


def socket_rate(library: Library) -> float:
    """Bytes that this rank sends a second while all send to their right and receive from their left over loopback."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=_STREAMS))
        listener.settimeout(_PATIENCE)
        ports = library.allgather(np.array([listener.getsockname()[1]], np.float64))
        right = ("127.0.0.1", int(ports[(library.rank + 1) % library.size][0]))
        outgoing = [stack.enter_context(socket.create_connection(right, _PATIENCE)) for _ in range(_STREAMS)]
        incoming = [stack.enter_context(listener.accept()[0]) for _ in range(_STREAMS)]
        library.barrier()
        sent = [0] * _STREAMS
        threads = [threading.Thread(target=_send, args=(s, sent, i)) for i, s in enumerate(outgoing)]
        threads += [threading.Thread(target=_drain, args=(s,)) for s in incoming]
        start = perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(sent) / (perf_counter() - start)


def _send(stream: socket.socket, sent: list[int], index: int) -> None:
    piece = bytes(_PIECE)
    start = perf_counter()
    while perf_counter() - start < _SECONDS:
        stream.sendall(piece)
        sent[index] += _PIECE
    stream.shutdown(socket.SHUT_WR)


def _drain(stream: socket.socket) -> None:
    stream.settimeout(_PATIENCE)
    piece = bytearray(_PIECE)
    while stream.recv_into(piece):
        pass


def binds(rate: float, over_sockets: bool) -> str:
    """Say what `least_bytes` are held against: the sum of the `memory_rate`, or the mean of the `socket_rate`."""
    if over_sockets:
        return f"sockets bind: each rank sends {rate / 1e9:.1f} GB/s while all send and receive over loopback"
    return f"memory binds: all ranks copying at once read and write {rate / 1e9:.1f} GB/s"


def least_bytes(case: Case, count: int, itemsize: int, ranks: int, over_sockets: bool) -> float:
    """The least bytes that a call must move, out of place; derived in perf/README.md.

    Over sockets: through each rank's port, to be held against the mean of `socket_rate`. Otherwise: through memory for
    all ranks together, to be held against the sum of `memory_rate`.
    """
    if over_sockets:
        return case.busbw(ranks) * case.nbytes(count, itemsize, ranks)
    return float(case.least_traffic(count, itemsize, ranks))
