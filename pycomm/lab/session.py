"""The life of a laboratory with a program in it: a first process that holds everything, and takes everything along.

All processes are in a namespace of process ids of their own. When the first of them ends, or the command that has
started it does, however it ends, the kernel kills all others; and with them go hosts, links and relays.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable

from .. import knobs
from ..errors import PycommError
from ..job.launch import exit_with
from ..job.processes import in_terminals_foreground
from .build import Lab, check_machine
from .model import Model
from .namespaces import die_with_parent, fork_first, own_mounts

_ASKED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def session(model: Model, body: Callable[[], int], on: str | None = None) -> int:
    """Run a function in a laboratory, in a process on one of its hosts, and return its exit code.

    Args:
        model: what to make.
        body: returns an exit code, or becomes another program. It finds the hosts in PYCOMM_LAB.
        on: the name of the host; None: the first one.

    Raises:
        InvalidArgument: there is no such host, or something is missing on this machine that this takes.
    """
    check_machine(model)
    host, _ = model.card(on if on is not None else 0, 0)
    # Of what a terminal sends its whole foreground, the program has its own copy.
    passed = _ASKED - ({signal.SIGINT} if in_terminals_foreground() else set())
    sys.stdout.flush()
    sys.stderr.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_ASKED, signal.SIGCHLD})
    try:
        alive, held = os.pipe()
        first = fork_first()
        if not first:
            os.close(held)
            exit_with(lambda: _told(lambda: _hold(model, body, host, passed, alive)))
        os.close(alive)
        try:
            return _wait(first, passed)
        finally:
            os.close(held)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(child: int, passed: set[signal.Signals]) -> int:
    """Pass signals on to the first process until it has ended, and return its exit code."""
    while True:
        number = signal.sigwait({*_ASKED, signal.SIGCHLD})
        if number in passed:
            os.kill(child, number)
        elif number == signal.SIGCHLD and (done := os.waitpid(child, os.WNOHANG))[0]:
            return _code(done[1])


def _hold(model: Model, body: Callable[[], int], host: int, passed: set[signal.Signals], alive: int) -> int:
    """Be the first process: make the laboratory, start the program, and do what is due until it ends."""
    die_with_parent(0)
    if select.select([alive], [], [], 0)[0]:  # the parent was gone before that
        return 128 + signal.SIGKILL
    own_mounts()
    with Lab(model) as lab:
        program = os.fork()
        if not program:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            exit_with(lambda: _told(lambda: _be_on(lab, host, body)))
        due = list(model.events)
        start = time.monotonic()
        while True:
            patience = due[0].at - (time.monotonic() - start) if due else 3600.0
            if patience <= 0:
                lab.apply(due.pop(0))
                continue
            came = signal.sigtimedwait({*_ASKED, signal.SIGCHLD}, patience)
            if came is None:
                continue
            if came.si_signo in passed:
                os.kill(program, came.si_signo)
            # Orphans become the first process's children.
            with contextlib.suppress(ChildProcessError):
                while (done := os.waitpid(-1, os.WNOHANG))[0]:
                    if done[0] == program:
                        return _code(done[1])


def _be_on(lab: Lab, host: int, body: Callable[[], int]) -> int:
    os.environ[knobs.LAB.name] = lab.state
    # UCX takes processes of one kernel for neighbours that share memory, whatever host they are on.
    os.environ.setdefault("UCX_TLS", "self,tcp")
    lab.places[host].enter()
    return body()


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _told(body: Callable[[], int]) -> int:
    """Return what a function returns, or say what pycomm finds wrong, as the command line does."""
    try:
        return body()
    except PycommError as why:
        print(f"pycomm: {why}", file=sys.stderr)
        return 2
