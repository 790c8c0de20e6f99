"""The method of conjugate gradients, on rows of a matrix that ranks share unevenly; and pi by quadrature."""

import numpy as np
from mpi4py import MPI

N = 203
comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
counts = np.array([N // size + (r < N % size) for r in range(size)])
starts = np.cumsum(counts) - counts
mine = slice(starts[rank], starts[rank] + counts[rank])
i = np.arange(N)
matrix = np.where(i[mine, None] == i, 2.5, np.where(abs(i[mine, None] - i) == 1, -1.0, 0.0))
right = 1 / (1.0 + i[mine])


def times(part):
    """The matrix times a vector of which each rank has a part."""
    whole = np.empty(N)
    comm.Allgatherv([part, MPI.DOUBLE], [whole, (counts, starts), MPI.DOUBLE])
    return matrix @ whole


def dot(x, y):
    """The product of two vectors of which each rank has a part."""
    return comm.allreduce(x @ y, op=MPI.SUM)


x = np.zeros(counts[rank])
residual = right - times(x)
direction = residual.copy()
square = dot(residual, residual)
steps = 0
while square > 1e-20:
    image = times(direction)
    step = square / dot(direction, image)
    x += step * direction
    residual -= step * image
    before, square = square, dot(residual, residual)
    direction = residual + square / before * direction
    steps += 1
solution = np.empty(N) if rank == 0 else None
comm.Gatherv(x, [solution, counts, starts, MPI.DOUBLE] if rank == 0 else None, root=0)
n = np.array(1000 if rank == 0 else 0, "i")
comm.Bcast([n, MPI.INT], root=0)
at = (np.arange(rank, n, size) + 0.5) / n
part = np.array((4 / (1 + at**2)).sum() / n, "d")
pi = np.zeros((), "d")
comm.Reduce([part, MPI.DOUBLE], [pi, MPI.DOUBLE] if rank == 0 else None, op=MPI.SUM, root=0)
if rank == 0:
    print(steps, f"{abs(pi - np.pi):.6e}", np.array2string(solution[::40], precision=9))
