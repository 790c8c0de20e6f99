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
from pycomm.lab import Lab

MakeLab = Callable[[str], Lab]

TWO_RAILS = '[[host]]\ncount = 2\nnics = ["400Mbit", "400Mbit"]'
OUTAGE = 6.0  # seconds: a hub gives up a rank of which it hears nothing for 5


def work(where: Path, dies: int) -> str:
    """Reduce until the test says that it is enough; then let one rank die, and say what the others are told."""
    comm = pycomm.init(timeout=30)
    data, enough = np.empty(1 << 16), np.zeros(1)
    try:
        while not enough[0]:
            data[:] = comm.rank
            comm.Allreduce(data, data)
            (where / "begun").touch()
            enough[0] = comm.rank == 0 and (where / "enough").exists()
            comm.Bcast(enough)
        if comm.rank == dies:
            os.kill(os.getpid(), signal.SIGKILL)
        comm.Barrier()
    except PeerLost as lost:
        (where / "told").write_text(f"{comm.rank} of {lost.rank}")
    return "done"


def disturb(lab: Lab, where: Path, back: bool) -> None:
    while not (where / "begun").exists():
        time.sleep(0.05)
    lab.down("host0")
    time.sleep(OUTAGE)
    if back:
        lab.up("host0")
        time.sleep(0.5)
    (where / "enough").touch()


def test_the_network_of_the_hub_goes_and_comes_back(make_lab: MakeLab, tmp_path: Path) -> None:
    lab = make_lab(TWO_RAILS)
    disturbing = threading.Thread(target=disturb, args=(lab, tmp_path, True))
    disturbing.start()
    assert lab.run_ranks(2, work, tmp_path, -1, timeout=60) == ["done", "done"]
    disturbing.join()


@pytest.mark.parametrize("dies", [0, 1], ids=["the hub", "another"])
def test_a_death_is_told_over_the_network_that_is_left(make_lab: MakeLab, tmp_path: Path, dies: int) -> None:
    lab = make_lab(TWO_RAILS)
    disturbing = threading.Thread(target=disturb, args=(lab, tmp_path, False))
    disturbing.start()
    with pytest.raises(PeerLost, match=f"rank {dies} was killed"):
        lab.run_ranks(2, work, tmp_path, dies, timeout=60)
    disturbing.join()
    assert (tmp_path / "told").read_text() == f"{1 - dies} of {dies}"
