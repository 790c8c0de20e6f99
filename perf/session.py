"""One invocation of perf: the libraries' jobs started, every collective at every size measured, tables printed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from pycomm import knobs
from pycomm.bound import Bound, bound
from pycomm.errors import InvalidArgument
from pycomm.schedules.contract import CONTRACTS
from pycomm.topology import Topology

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
_BUFFERS = 6  # of the largest size, that a rank holds while it checks a call


@dataclass(frozen=True)
class Request:
    """What to measure.

    Attributes:
        sizes: bytes, as nccl-tests counts them; each is rounded to what the ranks can share.
        roots: roots to measure rooted collectives with.
        libraries: what to measure; the first is the one that the others are compared with.
        join: what pycomm's ranks pass to `adapters.join`: transport, algorithm, slices.
        per_call: print nccl-tests' -I columns.
        overlap: measure what computing hides, too.
        patience: seconds that starting, or any one round of a cell, may take.
        header: the line of parameters that nccl-tests prints.
        topology: the machine whose links bound the times; None: what this machine's memory or loopback allows does.
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
    overlap: bool = False
    topology: Topology | None = None


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
    session = _Session(request, say)
    warning = machine.busy() if servers is None else None
    with contextlib.ExitStack() as stack:
        if servers is None:
            session.launch(stack.enter_context(Switchboard()))
        else:
            session.cooperate(servers)
        stack.enter_context(closing(session.jobs))
        session.results.machine = machine.describe({job.name: job.version for job in session.jobs})
        if warning:
            say(f"# WARNING: {warning}")
        if session.jobs:
            session.check_memory()
            session.find_limit()
            for case in request.cases:
                session.measure(case)
            if len(request.cases) > 1:
                session.conclude()
    return session.results


class _Session:
    """What the steps of one invocation share."""

    def __init__(self, request: Request, say: Say) -> None:
        self.request, self.say = request, say
        self.jobs: list[Job] = []
        self.results = Results()
        self._reference = request.libraries[0]
        self._over_sockets = (request.join.get("transport") or ",".join(knobs.TRANSPORTS.value())) == "tcp"
        self._rate = 0.0
        self._binds = "ranks are on several hosts, and what binds between them is not measured"
        self._introduced = False

    def launch(self, board: Switchboard) -> None:
        """Start every library that is installed; say which are not, and which did not start."""
        found, lines = rivals.choose(self.request.libraries)
        for line in lines:
            self.say(f"# {line}")
        for rival, place in found:
            own = self.request.join if rival.name == "pycomm" else {}
            try:
                self.jobs.append(LaunchedJob(board, rival, place, self.request.ranks, self.request.patience, own))
            except Exception as error:
                self._give_up(rival.name, error)

    def cooperate(self, servers: dict[str, Server]) -> None:
        """Use the libraries that this process has joined."""
        control = next(iter(servers.values())).library
        self.jobs += [CooperatingJob(control, server) for server in servers.values()]

    def check_memory(self) -> None:
        """Refuse, before measuring, sizes whose buffers do not fit for all ranks of all libraries at once."""
        largest, available = max(self.request.sizes), machine.available_memory()
        needed = _BUFFERS * largest * self.request.ranks * len(self.jobs)
        if needed > available:
            raise InvalidArgument(
                f"{format_size(largest)} needs {needed >> 20} MiB over {self.request.ranks} ranks of {len(self.jobs)} "
                f"libraries, and {available >> 20} MiB are free: lower -e, -n, or the number of libraries"
            )

    def find_limit(self) -> None:
        """Measure what bounds this run, in bytes a second; 0 where nothing can be said (ranks on several hosts)."""
        if self.request.topology:
            self.say(f"# Limit: what the links of {self.request.topology.name} allow any schedule (docs/bound.md)")
            return
        if len({host for _, host in self.jobs[0].hosts}) > 1:
            return
        request = {"do": "socket" if self._over_sockets else "memory"}
        self._rate = max(sum(reply["rate"] for reply in self.jobs[0].ask(request)) for _ in range(_LIMIT_TRIES))
        if self._over_sockets:
            self._rate /= self.request.ranks
        self._binds = limit.binds(self._rate, self._over_sockets)
        self.say(f"# Limit: {self._binds}")
        self.results.machine["limit"], self.results.machine["limit_gbs"] = self._binds, self._rate / 1e9

    def measure(self, case: Case) -> None:
        """One collective's table, from its header to its ratios."""
        self._say_header(case)
        rows: list[Row] = []
        refusals: dict[str, None] = {}
        for cell in _progress(list(self._cells(case)), case.name):
            samples = {cell: measure(list(self.jobs), cell, self.request.effort, self._drop)}
            if case.input_at is not None:
                in_place = replace(cell, in_place=True)
                samples[in_place] = measure(list(self.jobs), in_place, self.request.effort, self._drop)
            for job in self.jobs:
                pair: dict[bool, Row] = {}
                for form, by_name in samples.items():
                    sample = by_name.get(job.name, Sample())
                    if sample.unsupported:
                        refusals[f"{job.name}: {sample.unsupported}"] = None
                    elif sample.times:
                        pair[form.in_place] = self._row(case, job.name, form, sample)
                if pair:
                    rows += pair.values()
                    columns = (case.reduces, case.rooted, self.request.per_call, self.request.overlap)
                    self.say(report.table_row(pair.get(False), pair.get(True), *columns))
        for refusal in refusals:
            self.say(f"# {refusal}")
        self.results.rows += rows
        for line in report.footer(case.program, rows, self._reference):
            self.say(line)
        binds = self._binds if case.moves_data else "latency binds, which has no measured limit"
        if rows and (best := self._bound(case, max(row.bytes for row in rows), rows[0].root)):
            binds = best.sentence
        self.say(report.possible_line(rows, self._reference, binds))
        for line in report.ratio_lines(rows, self._reference) + report.verdict_lines(rows, self._reference):
            self.say(line)
        self.say("#")

    def conclude(self) -> None:
        """The verdicts over all collectives."""
        lines = report.verdict_lines(self.results.rows, self._reference)
        for line in ["# Over everything:", *lines] if lines else []:
            self.say(line)

    def _say_header(self, case: Case) -> None:
        self.say(f"# Collective test starting: {case.program}")
        self.say(self.request.header)
        self.say("#")
        if not self._introduced:
            self.say("# Using devices")
            for group, job in enumerate(self.jobs):
                for rank, (pid, host) in enumerate(job.hosts):
                    place = f"Rank {rank:2d} Group {group:2d} Pid {pid:6d} on {host:>10} device {rank:2d}"
                    self.say(f"#  {place} [cpu] {job.version}")
            self._introduced = True
        for line in report.header(self.request.per_call, self.request.overlap):
            self.say(line)

    def _bound(self, case: Case, nbytes: int, root: int) -> Bound | None:
        """What no schedule can beat on the described machine; None where that is not known."""
        if not self.request.topology or case.name not in CONTRACTS:
            return None
        return bound(case.name, self.request.topology, nbytes, root)

    def _drop(self, job: Job, error: Exception) -> None:
        self.jobs.remove(job)
        with contextlib.suppress(Exception):
            job.close()
        self._give_up(job.name, error)

    def _give_up(self, name: str, error: Exception) -> None:
        self.results.failed.append(name)
        for line in f"FAILED: {name} is left out from here on: {error}".splitlines():
            self.say(f"# {line}")

    def _cells(self, case: Case) -> Iterator[Cell]:
        """What to measure of a collective, out of place; sizes that round to the same count once."""
        request = self.request
        memory = machine.available_memory() // 3 // (len(self.jobs) * request.ranks)
        for dtype in request.dtypes:
            itemsize = dtype_of(dtype).itemsize
            counts = dict.fromkeys(case.count(nbytes, itemsize, request.ranks) for nbytes in request.sizes)
            for op in request.ops if case.reduces else request.ops[:1]:
                for root in request.roots if case.rooted else request.roots[:1]:
                    for count in counts:
                        yield Cell(case.name, count, dtype, op, root, False, memory, request.overlap)

    def _row(self, case: Case, library: str, cell: Cell, sample: Sample) -> Row:
        request, itemsize = self.request, dtype_of(cell.dtype).itemsize
        least = None
        if not cell.in_place and request.topology:
            best = self._bound(case, case.nbytes(cell.count, itemsize, request.ranks), cell.root)
            least = best.seconds if best else None
        elif not cell.in_place and self._rate:
            least = limit.least_bytes(case, cell.count, itemsize, request.ranks, self._over_sockets) / self._rate
        ours = library == "pycomm"
        return make_row(
            sample,
            case,
            case.nbytes(cell.count, itemsize, request.ranks),
            request.ranks,
            least,
            library=library,
            transport=(request.join.get("transport") or "auto") if ours else None,
            algorithm=(request.join.get("algorithm") or "auto") if ours else None,
            count=cell.count,
            dtype=cell.dtype,
            op=cell.op,
            root=cell.root,
            in_place=cell.in_place,
        )


def _progress(cells: list[Cell], name: str) -> Iterator[Cell]:
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
        for cell in cells:
            bar.update(task, description=f"{name} {cell.count} {cell.dtype}")
            yield cell
            bar.advance(task)
