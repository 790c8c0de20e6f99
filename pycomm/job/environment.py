"""How this process was started: which rank of how many it is, and where and with which secret the ranks meet."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pycomm import knobs
from pycomm.errors import InvalidArgument, LaunchError
from pycomm.job import host, publication
from pycomm.job.keys import derive

_MAKE_SECRET = (
    "head -c 32 /dev/urandom > FILE; chmod 600 FILE; set PYCOMM_SECRET_FILE=FILE, with the same bytes on every host"
)


@dataclass(frozen=True)
class Placement:
    """What the environment says about this process, before any rank has met another.

    Attributes:
        rank, size: this process and how many there are.
        local_rank, local_size: the same within the host, as the launcher sees it; hints only. A local_size of 0 is
            unknown.
        launcher: who said so: "pycomm", "torchrun", "openmpi", "pmix", "pmi", "slurm", "pals", "arguments" or "none".
        job: texts that, with the launcher's process, tell this job from all others on the host.
        variable: the variable that holds the rank.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    launcher: str
    job: tuple[str, ...] = ()
    variable: str = ""


@dataclass(frozen=True)
class Job:
    """A process's place in a job whose ranks can meet.

    Attributes:
        rank, size, local_rank, local_size, launcher: as in Placement; local_size is at least 1.
        endpoint: where the hub listens: ipc://@NAME (an abstract unix socket) or tcp://HOST:PORT. Empty for one rank.
        secret: what all ranks of this job know and nobody else does.
        job_id: 64 bits, never 0, the same on all ranks and different for each job and each elastic restart.
        hub: the rank that runs the hub, -1 if the launcher does.
        published: the file by which the other ranks find this one, to be withdrawn when they have.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    endpoint: str
    secret: bytes = field(repr=False)
    job_id: int
    launcher: str
    hub: int = 0
    published: Path | None = None


@dataclass(frozen=True)
class _Launcher:
    """The variables that one kind of launcher sets; the first that is present counts."""

    name: str
    rank: str
    size: tuple[str, ...]
    local_rank: tuple[str, ...] = ()
    local_size: tuple[str, ...] = ()
    job: tuple[str, ...] = ()
    # Whether a size without a rank means that something was lost; else the variable is there for another reason.
    strict: bool = True


_SLURM_JOB = ("SLURM_JOB_ID", "SLURM_STEP_ID")
_LAUNCHERS = (
    _Launcher("pycomm", "PYCOMM_RANK", ("PYCOMM_SIZE",), ("LOCAL_RANK",), ("LOCAL_WORLD_SIZE",)),
    _Launcher(
        "torchrun", "RANK", ("WORLD_SIZE",), ("LOCAL_RANK",), ("LOCAL_WORLD_SIZE",),
        ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"),
    ),
    _Launcher(
        "openmpi", "OMPI_COMM_WORLD_RANK", ("OMPI_COMM_WORLD_SIZE",),
        ("OMPI_COMM_WORLD_LOCAL_RANK",), ("OMPI_COMM_WORLD_LOCAL_SIZE",), ("PMIX_NAMESPACE",),
    ),
    _Launcher(
        "pmix", "PMIX_RANK", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "PMI_SIZE"),
        ("SLURM_LOCALID", "PALS_LOCAL_RANKID"), ("PALS_LOCAL_SIZE",), ("PMIX_NAMESPACE", *_SLURM_JOB), strict=False,
    ),
    _Launcher(
        "pmi", "PMI_RANK", ("PMI_SIZE",),
        ("MPI_LOCALRANKID", "PMI_LOCAL_RANK", "PALS_LOCAL_RANKID", "SLURM_LOCALID"),
        ("MPI_LOCALNRANKS", "PMI_LOCAL_SIZE", "PALS_LOCAL_SIZE"), ("PALS_APID", *_SLURM_JOB),
    ),
    _Launcher(
        "slurm", "SLURM_PROCID", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), ("SLURM_LOCALID",), (), _SLURM_JOB,
        strict=False,
    ),
    _Launcher(
        "pals", "PALS_RANKID", ("PALS_SIZE", "PMI_SIZE"), ("PALS_LOCAL_RANKID",), ("PALS_LOCAL_SIZE",), ("PALS_APID",),
        strict=False,
    ),
)  # fmt: skip


def recognise(env: Mapping[str, str] | None = None) -> Placement:
    """Return this process's placement as its launcher tells it; a process without a launcher is a job of one rank.

    The order is pycomm's own variables, torchrun's, Open MPI's, PMIx's, PMI's (MPICH, Intel MPI), Slurm's, PALS's.
    Raises LaunchError, naming the variable to set, if what is found is partial, malformed or contradictory.
    """
    env = os.environ if env is None else env
    for launcher in _LAUNCHERS:
        if launcher.rank in env and not (launcher.name == "slurm" and _is_batch_script(env)):
            return _placement(launcher, env)
        stray = next((name for name in launcher.size if name in env), None)
        if launcher.strict and stray:
            raise LaunchError(f"{stray}={env[stray]} is set and {launcher.rank} is not: set both, or neither")
    return Placement(0, 1, 0, 1, "none")


def _is_batch_script(env: Mapping[str, str]) -> bool:
    # sbatch runs the script itself with the rank 0 and the task count of a step that does not exist yet.
    return env["SLURM_PROCID"] == "0" and not (env.get("SLURM_STEP_ID") or env.get("SLURM_STEPID"))


def _placement(launcher: _Launcher, env: Mapping[str, str]) -> Placement:
    size_name = next((name for name in launcher.size if name in env), None)
    if size_name is None:
        advice = "PYCOMM_RANK and PYCOMM_SIZE" if launcher.name in ("pmix", "pals") else launcher.size[0]
        raise LaunchError(f"{launcher.rank}={env[launcher.rank]} is set but the number of ranks is not: set {advice}")
    rank, size = _whole(env, launcher.rank), _whole(env, size_name)
    _check_below(rank, launcher.rank, size, size_name)
    local_rank_name = next((name for name in launcher.local_rank if name in env), None)
    local_size_name = next((name for name in launcher.local_size if name in env), None)
    local_rank = _whole(env, local_rank_name) if local_rank_name else 0
    local_size = _whole(env, local_size_name) if local_size_name else _slurm_local_size(launcher.name, size, env)
    if local_rank_name and local_size_name:
        _check_below(local_rank, local_rank_name, local_size, local_size_name)
    if local_size > size:
        raise LaunchError(f"{local_size_name}={local_size} and {size_name}={size} contradict each other: set both anew")
    job = tuple(f"{name}={env[name]}" for name in launcher.job if name in env)
    return Placement(rank, size, local_rank, local_size, launcher.name, job, launcher.rank)


def _whole(env: Mapping[str, str], name: str) -> int:
    text = env[name].strip()
    if not (text.isascii() and text.isdigit()):
        raise LaunchError(f"{name}={text!r} is not a whole number, 0 or more")
    return int(text)


def _check_below(rank: int, rank_name: str, size: int, size_name: str) -> None:
    if rank >= size:
        raise LaunchError(f"{rank_name}={rank} and {size_name}={size} contradict each other: a rank is below the size")


def _slurm_local_size(launcher: str, size: int, env: Mapping[str, str]) -> int:
    """Return how many ranks Slurm put on this node, 0 if it did not say; its text is like `2(x3),1`."""
    if launcher not in ("slurm", "pmix", "pmi"):
        return 0
    text = env.get("SLURM_STEP_TASKS_PER_NODE") or env.get("SLURM_TASKS_PER_NODE", "")
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if not found:
            return 0
        counts += [int(found[1])] * int(found[2] or 1)
    node = env.get("SLURM_NODEID", "0")
    index = int(node) if node.isdigit() else 0
    return counts[index] if sum(counts) == size and index < len(counts) else 0


def join(
    rank: int | None = None,
    size: int | None = None,
    endpoint: str | None = None,
    secret: bytes | None = None,
    timeout: float = 60.0,
) -> Job:
    """Return this process's Job, ready for a Rendezvous; the environment fills what is not given.

    Call it once for each Rendezvous, on every rank, and exchange before the next. On one host and with nothing
    configured, rank 0 publishes a file that the others wait for, `timeout` seconds at most. On several hosts the secret
    must be given, and the endpoint too, except that under torchrun it is tcp://MASTER_ADDR:P and under Slurm
    tcp://FIRST_NODE:P, where P is 20000 to 29999 and follows from the job's identity. MASTER_PORT itself belongs to
    torch's store and is never bound.

    Raises LaunchError naming the variable to set, InvalidArgument if only one of rank and size is given.
    """
    if (rank is None) != (size is None):
        raise InvalidArgument("give both rank and size, or neither")
    if rank is None or size is None:
        place = recognise()
    else:
        if not 0 <= rank < size:
            raise InvalidArgument(f"rank {rank} is not in 0 to size - 1, with size {size}")
        place = Placement(rank, size, 0, 0, "arguments")
    given = secret if secret is not None else _given_secret()
    endpoint = endpoint or knobs.RENDEZVOUS.value()
    label = "|".join((place.launcher, *place.job, knobs.JOB.value(), str(place.size)))
    if place.size == 1:
        return _job(place, "", given or os.urandom(32), label)
    if endpoint:
        if given is None:
            raise LaunchError(f"ranks that meet at {endpoint} need a shared secret: {_MAKE_SECRET}")
        if endpoint.startswith("hub+"):
            # The hub's owner made the secret for this job alone, so that nothing else need tell the job from others.
            return _job(place, endpoint.removeprefix("hub+"), given, "", hub=-1)
        return _job(place, endpoint, given, label)
    if place.launcher in ("arguments", "pycomm"):
        raise LaunchError("rank and size are given but not where the ranks meet: set PYCOMM_RENDEZVOUS=tcp://HOST:PORT")
    if not _on_one_host(place):
        return _job(place, _derived_endpoint(place, label, given), given or b"", label)
    return _meet_on_host(place, given, label, timeout)


def _job(
    place: Placement, endpoint: str, secret: bytes, label: str, hub: int = 0, published: Path | None = None
) -> Job:
    return Job(
        place.rank, place.size, place.local_rank, place.local_size or 1, endpoint, secret,
        job_id_of(secret, endpoint, label), place.launcher, hub, published,
    )  # fmt: skip


def job_id_of(secret: bytes, endpoint: str, label: str = "") -> int:
    """Return the 64-bit identity of the job with this secret and endpoint; a label tells apart jobs that share both."""
    where = re.sub(r"%[^]]*", "", endpoint)  # of a link-local address: each host has its own name of the interface
    return int.from_bytes(derive(secret, f"job id: {label}|{where}", 8), "big") or 1


def _meet_on_host(place: Placement, given: bytes | None, label: str, timeout: float) -> Job:
    launcher = host.launcher_of(place.variable)
    identity = f"{label}|{launcher} {host.start_time(launcher)}|{host.node_identity()}"
    name = f"{place.launcher}-{derive(b'name', identity, 12).hex()}"
    published = None
    if place.rank == 0:
        meeting, published = publication.publish(name)
    else:
        meeting = publication.find(name, timeout)
    secret = derive(given, f"meeting: {meeting.nonce.hex()}") if given else meeting.nonce
    return _job(place, meeting.endpoint, secret, label, published=published)


def _on_one_host(place: Placement) -> bool:
    if place.local_size:
        return place.local_size == place.size
    master = os.environ.get("MASTER_ADDR", "")
    return not (place.launcher == "torchrun" and master and not host.is_local(master))


def _derived_endpoint(place: Placement, label: str, secret: bytes | None) -> str:
    address = ""
    if place.launcher == "torchrun":
        address = os.environ.get("MASTER_ADDR", "")
    elif place.launcher in ("slurm", "pmix", "pmi"):
        address = first_node(os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST", ""))
    needs = [] if secret else [f"a shared secret ({_MAKE_SECRET})"]
    if not address:
        needs.insert(0, "a place to meet (set PYCOMM_RENDEZVOUS=tcp://HOST:PORT, with rank 0's host)")
    if needs:
        here = f"{place.local_size} of {place.size} ranks" if place.local_size else "not all ranks"
        raise LaunchError(f"the job spans several hosts ({here} are on this one), so it needs {' and '.join(needs)}")
    port = 20000 + int.from_bytes(derive(secret or b"", f"port: {label}", 4), "big") % 10000
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"


def first_node(nodelist: str) -> str:
    """Return the first host of a Slurm node list, such as `n01` of `n[01-04,7],gpu3`."""
    found = re.match(r"([^\[,]*)(?:\[([^\]]*)\])?([^,\[]*)", nodelist)
    if not found or not nodelist:
        return ""
    first = re.split("[-,]", found[2])[0] if found[2] else ""
    return found[1] + first + found[3]


def _given_secret() -> bytes | None:
    path = knobs.SECRET_FILE.value()
    if path:
        name, secret = f"PYCOMM_SECRET_FILE={path}", _read_secret(Path(path))
    elif text := knobs.SECRET.value():
        name, secret = "PYCOMM_SECRET", text.encode()
    else:
        return None
    if len(secret) < 16:
        raise LaunchError(f"{name} holds {len(secret)} bytes; a secret has 16 or more: {_MAKE_SECRET}")
    return secret


def _read_secret(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o007:
                raise LaunchError(
                    f"PYCOMM_SECRET_FILE={path} is open to every user: make a new secret and chmod 600 it"
                )
            # An editor's last newline must not make two hosts disagree.
            return file.read().rstrip(b"\r\n")
    except OSError as why:
        raise LaunchError(f"PYCOMM_SECRET_FILE={path} cannot be read: {why.strerror}") from why
