"""Makes a laboratory: the namespaces of hosts and switches, the links between them and their rates."""

from __future__ import annotations

import contextlib
import importlib.resources
import math
import os
import shutil
import subprocess
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument, SystemRefused
from . import place
from .model import Event, Host, Model, Trunk, address
from .namespaces import Keeper, own_files

_PORT = 5077  # where ranks meet, if nobody else says
_FRAME = 1514  # bytes
_LONGEST = 65536  # bytes that are handed to a card at once, to be cut into frames
_LEAST_QUEUE = 64 << 10
_PATIENCE = 20.0


class Lab:
    """Hosts that are there until this is closed, or the thread that made them ends, however it does.

    Attributes:
        model: what was asked for.
        places: the hosts.
        state: the value of PYCOMM_LAB by which processes find them.
    """

    def __init__(self, model: Model) -> None:
        """Make it.

        Raises:
            InvalidArgument: something is missing on this machine that this takes.
            SystemRefused: the kernel refuses something.
        """
        check_machine(model)
        self.model = model
        self._stack = contextlib.ExitStack()
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the hosts; their processes live on, without a network."""
        self._stack.close()

    def set_rate(self, host: str | int, nic: int, rate: float) -> None:
        """Change the rate of a card, bytes per second, both ways.

        Raises:
            InvalidArgument: there is no such host or card, or the rate is not above 0.
        """
        number, nic = self.model.card(host, nic)
        _check_rate(rate)
        self._shape(self._hosts[number], f"eth{nic}", rate)
        self._shape(self._switches[self.model.hosts[number].site], f"h{number}n{nic}", rate)

    def set_trunk_rate(self, sites: Sequence[str], rate: float) -> None:
        """Change the rate of the line between two sites, bytes per second, both ways on each of its rails.

        Raises:
            InvalidArgument: there is no such line, or the rate is not above 0.
        """
        number = self.model.line(sites)
        _check_rate(rate)
        for switch in self._ends(number):
            for device in self._rails(number):
                self._shape(switch, device, rate, self.model.trunks[number].delay)

    def down(self, host: str | int, nic: int = 0) -> None:
        """Pull a card's cable: nothing comes through. The host sees its carrier go, unless it has a delay or losses."""
        self._plug(host, nic, "down")

    def up(self, host: str | int, nic: int = 0) -> None:
        """Plug a card's cable in again."""
        self._plug(host, nic, "up")

    def trunk_down(self, sites: Sequence[str]) -> None:
        """Cut the line between two sites, on all its rails: nothing comes through, and no host sees a carrier go."""
        self._cut(sites, "down")

    def trunk_up(self, sites: Sequence[str]) -> None:
        """Mend the line between two sites."""
        self._cut(sites, "up")

    def _plug(self, host: str | int, nic: int, state: str) -> None:
        number, nic = self.model.card(host, nic)
        _ip(self._switches[self.model.hosts[number].site], [f"link set h{number}n{nic} {state}"])

    def _cut(self, sites: Sequence[str], state: str) -> None:
        number = self.model.line(sites)
        _ip(self._ends(number)[0], [f"link set {device} {state}" for device in self._rails(number)])

    def _ends(self, trunk: int) -> list[Keeper]:
        """The switches that a trunk joins."""
        return [self._switches[site] for site in self.model.trunks[trunk].sites]

    def _rails(self, trunk: int) -> list[str]:
        """The devices of a trunk in either switch."""
        return [f"t{trunk}n{k}" for k in range(self.model.rails(self.model.trunks[trunk]))]

    def apply(self, event: Event) -> None:
        """Have an event happen now."""
        if event.sites is not None:
            if event.rate is not None:
                self.set_trunk_rate(event.sites, event.rate)
            if event.up is not None:
                (self.trunk_up if event.up else self.trunk_down)(event.sites)
            return
        assert event.host is not None
        if event.rate is not None:
            self.set_rate(event.host, event.nic, event.rate)
        if event.up is not None:
            (self.up if event.up else self.down)(event.host, event.nic)

    def network(self, host: str | int) -> contextlib.AbstractContextManager[None]:
        """Have this thread, and the sockets and processes that it makes, in the network of a host."""
        return self._hosts[self.model.card(host, 0)[0]].network()

    def run_ranks(self, n: int, function: Callable[..., object], *args: object, **options: Any) -> list[Any]:
        """Run `function(*args)` in n ranks on the hosts, as `pycomm.run_ranks` does, with its options."""
        from ..job.launch import run_ranks

        place.spread(self.places, n)
        env = {
            "PYCOMM_RENDEZVOUS": f"tcp://{self.places[0].address}:{_PORT}",
            "PYCOMM_SECRET": os.urandom(16).hex(),
            "PYCOMM_SECRET_FILE": "",
            **(options.pop("env", None) or {}),
        }
        return run_ranks(n, _on_host, self.places, n, function, args, env=env, **options)

    # ---- how it is made ----

    def _build(self) -> None:
        model = self.model
        _allow(model.congestion)
        self._switches = {site: self._keeper("switch", _no_ipv6) for site in model.sites}
        names = _names(model)
        self._hosts = [self._keeper(host.name, lambda: _as_host(names, model.congestion)) for host in model.hosts]
        for site, switch in self._switches.items():
            rails = max(len(host.nics) for host in model.hosts if host.site == site)
            for k in range(rails):
                _ip(switch, [f"link add rail{k} type bridge forward_delay 0 mcast_snooping 0", f"link set rail{k} up"])
        for number, host in enumerate(model.hosts):
            self._connect(number, host)
        for number, trunk in enumerate(model.trunks):
            self._join(number, trunk)
        self.places = self._places()
        memory = os.memfd_create("pycomm-lab")  # so that no file outlives this process
        self._stack.callback(os.close, memory)
        os.write(memory, place.dumps(self.places).encode())
        self.state = f"/proc/{os.getpid()}/fd/{memory}"

    def _keeper(self, name: str, prepare: Callable[[], None]) -> Keeper:
        keeper = Keeper(name, prepare)
        self._stack.callback(keeper.close)
        return keeper

    def _connect(self, number: int, host: Host) -> None:
        """Join a host to its site's switch on each of its rails."""
        switch, home = self._switches[host.site], self._hosts[number]
        inside = ["link set lo up"]
        outside = []
        for k in range(len(host.nics)):
            self._wire(switch, f"h{number}n{k}", home, f"eth{k}", host.delay, host.loss)
            outside += [f"link set h{number}n{k} master rail{k} up"]
            inside += [f"address add {address(number, k)}/24 dev eth{k}", f"link set eth{k} up"]
        _ip(switch, outside)
        _ip(home, inside)
        for k, rate in enumerate(host.nics):
            self._shape(home, f"eth{k}", rate)
            self._shape(switch, f"h{number}n{k}", rate)

    def _join(self, number: int, trunk: Trunk) -> None:
        """Join the switches of two sites on each rail that both have."""
        one, other = self._ends(number)
        for k, name in enumerate(self._rails(number)):
            self._wire(one, name, other, name, trunk.delay, trunk.loss)
            for switch in (one, other):
                # What came over one line does not leave by another, or frames would go in circles among three sites.
                _ip(switch, [f"link set {name} master rail{k} up", f"link set {name} type bridge_slave isolated on"])
                self._shape(switch, name, trunk.rate, trunk.delay)

    def _wire(self, one: Keeper, name: str, other: Keeper, far: str, delay: float, loss: float) -> None:
        """Make two devices, one in each namespace, so that what leaves by one arrives at the other."""
        if not delay and not loss:
            _ip(one, [f"link add {name} type veth peer name {far} netns {other.pid}"])
            return
        with importlib.resources.as_file(importlib.resources.files(__package__) / "relay") as program:
            seed = zlib.crc32(f"{self.model.seed} {name}".encode())
            relay = subprocess.Popen(
                [program, f"/proc/{one.pid}/ns/net", name, f"/proc/{other.pid}/ns/net", far,
                 str(round(delay * 1e9)), str(round(loss * 2**32)), str(seed)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                start_new_session=True,
            )  # fmt: skip
        self._stack.enter_context(relay)
        self._stack.callback(relay.kill)
        assert relay.stdout and relay.stderr
        if relay.stdout.readline() != "ready\n":
            raise SystemRefused(f"the relay of {name} says: {relay.stderr.read().strip() or 'nothing'}")

    def _shape(self, keeper: Keeper, device: str, rate: float, delay: float = 0.0) -> None:
        """Limit what leaves by a device; `delay` is what a queue must bridge besides."""
        if math.isinf(rate):
            _ip(keeper, [f"link set {device} gso_max_size {_LONGEST}"])
            _run(keeper, "tc", [f"qdisc replace dev {device} root noqueue"])
            return
        burst = max(2 * _FRAME, round(rate * self.model.burst))
        limit = max(_LEAST_QUEUE, round(rate * (self.model.queue + delay)))
        # What network cards would cut must fit into the burst with all its headers, or the kernel cuts it here.
        _ip(keeper, [f"link set {device} gso_max_size {max(_FRAME, min(burst // 2, _LONGEST))}"])
        shape = f"rate {round(8 * rate)}bit burst {burst} limit {limit}"
        _run(keeper, "tc", [f"qdisc replace dev {device} root tbf {shape}"])

    def _places(self) -> list[place.Place]:
        every = sorted(os.sched_getaffinity(0))
        places, begin = [], 0
        for number, (host, keeper) in enumerate(zip(self.model.hosts, self._hosts, strict=True)):
            count = min(host.processors or max(1, len(every) // len(self._hosts)), len(every))
            processors = tuple(sorted(every[(begin + k) % len(every)] for k in range(count)))
            begin += count
            places.append(place.Place(host.name, keeper.pid, address(number, 0), processors, host.ranks))
        return places


def _check_rate(rate: float) -> None:
    if not rate > 0:
        raise InvalidArgument(f"a rate is above 0 bytes per second, not {rate}")


def _on_host(
    places: Sequence[place.Place], size: int, function: Callable[..., object], args: tuple[object, ...]
) -> object:
    from ..knobs import RANK

    rank = RANK.value()
    assert rank is not None  # the launcher has set it
    place.enter_as_rank(places, size, rank)
    return function(*args)


def _names(model: Model) -> str:
    """Return the hosts' /etc/hosts: a host's name is its first card, and NAME-ethK another."""
    lines = ["127.0.0.1 localhost"]
    for number, host in enumerate(model.hosts):
        lines += [f"{address(number, k)} {host.name}{f'-eth{k}' if k else ''}" for k in range(len(host.nics))]
    return "\n".join([*lines, ""])


def _as_host(names: str, congestion: str) -> None:
    _no_ipv6()
    own_files(names)
    try:
        Path("/proc/sys/net/ipv4/tcp_congestion_control").write_text(congestion)
    except OSError as why:
        raise SystemRefused(why.errno, f"TCP's congestion control cannot be {congestion!r}: {why.strerror}") from None


def _allow(congestion: str) -> None:
    """Allow a congestion control to everybody on this machine: where it is not, no new network namespace may use it."""
    allowed = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
    if allowed.exists() and congestion not in (before := allowed.read_text().split()):
        with contextlib.suppress(OSError):  # the kernel lacks it: a host will say so
            allowed.write_text(" ".join([*before, congestion]))


def _no_ipv6() -> None:
    """Have no neighbours discovered: the only packets are those of who is measured."""
    switch = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
    if switch.exists():
        switch.write_text("1")


def _ip(keeper: Keeper, lines: Sequence[str]) -> None:
    _run(keeper, "ip", lines)


def _run(keeper: Keeper, tool: str, lines: Sequence[str]) -> None:
    """Give lines to `ip` or `tc` in a network namespace."""
    text = "\n".join(lines)
    with keeper.network():
        done = subprocess.run(
            [tool, "-batch", "-"], input=text, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    if done.returncode:
        raise SystemRefused(f"`{tool}` says: {done.stderr.strip()}; it was given: {'; '.join(lines)}")


def check_machine(model: Model) -> None:
    """Say what is missing before anything is made."""
    missing = [] if os.geteuid() == 0 else ["to be root"]
    missing += [f"`{tool}` (of iproute2)" for tool in ("ip", "tc") if not shutil.which(tool)]
    wired: tuple[Host | Trunk, ...] = (*model.hosts, *model.trunks)
    if any(link.delay or link.loss for link in wired) and not Path("/dev/net/tun").exists():
        missing.append("/dev/net/tun, for delays and losses")
    if missing:
        raise InvalidArgument(f"a laboratory on this machine needs {' and '.join(missing)}")
