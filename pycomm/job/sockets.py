"""What the two ends of the control plane, hub and rank, do alike with their sockets."""

from __future__ import annotations

import struct

import zmq

# How often (ms) an end of a connection over tcp says that it is there.
HEARTBEAT_MS = 1000
# How long (ms) the other may be silent. A rank notices first, and dials before the hub has given it up.
HUB_SILENCE_MS, RANK_SILENCE_MS = 4000, 2000


def set_heartbeat(sock: zmq.Socket[bytes], endpoint: str, silence: int) -> None:
    """Let the socket notice within seconds that the other host or the link is gone.

    Only tcp needs it: on one host the kernel reports every death, and a stopped process (a debugger, Ctrl-Z) is not
    dead.
    """
    if endpoint.startswith("tcp://"):
        sock.heartbeat_ivl = HEARTBEAT_MS
        sock.heartbeat_timeout = silence
        sock.heartbeat_ttl = HUB_SILENCE_MS


def monitored_event(monitor: zmq.Socket[bytes]) -> int:
    """Receive the next event of a socket's monitor. (pyzmq's own parser would load asyncio and ssl into every rank.)"""
    event: int = struct.unpack("=hi", monitor.recv_multipart()[0])[0]
    return event
