"""The entry of one measured rank: joins its library's job, then sleeps on its channel until it is its job's turn.

Started as `python -m pycomm.perf.worker SETTINGS` by the library's own launcher; SETTINGS is JSON. Requests and
replies are JSON over a ZeroMQ socket of this rank's own, in a directory that only this user can open.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import zmq

from . import limit
from .adapters import join
from .bench import Bench, Cell, Library
from .cases import CASES

_LOOK_AROUND_MS = 5000


class Server:
    """Answers requests about one library; the same requests and replies wherever they come from."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self._benches: dict[Cell, Bench] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request: `{"do": "hello" | "memory" | "socket" | "measure" | "stop", ...}`."""
        if request["do"] == "hello":
            library = self.library
            return {"size": library.size, "version": library.version, "pid": os.getpid(), "host": os.uname().nodename}
        if request["do"] == "stop":
            return {}
        if request["do"] == "memory":
            return {"rate": limit.memory_rate(self.library)}
        if request["do"] == "socket":
            return {"rate": limit.socket_rate(self.library)}
        cell = Cell(**request["cell"])
        case = CASES[cell.collective]
        if reason := self.library.unsupported(case, cell.dtype, cell.op, cell.in_place):
            return {"unsupported": reason}
        if cell not in self._benches:
            # The two forms of one call stay prepared, and nothing else does.
            self._benches = {c: b for c, b in self._benches.items() if _same_call(c, cell)}
            self._benches[cell] = Bench(self.library, cell)
        outcome = self._benches[cell].round(request["warmup"], request["iterations"], request["check"])
        reply = {"times": outcome.times.tolist(), "wall": outcome.wall, "wrong": outcome.wrong}
        if outcome.overlapped is not None:
            reply["compute"], reply["total"] = outcome.overlapped.tolist()
        return reply


def _same_call(a: Cell, b: Cell) -> bool:
    return (a.collective, a.count, a.dtype, a.op, a.root) == (b.collective, b.count, b.dtype, b.op, b.root)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main(settings: dict[str, Any]) -> int:
    """Serve the coordinator until it says stop, or is gone."""
    library = join(**settings["join"])
    server = Server(library)
    context = zmq.Context()
    channel = context.socket(zmq.DEALER)
    channel.setsockopt(zmq.IDENTITY, f"{settings['job']}:{library.rank}".encode())
    channel.setsockopt(zmq.LINGER, 1000)
    channel.connect(settings["endpoint"])
    channel.send_json(server.answer({"do": "hello"}))
    try:
        while True:
            while not channel.poll(_LOOK_AROUND_MS):
                if not _alive(settings["coordinator"]):
                    return 1
            request = channel.recv_json()
            assert isinstance(request, dict)
            if request["do"] == "stop":
                break
            try:
                reply = server.answer(request)
            except Exception as error:  # whatever a library raises is its result, and the end of this rank
                channel.send_json({"error": f"rank {library.rank}: {type(error).__name__}: {error}"})
                return 1
            channel.send_json(reply)
        library.close()
        return 0
    finally:
        context.destroy()


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
