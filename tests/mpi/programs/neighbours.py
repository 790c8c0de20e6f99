"""Ranks that are nodes of a graph: neighbourhood collectives, also with blocks of unlike lengths and types."""

import numpy as np
from mpi4py import MPI

world = MPI.COMM_WORLD


def say(*words):
    everyone = world.gather(" ".join(map(str, words)))
    if world.rank == 0:
        print(*everyone, sep="\n", flush=True)


# a path 0 - 1 - 2 - 3 with an edge from 0 to itself, which all ranks know
index, edges = [2, 4, 6, 7], [0, 1, 0, 2, 1, 3, 2]
path = world.Create_graph(index, edges)
say("graph", path.Get_topology() == MPI.GRAPH, path.dims, path.nneighbors, path.neighbors, path.Get_neighbors(1))
say("degrees", path.degrees, path.inedges, path.outedges, path.is_topo)
got = np.full(path.indegree, -1)
path.Neighbor_allgather(np.array([10 * path.rank]), got)
say("Neighbor_allgather", got.tolist())
say("neighbor_allgather", path.neighbor_allgather(f"of {path.rank}"))
part = world.Create_graph([1, 2], [1, 0])
say("smaller", part is None or part == MPI.COMM_NULL)

# a ring in one direction, with a second edge from each rank to the one after the next
size, rank = world.size, world.rank
sources, targets = [(rank - 1) % size, (rank - 2) % size], [(rank + 1) % size, (rank + 2) % size]
ring = world.Create_dist_graph_adjacent(sources, targets, [1, 2], [3, 4])
say("dist", ring.Get_topology() == MPI.DIST_GRAPH, ring.Get_dist_neighbors())
got = np.full(4, -1)
ring.Neighbor_alltoall(np.arange(4) + 100 * rank, got)
say("Neighbor_alltoall", got.tolist())
got = np.full(1 + sources[0] + 1 + sources[1], -1)
request = ring.Ineighbor_allgatherv(np.full(rank + 1, rank), [got, [sources[0] + 1, sources[1] + 1]])
request.Wait()
say("Ineighbor_allgatherv", got.tolist())
mine, got = np.arange(6.0) + 10 * rank, np.full(6, -1.0)
ring.Neighbor_alltoallv([mine, [1, 3], [0, 2], MPI.DOUBLE], [got, [1, 3], [4, 0], MPI.DOUBLE])
say("Neighbor_alltoallv", got.tolist())
got = np.full(6, -1.0)
column = MPI.DOUBLE.Create_vector(2, 1, 2).Commit()
ring.Neighbor_alltoallw([mine, [1, 1], [0, 8], [MPI.DOUBLE, column]], [got, [1, 2], [40, 0], [MPI.DOUBLE, MPI.DOUBLE]])
say("Neighbor_alltoallw", got.tolist())
say("objects", ring.neighbor_alltoall([(rank, "near"), (rank, "far")]))
again = ring.Dup()
say("Dup", again.Get_dist_neighbors_count(), again.inedges)

# what rank 0 says of all: a star, whose centre is rank 1
said = ([1], [size - 1], [node for node in range(size) if node != 1]) if rank == 0 else ([], [], [])
star = world.Create_dist_graph(*said)
say("star", star.indegree, star.outdegree, sorted(star.inedges), sorted(star.outedges))

grid = world.Create_cart([2, 2], [True, False])
got = np.full(4, -1)
grid.Neighbor_alltoallv([np.arange(4) + 10 * rank, [1, 1, 1, 1]], [got, [1, 1, 1, 1]])
say("grid", grid.degrees, got.tolist())
