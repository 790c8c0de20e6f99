/* groups.c: a program of MPI with a communicator of pycomm: an allreduce and a broadcast, among all ranks and in halves.
 *
 *     mpicc groups.c schedules.c $(pycomm info --compile) -o groups && mpiexec -n 4 ./groups
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#include "schedules.h"

enum { COUNT = 1000 };

static void check(int status)
{
    if (status == PCM_OK) return;
    fprintf(stderr, "%s\n", pcm_last_error()->text);
    MPI_Abort(MPI_COMM_WORLD, 1);
}

/* Runs a call; the first of its kind (same collective, type, op, root, count) needs a schedule, of which the communicator
 * keeps what it has to. */
static void sum(pcm_comm *comm, const double *in, double *out)
{
    struct pcm_call call = {.collective = PCM_ALLREDUCE,
                            .dtype = PCM_FLOAT64,
                            .op = PCM_SUM,
                            .in = in,
                            .out = out,
                            .count = COUNT,
                            .timeout = 60};
    int status = pcm_run(comm, &call, -1);
    if (status == PCM_NO_PLAN) {
        pcm_schedule *schedule;
        check(ring_allreduce(pcm_comm_rank(comm), pcm_comm_size(comm), &schedule));
        check(pcm_comm_plan(comm, &call, schedule, 1, 1));
        pcm_schedule_release(schedule);
        status = pcm_run(comm, &call, -1);
    }
    check(status);
}

static void broadcast(pcm_comm *comm, double *buffer, int root)
{
    struct pcm_call call = {.collective = PCM_BROADCAST,
                            .dtype = PCM_FLOAT64,
                            .root = root,
                            .in = pcm_comm_rank(comm) == root ? buffer : NULL,
                            .out = buffer,
                            .count = COUNT,
                            .timeout = 60};
    int status = pcm_run(comm, &call, -1);
    if (status == PCM_NO_PLAN) {
        pcm_schedule *schedule;
        check(binomial_broadcast(pcm_comm_rank(comm), pcm_comm_size(comm), root, &schedule));
        check(pcm_comm_plan(comm, &call, schedule, 1, 1));
        pcm_schedule_release(schedule);
        status = pcm_run(comm, &call, -1);
    }
    check(status);
}

/* The sum of all ranks' numbers, and what the last rank has; twice, so that plans are used again. */
static void use(pcm_comm *comm, const char *name)
{
    static double mine[COUNT], total[COUNT];
    const int rank = pcm_comm_rank(comm), size = pcm_comm_size(comm);
    for (int again = 0; again < 2; again++) {
        for (int i = 0; i < COUNT; i++) mine[i] = rank + i;
        sum(comm, mine, total);
        broadcast(comm, mine, size - 1);
    }
    for (int i = 0; i < COUNT; i++)
        if (total[i] != size * (size - 1) / 2. + size * (double)i || mine[i] != size - 1 + i) {
            fprintf(stderr, "%s, rank %d: wrong at %d\n", name, rank, i);
            MPI_Abort(MPI_COMM_WORLD, 1);
        }
    if (rank == 0) printf("%s: %d ranks, right\n", name, size);
}

int main(int argc, char **argv)
{
    pcm_world *world;
    pcm_comm *all, *half;
    MPI_Init(&argc, &argv);
    check(pcm_mpi_world((intptr_t)MPI_COMM_WORLD, argc > 1 ? argv[1] : NULL, &world, &all));
    use(all, "all");

    /* A group is its ranks of the world; ranks of one group give the same id. This one is 2 for even ranks, 3 for odd ones. */
    const int rank = pcm_comm_rank(all), size = pcm_comm_size(all), odd = rank % 2;
    int32_t *members = malloc((size_t)size * sizeof *members);
    int count = 0;
    for (int r = odd; members && r < size; r += 2) members[count++] = r;
    check(pcm_comm_create(world, 2 + (uint64_t)odd, members, count, &half));
    free(members);
    use(half, odd ? "odd" : "even");

    pcm_comm_free(half);
    pcm_comm_free(all);
    pcm_world_destroy(world);
    MPI_Finalize();
    return 0;
}
