"""What torch's profiler sees of pycomm: every operation under torch's name for it, and how it was run."""

from __future__ import annotations

import json
import re
import time
from collections import Counter

import pytest
import torch
import torch.distributed as dist
from ranks import Ranks
from torch.autograd import profiler as switch
from torch.profiler import ProfilerActivity, profile

SIZE = 2
FACTS = {"collective", "bytes", "algorithm", "slices", "transport", "group"}


def profiled(function, shapes=True):
    with profile(activities=[ProfilerActivity.CPU], record_shapes=shapes) as seen:
        function()
    return seen


def everything():
    """Call each operation once; return how often each event is to be seen."""
    x = torch.ones(3, 4)
    rank, size, peer = dist.get_rank(), dist.get_world_size(), 1 - dist.get_rank()
    rooms = [torch.empty(3, 4) for _ in range(size)]
    dist.all_reduce(x)
    dist.all_reduce_coalesced([x, x.clone()])
    dist.reduce(x, 0)
    dist.broadcast(x, 0)
    dist.all_gather(rooms, x)
    dist.all_gather_into_tensor(torch.empty(3 * size, 4), x)
    dist.gather(x, rooms if rank == 0 else None, 0)
    dist.scatter(x, rooms if rank == 0 else None, 0)
    dist.reduce_scatter(x, rooms)
    dist.reduce_scatter_tensor(x, torch.ones(3 * size, 4))
    dist.all_to_all(rooms, [x, x])
    dist.all_to_all_single(torch.empty(4, 4), torch.ones(4, 4))
    dist.barrier()
    dist.monitored_barrier()
    sent = dist.isend(x, peer)
    dist.recv(rooms[0], peer)
    sent.wait()
    sent = dist.isend(x, peer)
    dist.recv(rooms[0])
    sent.wait()
    return {"all_reduce": 2, "reduce": 1, "broadcast": 1, "all_gather": 2, "gather": 1, "scatter": 1,
            "reduce_scatter": 2, "all_to_all": 2, "barrier": 1, "monitored_barrier": 1, "send": 2, "recv": 1,
            "recvAnySource": 1}  # fmt: skip


def count_everything(backend):
    wanted = everything()  # what is done for the first time may do more
    events = profiled(everything).events()
    ours = [e for e in events if e.name.startswith(f"{backend}:")]
    assert Counter(e.name.split(":")[1] for e in ours) == wanted
    assert all(e.is_async for e in ours)
    shapes = {e.name.split(":")[1]: e.input_shapes for e in ours}
    assert shapes["broadcast"] == shapes["send"] == shapes["recvAnySource"] == [[3, 4]] and shapes["barrier"] == []


def facts_in_the_trace(place):
    x = torch.ones(1 << 18)
    path = place / f"trace-{dist.get_rank()}"
    profiled(lambda: (dist.all_reduce(x), dist.all_reduce(x[:4], async_op=True).wait())).export_chrome_trace(str(path))
    trace = json.loads(path.read_text())["traceEvents"]
    outer = [e for e in trace if e.get("name") == "pycomm:all_reduce"]
    large, small = (e for e in trace if e.get("name", "").startswith("pycomm ") and e["ph"] == "X")
    assert [e["args"]["Input Dims"] for e in outer] == [[[1 << 18]], [[4]]]
    assert large["args"].keys() >= FACTS and large["args"]["bytes"] == 1 << 20 and small["args"]["bytes"] == 16
    assert large["args"]["collective"] == "allreduce" and large["args"]["transport"] == "shm"
    for event in (large, small):
        assert event["name"] == f"pycomm {event['args']['algorithm']} over shm"
    assert outer[0]["ts"] <= large["ts"] and large["ts"] + large["dur"] <= outer[0]["ts"] + outer[0]["dur"]


def names_without_shapes():
    seen = profiled(lambda: dist.all_reduce(torch.ones(1 << 18)), shapes=False).events()
    names = {e.name for e in seen}
    assert "pycomm:all_reduce" in names
    assert any(re.fullmatch(r"pycomm \w+ over shm", name) for name in names)


def an_end_is_seen_before_anybody_waits():
    """Rank 1 comes late, and rank 0 waits still later: the event of rank 0 must have ended when rank 1 has come."""
    x = torch.ones(4)
    dist.barrier()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        if dist.get_rank():
            time.sleep(0.1)
        work = dist.all_reduce(x, async_op=True)
        time.sleep(0.4)
        work.wait()
    (event,) = [e for e in seen.events() if e.name == "pycomm:all_reduce"]
    assert event.cpu_time < 300_000, event.cpu_time
    if not dist.get_rank():
        assert event.cpu_time > 50_000, event.cpu_time


def a_message_that_waits_holds_up_no_other():
    """A rank that is profiled may wait for a later message first."""
    a, b = torch.zeros(4), torch.zeros(4)

    def exchange():
        if dist.get_rank() == 0:
            first, second = dist.irecv(a, 1, tag=1), dist.irecv(b, 1, tag=2)
            second.wait()
            dist.send(b, 1, tag=3)
            first.wait()
        else:
            dist.send(b + 2, 0, tag=2)
            dist.recv(b, 0, tag=3)
            dist.send(a + 1, 0, tag=1)

    events = profiled(exchange).events()
    assert sum(e.name in ("pycomm:send", "pycomm:recv") for e in events) == 3
    if dist.get_rank() == 0:
        assert a.tolist() == [1] * 4 and b.tolist() == [2] * 4


def an_error_ends_its_event():
    with profile(activities=[ProfilerActivity.CPU]) as seen, pytest.raises(ValueError, match="the root is"):
        dist.distributed_c10d._get_default_group().broadcast([torch.ones(1)], 7)
    assert [e.name for e in seen.events() if e.name.startswith("pycomm")] == ["pycomm:broadcast"]


def the_quick_path_is_back_after_the_profile():
    group, x = dist.distributed_c10d._get_default_group(), torch.ones(4)
    dist.all_reduce(x)
    taken = []
    quick, group._quick = group._quick, lambda *given: taken.append(given) or quick(*given)
    try:
        profiled(lambda: dist.all_reduce(x))
        assert not taken and not switch._is_profiler_enabled
        dist.all_reduce(x)
        assert len(taken) == 1
    finally:
        group._quick = quick


@pytest.mark.parametrize(
    "function",
    (
        names_without_shapes, an_end_is_seen_before_anybody_waits, a_message_that_waits_holds_up_no_other,
        an_error_ends_its_event, the_quick_path_is_back_after_the_profile,
    ),
)  # fmt: skip
def test_profile(pool, function):
    pool(SIZE)(function)


def test_every_operation_is_an_event(pool):
    pool(SIZE)(count_everything, "pycomm")


def test_in_gloos_name_the_events_have_it_too():
    with Ranks(SIZE, "gloo", {"PYCOMM_TORCH_AS_GLOO": "1"}) as ranks:
        ranks(count_everything, "gloo")


def test_a_trace_tells_bytes_algorithm_and_transport(pool, tmp_path):
    pool(SIZE)(facts_in_the_trace, tmp_path)
