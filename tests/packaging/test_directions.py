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


def check_rooms(path: Path, below: set[str]) -> None:
    """Check that of pycomm a file imports what lies in these rooms alone."""
    for module in modules(path):
        room = module.split(".")[1] if module.startswith("pycomm.") else ""
        assert not room or room in below, f"{path.name} imports {module}"


@pytest.mark.parametrize("path", files("csrc/**/*.[ch]", "transports/*.[ch]"), ids=name_of)
def test_c_knows_no_python_and_reads_no_environment(path: Path):
    text = path.read_text()
    assert not re.search(r"\bPython\.h\b|\bmpi\.h\b", text)
    if (
        path.parent.name != "preload"
    ):  # which is loaded into programs that know nothing of it, and could tell it nothing
        assert not re.search(r"\bgetenv\b|\benviron\b", text)


@pytest.mark.parametrize("path", files("transports/*.[ch]"), ids=name_of)
def test_a_transport_knows_only_the_contract(path: Path):
    core = {name for name in OWN.findall(path.read_text()) if name.startswith("../csrc/")}
    assert core <= {"../csrc/transport.h"}


@pytest.mark.parametrize("path", files("csrc/*.[ch]"), ids=name_of)
def test_the_core_knows_no_transport(path: Path):
    assert not any("transports/" in name for name in OWN.findall(path.read_text()))


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
        allowed = ("pycomm.view", "pycomm.registry", "pycomm.errors", "pycomm.algorithms", "numpy")
        if path.name == "packed.py":  # whose schedules depend on a machine
            allowed += ("pycomm.packing",)
        assert module.startswith(allowed) or module.partition(".")[0] in sys.stdlib_module_names, module


def test_schedules_know_neither_the_core_nor_a_launcher():
    below = {"errors", "contract", "schedule", "registry", "view", "verify", "show", "ranks", "traffic"}
    for name in below:
        for module in modules(ROOT / "pycomm" / f"{name}.py"):
            room = module.split(".")[1] if module.startswith("pycomm.") else ""
            assert not room or room in below, f"{name} imports {module}"


@pytest.mark.parametrize("path", files("pycomm/bound/*.py"), ids=name_of)
def test_the_bound_knows_machines_and_contracts_but_no_schedule(path: Path):
    below = {"bound", "contract", "core", "errors", "registry", "topology"}
    check_rooms(path, below)


@pytest.mark.parametrize("path", files("pycomm/packing/*.py"), ids=name_of)
def test_packing_knows_machines_and_flows_but_no_schedule(path: Path):
    check_rooms(path, {"bound", "errors", "packing", "topology"})


def test_the_simulator_knows_machines_and_schedules_but_nobody_who_runs_or_chooses_them():
    below = {"contract", "core", "errors", "pricing", "registry", "schedule", "simulate", "topology", "traffic"}
    for name in ("pricing", "simulate", "costs", "timeline"):
        for module in modules(ROOT / "pycomm" / f"{name}.py"):
            room = module.split(".")[1] if module.startswith("pycomm.") else ""
            assert not room or room in below, f"{name} imports {module}"


def test_choosing_knows_no_communicator():
    above = {"comm", "world", "request", "start", "threads", "confirm", "explain", "tune", "calls", "launch"}
    for name in ("table", "machine", "candidates", "predict", "select"):
        for module in modules(ROOT / "pycomm" / f"{name}.py"):
            assert not (module.startswith("pycomm.") and module.split(".")[1] in above), f"{name} imports {module}"


@pytest.mark.parametrize("path", files("pycomm/**/*.py"), ids=name_of)
def test_nobody_loads_tune_but_its_command(path: Path):
    if path.parent.name != "tune":
        assert not any(module.startswith("pycomm.tune") for module in modules(path))


def test_what_calls_are_given_knows_no_communicator():
    below = {"attributes", "buffer", "core", "datatype", "errors", "keys", "layout", "op", "request", "status"}
    for name in ("buffer", "datatype", "layout", "op", "pickles", "request", "status"):
        check_rooms(ROOT / "pycomm" / f"{name}.py", below | {"_pycomm", "_quick"})


def test_methods_of_a_communicator_know_it_by_name_alone():
    """Comm is made of them: when they are loaded, there is none yet."""
    for name in ("attributes", "errhandler", "folding", "groups", "messages", "mixed", "objects", "persistent"):
        for node in ast.parse((ROOT / "pycomm" / f"{name}.py").read_text()).body:
            if isinstance(node, ast.ImportFrom):
                assert node.module not in ("comm", "start", "cartesian"), name


def test_launching_knows_no_communicator():
    above = {"comm", "core", "_pycomm", "world", "request", "start", "threads", "select", "schedule", "view", "perf"}
    below = ["environment", "publication", "keys", "knobs", "hub", "control", "line", "rendezvous", "supervisor"]
    for name in [*below, "processes"]:
        for module in modules(ROOT / "pycomm" / f"{name}.py"):
            assert not (module.startswith("pycomm.") and module.split(".")[1] in above), f"{name} imports {module}"


@pytest.mark.parametrize("path", files("pycomm/*.py"), ids=name_of)
def test_the_library_does_not_know_perf(path: Path):
    assert not any(module.startswith("pycomm.perf") for module in modules(path))


@pytest.mark.parametrize("path", files("pycomm/*.py"), ids=name_of)
def test_the_library_does_not_know_torch(path: Path):
    if path.name != "_torch_autoload.py":  # the door through which torch comes in
        assert not any(
            module.partition(".")[0] == "torch" or module.startswith("pycomm.torch") for module in modules(path)
        )


def test_what_torch_loads_at_its_start_loads_nothing():
    for name in ("__init__", "_torch_autoload"):
        for node in ast.parse((ROOT / "pycomm" / f"{name}.py").read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = node.names[0].name if isinstance(node, ast.Import) else node.module or ""
                assert module.partition(".")[0] in sys.stdlib_module_names, module


@pytest.mark.parametrize("path", files("pycomm/torch/*.py"), ids=name_of)
def test_the_torch_room_knows_neither_a_launcher_nor_an_algorithm(path: Path):
    below = {"errors", "core", "calls", "comm", "pointers", "request", "start", "status", "torch", "_torch_autoload"}
    check_rooms(path, below | ({"buffer", "compressed"} if path.name == "compression.py" else set()))


@pytest.mark.parametrize("path", files("pycomm/moe/*.py"), ids=name_of)
def test_the_moe_room_knows_what_the_torch_room_knows_and_it(path: Path):
    below = {"errors", "core", "calls", "comm", "pointers", "torch", "moe"}
    check_rooms(path, below)


@pytest.mark.parametrize("path", files("pycomm/compressed/*.py"), ids=name_of)
def test_compression_is_a_user_of_communicators(path: Path):
    below = {"errors", "core", "buffer", "comm", "layout", "request", "status", "compressed"}
    check_rooms(path, below)


@pytest.mark.parametrize("path", files("pycomm/topology/*.py"), ids=name_of)
def test_topologies_know_no_schedule(path: Path):
    below = {"errors", "registry", "topology"} | ({"show"} if path.name in ("draw.py", "scene.py") else set())
    check_rooms(path, below)


@pytest.mark.parametrize("path", files("pycomm/lab/*.py"), ids=name_of)
def test_the_laboratory_knows_how_ranks_are_started_but_no_communicator(path: Path):
    below = {"errors", "knobs", "lab", "launch", "processes", "topology"}
    check_rooms(path, below)


@pytest.mark.parametrize("path", files("pycomm/plan/*.py"), ids=name_of)
def test_plans_know_machines_and_prices_but_no_communicator(path: Path):
    below = {
        "bound",
        "candidates",
        "errors",
        "figures",
        "plan",
        "registry",
        "simulate",
        "timeline",
        "topology",
        "traffic",
    }
    check_rooms(path, below)


@pytest.mark.parametrize("path", files("pycomm/**/*.py"), ids=name_of)
def test_nobody_loads_moe_but_its_user(path: Path):
    if path.parent.name != "moe":
        assert not any(module.startswith("pycomm.moe") for module in modules(path))


@pytest.mark.parametrize(
    "path", files("pycomm/*.py", "pycomm/compressed/*.py", "pycomm/torch/*.py", "pycomm/moe/*.py"), ids=name_of
)
def test_only_core_speaks_to_cffi(path: Path):
    speaks = {module for module in modules(path) if module.partition(".")[0] == "cffi" or "_pycomm" in module}
    assert not speaks or path.name == "core.py"


@pytest.mark.parametrize("path", files("perf/*.py", "algorithms/*.py"), ids=name_of)
def test_no_private_name_of_another_room_is_used(path: Path):
    room = {"perf": "pycomm.perf", "algorithms": "pycomm.algorithms"}[path.parent.name]
    for module, names in imports(path):
        if module.startswith("pycomm") and not module.startswith(room):
            assert not [name for name in (*module.split("."), *names) if name.startswith("_")], f"{module}: {names}"


@pytest.mark.parametrize(
    "path",
    files(
        "pycomm/*.py",
        "pycomm/lab/*.py",
        "pycomm/plan/*.py",
        "pycomm/topology/*.py",
        "pycomm/tune/*.py",
        "algorithms/*.py",
        "perf/*.py",
    ),
    ids=name_of,
)
def test_optional_packages_are_imported_where_they_are_needed(path: Path):
    optional = {"torch", "mpi4py", "ml_dtypes", "rich", "matplotlib"}
    top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in top if isinstance(node, ast.ImportFrom) and not node.level}
    late = "plot" in path.name  # imported by those alone who draw
    assert late or not {name.partition(".")[0] for name in names} & optional
