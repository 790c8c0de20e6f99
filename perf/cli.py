"""The command `pycomm perf`: nccl-tests' flags, except that -n is the number of ranks to launch."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from pycomm.errors import InvalidArgument, LaunchError
from pycomm.job.environment import Placement, recognise
from pycomm.lab import Model, load
from pycomm.lab.machine import topology
from pycomm.lab.session import session as in_laboratory

from . import machine, plot, report, session
from .adapters import join
from .cases import CASES, find
from .coordinator import Effort, cooperate
from .inputs import DTYPES, OPS
from .rivals import RIVALS
from .sizes import parse_size, sweep
from .worker import Server

_AVERAGES = ("rank0", "mean", "min", "max")

# Which library, beside pycomm, the ranks of a job can join, by what launched it.
_JOINS = {"torchrun": "gloo", **dict.fromkeys(("openmpi", "pmix", "pmi", "slurm", "pals"), "mpi")}


def register(subparsers: Any) -> None:
    """Add `perf` to the subcommands of an argparse parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "perf",
        help="measure collectives, alone or side by side with gloo and MPIs",
        description="Measure collectives with nccl-tests' flags and columns; the time column is the median. "
        "Within a job (mpiexec, torchrun, pycomm run) its ranks measure together; otherwise ranks are launched.",
    )
    add = parser.add_argument
    add("collectives", nargs="+", metavar="COLLECTIVE", help=f"{', '.join(CASES)}, or all")
    add("-b", "--minbytes", default="8", metavar="SIZE", help="smallest size, such as 8, 64K, 1G (default 8)")
    add("-e", "--maxbytes", default="64M", metavar="SIZE", help="largest size (default 64M)")
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument("-f", "--stepfactor", type=int, metavar="N", help="multiply sizes by this (default 2)")
    steps.add_argument("-i", "--stepbytes", metavar="SIZE", help="add this to sizes instead")
    add("-n", "--ranks", type=int, metavar="N", help="ranks to launch (default: one a core, at least 2)")
    add("--iters", type=int, metavar="N", help="measured calls a size (default: as many as fit into --seconds)")
    add("--seconds", type=float, default=0.5, metavar="S", help="time a size, library and form (default 0.5)")
    add("-w", "--warmup_iters", type=int, default=2, metavar="N", help="unmeasured calls before (default 2)")
    add("-a", "--average", type=int, default=1, choices=range(4), help="ranks' times: 0 rank 0, 1 mean, 2 min, 3 max")
    add("-d", "--datatype", default="float", help=f"{', '.join(DTYPES)}, or all (default float)")
    add("-o", "--op", default="sum", help=f"{', '.join(OPS)}, or all (default sum)")
    add("-r", "--root", default="0", help="root rank, or all (default 0)")
    add("-c", "--check", type=int, default=1, choices=(0, 1), help="count wrong elements at every size (default 1)")
    add(
        "-I", "--per_iter_timing", action="store_true", help="add columns: fastest, slowest, 99th percentile, variation"
    )
    add("--overlap", action="store_true", help="start the calls, and add columns: what computing as long hides of them")
    add("-T", "--timeout", type=float, default=120.0, metavar="S", help="seconds to wait for any answer (default 120)")
    add("-J", "--output_file", type=Path, metavar="FILE", help="write everything as JSON")
    add("--vs", default="", metavar="LIBRARIES", help=f"compare with, by commas: {', '.join(RIVALS)}, mpi, or all")
    add("--lab", type=Path, metavar="FILE", help="launch the ranks on the hosts of this laboratory (docs/lab.md)")
    add("--transport", metavar="NAMES", help="pycomm's transports, such as shm, tcp or shm,tcp")
    add("--algorithm", metavar="NAME", help="pycomm's algorithm, instead of the one that it would choose")
    add("--slices", type=int, metavar="N", help="pycomm's slices, instead of the number that it would choose")
    add("--plot", type=Path, metavar="FILE", help="draw time and bandwidth against size (png, svg or pdf)")
    add("--markdown", action="store_true", help="end with a table of the ratios in markdown")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure as asked, in a laboratory if one is given: 0, or 1 if a result was wrong or pycomm failed.

    Raises:
        InvalidArgument: the request makes no sense.
        LaunchError: this is a rank of a job, but the job's environment is broken.
    """
    if not arguments.lab:
        return _measure(arguments, None)
    place = recognise()
    if place.launcher != "none":
        raise InvalidArgument(f"--lab launches ranks, but {place.variable} says that this is one of a job already")
    model = load(arguments.lab)
    return in_laboratory(model, lambda: _measure(arguments, model))


def _measure(arguments: argparse.Namespace, model: Model | None) -> int:
    place = recognise()
    servers = _join_here(arguments, place) if place.launcher != "none" else None
    if model is not None:
        ranks = arguments.ranks or sum(host.ranks or 1 for host in model.hosts)
        request = replace(_request(arguments, ranks), topology=topology(model, ranks))
    elif servers is None:
        request = _request(arguments, arguments.ranks or max(2, machine.cores()))
    else:
        library = next(iter(servers.values())).library
        if library.rank != 0:
            cooperate(servers)
            return 0
        request = _request(arguments, library.size)
    results = session.run(request, _say, servers)
    reference = request.libraries[0]
    if arguments.output_file:
        report.write_json(arguments.output_file, results.rows, results.machine)
    if arguments.plot and results.rows:
        about = results.machine
        plot.save(results.rows, arguments.plot, f"{request.ranks} ranks on {about['cores']} cores of {about['cpu']}")
    if arguments.markdown:
        _say(report.markdown(results.rows, reference) or "# there is nothing to compare: --markdown needs --vs")
    if results.wrong or reference in results.failed or not results.rows:
        _say("# FAILED")
        return 1
    return 0


def _say(line: str) -> None:
    print(line.rstrip(), flush=True)


def _join_here(arguments: argparse.Namespace, place: Placement) -> dict[str, Server]:
    """The libraries that this process, one rank of a running job, can join: pycomm, and the one that launched it."""
    if arguments.ranks is not None:
        raise InvalidArgument(
            f"-n launches ranks, but {place.variable} says that this is one of a job already: leave -n away"
        )
    names = ["pycomm"]
    for name in _names(arguments.vs):
        if name != _JOINS.get(place.launcher):
            raise InvalidArgument(
                f"--vs {name} cannot be joined from a job that {place.launcher} launched, as {place.variable} says: "
                "use mpi under mpiexec, gloo under torchrun"
            )
        names.append(name)
    servers = {name: Server(join(name, **(_own(arguments) if name == "pycomm" else {}))) for name in names}
    for name, server in servers.items():
        library = server.library
        if (library.rank, library.size) != (place.rank, place.size):
            raise LaunchError(
                f"{place.launcher} launched rank {place.rank} of {place.size}, but {library.version} takes it for rank "
                f"{library.rank} of {library.size}: {name} has to be the library that the launcher belongs to"
            )
    return servers


def _own(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"transport": arguments.transport, "algorithm": arguments.algorithm, "slices": arguments.slices}


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    return list(RIVALS) if names == ["all"] else names


def _several(text: str, every: list[str], what: str) -> list[str]:
    if text == "all":
        return every
    if text not in every:
        raise InvalidArgument(f"perf knows no {what} {text!r}: choose from {', '.join(every)}, all")
    return [text]


def _request(arguments: argparse.Namespace, ranks: int) -> session.Request:
    if ranks < 1:
        raise InvalidArgument(f"-n is {ranks}: a job has at least one rank")
    named = [find(name) for name in arguments.collectives] if arguments.collectives != ["all"] else list(CASES.values())
    if arguments.overlap:
        if "sendrecv" in arguments.collectives:
            raise InvalidArgument("--overlap is of collectives: leave sendrecv away")
        named = [case for case in named if case.name != "sendrecv"]
    smallest, largest = parse_size(arguments.minbytes), parse_size(arguments.maxbytes)
    step = parse_size(arguments.stepbytes) if arguments.stepbytes else None
    factor = None if step else 2 if arguments.stepfactor is None else arguments.stepfactor
    effort = Effort(
        warmup=arguments.warmup_iters,
        iterations=arguments.iters,
        seconds=arguments.seconds,
        average=_AVERAGES[arguments.average],
        check=bool(arguments.check),
    )
    iterations = arguments.iters if arguments.iters is not None else f"{effort.least}..{effort.most}"
    return session.Request(
        cases=named,
        sizes=sweep(smallest, largest, factor=factor, step=step),
        ranks=ranks,
        dtypes=_several(arguments.datatype, list(DTYPES), "type"),
        ops=_several(arguments.op, list(OPS), "op"),
        roots=[int(root) for root in _several(arguments.root, [str(rank) for rank in range(ranks)], "root")],
        effort=effort,
        libraries=["pycomm", *_names(arguments.vs)],
        join=_own(arguments),
        per_call=arguments.per_iter_timing,
        overlap=arguments.overlap,
        patience=arguments.timeout,
        header=f"# nThread 1 nGpus 1 minBytes {smallest} maxBytes {largest} step: {step or factor}"
        f"({'bytes' if step else 'factor'}) warmup iters: {effort.warmup} iters: {iterations} agg iters: 1 "
        f"validation: {arguments.check} graph: 0 unalign: 0",
    )
