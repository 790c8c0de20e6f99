"""The command `pycomm run`, which starts the ranks of a job on this host.

A rank is a fork of the launcher, which has imported numpy and pycomm: it costs milliseconds and shares the memory.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import os
import runpy
import shutil
import signal
import socket
import sys
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, cast

from pycomm import knobs
from pycomm.errors import InvalidArgument, SystemRefused
from pycomm.job import host
from pycomm.job.launch import execute
from pycomm.job.processes import Team, adopt_orphans, end_orphans, in_terminals_foreground
from pycomm.lab.place import Place, enter_as_rank, from_environment, here, spread

if TYPE_CHECKING:
    from pycomm.job.output import Tagger
    from pycomm.job.supervisor import Meeting, Supervisor

_TIMED_OUT = 124  # as timeout(1) of coreutils


def register(subparsers: Any) -> None:
    """Add the command `run` to the argument parser of pycomm."""
    parser = subparsers.add_parser(
        "run",
        help="start the ranks of a job on this host",
        description="Start N ranks of a Python script, a module (-m), a compiled program or, after --, any executable. "
        "The exit code is that of the first rank that fails, 128 + the number of its signal if it was killed, 124 "
        "after --timeout. OMP_NUM_THREADS, if it is not set, becomes the number of cores divided by N. When the job "
        "ends, everything that its ranks have started is ended too.",
        usage="pycomm run -n N [options] (SCRIPT | -m MODULE | PROGRAM | -- EXECUTABLE) [ARGUMENT ...]",
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
        "--pin",
        action="store_true",
        help="bind each rank to one processor, in turn: for more ranks than cores, which the kernel spreads badly",
    )
    parser.add_argument(
        "--no-fork", action="store_true", help="start a new interpreter for each rank instead of forking this one"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    command, executable = _command(args)
    if args.n < 1:
        raise InvalidArgument(f"-n {args.n}: a job has 1 rank or more")
    threads = max(1, len(os.sched_getaffinity(0)) // args.n)
    limited = "OMP_NUM_THREADS" not in os.environ
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    if not executable and args.no_fork:
        command = [sys.executable, *(["-m"] if args.module else []), *command]
        executable = True
    _check_exists(command, executable, args.module)
    if not executable:
        _preload()
        if limited:
            _limit_blas(threads)
    code = _launch(args)
    if code is not None:
        return code
    if executable:
        execute(command)
    _be_python(command, args.module)


def _command(args: argparse.Namespace) -> tuple[list[str], bool]:
    """Return the words to run, and whether they are an executable rather than Python."""
    if args.after_dashes is not None and not args.command:
        if not args.after_dashes:
            raise InvalidArgument("no executable after --")
        return args.after_dashes, True
    command = args.command + (["--", *args.after_dashes] if args.after_dashes is not None else [])
    if not command:
        raise InvalidArgument("nothing to run: give a script, a compiled program, -m MODULE or -- EXECUTABLE")
    if not args.module and _is_compiled(Path(command[0])):
        return [str(Path(command[0]).resolve()), *command[1:]], True
    return command, False


def _is_compiled(path: Path) -> bool:
    """Return whether a file is a program for the processor, as a compiler makes it (ELF)."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
    return False


def _check_exists(command: list[str], executable: bool, module: bool) -> None:
    """Say once, rather than in every rank, that there is nothing to run."""
    if executable and not shutil.which(command[0]):
        raise InvalidArgument(f"{command[0]}: no such executable")
    if not executable and not module and not Path(command[0]).exists():
        raise InvalidArgument(f"{command[0]}: no such script (an executable comes after --, a module after -m)")


def _preload() -> None:
    """Import before forking what every rank needs; none of it may start a thread."""
    import numpy  # noqa: F401

    import pycomm.job.control
    import pycomm.job.rendezvous
    import pycomm.schedules.registry
    import pycomm.selection.predict

    pycomm.schedules.registry.listing()  # which imports the algorithms

    # The collector would otherwise write to, and so unshare, every page that holds an object.
    gc.collect()
    gc.freeze()


def _limit_blas(threads: int) -> None:
    """Tell numpy's OpenBLAS what it would have taken from OMP_NUM_THREADS, had that been set before it was loaded."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    for path in {line.split()[-1] for line in maps if "openblas" in line}:
        library = ctypes.CDLL(path)
        # Builds differ by prefix and by the width of their integers.
        for name in ("scipy_openblas_set_num_threads64_", "openblas_set_num_threads64_", "openblas_set_num_threads"):
            if hasattr(library, name):
                getattr(library, name)(threads)
                break


def _launch(args: argparse.Namespace) -> int | None:
    """Fork the ranks and watch over them; return the command's exit code, or None in a rank.

    A rank returns through here and `main`, rather than exiting, so that the interpreter ends as it always does: nothing
    may be left to do on the way, neither `finally` nor `with`.
    """
    from pycomm.job.output import Tagger
    from pycomm.job.supervisor import Meeting

    places = _places(args.n)
    endpoint = knobs.RENDEZVOUS.value() or (_endpoint(places) if places else "")
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
            if places:
                enter_as_rank(places, args.n, rank)
            if args.pin:
                processors = sorted(os.sched_getaffinity(0))
                os.sched_setaffinity(0, {processors[rank % len(processors)]})
            if tagger:
                tagger.in_child()
                cast(TextIOWrapper, sys.stdout).reconfigure(line_buffering=True)
            return None
        if tagger:
            tagger.in_parent()
    return _supervise(args, team, meeting, tagger, signals)


def _places(size: int) -> list[Place]:
    """Return the hosts of the laboratory in which this runs, if it is one; after it was checked that the job fits."""
    found = from_environment()
    if found:
        spread(found, size)
    return found


def _endpoint(places: list[Place]) -> str:
    """Return where ranks on several hosts of a laboratory reach this process."""
    address = here(places).address
    with socket.socket() as probe:
        probe.bind((address, 0))
        return f"tcp://{address}:{probe.getsockname()[1]}"


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
    from pycomm.job.supervisor import Supervisor

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


def _be_python(command: list[str], module: bool) -> NoReturn:
    """Run a script or a module as `python` would, and leave with its exit code."""
    sys.argv = command
    if not sys.flags.safe_path:
        sys.path[0] = str(Path.cwd() if module else Path(command[0]).resolve().parent)
    try:
        if module:
            sys.modules.pop("pycomm.__main__", None)  # the launcher's; `-m pycomm` runs it as the ranks' program
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
