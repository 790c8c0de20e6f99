"""The command `pycomm-lab-ssh`, which is to the hosts of a laboratory what ssh is to those of a cluster."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .. import knobs
from ..errors import InvalidArgument, PycommError
from ..job.launch import execute
from . import place


def main() -> int:
    """Run a command on a host, in a shell: pycomm-lab-ssh HOST COMMAND [ARGUMENT ...]; options of ssh are ignored."""
    try:
        host, command = _understood(sys.argv[1:])
        host.enter()
    except PycommError as why:
        print(f"pycomm-lab-ssh: {why}", file=sys.stderr)
        return 255  # as ssh
    execute(["/bin/sh", "-c", command])


def _understood(words: Sequence[str]) -> tuple[place.Place, str]:
    """Return the host and the command."""
    words = list(words)
    while words and words[0].startswith("-"):  # launchers give -x
        words.pop(0)
    if len(words) < 2:
        raise InvalidArgument("give a host and a command")
    places = {each.name: each for each in place.from_environment()}
    if words[0] not in places:
        there = f"there are {', '.join(places)}" if places else f"no laboratory is there ({knobs.LAB.name} is not set)"
        raise InvalidArgument(f"there is no host {words[0]!r}: {there}")
    return places[words[0]], " ".join(words[1:])
