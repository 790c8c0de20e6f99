"""The transport mpi, and `Comm.from_mpi`, under Open MPI, MPICH and Intel MPI, and in C also under the ABI of MPI 5."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pycomm.perf.rivals import RIVALS

ROOT = Path(__file__).parents[2]
RANKS = Path(__file__).with_name("mpi_ranks.py")
MPIS = ("openmpi", "mpich", "impi")
PATIENCE = 60


def launched(kind: str, ranks: int, words: list[str], **extra: str) -> tuple[list[str], dict[str, str]]:
    """What starts ranks under an MPI, and their environment; skips the test if that MPI is not installed."""
    rival = RIVALS[kind]
    place = rival.find()
    if place is None:
        pytest.skip(rival.missing)
    command, variables = rival.launch(place, ranks, words)[0]
    return command, os.environ | variables | extra


def run(kind: str, ranks: int, name: str, where: Path, network: str = "off", **extra: str) -> None:
    """Run a test of mpi_ranks.py; every rank must come to its end. Measuring MPI's collectives takes a second."""
    words = [sys.executable, "-P", str(RANKS), name, str(where)]
    command, env = launched(kind, ranks, words, XDG_CACHE_HOME=str(where / "cache"), PYCOMM_NETWORK=network, **extra)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    said = {path.name for path in where.iterdir() if path.is_file()}
    assert said == set(map(str, range(ranks))), done.stdout + done.stderr


@pytest.mark.parametrize("kind", MPIS)
def test_collectives_and_messages_over_mpi(kind: str, tmp_path: Path) -> None:
    run(kind, 2, "collectives", tmp_path, network="auto" if kind == "mpich" else "off")
    assert len(list(tmp_path.glob("cache/pycomm/native-*.json"))) == 2 * (kind == "mpich")  # of "mpi", and of "shm,mpi"


@pytest.mark.parametrize("kind", MPIS)
def test_collectives_of_mpi_itself(kind: str, tmp_path: Path) -> None:
    run(kind, 2, "native", tmp_path)


@pytest.mark.parametrize(("kind", "ranks"), [("openmpi", 4), ("mpich", 2), ("impi", 2)])  # the others never yield
def test_any_communicator_and_every_end(kind: str, ranks: int, tmp_path: Path) -> None:
    run(kind, ranks, "groups", tmp_path)


def test_no_thread_where_mpi_does_not_allow_it(tmp_path: Path) -> None:
    run("mpich", 2, "serialized", tmp_path, MPI4PY_RC_THREAD_LEVEL="serialized")


def test_init_over_mpi(tmp_path: Path) -> None:
    run("mpich", 2, "init", tmp_path, PYCOMM_TRANSPORTS="mpi")


def test_mpi_must_know_the_ranks_that_were_launched(tmp_path: Path) -> None:
    place = RIVALS["mpich"].find()
    if place is None:
        pytest.skip(RIVALS["mpich"].missing)
    _, env = launched("mpich", 2, [])
    program = tmp_path / "program.py"
    program.write_text("import pycomm; pycomm.init(transports='shm,mpi')")
    command = [sys.executable, "-P", "-m", "pycomm", "run", "-n", "2", str(program)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode and "which knows of 1 ranks where the launcher has started 2" in done.stdout + done.stderr


@pytest.fixture(scope="module")
def conformance(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/c/test_transport.c, with this transport alone."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    program = tmp_path_factory.mktemp("conformance") / "test_transport"
    sources = ["tests/c/test_transport.c", "tests/c/harness.c", "csrc/reactor.c", "csrc/dtype.c", "transports/chaos.c"]
    sources += sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("transports/mpi*.c"))
    command = [compiler, "-std=c11", "-O1", "-D_GNU_SOURCE", "-Icsrc", *sources, "-o", program, "-pthread", "-ldl"]
    subprocess.run(command, cwd=ROOT, check=True)
    return program


@pytest.mark.parametrize(("kind", "library"), [("openmpi", "libmpi.so.*"),
                                               ("mpich", "libmpi_abi.so.*"), ("impi", "libmpi_abi.so.?")])  # fmt: skip
def test_conformance(kind: str, library: str, conformance: Path) -> None:
    """What every transport must do; of the MPI 5 ABI this is the only test, as mpi4py's wheels do not have it."""
    command, env = launched(kind, 1, [])
    found = sorted((Path(command[0]).parent.parent / "lib").glob(library))
    if not found:
        pytest.skip(f"this {kind} has no {library}")
    done = subprocess.run(
        [*command, conformance, "--mpi", found[0], "mpi:1"],
        env=env, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
