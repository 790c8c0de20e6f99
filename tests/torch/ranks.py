"""Ranks for the tests of the torch backend: forked once and reused, or fresh ones for what ends a group."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.distributed as dist

PATIENCE = 60.0  # seconds for one function on all ranks: far beyond any honest wait
TIMEOUT = timedelta(seconds=20)
_fork = multiprocessing.get_context("fork")


class Ranks:
    """Processes that are the ranks of a group and run functions, which must be importable by name."""

    def __init__(self, size: int, backend: str = "pycomm", env: dict[str, str] | None = None) -> None:
        self.size, self.good = size, True
        self._place = tempfile.TemporaryDirectory(prefix="pycomm-torch-")
        self._pipes: list[Connection] = []
        self.processes = []
        for rank in range(size):
            ours, theirs = _fork.Pipe()
            arguments = (rank, size, backend, self._place.name, theirs, env or {})
            process = _fork.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()  # before the next fork, so that a death is seen at the other end
            self._pipes.append(ours)
            self.processes.append(process)

    def __call__(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Run function(*args) on all ranks; their results by rank, or the first failure."""
        for pipe in self._pipes:
            pipe.send((function, args))
        results: list[Any] = [None] * self.size
        failures = {}
        left = dict(enumerate(self._pipes))
        while left:
            ready = wait(list(left.values()), PATIENCE)
            if not ready:
                self.good = False
                raise AssertionError(f"ranks {sorted(left)} do not come to an end; others failed: {failures}")
            for rank in [r for r, pipe in left.items() if pipe in ready]:
                try:
                    good, value = left.pop(rank).recv()
                except EOFError:
                    good, value = False, "the process died"
                if good:
                    results[rank] = value
                else:
                    failures[rank] = value
        if failures:
            self.good = False  # a group is of no use after most errors
            raise AssertionError("\n".join(f"rank {r}: {why}" for r, why in sorted(failures.items())))
        return results

    def close(self) -> None:
        for pipe in self._pipes:  # closing alone would not do: ranks that were forked later hold these ends too
            with contextlib.suppress(OSError):
                pipe.send(None)
            pipe.close()
        for process in self.processes:
            process.join(10)
            if process.exitcode is None:
                process.kill()
                process.join()
        self._place.cleanup()

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _serve(rank: int, size: int, backend: str, place: str, pipe: Connection, env: dict[str, str]) -> None:
    os.environ.update(env, RANK=str(rank), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    if backend:
        store = dist.FileStore(f"{place}/store", size)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    while True:
        order = pipe.recv()
        if order is None:
            break
        function, args = order
        try:
            answer = (True, function(*args))
        except BaseException:
            answer = (False, traceback.format_exc())
        pipe.send(answer)
    if dist.is_initialized():
        dist.destroy_process_group()


def free_port() -> int:
    """Return a port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
