"""How the ranks of a process group meet: through the Store that torch gives it, which needs no port of its own."""

from __future__ import annotations

import os
import secrets
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from ..communicator.comm import Comm
from ..errors import DeadlineExceeded, PycommError
from ..start import WORLD, Joined, assemble, learn_network, over_mpi

_PATIENCE = 300.0  # seconds; a group's own timeout may be longer, but to wait so long for a rank to start helps nobody


class Membership:
    """A communicator, and its share in the world that it lives in: the last one to leave closes the world.

    Attributes:
        comm: the communicator.
    """

    def __init__(self, home: _Home, comm: Comm, *, founder: bool) -> None:
        self.comm = comm
        self._home, self._founder, self._left = home, founder, False
        with _lock:
            home.users += 1

    def split(self, color: int | None, key: int) -> Membership | None:
        """Make a communicator of the ranks that give the same color, ordered by key; None: of none. All call it."""
        comm = self.comm.Split(color, key)
        return None if comm is None else Membership(self._home, comm, founder=False)

    def leave(self) -> None:
        """Free the communicator. A second call does nothing."""
        global _default
        with _lock:
            if self._left:
                return
            self._left = True
            self._home.users -= 1
            if self._founder and _default is self._home:
                _default = None  # groups that are made from now on belong to another life
            last = self._home.users == 0
        self.comm.Free()
        if last:
            self._home.close()


class _Home:
    """A world and how many communicators live in it; over MPI, also the communicator of MPI that it stands on."""

    def __init__(self, joined: Joined, mpi: Any = None) -> None:
        self.joined, self._mpi = joined, mpi
        self.users = 0

    def close(self) -> None:
        self.joined.world.close()
        if self._mpi is not None and not sys.modules["mpi4py.MPI"].Is_finalized():
            self._mpi.Free()


_default: _Home | None = None  # the world of the default process group
_lock = threading.Lock()


def meet(store: Any, rank: int, size: int, ranks: Sequence[int], timeout: float, *, default: bool = True) -> Membership:
    """Make the communicator of a process group.

    Args:
        store: of this group alone; all its ranks have the same.
        rank, size: this process's place in the group.
        ranks: the group's ranks in the default group; empty for the default group itself.
        timeout: seconds that calls may take.
        default: whether a group without `ranks` is the default group; if not, it stands alone.

    Raises:
        DeadlineExceeded: some ranks did not come, with their numbers.
    """
    global _default
    board = _Board(store, rank, size, min(timeout, _PATIENCE))
    home = _default
    if ranks and home is not None and home.joined.world.handle:
        ident = int.from_bytes(board.from_first("ident", lambda: secrets.token_bytes(8)), "little") | 1 << 63
        places = {world: place for place, world in enumerate(ranks)}
        comm = Comm(home.joined.world, ident, ranks, home.joined.machine.among(places))
        founder = False
    else:
        home, comm = _found(board, store, rank, size, timeout)
        founder = default and not ranks
        if founder:
            _default = home
    comm.set_timeout(timeout)
    return Membership(home, comm, founder=founder)


def _found(board: _Board, store: Any, rank: int, size: int, timeout: float) -> tuple[_Home, Comm]:
    """Make a world, and the communicator of all its ranks."""
    found = over_mpi(board.exchange, timeout)
    if found is not None:
        comm, world = found
        return _Home(Joined(world, comm.machine), comm.mpi), comm
    token = board.from_first("token", lambda: secrets.token_bytes(40))
    job, secret = int.from_bytes(token[:8], "little"), token[8:]
    joined = assemble(rank, size, job, secret, _endpoint(store), board.exchange)
    comm = Comm(joined.world, WORLD, range(size), joined.machine)
    comm.set_timeout(timeout)
    learn_network(comm)
    return _Home(joined._replace(machine=comm.machine)), comm


class _Board:
    """What the ranks write into the store for each other, this time.

    A store may outlive the processes (torchrun's does) and a group may be made again under the same name. So the keys
    carry the elastic attempt and which meeting under this name this is; no rank reads what a dead one has left.
    """

    def __init__(self, store: Any, rank: int, size: int, timeout: float) -> None:
        self._store, self._rank, self._size, self._timeout = store, rank, size, timeout
        self._prefix = f"pycomm/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        if size > 1:
            self._prefix += f"/{store.add(f'{self._prefix}/times/{rank}', 1)}"

    def from_first(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Return what rank 0 makes."""
        if self._size == 1:
            return make()
        key = f"{self._prefix}/{name}"
        if self._rank == 0:
            value = make()
            self._store.set(key, value)
            return value
        self._await([key], [0])
        return bytes(self._store.get(key))

    def exchange(self, mine: bytes) -> list[bytes]:
        """Give these bytes to all ranks and return everybody's, by rank."""
        if self._size == 1:
            return [mine]
        keys = [f"{self._prefix}/address/{r}" for r in range(self._size)]
        self._store.set(keys[self._rank], mine)
        self._await(keys, range(self._size))
        if self._store.has_extended_api():
            return [bytes(value) for value in self._store.multi_get(keys)]
        return [bytes(self._store.get(key)) for key in keys]

    def _await(self, keys: Sequence[str], ranks: Sequence[int]) -> None:
        try:
            self._store.wait(list(keys), timedelta(seconds=self._timeout))
        except RuntimeError as error:
            try:
                absent = [r for r, key in zip(ranks, keys, strict=True) if not self._store.check([key])]
            except RuntimeError:
                raise PycommError(f"rank {self._rank} lost the store while the ranks met: {error}") from error
            if not absent:
                raise PycommError(f"rank {self._rank} cannot use the store: {error}") from error
            raise DeadlineExceeded(
                f"rank{'s' * (len(absent) > 1)} {', '.join(map(str, absent))} of {self._size} did not come to make the "
                f"process group within {self._timeout:g} s: see whether they run, and call the same init_process_group "
                "or new_group",
                absent[0],
            ) from None


def _endpoint(store: Any) -> str:
    """Return where the store is served, which shows the network that the ranks share."""
    while isinstance(store, dist.PrefixStore):
        store = store.underlying_store
    return f"tcp://{store.host}:{store.port}" if isinstance(store, dist.TCPStore) else ""
