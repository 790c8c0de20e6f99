"""Which algorithm a call uses, and in how many slices: the cheapest by the model, of what all ranks know alike."""

from __future__ import annotations

import functools
import math
import threading
from typing import NamedTuple, Protocol

from .. import knobs
from ..errors import InvalidArgument
from ..schedules.registry import has, known
from ..schedules.view import leaves
from .candidates import Choice, algorithms, candidates, window_of
from .machine import OFFLOAD, Machine
from .table import Override

_STEPS = 4  # an octave; sizes in a step share their choice, so that few are ever priced
_MOST_SELECTORS = 64
_MANY, _PROMISING = 16, 3  # candidates, beyond which slicings are tried of so many algorithms only
_EXACT = 64  # bytes up to which each size is a step of its own
_WORTH = (
    0.9  # of our time: what MPI's own collective must not exceed to be taken, for it can be neither verified nor ended
)
_UNEVEN = 1 << 16  # bytes a rank: for what is chosen where ranks do not know each other's lengths


class Bounded(Protocol):
    """What no schedule can beat, see `pycomm.bound.Bound`."""

    @property
    def seconds(self) -> float:
        """The time."""
        ...

    @property
    def sentence(self) -> str:
        """What binds."""
        ...


class Model(Protocol):
    """Prices ways to run calls on one machine; a pure function."""

    def seconds(self, collective: str, choice: Choice, nbytes: int) -> float:
        """Return what a call should take."""
        ...

    def least(self, collective: str, choice: Choice) -> float:
        """Return what `seconds` is not below; 0 if nothing is known without it."""
        ...

    def bound(self, collective: str, nbytes: int) -> Bounded | None:
        """Return what no schedule can beat, if that is known."""
        ...


class Candidate(NamedTuple):
    """One way to run a call, priced.

    Attributes:
        choice: the way.
        seconds: what it should take.
        factor: the residual that is in it: what was measured here in the past, over the model's seconds; of MPI's own
            collective, what it takes over what ours takes.
    """

    choice: Choice
    seconds: float
    factor: float


class Selector:
    """Chooses for the communicators of one machine, each kind of call once; `selector_of` gives it.

    All ranks that know the same machine choose alike. Seconds are compared in five digits, so that two processors that
    round differently do not tell a tie apart; ties go by the name, then the fewest slices.

    Args:
        machine: what all ranks know.
        model: prices the ways; None: a `pycomm.selection.predict.Predictor`.
    """

    def __init__(self, machine: Machine, model: Model | None = None) -> None:
        self._machine = machine
        self._given = model
        self._chosen: dict[tuple[str, int, str | None, bool], Choice] = {}
        self._lock = threading.Lock()

    def choose(self, collective: str, nbytes: int, *, uneven: bool = False, offload: bool = True) -> Choice:
        """Return the choice for one call.

        Args:
            collective: e.g. "allreduce".
            nbytes: of the larger of the two buffers of a rank; 0 where counts are uneven, and ranks do not know all.
            uneven: whether blocks may differ in length.
            offload: whether it may be left to MPI.

        Raises:
            InvalidArgument: PYCOMM_ALGO names no algorithm of the collective.
        """
        if uneven and not nbytes:
            return Choice(_named(collective) or self._uneven(collective), 1, 1)
        asked = self.asked_for(collective, nbytes)
        offload = offload and not uneven
        if asked and asked.algorithm == OFFLOAD:
            asked = None
        elif asked or not self._native_wins(collective, nbytes):
            offload = False
        if offload:
            return Choice(OFFLOAD, 1, 1)
        step = _step(nbytes)
        known = self._cheapest(collective, step, asked.algorithm if asked else None, uneven)
        slices = known.slices if step == nbytes else max(1, round(known.slices * nbytes / step))
        if asked and asked.slices:
            return Choice(known.algorithm, asked.slices, asked.window or window_of(asked.slices, self._machine))
        return Choice(known.algorithm, slices, (asked and asked.window) or min(slices, known.window))

    def _native_wins(self, collective: str, nbytes: int) -> bool:
        ratio = self._machine.native.ratio(collective, nbytes) if self._machine.native else None
        return ratio is not None and ratio < _WORTH

    @functools.cached_property
    def _model(self) -> Model:
        from .predict import Predictor  # here: a rank that makes no call need not load the simulator

        return self._given or Predictor(self._machine)

    @functools.cached_property
    def passes(self) -> bool:
        """Whether some algorithm leads an uneven all-to-all through other ranks of a host."""
        return len(self._machine.hosts) > 1 and self._told() != algorithms("alltoall", self._machine, uneven=True)

    def choose_passing(self, nbytes: int) -> str:
        """Return the algorithm for an uneven all-to-all in which ranks tell near ones what these pass on.

        Args:
            nbytes: that the rank with the most sends, or receives, as far as all ranks know it alike.
        """
        key = "alltoallv", 1 << nbytes.bit_length(), None, True  # powers of two: what is sent differs from call to call
        with self._lock:
            if key not in self._chosen:
                priced = self._priced("alltoall", key[1], [Choice(name, 1, 1) for name in self._told()])
                others = algorithms("alltoall", self._machine, uneven=True)
                telling = self._telling()
                whole = [
                    one if one.choice.algorithm in others else one._replace(seconds=one.seconds + telling)
                    for one in priced
                ]
                self._chosen[key] = min(whole, key=_order).choice
            return self._chosen[key].algorithm

    def _told(self) -> list[str]:
        return algorithms("alltoall", self._machine, uneven=True, told=True)

    def _telling(self) -> float:
        """Return what it costs to give all counts to all ranks of an outermost group, as `passing` does."""
        near = max(map(leaves, self._machine.groups), key=len)
        among = self._machine.among({rank: place for place, rank in enumerate(near)})
        return selector_of(among)._model.seconds("allgather", Choice("bruck", 1, 1), 8 * self._machine.size * len(near))

    def named(self, collective: str) -> str | None:
        """Return what PYCOMM_ALGO says of a collective."""
        return _named(collective)

    def asked_for(self, collective: str, nbytes: int) -> Override | None:
        """Return what somebody wants for such calls: PYCOMM_ALGO comes before the machine's table."""
        name = _named(collective)
        if name:
            return Override(collective, (1, self._machine.size), (0, nbytes), name)
        return self._machine.table.override(collective, nbytes, self._machine.size)

    def ranked(self, collective: str, nbytes: int, *also: Choice) -> list[Candidate]:
        """Return the candidates for an even call, and those that are given, the fastest first."""
        choices = candidates(collective, nbytes, self._machine)
        ours = dict.fromkeys(choice for choice in (*choices, *also) if choice.algorithm != OFFLOAD)
        found = self._priced(collective, nbytes, list(ours))
        ratio = self._machine.native.ratio(collective, nbytes) if self._machine.native else None
        if ratio is not None:
            own = self.choose(collective, nbytes, offload=False)
            base = next((one.seconds for one in found if one.choice == own), found[0].seconds)
            found.append(Candidate(Choice(OFFLOAD, 1, 1), ratio * base, ratio))
        return sorted(found, key=_order)

    def bound(self, collective: str, nbytes: int) -> Bounded | None:
        """Return what no schedule can beat, if that is known."""
        return self._model.bound(collective, nbytes)

    def _cheapest(self, collective: str, nbytes: int, name: str | None, uneven: bool) -> Choice:
        key = collective, nbytes, name, uneven
        with self._lock:  # ranks that are threads of one process share what one of them has found
            if key not in self._chosen:
                choices = candidates(collective, nbytes, self._machine, name, uneven=uneven)
                alone = len(choices) == 1 or self._machine.size == 1
                if self._machine.network is not None and len(choices) > _MANY:
                    choices = self._promising(collective, nbytes, choices)
                self._chosen[key] = choices[0] if alone else self._first(collective, nbytes, choices)
            return self._chosen[key]

    def _first(self, collective: str, nbytes: int, choices: list[Choice]) -> Choice:
        """Return what `_priced` has first, without pricing what has too many messages for that.

        Of hundreds of ranks those take seconds to price.
        """
        bounds = sorted((self._factor(collective, nbytes, c) * self._model.least(collective, c), c) for c in choices)
        best: list[Candidate] = []
        for bound, choice in bounds:
            if not best or _rounded(bound) <= _rounded(best[0].seconds):
                best = sorted([*best, *self._priced(collective, nbytes, [choice])], key=_order)[:1]
        return best[0].choice

    def _promising(self, collective: str, nbytes: int, choices: list[Choice]) -> list[Choice]:
        """Return those of the algorithms that are fastest in a middle number of slices.

        What shares links takes ten times as long to price as what does not, and a call waits for it.
        """
        counts = sorted({choice.slices for choice in choices})
        middle = [choice for choice in choices if choice.slices == counts[len(counts) // 2]]
        best = {one.choice.algorithm for one in self._priced(collective, nbytes, middle)[:_PROMISING]}
        return [choice for choice in choices if choice.algorithm in best]

    def _uneven(self, collective: str) -> str:
        choices = [Choice(name, 1, 1) for name in algorithms(collective, self._machine, uneven=True)]
        return self._priced(collective, _UNEVEN * self._machine.size, choices)[0].choice.algorithm

    def _priced(self, collective: str, nbytes: int, choices: list[Choice]) -> list[Candidate]:
        found = []
        for choice in choices:
            factor = self._factor(collective, nbytes, choice)
            found.append(Candidate(choice, factor * self._model.seconds(collective, choice, nbytes), factor))
        return sorted(found, key=_order)

    def _factor(self, collective: str, nbytes: int, choice: Choice) -> float:
        machine = self._machine
        return machine.table.factor(collective, choice.algorithm, machine.transport, machine.size, nbytes)


def _order(one: Candidate) -> tuple[float, Choice]:
    return _rounded(one.seconds), one.choice


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.4e}")


_selectors: dict[object, Selector] = {}  # the latest ones, by what all that matters of their machines is


def selector_of(machine: Machine) -> Selector:
    """Return the selector of a machine, the same for all communicators on machines that are alike."""
    places = machine.hosts, machine.groups, machine.processors, machine.shared, machine.network
    key = *places, machine.name, machine.table.digest, machine.native
    found = _selectors.pop(key, None) or Selector(machine)
    _selectors[key] = found
    while len(_selectors) > _MOST_SELECTORS:
        _selectors.pop(next(iter(_selectors)))
    return found


def _step(nbytes: int) -> int:
    """Return the size whose choice a size shares: powers of two, and three between each and the next."""
    if nbytes <= _EXACT:
        return nbytes
    return round(2 ** (round(_STEPS * math.log2(nbytes)) / _STEPS))


def _named(collective: str) -> str | None:
    """Return what PYCOMM_ALGO says of a collective."""
    for which, name in knobs.ALGO.value().names:
        if which and which != collective:
            continue
        if name == OFFLOAD or has(collective, name.partition("(")[0]):  # of one that is made of others, its first word
            return name
        if which:
            raise InvalidArgument(
                f"PYCOMM_ALGO asks for {name}, which is no {collective}: choose from {', '.join(known(collective))}"
            )
    return None
