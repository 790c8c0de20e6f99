"""This host's network interfaces and their addresses."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from pathlib import Path
from typing import Any

from ..errors import LaunchError
from ..knobs import InterfaceFilter

_SIOCGIFFLAGS, _SIOCGIFADDR = 0x8913, 0x8915  # linux/sockios.h
_UP, _LOOPBACK, _POINT_TO_POINT, _RUNNING = 0x1, 0x8, 0x10, 0x40  # linux/if.h
_GLOBAL, _LINK = "00", "20"  # net/ipv6.h: scopes in /proc/net/if_inet6
_PASSING = 0x1 | 0x8 | 0x20 | 0x40  # linux/if_addr.h: temporary, refused by a neighbour, deprecated, tentative


def _ask(request: int, interface: str) -> bytes | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            return fcntl.ioctl(probe, request, struct.pack("256s", interface.encode()[:15]))
        except OSError:
            return None


def _ipv4(interface: str) -> str | None:
    answer = _ask(_SIOCGIFADDR, interface)
    return socket.inet_ntoa(answer[20:24]) if answer else None


def _ipv6(without: int = 0, scope: str = _GLOBAL) -> list[tuple[str, str]]:
    """Return (interface, address) pairs of the addresses of a scope that have none of some flags."""
    table = Path("/proc/net/if_inet6")
    lines = [line.split() for line in table.read_text().splitlines()] if table.exists() else []
    usable = (f for f in lines if f[3] == scope and not int(f[4], 16) & without)
    return [(f[5], socket.inet_ntop(socket.AF_INET6, bytes.fromhex(f[0]))) for f in usable]


def addresses_of() -> dict[str, list[str]]:
    """Return the addresses of each interface, IPv4 first."""
    found = {name: [address] if (address := _ipv4(name)) else [] for _, name in socket.if_nameindex()}
    for name, address in _ipv6():
        found[name].append(address)
    return found


def addresses(allowed: InterfaceFilter) -> list[str]:
    """Return the addresses of the interfaces that a filter allows, IPv4 first; if all are link-local, one of these.

    Raises:
        LaunchError: it allows none that has an address.
    """
    everything = addresses_of()
    found = sorted((a for name in everything if allowed.allows(name) for a in everything[name]), key=lambda a: ":" in a)
    if not found:
        found = [f"{address}%{name}" for name, address in _ipv6(scope=_LINK) if allowed.allows(name)][:1]
    if not found:
        have = ", ".join(everything)
        raise LaunchError(f"PYCOMM_SOCKET_IFNAME allows no interface that has an address; this host has {have}")
    return found


def numeric(address: tuple[Any, ...]) -> str:
    """Return the host of a socket's address as one writes it: fe80::1%eth0 where the address alone says too little."""
    host, _, *ipv6 = address
    return f"{host}%{socket.if_indextoname(ipv6[1])}" if ipv6 and ipv6[1] and "%" not in host else str(host)


def beside(own: str) -> list[str]:
    """Return one address of each interface, other than that of `own`, over which peers on other hosts may be reached.

    An interface counts if it is up, has a carrier and is neither loopback nor a tunnel. Its address has the family of
    `own` if it has one, and means something on other hosts. None if `own` is loopback's: then no peer is elsewhere. Of
    0.0.0.0, which is no interface's, all are others.
    """
    if ipaddress.ip_address(own).is_loopback:
        return []
    found: list[str] = []
    lasting = _ipv6(_PASSING)
    for _, name in socket.if_nameindex():
        answer = _ask(_SIOCGIFFLAGS, name)
        flags = struct.unpack_from("H", answer, 16)[0] if answer else 0
        has = [address for address in (_ipv4(name), *(a for n, a in lasting if n == name)) if address]
        if own.partition("%")[2] == name:
            continue
        if flags & (_UP | _RUNNING | _LOOPBACK | _POINT_TO_POINT) != _UP | _RUNNING or own in has:
            continue
        has = [address for address in has if not ipaddress.ip_address(address).is_link_local]
        alike = [address for address in has if (":" in address) == (":" in own)]
        found += (alike or has)[:1]
    return found
