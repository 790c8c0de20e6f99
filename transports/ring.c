/* ring.c: see ring.h. */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "ring.h"

static struct ring_channel *of(struct pcm_channel *channel) { return (struct ring_channel *)channel; }

/* After a sequentially consistent store: either the peer saw it before it slept, or we see here that it sleeps. */
static void wake(struct ring_channel *c)
{
    if (atomic_load_explicit(&ring_theirs(c)->asleep, memory_order_seq_cst) && c->doorbell >= 0) {
        atomic_store_explicit(&ring_theirs(c)->asleep, 0, memory_order_relaxed);
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
    if (bytes >= PCM_LONG && bytes <= PCM_FRAGMENT) {
        uint64_t written = c->asked ? pcm_ticks() - c->asked : 0;
        memcpy(cell->small, &written, sizeof written);
        c->asked = 0;
    }
    atomic_exchange_explicit(&cell->full, ++c->sent[lane], memory_order_seq_cst);
    wake(c);
}

const struct pcm_head *ring_peek(struct pcm_channel *channel, unsigned lane, const void **payload, size_t *bytes)
{
    struct ring_channel *c = of(channel);
    if (!c->pair) return NULL; /* it has failed before it was up, and nothing has arrived */
    struct ring_cell *cell = &c->pair->lanes[!c->side][lane].cells[c->received[lane] % PCM_SLOTS];
    if (atomic_load_explicit(&cell->full, memory_order_acquire) != c->received[lane] + 1) {
        ring_read_signal(c);
        return NULL;
    }
    if (ring_is_long(cell)) ring_path_begin(c, lane, cell);
    if (cell->bytes == RING_LENT) {
        *bytes = ring_loan_of(cell).bytes;
        *payload = NULL;
        return &cell->head;
    }
    *bytes = cell->bytes;
    *payload = cell->bytes <= RING_INLINE ? cell->small : cell->payload;
    return &cell->head;
}

void ring_release(struct pcm_channel *channel, unsigned lane)
{
    struct ring_channel *c = of(channel);
    struct ring_lane *l = &c->pair->lanes[!c->side][lane];
    const struct ring_cell *cell = &l->cells[c->received[lane] % PCM_SLOTS];
    if (ring_is_long(cell)) ring_path_end(c, lane, cell);
    atomic_exchange_explicit(&l->tail, ++c->received[lane], memory_order_seq_cst);
    wake(c);
}

/* ---- loans ------------------------------------------------------------------------------------------------- */

bool ring_lend(struct pcm_channel *channel, unsigned lane, const struct pcm_head *head, const void *from, size_t bytes,
               uint32_t *ticket)
{
    struct ring_channel *c = of(channel);
    size_t room;
    if (!atomic_load_explicit(&ring_theirs(c)->reads, memory_order_relaxed)) return false;
    void *small = ring_reserve(channel, lane, sizeof(struct ring_loan), &room);
    if (!small) return false;
    struct ring_loan loan = {(uintptr_t)from, bytes};
    memcpy(small, &loan, sizeof loan);
    ring_commit(channel, lane, head, RING_LENT);
    *ticket = c->sent[lane];
    return true;
}

bool ring_returned(struct pcm_channel *channel, unsigned lane, uint32_t ticket)
{
    struct ring_channel *c = of(channel);
    const _Atomic uint32_t *tail = &c->pair->lanes[c->side][lane].tail;
    if ((int32_t)(atomic_load_explicit(tail, memory_order_acquire) - ticket) >= 0) return true;
    ring_read_signal(c); /* the peer may have returned it and left since */
    return (int32_t)(atomic_load_explicit(tail, memory_order_acquire) - ticket) >= 0;
}

/* Copies from the peer's memory. Linux reads another process's memory for whoever could also trace it. */
static bool read_peer(const struct ring_channel *c, void *to, uint64_t address, size_t n)
{
    if (!c->process) return memcpy(to, (const void *)(uintptr_t)address, n), true;
    while (n) {
        struct iovec local = {to, n}, remote = {(void *)(uintptr_t)address, n};
        ssize_t got = process_vm_readv(c->process, &local, 1, &remote, 1, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        to = (char *)to + got, address += (uint64_t)got, n -= (size_t)got;
    }
    return true;
}

bool ring_fetch(struct pcm_channel *channel, unsigned lane, void *to, size_t at, size_t n)
{
    struct ring_channel *c = of(channel);
    struct ring_cell *cell = &c->pair->lanes[!c->side][lane].cells[c->received[lane] % PCM_SLOTS];
    bool whole = read_peer(c, to, ring_loan_of(cell).address + at, n);
    /* read first, then look: whoever withdraws says so before it changes anything */
    if (whole && !atomic_load_explicit(&ring_theirs(c)->withdrawn, memory_order_acquire)) return true;
    ring_read_signal(c);
    return false;
}

void ring_withdraw(struct pcm_channel *channel)
{
    struct ring_channel *c = of(channel);
    if (!c->pair) return;
    atomic_store_explicit(&ring_mine(c)->withdrawn, 1, memory_order_seq_cst);
    atomic_thread_fence(memory_order_seq_cst); /* before anything that the memory's owner does next */
}

void ring_show_sample(struct ring_channel *c)
{
    c->sample = (uintptr_t)c ^ c->base.id ^ 0x9e3779b97f4a7c15u;
    ring_mine(c)->sample.address = (uintptr_t)&c->sample, ring_mine(c)->sample.value = c->sample;
}

void ring_try_sample(struct ring_channel *c)
{
    uint64_t value = 0;
    bool reads =
        read_peer(c, &value, ring_theirs(c)->sample.address, sizeof value) && value == ring_theirs(c)->sample.value;
    ring_path_start(c, reads);
    atomic_store_explicit(&ring_mine(c)->reads, reads, memory_order_release);
}

/* ---- what goes beside the lanes ------------------------------------------------------------------------------ */

bool ring_notice(struct pcm_channel *channel, const void *bytes, size_t length)
{
    struct ring_channel *c = of(channel);
    if (length > PCM_NOTICE || atomic_load(&ring_theirs(c)->signal) & RING_MAIL) return false;
    memcpy(ring_theirs(c)->mail, bytes, length);
    ring_theirs(c)->mail_bytes = (uint32_t)length;
    atomic_fetch_or(&ring_theirs(c)->signal, RING_MAIL);
    if (c->doorbell >= 0) pcm_reactor_ring(c->doorbell);
    return true;
}

void ring_leave(struct ring_channel *c)
{
    atomic_fetch_or(&ring_theirs(c)->signal, RING_LEFT);
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
    uint32_t signal = atomic_load_explicit(&ring_mine(c)->signal, memory_order_acquire);
    if (!signal) return;
    if (signal & RING_MAIL) {
        unsigned char mail[PCM_NOTICE];
        size_t bytes = ring_mine(c)->mail_bytes;
        memcpy(mail, ring_mine(c)->mail, bytes);
        atomic_fetch_and(&ring_mine(c)->signal, ~(uint32_t)RING_MAIL);
        pcm_world_on_notice(c->base.endpoint->world, c->base.peer, mail, bytes);
    }
    if (signal & RING_LEFT && c->base.state == PCM_CHANNEL_UP && !anything_left(c))
        pcm_channel_fail(&c->base, PCM_CHANNEL_CLOSED, "it closed the communicator");
}

void ring_arm(struct ring_channel *c, bool asleep)
{
    atomic_exchange_explicit(&ring_mine(c)->asleep, asleep, memory_order_seq_cst);
    ring_read_signal(c); /* this rank may wait for another peer, and look at none of this one's lanes */
}
