/* executor.c: advances the slices of a collective through the rounds of its program, as far as the lanes allow.
 *
 * A slice under way is a run. Each run has a lane of its own to every peer, so that runs, and operations, overlap without
 * tags: on one lane the k-th message sent is the k-th received. Within a round every message advances when it can, fragment
 * by fragment; a run enters its next round when all of the last one is done.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

/* ---- where things are ---------------------------------------------------------------------------------- */

static inline struct pcm_span slice_of(const struct pcm_request *r, const struct pcm_run *run, uint32_t chunk)
{
    uint64_t length = r->geometry->length[chunk];
    return r->plan->slices == 1 ? (struct pcm_span){0, length}
                                : pcm_piece(length, r->plan->slices, run->slice, r->plan->element);
}

static inline char *address(const struct pcm_request *r, const struct pcm_run *run, struct pcm_ref ref,
                            struct pcm_span slice)
{
    const struct pcm_geometry *g = r->geometry;
    uint32_t element = r->plan->element;
    switch (ref.place) {
    case PCM_IN: return (char *)r->call.in + (g->in[ref.index].offset + slice.offset) * element;
    case PCM_STAGED: return (char *)r->staged + (g->in[ref.index].offset + slice.offset) * element;
    case PCM_OUT: return (char *)r->call.out + (g->out[ref.index].offset + slice.offset) * element;
    default: return run->temps + g->temp_at[ref.index];
    }
}

static uint64_t message_bytes(const struct pcm_request *r, const struct pcm_run *run, const struct pcm_move *m)
{
    uint64_t elements = 0;
    const struct pcm_part *parts = r->plan->program->parts + m->part;
    for (uint32_t k = 0; k < m->parts; k++) elements += slice_of(r, run, parts[k].chunk).length;
    return elements * r->plan->element;
}

struct stretch { /* where a run of a message's bytes lies: in one part of it */
    const struct pcm_part *part;
    struct pcm_span slice;
    uint64_t skip, bytes; /* of the part's bytes: how many come before, how many are meant */
};

/* The stretch that begins `*at` bytes into the parts from *part on; moves both on. Bytes must be left. */
static struct stretch next_stretch(const struct pcm_request *r, const struct pcm_run *run, const struct pcm_part **part,
                                   uint64_t *at, uint64_t left)
{
    for (;; ++*part) {
        struct pcm_span slice = slice_of(r, run, (*part)->chunk);
        uint64_t bytes = slice.length * r->plan->element;
        if (*at >= bytes) {
            *at -= bytes;
            continue;
        }
        uint64_t now = bytes - *at < left ? bytes - *at : left;
        struct stretch stretch = {*part, slice, *at, now};
        *at += now;
        return stretch;
    }
}

/* What goes in front of each fragment of a message. Where blocks differ in length, that of several together does not tell
 * whether two ranks mean the same ones: so their lengths are folded into the mark (FNV-1a). */
static struct pcm_head head_of(const struct pcm_request *r, const struct pcm_run *run, const struct pcm_move *m,
                               uint64_t total)
{
    struct pcm_head head = r->head;
    head.slice = run->slice, head.bytes = total;
    if (!r->plan->uneven || m->parts == 1) return head;
    uint64_t hash = 14695981039346656037u;
    const struct pcm_part *parts = r->plan->program->parts + m->part;
    for (uint32_t k = 0; k < m->parts; k++) hash = (hash ^ r->geometry->length[parts[k].chunk]) * 1099511628211u;
    head.mark ^= (uint16_t)(hash >> 48);
    return head;
}

/* ---- sending ----------------------------------------------------------------------------------------------- */

static void gather(const struct pcm_request *r, const struct pcm_run *run, const struct pcm_move *m, uint64_t at,
                   char *to, uint64_t n, bool streamed)
{
    const struct pcm_part *part = r->plan->program->parts + m->part;
    while (n > 0) {
        struct stretch s = next_stretch(r, run, &part, &at, n);
        const char *from = address(r, run, s.part->from, s.slice) + s.skip;
        if (s.part->to.place == PCM_NOWHERE)
            pcm_copy(to, NULL, from, s.bytes, streamed ? PCM_STREAM_DST : 0);
        else /* the chunk is wanted in the output too */
            pcm_copy(address(r, run, s.part->to, s.slice) + s.skip, to, from, s.bytes,
                     r->geometry->stream | (streamed ? PCM_STREAM_FWD : 0));
        to += s.bytes, n -= s.bytes;
    }
}

/* Lends the next stretch of a message, if that is long and in one piece; returns its length, or 0. */
static uint64_t lend(struct pcm_request *r, struct pcm_run *run, const struct pcm_move *m, struct pcm_cursor *cursor,
                     struct pcm_channel *channel, const struct pcm_head *head)
{
    if (head->bytes - cursor->bytes < PCM_LEND) return 0;
    const struct pcm_part *part = r->plan->program->parts + m->part;
    uint64_t at = cursor->bytes;
    struct stretch s = next_stretch(r, run, &part, &at, head->bytes - cursor->bytes);
    if (s.bytes < PCM_LEND) return 0;
    const char *from = address(r, run, s.part->from, s.slice) + s.skip;
    if (!channel->ops->lend(channel, run->lane, head, from, s.bytes, &cursor->ticket)) return 0;
    cursor->lent = true;
    if (s.part->to.place != PCM_NOWHERE)
        pcm_copy(address(r, run, s.part->to, s.slice) + s.skip, NULL, from, s.bytes, r->geometry->stream);
    return s.bytes;
}

static bool send_move(struct pcm_request *r, struct pcm_run *run, const struct pcm_move *m, struct pcm_cursor *cursor,
                      struct pcm_channel *channel)
{
    uint64_t total = message_bytes(r, run, m);
    bool moved = false;
    const struct pcm_head head = head_of(r, run, m, total);
    const int path = pcm_path_of(channel, &head);
    while (cursor->bytes < total || !(total || moved)) {
        if (channel->state != PCM_CHANNEL_UP) return moved;
        uint64_t n = path == PCM_LENT ? lend(r, run, m, cursor, channel, &head) : 0;
        if (!n) {
            size_t room;
            char *to = channel->ops->reserve(channel, run->lane, total - cursor->bytes, &room);
            if (!to) return moved;
            n = total - cursor->bytes < room ? total - cursor->bytes : room;
            if (n) gather(r, run, m, cursor->bytes, to, n, path == PCM_STREAMED);
            channel->ops->commit(channel, run->lane, &head, n);
        }
        cursor->bytes += n;
        moved = true;
    }
    cursor->done = !cursor->lent || channel->ops->returned(channel, run->lane, cursor->ticket);
    return moved || cursor->done;
}

/* ---- receiving ----------------------------------------------------------------------------------------------- */

void pcm_comm_differ(pcm_comm *comm, int peer, const struct pcm_head *theirs, const struct pcm_head *ours)
{
    char their_call[128], our_call[128];
    pcm_head_describe(theirs, their_call, sizeof their_call);
    pcm_head_describe(ours, our_call, sizeof our_call);
    if (theirs->seq != ours->seq || strcmp(their_call, our_call))
        pcm_comm_fail(comm, PCM_ERR_MISMATCH, peer,
                      "the ranks disagree: rank %d calls %s as operation %u of the communicator while rank %d calls %s "
                      "as operation %u",
                      peer, their_call, theirs->seq, comm->rank, our_call, ours->seq);
    else if (theirs->mark != ours->mark)
        pcm_comm_fail(
            comm, PCM_ERR_MISMATCH, peer,
            "the ranks disagree: in operation %u, %s, rank %d runs another algorithm than rank %d, or the same "
            "in other slices%s: give all ranks the same",
            ours->seq, our_call, peer, comm->rank, ours->count == PCM_UNEVEN ? " or with other counts" : "");
    else
        pcm_comm_fail(
            comm, PCM_ERR_MISMATCH, peer,
            "the ranks disagree: in operation %u, %s, rank %d sends slice %u in a message of %llu bytes where "
            "rank %d expects slice %u in %llu bytes: do all ranks give the same counts?",
            ours->seq, our_call, peer, theirs->slice, (unsigned long long)theirs->bytes, comm->rank, ours->slice,
            (unsigned long long)ours->bytes);
}

static struct pcm_head passed_head(const struct pcm_request *r, const struct pcm_run *run, uint64_t total)
{
    struct pcm_head head = r->head;
    head.slice = run->slice, head.bytes = total;
    return head;
}

struct pass { /* where a fragment that is received goes on at once, to the next peer; NULL: nowhere */
    char *to;
    int stream; /* PCM_STREAM_FWD, or 0 */
};

/* Room to pass a fragment on in the same breath, if there is any: else the send does it in its own round. */
static struct pass forward_room(struct pcm_request *r, struct pcm_run *run, const struct pcm_move *m, uint64_t at,
                                uint64_t total, size_t n)
{
    const struct pass nowhere = {0};
    if (m->forward < 0) return nowhere;
    const struct pcm_move *next = &r->plan->program->moves[m->forward];
    struct pcm_cursor *cursor = &run->cursors[m->forward];
    if (cursor->bytes != at || (m->forward_after >= 0 && !run->cursors[m->forward_after].done)) return nowhere;
    struct pcm_channel *channel = pcm_comm_channel(r->comm, next->peer);
    if (!channel || channel->state != PCM_CHANNEL_UP) return nowhere;
    size_t room;
    char *to = channel->ops->reserve(channel, run->lane, n, &room);
    if (!to || room < n) return nowhere;
    const struct pcm_head head = passed_head(r, run, total);
    return (struct pass){to, pcm_path_of(channel, &head) == PCM_STREAMED ? PCM_STREAM_FWD : 0};
}

static void forward(struct pcm_request *r, struct pcm_run *run, const struct pcm_move *m, uint64_t total, size_t n)
{
    const struct pcm_move *next = &r->plan->program->moves[m->forward];
    struct pcm_cursor *cursor = &run->cursors[m->forward];
    struct pcm_channel *channel = r->comm->channels[next->peer];
    const struct pcm_head head = passed_head(r, run, total);
    channel->ops->commit(channel, run->lane, &head, n);
    cursor->bytes += n;
    cursor->done = cursor->bytes == total;
}

static void combine(const struct pcm_request *r, const struct pcm_move *m, char *to, char *pass, const char *mine,
                    const char *incoming, uint64_t bytes, int stream)
{
    if (m->swap)
        r->plan->reduce(to, pass, incoming, mine, bytes / r->plan->element, stream);
    else
        r->plan->reduce(to, pass, mine, incoming, bytes / r->plan->element, stream);
}

static void scatter(struct pcm_request *r, struct pcm_run *run, const struct pcm_move *m, uint64_t at,
                    const char *payload, struct pass pass, uint64_t n)
{
    const struct pcm_part *part = r->plan->program->parts + m->part;
    bool last = m->final && (pass.to || m->forward < 0);
    int stream = (last ? r->geometry->stream : 0) | pass.stream;
    while (n > 0) {
        struct stretch s = next_stretch(r, run, &part, &at, n);
        char *to = address(r, run, s.part->to, s.slice) + s.skip;
        if (m->kind == PCM_STEP_RECV)
            pcm_copy(to, pass.to, payload, s.bytes, stream);
        else
            combine(r, m, to, pass.to, address(r, run, s.part->from, s.slice) + s.skip, payload, s.bytes, stream);
        payload += s.bytes, n -= s.bytes;
    }
}

enum { SIP = PCM_FRAGMENT }; /* bytes: what stays in a cache between being fetched and being reduced */

/* Takes some of a fragment that was lent, straight to where it belongs, or by way of a cache where it is reduced. Returns how
 * much, 0 if it cannot be had. */
static uint64_t take_loan(struct pcm_request *r, struct pcm_run *run, const struct pcm_move *m,
                          const struct pcm_cursor *cursor, struct pcm_channel *channel, uint64_t n)
{
    const struct pcm_part *part = r->plan->program->parts + m->part;
    uint64_t at = cursor->bytes, left = n - cursor->taken < PCM_GULP ? n - cursor->taken : PCM_GULP, done = 0;
    int stream = m->final && m->forward < 0 ? r->geometry->stream : 0;
    while (done < left) {
        struct stretch s =
            next_stretch(r, run, &part, &at, left - done < SIP || m->kind == PCM_STEP_RECV ? left - done : SIP);
        char *to = address(r, run, s.part->to, s.slice) + s.skip;
        char *incoming = m->kind == PCM_STEP_RECV ? to : r->comm->world->scratch;
        if (!channel->ops->fetch(channel, run->lane, incoming, cursor->taken + done, s.bytes)) return 0;
        if (incoming != to)
            combine(r, m, to, NULL, address(r, run, s.part->from, s.slice) + s.skip, incoming, s.bytes, stream);
        done += s.bytes;
    }
    return done;
}

static bool receive_move(struct pcm_request *r, struct pcm_run *run, const struct pcm_move *m,
                         struct pcm_cursor *cursor, struct pcm_channel *channel)
{
    uint64_t total = message_bytes(r, run, m);
    const struct pcm_head mine = head_of(r, run, m, total);
    bool moved = false;
    do {
        const void *payload;
        size_t n;
        const struct pcm_head *got = channel->ops->peek(channel, run->lane, &payload, &n);
        if (!got) return moved;
        if (memcmp(got, &mine, sizeof mine) || n - cursor->taken > total - cursor->bytes || n % r->plan->element) {
            pcm_comm_differ(r->comm, (int)m->peer, got, &mine);
            return true;
        }
        if (n && !payload) {
            uint64_t taken = take_loan(r, run, m, cursor, channel, n);
            cursor->bytes += taken, cursor->taken += taken;
            if (cursor->taken < n) return moved || taken;
            cursor->taken = n = 0;
        } else if (n) {
            struct pass pass = forward_room(r, run, m, cursor->bytes, total, n);
            scatter(r, run, m, cursor->bytes, payload, pass, n);
            if (pass.to) forward(r, run, m, total, n);
        }
        channel->ops->release(channel, run->lane);
        cursor->bytes += n;
        moved = true;
    } while (cursor->bytes < total);
    cursor->done = true;
    return moved;
}

/* ---- what is local -------------------------------------------------------------------------------------------- */

static void local_move(struct pcm_request *r, struct pcm_run *run, const struct pcm_move *m)
{
    const struct pcm_part *part = &r->plan->program->parts[m->part];
    struct pcm_span slice = slice_of(r, run, part->chunk);
    char *to = address(r, run, part->to, slice);
    const char *from = address(r, run, part->from, slice);
    uint64_t bytes = slice.length * r->plan->element;
    if (!bytes) return;
    if (m->kind == PCM_STEP_COPY)
        pcm_copy(to, NULL, from, bytes, m->final ? r->geometry->stream : 0);
    else
        combine(r, m, to, NULL, from, address(r, run, part->with, slice), bytes, 0);
}

/* ---- rounds, runs, requests -------------------------------------------------------------------------------------- */

/* What writes a move's chunks before it in the round is done. */
static bool may_write(const struct pcm_request *r, const struct pcm_run *run, const struct pcm_move *m)
{
    const struct pcm_part *parts = r->plan->program->parts + m->part;
    for (uint32_t i = 0; i < m->parts; i++)
        if (parts[i].after >= 0 && !run->cursors[parts[i].after].done) return false;
    return true;
}

static bool advance_move(struct pcm_request *r, struct pcm_run *run, uint32_t index)
{
    const struct pcm_move *m = &r->plan->program->moves[index];
    struct pcm_cursor *cursor = &run->cursors[index];
    if (m->waits && !may_write(r, run, m)) return false;
    if (m->kind == PCM_STEP_COPY || m->kind == PCM_STEP_REDUCE) {
        local_move(r, run, m);
        return cursor->done = true;
    }
    if (m->after >= 0 && !run->cursors[m->after].done) return false;
    struct pcm_channel *channel = pcm_comm_channel(r->comm, m->peer);
    if (!channel) return true; /* the communicator has failed, and the request with it */
    bool moved = false;
    if (m->kind == PCM_STEP_SEND)
        moved = channel->state != PCM_CHANNEL_CONNECTING && send_move(r, run, m, cursor, channel);
    else if (channel->state != PCM_CHANNEL_CONNECTING)
        moved = receive_move(r, run, m, cursor, channel);
    if (!moved && channel->state >= PCM_CHANNEL_CLOSED && !r->comm->error.code) return pcm_comm_lost(r->comm, m->peer);
    return moved;
}

static void enter_round(struct pcm_request *r, struct pcm_run *run, uint32_t round)
{
    const struct pcm_program *p = r->plan->program;
    run->round = round;
    run->begin = round ? p->round_end[round - 1] : 0;
    /* the next round's cursors are cleared one round early, because arrivals may be forwarded into it */
    uint32_t from = round ? p->round_end[round] : 0;
    uint32_t to = round + 1 < p->nrounds ? p->round_end[round + 1] : p->round_end[round];
    memset(run->cursors + from, 0, (to - from) * sizeof *run->cursors);
}

/* Slices must use their lanes in the same order on all ranks: slice i goes by lane i mod window. */
static bool next_slice(struct pcm_request *r, struct pcm_run *run)
{
    run->slice += r->window;
    run->done = run->slice >= r->plan->slices;
    if (run->done)
        r->live--;
    else
        enter_round(r, run, 0);
    return !run->done;
}

static bool advance_run(struct pcm_request *r, struct pcm_run *run)
{
    const struct pcm_program *p = r->plan->program;
    bool moved = false;
    for (;;) {
        bool all = true;
        uint32_t end = p->round_end[run->round];
        for (uint32_t i = run->begin; i < end; i++) {
            if (run->cursors[i].done) continue;
            moved |= advance_move(r, run, i);
            if (r->comm->error.code) return true;
            all &= run->cursors[i].done;
        }
        if (!all) return moved;
        moved = true;
        if (run->round + 1 < p->nrounds)
            enter_round(r, run, run->round + 1);
        else if (!next_slice(r, run))
            return true;
    }
}

static bool take_lanes(struct pcm_request *r)
{
    pcm_comm *comm = r->comm;
    for (uint32_t i = 0; i < r->window; i++)
        if (comm->lane_busy[(r->lane0 + i) % PCM_OP_LANES]) return false;
    for (uint32_t i = 0; i < r->window; i++) comm->lane_busy[(r->lane0 + i) % PCM_OP_LANES] = true;
    return true;
}

static void give_lanes(struct pcm_request *r)
{
    for (uint32_t i = 0; i < r->window; i++) r->comm->lane_busy[(r->lane0 + i) % PCM_OP_LANES] = false;
}

/* Grows *memory, 64-byte aligned, to at least `bytes`. */
static bool room_for(void **memory, size_t *room, size_t bytes)
{
    if (bytes <= *room) return true;
    free(*memory);
    *room = (bytes + 4095) / 4096 * 4096;
    *memory = aligned_alloc(64, *room);
    if (!*memory) *room = 0;
    return *memory != NULL;
}

static bool prescales(const struct pcm_request *r)
{
    const struct pcm_call *call = &r->call;
    return r->plan->reduce && call->op == PCM_AVG &&
           (call->dtype == PCM_FLOAT16 || call->dtype == PCM_FLOAT8_E4M3 || call->dtype == PCM_FLOAT8_E5M2);
}

/* Prepares the input: the sum of narrow floats overflows long before their average does, so they are divided first, the
 * others last; and what lies where other chunks will be written is moved out of the way. */
static void stage(struct pcm_request *r)
{
    const struct pcm_plan *plan = r->plan;
    const struct pcm_schedule *s = plan->schedule;
    uint64_t elements = r->geometry->in_end;
    if (prescales(r)) {
        void *scaled = plan->layout == PCM_ALIKE ? r->call.out : r->staged;
        pcm_divide(r->call.dtype, scaled, r->call.in, elements, (unsigned)r->comm->size);
        r->call.in = scaled;
        return;
    }
    for (uint32_t c = 0; plan->layout == PCM_MOVING && c < s->nchunks; c++) {
        if (pcm_chunk_start(s, plan->layout, c) != PCM_STAGED) continue;
        struct pcm_span span = r->geometry->in[s->in_at[c]];
        uint64_t offset = span.offset * plan->element;
        pcm_copy((char *)r->staged + offset, NULL, (const char *)r->call.in + offset, span.length * plan->element, 0);
    }
}

static bool room_for_stage(struct pcm_request *r)
{
    enum pcm_layout layout = r->plan->layout;
    bool needed = layout == PCM_MOVING || (layout == PCM_APART && prescales(r));
    return !needed || room_for(&r->staged, &r->staged_room, r->geometry->in_end * r->plan->element + 1);
}

static void postscale(struct pcm_request *r)
{
    if (r->call.op != PCM_AVG || !r->plan->reduce || !r->call.out || prescales(r)) return;
    pcm_divide(r->call.dtype, r->call.out, r->call.out, r->geometry->out_end, (unsigned)r->comm->size);
}

void pcm_collective_ask(const struct pcm_request *r)
{
    const struct pcm_program *p = r->plan->program;
    if (r->launched) return pcm_comm_ask_neighbours(r);
    for (uint32_t w = 0; w < r->window && !r->waiting; w++) {
        const struct pcm_run *run = &r->runs[w];
        for (uint32_t i = run->begin; !run->done && i < p->round_end[run->round]; i++)
            if (!run->cursors[i].done &&
                (p->moves[i].kind == PCM_STEP_RECV || p->moves[i].kind == PCM_STEP_REDUCE_FROM))
                pcm_comm_ask(r, p->moves[i].peer);
    }
}

int pcm_collective_begin(struct pcm_request *r)
{
    const struct pcm_plan *plan = r->plan;
    const struct pcm_program *p = plan->program;
    pcm_comm *comm = r->comm;
    size_t temps = r->geometry->temp_at[p->ntemps];
    if (!room_for((void **)&r->runs, &r->runs_room, plan->window * sizeof *r->runs) ||
        !room_for((void **)&r->cursors, &r->cursors_room, plan->window * p->nmoves * sizeof *r->cursors + 1) ||
        !room_for((void **)&r->temps, &r->temps_room, plan->window * temps + 1) || !room_for_stage(r))
        return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for a call of %s", plan->schedule->name);
    r->window = plan->window;
    r->live = p->nrounds ? r->window : 0;
    for (uint32_t w = 0; w < r->window; w++) {
        struct pcm_run *run = &r->runs[w];
        *run = (struct pcm_run){.slice = w,
                                .lane = (comm->lane_next + w) % PCM_OP_LANES,
                                .cursors = r->cursors + w * p->nmoves,
                                .temps = r->temps + w * temps};
        if (!p->nrounds) continue;
        memset(run->cursors, 0, p->round_end[0] * sizeof *run->cursors);
        enter_round(r, run, 0);
    }
    if (plan->offload) { /* at once: calls are launched in their order */
        r->launched = comm->whole->ops->launch(comm->whole, comm->party, &r->call);
        if (!r->launched) return pcm_last_error()->code;
    }
    r->lane0 = comm->lane_next;
    comm->lane_next = (comm->lane_next + r->window) % PCM_OP_LANES;
    r->waiting = true;
    return PCM_OK;
}

static bool land(struct pcm_request *r)
{
    struct pcm_endpoint *e = r->comm->whole;
    int status = e->ops->landed(e, r->launched);
    if (status == PCM_AGAIN) return false;
    r->launched = NULL;
    if (status)
        pcm_comm_fail(r->comm, status, pcm_last_error()->rank, "%s", pcm_last_error()->text);
    else
        pcm_request_finish(r, PCM_OK);
    return true;
}

bool pcm_collective_progress(struct pcm_request *r)
{
    bool moved = false;
    if (r->launched) return land(r);
    for (uint32_t w = 0; w < r->window && r->live; w++) {
        if (!r->runs[w].done) moved |= advance_run(r, &r->runs[w]);
        if (r->comm->error.code) return true;
    }
    if (r->live) return moved;
    postscale(r);
    pcm_request_finish(r, PCM_OK);
    return true;
}

bool pcm_comm_progress(pcm_comm *comm)
{
    bool moved = comm->matcher && pcm_p2p_progress(comm), blocked = false;
    if (!comm->collectives) return moved;
    for (struct pcm_request *r = comm->active, *next; r; r = next) {
        next = r->next;
        if (r->kind != PCM_REQUEST_COLLECTIVE) continue;
        if (r->waiting) {
            blocked = blocked || !take_lanes(r); /* lanes are taken in the order of the calls, on every rank */
            if (blocked) continue;
            r->waiting = false;
            stage(r); /* not where it is begun, by a caller that may have other things to do */
        }
        moved |= pcm_collective_progress(r);
        if (comm->error.code) return true;
    }
    return moved;
}

void pcm_request_finish(struct pcm_request *r, int status)
{
    pcm_comm *comm = r->comm;
    struct pcm_request **at = &comm->active;
    while (*at != r) at = &(*at)->next;
    *at = r->next;
    if (comm->active_tail == &r->next) comm->active_tail = at;
    if (r->kind == PCM_REQUEST_COLLECTIVE) {
        if (!r->waiting) give_lanes(r);
        comm->collectives--;
    } else if (!r->unlisted) {
        pcm_matcher_forget(comm, r);
    }
    if (r->owned) {
        pcm_trace_end(r, status);
        comm->world->detached--;
        comm->world->hasty -= r->hasty;
    }
    pcm_world_wake_waiters(comm->world);
    atomic_store_explicit(&r->status, status, memory_order_release);
}

void pcm_request_free(struct pcm_request *r)
{
    if (!r) return;
    pcm_geometry_free(&r->own_geometry);
    free(r->runs), free(r->cursors), free(r->temps), free(r->staged), free(r->counts);
    free(r);
}

/* ---- in words ------------------------------------------------------------------------------------------------------ */

static int describe_collective(const struct pcm_request *r, char *text, size_t capacity)
{
    char call[128];
    const struct pcm_program *p = r->plan->program;
    pcm_head_describe(&r->head, call, sizeof call);
    if (r->waiting) {
        snprintf(text, capacity, "%s, operation %u, waits for earlier operations of the communicator", call,
                 r->head.seq);
        return -1;
    }
    for (uint32_t w = 0; w < r->window && !r->launched; w++) {
        const struct pcm_run *run = &r->runs[w];
        for (uint32_t i = run->begin; !run->done && i < p->round_end[run->round]; i++) {
            const struct pcm_move *m = &p->moves[i];
            if (run->cursors[i].done) continue;
            bool sends = m->kind == PCM_STEP_SEND;
            const struct pcm_channel *channel = r->comm->channels[m->peer];
            bool connecting = !channel || channel->state == PCM_CHANNEL_CONNECTING;
            snprintf(
                text, capacity,
                "%s, operation %u (%s), waits in round %u of %u of slice %u of %u for rank %u%s: %llu of %llu bytes "
                "%s",
                call, r->head.seq, r->plan->schedule->name, run->round + 1, p->nrounds, run->slice + 1, r->plan->slices,
                m->peer, connecting ? ", which has not connected" : "", (unsigned long long)run->cursors[i].bytes,
                (unsigned long long)message_bytes(r, run, m), sends ? "could be sent" : "have arrived");
            return (int)m->peer;
        }
    }
    snprintf(text, capacity, "%s, operation %u%s", call, r->head.seq,
             r->launched ? ", waits in the transport's own collective" : "");
    return -1;
}

int pcm_request_describe(const struct pcm_request *r, char *text, size_t capacity)
{
    if (r->kind == PCM_REQUEST_COLLECTIVE) return describe_collective(r, text, capacity);
    bool sends = r->kind == PCM_REQUEST_SEND;
    char peer[32] = "any rank";
    if (r->peer >= 0) snprintf(peer, sizeof peer, "rank %d", r->peer);
    if (r->kind == PCM_REQUEST_PROBE) {
        snprintf(text, capacity, "a probe for a message from %s with tag %d waits", peer, r->tag);
        return r->peer;
    }
    snprintf(text, capacity, "a %s %s with tag %d waits: %llu of %llu bytes %s", sends ? "send to" : "receive from",
             peer, r->tag, (unsigned long long)r->moved, (unsigned long long)r->bytes,
             sends ? "could be sent" : "have arrived");
    return r->peer;
}
