"""The command line: nccl-tests' flags become requests, and nonsense is refused with a sentence."""

from __future__ import annotations

import argparse

import pytest

from pycomm.errors import InvalidArgument, LaunchError
from pycomm.perf import cli, plot, rivals


def _parse(*words):
    parser = argparse.ArgumentParser()
    cli.register(parser.add_subparsers())
    return parser.parse_args(["perf", *words])


def _request(*words, ranks=2):
    return cli._request(_parse(*words), ranks)


def test_flags_mean_what_they_mean_in_nccl_tests():
    request = _request("all_reduce", "-b", "8", "-e", "1K", "-f", "4", "-w", "3", "--iters", "9", "-a", "3", "-c", "0",
                       "-o", "max", "-d", "half")  # fmt: skip
    assert [case.name for case in request.cases] == ["allreduce"]
    assert request.sizes == [8, 32, 128, 512]
    assert (request.effort.warmup, request.effort.iterations, request.effort.average) == (3, 9, "max")
    assert not request.effort.check
    assert (request.ops, request.dtypes) == (["max"], ["half"])
    assert request.header == (
        "# nThread 1 nGpus 1 minBytes 8 maxBytes 1024 step: 4(factor) warmup iters: 3 iters: 9 agg iters: 1 "
        "validation: 0 graph: 0 unalign: 0"
    )


def test_steps_and_all():
    request = _request(
        "all", "-b", "8", "-e", "24", "-i", "8", "-o", "all", "-d", "all", "-r", "all", "--vs", "all", ranks=3
    )
    assert request.sizes == [8, 16, 24]
    assert len(request.cases) == 14 and len(request.dtypes) == 12 and len(request.ops) == 5
    assert request.roots == [0, 1, 2]
    assert request.libraries == ["pycomm", "gloo", "openmpi", "mpich", "impi"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["allreduce", "-o", "xor"], "xor"),
        (["allreduce", "-d", "float80"], "float80"),
        (["broadcast", "-r", "2"], "root"),
        (["allreduce", "-b", "1M", "-e", "8"], "-e at least -b"),
        (["allredcue"], "allredcue"),
        (["allreduce", "-f", "1"], "-f"),
    ],
)
def test_nonsense_is_refused(words, says):
    with pytest.raises(InvalidArgument, match=says):
        _request(*words)


def test_within_a_job_nothing_is_launched(monkeypatch):
    monkeypatch.setenv("PYCOMM_RANK", "0")
    monkeypatch.setenv("PYCOMM_SIZE", "4")
    with pytest.raises(InvalidArgument, match="PYCOMM_RANK says that this is one of a job already"):
        cli.run(_parse("allreduce", "-n", "4"))
    with pytest.raises(InvalidArgument, match="cannot be joined from a job that pycomm launched"):
        cli.run(_parse("allreduce", "--vs", "impi"))


@pytest.mark.parametrize(
    ("rank", "size"), [("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"), ("PALS_RANKID", "PALS_SIZE"), ("PMI_RANK", "PMI_SIZE")]
)
def test_every_launcher_counts(monkeypatch, rank, size):
    monkeypatch.setenv(rank, "1")
    monkeypatch.setenv(size, "4")
    with pytest.raises(InvalidArgument, match=f"{rank} says that this is one of a job already"):
        cli.run(_parse("allreduce", "-n", "4"))


def test_a_job_whose_size_is_missing_is_refused(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(LaunchError, match="WORLD_SIZE"):
        cli.run(_parse("allreduce"))


def test_a_missing_rival_says_what_to_install(monkeypatch):
    monkeypatch.setattr(rivals, "find_spec", lambda name: None)
    found, lines = rivals.choose(["gloo", "mpich"])
    assert found == []
    assert lines[0] == "gloo is not installed and is left out: pip install torch"
    assert lines[1].startswith("mpich is not installed and is left out: pip install")
    assert str(rivals.prefix_of("mpich")) in lines[1]
    with pytest.raises(InvalidArgument, match="nccl"):
        rivals.choose(["nccl"])


def test_an_mpiexec_of_another_mpi_is_not_taken(monkeypatch, tmp_path):
    mpiexec = tmp_path / "bin" / "mpiexec"
    mpiexec.parent.mkdir()
    mpiexec.write_text("#!/bin/sh\necho 'HYDRA build details:'\n")
    mpiexec.chmod(0o755)
    monkeypatch.setattr(rivals, "prefix_of", lambda name: tmp_path)
    monkeypatch.setattr(rivals, "find_spec", lambda name: object())
    monkeypatch.setattr(rivals.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(rivals.shutil, "which", lambda name: None)
    assert rivals.RIVALS["mpich"].find() == str(mpiexec)
    assert rivals.RIVALS["openmpi"].find() is None


def test_pictures(row, tmp_path):
    pytest.importorskip("matplotlib")
    rows = [row(library, nbytes=size, median=size / 8) for library in ("pycomm", "gloo") for size in (8, 64, 512)]
    rows += [row(collective=f"c{i}", nbytes=8) for i in range(5)]
    plot.save(rows, tmp_path / "a.png", "title")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InvalidArgument, match="nothing to plot"):
        plot.save([row(nbytes=0)], tmp_path / "b.png", "title")
