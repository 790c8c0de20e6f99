"""An example of what a package can add to pycomm: a transport in C, `count`, and an algorithm, `relay`."""

from pathlib import Path

COUNT = Path(__file__).with_name("libpycomm-transport-count.so")  # what the entry point names
