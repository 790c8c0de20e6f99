"""Says what a step costs and what would change it: as a table for people, and as numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..simulator.timeline import say_bytes
from ..topology.units import say_seconds
from .step import Row, Step
from .volumes import state
from .whatif import Change

_COLUMNS = (
    "transfer",
    "ranks",
    "groups",
    "calls",
    "size",
    "algorithm",
    "each",
    "all",
    "exposed",
    "of bound",
    "busiest link",
)
_LEFT = (0, 5, 10)  # columns that begin at the left


def text(step: Step, changes: Sequence[Change]) -> Iterator[str]:
    """Yield the lines of the report."""
    yield from _about(step)
    yield ""
    yield from _columns([_COLUMNS, *map(_cells, step.rows)], _LEFT)
    if any(row.price.ports_only for row in step.rows):
        yield "*: so many messages that only ports were shared message by message"
    yield ""
    yield from _sum(step)
    if changes:
        yield ""
        yield "what one change would buy:"
        lines = [("change", "step", "gain", "write")]
        lines += [(c.words, say_seconds(c.step.seconds), f"{c.gain:+.1%}", c.edit) for c in changes]
        yield from _columns(lines, (0, 3))


def as_dict(step: Step, changes: Sequence[Change]) -> dict[str, Any]:
    """Return the same with numbers, in bytes and seconds."""
    kept = state(step.model, step.training)
    return {
        **_numbers(step),
        "parameters": step.model.parameters,
        "cards": step.training.cards,
        "memory": kept._asdict(),
        "rows": [_row(row) for row in step.rows],
        "changes": [
            {"change": c.words, "edit": c.edit, "gain": c.gain, **_numbers(c.step)} for c in changes
        ],
    }  # fmt: skip


def _numbers(step: Step) -> dict[str, float]:
    return {
        "seconds": step.seconds, "compute": step.compute, "exposed": step.exposed, "bubble": step.bubble,
        "efficiency": step.efficiency, "utilisation": step.utilisation, "tokens_per_second": step.tokens / step.seconds,
    }  # fmt: skip


def _row(row: Row) -> dict[str, Any]:
    what, price = row.transfer, row.price
    return {
        "transfer": what.name, "degree": what.degree, "collective": what.collective, "ranks": row.ranks,
        "groups": row.groups, "calls": what.calls, "nbytes": what.nbytes, "sent": what.sent(row.ranks),
        "algorithm": str(price.choice) if price.choice else None, "seconds": row.seconds, "total": row.total,
        "exposed": row.exposed, "possible": price.possible, "kind": price.kind, "link": price.link,
        "ports_only": price.ports_only, "bound": price.bound.sentence if price.bound else None,
    }  # fmt: skip


def _about(step: Step) -> Iterator[str]:
    model, training, cluster = step.model, step.training, step.cluster
    experts = f", {model.experts} experts in {model.expert_layers} of them" if model.experts else ""
    yield (
        f"{model.parameters / 1e9:.4g} billion parameters, {model.layers} layers{experts}; "
        f"{training.batch} sequences of {model.sequence} tokens in a step"
    )
    yield f"{cluster.topology.name}: {training.cards} cards"
    degrees = ", ".join(f"{name} {getattr(training, name)}" for name in cluster.layout)
    also = f", expert {training.expert} within data" if training.expert > 1 else ""
    zero = f", ZeRO-{training.zero}" if training.zero else ""
    yield f"{degrees}, the nearest ranks first{also}{zero}; {training.micro_batches} micro-batches of {training.micro}"
    kept = state(model, training)
    least = min(card.memory for card in cluster.cards)
    parts = ", ".join(f"{name} {value / 1e9:.3g}" for name, value in kept._asdict().items())
    verdict = "fits" if sum(kept) <= least else "does NOT fit"
    yield f"memory: {sum(kept) / 1e9:.3g} of {least / 1e9:.3g} GB of a card ({parts}), which {verdict}"


def _cells(row: Row) -> tuple[str, ...]:
    what, price = row.transfer, row.price
    algorithm = str(price.choice) if price.choice else "message"
    possible = f"{price.possible:.0%}" if price.bound else "-"
    return (
        f"{what.name} ({what.collective})", str(row.ranks), str(row.groups), str(what.calls), say_bytes(what.nbytes),
        algorithm + (" *" if price.ports_only else ""), say_seconds(row.seconds), say_seconds(row.total),
        say_seconds(row.exposed), possible, price.link,
    )  # fmt: skip


def _sum(step: Step) -> Iterator[str]:
    parts = (("computing", step.compute), ("exposed communication", step.exposed), ("pipeline's bubble", step.bubble))
    lines = [(name, say_seconds(seconds), f"{seconds / step.seconds:.1%}") for name, seconds in parts]
    yield from _columns([*lines, ("step", say_seconds(step.seconds), "")], (0,))
    yield (
        f"{step.tokens / step.seconds:,.0f} tokens/s; efficiency {step.efficiency:.1%} of what the cards would reach "
        f"alone; {step.utilisation:.1%} of their data sheets' operations (MFU)"
    )


def _columns(lines: Sequence[Sequence[str]], left: Sequence[int]) -> Iterator[str]:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        cells = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        yield "  ".join(cells).rstrip()
