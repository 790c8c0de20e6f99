"""Requests: persistent ones, waiting for any or some of several, cancelling, and every kind of send."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
right, left = (rank + 1) % size, (rank - 1) % size
lines = []


def say(*words):
    lines.append(" ".join(map(str, words)))


out, into = np.zeros(3), np.zeros(3)
ring = [comm.Send_init(out, right, 4), comm.Recv_init(into, left, 4)]
for turn in range(3):
    out[:] = rank * 10 + turn
    MPI.Prequest.Startall(ring)
    MPI.Request.Waitall(ring)
    say(into)
for request in ring:
    request.Free()
total = np.zeros(3)
reduce = comm.Allreduce_init(out, total, MPI.MAX)
for turn in range(2):
    out[:] = rank + turn
    reduce.Start()
    reduce.Wait()
    say(total)
reduce.Free()

buffers = [np.zeros(1, "i") for _ in range(size)]
receives = [comm.Irecv(buffers[peer], peer, 6) for peer in range(size)]
comm.Barrier()
sends = [comm.Isend(np.array([rank], "i"), peer, 6) for peer in range(size)]
order = []
status = MPI.Status()
for _ in range(size // 2):
    place = MPI.Request.Waitany(receives, status)
    order.append(place)
    assert status.Get_source() == place
while (places := MPI.Request.Waitsome(receives)) is not None:
    order += places
MPI.Request.Waitall(sends)
say(sorted(order), [int(b[0]) for b in buffers], MPI.Request.Waitany(receives) == MPI.UNDEFINED)
say(all(request == MPI.REQUEST_NULL for request in receives), MPI.Request.Testall(receives))

never = comm.Irecv(np.zeros(1), left, 99)
say(never.Test(), never.Get_status())
never.Cancel()
never.Wait(status)
say(status.Is_cancelled())

flag = np.array([rank], "i")
for send in (comm.Send, comm.Ssend, comm.Rsend):
    receive = comm.Irecv(got := np.zeros(1, "i"), left, 8)
    comm.Barrier()
    send(flag, right, 8)
    receive.Wait()
    say(got)
for start in (comm.Isend, comm.Issend, comm.Irsend):
    receive = comm.Irecv(got := np.zeros(1, "i"), left, 8)
    comm.Barrier()
    request = start(flag, right, 8)
    while not receive.Test(status):
        pass
    request.Wait()
    say(got, status.Get_count(MPI.INT), status.Get_elements(MPI.INT))
MPI.Attach_buffer(bytearray(4096))
comm.Bsend(flag, right, 10)
comm.Recv(got, left, 10)
MPI.Detach_buffer()
say(got)
x = np.arange(4.0) + rank
comm.Sendrecv_replace(x, right, 1, left, 1, status)
say(x, status.Get_source() == left)
comm.Isendrecv(np.array([rank]), right, 2, y := np.zeros(1, int), left, 2).Wait()
say(y)
comm.Send(np.zeros(5), MPI.PROC_NULL)
comm.Recv(x, MPI.PROC_NULL, 0, status)
say(x, status.Get_source() == MPI.PROC_NULL, status.Get_count(MPI.DOUBLE))
request = comm.Ibarrier()
request.Wait()
if rank == 0:
    comm.Send(np.arange(6, dtype="i"), 1, 12)
elif rank == 1:
    message = comm.Mprobe(status=status)
    data = np.empty(status.Get_count(MPI.INT), "i")
    message.Recv(data)
    say(data, message == MPI.MESSAGE_NULL)
for each in comm.gather(lines) or []:
    print(*each, sep="\n")
