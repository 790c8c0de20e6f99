"""What an installation consists of: the package and nothing else, and what it needs to work."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {"pycomm": "pycomm", "algorithms": "pycomm/algorithms", "perf": "pycomm/perf"}


def installed() -> set[str]:
    """Return the installed files, by their paths in site-packages."""
    paths = {path.as_posix() for path in distribution("pycomm").files or ()}
    if "pycomm/__init__.py" not in paths:
        pytest.skip("an editable installation has no files of its own")
    return {path for path in paths if "__pycache__" not in path}


def test_every_module_is_installed():
    modules = {f"{to}/{path.name}" for room, to in ROOMS.items() for path in (ROOT / room).glob("*.py")}
    assert modules <= installed()


def test_nothing_else_is_installed():
    allowed = {"py", "pyi", "so", "typed", "h", "f90", "pc", "cmake"}
    package = {path for path in installed() if not path.startswith(("pycomm-", "../"))}
    assert [path for path in package if not path.startswith("pycomm/")] == []
    assert [path for path in package if path.rpartition(".")[2] not in allowed] == ["pycomm/lab/relay"]  # an executable
    headers = [path for path in installed() if path.endswith(".h")]
    names = ("flow", "pycomm", "pycomm/clock", "pycomm/reactor", "pycomm/transport", "simulate", "squeeze")
    assert sorted(headers) == [f"pycomm/include/{name}.h" for name in names]
    assert "pycomm/lib/libpycomm.so" in installed()


def test_importing_claims_no_other_name():
    check = (
        "import sys, pycomm, pycomm.algorithms, pycomm.perf.cli\n"
        "for name, module in sys.modules.items():\n"
        "    file = getattr(module, '__file__', None) or ''\n"
        "    if '/pycomm/' in file.rpartition('site-packages')[2]: print(name.partition('.')[0])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", check], capture_output=True, text=True, timeout=60, check=True)
    assert set(done.stdout.split()) <= {"pycomm"}


HEADERS = [
    "flow.h",
    "pycomm.f90",
    "pycomm.h",
    "pycomm/clock.h",
    "pycomm/reactor.h",
    "pycomm/transport.h",
    "simulate.h",
    "squeeze.h",
]


@pytest.mark.parametrize("name", HEADERS)
def test_the_header_is_the_sources(name: str):
    source = ROOT / "csrc" / Path(name).name
    assert files("pycomm").joinpath("include", name).read_text() == source.read_text()


def test_optional_packages_are_not_imported():
    check = (
        "import sys, pycomm; pycomm.init()\n"
        "print([name for name in ('torch', 'mpi4py', 'rich', 'matplotlib', 'ml_dtypes') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", check], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
