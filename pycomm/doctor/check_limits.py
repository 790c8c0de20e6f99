"""Judges what ranks may use of their hosts: descriptors, memory, processors."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

from ..job.host import OWN_DESCRIPTORS, PEER_DESCRIPTORS
from .facts import Facts, Own, say_ranks
from .findings import Finding, Severity

_SEGMENT = 6 << 20  # bytes of memory that two ranks of a host share, rounded up
_MEMLOCK = 64 << 20  # bytes that a card with queues of its own asks for, at least, so that it can be used at all
_OPENED = 32  # descriptors that meeting takes, beside those of peers
_NAMED = 3  # hosts that a sentence names
_SHM = 64 << 20  # bytes: what a container has of /dev/shm if nobody asks for more


def check_limits(facts: Facts) -> Iterator[Finding]:
    """Yield what is wrong, a finding for all ranks with which the same is."""
    yield from _descriptors(facts)
    yield from _file_size(facts)
    for ranks in facts.hosts:
        yield from _memory(facts, ranks)
        yield from _processors(facts, ranks)
    yield from _reading(facts)
    yield from _memlock(facts)
    yield from _shm(facts)
    if any("mpi" in _names(own) for own in facts.owns):
        yield Finding(
            Severity.NOTE,
            "PYCOMM_TRANSPORTS asks for mpi, in whose place sockets were looked at",
            "measure MPI itself with `pycomm perf`",
        )


def _names(own: Own) -> set[str]:
    return {name.partition(":")[0] for name in own.transports}


def _alike(facts: Facts, key: Callable[[Own], Hashable]) -> Iterator[tuple[list[int], Own]]:
    """Yield the ranks that have a fact in common, and what the first of them sees; those that lack it are left out."""
    ranks: dict[Hashable, list[int]] = {}
    for rank, own in enumerate(facts.owns):
        if (value := key(own)) is not None:
            ranks.setdefault(value, []).append(rank)
    for found in ranks.values():
        yield found, facts.owns[found[0]]


def _say(facts: Facts, ranks: Sequence[int]) -> str:
    """Return ranks and their hosts for people, of many hosts some."""
    names = list(dict.fromkeys(facts.owns[rank].host for rank in ranks))
    more = f" and {len(names) - _NAMED} hosts more" if len(names) > _NAMED else ""
    return f"{say_ranks(ranks)} on {', '.join(names[:_NAMED])}{more}"


def _descriptors(facts: Facts) -> Iterator[Finding]:
    peers = PEER_DESCRIPTORS * len(facts.owns)
    wanted = peers + OWN_DESCRIPTORS
    for ranks, own in _alike(facts, lambda own: own.descriptors):
        if own.descriptors is not None and own.descriptors < wanted:
            most = max(facts.owns[rank].open for rank in ranks)
            yield Finding(
                Severity.ERROR if own.descriptors < peers + most + _OPENED else Severity.WARNING,
                f"{_say(facts, ranks)} may open {own.descriptors} files and sockets, {most} are open, and peers may "
                f"take {peers}",
                f"raise the limit to {wanted}: `ulimit -Hn`, nofile in /etc/security/limits.conf, LimitNOFILE of the "
                "service that starts jobs, or --ulimit nofile of the container",
            )


def _file_size(facts: Facts) -> Iterator[Finding]:
    for ranks, own in _alike(facts, lambda own: own.file_size):
        if own.file_size is not None and own.file_size < _SEGMENT and "shm" in _names(own):
            yield Finding(
                Severity.ERROR,
                f"{_say(facts, ranks)} may write files of {own.file_size} bytes, and memory that two ranks share "
                f"counts as one of {_SEGMENT}",
                "`ulimit -f unlimited` (fsize in /etc/security/limits.conf)",
            )


def _reading(facts: Facts) -> Iterator[Finding]:
    hosts = [facts.owns[ranks[0]] for ranks in facts.hosts if len(ranks) > 1]
    names = [own.host for own in hosts if not own.reads_peers and "shm" in _names(own)]
    if names:
        yield Finding(
            Severity.WARNING,
            f"on {', '.join(names[:_NAMED])} no rank may read another's memory (Yama), so long ones are copied twice",
            "`sysctl kernel.yama.ptrace_scope=0`, or the capability SYS_PTRACE for the container",
        )


def _memlock(facts: Facts) -> Iterator[Finding]:
    for ranks, own in _alike(facts, lambda own: own.memlock):
        if own.memlock is not None and own.memlock < _MEMLOCK:
            yield Finding(
                Severity.WARNING if "mpi" in _names(own) else Severity.NOTE,
                f"{_say(facts, ranks)} may lock {own.memlock} bytes of memory, which MPI over InfiniBand and the like "
                "run out of (shm and tcp lock none)",
                "`ulimit -l unlimited` (memlock in /etc/security/limits.conf, --ulimit memlock=-1 of the container)",
            )


def _shm(facts: Facts) -> Iterator[Finding]:
    for ranks in facts.hosts:
        own = facts.owns[ranks[0]]
        if own.shm is not None and own.shm < _SHM:
            yield Finding(
                Severity.NOTE,
                f"/dev/shm of {own.host} has {own.shm >> 20} MiB left, which MPI and torch's DataLoader run out of "
                "(pycomm does not use it)",
                "empty it, or give the container more (--shm-size)",
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
            f"{where} share {len(allowed)} processor{'s' * (len(allowed) > 1)}, so that each waits for others",
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
