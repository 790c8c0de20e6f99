"""From measurements to a table: the model's terms are fitted to some, its residuals learnt, and others judge both."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from ..core import VERSION
from ..selection.predict import Predictor
from ..selection.table import Residual, Table, residuals_of
from .fit import fit
from .measure import Measurement
from .plan import HELD_OUT, machine_of

_STEADY = 0.3  # of a measurement's spread, where ranks have the machine to themselves
_MOST_FITTED = 80  # measurements of a transport, spread over all: every term is simulated in each, in every round
_FITTED_SLICES = 16  # more take longer to simulate and say no more
LONG = 1 << 16  # bytes from which on a model is expected to be exact


@dataclass(frozen=True)
class Error:
    """How far predictions were from measurements that they did not know.

    Attributes:
        transport, size: of the jobs; `size` are ranks.
        short, long: mean of |predicted / measured - 1| below 64 KiB, and from there on; None: nothing was measured.
        count: measurements.
    """

    transport: str
    size: int
    short: float | None
    long: float | None
    count: int


def learn(found: Sequence[Measurement], held_out: Collection[int]) -> tuple[Table, list[Error]]:
    """Return a table of what was measured, and how well such a table predicts what it does not know.

    The table that is judged knows nothing of what is held out; the one that is returned has its residuals, too.

    Args:
        found: measurements.
        held_out: numbers of ranks that are not fitted; neither are the sizes of `plan.HELD_OUT`.
    """
    fitted = [one for one in found if one.size not in held_out and one.asked not in HELD_OUT]
    known = steady(fitted) or fitted
    table = Table(machine=facts({one.transport for one in found}), calibration=calibration(known))
    others = [one for one in found if one.size in held_out or one.asked in HELD_OUT]
    off = errors(others, replace(table, residuals=residuals(known, table)))
    return replace(table, residuals=residuals(steady(found) or found, table)), off


def steady(found: Iterable[Measurement]) -> list[Measurement]:
    """Return those that took nearly the same time in all batches: else something else ran on the machine."""
    return [one for one in found if one.spread <= _STEADY]


def calibration(found: Sequence[Measurement]) -> dict[str, dict[str, float]]:
    """Return the terms of each transport that one host's ranks were measured over."""
    terms = {}
    for transport in ("shm", "tcp"):
        own = [one for one in found if one.transport == transport and one.slices <= _FITTED_SLICES]
        own = own[:: max(1, -(-len(own) // _MOST_FITTED))]
        if own:
            machines = {one.size: machine_of(one.size, transport) for one in own}
            models = {size: Predictor(machine) for size, machine in machines.items()}
            cases = [(models[one.size].bind(one.collective, one.choice, one.nbytes), one.seconds) for one in own]
            found_terms = fit(cases, machines[own[0].size].processors[0], shared=transport == "shm")
            terms[transport] = {name: float(f"{value:.4g}") for name, value in found_terms.items()}
    return terms


def residuals(found: Iterable[Measurement], table: Table) -> tuple[Residual, ...]:
    """Return how far a table's calibration is off."""
    singles = []
    for one, seconds in _predicted(found, replace(table, residuals=())):
        key = one.collective, one.algorithm, one.transport, one.size, one.nbytes
        singles.append(Residual(*key, one.seconds / seconds, 1))
    return residuals_of(singles)


def errors(found: Iterable[Measurement], table: Table) -> list[Error]:
    """Return how far a table's predictions are off, by transport and ranks."""
    off: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for one, seconds in _predicted(found, table):
        factor = table.factor(one.collective, one.algorithm, one.transport, one.size, one.nbytes)
        off.setdefault((one.transport, one.size), []).append((one.nbytes, abs(factor * seconds / one.seconds - 1)))
    return [
        Error(
            transport, size, _mean([e for n, e in pairs if n < LONG]), _mean([e for n, e in pairs if n >= LONG]),
            len(pairs),
        )
        for (transport, size), pairs in sorted(off.items())
    ]  # fmt: skip


def _mean(values: list[float]) -> float | None:
    return mean(values) if values else None


def _predicted(found: Iterable[Measurement], table: Table) -> Iterable[tuple[Measurement, float]]:
    """Yield each measurement with the model's seconds."""
    models: dict[tuple[str, int], Predictor] = {}
    for one in found:
        key = one.transport, one.size
        if key not in models:
            models[key] = Predictor(replace(machine_of(one.size, one.transport), table=table))
        yield one, models[key].seconds(one.collective, one.choice, one.nbytes)


def facts(transports: Collection[str]) -> dict[str, object]:
    """Return what a table says of the machine that it was measured on."""
    return {
        "cpu": _cpu(), "processors": len(os.sched_getaffinity(0)), "transports": sorted(transports),
        "pycomm": VERSION, "date": datetime.date.today().isoformat(),
    }  # fmt: skip


def _cpu() -> str:
    """Return the processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
