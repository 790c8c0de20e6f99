"""Trying before settling: first calls run the best candidates in turn, then all ranks keep the fastest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..selection.candidates import Choice
from ..selection.machine import Machine
from ..selection.select import Candidate, Selector
from ..selection.table import Residual

Times = npt.NDArray[np.float64]

CANDIDATES = 3  # that are tried, of which the model's first
REPEATS = 6  # timed calls of each; the call before them connects and binds, and is not timed
_MARGIN = 0.02  # by less than this part of its time, none is better than the one that the model puts first


class Trial:
    """The calls of one collective and size until the ranks settle.

    Every rank makes the same calls, so that all of them come to the same candidate, and to the end, at the same one.

    Attributes:
        times: seconds of each timed call on this rank; shape (candidates, REPEATS).
    """

    def __init__(self, ranked: list[Candidate]) -> None:
        self._ranked = ranked
        self._made = 0
        self.times: Times = np.zeros((len(ranked), REPEATS))

    @property
    def choice(self) -> Choice | None:
        """How the next call is run; None: all have been made."""
        place = self._made % len(self._ranked)
        return self._ranked[place].choice if self._made < len(self._ranked) * (REPEATS + 1) else None

    def note(self, seconds: float) -> None:
        """Take the time of the call that was just made."""
        repeat, place = divmod(self._made, len(self._ranked))
        if repeat:
            self.times[place, repeat - 1] = seconds
        self._made += 1

    def fastest(self, slowest: Times) -> Choice:
        """Return the one to keep, the same on all ranks if `slowest` is: the times of each call's slowest rank."""
        medians = np.median(slowest, axis=1)
        best = int(np.argmin(medians))
        return self._ranked[best if medians[best] < (1 - _MARGIN) * medians[0] else 0].choice

    def residuals(self, slowest: Times, collective: str, nbytes: int, machine: Machine) -> list[Residual]:
        """Return what the model was off for each candidate."""
        found = []
        for (choice, seconds, factor), taken in zip(self._ranked, np.median(slowest, axis=1), strict=True):
            model = seconds / factor
            if model > 0 and nbytes > 0:
                key = collective, choice.algorithm, machine.transport, machine.size, nbytes
                found.append(Residual(*key, float(taken / model), 1))
        return found


class Trials:
    """All trials of a communicator, and what came out.

    Attributes:
        learnt: residuals.
    """

    def __init__(self, selector: Selector, machine: Machine) -> None:
        self._selector, self._machine = selector, machine
        self._trials: dict[tuple[str, int], Trial] = {}
        self._settled: dict[tuple[str, int], Choice] = {}
        self.learnt: list[Residual] = []

    def of(self, collective: str, nbytes: int) -> Trial | None:
        """Return the trial of such calls, or None if they are settled: all ranks know the same."""
        key = collective, nbytes
        if key in self._settled:
            return None
        if key not in self._trials:
            asked = self._selector.asked_for(collective, nbytes)
            ranked = [] if asked else self._selector.ranked(collective, nbytes)
            if len(ranked) < 2:
                return None
            self._trials[key] = Trial(ranked[:CANDIDATES])
        return self._trials[key]

    def settle(self, collective: str, nbytes: int, slowest: Times) -> None:
        """End a trial with the times of the slowest ranks."""
        trial = self._trials.pop((collective, nbytes))
        self._settled[collective, nbytes] = trial.fastest(slowest)
        self.learnt += trial.residuals(slowest, collective, nbytes, self._machine)

    def settled(self, collective: str, nbytes: int) -> Choice | None:
        """Return what calls have settled on, if they have."""
        return self._settled.get((collective, nbytes))
