"""Buffers that are lists: counts, displacements and datatypes, derived ones among them, in messages and collectives."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
lines = []


def say(*words):
    lines.append(" ".join(np.array2string(word) if isinstance(word, np.ndarray) else str(word) for word in words))


matrix = np.arange(24, dtype="i").reshape(4, 6) + 100 * rank
right, left = (rank + 1) % size, (rank - 1) % size
types = {
    "contiguous": MPI.INT.Create_contiguous(5),
    "vector": MPI.INT.Create_vector(4, 2, 6),
    "hvector": MPI.INT.Create_hvector(4, 1, 24),
    "indexed": MPI.INT.Create_indexed([1, 2, 3], [0, 4, 9]),
    "block": MPI.INT.Create_indexed_block(2, [0, 7, 15]),
    "subarray": MPI.INT.Create_subarray([4, 6], [2, 3], [1, 2], order=MPI.ORDER_C),
    "fortran": MPI.INT.Create_subarray([6, 4], [2, 3], [1, 1], order=MPI.ORDER_F),
    "resized": MPI.INT.Create_resized(0, 12),
    "struct": MPI.Datatype.Create_struct([2, 1], [0, 12], [MPI.INT, MPI.SHORT]),
}
for name, datatype in types.items():
    datatype.Commit()
    got = np.zeros((4, 6), "i")
    comm.Sendrecv([matrix, 1, datatype], right, 0, [got, 1, datatype], left, 0)
    say(name, datatype.Get_size(), datatype.Get_extent(), got.reshape(-1))
vector = types["vector"]
packed = np.zeros(8, "i")
comm.Sendrecv([matrix, 1, vector], right, 0, packed, left, 0)
say(packed)
got = np.zeros((4, 6), "i")
comm.Bcast([matrix if rank == 0 else got, 1, vector], root=0)
say(got)
column = MPI.INT.Create_vector(4, 1, size).Create_resized(0, 4)
column.Commit()
table = np.zeros((4, size), "i")
comm.Allgather([np.full(4, rank, "i"), 4, MPI.INT], [table, 1, column])
say(table.reshape(-1))
rows = np.full(4, -1, "i")
comm.Scatter([table + 10 * np.arange(4, dtype="i")[:, None], 1, column] if rank == 0 else None, rows, root=0)
say(rows)

counts = [r + 1 for r in range(size)]
displs = [sum(counts[:r]) + r for r in range(size)]
whole = np.full(sum(counts) + size, -1.0)
comm.Gatherv(np.full(rank + 1, float(rank)), [whole, (counts, displs)] if rank == 0 else None)
say(whole)
comm.Scatterv([whole, counts, displs, MPI.DOUBLE] if rank == 0 else None, part := np.zeros(rank + 1))
say(part)
whole[:] = -1
comm.Allgatherv(part, [whole, (counts, displs), MPI.DOUBLE])
say(whole)
comm.Allgatherv([np.full(2, rank, "i"), MPI.INT], [flat := np.zeros(2 * size, "i"), MPI.INT])
say(flat)
send, counts_here = np.repeat(np.arange(size), 2) + 10.0 * rank, [2] * size
comm.Alltoallv([send, counts_here], [into := np.zeros(2 * size), (counts_here, None), MPI.DOUBLE])
say(into)
comm.Ialltoallv(MPI.IN_PLACE, [into, counts_here]).Wait()
say(into)
types_out = [MPI.INT if r % 2 else MPI.DOUBLE for r in range(size)]
types_in = [MPI.INT if rank % 2 else MPI.DOUBLE] * size
memory = np.zeros(size * 8, np.uint8)
for r in range(size):
    memory[8 * r : 8 * r + 8].view("i4" if r % 2 else "f8")[0] = 10 * rank + r
places = [8 * r for r in range(size)]
answer = np.zeros(size * 8, np.uint8)
comm.Alltoallw([memory, ([1] * size, places), types_out], [answer, ([1] * size, places), types_in])
say(answer.view("i4")[::2] if rank % 2 else answer.view("f8"))
text = bytearray(b"hello" if rank == 0 else 5)
comm.Bcast([text, MPI.CHAR])
comm.Bcast([text, 5, MPI.BYTE])
say(bytes(text), MPI._typedict["d"] == MPI.DOUBLE, MPI.DOUBLE.Get_size(), MPI.INT.extent)
for each in comm.gather(lines) or []:
    print(*each, sep="\n")
