"""Runs functions or commands as the ranks of a job on this host, for programs and tests: `spawn` and `run_ranks`."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from pycomm.errors import Aborted, DeadlineExceeded, InvalidArgument, PeerLost
from pycomm.job import host
from pycomm.job.processes import Team


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
    from pycomm.job.supervisor import Meeting, Supervisor

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
                for other in {*results} - {results[rank]}:  # of many ranks, most of what a process may have open
                    os.close(other)
                os.environ.update(env or {})
                exit_with(partial(_be_rank, rank, program, args, results[rank]))
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


def exit_with(body: Callable[[], int]) -> NoReturn:
    """End a forked process with what a function returns, without going back into what the parent was doing."""
    code = 1
    try:
        code = body()
    except SystemExit as leaving:
        code = _exit_code(leaving)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _be_rank(rank: int, program: Callable[..., object] | Sequence[str], args: tuple[object, ...], result: int) -> int:
    if not callable(program):
        execute([*program, *map(str, args)])
    # A rank that is terminated because it hangs shows where.
    faulthandler.register(signal.SIGTERM, file=2, all_threads=True, chain=True)
    return _call(rank, program, args, result)


def _call(rank: int, function: Callable[..., object], args: tuple[object, ...], result: int) -> int:
    from pycomm.job.rendezvous import close_all
    from pycomm.world import close_all as close_worlds

    code, value, error = 0, None, None
    pid = os.getpid()
    try:
        value = function(*args)
    except SystemExit as leaving:
        code = _exit_code(leaving)
    except BaseException as raised:
        code, error = 1, raised
        error.add_note(f"raised in rank {rank}:\n{traceback.format_exc().rstrip()}")
        sys.last_value = error
    if os.getpid() == pid:  # and not a fork that has run on into here
        os.write(result, _pickled(value, error))
        close_worlds()
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


def execute(command: list[str]) -> NoReturn:
    """Become the executable of this command."""
    # Python ignores these, and what is ignored stays so in the new program.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execvp(command[0], command)


def _exit_code(leaving: SystemExit) -> int:
    """Return the exit code that Python makes of SystemExit's argument, printing it if it is a message."""
    if leaving.code is None or isinstance(leaving.code, int):
        return (leaving.code or 0) & 0xFF
    print(leaving.code, file=sys.stderr)
    return 1
