"""The pen: what an algorithm may write, and what becomes of it."""

import numpy as np
import pytest

from pycomm.errors import InvalidArgument, ScheduleError
from pycomm.schedules.registry import add, algorithm, find, listing, names
from pycomm.schedules.schedule import COPY, KINDS, MORE, REDUCE_FROM, SEND, SWAP
from pycomm.schedules.verify import verify
from pycomm.schedules.view import emit


def steps(write, collective="allreduce", size=4, rank=1, **more):
    schedule = emit(write, collective, size=size, rank=rank, **more)
    return [(KINDS[op.kind], op.peer, *op.chunks.tolist()) for ops in schedule.rounds() for op in ops]


def refuses(sentence, write, collective="allreduce", size=4):
    with pytest.raises(ScheduleError, match=sentence):
        emit(write, collective, size=size, rank=1)


def test_a_step_is_16_bytes_and_its_array_is_read_only():
    array = emit("ring", "allreduce", size=4, rank=0).steps
    assert array.dtype.itemsize == 16
    with pytest.raises(ValueError, match="read-only"):
        array["peer"][0] = 1


def test_ranks_and_chunks_are_taken_modulo():
    def write(v):
        with v.round():
            v.send(v.rank - 3, to=v.rank + 7)
            v.recv([-1, 5], frm=-1)

    assert steps(write, "allgather") == [("SEND", 0, 2), ("RECV", 3, 3, 1)]


def test_several_chunks_are_one_message_and_no_chunks_are_none():
    def write(v):
        with v.round():
            v.send([], to=0)
        with v.round():
            v.send(range(3), to=0)

    schedule = emit(write, "allgather", size=4, rank=1)
    assert schedule.nrounds == 1
    assert (schedule.steps["flags"] & MORE != 0).tolist() == [True, True, False]


def test_pairs_in_an_alltoall():
    def write(v):
        with v.round():
            v.send((v.rank, -1), to=3)
            v.recv([(0, 1), (2, 1)], frm=0)
            v.recv(np.array([[3, 1]]), frm=3)

    assert steps(write, "alltoall") == [("SEND", 3, 7), ("RECV", 0, 1, 9), ("RECV", 3, 13)]


def test_what_rounds_do_not_allow():
    def outside(v):
        v.send(0, to=0)

    def nested(v):
        with v.round(), v.round():
            pass

    def to_itself(v):
        with v.round():
            v.send(0, to=v.rank + v.size)

    def unequal(v):
        with v.round():
            v.copy([0, 1], 2)

    def composed(v):
        with v.round():
            v.together(lambda: None)

    def copies_backwards(v):
        def part():
            with v.round():
                v.copy(0, 1)

        v.backwards(part)

    refuses("outside of a round", outside)
    refuses("rounds do not nest", nested)
    refuses("itself", to_itself)
    refuses("2 chunks cannot be copied", unequal, "allgather")
    refuses("rounds do not nest", composed)
    refuses("runs backwards", copies_backwards, "allgather")


def test_an_error_in_an_algorithm_leaves_as_it_is():
    def broken(v):
        with v.round():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        emit(broken, "allreduce", size=2, rank=0)


def test_sub_views_renumber_ranks_and_chunks():
    def write(v):
        sub = v.sub([3, 1, 2], [[0, 3], [], [2]])
        assert (sub.rank, sub.size, sub.chunks) == (1, 3, 3)
        with sub.round():
            sub.send(0, to=0)
            sub.send(1, to=0)
            sub.recv([1, 2], frm=2)
        inner = sub.sub([1, 0])
        with inner.round():
            inner.send(2, to=1)

    assert steps(write, "allgather") == [("SEND", 3, 0, 3), ("RECV", 2, 2), ("SEND", 3, 2)]


@pytest.mark.parametrize("ranks", [[0, 2], [1, 1], []])
def test_sub_views_are_of_distinct_ranks_with_this_one(ranks):
    refuses("sub-view", lambda v: v.sub(ranks))


def test_within_finds_the_group_of_this_rank():
    found = []
    emit(lambda v: found.append(v.within(((0, 2), ((3,), (1,))))), "allreduce", size=4, rank=1)
    assert found == [(1, ((3,), (1,)))]
    refuses("in none of the groups", lambda v: v.within(((0, 2), (3,))))


def test_backwards_reverses_rounds_and_turns_messages():
    def part(v):
        with v.round():
            v.send(0, to=0)
        with v.round():
            v.recv(2, frm=2)
            v.send(3, to=3)

    def reducing(v):
        v.backwards(lambda: part(v))

    def moving(v):
        v.backwards(lambda: part(v), reducing=False)

    assert steps(reducing, "allgather") == [("REDUCE_FROM", 3, 3), ("SEND", 2, 2), ("REDUCE_FROM", 0, 0)]
    assert steps(moving, "allgather") == [("RECV", 3, 3), ("SEND", 2, 2), ("RECV", 0, 0)]


def test_together_merges_rounds_even_where_one_part_is_silent():
    def write(v):
        def speaks(peer):
            for chunk in (0, 1):
                with v.round():
                    if (peer, chunk) != (0, 0):
                        v.send(chunk, to=peer)

        v.together(lambda: speaks(0), lambda: speaks(2))

    schedule = emit(write, "allgather", size=4, rank=1)
    rounds = [[(op.peer, *op.chunks.tolist()) for op in ops] for ops in schedule.rounds()]
    assert rounds == [[(2, 0)], [(0, 1), (2, 1)]]


def test_several_reductions_of_a_round_are_added_up_in_their_order():
    def write(v):
        with v.round():
            for k in range(1, v.size):
                if v.rank:
                    v.send(0, to=0) if k == v.rank else None
                else:
                    v.reduce(0, frm=k)

    schedule = emit(write, "reduce", size=4, rank=0)
    kinds = [[op.kind for op in ops] for ops in schedule.rounds()]
    assert kinds == [[REDUCE_FROM, REDUCE_FROM, REDUCE_FROM]]
    assert not len(schedule.temps)
    verify(write, "reduce", size=4)


def test_the_lower_rank_stands_left():
    def write(v):
        mine, theirs = v.temp(like=0), v.temp(like=0)
        with v.round():
            v.reduce(0, frm=0)
            v.recv(mine, frm=2)
            v.recv(theirs, frm=0)
        with v.round():
            v.combine(theirs, mine)
        with v.round():
            v.combine(mine, 0)

    array = emit(write, "allreduce", size=3, rank=1).steps
    assert (array["flags"] & SWAP != 0).tolist() == [True, False, False, True, True]


def test_copies_and_temporaries():
    def write(v):
        temp = v.temp(like=[0, 2])
        again = v.temp(like=temp)
        with v.round():
            v.copy([0, 2], temp)
        with v.round():
            v.copy(temp, again)
            v.send(again, to=0)

    schedule = emit(write, "allgather", size=4, rank=1)
    assert schedule.temps.tolist() == [0, 2, 0, 2]
    assert [op.kind for ops in schedule.rounds() for op in ops] == [COPY, COPY, SEND]
    assert schedule.chunk_name(7) == "a temporary like chunk 2"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"collective": "allreduces"}, "there is no collective 'allreduces'; there are: allreduce, reduce"),
        ({"algorithm": "rings"}, "allreduce has no algorithm 'rings'; it has: bruck, direct"),
        ({"size": 0}, "size is 0"),
        ({"rank": 4}, "rank is 4 and must be between 0 and 3"),
        ({"root": -1}, "root is -1"),
        ({"algorithm": "pairwise", "collective": "alltoall", "size": 1 << 17}, "too many chunks"),
    ],
)
def test_arguments(arguments, sentence):
    arguments = {"algorithm": "ring", "collective": "allreduce", "size": 4, "rank": 0, **arguments}
    with pytest.raises(InvalidArgument, match=sentence):
        emit(arguments.pop("algorithm"), arguments.pop("collective"), **arguments)


def test_schedules_are_cached():
    assert emit("ring", "allreduce", size=4, rank=0) is emit(
        "ring", "allreduce", size=4, rank=0, groups=[[0, 1], [2, 3]]
    )
    one = emit("hierarchical(ring, ring)", "allreduce", size=4, rank=0, groups=[[0, 1], [2, 3]])
    assert one is emit("hierarchical(ring,ring)", "allreduce", size=4, rank=0, groups=([0, 1], (2, 3)))


def test_the_register():
    @algorithm("allreduce", name="of_a_user", cite="here")
    def write(v):
        """Does nothing."""

    entry = find("allreduce", "of_a_user")
    assert (entry.write, entry.about, entry.cite) == (write, "Does nothing.", "here")
    assert entry in listing()
    assert names("exscan") == ["chain", "doubling"]
    with pytest.raises(InvalidArgument, match="has an algorithm 'ring' already"):
        algorithm("allreduce", name="ring")(write)
    with pytest.raises(InvalidArgument, match="letters, digits"):
        algorithm("allreduce", name="a b")(write)
    with pytest.raises(InvalidArgument, match='"size" or a function'):
        algorithm("allreduce", name="cut", chunks="sise")(write)
    add(entry)  # entering the same again, as reloading a module does, is no error
