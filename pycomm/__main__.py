"""The command `pycomm`: run, mpirun, info, verify, show, topo, simulate, tune, explain, plan, perf, lab, doctor."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys

from pycomm import knobs
from pycomm.errors import LaunchError, PycommError

# Which module adds a command to the parser, by its `register(subparsers)`. Only the module that is needed is imported.
_COMMANDS = {
    "run": "pycomm.commands.run",
    "mpirun": "pycomm.commands.mpirun",
    "info": "pycomm.commands.info",
    "doctor": "pycomm.commands.doctor",
    "verify": "pycomm.commands.schedule",
    "show": "pycomm.commands.schedule",
    "topo": "pycomm.commands.topology",
    "simulate": "pycomm.commands.simulate",
    "perf": "pycomm.perf.cli",
    "tune": "pycomm.commands.tune",
    "explain": "pycomm.commands.explain",
    "lab": "pycomm.commands.lab",
    "plan": "pycomm.commands.plan",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code: 2 if it raised one of pycomm's errors, which is printed on one line."""
    words = sys.argv[1:] if argv is None else argv
    # A command may take what follows -- as it stands; argparse would not tell it whether the dashes were there.
    cut = words.index("--") if "--" in words else None
    try:
        args = _parser(words).parse_args(words[:cut])
        args.after_dashes = None if cut is None else words[cut + 1 :]
        code: int = args.run(args)
        return code
    except PycommError as error:
        if _wants_traceback():
            raise
        print(f"pycomm: {error}", file=sys.stderr)
        return 2


def _wants_traceback() -> bool:
    try:
        return knobs.DEBUG.value() == "TRACE"
    except LaunchError:  # which may be what went wrong
        return False


def _parser(words: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pycomm", description="Collective communication.", epilog="pycomm COMMAND --help tells more."
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    asked = next((word for word in words if word in _COMMANDS), None)
    if asked:
        importlib.import_module(_COMMANDS[asked]).register(subparsers)
        return parser
    for module in dict.fromkeys(_COMMANDS.values()):
        # A command whose optional dependencies are absent is not offered; asked for by name, it says what it lacks.
        with contextlib.suppress(ImportError):
            importlib.import_module(module).register(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
