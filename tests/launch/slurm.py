"""A Slurm with one node, this host, for as long as tests need it: its daemons live in a directory of their own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from launch_helpers import free_port

DAEMONS = ("munged", "slurmctld", "slurmd")
PATIENCE = 20.0

CONFIGURATION = """
ClusterName=pycomm
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={where}/munge.socket
CredType=cred/munge
StateSaveLocation={where}/state
SlurmdSpoolDir={where}/spool
SlurmctldPidFile={where}/slurmctld.pid
SlurmdPidFile={where}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=16
PartitionName=all Nodes={host} Default=YES
"""


def missing() -> str:
    """Return why there can be no Slurm here, or nothing if there can."""
    paths = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = [name for name in (*DAEMONS, "srun") if not shutil.which(name, path=paths)]
    return f"there is no {', '.join(absent)} (apt-get install slurmctld slurmd slurm-client munge)" if absent else ""


class Unable(Exception):
    """Slurm is installed, and cannot run on this host; the message holds what its daemons said."""


@contextlib.contextmanager
def running() -> Iterator[Path]:
    """Start the daemons; yield the configuration, which is what SLURM_CONF has to name; end them.

    Raises:
        Unable: the node did not get ready.
    """
    with tempfile.TemporaryDirectory(prefix="pycomm-slurm-") as name:
        where = Path(name)
        host = socket.gethostname().partition(".")[0]
        for folder in ("state", "spool"):
            (where / folder).mkdir()
        (where / "key").write_bytes(os.urandom(64))
        (where / "key").chmod(0o600)
        configuration = where / "slurm.conf"
        user = pwd.getpwuid(os.geteuid()).pw_name
        configuration.write_text(
            CONFIGURATION.format(host=host, user=user, where=where, controller=free_port(), node=free_port())
        )
        files = {"key-file": "key", "socket": "munge.socket", "pid-file": "munge.pid", "seed-file": "seed"}
        munge = [f"--{option}={where / file}" for option, file in files.items()]
        commands = [["munged", "--foreground", "--force", *munge, f"--log-file={where / 'munge.log'}"]]
        commands += [["slurmctld", "-D"], ["slurmd", "-D", "-N", host]]
        environment = {
            **os.environ, "SLURM_CONF": str(configuration), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"
        }  # fmt: skip
        with (where / "log").open("wb") as log, contextlib.ExitStack() as stack:
            daemons: list[subprocess.Popen[bytes]] = []

            def wait_until(ready: Callable[[], bool]) -> None:
                end = time.monotonic() + PATIENCE
                while not ready():
                    if time.monotonic() > end or any(daemon.poll() is not None for daemon in daemons):
                        said = (where / "log").read_text().splitlines()
                        raise Unable("; ".join(line for line in said if "slurmd" in line)[-500:])
                    time.sleep(0.05)

            for command in commands:
                daemon = subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
                stack.callback(_end, daemon)
                daemons.append(daemon)
                if command[0] == "munged":
                    wait_until((where / "munge.socket").exists)
            wait_until(lambda: "idle" in _output("sinfo", "-h", "-o", "%T", env=environment))
            yield configuration
            _output("scancel", "--full", "--user", user, env=environment)  # what a failed test may have left


def _output(*command: str, env: dict[str, str]) -> str:
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False).stdout


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
