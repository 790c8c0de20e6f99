"""Laboratories described in TOML; docs/lab.md tells what may be written."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from ..errors import InvalidArgument
from ..topology import units
from ..topology.tables import Table, names
from .model import Event, Host, Model, Trunk


def load(path: Path) -> Model:
    """Read a laboratory from a file.

    Raises:
        InvalidArgument: the file cannot be read, or something in it is wrong; the message says where.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as why:
        raise InvalidArgument(f"{path}: {why}") from None
    try:
        return loads(text, path.stem)
    except InvalidArgument as why:
        raise InvalidArgument(f"{path}: {why}") from None


def loads(text: str, name: str = "lab") -> Model:
    """Read a laboratory from TOML.

    Raises:
        InvalidArgument: something in it is wrong; the message says where.
    """
    try:
        table = Table("the file", tomllib.loads(text))
    except tomllib.TOMLDecodeError as why:
        raise InvalidArgument(str(why)) from None
    model = Model(
        table.take("name", str, name),
        tuple(host for entry in table.tables("host") for host in _hosts(entry)),
        tuple(_trunk(entry) for entry in table.tables("trunk")),
        tuple(sorted((_event(entry) for entry in table.tables("event")), key=lambda event: event.at)),
        table.take("congestion", str, Model.congestion),
        table.read("queue", units.seconds, Model.queue),
        table.read("burst", units.seconds, Model.burst),
        table.take("seed", int, Model.seed),
    )
    table.done()
    return model


def _hosts(table: Table) -> list[Host]:
    labels = names(table, "host")
    for label in labels:
        if not re.fullmatch(r"[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", label):
            raise InvalidArgument(f"{label!r} is not a host name: it has letters, digits and -")
    cards = table.take("nics", list)
    if not cards or not all(isinstance(card, str) for card in cards):
        raise InvalidArgument(f'nics = {cards!r}: give the rate of each card, such as ["1Gbit", "500Mbit"]')
    ranks, processors = (table.read(key, units.count) if table.has(key) else None for key in ("ranks", "processors"))
    hosts = [
        Host(
            label, tuple(units.rate(card) for card in cards), ranks, processors, table.take("site", str, ""),
            table.read("delay", units.seconds, 0.0), _loss(table),
        )
        for label in labels[:1]
    ]  # fmt: skip
    table.done()
    return [Host(**{**vars(hosts[0]), "name": label}) for label in labels]


def _trunk(table: Table) -> Trunk:
    trunk = Trunk(
        _sites(table, "trunk"), table.read("rate", units.rate), table.read("delay", units.seconds, 0.0), _loss(table)
    )
    table.done()
    return trunk


def _loss(table: Table) -> float:
    loss = float(table.take("loss", (int, float), 0.0))
    if not 0 <= loss < 1:
        raise InvalidArgument(f"loss = {loss:g} is not a part of the frames: give 0 or more, below 1")
    return loss


def _event(table: Table) -> Event:
    state = table.take("state", str, "") if table.has("state") else ""
    if state not in ("", "up", "down"):
        raise InvalidArgument(f'[[event]]: state = {state!r} must be "up" or "down"')
    sites = _sites(table, "event") if table.has("sites") else None
    event = Event(
        float(table.take("at", (int, float))),
        None if sites else table.take("host", str),
        0 if sites else table.take("nic", int, 0),
        sites,
        table.read("rate", units.rate) if table.has("rate") else None,
        state == "up" if state else None,
    )
    table.done()
    if event.at < 0 or (event.rate is None and event.up is None):
        raise InvalidArgument("[[event]]: at is 0 or more, and a rate or a state is given")
    return event


def _sites(table: Table, what: str) -> tuple[str, str]:
    sites = table.take("sites", list)
    if len(sites) != 2 or not all(isinstance(site, str) for site in sites):
        raise InvalidArgument(f"[[{what}]]: sites = {sites!r} must be the names of two sites")
    return sites[0], sites[1]
