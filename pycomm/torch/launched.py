"""The rendezvous `pycomm://`: a store for jobs whose launcher, such as mpiexec, sets none of torch's variables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from ..errors import InvalidArgument, PycommError
from ..start import Meeting, first_address, is_launched, meeting
from .errors import as_torch

_TORCHS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_MOST_PATIENCE = 60.0  # seconds that ranks wait for each other


def is_needed() -> bool:
    """Return whether a launcher has started this process, and torch's variables say nothing."""
    return not any(name in os.environ for name in _TORCHS) and is_launched()


def rendezvous(url: str, timeout: timedelta = dist.default_pg_timeout, **_: Any) -> Iterator[tuple[Any, int, int]]:
    """Yield the store, this process's rank and the number of ranks, as torch's rendezvous handlers do.

    Rank 0 serves the store, at a port that is free; the others hear of it as the ranks of `pycomm.init()` meet: by way
    of MPI if PYCOMM_TRANSPORTS has it, else through the hub.

    Args:
        url: pycomm:// and no more.
        timeout: of the store.

    Raises:
        InvalidArgument: there is more.
        LaunchError: as with `pycomm.init()`.
    """
    try:
        if url.rstrip("/?") != "pycomm:":
            raise InvalidArgument(f"{url}: rank and world_size come from the launcher, so give neither")
        with meeting(min(timeout.total_seconds(), _MOST_PATIENCE)) as job:
            store = _store(job, timeout)
        yield store, job.rank, job.size
    except PycommError as error:
        raise as_torch(error) from error.__cause__
    raise InvalidArgument("the ranks of pycomm:// meet once")  # torch asks for more where members change


def _store(job: Meeting, timeout: timedelta) -> Any:
    address = first_address(job.exchange) or "127.0.0.1"
    if job.rank == 0:
        store = dist.TCPStore(address, 0, job.size, is_master=True, timeout=timeout, wait_for_workers=False)
        job.exchange(store.port.to_bytes(2, "little"))
        return store
    port = int.from_bytes(job.exchange(b"")[0], "little")
    return dist.TCPStore(address, port, job.size, is_master=False, timeout=timeout, wait_for_workers=False)
