"""The flight recorder's dumps, read by torch's own analyzer: it must name the rank that did not make a call."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from ranks import Ranks

import pycomm.torch
from pycomm.errors import DeadlineExceeded, InvalidArgument

SIZE = 3


def analyzed(place, *options: str) -> str:
    command = [sys.executable, "-m", "torch.distributed.flight_recorder.fr_trace", str(place), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def call_all():
    size = dist.get_world_size()
    x, rooms = torch.ones(4), [torch.empty(4) for _ in range(dist.get_world_size())]
    uneven = [torch.empty(r + 1) for r in range(size)]
    dist.all_reduce(x)
    dist.reduce(x, 0)
    dist.broadcast(x, 1)
    dist.all_gather(rooms, x)
    dist.all_gather(uneven, torch.ones(dist.get_rank() + 1))
    dist.gather(x, rooms if dist.get_rank() == 0 else None, 0)
    dist.scatter(x, rooms if dist.get_rank() == 0 else None, 0)
    dist.reduce_scatter_tensor(x, torch.ones(4 * size))
    dist.all_to_all(rooms, [x] * size)
    dist.all_to_all_single(torch.empty(2 * size), torch.ones(2 * size), [2] * size, [2] * size)
    dist.barrier()


def dump_after(calls, place):
    calls()
    pair = dist.new_group([0, 2], group_desc="pair")
    if dist.get_rank() != 1:
        dist.all_reduce(torch.ones(7, dtype=torch.int32), group=pair)
    return pycomm.torch.dump_flight_recorder(place / "rank_")


def time_out(told):
    """Ranks 0 and 2 wait in vain for rank 1 to make the third allreduce; it dumps by itself, if it is told to."""
    x = torch.ones(5)
    dist.all_reduce(x)
    dist.all_reduce(x)
    if dist.get_rank() == 1:
        return pycomm.torch.dump_flight_recorder() if told else None
    dist.distributed_c10d._get_default_group().set_timeout(timedelta(seconds=1))
    with pytest.raises(DeadlineExceeded):
        dist.all_reduce(x)


def test_calls_that_fit_are_found_to_fit(tmp_path):
    with Ranks(SIZE) as ranks:
        assert [path.name for path in ranks(dump_after, call_all, tmp_path)] == ["rank_0", "rank_1", "rank_2"]
    dump = pickle.loads((tmp_path / "rank_2").read_bytes())
    assert {config["desc"]: config["ranks"] for config in dump["pg_config"].values()} == {
        "default_pg": "[0, 1, 2]", "pair": "[0, 2]",
    }  # fmt: skip
    default, pair = (
        [entry for entry in dump["entries"] if entry["process_group"][1] == desc] for desc in ("default_pg", "pair")
    )
    assert [entry["collective_seq_id"] for entry in default] == list(range(len(default)))
    assert {entry["state"] for entry in dump["entries"]} == {"completed"}
    assert (pair[0]["input_sizes"], pair[0]["input_dtypes"]) == ([[7]], ["int32"])
    assert 0 <= time.time_ns() - pair[0]["time_created_ns"] < 60e9
    said = analyzed(tmp_path, "-o", str(tmp_path / "found"))
    assert "Not all ranks" not in said and "has errors" not in said, said
    _, found = pickle.loads((tmp_path / "found").read_bytes())
    assert all(call.pass_check for call in found.collectives)
    assert {call.collective_name.removeprefix("gloo:") for call in found.collectives} == {
        "all_reduce", "reduce", "broadcast", "all_gather", "all_gather_v", "gather", "scatter", "reduce_scatter",
        "all_to_all_v_single", "barrier",
    }  # fmt: skip


def test_the_rank_that_did_not_come_is_named(tmp_path):
    env = {"TORCH_NCCL_DUMP_ON_TIMEOUT": "1", "TORCH_FR_DUMP_TEMP_FILE": f"{tmp_path}/deep/rank_"}
    with Ranks(SIZE, env=env) as ranks:
        ranks(time_out, True)
    said = analyzed(tmp_path / "deep")
    assert "Not all ranks joining collective, sequence number: 2" in said, said
    assert "missing ranks: {1}" in said, said


def test_a_rank_that_is_stuck_dumps_nothing_and_is_named_too(tmp_path):
    env = {"TORCH_NCCL_DUMP_ON_TIMEOUT": "1", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE": f"{tmp_path}/rank_"}
    with Ranks(SIZE, env=env) as ranks:
        ranks(time_out, False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rank_0", "rank_2"]
    assert "we missed FR dumps from ranks ({1})" in analyzed(tmp_path, "--allow-incomplete-ranks")


def test_nothing_is_dumped_unasked(tmp_path):
    with Ranks(SIZE, env={"TORCH_FR_DUMP_TEMP_FILE": f"{tmp_path}/rank_"}) as ranks:
        ranks(time_out, False)
    assert not list(tmp_path.iterdir())


def test_without_a_group_there_is_nothing_to_dump(tmp_path):
    with pytest.raises(InvalidArgument, match="init_process_group"):
        pycomm.torch.dump_flight_recorder(tmp_path / "rank_")
