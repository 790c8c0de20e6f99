"""Judges the clocks of hosts, by which people put logs and traces of several ranks in order; pycomm uses none."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import Facts
from .findings import Finding, Severity

_FAR = 0.1  # seconds, from which on an order of events is wrong that a person sees
_NEAR = 1e-3  # and from which on one of messages is


def ahead_of_first(facts: Facts) -> dict[int, tuple[float, float]]:
    """Return by how many seconds each host's clock is ahead of the first host's, and how uncertain that is.

    From pair to pair, so that every host has one that some chain of pairs joins to the first.
    """
    known = {0: (0.0, 0.0)}
    between = [pair for pair in facts.pairs if not pair.failed and not facts.near(pair)]
    for _ in facts.hosts:
        for pair in between:
            for frm, to, ahead in ((pair.a, pair.b, pair.ahead), (pair.b, pair.a, -pair.ahead)):
                here, there = facts.host_of[frm], facts.host_of[to]
                if here in known and there not in known:
                    before, unsure = known[here]
                    known[there] = before + ahead, unsure + pair.latency
    return known


def check_clocks(facts: Facts) -> Iterator[Finding]:
    """Yield what is wrong."""
    first = facts.owns[facts.hosts[0][0]].host
    for number, (ahead, unsure) in sorted(ahead_of_first(facts).items()):
        apart = abs(ahead) - unsure
        if apart > _NEAR:
            name = facts.owns[facts.hosts[number][0]].host
            way = "ahead of" if ahead > 0 else "behind"
            yield Finding(
                Severity.WARNING if apart > _FAR else Severity.NOTE,
                f"the clock of {name} is {1e3 * abs(ahead):.3g} ms {way} that of {first}, so logs and traces of both "
                "do not fit together",
                f"let chrony or ntpd set both (`chronyc tracking` on {name})",
            )
