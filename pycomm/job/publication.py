"""How the ranks of a job on one host find each other with nothing configured: rank 0 publishes a private file.

The file lies in a directory that only this user may enter, and names its publisher by process id and start time. A
reader takes it only while that very process lives, so that what a dead job left behind is never used.
"""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from pycomm.errors import LaunchError
from pycomm.job import host

_STALE_SECONDS = 3600.0


@dataclass(frozen=True)
class Meeting:
    """Where the ranks of one job meet, and 32 random bytes that only they know."""

    endpoint: str
    nonce: bytes


def runtime_directory() -> Path:
    """Return this user's private directory, made if need be; raise LaunchError if it cannot be trusted."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    uid = os.getuid()
    usable = base and Path(base).is_dir() and Path(base).stat().st_uid == uid and os.access(base, os.W_OK | os.X_OK)
    path = Path(base, "pycomm") if usable else Path("/tmp", f"pycomm-{uid}")
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as why:
        raise LaunchError(
            f"cannot make the directory {path}, in which ranks meet: {why}. Set XDG_RUNTIME_DIR."
        ) from why
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o077:
        raise LaunchError(
            f"{path} must be a directory of mode 700 that belongs to user {uid}. Remove it or set XDG_RUNTIME_DIR."
        )
    return path


def publish(name: str) -> tuple[Meeting, Path]:
    """As rank 0, choose a meeting for the job of this name and let its other ranks find it; return it and the file."""
    directory = runtime_directory()
    _sweep(directory)
    # An abstract unix socket: no file that could outlive the job. Its random name cannot be taken by another user
    # first.
    meeting = Meeting(f"ipc://@pycomm-{os.urandom(16).hex()}", os.urandom(32))
    path = directory / f"{name}.job"
    draft = directory / f".{name}.{os.getpid()}"
    draft.unlink(missing_ok=True)
    pid = os.getpid()
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(f"{pid} {host.start_time(pid)} {meeting.endpoint} {meeting.nonce.hex()}\n")
    draft.replace(path)
    return meeting, path


def find(name: str, timeout: float) -> Meeting:
    """As another rank, wait for rank 0's publication; raise LaunchError if none comes within `timeout` seconds."""
    path = runtime_directory() / f"{name}.job"
    end = time.monotonic() + timeout
    pause = 0.002
    while (meeting := _read(path)) is None:
        if time.monotonic() > end:
            raise LaunchError(
                f"rank 0 did not appear on this host within {timeout:g} s (it would publish {path}). Check that it "
                "started; if the job spans several hosts or containers, set PYCOMM_RENDEZVOUS=tcp://HOST:PORT and "
                "PYCOMM_SECRET_FILE."
            )
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    return meeting


def withdraw(path: Path) -> None:
    """Remove this process's publication, unless another process has replaced it since."""
    publisher = _publisher(path)
    if publisher and publisher[0] == str(os.getpid()):
        path.unlink(missing_ok=True)


def _publisher(path: Path) -> list[str]:
    try:
        fields = path.read_text().split()
    except FileNotFoundError:
        return []
    return fields if len(fields) == 4 else []


def _read(path: Path) -> Meeting | None:
    fields = _publisher(path)
    if not fields or host.start_time(int(fields[0])) != int(fields[1]):
        return None
    return Meeting(fields[2], bytes.fromhex(fields[3]))


def _sweep(directory: Path) -> None:
    """Remove what dead jobs left; only old files, because a young one may be in the middle of being replaced."""
    for path in directory.iterdir():
        try:
            old = time.time() - path.stat().st_mtime > _STALE_SECONDS
        except FileNotFoundError:
            continue
        if old and _read(path) is None:
            path.unlink(missing_ok=True)
