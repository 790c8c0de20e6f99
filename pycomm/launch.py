"""Starts the ranks of a job on this host: the command `pycomm run`, and `spawn` and `run_ranks` for programs and tests.

A rank is a fork of the launcher, which has imported numpy and pycomm: it costs milliseconds and shares the memory.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import os
import pickle
import runpy
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, cast

from pycomm import host, knobs
from pycomm.errors import Aborted, DeadlineExceeded, InvalidArgument, PeerLost, SystemRefused
from pycomm.processes import Team, adopt_orphans, end_orphans, in_terminals_foreground

if TYPE_CHECKING:
    from pycomm.output import Tagger
    from pycomm.supervisor import Meeting, Supervisor

_TIMED_OUT = 124  # as timeout(1) of coreutils


# For programs and tests.


@dataclass(frozen=True)
class Outcome:
    """How one rank ended.

    Attributes:
        rank: the rank.
        code: the exit code of its process, or minus the number of the signal that killed it.
        value: what the function returned; None if it did not return, or is an executable.
        error: what the function raised, with the rank's traceback as a note; None if it returned, or is an executable.
    """

    rank: int
    code: int
    value: Any = None
    error: BaseException | None = None


def spawn(
    n: int,
    program: Callable[..., object] | Sequence[str],
    *args: object,
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    grace: float = 5.0,
) -> list[Outcome]:
    """Run n ranks of a job on this host and return how each ended, by rank; a rank that fails raises nothing here.

    Args:
        n: how many ranks.
        program: a function, which runs in forks of this process as `program(*args)` and may be a closure; what it
            returns or raises must be picklable. Or the words of a command.
        env: variables to set in every rank, besides those of the job.
        timeout: seconds that the job may take.
        grace: seconds that the other ranks have to end by themselves after one has failed.

    Raises DeadlineExceeded naming the ranks that were still running after `timeout`; their stacks are then on standard
    error.
    """
    outcomes, _ = _spawn(n, program, args, env, timeout, grace)
    return outcomes


def run_ranks(
    n: int, function: Callable[..., object], *args: object, env: Mapping[str, str] | None = None, timeout: float = 60.0
) -> list[Any]:
    """Run `function(*args)` in n ranks, as `spawn` does, and return what they returned, by rank.

    If ranks fail, raises what the first of them raised, but a consequence of another's failure (PeerLost, Aborted) only
    if there is no cause; raises PeerLost if a rank was killed, or exited by itself, with its signal or code.
    """
    outcomes, order = _spawn(n, function, args, env, timeout, grace=5.0)
    failed = [outcomes[rank] for rank in order if outcomes[rank].code]
    causes = [outcome for outcome in failed if not isinstance(outcome.error, PeerLost | Aborted)]
    for outcome in causes or failed:
        if outcome.error is not None:
            raise outcome.error
        killed = f"was killed by {host.describe_signal(-outcome.code)}"
        raise PeerLost(
            f"rank {outcome.rank} {killed if outcome.code < 0 else f'exited with code {outcome.code}'}", outcome.rank
        )
    return [outcome.value for outcome in outcomes]


def _spawn(
    n: int,
    program: Callable[..., object] | Sequence[str],
    args: tuple[object, ...],
    env: Mapping[str, str] | None,
    timeout: float,
    grace: float,
) -> tuple[list[Outcome], list[int]]:
    """Return the outcomes by rank, and the ranks in the order in which they ended."""
    from pycomm.supervisor import Meeting, Supervisor

    if n < 1:
        raise InvalidArgument(f"a job has 1 rank or more, not {n}")
    team = Team(grouped=False)
    meeting = Meeting(n)
    results = [os.memfd_create("pycomm-result") for _ in range(n)]
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        for rank in range(n):
            if team.fork(rank):
                meeting.enter(rank)
                os.environ.update(env or {})
                _run_and_exit(rank, program, args, results[rank])
        supervisor = Supervisor(team, meeting, grace=grace, limit=timeout)
        try:
            supervisor.run()
        finally:
            supervisor.close()
        if supervisor.stopped:
            late = ", ".join(map(str, supervisor.stragglers)) or "none was left"
            raise DeadlineExceeded(f"{n} ranks did not end within {timeout:g} s; had to be terminated: {late}")
        codes = {ending.rank: ending.code for ending in supervisor.endings}
        outcomes = [_outcome(rank, codes[rank], results[rank]) for rank in range(n)]
        return outcomes, [ending.rank for ending in supervisor.endings]
    finally:
        team.kill()
        meeting.close()
        for fd in results:
            os.close(fd)


def _run_and_exit(
    rank: int, program: Callable[..., object] | Sequence[str], args: tuple[object, ...], result: int
) -> NoReturn:
    """Be this rank, then end the process without returning into what the parent was doing."""
    code = 1
    try:
        if callable(program):
            # A rank that is terminated because it hangs shows where.
            faulthandler.register(signal.SIGTERM, file=2, all_threads=True, chain=True)
            code = _call(rank, program, args, result)
        else:
            _execute([*program, *map(str, args)])
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _call(rank: int, function: Callable[..., object], args: tuple[object, ...], result: int) -> int:
    from pycomm.rendezvous import close_all

    code, value, error = 0, None, None
    try:
        value = function(*args)
    except SystemExit as leaving:
        code = _exit_code(leaving)
    except BaseException as raised:
        code, error = 1, raised
        error.add_note(f"raised in rank {rank}:\n{traceback.format_exc().rstrip()}")
        sys.last_value = error
    os.write(result, _pickled(value, error))
    close_all()
    return code


def _pickled(value: object, error: BaseException | None) -> bytes:
    try:
        data = pickle.dumps((value, error))
        pickle.loads(data)  # an exception with arguments of its own may only fail here
        return data
    except Exception as why:
        notes = "\n".join(getattr(error, "__notes__", []))
        text = (
            f"{type(error).__name__}: {error}\n{notes}" if error else f"the function's value cannot be pickled: {why}"
        )
        return pickle.dumps((None, RuntimeError(text)))


def _outcome(rank: int, code: int, result: int) -> Outcome:
    size = os.fstat(result).st_size
    if not size:
        return Outcome(rank, code)
    value, error = pickle.loads(os.pread(result, size, 0))
    return Outcome(rank, code or (1 if error else 0), value, error)


# The command.


def register(subparsers: Any) -> None:
    """Add the command `run` to the argument parser of pycomm."""
    parser = subparsers.add_parser(
        "run",
        help="start the ranks of a job on this host",
        description="Start N ranks of a Python script, a module (-m) or, after --, any executable. The exit code is "
        "that of the first rank that fails, 128 + the number of its signal if it was killed, 124 after --timeout. "
        "OMP_NUM_THREADS, if it is not set, becomes the number of cores divided by N. When the job ends, everything "
        "that its ranks have started is ended too.",
        usage="pycomm run -n N [options] (SCRIPT | -m MODULE | -- EXECUTABLE) [ARGUMENT ...]",
    )
    parser.add_argument("-n", type=int, required=True, metavar="N", help="how many ranks")
    parser.add_argument("-m", dest="module", action="store_true", help="run a module, as python -m does")
    parser.add_argument("--timeout", type=float, metavar="S", help="end the job after S seconds")
    parser.add_argument(
        "--grace",
        type=float,
        default=5.0,
        metavar="S",
        help="terminate the other ranks S seconds after one has failed (default 5)",
    )
    parser.add_argument("--tag", action="store_true", help="print the rank in front of every line")
    parser.add_argument(
        "--no-fork", action="store_true", help="start a new interpreter for each rank instead of forking this one"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    command, executable = _command(args)
    if args.n < 1:
        raise InvalidArgument(f"-n {args.n}: a job has 1 rank or more")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // args.n)))
    if not executable and args.no_fork:
        command = [sys.executable, *(["-m"] if args.module else []), *command]
        executable = True
    _check_exists(command, executable, args.module)
    if not executable:
        _preload()
    code = _launch(args)
    if code is not None:
        return code
    if executable:
        _execute(command)
    _be_python(command, args.module)


def _command(args: argparse.Namespace) -> tuple[list[str], bool]:
    """Return the words to run, and whether they are an executable rather than Python."""
    if args.after_dashes is not None and not args.command:
        if not args.after_dashes:
            raise InvalidArgument("no executable after --")
        return args.after_dashes, True
    command = args.command + (["--", *args.after_dashes] if args.after_dashes is not None else [])
    if not command:
        raise InvalidArgument("nothing to run: give a script, -m MODULE or -- EXECUTABLE")
    return command, False


def _check_exists(command: list[str], executable: bool, module: bool) -> None:
    """Say once, rather than in every rank, that there is nothing to run."""
    if executable and not shutil.which(command[0]):
        raise InvalidArgument(f"{command[0]}: no such executable")
    if not executable and not module and not Path(command[0]).exists():
        raise InvalidArgument(f"{command[0]}: no such script (an executable comes after --, a module after -m)")


def _preload() -> None:
    """Import before forking what every rank needs; none of it may start a thread."""
    import numpy  # noqa: F401

    import pycomm.control
    import pycomm.rendezvous  # noqa: F401

    # The collector would otherwise write to, and so unshare, every page that holds an object.
    gc.collect()
    gc.freeze()


def _launch(args: argparse.Namespace) -> int | None:
    """Fork the ranks and watch over them; return the command's exit code, or None in a rank.

    A rank returns through here and `main`, rather than exiting, so that the interpreter ends as it always does: nothing
    may be left to do on the way, neither `finally` nor `with`.
    """
    from pycomm.output import Tagger
    from pycomm.supervisor import Meeting

    endpoint = knobs.RENDEZVOUS.value()
    # Within a rank of another job the variable names that job's hub.
    meeting = Meeting(args.n, "" if endpoint.startswith("hub+") else endpoint)
    tagger = Tagger() if args.tag else None
    # In a terminal's foreground its Ctrl-C reaches the ranks by itself, and rank 0 may read from it.
    team = Team(grouped=not in_terminals_foreground())
    adopt_orphans()
    signals = _Signals()
    for rank in range(args.n):
        if tagger:
            tagger.before_fork(rank)
        try:
            forked = team.fork(rank)
        except SystemRefused:
            team.kill()
            raise
        if forked:
            signals.close()
            meeting.enter(rank)
            if tagger:
                tagger.in_child()
                cast(TextIOWrapper, sys.stdout).reconfigure(line_buffering=True)
            return None
        if tagger:
            tagger.in_parent()
    return _supervise(args, team, meeting, tagger, signals)


class _Signals:
    """The signals that ask the launcher to end, kept until its loop comes to them."""

    def __init__(self) -> None:
        self.pending: list[int] = []
        self.bell, self._ringer = os.pipe()
        os.set_blocking(self._ringer, False)
        signal.set_wakeup_fd(self._ringer)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda number, _: self.pending.append(number))

    def take(self) -> list[int]:
        """Return those that have come since the last call, after the bell has rung."""
        os.read(self.bell, 64)
        taken, self.pending = self.pending, []
        return taken

    def close(self) -> None:
        """Close the bell."""
        os.close(self.bell)
        os.close(self._ringer)


def _supervise(args: argparse.Namespace, team: Team, meeting: Meeting, tagger: Tagger | None, signals: _Signals) -> int:
    from pycomm.supervisor import Supervisor

    taken: list[int] = []

    def on_signal() -> None:
        for number in signals.take():
            taken.append(number)
            came_to_all = not team.grouped and number != signal.SIGTERM
            supervisor.stop(f"the launcher was ended by {host.describe_signal(number)}", 0 if came_to_all else number)

    try:
        supervisor = Supervisor(team, meeting, grace=args.grace, limit=args.timeout)
        try:
            supervisor.run(tagger, signals.bell, on_signal)
        finally:
            supervisor.close()
            if tagger:
                tagger.close()
    finally:
        team.kill()
        end_orphans()
    report = _report(supervisor, args.grace)
    if report:
        print(f"pycomm run: {report}", file=sys.stderr)
    if taken:
        return 128 + taken[0]
    if supervisor.stopped:
        return _TIMED_OUT
    if supervisor.first_failure is None:
        return 0
    code = supervisor.first_failure.code
    return code if code > 0 else 128 - code


def _report(supervisor: Supervisor, grace: float) -> str:
    """Return the line that says why the job failed, "" if it did not."""
    parts = []
    if supervisor.stopped:
        parts.append(supervisor.stopped)
    elif supervisor.first_failure:
        ending = supervisor.first_failure
        parts.append(f"rank {ending.rank} {host.describe_status(ending.status)} (pid {ending.pid})")
    if supervisor.stragglers:
        ranks = ", ".join(map(str, supervisor.stragglers))
        noun = "ranks" if len(supervisor.stragglers) > 1 else "rank"
        parts.append(f"{noun} {ranks} had not ended {grace:g} s later and had to be terminated")
    return "; ".join(parts)


def _execute(command: list[str]) -> NoReturn:
    # Python ignores these, and what is ignored stays so in the new program.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execvp(command[0], command)


def _be_python(command: list[str], module: bool) -> NoReturn:
    """Run a script or a module as `python` would, and leave with its exit code."""
    sys.argv = command
    if not sys.flags.safe_path:
        sys.path[0] = str(Path.cwd() if module else Path(command[0]).resolve().parent)
    try:
        if module:
            runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit:
        raise
    except BaseException as error:
        sys.last_value = error
        trace = _beyond_the_launcher(error.__traceback__)
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        sys.exit(128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1)
    sys.exit(0)


def _beyond_the_launcher(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that python itself would show for the script."""
    ours = (__file__, runpy.__file__, "<frozen runpy>")
    inner = trace
    while inner and inner.tb_frame.f_code.co_filename in ours:
        inner = inner.tb_next
    return inner or trace


def _exit_code(leaving: SystemExit) -> int:
    """Return the exit code that Python makes of SystemExit's argument, printing it if it is a message."""
    if leaving.code is None or isinstance(leaving.code, int):
        return (leaving.code or 0) & 0xFF
    print(leaving.code, file=sys.stderr)
    return 1
