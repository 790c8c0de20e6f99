/* launched.c: a program without MPI and without Python that a launcher starts: an allreduce and a broadcast, in all and in halves.
 *
 *     cc launched.c -pthread $(pycomm info --compile) -o launched && pycomm run -n 4 ./launched
 *
 * torchrun --no-python, srun and mpiexec start it as well, with PYCOMM_PYTHON naming a Python that has pycomm. Schedules come from
 * the helper process that pcm_launched_world starts.
 */
#include <pycomm.h>
#include <stdio.h>
#include <stdlib.h>

enum { COUNT = 1000 };

static void check(int status)
{
    if (status == PCM_OK) return;
    fprintf(stderr, "%s\n", pcm_last_error()->text);
    exit(1); /* the others are told that this rank has died */
}

static void use(pcm_comm *comm, const char *name)
{
    static double mine[COUNT], total[COUNT];
    const int rank = pcm_comm_rank(comm), size = pcm_comm_size(comm), last = size - 1;
    struct pcm_call sum = {
        .collective = PCM_ALLREDUCE, .dtype = PCM_FLOAT64, .op = PCM_SUM, .in = mine, .out = total, .count = COUNT};
    struct pcm_call spread = {.collective = PCM_BROADCAST,
                              .dtype = PCM_FLOAT64,
                              .root = last,
                              .in = rank == last ? mine : NULL,
                              .out = mine,
                              .count = COUNT};
    for (int i = 0; i < COUNT; i++) mine[i] = rank + i;
    check(pcm_run(comm, &sum, -1));
    check(pcm_run(comm, &spread, -1));
    for (int i = 0; i < COUNT; i++)
        if (total[i] != size * last / 2. + size * (double)i || mine[i] != last + i) {
            fprintf(stderr, "%s, rank %d: wrong at %d\n", name, rank, i);
            exit(1);
        }
    if (rank == 0) printf("%s: %d ranks, right\n", name, size);
}

int main(void)
{
    pcm_world *world;
    pcm_comm *all, *half;
    check(pcm_launched_world(&world, &all));
    use(all, "all");

    /* A group is its ranks of the world; ranks of one group give the same id. This one is 2 for even ranks, 3 for odd ones. */
    const int size = pcm_comm_size(all), odd = pcm_comm_rank(all) % 2;
    int32_t *members = malloc((size_t)size * sizeof *members);
    int count = 0;
    for (int r = odd; members && r < size; r += 2) members[count++] = r;
    check(pcm_comm_create(world, 2 + (uint64_t)odd, members, count, &half));
    free(members);
    use(half, odd ? "odd" : "even");

    pcm_comm_free(half);
    pcm_comm_free(all);
    pcm_world_destroy(world);
    return 0;
}
