"""Traffic: what is emitted for many ranks in one run is what `emit` writes for each of them, and periods are true."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import roots
from test_hierarchical import GROUPS, PARTS, members

from pycomm.errors import InvalidArgument, ScheduleError
from pycomm.schedules.ranks import each_path
from pycomm.schedules.registry import listing
from pycomm.schedules.schedule import COPY
from pycomm.schedules.traffic import traffic
from pycomm.schedules.view import emit

FLAT = [entry for entry in listing() if not entry.grouped]


def emitted(schedule):
    """The rounds of one rank, with neighbouring local operations of a kind as one."""
    rounds = []
    for ops in schedule.rounds():
        rows = []
        for op in ops:
            if rows and op.kind >= COPY and rows[-1][0] == op.kind:
                rows[-1] = (op.kind, -1, rows[-1][2] + len(op.chunks))
            else:
                rows.append((op.kind, op.peer, len(op.chunks)))
        rounds.append(rows)
    return rounds


def of_rank(t, rank):
    ops = list(zip(t.kind.tolist(), t.peer.tolist(), t.chunks.tolist(), strict=True))
    return [ops[t.ops[k] : t.ops[k + 1]] for k in range(t.rounds[rank], t.rounds[rank + 1])]


def agrees(algorithm, collective, size, root=0, groups=None):
    """Compare the traffic with the schedules of all ranks, and return it."""
    short = traffic(algorithm, collective, size=size, root=root, groups=groups)
    whole = short.expand(size)
    for rank in range(size):
        schedule = emit(algorithm, collective, size=size, rank=rank, root=root, groups=groups)
        assert of_rank(whole, rank) == emitted(schedule), (collective, size, root, groups, rank)
        assert whole.share == float(schedule.share)
    return short


@pytest.mark.parametrize("entry", FLAT, ids=lambda entry: f"{entry.name}-{entry.collective}")
def test_agrees_with_the_schedules(entry):
    for size in (*range(1, 10), 13, 16, 27):
        for root in roots(entry.collective, size):
            agrees(entry.name, entry.collective, size, root)


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_agrees_with_the_schedules_of_hierarchies(groups):
    size = len(members(groups))
    for collective, parts in PARTS.items():
        for part in parts:
            for root in roots(collective, size):
                agrees("hierarchical" + part, collective, size, root, groups)


@pytest.mark.parametrize(
    "groups",
    [
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]],
        [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [10, 11]]],
        [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]],
    ],
    ids=["hosts", "racks of hosts", "round robin"],
)
def test_agrees_with_the_schedules_of_even_hierarchies(groups):
    for collective, parts in PARTS.items():
        for part in parts:
            agrees("hierarchical" + part, collective, 12, roots(collective, 12)[-1], groups)


@pytest.mark.parametrize(
    ("name", "collective"),
    [
        (name, collective)
        for name in ("ring", "bruck", "pairwise", "direct", "dissemination", "two_shot")
        for collective in ("allreduce", "allgather", "reduce_scatter", "alltoall", "barrier")
        if (name, collective) in {(entry.name, entry.collective) for entry in FLAT}
        and (name, collective) != ("direct", "allreduce")  # sums up in the order of the ranks
    ],
)
def test_algorithms_that_do_not_ask_which_rank_they_are_have_period_1(name, collective):
    for size in (2, 7, 100):
        assert traffic(name, collective, size=size).period == 1


@pytest.mark.parametrize("collective", ["allreduce", "allgather", "reduce_scatter", "barrier"])
def test_equal_groups_have_their_size_as_period(collective):
    groups = [range(k, k + 4) for k in range(0, 40, 4)]
    assert traffic("hierarchical", collective, size=40, groups=groups).period == 4
    uneven = [*groups[:-1], range(36, 38), range(38, 40)]
    assert traffic("hierarchical", collective, size=40, groups=uneven).period == 40


def test_a_period_that_is_not_of_the_machine_is_none():
    def write(v):
        with v.round():
            if v.rank % 3 == 0:
                v.send(0, to=v.rank + 1)
            if v.rank % 3 == 1:
                v.recv(0, frm=v.rank - 1)

    assert agrees(write, "allreduce", 9).period == 3
    assert agrees(write, "allreduce", 7).period == 7


def test_expand():
    t = traffic("ring", "allreduce", size=12)
    assert [t.expand(period).period for period in (1, 4, 12)] == [1, 4, 12]
    assert t.expand(1) is t
    assert of_rank(t.expand(4), 3) == of_rank(t.expand(12), 3)
    for period in (5, 24):
        with pytest.raises(InvalidArgument, match="cannot be expanded"):
            t.expand(period)
    with pytest.raises(InvalidArgument, match="cannot be expanded"):
        t.expand(4).expand(6)


def test_is_cached_and_read_only():
    t = traffic("ring", "allreduce", size=4)
    assert t is traffic("ring", "allreduce", size=4)
    with pytest.raises(ValueError, match="read-only"):
        t.peer[0] = 1


def by_dict(v):
    peers = {rank: (rank + 1) % v.size for rank in range(v.size)}
    with v.round():
        v.send(0, to=peers[v.rank])
        v.recv(0, frm=v.rank - 1)


def by_list(v):
    peers = [rank ^ 1 for rank in range(v.size)]
    with v.round():
        v.send(0, to=peers[v.rank])
        v.reduce(0, frm=peers[v.rank])


def by_range(v):
    for k in range(v.rank % 3 + 1):
        with v.round():
            v.send(0, to=v.rank + k + 1)


def by_numpy(v):
    peers = np.roll(np.arange(v.size), 1)
    with v.round():
        v.send(0, to=peers[v.rank])
        v.send(0, to=np.minimum(v.rank, 2) + 3 + v.rank)


def by_digits(v):
    with v.round():
        for k, digit in enumerate(f"{v.rank:b}"):
            if digit == "1":
                v.send(0, to=v.rank + k + 1)


def by_large_numbers(v):
    with v.round():
        v.send(0, to=(1 << v.rank * 9) % 5 + 1 + v.rank)


def by_floats(v):
    with v.round():
        v.send(0, to=v.rank + 1 + int(v.rank / 2 + 0.5) % 2)


def by_temporaries(v):
    several = v.temp(like=[0, 0, 0])
    one = v.temp(like=0)
    with v.round():
        v.copy([0, 0, 0], several)
        v.copy(0, one)
        v.send(several, to=v.rank + 2)
        v.combine(one, 0)


def by_counts(v):
    with v.round():
        v.send([0] * (v.rank % 3), to=v.rank + 1)
        v.recv(np.zeros(4, int)[: v.size - v.rank], frm=v.rank - 1)


def by_sub_views(v):
    half = v.sub([v.rank, v.rank ^ 1] if v.rank % 2 else [v.rank ^ 1, v.rank])
    with half.round():
        half.send(0, to=half.rank + 1)
        half.recv(0, frm=1 - half.rank)
    every = v.sub(range(v.size - 1, -1, -1))
    with every.round():
        every.send(0, to=every.rank + 1)


@pytest.mark.parametrize(
    "write",
    [
        by_dict,
        by_list,
        by_range,
        by_numpy,
        by_digits,
        by_large_numbers,
        by_floats,
        by_temporaries,
        by_counts,
        by_sub_views,
    ],
    ids=lambda write: write.__name__,
)
def test_whatever_a_user_does_with_a_rank(write):
    for size in (8, 10, 12):
        agrees(write, "allreduce", size)


def test_chunks_of_a_sub_view_that_are_not_alike():
    def write(v):
        sub = v.sub(range(v.size), [[0] * k for k in range(v.size)])
        with sub.round():
            sub.send(sub.rank - np.arange(2), to=sub.rank + 1)
            sub.recv([sub.rank, 1], frm=sub.rank + 2)

    for size in (4, 10):
        agrees(write, "allreduce", size)


def to_itself(v):
    with v.round():
        v.send(0, to=v.rank if v.rank > 2 else v.rank + 1)


def nested(v):
    with v.round(), v.round():
        pass


def unequal(v):
    with v.round():
        v.copy([0] * (1 + v.rank // 3), 0)


def outside(v):
    if v.rank % 4 == 3:
        v.send(0, to=0)


def not_there(v):
    v.sub([rank for rank in range(v.size) if rank != 3])


def divides(v):
    return 1 // (v.rank - 3)


@pytest.mark.parametrize("write", [to_itself, nested, unequal, outside, not_there, divides], ids=lambda w: w.__name__)
def test_errors_are_those_of_the_first_rank_that_has_one(write):
    def first():
        for rank in range(8):
            emit(write, "allreduce", size=8, rank=rank)

    with pytest.raises((ScheduleError, ZeroDivisionError)) as expected:
        first()
    with pytest.raises(expected.type) as got:
        traffic(write, "allreduce", size=8)
    assert str(got.value) == str(expected.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": 0},
        {"root": 4},
        {"algorithm": "rings"},
        {"collective": "alltoall", "algorithm": "ring"},
        {"size": 1 << 17},
    ],
)
def test_arguments_are_checked_as_by_emit(arguments):
    arguments = {"algorithm": "pairwise", "collective": "alltoall", "size": 4, **arguments}
    names = arguments.pop("algorithm"), arguments.pop("collective")
    with pytest.raises(InvalidArgument) as expected:
        emit(*names, rank=0, **arguments)
    with pytest.raises(InvalidArgument) as got:
        traffic(*names, **arguments)
    assert str(got.value) == str(expected.value)


number = st.integers(-7, 40)
expression = st.recursive(
    st.one_of(number, st.just("rank")),
    lambda inner: (
        st.tuples(st.sampled_from(["+", "-", "*", "//", "%", "&", "|", "^", "<<", ">>"]), inner, inner)
        | st.tuples(st.sampled_from(["<", "<=", "==", "!=", ">", ">="]), inner, inner)
        | st.tuples(st.sampled_from(["-", "~", "bits", "if"]), inner)
    ),
    max_leaves=8,
)


def value(e, rank):
    if not isinstance(e, tuple):
        return rank if e == "rank" else e
    op, *parts = e
    x = [value(part, rank) for part in parts]
    if op == "bits":
        return x[0].bit_length()
    if op == "<<" and x[1] >= 99:  # Python would fill the memory
        return x[0]
    if op == "if":
        return 3 if x[0] else x[0] + 1
    if len(x) == 1:
        return eval(f"{op} x", {"x": x[0]})
    return eval(f"x {op} y", {"x": x[0], "y": x[1]})


@given(e=expression, size=st.integers(2, 12))
@settings(derandomize=True, max_examples=300, deadline=None)
def test_computes_as_python_does(e, size):
    """Whatever is made of a rank, as peer and as a number of chunks, is what a plain number gives, or its error."""

    def write(v):
        x = value(e, v.rank)
        with v.round():
            v.send([0] * (x % 5), to=v.rank + 1 + x % (v.size - 1))
            v.recv(x + np.arange(3), frm=v.rank + 1 + (x >> 1) % (v.size - 1))

    def of(rank):
        try:
            return emitted(emit(write, "allgather", size=size, rank=rank))
        except Exception as error:
            return type(error), str(error)

    ranks = [of(rank) for rank in range(size)]
    failed = next((each for each in ranks if isinstance(each, tuple)), None)
    if failed is None:
        whole = traffic(write, "allgather", size=size).expand(size)
        assert [of_rank(whole, rank) for rank in range(size)] == ranks
    else:
        with pytest.raises(failed[0]) as got:
            traffic(write, "allgather", size=size)
        assert str(got.value) == failed[1]


@pytest.mark.parametrize("collective", ["allreduce", "allgather", "reduce_scatter"])
def test_ranks_of_equal_groups_are_run_once_and_repeat(collective, monkeypatch):
    runs = []

    def counted(size, run):
        return each_path(size, lambda path: runs.append(len(path.ranks)) or run(path))

    monkeypatch.setattr("pycomm.schedules.traffic.each_path", counted)
    groups = np.arange(3 * 5 * 2 * 7).reshape(3, 5, 2, 7).tolist()
    assert traffic("hierarchical", collective, size=210, groups=groups).period == 5 * 2 * 7
    assert runs == [210]
