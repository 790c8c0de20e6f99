"""Direct: everybody talks to everybody, in one round. Fastest where all peers are equally near, as in shared memory."""

from __future__ import annotations

from functools import cache, partial
from itertools import accumulate

from pycomm.errors import InvalidArgument
from pycomm.schedules.registry import Algorithm, add_family, algorithm
from pycomm.schedules.view import View, Writer

_WAVES = 16  # of a vector in unequal shards: 1/16 of the time is spent on the first one and the last one
CITE = "Chan et al., Concurrency Computat.: Pract. Exper. 19 (2007), direct exchange"


@algorithm("allgather", name="direct", cite=CITE)
def allgather(v: View) -> None:
    """Send the own block to everybody: one round, (p-1)/p n bytes a rank."""
    with v.round():
        for k in range(1, v.size):
            v.send(v.rank, to=v.rank + k)
        for k in range(1, v.size):
            v.recv(v.rank - k, frm=v.rank - k)


@algorithm("reduce_scatter", name="direct", cite=CITE)
def reduce_scatter(v: View) -> None:
    """Send each rank its block, and add up the own one: the reversal of the all-gather."""
    v.backwards(lambda: allgather(v))


def two_shot(v: View) -> None:
    """Direct reduce-scatter, then direct all-gather: two rounds, 2(p-1)/p n bytes a rank."""
    reduce_scatter(v)
    allgather(v)


@cache
def _two_shot_in_shares(*told: str) -> Algorithm:
    """Return the two-shot in which rank i adds up told[i] parts: it then sends and receives n (1 + (p-2) w_i) bytes.

    With the shares of `pycomm.selection.network.shares` ranks of unequal bandwidth end together. A rank that owns
    little sends most in the one shot and receives most in the other; so the vector goes in waves, and a wave is
    gathered while the next one is scattered:

        scatter    0   1   2   3
        gather         0   1   2   3
    """
    name = f"two_shot({', '.join(told)})"
    if not all(number.isdigit() for number in told) or not any(map(int, told)):
        raise InvalidArgument(f"{name}: the shares are whole numbers, not all of them 0")
    ends = list(accumulate(map(int, told)))

    def wave(v: View, number: int) -> View:
        first = number * ends[-1]
        return v.sub(
            range(v.size), [range(first + end - int(n), first + end) for n, end in zip(told, ends, strict=True)]
        )

    def write(v: View) -> None:
        if v.size != len(told):
            raise InvalidArgument(f"{name} has {len(told)} shares and is asked for on {v.size} ranks")
        waves = [wave(v, number) for number in range(_WAVES)]
        scatter: list[Writer] = [*(partial(reduce_scatter, each) for each in waves), _nothing]
        gather: list[Writer] = [_nothing, *(partial(allgather, each) for each in waves)]
        for parts in zip(scatter, gather, strict=True):
            v.together(*parts)

    about = "Direct reduce-scatter and all-gather in unequal shards, in waves."
    return Algorithm(name, "allreduce", write, _WAVES * ends[-1], about, CITE)


def _nothing() -> None:
    """Write no round."""


add_family(
    Algorithm("two_shot", "allreduce", two_shot, "size", (two_shot.__doc__ or "").partition("\n")[0], CITE),
    _two_shot_in_shares,
)


@algorithm("allreduce", name="direct", cite=CITE, most=16)
def allreduce(v: View) -> None:
    """Send everything to everybody and add up in the order of the ranks: one round, (p-1) n bytes a rank."""
    parts = [0 if rank == v.rank else v.temp(like=0) for rank in range(v.size)]
    with v.round():
        for k in range(1, v.size):
            v.send(0, to=v.rank + k)
        for k in range(1, v.size):
            v.recv(parts[v.rank - k], frm=v.rank - k)
    total = parts[0]
    for rank in range(1, v.size):
        with v.round():
            if rank == v.rank:
                v.combine(total, 0)
                total = 0
            else:
                v.combine(parts[rank], total)


@algorithm("broadcast", name="direct", cite=CITE)
def broadcast(v: View) -> None:
    """The root sends to everybody: one round, (p-1) n bytes from the root."""
    with v.round():
        if v.rank != v.root:
            v.recv(0, frm=v.root)
        else:
            for k in range(1, v.size):
                v.send(0, to=v.root + k)


@algorithm("reduce", name="direct", cite=CITE)
def reduce(v: View) -> None:
    """Everybody sends to the root: the reversal of the broadcast."""
    v.backwards(lambda: broadcast(v))


@algorithm("scatter", name="direct", cite=CITE, uneven=True)
def scatter(v: View) -> None:
    """The root sends each rank its block: one round, (p-1)/p n bytes from the root."""
    with v.round():
        if v.rank != v.root:
            v.recv(v.rank, frm=v.root)
        else:
            for k in range(1, v.size):
                v.send(v.root + k, to=v.root + k)


@algorithm("gather", name="direct", cite=CITE, uneven=True)
def gather(v: View) -> None:
    """Everybody sends its block to the root: the reversal of the scatter."""
    v.backwards(lambda: scatter(v), reducing=False)


@algorithm("alltoall", name="direct", cite=CITE, uneven=True)
def alltoall(v: View) -> None:
    """Send each rank its chunk: one round, (p-1)/p n bytes a rank."""
    with v.round():
        for k in range(1, v.size):
            v.send((v.rank, v.rank + k), to=v.rank + k)
        for k in range(1, v.size):
            v.recv((v.rank - k, v.rank), frm=v.rank - k)


@algorithm("barrier", name="direct", cite=CITE)
def barrier(v: View) -> None:
    """Tell everybody and hear everybody: one round, p-1 messages a rank."""
    with v.round():
        for k in range(1, v.size):
            v.send(0, to=v.rank + k)
        for k in range(1, v.size):
            v.reduce(0, frm=v.rank - k)
