"""Any machine by its name: a file, or the text that a generator reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import InvalidArgument
from . import units
from .generators import generate
from .model import Topology


def load(what: str | Path) -> Topology:
    """Return a machine.

    Args:
        what: a file FILE.toml (docs/topology.md); a file FILE.xml of NCCL's, or FILE.xml,hosts=4 for four such hosts on
            a network that is never the bottleneck; or a text for `generate`, such as fat-tree:1024,hosts=8,taper=2.

    Raises:
        InvalidArgument: there is no such file or generator, or something in it is wrong; the message says where.
    """
    text = str(what)
    name, *settings = text.split(",")
    if name.endswith(".toml"):
        if settings:
            raise InvalidArgument(f"{text!r}: a TOML file takes no settings")
        from .toml import read_toml  # here, and not for each rank that prices its calls

        return read_toml(Path(name))
    if not name.endswith(".xml"):
        return generate(text)
    hosts = 1
    for setting in settings:
        key, _, value = setting.partition("=")
        if key.strip() != "hosts":
            raise InvalidArgument(f"{text!r}: {setting!r} is no setting of an XML file, which has hosts")
        try:
            hosts = units.count(value)
        except InvalidArgument as why:
            raise InvalidArgument(f"{text!r}: hosts: {why}") from None
    from .nccl import read_nccl  # likewise

    return replace(read_nccl(Path(name), hosts), name=",".join([Path(name).name, *settings]))
