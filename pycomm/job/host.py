"""Facts about this host and its processes that decide who shares it and who is still alive; all from /proc."""

from __future__ import annotations

import os
import resource
import signal
import socket
from pathlib import Path

OWN_DESCRIPTORS = 256  # of a process, for its program, its libraries and what pycomm opens for no peer
PEER_DESCRIPTORS = 3  # that a peer costs at most: a connection, its process, its doorbell


def node_identity() -> str:
    """Return a text that two processes share if, and only if, each can name the other by its process id."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"


def _stat(pid: int | str) -> list[str]:
    # The command name, in parentheses, may hold spaces and parentheses: fields are counted behind its end.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def parent_of(pid: int) -> int:
    """Return the parent's process id, 0 if there is none or the process is gone."""
    try:
        return int(_stat(pid)[1])
    except OSError:
        return 0


def start_time(pid: int) -> int:
    """Return when the process started, in clock ticks since boot, or 0 if it is gone or only a zombie.

    A process id is used again after its process died; together with the start time it is unique.
    """
    try:
        fields = _stat(pid)
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def exit_status_of_zombie(pid: int) -> int | None:
    """Return the wait status of a process that died and that its parent has not reaped yet, else None."""
    try:
        fields = _stat(pid)
    except OSError:
        return None
    return int(fields[49]) if fields[0] in "ZX" else None


def launcher_of(variable: str) -> int:
    """Return the process id of the nearest ancestor that was started without this variable: the launcher.

    Shells and wrappers between the launcher and this process carry the variable too, so that all ranks of a job
    find the same ancestor however each was wrapped. An ancestor of another user cannot be read and counts as the
    launcher.
    """
    mark = variable.encode() + b"="
    pid = os.getppid()
    while pid > 1:
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            break
        if not any(entry.startswith(mark) for entry in environ.split(b"\0")):
            break
        pid = parent_of(pid)
    return pid


def is_local(address: str) -> bool:
    """Return whether the host name or address belongs to this host; a name that does not resolve does not."""
    try:
        found = socket.getaddrinfo(address, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    for family, kind, protocol, _, sockaddr in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(sockaddr)
                return True
        except OSError:
            continue
    return False


def is_own_name(name: str) -> bool:
    """Return whether this is the host's own name, which Debian's /etc/hosts has resolve to 127.0.1.1 there alone."""
    return name.partition(".")[0] == socket.gethostname().partition(".")[0]


def allow_descriptors(count: int, pid: int = 0) -> int:
    """Let a process (0: this one) have `count` descriptors beside some of its own, or what it may; return how many.

    The usual limit of 1,024 may be raised by every process up to a hard one. It is not raised further than needed: some
    programs that a process starts close every descriptor up to their limit.
    """
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    wanted = count + OWN_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else soft


def describe_status(status: int | None) -> str:
    """Return how a process ended, from its wait status, as a predicate: `was killed by signal 9 (SIGKILL)`."""
    if status is None:
        return "ended"
    if os.WIFSIGNALED(status):
        return f"was killed by {describe_signal(os.WTERMSIG(status))}"
    return f"exited with code {os.WEXITSTATUS(status)}"


def describe_signal(number: int) -> str:
    """Return `signal 9 (SIGKILL)` for 9."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
