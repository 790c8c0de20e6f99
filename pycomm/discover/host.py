"""What a host is made of, from sysfs: sockets, memory nodes, caches and processors, and its network cards."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..job.interfaces import addresses_of
from ..selection.places import SYS, last_cache, number, read_processors, text


@dataclass(frozen=True)
class Card:
    """A network interface that is up.

    Attributes:
        name: e.g. "eth0".
        rate: bytes per second that it says it has; None: it does not say (virtual ones often say something else).
        addresses: IPv4 first.
        node: the memory node that it is attached to; None: unknown.
    """

    name: str
    rate: float | None
    addresses: tuple[str, ...]
    node: int | None


@dataclass(frozen=True)
class Host:
    """A host.

    Attributes:
        name: host name.
        sockets, nodes, complexes: the processors of each CPU package, memory node, and last-level cache.
        cache: bytes of a last-level cache.
        cards: network interfaces that have an address, without loopback.
    """

    name: str
    sockets: tuple[frozenset[int], ...]
    nodes: tuple[frozenset[int], ...]
    complexes: tuple[frozenset[int], ...]
    cache: int
    cards: tuple[Card, ...]

    def lines(self) -> Iterator[str]:
        """Yield it for people."""
        count = len(frozenset().union(*self.complexes))
        yield f"host {self.name}: {count} processors"
        for what, sets in (("socket", self.sockets), ("memory node", self.nodes), ("last-level cache", self.complexes)):
            size = f" of {self.cache >> 20} MiB" if what == "last-level cache" and self.cache else ""
            yield f"  {len(sets)} {what}{'s' * (len(sets) != 1)}{size}: {'; '.join(map(say_processors, sets))}"
        for card in self.cards:
            rate = "of unknown rate" if card.rate is None else f"says {8e-9 * card.rate:g} Gbit/s"
            near = "" if card.node is None else f", at memory node {card.node}"
            yield f"  {card.name}: {rate}{near}; {', '.join(card.addresses) or 'no address'}"


def this_host(root: Path = SYS) -> Host:
    """Return what this host is made of; what sysfs (at `root`) does not tell is one socket, node or cache with all."""
    cpus = [path for path in (root / "devices/system/cpu").glob("cpu[0-9]*") if (path / "topology").is_dir()]
    everything = frozenset(int(path.name[3:]) for path in cpus)
    sockets = _distinct(path / "topology/package_cpus_list" for path in cpus)
    caches = [cache for cache in map(last_cache, cpus) if cache]
    complexes = _distinct(path / "shared_cpu_list" for path in caches)
    nodes = _distinct((root / "devices/system/node").glob("node[0-9]*/cpulist"))
    size = text(caches[0] / "size") if caches else ""
    return Host(
        socket.gethostname(), sockets or (everything,), nodes or (everything,), complexes or (everything,),
        int(size.rstrip("K")) << 10 if size else 0, tuple(_cards(root)),
    )  # fmt: skip


def say_processors(processors: frozenset[int]) -> str:
    """Return a set of processors as the kernel writes it: "0-3,8"."""
    ordered = sorted(processors)
    runs: list[list[int]] = []
    for one in ordered:
        if runs and one == runs[-1][1] + 1:
            runs[-1][1] = one
        else:
            runs.append([one, one])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _cards(root: Path) -> Iterator[Card]:
    for name, addresses in addresses_of().items():
        place = root / "class/net" / name
        if name == "lo" or not addresses:
            continue
        speed, node = number(place / "speed"), number(place / "device/numa_node")
        yield Card(
            name, speed * 1e6 / 8 if speed and speed > 0 else None, tuple(addresses),
            node if node is not None and node >= 0 else None,
        )  # fmt: skip


def _distinct(files: Iterator[Path]) -> tuple[frozenset[int], ...]:
    found = {read_processors(text(file)) for file in files} - {frozenset()}
    return tuple(sorted(found, key=min))
