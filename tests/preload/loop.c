/* loop.c: times collectives as the OSU benchmarks do, with nothing of pycomm in it: `loop SECONDS` prints, on rank 0, lines of
 * collective, bytes, microseconds (the median of the rank where that is longest), and last what a call costs more than under its
 * profiling name if MPI runs it: "passed", bytes, microseconds. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST = 4 << 20, MOST = 500 };

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void call(int which, char *in, char *out, int bytes)
{
    switch (which) {
    case 0: MPI_Allreduce(in, out, bytes / 4, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); break;
    case 1: MPI_Bcast(out, bytes, MPI_CHAR, 0, MPI_COMM_WORLD); break;
    default: MPI_Alltoall(in, bytes, MPI_CHAR, out, bytes, MPI_CHAR, MPI_COMM_WORLD);
    }
}

/* On a communicator of one rank nobody but MPI has anything to do. The least of many, for what is added is nanoseconds. */
static double passed(void)
{
    double least[2] = {1, 1}, in = 1, out;
    for (int batch = 0; batch < 200; batch++)
        for (int side = 0; side < 2; side++) {
            double begun = MPI_Wtime();
            for (int i = 0; i < 200; i++)
                (side ? MPI_Allreduce : PMPI_Allreduce)(&in, &out, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_SELF);
            double each = (MPI_Wtime() - begun) / 200;
            if (each < least[side]) least[side] = each;
        }
    return least[1] - least[0];
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"allreduce", "bcast", "alltoall"};
    int rank, size;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    double budget = argc > 1 ? atof(argv[1]) : 0.05;
    char *in = calloc((size_t)size, LARGEST), *out = calloc((size_t)size, LARGEST);
    for (int which = 0; which < 3; which++)
        for (int bytes = 8; bytes <= LARGEST; bytes *= 8) {
            for (int i = 0; i < 10; i++) call(which, in, out, bytes);
            double once = MPI_Wtime();
            for (int i = 0; i < 3; i++) call(which, in, out, bytes);
            once = (MPI_Wtime() - once) / 3;
            MPI_Allreduce(MPI_IN_PLACE, &once, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
            double times[MOST], own, longest = 0;
            int rounds = budget / once < MOST - 5 ? (int)(budget / once) + 5 : MOST;
            for (int i = 0; i < rounds; i++) {
                MPI_Barrier(MPI_COMM_WORLD);
                double begun = MPI_Wtime();
                call(which, in, out, bytes);
                times[i] = MPI_Wtime() - begun;
            }
            qsort(times, (size_t)rounds, sizeof *times, ascending);
            own = times[rounds / 2];
            MPI_Reduce(&own, &longest, 1, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
            if (!rank) printf("%s %d %.3f\n", names[which], bytes, longest * 1e6);
        }
    double added = passed();
    if (!rank) printf("passed 8 %.3f\n", added * 1e6);
    free(in), free(out);
    MPI_Finalize();
    return 0;
}
