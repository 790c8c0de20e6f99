"""What torch's distributed debug level brings into the log: a line for each group; at DETAIL one for each operation."""

from __future__ import annotations

import io
import logging
import re

import pytest
import torch
import torch.distributed as dist
from ranks import Ranks

from pycomm.torch.logs import log

SIZE = 2


def lines_of_a_new_group():
    dist.set_debug_level_from_env()  # which torch has done when it was imported, before this rank was forked
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    log.addHandler(handler)
    try:
        group = dist.new_group([1, 0])
        x = torch.ones(3)
        dist.all_reduce(x, group=group)
        work = dist.broadcast(x, 1, group=group, async_op=True)
        work.wait()
        if dist.get_rank() == 0:
            dist.send(x, 1, group, tag=5)
        else:
            dist.recv(x, 0, group, tag=5)
        name = group.group_name
    finally:
        log.removeHandler(handler)
    return heard.getvalue().replace(f"group {name}:", "group G:").replace(f"group={name} ", "group=G ").splitlines()


def run(**env: str):
    with Ranks(SIZE, env=env) as ranks:
        return ranks(lines_of_a_new_group)


@pytest.mark.parametrize(("level", "lines"), (("OFF", 0), ("INFO", 1), ("DETAIL", 4)))
def test_debug_level(level, lines):
    for rank, heard in enumerate(run(TORCH_DISTRIBUTED_DEBUG=level)):
        assert len(heard) == lines, heard
        if lines:
            first = r"group G: rank \d of 2, ranks \[\d, \d\] of the default group, over shm, timeout 1800 s.*"
            assert re.fullmatch(first, heard[0]), heard
        if lines > 1:
            algorithm = r"algorithm=\w+ slices=1 operation={} transport=shm"
            assert re.fullmatch("allreduce group=G bytes=12 " + algorithm.format(0), heard[1]), heard
            assert re.fullmatch("broadcast group=G bytes=12 " + algorithm.format(1), heard[2]), heard
            message = r"(send|recv) group=G bytes=12 peer=\d tag=5 transport=shm"
            assert re.fullmatch(message, heard[3])[1] == ("send", "recv")[rank]
