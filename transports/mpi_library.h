/* mpi_library.h: the MPI library that this process has loaded, whichever it is: its functions, and its constants.
 *
 * No header of MPI is used, so that one binary serves them all. What differs between libraries is what their headers say:
 *
 *   family      libraries                                   handles                     where the constants come from
 *   Open MPI    Open MPI 4 and 5                            pointers to its variables   symbols, looked up
 *   MPICH       MPICH 3.1 to 5, Intel MPI, MVAPICH, ...     32-bit numbers              their common ABI (mpich.org/abi)
 *   standard    libmpi_abi of MPICH 5, Intel MPI, ...       small numbers as pointers   MPI 5.0, chapter 20
 *
 * A handle is passed as an intptr_t: who wants 32 bits reads the lower half of the register. What MPI writes a handle to is a
 * zeroed slot of 8 bytes. A status is never read, for where its fields lie differs too; what it would say travels in messages.
 */
#ifndef PYCOMM_MPI_LIBRARY_H
#define PYCOMM_MPI_LIBRARY_H

#include "../csrc/transport.h"

typedef intptr_t mpi_handle;
enum { MPI_STATUS_ROOM = 64 }; /* bytes: no library's status is longer than 32 */

typedef int mpi_copy_fn(mpi_handle comm, int keyval, void *extra, void *in, void *out, int *flag);
typedef int mpi_delete_fn(mpi_handle comm, int keyval, void *value, void *extra);

struct mpi_library {
    /* Constants. A datatype or reduction that the library lacks is 0. */
    mpi_handle comm_world, comm_self, byte, errors_return;
    mpi_handle dtypes[PCM_NDTYPES], ops[PCM_NOPS];
    void *in_place;
    int any_source, tag_ub, thread_multiple;

    /* Functions, under their profiling names: what pycomm sends is not the program's traffic. */
    mpi_handle (*comm_f2c)(int comm); /* NULL: a communicator has the same number in Fortran */
    int (*initialized)(int *flag);
    int (*finalized)(int *flag);
    int (*query_thread)(int *level);
    int (*get_library_version)(char *text, int *length);
    int (*error_string)(int code, char *text, int *length);
    int (*type_size)(mpi_handle type, int *size);
    int (*comm_test_inter)(mpi_handle comm, int *flag);
    int (*comm_rank)(mpi_handle comm, int *rank);
    int (*comm_size)(mpi_handle comm, int *size);
    int (*comm_dup)(mpi_handle comm, mpi_handle *copy);
    int (*comm_free)(mpi_handle *comm);
    int (*comm_group)(mpi_handle comm, mpi_handle *group);
    int (*comm_create_group)(mpi_handle comm, mpi_handle group, int tag, mpi_handle *part);
    int (*group_incl)(mpi_handle group, int n, const int *ranks, mpi_handle *part);
    int (*group_free)(mpi_handle *group);
    int (*comm_set_errhandler)(mpi_handle comm, mpi_handle handler);
    int (*comm_create_keyval)(mpi_copy_fn *copy, mpi_delete_fn *drop, int *keyval, void *extra);
    int (*comm_free_keyval)(int *keyval);
    int (*comm_set_attr)(mpi_handle comm, int keyval, void *value);
    int (*comm_get_attr)(mpi_handle comm, int keyval, void *value, int *flag);
    int (*comm_delete_attr)(mpi_handle comm, int keyval);
    int (*isend)(const void *from, int count, mpi_handle type, int to, int tag, mpi_handle comm, mpi_handle *request);
    int (*irecv)(void *to, int count, mpi_handle type, int from, int tag, mpi_handle comm, mpi_handle *request);
    int (*test)(mpi_handle *request, int *flag, void *status);
    int (*cancel)(mpi_handle *request);
    int (*allgather)(const void *in, int n, mpi_handle type, void *out, int m, mpi_handle other, mpi_handle comm);

    /* Collectives that return at once. */
    int (*ibarrier)(mpi_handle comm, mpi_handle *request);
    int (*ibcast)(void *buffer, int n, mpi_handle type, int root, mpi_handle comm, mpi_handle *request);
    int (*iallreduce)(const void *in, void *out, int n, mpi_handle type, mpi_handle op, mpi_handle comm,
                      mpi_handle *request);
    int (*ireduce)(const void *in, void *out, int n, mpi_handle type, mpi_handle op, int root, mpi_handle comm,
                   mpi_handle *request);
    int (*ireduce_scatter_block)(const void *in, void *out, int n, mpi_handle type, mpi_handle op, mpi_handle comm,
                                 mpi_handle *request);
    int (*iallgather)(const void *in, int n, mpi_handle type, void *out, int m, mpi_handle other, mpi_handle comm,
                      mpi_handle *request);
    int (*ialltoall)(const void *in, int n, mpi_handle type, void *out, int m, mpi_handle other, mpi_handle comm,
                     mpi_handle *request);
    int (*igather)(const void *in, int n, mpi_handle type, void *out, int m, mpi_handle other, int root,
                   mpi_handle comm, mpi_handle *request);
    int (*iscatter)(const void *in, int n, mpi_handle type, void *out, int m, mpi_handle other, int root,
                    mpi_handle comm, mpi_handle *request);
    int (*iscan)(const void *in, void *out, int n, mpi_handle type, mpi_handle op, mpi_handle comm,
                 mpi_handle *request);
    int (*iexscan)(const void *in, void *out, int n, mpi_handle type, mpi_handle op, mpi_handle comm,
                   mpi_handle *request);
};

/* The library that this process has loaded and initialized; NULL (and pcm_fail) if there is none, or it was finalized. */
const struct mpi_library *mpi_library(void);
/* Another function of it, or NULL. */
void *mpi_function(const char *name);

#endif
