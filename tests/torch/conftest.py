"""Ranks that the tests of a session share, for each size; everything here needs torch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

try:
    import torch
except ImportError:
    torch = None


def pytest_pycollect_makemodule(module_path, parent):
    """Without torch, stand in for each file one test that says what is missing."""
    return Missing.from_parent(parent, path=module_path) if torch is None else None


class Missing(pytest.File):
    def collect(self) -> Iterator[pytest.Item]:
        yield Absent.from_parent(self, name="torch")


class Absent(pytest.Item):
    def runtest(self) -> None:
        pytest.skip("torch is not installed: pip install torch")


@pytest.fixture(scope="session")
def pool():
    """Return a function that gives the ranks of a size."""
    from ranks import Ranks

    made: dict[int, Ranks] = {}

    def ranks(size: int) -> Ranks:
        if size in made and not made[size].good:
            made.pop(size).close()
        if size not in made:
            made[size] = Ranks(size)
        return made[size]

    yield ranks
    for each in made.values():
        each.close()
