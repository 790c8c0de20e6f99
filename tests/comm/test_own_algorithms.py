"""Algorithms that a user writes: used like the built-in ones if right, refused with the reason if not."""

from __future__ import annotations

import numpy as np
import pytest
from conformance import TRANSPORTS, Case, on_ranks, perform

import pycomm
from pycomm.schedules import registry
from pycomm.schedules.view import View


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget afterwards what a test enters."""
    registry.listing()
    monkeypatch.setattr(registry, "_algorithms", dict(registry._algorithms))


def star(v: View) -> None:
    """Everybody tells rank 0, which tells everybody."""
    for r in range(1, v.size):
        with v.round():
            if v.rank == 0:
                v.reduce(0, frm=r)
            elif v.rank == r:
                v.send(0, to=0)
    for r in range(1, v.size):
        with v.round():
            if v.rank == 0:
                v.send(0, to=r)
            elif v.rank == r:
                v.recv(0, frm=0)


def at_once(v: View) -> None:
    """Everybody tells everybody, in one round: a chunk is sent and reduced into at the same time, many times."""
    with v.round():
        for k in range(1, v.size):
            v.send(0, to=v.rank + k)
        for r in range(v.size):
            if r != v.rank:
                v.reduce(0, frm=r)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("size", (1, 2, 4))
def test_a_function(transport: str, size: int) -> None:
    def rank(comm: pycomm.Comm) -> None:
        for count, slices in ((0, 1), (5, 1), (100_000, 1), (100_000, 7)):
            for in_place in (False, True):
                for waits in (False, True):
                    how = {"algorithm": star, "slices": slices}
                    perform(comm, Case("allreduce", count, np.int64, in_place=in_place, waits=waits, how=how))

    on_ranks(transport, size, rank)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_chain_through_a_crowded_round(transport: str) -> None:
    """Rank 0 reduces from 1 and 2 in one round, but 1 cannot send before 2 has been heard: messages larger than a lane.

    What is received in one round is combined in the order of the steps: the second cannot be taken off its lane before
    the first, and the first depends on it. The verifier must see that.
    """

    def crowded(v: View) -> None:
        with v.round():
            if v.rank == 0:
                v.reduce(0, frm=1)
                v.reduce(0, frm=2)
            if v.rank == 1:
                v.recv(v.temp(0), frm=2)
            if v.rank == 2:
                v.send(0, to=0)
        with v.round():
            if v.rank == 2:
                v.send(0, to=1)
            if v.rank == 1:
                v.send(0, to=0)

    def rank(comm: pycomm.Comm) -> None:
        with pytest.raises(pycomm.ScheduleError, match="wait"):
            perform(comm, Case("reduce", 500_000, np.int64, how={"algorithm": crowded, "slices": 1, "timeout": 5.0}))

    on_ranks(transport, 3, rank)


def test_one_that_is_entered_by_name(registered: None) -> None:
    pycomm.algorithm("allreduce", name="test_star")(star)

    def rank(comm: pycomm.Comm) -> None:
        perform(comm, Case("allreduce", 100, how={"algorithm": "test_star"}))
        with pytest.raises(pycomm.InvalidArgument, match="is entered for allreduce, not for broadcast"):
            comm.Bcast(np.zeros(3), algorithm=star)

    on_ranks("inproc", 3, rank)


def forgets_one(v: View) -> None:
    with v.round():
        if v.rank:
            v.send(0, to=0)
        for r in range(1, v.size - 1):
            if v.rank == 0:
                v.reduce(0, frm=r)


def adds_twice(v: View) -> None:
    star(v)
    star(v)


def waits_for_ever(v: View) -> None:
    with v.round():
        v.recv(0, frm=v.rank + 1)
    with v.round():
        v.send(0, to=v.rank - 1)


def leaves_out(v: View) -> None:
    pass


WRONG = {forgets_one: "rank", adds_twice: "rank", waits_for_ever: "wait", leaves_out: "rank"}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("named", (False, True))
def test_wrong_ones_are_refused_before_anything_is_sent(registered: None, wrong: registry.Write, named: bool) -> None:
    """By name, too: what is entered by a user has been verified by nobody."""
    name = f"test_{wrong.__name__}"
    if named:
        pycomm.algorithm("allreduce", name=name)(wrong)

    def rank(comm: pycomm.Comm) -> str:
        x = np.arange(5.0)
        with pytest.raises(pycomm.ScheduleError, match=WRONG[wrong]) as caught:
            comm.Allreduce(pycomm.IN_PLACE, x, algorithm=name if named else wrong)
        assert x.tolist() == [0, 1, 2, 3, 4]
        comm.Allreduce(pycomm.IN_PLACE, x)  # the communicator is as good as before
        assert x[1] == comm.size
        return str(caught.value)

    told = on_ranks("inproc", 3, rank)
    assert len(set(told)) == 1, "all ranks are told the same"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_reading_and_writing_in_one_round(transport: str) -> None:
    def rank(comm: pycomm.Comm) -> None:
        for algorithm in (at_once,):
            for count in (3, 70_000):
                for in_place in (False, True):
                    try:
                        perform(
                            comm, Case("allreduce", count, np.int32, in_place=in_place, how={"algorithm": algorithm})
                        )
                    except pycomm.ScheduleError as error:
                        assert "order" in str(error) or "tree" in str(error) or "round" in str(error)

    on_ranks(transport, 3, rank)
