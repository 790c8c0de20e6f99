/* ring_path.c: which path is the fastest for long messages between two processes.
 *
 * Two processors that share a cache pass bytes on through it in a fraction of the time that memory takes. Where they share none, a
 * line that one has written takes the other several times as long as a line from memory, to which the writer can stream it past
 * its caches. A loan is copied once and not twice, but by the kernel, which has to find its pages. Which processors a process has
 * changes, of a virtual machine unseen. So whoever reads long messages takes their time, and asks for the path that was fastest
 * of late; now and then for some another one, to see whether it still is slower. */
#include <string.h>

#include "ring.h"

enum { ROOM = PCM_OP_LANES * PCM_SLOTS * PCM_FRAGMENT }; /* bytes of all cells for collectives */

static unsigned class_of(uint64_t bytes)
{
    unsigned octave = 63 - (unsigned)__builtin_clzll(bytes / PCM_LONG);
    return octave < RING_CLASSES ? octave : RING_CLASSES - 1;
}

static bool possible(struct ring_channel *c, uint64_t bytes, int path)
{
    return path != PCM_LENT || (bytes >= PCM_LEND && atomic_load_explicit(&ring_mine(c)->reads, memory_order_relaxed));
}

/* What to try after a trial of `path`: what is not known, or is the fastest; or, seldom, because a slow message keeps all ranks
 * waiting, the next of the others. */
static int next_trial(struct ring_channel *c, struct ring_trials *t, uint64_t bytes, int path)
{
    enum { SELDOM = 16 }; /* but at first, when much is new, often */
    int fastest = path;
    for (int w = 0; w <= PCM_LENT; w++) {
        if (!possible(c, bytes, w)) continue;
        if (!t->pace[w]) return w;
        if (t->pace[w] < t->pace[fastest]) fastest = w;
    }
    if (path != fastest || ++t->trials < (bytes > ROOM ? SELDOM : t->seldom)) return fastest;
    t->trials = 0;
    t->seldom = t->seldom < SELDOM ? 2 * t->seldom + 1 : SELDOM;
    do t->other = (t->other + 1) % (PCM_LENT + 1);
    while (t->other == fastest || !possible(c, bytes, t->other));
    return t->other;
}

static void ask(struct ring_channel *c, unsigned class)
{
    const struct ring_trials *t = &c->trials[class];
    unsigned asked = (unsigned)t->path | (t->rest ? 0 : RING_TIMED);
    atomic_store_explicit(&ring_mine(c)->asks[class], (uint8_t)asked, memory_order_relaxed);
}

/* A message has come. Interruptions count, as some paths suffer more from them; but a pace rises slowly. */
static void judge(struct ring_channel *c, uint64_t bytes, int path, uint64_t taken)
{
    enum { TRIAL = 4, SHORT_TRIAL = 2, REST = 28 };
    unsigned class = class_of(bytes);
    struct ring_trials *t = &c->trials[class];
    uint64_t *pace = &t->pace[path], patience = *pace + *pace / 4;
    int trial = bytes > ROOM ? SHORT_TRIAL : TRIAL;
    int skipped =
        1; /* it may have been written before its path was asked for; and of the first ones every page is new */
    if (!*pace) skipped += (int)(ROOM / (bytes > PCM_FRAGMENT ? bytes : PCM_FRAGMENT));
    if (path != t->path) return;
    if (++t->messages > skipped) t->taken += taken;
    if (t->messages < skipped + trial) return;
    uint64_t mean = t->taken / (uint64_t)trial;
    *pace = !*pace || mean < patience ? mean : patience;
    t->messages = 0, t->taken = 0;
    t->path = next_trial(c, t, bytes, path);
    if (t->path == path) t->rest = REST;
    ask(c, class);
}

void ring_path_begin(struct ring_channel *c, unsigned lane, const struct ring_cell *cell)
{
    struct ring_arrival *a = &c->arrivals[lane];
    if (a->bytes || a->begun || c->trials[class_of(cell->head.bytes)].rest) return;
    uint64_t written = 0; /* before it was seen */
    if (cell->bytes >= PCM_LONG && cell->bytes <= PCM_FRAGMENT) memcpy(&written, cell->small, sizeof written);
    a->begun = (pcm_ticks() - written) | 1;
    a->path = c->trials[class_of(cell->head.bytes)].path;
}

void ring_path_end(struct ring_channel *c, unsigned lane, const struct ring_cell *cell)
{
    struct ring_arrival *a = &c->arrivals[lane];
    uint64_t total = cell->head.bytes;
    struct ring_trials *t = &c->trials[class_of(total)];
    a->bytes += cell->bytes == RING_LENT ? ring_loan_of(cell).bytes : cell->bytes;
    a->loans += cell->bytes == RING_LENT;
    if (a->bytes < total) return;
    if (a->begun) {
        if (!a->loans == (a->path != PCM_LENT)) judge(c, total, a->path, pcm_ticks() - a->begun);
    } else if (t->rest > 0 && !--t->rest) {
        ask(c, class_of(total));
    }
    *a = (struct ring_arrival){0};
}

void ring_path_start(struct ring_channel *c, bool reads)
{
    for (unsigned class = 0; class < RING_CLASSES; class++) {
        if (reads && class >= class_of(PCM_LEND)) c->trials[class].path = PCM_LENT;
        ask(c, class);
    }
}

int ring_path_of(struct pcm_channel *channel, const struct pcm_head *head)
{
    struct ring_channel *c = (struct ring_channel *)channel;
    if (channel->state != PCM_CHANNEL_UP) return PCM_COPIED; /* it may never have had lanes */
    unsigned asked = atomic_load_explicit(&ring_theirs(c)->asks[class_of(head->bytes)], memory_order_relaxed);
    c->asked = asked & RING_TIMED ? pcm_ticks() : 0;
    return (int)(asked & ~(unsigned)RING_TIMED);
}
