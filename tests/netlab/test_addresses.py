"""By which addresses ranks on two hosts connect: IPv6, link-local too; a name that means 127.0.1.1; docker0."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pycomm
from pycomm.errors import LaunchError
from pycomm.lab import Lab

MakeLab = Callable[[str], Lab]

PORT = 5555
SECONDS = 60  # for a job
TWO_HOSTS = '[[host]]\ncount = 2\nnics = ["inf"]'
OWN = {"host0": "10.77.0.1", "host1": "10.77.0.2"}

# As containers leave it on a host: it is up, has a carrier and an address, and leads to no other host. A default route
# has the other host's address looked for outside.
DOCKER0 = """
link add docker0 type bridge
link add inside type veth peer name container
link set inside master docker0 up
link set container up
address add {address} dev docker0
link set docker0 up
route add default via {router}
"""


def ip(lab: Lab, host: int, *lines: str) -> str:
    """Give lines to `ip` in the network of a host, and return what it says."""
    with lab.network(host):
        words = ["ip", "-batch", "-"]
        done = subprocess.run(words, input="\n".join(lines), capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def only_ipv6(lab: Lab) -> list[str]:
    """Take away the hosts' IPv4 addresses; return the link-local ones that they have instead."""
    found = []
    for host in range(2):
        with lab.network(host):
            for device in ("all", "eth0"):
                Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("0")
            Path("/proc/sys/net/ipv6/conf/eth0/accept_dad").write_text("0")
        ip(lab, host, "address flush dev eth0", "link set eth0 down", "link set eth0 up")
        said = ip(lab, host, "address show dev eth0 scope link")
        found += re.findall("inet6 (fe80[^/]*)", said)
    assert len(found) == 2
    return found


def connections(rendezvous: dict[str, str] | None = None, hosts: str = "") -> set[tuple[str, str]]:
    """Be a rank, and return the two ends of each connection, without ports.

    Args:
        rendezvous: what PYCOMM_RENDEZVOUS is on each host; None: as it is.
        hosts: what /etc/hosts is.
    """
    if rendezvous:
        os.environ["PYCOMM_RENDEZVOUS"] = rendezvous[socket.gethostname()]
    if hosts:
        Path("/etc/hosts").write_text(hosts)
    comm = pycomm.init(timeout=20)
    total = np.empty(100_000)
    comm.Allreduce(np.ones(100_000), total)
    assert (total == 2).all()
    comm.Barrier()
    ends = {(each["from"].rpartition(":")[0], each["to"].rpartition(":")[0]) for each in comm._world.rails()}
    comm.Barrier()
    return ends


def run(lab: Lab, *args: object, **env: str) -> list[set[tuple[str, str]]]:
    """Run `connections` on a rank a host; the second rank's are returned turned round, as the first sees them."""
    environment = {"PYCOMM_TRANSPORTS": "tcp", "PYCOMM_NETWORK": "off", **env}
    first, second = lab.run_ranks(2, connections, *args, env=environment, timeout=SECONDS)
    assert first == {(there, here) for here, there in second}
    return [first, second]


def test_global_ipv6(make_lab: MakeLab) -> None:
    lab = make_lab(TWO_HOSTS)
    only_ipv6(lab)
    for host in range(2):
        ip(lab, host, f"address add fd00:77::{host + 1}/64 dev eth0 nodad")
    first, _ = run(lab, PYCOMM_RENDEZVOUS=f"tcp://[fd00:77::1]:{PORT}")
    assert first == {("[fd00:77::1]", "[fd00:77::2]")}


@pytest.mark.parametrize("allowed", ["", "e"])
def test_link_local_ipv6_by_interfaces_of_different_names(make_lab: MakeLab, allowed: str) -> None:
    lab = make_lab(TWO_HOSTS)
    one, other = only_ipv6(lab)
    ip(lab, 1, "link set eth0 down", "link set eth0 name enp3s0", "link set enp3s0 up")
    where = {"host0": f"tcp://[{one}%eth0]:{PORT}", "host1": f"tcp://[{one}%enp3s0]:{PORT}"}
    first, _ = run(lab, where, PYCOMM_SOCKET_IFNAME=allowed)
    assert first == {(f"[{one}]", f"[{other}]")}


def test_a_link_local_address_by_an_interface_that_is_not_there(make_lab: MakeLab) -> None:
    lab = make_lab(TWO_HOSTS)
    where = dict.fromkeys(OWN, f"tcp://[fe80::1%eth9]:{PORT}")
    with pytest.raises(LaunchError, match=r"cannot resolve the host of PYCOMM_RENDEZVOUS=tcp://\[fe80::1%eth9\]"):
        run(lab, where)


def test_a_host_whose_name_means_127_0_1_1_to_itself(make_lab: MakeLab) -> None:
    """As Debian installs it: only the other host is told a name's true address."""
    lab = make_lab(TWO_HOSTS)

    def rank() -> set[tuple[str, str]]:
        address = "127.0.1.1" if socket.gethostname() == "host0" else OWN["host0"]
        return connections(hosts=f"127.0.0.1 localhost\n{address} host0.example.org host0\n")

    environment = {
        "PYCOMM_TRANSPORTS": "tcp",
        "PYCOMM_NETWORK": "off",
        "PYCOMM_RENDEZVOUS": f"tcp://host0.example.org:{PORT}",
    }
    first, _ = lab.run_ranks(2, rank, env=environment, timeout=SECONDS)
    assert first == {(OWN["host0"], OWN["host1"])}


@pytest.mark.parametrize(("others", "allowed"), [(17, ""), (18, ""), (18, "=eth0"), (18, "^docker,lo")])
def test_an_interface_that_leads_nowhere(make_lab: MakeLab, others: int, allowed: str) -> None:
    """With one address on both hosts, or with two; whether or not it is excluded."""
    lab = make_lab(TWO_HOSTS)
    addresses = ("172.17.0.1/16", f"172.{others}.0.1/16")
    for host, address in enumerate(addresses):
        ip(lab, host, *DOCKER0.format(address=address, router=list(OWN.values())[1 - host]).strip().splitlines())
    first, _ = run(lab, NCCL_SOCKET_IFNAME=allowed)
    assert first == {(OWN["host0"], OWN["host1"])}


def test_only_interfaces_that_are_not_there(make_lab: MakeLab) -> None:
    lab = make_lab(TWO_HOSTS)
    with pytest.raises(LaunchError, match="PYCOMM_SOCKET_IFNAME allows no interface that has an address"):
        run(lab, PYCOMM_SOCKET_IFNAME="ib")
