"""Laboratories for tests: where this machine has none to give, the tests that need one are skipped.

And an environment in which the lines of several ranks do not mix.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import pytest

from pycomm.errors import InvalidArgument, SystemRefused
from pycomm.lab import Lab, loads
from pycomm.lab.build import check_machine
from pycomm.lab.namespaces import Keeper

RELAYED = '[[host]]\nnics = ["inf"]\ndelay = "1ms"'  # takes all that a laboratory can take

# Set, a rank's print writes a line and its end one by one.
os.environ.pop("PYTHONUNBUFFERED", None)


@pytest.fixture(scope="session")
def possible() -> None:
    """Skip unless laboratories can be made here."""
    try:
        check_machine(loads(RELAYED))
        Keeper("probe").close()
    except (InvalidArgument, SystemRefused) as why:
        pytest.skip(str(why))


@pytest.fixture
def make_lab(possible: None) -> Iterator[Callable[[str], Lab]]:
    """Makes laboratories from TOML, which go with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda text: stack.enter_context(Lab(loads(text)))
