"""This host's network interfaces and their addresses."""

from __future__ import annotations

import fcntl
import socket
import struct
from pathlib import Path

from .errors import LaunchError
from .knobs import InterfaceFilter

_SIOCGIFADDR = 0x8915  # linux/sockios.h


def _ipv4(interface: str) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])


def _ipv6() -> list[tuple[str, str]]:
    """Return (interface, global address) pairs."""
    table = Path("/proc/net/if_inet6")
    lines = [line.split() for line in table.read_text().splitlines()] if table.exists() else []
    return [(f[5], socket.inet_ntop(socket.AF_INET6, bytes.fromhex(f[0]))) for f in lines if f[3] == "00"]


def addresses(allowed: InterfaceFilter) -> list[str]:
    """Return the addresses of the interfaces that a filter allows, IPv4 first.

    Raises:
        LaunchError: it allows none that has an address.
    """
    names = [name for _, name in socket.if_nameindex() if allowed.allows(name)]
    found = [address for name in names if (address := _ipv4(name))]
    found += [address for name, address in _ipv6() if name in names]
    if not found:
        have = ", ".join(name for _, name in socket.if_nameindex())
        raise LaunchError(f"PYCOMM_SOCKET_IFNAME allows no interface that has an address; this host has {have}")
    return found
