"""A master that hands out tasks to whoever is free, with tags that say what a message is."""

import numpy as np
from mpi4py import MPI

READY, TASK, RESULT, STOP = range(4)
comm = MPI.COMM_WORLD
status = MPI.Status()
if comm.rank == 0:
    tasks = [(number, np.full(number * 300, number)) for number in range(25)]
    results, stopped, senders = {}, 0, set()
    while stopped < comm.size - 1:
        message = comm.recv(source=MPI.ANY_SOURCE, tag=MPI.ANY_TAG, status=status)
        source = status.Get_source()
        if status.Get_tag() == RESULT:
            results[message[0]] = message[1]
            senders.add(source)
        elif tasks:
            comm.send(tasks.pop(), dest=source, tag=TASK)
        else:
            comm.send(None, dest=source, tag=STOP)
            stopped += 1
    print(sorted(results.items()), senders <= set(range(1, comm.size)))
else:
    while True:
        comm.send(None, dest=0, tag=READY)
        task = comm.recv(source=0, tag=MPI.ANY_TAG, status=status)
        if status.tag == STOP:
            break
        comm.send((task[0], int((task[1] ** 2).sum())), dest=0, tag=RESULT)

comm.Barrier()
if comm.rank == 0:  # buffers of lengths that are not known before
    seen = []
    for _ in range(2 * (comm.size - 1)):
        comm.Probe(MPI.ANY_SOURCE, MPI.ANY_TAG, status)
        data = np.empty(status.Get_count(MPI.INT), "i")
        comm.Recv([data, MPI.INT], status.source, status.tag, status)
        seen.append((status.Get_source(), status.Get_tag(), status.Get_count(MPI.INT), int(data.sum())))
    print(sorted(seen))
    comm.Barrier()
    while not comm.iprobe(source=1, tag=9):
        pass
    message = comm.mprobe(source=1, tag=9, status=status)
    print(message.recv(), comm.Iprobe(source=1, tag=9), comm.improbe(tag=9))
else:
    for tag in (1, 2):
        comm.Send([np.full(comm.rank * 1000 * tag, tag, "i"), MPI.INT], 0, tag)
    comm.Barrier()
    if comm.rank == 1:
        comm.send({"last": True}, 0, 9)
