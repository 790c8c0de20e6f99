"""What the tests of the launch room share: ranks whose hub runs in rank 0, and a port."""

from __future__ import annotations

import os
import socket
from dataclasses import replace

from pycomm.job.environment import Job


def free_port() -> int:
    """Return a port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def hub_in_rank_0(size: int, endpoint: str | None = None, secret: bytes = b"s" * 32) -> Job:
    """Return the Job of rank 0 of a job without a launcher; `as_rank` gives those of the others."""
    endpoint = endpoint or f"ipc://@pycomm-test-{os.urandom(8).hex()}"
    return Job(0, size, 0, size, endpoint, secret, 0x1234, "test")


def as_rank(job: Job, rank: int) -> Job:
    """Return the same job seen by another rank."""
    return replace(job, rank=rank, local_rank=rank)


def my_rank() -> int:
    """Return the rank of a process that `spawn` started."""
    return int(os.environ["PYCOMM_RANK"])
