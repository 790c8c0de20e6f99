"""Lets these tests run from a checkout that was not built: they need no C."""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("pycomm.algorithms") is None:
    folder = Path(__file__).parents[2] / "algorithms"
    spec = importlib.util.spec_from_file_location(
        "pycomm.algorithms", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["pycomm.algorithms"] = module
    spec.loader.exec_module(module)
