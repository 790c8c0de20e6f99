"""The selector takes the cheapest candidate, by a stub and by the simulator, unless somebody asks for another."""

from __future__ import annotations

import itertools

import pytest

from pycomm.errors import InvalidArgument
from pycomm.schedules.contract import CONTRACTS
from pycomm.schedules.verify import verify
from pycomm.selection.candidates import MOST_SLICES, Choice, algorithms, candidates
from pycomm.selection.machine import Machine, one_host
from pycomm.selection.network import Network
from pycomm.selection.predict import Predictor
from pycomm.selection.select import Selector
from pycomm.selection.table import Override, Residual, Table

TWO_HOSTS = Machine(((0, 1, 2), (3, 4)), (2, 2))


class Stub:
    """Prices by a dictionary: seconds of an algorithm, 1 us more for each slice."""

    def __init__(self, **prices: float) -> None:
        self.prices = prices
        self.asked = 0

    def seconds(self, collective: str, choice: Choice, nbytes: int) -> float:
        self.asked += 1
        return self.prices.get(choice.algorithm, 1.0) + choice.slices * 1e-6

    def least(self, collective: str, choice: Choice) -> float:
        return 0.0

    def bound(self, collective: str, nbytes: int) -> None:
        return None


def test_the_cheapest_wins_and_is_priced_once() -> None:
    stub = Stub(ring=0.5, bruck=0.6)
    selector = Selector(one_host(4, 4), stub)
    assert selector.choose("allreduce", 1 << 20) == Choice("ring", 1, 1)
    asked = stub.asked
    for nbytes in range((1 << 20) - 1000, (1 << 20) + 1000, 100):  # one step of sizes
        assert selector.choose("allreduce", nbytes).algorithm == "ring"
    assert stub.asked == asked


def test_ties_go_by_name_also_if_processors_round_differently() -> None:
    for ring, bruck in ((0.5, 0.5), (0.5 + 1e-9, 0.5), (0.5, 0.5 + 1e-9)):
        assert Selector(one_host(4, 4), Stub(ring=ring, bruck=bruck)).choose("allreduce", 8).algorithm == "bruck"


def test_a_residual_is_part_of_the_price() -> None:
    table = Table(residuals=(
        Residual("allreduce", "ring", "shm", 4, 8, 3.0, 1), Residual("allreduce", "bruck", "shm", 4, 8, 1.0, 1),
    ))  # fmt: skip
    selector = Selector(one_host(4, 4, table=table), Stub(ring=0.5, bruck=0.6))
    assert selector.choose("allreduce", 1 << 20).algorithm == "bruck"
    ranked = selector.ranked("allreduce", 1 << 20)
    assert next(one.factor for one in ranked if one.choice.algorithm == "ring") == pytest.approx(3.0)
    assert ranked[0].choice == Choice("bruck", 1, 1)


def test_what_is_asked_for_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(choices=(Override("allreduce", (1, 9), (0, 1 << 20), "pairwise", 3, 2),))
    selector = Selector(one_host(4, 4, table=table), Stub(ring=0.5))
    assert selector.choose("allreduce", 1 << 20) == Choice("pairwise", 3, 2)
    assert selector.choose("allreduce", (1 << 20) + 1).algorithm == "ring"
    monkeypatch.setenv("PYCOMM_ALGO", "allreduce:bruck;binomial")
    assert selector.choose("allreduce", 1 << 20).algorithm == "bruck"
    assert selector.choose("broadcast", 64).algorithm == "binomial"
    monkeypatch.setenv("PYCOMM_ALGO", "allreduce:binomial")
    with pytest.raises(InvalidArgument, match="binomial, which is no allreduce"):
        selector.choose("allreduce", 1 << 20)


def test_candidates_are_verified_and_fit_the_machine() -> None:
    for collective in CONTRACTS:
        for name in algorithms(collective, TWO_HOSTS):
            verify(name, collective, size=5, groups=TWO_HOSTS.hosts)
    assert "hierarchical" in algorithms("allreduce", TWO_HOSTS)
    assert "hierarchical" not in algorithms("allreduce", one_host(5))
    assert algorithms("alltoall", TWO_HOSTS, uneven=True) == ["direct", "pairwise"]
    for nbytes in (0, 8, 1 << 16, 1 << 24, 1 << 34):
        ways = candidates("allreduce", nbytes, TWO_HOSTS)
        assert len(set(ways)) == len(ways)
        assert all(1 <= way.window <= way.slices <= MOST_SLICES for way in ways)
        assert all(Choice(way.algorithm, 1, 1) in ways for way in ways)


def test_uneven_blocks_go_by_way_of_near_ranks_where_they_are_short() -> None:
    network = Network((1.25e9,) * 4, 20e-6, (tuple(range(4)),))
    four_hosts = Machine(tuple(tuple(range(4 * h, 4 * h + 4)) for h in range(4)), (4,) * 4, network=network)
    selector = Selector(four_hosts)
    assert selector.passes
    assert selector.choose_passing(16 * 8) == "hierarchical"
    assert selector.choose_passing(16 << 20) in algorithms("alltoall", four_hosts, uneven=True)
    assert selector.choose("alltoall", 0, uneven=True).algorithm != "hierarchical"  # whose ranks are told nothing
    for machine in (one_host(4, 4), Machine(((0,), (1,)), (1, 1)), one_host(3, 4, shared=False)):
        assert not Selector(machine).passes


def test_what_ranks_tell_each_other_costs() -> None:
    prices = {"direct": 1.0, "pairwise": 1.0, "hierarchical": 1.0 - 1e-7}
    assert Selector(TWO_HOSTS, Stub(**prices)).choose_passing(8) == "direct"
    assert Selector(TWO_HOSTS, Stub(**prices | {"hierarchical": 0.5})).choose_passing(8) == "hierarchical"


def test_uneven_blocks_whose_lengths_all_know_go_by_their_size() -> None:
    selector = Selector(one_host(4, 16))
    for nbytes in (1, 4096, 64 << 20):
        for collective in ("allgather", "reduce_scatter"):
            assert selector.choose(collective, nbytes, uneven=True) == selector.choose(
                collective, nbytes, offload=False
            )
    assert selector.choose("allgather", 64 << 20, uneven=True).slices > 1
    assert selector.choose("alltoall", 0, uneven=True).slices == 1


@pytest.mark.parametrize("collective", CONTRACTS)
def test_every_collective_has_a_choice_that_is_the_same_for_all_who_know_the_same(collective: str) -> None:
    lengths_may_differ = collective in ("allgather", "reduce_scatter", "gather", "scatter", "alltoall")
    for size, uneven in itertools.product((1, 2, 5), (False, True) if lengths_may_differ else (False,)):
        one, other = (Selector(one_host(size, 2)).choose(collective, 4096, uneven=uneven) for _ in range(2))
        assert one == other
        assert one.algorithm in algorithms(collective, one_host(size, 2), uneven=uneven)


@pytest.mark.parametrize(
    "machine", [one_host(24, 2), one_host(5, 8), TWO_HOSTS, one_host(12, 1, shared=False)], ids=str
)
@pytest.mark.parametrize("collective", ["allreduce", "broadcast", "alltoall", "barrier"])
def test_what_is_not_simulated_could_not_have_won(machine: Machine, collective: str) -> None:
    selector, model = Selector(machine), Predictor(machine)
    for nbytes in (8, 1 << 16, 1 << 23) if collective != "barrier" else (0,):
        for one in selector.ranked(collective, nbytes):
            assert model.least(collective, one.choice) <= model.seconds(collective, one.choice, nbytes)
        assert selector.choose(collective, nbytes) == selector.ranked(collective, nbytes)[0].choice


def test_of_hundreds_of_ranks_what_sends_everything_to_everybody_is_not_simulated(monkeypatch) -> None:
    priced: list[str] = []
    seconds = Predictor.seconds

    def noted(self: Predictor, collective: str, choice: Choice, nbytes: int) -> float:
        priced.append(choice.algorithm)
        return seconds(self, collective, choice, nbytes)

    monkeypatch.setattr(Predictor, "seconds", noted)
    Selector(one_host(256, 2)).choose("allreduce", 8)
    assert priced and not {"ring", "two_shot", "pairwise"} & set(priced)


@pytest.mark.parametrize("machine", [one_host(4, 2), one_host(3, 4, shared=False), TWO_HOSTS], ids=str)
@pytest.mark.parametrize("collective", ["allreduce", "broadcast", "alltoall"])
def test_predicted_time_grows_with_size_without_cliffs(machine: Machine, collective: str) -> None:
    selector, model = Selector(machine), Predictor(machine)
    sizes = [machine.size * 4 * round(2 ** (k / 2)) for k in range(2, 36)]
    times = [model.seconds(collective, selector.choose(collective, n), n) for n in sizes]
    for (n, early), late in zip(itertools.pairwise(zip(sizes, times, strict=True)), times[1:], strict=False):
        assert early[1] * 0.97 <= late <= early[1] * 2.5, n  # of half the size or so


def test_a_machine_of_some_ranks() -> None:
    machine = Machine(((0, 2, 4), (1, 3)), (2, 1))
    assert machine.size == 5 and machine.crowded and machine.far and machine.transport == "mixed"
    among = machine.among({4: 0, 3: 1, 2: 2})
    assert among.hosts == ((0, 2), (1,)) and among.processors == (2, 1)
    assert not among.crowded
    alone = machine.among({1: 0, 3: 1})
    assert alone.transport == "shm" and alone.crowded
    assert Machine(((0,), (1,)), (1, 1)).transport == "tcp"
