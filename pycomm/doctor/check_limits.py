"""Judges what ranks may use of their hosts: descriptors, memory, processors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..job.host import OWN_DESCRIPTORS, PEER_DESCRIPTORS
from .facts import Facts, Own, say_ranks
from .findings import Finding, Severity

_SEGMENT = 6 << 20  # bytes of memory that two ranks of a host share, rounded up
_MEMLOCK = 64 << 20  # bytes that a card with queues of its own asks for, at least, so that it can be used at all
_SHM = 64 << 20  # bytes: what a container has of /dev/shm if nobody asks for more


def check_limits(facts: Facts) -> Iterator[Finding]:
    """Yield what is wrong."""
    size = len(facts.owns)
    for ranks in facts.hosts:
        yield from _descriptors(facts, ranks, size)
        yield from _file_size(facts, ranks)
        yield from _memory(facts, ranks)
        yield from _processors(facts, ranks)
        yield from _others(facts, ranks)


def _where(facts: Facts, ranks: Sequence[int], wrong: Callable[[Own], bool]) -> tuple[str, Own] | None:
    """Return which ranks of a host something is wrong with, for people, and what the first of them sees."""
    found = [rank for rank in ranks if wrong(facts.owns[rank])]
    return (f"{say_ranks(found)} on {facts.owns[found[0]].host}", facts.owns[found[0]]) if found else None


def _descriptors(facts: Facts, ranks: Sequence[int], size: int) -> Iterator[Finding]:
    peers = PEER_DESCRIPTORS * size
    wanted = peers + OWN_DESCRIPTORS
    found = _where(facts, ranks, lambda own: own.descriptors is not None and own.descriptors < wanted)
    if found:
        where, own = found
        breaks = own.descriptors is not None and own.descriptors < peers + own.open
        yield Finding(
            Severity.ERROR if breaks else Severity.WARNING,
            f"{where} may open {own.descriptors} files and sockets, {own.open} are open, and peers may take {peers}",
            f"raise the limit to {wanted}: `ulimit -Hn`, nofile in /etc/security/limits.conf, LimitNOFILE of the "
            "service that starts jobs, or --ulimit nofile of the container",
        )


def _file_size(facts: Facts, ranks: Sequence[int]) -> Iterator[Finding]:
    found = _where(facts, ranks, lambda own: own.file_size is not None and own.file_size < _SEGMENT)
    if found and len(ranks) > 1:
        where, own = found
        yield Finding(
            Severity.ERROR,
            f"{where} may write files of {own.file_size} bytes, and memory that two ranks share counts as one of "
            f"{_SEGMENT}",
            "`ulimit -f unlimited` (fsize in /etc/security/limits.conf)",
        )


def _memory(facts: Facts, ranks: Sequence[int]) -> Iterator[Finding]:
    needed = len(ranks) * (len(ranks) - 1) // 2 * _SEGMENT
    own = facts.owns[ranks[0]]
    if own.memory < needed:
        yield Finding(
            Severity.WARNING,
            f"{own.host} has {own.memory >> 20} MiB of free memory, and its {len(ranks)} ranks share up to "
            f"{needed >> 20} MiB, if each talks to each",
            "give the job more memory (--mem of Slurm, --memory of the container), or start fewer ranks a host",
        )


def _processors(facts: Facts, ranks: Sequence[int]) -> Iterator[Finding]:
    owns = [facts.owns[rank] for rank in ranks]
    allowed = {one for own in owns for one in own.processors}
    where = f"the {len(ranks)} ranks on {owns[0].host}"
    if len(allowed) < len(ranks):
        others = owns[0].online - len(allowed)
        yield Finding(
            Severity.WARNING,
            f"{where} share {len(allowed)} processor{'s' * (len(allowed) > 1)}, so that each waits while others compute",
            f"the host has {others} more: have the launcher bind ranks to them (--cpus-per-task, --bind-to core)"
            if others > 0
            else "start no more ranks than processors",
        )
        return
    for number in sorted(allowed):
        bound = [rank for rank, own in zip(ranks, owns, strict=True) if own.processors == (number,)]
        if len(bound) > 1:
            yield Finding(
                Severity.WARNING,
                f"{say_ranks(bound)} on {owns[0].host} are bound to processor {number} alone, of {len(allowed)}",
                "have the launcher bind each rank to one of its own (--bind-to core), or none",
            )


def _others(facts: Facts, ranks: Sequence[int]) -> Iterator[Finding]:
    own = facts.owns[ranks[0]]
    names = {name.partition(":")[0] for name in own.transports}
    if not own.reads_peers and len(ranks) > 1 and "shm" in names:
        yield Finding(
            Severity.WARNING,
            f"on {own.host} no rank may read another's memory (Yama), so long messages are copied twice",
            "`sysctl kernel.yama.ptrace_scope=0`, or the capability SYS_PTRACE for the container",
        )
    found = _where(facts, ranks, lambda own: own.memlock is not None and own.memlock < _MEMLOCK)
    if found:
        where, own = found
        yield Finding(
            Severity.WARNING if "mpi" in names else Severity.NOTE,
            f"{where} may lock {own.memlock} bytes of memory, which MPI over InfiniBand and the like run out of "
            "(shm and tcp lock none)",
            "`ulimit -l unlimited` (memlock in /etc/security/limits.conf, --ulimit memlock=-1 of the container)",
        )
    if own.shm is not None and own.shm < _SHM:
        yield Finding(
            Severity.NOTE,
            f"/dev/shm of {own.host} has {own.shm >> 20} MiB left, which MPI and torch's DataLoader run out of "
            "(pycomm does not use it)",
            "empty it, or give the container more (--shm-size)",
        )
    if "mpi" in names:
        yield Finding(
            Severity.NOTE,
            "PYCOMM_TRANSPORTS asks for mpi, in whose place sockets were looked at",
            "measure MPI itself with `pycomm perf`",
        )
