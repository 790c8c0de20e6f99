"""One invocation of perf: the libraries' jobs started, every collective at every size measured, tables printed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from . import limit, machine, report, rivals
from .bench import Cell
from .cases import Case
from .coordinator import CooperatingJob, Effort, Job, LaunchedJob, Sample, Switchboard, closing, measure
from .inputs import dtype_of
from .results import Row, make_row
from .sizes import format_size
from .worker import Server

Say = Callable[[str], None]

_LIMIT_TRIES = 3


@dataclass(frozen=True)
class Request:
    """What to measure.

    Attributes:
        sizes: bytes, as nccl-tests counts them; each is rounded to what the ranks can share.
        roots: roots to measure rooted collectives with.
        libraries: what to measure; the first is the one that the others are compared with.
        join: what pycomm's ranks pass to `adapters.join`: transport, algorithm, slices.
        per_call: print nccl-tests' -I columns.
        patience: seconds that starting, or any one round of a cell, may take.
        header: the line of parameters that nccl-tests prints.
    """

    cases: list[Case]
    sizes: list[int]
    ranks: int
    dtypes: list[str]
    ops: list[str]
    roots: list[int]
    effort: Effort
    libraries: list[str]
    join: dict[str, Any]
    per_call: bool
    patience: float
    header: str


@dataclass
class Results:
    """What came out: the rows, what they were measured on, and which libraries failed on the way."""

    rows: list[Row] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """Wrong elements over everything that was checked."""
        return sum(row.wrong or 0 for row in self.rows)


def run(request: Request, say: Say, servers: dict[str, Server] | None = None) -> Results:
    """Measure, printing as it goes.

    Args:
        request: what to measure.
        say: prints one line.
        servers: the libraries that this process, as rank 0 of a running job, has joined already; None launches jobs.

    Raises:
        InvalidArgument: a library has no such name, or the buffers do not fit into memory.
    """
    results = Results()
    warning = machine.busy() if servers is None else None
    with contextlib.ExitStack() as stack:
        if servers is None:
            jobs = _launch(request, stack.enter_context(Switchboard()), say, results)
        else:
            control = next(iter(servers.values())).library
            jobs = [CooperatingJob(control, server) for server in servers.values()]
        stack.enter_context(closing(jobs))
        results.machine = machine.describe({job.name: job.version for job in jobs})
        if warning:
            say(f"# WARNING: {warning}")
        if not jobs:
            return results
        medium, rate = _limit(request, jobs, say, results)
        for case in request.cases:
            _run_case(request, case, jobs, medium, rate, say, results)
        if len(request.cases) > 1:
            say("# Over everything:")
            for line in report.verdict_lines(results.rows, request.libraries[0]):
                say(line)
    return results


def _launch(request: Request, board: Switchboard, say: Say, results: Results) -> list[Job]:
    found, lines = rivals.choose(request.libraries)
    for line in lines:
        say(f"# {line}")
    jobs: list[Job] = []
    for rival, place in found:
        own = request.join if rival.name == "pycomm" else {}
        try:
            jobs.append(LaunchedJob(board, rival, place, request.ranks, request.patience, own))
        except Exception as error:
            _give_up(rival.name, error, say, results)
    return jobs


def _give_up(name: str, error: Exception, say: Say, results: Results) -> None:
    results.failed.append(name)
    for line in f"FAILED: {name} is left out from here on: {error}".splitlines():
        say(f"# {line}")


def _limit(request: Request, jobs: list[Job], say: Say, results: Results) -> tuple[str, float]:
    """The medium that bounds this run and its bytes a second; 0 where nothing can be said (ranks on several hosts)."""
    if len({host for _, host in jobs[0].hosts}) > 1:
        return "memory", 0.0
    medium = "socket" if request.join.get("transport") == "tcp" else "memory"
    rate = max(sum(reply["rate"] for reply in jobs[0].ask({"do": medium})) for _ in range(_LIMIT_TRIES))
    meaning = "read and written by all ranks copying at once"
    if medium == "socket":
        rate /= request.ranks
        meaning = "sent by each rank, while all send and receive over loopback sockets"
    say(f"# Limit: {rate / 1e9:.1f} GB/s {meaning}")
    results.machine["limit"] = {"medium": medium, "gbs": rate / 1e9}
    return medium, rate


def _run_case(
    request: Request, case: Case, jobs: list[Job], medium: str, rate: float, say: Say, results: Results
) -> None:
    say(f"# Collective test starting: {case.program}")
    say(request.header)
    say("#")
    if case is request.cases[0]:
        say("# Using devices")
        for group, job in enumerate(jobs):
            for rank, (pid, host) in enumerate(job.hosts):
                place = f"Rank {rank:2d} Group {group:2d} Pid {pid:6d} on {host:>10} device {rank:2d}"
                say(f"#  {place} [cpu] {job.version}")
    for line in report.header(request.per_call):
        say(line)
    rows: list[Row] = []
    refusals: dict[str, None] = {}
    cells = list(_cells(request, case, len(jobs)))
    for cell, itemsize in _progress(cells, case.name):
        samples: dict[bool, dict[str, Sample]] = {}
        for in_place in (False, True) if case.input_at is not None else (False,):

            def failed(job: Job, error: Exception) -> None:
                jobs.remove(job)
                with contextlib.suppress(Exception):
                    job.close()
                _give_up(job.name, error, say, results)

            samples[in_place] = measure(list(jobs), _in_place(cell, in_place), request.effort, failed)
        for job in jobs:
            pair: dict[bool, Row] = {}
            for in_place, by_name in samples.items():
                sample = by_name.get(job.name)
                if sample is not None and sample.unsupported:
                    refusals[f"{job.name}: {sample.unsupported}"] = None
                elif sample is not None and sample.times:
                    pair[in_place] = _row(request, case, job, cell, itemsize, in_place, sample, medium, rate)
            if pair:
                rows += pair.values()
                say(report.table_row(pair.get(False), pair.get(True), case.reduces, case.rooted, request.per_call))
    for refusal in refusals:
        say(f"# {refusal}")
    results.rows += rows
    for line in report.footer(case.program, rows, request.libraries[0]):
        say(line)
    for line in report.ratio_lines(rows, request.libraries[0]) + report.verdict_lines(rows, request.libraries[0]):
        say(line)
    say("#")


def _in_place(cell: Cell, in_place: bool) -> Cell:
    return Cell(**{**cell.__dict__, "in_place": in_place})


def _row(
    request: Request,
    case: Case,
    job: Job,
    cell: Cell,
    itemsize: int,
    in_place: bool,
    sample: Sample,
    medium: str,
    rate: float,
) -> Row:
    least = None if in_place else limit.least_seconds(case, cell.count, itemsize, request.ranks, medium, rate)
    ours = job.name == "pycomm"
    return make_row(
        sample,
        case,
        case.nbytes(cell.count, itemsize, request.ranks),
        request.ranks,
        least,
        library=job.name,
        transport=(request.join.get("transport") or "auto") if ours else None,
        algorithm=(request.join.get("algorithm") or "auto") if ours else None,
        count=cell.count,
        dtype=cell.dtype,
        op=cell.op,
        root=cell.root,
        in_place=in_place,
    )


def _cells(request: Request, case: Case, jobs: int) -> Iterator[tuple[Cell, int]]:
    """What to measure of one collective, out of place; sizes that round to the same count once."""
    memory = machine.available_memory() // 3 // max(1, jobs * request.ranks)
    for dtype in request.dtypes:
        itemsize = dtype_of(dtype).itemsize
        counts = dict.fromkeys(case.count(nbytes, itemsize, request.ranks) for nbytes in request.sizes)
        for op in request.ops if case.reduces else request.ops[:1]:
            for root in request.roots if case.rooted else request.roots[:1]:
                for count in counts if case.moves_data else [0]:
                    yield Cell(case.name, count, dtype, op, root, False, memory), itemsize


def _progress(cells: list[tuple[Cell, int]], name: str) -> Iterator[tuple[Cell, int]]:
    """The cells, with a bar on a terminal's standard error while they are measured, if rich is installed."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield from cells
        return
    console = Console(stderr=True)
    if not (console.is_terminal and sys.stderr.isatty()):
        yield from cells
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(name, total=len(cells))
        for cell, itemsize in cells:
            bar.update(task, description=f"{name} {format_size(cell.count * itemsize)}")
            yield cell, itemsize
            bar.advance(task)
