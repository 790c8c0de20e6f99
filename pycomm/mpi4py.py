"""Runs a program that imports mpi4py on pycomm, unchanged: `python -m pycomm.mpi4py script.py [argument ...]`.

`import mpi4py` then finds a stand-in whose MPI is pycomm.MPI, whether or not mpi4py is installed; so do libraries that
the program imports. With several ranks: `pycomm run -n 4 -m pycomm.mpi4py script.py`, or another launcher.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace


def stand_in() -> None:
    """Let `import mpi4py` find pycomm from now on; nothing may have imported mpi4py before."""
    from . import MPI

    package = ModuleType("mpi4py", __doc__)
    package.__path__ = []
    rc = SimpleNamespace(initialize=True, finalize=None, threads=True, thread_level="multiple", errors="exception")
    vars(package).update(MPI=MPI, rc=rc, __version__="4.0.0")
    sys.modules["mpi4py"], sys.modules["mpi4py.MPI"] = package, MPI


def main() -> None:
    """Run the program that the command line names: a script, or a module after -m."""
    words = sys.argv[1:]
    module = words[:1] == ["-m"]
    command = words[module:]
    if not command:
        sys.exit("usage: python -m pycomm.mpi4py (SCRIPT | -m MODULE) [ARGUMENT ...]")
    from .runtime import fail

    stand_in()
    sys.argv = command
    try:
        if module:
            runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        else:
            if not sys.flags.safe_path:  # else it is not the folder that the program was started from
                sys.path[0] = str(Path(command[0]).resolve().parent)
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            fail()
        raise


if __name__ == "__main__":
    main()
