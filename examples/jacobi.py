"""Poisson's equation on a square by Jacobi's method, for mpi4py: halos to the neighbours, an Allreduce each few sweeps.

mpiexec -n 4 python examples/jacobi.py [points a side] [sweeps at most]
pycomm mpirun -- mpiexec -n 4 python examples/jacobi.py            # the same, with its collectives on pycomm
pycomm run -n 4 -m pycomm.mpi4py examples/jacobi.py                # the same, without MPI
"""

import sys

import numpy as np
from mpi4py import MPI

CHECK = 5  # sweeps between two looks at how much has changed
ENOUGH = 1e-5  # of that


def main(points: int, most: int) -> None:
    """Solve, and print on rank 0 how far it came, the solution's norm, and the seconds."""
    comm = MPI.COMM_WORLD
    rank, size = comm.Get_rank(), comm.Get_size()
    rows = points // size + (rank < points % size)
    above, below = (rank - 1 if rank else MPI.PROC_NULL), (rank + 1 if rank + 1 < size else MPI.PROC_NULL)
    first = sum(points // size + (r < points % size) for r in range(rank))
    at = (np.arange(points) + 1) / (points + 1)
    force = np.outer(np.sin(np.pi * at[first : first + rows]), np.sin(2 * np.pi * at)) * 5 * np.pi**2
    force /= 4 * (points + 1) ** 2
    old, new = np.zeros((2, rows + 2, points + 2))
    change = np.zeros(1)
    comm.Barrier()
    begun = MPI.Wtime()
    for sweep in range(1, most + 1):
        comm.Sendrecv(old[1], above, 0, old[-1], below, 0)
        comm.Sendrecv(old[-2], below, 1, old[0], above, 1)
        new[1:-1, 1:-1] = (old[:-2, 1:-1] + old[2:, 1:-1] + old[1:-1, :-2] + old[1:-1, 2:]) / 4 + force
        if sweep % CHECK == 0:
            comm.Allreduce(np.array([abs(new - old).max()]), change, op=MPI.MAX)
            if change[0] < ENOUGH:
                break
        old, new = new, old
    square = np.zeros(1)
    comm.Allreduce(np.array([(new[1:-1] ** 2).sum()]), square)
    seconds = MPI.Wtime() - begun
    if rank == 0:
        norm = square[0] ** 0.5 / (points + 1)
        print(f"sweeps {sweep}, last change {change[0]:.6e}, norm {norm:.9f}")
        print(f"seconds {seconds:.3f}")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:3])) if len(sys.argv) > 2 else main(200, 4000)
