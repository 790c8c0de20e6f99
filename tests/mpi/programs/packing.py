"""Items packed into bytes and back, and hints."""

import numpy as np
from mpi4py import MPI

world = MPI.COMM_WORLD
row = bytearray(64)
if world.rank == 0:
    print("sizes", MPI.INT.Pack_size(3, world), MPI.DOUBLE.Pack_size(2, world))
    column = MPI.DOUBLE.Create_vector(3, 1, 2).Commit()
    at = MPI.INT.Pack(np.array([7, 8, 9], "i4"), row, 0, world)
    at = column.Pack(np.arange(6.0), row, at, world)
    print("position", at)
    world.Send([row, at, MPI.PACKED], 1)
elif world.rank == 1:
    status = MPI.Status()
    world.Recv([row, MPI.PACKED], 0, status=status)
    ints, doubles = np.zeros(3, "i4"), np.zeros(3)
    at = MPI.INT.Unpack(row, 0, ints, world)
    at = MPI.DOUBLE.Unpack(row, at, doubles, world)
    world.send((status.Get_count(MPI.PACKED), at, ints.tolist(), doubles.tolist()), 2)
elif world.rank == 2:
    print("unpacked", world.recv(source=1), flush=True)
world.Barrier()

if world.rank == 3:
    info = MPI.Info.Create({"host": "here"})
    info.Set("access", "once")
    info["third"] = "3"
    info.Delete("third")
    print(sorted(info.keys()), info.Get("host"), info.Get("none"), len(info), "access" in info, info.get("none", "?"))
    twin = info.Dup()
    info.Free()
    print(sorted(twin.items()), twin.Get_nkeys(), flush=True)
