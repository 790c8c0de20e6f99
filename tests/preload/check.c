/* check.c: every collective under its usual name, which may be served by others, compared with MPI's own under its profiling
 * name. Says "ok" and the number of comparisons on rank 0, or which one differs. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int rank, size, compared;
static MPI_Comm comm;
static double *in, *ours, *theirs;
static size_t room;

static void fill(double *to, size_t n, int salt)
{
    for (size_t i = 0; i < n; i++) to[i] = (double)((i * 7 + (size_t)rank * 13 + (size_t)salt) % 101);
}

static void fresh(int salt)
{
    fill(in, room, salt);
    fill(ours, room, salt + 1), fill(theirs, room, salt + 1);
}

static void same(const char *what, int n)
{
    compared++;
    if (!memcmp(ours, theirs, room * sizeof *ours)) return;
    size_t at = 0;
    while (ours[at] == theirs[at]) at++;
    fprintf(stderr, "rank %d of %d: %s of %d: element %zu is %g, not %g\n", rank, size, what, n, at, ours[at],
            theirs[at]);
    MPI_Abort(MPI_COMM_WORLD, 3);
}

/* Runs a call under both names, and where it has a twin that returns at once, that too. X is the buffer that is written. */
#define WAITED(CALL)                                                                                                   \
    do {                                                                                                               \
        MPI_Request request;                                                                                           \
        CALL;                                                                                                          \
        MPI_Wait(&request, MPI_STATUS_IGNORE);                                                                         \
    } while (0)
#define COMPARE(NAME, INAME, ...)                                                                                      \
    do {                                                                                                               \
        double *x;                                                                                                     \
        fresh(n);                                                                                                      \
        x = theirs, PMPI_##NAME(__VA_ARGS__, comm);                                                                    \
        x = ours, MPI_##NAME(__VA_ARGS__, comm);                                                                       \
        same(#NAME, n);                                                                                                \
        fresh(n + 3);                                                                                                  \
        x = theirs, PMPI_##NAME(__VA_ARGS__, comm);                                                                    \
        x = ours;                                                                                                      \
        WAITED(MPI_##INAME(__VA_ARGS__, comm, &request));                                                              \
        same(#INAME, n);                                                                                               \
    } while (0)

static void even(int n)
{
    COMPARE(Allreduce, Iallreduce, in, x, n, MPI_DOUBLE, MPI_SUM);
    COMPARE(Allreduce, Iallreduce, MPI_IN_PLACE, x, n, MPI_DOUBLE, MPI_MAX);
    COMPARE(Allreduce, Iallreduce, in, x, 2 * n, MPI_INT, MPI_BXOR);
    COMPARE(Scan, Iscan, in, x, n, MPI_DOUBLE, MPI_SUM);
    COMPARE(Exscan, Iexscan, in, x, n, MPI_DOUBLE, MPI_SUM);
    COMPARE(Scan, Iscan, MPI_IN_PLACE, x, n, MPI_DOUBLE, MPI_MIN);
    COMPARE(Exscan, Iexscan, MPI_IN_PLACE, x, n, MPI_DOUBLE, MPI_SUM);
    COMPARE(Reduce_scatter_block, Ireduce_scatter_block, in, x, n, MPI_DOUBLE, MPI_SUM);
    COMPARE(Allgather, Iallgather, in, n, MPI_DOUBLE, x, n, MPI_DOUBLE);
    COMPARE(Allgather, Iallgather, MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, x, n, MPI_DOUBLE);
    COMPARE(Alltoall, Ialltoall, in, n, MPI_DOUBLE, x, n, MPI_DOUBLE);
    COMPARE(Alltoall, Ialltoall, MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, x, n, MPI_DOUBLE);
    for (int root = 0; root < size; root += size - 1) {
        COMPARE(Bcast, Ibcast, x, n, MPI_DOUBLE, root);
        COMPARE(Reduce, Ireduce, in, x, n, MPI_DOUBLE, MPI_SUM, root);
        COMPARE(Reduce, Ireduce, rank == root ? MPI_IN_PLACE : in, x, n, MPI_DOUBLE, MPI_SUM, root);
        COMPARE(Gather, Igather, in, n, MPI_DOUBLE, x, n, MPI_DOUBLE, root);
        COMPARE(Gather, Igather, rank == root ? MPI_IN_PLACE : in, n, MPI_DOUBLE, x, n, MPI_DOUBLE, root);
        COMPARE(Scatter, Iscatter, in, n, MPI_DOUBLE, x, n, MPI_DOUBLE, root);
        COMPARE(Scatter, Iscatter, in, n, MPI_DOUBLE, rank == root ? MPI_IN_PLACE : x, n, MPI_DOUBLE, root);
    }
}

static void uneven(int n)
{
    int counts[64], displs[64], sends[64], from[64], total = 0, sent = 0, got = 0, receives[64], to[64];
    for (int r = 0; r < size; r++) {
        counts[r] = r % 3 == 1 ? 0 : n + r, displs[r] = total + r, total += counts[r];
        sends[r] = n + (rank + 2 * r) % 3, from[r] = sent + 2 * r, sent += sends[r];
        receives[r] = n + (r + 2 * rank) % 3, to[r] = got + r, got += receives[r];
    }
    COMPARE(Reduce_scatter, Ireduce_scatter, in, x, counts, MPI_DOUBLE, MPI_SUM);
    COMPARE(Allgatherv, Iallgatherv, in, counts[rank], MPI_DOUBLE, x, counts, displs, MPI_DOUBLE);
    COMPARE(Allgatherv, Iallgatherv, MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, x, counts, displs, MPI_DOUBLE);
    COMPARE(Alltoallv, Ialltoallv, in, sends, from, MPI_DOUBLE, x, receives, to, MPI_DOUBLE);
    for (int r = 0; r < size; r++) sends[r] = n + (rank + r) % 3, from[r] = r * (n + 4);
    COMPARE(Alltoallv, Ialltoallv, MPI_IN_PLACE, NULL, NULL, MPI_DATATYPE_NULL, x, sends, from, MPI_DOUBLE);
    for (int root = 0; root < size; root += size - 1) {
        COMPARE(Gatherv, Igatherv, in, counts[rank], MPI_DOUBLE, x, counts, displs, MPI_DOUBLE, root);
        COMPARE(Gatherv, Igatherv, rank == root ? MPI_IN_PLACE : in, counts[rank], MPI_DOUBLE, x, counts, displs,
                MPI_DOUBLE, root);
        COMPARE(Scatterv, Iscatterv, in, counts, displs, MPI_DOUBLE, x, counts[rank], MPI_DOUBLE, root);
        COMPARE(Scatterv, Iscatterv, in, counts, displs, MPI_DOUBLE, rank == root ? MPI_IN_PLACE : x, counts[rank],
                MPI_DOUBLE, root);
    }
}

/* Types that are not basic, on all ranks or on some: what one sends as a vector another may receive as numbers. */
static void derived(int n)
{
    MPI_Datatype vector, pair;
    MPI_Type_vector(n, 1, 2, MPI_DOUBLE, &vector);
    MPI_Type_commit(&vector);
    MPI_Type_contiguous(2, MPI_DOUBLE, &pair);
    MPI_Type_commit(&pair);
    COMPARE(Bcast, Ibcast, x, rank ? n : 1, rank ? MPI_DOUBLE : vector, 0);
    COMPARE(Gather, Igather, in, n, MPI_DOUBLE, x, 1, vector, 0);
    COMPARE(Alltoall, Ialltoall, in, 2 * n, MPI_DOUBLE, x, n, pair);
    COMPARE(Allgatherv, Iallgatherv, in, 1, vector, x, (int[64]){[0 ... 63] = 1}, (int[64]){0, 2, 4, 6, 8, 10, 12, 14},
            vector);
    MPI_Type_free(&vector);
    MPI_Type_free(&pair);
}

static void smaller_of_both(void *a, void *b, int *n, MPI_Datatype *type)
{
    (void)type;
    for (int i = 0; i < *n; i++)
        if (((double *)a)[i] < ((double *)b)[i]) ((double *)b)[i] = ((double *)a)[i];
}

static void others(int n)
{
    MPI_Op own;
    MPI_Op_create(smaller_of_both, 1, &own);
    COMPARE(Allreduce, Iallreduce, in, x, n, MPI_DOUBLE, own);
    COMPARE(Allreduce, Iallreduce, in, x, n, MPI_2INT, MPI_MAXLOC);
    MPI_Op_free(&own);
}

/* Several requests, of MPI's messages and of collectives, in all ways of waiting. */
static void requests(int n)
{
    int right = (rank + 1) % size, left = (rank + size - 1) % size, done, indices[4], flag = 0;
    MPI_Request all[4];
    for (int way = 0; way < 4; way++) {
        fresh(way);
        MPI_Allreduce(in, theirs, n, MPI_DOUBLE, MPI_SUM, comm);
        PMPI_Sendrecv(in, n, MPI_DOUBLE, right, 1, theirs + n, n, MPI_DOUBLE, left, 1, comm, MPI_STATUS_IGNORE);
        MPI_Irecv(ours + n, n, MPI_DOUBLE, left, 2, comm, &all[0]);
        MPI_Iallreduce(in, ours, n, MPI_DOUBLE, MPI_SUM, comm, &all[1]);
        MPI_Isend(in, n, MPI_DOUBLE, right, 2, comm, &all[2]);
        MPI_Ibarrier(comm, &all[3]);
        if (way == 0) MPI_Waitall(4, all, MPI_STATUSES_IGNORE);
        for (int i = 0; way == 1 && i < 4; i++) MPI_Waitany(4, all, &done, MPI_STATUS_IGNORE);
        for (int left_over = 4; way == 2 && left_over; left_over -= done)
            MPI_Waitsome(4, all, &done, indices, MPI_STATUSES_IGNORE);
        for (flag = 0; way == 3 && !flag;) MPI_Testall(4, all, &flag, MPI_STATUSES_IGNORE);
        for (int i = 0; i < 4; i++)
            if (all[i] != MPI_REQUEST_NULL) MPI_Abort(MPI_COMM_WORLD, 4);
        same("Iallreduce beside messages", n);
    }
    /* a long message, which goes only while the receiver is in MPI, before a collective that the receiver is in already */
    MPI_Request coming;
    fresh(9);
    MPI_Irecv(ours, (int)room, MPI_DOUBLE, left, 3, comm, &coming);
    if (rank)
        MPI_Barrier(comm), MPI_Send(in, (int)room, MPI_DOUBLE, right, 3, comm);
    else
        MPI_Send(in, (int)room, MPI_DOUBLE, right, 3, comm), MPI_Barrier(comm);
    MPI_Wait(&coming, MPI_STATUS_IGNORE);
}

int main(int argc, char **argv)
{
    int given, wanted = argc > 1 ? atoi(argv[1]) : MPI_THREAD_SINGLE;
    MPI_Init_thread(&argc, &argv, wanted, &given);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    room = (size_t)(size + 2) * 20100;
    in = malloc(room * sizeof *in), ours = malloc(room * sizeof *ours), theirs = malloc(room * sizeof *theirs);
    for (int which = 0; which < 3; which++) { /* all ranks, backwards; and then parts, freed each time */
        MPI_Comm_rank(MPI_COMM_WORLD, &rank);
        if (which == 0)
            comm = MPI_COMM_WORLD;
        else
            MPI_Comm_split(MPI_COMM_WORLD, which == 2 ? rank / 2 : 0, -rank, &comm);
        MPI_Comm_rank(comm, &rank);
        MPI_Comm_size(comm, &size);
        if (size > 1) {
            static const int counts[] = {0, 1, 1000, 10000};
            for (int i = 0; i < 4; i++) even(counts[i]);
            uneven(3), uneven(1000);
            derived(5), others(10), requests(500);
        }
        MPI_Barrier(comm);
        if (comm != MPI_COMM_WORLD) MPI_Comm_free(&comm);
    }
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (!rank) printf("ok %d\n", compared);
    MPI_Finalize();
    return 0;
}
