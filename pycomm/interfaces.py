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


def addresses_of() -> dict[str, list[str]]:
    """Return the addresses of each interface, IPv4 first."""
    found = {name: [address] if (address := _ipv4(name)) else [] for _, name in socket.if_nameindex()}
    for name, address in _ipv6():
        found[name].append(address)
    return found


def addresses(allowed: InterfaceFilter) -> list[str]:
    """Return the addresses of the interfaces that a filter allows, IPv4 first.

    Raises:
        LaunchError: it allows none that has an address.
    """
    everything = addresses_of()
    found = sorted((a for name in everything if allowed.allows(name) for a in everything[name]), key=lambda a: ":" in a)
    if not found:
        have = ", ".join(everything)
        raise LaunchError(f"PYCOMM_SOCKET_IFNAME allows no interface that has an address; this host has {have}")
    return found
