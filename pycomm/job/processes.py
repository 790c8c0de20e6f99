"""The launcher's child processes, one a rank: starting, watching and ending them so that none is left behind."""

from __future__ import annotations

import ctypes
import os
import select
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pycomm.errors import SystemRefused
from pycomm.job import host

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Ending:
    """How one rank's process ended: its wait status, as os.waitpid tells it."""

    rank: int
    pid: int
    status: int

    @property
    def code(self) -> int:
        """The exit code, or minus the number of the signal that killed the process."""
        return os.waitstatus_to_exitcode(self.status)

    def __str__(self) -> str:
        """Return the ending as a reason that the other ranks are told."""
        return f"its process {host.describe_status(self.status)} (pid {self.pid})"


class Team:
    """The processes of the ranks that this process has forked.

    Attributes:
        running: the process ids of the ranks that have not ended, by rank.
        grouped: the ranks are a process group of their own, apart from this process's.
    """

    def __init__(self, *, grouped: bool) -> None:
        """Fork nothing yet. With `grouped`, signals to this process's group, a terminal's, do not reach the ranks."""
        self.running: dict[int, int] = {}
        self.grouped = grouped
        self._parent = os.getpid()
        self._group = 0
        self._ranks: dict[int, int] = {}
        self._ends = select.epoll()

    def fork(self, rank: int) -> bool:
        """Fork the process of this rank; return True in it and False here.

        In the child, signal handlers are the usual ones of Python, standard input is empty except in rank 0, and the
        kernel kills the process when the launcher dies. No thread may run in the parent.
        """
        # Blocked, so that no signal meets the launcher's handlers in the child.
        mask = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                self._settle(rank)
                return True
        except OSError as why:
            raise SystemRefused(why.errno, f"cannot start rank {rank}: {why.strerror} (see ulimit -u)") from why
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if self.grouped:
            self._group = self._group or pid
            # Both sides do it, so that neither can run ahead of the other; the child may also be gone already.
            _quietly_join_group(pid, self._group)
        self.running[rank] = pid
        fd = os.pidfd_open(pid)
        self._ranks[fd] = rank
        self._ends.register(fd, select.EPOLLIN)
        return False

    def _settle(self, rank: int) -> None:
        if self.grouped:
            _quietly_join_group(0, self._group)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != self._parent:
            os._exit(128 + signal.SIGKILL)
        self._ends.close()
        for fd in self._ranks:
            os.close(fd)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD):
            # What is ignored (nohup, a background job) stays so.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        if rank:
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            os.close(null)

    def fileno(self) -> int:
        """Return a descriptor that is readable when a rank has ended."""
        return self._ends.fileno()

    def reap(self) -> list[Ending]:
        """Return the ranks that have ended since the last call, without waiting."""
        endings = []
        for fd, _ in self._ends.poll(0):
            rank = self._ranks.pop(fd)
            self._ends.unregister(fd)
            os.close(fd)
            pid, status = os.waitpid(self.running.pop(rank), 0)
            endings.append(Ending(rank, pid, status))
        return endings

    def signal(self, number: int) -> None:
        """Send the signal to every rank that has not ended."""
        for pid in self.running.values():
            # Not reaped yet, hence still this very process.
            os.kill(pid, number)

    def kill(self) -> None:
        """Kill every rank that has not ended and wait for its end."""
        self.signal(signal.SIGKILL)
        for pid in self.running.values():
            os.waitpid(pid, 0)
        self.running.clear()
        for fd in self._ranks:
            os.close(fd)
        self._ranks.clear()
        self._ends.close()


def adopt_orphans() -> None:
    """Let what the ranks started become this process's children when the ranks end, so that `end_orphans` finds it."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_orphans() -> None:
    """Kill the children that this process has adopted; it must have no others. Their own children follow one by one."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while children.exists() and (pids := [int(pid) for pid in children.read_text().split()]):
        _kill_and_reap(pids)


def _kill_and_reap(pids: Iterable[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _quietly_join_group(pid: int, group: int) -> None:
    try:
        os.setpgid(pid, group)
    except (ProcessLookupError, PermissionError):
        return


def in_terminals_foreground() -> bool:
    """Return whether a terminal sends its Ctrl-C to this process's group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
