/* ring.c: see ring.h. */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

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
    if (bytes >= PCM_LONG && bytes <= PCM_FRAGMENT) {
        uint64_t written = c->asked ? pcm_ticks() - c->asked : 0;
        memcpy(cell->small, &written, sizeof written);
        c->asked = 0;
    }
    atomic_exchange_explicit(&cell->full, ++c->sent[lane], memory_order_seq_cst);
    wake(c);
}

static struct ring_loan loan_of(const struct ring_cell *cell)
{
    struct ring_loan loan;
    memcpy(&loan, cell->small, sizeof loan);
    return loan;
}

/* ---- which path is fastest -------------------------------------------------------------------------------------
 *
 * Two processors that share a cache pass bytes on through it in a fraction of the time that memory takes. Where they share none, a
 * line that one has written takes the other several times as long as a line from memory, to which the writer can stream it past
 * its caches. A loan is copied once and not twice, but by the kernel, which has to find its pages. Which processors a process has
 * changes, of a virtual machine unseen. So whoever reads long messages takes their time, and asks for the path that was fastest
 * of late; now and then for some another one, to see whether it still is slower. */

enum { ROOM = PCM_OP_LANES * PCM_SLOTS * PCM_FRAGMENT }; /* bytes of all cells for collectives */

static unsigned class_of(uint64_t bytes)
{
    unsigned octave = 63 - (unsigned)__builtin_clzll(bytes / PCM_LONG);
    return octave < RING_CLASSES ? octave : RING_CLASSES - 1;
}

static bool possible(struct ring_channel *c, uint64_t bytes, int way)
{
    return way != PCM_LENT || (bytes >= PCM_LEND && atomic_load_explicit(&mine(c)->reads, memory_order_relaxed));
}

/* What to try after a trial of `way`: what is not known, or is the fastest; or, seldom, because a slow message keeps all ranks
 * waiting, the next of the others. */
static int next_trial(struct ring_channel *c, struct ring_trials *t, uint64_t bytes, int way)
{
    enum { SELDOM = 16 }; /* but at first, when much is new, often */
    int fastest = way;
    for (int w = 0; w <= PCM_LENT; w++) {
        if (!possible(c, bytes, w)) continue;
        if (!t->pace[w]) return w;
        if (t->pace[w] < t->pace[fastest]) fastest = w;
    }
    if (way != fastest || ++t->trials < (bytes > ROOM ? SELDOM : t->seldom)) return fastest;
    t->trials = 0;
    t->seldom = t->seldom < SELDOM ? 2 * t->seldom + 1 : SELDOM;
    do t->other = (t->other + 1) % (PCM_LENT + 1);
    while (t->other == fastest || !possible(c, bytes, t->other));
    return t->other;
}

static void ask(struct ring_channel *c, unsigned class)
{
    const struct ring_trials *t = &c->trials[class];
    unsigned asked = (unsigned)t->way | (t->rest ? 0 : RING_TIMED);
    atomic_store_explicit(&mine(c)->asks[class], (uint8_t)asked, memory_order_relaxed);
}

/* A message has come. Interruptions count, as some paths suffer more from them; but a pace rises slowly. */
static void judge(struct ring_channel *c, uint64_t bytes, int way, uint64_t taken)
{
    enum { TRIAL = 4, SHORT_TRIAL = 2, REST = 28 };
    unsigned class = class_of(bytes);
    struct ring_trials *t = &c->trials[class];
    uint64_t *pace = &t->pace[way], patience = *pace + *pace / 4;
    int trial = bytes > ROOM ? SHORT_TRIAL : TRIAL;
    /* of the first ones every page is new */
    int skipped = *pace ? 0 : (int)(ROOM / (bytes > PCM_FRAGMENT ? bytes : PCM_FRAGMENT));
    if (way != t->way) return; /* on its way since before that was asked for */
    if (++t->messages > skipped) t->taken += taken;
    if (t->messages < skipped + trial) return;
    uint64_t mean = t->taken / (uint64_t)trial;
    *pace = !*pace || mean < patience ? mean : patience;
    t->messages = 0, t->taken = 0;
    t->way = next_trial(c, t, bytes, way);
    if (t->way == way) t->rest = REST;
    ask(c, class);
}

/* Whether a cell holds some of a long message; what only announces one holds nothing. */
static bool is_long(const struct ring_cell *cell) { return cell->bytes && cell->head.bytes >= PCM_LONG; }

static void note_begin(struct ring_channel *c, unsigned lane, const struct ring_cell *cell)
{
    struct ring_arrival *a = &c->arrivals[lane];
    if (a->bytes || a->begun || c->trials[class_of(cell->head.bytes)].rest) return;
    uint64_t written = 0; /* before it was seen */
    if (cell->bytes >= PCM_LONG && cell->bytes <= PCM_FRAGMENT) memcpy(&written, cell->small, sizeof written);
    a->begun = (pcm_ticks() - written) | 1;
    a->way = c->trials[class_of(cell->head.bytes)].way;
}

static void note_end(struct ring_channel *c, unsigned lane, const struct ring_cell *cell)
{
    struct ring_arrival *a = &c->arrivals[lane];
    uint64_t total = cell->head.bytes;
    struct ring_trials *t = &c->trials[class_of(total)];
    a->bytes += cell->bytes == RING_LENT ? loan_of(cell).bytes : cell->bytes;
    a->loans += cell->bytes == RING_LENT;
    if (a->bytes < total) return;
    if (a->begun) {
        if (!a->loans == (a->way != PCM_LENT)) judge(c, total, a->way, pcm_ticks() - a->begun);
    } else if (t->rest > 0 && !--t->rest) {
        ask(c, class_of(total));
    }
    *a = (struct ring_arrival){0};
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
    if (is_long(cell)) note_begin(c, lane, cell);
    if (cell->bytes == RING_LENT) {
        *bytes = loan_of(cell).bytes;
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
    if (is_long(cell)) note_end(c, lane, cell);
    atomic_exchange_explicit(&l->tail, ++c->received[lane], memory_order_seq_cst);
    wake(c);
}

/* ---- loans ------------------------------------------------------------------------------------------------- */

int ring_path_of(struct pcm_channel *channel, const struct pcm_head *head)
{
    struct ring_channel *c = of(channel);
    if (channel->state != PCM_CHANNEL_UP) return PCM_COPIED; /* it may never have had lanes */
    unsigned asked = atomic_load_explicit(&theirs(c)->asks[class_of(head->bytes)], memory_order_relaxed);
    c->asked = asked & RING_TIMED ? pcm_ticks() : 0;
    return (int)(asked & ~(unsigned)RING_TIMED);
}

bool ring_lend(struct pcm_channel *channel, unsigned lane, const struct pcm_head *head, const void *from, size_t bytes,
               uint32_t *ticket)
{
    struct ring_channel *c = of(channel);
    size_t room;
    if (!atomic_load_explicit(&theirs(c)->reads, memory_order_relaxed)) return false;
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
    bool whole = read_peer(c, to, loan_of(cell).address + at, n);
    /* read first, then look: whoever withdraws says so before it changes anything */
    if (whole && !atomic_load_explicit(&theirs(c)->withdrawn, memory_order_acquire)) return true;
    ring_read_signal(c);
    return false;
}

void ring_withdraw(struct pcm_channel *channel)
{
    struct ring_channel *c = of(channel);
    if (!c->pair) return;
    atomic_store_explicit(&mine(c)->withdrawn, 1, memory_order_seq_cst);
    atomic_thread_fence(memory_order_seq_cst); /* before anything that the memory's owner does next */
}

void ring_show_sample(struct ring_channel *c)
{
    c->sample = (uintptr_t)c ^ c->base.id ^ 0x9e3779b97f4a7c15u;
    mine(c)->sample.address = (uintptr_t)&c->sample, mine(c)->sample.value = c->sample;
}

void ring_try_sample(struct ring_channel *c)
{
    uint64_t value = 0;
    bool reads = read_peer(c, &value, theirs(c)->sample.address, sizeof value) && value == theirs(c)->sample.value;
    for (unsigned class = 0; class < RING_CLASSES; class++) {
        if (reads && class >= class_of(PCM_LEND)) c->trials[class].way = PCM_LENT;
        ask(c, class);
    }
    atomic_store_explicit(&mine(c)->reads, reads, memory_order_release);
}

/* ---- what goes beside the lanes ------------------------------------------------------------------------------ */

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
