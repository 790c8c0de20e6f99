"""What comes from elsewhere is understood, or refused with an error of ours: the control plane, objects, files.

FUZZ_EXAMPLES is how many inputs each test makes; `make fuzz` asks for many. Without it they are few, always the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycomm import knobs, start
from pycomm.data import pickles
from pycomm.errors import InvalidArgument, LaunchError, PycommError
from pycomm.helper import advice
from pycomm.job.control import Control
from pycomm.job.environment import Job
from pycomm.job.hub import Hub
from pycomm.job.rendezvous import Rendezvous
from pycomm.selection import table
from pycomm.simulator import costs
from pycomm.topology import load

ROOT = Path(__file__).parents[2]
EXAMPLES = os.environ.get("FUZZ_EXAMPLES")
often = settings(
    max_examples=int(EXAMPLES or 60), deadline=None, derandomize=not EXAMPLES, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
SECRET, JOB = b"s" * 32, 0x1234

words = st.sampled_from(
    [b"0", b"1", b"2", b"-1", b"3", b"4660", b"99999999999999999999", b"", b"x", b"\xff", b"1" * 5000, b"nan"]
)
frames = st.one_of(words, st.binary(max_size=20))

# ---- the control plane ----------------------------------------------------------------------------------------------

KINDS = (b"hello", b"blob", b"who", b"abort", b"bye", b"call", b"back", b"probe", b"")
a_hello = st.tuples(
    st.just(b"hello"), st.sampled_from([b"0", b"1", b"2"]), words, st.just(b"%d" % JOB), st.sampled_from([b"0", b"1"]),
    words, st.just(b"host"), st.just(b"elsewhere"),
)  # fmt: skip
a_blob = st.tuples(st.just(b"blob"), st.sampled_from([b"0", b"1"]), st.binary(max_size=8))
to_hub = st.one_of(a_hello, a_blob, st.tuples(st.sampled_from(KINDS), *[frames] * 8), st.lists(frames, min_size=1))


class _Router:
    """Stands in for the hub's socket: hands out what peers say, and takes what they are told."""

    def __init__(self, said: list[list[bytes]]) -> None:
        self.said, self.told = said, 0

    def poll(self, _: int) -> bool:
        return bool(self.said)

    def recv_multipart(self) -> list[bytes]:
        return self.said.pop(0)

    def send_multipart(self, message: list[bytes], _: int) -> None:
        assert all(isinstance(part, bytes) for part in message)
        if message[0] == b"gone":
            raise zmq.ZMQError(zmq.EHOSTUNREACH)
        self.told += 1

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@often
@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"gone"]), to_hub), max_size=12))
def test_no_rank_ends_the_hub(said: list[tuple[bytes, Any]]) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    hub = Hub(context, f"ipc://@pycomm-fuzz-{os.getpid()}", 2, JOB, SECRET)
    router = hub._router
    hub._router = _Router([[route, *message] for route, message in said])  # type: ignore[assignment]
    try:
        hub.turn()
        assert not hub._router.said  # type: ignore[attr-defined]
        hub.lose(0, "it ended")
    finally:
        hub._router = router
        hub.close()
        context.term()


from_hub = st.tuples(
    st.sampled_from(
        [b"welcome", b"closing", b"unknown", b"probe", b"all", b"absent", b"lost", b"refused", b"again", b""]
    ),
    *[frames] * 4,
)


@often
@given(st.lists(st.one_of(from_hub, st.lists(frames)), max_size=8))
def test_no_hub_ends_a_ranks_thread(messages: list[Any]) -> None:
    met = Rendezvous(Job(0, 1, 0, 1, "", SECRET, JOB, "test"))
    met.watch(lambda rank, why: None)
    control = object.__new__(Control)
    inbox = [list(message) for message in messages]
    dealer = SimpleNamespace(poll=lambda _: bool(inbox), recv_multipart=lambda: inbox.pop(0), linger=0)
    quiet = SimpleNamespace(dealer=dealer, send=lambda message: None, close=lambda: None)
    control._job, control._deliver, control._line = met._job, met._deliver, quiet  # type: ignore[assignment]
    control._met = control._joined = control._deaf = False
    control._ordinal, control._dials, control._others, control._knock = 0, [], [], None
    control._read()
    assert not inbox or control._deaf
    met.close()


@often
@given(st.lists(st.binary(max_size=2 * start._FACTS.size), min_size=1, max_size=3), st.binary(max_size=40))
def test_facts_of_ranks(blobs: list[bytes], packed: bytes) -> None:
    own = start.pack_facts({0}, b"address")
    for known in (blobs, [own, *blobs], [own, own[: len(blobs[0])]]):
        with contextlib.suppress(LaunchError):
            start._check_facts(known)
            start.machine_of(known, 0, shared=True, table=table.Table())
    with contextlib.suppress(PycommError):
        start._unpacked_table(packed)


# ---- objects --------------------------------------------------------------------------------------------------------


@often
@given(
    st.one_of(st.integers(0, 4), st.integers(0, 2**64 - 1)),
    st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1)),
    st.lists(st.one_of(st.integers(0, 100), st.integers(0, 2**64 - 1)), max_size=4),
    st.integers(0, 600),
)
def test_headers_of_objects(count: int, length: int, lengths: list[int], size: int) -> None:
    header = struct.pack(f"<{2 + len(lengths)}Q", count, length, *lengths)
    frame = memoryview((header + bytes(size))[: max(size, 3)])
    unpickled: list[Any] = []
    patched = pytest.MonkeyPatch()
    patched.setattr(pickles.pickle, "loads", lambda data, buffers: unpickled.append((data, buffers)))
    with patched.context(), contextlib.suppress(InvalidArgument):
        pickles.loads(frame)
    patched.undo()
    for data, buffers in unpickled:  # only what is there in full is unpickled
        assert len(data) == length and len(buffers) == count
        assert all(len(buffer) == each for buffer, each in zip(buffers, lengths, strict=False))


def test_what_is_no_object_is_refused_before_it_is_unpickled() -> None:
    whole = bytes(pickles.dumps(np.arange(100)))
    assert list(pickles.loads(memoryview(whole))) == list(range(100))
    for wrong in (b"", whole[:15], whole[:40], whole[:-100], struct.pack("<2Q", 2**60, 8) + whole[16:]):
        with pytest.raises(InvalidArgument, match="holds no object"):
            pickles.loads(memoryview(wrong))


# ---- the process that chooses schedules -----------------------------------------------------------------------------

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)
a_question = st.fixed_dictionaries(
    {"ask": st.sampled_from([*advice.Advice.questions, "__init__", "_file", ""])},
    optional=dict.fromkeys(
        ("pid", "facts", "rank", "size", "machine", "collective", "root", "nbytes", "uneven", "key", "data"), values
    ),
)


@often
@given(st.one_of(st.binary(max_size=40), a_question.map(lambda asked: json.dumps(asked).encode())))
def test_no_question_ends_the_adviser(line: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(line.replace(b"\n", b"") + b"\n")
        theirs.shutdown(socket.SHUT_WR)
        with pytest.MonkeyPatch.context() as patch, Path(os.devnull).open("w") as nowhere:
            patch.setattr(sys, "stderr", nowhere)
            assert advice.answer(advice.Advice(), ours, ours.makefile("rb")) in (True, False)


# ---- files and settings ---------------------------------------------------------------------------------------------


@often
@given(st.sampled_from(knobs.KNOBS), st.text(max_size=30))
def test_settings(knob: knobs.Knob[Any], text: str) -> None:
    with contextlib.suppress(LaunchError):
        knob.value({knob.name: text})


numbers = st.sampled_from([0, 1, 2, 8, 1024, -1, 2**63, 10**400, 0.5, 1e308, float("inf"), float("nan"), 1 << 62])
scalars = st.one_of(numbers, st.booleans(), st.sampled_from(["ring", "allreduce", "shm", "tcp", "16K", "", "x"]))
rows = st.dictionaries(
    st.sampled_from(["ranks", "nbytes", "factor", "samples", "collective", "algorithm", "slices", "window", "x"]),
    st.one_of(scalars, st.lists(scalars, max_size=3)), max_size=6,
)  # fmt: skip
a_row = st.fixed_dictionaries(
    {"ranks": scalars, "nbytes": st.lists(numbers, max_size=2), "factor": st.lists(numbers, max_size=2)},
    optional={"samples": st.lists(numbers, max_size=2)},
)
sections = st.fixed_dictionaries(
    {"version": st.one_of(st.just(1), scalars)},
    optional={
        "machine": st.one_of(st.dictionaries(st.text(max_size=4), scalars, max_size=3), scalars),
        "calibration": st.dictionaries(
            st.sampled_from(["shm", "tcp"]),
            st.one_of(scalars, st.dictionaries(st.sampled_from([*costs.NAMES[:3], "x"]), scalars, max_size=3)),
            max_size=2,
        ),
        "residuals": st.dictionaries(
            st.sampled_from(["allreduce", "x"]),
            st.dictionaries(
                st.sampled_from(["shm", "x"]),
                st.dictionaries(
                    st.sampled_from(["ring", "x"]), st.lists(st.one_of(rows, a_row), max_size=2), max_size=2,
                ),
            ), max_size=2,
        ),
        "choices": st.lists(rows, max_size=2),
        "x": scalars,
    },
)  # fmt: skip


def as_toml(found: dict[str, Any]) -> str:
    return "".join(f"{key} = {table._inline(value)}\n" for key, value in found.items())


@often
@given(st.one_of(st.text(max_size=60), sections.map(as_toml)))
def test_tuning_tables(text: str) -> None:
    try:
        found = table.loads(text)
    except InvalidArgument:
        return
    assert table.dumps(table.loads(table.dumps(found))) == table.dumps(found)
    assert found.factor("allreduce", "ring", "shm", 3, 100) > 0
    with contextlib.suppress(InvalidArgument):
        costs.calibrated(found.calibration, [2], shared=True)


def test_what_is_nested_deeply_is_refused(tmp_path: Path) -> None:
    deep = "x = " + "[" * 100_000
    (tmp_path / "deep.toml").write_text(deep)
    with pytest.raises(InvalidArgument):
        table.loads(deep)
    with pytest.raises(InvalidArgument):
        load(tmp_path / "deep.toml")


DESCRIBED = [path.read_text() for path in sorted((ROOT / "examples" / "topologies").glob("*.toml"))]
WRONG = [
    "0",
    "-1",
    "7",
    "inf",
    "nan",
    "1e308",
    '""',
    '"x"',
    "[]",
    "{}",
    "true",
    '"1us"',
    '"1GB"',
    "1" * 5000,
    "[[host]]",
]


@st.composite
def machines(draw: st.DrawFn) -> str:
    """A described machine in which some words were exchanged, or lines left out or said twice."""
    lines = draw(st.sampled_from(DESCRIBED)).splitlines()
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        change = draw(st.integers(0, 3))
        if change == 0:
            lines.insert(at, lines[draw(st.integers(0, len(lines) - 1))])
        elif change == 1 and len(lines) > 1:
            del lines[at]
        elif change == 2:
            wrong = draw(st.sampled_from(WRONG))
            lines[at] = re.sub(r"=.*", lambda _, wrong=wrong: f"= {wrong}", lines[at])
        else:
            lines[at] += draw(st.text(max_size=3))
    return "\n".join(lines)


@often
@given(text=machines())
def test_described_machines(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "machine.toml"
    path.write_text(text, encoding="utf-8", errors="ignore")
    with contextlib.suppress(InvalidArgument):
        load(path)


NAMED = ["fat-tree:16,hosts=4,taper=2", "torus:4x4", "dragonfly:2,2,2", "two-tier:4", "ring:5", "all:4", ":", ",", "="]


@often
@given(st.one_of(st.text("abcdefghij-:,=x0123456", max_size=14), st.sampled_from(NAMED), st.tuples(
    st.sampled_from(NAMED), st.text(":,=x-0123.", max_size=3)).map("".join)))  # fmt: skip
def test_machines_by_name(text: str) -> None:
    if any(int(number) > 64 for number in re.findall(r"\d+", text)):
        return  # it would be large, and is asked for
    with contextlib.suppress(InvalidArgument):
        load(text)
