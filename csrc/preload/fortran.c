/* fortran.c: Open MPI's collectives from Fortran: everything by reference, handles that are integers, and buffers that mean
 * MPI_IN_PLACE or MPI_BOTTOM by their addresses.
 *
 * Open MPI's functions for mpif.h and `use mpi` (mpi_bcast_) call those of C by their profiling names, so that what stands in
 * front of C's is passed by; and so do those for `use mpi_f08`, by way of others (ompi_bcast_f) that have the same arguments.
 * MPICH's and Intel MPI's call C's by their usual names, all three kinds, and so there is nothing to be done here.
 */
#include <dlfcn.h>
#include <string.h>

#include "preload.h"

struct dialect {
    bool known;
    const void *in_place, *bottom;
    mpi_handle (*comm)(int), (*type)(int), (*op)(int);
    int (*request)(mpi_handle);
};

static struct dialect dialect;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void learn(void)
{
    if (!preload_mpi() || !mpi_function("ompi_mpi_comm_world")) return;
    /* common blocks, of which each library has a copy, and all use the program's */
    dialect.in_place = dlsym(RTLD_DEFAULT, "mpi_fortran_in_place_");
    dialect.bottom = dlsym(RTLD_DEFAULT, "mpi_fortran_bottom_");
    void *const slots[] = {&dialect.comm, &dialect.type, &dialect.op, &dialect.request};
    static const char *const names[] = {"PMPI_Comm_f2c", "PMPI_Type_f2c", "PMPI_Op_f2c", "PMPI_Request_c2f"};
    dialect.known = dialect.in_place && dialect.bottom;
    for (int i = 0; i < 4; i++) {
        void *function = mpi_function(names[i]);
        memcpy(slots[i], &function, sizeof function);
        dialect.known = dialect.known && function;
    }
}

static bool known(void)
{
    pthread_once(&once, learn);
    return dialect.known;
}

static mpi_handle comm(const int *number) { return dialect.comm(*number); }

static mpi_handle op(const int *number) { return dialect.op(*number); }

static const void *buffer(const void *given)
{
    if (given == dialect.in_place) return preload_mpi()->in_place;
    return given == dialect.bottom ? NULL : given;
}

static struct side even(const void *at, const int *n, const int *type)
{
    return (struct side){.buffer = buffer(at), .count = *n, .type = dialect.type(*type)};
}

static struct side uneven(const void *at, const int *counts, const int *displs, const int *type)
{
    return (struct side){.buffer = buffer(at), .type = dialect.type(*type), .counts = counts, .displs = displs};
}

static int rank_in(const int *number)
{
    int rank = 0;
    preload_mpi()->comm_rank(comm(number), &rank);
    return rank;
}

static bool start(struct ask *ask, int *request, int *error)
{
    mpi_handle handle = 0;
    if (!serve(ask, &handle, error)) return false;
    *request = dialect.request(handle);
    return true;
}

#define LIST(...) __VA_ARGS__
/* Goes on to the function that this name had, which is looked up once. */
#define FORWARD(NAME, PARAMETERS, ARGUMENTS)                                                                           \
    do {                                                                                                               \
        static void (*_Atomic own)(PARAMETERS);                                                                        \
        void (*function)(PARAMETERS) = atomic_load_explicit(&own, memory_order_acquire);                               \
        if (!function) {                                                                                               \
            void *found = dlsym(RTLD_NEXT, #NAME);                                                                     \
            memcpy(&function, &found, sizeof function);                                                                \
            if (!function) return;                                                                                     \
            atomic_store_explicit(&own, function, memory_order_release);                                               \
        }                                                                                                              \
        function(ARGUMENTS);                                                                                           \
    } while (0)

/* ---- collectives -------------------------------------------------------------------------------------------------------- */

#define BLOCKING(NAME, PARAMETERS, ARGUMENTS, ...)                                                                     \
    EXPORT void NAME(PARAMETERS, int *error);                                                                          \
    EXPORT void NAME(PARAMETERS, int *error)                                                                           \
    {                                                                                                                  \
        if (known()) {                                                                                                 \
            struct ask ask = {__VA_ARGS__};                                                                            \
            if (serve(&ask, NULL, error)) return;                                                                      \
        }                                                                                                              \
        FORWARD(NAME, LIST(PARAMETERS, int *error), LIST(ARGUMENTS, error));                                           \
    }
#define STARTING(NAME, PARAMETERS, ARGUMENTS, ...)                                                                     \
    EXPORT void NAME(PARAMETERS, int *request, int *error);                                                            \
    EXPORT void NAME(PARAMETERS, int *request, int *error)                                                             \
    {                                                                                                                  \
        if (known()) {                                                                                                 \
            struct ask ask = {__VA_ARGS__};                                                                            \
            if (start(&ask, request, error)) return;                                                                   \
        }                                                                                                              \
        FORWARD(NAME, LIST(PARAMETERS, int *request, int *error), LIST(ARGUMENTS, request, error));                    \
    }
#define ENTRY(NAME, PARAMETERS, ARGUMENTS, ...)                                                                        \
    BLOCKING(mpi_##NAME##_, LIST(PARAMETERS), LIST(ARGUMENTS), __VA_ARGS__)                                            \
    BLOCKING(ompi_##NAME##_f, LIST(PARAMETERS), LIST(ARGUMENTS), __VA_ARGS__)                                          \
    STARTING(mpi_i##NAME##_, LIST(PARAMETERS), LIST(ARGUMENTS), __VA_ARGS__)                                           \
    STARTING(ompi_i##NAME##_f, LIST(PARAMETERS), LIST(ARGUMENTS), __VA_ARGS__)

ENTRY(barrier, int *on, on, .collective = PCM_BARRIER, .comm = comm(on))
ENTRY(allreduce, LIST(void *in, void *out, int *n, int *type, int *with, int *on), LIST(in, out, n, type, with, on),
      PCM_ALLREDUCE, even(in, n, type), even(out, n, type), op(with), comm(on), 0, false)
ENTRY(scan, LIST(void *in, void *out, int *n, int *type, int *with, int *on), LIST(in, out, n, type, with, on),
      PCM_SCAN, even(in, n, type), even(out, n, type), op(with), comm(on), 0, false)
ENTRY(exscan, LIST(void *in, void *out, int *n, int *type, int *with, int *on), LIST(in, out, n, type, with, on),
      PCM_EXSCAN, even(in, n, type), even(out, n, type), op(with), comm(on), 0, false)
ENTRY(reduce, LIST(void *in, void *out, int *n, int *type, int *with, int *root, int *on),
      LIST(in, out, n, type, with, root, on), PCM_REDUCE, even(in, n, type), even(out, n, type), op(with), comm(on),
      *root, false)
ENTRY(reduce_scatter_block, LIST(void *in, void *out, int *n, int *type, int *with, int *on),
      LIST(in, out, n, type, with, on), PCM_REDUCE_SCATTER, even(in, n, type), even(out, n, type), op(with), comm(on),
      0, false)
ENTRY(reduce_scatter, LIST(void *in, void *out, int *n, int *type, int *with, int *on),
      LIST(in, out, n, type, with, on), PCM_REDUCE_SCATTER, uneven(in, n, NULL, type), even(out, &n[rank_in(on)], type),
      op(with), comm(on), 0, true)
ENTRY(bcast, LIST(void *at, int *n, int *type, int *root, int *on), LIST(at, n, type, root, on), PCM_BROADCAST,
      {.count = 0}, even(at, n, type), 0, comm(on), *root, false)
ENTRY(allgather, LIST(void *in, int *n, int *type, void *out, int *m, int *other, int *on),
      LIST(in, n, type, out, m, other, on), PCM_ALLGATHER, even(in, n, type), even(out, m, other), 0, comm(on), 0,
      false)
ENTRY(allgatherv, LIST(void *in, int *n, int *type, void *out, int *m, int *displs, int *other, int *on),
      LIST(in, n, type, out, m, displs, other, on), PCM_ALLGATHER, even(in, n, type), uneven(out, m, displs, other), 0,
      comm(on), 0, true)
ENTRY(alltoall, LIST(void *in, int *n, int *type, void *out, int *m, int *other, int *on),
      LIST(in, n, type, out, m, other, on), PCM_ALLTOALL, even(in, n, type), even(out, m, other), 0, comm(on), 0, false)
ENTRY(alltoallv, LIST(void *in, int *n, int *from, int *type, void *out, int *m, int *displs, int *other, int *on),
      LIST(in, n, from, type, out, m, displs, other, on), PCM_ALLTOALL, uneven(in, n, from, type),
      uneven(out, m, displs, other), 0, comm(on), 0, true)
ENTRY(gather, LIST(void *in, int *n, int *type, void *out, int *m, int *other, int *root, int *on),
      LIST(in, n, type, out, m, other, root, on), PCM_GATHER, even(in, n, type), even(out, m, other), 0, comm(on),
      *root, false)
ENTRY(gatherv, LIST(void *in, int *n, int *type, void *out, int *m, int *displs, int *other, int *root, int *on),
      LIST(in, n, type, out, m, displs, other, root, on), PCM_GATHER, even(in, n, type), uneven(out, m, displs, other),
      0, comm(on), *root, true)
ENTRY(scatter, LIST(void *in, int *n, int *type, void *out, int *m, int *other, int *root, int *on),
      LIST(in, n, type, out, m, other, root, on), PCM_SCATTER, even(in, n, type), even(out, m, other), 0, comm(on),
      *root, false)
ENTRY(scatterv, LIST(void *in, int *n, int *from, int *type, void *out, int *m, int *other, int *root, int *on),
      LIST(in, n, from, type, out, m, other, root, on), PCM_SCATTER, uneven(in, n, from, type), even(out, m, other), 0,
      comm(on), *root, true)

/* ---- waiting: as in entries.c ------------------------------------------------------------------------------------------- */

#define TEST_UNDER(NAME, PARAMETERS, ARGUMENTS)                                                                        \
    EXPORT void NAME(PARAMETERS, int *error);                                                                          \
    EXPORT void NAME(PARAMETERS, int *error)                                                                           \
    {                                                                                                                  \
        if (started_any()) started_advance();                                                                          \
        FORWARD(NAME, LIST(PARAMETERS, int *error), LIST(ARGUMENTS, error));                                           \
    }
#define TEST(NAME, PARAMETERS, ARGUMENTS)                                                                              \
    TEST_UNDER(mpi_##NAME##_, LIST(PARAMETERS), LIST(ARGUMENTS))                                                       \
    TEST_UNDER(ompi_##NAME##_f, LIST(PARAMETERS), LIST(ARGUMENTS))

TEST(test, LIST(int *request, int *flag, int *status), LIST(request, flag, status))
TEST(testall, LIST(int *n, int *requests, int *flag, int *statuses), LIST(n, requests, flag, statuses))
TEST(testany, LIST(int *n, int *requests, int *index, int *flag, int *status), LIST(n, requests, index, flag, status))
TEST(testsome, LIST(int *n, int *requests, int *done, int *indices, int *statuses),
     LIST(n, requests, done, indices, statuses))
TEST(request_get_status, LIST(int *request, int *flag, int *status), LIST(request, flag, status))

/* FOUND: whether the test of this name, with these arguments, has found what is waited for. */
#define WAIT_UNDER(NAME, PARAMETERS, ARGUMENTS, TESTED, TEST_ARGUMENTS, FOUND)                                         \
    EXPORT void NAME(PARAMETERS, int *error);                                                                          \
    EXPORT void NAME(PARAMETERS, int *error)                                                                           \
    {                                                                                                                  \
        for (unsigned turn = 0; started_any(); turn++) {                                                               \
            int flag = 0;                                                                                              \
            mpi_##TESTED##_(TEST_ARGUMENTS, error);                                                                    \
            if (*error || (FOUND)) return;                                                                             \
            started_pause(turn);                                                                                       \
        }                                                                                                              \
        FORWARD(NAME, LIST(PARAMETERS, int *error), LIST(ARGUMENTS, error));                                           \
    }
#define WAIT(NAME, PARAMETERS, ARGUMENTS, TESTED, TEST_ARGUMENTS, FOUND)                                               \
    WAIT_UNDER(mpi_##NAME##_, LIST(PARAMETERS), LIST(ARGUMENTS), TESTED, LIST(TEST_ARGUMENTS), FOUND)                  \
    WAIT_UNDER(ompi_##NAME##_f, LIST(PARAMETERS), LIST(ARGUMENTS), TESTED, LIST(TEST_ARGUMENTS), FOUND)

WAIT(wait, LIST(int *request, int *status), LIST(request, status), test, LIST(request, &flag, status), flag)
WAIT(waitall, LIST(int *n, int *requests, int *statuses), LIST(n, requests, statuses), testall,
     LIST(n, requests, &flag, statuses), flag)
WAIT(waitany, LIST(int *n, int *requests, int *index, int *status), LIST(n, requests, index, status), testany,
     LIST(n, requests, index, &flag, status), flag)
WAIT(waitsome, LIST(int *n, int *requests, int *done, int *indices, int *statuses),
     LIST(n, requests, done, indices, statuses), testsome, LIST(n, requests, done, indices, statuses), (flag = *done))

/* ---- ends --------------------------------------------------------------------------------------------------------------- */

static void forget(const int *on)
{
    if (known()) preload_forget(comm(on));
}

#define END(NAME)                                                                                                      \
    EXPORT void NAME(int *on, int *error);                                                                             \
    EXPORT void NAME(int *on, int *error)                                                                              \
    {                                                                                                                  \
        forget(on);                                                                                                    \
        FORWARD(NAME, LIST(int *on, int *error), LIST(on, error));                                                     \
    }
END(mpi_comm_free_)
END(ompi_comm_free_f)
END(mpi_comm_disconnect_)
END(ompi_comm_disconnect_f)

#define LAST(NAME)                                                                                                     \
    EXPORT void NAME(int *error);                                                                                      \
    EXPORT void NAME(int *error)                                                                                       \
    {                                                                                                                  \
        preload_end();                                                                                                 \
        FORWARD(NAME, int *error, error);                                                                              \
    }
LAST(mpi_finalize_)
LAST(ompi_finalize_f)
