"""Advises programs of MPI that run on pycomm without Python: what the ranks of a host ask for, libpycomm-mpi.so runs.

A process of it serves one host: `python -m pycomm.helper.advice`, with a listening unix socket as its standard input.
It goes when the last rank that was connected has. A request is a line of JSON; an answer is its length and a status of
the core (4 bytes each), then what `Advice` packs, or why there is no answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import struct
import sys
from typing import Any

import numpy as np

from .. import knobs
from ..core import COLLECTIVES, status_of
from ..discover import cache
from ..errors import PycommError
from ..job import keys
from ..schedules.view import emit
from ..selection import table
from ..selection.machine import Machine
from ..selection.select import selector_of
from ..start import host_identity, machine_of, pack_facts

_CREDENTIALS = struct.Struct("3i")  # of the process at the other end of a unix socket: its number, user, group
_HEAD = struct.Struct("<II")
_MACHINE = struct.Struct("<iii")  # number, ranks that share this one's processors, hosts
# Slices, window, length of the name; steps, chunks, blocks of the input, of the output and passed on, pieces a block.
_PLAN = struct.Struct("<IIIIIIIII")
_PATIENCE = 60.0  # seconds until the first rank must have come


class Advice:
    """What is known of the communicators of a host's ranks.

    Attributes:
        questions: the methods that answer one.
    """

    questions: tuple[str, ...] = ("facts", "machine", "plan", "sign", "known", "know")

    def __init__(self) -> None:
        self._machines: list[Machine] = []
        self._known: dict[str | tuple[int, ...], int] = {}

    def facts(self, pid: int) -> bytes:
        """Return where a process runs, for `machine`."""
        return pack_facts(os.sched_getaffinity(pid))

    def machine(self, facts: str, rank: int, size: int) -> bytes:
        """Return the number of a machine: that of `size` ranks, whose facts follow each other."""
        both = bytes.fromhex(facts)
        each = len(both) // size
        everybody = [both[r * each : r * each + each] for r in range(size)]
        machine, mates = machine_of(everybody, rank, shared=True, table=table.Table())
        if len(machine.hosts) == 1:  # whose ranks all ask here
            found = table.find(knobs.ALGO.value().table)
            machine, mates = machine_of(everybody, rank, shared=True, table=found)
        return _MACHINE.pack(self.number(facts, machine), mates, len(machine.hosts))

    def number(self, key: str | tuple[int, ...], machine: Machine) -> int:
        """Return the number of a machine, whose ranks a key tells from others."""
        number = self._known.setdefault(key, len(self._machines))
        if number == len(self._machines):
            self._machines.append(machine)
        return number

    def plan(self, machine: int, collective: str, rank: int, root: int, nbytes: int, uneven: bool) -> bytes:
        """Return how a call is run: the choice and this rank's schedule, as struct pcm_schedule_desc has it."""
        known = self._machines[machine]
        choice = selector_of(known).choose(collective, nbytes, uneven=uneven, offload=False)
        lowered = emit(choice.algorithm, collective, size=known.size, rank=rank, root=root, groups=known.groups).lower()
        name = lowered.name.encode() + b"\0"
        head = _PLAN.pack(choice.slices, choice.window, len(name), len(lowered.steps), lowered.nchunks,
                          lowered.in_blocks, lowered.out_blocks, len(lowered.passed), lowered.cut)  # fmt: skip
        arrays = (lowered.steps, lowered.in_at, lowered.out_at, lowered.like, lowered.passed_at)
        return head + b"".join(array.tobytes() for array in arrays) + name

    def sign(self, key: str, data: str) -> bytes:
        """Return the code by which a connection between two ranks is authenticated."""
        return keys.authenticate(bytes.fromhex(key), bytes.fromhex(data))

    def known(self, machine: int, library: str, octaves: int) -> bytes:
        """Return MPI's time over ours, as `know` has got it of late: a float32 for each collective and octave.

        0 is not known, and infinite where MPI's own collectives are not to be used.
        """
        ratios = np.zeros((len(COLLECTIVES), octaves), np.float32)
        if knobs.NETWORK.value() == "off":
            ratios[:] = np.inf
        elif knobs.NETWORK.value() != "fresh":
            for name, found in self._races(machine, library).items():
                for octave, ratio in found.items():
                    ratios[COLLECTIVES[name], int(octave)] = ratio
        return ratios.tobytes()

    def know(self, machine: int, library: str, collective: str, octave: int, ratio: float) -> bytes:
        """Remember for a day what was measured of one of MPI's own collectives, for some size."""
        races = self._races(machine, library)
        races.setdefault(collective, {})[str(octave)] = ratio
        cache.write(self._file(machine, library), json.dumps(races).encode())
        return b""

    def _races(self, machine: int, library: str) -> dict[str, dict[str, float]]:
        with contextlib.suppress(ValueError):  # of another version
            found: dict[str, dict[str, float]] = json.loads(cache.read(self._file(machine, library)) or b"{}")
            return found
        return {}

    def _file(self, machine: int, library: str) -> str:
        known = self._machines[machine]
        hosts = "/".join(str(len(ranks)) for ranks in known.hosts)
        facts = f"{host_identity().hex()} {hosts} {known.processors} {library}"
        return f"race-{keys.derive(b'native', facts, 8).hex()}.json"


def serve(door: socket.socket) -> None:
    """Answer whoever connects as this user, until everybody has gone."""
    advice, connected = Advice(), 0
    with selectors.DefaultSelector() as selector:
        selector.register(door, selectors.EVENT_READ)
        while events := selector.select(None if connected else _PATIENCE):
            for key, _ in events:
                if key.fileobj is door:
                    peer, _ = door.accept()
                    _, user, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                    if user != os.geteuid():
                        peer.close()
                        continue
                    peer.settimeout(_PATIENCE)
                    selector.register(peer, selectors.EVENT_READ, peer.makefile("rb"))
                    connected += 1
                elif not answer(advice, key.fileobj, key.data):
                    selector.unregister(key.fileobj)
                    key.data.close()
                    key.fileobj.close()  # type: ignore[union-attr]
                    connected -= 1
            if not connected:
                return


def _answered(advice: Advice, asked: Any) -> bytes:
    question = asked.pop("ask") if isinstance(asked, dict) else None
    if question not in advice.questions:
        raise ValueError(f"there is no question {question!r}")
    return bytes(getattr(advice, question)(**asked))


def answer(advice: Advice, peer: Any, lines: Any) -> bool:
    """Answer one request; False: the rank has gone, or talks nonsense.

    Args:
        advice: answers what is asked.
        peer: the socket.
        lines: what is read from it.
    """
    with contextlib.suppress(OSError):
        line = lines.readline()
        if not line:
            return False
        status = 0
        try:
            said = _answered(advice, json.loads(line))
        except PycommError as why:
            status, said = status_of(why), str(why).encode()
        except (ArithmeticError, LookupError, TypeError, ValueError) as why:
            print(f"pycomm: a rank has asked what makes no sense: {why!r}", file=sys.stderr)
            return False
        peer.sendall(_HEAD.pack(len(said), status) + said)
        return True
    return False


if __name__ == "__main__":
    with socket.socket(fileno=os.dup(0)) as listening:
        try:
            serve(listening)
        except Exception as why:
            sys.exit(f"pycomm: no schedules for this host's ranks of MPI any more: {why!r}")
