"""Groups and communicators: how they are made of others, and what they say of themselves."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
lines = []


def say(*words):
    lines.append(" ".join(map(str, words)))


def place(number):
    return "undefined" if number == MPI.UNDEFINED else number


half = comm.Split(rank % 2, -rank)
say(half.rank, half.size, half.allgather(rank))
some = comm.Split(MPI.UNDEFINED if rank == 0 else 1, rank)
say(some == MPI.COMM_NULL, None if some == MPI.COMM_NULL else some.allgather(rank))
twin = comm.Dup()
say(MPI.Comm.Compare(comm, twin) == MPI.CONGRUENT, MPI.Comm.Compare(comm, comm) == MPI.IDENT)
say(MPI.Comm.Compare(comm, comm.Split(0, -rank)) == MPI.SIMILAR, MPI.Comm.Compare(comm, half) == MPI.UNEQUAL)
everyone = comm.Get_group()
odd = everyone.Incl(range(1, size, 2))
say(odd.Get_size(), place(odd.Get_rank()), odd.Translate_ranks([0], everyone), everyone.Excl([0, 1]).size)
say(MPI.Group.Union(odd, everyone.Incl([0, 1])).Translate_ranks(None, everyone))
say(MPI.Group.Intersection(everyone, odd).Translate_ranks(None, everyone), MPI.Group.Difference(everyone, odd).size)
say(everyone.Range_incl([(0, size - 1, 2)]).size, everyone.Range_excl([(size - 1, 1, -1)]).size)
say(odd.Compare(everyone.Incl([1, 3])) == MPI.IDENT, odd.Compare(everyone.Incl([3, 1])) == MPI.SIMILAR)
made = comm.Create(odd)
say(made == MPI.COMM_NULL, None if made == MPI.COMM_NULL else (made.rank, made.allreduce(rank)))
if rank % 2:
    alone = comm.Create_group(odd, tag=3)
    say(alone.allgather(rank))
    alone.Free()
shared = comm.Split_type(MPI.COMM_TYPE_SHARED)
say(shared.size, MPI.COMM_SELF.size, MPI.COMM_SELF.allgather(rank))
twin.Set_name("twin")
say(twin.Get_name(), comm.Is_inter(), comm.Get_topology() == MPI.UNDEFINED)
key = MPI.Comm.Create_keyval(copy_fn=lambda comm, keyval, value: value + 1)
twin.Set_attr(key, 41)
copy = twin.Dup()
say(twin.Get_attr(key), copy.Get_attr(key), comm.Get_attr(key), comm.Get_attr(MPI.TAG_UB) >= 32767)
twin.Free()
for n in (1, 2, 6, 7, 12, 24, 36, 60, 64, 100, 128):
    say(n, MPI.Compute_dims(n, 2), MPI.Compute_dims(n, 3), MPI.Compute_dims(n, [0, 1]))
grid = comm.Create_cart([2, 2], periods=[True, False])
say(grid.dim, grid.dims, grid.coords, grid.Get_cart_rank([1, 1]), grid.Get_coords(2), grid.Get_topology() == MPI.CART)
say(*[tuple("null" if r == MPI.PROC_NULL else r for r in grid.Shift(d, s)) for d in (0, 1) for s in (1, -1)])
row = grid.Sub([False, True])
say(row.dims, row.coords, row.allgather(rank))
line = comm.Create_cart([3])
say(None if line == MPI.COMM_NULL else line.Shift(0, 1)[1] == (line.rank + 1 if line.rank < 2 else MPI.PROC_NULL))
ring = comm.Create_cart([size], periods=True)
say(ring.neighbor_allgather(rank), ring.neighbor_alltoall([(rank, -1), (rank, 1)]))
got = np.zeros(4, "i")
ring.Neighbor_allgather(np.full(2, rank, "i"), got)
say(got)
ring.Neighbor_alltoall(np.arange(4, dtype="i") + 10 * rank, got)
say(got)
for each in comm.gather(lines) or []:
    print(*each, sep="\n")
