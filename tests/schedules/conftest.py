"""Keeps the algorithms that a test enters to that test."""

import pytest

from pycomm.schedules import registry


@pytest.fixture(autouse=True)
def own_register(monkeypatch):
    """Forget after each test the algorithms that it entered."""
    registry.listing()
    monkeypatch.setattr(registry, "_algorithms", dict(registry._algorithms))
