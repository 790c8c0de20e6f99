/* mpi_native.c: collectives that MPI runs itself, in the form that returns at once, so that deadlines and signals are heard. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "mpi_channel.h"

struct mpi_call {
    struct mpi_call *next; /* under way on the endpoint */
    mpi_handle request;
};

static struct mpi_endpoint *of(struct pcm_endpoint *endpoint) { return (struct mpi_endpoint *)endpoint; }

/* MPI has no AVG; and knows MIN and MAX of no complex, LAND of no floating-point numbers, BAND of integers alone. */
static bool reduces(const struct mpi_library *mpi, const struct pcm_call *call)
{
    bool integer = call->dtype >= PCM_INT8 && call->dtype <= PCM_UINT64, logical = call->dtype == PCM_BOOL;
    bool complex = call->dtype == PCM_COMPLEX64 || call->dtype == PCM_COMPLEX128;
    if (!mpi->ops[call->op]) return false;
    switch (call->op) {
    case PCM_SUM:
    case PCM_PROD: return !logical;
    case PCM_MIN:
    case PCM_MAX: return !logical && !complex;
    case PCM_LAND:
    case PCM_LOR:
    case PCM_LXOR: return integer || logical;
    default: return integer;
    }
}

bool mpi_offers(struct pcm_endpoint *endpoint, const struct pcm_call *call)
{
    const struct mpi_endpoint *e = of(endpoint);
    const struct mpi_binding *b = e->binding;
    const struct pcm_world_config *config = pcm_world_get_config(endpoint->world);
    if (e->dead || b->size != config->size || b->rank != config->rank || call->count > INT_MAX) return false;
    if (call->collective == PCM_BARRIER) return true;
    if (!b->mpi->dtypes[call->dtype]) return false;
    switch (call->collective) {
    case PCM_ALLREDUCE:
    case PCM_REDUCE:
    case PCM_REDUCE_SCATTER: return reduces(b->mpi, call);
    case PCM_BROADCAST:
    case PCM_ALLGATHER:
    case PCM_ALLTOALL: return true;
    default: return false;
    }
}

static int start(const struct mpi_binding *b, const struct pcm_call *call, mpi_handle *request)
{
    const struct mpi_library *mpi = b->mpi;
    mpi_handle type = mpi->dtypes[call->dtype], op = mpi->ops[call->op], comm = b->comm;
    const void *in = call->in == call->out ? mpi->in_place : call->in;
    int n = (int)call->count;
    switch (call->collective) {
    case PCM_ALLREDUCE: return mpi->iallreduce(in, call->out, n, type, op, comm, request);
    case PCM_REDUCE:
        if (b->rank != call->root) in = call->in;
        return mpi->ireduce(in, call->out, n, type, op, call->root, comm, request);
    case PCM_REDUCE_SCATTER: return mpi->ireduce_scatter_block(in, call->out, n, type, op, comm, request);
    case PCM_BROADCAST: return mpi->ibcast(call->out, n, type, call->root, comm, request);
    case PCM_ALLGATHER: return mpi->iallgather(in, n, type, call->out, n, type, comm, request);
    case PCM_ALLTOALL: return mpi->ialltoall(in, n, type, call->out, n, type, comm, request);
    default: return mpi->ibarrier(comm, request);
    }
}

static int failed(struct mpi_endpoint *e, int code)
{
    char text[1024] = "";
    int length = sizeof text;
    e->binding->mpi->error_string(code, text, &length);
    e->binding->broken = true;
    return pcm_fail(PCM_ERR_SYSTEM, -1, "MPI could not run a collective: %.300s", text);
}

void *mpi_launch(struct pcm_endpoint *endpoint, const struct pcm_call *call)
{
    struct mpi_endpoint *e = of(endpoint);
    if (e->dead) return pcm_fail(PCM_ERR_ABORTED, -1, "its MPI communicator was freed, or MPI finalized"), NULL;
    struct mpi_call *launched = calloc(1, sizeof *launched);
    if (!launched) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for a collective of MPI"), NULL;
    int code = start(e->binding, call, &launched->request);
    if (code) {
        free(launched);
        return failed(e, code), NULL;
    }
    launched->next = e->calls;
    return e->calls = launched;
}

int mpi_landed(struct pcm_endpoint *endpoint, void *launched)
{
    struct mpi_endpoint *e = of(endpoint);
    struct mpi_call *call = launched;
    _Alignas(16) unsigned char status[MPI_STATUS_ROOM];
    int flag = 0;
    if (e->dead) return pcm_fail(PCM_ERR_ABORTED, -1, "its MPI communicator was freed, or MPI finalized");
    int code = e->binding->mpi->test(&call->request, &flag, status);
    if (!code && !flag) return PCM_AGAIN;
    struct mpi_call **at = &e->calls;
    while (*at != call) at = &(*at)->next;
    *at = call->next;
    free(call);
    e->moved = true;
    return code ? failed(e, code) : PCM_OK;
}
