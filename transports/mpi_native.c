/* mpi_native.c: collectives that MPI runs itself, in the form that returns at once, so that deadlines and signals are heard. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "mpi_channel.h"

struct mpi_party { /* some ranks, in some order: a communicator of MPI that has no other use */
    struct mpi_party *next; /* of the endpoint */
    mpi_handle comm;
    int rank;
    int calls; /* under way: MPI cannot free it before they have ended */
    bool freed; /* what is left is this memory */
};

struct mpi_call {
    struct mpi_call *next; /* under way on the endpoint */
    struct mpi_party *party;
    mpi_handle request;
    void *unused; /* an output that MPI wants, and the call has not: the first rank's of an exscan */
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

/* ---- parties ------------------------------------------------------------------------------------------------------------ */

static int make_communicator(const struct mpi_binding *b, const int *ranks, int size, mpi_handle *comm)
{
    const struct mpi_library *mpi = b->mpi;
    mpi_handle all = 0, some = 0;
    int code = mpi->comm_group(b->comm, &all);
    if (!code) code = mpi->group_incl(all, size, ranks, &some);
    if (!code) code = mpi->comm_create_group(b->comm, some, 0, comm);
    if (!code) code = mpi->comm_set_errhandler(*comm, mpi->errors_return);
    if (some) mpi->group_free(&some);
    if (all) mpi->group_free(&all);
    return code;
}

void *mpi_muster(struct pcm_endpoint *endpoint, const int32_t *ranks, int size)
{
    struct mpi_endpoint *e = of(endpoint);
    const struct mpi_binding *b = e->binding;
    const struct pcm_world_config *config = pcm_world_get_config(endpoint->world);
    if (e->dead || b->size != config->size || b->rank != config->rank)
        return pcm_fail(PCM_ERR_ARGUMENT, -1, "its MPI communicator was freed, or has other ranks"), NULL;
    struct mpi_party *party = calloc(1, sizeof *party);
    if (!party) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for an MPI communicator"), NULL;
    while (ranks[party->rank] != config->rank) party->rank++;
    int code = make_communicator(b, ranks, size, &party->comm);
    if (code) {
        mpi_refused(b->mpi, "MPI_Comm_create_group", code);
        free(party);
        return NULL;
    }
    pcm_world_enter(endpoint->world);
    party->next = e->parties;
    e->parties = party;
    pcm_world_leave(endpoint->world);
    return party;
}

static void free_communicator(struct mpi_endpoint *e, struct mpi_party *party)
{
    if (!party->freed && !party->calls && !e->binding->broken) e->binding->mpi->comm_free(&party->comm);
    party->freed = true;
}

void mpi_dismiss(struct pcm_endpoint *endpoint, void *dismissed)
{
    struct mpi_endpoint *e = of(endpoint);
    struct mpi_party *party = dismissed, **at = &e->parties;
    while (*at != party) at = &(*at)->next;
    *at = party->next;
    free_communicator(e, party);
    if (!party->calls) free(party); /* else somebody may still ask for the end of one */
}

void mpi_parties_end(struct mpi_endpoint *e)
{
    for (struct mpi_party *party = e->parties; party; party = party->next) free_communicator(e, party);
}

/* ---- calls -------------------------------------------------------------------------------------------------------------- */

bool mpi_offers(struct pcm_endpoint *endpoint, const struct pcm_call *call)
{
    const struct mpi_endpoint *e = of(endpoint);
    const struct mpi_binding *b = e->binding;
    if (e->dead || call->count > INT_MAX) return false;
    if (call->collective == PCM_BARRIER) return true;
    if (!b->mpi->dtypes[call->dtype]) return false;
    switch (call->collective) {
    case PCM_ALLREDUCE:
    case PCM_REDUCE:
    case PCM_SCAN:
    case PCM_EXSCAN:
    case PCM_REDUCE_SCATTER: return reduces(b->mpi, call);
    case PCM_BROADCAST:
    case PCM_GATHER:
    case PCM_SCATTER:
    case PCM_ALLGATHER:
    case PCM_ALLTOALL: return true;
    default: return false;
    }
}

static int start(const struct mpi_library *mpi, const struct pcm_call *call, struct mpi_call *launched)
{
    const struct mpi_party *party = launched->party;
    mpi_handle *request = &launched->request;
    mpi_handle type = mpi->dtypes[call->dtype], op = mpi->ops[call->op], comm = party->comm;
    const void *in = call->in == call->out ? mpi->in_place : call->in;
    int n = (int)call->count;
    switch (call->collective) {
    case PCM_ALLREDUCE: return mpi->iallreduce(in, call->out, n, type, op, comm, request);
    case PCM_REDUCE:
        if (party->rank != call->root) in = call->in;
        return mpi->ireduce(in, call->out, n, type, op, call->root, comm, request);
    case PCM_REDUCE_SCATTER: return mpi->ireduce_scatter_block(in, call->out, n, type, op, comm, request);
    case PCM_BROADCAST: return mpi->ibcast(call->out, n, type, call->root, comm, request);
    case PCM_ALLGATHER: return mpi->iallgather(in, n, type, call->out, n, type, comm, request);
    case PCM_ALLTOALL: return mpi->ialltoall(in, n, type, call->out, n, type, comm, request);
    case PCM_GATHER:
        if (party->rank != call->root) in = call->in;
        return mpi->igather(in, n, type, call->out, n, type, call->root, comm, request);
    case PCM_SCATTER: return mpi->iscatter(call->in, n, type, call->out, n, type, call->root, comm, request);
    case PCM_SCAN: return mpi->iscan(in, call->out, n, type, op, comm, request);
    case PCM_EXSCAN:
        if (!party->rank) in = call->in;
        return mpi->iexscan(in, party->rank ? call->out : launched->unused, n, type, op, comm, request);
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

void *mpi_launch(struct pcm_endpoint *endpoint, void *party, const struct pcm_call *call)
{
    struct mpi_endpoint *e = of(endpoint);
    if (e->dead) return pcm_fail(PCM_ERR_ABORTED, -1, "its MPI communicator was freed, or MPI finalized"), NULL;
    struct mpi_call *launched = calloc(1, sizeof *launched);
    if (launched) launched->party = party;
    bool alone = call->collective == PCM_EXSCAN && launched && !launched->party->rank;
    if (alone) launched->unused = malloc(call->count * pcm_dtype_size(call->dtype) + 1);
    if (!launched || (alone && !launched->unused)) {
        free(launched);
        return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for a collective of MPI"), NULL;
    }
    int code = start(e->binding->mpi, call, launched);
    if (code) {
        free(launched->unused), free(launched);
        return failed(e, code), NULL;
    }
    launched->party->calls++;
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
    call->party->calls--;
    free(call->unused), free(call);
    e->moved = true;
    return code ? failed(e, code) : PCM_OK;
}
