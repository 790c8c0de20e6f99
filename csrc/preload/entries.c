/* entries.c: the functions of MPI that a program finds here instead of in MPI: collectives, what waits for them, and ends.
 *
 * Each does as MPI's own would, or calls it under its profiling name, which is never found here.
 */
#include <stdio.h>
#include <string.h>

#include "preload.h"

#define LIST(...) __VA_ARGS__

/* Goes on to MPI's own function. */
#define FORWARD(FUNCTION, PARAMETERS, ARGUMENTS)                                                                       \
    do {                                                                                                               \
        static struct own own;                                                                                         \
        int (*function)(PARAMETERS);                                                                                   \
        void *found = preload_own(&own, "P" FUNCTION);                                                                 \
        memcpy(&function, &found, sizeof function);                                                                    \
        return function(ARGUMENTS);                                                                                    \
    } while (0)

#define STRING_OF(x) #x
#define STRING(x) STRING_OF(x)
/* The body of a collective, whose lists of counts are INTS(list) among its arguments. REQUEST: NULL if it waits. */
#define BODY(NAME, PARAMETERS, ARGUMENTS, ASK, REQUEST)                                                                \
    {                                                                                                                  \
        static struct own own;                                                                                         \
        int code;                                                                                                      \
        struct ask ask = ASK;                                                                                          \
        if (serve(&ask, REQUEST, &code)) return code;                                                                  \
        int (*function)(PARAMETERS);                                                                                   \
        void *found = preload_own(&own, "P" STRING(NAME));                                                             \
        memcpy(&function, &found, sizeof function);                                                                    \
        struct narrowed lists = {.count = 0};                                                                          \
        if (!preload_narrow(&own, &ask, &lists)) return preload_too_many(&ask, &lists);                                \
        return preload_done(&lists, REQUEST, function(ARGUMENTS));                                                     \
    }
#define INTS(LIST) preload_ints(&lists, LIST)
#define ENTRY(BLOCKING, STARTING, PARAMETERS, ARGUMENTS, ASK)                                                          \
    EXPORT int BLOCKING(PARAMETERS);                                                                                   \
    EXPORT int BLOCKING(PARAMETERS) BODY(BLOCKING, LIST(PARAMETERS), LIST(ARGUMENTS), ASK, NULL) EXPORT int STARTING(  \
        PARAMETERS, mpi_handle *request);                                                                              \
    EXPORT int STARTING(PARAMETERS, mpi_handle *request)                                                               \
        BODY(STARTING, LIST(PARAMETERS, mpi_handle *request), LIST(ARGUMENTS, request), ASK, request)

#define NONE {.count = 0}
#define EVEN(BUFFER, N, TYPE) {.buffer = (BUFFER), .count = (N), .type = (TYPE)}
#define UNEVEN(BUFFER, COUNTS, DISPLS, TYPE)                                                                           \
    {.buffer = (BUFFER), .type = (TYPE), .counts = (COUNTS), .displs = (DISPLS), .wide = WIDE}
/* This rank's block of several. */
#define OWN(BUFFER, COUNTS, TYPE, COMM) {.buffer = (BUFFER), .count = (COUNTS)[rank_in(COMM)], .type = (TYPE)}

static int rank_in(mpi_handle comm)
{
    const struct mpi_library *mpi = preload_mpi();
    int rank = 0;
    if (mpi) mpi->comm_rank(comm, &rank);
    return rank;
}

#define COUNT int
#define DISPL int
#define WIDE false
#define NAME(x) x
#include "collectives.inc"

static struct ask barrier_of(mpi_handle comm) { return (struct ask){.collective = PCM_BARRIER, .comm = comm}; }

EXPORT int MPI_Barrier(mpi_handle comm);
EXPORT int MPI_Barrier(mpi_handle comm)
{
    int code;
    struct ask ask = barrier_of(comm);
    if (serve(&ask, NULL, &code)) return code;
    FORWARD("MPI_Barrier", mpi_handle comm, comm);
}

EXPORT int MPI_Ibarrier(mpi_handle comm, mpi_handle *request);
EXPORT int MPI_Ibarrier(mpi_handle comm, mpi_handle *request)
{
    int code;
    struct ask ask = barrier_of(comm);
    if (serve(&ask, request, &code)) return code;
    FORWARD("MPI_Ibarrier", LIST(mpi_handle comm, mpi_handle * request), LIST(comm, request));
}

/* The same with 64-bit counts, of MPI 4. */
#undef COUNT
#undef DISPL
#undef WIDE
#undef NAME
#define COUNT int64_t
#define DISPL intptr_t
#define WIDE true
#define NAME(x) x##_c
#include "collectives.inc"

/* ---- waiting ------------------------------------------------------------------------------------------------------------- */

/* A request of ours is one of MPI's that completes when we say so. As long as there are any, what waits for requests becomes
 * what tests them, in a loop in which ours make progress. */
#define TEST(NAME, PARAMETERS, ARGUMENTS)                                                                              \
    EXPORT int NAME(PARAMETERS);                                                                                       \
    EXPORT int NAME(PARAMETERS)                                                                                        \
    {                                                                                                                  \
        if (started_any()) started_advance();                                                                          \
        FORWARD(#NAME, LIST(PARAMETERS), LIST(ARGUMENTS));                                                             \
    }

TEST(MPI_Test, LIST(void *request, int *flag, void *status), LIST(request, flag, status))
TEST(MPI_Testall, LIST(int n, void *requests, int *flag, void *statuses), LIST(n, requests, flag, statuses))
TEST(MPI_Testany, LIST(int n, void *requests, int *index, int *flag, void *status),
     LIST(n, requests, index, flag, status))
TEST(MPI_Testsome, LIST(int n, void *requests, int *done, int *indices, void *statuses),
     LIST(n, requests, done, indices, statuses))
TEST(MPI_Request_get_status, LIST(mpi_handle request, int *flag, void *status), LIST(request, flag, status))

EXPORT int MPI_Wait(void *request, void *status);
EXPORT int MPI_Wait(void *request, void *status)
{
    for (unsigned turn = 0; started_any(); turn++) {
        int flag = 0, code = MPI_Test(request, &flag, status);
        if (code || flag) return code;
        started_pause(turn);
    }
    FORWARD("MPI_Wait", LIST(void *request, void *status), LIST(request, status));
}

EXPORT int MPI_Waitall(int n, void *requests, void *statuses);
EXPORT int MPI_Waitall(int n, void *requests, void *statuses)
{
    for (unsigned turn = 0; started_any(); turn++) {
        int flag = 0, code = MPI_Testall(n, requests, &flag, statuses);
        if (code || flag) return code;
        started_pause(turn);
    }
    FORWARD("MPI_Waitall", LIST(int n, void *requests, void *statuses), LIST(n, requests, statuses));
}

EXPORT int MPI_Waitany(int n, void *requests, int *index, void *status);
EXPORT int MPI_Waitany(int n, void *requests, int *index, void *status)
{
    for (unsigned turn = 0; started_any(); turn++) {
        int flag = 0, code = MPI_Testany(n, requests, index, &flag, status);
        if (code || flag) return code;
        started_pause(turn);
    }
    FORWARD("MPI_Waitany", LIST(int n, void *requests, int *index, void *status), LIST(n, requests, index, status));
}

EXPORT int MPI_Waitsome(int n, void *requests, int *done, int *indices, void *statuses);
EXPORT int MPI_Waitsome(int n, void *requests, int *done, int *indices, void *statuses)
{
    for (unsigned turn = 0; started_any(); turn++) {
        int code = MPI_Testsome(n, requests, done, indices, statuses);
        if (code || *done) return code; /* some, or MPI_UNDEFINED */
        started_pause(turn);
    }
    FORWARD("MPI_Waitsome", LIST(int n, void *requests, int *done, int *indices, void *statuses),
            LIST(n, requests, done, indices, statuses));
}

/* ---- ends ------------------------------------------------------------------------------------------------------------------ */

static void forget(void *comm)
{
    mpi_handle handle = 0;
    memcpy(&handle, comm, preload_handle_bytes());
    preload_forget(preload_handle(handle));
}

EXPORT int MPI_Comm_free(void *comm);
EXPORT int MPI_Comm_free(void *comm)
{
    forget(comm);
    FORWARD("MPI_Comm_free", void *comm, comm);
}

EXPORT int MPI_Comm_disconnect(void *comm);
EXPORT int MPI_Comm_disconnect(void *comm)
{
    forget(comm);
    FORWARD("MPI_Comm_disconnect", void *comm, comm);
}

void preload_end(void)
{
    static atomic_flag over = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&over)) return; /* Fortran's calls C's, in some libraries */
    const struct mpi_library *mpi = preload_mpi();
    int rank = 0;
    preload_forget_all();
    preload_drop_kept();
    if (mpi && report_wanted() && !mpi->comm_rank(mpi->comm_world, &rank) && !rank) report_print();
}

EXPORT int MPI_Finalize(void);
EXPORT int MPI_Finalize(void)
{
    preload_end();
    FORWARD("MPI_Finalize", void, );
}
