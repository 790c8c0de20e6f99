"""What another package brings, a transport in C and an algorithm, is built, found by name, listed, run, and refused."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from ctypes import CDLL
from pathlib import Path

import pytest

from pycomm import core, plugins
from pycomm.errors import InvalidArgument, SystemRefused
from pycomm.schedules import registry

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"


def python(*words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", *words], env=os.environ | env, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the example is installed."""
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "target"))
    shutil.copytree(PLUGIN, source, dirs_exist_ok=True)
    quick = ("--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = python("-m", "pip", "install", *quick, "--target", target, source, PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def run(site: Path, transports: str, *, size: int = 3) -> subprocess.CompletedProcess[str]:
    words = ("-m", "pycomm", "run", "-n", str(size), PLUGIN / "run.py")
    return python(*words, PYTHONPATH=str(site), PYCOMM_TRANSPORTS=transports)


@pytest.mark.parametrize("inner", ["shm", "tcp"])
def test_the_example_runs_by_name(site: Path, inner: str):
    done = run(site, f"count:{inner}")
    assert done.returncode == 0, done.stderr
    said = re.findall(r"rank (\d): 8000 bytes by way of count", done.stdout)
    assert sorted(said) == ["0", "1", "2"]
    # rank 2 is the root and sends once; rank 0 passes it on to rank 1
    told = {rank: int(sent) for rank, sent in re.findall(r"count: rank (\d) has sent (\d+) bytes", done.stderr)}
    assert set(told) == {"0", "1", "2"} and told["2"] >= 8000 and told["0"] >= 8000 > told["1"]
    assert f"fragments over {inner}" in done.stderr


def test_a_path_needs_no_entry_point(site: Path):
    path = next(site.rglob("libpycomm-transport-count.so"))
    code = (
        "import pycomm, numpy; c = pycomm.init(); x = numpy.ones(4); c.Allreduce(x, x); "
        "print(f'{c.transport(1 - c.rank)} {x[0]}\\n', end='')"  # in one piece, between those of the other rank
    )
    words = ("-m", "pycomm", "run", "-n", "2", "--", sys.executable, "-P", "-c", code)
    done = python(*words, PYCOMM_TRANSPORTS=f"{path}:shm")
    assert done.stdout.splitlines() == ["count 2.0"] * 2, done.stderr


def test_info_lists_both(site: Path):
    told = python("-m", "pycomm", "info", PYTHONPATH=str(site)).stdout
    assert "  count, of pycomm-example 0.1: /" in told
    assert "  relay, of pycomm-example 0.1: pycomm_example.relay" in told
    broadcast = next(line for line in told.splitlines() if line.startswith("  broadcast "))
    assert "relay" in broadcast


def test_what_is_not_asked_for_is_not_loaded(site: Path):
    code = (
        "import sys, pycomm, numpy; c = pycomm.init(); x = numpy.ones(4); c.Allreduce(x, x)\n"
        "print([name for name in ('pycomm_example', 'pycomm.plugins') if name in sys.modules])"
    )
    assert python("-c", code, PYTHONPATH=str(site)).stdout == "[]\n"


def built(tmp_path: Path, text: str, name: str = "other") -> str:
    """Return the path of a shared object."""
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    source, path = tmp_path / "other.c", tmp_path / f"libpycomm-transport-{name}.so"
    source.write_text(f"#include <pycomm/transport.h>\n{text}\n")
    include = Path(core.__file__).parent / "include"
    subprocess.run(["cc", "-shared", "-fPIC", f"-I{include}", source, "-o", path], timeout=60, check=True)
    return str(path)


TABLE = 'static const struct pcm_transport t = {.name = "other"};'
SIZES = "sizeof(struct pcm_transport), sizeof(struct pcm_channel), sizeof(struct pcm_endpoint), &t};"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("int nothing;", "has no pycomm_transport_v1"),
        (f"{TABLE} const struct pcm_plugin pycomm_transport_v1 = {{2, {SIZES}", "built for another pycomm"),
        (f"{TABLE} const struct pcm_plugin pycomm_transport_v1 = {{1, 8 + {SIZES}", "built for another pycomm"),
        (f"{TABLE} PCM_TRANSPORT_PLUGIN(t);", "lacks slots"),
    ],
    ids=["no symbol", "another version", "another size", "no slots"],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path: Path, text: str, sentence: str):
    with pytest.raises(SystemRefused, match=sentence):
        core.load_transport(built(tmp_path, text))


def test_what_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InvalidArgument, match="cannot open shared object file"):
        core.load_transport("/nowhere/libpycomm-transport-nothing.so")
    with pytest.raises(InvalidArgument, match="broadcast has no algorithm 'nothing'"):
        registry.find("broadcast", "nothing")
    done = python("-c", "import pycomm; pycomm.init()", PYCOMM_TRANSPORTS="nothing")
    assert "InvalidArgument: there is no transport called nothing: have shm,tcp" in done.stderr


def test_what_cannot_be_imported_is_named(tmp_path: Path):
    info = tmp_path / "broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        f"[{plugins.ALGORITHMS}]\nlost = no_such_module\nidle = json\n[{plugins.TRANSPORTS}]\nlost = no_such_module\n"
    )
    told = python("-m", "pycomm", "info", PYTHONPATH=str(tmp_path)).stdout
    assert told.count("lost, which broken 1 adds to pycomm.") == 2
    assert "json of broken 1 should enter an algorithm called idle, and enters none" in told
    code = "import pycomm.schedules.registry; pycomm.schedules.registry.find('allreduce', 'lost')"
    why = python("-c", code, PYTHONPATH=str(tmp_path)).stderr
    assert (
        "InvalidArgument: lost, which broken 1 adds to pycomm.algorithms, cannot be loaded: ModuleNotFoundError" in why
    )


def test_all_that_the_headers_offer_is_there():
    include = Path(core.__file__).parent / "include"
    library = CDLL(str(include.parent / "lib" / "libpycomm.so"))
    for header in ("pycomm.h", "pycomm/reactor.h", "pycomm/transport.h"):
        names = re.findall(r"^PCM_API [^;(]*?(\w+)\(", (include / header).read_text(), re.M)
        assert names
        for name in names:
            assert hasattr(library, name), name
