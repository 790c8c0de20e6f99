"""A laboratory as a described machine, on which schedules are priced and bounds computed."""

from __future__ import annotations

from ..topology import Topology
from ..topology.board import Board
from .model import Model
from .place import counts

_INSIDE = 1e11  # bytes per second: memory is no network


def topology(model: Model, ranks: int) -> Topology:
    """Return the machine on which `ranks` ranks live, placed as `pycomm run` places them.

    Rates are those of frames: a stream of TCP gets 95.6 % of them, with frames of 1500 bytes. The cards of a host count
    as one, as fast as all together.

    Raises:
        InvalidArgument: the hosts have room for another number of ranks.
    """
    board = Board()
    here = counts([host.ranks for host in model.hosts], ranks)
    for number, (host, count) in enumerate(zip(model.hosts, here, strict=True)):
        for k in range(count):
            board.rank(f"{host.name}/{k}", number)
    for site in model.sites:
        board.switch(_switch(site))
    for host, count in zip(model.hosts, here, strict=True):
        board.switch(host.name)
        for k in range(count):
            board.cable(f"{host.name}/{k}", host.name, "inside", _INSIDE, 0.0)
        for rate in host.nics:
            board.cable(host.name, _switch(host.site), "nic", min(rate, _INSIDE), host.delay)
    for trunk in model.trunks:
        for _ in range(model.rails(trunk)):
            one, other = (_switch(site) for site in trunk.sites)
            board.cable(one, other, "trunk", min(trunk.rate, _INSIDE), trunk.delay)
    sites = [model.sites.index(host.site) for host, count in zip(model.hosts, here, strict=True) for _ in range(count)]
    return board.topology(model.name, [sites])


def _switch(site: str) -> str:
    return f"switch of {site}" if site else "switch"
