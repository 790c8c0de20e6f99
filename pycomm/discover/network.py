"""What is between the hosts of a job, for the selector: from the cache, or measured once, the same on all ranks."""

from __future__ import annotations

import hashlib

import numpy as np

from .. import knobs
from ..communicator.comm import Comm
from ..selection.network import Network, loads
from . import cache
from .probe import Lines, measure

_MOST_HOSTS = 1024  # beyond, nobody waits for the measurement: give a table, or a topology
_ALIKE = 1.15  # rates that differ by less count as one, so that noise makes no machine uneven


def discover(comm: Comm, host: bytes) -> Network | None:
    """Return the network between the hosts of a communicator, on which all of its ranks must call this.

    It takes about a second where nothing is in the cache; see `pycomm.discover.probe`.

    Args:
        comm: of two hosts or more, else there is nothing to find.
        host: what tells this rank's host from others.

    Returns:
        None if PYCOMM_NETWORK is off, or there is one host, or more than 1,024.
    """
    hosts = comm.machine.hosts
    wanted = knobs.NETWORK.value()
    if wanted == "off" or not 1 < len(hosts) <= _MOST_HOSTS:
        return None
    leader = comm.rank in {ranks[0] for ranks in hosts}
    leaders = comm.Split(0 if leader else None, next(i for i, ranks in enumerate(hosts) if comm.rank in ranks))
    found = b""
    if leaders is not None:
        names = np.zeros((leaders.size, len(host)), np.uint8)
        leaders.Allgather(np.frombuffer(host, np.uint8), names)
        key = hashlib.blake2b(names.tobytes(), digest_size=8).hexdigest()
        known = np.frombuffer(_known(key, wanted) if comm.rank == 0 else b"", np.uint8)
        if _told(leaders, known) == b"":
            network = read(measure(leaders))
            if comm.rank == 0:
                found = network.dumps().encode()
                cache.keep(key, network)
        elif comm.rank == 0:
            found = known.tobytes()
        leaders.Free()
    return loads(_told(comm, np.frombuffer(found, np.uint8)))


def read(lines: Lines) -> Network:
    """Return the network that explains what was measured."""
    latency, sites = lines.latency, lines.sites
    pairs = ~np.eye(len(latency), dtype=bool) & np.isfinite(latency)
    site = np.empty(len(latency), np.int64)
    for number, hosts in enumerate(sites):
        site[list(hosts)] = number
    near, far = pairs & (site[:, None] == site), pairs & (site[:, None] != site)
    within = float(np.median(latency[near])) if near.any() else 0.0
    between = float(np.median(latency[far])) if far.any() else 0.0
    message = float(f"{lines.message:.2g}")
    return Network(_levelled(lines.rates), within or between, sites, _levelled(lines.far_rates), between, message)


def _levelled(rates: np.ndarray) -> tuple[float, ...]:
    """Return rates in which those that differ by no more than noise are the same."""
    order = np.argsort(rates)
    level = np.empty(len(rates))
    for at in range(len(order)):
        first = at == 0 or rates[order[at]] > _ALIKE * level[order[at - 1]]
        level[order[at]] = rates[order[at]] if first else level[order[at - 1]]
    same = [float(np.median(rates[level == one])) for one in level]
    return tuple(float(f"{rate:.3g}") for rate in same)


def _known(key: str, wanted: str) -> bytes:
    network = None if wanted == "fresh" else cache.find(key)
    return b"" if network is None else network.dumps().encode()


def _told(comm: Comm, text: np.ndarray) -> bytes:
    """Return what rank 0 of a communicator has to say, to all of them."""
    length = np.array([text.size], np.int64)
    comm.Bcast(length, 0)
    whole = np.array(text) if comm.rank == 0 else np.empty(int(length[0]), np.uint8)
    if length[0]:
        comm.Bcast(whole, 0)
    return whole.tobytes()
