"""What the doctor finds follows from the facts: each that is wrong gives its finding, and none that is right does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from pycomm.doctor.check_clocks import ahead_of_first
from pycomm.doctor.facts import Card, Facts, Own, Pair, hosts_of, pack, say_ranks, unpack_own, unpack_pairs
from pycomm.doctor.findings import Finding, Severity
from pycomm.doctor.pairs import rounds
from pycomm.doctor.plot import matrices
from pycomm.doctor.report import check, lines

MIB, GBIT = 1 << 20, 1.25e8


def own(host: int = 0, **other: object) -> Own:
    """Return a rank of a host on which nothing is wrong."""
    cards = (
        Card("lo", ("127.0.0.1",), 65536, None, "is this host's own"),
        Card("eth0", (f"10.0.0.{host}",), 1500, 10 * GBIT, ""),
    )
    facts: dict[str, object] = {
        "host": f"node{host}", "identity": str(host), "transports": ("shm", "tcp"), "processors": tuple(range(8)),
        "online": 8, "descriptors": 4096, "open": 10, "file_size": None, "memlock": None, "memory": 1 << 36,
        "shm": 1 << 34, "reads_peers": True, "tcp_receive": 64 * MIB, "tcp_send": 64 * MIB, "cards": cards,
    }  # fmt: skip
    return Own(**{**facts, **other})  # type: ignore[arg-type]


def facts(hosts: Sequence[int], change: Callable[[Pair], Pair] = lambda pair: pair, **others: object) -> Facts:
    """Return a job of ranks on these hosts, between each two of which a pair was measured."""
    pairs = []
    for a, b in combinations(range(len(hosts)), 2):
        near = hosts[a] == hosts[b]
        ends = () if near else ((f"10.0.0.{hosts[a]}", f"10.0.0.{hosts[b]}"),)
        good = Pair(a, b, "shm" if near else "tcp", 1e-6 if near else 3e-5, 8 * GBIT, 8 * GBIT, 0.0, ends)
        pairs.append(change(good))
    return Facts(tuple(own(host, **others) for host in hosts), tuple(pairs))


def found(of: Facts) -> list[Finding]:
    return check(of)


def test_nothing_is_wrong() -> None:
    assert found(facts([0, 0, 1, 1, 2])) == []


@pytest.mark.parametrize(
    ("wrong", "severity", "words"),
    [
        ({"descriptors": 40}, Severity.ERROR, ["ranks 0-1 on node0", "open 40 files", "ulimit -Hn"]),
        ({"descriptors": 200}, Severity.WARNING, ["open 200 files", "limit to 262"]),
        ({"file_size": 4096}, Severity.ERROR, ["files of 4096 bytes", "ulimit -f"]),
        ({"memory": MIB}, Severity.WARNING, ["node0 has 1 MiB of free memory"]),
        ({"processors": (3,)}, Severity.WARNING, ["2 ranks on node0 share 1 processor", "has 7 more"]),
        ({"processors": (3,), "online": 1}, Severity.WARNING, ["no more ranks than processors"]),
        ({"reads_peers": False}, Severity.WARNING, ["Yama", "ptrace_scope=0"]),
        ({"memlock": 65536}, Severity.NOTE, ["lock 65536 bytes", "ulimit -l unlimited"]),
        ({"shm": MIB}, Severity.NOTE, ["/dev/shm of node0 has 1 MiB", "--shm-size"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_limit(wrong: dict[str, object], severity: Severity, words: list[str]) -> None:
    (finding,) = found(facts([0, 0], **wrong))
    assert finding.severity == severity
    assert all(word in str(finding) for word in words), finding


def test_what_many_ranks_have_in_common_is_one_finding() -> None:
    (finding,) = found(facts([0, 0, 1, 2, 3, 4, 4], memlock=65536))
    assert "ranks 0-6 on node0, node1, node2 and 2 hosts more may lock" in finding.what


def test_ranks_on_one_processor_of_several() -> None:
    owns = tuple(own(processors=processors) for processors in ((1,), (2,), (2,), (3, 4, 5)))
    (finding,) = found(replace(facts([0] * 4), owns=owns))
    assert "ranks 1-2 on node0 are bound to processor 2 alone, of 5" in finding.what


def slow(*ranks: int, factor: float = 10.0) -> Callable[[Pair], Pair]:
    """Return what makes those pairs slow that have one of these ranks."""
    return lambda pair: (
        replace(pair, there=pair.there / factor, back=pair.back / factor) if {pair.a, pair.b} & {*ranks} else pair
    )


@pytest.mark.parametrize("hosts", [3, 4, 9])
def test_a_slow_host_is_one_finding(hosts: int) -> None:
    """However many of the pairs it makes slow: of three hosts, most."""
    (finding,) = found(facts(range(hosts), slow(2)))
    assert finding.severity == Severity.WARNING
    assert "host node2 is slow: rank 0 (node0) and rank 2 (node2) pass 800 Mbit/s at best" in finding.what
    assert (
        "others" not in finding.what and "other hosts reach 8 Gbit/s" in finding.what and "eth0 on node2" in finding.do
    )


def test_a_slow_pair_whose_hosts_are_not() -> None:
    (finding,) = found(facts(range(4), lambda pair: slow(3)(pair) if pair.a == 1 else pair))
    assert "rank 1 (node1) and rank 3 (node3) pass 800 Mbit/s, where others reach 8 Gbit/s" in finding.what


def test_sites_are_not_taken_for_slow_hosts() -> None:
    """Pairs between sites are compared with each other."""

    def far(pair: Pair) -> Pair:
        return replace(slow(pair.a)(pair), latency=1e-2) if (pair.a < 2) != (pair.b < 2) else pair

    assert found(facts(range(4), far)) == []


def test_buffers_that_are_short_for_the_way() -> None:
    long = facts(range(2), lambda pair: replace(pair, latency=5e-2), tcp_receive=4 * MIB)
    (finding,) = found(long)
    assert "buffers of a connection (4096 KiB) are short" in finding.what and "tcp_rmem" in finding.do


def test_one_way_is_slower() -> None:
    (finding,) = found(facts(range(2), lambda pair: replace(pair, back=GBIT)))
    assert "from rank 1 (node1) to rank 0 (node0) pass 1 Gbit/s, and 8 Gbit/s the other way" in finding.what


def test_pairs_that_fail_break_a_job() -> None:
    broken = facts(range(3), lambda pair: replace(pair, failed="it is gone") if pair.b == 2 else pair)
    (finding,) = found(broken)
    assert finding.severity == Severity.ERROR
    assert "rank 0 (node0) and rank 2 (node2); rank 1 (node1) and rank 2 (node2) do not reach" in finding.what
    assert "it is gone" in finding.what and "firewall" in finding.do
    assert list(lines(broken, [finding]))[-1] == "1 finding, of which 1 would break a job"


def test_sockets_within_a_host() -> None:
    inside = facts([0, 0], lambda pair: replace(pair, transport="tcp", ends=(("127.0.0.1", "127.0.0.1"),)))
    (finding,) = found(inside)
    assert "rank 0 and rank 1 use sockets" in finding.what and "containers" in finding.what
    lacking = replace(inside, owns=tuple(replace(one, transports=("tcp",)) for one in inside.owns))
    assert any("PYCOMM_TRANSPORTS of rank 0 has no shm" in line for line in lines(lacking, []))


def test_packets_of_two_lengths() -> None:
    pair = facts(range(2))
    card = replace(pair.owns[1].cards[1], mtu=9000)
    (finding,) = found(replace(pair, owns=(pair.owns[0], replace(pair.owns[1], cards=(card,)))))
    assert "packets of up to 1500 and 9000 bytes over eth0 and eth0" in finding.what


def test_clocks_go_from_host_to_host() -> None:
    def ahead(pair: Pair) -> Pair:  # host k is k seconds ahead; of host 2 only host 1 knows
        return replace(pair, ahead=float(pair.b - pair.a), failed="" if pair.b - pair.a == 1 else "no")

    clocks = facts(range(3), ahead)
    assert ahead_of_first(clocks) == {0: (0.0, 0.0), 1: (1.0, 3e-5), 2: (2.0, 6e-5)}
    found_here = [finding for finding in found(clocks) if "clock" in finding.what]
    assert [finding.severity for finding in found_here] == [Severity.WARNING] * 2
    assert "the clock of node2 is 2e+03 ms ahead of that of node0" in found_here[1].what


def test_a_clock_is_not_judged_beyond_what_is_known() -> None:
    assert found(facts(range(2), lambda pair: replace(pair, ahead=5e-2, latency=5e-2, there=1e6, back=1e6))) == []


def test_why_a_card_is_not_used_is_said() -> None:
    down = Card("eth1", (), 1500, None, "is down")
    told = list(lines(facts(range(2), cards=(*own().cards, down)), []))
    assert "  eth1: -, MTU 1500: not used, it is down" in told
    assert "  eth0: 10.0.0.0, MTU 1500, says 10 Gbit/s: used" in told


def measured(hosts: Sequence[Sequence[int]]) -> set[tuple[int, int]]:
    """Return all pairs of the rounds, after it was checked that no host is twice in one."""
    host_of = {rank: number for number, ranks in enumerate(hosts) for rank in ranks}
    for pairs in rounds(hosts):
        busy = [host for a, b in pairs for host in {host_of[a], host_of[b]}]
        assert len(busy) == len(set(busy))
    return {pair for pairs in rounds(hosts) for pair in pairs}


def both(ranks: Iterable[int]) -> set[tuple[int, int]]:
    return set(combinations(ranks, 2))


def test_rounds() -> None:
    assert measured([[0]]) == set()
    assert measured([[0, 1, 2, 3]]) == both(range(4))
    assert measured([[0, 1], [2, 3], [4]]) == both([0, 2, 4]) | {(0, 1), (2, 3)}
    assert measured([[host] for host in range(16)]) == both(range(16))
    assert len(rounds([[host] for host in range(8)])) <= 8
    many = measured([list(range(100))])
    assert len(many) <= 700 and {rank for pair in many for rank in pair} == set(range(100))


def test_what_is_sent_arrives() -> None:
    whole = facts([0, 0, 1])
    assert unpack_own(pack(whole.owns[0])) == whole.owns[0]
    assert tuple(unpack_pairs(pack(whole.pairs))) == whole.pairs
    assert hosts_of([one.identity for one in whole.owns]) == whole.hosts == ((0, 1), (2,))
    assert say_ranks([2, 0, 1]) == "ranks 0-2" and say_ranks([4]) == "rank 4"


def test_the_picture_has_both_directions_and_leaves_out_failures() -> None:
    latency, rate = matrices(facts(range(3), lambda pair: replace(pair, back=GBIT, failed="no" if pair.b == 2 else "")))
    assert rate[0, 1] == 8 * GBIT and rate[1, 0] == GBIT and latency[0, 1] == latency[1, 0] == 3e-5
    assert np.isnan(rate[:, 2]).all() and np.isnan(latency[2]).all()
