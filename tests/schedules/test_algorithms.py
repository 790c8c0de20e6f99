"""Every shipped algorithm, on even, odd and prime numbers of ranks and from several roots: verified, and executed."""

import numpy as np
import pytest
from reference import SIZES, case, execute, roots

from pycomm.schedules.contract import CONTRACTS
from pycomm.schedules.registry import listing
from pycomm.schedules.verify import verify
from pycomm.schedules.view import emit

FLAT = [entry for entry in listing() if not entry.grouped]
each = pytest.mark.parametrize("entry", FLAT, ids=lambda entry: f"{entry.name}-{entry.collective}")


def run(entry, size, root, lengths):
    plans = [emit(entry.name, entry.collective, size=size, rank=r, root=root).lower() for r in range(size)]
    inputs, expected = case(entry.collective, size, root, lengths)
    got = execute(plans, inputs, [[len(block) for block in blocks] for blocks in expected])
    for rank, (mine, right) in enumerate(zip(got, expected, strict=True)):
        for block, (a, b) in enumerate(zip(mine, right, strict=True)):
            np.testing.assert_array_equal(a, b, f"{entry.name} {entry.collective} p={size} rank {rank} block {block}")
    return plans


@each
def test_keeps_its_contract(entry):
    for size in SIZES:
        for root in roots(entry.collective, size):
            verdict = verify(entry.name, entry.collective, size=size, root=root)
            assert verdict.messages == 0 if size == 1 else verdict.messages >= size - 1


@each
def test_computes_the_collective(entry):
    for size in SIZES:
        for root in roots(entry.collective, size):
            for length in (23, 1, 0):
                run(entry, size, root, [length])


@each
def test_uneven_blocks(entry):
    """Blocks of different lengths, some empty: right wherever the algorithm says so, and it says so on every rank."""
    knows_all = entry.collective not in ("gather", "scatter", "alltoall")
    for size in (4, 5, 8, 13):
        for root in roots(entry.collective, size):
            plans = [emit(entry.name, entry.collective, size=size, rank=r, root=root).lower() for r in range(size)]
            assert all(plan.uneven for plan in plans) == (entry.uneven or knows_all)
            if entry.uneven or knows_all:
                run(entry, size, root, [3, 0, 7, 1])


@pytest.mark.parametrize("entry", [e for e in FLAT if e.collective == "allreduce"], ids=lambda entry: entry.name)
def test_all_ranks_get_the_same_bits(entry):
    rng = np.random.default_rng(7)
    for size in SIZES:
        inputs = [[rng.standard_normal(19).astype(np.float32)] for _ in range(size)]
        plans = [emit(entry.name, "allreduce", size=size, rank=r).lower() for r in range(size)]
        got = execute(plans, inputs, [[19]] * size)
        # An operation that tells its operands apart: SWAP must make the order the same, not only the sum.
        ordered = execute(plans, inputs, [[19]] * size, op=lambda a, b: a - b / 2)
        for rank in range(size):
            assert got[rank][0].tobytes() == got[0][0].tobytes()
            assert ordered[rank][0].tobytes() == ordered[0][0].tobytes()
        np.testing.assert_allclose(got[0][0], sum(i[0].astype(np.float64) for i in inputs), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "collective", "size", "hops", "sent"),
    [
        ("ring", "allreduce", 10, 18, "9/5"),
        ("ring", "allgather", 10, 9, "9/10"),
        ("ring", "broadcast", 10, 9, "1"),
        ("bruck", "allreduce", 10, 8, "9/5"),
        ("bruck", "reduce_scatter", 300, 9, "299/300"),
        ("doubling", "allreduce", 16, 4, "4"),
        ("doubling", "allreduce", 17, 6, "5"),
        ("doubling", "scan", 11, 4, "4"),
        ("two_shot", "allreduce", 10, 2, "9/5"),
        ("direct", "allreduce", 10, 1, "9"),
        ("binomial", "broadcast", 10, 4, "4"),
        ("binomial", "scatter", 16, 4, "15/16"),
        ("pairwise", "alltoall", 10, 9, "9/10"),
        ("bruck", "alltoall", 10, 4, "3/2"),
        ("bruck", "alltoall", 64, 6, "3"),
        ("bruck", "alltoall", 100, 7, "79/25"),
        ("dissemination", "barrier", 17, 5, "0"),
    ],
)
def test_costs_what_the_literature_says(name, collective, size, hops, sent):
    verdict = verify(name, collective, size=size)
    assert verdict.hops == hops
    assert str(verdict.sent) == sent


def test_bruck_keeps_its_bytes_near():
    """The few first blocks go far and the many last ones near: (distance, blocks) as in arXiv 2506.20252."""
    schedule = emit("bruck", "allgather", size=10, rank=0)
    sends = [(op.peer, len(op.chunks)) for ops in schedule.rounds() for op in ops if op.kind == 0]
    assert sends == [(8, 1), (4, 1), (2, 2), (1, 5)]


def test_every_collective_has_an_algorithm_and_every_algorithm_a_line_and_a_citation():
    assert {entry.collective for entry in listing()} == set(CONTRACTS)
    for entry in listing():
        assert entry.cite, entry
        assert entry.about.endswith("."), entry
