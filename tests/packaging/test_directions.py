"""Dependencies point one way: each room includes and imports only what lies below it (ARCHITECTURE.md, "Rooms")."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SYSTEM = re.compile(r"#include <(.*)>")
OWN = re.compile(r'#include "(.*)"')


def files(*patterns: str) -> list[Path]:
    found = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    assert found
    return found


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each import of a file, wherever it stands: the module's absolute name, and the names taken from it."""
    room = path.relative_to(ROOT).parent.as_posix()
    package = {"algorithms": "pycomm.algorithms", "perf": "pycomm.perf"}.get(room, room.replace("/", "."))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if node.level:
                parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                module = ".".join([*parts, *([node.module] if node.module else [])])
            else:
                module = node.module or ""
            yield module, names


def modules(path: Path) -> set[str]:
    """Return the names of all modules that a file may import: a name taken from a package may be one."""
    return {name for module, names in imports(path) for name in (module, *(f"{module}.{n}" for n in names))}


def rooms_of(path: Path) -> set[str]:
    """Return the rooms of pycomm that a file imports from: packages, and modules that lie beside them."""
    return {module.split(".")[1] for module in modules(path) if module.startswith("pycomm.")}


@pytest.mark.parametrize("path", files("csrc/**/*.[ch]", "transports/*.[ch]"), ids=name_of)
def test_c_knows_no_python_and_reads_no_environment(path: Path):
    text = path.read_text()
    assert not re.search(r"\bPython\.h\b|\bmpi\.h\b", text)
    if path.parent.name not in ("preload", "helper"):  # which programs that know no settings could tell nothing
        assert not re.search(r"\bgetenv\b|\benviron\b", text)


@pytest.mark.parametrize("path", files("transports/*.[ch]"), ids=name_of)
def test_a_transport_knows_only_the_contract(path: Path):
    core = {name for name in OWN.findall(path.read_text()) if name.startswith("../csrc/")}
    assert core <= {"../csrc/transport.h"}


@pytest.mark.parametrize("path", files("csrc/*.[ch]"), ids=name_of)
def test_the_core_knows_no_transport(path: Path):
    assert not any("transports/" in name for name in OWN.findall(path.read_text()))


@pytest.mark.parametrize("path", files("csrc/helper/*.[ch]"), ids=name_of)
def test_the_helpers_line_knows_only_the_core(path: Path):
    assert set(OWN.findall(path.read_text())) <= {"helper.h", "../core.h"}


@pytest.mark.parametrize("path", files("csrc/kernels/*.[ch]", "csrc/reduce.[ch]"), ids=name_of)
def test_kernels_know_only_kernels(path: Path):
    own = {Path(name).name for name in OWN.findall(path.read_text())}
    local = {file.name for file in files("csrc/kernels/*.h")} | {"reduce.h", "pycomm.h", "squeeze.h"}
    assert own <= local


def test_the_public_header_stands_alone():
    text = (ROOT / "csrc" / "pycomm.h").read_text()
    assert OWN.findall(text) == []
    assert set(SYSTEM.findall(text)) == {"stddef.h", "stdint.h"}


@pytest.mark.parametrize("path", files("algorithms/*.py"), ids=name_of)
def test_algorithms_know_only_the_view(path: Path):
    for module, _ in imports(path):
        allowed = ("pycomm.schedules.view", "pycomm.schedules.registry", "pycomm.errors", "pycomm.algorithms", "numpy")
        if path.name == "packed.py":  # whose schedules depend on a machine
            allowed += ("pycomm.packing",)
        assert module.startswith(allowed) or module.partition(".")[0] in sys.stdlib_module_names, module


BELOW = {
    "bound": "core errors schedules topology",
    "communicator": "core data errors job knobs schedules selection topology world _quick",
    "compressed": "communicator core data errors",
    "data": "core errors",
    "discover": "communicator data errors job knobs selection",
    "doctor": "communicator core discover errors figures job knobs selection start",
    "helper": "core discover errors job knobs schedules selection start",
    "job": "errors knobs",
    "lab": "errors job knobs topology",
    "moe": "communicator core errors torch",
    "mpi": "communicator core discover errors job knobs schedules selection start world",
    "packing": "bound errors topology",
    "plan": "bound errors figures schedules selection simulator topology",
    "schedules": "algorithms errors plugins",
    "selection": "bound errors knobs packing schedules simulator topology",
    "simulator": "core errors schedules topology",
    "topology": "errors schedules",
    "torch": "communicator core data errors start _torch_autoload",
    "tune": "communicator core data errors job lab schedules selection simulator start",
}
# Where the arrow turns back: the file that stands on the other is loaded by a call, not with its room.
DOORS = {
    "communicator/comm.py": {"mpi"},  # Comm.from_mpi
    "job/launch.py": {"world"},  # a rank's end closes its worlds
    "torch/compression.py": {"compressed"},  # a hook for those who ask for it
}


@pytest.mark.parametrize("room", BELOW)
def test_a_room_knows_only_what_lies_below_it(room: str):
    for path in files(f"pycomm/{room}/*.py"):
        below = {*BELOW[room].split(), room} | DOORS.get(f"{room}/{path.name}", set())
        assert rooms_of(path) <= below, path.name


def test_every_room_has_its_place():
    rooms = {path.parent.name for path in files("pycomm/*/__init__.py")}
    assert rooms == {*BELOW, "commands"}  # which know all


def test_topologies_know_of_schedules_only_how_they_are_named_and_drawn():
    for path in files("pycomm/topology/*.py"):
        named = {module for module in modules(path) if module.startswith("pycomm.schedules.")}
        drawn = ("pycomm.schedules.show",) if path.name in ("draw.py", "scene.py") else ()
        assert all(module.startswith(("pycomm.schedules.registry", *drawn)) for module in named), path.name


def test_the_doctor_judges_by_facts_alone():
    for path in files("pycomm/doctor/*.py"):
        if path.name.startswith(("check_", "facts", "findings", "report")):
            assert rooms_of(path) <= {"discover", "doctor", "job"}, path.name


@pytest.mark.parametrize("room", ("tune", "doctor", "moe", "commands"))
def test_nobody_loads_what_only_its_user_asks_for(room: str):
    for path in files("pycomm/**/*.py"):
        if path.parent.name not in (room, "commands"):
            assert room not in rooms_of(path), path.name


def test_methods_of_a_communicator_know_it_by_name_alone():
    """Comm is made of them: when they are loaded, there is none yet."""
    for name in ("attributes", "errhandler", "folding", "groups", "info", "messages", "mixed", "objects", "persistent"):
        for node in ast.parse((ROOT / "pycomm" / "communicator" / f"{name}.py").read_text()).body:
            if isinstance(node, ast.ImportFrom):
                assert node.module not in ("comm", "start", "cartesian"), name


@pytest.mark.parametrize("path", files("pycomm/**/*.py"), ids=name_of)
def test_the_library_does_not_know_perf(path: Path):
    assert path.parent.name == "commands" or "perf" not in rooms_of(path)


@pytest.mark.parametrize("path", files("pycomm/**/*.py"), ids=name_of)
def test_the_library_does_not_know_torch(path: Path):
    if path.name != "_torch_autoload.py" and path.parent.name not in ("torch", "moe"):  # the door torch comes in by
        assert "torch" not in rooms_of(path) | {module.partition(".")[0] for module in modules(path)}


def test_what_torch_loads_at_its_start_loads_nothing():
    for name in ("__init__", "_torch_autoload"):
        for node in ast.parse((ROOT / "pycomm" / f"{name}.py").read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = node.names[0].name if isinstance(node, ast.Import) else node.module or ""
                assert module.partition(".")[0] in sys.stdlib_module_names, module


@pytest.mark.parametrize("path", files("pycomm/**/*.py"), ids=name_of)
def test_only_core_speaks_to_cffi(path: Path):
    speaks = {module for module in modules(path) if module.partition(".")[0] == "cffi" or "_pycomm" in module}
    assert not speaks or path.name == "core.py"


@pytest.mark.parametrize("path", files("perf/*.py", "algorithms/*.py"), ids=name_of)
def test_no_private_name_of_another_room_is_used(path: Path):
    room = {"perf": "pycomm.perf", "algorithms": "pycomm.algorithms"}[path.parent.name]
    for module, names in imports(path):
        if module.startswith("pycomm") and not module.startswith(room):
            assert not [name for name in (*module.split("."), *names) if name.startswith("_")], f"{module}: {names}"


@pytest.mark.parametrize("path", files("pycomm/**/*.py", "algorithms/*.py", "perf/*.py"), ids=name_of)
def test_optional_packages_are_imported_where_they_are_needed(path: Path):
    optional = {"torch", "mpi4py", "ml_dtypes", "rich", "matplotlib"}
    top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in top if isinstance(node, ast.ImportFrom) and not node.level}
    # Imported by those alone who draw, or who have torch.
    late = "plot" in path.name or path.parent.name in ("torch", "moe")
    assert late or not {name.partition(".")[0] for name in names} & optional
