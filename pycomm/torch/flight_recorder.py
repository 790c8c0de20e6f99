"""The flight recorder's operations as torch dumps its own, so that `torchfrtrace` finds the rank that made no call."""

from __future__ import annotations

import os
import pickle
import threading
import time
import weakref
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument
from .logs import log

_FORMAT = "2.10"  # of torch 2.13; see torch/csrc/distributed/c10d/FlightRecorder.hpp
_STATES = {"done": "completed", "under way": "started", "failed": "started"}
# What the analyzer knows the collectives as, where blocks are equal and where they are not.
_NAMES = {
    "allreduce": ("all_reduce", "all_reduce"),
    "reduce": ("reduce", "reduce"),
    "broadcast": ("broadcast", "broadcast"),
    "allgather": ("all_gather", "all_gather_v"),
    "reduce_scatter": ("reduce_scatter", "reduce_scatter_v"),
    "gather": ("gather", "gather"),
    "scatter": ("scatter", "scatter"),
    "alltoall": ("all_to_all", "all_to_all_v_single"),
    "barrier": ("barrier", "barrier"),
}
_INPUT_OF_ALL, _OUTPUT_OF_ALL = ("reduce_scatter", "scatter", "alltoall"), ("allgather", "gather", "alltoall")

groups: weakref.WeakSet[Any] = weakref.WeakSet()  # the process groups that live


def dump_flight_recorder(prefix: str | os.PathLike[str] | None = None) -> Path:
    """Write the latest collectives of this rank's process groups for `torchfrtrace`; return the file.

    Every rank writes its own; then `torchfrtrace DIRECTORY` compares them. With TORCH_NCCL_DUMP_ON_TIMEOUT=1 a rank
    does so by itself when a call times out, a peer is lost, or ranks disagree. Messages are not recorded. The analyzer
    does not know pycomm's name, so operations are called gloo:all_reduce and so on.

    Args:
        prefix: of the file's path, to which the rank is appended; None: TORCH_FR_DUMP_TEMP_FILE, else
            TORCH_NCCL_DEBUG_INFO_TEMP_FILE, else torch's own, comm_lib_trace_rank_ in ~/.cache/torch.

    Raises:
        InvalidArgument: there is no process group of pycomm. OSError: the file cannot be written.
    """
    living = sorted(groups, key=lambda group: (bool(group.ranks), group.group_name))  # the default group first
    if not living:
        raise InvalidArgument("there is no process group of pycomm to dump: call init_process_group first")
    first = living[0]
    rank = first.ranks[first.getRank()] if first.ranks else first.getRank()
    path = Path(f"{_prefix() if prefix is None else os.fspath(prefix)}{rank}")
    path.parent.mkdir(parents=True, exist_ok=True)
    # The analyzer takes whatever has the prefix for a whole file.
    unfinished = path.with_name(f".pycomm-{os.getpid()}-{threading.get_ident()}.part")
    unfinished.write_bytes(pickle.dumps(_dump(living)))
    return unfinished.replace(path)


def dump_if_asked() -> None:
    """Dump after an error, if the environment asks for it as torch's backends are asked; never raises."""
    if os.environ.get("TORCH_NCCL_DUMP_ON_TIMEOUT", "").lower() not in ("1", "true", "yes", "y", "on"):
        return
    try:
        dump_flight_recorder()
    except (InvalidArgument, OSError) as error:
        log.warning("the flight recorder cannot be dumped: %s", error)


def _prefix() -> str:
    for name in ("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE"):
        if os.environ.get(name):
            return os.environ[name]
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return str(Path(cache) / "torch" / "comm_lib_trace_rank_")


def _dump(living: list[Any]) -> dict[str, Any]:
    now = time.time_ns()
    entries = [
        _entry(place, group, record, now) for place, group in enumerate(living) for record in group.engine.comm.trace()
        if record["collective"] in _NAMES
    ]  # fmt: skip
    entries.sort(key=lambda entry: entry["record_id"])
    return {
        "version": _FORMAT,
        "comm_lib_version": f"pycomm {version('pycomm')}",
        "pg_config": {group.group_name: _config(group) for group in living},
        "pg_status": {str(place): _status(entries, place) for place in range(len(living))},
        "entries": entries,
    }


def _config(group: Any) -> dict[str, str]:
    ranks = list(group.ranks) or list(range(group.getSize()))
    return {"name": group.group_name, "desc": group.group_desc, "ranks": str(ranks)}


def _status(entries: list[dict[str, Any]], place: int) -> dict[str, int]:
    own = [entry for entry in entries if entry["pg_id"] == place]
    last = own[-1]["collective_seq_id"] if own else -1
    ended = max((e["collective_seq_id"] for e in own if e["state"] == "completed"), default=-1)
    return {
        "last_enqueued_collective": last,
        "last_started_collective": last,
        "last_completed_collective": ended,
    }


def _entry(place: int, group: Any, record: dict[str, Any], now: int) -> dict[str, Any]:
    collective, count, size = record["collective"], record["count"], group.getSize()
    uneven = count is None
    own = [] if uneven else [count * (size if collective in _INPUT_OF_ALL else 1)]
    out = [] if uneven else [count * (size if collective in _OUTPUT_OF_ALL else 1)]
    created, state = now - int(record["age_s"] * 1e9), _STATES[record["state"]]
    ended = state == "completed"
    return {
        "record_id": record["record"],
        "pg_id": place,
        "process_group": (group.group_name, group.group_desc),
        "collective_seq_id": record["operation"],
        "p2p_seq_id": 0,
        "op_id": record["operation"],
        "profiling_name": f"gloo:{_NAMES[collective][uneven]}",
        "input_sizes": [own],
        "input_dtypes": [record["dtype"]],
        "output_sizes": [out],
        "output_dtypes": [record["dtype"]],
        "state": state,
        "time_created_ns": created,
        "time_discovered_started_ns": created,
        "time_discovered_completed_ns": created + int(record["duration_us"] * 1e3) if ended else None,
        "duration_ms": record["duration_us"] / 1e3 if ended else None,
        "timeout_ms": int(group.options._timeout.total_seconds() * 1e3),
        "retired": record["state"] != "under way",
        "is_p2p": False,
        "frames": [],
    }
