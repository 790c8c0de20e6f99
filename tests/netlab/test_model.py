"""What may be written in a laboratory's file, and the machine that it describes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pycomm.bound import bound
from pycomm.errors import InvalidArgument
from pycomm.lab import Event, Host, Model, Trunk, load, loads
from pycomm.lab.machine import topology
from pycomm.lab.place import counts

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "labs").glob("*.toml"))

EVERYTHING = """
name = "all"
congestion = "reno"
queue = "5ms"
burst = "1ms"
seed = 7

[[host]]
name = "n"
count = 2
ranks = 2
processors = 1
nics = ["1Gbit", "500Mbit"]
site = "north"

[[host]]
name = "s"
ranks = 1
nics = ["inf"]
site = "south"
delay = "1ms"
loss = 0.01

[[trunk]]
sites = ["north", "south"]
rate = "100Mbit"
delay = "20ms"

[[event]]
at = 2
host = "s"
state = "down"

[[event]]
at = 1.5
host = "n1"
nic = 1
rate = "8Mbit"

[[event]]
at = 3
sites = ["south", "north"]
rate = "16Mbit"
"""


def test_everything_is_read() -> None:
    assert loads(EVERYTHING) == Model(
        "all",
        (
            Host("n0", (125e6, 62.5e6), 2, 1, "north"),
            Host("n1", (125e6, 62.5e6), 2, 1, "north"),
            Host("s", (float("inf"),), 1, None, "south", 1e-3, 0.01),
        ),
        (Trunk(("north", "south"), 12.5e6, 0.02),),
        (Event(1.5, "n1", 1, rate=1e6), Event(2.0, "s", up=False), Event(3.0, sites=("south", "north"), rate=2e6)),
        "reno", 0.005, 0.001, 7,
    )  # fmt: skip


HOST = '[[host]]\nnics = ["1Gbit"]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs|1 to 200 hosts, not 0"),
        ("[[host]]", "needs nics"),
        ("[[host]]\nnics = []", "rate of each card"),
        ('[[host]]\nnics = ["1Gbit"]\nname = "a_b"', "not a host name"),
        (HOST + HOST, "two hosts called 'host'"),
        (HOST + 'speed = "1"', "no 'speed' here"),
        (HOST + "loss = 1.0", "below 1"),
        (HOST + '[[trunk]]\nsites = ["a", "b"]\nrate = "1Gbit"', "no host is at site 'a'"),
        (HOST + 'site = "a"\n[[host]]\nname = "b"\nnics = ["1Gbit"]', "need one line between them"),
        (HOST + '[[event]]\nat = 1\nhost = "x"\nstate = "up"', "no host 'x'"),
        (HOST + '[[event]]\nat = 1\nhost = "host"\nnic = 1\nstate = "up"', "has no card 1"),
        (HOST + '[[event]]\nat = 1\nhost = "host"', "a rate or a state"),
        (HOST + '[[event]]\nat = 1\nsites = ["a", "b"]\nstate = "up"', "no line between 'a' and 'b'"),
        (HOST + '[[event]]\nat = 1\nsites = ["a"]\nstate = "up"', "names of two sites"),
        (HOST + '[[event]]\nat = 1\nsites = ["a", "b"]\nnic = 0\nstate = "up"', "no 'nic' here"),
        (HOST + 'ranks = 2\n[[host]]\nname = "b"\nnics = ["1Gbit"]', "for all hosts, or for none"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        loads(text)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_right(path: Path) -> None:
    model = load(path)
    assert topology(model, 2 * len(model.hosts)).size == 2 * len(model.hosts)


def test_ranks_are_spread_in_the_order_of_hosts() -> None:
    assert counts([None, None, None], 7) == [2, 2, 3]
    assert counts([3, 1], 4) == [3, 1]
    with pytest.raises(InvalidArgument, match="take 4 ranks together, not 5"):
        counts([3, 1], 5)


def test_the_bound_names_the_line_between_sites() -> None:
    machine = topology(loads(EVERYTHING), 5)
    assert machine.host.tolist() == [0, 0, 1, 1, 2]
    best = bound("broadcast", machine, 12.5e6)
    assert "trunk" in best.cut or "12.5 MB/s" in best.cut
    assert best.bandwidth_seconds == pytest.approx(1.0)
    between = machine.ends([0], [4])
    assert between.latency[0] == pytest.approx(0.021) and between.bandwidth[0] == 12.5e6


def test_cards_of_a_host_add_up() -> None:
    ends = topology(loads('[[host]]\ncount = 2\nnics = ["1Gbit", "500Mbit"]'), 2).ends([0], [1])
    assert np.array_equal(ends.bandwidth, [187.5e6])
