/* serve.c: a collective of MPI as a call of our core: whether it may be one, its buffers, its schedule. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "preload.h"

static const double TURN = 1e-3; /* seconds in our core before MPI gets a turn */

/* ---- running --------------------------------------------------------------------------------------------------------------- */

void serve_mpi(const struct group *group)
{
    _Alignas(16) unsigned char status[MPI_STATUS_ROOM];
    const struct mpi_library *mpi = preload_mpi();
    int flag;
    more.iprobe(mpi->any_source, 0, group->comm, &flag, status);
}

/* A peer may be in a call of MPI that ends only if we let MPI work, and come to this collective after it. */
int serve_wait(const struct group *group, pcm_request *request)
{
    int status;
    while ((status = pcm_wait(request, TURN, NULL)) == PCM_AGAIN) serve_mpi(group);
    return status;
}

static int attempt(struct group *g, struct pcm_call *call, pcm_request **request)
{
    return request ? pcm_start(g->core, call, request) : pcm_run(g->core, call, TURN);
}

int serve_call(struct group *g, struct pcm_call *call, uint64_t bytes, pcm_request **request)
{
    int status = attempt(g, call, request);
    if (status == PCM_NO_PLAN) {
        status = pcm_ways_plan(&adviser, g->machine, &g->ways, g->core, call, bytes);
        if (!status) status = attempt(g, call, request);
    }
    if (!request && status == PCM_AGAIN) {
        pcm_request *late = NULL;
        pcm_late_request(&late);
        serve_mpi(g);
        status = late ? serve_wait(g, late) : PCM_OK;
    }
    return status;
}

/* ---- buffers ---------------------------------------------------------------------------------------------------------------- */

static int64_t count_at(const struct side *side, int block)
{
    if (!side->counts) return side->count;
    return side->wide ? ((const int64_t *)side->counts)[block] : ((const int *)side->counts)[block];
}

/* In elements, from the buffer's begin. */
static int64_t displ_at(const struct side *side, int block)
{
    if (!side->counts) return block * side->count;
    if (!side->displs) { /* of MPI_Reduce_scatter: one after the other */
        int64_t sum = 0;
        for (int b = 0; b < block; b++) sum += count_at(side, b);
        return sum;
    }
    return side->wide ? ((const int64_t *)side->displs)[block] : ((const int *)side->displs)[block];
}

/* Packs blocks, or unpacks them; MPI takes less than 2 GiB at once. */
static int move(bool packs, const struct side *side, const struct type *t, int blocks, char *packed)
{
    int64_t most = t->size ? INT_MAX / (int64_t)t->size : INT_MAX;
    for (int b = 0; b < blocks; b++) {
        char *at = (char *)(uintptr_t)side->buffer + displ_at(side, b) * t->extent;
        for (int64_t left = count_at(side, b), n; left > 0; left -= n, at += n * t->extent) {
            n = left < most ? left : most;
            int position = 0, bytes = (int)(n * (int64_t)t->size);
            mpi_handle self = preload_mpi()->comm_self;
            int code = packs ? more.pack(at, (int)n, t->handle, packed, bytes, &position, self)
                             : more.unpack(packed, bytes, &position, at, (int)n, t->handle, self);
            if (code) return pcm_fail(PCM_ERR_SYSTEM, -1, "MPI cannot pack a datatype");
            packed += bytes;
        }
    }
    return PCM_OK;
}

static size_t bytes_of(const struct side *side, const struct type *t, int blocks)
{
    size_t sum = 0;
    for (int b = 0; b < blocks; b++) sum += (size_t)count_at(side, b) * t->size;
    return sum;
}

static int no_memory(void) { return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for a collective of MPI"); }

/* Where a side lies for our core: its address, in units of `unit` bytes its blocks. Packs it unless it is plain. */
static int lay(const struct side *side, const struct type *t, int blocks, size_t unit, bool filled, void **at,
               void **scratch, uint64_t *counts, uint64_t *displs)
{
    *at = (void *)(uintptr_t)side->buffer;
    if (!t->plain) {
        size_t bytes = bytes_of(side, t, blocks);
        *at = *scratch = malloc(bytes ? bytes : 1);
        if (!*at) return no_memory();
        int status = filled ? move(true, side, t, blocks, *at) : PCM_OK;
        if (status) return status;
    }
    for (uint64_t b = 0, sum = 0; counts && b < (uint64_t)blocks; b++) {
        counts[b] = (uint64_t)count_at(side, (int)b) * t->size / unit;
        displs[b] = t->plain ? (uint64_t)displ_at(side, (int)b) * t->size / unit : sum;
        sum += counts[b];
    }
    return PCM_OK;
}

void serve_unstage(struct staged *s, bool done)
{
    struct type type;
    if (done && s->back.buffer && preload_type(s->back.type, &type)) move(false, &s->back, &type, s->blocks, s->out);
    free(s->lists), free(s->in), free(s->out);
}

/* ---- a call ------------------------------------------------------------------------------------------------------------------- */

struct shape { /* what a collective's buffers are on this rank */
    bool reduces, rooted, one; /* one: all blocks are the whole */
    int in_blocks, out_blocks; /* 0: the buffer is not looked at */
};

static struct shape shape_of(const struct ask *ask, const struct group *g)
{
    bool root = ask->root == g->rank;
    int p = g->size;
    switch (ask->collective) {
    case PCM_ALLREDUCE:
    case PCM_SCAN:
    case PCM_EXSCAN: return (struct shape){true, false, true, 1, 1};
    case PCM_REDUCE: return (struct shape){true, true, true, 1, root};
    case PCM_BROADCAST: return (struct shape){false, true, true, 0, 1};
    case PCM_ALLGATHER: return (struct shape){false, false, false, 1, p};
    case PCM_REDUCE_SCATTER: return (struct shape){true, false, false, p, 1};
    case PCM_GATHER: return (struct shape){false, true, false, 1, root ? p : 0};
    case PCM_SCATTER: return (struct shape){false, true, false, root ? p : 0, 1};
    case PCM_ALLTOALL: return (struct shape){false, false, false, p, p};
    default: return (struct shape){.one = true};
    }
}

/* Does no harm where a program is wrong: MPI says what is. */
static bool fits(const struct side *side, int blocks)
{
    for (int b = 0; b < blocks; b++)
        if (count_at(side, b) < 0) return false;
    return true;
}

struct work {
    const struct ask *ask;
    struct shape shape;
    struct type in, out;
    struct staged staged;
    struct pcm_call call;
};

/* What stays where it is in the output, and our core wants apart from it. */
static int copy_in_place(struct work *w, int rank, size_t unit)
{
    bool scatters = w->ask->collective == PCM_SCATTER;
    size_t bytes = 0;
    if (scatters) {
        uint64_t most = w->call.out_counts ? w->call.out_counts[0] : w->call.count;
        w->call.out = w->staged.out = malloc((most ? most : 1) * unit);
        return w->call.out ? PCM_OK : no_memory();
    }
    const uint64_t *counts = w->call.in_counts, *displs = w->call.in_displs;
    int blocks = w->ask->collective == PCM_GATHER ? 1 : w->shape.in_blocks;
    (void)rank;
    for (int b = 0; b < blocks; b++)
        if ((displs[b] + counts[b]) * unit > bytes) bytes = (displs[b] + counts[b]) * unit;
    free(w->staged.in);
    void *copy = w->staged.in = malloc(bytes ? bytes : 1);
    if (!copy) return no_memory();
    for (int b = 0; b < blocks; b++)
        memcpy((char *)copy + displs[b] * unit, (const char *)w->call.out + displs[b] * unit, counts[b] * unit);
    w->call.in = copy;
    return PCM_OK;
}

static int prepare(struct work *w, const struct group *g, bool in_place, size_t unit)
{
    const struct ask *ask = w->ask;
    struct shape *s = &w->shape;
    uint64_t *lists[4] = {NULL};
    if (ask->uneven) {
        w->staged.lists = calloc(4 * (size_t)g->size, sizeof **lists);
        if (!w->staged.lists) return no_memory();
        for (int i = 0; i < 4; i++) lists[i] = w->staged.lists + (size_t)i * (size_t)g->size;
        w->call.in_counts = lists[0], w->call.in_displs = lists[1];
        w->call.out_counts = lists[2], w->call.out_displs = lists[3];
    }
    void *at = NULL;
    bool scattered = in_place && ask->collective == PCM_SCATTER;
    bool filled = in_place || (ask->collective == PCM_BROADCAST && ask->root == g->rank);
    if (s->out_blocks && !scattered) {
        int status = lay(&ask->out, &w->out, s->out_blocks, unit, filled, &at, &w->staged.out, lists[2], lists[3]);
        if (status) return status;
        if (!w->out.plain) w->staged.back = ask->out, w->staged.blocks = s->out_blocks;
        w->call.out = at;
    }
    if (s->in_blocks && (!in_place || scattered)) {
        int status = lay(&ask->in, &w->in, s->in_blocks, unit, true, &at, &w->staged.in, lists[0], lists[1]);
        if (status) return status;
        w->call.in = at;
    }
    if (ask->collective == PCM_BROADCAST) w->call.in = ask->root == g->rank ? w->call.out : NULL;
    if (!in_place) return PCM_OK;
    if (!scattered) w->call.in = w->call.out;
    if (!ask->uneven) return scattered ? copy_in_place(w, g->rank, unit) : PCM_OK;
    switch (ask->collective) {
    case PCM_ALLGATHER:
    case PCM_GATHER: lists[0][0] = lists[2][g->rank], lists[1][0] = lists[3][g->rank]; break;
    case PCM_SCATTER: lists[2][0] = lists[0][g->rank]; break;
    case PCM_REDUCE_SCATTER: /* the input is where the output is, and longer */
        for (int b = 0; b < g->size; b++) {
            lists[0][b] = (uint64_t)count_at(&ask->in, b);
            lists[1][b] = (uint64_t)displ_at(&ask->in, b);
        }
        break;
    default: memcpy(lists[0], lists[2], 2 * (size_t)g->size * sizeof **lists); /* counts, displacements */
    }
    return ask->collective == PCM_ALLGATHER ? PCM_OK : copy_in_place(w, g->rank, unit);
}

/* As with MPI's own errors, the program's handler is asked, which by default ends the program. */
static int failed(const struct group *g)
{
    fprintf(stderr, "pycomm: rank %d of %d: %s\n", g->rank, g->size, pcm_last_error()->text);
    int other = preload_mpi()->any_source == -1 ? 16 : 15; /* MPI_ERR_OTHER */
    more.call_errhandler(g->comm, other);
    return other;
}

/* On the way of what is passed on too: so what was just written is not copied, and work is filled only where it is needed. */
bool serve(struct ask *ask, mpi_handle *request, int *code)
{
    const struct mpi_library *mpi = preload_mpi();
    if (!mpi) return false;
    struct work w;
    w.ask = ask;
    int op = 0;
    ask->comm = preload_handle(ask->comm), ask->op = preload_handle(ask->op);
    ask->in.type = preload_handle(ask->in.type), ask->out.type = preload_handle(ask->out.type);
    if (ask->op) { /* a reduction, whose type is alike everywhere: types of one side only */
        if (!preload_type(ask->in.type, &w.in)) return false;
        op = preload_op(ask->op, &w.in);
        if (op < 0) return report_passed(ask->collective), false;
    }
    struct group *g = preload_group(ask->comm);
    if (!g || (request && !g->async)) return report_passed(ask->collective), false;
    struct shape *s = &w.shape;
    *s = shape_of(ask, g);
    if (ask->root < 0 || ask->root >= g->size) return false;
    bool in_place = (s->in_blocks && ask->in.buffer == mpi->in_place) ||
                    (ask->collective == PCM_SCATTER && ask->root == g->rank && ask->out.buffer == mpi->in_place);
    bool scattered = in_place && ask->collective == PCM_SCATTER;
    bool reads = s->in_blocks && (!in_place || scattered), writes = s->out_blocks && !scattered;
    if (s->reduces)
        w.out = w.in;
    else if ((reads && !preload_type(ask->in.type, &w.in)) || (writes && !preload_type(ask->out.type, &w.out)))
        return false;
    if ((reads && !fits(&ask->in, s->in_blocks)) || (writes && !fits(&ask->out, s->out_blocks))) return false;
    size_t unit = s->reduces ? w.in.size : 1;
    uint64_t bytes = 0, each = 0;
    if (!ask->uneven && ask->collective != PCM_BARRIER) { /* of a block, which all ranks know alike */
        each = reads ? (uint64_t)ask->in.count * w.in.size : (uint64_t)ask->out.count * w.out.size;
        bytes = each * (uint64_t)(s->one ? 1 : g->size);
        if (!each) return report_passed(ask->collective), false;
    }
    if (!ask->uneven && race_lost(g, ask->collective, bytes, request)) {
        if (!g->racing) report_passed(ask->collective);
        return false;
    }

    w.staged = (struct staged){NULL};
    w.call = (struct pcm_call){.collective = (uint8_t)ask->collective,
                               .dtype = s->reduces ? (uint8_t)w.in.dtype : PCM_UINT8,
                               .op = (uint8_t)op,
                               .root = s->rooted ? ask->root : 0,
                               .count = each / unit};
    bool reported = report_wanted() && !g->racing;
    double begun = reported ? pcm_now() : 0;
    pcm_request *started = NULL;
    int status = prepare(&w, g, in_place, unit);
    if (ask->collective == PCM_EXSCAN && !g->rank) w.call.out = NULL;
    if (!status) status = serve_call(g, &w.call, bytes, request ? &started : NULL);
    if (!status && request && !started_add(g, started, &w.staged, request)) status = PCM_ERR_SYSTEM;
    if (!request || status) serve_unstage(&w.staged, !status);
    *code = status ? failed(g) : 0;
    if (reported) report_served(ask->collective, bytes, pcm_now() - begun);
    return true;
}
