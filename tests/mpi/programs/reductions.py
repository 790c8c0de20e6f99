"""Reductions: predefined ones in all forms, one's own that does not commute, the least and greatest with places."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
lines = []


def say(*words):
    lines.append(" ".join(np.array2string(word) if isinstance(word, np.ndarray) else str(word) for word in words))


def multiply(a, b, datatype):
    """The product of 2 x 2 matrices, which does not commute."""
    x = np.frombuffer(a, "i8").reshape(-1, 2, 2)
    y = np.frombuffer(b, "i8").reshape(-1, 2, 2)
    y[:] = x @ y


matrices = MPI.Op.Create(multiply, commute=False)
mine = np.array([[1, rank + 1], [rank, 1], [2, 1], [1, rank]], "i8")
out = np.zeros_like(mine)
comm.Allreduce(mine, out, op=matrices)
say(out, matrices.Is_commutative(), MPI.SUM.Is_commutative())
out[:] = 0
comm.Reduce(mine, out if rank == 1 else None, matrices, 1)
say(out)
comm.Scan(mine, out, matrices)
say(out)
out[:] = -1
comm.Exscan(mine, out, matrices)
say(out)
wide = np.concatenate([mine * (k + 1) for k in range(size)])
comm.Reduce_scatter_block(wide, out, matrices)
say(out)
buffer = mine.copy()
request = comm.Iallreduce(MPI.IN_PLACE, buffer, matrices)
request.Wait()
say(buffer)
matrices.Free()

pairs = np.zeros(3, np.dtype([("value", "f8"), ("place", "i4")], align=True))
pairs["value"], pairs["place"] = [rank % 3, -rank, 1], rank
best = np.empty_like(pairs)
comm.Allreduce([pairs, 3, MPI.DOUBLE_INT], [best, 3, MPI.DOUBLE_INT], MPI.MAXLOC)
say([(float(a), int(b)) for a, b in best])
comm.Allreduce([pairs, 3, MPI.DOUBLE_INT], [best, 3, MPI.DOUBLE_INT], MPI.MINLOC)
say([(float(a), int(b)) for a, b in best])

for op in (MPI.SUM, MPI.PROD, MPI.MIN, MPI.MAX, MPI.LAND, MPI.LOR, MPI.LXOR, MPI.BAND, MPI.BOR, MPI.BXOR):
    x = np.array([rank, rank + 1, 5], "i")
    y = np.empty_like(x)
    comm.Allreduce([x, MPI.INT], [y, MPI.INT], op)
    z = x.copy()
    op.Reduce_local(np.array([1, 2, 3], "i"), z)
    say(y, z, op(True, False))
x = np.arange(size * 2.0) + rank
comm.Reduce_scatter(MPI.IN_PLACE, x, [2] * size)
say(x[:2])
y = np.empty(rank + 1)
comm.Reduce_scatter(np.arange(size * (size + 1) / 2), y)
say(y)
comm.Iscan(np.array([rank]), z := np.array([0])).Wait()
comm.Iexscan(np.array([rank + 1]), w := np.array([-1])).Wait()
say(z, w)
for each in comm.gather(lines) or []:
    print(*each, sep="\n")
