/* ring.c: see ring.h. */
#include <string.h>

#include "ring.h"

static struct ring_channel *of(struct pcm_channel *channel) { return (struct ring_channel *)channel; }

static struct ring_side *mine(struct ring_channel *c) { return &c->pair->sides[c->side]; }
static struct ring_side *theirs(struct ring_channel *c) { return &c->pair->sides[!c->side]; }

/* After a sequentially consistent store: either the peer saw it before it slept, or we see here that it sleeps. */
static void wake(struct ring_channel *c)
{
    if (atomic_load_explicit(&theirs(c)->asleep, memory_order_seq_cst) && c->doorbell >= 0) {
        atomic_store_explicit(&theirs(c)->asleep, 0, memory_order_relaxed);
        pcm_reactor_ring(c->doorbell);
    }
}

void *ring_reserve(struct pcm_channel *channel, unsigned lane, size_t want, size_t *room)
{
    struct ring_channel *c = of(channel);
    if (channel->state != PCM_CHANNEL_UP) return NULL;
    struct ring_lane *l = &c->pair->lanes[c->side][lane];
    if (c->sent[lane] - c->tail_seen[lane] == PCM_SLOTS) {
        c->tail_seen[lane] = atomic_load_explicit(&l->tail, memory_order_acquire);
        if (c->sent[lane] - c->tail_seen[lane] == PCM_SLOTS) {
            ring_read_signal(c);
            return NULL;
        }
    }
    struct ring_cell *cell = &l->cells[c->sent[lane] % PCM_SLOTS];
    *room = want <= RING_INLINE ? RING_INLINE : PCM_FRAGMENT;
    return want <= RING_INLINE ? cell->small : cell->payload;
}

void ring_commit(struct pcm_channel *channel, unsigned lane, const struct pcm_head *head, size_t bytes)
{
    struct ring_channel *c = of(channel);
    struct ring_cell *cell = &c->pair->lanes[c->side][lane].cells[c->sent[lane] % PCM_SLOTS];
    cell->bytes = (uint32_t)bytes;
    cell->head = *head;
    atomic_exchange_explicit(&cell->full, ++c->sent[lane], memory_order_seq_cst);
    wake(c);
}

const struct pcm_head *ring_peek(struct pcm_channel *channel, unsigned lane, const void **payload, size_t *bytes)
{
    struct ring_channel *c = of(channel);
    struct ring_cell *cell = &c->pair->lanes[!c->side][lane].cells[c->received[lane] % PCM_SLOTS];
    if (atomic_load_explicit(&cell->full, memory_order_acquire) != c->received[lane] + 1) {
        ring_read_signal(c);
        return NULL;
    }
    *bytes = cell->bytes;
    *payload = cell->bytes <= RING_INLINE ? cell->small : cell->payload;
    return &cell->head;
}

void ring_release(struct pcm_channel *channel, unsigned lane)
{
    struct ring_channel *c = of(channel);
    atomic_exchange_explicit(&c->pair->lanes[!c->side][lane].tail, ++c->received[lane], memory_order_seq_cst);
    wake(c);
}

bool ring_notice(struct pcm_channel *channel, const void *bytes, size_t length)
{
    struct ring_channel *c = of(channel);
    if (length > PCM_NOTICE || atomic_load(&theirs(c)->signal) & RING_MAIL) return false;
    memcpy(theirs(c)->mail, bytes, length);
    theirs(c)->mail_bytes = (uint32_t)length;
    atomic_fetch_or(&theirs(c)->signal, RING_MAIL);
    if (c->doorbell >= 0) pcm_reactor_ring(c->doorbell);
    return true;
}

void ring_leave(struct ring_channel *c)
{
    atomic_fetch_or(&theirs(c)->signal, RING_LEFT);
    if (c->doorbell >= 0) pcm_reactor_ring(c->doorbell);
}

static bool anything_left(struct ring_channel *c)
{
    for (unsigned lane = 0; lane < PCM_LANES; lane++) {
        struct ring_cell *cell = &c->pair->lanes[!c->side][lane].cells[c->received[lane] % PCM_SLOTS];
        if (atomic_load_explicit(&cell->full, memory_order_acquire) == c->received[lane] + 1) return true;
    }
    return false;
}

void ring_read_signal(struct ring_channel *c)
{
    uint32_t signal = atomic_load_explicit(&mine(c)->signal, memory_order_acquire);
    if (!signal) return;
    if (signal & RING_MAIL) {
        unsigned char mail[PCM_NOTICE];
        size_t bytes = mine(c)->mail_bytes;
        memcpy(mail, mine(c)->mail, bytes);
        atomic_fetch_and(&mine(c)->signal, ~(uint32_t)RING_MAIL);
        pcm_world_on_notice(c->base.endpoint->world, c->base.peer, mail, bytes);
    }
    if (signal & RING_LEFT && c->base.state == PCM_CHANNEL_UP && !anything_left(c))
        pcm_channel_fail(&c->base, PCM_CHANNEL_CLOSED, "it closed the communicator");
}

void ring_arm(struct ring_channel *c, bool asleep)
{
    atomic_exchange_explicit(&mine(c)->asleep, asleep, memory_order_seq_cst);
    ring_read_signal(c); /* this rank may wait for another peer, and look at none of this one's lanes */
}
