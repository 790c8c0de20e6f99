"""Intercommunicators: messages and collectives between the even ranks and the odd ones."""

import numpy as np
from mpi4py import MPI

world = MPI.COMM_WORLD


def say(*words):
    everyone = world.gather(" ".join(map(str, words)))
    if world.rank == 0:
        print(*everyone, sep="\n", flush=True)


odd = world.rank % 2
side = world.Split(odd)
bridge = side.Create_intercomm(0, world, 1 - odd, 7)
say("made", bridge.Is_inter(), bridge.rank, bridge.size, bridge.remote_size, bridge.Get_remote_group().size)
say("remote", MPI.Group.Translate_ranks(bridge.remote_group, [0, 1], world.group))

# messages: each even rank to the odd one of the same number, and back from whoever it is
status = MPI.Status()
if odd:
    got = np.zeros(2)
    bridge.Recv(got, tag=3, status=status)
    bridge.send({"thanks": got.sum()}, dest=status.source, tag=5)
    say("Recv", got.tolist(), status.source, status.tag)
else:
    bridge.Send(np.array([1.0, bridge.rank]), bridge.rank, 3)
    say("recv", bridge.recv(source=MPI.ANY_SOURCE, tag=5, status=status), status.source)
other = 1 - bridge.rank
say("sendrecv", bridge.sendrecv((odd, bridge.rank), dest=other, source=other))

root = (MPI.ROOT if world.rank == 2 else MPI.PROC_NULL) if not odd else 1
given = np.array([4, 2]) if world.rank == 2 else np.zeros(2, int)
bridge.Bcast(given, root)
say("Bcast", given.tolist())
say("bcast", bridge.bcast("from 2" if world.rank == 2 else None, root))
total = np.zeros(1, int)
bridge.Reduce(np.array([world.rank]), total, MPI.SUM, root)
say("Reduce", total.tolist(), bridge.reduce(world.rank, MPI.MAX, root))
each = np.full(2, -1)
bridge.Gather(np.array([world.rank]), each if root == MPI.ROOT else None, root)
say("Gather", each.tolist(), bridge.gather(world.rank, root))
one = np.full(1, -1)
bridge.Scatter(np.array([5, 6]) if root == MPI.ROOT else None, one, root)
say("Scatter", one.tolist(), bridge.scatter(["a", "b"] if root == MPI.ROOT else None, root))
each = np.full(2, -1)
bridge.Allgather(np.array([world.rank]), each)
say("Allgather", each.tolist(), bridge.allgather(world.rank))
bridge.Allreduce(np.array([world.rank]), total)
say("Allreduce", total.tolist(), bridge.allreduce(world.rank, MPI.MIN))
each = np.full(2, -1)
bridge.Alltoall(np.array([10, 20]) + world.rank, each)
say("Alltoall", each.tolist(), bridge.alltoall([(world.rank, 0), (world.rank, 1)]))
bridge.Barrier()

behind = bridge.Merge(high=not odd)
say("Merge", behind.rank, behind.size, behind.allgather(world.rank))
behind.Free()
bridge.Free()

# groups of unlike size: rank 3 alone
bridge = world.Split(world.rank == 3).Create_intercomm(0, world, 0 if world.rank == 3 else 3)
say("unlike", bridge.size, bridge.remote_size, bridge.allgather(world.rank))
