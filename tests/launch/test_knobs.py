"""Settings have defaults, follow the environment, and a malformed one is refused by name."""

from __future__ import annotations

import pytest

from pycomm import knobs
from pycomm.errors import LaunchError


def test_defaults() -> None:
    assert knobs.TRANSPORTS.value({}) == ("shm", "tcp")
    assert knobs.TIMEOUT.value({}) == 300.0
    assert knobs.RANK.value({}) is None
    assert knobs.DEBUG.value({}) == "WARN"
    assert knobs.TIMEOUT.source({}) == "default"


def test_values_and_sources() -> None:
    env = {"PYCOMM_TIMEOUT": "2.5", "PYCOMM_TRANSPORTS": "tcp", "PYCOMM_DEBUG": "info", "PYCOMM_SECRET": "hidden"}
    assert knobs.TIMEOUT.value(env) == 2.5
    assert knobs.TRANSPORTS.value(env) == ("tcp",)
    assert knobs.DEBUG.value(env) == "INFO"
    assert knobs.TIMEOUT.source(env) == "PYCOMM_TIMEOUT"
    assert knobs.SECRET.text(env) == "(set)"


@pytest.mark.parametrize(
    ("knob", "text"),
    [
        (knobs.TIMEOUT, "soon"), (knobs.TIMEOUT, "0"), (knobs.TIMEOUT, "-1"), (knobs.TIMEOUT, "nan"),
        (knobs.TRANSPORTS, "shm,,tcp"), (knobs.DEBUG, "LOUD"), (knobs.RANK, "1.5"), (knobs.SOCKET_IFNAME, "^"),
        (knobs.SOCKET_IFNAME, "=^eth0"), (knobs.RENDEZVOUS, "somewhere"),
    ],
)  # fmt: skip
def test_a_malformed_value_is_refused_by_name(knob: knobs.Knob[object], text: str) -> None:
    with pytest.raises(LaunchError, match=knob.name):
        knob.value({knob.name: text})


@pytest.mark.parametrize(
    ("text", "allowed", "refused"),
    [
        ("", ["eth0", "lo"], []),
        ("eth,ib", ["eth0", "eth1", "ib0"], ["lo", "docker0"]),
        ("=eth0", ["eth0"], ["eth01", "eth1"]),
        ("^docker,lo", ["eth0"], ["docker0", "lo"]),
        ("^=lo", ["lo1", "eth0"], ["lo"]),
    ],
)
def test_interface_filters(text: str, allowed: list[str], refused: list[str]) -> None:
    chosen = knobs.SOCKET_IFNAME.value({"PYCOMM_SOCKET_IFNAME": text})
    assert all(map(chosen.allows, allowed))
    assert not any(map(chosen.allows, refused))


def test_the_interface_falls_back_to_what_other_libraries_were_told() -> None:
    env = {"GLOO_SOCKET_IFNAME": "eth9"}
    assert knobs.SOCKET_IFNAME.value(env).names == ("eth9",)
    assert knobs.SOCKET_IFNAME.source(env) == "GLOO_SOCKET_IFNAME"
    env["NCCL_SOCKET_IFNAME"] = "eth8"
    assert knobs.SOCKET_IFNAME.source(env) == "NCCL_SOCKET_IFNAME"
    env["PYCOMM_SOCKET_IFNAME"] = "eth7"
    assert knobs.SOCKET_IFNAME.value(env).names == ("eth7",)


def test_there_are_few_knobs_and_each_is_declared_once() -> None:
    names = [knob.name for knob in knobs.KNOBS]
    assert len(names) == len(set(names)) <= 16
    assert all(knob.help for knob in knobs.KNOBS)
