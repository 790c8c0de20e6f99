"""Linux namespaces without names: each lives as long as the process that holds it, and so leaves nothing behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from ..errors import SystemRefused

_NEWNS, _NEWUTS, _NEWPID, _NEWNET = 0x20000, 0x4000000, 0x20000000, 0x40000000  # CLONE_... of linux/sched.h
_BIND, _REC, _PRIVATE, _DETACH = 0x1000, 0x4000, 0x40000, 2  # MS_... of sys/mount.h, and MNT_DETACH
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise SystemRefused(number, f"cannot {what}: {os.strerror(number)}")


def fork_first() -> int:
    """Fork a child that is the first process of a new namespace of process ids: when it ends, all others there do."""
    home = os.open("/proc/self/ns/pid_for_children", os.O_RDONLY)
    try:
        _check(_libc.unshare(_NEWPID), "make a namespace of process ids")
        pid = os.fork()
        if pid:
            _check(_libc.setns(home, _NEWPID), "have children here again")
        return pid
    finally:
        os.close(home)


def own_mounts() -> None:
    """Have a view of the files that nobody else sees change, with a /proc of this namespace's processes."""
    _unshare(_NEWNS)
    _mount("proc", "/proc", "proc", 0)


def _unshare(kinds: int) -> None:
    _check(_libc.unshare(kinds), "make namespaces")
    if kinds & _NEWNS:
        _mount("none", "/", "", _REC | _PRIVATE)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, the process of this id (0: unknown), dies."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent and os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


class Keeper:
    """A process that holds a network namespace, a host name and a view of the files, and does nothing.

    Attributes:
        pid: the process.
    """

    def __init__(self, name: str, prepare: Callable[[], None] = lambda: None) -> None:
        """Start it; when it is there its namespaces are.

        Args:
            name: the host name.
            prepare: is called in it.

        Raises:
            SystemRefused: a namespace cannot be made, or `prepare` failed.
        """
        parent = os.getpid()
        reading, writing = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            self._keep(parent, name, prepare, writing)
        os.close(writing)
        with os.fdopen(reading) as told:
            said = told.read()
        if said != "ready":
            self.close()
            raise SystemRefused(f"cannot make host {name}: {said or 'its process ended'}")

    def _keep(self, parent: int, name: str, prepare: Callable[[], None], writing: int) -> NoReturn:
        try:
            die_with_parent(parent)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            os.dup2(writing, 3)  # nothing of the parent's may be kept open
            null = os.open(os.devnull, os.O_RDWR)
            for fd in range(3):
                os.dup2(null, fd)
            os.closerange(4, os.sysconf("SC_OPEN_MAX"))
            _unshare(_NEWNET | _NEWUTS | _NEWNS)
            socket.sethostname(name)
            prepare()
            os.write(3, b"ready")
            os.close(3)
            while True:
                signal.pause()
        except BaseException as why:
            os.write(3, str(why).encode())
        finally:
            os._exit(1)

    def close(self) -> None:
        """End it, if it has not ended."""
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Have this thread, and what it starts, in the network namespace."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _set(self.pid, _NEWNET)
            try:
                yield
            finally:
                _check(_libc.setns(home, _NEWNET), "return to the network namespace")
        finally:
            os.close(home)


def enter(pid: int) -> None:
    """Move this process, which has one thread, to the host that a keeper holds."""
    here = Path.cwd()
    _set(pid, _NEWNET | _NEWUTS | _NEWNS)
    os.chdir(here)


def _set(pid: int, kinds: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except OSError as why:
        raise SystemRefused(why.errno, f"the laboratory's host is gone (process {pid})") from None
    try:
        _check(_libc.setns(fd, kinds), f"enter the host that process {pid} holds")
    finally:
        os.close(fd)


def own_files(hosts: str) -> None:
    """Give this namespace an /etc/hosts with a text in it, and a /sys that shows its own network devices."""
    groups = Path("/sys/fs/cgroup")
    kept = os.open(groups, os.O_PATH | os.O_DIRECTORY) if groups.is_dir() else -1
    # A file of memory is needed for a moment, and /sys is about to be covered anyway.
    _mount("tmpfs", "/sys", "tmpfs", 0)
    Path("/sys/hosts").write_text(hosts)
    _mount("/sys/hosts", "/etc/hosts", "", _BIND)
    _check(_libc.umount2(b"/sys", _DETACH), "unmount /sys")
    _mount("sysfs", "/sys", "sysfs", 0)
    if kept >= 0:
        _mount(f"/proc/self/fd/{kept}", str(groups), "", _BIND | _REC)
        os.close(kept)


def _mount(source: str, target: str, kind: str, flags: int) -> None:
    _check(_libc.mount(source.encode(), target.encode(), kind.encode(), flags, None), f"mount {target}")
