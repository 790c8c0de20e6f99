"""Machines as NCCL sees them: the XML that it writes where NCCL_TOPO_DUMP_FILE says, and reads from NCCL_TOPO_FILE.

What the elements mean, and the bandwidths that are not in them, follow NCCL 2.30, src/graph/topo.cc and topo.h. NCCL
gives no latencies of single links; here they are such that two cards reach each other in what NCCL's model
(src/graph/tuning.cc) reckons for its LL protocol: 0.6 us over NVLink, 1 us over PCI, 2.7 us over the network.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

from ..errors import InvalidArgument
from .board import Board
from .model import Topology

GB, MBIT = 1e9, 1e6 / 8  # bytes per second
NVLINK_LATENCY, PCI_LATENCY, SYS_LATENCY, NET_LATENCY = 0.3e-6, 0.5e-6, 0.5e-6, 0.35e-6  # seconds of one link

# GB/s of one NVLink, by the least compute capability that has it; those of 8.6 are slower.
_NVLINK = ((100, 40.1), (90, 20.6), (87, 20.0), (86, 12.0), (80, 20.0), (70, 20.0), (60, 18.0), (0, 20.0))
# GT/s of a PCI lane -> GB/s, coding and headers taken off.
_PCI_LANE = {"2.5": 0.1875, "5": 0.375, "8": 0.75, "16": 1.5, "32": 3.0, "64": 6.0}
# GB/s between the sockets of a host, by architecture or vendor, and for Intel's by the least model number.
_SOCKETS = {"ppc64": 32.0, "arm64": 6.0, "AuthenticAMD": 16.0}
_SOCKETS_INTEL = ((0xCF, 40.0), (0x8F, 22.0), (0x55, 10.0), (0, 6.0))
_SOCKETS_OTHER = 6.0
_ON_BOARD = 5000.0  # GB/s of a network device that is no PCI device
_NVSWITCH, _NVLINK_TO_CPU, _CARD, _NIC = "0x068000", "0x068001", "0x03", "0x02"  # how classes of PCI devices begin


class _Card(NamedTuple):
    """A card: its PCI device, what NCCL adds to it, and which of the hosts in the file it is on."""

    pci: ET.Element
    gpu: ET.Element | None
    host: int


def read_nccl(path: Path, hosts: int = 1) -> Topology:
    """Read one host, or join several like it on a network that is never the bottleneck.

    Cards are ranks, in the order of NCCL's ranks; in a file without these (as clouds ship them) in the order of the
    file; one that is cut into several counts as one. Left out are NCCL's ways over NVLink through a third card. One
    host alone has no use for network cards, and comes without them.

    Args:
        path: of the file.
        hosts: how many there are.

    Raises:
        InvalidArgument: the file is not of this kind; the message names the element.
    """
    try:
        system = ET.parse(path).getroot()
    except (OSError, ET.ParseError) as why:
        raise InvalidArgument(f"{path}: {why}") from None
    try:
        if system.tag != "system":
            raise InvalidArgument(f"it begins with <{system.tag}> and must begin with <system>, as NCCL writes it")
        return _machine(system, hosts, path.stem if hosts == 1 else f"{path.stem},hosts={hosts}")
    except InvalidArgument as why:
        raise InvalidArgument(f"{path}: {why}") from None


def _machine(system: ET.Element, copies: int, name: str) -> Topology:
    cards = _cards(system)
    inside = len(_hosts(system))  # a dump of joined NVLink domains has several hosts
    board = Board()
    for copy in range(copies):
        for number, card in enumerate(cards):
            board.rank(_name(copies, copy, f"gpu {number}"), copy * inside + card.host)
    several = copies * inside > 1
    ports: list[_Port] = []
    for copy in range(copies):
        ports += _System(system, cards, board, copies, copy).build(several)
    if several and not ports:
        raise InvalidArgument("several hosts need a network, and there is no <net> and no <pci> of the class 0x02...")
    if several:
        board.switch("network")
        for port in ports:
            board.cable(port.nic, "network", "net", port.bandwidth, NET_LATENCY + port.latency)
    return board.topology(name)


def _hosts(system: ET.Element) -> list[str]:
    return list(dict.fromkeys(cpu.get("host_hash", "") for cpu in system.iter("cpu")))


def _cards(system: ET.Element) -> list[_Card]:
    """Return the cards that are ranks, in their order."""
    hosts = _hosts(system)
    found = [
        _Card(pci, pci.find("gpu"), hosts.index(cpu.get("host_hash", "")))
        for cpu in system.iter("cpu")
        for pci in cpu.iter("pci")
        if pci.find("gpu") is not None or pci.get("class", "").startswith(_CARD)
    ]
    ranked = [card for card in found if card.gpu is not None and int(_whole(card.gpu, "rank", -1)) >= 0]
    if not found:
        raise InvalidArgument("there is no card: no <gpu>, and no <pci> of the class 0x03...")
    ranked.sort(key=lambda card: 0 if card.gpu is None else _whole(card.gpu, "rank", -1))
    return sorted(ranked or found, key=lambda card: card.host)


class _Port(NamedTuple):
    nic: str
    bandwidth: float
    latency: float


class _System:
    """One copy of what is in the file, being put on the board."""

    def __init__(self, system: ET.Element, cards: Sequence[_Card], board: Board, copies: int, copy: int) -> None:
        self._system, self._board, self._copies, self._copy = system, board, copies, copy
        self._cards = {_busid(card.pci): self._name(f"gpu {number}") for number, card in enumerate(cards)}
        self._gpus = [(card, self._cards[_busid(card.pci)]) for card in cards]
        self._over: dict[str, str] = {}  # the socket that each card is under
        self._ports: list[_Port] = []

    def _name(self, name: str) -> str:
        return _name(self._copies, self._copy, name)

    def build(self, networked: bool) -> list[_Port]:
        """Put everything down, network cards only if they are of use; return their ports."""
        sockets: dict[str, list[tuple[str, ET.Element]]] = {}
        for number, cpu in enumerate(self._system.iter("cpu")):
            name = self._name(f"cpu {number}")
            self._board.switch(name)
            sockets.setdefault(cpu.get("host_hash", ""), []).append((name, cpu))
            for child in cpu:
                if child.tag == "pci" and _useful(child, self._cards, networked):
                    self._pci(child, name, name, networked)
                elif child.tag == "nic" and networked:
                    self._nic(child, name, f"nic {number}", _ON_BOARD * GB, None)
        for together in sockets.values():
            for (one, cpu), (other, _) in permutations(together, 2):
                self._board.link(one, other, "sys", _between_sockets(cpu) * GB, SYS_LATENCY)
        for card, name in self._gpus:
            for gpu in card.pci.findall("gpu"):
                self._nvlinks(gpu, name)
        return self._ports

    def _pci(self, pci: ET.Element, above: str, socket: str, networked: bool) -> None:
        bandwidth, busid = _pci_bandwidth(pci), _busid(pci)
        nic = pci.find("nic")
        if busid in self._cards:
            self._over[self._cards[busid]] = socket
            self._board.cable(self._cards[busid], above, "pci", bandwidth, PCI_LATENCY)
        elif nic is not None or pci.get("class", "").startswith(_NIC):
            self._nic(nic, above, f"nic {busid}", bandwidth, bandwidth)
        else:
            name = self._name(f"pci {busid}")
            self._board.switch(name)
            self._board.cable(name, above, "pci", bandwidth, PCI_LATENCY)
            for child in pci.findall("pci"):
                if _useful(child, self._cards, networked):
                    self._pci(child, name, socket, networked)

    def _nic(self, nic: ET.Element | None, above: str, name: str, bandwidth: float, port: float | None) -> None:
        """Put down a network card; where the file names no port of it, it has one of the bandwidth `port`."""
        name = self._name(name)
        nets = [] if nic is None else [net for net in nic.findall("net") if net.get("net", "1") != "0"]
        ports = [_Port(name, _net_bandwidth(net), _number(net, "latency", 0.0) * 1e-6) for net in nets]
        if not ports and port is not None:
            ports = [_Port(name, port, 0.0)]
        if ports:
            self._board.switch(name)
            self._board.cable(name, above, "pci", bandwidth, PCI_LATENCY)
            self._ports += ports

    def _nvlinks(self, gpu: ET.Element, name: str) -> None:
        each = _by_least(_NVLINK, _whole(gpu, "sm"))
        for nvlink in gpu.findall("nvlink"):
            kind, bandwidth = _text(nvlink, "tclass"), _whole(nvlink, "count") * each * GB
            target = _text(nvlink, "target").lower()
            if kind.startswith(_CARD):
                if target in self._cards:  # whose own <nvlink> is the way back
                    self._board.link(name, self._cards[target], "nvlink", bandwidth, 2 * NVLINK_LATENCY)
                continue
            other = self._over[name] if kind == _NVLINK_TO_CPU else self._name("nvswitch")
            if other not in self._board.names:
                self._board.switch(other)
            self._board.cable(name, other, "nvlink", bandwidth, NVLINK_LATENCY)
        for c2c in gpu.findall("c2c"):
            bandwidth = _whole(c2c, "count") * _whole(c2c, "bw") * 1e6
            self._board.cable(name, self._over[name], "c2c", bandwidth, NVLINK_LATENCY)


def _name(copies: int, copy: int, name: str) -> str:
    return name if copies == 1 else f"{copy}/{name}"


def _useful(pci: ET.Element, cards: dict[str, str], networked: bool) -> bool:
    """Tell whether a card that is a rank, or a network card that is wanted, is at a PCI device or below it."""
    for device in pci.iter("pci"):
        nic = device.find("nic") is not None or device.get("class", "").startswith(_NIC)
        if _busid(device) in cards or (networked and nic):
            return True
    return False


def _busid(pci: ET.Element) -> str:
    return _text(pci, "busid").lower()


def _pci_bandwidth(pci: ET.Element) -> float:
    """Return bytes per second of the link above a PCI device; what the system does not know is x16 of 8 GT/s."""
    lane = _PCI_LANE.get(pci.get("link_speed", "").split(" ")[0].removesuffix(".0"), _PCI_LANE["8"])
    return (_whole(pci, "link_width", 0) or 16) * lane * GB


def _net_bandwidth(net: ET.Element) -> float:
    speed = _whole(net, "speed", 0)
    return (speed if speed > 0 else 10_000) * MBIT  # some devices say -1


def _between_sockets(cpu: ET.Element) -> float:
    """Return GB/s."""
    arch, vendor = cpu.get("arch", ""), cpu.get("vendor", "")
    if vendor == "GenuineIntel" and _whole(cpu, "familyid", 0) == 6:
        return _by_least(_SOCKETS_INTEL, _whole(cpu, "modelid", 0))
    return _SOCKETS.get(arch, _SOCKETS.get(vendor, _SOCKETS_OTHER))


def _by_least(table: Sequence[tuple[int, float]], value: int) -> float:
    return next(result for least, result in table if value >= least)


def _text(element: ET.Element, key: str) -> str:
    value = element.get(key)
    if value is None:
        raise InvalidArgument(f"a <{element.tag}> has no {key}: {dict(element.attrib)}")
    return value


def _whole(element: ET.Element, key: str, default: int | None = None) -> int:
    return int(_number(element, key, default))


def _number(element: ET.Element, key: str, default: float | None = None) -> float:
    if default is not None and key not in element.attrib:
        return default
    try:
        return float(_text(element, key))
    except ValueError:
        raise InvalidArgument(f'a <{element.tag}> has {key}="{element.get(key)}", which is no number') from None
