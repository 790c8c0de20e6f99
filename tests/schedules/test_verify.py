"""The verifier's sentences: what each kind of mistake in an algorithm is called, and where it is said to be."""

import dataclasses
import re

import numpy as np
import pytest

from pycomm.errors import InvalidArgument, ScheduleError
from pycomm.schedules.registry import algorithm, find
from pycomm.schedules.schedule import END, SWAP
from pycomm.schedules.verify import EXACT, check, verify
from pycomm.schedules.view import emit


def says(sentence, write, collective, size):
    with pytest.raises(ScheduleError, match=re.escape(sentence)):
        verify(write, collective, size=size)


def test_a_missing_contribution_is_named():
    def forgets(v):
        if v.size == 3 and v.rank == 1:
            return
        with v.round():
            if v.rank == 2:
                v.send(0, to=0)
            else:
                v.reduce(0, frm=2)

    says(
        "forgets reduce on 3 ranks: at the end rank 0 misses the contribution of rank 1 to chunk 0",
        forgets,
        "reduce",
        3,
    )


def test_a_contribution_counted_twice_is_named():
    def twice(v):
        for _ in range(2):
            with v.round():
                v.send(0, to=v.rank + 1)
                v.reduce(0, frm=v.rank + 1)

    says("rank 0 holds the contribution of rank 0 to chunk 0 more than once", twice, "allreduce", 2)


def test_contributions_are_counted_beyond_the_sizes_where_they_are_sets():
    def half(v):
        with v.round():
            if v.rank % 2:
                v.send(0, to=v.rank - 1)
            else:
                v.reduce(0, frm=v.rank + 1)

    says(f"holds 2 contributions to chunk 0, which are not one of each of {EXACT + 2} ranks", half, "reduce", EXACT + 2)


def test_a_deadlock_names_who_waits_for_whom():
    def polite(v):
        with v.round():
            v.recv(0, frm=v.rank + 1)
        with v.round():
            v.send(0, to=v.rank - 1)

    says(
        "never ends: rank 0 waits in round 0 to receive from rank 1, which is in its round 0; "
        "rank 1 waits in round 0 to receive from rank 2, which is in its round 0; "
        "rank 2 waits in round 0 to receive from rank 0, which is in its round 0",
        polite,
        "allreduce",
        3,
    )


def test_sends_that_only_buffering_would_let_through_are_a_deadlock():
    def hopes_for_buffers(v):
        with v.round():
            v.send(0, to=1 - v.rank)
        with v.round():
            v.reduce(0, frm=1 - v.rank)

    says("rank 0 waits in round 0 to send to rank 1, which is in its round 0", hopes_for_buffers, "allreduce", 2)


def test_a_message_that_nobody_takes():
    def shouts(v):
        if v.rank == 0:
            with v.round():
                v.send(0, to=1)

    says("rank 0 waits in round 0 to send to rank 1, which has finished", shouts, "barrier", 2)


def test_both_ends_name_the_same_chunk():
    def confused(v):
        with v.round():
            v.send(v.rank, to=1 - v.rank)
            v.recv(v.rank, frm=1 - v.rank)

    says(
        "confused allgather on 2 ranks: rank 0, round 0, step 1: RECV expects chunk 0 from rank 1, "
        "which sends chunk 1 (its round 0)",
        confused,
        "allgather",
        2,
    )


def test_both_ends_cut_a_message_alike():
    def cut(v):
        with v.round():
            if v.rank == 0:
                v.send([0, 1], to=1)
            else:
                v.recv(0, frm=0)
                v.recv(1, frm=0)

    says("expects a message of 1 chunks from rank 0, which sends one of 2", cut, "scatter", 2)


def test_reading_what_is_not_there():
    def early(v):
        with v.round():
            v.send(v.rank + 1, to=v.rank + 1)
            v.recv(v.rank, frm=v.rank - 1)

    says("rank 0, round 0, step 0: SEND sends chunk 1, which holds nothing yet", early, "allgather", 2)


def test_reducing_into_nothing():
    def sums(v):
        with v.round():
            v.send(v.rank, to=1 - v.rank)
            v.reduce(1 - v.rank, frm=1 - v.rank)

    says("REDUCE_FROM reduces into chunk 1, which holds nothing yet", sums, "allgather", 2)


def test_a_round_writes_a_chunk_once():
    def races(v):
        with v.round():
            if v.rank:
                v.send(0, to=0)
            else:
                v.recv(0, frm=1)
                v.recv(0, frm=2)

    says("RECV overwrites chunk 0, which an earlier step of the same round wrote", races, "reduce", 3)


def test_pieces_of_different_chunks_are_not_combined():
    @algorithm("allreduce", chunks=2)
    def mixes(v):
        with v.round():
            v.combine(0, 1)

    says("REDUCE combines a part of chunk 0 with a part of chunk 1", mixes, "allreduce", 1)


def test_results_in_the_wrong_place():
    @algorithm("broadcast", chunks=2)
    def crossed(v):
        if v.rank:
            with v.round():
                v.recv([0, 1], frm=0)
        else:
            with v.round():
                v.send([0, 1], to=1)
        with v.round():
            v.copy(0, 1)
            v.copy(1, 0)

    says("at the end rank 0 holds chunk 1 in the place of chunk 0", crossed, "broadcast", 2)


def test_results_that_never_came():
    def nothing(v):
        pass

    says("at the end rank 1 holds nothing as chunk 0", nothing, "broadcast", 2)
    says("at the end rank 0 holds nothing as chunk (1, 0)", nothing, "alltoall", 2)


def test_different_trees_on_different_ranks():
    """Rank 0 adds (0 + 1) + 2, rank 1 adds 1 + (0 + 2): the same contributions, and maybe not the same bits."""

    def disagrees(v):
        parts = [0 if rank == v.rank else v.temp(like=0) for rank in range(3)]
        with v.round():
            for k in (1, 2):
                v.send(0, to=v.rank + k)
            for k in (1, 2):
                v.recv(parts[v.rank - k], frm=v.rank - k)
        for k in (1, 2):
            with v.round():
                v.combine(parts[v.rank - k], 0)

    says("ranks 0 and 1 add up chunk 0 in different orders", disagrees, "allreduce", 3)


def test_contributions_that_do_not_belong():
    def too_much(v):
        with v.round():
            v.send(0, to=1 - v.rank)
            v.reduce(0, frm=1 - v.rank)

    says("rank 0 holds a contribution of rank 1 to chunk 0 that does not belong there", too_much, "scan", 2)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("kind", 9, "unknown kind"),
        ("flags", 64, "unknown flags"),
        ("peer", 4, "a peer that does not exist"),
        ("peer", 1, "its own rank as the peer"),
        ("chunk", 4, "a chunk that does not exist"),
        ("src", 0, "is a message but names a source chunk"),
        ("flags", 3, "that its message goes on and that its round ends"),
        ("flags", 1, "the next step is not of the same message"),
    ],
)
def test_steps_that_mean_nothing(field, value, sentence):
    schedules = [emit("ring", "allreduce", size=4, rank=rank) for rank in range(4)]
    steps = schedules[1].steps.copy()
    steps[field][2] = value
    schedules[1] = dataclasses.replace(schedules[1], steps=steps)
    with pytest.raises(ScheduleError, match=f"ring allreduce on 4 ranks: rank 1, round 1, step 0: .*{sentence}"):
        check(schedules)


def test_a_schedule_that_does_not_end_its_last_round():
    schedules = [emit("ring", "allreduce", size=2, rank=rank) for rank in range(2)]
    steps = schedules[0].steps.copy()
    steps["flags"][-1] &= ~END & 0xFF
    with pytest.raises(ScheduleError, match="does not end its round"):
        check([dataclasses.replace(schedules[0], steps=steps), schedules[1]])


def test_a_flipped_operand_is_noticed_where_ranks_exchange():
    schedules = [emit("doubling", "allreduce", size=4, rank=rank) for rank in range(4)]
    steps = schedules[2].steps.copy()
    steps["flags"][-1] ^= SWAP
    schedules[2] = dataclasses.replace(schedules[2], steps=steps)
    with pytest.raises(ScheduleError, match="ranks 0 and 2 add up chunk 0 in different orders"):
        check(schedules)


def test_schedules_of_different_collectives_are_not_one():
    one, other = emit("ring", "allreduce", size=2, rank=0), emit("ring", "allgather", size=2, rank=1)
    with pytest.raises(ScheduleError, match="schedule 1 is of another collective"):
        check([one, other])


def test_large_worlds():
    """Beyond the sizes that are exact, with the numbers of the literature."""
    assert verify("doubling", "allreduce", size=500).hops == 10
    assert verify("dissemination", "barrier", size=130).hops == 8
    assert verify("double_tree", "broadcast", size=300).rounds == 2


def test_a_verdict_does_not_depend_on_the_order_of_the_steps_in_a_round():
    schedules = [emit("direct", "alltoall", size=5, rank=rank) for rank in range(5)]
    turned = []
    for schedule in schedules:
        steps = schedule.steps[::-1].copy()
        steps["flags"] = schedule.steps["flags"]
        turned.append(dataclasses.replace(schedule, steps=steps))
    assert not np.array_equal(turned[0].steps, schedules[0].steps)
    assert check(turned) == check(schedules)


def test_a_function_is_used_for_what_it_was_entered_for():
    @algorithm("barrier", name="entered_for_barrier")
    def write(v):
        pass

    assert find("barrier", write).name == "entered_for_barrier"
    with pytest.raises(InvalidArgument, match="entered for barrier, not for scan"):
        find("scan", write)
