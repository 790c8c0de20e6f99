"""What is between hosts: how fast each can send, how long messages take, and which hosts are at one site."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgument

_UNEVEN = 1.25  # rates that differ by less are noise of the measurement


@dataclass(frozen=True)
class Network:
    """The network as `pycomm.discover` measures it; hosts are numbered as in `pycomm.selection.machine.Machine`.

    Attributes:
        rates: bytes per second that each host can send, and receive at the same time.
        latency: seconds that a short message takes from host to host of one site.
        sites: the hosts of each site.
        far_rates: bytes per second from each site to the others, and back at the same time; empty: there is one site.
        far_latency: seconds from site to site.
        message: seconds that each message to other hosts, and one from them, takes a host's processor; 0: not known.
    """

    rates: tuple[float, ...]
    latency: float
    sites: tuple[tuple[int, ...], ...]
    far_rates: tuple[float, ...] = ()
    far_latency: float = 0.0
    message: float = 0.0

    @property
    def uneven(self) -> bool:
        """Whether some host is slower than another."""
        return max(self.rates) > _UNEVEN * min(self.rates)

    def among(self, hosts: Sequence[int]) -> Network:
        """Return the network of some of the hosts, which are numbered anew, in this order."""
        place = {host: i for i, host in enumerate(hosts)}
        kept = [tuple(place[host] for host in site if host in place) for site in self.sites]
        far = tuple(rate for rate, site in zip(self.far_rates, kept, strict=False) if site)
        return Network(
            tuple(self.rates[host] for host in hosts), self.latency, tuple(filter(None, kept)),
            far if len(far) > 1 else (), self.far_latency, self.message,
        )  # fmt: skip

    def lines(self) -> Iterator[str]:
        """Yield it for people."""
        yield f"network: {len(self.rates)} hosts, {1e6 * self.latency:.3g} us apart"
        if self.message:
            yield f"  each message more takes a host {1e6 * self.message:.3g} us"
        alike: dict[float, list[int]] = {}
        for host, rate in enumerate(self.rates):
            alike.setdefault(rate, []).append(host)
        for rate, numbers in alike.items():
            yield f"  {_say_rate(rate)} each way: host{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
        for site, rate in zip(self.sites, self.far_rates, strict=False):
            hosts = ", ".join(map(str, site))
            yield f"  {_say_rate(rate)} and {1e3 * self.far_latency:.3g} ms from the site of hosts {hosts} to others"

    def dumps(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))


def _say_rate(rate: float) -> str:
    return f"{8e-9 * rate:.3g} Gbit/s"


def loads(text: str | bytes) -> Network:
    """Read what `Network.dumps` wrote.

    Raises:
        InvalidArgument: it is no such text.
    """
    try:
        found: dict[str, Any] = json.loads(text)
        sites = tuple(tuple(int(host) for host in site) for site in found["sites"])
        rates, far = (tuple(float(rate) for rate in found[name]) for name in ("rates", "far_rates"))
        network = Network(
            rates, float(found["latency"]), sites, far, float(found["far_latency"]), float(found["message"])
        )
        whole = sorted(host for site in sites for host in site) == list(range(len(rates)))
        if (
            not whole
            or len(far) != (len(sites) if len(sites) > 1 else 0)
            or not all(0 < r < np.inf for r in rates + far)
            or not 0 <= network.message < np.inf
        ):
            raise ValueError("hosts, sites and rates do not fit each other")
    except (ValueError, KeyError, TypeError) as why:
        raise InvalidArgument(f"this describes no network: {why}") from None
    return network


def shares(rates: Sequence[float], parts: int) -> tuple[int, ...]:
    """Return how many of `parts` equal parts of a vector each rank shall own, so that an all-reduce is fastest.

    Rank i sends and receives n (1 + (p - 2) w_i) where it owns the part w_i and all send to all owners and back. So
    the time T is least where each w_i fills what the rank's rate allows, w_i = (T b_i / n - 1) / (p - 2), and

        T = max(2 (p - 1) n / sum b_i, n / min b_i).

    Ranks that are slow own nothing; where that leaves others room, all shrink alike.

    Args:
        rates: bytes per second of each rank, b_i.
        parts: how many there are; more parts follow the rates more closely.
    """
    b = np.asarray(rates, float)
    p = len(b)
    if p < 3:
        return tuple(int(n) for n in _rounded(np.full(p, 1 / p), parts))
    slowest = max(2 * (p - 1) / b.sum(), 1 / b.min())
    room: npt.NDArray[np.float64] = np.maximum(0.0, (slowest * b - 1) / (p - 2))
    return tuple(int(n) for n in _rounded(room / room.sum(), parts))


def _rounded(weights: npt.NDArray[np.float64], parts: int) -> npt.NDArray[np.int64]:
    """Return whole numbers near the weights that add up to `parts` (the largest remainders get what is left)."""
    exact = weights * parts
    whole = np.floor(exact).astype(np.int64)
    for i in np.argsort(whole - exact, kind="stable")[: parts - int(whole.sum())]:
        whole[i] += 1
    return whole
