/* mpi.c: the functions of MPI behind those that we stand in front of. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "preload.h"

struct mpi_more more;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static const struct mpi_library *running;
static atomic_bool narrow; /* handles have 32 bits */

static void fill(void)
{
    const struct mpi_library *mpi = mpi_library();
    const struct {
        const char *name;
        void *slot;
    } all[] = {
        {"PMPI_Iprobe", &more.iprobe},
        {"PMPI_Type_get_envelope", &more.type_get_envelope},
        {"PMPI_Type_get_name", &more.type_get_name},
        {"PMPI_Type_get_extent", &more.type_get_extent},
        {"PMPI_Pack", &more.pack},
        {"PMPI_Unpack", &more.unpack},
        {"PMPI_Comm_call_errhandler", &more.call_errhandler},
        {"PMPI_Grequest_start", &more.grequest_start},
        {"PMPI_Grequest_complete", &more.grequest_complete},
        {"PMPI_Status_set_elements", &more.status_set_elements},
        {"PMPI_Status_set_cancelled", &more.status_set_cancelled},
        {"PMPI_Barrier", &more.barrier},
        {"PMPI_Bcast", &more.bcast},
        {"PMPI_Allreduce", &more.allreduce},
        {"PMPI_Reduce", &more.reduce},
        {"PMPI_Reduce_scatter_block", &more.reduce_scatter_block},
        {"PMPI_Alltoall", &more.alltoall},
        {"PMPI_Allgather", &more.allgather},
        {"PMPI_Gather", &more.gather},
        {"PMPI_Scatter", &more.scatter},
        {"PMPI_Scan", &more.scan},
        {"PMPI_Exscan", &more.exscan},
    };
    if (!mpi) return;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        void *function = mpi_function(all[i].name);
        if (!function) return;
        memcpy(all[i].slot, &function, sizeof function);
    }
    int a, b, c;
    if (more.type_get_envelope(mpi->byte, &a, &b, &c, &more.named)) return;
    atomic_store(&narrow, mpi->byte == 0x4c00010d);
    running = mpi;
}

const struct mpi_library *preload_mpi(void)
{
    /* A call before MPI_Init, which is the program's error, must not be what decides. */
    if (!running && !mpi_library()) return NULL;
    pthread_once(&once, fill);
    return running;
}

void *preload_function(const char *name)
{
    void *function = mpi_function(name);
    if (!function) function = dlsym(RTLD_NEXT, name);
    if (!function) {
        fprintf(stderr, "pycomm: the MPI of this program has no %s\n", name);
        abort();
    }
    return function;
}

mpi_handle preload_handle(mpi_handle given) { return atomic_load(&narrow) ? (int32_t)given : given; }

size_t preload_handle_bytes(void) { return atomic_load(&narrow) ? sizeof(int32_t) : sizeof(mpi_handle); }
