"""A world: this process's membership of a job, as a handle on the C core. Communicators are groups of its ranks."""

from __future__ import annotations

import atexit
import json
import os
import re
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from .core import check, ffi, lib, load_transport, text
from .core import transports as compiled
from .errors import InvalidArgument

_ADDRESS_BYTES = 4096
_TRANSPORT = re.compile(r"(?:^|,|inner=)([^,:;/]+)(?=[,:;]|$)")  # a name in a list of transports that is no path
_open: weakref.WeakSet[World] = weakref.WeakSet()


class World:
    """One rank of a job.

    Args:
        rank, size: of this process in the job.
        job: 64-bit number that is the same on all ranks and different for each job.
        transports: names in order of preference, e.g. "shm,tcp"; or paths of shared objects that have one each.
        secret: key that authenticates every connection; None: connections are not authenticated.
        listen: address that tcp listens on; None: loopback.
        advertise: addresses at which peers may reach this rank over tcp, comma-separated; None: `listen`.
        streams: tcp connections a peer; 0: the default.
        encrypt: encrypt what crosses a network, which needs a secret and OpenSSL; the same on all ranks.

    Attributes:
        ends_unused: whether it closes with the last of its communicators.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        *,
        job: int = 0,
        transports: str = "shm,tcp",
        secret: bytes | None = None,
        listen: str | None = None,
        advertise: str | None = None,
        streams: int = 0,
        encrypt: bool = False,
    ) -> None:
        self.rank, self.size = rank, size
        self.ends_unused = False
        self._users, self._counting = 0, threading.Lock()
        _bring(transports)
        self._secret = ffi.new_handle(secret) if secret is not None else ffi.NULL
        self._keep: Any = secret
        texts = {
            name: ffi.new("char[]", value.encode()) if value else ffi.NULL
            for name, value in (("transports", transports), ("listen", listen), ("advertise", advertise))
        }
        config = ffi.new(
            "struct pcm_world_config *",
            {
                "rank": rank, "size": size, "job": job, "streams": streams, "encrypt": encrypt,
                "mac": lib.pycomm_mac if secret is not None else ffi.NULL, "mac_user": self._secret, **texts,
            },
        )  # fmt: skip
        handle = ffi.new("pcm_world **")
        check(lib.pcm_world_create(config, handle))
        self.handle = handle[0]
        self._before_close: list[Callable[[], None]] = []
        _open.add(self)

    def address(self) -> bytes:
        """Return where this rank can be reached: opaque bytes for `set_peers` on the others."""
        buffer, size = ffi.new("char[]", _ADDRESS_BYTES), ffi.new("size_t *", _ADDRESS_BYTES)
        check(lib.pcm_world_address(self.live(), buffer, size))
        return bytes(ffi.buffer(buffer, size[0]))

    def set_peers(self, addresses: Sequence[bytes]) -> None:
        """Tell where every rank can be reached, in rank order."""
        for rank, address in enumerate(addresses):
            check(lib.pcm_world_set_peer(self.live(), rank, address, len(address)))

    def set_local_ranks(self, ranks: int) -> None:
        """Tell how many ranks share this one's processors, itself included, which decides how long waiting spins."""
        lib.pcm_world_set_local_ranks(self.live(), ranks)

    def peer_lost(self, rank: int, why: str) -> None:
        """Declare a rank dead: every operation that involves it raises PeerLost."""
        if self.handle:
            lib.pcm_world_peer_lost(self.handle, rank, why.encode())

    def transport(self, rank: int) -> str:
        """Return the name of the transport that reaches a rank; "" if none does."""
        return text(lib.pcm_world_transport(self.live(), rank))

    def rails(self) -> list[dict[str, Any]]:
        """Return what connects this rank to its peers over tcp, a dict for each connection.

        Keys: peer (rank), channel (the communicator's id), stream (number in the channel), from, to (address:port of
        each end), sent, received (bytes since it was connected), rate (bytes/s delivered of late), up (bool).
        """
        size = lib.pcm_world_rails(self.live(), ffi.NULL, 0) + 4096
        buffer = ffi.new("char[]", size)
        lib.pcm_world_rails(self.handle, buffer, size)
        return [json.loads(line) for line in text(buffer).splitlines()]

    @property
    def refused(self) -> int:
        """Connections that were turned away."""
        return int(lib.pcm_world_refused(self.live()))

    def trace(self) -> str:
        """Return the flight recorder: this rank's latest operations, one JSON object a line."""
        size = lib.pcm_world_trace(self.live(), ffi.NULL, 0) + 4096
        buffer = ffi.new("char[]", size)
        lib.pcm_world_trace(self.handle, buffer, size)
        return text(buffer)

    def live(self) -> Any:
        """Return the handle, or raise InvalidArgument if the world was closed."""
        if not self.handle:
            raise InvalidArgument("the world was closed")
        return self.handle

    def take(self) -> None:
        """Count one more communicator."""
        with self._counting:
            self._users += 1

    def let_go(self) -> None:
        """Count one less; with the last, close if that is wanted."""
        with self._counting:
            self._users -= 1
            ends = self.ends_unused and not self._users
        if ends:
            self.close()

    def at_close(self, function: Callable[[], None]) -> None:
        """Have a function called before the world goes away."""
        self._before_close.append(function)

    def not_at_close(self, function: Callable[[], None]) -> bool:
        """Take back an `at_close`; return whether it was there. Of several threads one alone is told so."""
        try:
            self._before_close.remove(function)
        except ValueError:  # it has been called, or taken back
            return False
        return True

    def close(self) -> None:
        """Say goodbye to all peers and free everything. May be called twice."""
        if not self.handle:
            return
        while self._before_close:
            try:
                function = self._before_close.pop()
            except IndexError:  # another thread has just taken the last one back
                break
            function()
        handle, self.handle = self.handle, None
        lib.pcm_world_destroy(handle)


def _bring(transports: str) -> None:
    """Load what other packages bring of the transports in a list; the core finds the others by itself, or says so."""
    for name in set(_TRANSPORT.findall(transports)).difference(compiled()):
        from . import plugins  # here: most have no use for it

        point = plugins.named(plugins.TRANSPORTS, name)
        if point is not None:
            load_transport(str(plugins.load(point)))


@atexit.register
def close_all() -> None:
    """End all worlds in order, so that peers see a goodbye and not a death."""
    for world in list(_open):
        world.close()


os.register_at_fork(after_in_child=_open.clear)  # a child has nothing to say to the peers of its parent
