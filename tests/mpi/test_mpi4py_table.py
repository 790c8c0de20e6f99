"""docs/mpi4py.md names every method of mpi4py's communicators, and says of each what is true here."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

import pycomm
from pycomm import MPI

ROOT = Path(__file__).parents[2]
CLASSES = ("Comm", "Intracomm", "Topocomm", "Cartcomm", "Graphcomm", "Distgraphcomm")
ROW = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \| (same|different|absent) \| (.*) \|$", re.M)


def table() -> dict[str, str]:
    """Return what the page says of each method."""
    said: dict[str, str] = {}
    for names, state, why in ROW.findall((ROOT / "docs" / "mpi4py.md").read_text()):
        assert why or state == "same", f"{names}: how, or why?"
        for name in re.findall(r"\w+", names):
            assert name not in said, f"{name} stands there twice"
            said[name] = state
    return said


def stub() -> ast.Module:
    """Return mpi4py's own description of its classes, which needs no MPI to be read."""
    found = importlib.util.find_spec("mpi4py")
    if found is None or found.origin is None:
        pytest.skip("mpi4py is not installed")
    return ast.parse(Path(found.origin).with_name("MPI.pyi").read_text())


def public_names(*classes: str) -> set[str]:
    names = set()
    for node in stub().body:
        if isinstance(node, ast.ClassDef) and node.name in classes:
            for item in node.body:
                if isinstance(item, ast.FunctionDef):
                    names.add(item.name)
                elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                    names.add(item.target.id)
    return {name for name in names if not name.startswith("_")}


def test_every_method_is_in_the_table():
    assert set(table()) == public_names(*CLASSES)


def test_the_table_is_true():
    def rank(comm: pycomm.Comm) -> set[str]:
        made = comm.Create_cart([1]), comm.Create_graph([1], [0]), comm.Create_dist_graph_adjacent([0], [0])
        return {name for name in table() if any(hasattr(each, name) for each in made)}

    [there] = pycomm.run_threads(1, rank)
    assert there == {name for name, state in table().items() if state != "absent"}


def test_arguments_have_the_same_names_and_order():
    """As far as mpi4py's go; pycomm's keywords may follow."""
    import inspect

    said = table()
    for node in stub().body:
        if not isinstance(node, ast.ClassDef) or node.name not in CLASSES:
            continue
        for item in node.body:
            if not isinstance(item, ast.FunctionDef) or said.get(item.name) != "same":
                continue
            theirs = [argument.arg for argument in item.args.args if argument.arg not in ("self", "cls")]
            ours_of = getattr(MPI, node.name)
            method = inspect.getattr_static(ours_of, item.name, None)
            if item.name.endswith("_init") or isinstance(method, staticmethod | property | None):
                continue
            ours = list(inspect.signature(getattr(ours_of, item.name)).parameters)[1:]
            renamed = {"comm": "other"}
            assert ours[: len(theirs)] == [renamed.get(name, name) for name in theirs], item.name
