"""Runs the tests of process groups that torch ships, on pycomm and on gloo: `upstream.py --world 4 --vs gloo`.

The suite asks for GPUs, other backends' names and eight ranks before it tests anything. Here it runs as gloo's, in
whose name pycomm answers (PYCOMM_TORCH_AS_GLOO), with the CPU in place of GPUs, in forked ranks.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import types
import unittest
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

SUITE = "torch.testing._internal.distributed.distributed_test"
PATIENCE = 90  # seconds for one test
# What the suite keeps for another backend although any can do it.
OPENED = ("Only MPI supports",)
# Which tests turn out to need a GPU all the same: by what torch says then, or by name.
NEEDS_GPU = (
    "SyncBatchNorm layers only work with GPU modules",
    "Distributed package doesn't have NCCL built in",
    "Cannot access accelerator device when none is available",
    "cpu backend doesn't support events",
)
ASKS_FOR_GPU = {
    "test_ddp_device": "asserts that tensors are on numbered GPUs",
    "test_ddp_logging_data_gpu": "asserts that DDP's log numbers the GPUs",
}
# Local variables of tests that make images for GPUs, and the side of one for processors.
SMALLER = {"test_ddp_uneven_inputs": ("dim", 32)}


class Processors:
    """Stands in for torch.cuda: as many devices as a test may want, on which nothing has to be done."""

    def is_available(self) -> bool:
        return False

    def device_count(self) -> int:
        return 8

    def current_device(self) -> str:
        return "cpu"

    def Stream(self, *_: Any, **__: Any) -> None:
        return None

    def stream(self, _: Any) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def on_cpu(what: Any) -> Any:
    """Return the CPU for whatever names a GPU: a number, a text, a torch.device; other things as they are."""
    import torch

    if isinstance(what, int) and not isinstance(what, bool):
        return "cpu"
    if (isinstance(what, str) and what.startswith("cuda")) or (isinstance(what, torch.device) and what.type == "cuda"):
        return "cpu"
    return what


class OnCpu(ast.NodeTransformer):
    """Rewrites a program for GPUs to one that does the same on the CPU."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        is_cuda = node.attr == "cuda" and isinstance(node.value, ast.Name) and node.value.id == "torch"
        return ast.copy_location(ast.Name("processors", ast.Load()), node) if is_cuda else node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        name, value = SMALLER.get(node.name, ("", 0))
        for each in node.body:
            if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name) and each.targets[0].id == name:
                each.value = ast.Constant(value)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == "cuda":
            assert isinstance(node.func, ast.Attribute)
            return ast.copy_location(ast.Call(ast.Attribute(node.func.value, "cpu", ast.Load()), [], []), node)
        if name in ("to", "device", "init_device_mesh"):
            node.args[:1] = [_call_on_cpu(each) for each in node.args[:1]]
        for keyword in node.keywords:
            if keyword.arg in ("device_ids", "output_device"):
                keyword.value = ast.Constant(None)
            elif keyword.arg == "device":
                keyword.value = _call_on_cpu(keyword.value)
        return node


def _call_on_cpu(argument: ast.expr) -> ast.expr:
    if isinstance(argument, ast.Starred):
        return argument
    return ast.Call(ast.Name("on_cpu", ast.Load()), [argument], [])


def _open_gates() -> None:
    """Have the suite's decorators let everything pass that needs no GPU, no other library and no more ranks."""
    from torch.testing._internal import common_distributed, common_utils

    def always(test: Callable[..., Any]) -> Callable[..., Any]:
        return test

    common_distributed.skip_if_no_gpu = always
    # The suite asks for eight ranks where three are enough.
    few = int(os.environ["WORLD_SIZE"]) < 3
    common_distributed.skip_if_small_worldsize = unittest.skip("needs three ranks") if few else always
    common_distributed.skip_if_lt_x_gpu = lambda *_, **__: always
    common_distributed.init_multigpu_helper = lambda size, backend: {rank: [rank] for rank in range(size)}
    skip_if = common_utils.skip_but_pass_in_sandcastle_if
    common_utils.skip_but_pass_in_sandcastle_if = lambda condition, why: skip_if(
        condition and not why.startswith(OPENED), why
    )


def _suite(backend: str) -> type[unittest.TestCase]:
    """Import torch's suite, with what hinders it rewritten, and return its tests for forked ranks of a backend."""
    import torch.multiprocessing

    _open_gates()
    spec = importlib.util.find_spec(SUITE)
    assert spec is not None and spec.origin is not None
    tree = ast.fix_missing_locations(OnCpu().visit(ast.parse(Path(spec.origin).read_text())))
    module: Any = types.ModuleType(SUITE)
    module.__file__, module.processors, module.on_cpu = spec.origin, Processors(), on_cpu
    sys.modules[SUITE] = module
    exec(compile(tree, spec.origin, "exec", dont_inherit=True), module.__dict__)

    class Upstream(module.TestDistBackend, module.DistributedTest._DistTestBase):  # type: ignore[misc, name-defined]
        def setUp(self) -> None:
            super().setUp()
            self._spawn_processes()

        def tearDown(self) -> None:
            for process in self.processes:
                if process.exitcode is None:
                    process.kill()
                process.join()
            super().tearDown()

        def _spawn_processes(self) -> None:
            self._start_processes(torch.multiprocessing.get_context("fork").Process)

        def test_ddp_logging_data_cpu(self) -> None:
            """DDP's log calls the backend by its own name, whatever name it answers to."""
            with mock.patch.object(module.dist, "get_backend", return_value=backend):
                super().test_ddp_logging_data_cpu()

        def run_test(self, test_name: str, parent_pipe: Any) -> None:
            """Run a test in a rank; why it is skipped is left where the parent finds it."""
            test = getattr(self, test_name)

            def told() -> None:
                try:
                    if test_name in ASKS_FOR_GPU:
                        raise unittest.SkipTest(ASKS_FOR_GPU[test_name])
                    test()
                except unittest.SkipTest as skip:
                    _reason().write_text(str(skip))
                    raise
                except (RuntimeError, ValueError) as error:
                    why = next((why for why in NEEDS_GPU if why in str(error)), None)
                    if why is None:
                        raise
                    _reason().write_text(why)
                    raise unittest.SkipTest(why) from error

            setattr(self, test_name, told)
            super().run_test(test_name, parent_pipe)

        def _check_return_codes(self, fn: Any, elapsed_time: float) -> None:
            try:
                super()._check_return_codes(fn, elapsed_time)
            except unittest.SkipTest as skip:
                raise unittest.SkipTest(_reason().read_text() if _reason().exists() else str(skip)) from None

    return Upstream


def _reason() -> Path:
    return Path(os.environ["TEMP_DIR"]) / "skipped"


class Result(unittest.TestResult):
    """Writes down how each test ended, and shows failures as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: dict[str, list[str]] = {}
        self.seconds: dict[str, float] = {}
        self._begun = 0.0

    def startTest(self, test: Any) -> None:
        super().startTest(test)
        self._begun = time.monotonic()

    def stopTest(self, test: Any) -> None:
        super().stopTest(test)
        self.seconds[test._testMethodName] = time.monotonic() - self._begun

    def addSuccess(self, test: Any) -> None:
        self.ends[test._testMethodName] = ["passed", ""]

    def addSkip(self, test: Any, reason: str) -> None:
        self.ends[test._testMethodName] = ["skipped", reason]

    def addError(self, test: Any, err: Any) -> None:
        self.ends[test._testMethodName] = ["failed", str(err[1])]
        print(f"{test._testMethodName} failed:\n{err[1]}", flush=True)

    addFailure = addError


def run(backend: str, world: int, only: list[str]) -> dict[str, list[str]]:
    """Run tests in this process's children; return, by name, how each ended and why."""
    os.environ.update(
        BACKEND="gloo", WORLD_SIZE=str(world), DISTRIBUTED_TESTS_DEFAULT_TIMEOUT=str(PATIENCE), OMP_NUM_THREADS="1",
        PYCOMM_TORCH_AS_GLOO=str(int(backend == "pycomm")),
    )  # fmt: skip
    suite = _suite(backend)
    if backend == "pycomm":
        import pycomm.torch  # not to be found wanting later: torch would take its own gloo without a word

        pycomm.torch.register()
    names = [name for name in unittest.defaultTestLoader.getTestCaseNames(suite) if not only or name in only]
    absent = set(only) - set(names)
    if absent:
        print(f"this torch has no {', '.join(sorted(absent))}")
    result = Result()
    with contextlib.redirect_stderr(sys.stdout):
        unittest.TestSuite(map(suite, names)).run(result)
    for name, seconds in sorted(result.seconds.items(), key=lambda each: -each[1])[:5]:
        print(f"{seconds:6.1f} s  {name}")
    return result.ends


def run_apart(backend: str, world: int, only: list[str]) -> dict[str, list[str]]:
    """Do what `run` does in a process of its own, as the suite can be imported for one backend alone."""
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report"
        command = [sys.executable, __file__, "--backend", backend, "--world", str(world), "--report", str(report)]
        subprocess.run([*command, *(["--only", *only] if only else [])], check=False, stdin=subprocess.DEVNULL)
        return dict(json.loads(report.read_text())) if report.exists() else {}


def said(backend: str, world: int, ends: dict[str, list[str]]) -> Iterator[str]:
    """Say how many tests ended how; which failed; which were skipped, by reason."""
    counts = Counter(end for end, _ in ends.values())
    yield f"{backend}, {world} ranks: " + ", ".join(f"{counts[end]} {end}" for end in ("passed", "failed", "skipped"))
    yield from (f"  failed: {name}" for name, (end, _) in ends.items() if end == "failed")
    reasons: dict[str, list[str]] = {}
    for name, (end, why) in ends.items():
        if end == "skipped":
            reasons.setdefault(" ".join(why.split()), []).append(name)
    yield from (f"  skipped: {why}: {', '.join(names)}" for why, names in reasons.items())


def main() -> int:
    """Run what the command line asks for; the status is 0 if the first backend failed nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="pycomm", choices=("pycomm", "gloo"))
    parser.add_argument("--vs", choices=("pycomm", "gloo"), help="a backend to run beside it")
    parser.add_argument("--world", type=int, default=4, help="the number of ranks")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="the tests to run")
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.report:
        asked.report.write_text(json.dumps(run(asked.backend, asked.world, asked.only)))
        return 0
    backends = [asked.backend, *([asked.vs] if asked.vs else [])]
    ends = {backend: run_apart(backend, asked.world, asked.only) for backend in backends}
    for backend in backends:
        print(*said(backend, asked.world, ends[backend]), sep="\n")
    own = ends[asked.backend]
    return int(not own or any(end == "failed" for end, _ in own.values()))


if __name__ == "__main__":
    sys.exit(main())
