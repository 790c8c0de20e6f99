"""Times and bytes are what pencil and paper say, where these can tell: to rounding.

alpha is the latency of a message, beta seconds per byte of a port, gamma seconds per byte that is reduced (Hockney,
Parallel Computing 20, 1994; Thakur, Rabenseifner & Gropp, IJHPCA 19, 2005; Chan et al., Concurrency Computat.: Pract.
Exper. 19, 2007). n is a rank's full vector, p the number of ranks. Where a formula differs from those papers, it is
because in this model a rank does not wait for what it has sent to arrive.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import ceil, inf, log2
from typing import NamedTuple

import numpy as np
import pytest

from pycomm.schedules import registry
from pycomm.schedules.contract import CONTRACTS
from pycomm.schedules.schedule import SEND
from pycomm.schedules.traffic import Traffic, traffic
from pycomm.schedules.verify import verify
from pycomm.simulator.simulate import Result, simulate
from pycomm.topology import Topology, flat, generate

SIZES = range(1, 18)
ALPHA, BETA = 5e-6, 1e-10
EXACT = 1e-9


class Machine(NamedTuple):
    p: int
    alpha: float
    beta: float
    gamma: float

    @property
    def rounds(self) -> int:
        return ceil(log2(self.p))

    def topology(self) -> Topology:
        rate = 1 / self.gamma if self.gamma else inf
        return flat(self.p, bandwidth=1 / self.beta, latency=self.alpha, reduce_rate=rate)


Form = Callable[[Machine, float], float]


def ring(m: Machine, n: float) -> float:
    return (m.p - 1) * (m.alpha + n / m.p * m.beta)


def ring_adding(m: Machine, n: float) -> float:
    return ring(m, n) + (m.p - 1) / m.p * n * m.gamma


def bruck(m: Machine, n: float) -> float:
    return m.rounds * m.alpha + (m.p - 1) / m.p * n * m.beta


def bruck_adding(m: Machine, n: float) -> float:
    return bruck(m, n) + (m.p - 1) / m.p * n * m.gamma


def bruck_alltoall(m: Machine, n: float) -> float:
    return m.rounds * m.alpha + n / m.p * m.beta * sum(j.bit_count() for j in range(m.p))


def chain(m: Machine, n: float) -> float:
    return (m.p - 1) * (m.alpha + n * m.beta)


def chain_adding(m: Machine, n: float) -> float:
    return chain(m, n) + (m.p - 1) * n * m.gamma


def direct(m: Machine, n: float) -> float:
    return m.alpha + (m.p - 1) / m.p * n * m.beta


def direct_whole(m: Machine, n: float) -> float:
    return m.alpha + (m.p - 1) * n * m.beta


def two_stages(m: Machine, n: float) -> float:
    """p-1 messages come in one after the other, and each is added while the next one comes."""
    return m.alpha + n * (m.beta + m.gamma) + (m.p - 2) * n * max(m.beta, m.gamma)


def direct_adding(m: Machine, n: float) -> float:
    return two_stages(m, n / m.p)


def direct_allreduce(m: Machine, n: float) -> float:
    return direct_whole(m, n) + (m.p - 1) * n * m.gamma


def children(node: int, p: int) -> list[int]:
    """The children of a node in the binomial tree, the farthest first: its lowest bits are set one at a time."""
    below = node & -node if node else 1 << ceil(log2(p))
    return [node + (1 << k) for k in reversed(range(below.bit_length() - 1)) if node + (1 << k) < p]


def subtree(node: int, p: int) -> int:
    return min(node & -node, p - node)


def down(m: Machine, nbytes: Callable[[int], float]) -> float:
    """A tree downwards: a rank sends to its children one after the other, and waits for none of them."""
    latest, todo = 0.0, [(0, 0.0)]
    for node, time in todo:
        latest = max(latest, time)
        for child in children(node, m.p):
            time += nbytes(child) * m.beta
            todo.append((child, time + m.alpha))
    return latest


def up(m: Machine, nbytes: Callable[[int], float], gamma: float) -> float:
    """A tree upwards: a port takes what comes in the order in which it comes, a rank its nearest children first."""

    @cache
    def done(node: int) -> float:
        sent = [(done(child), order, child) for order, child in enumerate(reversed(children(node, m.p)))]
        port, there = 0.0, {}
        for start, _, child in sorted(sent):
            port = there[child] = max(port, start + m.alpha) + nbytes(child) * m.beta
        time = 0.0
        for child in reversed(children(node, m.p)):
            time = max(time, there[child]) + nbytes(child) * gamma
        return time

    return done(0)


def doubling(m: Machine, n: float) -> float:
    """Recursive doubling; the ranks beyond the power of two hand theirs to a neighbour before, and are told after."""
    core = 1 << m.p.bit_length() - 1
    folded = m.p - core
    send, add, hop = n * m.beta, n * m.gamma, m.alpha + n * m.beta + n * m.gamma
    time = [hop if k < folded else 0.0 for k in range(core)]
    for k in range(core.bit_length() - 1):
        other = [time[i ^ 1 << k] for i in range(core)]
        time = [max(t + send, max(t, o + m.alpha + send) + add) for t, o in zip(time, other, strict=True)]
    return max([*time, *(t + m.alpha + send for t in time[:folded])])


FORMS: dict[tuple[str, str], Form] = {
    ("allgather", "ring"): ring,
    ("allgather", "bruck"): bruck,
    ("allgather", "pairwise"): ring,
    ("allgather", "direct"): direct,
    ("reduce_scatter", "ring"): ring_adding,
    ("reduce_scatter", "bruck"): bruck_adding,
    ("reduce_scatter", "pairwise"): ring_adding,
    ("reduce_scatter", "direct"): direct_adding,
    ("allreduce", "ring"): lambda m, n: ring_adding(m, n) + ring(m, n),
    ("allreduce", "bruck"): lambda m, n: bruck_adding(m, n) + bruck(m, n),
    ("allreduce", "pairwise"): lambda m, n: ring_adding(m, n) + ring(m, n),
    ("allreduce", "two_shot"): lambda m, n: direct_adding(m, n) + direct(m, n),
    ("allreduce", "direct"): direct_allreduce,
    ("allreduce", "doubling"): doubling,
    ("broadcast", "ring"): chain,
    ("broadcast", "direct"): direct_whole,
    ("broadcast", "binomial"): lambda m, n: down(m, lambda child: n),
    ("reduce", "ring"): chain_adding,
    ("reduce", "direct"): two_stages,
    ("reduce", "binomial"): lambda m, n: up(m, lambda child: n, m.gamma),
    ("scatter", "direct"): direct,
    ("scatter", "binomial"): lambda m, n: down(m, lambda child: n / m.p * subtree(child, m.p)),
    ("gather", "direct"): direct,
    ("gather", "binomial"): lambda m, n: up(m, lambda child: n / m.p * subtree(child, m.p), 0.0),
    ("alltoall", "pairwise"): ring,
    ("alltoall", "direct"): direct,
    ("alltoall", "bruck"): bruck_alltoall,
    ("scan", "chain"): chain_adding,
}
POWERS_OF_TWO: dict[tuple[str, str], Form] = {
    ("allreduce", "doubling"): lambda m, n: m.rounds * (m.alpha + n * m.beta + n * m.gamma),
    ("broadcast", "binomial"): lambda m, n: m.rounds * (m.alpha + n * m.beta),
    ("reduce", "binomial"): lambda m, n: m.rounds * (m.alpha + n * m.beta + n * m.gamma),
    ("scatter", "binomial"): lambda m, n: m.rounds * m.alpha + (m.p - 1) / m.p * n * m.beta,
    ("gather", "binomial"): lambda m, n: m.rounds * m.alpha + (m.p - 1) / m.p * n * m.beta,
}
# Several ranks send to one at the same time: sharing its port, all of them are late, where one after the other the
# first is early, and can be added meanwhile.
INCAST = {("reduce", "direct"), ("reduce", "binomial"), ("gather", "binomial"), ("allreduce", "doubling")}
# One message a rank and round, all of one length and each awaited by its receiver: these pipeline without idle ports.
EVEN = [("allgather", "ring", 1), ("allgather", "pairwise", 1), ("alltoall", "pairwise", 1), ("allreduce", "ring", 2)]


def run(collective: str, algorithm: str, m: Machine, n: float, **how: object) -> Result:
    return simulate(traffic(algorithm, collective, size=m.p), m.topology(), n, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("contention", [False, True], ids=["ports", "shared"])
@pytest.mark.parametrize(("collective", "algorithm"), FORMS)
def test_a_flat_machine(collective: str, algorithm: str, contention: bool):
    form = FORMS[collective, algorithm]
    for p in SIZES:
        for gamma in (0.0, 0.3 * BETA, 2 * BETA):
            m = Machine(p, ALPHA, BETA, gamma)
            for n in (0, 1000, 1e6, 1 << 30):
                result = run(collective, algorithm, m, n, contention=contention)
                expected = form(m, n) if p > 1 else 0.0
                if contention and (collective, algorithm) in INCAST:
                    assert result.seconds >= expected * (1 - EXACT), (m, n)
                else:
                    assert result.seconds == pytest.approx(expected, rel=EXACT), (m, n)


@pytest.mark.parametrize(("collective", "algorithm"), POWERS_OF_TWO)
def test_powers_of_two_have_the_papers_forms(collective: str, algorithm: str):
    for p in (2, 4, 8, 16, 64, 256):
        m = Machine(p, ALPHA, BETA, 0.3 * BETA)
        for contention in (False, True):
            result = run(collective, algorithm, m, 12345.0, contention=contention)
            assert result.seconds == pytest.approx(POWERS_OF_TWO[collective, algorithm](m, 12345.0), rel=EXACT), p


def test_every_collective_with_a_form_is_checked_in_each_of_its_shipped_algorithms():
    shipped = {(e.collective, e.name) for e in registry.listing() if not e.grouped}
    assert set(FORMS) <= shipped
    without = {name for _, name in shipped - set(FORMS)}
    assert without <= {"knomial", "double_tree", "doubling", "chain", "dissemination", "direct"}, without


@pytest.mark.parametrize("collective", CONTRACTS)
def test_empty_buffers_cost_no_more_than_the_latency_of_each_hop(collective: str):
    """What is left is a chain of messages: no longer than the verifier's, in whose eyes senders wait, too."""
    for entry in registry.listing():
        for p in (2, 3, 5, 8, 13) if entry.collective == collective and not entry.grouped else ():
            hops = verify(entry.name, collective, size=p).hops
            latencies = run(collective, entry.name, Machine(p, ALPHA, BETA, BETA), 0).seconds / ALPHA
            assert latencies == pytest.approx(round(latencies), rel=EXACT), (entry.name, p)
            assert 1 <= round(latencies) <= hops, (entry.name, p)


@pytest.mark.parametrize("contention", [False, True], ids=["ports", "shared"])
def test_a_chain_in_slices(contention: bool):
    """S slices of n/S bytes: (p - 1) hops for the first one, and the others follow at the pace of the port.

    van de Geijn, J. Parallel Distrib. Comput. 22 (1994). Upwards, adding is one more stage of the pipeline, which
    overlaps with sending as soon as two slices are under way.
    """
    n = 1e6
    for p in (2, 3, 7, 16):
        for slices in (1, 2, 5, 10, 64):
            for window in (1, 2, 8):
                for gamma in (0.0, 0.3 * BETA, 2 * BETA):
                    m, one, how = Machine(p, ALPHA, BETA, gamma), n / slices, {"slices": slices, "window": window}
                    result = run("broadcast", "ring", m, n, contention=contention, **how)
                    first = (p - 1) * (ALPHA + one * BETA)
                    assert result.seconds == pytest.approx(first + (slices - 1) * one * BETA, rel=EXACT), (m, how)
                    result = run("reduce", "ring", m, n, contention=contention, **how)
                    pace = max(BETA, gamma) if window > 1 or p == 2 else BETA + gamma
                    expected = first + (p - 1) * one * gamma + (slices - 1) * one * pace
                    assert result.seconds == pytest.approx(expected, rel=EXACT), (m, how)


@pytest.mark.parametrize("contention", [False, True], ids=["ports", "shared"])
@pytest.mark.parametrize(("collective", "algorithm", "times"), EVEN)
def test_slices_that_are_all_under_way(collective: str, algorithm: str, times: int, contention: bool):
    """R rounds of S slices, of b seconds a message: either latency is hidden, R S b + alpha, or it never is."""
    for p in (2, 3, 8, 13):
        for slices in (1, 2, 5, 8):
            for n in (1e3, 1e5, 1e6, 1e7):
                m, rounds, b = Machine(p, ALPHA, BETA, 0.0), times * (p - 1), n / p / slices * BETA
                result = run(collective, algorithm, m, n, slices=slices, window=slices, contention=contention)
                expected = max(rounds * slices * b + ALPHA, rounds * (ALPHA + b) + (slices - 1) * b)
                assert result.seconds == pytest.approx(expected, rel=EXACT), (p, slices, n)


@pytest.mark.parametrize("contention", [False, True], ids=["ports", "shared"])
@pytest.mark.parametrize(("collective", "pace"), [("broadcast", 1), ("reduce", 1), ("allreduce", 2)])
def test_two_trees_take_n_bytes_a_slice(collective: str, pace: int, contention: bool):
    """No rank has children in both trees, so each further slice takes as long as its bytes through one port, or two.

    Sanders, Speck & Traeff, Parallel Computing 35 (2009): n beta + O(log p) for a broadcast, twice for an allreduce.
    """
    one = 1 << 20
    for p in (4, 7, 8, 13, 16):
        m = Machine(p, ALPHA, BETA, 0.0)
        few, more = (
            run(collective, "double_tree", m, k * one, slices=k, window=8, contention=contention).seconds
            for k in (32, 64)
        )
        # Upwards two messages of different slices share a port now and then, and what is awaited is late.
        most = 1.2 if contention and collective != "broadcast" else 1.01
        assert 0.99 <= (more - few) / (32 * pace * one * BETA) <= most, p


# ---- bytes on links -----------------------------------------------------------------------------------------------


def across(result: Result, kind: str) -> float:
    """Bytes over the links of a kind, in one direction, as multiples of n."""
    links = result.topology.links
    upwards = (links.kind == result.topology.kinds.index(kind)) & (links.source < links.target)
    return float(result.link_bytes[upwards].sum()) / result.nbytes


def crossing(traffic_: Traffic, group: np.ndarray) -> float:
    """Bytes that leave their group, counted from the traffic alone, as multiples of n."""
    traffic_ = traffic_.expand(traffic_.size)
    rank = np.repeat(np.arange(traffic_.period), np.diff(traffic_.ops[traffic_.rounds]))
    sends = traffic_.kind == SEND
    apart = group[rank[sends]] != group[traffic_.peer[sends]]
    return float((traffic_.chunks[sends] * apart).sum()) * traffic_.share


@pytest.mark.parametrize(("p", "down"), [(16, 4), (24, 6), (60, 5)])
def test_bytes_that_cross_groups(p: int, down: int):
    """G leaves of a fat tree: a ring leaves each of them with (p-1)/p n, a hierarchy with the least, (G-1)/G n."""
    topology = generate(f"fat-tree:{p},down={down}")
    groups = p // down
    leaves = tuple(tuple(range(first, first + down)) for first in range(0, p, down))
    n = 1e6

    def cost(collective: str, algorithm: str) -> float:
        given = traffic(algorithm, collective, size=p, groups=leaves).expand(p)
        result = simulate(given, topology, n, contention=False)
        assert across(result, "leaf") == pytest.approx(crossing(given, np.arange(p) // down), rel=EXACT)
        return across(result, "leaf")

    assert cost("allgather", "ring") == pytest.approx(groups * (p - 1) / p)
    assert cost("allreduce", "ring") == pytest.approx(2 * groups * (p - 1) / p)
    assert cost("allgather", "hierarchical(ring, ring)") == pytest.approx(groups - 1)
    assert cost("allreduce", "hierarchical(ring, ring)") == pytest.approx(2 * (groups - 1))
    assert cost("alltoall", "pairwise") == pytest.approx(p - down)
    assert cost("alltoall", "hierarchical(pairwise, pairwise)") == pytest.approx(p - down)


def test_few_bytes_go_far():
    """1,000 ranks in groups of 124: what crosses groups is 37.6 n, where Bruck's nearest first is 918 n, a ring 9 n."""
    group = np.arange(1000) // 124
    given = traffic("bruck", "reduce_scatter", size=1000)
    assert crossing(given, group) == pytest.approx(37.6, abs=0.05)
    assert crossing(traffic("bruck", "allgather", size=1000), group) == pytest.approx(37.6, abs=0.05)
    assert crossing(traffic("ring", "reduce_scatter", size=1000), group) == pytest.approx(9 * 0.999, rel=EXACT)
    topology = generate("fat-tree:1000,down=125")
    result = simulate(given, topology, 1e6, contention=False)
    assert across(result, "leaf") == pytest.approx(crossing(given, np.arange(1000) // 125), rel=EXACT)
