"""Ranks exchange blobs and are told of every loss, with the hub in the launcher and with the hub in rank 0."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zmq
from launch_helpers import as_rank, free_port, hub_in_rank_0, my_rank

from pycomm.errors import Aborted, AuthenticationError, DeadlineExceeded, LaunchError, PeerLost, SystemRefused
from pycomm.job import control, environment, line
from pycomm.job.environment import Job
from pycomm.job.hub import Hub
from pycomm.job.launch import run_ranks, spawn
from pycomm.job.rendezvous import Rendezvous

# Generous: a loss is told within milliseconds on a machine that is not overloaded.
SOON = 20.0
HUBS = ["launcher", "rank 0", "rank 0, tcp"]


def job_maker(hub: str, size: int) -> Callable[[], Job]:
    """Return what gives a rank its Job: the launcher's, or one whose hub runs in rank 0."""
    if hub == "launcher":
        return environment.join
    base = hub_in_rank_0(size, f"tcp://127.0.0.1:{free_port()}" if "tcp" in hub else None)
    return lambda: as_rank(base, my_rank())


class Losses:
    """Collects what `watch` tells."""

    def __init__(self, rendezvous: Rendezvous) -> None:
        self.told: queue.Queue[tuple[int, str]] = queue.Queue()
        rendezvous.watch(lambda rank, why: self.told.put((rank, why)))

    def next(self) -> tuple[int, str]:
        return self.told.get(timeout=SOON)


@pytest.mark.parametrize("hub", HUBS)
@pytest.mark.parametrize("size", [1, 2, 7, 32])
def test_every_rank_gets_the_blobs_of_all(hub: str, size: int) -> None:
    make = job_maker(hub, size)

    def rank() -> list[list[bytes]]:
        job = make()
        rendezvous = Rendezvous(job)
        blobs = [b"", b"rank %d" % job.rank, bytes([job.rank]) * 70000]
        got = [rendezvous.exchange(blob) for blob in blobs]
        rendezvous.close()
        return got

    expected = [[b""] * size, [b"rank %d" % r for r in range(size)], [bytes([r]) * 70000 for r in range(size)]]
    assert run_ranks(size, rank) == [expected] * size


@pytest.mark.parametrize("hub", HUBS)
def test_the_kth_rendezvous_of_each_rank_meet(hub: str) -> None:
    make = job_maker(hub, 3)

    def rank() -> list[list[bytes]]:
        got = []
        for k in range(4):
            rendezvous = Rendezvous(make())
            # Ranks leave and come back at different times.
            time.sleep(0.02 * ((my_rank() + k) % 3))
            got.append(rendezvous.exchange(b"%d" % k))
            rendezvous.close()
        return got

    assert run_ranks(3, rank) == [[[b"%d" % k] * 3 for k in range(4)]] * 3


def test_two_rendezvous_of_one_process_may_be_open_at_once() -> None:
    def rank() -> tuple[list[bytes], list[bytes]]:
        first, second = Rendezvous(environment.join()), Rendezvous(environment.join())
        return first.exchange(b"first"), second.exchange(b"second")

    assert run_ranks(2, rank) == [([b"first"] * 2, [b"second"] * 2)] * 2


@pytest.mark.parametrize("hub", HUBS)
def test_a_missing_rank_is_named_at_the_deadline(hub: str) -> None:
    make = job_maker(hub, 5)

    def rank() -> str:
        rendezvous = Rendezvous(make(), timeout=0.5)
        if my_rank() in (2, 4):
            time.sleep(1.5)
            return ""
        with pytest.raises(DeadlineExceeded) as caught:
            rendezvous.exchange(b"")
        assert caught.value.rank == 2
        # The hub must outlive the others' questions.
        time.sleep(0.5)
        return str(caught.value)

    for rank_number, text in enumerate(run_ranks(5, rank)):
        assert rank_number in (2, 4) or "ranks 2, 4 of 5 did not arrive" in text


def test_a_hub_that_is_not_there_is_named_at_the_deadline() -> None:
    rendezvous = Rendezvous(as_rank(hub_in_rank_0(2), 1), timeout=0.3)
    with pytest.raises(DeadlineExceeded, match="could not reach the job's hub, in rank 0"):
        rendezvous.exchange(b"")
    rendezvous.close()


@pytest.mark.parametrize("hub", HUBS)
@pytest.mark.parametrize("victim", [0, 2])
def test_all_survivors_are_told_of_a_killed_rank(hub: str, victim: int) -> None:
    make = job_maker(hub, 4)

    def rank() -> tuple[int, str]:
        rendezvous = Rendezvous(make())
        losses = Losses(rendezvous)
        try:
            rendezvous.exchange(b"")
        except PeerLost as error:  # the hub died with the victim, before it had answered everybody
            assert hub != "launcher" and error.rank == victim == 0
            return error.rank, str(error)
        if my_rank() == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return losses.next()

    outcomes = spawn(4, rank)
    assert outcomes[victim].code == -signal.SIGKILL
    for outcome in outcomes:
        if outcome.rank == victim:
            continue
        assert outcome.error is None
        lost, why = outcome.value
        assert lost == victim
        if hub == "launcher":
            assert "was killed by signal 9 (SIGKILL)" in why


def test_without_a_launcher_the_signal_is_named_while_the_dead_process_can_be_read() -> None:
    base = hub_in_rank_0(2)
    child = os.fork()
    if child == 0:
        Rendezvous(as_rank(base, 1)).exchange(b"")
        signal.pause()
    rendezvous = Rendezvous(base)
    losses = Losses(rendezvous)
    rendezvous.exchange(b"")
    os.kill(child, signal.SIGKILL)
    lost, why = losses.next()
    os.waitpid(child, 0)
    rendezvous.close()
    assert lost == 1
    assert "was killed by signal 9 (SIGKILL)" in why


def test_a_rank_that_falls_silent_is_lost_over_tcp_but_only_stopped_on_one_host() -> None:
    hubs = [hub_in_rank_0(2, f"tcp://127.0.0.1:{free_port()}"), hub_in_rank_0(2, None)]

    def rank() -> list[int]:
        which, number = divmod(my_rank(), 2)  # two jobs at once, for both take their time
        rendezvous = Rendezvous(as_rank(hubs[which], number))
        losses = Losses(rendezvous)
        stopped = int(rendezvous.exchange(b"%d" % os.getpid())[1])
        if number == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
            return []
        with contextlib.suppress(queue.Empty):
            losses.told.put(losses.told.get(timeout=(SOON, 7.0)[which]))
        told = [lost for lost, _ in losses.told.queue]
        os.kill(stopped, signal.SIGCONT)
        return told

    over_tcp, _, on_one_host, _ = spawn(4, rank)
    assert over_tcp.value == [1]
    assert on_one_host.value == []


@pytest.mark.parametrize("hub", HUBS)
def test_a_death_is_noticed_though_a_child_of_the_dead_holds_its_sockets(hub: str) -> None:
    make = job_maker(hub, 2)

    def rank() -> int:
        rendezvous = Rendezvous(make())
        losses = Losses(rendezvous)
        rendezvous.exchange(b"")
        if my_rank() == 1:
            worker = os.fork()
            if worker == 0:
                time.sleep(60)
                os._exit(0)
            os.write(pipe[1], b"%d" % worker)
            os.kill(os.getpid(), signal.SIGKILL)
        return losses.next()[0]

    pipe = os.pipe()
    try:
        assert spawn(2, rank)[0].value == 1
    finally:
        os.kill(int(os.read(pipe[0], 32)), signal.SIGKILL)


@pytest.mark.parametrize("hub", HUBS)
def test_a_rank_that_dies_before_the_ranks_have_met_is_named(hub: str) -> None:
    make = job_maker(hub, 3)

    def rank() -> str:
        rendezvous = Rendezvous(make())
        if my_rank() == 1:
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGKILL)
        with pytest.raises(PeerLost, match="rank 1 was lost while the ranks met") as caught:
            rendezvous.exchange(b"")
        assert caught.value.rank == 1
        time.sleep(0.5)
        return "survived"

    outcomes = spawn(3, rank)
    assert [outcome.value for outcome in outcomes] == ["survived", None, "survived"]


def test_a_rank_that_fails_before_it_joins_is_named() -> None:
    def rank() -> None:
        if my_rank() == 1:
            sys.exit(3)
        with pytest.raises(PeerLost, match="exited with code 3"):
            Rendezvous(environment.join()).exchange(b"")

    assert [outcome.code for outcome in spawn(3, rank)] == [0, 3, 0]


@pytest.mark.parametrize("hub", HUBS)
def test_an_orderly_leave_is_no_loss(hub: str) -> None:
    make = job_maker(hub, 4)

    def rank() -> list[tuple[int, str]]:
        rendezvous = Rendezvous(make())
        losses = Losses(rendezvous)
        rendezvous.exchange(b"")
        if my_rank() < 3:
            rendezvous.close()
            return []
        # Long enough that the ends of the others' processes are seen.
        time.sleep(1.0)
        rendezvous.close()
        return list(losses.told.queue)

    assert run_ranks(4, rank) == [[]] * 4


def _see_the_end_before_the_message(dealer: zmq.Socket[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the dealer seem to have no message until the end of its connection has been read."""
    seen: list[int] = []
    poll, read = zmq.Socket.poll, line.monitored_event

    def late_poll(self: zmq.Socket[bytes], *args: int) -> int:
        return 0 if self is dealer and zmq.EVENT_DISCONNECTED not in seen else poll(self, *args)

    def noted(monitor: zmq.Socket[bytes]) -> int:
        seen.append(read(monitor))
        return seen[-1]

    monkeypatch.setattr(zmq.Socket, "poll", late_poll)
    monkeypatch.setattr(line, "monitored_event", noted)


def _read_late(dealer: zmq.Socket[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the dealer seem to have no message for a while, and after the end of its connection."""
    seen: list[int] = []
    end = time.monotonic() + 0.4
    poll, read = zmq.Socket.poll, line.monitored_event

    def late_poll(self: zmq.Socket[bytes], *args: int) -> int:
        return 0 if self is dealer and (zmq.EVENT_DISCONNECTED in seen or time.monotonic() < end) else poll(self, *args)

    def noted(monitor: zmq.Socket[bytes]) -> int:
        seen.append(read(monitor))
        return seen[-1]

    monkeypatch.setattr(zmq.Socket, "poll", late_poll)
    monkeypatch.setattr(line, "monitored_event", noted)


Delay = Callable[[zmq.Socket[bytes], pytest.MonkeyPatch], None]


@pytest.mark.parametrize("delayed", [_see_the_end_before_the_message, _read_late])
def test_a_goodbye_is_heard_however_its_connection_ends(delayed: Delay, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come with the end; and what was not read by then may be lost, as where the other end's kernel resets it:
    so the hub that says it waits."""
    make = job_maker("rank 0", 2)

    def rank() -> list[tuple[int, str]]:
        rendezvous = Rendezvous(make())
        losses = Losses(rendezvous)
        rendezvous.exchange(b"")
        if my_rank() == 1:
            assert rendezvous._control is not None
            delayed(rendezvous._control._line.dealer, monkeypatch)
            time.sleep(1.0)
        rendezvous.close()
        return list(losses.told.queue)

    assert run_ranks(2, rank) == [[]] * 2


def test_a_goodbye_is_waited_for_that_is_read_long_after_its_process_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where hundreds of ranks share processors with the launcher: the kernel tells of the end of a process first."""
    readable: list[float] = []
    ended, read, probe = Hub.ended, Hub._read, Hub._probe

    def noted(self: Hub, rank: int, why: str) -> None:
        readable.append(time.monotonic() + 0.4)
        ended(self, rank, why)

    def late() -> bool:
        return bool(readable) and time.monotonic() < readable[0]

    monkeypatch.setattr(Hub, "ended", noted)
    monkeypatch.setattr(Hub, "_read", lambda self: None if late() else read(self))
    monkeypatch.setattr(Hub, "_probe", lambda self: False if late() else probe(self))

    def rank() -> list[tuple[int, str]]:
        rendezvous = Rendezvous(environment.join())
        losses = Losses(rendezvous)
        rendezvous.exchange(b"")
        # The goodbye of rank 1 comes when nobody reads any more: after the end of rank 2.
        time.sleep((1.0, 0.2, 0.0)[my_rank()])
        rendezvous.close()
        return list(losses.told.queue)

    assert run_ranks(3, rank)[0] == []


@pytest.mark.parametrize("hub", HUBS)
def test_an_abort_reaches_all_other_ranks(hub: str) -> None:
    make = job_maker(hub, 4)

    def rank() -> tuple[int, str] | None:
        rendezvous = Rendezvous(make())
        losses = Losses(rendezvous)
        rendezvous.exchange(b"")
        if my_rank() == 1:
            rendezvous.abort(2, "it sends nonsense")
            return None
        return losses.next()

    blamed = (2, "it sends nonsense")
    # Rank 2 itself is told as well; rank 1 knows.
    assert run_ranks(4, rank) == [blamed, None, blamed, blamed]


def test_a_loss_is_told_once_and_also_to_who_watches_late() -> None:
    def rank() -> list[int]:
        rendezvous = Rendezvous(environment.join())
        rendezvous.exchange(b"")
        if my_rank() == 1:
            rendezvous.abort(1, "first")
            rendezvous.abort(1, "second")
            time.sleep(0.5)
            return []
        time.sleep(0.3)
        losses = Losses(rendezvous)
        told = [losses.next()]
        time.sleep(0.5)
        return [number for number, _ in told + list(losses.told.queue)]

    assert run_ranks(2, rank) == [[1], []]


def test_a_mistake_in_the_callback_does_not_end_the_notices() -> None:
    def rank() -> int:
        rendezvous = Rendezvous(environment.join())
        told: queue.Queue[int] = queue.Queue()

        def on_lost(number: int, why: str) -> None:
            told.put(number)
            raise ValueError(why)

        rendezvous.watch(on_lost)
        rendezvous.exchange(b"")
        if my_rank():
            rendezvous.abort(my_rank(), "test")
            time.sleep(0.5)
            return 0
        return told.get(timeout=SOON) + told.get(timeout=SOON)

    assert run_ranks(3, rank) == [3, 0, 0]


def test_an_unhandled_exception_is_told_as_the_reason() -> None:
    def rank() -> tuple[int, str]:
        rendezvous = Rendezvous(environment.join())
        losses = Losses(rendezvous)
        rendezvous.exchange(b"")
        if my_rank() == 1:
            raise ValueError("the learning rate is negative")
        return losses.next()

    outcomes = spawn(2, rank)
    assert outcomes[0].value == (1, "it raised ValueError: the learning rate is negative")


@pytest.mark.parametrize("hub", HUBS)
def test_a_forked_child_does_not_speak_for_the_rank(hub: str) -> None:
    make = job_maker(hub, 2)

    def rank() -> list[bytes]:
        rendezvous = Rendezvous(make())
        losses = Losses(rendezvous)
        rendezvous.exchange(b"")
        child = os.fork()
        if child == 0:
            rendezvous.close()
            sys.exit(0)
        os.waitpid(child, 0)
        got = rendezvous.exchange(b"still here")
        assert losses.told.empty()
        rendezvous.close()
        return got

    assert run_ranks(2, rank) == [[b"still here"] * 2] * 2


# Contradictions.


def exchange_as(job: Job) -> None:
    rendezvous = Rendezvous(job, timeout=3)
    try:
        rendezvous.exchange(b"")
    finally:
        # The hub's rank stays until the others have heard.
        time.sleep(0.5)
        rendezvous.close()


def test_two_processes_that_claim_one_rank_are_both_told() -> None:
    base = hub_in_rank_0(3)
    outcomes = spawn(3, lambda: exchange_as(as_rank(base, min(my_rank(), 1))))
    for outcome in outcomes:
        assert isinstance(outcome.error, LaunchError)
        assert "two processes claim to be rank 1: pid " in str(outcome.error)


def test_sizes_that_differ_are_told_to_all() -> None:
    base = hub_in_rank_0(3)
    outcomes = spawn(3, lambda: exchange_as(replace(as_rank(base, my_rank()), size=4 if my_rank() == 2 else 3)))
    for outcome in outcomes:
        assert isinstance(outcome.error, LaunchError)
        assert "was told that there are 4 ranks, others that there are 3" in str(outcome.error)


def test_another_jobs_process_is_refused_and_reported_but_ends_nothing() -> None:
    base = hub_in_rank_0(2)

    def rank() -> None:
        exchange_as(replace(as_rank(base, my_rank()), job_id=0x9999 if my_rank() == 1 else base.job_id))

    hub, stranger = spawn(2, rank)
    assert isinstance(stranger.error, LaunchError)
    assert "belongs to job 0000000000009999" in str(stranger.error)
    assert isinstance(hub.error, DeadlineExceeded)
    assert "rank 1 of 2 did not arrive" in str(hub.error)
    assert "0000000000009999" in str(hub.error)


def test_a_second_process_cannot_harm_ranks_that_have_met() -> None:
    base = hub_in_rank_0(2)
    gate = os.pipe()

    def rank() -> list[bytes]:
        if my_rank() == 2:
            os.read(gate[0], 1)
        rendezvous = Rendezvous(as_rank(base, min(my_rank(), 1)))
        if my_rank() == 2:
            with pytest.raises(LaunchError, match="two processes claim to be rank 1"):
                rendezvous.exchange(b"impostor")
            return []
        rendezvous.exchange(b"")
        os.write(gate[1], b"x")
        time.sleep(1.0)
        return rendezvous.exchange(b"fine")

    assert run_ranks(3, rank) == [[b"fine"] * 2, [b"fine"] * 2, []]


def test_a_rank_with_another_secret_is_told_so() -> None:
    base = hub_in_rank_0(2, f"tcp://127.0.0.1:{free_port()}")

    def rank() -> int:
        rendezvous = Rendezvous(replace(as_rank(base, my_rank()), secret=bytes([my_rank()]) * 32), timeout=3)
        try:
            rendezvous.exchange(b"")
        finally:
            refused = rendezvous.refused
            rendezvous.close()
            assert my_rank() or refused > 0
        return refused

    hub, stranger = spawn(2, rank)
    assert isinstance(stranger.error, AuthenticationError)
    assert isinstance(hub.error, DeadlineExceeded)


def test_a_port_that_is_taken_is_the_systems_refusal() -> None:
    base = hub_in_rank_0(2, f"tcp://127.0.0.1:{free_port()}")
    first = Rendezvous(base)
    with pytest.raises(SystemRefused, match="PYCOMM_RENDEZVOUS"):
        Rendezvous(base)
    first.close()


def test_a_host_that_does_not_resolve_is_named() -> None:
    with pytest.raises(LaunchError, match=r"PYCOMM_RENDEZVOUS=tcp://no\.such\.host\.invalid:5000"):
        Rendezvous(hub_in_rank_0(2, "tcp://no.such.host.invalid:5000"))


def test_an_address_in_front_of_this_host_is_no_obstacle() -> None:
    # 192.0.2.1 is no host's (RFC 5737): as behind a forwarder, the hub must then listen on all of its own addresses.
    port = free_port()
    hub = Rendezvous(hub_in_rank_0(2, f"tcp://192.0.2.1:{port}"))
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    hub.close()


def test_the_hub_rests_after_an_aborted_rank_has_died() -> None:
    base = hub_in_rank_0(2)

    def wake_ups() -> int:
        texts = [path.read_text() for path in Path("/proc/self/task").glob("*/status")]
        return sum(int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0]) for text in texts)

    def rank() -> int:
        rendezvous = Rendezvous(as_rank(base, my_rank()))
        losses = Losses(rendezvous)
        rendezvous.exchange(b"")
        if my_rank() == 1:
            rendezvous.abort(1, "giving up")
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGKILL)
        losses.next()
        time.sleep(1.5)
        before = wake_ups()
        time.sleep(2.0)
        return wake_ups() - before

    # One that looked every millisecond would wake up more than a thousand times.
    assert spawn(2, rank)[0].value < 100


def test_a_thread_that_ends_before_it_is_rung_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def rank() -> None:
        rendezvous = Rendezvous(environment.join())
        rendezvous.exchange(b"")
        assert rendezvous._control is not None
        monkeypatch.setattr(rendezvous._control, "_ring", _ring_late(rendezvous._control))
        rendezvous.close()

    run_ranks(2, rank)


def _ring_late(end: control.Control) -> Callable[[], None]:
    """Return what rings once the thread has ended, if it has been told to: something else has woken it."""
    ring = end._ring

    def late() -> None:
        if end._stopping:
            ring()
            end.thread.join()
        ring()

    return late


def test_a_closed_rendezvous_refuses_to_exchange() -> None:
    rendezvous = Rendezvous(hub_in_rank_0(2))
    rendezvous.close()
    rendezvous.close()
    with pytest.raises(Aborted):
        rendezvous.exchange(b"")


def test_a_job_of_one_rank_needs_no_socket() -> None:
    def rank() -> bool:
        for name in [name for name in sys.modules if name.startswith(("zmq", "pycomm.job.control", "pycomm.job.hub"))]:
            del sys.modules[name]
        rendezvous = Rendezvous(hub_in_rank_0(1))
        rendezvous.watch(lambda rank, why: None)
        assert rendezvous.exchange(b"alone") == [b"alone"]
        rendezvous.abort(0, "nobody hears")
        rendezvous.close()
        return "zmq" in sys.modules

    assert run_ranks(1, rank) == [False]
