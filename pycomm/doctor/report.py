"""Says what was measured and what was found, as lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..discover.host import say_processors
from .check_clocks import ahead_of_first, check_clocks
from .check_limits import check_limits
from .check_pairs import check_pairs, say_rate, why
from .facts import Card, Facts, say_ranks
from .findings import Finding, Severity


def check(facts: Facts) -> list[Finding]:
    """Return all that is wrong, the worst first."""
    found = [*check_pairs(facts), *check_limits(facts), *check_clocks(facts)]
    return sorted(found, key=lambda finding: finding.severity)


def lines(facts: Facts, findings: Sequence[Finding]) -> Iterator[str]:
    """Yield hosts, pairs, and a line for each finding."""
    yield f"{_count(len(facts.owns), 'rank')} on {_count(len(facts.hosts), 'host')}"
    yield from _hosts(facts)
    yield from _pairs(facts)
    yield from map(str, findings)
    errors = sum(finding.severity == Severity.ERROR for finding in findings)
    yield f"{_count(len(findings), 'finding')}, of which {errors or 'none'} would break a job"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _hosts(facts: Facts) -> Iterator[str]:
    clocks = ahead_of_first(facts)
    used = {
        (facts.host_of[rank], address)
        for pair in facts.pairs
        for ends in pair.ends
        for rank, address in zip((pair.a, pair.b), ends, strict=True)
    }
    for number, ranks in enumerate(facts.hosts):
        own = facts.owns[ranks[0]]
        allowed = frozenset(one for rank in ranks for one in facts.owns[rank].processors)
        yield f"{own.host}: {say_ranks(ranks)}; processors {say_processors(allowed)} of {own.online}"
        limits = (("files", own.descriptors), ("bytes locked", own.memlock), ("bytes a file", own.file_size))
        said = ", ".join(f"{'any number of' if limit is None else limit} {what}" for what, limit in limits)
        shm = "no /dev/shm" if own.shm is None else f"{own.shm >> 20} MiB free in /dev/shm"
        yield f"  limits: {said}; {own.memory >> 20} MiB of memory free, {shm}"
        if number and number in clocks:
            ahead, unsure = clocks[number]
            yield f"  clock: {1e3 * ahead:+.3f} ms to that of {facts.owns[0].host}, within {1e3 * unsure:.3f} ms"
        for card in own.cards:
            yield f"  {card.name}: {_say_card(card, bool({(number, one) for one in card.addresses} & used), facts)}"


def _say_card(card: Card, used: bool, facts: Facts) -> str:
    says = "" if card.rate is None else f", says {say_rate(card.rate)}"
    about = f"{', '.join(card.addresses) or '-'}, MTU {card.mtu}{says}"
    if used:
        return f"{about}: used"
    reason = card.unusable or ("no peer was reached over it" if len(facts.hosts) > 1 else "there is one host")
    return f"{about}: not used, it {reason}" if card.unusable else f"{about}: not used, {reason}"


def _pairs(facts: Facts) -> Iterator[str]:
    if not facts.pairs:
        return
    row = "{:>9} {:>6} {:>11} {:>12} {:>12}  {}".format
    yield row("ranks", "by", "latency", "there", "back", "way")
    for pair in facts.pairs:
        numbers = ("-", "-", "-")
        if not pair.failed:
            numbers = (f"{1e6 * pair.latency:.1f} us", say_rate(pair.there), say_rate(pair.back))
        yield row(f"{pair.a} > {pair.b}", pair.transport or "-", *numbers, why(facts, pair))
