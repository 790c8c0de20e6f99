/* plan.c: schedules as objects, the geometry of a call (where every chunk is), and each communicator's memory of plans. */
#include <stdlib.h>
#include <string.h>

#include "core.h"

/* ---- schedules ------------------------------------------------------------------------------------- */

enum { MOST_PIECES = 1 << 24 }; /* of a buffer: a call's geometry lists them all */

static int check(const struct pcm_schedule_desc *d)
{
    if (d->offload && (d->nsteps || d->nchunks))
        return pcm_fail(PCM_ERR_SCHEDULE, -1, "schedule %s is offloaded and must have no steps", d->name);
    if (!d->cut) return pcm_fail(PCM_ERR_SCHEDULE, -1, "schedule %s: cut must be at least 1", d->name);
    if ((uint64_t)d->in_blocks * d->cut > MOST_PIECES || (uint64_t)d->out_blocks * d->cut > MOST_PIECES ||
        (uint64_t)d->passed_blocks * d->cut > MOST_PIECES)
        return pcm_fail(PCM_ERR_SCHEDULE, -1, "schedule %s cuts a buffer into more than %d pieces", d->name,
                        MOST_PIECES);
    for (uint32_t i = 0; i < d->nsteps; i++) {
        const struct pcm_step *s = &d->steps[i];
        bool local = s->kind == PCM_STEP_COPY || s->kind == PCM_STEP_REDUCE;
        if (s->kind > PCM_STEP_REDUCE || s->chunk >= d->nchunks || (local && s->src >= d->nchunks))
            return pcm_fail(PCM_ERR_SCHEDULE, -1, "schedule %s: step %u has an unknown kind or chunk", d->name, i);
        if (!(s->flags & PCM_FLAG_MORE)) continue;
        if (i + 1 == d->nsteps || (s->flags & PCM_FLAG_END) || d->steps[i + 1].kind != s->kind ||
            d->steps[i + 1].peer != s->peer || local)
            return pcm_fail(PCM_ERR_SCHEDULE, -1, "schedule %s: the message of step %u does not go on with the next",
                            d->name, i);
    }
    if (d->nsteps && !(d->steps[d->nsteps - 1].flags & PCM_FLAG_END))
        return pcm_fail(PCM_ERR_SCHEDULE, -1, "schedule %s: the last step does not end a round", d->name);
    for (uint32_t c = 0; c < d->nchunks; c++) {
        bool placed = d->in_at[c] >= 0 || d->out_at[c] >= 0;
        if (d->in_at[c] >= (int64_t)d->in_blocks * d->cut || d->out_at[c] >= (int64_t)d->out_blocks * d->cut)
            return pcm_fail(PCM_ERR_SCHEDULE, -1, "schedule %s: chunk %u lies outside its buffer", d->name, c);
        uint32_t like = d->like[c];
        if (d->passed_at && (d->passed_at[c] >= (int64_t)d->passed_blocks * d->cut || (d->passed_at[c] >= 0 && placed)))
            return pcm_fail(PCM_ERR_SCHEDULE, -1, "schedule %s: chunk %u is of no block that is passed on", d->name, c);
        if (!placed && (like >= d->nchunks || (d->in_at[like] < 0 && d->out_at[like] < 0)))
            return pcm_fail(PCM_ERR_SCHEDULE, -1, "schedule %s: temporary chunk %u is like no placed chunk", d->name,
                            c);
    }
    return PCM_OK;
}

static void *copied(const void *from, size_t bytes)
{
    void *to = malloc(bytes ? bytes : 1);
    if (to && bytes) memcpy(to, from, bytes);
    return to;
}

int pcm_schedule_create(const struct pcm_schedule_desc *d, pcm_schedule **out)
{
    int rc = check(d);
    if (rc) return rc;
    struct pcm_schedule *s = calloc(1, sizeof *s);
    if (!s) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for schedule %s", d->name);
    strncpy(s->name, d->name ? d->name : "", sizeof s->name - 1);
    s->steps = copied(d->steps, d->nsteps * sizeof *d->steps);
    s->in_at = copied(d->in_at, d->nchunks * sizeof *d->in_at);
    s->out_at = copied(d->out_at, d->nchunks * sizeof *d->out_at);
    s->like = copied(d->like, d->nchunks * sizeof *d->like);
    s->passed_at = malloc((d->nchunks + 1) * sizeof *s->passed_at);
    s->nsteps = d->nsteps, s->nchunks = d->nchunks;
    s->offload = d->offload;
    s->in_blocks = d->in_blocks, s->out_blocks = d->out_blocks, s->passed_blocks = d->passed_blocks, s->cut = d->cut;
    atomic_init(&s->references, 1);
    if (!s->steps || !s->in_at || !s->out_at || !s->passed_at || !s->like) {
        pcm_schedule_release(s);
        return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for schedule %s", d->name);
    }
    for (uint32_t c = 0; c < d->nchunks; c++) s->passed_at[c] = d->passed_at ? d->passed_at[c] : -1;
    *out = s;
    return PCM_OK;
}

void pcm_schedule_release(pcm_schedule *s)
{
    if (!s || atomic_fetch_sub(&s->references, 1) > 1) return;
    for (int i = 0; i < PCM_LAYOUTS; i++) pcm_program_free(s->program[i]);
    free(s->steps), free(s->in_at), free(s->out_at), free(s->passed_at), free(s->like);
    free(s);
}

/* ---- geometry -------------------------------------------------------------------------------------- */

struct pcm_span pcm_piece(uint64_t length, uint64_t n, uint64_t i, uint32_t element)
{
    if (n == 1) return (struct pcm_span){0, length};
    uint64_t unit = length / n * element >= 4096 ? 64 / element : 1, units = length / unit;
    uint64_t each = units / n, longer = units % n;
    uint64_t begin = each * i + (i < longer ? i : longer), end = begin + each + (i < longer);
    begin *= unit;
    end = i + 1 == n ? length : end * unit; /* the last piece takes what is less than a unit */
    return (struct pcm_span){begin, end - begin};
}

/* What is copied or reduced is as long as what it goes to: only the lengths of a call can tell. */
static int check_local(const struct pcm_schedule *s, const struct pcm_geometry *g)
{
    for (uint32_t i = 0; i < s->nsteps; i++) {
        const struct pcm_step *step = &s->steps[i];
        bool local = step->kind == PCM_STEP_COPY || step->kind == PCM_STEP_REDUCE;
        if (local && g->length[step->src] < g->length[step->chunk])
            return pcm_fail(PCM_ERR_SCHEDULE, -1, "schedule %s: step %u fills chunk %u from chunk %u, which is shorter",
                            s->name, i, step->chunk, step->src);
    }
    return PCM_OK;
}

static void cut_buffer(struct pcm_span *spans, uint64_t *end, uint32_t blocks, uint32_t cut, uint64_t count,
                       const uint64_t *counts, const uint64_t *displs, uint32_t element)
{
    uint64_t offset = 0;
    *end = 0;
    for (uint32_t b = 0; b < blocks; b++) {
        uint64_t length = counts ? counts[b] : count, start = counts && displs ? displs[b] : offset;
        for (uint32_t j = 0; j < cut; j++) {
            struct pcm_span piece = pcm_piece(length, cut, j, element);
            spans[b * cut + j] = (struct pcm_span){start + piece.offset, piece.length};
        }
        offset += length;
        if (start + length > *end) *end = start + length;
    }
}

/* Gives each temporary a slot as long as the longest chunk that ever lives in it. */
static void place_temporaries(const struct pcm_plan *plan, struct pcm_geometry *g)
{
    const struct pcm_program *p = plan->program;
    memset(g->temp_at, 0, (p->ntemps + 1) * sizeof *g->temp_at);
    for (uint32_t i = 0; i < p->ntemp_pairs; i++) {
        uint64_t length = g->length[p->temp_chunks[i]], *slot = &g->temp_at[p->temp_slot[i]];
        if (length > *slot) *slot = length;
    }
    uint64_t end = 0;
    for (uint32_t t = 0; t <= p->ntemps; t++) {
        /* no piece is longer than the average plus what balancing in units of a cache line can add */
        uint64_t piece = plan->slices > 1 ? g->temp_at[t] / plan->slices + 2 * 64 : g->temp_at[t];
        g->temp_at[t] = end;
        end += (piece * plan->element + 127) / 64 * 64;
    }
}

/* Bytes of output from which on it is written past the caches: more will not be in a second-level cache when it is read. What is
 * written in place of input lies in some cache, as it has just been read, from where it would be driven out: up to 4 MiB that took 1.2 to
 * 1.8 times as long. */
enum { KEPT = 256 * 1024, KEPT_IN_PLACE = 8 * 1024 * 1024 };

int pcm_geometry_make(const struct pcm_plan *plan, const struct pcm_call *call, struct pcm_geometry *g)
{
    const struct pcm_schedule *s = plan->schedule;
    const struct pcm_program *p = plan->program;
    uint32_t nin = s->in_blocks * s->cut, nout = s->out_blocks * s->cut;
    if (plan->uneven && s->passed_blocks && !call->passed_counts)
        return pcm_fail(PCM_ERR_ARGUMENT, -1, "schedule %s passes on blocks whose lengths the call does not tell",
                        s->name);
    if (!g->in) {
        g->in = calloc(nin + 1, sizeof *g->in);
        g->out = calloc(nout + 1, sizeof *g->out);
        g->length = calloc(s->nchunks + 1, sizeof *g->length);
        g->temp_at = calloc(p->ntemps + 1, sizeof *g->temp_at);
        if (!g->in || !g->out || !g->length || !g->temp_at)
            return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for a call's geometry");
    }
    cut_buffer(g->in, &g->in_end, s->in_blocks, s->cut, call->count, call->in_counts, call->in_displs, plan->element);
    cut_buffer(g->out, &g->out_end, s->out_blocks, s->cut, call->count, call->out_counts, call->out_displs,
               plan->element);
    for (uint32_t c = 0; c < s->nchunks; c++) {
        uint32_t like = s->in_at[c] < 0 && s->out_at[c] < 0 ? s->like[c] : c;
        g->length[c] = s->in_at[like] >= 0 ? g->in[s->in_at[like]].length : g->out[s->out_at[like]].length;
        if (plan->uneven && s->passed_at[c] >= 0)
            g->length[c] = pcm_piece(call->passed_counts[(uint32_t)s->passed_at[c] / s->cut], s->cut,
                                     (uint32_t)s->passed_at[c] % s->cut, plan->element)
                               .length;
        if (s->in_at[c] >= 0 && s->out_at[c] >= 0 && g->in[s->in_at[c]].length != g->out[s->out_at[c]].length)
            return pcm_fail(
                PCM_ERR_ARGUMENT, -1, "the counts disagree: a block of %llu elements is to become one of %llu",
                (unsigned long long)g->in[s->in_at[c]].length, (unsigned long long)g->out[s->out_at[c]].length);
    }
    bool replaces = plan->layout != PCM_APART && g->in_end >= g->out_end;
    g->stream = g->out_end * plan->element >= (uint64_t)(replaces ? KEPT_IN_PLACE : KEPT) ? PCM_STREAM_DST : 0;
    place_temporaries(plan, g);
    return check_local(s, g);
}

void pcm_geometry_free(struct pcm_geometry *g)
{
    free(g->in), free(g->out), free(g->length), free(g->temp_at);
    *g = (struct pcm_geometry){0};
}

/* ---- plans ----------------------------------------------------------------------------------------- */

static bool in_place(const struct pcm_call *call) { return call->in == call->out; }

uint64_t pcm_call_step(const pcm_comm *comm, const struct pcm_call *call)
{
    const uint64_t *counts = call->collective == PCM_ALLGATHER        ? call->out_counts
                             : call->collective == PCM_REDUCE_SCATTER ? call->in_counts
                                                                      : NULL;
    uint64_t bytes = 0;
    for (int r = 0; counts && r < comm->size; r++) bytes += counts[r];
    bytes *= pcm_dtype_size(call->dtype);
    if (bytes > UINT64_MAX / 4) return 0; /* such counts are refused elsewhere */
    return bytes > 1 ? (uint64_t)1 << (64 - __builtin_clzll(bytes - 1)) : bytes;
}

static void make_key(const pcm_comm *comm, const struct pcm_call *call, uint64_t key[3])
{
    bool uneven = call->in_counts || call->out_counts;
    key[0] = (uint64_t)call->collective | (uint64_t)call->dtype << 8 | (uint64_t)call->op << 16 |
             (uint64_t)call->variant << 24 | (uint64_t)(uint32_t)call->root << 32;
    key[1] = uneven ? pcm_call_step(comm, call) : call->count;
    key[2] = (uint64_t)in_place(call) | (uint64_t)uneven << 1;
}

static bool same_key(const uint64_t a[3], const uint64_t b[3]) { return a[0] == b[0] && a[1] == b[1] && a[2] == b[2]; }

static unsigned bucket(const uint64_t key[3])
{
    uint64_t h = (key[0] ^ key[1] * 0x9e3779b97f4a7c15u ^ key[2] << 57) * 0xff51afd7ed558ccdu;
    return h >> 58;
}

static void unlink_age(pcm_comm *comm, struct pcm_plan *plan)
{
    *(plan->older ? &plan->older->newer : &comm->oldest) = plan->newer;
    *(plan->newer ? &plan->newer->older : &comm->newest) = plan->older;
}

static void link_newest(pcm_comm *comm, struct pcm_plan *plan)
{
    plan->newer = NULL, plan->older = comm->newest;
    *(comm->newest ? &comm->newest->newer : &comm->oldest) = plan;
    comm->newest = plan;
}

static void drop(pcm_comm *comm, struct pcm_plan *plan)
{
    struct pcm_plan **at = &comm->buckets[bucket(plan->key)];
    while (*at != plan) at = &(*at)->next;
    *at = plan->next;
    unlink_age(comm, plan);
    if (comm->last == plan) comm->last = NULL;
    comm->nplans--;
    pcm_geometry_free(&plan->geometry);
    pcm_schedule_release(plan->schedule);
    free(plan);
}

static bool in_use(const pcm_comm *comm, const struct pcm_plan *plan)
{
    for (const struct pcm_request *r = comm->active; r; r = r->next)
        if (r->plan == plan) return true;
    return false;
}

struct pcm_plan *pcm_plan_find(pcm_comm *comm, const struct pcm_call *call)
{
    uint64_t key[3];
    make_key(comm, call, key);
    if (comm->last && same_key(comm->last->key, key)) return comm->last;
    for (struct pcm_plan *plan = comm->buckets[bucket(key)]; plan; plan = plan->next)
        if (same_key(plan->key, key)) {
            if (comm->newest != plan) unlink_age(comm, plan), link_newest(comm, plan);
            return comm->last = plan;
        }
    return NULL;
}

bool pcm_reduces(int collective)
{
    switch (collective) {
    case PCM_ALLREDUCE:
    case PCM_REDUCE:
    case PCM_REDUCE_SCATTER:
    case PCM_SCAN:
    case PCM_EXSCAN:
    case PCM_BARRIER: return true;
    default: return false;
    }
}

/* The blocks that a call's buffers have at most on this rank: a schedule must not reach beyond them. */
static int check_blocks(const pcm_comm *comm, const struct pcm_call *call, const struct pcm_schedule *s)
{
    uint32_t size = (uint32_t)comm->size, at_root = call->root == comm->rank, in = 1, out = 1;
    switch (call->collective) {
    case PCM_REDUCE: out = at_root; break;
    case PCM_BROADCAST: in = at_root; break;
    case PCM_ALLGATHER: out = size; break;
    case PCM_REDUCE_SCATTER: in = size; break;
    case PCM_GATHER: out = at_root ? size : 0; break;
    case PCM_SCATTER: in = at_root ? size : 0; break;
    case PCM_ALLTOALL: in = out = size; break;
    default: break;
    }
    if (s->in_blocks <= in && s->out_blocks <= out) return PCM_OK;
    return pcm_fail(PCM_ERR_SCHEDULE, -1,
                    "schedule %s is for %u blocks of input and %u of output; %s has %u and %u here", s->name,
                    s->in_blocks, s->out_blocks, pcm_collective_name(call->collective), in, out);
}

static int check_steps(const pcm_comm *comm, const struct pcm_schedule *s, bool reduces)
{
    for (uint32_t i = 0; i < s->nsteps; i++) {
        const struct pcm_step *step = &s->steps[i];
        if (step->kind <= PCM_STEP_REDUCE_FROM &&
            (step->peer >= (uint32_t)comm->size || step->peer == (uint32_t)comm->rank))
            return pcm_fail(PCM_ERR_SCHEDULE, -1, "schedule %s: step %u of rank %d names rank %u of %d", s->name, i,
                            comm->rank, step->peer, comm->size);
        if (!reduces && (step->kind == PCM_STEP_REDUCE_FROM || step->kind == PCM_STEP_REDUCE))
            return pcm_fail(PCM_ERR_SCHEDULE, -1, "schedule %s: step %u reduces, in a collective that does not",
                            s->name, i);
    }
    return PCM_OK;
}

/* Folds what decides which messages a rank sends, but for the call itself, into 16 bits (FNV-1a). */
static uint16_t mark_of(const struct pcm_schedule *schedule, uint32_t slices, uint32_t window)
{
    uint32_t hash = 2166136261u;
    for (const char *c = schedule->name; *c; c++) hash = (hash ^ (unsigned char)*c) * 16777619u;
    hash = (hash ^ slices) * 16777619u;
    hash = (hash ^ window) * 16777619u;
    return (uint16_t)(hash ^ hash >> 16);
}

int pcm_comm_plan(pcm_comm *comm, const struct pcm_call *call, pcm_schedule *schedule, uint32_t slices, uint32_t window)
{
    uint32_t element = (uint32_t)pcm_dtype_size(call->dtype);
    if (!element) return pcm_fail(PCM_ERR_ARGUMENT, -1, "unknown dtype code %d", call->dtype);
    if (!slices || !window || window > PCM_OP_LANES)
        return pcm_fail(PCM_ERR_ARGUMENT, -1, "slices must be at least 1 and window 1 to %d, not %u and %u",
                        PCM_OP_LANES, slices, window);
    pcm_reduce_fn *reduce = NULL;
    if (pcm_reduces(call->collective)) {
        bool prefix = call->collective == PCM_SCAN || call->collective == PCM_EXSCAN;
        reduce = prefix && call->op == PCM_AVG ? NULL : pcm_reduce_kernel(call->dtype, call->op);
        if (!reduce)
            return pcm_fail(PCM_ERR_ARGUMENT, -1, "%s is not defined for %s", pcm_op_name(call->op),
                            prefix && call->op == PCM_AVG ? pcm_collective_name(call->collective)
                                                          : pcm_dtype_name(call->dtype));
    }
    int wrong = check_blocks(comm, call, schedule);
    if (!wrong) wrong = check_steps(comm, schedule, reduce);
    if (wrong) return wrong;
    if (!pcm_world_is_ours(comm->world)) return pcm_world_refuse(comm->world);
    pcm_world_enter(comm->world);
    bool offload = schedule->offload && pcm_comm_offload(comm, call);
    pcm_world_leave(comm->world);
    if (schedule->offload && !offload)
        return pcm_fail(PCM_ERR_ARGUMENT, -1, "no transport of this communicator can run %s(%s, %s) whole",
                        pcm_collective_name(call->collective), pcm_dtype_name(call->dtype), pcm_op_name(call->op));
    struct pcm_plan *plan = calloc(1, sizeof *plan);
    if (!plan) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for a plan");
    make_key(comm, call, plan->key);
    plan->schedule = schedule, plan->slices = slices, plan->window = window < slices ? window : slices;
    plan->element = element, plan->reduce = reduce, plan->mark = mark_of(schedule, slices, plan->window);
    plan->offload = offload;
    plan->uneven = call->in_counts || call->out_counts;
    plan->layout = in_place(call) ? PCM_ALIKE : PCM_APART;
    for (uint32_t c = 0; in_place(call) && c < schedule->nchunks; c++)
        if (schedule->in_at[c] >= 0 && schedule->out_at[c] < 0) plan->layout = PCM_MOVING;
    if (plan->layout == PCM_MOVING && plan->uneven) {
        free(plan);
        return pcm_fail(PCM_ERR_ARGUMENT, -1, "an uneven %s cannot run in place: give it two buffers",
                        pcm_collective_name(call->collective));
    }
    pcm_world_enter(comm->world);
    int rc = pcm_schedule_program(schedule, plan->layout, &plan->program);
    if (!rc && !plan->uneven) rc = pcm_geometry_make(plan, call, &plan->geometry);
    if (rc) {
        pcm_world_leave(comm->world);
        pcm_geometry_free(&plan->geometry);
        free(plan);
        return rc;
    }
    struct pcm_plan *known = pcm_plan_find(comm, call);
    if (known && !in_use(comm, known)) drop(comm, known);
    for (struct pcm_plan *old = comm->oldest, *newer; old && comm->nplans >= PCM_PLANS_MAX; old = newer) {
        newer = old->newer;
        if (!in_use(comm, old)) drop(comm, old);
    }
    atomic_fetch_add(&schedule->references, 1);
    unsigned at = bucket(plan->key);
    plan->next = comm->buckets[at];
    comm->buckets[at] = plan;
    link_newest(comm, plan);
    comm->nplans++;
    comm->last = plan;
    pcm_world_leave(comm->world);
    return PCM_OK;
}

void pcm_plans_free(pcm_comm *comm)
{
    while (comm->oldest) drop(comm, comm->oldest);
}
