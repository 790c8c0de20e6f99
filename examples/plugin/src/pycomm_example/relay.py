"""Relay: a broadcast by way of one rank beside the root, so that the root sends once whatever the number of ranks."""

from pycomm.schedules.registry import algorithm
from pycomm.schedules.view import View


@algorithm("broadcast", name="relay")
def relay(v: View) -> None:
    """The root tells the rank after it, which tells all others: two rounds, p-2 messages of the one."""
    second = (v.root + 1) % v.size
    with v.round():
        if v.rank == v.root and v.size > 1:
            v.send(0, to=second)
        elif v.rank == second:
            v.recv(0, frm=v.root)
    with v.round():
        for other in range(v.size):
            if v.rank == second and other not in (v.root, second):
                v.send(0, to=other)
        if v.rank not in (v.root, second):
            v.recv(0, frm=second)
