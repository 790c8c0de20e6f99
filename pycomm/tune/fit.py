"""Fits the terms of `pycomm.simulator.costs` to measurements, so that simulated times are as the measured ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from ..simulator.costs import NAMES, SHM, TCP, Calibration, Rates
from ..simulator.simulate import Bound

Reals = npt.NDArray[np.float64]

_OUTLIER = 0.15  # log of a ratio, from which on an error counts only in proportion (Huber 1964)
_PRIOR = 1e-3  # weight of a term's staying where it was: holds those that nothing depends on
_STEP = 0.02  # of a term's logarithm, for derivatives
_ENOUGH = 1e-3  # a smaller part of the loss is no progress
_MOST = 30  # rounds
_CROWDED = ("beside", "turn", "swap", "crowd")  # terms that only ranks on a shared processor have


def fit(cases: Sequence[tuple[Bound, float]], processors: int, *, shared: bool) -> dict[str, float]:
    """Return the terms of one transport under which the simulated times are nearest to the measured ones.

    Minimises the squared logarithm of their ratio, robustly, by the method of Levenberg and Marquardt in the logarithms
    of the terms (Nocedal & Wright, Numerical Optimization, 2006, section 10.3).

    Terms that say what it costs to share a processor are fitted last, to the jobs where ranks do: these vary more from
    job to job, and shall not spoil the other terms.

    Args:
        cases: collectives on one host, and the seconds that they took.
        processors: of the host.
        shared: whether messages went through its memory; else through sockets.
    """
    terms = asdict(SHM if shared else TCP)
    roomy = [case for case in cases if case[0].topology.size <= processors]
    crowded = [case for case in cases if case[0].topology.size > processors]
    if roomy:
        terms |= _fit(roomy, [name for name in NAMES if name not in _CROWDED], terms, processors, shared)
    if crowded:
        terms |= _fit(crowded, _CROWDED if roomy else NAMES, terms, processors, shared)
    return terms


def _fit(
    cases: Sequence[tuple[Bound, float]], free: Sequence[str], terms: dict[str, float], processors: int, shared: bool
) -> dict[str, float]:
    """Return the terms that are free, from where the others are."""
    measured = np.log(np.array([seconds for _, seconds in cases]))

    def named(logs: Reals) -> dict[str, float]:
        return dict(zip(free, np.exp(logs).tolist(), strict=True))

    def error(logs: Reals) -> Reals:
        rates = Rates(**{**terms, **named(logs)})
        costs = Calibration(rates, rates, shared, (processors,))
        off: Reals = np.log(np.array([bound.called(costs) for bound, _ in cases])) - measured
        return off

    return named(_least(error, np.log(np.array([terms[name] for name in free]))))


def _least(error: Callable[[Reals], Reals], start: Reals) -> Reals:
    at: Reals = start.copy()
    damping = 0.1
    now = error(at)
    loss = _loss(now, at - start)
    for _ in range(_MOST):
        slopes = np.stack([(error(at + _STEP * unit) - now) / _STEP for unit in np.eye(len(at))], axis=1)
        weight = 1 / np.maximum(1, np.abs(now) / _OUTLIER)
        curvature = slopes.T @ (weight[:, None] * slopes) + _PRIOR * np.eye(len(at))
        gradient = slopes.T @ (weight * now) + _PRIOR * (at - start)
        for _ in range(6):
            step = -np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), gradient)
            there: Reals = at + np.clip(step, -1.5, 1.5)
            then = error(there)
            if _loss(then, there - start) < loss:
                break
            damping *= 4
        else:
            return at
        before, loss = loss, _loss(then, there - start)
        at, now, damping = there, then, max(damping / 6, 1e-6)
        if before - loss < _ENOUGH * before:
            return at
    return at


def _loss(error: Reals, moved: Reals) -> float:
    size: Reals = np.abs(error)
    robust: Reals = np.where(size < _OUTLIER, size**2, 2 * _OUTLIER * size - _OUTLIER**2)
    return float(np.sum(robust)) + _PRIOR * float(np.sum(moved**2))
