"""Lets these tests run from a checkout that was not built, for they need no C; keeps their algorithms to themselves."""

import importlib.util
import sys
from pathlib import Path

import pytest

if importlib.util.find_spec("pycomm.algorithms") is None:
    folder = Path(__file__).parents[2] / "algorithms"
    spec = importlib.util.spec_from_file_location(
        "pycomm.algorithms", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["pycomm.algorithms"] = module
    spec.loader.exec_module(module)

from pycomm import registry


@pytest.fixture(autouse=True)
def own_register(monkeypatch):
    """Forget after each test the algorithms that it entered."""
    registry.listing()
    monkeypatch.setattr(registry, "_algorithms", dict(registry._algorithms))
