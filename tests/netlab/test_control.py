"""A job that has two networks outlives the one by which its ranks have met, and is still told who dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pycomm
from pycomm.errors import PeerLost
from pycomm.job import hub, line, sockets
from pycomm.lab import Lab

MakeLab = Callable[[str], Lab]

TWO_RAILS = '[[host]]\ncount = 2\nnics = ["400Mbit", "400Mbit"]'
OUTAGE = 3.5  # seconds


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have silence noticed in half the usual time: a hub then gives up a rank that is silent for 3.5 s at most."""
    monkeypatch.setattr(sockets, "HEARTBEAT_MS", 500)
    monkeypatch.setattr(line, "RANK_SILENCE_MS", 1000)
    monkeypatch.setattr(hub, "HUB_SILENCE_MS", 2000)


def work(where: Path, dies: int) -> None:
    """Reduce until the test says that it is enough; then one rank dies, and the other writes down what it is told."""
    comm = pycomm.init(timeout=30)
    data, enough = np.empty(1 << 16), np.zeros(1)
    while not enough[0]:
        data[:] = comm.rank
        comm.Allreduce(data, data)
        (where / "begun").touch()
        enough[0] = comm.rank == 0 and (where / "enough").exists()
        comm.Bcast(enough)
    if comm.rank == dies:
        os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(PeerLost) as told:
        comm.Barrier()
    (where / "told").write_text(f"{comm.rank} of {told.value.rank}")


@pytest.mark.parametrize("dies", [0, 1], ids=["the hub dies", "another dies"])
def test_the_network_of_the_hub_goes(make_lab: MakeLab, tmp_path: Path, dies: int) -> None:
    """And comes back, if it is another that dies."""
    lab = make_lab(TWO_RAILS)

    def disturb() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        lab.down("host0")
        time.sleep(OUTAGE)
        if dies:
            lab.up("host0")
        (tmp_path / "enough").touch()

    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    with pytest.raises(PeerLost, match=f"rank {dies} was killed"):
        lab.run_ranks(2, work, tmp_path, dies, timeout=60)
    disturbing.join()
    assert (tmp_path / "told").read_text() == f"{1 - dies} of {dies}"
