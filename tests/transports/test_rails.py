"""tcp between two hosts of a laboratory that two links join: both are used; either may slow, fail and come back."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pycomm.lab import Lab

SECONDS = 60  # for everything that a test waits for
FIRST, SECOND, BRIDGE = "10.77.0.1", "10.77.1.1", "172.17.0.1"  # rank 0's addresses

# After each allreduce rank 0 says what it is connected by; a line from the test makes the next one the last.
RANK = """
import json, sys, threading
import numpy as np
from pycomm import init

comm = init(timeout=20)
stop = threading.Event()
if comm.rank == 0:
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
wanted = np.zeros(1, np.int32)
data = np.empty(1 << 20, np.int32)
rounds = 0
while not wanted[0]:
    data[:] = np.arange(1 << 20) + comm.rank
    comm.Allreduce(data, data)
    assert (data == 2 * np.arange(1 << 20) + 1).all()
    rounds += 1
    if comm.rank == 0:
        print(json.dumps([[r["from"], r["to"], r["sent"], r["up"]] for r in comm._world.rails()]), flush=True)
        wanted[0] = stop.is_set()
    comm.Bcast(wanted)
print(json.dumps(["rounds", rounds]), flush=True)
"""


LAB = """
[[host]]
count = 2
nics = ["200Mbit", "100Mbit"]
delay = "20us"  # so that frames vanish without a sign where a cable is pulled
"""

# As on many hosts with containers: the same address on both.
BRIDGE0 = """
link add bridge0 type veth peer name container0
link set container0 up
address add 172.17.0.1/16 dev bridge0
link set bridge0 up
"""


@pytest.fixture
def lab(make_lab: Callable[[str], Lab]) -> Lab:
    """Two hosts, with 200 Mbit/s on rail 0 and 100 Mbit/s on rail 1."""
    lab = make_lab(LAB)
    for host in range(2):
        with lab.network(host):
            subprocess.run(["ip", "-batch", "-"], input=BRIDGE0, text=True, timeout=20, check=True)
    return lab


class Job:
    """Two ranks, one on each host, that reduce until they are told to stop, and check what they get."""

    def __init__(self, lab: Lab, folder: Path, stack: contextlib.ExitStack) -> None:
        (folder / "rank.py").write_text(RANK)
        environment = {
            **os.environ, "PYCOMM_RENDEZVOUS": f"tcp://{FIRST}:5555", "PYCOMM_SIZE": "2", "PYCOMM_SECRET": "s" * 32,
            "PYCOMM_TRANSPORTS": "tcp", "PYCOMM_LAB": lab.state,
        }  # fmt: skip
        ssh = Path(sysconfig.get_path("scripts")) / "pycomm-lab-ssh"
        self.ranks = [
            stack.enter_context(subprocess.Popen(
                [ssh, host.name, f"exec {sys.executable} {folder / 'rank.py'}"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                env={**environment, "PYCOMM_RANK": str(rank)}, text=True,
            ))
            for rank, host in enumerate(lab.model.hosts)
        ]  # fmt: skip
        for rank in self.ranks:
            stack.callback(rank.kill)

    def until(self, met: Callable[[dict[str, tuple[int, int]]], bool]) -> None:
        """Wait for a round after which the rails, by rank 0's address, are as wanted: (bytes sent, connections up)."""
        for line in self.ranks[0].stdout or ():
            rails: dict[str, tuple[int, int]] = {}
            rows: list[Any] = json.loads(line)
            for own, _, sent, up in rows:
                host = own.partition(":")[0]
                before = rails.get(host, (0, 0))
                rails[host] = (before[0] + sent * up, before[1] + up)
            if met(rails):
                return
        pytest.fail(f"rank 0 has ended: {[rank.poll() for rank in self.ranks]}")

    def end(self) -> None:
        """Have the ranks stop, which must have gone well."""
        stdin = self.ranks[0].stdin
        assert stdin
        stdin.write("stop\n")
        stdin.flush()
        for rank in self.ranks:
            rank.communicate(timeout=SECONDS)
            assert rank.returncode == 0


@pytest.mark.timeout(SECONDS)
def test_two_links(lab: Lab, tmp_path: Path) -> None:
    """Both carry their part; one that slows, fails or comes back is taken for what it is, and nothing is lost."""
    with contextlib.ExitStack() as stack:
        job = Job(lab, tmp_path, stack)
        job.until(lambda rails: all(rails.get(own, (0, 0))[0] > 1 << 20 for own in (FIRST, SECOND)))
        lab.set_rate(0, 0, 2.5e6)
        job.until(lambda rails: rails[SECOND][0] > rails[FIRST][0])
        lab.set_rate(0, 0, 25e6)
        lab.down(0, 1)
        job.until(lambda rails: not rails[SECOND][1])
        lab.up(0, 1)
        job.until(lambda rails: rails[SECOND][1] == 2 and rails[SECOND][0] > 1 << 20)
        job.until(lambda rails: BRIDGE not in rails)
        job.end()
