"""What a measurement was taken on, and whether the machine was busy with something else."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any


def describe(versions: dict[str, str]) -> dict[str, Any]:
    """The machine as it goes into the JSON; memory in bytes."""
    return {
        "cpu": _cpu_model(),
        "cores": cores(),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libraries": versions,
        "load_average": list(os.getloadavg()),
    }


def cores() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0))


def available_memory() -> int:
    """Bytes that can be allocated without swapping, as the kernel estimates it."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def busy(looks: int = 10, pause: float = 0.05) -> str | None:
    """A warning if other programs are running now, or None; looks several times, `pause` seconds apart."""
    running = []
    for _ in range(looks):
        running.append(int(Path("/proc/loadavg").read_text().split()[3].split("/")[0]) - 1)  # without this process
        time.sleep(pause)
    others = sorted(running)[looks // 2]
    if others < 1:
        return None
    return (
        f"the machine is busy (runnable threads of others: {others}, cores: {cores()}, load average "
        f"{os.getloadavg()[0]:.1f}): times are longer and more scattered than they should be"
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.machine()
