"""The cache of networks: what is kept is found again, for a day; old entries and damaged ones are not."""

import os
import time

import pytest

from pycomm.discover import cache
from pycomm.selection.network import Network

NETWORK = Network((1e8, 1e8), 1e-4, ((0, 1),))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_what_was_kept_is_found():
    assert cache.find("a") is None
    cache.keep("a", NETWORK)
    assert cache.find("a") == NETWORK and cache.find("b") is None


def test_what_is_old_is_measured_again_and_forgotten(tmp_path):
    cache.keep("a", NETWORK)
    file = tmp_path / "pycomm" / "network-a.json"
    two_days_ago = time.time() - 2 * 86400
    os.utime(file, (two_days_ago, two_days_ago))
    assert cache.find("a") is None
    cache.keep("b", NETWORK)
    assert not file.exists() and cache.find("b") == NETWORK


def test_a_damaged_file_is_none(tmp_path):
    cache.keep("a", NETWORK)
    (tmp_path / "pycomm" / "network-a.json").write_text("{")
    assert cache.find("a") is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache.keep("a", NETWORK)
    assert cache.find("a") is None
