"""What one change would buy: each is an edit of one of the two files, and the step is priced anew with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from typing import NamedTuple

import numpy as np

from ..errors import InvalidArgument
from ..topology.modify import Degrade, degrade
from .cluster import DEGREES, Cluster
from .group import widths
from .model import Model, Training
from .price import Pricer
from .read import Plan, check
from .step import Step, replicas, step
from .volumes import state

_KINDS = 3  # kinds of links that are tried at twice their bandwidth
_FACTOR = 2


class Change(NamedTuple):
    """A change, and the step with it.

    Attributes:
        words: what it is.
        edit: what to write into which file.
        step: priced anew.
        gain: the part of the time that is saved, below 0 if it takes longer.
    """

    words: str
    edit: str
    step: Step
    gain: float


def changes(before: Step, pricer: Pricer) -> list[Change]:
    """Return the changes that were tried, the best first.

    Args:
        before: the step as it is.
        pricer: that it was priced with.
    """
    plan = Plan(before.model, before.training, before.cluster)
    found = []
    for words, edit, (model, training, cluster) in _candidates(before, plan):
        own = pricer if cluster.topology is plan.cluster.topology else pricer.on(cluster.topology)
        try:
            after = step(model, training, cluster, own)
        except InvalidArgument:  # groups that are too large to be simulated
            continue
        found.append(Change(words, edit, after, 1 - after.seconds / before.seconds))
    return sorted(found, key=lambda change: (-round(change.gain, 6), change.words))


def _candidates(before: Step, plan: Plan) -> Iterator[tuple[str, str, Plan]]:
    yield from _wider_links(before, plan)
    yield from _layouts(plan)
    yield from _unequal(before, plan)
    yield from _splits(plan)


def _wider_links(before: Step, plan: Plan) -> Iterator[tuple[str, str, Plan]]:
    """Yield the kinds of links that bind where communication is exposed, at twice their bandwidth."""
    rows = sorted((row for row in before.rows if row.exposed > 0), key=lambda row: -row.exposed)
    for kind in list(dict.fromkeys(row.price.kind for row in rows))[:_KINDS]:
        topology = degrade(plan.cluster.topology, Degrade(kind, 1.0, True, float(_FACTOR)))
        topology = replace(topology, name=f"{plan.cluster.topology.name} with {kind} x {_FACTOR}")
        cluster = replace(plan.cluster, topology=topology)
        yield (
            f"twice the bandwidth of {kind} links",
            f"topology: degrade={kind}@{_FACTOR}",
            plan._replace(cluster=cluster),
        )


def _layouts(plan: Plan) -> Iterator[tuple[str, str, Plan]]:
    """Yield the other orders of the degrees; where one of them is 1, its place does not matter."""

    def key(layout: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in layout if getattr(plan.training, name) > 1)

    known = {key(plan.cluster.layout)}
    for layout in permutations(DEGREES):
        if key(layout) not in known:
            known.add(key(layout))
            text = ", ".join(key(layout))
            cluster = replace(plan.cluster, layout=layout)
            yield f"ranks in the order {text}", _layout(layout), plan._replace(cluster=cluster)


def _layout(layout: tuple[str, ...]) -> str:
    quoted = ", ".join(f'"{name}"' for name in layout)
    return f"layout = [{quoted}]"


def _unequal(before: Step, plan: Plan) -> Iterator[tuple[str, str, Plan]]:
    """Yield what makes use of cards or links of different speed."""
    training = plan.training
    if not training.unequal_batch and np.ptp(plan.cluster.flops):
        edit, cluster = "[batch] unequal = true", plan.cluster
        if not np.ptp(replicas(training, cluster)):  # each has slow cards: lay their ranks side by side
            layout = (*(name for name in cluster.layout if name != "data"), "data")
            edit, cluster = f"{edit}; {_layout(layout)}", replace(cluster, layout=layout)
        if np.ptp(replicas(training, cluster)):
            changed = plan._replace(training=replace(training, unequal_batch=True), cluster=cluster)
            yield "micro-batches in proportion to speed", edit, changed
    shares = [row.price.share for row in before.rows if row.transfer.degree in ("data", "replica") and row.price.share]
    if not training.unequal_shards and any(np.ptp(widths(share)) > 0 for share in shares):
        yield (
            "gradient shards in proportion to bandwidth", "[parallel] unequal_shards = true",
            plan._replace(training=replace(training, unequal_shards=True)),
        )  # fmt: skip


def _splits(plan: Plan) -> Iterator[tuple[str, str, Plan]]:
    """Yield the same cards with one degree halved and another one doubled, where the model and memory allow it."""
    for fewer, more in permutations(DEGREES, 2):
        if getattr(plan.training, fewer) % 2:
            continue
        training = replace(
            plan.training, **{fewer: getattr(plan.training, fewer) // 2, more: getattr(plan.training, more) * 2}
        )
        try:
            check(plan.model, training, plan.cluster)
        except InvalidArgument:
            continue
        if _fits(plan.model, training, plan.cluster, plan.training):
            text = ", ".join(f"{name} {getattr(training, name)}" for name in DEGREES)
            edit = ", ".join(f"{name} = {getattr(training, name)}" for name in DEGREES)
            yield text, f"[parallel] {edit}", plan._replace(training=training)


def _fits(model: Model, training: Training, cluster: Cluster, before: Training) -> bool:
    """Tell whether it fits the smallest card, or needs no more than what is there now."""
    least = min(card.memory for card in cluster.cards)
    return sum(state(model, training)) <= max(least, sum(state(model, before)))
