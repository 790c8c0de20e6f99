"""Every setting of pycomm, declared once with its type, default and help; `pycomm info` prints them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pycomm import conf
from pycomm.errors import LaunchError

T = TypeVar("T")


class Kind(NamedTuple, Generic[T]):
    """What the text of a setting is.

    Attributes:
        name: for people.
        parse: turns the text into a value, or raises ValueError with a sentence that says what is expected.
    """

    name: str
    parse: Callable[[str], T]


class Setting(NamedTuple):
    """A setting as it was found.

    Attributes:
        name: the variable that decides.
        text: its text.
        source: "environment", the file and the line, as in "/etc/pycomm.conf:3", or "default".
    """

    name: str
    text: str
    source: str


@dataclass(frozen=True)
class Knob(Generic[T]):
    """One setting, looked up at every call: in the environment, which a test or a program may change, then in files.

    The files are ~/.pycomm.conf and /etc/pycomm.conf, in this order; a process reads each of them once.

    Attributes:
        name: the variable.
        kind: what its text is.
        default: the text that an absent or empty variable stands for.
        help: one line for `pycomm info`.
        fallbacks: variables of other libraries that are honoured when `name` is set nowhere, best first.
        private: the value is never printed.
        in_files: whether it may stand in a file, where all processes of a host find it.
    """

    name: str
    kind: Kind[T]
    default: str
    help: str
    fallbacks: tuple[str, ...] = ()
    private: bool = False
    in_files: bool = True

    def setting(self, env: Mapping[str, str] | None = None) -> Setting:
        """Return what decides.

        Args:
            env: variables to look at, and at no file; None: this process's, and the files.

        Raises:
            LaunchError: a file is malformed; it names the line.
        """
        here = os.environ if env is None else env
        if here.get(self.name):
            return Setting(self.name, here[self.name], "environment")
        if env is None and self.in_files:
            for path in conf.places():
                line = _settings_of(path).get(self.name)
                if line and line.text:
                    return Setting(self.name, line.text, f"{path}:{line.number}")
        for name in self.fallbacks:
            if here.get(name):
                return Setting(name, here[name], "environment")
        return Setting(self.name, self.default, "default")

    def source(self, env: Mapping[str, str] | None = None) -> str:
        """Return where the value comes from, as `Setting.source`."""
        return self.setting(env).source

    def value(self, env: Mapping[str, str] | None = None) -> T:
        """Return the value; raise LaunchError naming the variable, and its file if it has one, if it is malformed."""
        found = self.setting(env)
        try:
            return self.kind.parse(found.text)
        except ValueError as why:
            where = "" if found.source in ("environment", "default") else f"{found.source}: "
            raise LaunchError(f"{where}{found.name}={found.text!r} is not usable: {why}") from None

    def text(self, env: Mapping[str, str] | None = None) -> str:
        """Return the value's text as `pycomm info` prints it."""
        found = self.setting(env)
        return "(set)" if self.private and found.source != "default" else found.text


@dataclass(frozen=True)
class InterfaceFilter:
    """Which network interfaces may be used, in NCCL's syntax: `eth,ib` prefixes, `=eth0` exact, `^docker,lo` others."""

    names: tuple[str, ...] = ()
    exact: bool = False
    exclude: bool = False

    def allows(self, interface: str) -> bool:
        """Return whether the interface of this name may be used."""
        if not self.names:
            return True
        hit = interface in self.names if self.exact else interface.startswith(self.names)
        return hit != self.exclude


def _interfaces(text: str) -> InterfaceFilter:
    names = text.lstrip("^=")
    marks = text[: len(text) - len(names)]
    chosen = tuple(name.strip() for name in names.split(",") if name.strip())
    if marks not in ("", "^", "=", "^=") or (marks and not chosen):
        raise ValueError("expected names such as `eth,ib`, `=eth0` or `^docker,lo`")
    return InterfaceFilter(chosen, exact="=" in marks, exclude="^" in marks)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise ValueError("expected names with one comma between them")
    return names


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise ValueError("expected a positive number of seconds")
    return seconds


def _count(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ValueError("expected a whole number, 0 or more")
    return int(text)


@dataclass(frozen=True)
class Wishes:
    """How algorithms shall be chosen.

    Attributes:
        names: what to use: pairs of a collective ("" for any that has it) and an algorithm.
        table: the path of a tuning table; "": the user's own, if there is one.
        confirm: whether calls try the best candidates before they settle.
    """

    names: tuple[tuple[str, str], ...] = ()
    table: str = ""
    confirm: bool = False


def _wishes(text: str) -> Wishes:
    clauses = [clause.strip() for clause in text.split(";") if clause.strip()]
    tables = [clause[1:].strip() for clause in clauses if clause.startswith("@")]
    if len(tables) > 1 or "" in tables:
        raise ValueError("expected the path of one table after @")
    asked = [clause for clause in clauses if clause != "confirm" and not clause.startswith("@")]
    return Wishes(tuple(map(_wish, asked)), "".join(tables), "confirm" in clauses)


def _wish(clause: str) -> tuple[str, str]:
    """Return the collective and the name, which may have colons within brackets: allreduce:packed(torus:4x4)."""
    head, bracket, inside = clause.partition("(")
    collective, _, name = head.rpartition(":")
    return collective.strip(), (name + bracket + inside).strip()


def _level(text: str) -> str:
    levels = ("NONE", "VERSION", "WARN", "INFO", "TRACE")
    if text.upper() not in levels:
        raise ValueError(f"expected one of {', '.join(levels)}")
    return text.upper()


def _network(text: str) -> str:
    if text not in ("auto", "fresh", "off"):
        raise ValueError("expected auto, fresh or off")
    return text


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("expected 0 or 1")
    return text == "1"


def _endpoint(text: str) -> str:
    bare = text.removeprefix("hub+")
    if not text or (bare.startswith("ipc://") and len(bare) > 6):
        return text
    host, _, port = bare.removeprefix("tcp://").rpartition(":")
    if not bare.startswith("tcp://") or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("expected tcp://HOST:PORT")
    if host.lower().startswith("[fe80:") and "%" not in host:
        raise ValueError("a link-local address needs this host's interface: tcp://[fe80::1%eth0]:PORT")
    return text


COUNT = Kind("whole number", _count)
TEXT = Kind("text", str)
FILE = Kind("path of a file", str)
SWITCH = Kind("0 or 1", _switch)

RANK = Knob("PYCOMM_RANK", COUNT, "", "this process's rank, 0 to size - 1; a launcher sets it", in_files=False)
SIZE = Knob("PYCOMM_SIZE", COUNT, "", "the number of ranks; a launcher sets it", in_files=False)
JOB = Knob("PYCOMM_JOB", TEXT, "", "any text that tells this run from others that share its secret and rendezvous")
RENDEZVOUS = Knob(
    "PYCOMM_RENDEZVOUS",
    Kind("address", _endpoint),
    "",
    "tcp://HOST:PORT on rank 0's host, where ranks meet (hub+... if a hub already serves there)",
)
SECRET_FILE = Knob(
    "PYCOMM_SECRET_FILE", FILE, "", "file with the job's secret, 16 bytes or more, not readable by others"
)
SECRET = Knob(
    "PYCOMM_SECRET", TEXT, "", "the job's secret itself; PYCOMM_SECRET_FILE is safer", private=True, in_files=False
)
TRANSPORTS = Knob(
    "PYCOMM_TRANSPORTS",
    Kind("names", _names),
    "shm,tcp",
    "transports that may be used; the first that reaches a peer wins",
)
TIMEOUT = Knob(
    "PYCOMM_TIMEOUT",
    Kind("seconds", _seconds),
    "300",
    "seconds that any call may take before it raises DeadlineExceeded",
)
SOCKET_IFNAME = Knob(
    "PYCOMM_SOCKET_IFNAME", Kind("interfaces", _interfaces), "",
    "interfaces to use: `eth,ib` prefixes, `=eth0` exact, `^docker,lo` others",
    fallbacks=("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"),
)  # fmt: skip
ALGO = Knob(
    "PYCOMM_ALGO",
    Kind("wishes", _wishes),
    "",
    "the algorithm to use, such as `ring` or `allreduce:ring;broadcast:binomial`; `@PATH`: a tuning table; "
    "`confirm`: try the best candidates first",
)
NETWORK = Knob(
    "PYCOMM_NETWORK",
    Kind("one word", _network),
    "auto",
    "what is between hosts: `auto` measures it once a day, `fresh` measures it now, `off` takes all links to be alike",
)
ENCRYPT = Knob(
    "PYCOMM_ENCRYPT",
    SWITCH,
    "0",
    "1: connections between hosts are encrypted (AES-256-GCM, OpenSSL's); the same on all ranks",
)
TORCH_AS_GLOO = Knob("PYCOMM_TORCH_AS_GLOO", SWITCH, "0", "1: torch's gloo is pycomm, in programs that ask for gloo")
LAB = Knob(
    "PYCOMM_LAB", FILE, "", "the hosts of `pycomm lab`, which sets it; `pycomm run` starts its ranks there",
    in_files=False,
)  # fmt: skip
MPI_REPORT = Knob("PYCOMM_MPI_REPORT", SWITCH, "0", "1: `pycomm mpirun` says at the end what ran where")
PYTHON = Knob(
    "PYCOMM_PYTHON",
    FILE,
    "python3",
    "the Python that serves programs without Python; `pycomm run` and `pycomm mpirun` set it",
)
DEBUG = Knob("PYCOMM_DEBUG", Kind("one word", _level), "WARN", "how much to say: NONE, VERSION, WARN, INFO or TRACE")

KNOBS: tuple[Knob[Any], ...] = (
    RANK, SIZE, JOB, RENDEZVOUS, SECRET_FILE, SECRET, TRANSPORTS, TIMEOUT, SOCKET_IFNAME, ALGO, NETWORK, ENCRYPT,
    TORCH_AS_GLOO, LAB, MPI_REPORT, PYTHON, DEBUG,
)  # fmt: skip


@functools.cache
def _settings_of(path: Path) -> Mapping[str, conf.Line]:
    """Return the settings in a file, after it was checked that they are some, and may stand in one."""
    known = {knob.name: knob for knob in KNOBS}
    found = conf.read(path)
    for name, line in found.items():
        if name not in known:
            import difflib  # here: nobody else needs it

            near = difflib.get_close_matches(name, known, 1)
            raise LaunchError(
                f"{path}:{line.number}: {name} is no setting of pycomm"
                f"{f'; is {near[0]} meant?' if near else ': `pycomm info` lists them'}"
            )
        if not known[name].in_files:
            raise LaunchError(f"{path}:{line.number}: {name} may not stand in a file: {known[name].help}")
    return found
