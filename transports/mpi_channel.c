/* mpi_channel.c: fragments, notes and hellos as messages of MPI; see mpi_channel.h. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpi_channel.h"

enum { LOOK_EVERY = 32, NUDGE = MPI_SLOTS / 2 };

static struct mpi_channel *of(struct pcm_channel *channel) { return (struct mpi_channel *)channel; }
static struct mpi_endpoint *endpoint_of(const struct mpi_channel *c) { return (struct mpi_endpoint *)c->base.endpoint; }
static const struct mpi_library *library_of(const struct mpi_channel *c) { return endpoint_of(c)->binding->mpi; }

/* Returns whether a call of MPI has succeeded; if not, the channel is of no more use. */
static bool worked(struct mpi_channel *c, int code)
{
    if (!code) return true;
    char text[1024] = "", why[128];
    int length = sizeof text;
    library_of(c)->error_string(code, text, &length);
    snprintf(why, sizeof why, "MPI says: %.100s", text);
    c->stuck = endpoint_of(c)->binding->broken = true;
    pcm_channel_fail(&c->base, PCM_CHANNEL_LOST, why);
    return false;
}

/* Looks whether an active request is done, and has it inactive then. */
static bool finish(struct mpi_channel *c, mpi_handle *request, bool *active)
{
    _Alignas(16) unsigned char status[MPI_STATUS_ROOM];
    int flag = 0;
    if (*active && worked(c, library_of(c)->test(request, &flag, status)) && flag) *active = false;
    return !*active;
}

static bool start_send(struct mpi_channel *c, const void *from, size_t bytes, int target, int number, int tag,
                       mpi_handle *request, bool *active)
{
    const struct mpi_binding *b = endpoint_of(c)->binding;
    *request = 0;
    if (!worked(c,
                b->mpi->isend(from, (int)bytes, b->mpi->byte, target, number * MPI_TAGS_EACH + tag, b->comm, request)))
        return false;
    *active = true;
    finish(c, request, active);
    return true;
}

static bool start_receive(struct mpi_channel *c, void *to, size_t bytes, int tag, mpi_handle *request)
{
    const struct mpi_binding *b = endpoint_of(c)->binding;
    *request = 0;
    return worked(c, b->mpi->irecv(to, (int)bytes, b->mpi->byte, c->target, c->in_number * MPI_TAGS_EACH + tag, b->comm,
                                   request));
}

/* Has the core know whether something that was committed has not left yet. */
static void tell_unsent(struct mpi_channel *c)
{
    bool unsent = c->owes_goodbye && c->out_number >= 0; /* notes and hellos leave at once: they are short */
    for (unsigned i = 0; i < PCM_LANES && !unsent; i++) unsent = c->lanes[i].sending;
    unsent &= !c->stuck;
    if (unsent != c->unsent) pcm_world_unsent(c->base.endpoint->world, unsent ? 1 : -1);
    c->unsent = unsent;
}

/* ---- notes ---------------------------------------------------------------------------------------------------------------- */

static void flush_note(struct mpi_channel *c)
{
    if (!(c->owes_credit || c->owes_notice || c->owes_goodbye) || c->out_number < 0 || c->stuck) return;
    if (!finish(c, &c->note_send, &c->note_sending)) return;
    struct mpi_note *note = &c->note_out;
    note->notice = note->notice_bytes = 0;
    if (c->owes_notice) {
        note->notice = ++c->notices_out, note->notice_bytes = c->notice_bytes;
        memcpy(note->text, c->notice, c->notice_bytes);
    }
    if (c->owes_goodbye) note->goodbye = 1, c->said_goodbye = true;
    for (unsigned i = 0; i < PCM_LANES; i++) {
        struct mpi_lane *l = &c->lanes[i];
        note->released[i] = l->told = l->released, note->sent[i] = l->sent;
    }
    c->owes_credit = c->owes_notice = c->owes_goodbye = false;
    start_send(c, note, offsetof(struct mpi_note, text) + note->notice_bytes, c->target, c->out_number, MPI_CONTROL,
               &c->note_send, &c->note_sending);
}

static void take_credit(struct mpi_channel *c, unsigned lane, uint32_t released)
{
    struct mpi_lane *l = &c->lanes[lane];
    uint32_t more = released - l->credited;
    if (more && more <= l->sent - l->credited)
        l->credited = released; /* an older count may come by later than a newer one */
}

static void read_note(struct mpi_channel *c)
{
    const struct mpi_note *note = &c->note_in;
    for (unsigned i = 0; i < PCM_LANES; i++) take_credit(c, i, note->released[i]);
    if (note->goodbye && !c->left) {
        c->left = true;
        memcpy(c->expected, note->sent, sizeof c->expected);
    }
    if (note->notice > c->notices_in && note->notice_bytes <= PCM_NOTICE) {
        c->notices_in = note->notice;
        if (!c->closed) pcm_world_on_notice(c->base.endpoint->world, c->base.peer, note->text, note->notice_bytes);
    }
}

static void receive_notes(struct mpi_channel *c)
{
    while (!c->stuck && !c->left) {
        if (!c->note_receiving)
            c->note_receiving = start_receive(c, &c->note_in, sizeof c->note_in, MPI_CONTROL, &c->note_receive);
        if (!c->note_receiving || !finish(c, &c->note_receive, &c->note_receiving)) return;
        endpoint_of(c)->moved = true;
        read_note(c);
    }
}

/* ---- receiving fragments -------------------------------------------------------------------------------------------------- */

static struct mpi_prefix *prefix_at(unsigned char *cells, uint32_t number)
{
    return (struct mpi_prefix *)(cells + (size_t)(number % MPI_SLOTS) * MPI_CELL + MPI_PREFIX_AT);
}

/* Posts receives for all room that a lane has. */
static void post(struct mpi_channel *c, unsigned lane)
{
    struct mpi_lane *l = &c->lanes[lane];
    if (!l->in && !(l->in = aligned_alloc(64, (size_t)MPI_SLOTS * MPI_CELL))) {
        pcm_channel_fail(&c->base, PCM_CHANNEL_LOST, "out of memory for fragments");
        return;
    }
    while (!c->stuck && l->posted - l->released < MPI_SLOTS &&
           (!c->left || (int32_t)(c->expected[lane] - l->posted) > 0)) {
        uint32_t slot = l->posted % MPI_SLOTS;
        if (!start_receive(c, prefix_at(l->in, slot), MPI_CELL - MPI_PREFIX_AT, (int)lane, &l->receives[slot])) return;
        l->receiving |= 1u << slot;
        l->posted++;
    }
}

/* Looks whether the lane's next fragment has arrived. */
static bool arrives(struct mpi_channel *c, unsigned lane)
{
    struct mpi_lane *l = &c->lanes[lane];
    if (l->arrived == l->posted || c->stuck) return false;
    uint32_t slot = l->arrived % MPI_SLOTS;
    bool active = true;
    if (!finish(c, &l->receives[slot], &active)) return false;
    l->receiving &= ~(1u << slot);
    const struct mpi_prefix *prefix = prefix_at(l->in, slot);
    if (prefix->bytes > MPI_PIECE) {
        c->stuck = true;
        pcm_channel_fail(&c->base, PCM_CHANNEL_LOST, "it sent a fragment that is longer than fragments are");
        return false;
    }
    take_credit(c, lane, prefix->released);
    l->arrived++;
    endpoint_of(c)->moved = true;
    return true;
}

/* The peer has left, or our core: takes in what comes nevertheless, where nobody peeks. */
static void collect(struct mpi_channel *c)
{
    bool all = true;
    for (unsigned i = 0; i < PCM_LANES; i++) {
        struct mpi_lane *l = &c->lanes[i];
        if (c->left && (int32_t)(c->expected[i] - l->posted) > 0) post(c, i);
        while (arrives(c, i))
            if (c->closed) {
                l->released = l->arrived;
                if (c->left) post(c, i);
            }
        all &= c->left && l->arrived == c->expected[i];
    }
    if (all && !c->closed) pcm_channel_fail(&c->base, PCM_CHANNEL_CLOSED, "it closed the connection");
}

/* ---- the slots ------------------------------------------------------------------------------------------------------------ */

const struct pcm_head *mpi_peek(struct pcm_channel *channel, unsigned lane, const void **payload, size_t *bytes)
{
    struct mpi_channel *c = of(channel);
    struct mpi_lane *l = &c->lanes[lane];
    if (endpoint_of(c)->dead) return NULL;
    if (l->arrived == l->released) {
        if (!l->in) post(c, lane);
        if (!arrives(c, lane)) {
            if (++c->idle % LOOK_EVERY == 0 || c->left) mpi_channel_progress(c);
            if (l->arrived == l->released) return NULL; /* unless it was among what has been collected */
        }
    }
    const struct mpi_prefix *prefix = prefix_at(l->in, l->released);
    *payload = prefix + 1, *bytes = prefix->bytes;
    return &prefix->head;
}

void mpi_release(struct pcm_channel *channel, unsigned lane)
{
    struct mpi_channel *c = of(channel);
    struct mpi_lane *l = &c->lanes[lane];
    l->released++;
    if (endpoint_of(c)->dead) return;
    post(c, lane);
    if (l->released - l->told >= NUDGE && !c->left) {
        c->owes_credit = true;
        flush_note(c);
        tell_unsent(c);
    }
}

void *mpi_reserve(struct pcm_channel *channel, unsigned lane, size_t want, size_t *room)
{
    (void)want;
    struct mpi_channel *c = of(channel);
    struct mpi_lane *l = &c->lanes[lane];
    if (channel->state != PCM_CHANNEL_UP) return NULL;
    if (l->sent - l->credited == MPI_SLOTS) {
        mpi_channel_progress(c);
        if (channel->state != PCM_CHANNEL_UP || l->sent - l->credited == MPI_SLOTS) return NULL;
    }
    if (!l->out && !(l->out = aligned_alloc(64, (size_t)MPI_SLOTS * MPI_CELL))) {
        pcm_channel_fail(channel, PCM_CHANNEL_LOST, "out of memory for fragments");
        return NULL;
    }
    uint32_t slot = l->sent % MPI_SLOTS;
    bool active = l->sending >> slot & 1;
    if (active && !finish(c, &l->sends[slot], &active)) return NULL; /* the peer has it, and MPI will soon notice */
    l->sending &= ~(1u << slot);
    *room = MPI_PIECE;
    return prefix_at(l->out, slot) + 1;
}

void mpi_commit(struct pcm_channel *channel, unsigned lane, const struct pcm_head *head, size_t bytes)
{
    struct mpi_channel *c = of(channel);
    struct mpi_lane *l = &c->lanes[lane];
    uint32_t slot = l->sent++ % MPI_SLOTS;
    struct mpi_prefix *prefix = prefix_at(l->out, slot);
    prefix->bytes = (uint32_t)bytes, prefix->released = l->told = l->released, prefix->head = *head;
    bool active = false;
    start_send(c, prefix, sizeof *prefix + bytes, c->target, c->out_number, (int)lane, &l->sends[slot], &active);
    if (!active) return;
    l->sending |= 1u << slot;
    tell_unsent(c);
}

bool mpi_notice(struct pcm_channel *channel, const void *bytes, size_t length)
{
    struct mpi_channel *c = of(channel);
    if (c->owes_notice) flush_note(c);
    if (c->owes_notice || channel->state != PCM_CHANNEL_UP) return false;
    memcpy(c->notice, bytes, length);
    c->notice_bytes = (uint32_t)length, c->owes_notice = true;
    flush_note(c);
    tell_unsent(c);
    return true;
}

/* ---- life ----------------------------------------------------------------------------------------------------------------- */

struct mpi_channel *mpi_channel_new(struct mpi_endpoint *e, int peer, uint64_t id, int target, int door)
{
    int number = mpi_number_take(e->binding);
    struct mpi_channel *c = number < 0 ? NULL : calloc(1, sizeof *c);
    if (!c) {
        if (number >= 0) mpi_number_give(e->binding, number);
        pcm_fail(PCM_ERR_SYSTEM, peer, "no memory, or no tag: MPI has tags for %d connections at once",
                 e->binding->most_numbers);
        return NULL;
    }
    *c = (struct mpi_channel){
        .base = {.ops = e->base.ops, .endpoint = &e->base, .peer = peer, .id = id, .state = PCM_CHANNEL_CONNECTING},
        .target = target,
        .door = door,
        .in_number = number,
        .out_number = -1,
        .owes_hello = true};
    c->hello = (struct mpi_hello){.id = id,
                                  .rank = pcm_world_get_config(e->base.world)->rank,
                                  .target = e->binding->rank,
                                  .door = e->number,
                                  .number = number};
    struct mpi_channel **at = &e->channels;
    while (*at) at = &(*at)->next;
    return *at = c;
}

void mpi_channel_progress(struct mpi_channel *c)
{
    c->idle = 0;
    if (c->stuck) return tell_unsent(c);
    if (c->owes_hello) {
        c->owes_hello = false;
        start_send(c, &c->hello, sizeof c->hello, c->target, c->door, MPI_DOOR, &c->hello_send, &c->hello_sending);
    }
    finish(c, &c->hello_send, &c->hello_sending);
    receive_notes(c);
    flush_note(c);
    finish(c, &c->note_send, &c->note_sending);
    for (unsigned i = 0; i < PCM_LANES; i++) {
        struct mpi_lane *l = &c->lanes[i];
        for (uint32_t slot = 0; slot < MPI_SLOTS && l->sending >> slot; slot++) {
            bool active = l->sending >> slot & 1;
            if (active && finish(c, &l->sends[slot], &active)) l->sending &= ~(1u << slot);
        }
    }
    if (c->left || c->closed) collect(c);
    tell_unsent(c);
}

bool mpi_channel_flushed(const struct mpi_channel *c)
{
    bool sending = c->hello_sending || c->note_sending;
    for (unsigned i = 0; i < PCM_LANES; i++) sending |= c->lanes[i].sending;
    return c->stuck || (c->said_goodbye && !sending);
}

bool mpi_channel_over(const struct mpi_channel *c)
{
    bool all = c->left && mpi_channel_flushed(c);
    for (unsigned i = 0; i < PCM_LANES && all; i++) all = c->lanes[i].arrived == c->expected[i];
    return all;
}

bool mpi_take_back(const struct mpi_library *mpi, mpi_handle *request)
{
    _Alignas(16) unsigned char status[MPI_STATUS_ROOM];
    int flag = 0;
    if (mpi->cancel(request)) return false;
    for (int turn = 0; turn < 100000 && !flag; turn++) {
        if (mpi->test(request, &flag, status)) return false;
        if (turn > 100) sched_yield();
    }
    return flag;
}

void mpi_channel_abandon(struct mpi_channel *c)
{
    const struct mpi_library *mpi = library_of(c);
    if (c->note_receiving && mpi_take_back(mpi, &c->note_receive)) c->note_receiving = false;
    for (unsigned i = 0; i < PCM_LANES; i++) {
        struct mpi_lane *l = &c->lanes[i];
        for (uint32_t slot = 0; slot < MPI_SLOTS; slot++)
            if (l->receiving >> slot & 1 && mpi_take_back(mpi, &l->receives[slot])) l->receiving &= ~(1u << slot);
    }
}

void mpi_channel_free(struct mpi_channel *c)
{
    const struct mpi_endpoint *e = endpoint_of(c);
    bool clean = mpi_channel_over(c);
    if (!e->dead && !c->stuck) mpi_channel_abandon(c);
    bool kept = c->note_receiving || c->hello_sending || c->note_sending; /* MPI may still write, or read, there */
    for (unsigned i = 0; i < PCM_LANES; i++) {
        struct mpi_lane *l = &c->lanes[i];
        kept |= l->receiving || l->sending;
        if (!l->receiving) free(l->in);
        if (!l->sending) free(l->out);
    }
    if (c->unsent) pcm_world_unsent(c->base.endpoint->world, -1);
    if (clean) mpi_number_give(e->binding, c->in_number); /* else something may still come under it */
    if (!kept) free(c);
}
