/* calls.c: what calls cost without Python: loops over functions whose addresses are given, for calls.py. Handles of MPI are
 * numbers or pointers, as its libraries have it: both travel in an intptr_t. */
#include <stdint.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds a call of pcm_run. */
double loop_run(int (*run)(void *, const void *, double), void *comm, const void *call, long calls)
{
    double begun = now();
    for (long i = 0; i < calls; i++) run(comm, call, -1.0);
    return (now() - begun) / (double)calls;
}

/* Seconds a call of MPI_Allreduce. */
double loop_allreduce(int (*allreduce)(const void *, void *, int, intptr_t, intptr_t, intptr_t), const void *in,
                      void *out, int count, intptr_t type, intptr_t op, intptr_t comm, long calls)
{
    double begun = now();
    for (long i = 0; i < calls; i++) allreduce(in, out, count, type, op, comm);
    return (now() - begun) / (double)calls;
}
