/* comm.c: communicators: their life, their failure, and the calls that start and wait for operations. */
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

static const double default_timeout = 300;

int pcm_comm_create(pcm_world *world, uint64_t id, const int32_t *ranks, int size, pcm_comm **out)
{
    if (!pcm_world_is_ours(world)) return pcm_world_refuse(world);
    int rank = -1;
    for (int r = 0; r < size; r++) {
        if (ranks[r] < 0 || ranks[r] >= world->config.size)
            return pcm_fail(PCM_ERR_ARGUMENT, ranks[r], "there is no rank %d in a world of %d", ranks[r],
                            world->config.size);
        if (ranks[r] == world->config.rank) rank = r;
    }
    if (rank < 0)
        return pcm_fail(PCM_ERR_ARGUMENT, world->config.rank, "rank %d is not in the communicator that it creates",
                        world->config.rank);
    pcm_comm *comm = calloc(1, sizeof *comm);
    if (comm) {
        comm->ranks = malloc((size_t)size * sizeof *comm->ranks);
        comm->channels = calloc((size_t)size, sizeof(struct pcm_channel *));
    }
    if (!comm || !comm->ranks || !comm->channels) {
        if (comm) free(comm->ranks), free(comm->channels);
        free(comm);
        return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for a communicator of %d ranks", size);
    }
    comm->world = world, comm->id = id, comm->rank = rank, comm->size = size;
    memcpy(comm->ranks, ranks, (size_t)size * sizeof *ranks);
    comm->active_tail = &comm->active;
    comm->timeout = default_timeout;
    pcm_world_enter(world);
    for (pcm_comm *other = world->comms, *next; other; other = next) {
        next = other->next;
        if (other->id != id) continue;
        if (other->leaving)
            pcm_comm_close(other);
        else {
            pcm_world_leave(world);
            free(comm->ranks), free(comm->channels), free(comm);
            return pcm_fail(PCM_ERR_ARGUMENT, -1, "a communicator with this id exists already");
        }
    }
    comm->next = world->comms;
    world->comms = comm;
    for (int r = 0; r < size; r++)
        if (world->peers[ranks[r]].lost) pcm_comm_lost(comm, (uint32_t)r);
    pcm_world_leave(world);
    *out = comm;
    return PCM_OK;
}

/* A user is done with a communicator; the last one of a freed one takes its memory along. */
static void let_go(pcm_comm *comm)
{
    if (--comm->users || !comm->freed) return;
    comm->world->held--;
    free(comm->channels), free(comm->ranks), free(comm);
}

/* Unlocks the world, of which what has just been let go may have been the last. */
static void unlock(pcm_world *world)
{
    bool last = world->destroyed && !world->held;
    pcm_world_leave(world);
    if (last) pcm_world_release(world);
}

static void dismiss(pcm_comm *comm)
{
    if (comm->party) comm->whole->ops->dismiss(comm->whole, comm->party);
    comm->party = NULL;
}

void pcm_comm_close(pcm_comm *comm)
{
    pcm_world *world = comm->world;
    dismiss(comm);
    pcm_comm **at = &world->comms;
    while (*at != comm) at = &(*at)->next;
    *at = comm->next;
    for (int r = 0; r < comm->size; r++)
        if (comm->channels[r]) comm->channels[r]->ops->close(comm->channels[r]);
    if (comm->untold) world->detached--;
    pcm_matcher_free(comm->matcher);
    pcm_plans_free(comm);
    if (world->aide) world->aide->forget(comm);
    for (struct pcm_request *r = comm->spares, *next; r; r = next) next = r->next, pcm_request_free(r);
    comm->freed = true;
    world->held++;
    comm->users++;
    let_go(comm);
}

void pcm_comm_free(pcm_comm *comm)
{
    if (!comm || !pcm_world_is_ours(comm->world)) return;
    pcm_world *world = comm->world;
    pcm_world_enter(world);
    if (comm->active) pcm_comm_fail(comm, PCM_ERR_ABORTED, comm->rank, "rank %d freed the communicator", comm->rank);
    dismiss(comm);
    if (comm->untold) /* closed now, its end would be what its peers hear, and not why */
        comm->leaving = true;
    else
        pcm_comm_close(comm);
    unlock(world);
}

int pcm_comm_rank(const pcm_comm *comm) { return comm->rank; }
int pcm_comm_size(const pcm_comm *comm) { return comm->size; }

uint64_t pcm_comm_calls(pcm_comm *comm)
{
    if (!pcm_world_is_ours(comm->world)) return comm->seq;
    pcm_world_enter(comm->world);
    uint64_t calls = comm->seq;
    pcm_world_leave(comm->world);
    return calls;
}

void pcm_comm_hold(pcm_comm *comm, int held)
{
    pcm_world *world = comm->world;
    if (!pcm_world_is_ours(world)) return;
    pcm_world_enter(world);
    world->drivers += held ? 1 : -1;
    if (!world->drivers && world->stopping) pthread_cond_broadcast(&world->parked);
    pcm_world_wake_thread(world);
    pcm_world_leave(world);
}

void pcm_comm_set_timeout(pcm_comm *comm, double seconds)
{
    if (!pcm_world_is_ours(comm->world)) return;
    pcm_world_enter(comm->world);
    comm->timeout = seconds > 0 ? seconds : default_timeout;
    pcm_world_leave(comm->world);
}

/* ---- failure ------------------------------------------------------------------------------------------- */

struct notice { /* on the wire, to the peers of a communicator */
    uint64_t comm;
    int32_t code, rank; /* why it has failed; PCM_AGAIN: it has not, and this is a question */
    union {
        char text[PCM_NOTICE - 16];
        struct pcm_head call; /* that `rank` waits in: is it yours too? */
    };
};
_Static_assert(sizeof(struct notice) == PCM_NOTICE, "a notice fills its frame");

void pcm_comm_tell(pcm_comm *comm)
{
    struct notice notice = {.comm = comm->id, .code = comm->error.code, .rank = comm->error.rank};
    snprintf(notice.text, sizeof notice.text, "%.*s", (int)sizeof notice.text - 1, comm->error.text);
    bool untold = false;
    for (int r = 0; r < comm->size; r++) {
        struct pcm_channel *channel = comm->channels[r];
        if (!channel || channel->told) continue;
        if (channel->state == PCM_CHANNEL_UP) channel->told = channel->ops->notice(channel, &notice, sizeof notice);
        untold |= channel->state <= PCM_CHANNEL_UP && !channel->told;
    }
    if (untold != comm->untold) comm->world->detached += untold ? 1 : -1;
    comm->untold = untold;
}

/* Opens channels to all that a failed call needs: they may wait for us, and would not hear of it. */
static void reach_out(pcm_comm *comm)
{
    for (const struct pcm_request *r = comm->active; r; r = r->next) {
        if (r->kind != PCM_REQUEST_COLLECTIVE) continue;
        const struct pcm_program *p = r->plan->program;
        uint32_t size = (uint32_t)comm->size, own = (uint32_t)comm->rank;
        for (uint32_t step = 1; r->launched && step < size;
             step += size > 3 ? size - 2 : 1) { /* the neighbours, who tell theirs */
            uint32_t peer = (own + step) % size;
            if (!comm->world->peers[comm->ranks[peer]].lost) pcm_comm_channel(comm, peer);
        }
        for (uint32_t i = 0; i < p->nmoves; i++) {
            uint32_t peer = p->moves[i].peer;
            if (p->moves[i].kind <= PCM_STEP_REDUCE_FROM && !comm->world->peers[comm->ranks[peer]].lost)
                pcm_comm_channel(comm, peer);
        }
    }
}

static void fail_with(pcm_comm *comm, const struct pcm_error *error)
{
    if (comm->error.code) return;
    comm->error = *error;
    for (int r = 0; r < comm->size; r++) /* what was lent is the callers' again when their calls end */
        if (comm->channels[r] && comm->channels[r]->ops->withdraw) comm->channels[r]->ops->withdraw(comm->channels[r]);
    reach_out(comm);
    pcm_comm_tell(comm);
    pcm_world_wake_thread(comm->world);
    while (comm->active) {
        comm->active->error = *error;
        pcm_request_finish(comm->active, error->code);
    }
}

void pcm_comm_fail(pcm_comm *comm, int code, int rank, const char *format, ...)
{
    struct pcm_error error = {.code = code, .rank = rank};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error.text, sizeof error.text, format, arguments);
    va_end(arguments);
    fail_with(comm, &error);
}

/* Seconds. Who has left may have done so because of an error, of which all hear within moments: from another rank, or from who
 * has started the job. Until then it is not blamed. */
static const double DOUBT = 0.2;

bool pcm_comm_lost(pcm_comm *comm, uint32_t peer)
{
    const struct pcm_channel *channel = comm->channels[peer];
    const struct pcm_peer *known = &comm->world->peers[comm->ranks[peer]];
    if (known->lost) {
        pcm_comm_fail(comm, PCM_ERR_PEER_LOST, (int)peer, "rank %u is lost: %s", peer, known->why);
        return true;
    }
    double now = pcm_now();
    if (comm->doubted == 0) comm->doubted = now;
    if (now < comm->doubted + DOUBT) return false;
    pcm_comm_fail(comm, PCM_ERR_PEER_LOST, (int)peer, "rank %u has left the communicator while it was needed: %s", peer,
                  channel ? channel->why : "closed");
    return true;
}

void pcm_comm_ask(const struct pcm_request *r, uint32_t peer)
{
    struct pcm_channel *channel = r->comm->channels[peer];
    struct notice notice = {.comm = r->comm->id, .code = PCM_AGAIN, .rank = r->comm->rank};
    notice.call = r->head;
    if (channel && channel->state == PCM_CHANNEL_UP) channel->ops->notice(channel, &notice, sizeof notice);
}

void pcm_comm_ask_neighbours(const struct pcm_request *r)
{
    uint32_t size = (uint32_t)r->comm->size, next = ((uint32_t)r->comm->rank + 1) % size,
             last = ((uint32_t)r->comm->rank + size - 1) % size;
    if (size > 1 && pcm_comm_channel(r->comm, next)) pcm_comm_ask(r, next);
    if (size > 2 && pcm_comm_channel(r->comm, last)) pcm_comm_ask(r, last);
}

/* A peer waits in a call: if ours under the same number is, or was, another one, it would wait for ever. */
static void compare(pcm_comm *comm, int peer, const struct pcm_head *theirs)
{
    const pcm_world *world = comm->world;
    uint64_t first = world->traced > PCM_TRACE ? world->traced - PCM_TRACE : 0;
    for (uint64_t i = first; i < world->traced; i++) {
        const struct pcm_record *ours = &world->trace[i % PCM_TRACE];
        if (ours->comm == comm->id && ours->head.seq == theirs->seq && memcmp(&ours->head, theirs, sizeof *theirs))
            return pcm_comm_differ(comm, peer, theirs, &ours->head);
    }
}

void pcm_world_on_notice(pcm_world *world, int peer, const void *bytes, size_t length)
{
    struct notice notice;
    if (length != sizeof notice) return;
    memcpy(&notice, bytes, sizeof notice);
    notice.text[sizeof notice.text - 1] = 0;
    for (pcm_comm *comm = world->comms; comm; comm = comm->next) {
        if (comm->id != notice.comm) continue;
        if (notice.code == PCM_AGAIN) return compare(comm, notice.rank, &notice.call);
        struct pcm_error error = {.code = notice.code, .rank = notice.rank};
        for (int r = 0; r < comm->size; r++) /* whoever disagrees with us names us, and we name it */
            if (error.code == PCM_ERR_MISMATCH && notice.rank == comm->rank && comm->ranks[r] == peer) error.rank = r;
        snprintf(error.text, sizeof error.text, "%s", notice.text);
        if (error.code == PCM_ERR_TIMEOUT || error.code == PCM_ERR_MISMATCH || error.code == PCM_ERR_PEER_LOST ||
            error.code == PCM_ERR_ABORTED)
            fail_with(comm, &error);
        else
            pcm_comm_fail(comm, PCM_ERR_ABORTED, notice.rank, "another rank failed: %s", notice.text);
        return;
    }
}

void pcm_comm_abort(pcm_comm *comm, const char *why)
{
    if (!pcm_world_is_ours(comm->world)) return;
    pcm_world_enter(comm->world);
    pcm_comm_fail(comm, PCM_ERR_ABORTED, comm->rank, "rank %d aborted the communicator: %s", comm->rank, why);
    pcm_world_leave(comm->world);
    pcm_reactor_ring(pcm_reactor_doorbell(comm->world->reactor));
}

int pcm_comm_muster(pcm_comm *comm)
{
    pcm_world *world = comm->world;
    if (!pcm_world_is_ours(world)) return pcm_world_refuse(world);
    if (comm->party) return PCM_OK;
    for (int i = 0; i < world->nendpoints && !comm->whole; i++)
        if (world->endpoints[i]->ops->muster) comm->whole = world->endpoints[i];
    if (!comm->whole)
        return pcm_fail(PCM_ERR_ARGUMENT, -1, "no transport of this communicator can run collectives whole");
    void *party = comm->whole->ops->muster(comm->whole, comm->ranks, comm->size);
    if (!party) return pcm_last_error()->code;
    pcm_world_enter(world);
    comm->party = party;
    pcm_world_leave(world);
    return PCM_OK;
}

void pcm_comm_dismiss(pcm_comm *comm)
{
    if (!pcm_world_is_ours(comm->world)) return;
    pcm_world_enter(comm->world);
    dismiss(comm);
    pcm_world_leave(comm->world);
}

bool pcm_comm_offload(const pcm_comm *comm, const struct pcm_call *call)
{
    return comm->party && !call->in_counts && !call->out_counts && comm->whole->ops->offers(comm->whole, call);
}

int pcm_comm_offers(pcm_comm *comm, const struct pcm_call *call)
{
    if (!pcm_world_is_ours(comm->world)) return false;
    pcm_world_enter(comm->world);
    bool offers = pcm_comm_offload(comm, call);
    pcm_world_leave(comm->world);
    return offers;
}

/* ---- calls ----------------------------------------------------------------------------------------------- */

static int report(const struct pcm_error *error) { return pcm_fail(error->code, error->rank, "%s", error->text); }

static bool overlap(const char *a, uint64_t na, const char *b, uint64_t nb) { return a < b + nb && b < a + na; }

static int check_buffers(const struct pcm_plan *plan, const struct pcm_call *call, const struct pcm_geometry *g)
{
    uint64_t in = g->in_end * plan->element, out = g->out_end * plan->element;
    if ((in && !call->in) || (out && !call->out))
        return pcm_fail(PCM_ERR_ARGUMENT, -1, "%s needs a buffer for its %s on this rank, and has none",
                        pcm_collective_name(call->collective), in && !call->in ? "input" : "output");
    if (call->in != call->out && call->in && call->out && overlap(call->in, in, call->out, out))
        return pcm_fail(PCM_ERR_ARGUMENT, -1,
                        "the input and the output overlap: give two buffers, or the same one (IN_PLACE)");
    return PCM_OK;
}

static int copy_counts(struct pcm_request *r)
{
    const struct pcm_schedule *s = r->plan->schedule;
    size_t in = s->in_blocks, out = s->out_blocks;
    uint64_t *at = r->counts = realloc(r->counts, (2 * (in + out) + s->passed_blocks) * sizeof *at);
    if (!at) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for the counts of a call");
    const uint64_t **fields[] = {&r->call.in_counts, &r->call.in_displs, &r->call.out_counts, &r->call.out_displs,
                                 &r->call.passed_counts};
    for (int i = 0; i < 5; i++) {
        size_t n = i < 2 ? in : i < 4 ? out : s->passed_blocks;
        if (!*fields[i]) continue;
        memcpy(at, *fields[i], n * sizeof *at);
        *fields[i] = at;
        at += n;
    }
    return PCM_OK;
}

/* A request that is yet to be described; NULL (and pcm_fail): out of memory. Under the lock. */
static struct pcm_request *take_request(pcm_comm *comm)
{
    struct pcm_request *r = comm->spares;
    if (r) {
        comm->spares = r->next, comm->nspares--;
        memset((void *)r, 0, offsetof(struct pcm_request, error));
        r->error.code = 0;
    } else if (!(r = calloc(1, sizeof *r))) {
        pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for a request");
        return NULL;
    }
    r->comm = comm;
    return r;
}

/* A request has ended: it, and what it has allocated, serves the next one. Many are kept that have little memory, of the
 * others one. Under the lock. */
static void give_request(struct pcm_request *r)
{
    enum { LITTLE = 64 * 1024 };
    pcm_comm *comm = r->comm;
    bool keeps = r->temps_room + r->staged_room > LITTLE ? !comm->nspares : comm->nspares < PCM_SPARES_MAX;
    if (comm->freed || !keeps) return pcm_request_free(r);
    r->next = comm->spares;
    comm->spares = r, comm->nspares++;
}

/* Prepares a request for a call. Under the lock. */
static int prepare(struct pcm_request *r, const struct pcm_call *call, bool keep_counts)
{
    pcm_comm *comm = r->comm;
    struct pcm_plan *plan = pcm_plan_find(comm, call);
    if (!plan) return PCM_NO_PLAN;
    r->kind = PCM_REQUEST_COLLECTIVE;
    r->plan = plan;
    r->call = *call;
    r->geometry = &plan->geometry;
    int rc;
    if (plan->uneven) {
        if (keep_counts && (rc = copy_counts(r))) return rc;
        if (r->own_geometry.in) pcm_geometry_free(&r->own_geometry);
        if ((rc = pcm_geometry_make(plan, &r->call, &r->own_geometry))) return rc;
        r->geometry = &r->own_geometry;
    }
    if ((rc = check_buffers(plan, call, r->geometry))) return rc;
    r->timeout = call->timeout > 0 ? call->timeout : comm->timeout;
    r->deadline = 0;
    r->head = (struct pcm_head){.seq = comm->seq,
                                .collective = call->collective,
                                .dtype = call->dtype,
                                .op = call->op,
                                .mark = plan->mark,
                                .root = call->root,
                                .count = plan->uneven ? PCM_UNEVEN : call->count};
    return PCM_OK;
}

static void activate(struct pcm_request *r)
{
    pcm_comm *comm = r->comm;
    atomic_store_explicit(&r->status, PCM_AGAIN, memory_order_relaxed);
    r->next = NULL;
    *comm->active_tail = r;
    comm->active_tail = &r->next;
    if (r->kind == PCM_REQUEST_COLLECTIVE) comm->collectives++;
}

static _Thread_local struct pcm_request *late;

void pcm_late_request(pcm_request **request)
{
    *request = late;
    late = NULL;
}

/* Lets the world's aide give a call its plan; PCM_NO_PLAN: there is none. Without the lock. */
static int plan_call(pcm_comm *comm, const struct pcm_call *call)
{
    struct pcm_aide *aide = comm->world->aide;
    return aide ? aide->plan(aide, comm, call) : PCM_NO_PLAN;
}

int pcm_run(pcm_comm *comm, const struct pcm_call *call, double patience)
{
    pcm_world *world = comm->world;
    if (!pcm_world_is_ours(world)) return pcm_world_refuse(world);
    pcm_world_enter(world);
    struct pcm_request *r = take_request(comm);
    if (!r) {
        pcm_world_leave(world);
        return PCM_ERR_SYSTEM;
    }
    comm->users++;
    late = NULL;
    int rc = comm->error.code ? report(&comm->error) : prepare(r, call, false);
    if (!rc) rc = pcm_collective_begin(r);
    if (!rc) {
        comm->seq++;
        activate(r);
        pcm_trace_begin(r);
        rc = pcm_request_drive(r, patience);
        if (rc == PCM_AGAIN) {
            late = r;
            r->owned = true; /* by the caller, from now on */
            world->detached++;
            pcm_world_wake_thread(world); /* the caller may take its time */
            pcm_world_leave(world);
            return rc;
        }
        pcm_trace_end(r, rc);
        if (rc) report(&r->error);
    }
    give_request(r);
    let_go(comm);
    unlock(world);
    if (rc == PCM_NO_PLAN && (rc = plan_call(comm, call)) == PCM_OK) return pcm_run(comm, call, patience);
    return rc;
}

/* The bytes of the longer of a request's buffers. */
static uint64_t bytes_of(const struct pcm_request *r)
{
    if (r->kind != PCM_REQUEST_COLLECTIVE) return r->bytes;
    const struct pcm_geometry *g = r->geometry;
    return (g->in_end > g->out_end ? g->in_end : g->out_end) * r->plan->element;
}

/* What takes longer than to wake a thread is left to it, if it has a processor of its own. */
enum { LONG = 256 * 1024 };

static int detach(struct pcm_request *r)
{
    pcm_world *world = r->comm->world;
    int rc = pcm_world_start_thread(world);
    if (rc) return rc;
    bool left = world->spare && !world->drivers && bytes_of(r) >= LONG;
    r->owned = true;
    r->comm->users++;
    activate(r);
    world->entries++;
    world->detached++;
    r->hasty = r->kind != PCM_REQUEST_COLLECTIVE && !left;
    world->hasty += r->hasty;
    if (r->kind != PCM_REQUEST_COLLECTIVE) pcm_p2p_begin(r);
    if (!left) pcm_comm_progress(r->comm); /* much is done by now, and then nobody need be woken */
    pcm_world_wake_thread(world);
    return PCM_OK;
}

int pcm_start(pcm_comm *comm, const struct pcm_call *call, pcm_request **out)
{
    pcm_world *world = comm->world;
    if (!pcm_world_is_ours(world)) return pcm_world_refuse(world);
    pcm_world_enter(world);
    struct pcm_request *r = take_request(comm);
    int rc = !r ? PCM_ERR_SYSTEM : comm->error.code ? report(&comm->error) : prepare(r, call, true);
    if (!rc) rc = pcm_collective_begin(r);
    if (!rc) {
        comm->seq++;
        pcm_trace_begin(r);
        rc = detach(r);
    }
    if (!rc)
        *out = r;
    else if (r)
        give_request(r);
    pcm_world_leave(world);
    if (rc == PCM_NO_PLAN && (rc = plan_call(comm, call)) == PCM_OK) return pcm_start(comm, call, out);
    return rc;
}

struct message { /* to be started */
    int kind;    /* enum pcm_request_kind */
    void *buffer;
    uint64_t bytes;
    int dtype, peer, tag;
    double timeout;
    bool synchronous;
    void **allocated;
};

/* Makes a request of a message, and the matcher if there is none. Under the lock. */
static int make_message(pcm_comm *comm, const struct message *m, struct pcm_request **out)
{
    int rc = comm->error.code ? report(&comm->error) : PCM_OK;
    if (!rc && !comm->matcher) rc = pcm_matcher_create(comm, &comm->matcher);
    if (rc) return rc;
    struct pcm_request *r = take_request(comm);
    if (!r) return PCM_ERR_SYSTEM;
    r->kind = m->kind, r->buffer = m->buffer, r->bytes = m->bytes, r->peer = m->peer, r->tag = m->tag;
    r->timeout = m->timeout > 0 ? m->timeout : comm->timeout;
    r->synchronous = m->synchronous, r->allocated = m->allocated;
    r->head = (struct pcm_head){
        .collective = PCM_POINT_TO_POINT, .dtype = (uint8_t)m->dtype, .root = m->tag, .bytes = m->bytes};
    *out = r;
    return PCM_OK;
}

static int check_message(const pcm_comm *comm, const struct message *m)
{
    bool receives = m->kind != PCM_REQUEST_SEND;
    if (!pcm_world_is_ours(comm->world)) return pcm_world_refuse(comm->world);
    if (m->peer >= comm->size || m->peer < (receives ? PCM_ANY_SOURCE : 0))
        return pcm_fail(PCM_ERR_ARGUMENT, m->peer, "there is no rank %d in a communicator of %d", m->peer, comm->size);
    if (m->tag < (receives ? PCM_ANY_TAG : 0))
        return pcm_fail(PCM_ERR_ARGUMENT, m->peer, "a tag must not be negative, and this one is %d", m->tag);
    return PCM_OK;
}

static int start_message(pcm_comm *comm, const struct message *m, pcm_request **out)
{
    struct pcm_request *r = NULL;
    int rc = check_message(comm, m);
    if (rc) return rc;
    pcm_world_enter(comm->world);
    rc = make_message(comm, m, &r);
    if (!rc) rc = detach(r);
    if (!rc)
        *out = r;
    else if (r)
        give_request(r);
    pcm_world_leave(comm->world);
    return rc;
}

int pcm_send_start(pcm_comm *comm, const void *buf, uint64_t bytes, int dtype, int dest, int tag, double timeout,
                   pcm_request **request)
{
    struct message m = {PCM_REQUEST_SEND, (void *)buf, bytes, dtype, dest, tag, timeout, false, NULL};
    return start_message(comm, &m, request);
}

int pcm_ssend_start(pcm_comm *comm, const void *buf, uint64_t bytes, int dtype, int dest, int tag, double timeout,
                    pcm_request **request)
{
    struct message m = {PCM_REQUEST_SEND, (void *)buf, bytes, dtype, dest, tag, timeout, true, NULL};
    return start_message(comm, &m, request);
}

int pcm_recv_start(pcm_comm *comm, void *buf, uint64_t capacity, int dtype, int source, int tag, double timeout,
                   pcm_request **request)
{
    struct message m = {PCM_REQUEST_RECV, buf, capacity, dtype, source, tag, timeout, false, NULL};
    return start_message(comm, &m, request);
}

int pcm_recv_any_start(pcm_comm *comm, void **buf, int source, int tag, double timeout, pcm_request **request)
{
    struct message m = {PCM_REQUEST_RECV, NULL, 0, 0, source, tag, timeout, false, buf};
    *buf = NULL;
    return start_message(comm, &m, request);
}

int pcm_probe_start(pcm_comm *comm, int source, int tag, double timeout, pcm_request **request)
{
    struct message m = {PCM_REQUEST_PROBE, NULL, 0, 0, source, tag, timeout, false, NULL};
    return start_message(comm, &m, request);
}

/* A look at the reactor by a caller that does not wait. Where data lie in memory only connections come through it, and now and
 * then is enough; but they must come, or who looks again and again would wait for ever. */
static void glance(pcm_world *world)
{
    enum { EVERY = 64 };
    if (!world->polled || world->glances++ % EVERY == 0) pcm_reactor_poll(world->reactor, 0);
}

int pcm_probe(pcm_comm *comm, int source, int tag, struct pcm_status_info *info, void **buf, double timeout,
              pcm_request **request)
{
    struct message m = {PCM_REQUEST_RECV, NULL, 0, 0, source, tag, timeout, false, buf};
    struct pcm_request *r = NULL;
    int rc = check_message(comm, &m);
    if (rc) return rc;
    pcm_world *world = comm->world;
    pcm_world_enter(world);
    rc = make_message(comm, &m, &r);
    if (!rc && pcm_p2p_reach(comm, source) && !pcm_p2p_look(comm, source, tag, info)) {
        glance(world);
        pcm_world_progress(world);
        pcm_comm_progress(comm); /* which the world leaves out where no request is active */
    }
    bool there = !rc && pcm_p2p_look(comm, source, tag, info);
    if (!rc && !there && source >= 0 && comm->channels[source] && comm->channels[source]->state == PCM_CHANNEL_LOST)
        pcm_comm_lost(comm, (uint32_t)source); /* else a program that asks again and again would never end */
    if (!rc && comm->error.code) rc = report(&comm->error);
    if (!rc && !there) rc = PCM_AGAIN;
    if (!rc && request) {
        *buf = NULL;
        r->peer = info->source, r->tag = info->tag;
        rc = detach(r);
        if (!rc) *request = r, r = NULL;
    }
    if (r) give_request(r);
    pcm_world_wake_thread(world);
    pcm_world_leave(world);
    return rc;
}

int pcm_cancel(pcm_request *r)
{
    if (!pcm_world_is_ours(r->comm->world)) return PCM_AGAIN;
    pcm_world_enter(r->comm->world);
    bool under_way = r->kind >= PCM_REQUEST_RECV && atomic_load(&r->status) == PCM_AGAIN;
    int rc = under_way && pcm_p2p_cancel(r) ? PCM_OK : PCM_AGAIN;
    pcm_world_leave(r->comm->world);
    return rc;
}

int pcm_wait(pcm_request *r, double seconds, struct pcm_status_info *status)
{
    pcm_comm *comm = r->comm;
    pcm_world *world = comm->world;
    if (!pcm_world_is_ours(world)) return pcm_world_refuse(world);
    pcm_world_enter(world); /* also for what is done: whoever did it may not have let go of the request yet */
    world->entries++;
    int rc = atomic_load(&r->status);
    if (rc == PCM_AGAIN) {
        if (seconds == 0) {
            glance(world);
            pcm_world_progress(world);
            pcm_world_wake_thread(world);
        } else {
            pcm_request_drive(r, seconds);
        }
        rc = atomic_load(&r->status);
    }
    if (rc == PCM_AGAIN) {
        pcm_world_leave(world);
        return rc;
    }
    if (status) *status = r->info;
    if (rc) report(&r->error);
    give_request(r);
    let_go(comm);
    unlock(world);
    return rc;
}
