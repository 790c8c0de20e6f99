"""Lets the tests of failures use the same helpers as those of the collectives."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "comm"))
