"""Lets the soak use the same helpers as the tests of the collectives."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "comm"))
