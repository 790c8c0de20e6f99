"""Reads what is trained and where from two TOML files; docs/plan.md tells what may be written."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import InvalidArgument
from ..topology import load, units
from ..topology.tables import Table, read
from .cluster import DEGREES, Cards, Cluster, kinds_of_hosts
from .model import STYLES, Model, Training


class Plan(NamedTuple):
    """What the two files say."""

    model: Model
    training: Training
    cluster: Cluster


def read_plan(model: Path, cluster: Path) -> Plan:
    """Read both files.

    Args:
        model: what is trained, and how.
        cluster: where.

    Raises:
        InvalidArgument: a file cannot be read, something in it is wrong, or they do not fit each other; the message
            names the file and the key.
    """
    where = read(cluster, lambda table: _cluster(table, cluster.parent))
    return read(model, lambda table: _plan(table, where))


def _plan(table: Table, cluster: Cluster) -> Plan:
    model = _model(table)
    training = _training(table, cluster)
    table.done()
    check(model, training, cluster)
    return Plan(model, training, cluster)


def check(model: Model, training: Training, cluster: Cluster) -> None:
    """Check that a model, a way to train it, and a machine fit each other.

    Raises:
        InvalidArgument: the message names the key that is wrong.
    """
    size = cluster.topology.size
    degrees = " x ".join(f"{name} {getattr(training, name)}" for name in DEGREES)
    for wrong, why in (
        (training.cards != size, f"{degrees} is {training.cards} cards, and {cluster.topology.name} has {size}"),
        (model.layers % training.pipeline, f"pipeline = {training.pipeline} does not divide {model.layers} layers"),
        (model.heads % training.tensor, f"tensor = {training.tensor} does not divide {model.heads} heads"),
        (training.data % training.expert, f"expert = {training.expert} does not divide data = {training.data}"),
        (training.expert > 1 and not model.experts, f"expert = {training.expert}, but the model has no [experts]"),
        (model.experts % training.expert, f"expert = {training.expert} does not divide {model.experts} experts"),
    ):
        if wrong:
            raise InvalidArgument(f"[parallel]: {why}")
    if training.batch % (training.data * training.micro) or not training.micro_batches:
        raise InvalidArgument(
            f"[batch]: sequences = {training.batch} is not a multiple of micro x data, "
            f"{training.micro} x {training.data} = {training.micro * training.data}"
        )


def _model(table: Table) -> Model:
    about, experts = table.table("model"), table.table("experts")
    style = about.take("style", str, "llama")
    if style not in STYLES:
        raise InvalidArgument(f"[model]: style = {style!r} must be one of {', '.join(STYLES)}")
    hidden, heads = about.read("hidden", units.count), about.read("heads", units.count)
    layers = about.read("layers", units.count)
    model = Model(
        style, layers, hidden, heads, about.read("kv_heads", units.count, heads),
        about.read("ffn", units.count, 4 * hidden), about.read("vocabulary", units.count),
        about.read("sequence", units.count), experts.read("count", units.count, 0),
        experts.read("top_k", units.count, 1), experts.read("capacity", units.factor, 1.0),
        experts.read("every", units.count, 1),
    )  # fmt: skip
    about.done()
    experts.done()
    if heads % model.kv_heads or hidden % heads:
        raise InvalidArgument(
            f"[model]: hidden = {hidden} must be a multiple of heads = {heads}, and that of kv_heads = {model.kv_heads}"
        )
    if layers % model.every:
        raise InvalidArgument(f"[experts]: every = {model.every} does not divide {layers} layers")
    return model


def _training(table: Table, cluster: Cluster) -> Training:
    batch, degrees = table.table("batch"), table.table("parallel")
    nbytes, assume = table.table("bytes"), table.table("assume")
    tensor, pipeline = (degrees.read(name, units.count, 1) for name in ("tensor", "pipeline"))
    zero = degrees.take("zero", int, 0)
    if zero not in range(4):
        raise InvalidArgument(f"[parallel]: zero = {zero} must be 0, 1, 2 or 3")
    utilisation = assume.read("utilisation", units.factor, 0.5)
    if utilisation > 1:
        raise InvalidArgument(f"[assume]: utilisation = {utilisation} must not be above 1")
    training = Training(
        batch.read("sequences", units.count), batch.read("micro", units.count, 1),
        degrees.read("data", units.count, max(1, cluster.topology.size // (tensor * pipeline))), tensor, pipeline,
        degrees.read("expert", units.count, 1), zero, degrees.take("sequence", bool, False),
        nbytes.read("weight", units.factor, 2.0), nbytes.read("gradient", units.factor, 2.0),
        nbytes.read("optimizer", units.factor, 12.0), nbytes.read("activation", units.factor, 2.0),
        utilisation, assume.take("recompute", bool, False), assume.take("overlap", bool, True),
        batch.take("unequal", bool, False), degrees.take("unequal_shards", bool, False),
    )  # fmt: skip
    for part in (batch, degrees, nbytes, assume):
        part.done()
    return training


def _cluster(table: Table, folder: Path) -> Cluster:
    name = table.take("topology", str)
    if name.endswith((".toml", ".xml")):
        name = str(folder / name)
    try:
        topology = load(name)
    except InvalidArgument as why:
        raise InvalidArgument(f"topology: {why}") from None
    layout = tuple(table.take("layout", list, list(DEGREES)))
    if sorted(map(str, layout)) != sorted(DEGREES):
        raise InvalidArgument(f"layout = {list(layout)} must have {', '.join(DEGREES)}, in any order, each once")
    cards = tuple(_cards(entry, number) for number, entry in enumerate(table.tables("cards")))
    table.done()
    if not cards:
        raise InvalidArgument("write [[cards]], once for each kind")
    hosts = int(topology.host.max()) + 1
    given = [card.hosts for card in cards]
    if any(given) and (not prod(given) or sum(given) != hosts):
        raise InvalidArgument(
            f"[[cards]]: hosts = {', '.join(map(str, given))} must be given for each kind, and be {hosts} together"
        )
    kind = kinds_of_hosts(cards, hosts)[topology.host]
    return Cluster(topology, cards, np.asarray(kind, np.int32), layout)


def _cards(table: Table, number: int) -> Cards:
    cards = Cards(
        table.take("name", str, f"cards {number}"), table.read("hosts", units.count, 0),
        table.read("flops", units.flops), table.read("memory", units.size),
    )  # fmt: skip
    table.done()
    return cards
