"""Machines from a short text: `fat-tree:1024,hosts=8,taper=2`.

Bandwidths are those of one direction; every link has both. `latency` is that of a message from rank to rank over one
switch, software included, half of it on each of its two links; every further link adds `hop`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, get_type_hints

import numpy as np

from ..errors import InvalidArgument
from . import units
from .build import Cluster, Wire, nest
from .model import Ids, Links, Topology, flat
from .modify import Degrade, Speeds, degrade, read_degrade, read_speeds, speed
from .routing import Dragonfly, Torus
from .units import Rate, Seconds

# One port of a ConnectX-7: 400 Gbit/s (NVIDIA ConnectX-7 datasheet).
NIC = Rate(50e9)
# NVLink 4: 18 links of 25 GB/s each way (NVIDIA H100 datasheet: 900 GB/s in both directions together).
NVLINK = Rate(450e9)
# PCIe 5.0, 16 lanes of 32 GT/s, coded 128 in 130 bits.
PCIE = Rate(63e9)
# What NCCL reckons for its LL protocol: NVLink 0.6 us, PCI 1.0 us, network (ring) 2.7 us (src/graph/tuning.cc, 2.30).
NVLINK_LATENCY, PCIE_LATENCY, NIC_LATENCY = Seconds(0.6e-6), Seconds(1.0e-6), Seconds(2.7e-6)
# A switch and its cable: 0.13 us of a Quantum-2 (its datasheet), up to 30 m of fibre at 5 ns/m.
HOP = Seconds(0.3e-6)
FAR_HOP = Seconds(0.5e-6)  # the same with 60 m of fibre
# A 64-port switch (Quantum-2 again: 64 ports of 400 Gbit/s) with half of its ports down.
DOWN = 32
# TPU v4: six links of 50 GB/s (Jouppi et al., "TPU v4", ISCA 2023, table 4).
ICI, ICI_LATENCY = Rate(50e9), Seconds(1e-6)
# Slingshot: 64 ports of 200 Gbit/s (De Sensi et al., "An In-Depth Analysis of the Slingshot Interconnect", SC 2020).
SLINGSHOT = Rate(25e9)
# A leased line between two sites 1,000 km apart: 5 us a km there.
WAN, WAN_LATENCY = Rate(12.5e9), Seconds(5e-3)

_READERS: dict[Any, Callable[[str], Any]] = {
    int: units.count, float: units.factor, Rate: units.rate, Seconds: units.seconds, Degrade: read_degrade,
    Speeds: read_speeds,
}  # fmt: skip


class Family(NamedTuple):
    """A family of machines.

    Attributes:
        name: what a text begins with.
        shape: what comes after the colon, for people.
        make: the function that makes one; its keyword arguments are the options.
        read: turns the shape into its positional arguments.
    """

    name: str
    shape: str
    make: Callable[..., Topology]
    read: Callable[[str], tuple[Any, ...]]

    def options(self) -> dict[str, tuple[Any, Any]]:
        """Return the type and default of each option."""
        types = get_type_hints(self.make)
        parameters = inspect.signature(self.make).parameters.values()
        return {p.name: (types[p.name], p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}


def generate(text: str) -> Topology:
    """Make a machine.

    Args:
        text: FAMILY:SHAPE,KEY=VALUE,... with a family and keys of `FAMILIES`, and for each of them also
            speeds=1+0.5 (cards of the first half of the hosts, and of the second, at these parts of their speed),
            degrade=nic*3@0.25 (three cables of a kind at a quarter of their bandwidth; nic*10%@0.25 is a tenth of them,
            rank 3..leaf 0@0.25 one by its ends), which may be repeated, and reduce=1TB (bytes that a rank reduces a
            second; without it reductions are free).

    Raises:
        InvalidArgument: the message names the part that is wrong and what could stand there.
    """
    head, *settings = text.strip().split(",")
    name, colon, shape = head.partition(":")
    family = FAMILIES.get(name.strip())
    if family is None:
        shapes = ", ".join(f"{f.name}:{f.shape}" for f in FAMILIES.values())
        raise InvalidArgument(f"{text!r}: there are no machines {name.strip()!r}; there are {shapes}")
    try:
        if not colon:
            raise InvalidArgument("there is no shape")
        arguments = family.read(shape)
    except InvalidArgument as why:
        raise InvalidArgument(f"{text!r}: {why}: write {family.name}:{family.shape}") from None
    options: dict[str, Any] = {}
    broken: list[Degrade] = []
    known = family.options() | {"speeds": (Speeds, None), "degrade": (Degrade, None), "reduce": (Rate, None)}
    for setting in settings:
        key, equals, value = (part.strip() for part in setting.partition("="))
        key = key.replace("-", "_")
        if not equals or key not in known:
            raise InvalidArgument(f"{text!r}: {setting!r} is no setting of {family.name}, which has {_listed(known)}")
        try:
            read = _READERS[known[key][0]](value)
        except InvalidArgument as why:
            raise InvalidArgument(f"{text!r}: {key}: {why}") from None
        if key == "degrade":
            broken.append(read)
        else:
            options[key] = read
    speeds, reduces = options.pop("speeds", None), options.pop("reduce", None)
    try:
        topology = replace(family.make(*arguments, **options), name=text.strip())
        if reduces is not None:
            topology = replace(topology, reduce_rate=np.full(topology.size, float(reduces)))
        if speeds is not None:
            topology = speed(topology, speeds)
        for change in broken:
            topology = degrade(topology, change)
    except InvalidArgument as why:
        raise InvalidArgument(f"{text!r}: {why}") from None
    return topology


def one_switch(size: int, *, bandwidth: Rate = NIC, latency: Seconds = NIC_LATENCY) -> Topology:
    """Return ranks on one switch that is never the bottleneck (see `flat`)."""
    return flat(size, bandwidth=bandwidth, latency=latency)


def fat_tree(
    size: int, *, hosts: int = 1, nics: int = 1, taper: float = 1.0, down: int = DOWN, bandwidth: Rate = NIC,
    latency: Seconds = NIC_LATENCY, hop: Seconds = HOP, inside: Rate = NVLINK, inside_latency: Seconds = NVLINK_LATENCY,
    pcie: Rate = PCIE,
) -> Topology:  # fmt: skip
    """Return a fat tree: ports in order on leaf switches, these on spines, and so on up to one layer at the top.

    A layer has the fewest switches that can share evenly what is below. Those at the top have all of their ports,
    2 `down`, down; they are one vertex (see `pycomm.topology.routing`). Leiserson, "Fat-Trees", IEEE Transactions on
    Computers C-34 (1985).

    Args:
        size: ranks.
        hosts: ranks of a host; the last host may have fewer.
        nics: of a host.
        taper: bandwidth of a leaf switch's ports over that of its way up.
        down: ports of a switch that lead down.
        bandwidth, latency: of a port.
        hop: seconds of each further link.
        inside, inside_latency: among the ranks of a host.
        pcie: of a rank's way to its network card, where ranks share several.
    """
    if down < 2:
        raise InvalidArgument("down is 1, and a switch needs at least 2 ports that lead down")
    sizes = np.full(-(-size // hosts), hosts)
    sizes[-1] -= sizes.sum() - size
    cluster = _cluster(sizes, nics, bandwidth, latency, inside, inside_latency, pcie)
    names, width = ["leaf", "spine", "core"], bandwidth * down / taper
    while cluster.nports > 2 * down:
        switches = _fewest(cluster.nports, down)
        above = np.arange(cluster.nports) * switches // cluster.nports
        cluster.layer(above.astype(np.int32), names.pop(0) if names else "upper", Wire(width, hop))
        width *= down
    cluster.layer(np.zeros(cluster.nports, np.int32), names.pop(0) if names else "upper", Wire(width, hop))
    return cluster.topology("fat-tree")


def boxes(
    sizes: Ids, *, nics: int = 8, bandwidth: Rate = NIC, latency: Seconds = NIC_LATENCY, inside: Rate = NVLINK,
    inside_latency: Seconds = NVLINK_LATENCY, pcie: Rate = PCIE,
) -> Topology:  # fmt: skip
    """Return hosts with a fast switch inside, on one network switch that is never the bottleneck.

    Args:
        sizes: ranks of each host.
        nics: of a host, but no more than its ranks.
        bandwidth, latency, inside, inside_latency, pcie: see `fat_tree`.
    """
    cluster = _cluster(sizes, nics, bandwidth, latency, inside, inside_latency, pcie)
    if len(sizes) > 1:
        cluster.layer(np.zeros(cluster.nports, np.int32), "switch", Wire(np.inf, 0.0))
    return cluster.topology("boxes")


def rails(
    hosts: int, ranks: int, *, pod: int = DOWN, taper: float = 1.0, bandwidth: Rate = NIC,
    latency: Seconds = NIC_LATENCY, hop: Seconds = HOP, inside: Rate = NVLINK, inside_latency: Seconds = NVLINK_LATENCY,
) -> Topology:  # fmt: skip
    """Return rail-optimised pods: each card of a host has a port on a switch of its own, the rail; spines join pods.

    A message for another rail of another host goes through the near card on that rail first, as NCCL's PXN does
    (NVIDIA DGX SuperPOD reference architecture; "Doubling all2all performance with NCCL 2.12", NVIDIA 2022).

    Args:
        hosts: how many.
        ranks: cards of a host.
        pod: hosts of a pod.
        taper: bandwidth of a rail switch's ports over that of its way up.
        bandwidth, latency, hop, inside, inside_latency: see `fat_tree`.
    """
    sizes = np.full(hosts, ranks)
    cluster = _cluster(sizes, ranks, bandwidth, latency, inside, inside_latency, relay=ranks > 1)
    rank = np.arange(hosts * ranks, dtype=np.int32)
    in_pod = rank // ranks // pod
    cluster.layer(in_pod * ranks + rank % ranks, "rail", Wire(bandwidth * pod / taper, hop), near=in_pod)
    if in_pod[-1]:
        cluster.layer(np.zeros(cluster.nports, np.int32), "spine", Wire(np.inf, 0.0))
    return cluster.topology("rails")


def sites(
    nsites: int, ranks: int, *, hosts: int = 1, nics: int = 1, wan: Rate = WAN, wan_latency: Seconds = WAN_LATENCY,
    bandwidth: Rate = NIC, latency: Seconds = NIC_LATENCY, inside: Rate = NVLINK,
    inside_latency: Seconds = NVLINK_LATENCY, pcie: Rate = PCIE,
) -> Topology:  # fmt: skip
    """Return several sites over a wide-area network, each with its hosts on one switch that is never the bottleneck.

    Args:
        nsites: how many.
        ranks: of a site.
        hosts: ranks of a host, a divisor of `ranks`.
        wan: bandwidth of a site's way to the others.
        wan_latency: seconds from site to site.
        nics, bandwidth, latency, inside, inside_latency, pcie: see `fat_tree`.
    """
    if ranks % hosts:
        raise InvalidArgument(f"{ranks} ranks of a site cannot be on hosts of {hosts}")
    sizes = np.full(nsites * ranks // hosts, hosts)
    cluster = _cluster(sizes, nics, bandwidth, latency, inside, inside_latency, pcie)
    site = np.arange(cluster.nports, dtype=np.int32) // (cluster.nports // nsites)
    cluster.layer(site, "site", Wire(wan, wan_latency / 2))
    if nsites > 1:
        cluster.layer(np.zeros(nsites, np.int32), "wan", Wire(np.inf, 0.0))
    return cluster.topology("sites")


def torus(*shape: int, bandwidth: Rate = ICI, latency: Seconds = ICI_LATENCY) -> Topology:
    """Return a torus of any number of dimensions, in which ranks are wired to ranks.

    Args:
        shape: the length of each dimension; ranks are numbered with the last one fastest.
        bandwidth, latency: of a link.
    """
    routing = Torus(shape)
    source, target, axis = routing.ends()
    size = int(np.prod(shape))
    links = Links(
        source, target, np.full(len(source), float(bandwidth)), np.full(len(source), float(latency)),
        axis.astype(np.uint8),
    )  # fmt: skip
    kinds = tuple(f"axis {i}" for i in range(len(shape)))
    ranks = np.arange(size, dtype=np.int32)
    near = [ranks // int(np.prod(shape[axis:])) for axis in range(len(shape))]
    period = size // next((length for length in shape if length > 1), 1)
    return Topology("torus", size, size, links, kinds, routing, nest(near), ranks, np.full(size, np.inf), period)


def dragonfly(
    groups: int, routers: int, ranks: int, *, ports: int = 0, bandwidth: Rate = SLINGSHOT, local: Rate = SLINGSHOT,
    across: Rate = SLINGSHOT, latency: Seconds = NIC_LATENCY, hop: Seconds = HOP, across_hop: Seconds = FAR_HOP,
) -> Topology:  # fmt: skip
    """Return a dragonfly: routers of a group all joined, groups all joined by links that end at several routers.

    Args:
        groups, routers, ranks: how many groups there are, routers in each, and ranks on each router.
        ports: links to other groups of each router; default: half of `routers`, which balances them (Kim et al., ISCA
            2008), and at least what joins all groups.
        bandwidth, local, across: of a port, of a link in a group, and of one across.
        latency: of a port.
        hop, across_hop: seconds of a link in a group, and of one across (60 m of fibre).
    """
    least = -(-(groups - 1) // routers)
    routing = Dragonfly(groups, routers, ranks, ports or max(least, routers // 2, 1))
    if ports and ports < least:
        raise InvalidArgument(f"{ports} ports of each router do not join {groups} groups: there must be {least}")
    source, target, kind = routing.ends()
    rates, delays = np.array([bandwidth, local, across]), np.array([latency / 2, hop, across_hop])
    links = Links(source, target, rates[kind], delays[kind], kind)
    size, rank = routing.size, np.arange(routing.size, dtype=np.int32)
    near = [rank // (routers * ranks), rank // ranks]
    names = [f"rank {r}" for r in range(size)]
    names += [f"router {g}.{r}" for g in range(groups) for r in range(routers)]
    return Topology(
        "dragonfly", size, size + groups * routers, links, ("port", "local", "global"), routing, nest(near), rank,
        np.full(size, np.inf), routers * ranks if groups > 1 else ranks if routers > 1 else 1, names,
    )  # fmt: skip


def _cluster(
    sizes: Ids, nics: int, bandwidth: float, latency: float, inside: float, inside_latency: float, pcie: float = PCIE,
    relay: bool = False,
) -> Cluster:  # fmt: skip
    """Return the hosts; a rank's latency to another one, over a switch, is half on each of the two links."""
    return Cluster(
        sizes, nics, Wire(inside, inside_latency / 2), Wire(bandwidth, latency / 2), Wire(pcie, 0.0), relay=relay
    )


def _fewest(below: int, down: int) -> int:
    """Return how many switches go over so many things: up to twice as many as needed if all of them are alike then."""
    least = -(-below // down)
    return next((count for count in range(least, min(2 * least, below)) if below % count == 0), least)


def _count(shape: str) -> tuple[int]:
    return (units.count(shape),)


def _product(shape: str, dimensions: int | None = None) -> tuple[int, ...]:
    lengths = tuple(units.count(part) for part in shape.split("x"))
    if dimensions and len(lengths) != dimensions:
        raise InvalidArgument(f"{shape!r} has {len(lengths)} numbers and must have {dimensions}")
    return lengths


def _sizes(shape: str) -> tuple[Ids]:
    """Read 16x8 (16 hosts of 8), 8+8+4 (three hosts), or a mixture."""
    sizes: list[int] = []
    for part in shape.split("+"):
        times, cross, size = part.rpartition("x")
        sizes += [units.count(size)] * (units.count(times) if cross else 1)
    return (np.array(sizes, np.int32),)


def _listed(options: dict[str, Any]) -> str:
    return ", ".join(name.replace("_", "-") for name in options)


FAMILIES = {
    family.name: family
    for family in (
        Family("flat", "RANKS", one_switch, _count),
        Family("fat-tree", "RANKS", fat_tree, _count),
        Family("torus", "8x8 or 4x4x4", torus, _product),
        Family("dragonfly", "GROUPSxROUTERSxRANKS", dragonfly, lambda shape: _product(shape, 3)),
        Family("rails", "HOSTSxRANKS", rails, lambda shape: _product(shape, 2)),
        Family("boxes", "HOSTSxRANKS or 8+8+4", boxes, _sizes),
        Family("sites", "SITESxRANKS", sites, lambda shape: _product(shape, 2)),
    )
}
