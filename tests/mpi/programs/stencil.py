"""Heat on a plate: Jacobi's method on a grid of ranks, whose halos are columns and rows of two-dimensional arrays."""

import numpy as np
from mpi4py import MPI

ROWS, COLUMNS, STEPS = 24, 36, 120
comm = MPI.COMM_WORLD
grid = comm.Create_cart(MPI.Compute_dims(comm.Get_size(), [0, 0]), periods=[False, True], reorder=False)
dims, _, (row, column) = grid.Get_topo()
height, width = ROWS // dims[0], COLUMNS // dims[1]
plate = np.zeros((height + 2, width + 2))
if row == 0:
    plate[0] = 100 * np.sin(np.pi * (np.arange(-1, width + 1) + column * width) / COLUMNS) ** 2
up, down = grid.Shift(0, 1)
left, right = grid.Shift(1, 1)
side = MPI.DOUBLE.Create_vector(height + 2, 1, width + 2)
side.Commit()


def at(i, j):
    """The plate's memory from an element on."""
    return plate.reshape(-1)[i * (width + 2) + j :]


change = 0.0
for _ in range(STEPS):
    grid.Sendrecv([at(0, width), 1, side], right, 1, [at(0, 0), 1, side], left, 1)
    grid.Sendrecv([at(0, 1), 1, side], left, 2, [at(0, width + 1), 1, side], right, 2)
    requests = [
        grid.Irecv(plate[0] if up >= 0 else np.empty(width + 2), up, 3),
        grid.Irecv(plate[-1] if down >= 0 else np.empty(width + 2), down, 4),
        grid.Isend(plate[-2], down, 3),
        grid.Isend(plate[1], up, 4),
    ]
    MPI.Request.Waitall(requests)
    inner = (plate[:-2, 1:-1] + plate[2:, 1:-1] + plate[1:-1, :-2] + plate[1:-1, 2:]) / 4
    mine = np.array([((inner - plate[1:-1, 1:-1]) ** 2).sum()])
    total = np.empty(1)
    grid.Allreduce([mine, MPI.DOUBLE], [total, MPI.DOUBLE], op=MPI.SUM)
    change = total[0] ** 0.5
    plate[1:-1, 1:-1] = inner
side.Free()

along = grid.Sub([False, True])
sums = np.empty(height)
along.Allreduce(np.ascontiguousarray(plate[1:-1, 1:-1].sum(axis=1)), sums, MPI.SUM)
columns = grid.Sub([True, False])
everything = np.empty(ROWS) if columns.Get_rank() == 0 else None
columns.Gather(sums, everything, root=0)
if grid.Get_rank() == 0:
    print(dims, f"change {change:.9f}", f"heat {everything.sum():.6f}")
    print(np.array2string(everything, precision=6))
