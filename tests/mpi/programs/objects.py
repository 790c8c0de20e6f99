"""Objects: messages, collectives, and an array within each of them."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.Get_rank(), comm.Get_size()
lines = []


def say(*words):
    lines.append(" ".join(map(str, words)))


if rank == 0:
    comm.send({"a": 7, "b": 3.14}, dest=1, tag=11)
    request = comm.isend([1, "two", np.arange(3)], dest=1, tag=12)
    request.wait()
    comm.ssend("synchronous", 1)
    comm.send(np.arange(50_000), 1, 13)
elif rank == 1:
    later = comm.irecv(source=0, tag=12)
    say(comm.recv(source=0, tag=11), later.wait(), comm.recv())
    status = MPI.Status()
    say(comm.recv(source=MPI.ANY_SOURCE, tag=MPI.ANY_TAG, status=status).sum(), status.Get_source(), status.Get_tag())
say(comm.sendrecv(rank, (rank + 1) % size, 5, None, (rank - 1) % size, 5))
say(comm.bcast({"key": [7, 2.72, 2 + 3j], "rows": np.eye(2)} if rank == 0 else None, root=0))
say(comm.scatter([(i + 1) ** 2 for i in range(size)] if rank == 2 else None, root=2))
say(comm.gather((rank + 1) ** 2, root=1), comm.gather("x" * rank))
say(comm.allgather(rank * 1.5), comm.alltoall([(rank, i) for i in range(size)]))
say(comm.reduce(rank + 1, MPI.PROD, root=1), comm.allreduce(rank), comm.allreduce([rank]))
say(comm.allreduce((rank * 3 % 4, rank), MPI.MAXLOC), comm.allreduce((rank // 2, rank), op=MPI.MINLOC))
say(comm.scan(rank + 1), comm.exscan(rank + 1), comm.allreduce(rank, lambda x, y: max(x, y)))
say(comm.allreduce(rank > 1, MPI.LOR), comm.allreduce(rank, MPI.MAX), comm.allreduce(5 + rank, MPI.BXOR))
requests = [comm.isend((rank, peer), peer, 77) for peer in range(size)]
heard = MPI.Request.waitall([comm.irecv(source=peer, tag=77) for peer in range(size)])
MPI.Request.waitall(requests)
say(heard, comm.recv(source=MPI.PROC_NULL))
comm.barrier()
for each in comm.gather(lines) or []:
    print(*each, sep="\n")
