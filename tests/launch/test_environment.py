"""Every launcher's variables are recognised, and partial or contradictory ones are refused by name."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pycomm.errors import InvalidArgument, LaunchError
from pycomm.job import environment, host
from pycomm.job.environment import Placement, first_node, recognise

TORCHRUN = {
    "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_RESTART_COUNT": "0",
}  # fmt: skip
OPENMPI = {
    "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "PMIX_RANK": "3", "PMIX_NAMESPACE": "n@1",
}  # fmt: skip
HYDRA = {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
SLURM = {
    "SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "0", "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_JOB_NODELIST": "n[07-08]",
}  # fmt: skip
PALS = {"PALS_RANKID": "3", "PALS_SIZE": "4", "PALS_LOCAL_RANKID": "1", "PALS_LOCAL_SIZE": "2", "PALS_APID": "a"}


@pytest.mark.parametrize(
    ("launcher", "variables"),
    [
        ("pycomm", {"PYCOMM_RANK": "3", "PYCOMM_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}),
        ("torchrun", TORCHRUN),
        ("openmpi", OPENMPI),
        ("pmix", {**SLURM, "PMIX_RANK": "3", "PMIX_NAMESPACE": "slurm.77.0"}),
        ("pmi", HYDRA),
        ("pmi", {"PMI_RANK": "3", "PMI_SIZE": "4", "PMI_LOCAL_RANK": "1", "PMI_LOCAL_SIZE": "2", "PALS_RANKID": "3"}),
        ("slurm", SLURM),
        ("pals", PALS),
    ],
)
def test_each_launcher_is_recognised(launcher: str, variables: dict[str, str]) -> None:
    place = recognise(variables)
    assert (place.rank, place.size, place.local_rank, place.local_size) == (3, 4, 1, 2)
    assert place.launcher == launcher


def test_the_order_of_launchers() -> None:
    together = {"PYCOMM_RANK": "0", "PYCOMM_SIZE": "9", **TORCHRUN, **OPENMPI, **HYDRA, **SLURM, **PALS}
    for launcher, variable in [
        ("pycomm", "PYCOMM_RANK"), ("torchrun", "RANK"), ("openmpi", "OMPI_COMM_WORLD_RANK"), ("pmix", "PMIX_RANK"),
        ("pmi", "PMI_RANK"), ("slurm", "SLURM_PROCID"), ("pals", "PALS_RANKID"),
    ]:  # fmt: skip
        assert recognise(together).launcher == launcher
        family = {"pycomm": "PYCOMM_", "torchrun": "", "openmpi": "OMPI_", "pmix": "PMIX_", "pmi": "PMI_"}.get(launcher)
        names = (
            TORCHRUN if launcher == "torchrun" else [name for name in together if family and name.startswith(family)]
        )
        for name in (*names, variable):
            together.pop(name, None)


def test_no_launcher_is_a_job_of_one_rank() -> None:
    assert recognise({"HOME": "/"}) == Placement(0, 1, 0, 1, "none")
    job = environment.join()
    assert (job.rank, job.size, job.endpoint) == (0, 1, "")


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"PYCOMM_RANK": "0"}, "PYCOMM_SIZE"),
        ({"PYCOMM_SIZE": "2"}, "PYCOMM_RANK"),
        ({"RANK": "0"}, "WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "RANK"),
        ({"OMPI_COMM_WORLD_RANK": "0"}, "OMPI_COMM_WORLD_SIZE"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_RANK"),
        ({"PMI_RANK": "0"}, "PMI_SIZE"),
        ({"PMI_SIZE": "2"}, "PMI_RANK"),
        ({"PMIX_RANK": "0"}, "PYCOMM_SIZE"),
        ({"PALS_RANKID": "0"}, "PYCOMM_SIZE"),
        ({"SLURM_PROCID": "1"}, "SLURM_STEP_NUM_TASKS"),
        ({"PYCOMM_RANK": "two", "PYCOMM_SIZE": "4"}, "PYCOMM_RANK"),
        ({"RANK": "-1", "WORLD_SIZE": "4"}, "RANK"),
        ({"RANK": "0", "WORLD_SIZE": "4.0"}, "WORLD_SIZE"),
        ({"RANK": "4", "WORLD_SIZE": "4"}, "RANK=4 and WORLD_SIZE=4"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK=0 and WORLD_SIZE=0"),
        ({**TORCHRUN, "LOCAL_RANK": "2"}, "LOCAL_RANK=2 and LOCAL_WORLD_SIZE=2"),
        ({**OPENMPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "5"}, "OMPI_COMM_WORLD_LOCAL_SIZE=5"),
    ],
)
def test_a_partial_or_contradictory_environment_is_refused_by_name(variables: dict[str, str], named: str) -> None:
    with pytest.raises(LaunchError, match=named):
        recognise(variables)


def test_a_slurm_batch_script_is_not_a_step() -> None:
    batch = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "77"}
    assert recognise(batch).size == 1
    assert recognise({**batch, "SLURM_STEP_ID": "0"}).size == 4


@pytest.mark.parametrize(
    ("text", "node", "size", "expected"),
    [
        ("2(x3),1", "0", 7, 2),
        ("2(x3),1", "3", 7, 1),
        ("4", "0", 4, 4),
        ("4", "0", 8, 0),
        ("?", "0", 4, 0),
        ("", "0", 4, 0),
    ],
)
def test_slurm_tasks_per_node(text: str, node: str, size: int, expected: int) -> None:
    place = recognise({**SLURM, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": str(size),
                       "SLURM_STEP_TASKS_PER_NODE": text, "SLURM_NODEID": node})  # fmt: skip
    assert place.local_size == expected


@pytest.mark.parametrize(
    ("nodelist", "first"),
    [("n01", "n01"), ("n[01-04,7],gpu3", "n01"), ("a,b", "a"), ("r[2,4]c1", "r2c1"), ("x-1,y", "x-1"), ("", "")],
)
def test_the_first_node_of_a_list(nodelist: str, first: str) -> None:
    assert first_node(nodelist) == first


# Joining: the endpoint and the secret.


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_several_hosts_without_a_secret_say_which_variables_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, OPENMPI)
    with pytest.raises(LaunchError, match=r"several hosts.*PYCOMM_RENDEZVOUS.*PYCOMM_SECRET_FILE"):
        environment.join()


def test_torchrun_on_several_hosts_needs_only_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, TORCHRUN)
    with pytest.raises(LaunchError, match="PYCOMM_SECRET_FILE"):
        environment.join()
    monkeypatch.setenv("PYCOMM_SECRET", "0123456789abcdef")
    job = environment.join()
    scheme, host_name, port = job.endpoint.split(":")
    assert (scheme, host_name) == ("tcp", "//10.0.0.1")
    assert 20000 <= int(port) < 30000
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    again = environment.join()
    assert again.job_id != job.job_id
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert environment.join().job_id == again.job_id


def test_slurm_on_several_hosts_meets_on_the_first_node(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**SLURM, "PYCOMM_SECRET": "0123456789abcdef"})
    assert environment.join().endpoint.startswith("tcp://n07:2")


def test_a_given_rendezvous_needs_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {"PYCOMM_RANK": "1", "PYCOMM_SIZE": "2"})
    with pytest.raises(LaunchError, match="PYCOMM_RENDEZVOUS"):
        environment.join()
    monkeypatch.setenv("PYCOMM_RENDEZVOUS", "tcp://10.0.0.1:5000")
    with pytest.raises(LaunchError, match="PYCOMM_SECRET_FILE"):
        environment.join()
    monkeypatch.setenv("PYCOMM_SECRET", "0123456789abcdef")
    job = environment.join()
    assert (job.rank, job.size, job.endpoint, job.hub) == (1, 2, "tcp://10.0.0.1:5000", 0)
    monkeypatch.setenv("PYCOMM_JOB", "second run")
    assert environment.join().job_id != job.job_id


@pytest.mark.parametrize(
    "text",
    ["5000", "tcp://host", "tcp://:5000", "udp://a:1", "tcp://a:0", "tcp://a:70000", "ipc://", "tcp://[fe80::1]:5000"],
)
def test_a_malformed_rendezvous_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    set_all(monkeypatch, {"PYCOMM_RANK": "0", "PYCOMM_SIZE": "2", "PYCOMM_RENDEZVOUS": text})
    with pytest.raises(LaunchError, match="PYCOMM_RENDEZVOUS"):
        environment.join()


def test_hosts_may_call_the_interface_of_a_link_local_rendezvous_as_they_like() -> None:
    jobs = [environment.join(1, 2, f"tcp://[fe80::1%{name}]:5000", b"a" * 16).job_id for name in ("eth0", "enp3s0")]
    assert jobs[0] == jobs[1] != environment.join(1, 2, "tcp://[fe80::2%eth0]:5000", b"a" * 16).job_id


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(
        monkeypatch,
        {"PYCOMM_RANK": "1", "PYCOMM_SIZE": "2", "PYCOMM_RENDEZVOUS": "tcp://a:5000", "PYCOMM_SECRET": "e" * 16},
    )
    job = environment.join(5, 8, "tcp://b:6000", b"a" * 16)
    assert (job.rank, job.size, job.endpoint, job.secret, job.launcher) == (
        5,
        8,
        "tcp://b:6000",
        b"a" * 16,
        "arguments",
    )
    with pytest.raises(InvalidArgument, match="both"):
        environment.join(rank=1)
    with pytest.raises(InvalidArgument, match="rank 8"):
        environment.join(8, 8)


def test_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_all(monkeypatch, {"PYCOMM_RANK": "1", "PYCOMM_SIZE": "2", "PYCOMM_RENDEZVOUS": "tcp://a:5000"})
    path = tmp_path / "secret"
    monkeypatch.setenv("PYCOMM_SECRET_FILE", str(path))
    with pytest.raises(LaunchError, match=r"PYCOMM_SECRET_FILE.*cannot be read"):
        environment.join()
    path.write_bytes(b"0123456789abcdef\n")
    path.chmod(0o644)
    with pytest.raises(LaunchError, match="open to every user"):
        environment.join()
    path.chmod(0o600)
    job = environment.join()
    assert job.secret == b"0123456789abcdef"
    assert "0123456789abcdef" not in repr(job)
    path.write_bytes(b"short")
    with pytest.raises(LaunchError, match="16 or more"):
        environment.join()


# Meeting on one host.


ONE_HOST = {"PMI_SIZE": "2", "MPI_LOCALNRANKS": "2"}


def test_ranks_on_one_host_find_each_other_with_nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**ONE_HOST, "PMI_RANK": "0"})
    first = environment.join()
    assert first.published is not None
    assert stat.S_IMODE(first.published.stat().st_mode) == 0o600
    assert stat.S_IMODE(first.published.parent.stat().st_mode) == 0o700
    monkeypatch.setenv("PMI_RANK", "1")
    second = environment.join(timeout=5)
    assert (second.endpoint, second.secret, second.job_id) == (first.endpoint, first.secret, first.job_id)
    monkeypatch.setenv("PMI_RANK", "0")
    assert environment.join().job_id != first.job_id


def test_a_given_secret_is_part_of_the_key_on_one_host(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**ONE_HOST, "PMI_RANK": "0", "PYCOMM_SECRET": "0123456789abcdef"})
    first = environment.join()
    set_all(monkeypatch, {"PMI_RANK": "1", "PYCOMM_SECRET": "another secret..."})
    assert environment.join(timeout=5).secret != first.secret


def test_rank_0_that_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**ONE_HOST, "PMI_RANK": "1"})
    with pytest.raises(LaunchError, match="rank 0 did not appear"):
        environment.join(timeout=0.05)


def test_what_a_dead_job_left_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**ONE_HOST, "PMI_RANK": "0"})
    published = environment.join().published
    assert published is not None
    alive = published.read_text()
    pid, started, rest = alive.split(maxsplit=2)
    monkeypatch.setenv("PMI_RANK", "1")
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    for stale in (f"{child} 1 {rest}", f"{pid} {int(started) + 1} {rest}", "", "garbage"):
        published.write_text(stale)
        with pytest.raises(LaunchError, match="rank 0 did not appear"):
            environment.join(timeout=0.02)
    published.write_text(alive)
    environment.join(timeout=0.02)


def test_a_runtime_directory_that_others_may_enter_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_all(monkeypatch, {**ONE_HOST, "PMI_RANK": "0"})
    (tmp_path / "pycomm").mkdir(mode=0o755)
    with pytest.raises(LaunchError, match="mode 700"):
        environment.join()


def test_the_launcher_is_the_nearest_ancestor_without_the_variable() -> None:
    assert host.launcher_of("PYCOMM_NO_SUCH_VARIABLE") == os.getppid()


def test_processes_are_told_apart_by_their_start() -> None:
    assert host.start_time(os.getpid()) > 0
    child = os.fork()
    if child == 0:
        os._exit(3)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert host.start_time(child) == 0
    assert host.describe_status(host.exit_status_of_zombie(child)) == "exited with code 3"
    os.waitpid(child, 0)
    assert host.exit_status_of_zombie(child) is None


@pytest.mark.parametrize(("address", "local"), [("127.0.0.1", True), ("localhost", True), ("192.0.2.1", False)])
def test_local_addresses(address: str, local: bool) -> None:
    assert host.is_local(address) is local
