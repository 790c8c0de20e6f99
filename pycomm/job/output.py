"""Marks every line that a rank prints with the rank's number, for `pycomm run --tag`."""

from __future__ import annotations

import os
import select


class Tagger:
    """Pipes in place of the ranks' standard output and error, whose lines it passes on with `[rank] ` in front."""

    def __init__(self) -> None:
        """Make no pipe yet."""
        self._ready = select.epoll()
        # By the pipe's reading end: where its lines go, their mark, and the line that is not complete yet.
        self._pipes: dict[int, tuple[int, bytes, bytearray]] = {}
        self._writers: dict[int, int] = {}

    def before_fork(self, rank: int) -> None:
        """Make the pipes of the rank that is forked next."""
        for stream in (1, 2):
            reader, writer = os.pipe()
            os.set_blocking(reader, False)
            self._pipes[reader] = (stream, b"[%d] " % rank, bytearray())
            self._ready.register(reader, select.EPOLLIN)
            self._writers[stream] = writer

    def in_child(self) -> None:
        """Put the pipes in place of standard output and error."""
        for stream, writer in self._writers.items():
            os.dup2(writer, stream)
        self.in_parent()
        for reader in self._pipes:
            os.close(reader)
        self._ready.close()

    def in_parent(self) -> None:
        """Close the writing ends, which belong to the rank."""
        for writer in self._writers.values():
            os.close(writer)
        self._writers.clear()

    def fileno(self) -> int:
        """Return a descriptor that is readable when a rank has printed."""
        return self._ready.fileno()

    def pass_on(self) -> None:
        """Print the complete lines that have arrived."""
        while ready := self._ready.poll(0):
            for reader, _ in ready:
                self._read(reader)

    def close(self) -> None:
        """Print what is left, complete or not."""
        self.pass_on()
        for stream, mark, rest in self._pipes.values():
            if rest:
                _write(stream, mark + bytes(rest) + b"\n")
        for reader in self._pipes:
            os.close(reader)
        self._ready.close()

    def _read(self, reader: int) -> None:
        stream, mark, rest = self._pipes[reader]
        data = os.read(reader, 1 << 16)
        if not data:
            self._ready.unregister(reader)
            return
        rest += data
        end = rest.rfind(b"\n") + 1
        if end:
            _write(stream, b"".join(mark + line for line in bytes(rest[:end]).splitlines(keepends=True)))
            del rest[:end]


def _write(stream: int, data: bytes) -> None:
    while data:
        data = data[os.write(stream, data) :]
