"""What is found of hosts in sysfs, and what `pycomm topo --discover` says in and out of a job."""

import subprocess
import sys
from pathlib import Path

import pytest

from pycomm.discover.host import say_processors, this_host

COMMAND = [sys.executable, "-P", "-m", "pycomm"]


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")


def test_two_sockets_of_two_complexes(tmp_path):
    for cpu in range(8):
        socket, complex_ = ("0-3", "4-7")[cpu // 4], ("0-1", "2-3", "4-5", "6-7")[cpu // 2]
        place = f"devices/system/cpu/cpu{cpu}"
        write(tmp_path, {
            f"{place}/topology/package_cpus_list": socket,
            f"{place}/cache/index0/level": "1", f"{place}/cache/index0/shared_cpu_list": str(cpu),
            f"{place}/cache/index3/level": "3", f"{place}/cache/index3/shared_cpu_list": complex_,
            f"{place}/cache/index3/size": "32768K", f"{place}/cache/index0/size": "32K",
        })  # fmt: skip
    write(tmp_path, {"devices/system/node/node0/cpulist": "0-3", "devices/system/node/node1/cpulist": "4-7"})
    host = this_host(tmp_path)
    assert [say_processors(p) for p in host.sockets] == ["0-3", "4-7"] == [say_processors(p) for p in host.nodes]
    assert [say_processors(p) for p in host.complexes] == ["0-1", "2-3", "4-5", "6-7"]
    assert host.cache == 32 << 20
    assert "  4 last-level caches of 32 MiB: 0-1; 2-3; 4-5; 6-7" in list(host.lines())


def test_a_host_that_tells_little(tmp_path):
    write(tmp_path, {"devices/system/cpu/cpu0/topology/core_id": "0", "devices/system/cpu/cpu1/topology/core_id": "1"})
    host = this_host(tmp_path)
    assert host.sockets == host.nodes == host.complexes == (frozenset({0, 1}),)
    assert host.cache == 0


@pytest.mark.parametrize(("processors", "said"), [({0}, "0"), ({0, 1, 2, 8}, "0-2,8"), (set(), "")])
def test_processors_are_said_as_the_kernel_does(processors, said):
    assert say_processors(frozenset(processors)) == said


def test_alone():
    done = subprocess.run([*COMMAND, "topo", "--discover"], capture_output=True, text=True, check=True, timeout=60)
    assert "last-level cache" in done.stdout and "ranks 0" in done.stdout


def test_in_a_job(tmp_path):
    picture = tmp_path / "machine.svg"
    job = [*COMMAND, "run", "-n", "3", "-m", "pycomm", "topo", "--discover", "--svg", str(picture)]
    done = subprocess.run(job, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.count("last-level cache") == 1 and "ranks 0, 1, 2" in done.stdout
    assert "<svg" in picture.read_text()


@pytest.mark.parametrize("words", [[], ["flat:4", "--discover"]])
def test_either_a_machine_or_this_one(words):
    done = subprocess.run([*COMMAND, "topo", *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode and "either a machine" in done.stderr
