"""The command `pycomm run`: arguments, exit codes, output, signals, and that nothing is ever left running."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from launch_helpers import free_port

from pycomm import knobs
from pycomm.job.supervisor import Meeting

SOON = 30.0
MEET = """
from pycomm.job import environment
from pycomm.job.rendezvous import Rendezvous
import os, queue, signal, sys, time
job = environment.join()
rendezvous = Rendezvous(job)
told = queue.Queue()
rendezvous.watch(lambda *loss: told.put(loss))
rendezvous.exchange(b"")
"""

Write = Callable[[str], str]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def script(tmp_path: Path) -> Write:
    """Return what writes a script and returns its path."""

    def write(text: str) -> str:
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "pycomm", *words]


def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command("run", *words), input=stdin, text=True, capture_output=True, timeout=60)


@pytest.fixture
def start() -> Iterator[Start]:
    """Return what starts a job; a launcher that a failed test leaves behind is killed, and its ranks with it."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command("run", *words), stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield begin
    for launcher in started:
        launcher.kill()
        launcher.communicate()


def lines(text: str) -> list[str]:
    return sorted(text.splitlines())


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def wait_until_gone(pids: list[int]) -> None:
    end = time.monotonic() + SOON
    while not all(map(gone, pids)):
        assert time.monotonic() < end, f"still running: {[pid for pid in pids if not gone(pid)]}"
        time.sleep(0.02)


# What is run.


@pytest.mark.parametrize("fork", [[], ["--no-fork"]])
def test_a_script_runs_as_main_with_its_arguments(script: Write, fork: list[str]) -> None:
    path = script("""
        import os, sys
        main = sys.modules["__main__"].__file__
        print(os.environ["PYCOMM_RANK"], __name__, __file__, sys.argv[1:], sys.path[0], main)
    """)
    done = run("-n", "2", *fork, path, "-n", "7", "--", "--tag")
    assert (done.returncode, done.stderr) == (0, "")
    rest = f"__main__ {path} ['-n', '7', '--', '--tag'] {Path(path).parent} {path}"
    assert lines(done.stdout) == [f"0 {rest}", f"1 {rest}"]


@pytest.mark.parametrize("fork", [[], ["--no-fork"]])
def test_a_module_runs_as_main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fork: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "helper_module.py").write_text("value = 'imported'")
    (tmp_path / "my_module.py").write_text(
        "import sys, helper_module; print(__name__, helper_module.value, sys.argv[1:])"
    )
    done = run("-n", "2", *fork, "-m", "my_module", "-x")
    assert done.stdout == "__main__ imported ['-x']\n" * 2, done.stderr


def test_an_executable_runs_after_dashes() -> None:
    done = run("-n", "3", "--", "sh", "-c", "echo $PYCOMM_RANK of $PYCOMM_SIZE, $LOCAL_RANK of $LOCAL_WORLD_SIZE")
    assert lines(done.stdout) == ["0 of 3, 0 of 3", "1 of 3, 1 of 3", "2 of 3, 2 of 3"]


@pytest.mark.parametrize("fork", [[], ["--no-fork"]])
def test_ranks_meet(script: Write, fork: list[str]) -> None:
    path = script(MEET + "print(job.rank, rendezvous.exchange(b'%d' % job.rank))")
    done = run("-n", "4", *fork, path)
    assert lines(done.stdout) == [f"{rank} [b'0', b'1', b'2', b'3']" for rank in range(4)], done.stderr


def test_ranks_meet_behind_a_shell_over_tcp_and_one_after_another(
    script: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYCOMM_RENDEZVOUS", f"tcp://127.0.0.1:{free_port()}")
    path = script(MEET + "print(job.endpoint[:6])")
    done = run("-n", "2", "--", "sh", "-c", f"{sys.executable} {path} && {sys.executable} {path}")
    assert (done.returncode, done.stdout) == (0, "tcp://\n" * 4), done.stderr


def test_several_jobs_at_once_keep_to_themselves(script: Write, start: Start) -> None:
    """Each with a hub, listeners of tcp and a port for torch's store, none of which was told where to be."""
    path = script("""
        import os, socket, sys
        import numpy as np
        import pycomm
        comm = pycomm.init(transports="tcp", timeout=30)
        if comm.rank == 0:
            store = socket.create_server(("", int(os.environ["MASTER_PORT"])))
        names = np.empty(comm.size, np.int64)
        comm.Allgather(np.array([int(sys.argv[1])]), names)
        comm.Barrier()
        assert (names == int(sys.argv[1])).all(), names
    """)
    jobs = [start("-n", "3", path, str(number)) for number in range(4)]
    for job in jobs:
        _, err = job.communicate(timeout=60)
        assert job.returncode == 0, err


def test_a_job_within_a_rank_of_another(script: Write) -> None:
    path = script(MEET + "print(job.size)")
    inner = f"{sys.executable} -m pycomm run -n 2 {path}"
    done = run("-n", "2", "--", "sh", "-c", inner)
    assert (done.returncode, done.stdout) == (0, "2\n" * 4), done.stderr


def test_a_program_for_torch_finds_what_torchrun_would_tell_it(script: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    # as within a rank of torchrun
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("MASTER_ADDR", "elsewhere")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    path = script("""
        import os, socket
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
        print(*(os.environ[name] for name in names), any("ELASTIC" in name for name in os.environ))
        if os.environ["RANK"] == "0":  # the others only connect
            store = socket.socket()
            store.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            store.bind(("", int(os.environ["MASTER_PORT"])))
            store.listen()
    """)
    done = run("-n", "2", path)
    assert (done.returncode, lines(done.stdout)) == (0, ["0 2 0 2 127.0.0.1 False", "1 2 1 2 127.0.0.1 False"]), done


@pytest.mark.skipif(not find_spec("torch"), reason="torch is not installed: pip install torch")
@pytest.mark.parametrize("fork", [[], ["--no-fork"]])
def test_a_process_group_of_torch_needs_no_argument(script: Write, fork: list[str]) -> None:
    path = script("""
        import torch
        import torch.distributed as dist
        dist.init_process_group("pycomm")
        total = torch.tensor([dist.get_rank() + 1])
        dist.all_reduce(total)
        print(total.item())
        dist.destroy_process_group()
    """)
    done = run("-n", "2", *fork, path)
    assert (done.returncode, done.stdout) == (0, "3\n3\n"), done.stderr


def test_no_other_job_gets_the_port_of_one_that_runs() -> None:
    meetings = [Meeting(1) for _ in range(50)]
    ports = {meeting.store_port for meeting in meetings}
    assert len(ports) == 50
    taken = meetings[0].store_port
    with socket.socket() as stranger, pytest.raises(OSError):
        stranger.bind(("127.0.0.1", taken))
    for meeting in meetings:
        meeting.close()
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", taken))


def test_ranks_start_with_a_random_state_of_their_own_and_no_thread(script: Write) -> None:
    path = script("""
        import random, threading
        import numpy
        status = open("/proc/self/status").read()
        print(random.random(), numpy.random.random(), threading.active_count())
        assert "Threads:\\t1\\n" in status
    """)
    done = run("-n", "3", path)
    values = [line.split() for line in done.stdout.splitlines()]
    assert [value[2] for value in values] == ["1"] * 3, done.stderr
    assert len({value[0] for value in values}) == len({value[1] for value in values}) == 3


def test_the_ranks_share_the_cores(script: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = script("""
        import os
        import numpy
        matrix = numpy.ones((600, 600))
        matrix @ matrix
        print(os.environ["OMP_NUM_THREADS"], len(os.listdir("/proc/self/task")))
    """)
    cores = len(os.sched_getaffinity(0))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert run("-n", str(cores), path).stdout == "1 1\n" * cores
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert run("-n", "1", path).stdout.startswith("2 ")


def test_pinned_ranks_take_the_processors_in_turn_and_know_them_all(script: Write) -> None:
    path = script("""
        import os, pycomm
        comm = pycomm.init()
        print(comm.rank, *os.sched_getaffinity(0), *comm.machine.processors)
    """)
    cores = sorted(os.sched_getaffinity(0))
    done = run("-n", "5", "--pin", path)
    used = len({cores[rank % len(cores)] for rank in range(5)})
    wanted = [f"{rank} {cores[rank % len(cores)]} {used}" for rank in range(5)]
    assert sorted(done.stdout.splitlines()) == wanted, done.stderr


def test_the_interpreter_of_a_rank_ends_as_always(script: Write) -> None:
    path = script("""
        import atexit, threading, time
        atexit.register(print, "at exit")
        threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
        class Last:
            def __del__(self): print("deleted")
        last = Last()
        print("end of script")
    """)
    assert run("-n", "1", path).stdout.split("\n")[:4] == ["end of script", "thread", "at exit", "deleted"]


def test_standard_input_goes_to_rank_0(script: Write) -> None:
    path = script("import os, sys; print(os.environ['PYCOMM_RANK'], repr(sys.stdin.read()))")
    assert lines(run("-n", "3", path, stdin="hello").stdout) == ["0 'hello'", "1 ''", "2 ''"]


def test_tags(script: Write) -> None:
    path = script("""
        import os, sys
        print("one\\ntwo", flush=True)
        print("error", file=sys.stderr)
        sys.stdout.write("no newline")
    """)
    done = run("-n", "2", "--tag", path)
    assert lines(done.stdout) == [f"[{rank}] {text}" for rank in (0, 1) for text in ("no newline", "one", "two")]
    assert lines(done.stderr) == ["[0] error", "[1] error"]


# How it ends.


@pytest.mark.parametrize("fork", [[], ["--no-fork"]])
def test_the_exit_code_is_that_of_the_first_rank_that_fails(script: Write, fork: list[str]) -> None:
    path = script("""
        import os, sys, time
        rank = int(os.environ["PYCOMM_RANK"])
        time.sleep({0: 0, 1: 1.5, 2: 0.3}[rank])
        sys.exit({0: 0, 1: 9, 2: 7}[rank])
    """)
    done = run("-n", "3", *fork, path)
    assert done.returncode == 7
    assert "pycomm run: rank 2 exited with code 7 (pid " in done.stderr


def test_an_exception_shows_the_scripts_traceback_alone(script: Write) -> None:
    path = script("""
        def fail():
            raise ValueError("a mistake")
        fail()
    """)
    done = run("-n", "1", path)
    assert done.returncode == 1
    assert done.stderr.startswith(f'Traceback (most recent call last):\n  File "{path}", line 4, in <module>\n')
    assert "ValueError: a mistake\npycomm run: rank 0 exited with code 1" in done.stderr


def test_an_error_of_pycomm_in_a_script_is_an_exception_as_any_other(script: Write) -> None:
    done = run("-n", "1", script("from pycomm.errors import Aborted\nraise Aborted('here')"))
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_survivors_are_told_of_a_killed_rank_and_the_launcher_says_so(script: Write) -> None:
    path = script(MEET + textwrap.dedent("""
        if job.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        print(job.rank, *told.get(timeout=20))
    """))  # fmt: skip
    done = run("-n", "3", path)
    assert done.returncode == 128 + signal.SIGKILL
    assert [line.split(" (pid")[0] for line in lines(done.stdout)] == [
        "0 1 its process was killed by signal 9 (SIGKILL)",
        "2 1 its process was killed by signal 9 (SIGKILL)",
    ]
    assert done.stderr.startswith("pycomm run: rank 1 was killed by signal 9 (SIGKILL) (pid ")
    assert done.stderr.count("\n") == 1


def test_survivors_that_stay_are_terminated_then_killed(script: Write) -> None:
    path = script("""
        import os, signal, sys, time
        rank = int(os.environ["PYCOMM_RANK"])
        print(os.getpid(), flush=True)
        if rank == 2:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if rank == 0:
            time.sleep(0.5)
            sys.exit(3)
        time.sleep(60)
    """)
    done = run("-n", "3", "--grace", "0.2", path)
    assert done.returncode == 3
    assert "ranks 1, 2 had not ended 0.2 s later and had to be terminated" in done.stderr
    assert all(gone(int(pid)) for pid in done.stdout.split())


def test_the_time_limit(script: Write) -> None:
    path = script(MEET + "print(*told.get(timeout=20))\nsys.exit(0)")
    done = run("-n", "2", "--timeout", "1", path)
    assert done.returncode == 124
    assert done.stdout == "-1 the job has reached its limit of 1 s\n" * 2
    assert done.stderr == "pycomm run: the job has reached its limit of 1 s\n"


def test_what_ranks_have_started_is_ended_with_the_job(script: Write) -> None:
    done = run("-n", "2", "--", "sh", "-c", "sleep 60 & echo $!; (sleep 60 & echo $!); exit 0")
    pids = [int(pid) for pid in done.stdout.split()]
    assert (done.returncode, len(pids)) == (0, 4), done.stderr
    wait_until_gone(pids)


@pytest.mark.parametrize("fork", [[], ["--no-fork"]])
def test_no_rank_outlives_a_killed_launcher(script: Write, start: Start, fork: list[str]) -> None:
    path = script("import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    launcher = start("-n", "3", *fork, path)
    assert launcher.stdout is not None
    pids = [int(launcher.stdout.readline()) for _ in range(3)]
    launcher.kill()
    launcher.communicate(timeout=SOON)
    wait_until_gone(pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_launcher_reaches_every_rank_once(script: Write, start: Start, number: signal.Signals) -> None:
    path = script(f"""
        import os, signal, sys, time
        caught = []
        signal.signal({int(number)}, lambda *_: caught.append(1))
        print("ready", flush=True)
        while not caught:
            time.sleep(0.01)
        time.sleep(0.5)
        print(len(caught), flush=True)
    """)
    launcher = start("-n", "3", path)
    assert launcher.stdout is not None
    assert [launcher.stdout.readline() for _ in range(3)] == ["ready\n"] * 3
    launcher.send_signal(number)
    out, err = launcher.communicate(timeout=SOON)
    assert (launcher.returncode, out) == (128 + number, "1\n" * 3), err


def test_ctrl_c_in_a_terminal_reaches_every_rank_once(script: Write) -> None:
    path = script("""
        import time
        try:
            print("ready", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            time.sleep(0.5)
            print("interrupted", flush=True)
    """)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, command("run", "-n", "3", path))
    seen = b""
    while seen.count(b"ready") < 3:
        seen += os.read(terminal, 1024)
    os.write(terminal, b"\x03")
    while True:
        try:
            seen += os.read(terminal, 1024)
        except OSError:  # how a terminal without processes ends
            break
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGINT
    assert seen.count(b"interrupted") == 3
    assert b"Traceback" not in seen


# Mistakes.


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-n", "0", "x.py"], "-n 0"),
        (["-n", "2"], "nothing to run"),
        (["-n", "2", "--"], "no executable"),
        (["-n", "2", "no_such_script.py"], "no_such_script.py: no such script"),
        (["-n", "2", "--", "no-such-executable"], "no-such-executable: no such executable"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words: list[str], message: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("pycomm: ") and message in done.stderr
    assert done.stderr.count("\n") == 1


def test_info_prints_every_setting_with_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    env = {
        **os.environ,
        "PYCOMM_TIMEOUT": "7",
        "GLOO_SOCKET_IFNAME": "eth9",
        "PYCOMM_SECRET": "x" * 16,
    }
    done = subprocess.run(command("info"), text=True, capture_output=True, timeout=60, env=env, check=True)
    for knob in knobs.KNOBS:
        assert knob.name in done.stdout
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("  PYCOMM_")}
    assert re.search(r" 7 +\[environment\]", lines["PYCOMM_TIMEOUT"])
    assert re.search(r" eth9 +\[environment: GLOO_SOCKET_IFNAME\]", lines["PYCOMM_SOCKET_IFNAME"])
    assert "x" * 16 not in done.stdout


def test_help_names_the_commands() -> None:
    done = subprocess.run(command("--help"), text=True, capture_output=True, timeout=60, check=True)
    assert "run" in done.stdout and "info" in done.stdout
