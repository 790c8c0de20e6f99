/* fortran.c: the collectives of Fortran's mpif.h and `use mpi`: everything by reference, handles that are integers, and buffers
 * that mean MPI_IN_PLACE or MPI_BOTTOM by their addresses. What is only started is left to MPI, and `use mpi_f08` too.
 */
#include <dlfcn.h>
#include <string.h>

#include "preload.h"

struct dialect {
    bool known;
    const void *in_place, *bottom;
    mpi_handle (*comm)(int), (*type)(int), (*op)(int); /* NULL: a handle is the number */
};

static struct dialect dialect;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Open MPI has variables at these addresses; MPICH variables that hold them, once Fortran's MPI_INIT has run. */
static const void *sentinel(const char *openmpi, const char *mpich)
{
    const void *at = mpi_function(openmpi);
    const void *const *held = at ? NULL : mpi_function(mpich);
    return held ? *held : at;
}

static void learn(void)
{
    if (!preload_mpi()) return;
    dialect.in_place = sentinel("mpi_fortran_in_place_", "MPIR_F_MPI_IN_PLACE");
    dialect.bottom = sentinel("mpi_fortran_bottom_", "MPIR_F_MPI_BOTTOM");
    dialect.known = dialect.in_place && dialect.bottom;
    void *const slots[] = {&dialect.comm, &dialect.type, &dialect.op};
    static const char *const names[] = {"PMPI_Comm_f2c", "PMPI_Type_f2c", "PMPI_Op_f2c"};
    for (int i = 0; i < 3; i++) {
        void *function = mpi_function(names[i]);
        memcpy(slots[i], &function, sizeof function);
    }
}

static mpi_handle handle(mpi_handle (*of)(int), const int *number) { return of ? of(*number) : *number; }

static mpi_handle comm(const int *number) { return handle(dialect.comm, number); }

static mpi_handle op(const int *number) { return handle(dialect.op, number); }

static const void *buffer(const void *given)
{
    if (given == dialect.in_place) return preload_mpi()->in_place;
    return given == dialect.bottom ? NULL : given;
}

static bool known(void)
{
    pthread_once(&once, learn);
    return dialect.known;
}

static struct side even(const void *at, const int *n, const int *type)
{
    return (struct side){.buffer = buffer(at), .count = *n, .type = handle(dialect.type, type)};
}

static struct side uneven(const void *at, const int *counts, const int *displs, const int *type)
{
    return (struct side){.buffer = buffer(at), .type = handle(dialect.type, type), .counts = counts, .displs = displs};
}

static int rank_in(const int *number)
{
    int rank = 0;
    preload_mpi()->comm_rank(comm(number), &rank);
    return rank;
}

#define LIST(...) __VA_ARGS__
#define FORWARD(NAME, PARAMETERS, ARGUMENTS)                                                                           \
    do {                                                                                                               \
        void (*function)(PARAMETERS);                                                                                  \
        void *found = dlsym(RTLD_NEXT, #NAME);                                                                         \
        memcpy(&function, &found, sizeof function);                                                                    \
        if (function) function(ARGUMENTS);                                                                             \
    } while (0)
#define ENTRY(NAME, PARAMETERS, ARGUMENTS, ...)                                                                        \
    EXPORT void NAME(PARAMETERS, int *error);                                                                          \
    EXPORT void NAME(PARAMETERS, int *error)                                                                           \
    {                                                                                                                  \
        if (known()) {                                                                                                 \
            struct ask ask = {__VA_ARGS__};                                                                            \
            if (serve(&ask, NULL, error)) return;                                                                      \
        }                                                                                                              \
        FORWARD(NAME, LIST(PARAMETERS, int *error), LIST(ARGUMENTS, error));                                           \
    }

ENTRY(mpi_barrier_, int *on, on, .collective = PCM_BARRIER, .comm = comm(on))
ENTRY(mpi_allreduce_, LIST(void *in, void *out, int *n, int *type, int *with, int *on),
      LIST(in, out, n, type, with, on), PCM_ALLREDUCE, even(in, n, type), even(out, n, type), op(with), comm(on), 0,
      false)
ENTRY(mpi_scan_, LIST(void *in, void *out, int *n, int *type, int *with, int *on), LIST(in, out, n, type, with, on),
      PCM_SCAN, even(in, n, type), even(out, n, type), op(with), comm(on), 0, false)
ENTRY(mpi_exscan_, LIST(void *in, void *out, int *n, int *type, int *with, int *on), LIST(in, out, n, type, with, on),
      PCM_EXSCAN, even(in, n, type), even(out, n, type), op(with), comm(on), 0, false)
ENTRY(mpi_reduce_, LIST(void *in, void *out, int *n, int *type, int *with, int *root, int *on),
      LIST(in, out, n, type, with, root, on), PCM_REDUCE, even(in, n, type), even(out, n, type), op(with), comm(on),
      *root, false)
ENTRY(mpi_reduce_scatter_block_, LIST(void *in, void *out, int *n, int *type, int *with, int *on),
      LIST(in, out, n, type, with, on), PCM_REDUCE_SCATTER, even(in, n, type), even(out, n, type), op(with), comm(on),
      0, false)
ENTRY(mpi_reduce_scatter_, LIST(void *in, void *out, int *n, int *type, int *with, int *on),
      LIST(in, out, n, type, with, on), PCM_REDUCE_SCATTER, uneven(in, n, NULL, type), even(out, &n[rank_in(on)], type),
      op(with), comm(on), 0, true)
ENTRY(mpi_bcast_, LIST(void *at, int *n, int *type, int *root, int *on), LIST(at, n, type, root, on), PCM_BROADCAST,
      {.count = 0}, even(at, n, type), 0, comm(on), *root, false)
ENTRY(mpi_allgather_, LIST(void *in, int *n, int *type, void *out, int *m, int *other, int *on),
      LIST(in, n, type, out, m, other, on), PCM_ALLGATHER, even(in, n, type), even(out, m, other), 0, comm(on), 0,
      false)
ENTRY(mpi_allgatherv_, LIST(void *in, int *n, int *type, void *out, int *m, int *displs, int *other, int *on),
      LIST(in, n, type, out, m, displs, other, on), PCM_ALLGATHER, even(in, n, type), uneven(out, m, displs, other), 0,
      comm(on), 0, true)
ENTRY(mpi_alltoall_, LIST(void *in, int *n, int *type, void *out, int *m, int *other, int *on),
      LIST(in, n, type, out, m, other, on), PCM_ALLTOALL, even(in, n, type), even(out, m, other), 0, comm(on), 0, false)
ENTRY(mpi_alltoallv_, LIST(void *in, int *n, int *from, int *type, void *out, int *m, int *displs, int *other, int *on),
      LIST(in, n, from, type, out, m, displs, other, on), PCM_ALLTOALL, uneven(in, n, from, type),
      uneven(out, m, displs, other), 0, comm(on), 0, true)
ENTRY(mpi_gather_, LIST(void *in, int *n, int *type, void *out, int *m, int *other, int *root, int *on),
      LIST(in, n, type, out, m, other, root, on), PCM_GATHER, even(in, n, type), even(out, m, other), 0, comm(on),
      *root, false)
ENTRY(mpi_gatherv_, LIST(void *in, int *n, int *type, void *out, int *m, int *displs, int *other, int *root, int *on),
      LIST(in, n, type, out, m, displs, other, root, on), PCM_GATHER, even(in, n, type), uneven(out, m, displs, other),
      0, comm(on), *root, true)
ENTRY(mpi_scatter_, LIST(void *in, int *n, int *type, void *out, int *m, int *other, int *root, int *on),
      LIST(in, n, type, out, m, other, root, on), PCM_SCATTER, even(in, n, type), even(out, m, other), 0, comm(on),
      *root, false)
ENTRY(mpi_scatterv_, LIST(void *in, int *n, int *from, int *type, void *out, int *m, int *other, int *root, int *on),
      LIST(in, n, from, type, out, m, other, root, on), PCM_SCATTER, uneven(in, n, from, type), even(out, m, other), 0,
      comm(on), *root, true)

EXPORT void mpi_comm_free_(int *on, int *error);
EXPORT void mpi_comm_free_(int *on, int *error)
{
    if (known()) preload_forget(preload_handle(comm(on)));
    FORWARD(mpi_comm_free_, LIST(int *on, int *error), LIST(on, error));
}

EXPORT void mpi_finalize_(int *error);
EXPORT void mpi_finalize_(int *error)
{
    preload_end();
    FORWARD(mpi_finalize_, int *error, error);
}
