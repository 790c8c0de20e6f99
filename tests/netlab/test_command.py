"""The command `pycomm lab`: ranks on all hosts, events, exit codes, and nothing that is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("possible")

LAB = '[[host]]\ncount = 3\nnics = ["1Gbit"]\ndelay = "0.1ms"\n'

RANK = r"""
import os, numpy as np
from pycomm import init
comm = init()
x = np.full(1000, comm.rank + 1.0)
comm.Allreduce(x, x)
assert (x == 21).all()
told = f"{comm.rank} {os.uname().nodename} {os.environ['LOCAL_RANK']} {comm.machine.hosts}"
os.write(1, f"{told}\n".encode())  # in one piece
"""


def _lab(text: str, folder: Path, *command: str) -> list[str]:
    (folder / "lab.toml").write_text(text)
    return [sys.executable, "-m", "pycomm", "lab", str(folder / "lab.toml"), "--", *command]


def _run(text: str, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _lab(text, folder, *command), capture_output=True, text=True, timeout=60, check=False, cwd=folder
    )


def test_ranks_live_on_the_hosts_and_add_up(tmp_path: Path) -> None:
    (tmp_path / "rank.py").write_text(RANK)
    done = _run(LAB, tmp_path, sys.executable, "-m", "pycomm", "run", "-n", "6", "rank.py")
    assert done.returncode == 0, done.stderr
    hosts = ((0, 1), (2, 3), (4, 5))
    assert sorted(done.stdout.splitlines()) == [f"{rank} host{rank // 2} {rank % 2} {hosts}" for rank in range(6)]


def test_the_command_decides_the_exit_code(tmp_path: Path) -> None:
    assert _run(LAB, tmp_path, "sh", "-c", "exit 7").returncode == 7
    assert _run(LAB, tmp_path, "sh", "-c", "kill -9 $$").returncode == 128 + 9
    done = _run(LAB, tmp_path, "no-such-program")
    assert done.returncode == 2 and "no-such-program: no such executable" in done.stderr


def test_other_hosts_are_reached_as_by_ssh(tmp_path: Path) -> None:
    ssh = Path(sysconfig.get_path("scripts")) / "pycomm-lab-ssh"
    done = _run(LAB, tmp_path, "sh", "-c", f"{ssh} -x host2 'hostname; exit 3'; echo $?; {ssh} nobody true")
    assert done.stdout == "host2\n3\n"
    assert done.returncode == 255 and "no host 'nobody': there are host0, host1, host2" in done.stderr


TRAINING = r"""
import os, torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("pycomm")
rank = dist.get_rank()
model = DistributedDataParallel(torch.nn.Linear(2, 1, bias=False))
model(torch.full((1, 2), rank + 1.0)).sum().backward()
assert model.module.weight.grad.tolist() == [[1.5, 1.5]]
over = dist.group.WORLD.engine.transports
os.write(1, f"{rank} {os.uname().nodename} {os.environ['LOCAL_RANK']} {over}\n".encode())
dist.destroy_process_group()
"""


def test_torchrun_trains_on_two_hosts(tmp_path: Path) -> None:
    """By the command of docs/lab.md."""
    pytest.importorskip("torch")
    (tmp_path / "train.py").write_text(TRAINING)
    ssh = Path(sysconfig.get_path("scripts")) / "pycomm-lab-ssh"
    run = f"{sys.executable} -m torch.distributed.run --nnodes 2 --nproc-per-node 1 --master-addr host0 --node-rank"
    command = f"{ssh} host1 '{run} 1 train.py' & {run} 0 train.py; code=$?; wait; exit $code"
    done = _run('[[host]]\ncount = 2\nnics = ["1Gbit"]\n', tmp_path, "sh", "-c", command)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0 host0 0 tcp", "1 host1 0 tcp"]


def test_events_happen(tmp_path: Path) -> None:
    """The command sees its host's carrier go and come back."""
    events = "".join(
        f'[[event]]\nat = {at}\nhost = "host"\nstate = "{state}"\n' for at, state in ((0.2, "down"), (0.7, "up"))
    )
    wait = "until [ $(cat /sys/class/net/eth0/carrier) = {} ]; do sleep 0.02; done; echo {}"
    command = "; ".join(wait.format(value, value) for value in (1, 0, 1))
    done = _run(f'[[host]]\nnics = ["1Gbit"]\n{events}', tmp_path, "timeout", "20", "sh", "-c", command)
    assert done.stdout.split() == ["1", "0", "1"], done.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_behind(number: signal.Signals, tmp_path: Path) -> None:
    """Neither of the laboratory nor of what ran in it, even far from its parents."""
    mark = f"PYCOMM_TEST_MARK={os.urandom(8).hex()}"
    command = "setsid sleep 100 & echo there; sleep 100"
    with subprocess.Popen(
        _lab(LAB, tmp_path, "sh", "-c", command),
        stdout=subprocess.PIPE, text=True, env={**os.environ, **dict([mark.split("=")])},
    ) as process:  # fmt: skip
        assert process.stdout and process.stdout.readline() == "there\n"
        assert len(_marked(mark)) > 8  # a keeper and a relay for each host, a switch, the command
        process.send_signal(number)
        process.wait(20)
    deadline = time.monotonic() + 20
    while (left := _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []


def _marked(mark: str) -> list[int]:
    """The processes with a variable, which children inherit; a namespace lives as long as one of its processes."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # it is gone
            continue
    return found


def test_perf_measures_in_a_laboratory(tmp_path: Path) -> None:
    """With those MPIs that are installed, whose ranks must be spread as pycomm's are."""
    (tmp_path / "lab.toml").write_text('[[host]]\ncount = 2\nnics = ["1Gbit"]\n')
    command = "perf allreduce -n 4 -b 4K -e 4K --iters 3 --vs openmpi,mpich --lab lab.toml -J out.json"
    done = subprocess.run(
        [sys.executable, "-m", "pycomm", *command.split()],
        capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0 and "FAILED" not in done.stdout, done.stdout + done.stderr
    assert "at 4K; bound" in done.stdout
    places = [line.split() for line in done.stdout.splitlines() if line.startswith("#  Rank")]
    assert len(places) % 4 == 0 and len(places) > 0
    assert [place[8] for place in places] == ["host0", "host0", "host1", "host1"] * (len(places) // 4)
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert {row["wrong"] for row in rows} == {0}
    assert all(row["limit_fraction"] > 0 for row in rows if not row["in_place"])
