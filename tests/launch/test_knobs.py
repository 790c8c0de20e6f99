"""Settings have defaults, follow the environment and files, and a malformed one is refused by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pycomm import conf, knobs
from pycomm.__main__ import main
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
    assert knobs.TIMEOUT.source(env) == "environment"
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
    assert knobs.SOCKET_IFNAME.setting(env).name == "GLOO_SOCKET_IFNAME"
    env["NCCL_SOCKET_IFNAME"] = "eth8"
    assert knobs.SOCKET_IFNAME.setting(env).name == "NCCL_SOCKET_IFNAME"
    env["PYCOMM_SOCKET_IFNAME"] = "eth7"
    assert knobs.SOCKET_IFNAME.value(env).names == ("eth7",)


def test_there_are_few_knobs_and_each_is_declared_once() -> None:
    names = [knob.name for knob in knobs.KNOBS]
    assert len(names) == len(set(names)) <= 17
    assert all(knob.help for knob in knobs.KNOBS)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home and a host's /etc of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(conf, "SYSTEM", tmp_path / "system.conf")
    return tmp_path


def test_files_come_after_the_environment_and_the_users_before_the_hosts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, system = home / ".pycomm.conf", home / "system.conf"
    user.write_text("# mine\n\n  PYCOMM_TIMEOUT = 7\nPYCOMM_ALGO=allreduce:ring # not a comment\nPYCOMM_DEBUG=\n")
    system.write_text("PYCOMM_TIMEOUT=8\nPYCOMM_TRANSPORTS=tcp\nPYCOMM_DEBUG=info\nPYCOMM_SOCKET_IFNAME=eth\n")
    assert (knobs.TIMEOUT.value(), knobs.TIMEOUT.source()) == (7.0, f"{user}:3")
    assert (knobs.TRANSPORTS.value(), knobs.TRANSPORTS.source()) == (("tcp",), f"{system}:2")
    assert knobs.DEBUG.value() == "INFO"  # what is empty says nothing
    assert knobs.ALGO.text() == "allreduce:ring # not a comment"
    monkeypatch.setenv("PYCOMM_TIMEOUT", "9")
    assert (knobs.TIMEOUT.value(), knobs.TIMEOUT.source()) == (9.0, "environment")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib")
    assert knobs.SOCKET_IFNAME.value().names == ("eth",)  # what is said of pycomm comes before what is said of others
    assert knobs.TIMEOUT.value({}) == 300.0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("PYCOMM_TIMEOUT=1\nPYCOMM_TIMEOUT", r".pycomm.conf:2: 'PYCOMM_TIMEOUT' is not NAME=value"),
        ("\nexport PYCOMM_TIMEOUT=1", ":2: 'export PYCOMM_TIMEOUT=1' is not NAME=value"),
        ("PYCOMM_TIMEOUT=1\n#\nPYCOMM_TIMEOUT=2", ":3: PYCOMM_TIMEOUT stands in line 1 already"),
        ("PYCOMM_TIMEOT=1", ":1: PYCOMM_TIMEOT is no setting of pycomm; is PYCOMM_TIMEOUT meant"),
        ("NOTHING_LIKE_IT=1", ":1: NOTHING_LIKE_IT is no setting of pycomm: `pycomm info` lists them"),
        ("PYCOMM_RANK=1", ":1: PYCOMM_RANK may not stand in a file"),
        ("PYCOMM_SECRET=0123456789abcdef", ":1: PYCOMM_SECRET may not stand in a file"),
        ("# x\nPYCOMM_TIMEOUT=soon", r":2: PYCOMM_TIMEOUT='soon' is not usable"),
    ],
)
def test_a_malformed_file_is_refused_by_its_line(home: Path, text: str, sentence: str) -> None:
    (home / ".pycomm.conf").write_text(text)
    with pytest.raises(LaunchError, match=sentence):
        knobs.TIMEOUT.value()


def test_info_tells_type_default_value_and_source(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    (home / ".pycomm.conf").write_text("PYCOMM_TIMEOUT=7\n")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    monkeypatch.setenv("PYCOMM_DEBUG", "info")
    assert main(["info"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("  PYCOMM_")}
    assert set(rows) == {knob.name for knob in knobs.KNOBS}
    assert rows["PYCOMM_TIMEOUT"].split("]")[0].split() == [
        "PYCOMM_TIMEOUT",
        "seconds",
        "300",
        "7",
        f"[{home}/.pycomm.conf:1",
    ]
    assert "[environment: GLOO_SOCKET_IFNAME]" in rows["PYCOMM_SOCKET_IFNAME"]
    assert "[environment]" in rows["PYCOMM_DEBUG"] and "[default]" in rows["PYCOMM_NETWORK"]


def test_a_program_reads_the_users_file(tmp_path: Path) -> None:
    (tmp_path / ".pycomm.conf").write_text("PYCOMM_TRANSPORTS=tcp\n")
    code = "import pycomm; comm = pycomm.init(); print(comm.transport(1 - comm.rank))"
    words = [sys.executable, "-P", "-m", "pycomm", "run", "-n", "2", "--", sys.executable, "-P", "-c", code]
    env = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["tcp", "tcp"], done.stderr
