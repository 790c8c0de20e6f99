"""Judges who reaches whom, and how fast: failures, slow hosts and slow pairs, and ways that are not the best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..discover.probe import sites_of
from .facts import Card, Facts, Pair
from .findings import Finding, Severity

_SLOW = 2.0  # times slower than the best of its kind; hosts are told from one another by network.py at 1.25
_SLOW_NEAR = 4.0  # the same in one host, where sockets and caches make a difference, and neighbours steal time
_ONE_SIDED = 2.0  # times slower one way than the other
_WINDOWS = 0.5  # part of a connection's buffer that is payload under way (the kernel's tcp_adv_win_scale of 1)
_NAMED = 5  # pairs that a sentence names
_FAR = 2e-3  # seconds, below which no buffer limits a connection


def check_pairs(facts: Facts) -> Iterator[Finding]:
    """Yield what is wrong."""
    yield from _failed(facts)
    yield from _ways(facts)
    good = [pair for pair in facts.pairs if not pair.failed]
    for kind in _kinds(facts, good):
        yield from _slow_hosts(facts, kind) if not facts.near(kind[0]) else _slow_pairs(facts, kind, _SLOW_NEAR)
    for pair in good:
        yield from _one_sided(facts, pair)
        yield from _buffers(facts, pair)


def why(facts: Facts, pair: Pair) -> str:
    """Return by which way two ranks reach each other, and why by this one."""
    a, b = facts.owns[pair.a], facts.owns[pair.b]
    if pair.failed:
        return pair.failed
    if not pair.ends:
        return "memory of one host" if facts.near(pair) else ""
    ways = []
    for own, other in pair.ends:
        cards = [card.name if card else "?" for card in (a.card_of(own), b.card_of(other))]
        ways.append(f"{own} ({cards[0]}) > {other} ({cards[1]})")
    reason = "different hosts" if not facts.near(pair) else _why_not_memory(facts, pair)
    return f"{', '.join(ways)}: {reason}{', all networks that both share' if len(ways) > 1 else ''}"


def _why_not_memory(facts: Facts, pair: Pair) -> str:
    lacking = [rank for rank in (pair.a, pair.b) if "shm" not in _names(facts, rank)]
    if lacking:
        return f"one host, and PYCOMM_TRANSPORTS of rank {lacking[0]} has no shm"
    return "one host, whose ranks do not share memory: they are in different containers"


def _names(facts: Facts, rank: int) -> list[str]:
    return [name.partition(":")[0] for name in facts.owns[rank].transports]


def _failed(facts: Facts) -> Iterator[Finding]:
    alike: dict[tuple[bool, str], list[Pair]] = {}
    for pair in facts.pairs:
        if pair.failed:
            alike.setdefault((facts.near(pair), pair.failed), []).append(pair)
    for (near, reason), pairs in alike.items():
        named = "; ".join(map(facts.pair_name, pairs[:_NAMED]))
        yield Finding(
            Severity.ERROR,
            f"{named}{_and_more(len(pairs) - _NAMED)} do not reach each other: {reason.rstrip('.')}",
            "see what else is said of these ranks here"
            if near
            else "let TCP pass between these hosts on all ports (firewall, security group), or name the interfaces "
            "that reach each other in PYCOMM_SOCKET_IFNAME",
        )


def _ways(facts: Facts) -> Iterator[Finding]:
    near = [pair for pair in facts.pairs if facts.near(pair) and not pair.failed and pair.transport == "tcp"]
    if near:
        yield Finding(
            Severity.WARNING,
            f"{facts.pair_name(near[0])}{_and_more(len(near) - 1)} use sockets: {_why_not_memory(facts, near[0])}",
            "set PYCOMM_TRANSPORTS=shm,tcp, and start ranks of a host in one container",
        )
    for pair in facts.pairs:
        for own, other in pair.ends:
            cards = facts.owns[pair.a].card_of(own), facts.owns[pair.b].card_of(other)
            if cards[0] and cards[1] and cards[0].mtu != cards[1].mtu:
                yield Finding(
                    Severity.WARNING,
                    f"{facts.pair_name(pair)} send packets of up to {cards[0].mtu} and {cards[1].mtu} bytes over "
                    f"{cards[0].name} and {cards[1].name}, and the longer ones may vanish",
                    "give both interfaces, and all switches between, the same MTU",
                )


def _kinds(facts: Facts, pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Yield pairs that should be alike: of one host and transport, between hosts of one site, between sites."""
    far = [pair for pair in pairs if not facts.near(pair)]
    latency = np.full((len(facts.hosts),) * 2, np.inf)
    for pair in far:
        latency[facts.host_of[pair.a], facts.host_of[pair.b]] = pair.latency
    sites = sites_of(latency) if far else ()
    site = {host: number for number, hosts in enumerate(sites) for host in hosts}
    kinds: dict[tuple[object, ...], list[Pair]] = {}
    for pair in pairs:
        a, b = facts.host_of[pair.a], facts.host_of[pair.b]
        key = ("in", a, pair.transport) if a == b else ("site",) if site[a] == site[b] else ("between",)
        kinds.setdefault(key, []).append(pair)
    yield from kinds.values()


def _slow_hosts(facts: Facts, kind: Sequence[Pair]) -> Iterator[Finding]:
    """Yield the hosts all of whose pairs are slow, each once; then pairs that are slow though their hosts are not."""
    best: dict[int, float] = {}
    for pair in kind:
        for host in (facts.host_of[pair.a], facts.host_of[pair.b]):
            best[host] = max(best.get(host, 0.0), pair.rate)
    fastest = max(best.values())
    slow = {host for host, rate in best.items() if fastest > _SLOW * rate}
    for host in sorted(slow):
        own = [pair for pair in kind if host in (facts.host_of[pair.a], facts.host_of[pair.b])]
        first = max(own, key=lambda pair: pair.rate)
        name = facts.owns[facts.hosts[host][0]].host
        cards = sorted({card.name for pair in own for card in _cards(facts, pair, host)})
        yield Finding(
            Severity.WARNING,
            f"host {name} is slow: {facts.pair_name(first)} pass {say_rate(first.rate)} at best"
            f"{_and_more(len(own) - 1)}, where other hosts reach {say_rate(fastest)}",
            f"look at the cable, the port of the switch and the speed of {', '.join(cards) or 'its cards'} on {name} "
            "(`ethtool`), and at what else uses them",
        )
    yield from _slow_pairs(facts, [p for p in kind if not slow & {facts.host_of[p.a], facts.host_of[p.b]}], _SLOW)


def _cards(facts: Facts, pair: Pair, host: int) -> Iterator[Card]:
    side = 0 if facts.host_of[pair.a] == host else 1
    rank = (pair.a, pair.b)[side]
    for ends in pair.ends:
        card = facts.owns[rank].card_of(ends[side])
        if card:
            yield card


def _slow_pairs(facts: Facts, kind: Sequence[Pair], factor: float) -> Iterator[Finding]:
    fastest = max((pair.rate for pair in kind), default=0.0)
    slow = sorted((pair for pair in kind if fastest > factor * pair.rate), key=lambda pair: pair.rate)
    if slow:
        worst = slow[0]
        near = facts.near(worst)
        yield Finding(
            Severity.WARNING,
            f"{facts.pair_name(worst)} pass {say_rate(worst.rate)}{_and_more(len(slow) - 1)}, where others "
            f"{'of their host ' if near else ''}reach {say_rate(fastest)}",
            "see that nothing else uses the processors of these ranks (`top`), and bind ranks to one each"
            if near
            else "look at the way between these two hosts: switches, and links that others use as well (`traceroute`)",
        )


def _one_sided(facts: Facts, pair: Pair) -> Iterator[Finding]:
    slow, fast = sorted((pair.there, pair.back))
    if not facts.near(pair) and fast > _ONE_SIDED * slow:
        frm, to = (pair.a, pair.b) if pair.there < pair.back else (pair.b, pair.a)
        yield Finding(
            Severity.WARNING,
            f"from {facts.name(frm)} to {facts.name(to)} pass {say_rate(slow)}, and {say_rate(fast)} the other way",
            f"look for errors of the card that sends ({facts.owns[frm].host}) and of the one that receives "
            f"({facts.owns[to].host}): `ethtool -S`, `ip -s link`",
        )


def _buffers(facts: Facts, pair: Pair) -> Iterator[Finding]:
    if facts.near(pair) or pair.latency < _FAR:
        return
    a, b = facts.owns[pair.a], facts.owns[pair.b]
    room = min(a.tcp_send, b.tcp_receive, b.tcp_send, a.tcp_receive)
    needed = max(pair.there, pair.back) * 2 * pair.latency / _WINDOWS
    if 0 < room < needed:
        yield Finding(
            Severity.WARNING,
            f"{facts.pair_name(pair)} have {say_rate(pair.rate)} over {1e3 * pair.latency:.3g} ms, for which the "
            f"buffers of a connection ({room >> 10} KiB) are short",
            f"`sysctl net.ipv4.tcp_rmem` and tcp_wmem: let the last number be {2 * int(needed)} or more on both hosts",
        )


def _and_more(count: int) -> str:
    return f" (and {count} pair{'s' * (count > 1)} more)" if count > 0 else ""


def say_rate(rate: float) -> str:
    """Return bytes per second for people."""
    return f"{8e-9 * rate:.3g} Gbit/s" if rate >= 1.25e8 else f"{8e-6 * rate:.3g} Mbit/s"
