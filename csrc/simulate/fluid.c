/* fluid.c: messages that share links, each going as fast as max-min fairness lets it.
 *
 * Progressive filling (Bertsekas & Gallager, Data Networks, 1992, section 6.5.2): the link that has least for each of its
 * messages fixes their rates; what they take elsewhere is taken off; and so on. A link's share only grows meanwhile, so that an entry
 * of the heap may be too low but never too high: it is looked at again when it comes up.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../transport.h"
#include "engine.h"

#define NEARLY 1e-9 /* of a message: what rounding may leave over */

struct flow {
    int32_t route;
    double bytes, left, rate;
    int64_t about;
};

struct share { /* an entry of the heap: what a link could give to each of its messages */
    double rate;
    int32_t link;
};

struct pcm_fluid {
    const struct pcm_sim_input *in;
    struct flow *flows;
    int64_t *finished; /* `about` of those that have flown */
    int64_t nflows, capacity, nfinished;
    bool stale; /* flows have come or gone since the rates were set */
    double at;  /* when `left` was true */
    double *room;       /* per link: bytes a second that are not given yet */
    int32_t *waiting;   /* per link: messages without a rate */
    int64_t *first;     /* per link: where its flows begin in `users` */
    int32_t *used;      /* links in use, and their number */
    int32_t nused;
    int64_t *users;     /* flows of each link in use, one after the other */
    int64_t nusers_room;
    struct share *heap;
    int64_t nheap;
};

int pcm_fluid_create(const struct pcm_sim_input *in, struct pcm_fluid **fluid)
{
    struct pcm_fluid *f = calloc(1, sizeof *f);
    if (!f) goto fail;
    f->in = in;
    f->room = malloc(sizeof *f->room * in->links);
    f->waiting = calloc(in->links, sizeof *f->waiting);
    f->first = malloc(sizeof *f->first * in->links);
    f->used = malloc(sizeof *f->used * in->links);
    f->heap = malloc(sizeof *f->heap * in->links);
    if (!f->room || !f->waiting || !f->first || !f->used || !f->heap) goto fail;
    *fluid = f;
    return PCM_OK;
fail:
    pcm_fluid_destroy(f);
    return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory: a simulation with %u links", in->links);
}

void pcm_fluid_destroy(struct pcm_fluid *f)
{
    if (!f) return;
    free(f->flows), free(f->finished), free(f->room), free(f->waiting), free(f->first), free(f->used), free(f->users);
    free(f->heap);
    free(f);
}

static const int32_t *route(const struct pcm_fluid *f, const struct flow *flow, int64_t *links)
{
    int64_t start = f->in->route_start[flow->route];
    *links = f->in->route_start[flow->route + 1] - start;
    return f->in->route_links + start;
}

static void advance(struct pcm_fluid *f, double now)
{
    if (now <= f->at) return;
    for (int64_t k = 0; k < f->nflows; k++) f->flows[k].left -= f->flows[k].rate * (now - f->at);
    f->at = now;
}

int pcm_fluid_add(struct pcm_fluid *f, double now, int32_t route, double bytes, int64_t about)
{
    advance(f, now);
    f->at = now;
    if (f->nflows + f->nfinished >= f->capacity) {
        int64_t capacity = f->capacity ? 2 * f->capacity : 1024;
        struct flow *flows = realloc(f->flows, sizeof *flows * (size_t)capacity);
        if (flows) f->flows = flows;
        int64_t *finished = realloc(f->finished, sizeof *finished * (size_t)capacity);
        if (finished) f->finished = finished;
        if (!flows || !finished)
            return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory: a simulation with %lld messages at once",
                            (long long)f->nflows);
        f->capacity = capacity;
    }
    if (bytes <= 0) {
        f->finished[f->nfinished++] = about;
        return PCM_OK;
    }
    f->flows[f->nflows++] = (struct flow){route, bytes, bytes, 0, about};
    f->stale = true;
    return PCM_OK;
}

/* ---- the heap, least share first --------------------------------------------------------------------------- */

static void sink(struct pcm_fluid *f, int64_t at)
{
    struct share moved = f->heap[at];
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= f->nheap) break;
        if (child + 1 < f->nheap && f->heap[child + 1].rate < f->heap[child].rate) child++;
        if (f->heap[child].rate >= moved.rate) break;
        f->heap[at] = f->heap[child];
        at = child;
    }
    f->heap[at] = moved;
}

static void pop(struct pcm_fluid *f)
{
    f->heap[0] = f->heap[--f->nheap];
    if (f->nheap) sink(f, 0);
}

/* ---- rates ------------------------------------------------------------------------------------------------------ */

/* Lists the flows of each link in use. */
static int enter_users(struct pcm_fluid *f)
{
    int64_t total = 0;
    f->nused = 0;
    for (int64_t k = 0; k < f->nflows; k++) {
        int64_t n;
        const int32_t *links = route(f, &f->flows[k], &n);
        for (int64_t i = 0; i < n; i++)
            if (!f->waiting[links[i]]++) f->used[f->nused++] = links[i];
        f->flows[k].rate = 0;
        total += n;
    }
    if (total > f->nusers_room) {
        free(f->users);
        f->nusers_room = 2 * total;
        f->users = malloc(sizeof *f->users * (size_t)f->nusers_room);
        if (!f->users)
            return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory: a simulation with %lld messages at once",
                            (long long)f->nflows);
    }
    int64_t sum = 0;
    for (int32_t u = 0; u < f->nused; u++) {
        int32_t link = f->used[u];
        f->first[link] = sum, sum += f->waiting[link];
        f->room[link] = f->in->bandwidth[link];
        f->waiting[link] = 0;
    }
    for (int64_t k = 0; k < f->nflows; k++) {
        int64_t n;
        const int32_t *links = route(f, &f->flows[k], &n);
        for (int64_t i = 0; i < n; i++) f->users[f->first[links[i]] + f->waiting[links[i]]++] = k;
    }
    return PCM_OK;
}

static void give(struct pcm_fluid *f, struct flow *flow, double rate)
{
    int64_t n;
    const int32_t *links = route(f, flow, &n);
    flow->rate = rate;
    for (int64_t i = 0; i < n; i++) f->room[links[i]] -= rate, f->waiting[links[i]]--;
}

static int set_rates(struct pcm_fluid *f)
{
    int rc = enter_users(f);
    if (rc) return rc;
    f->nheap = f->nused;
    for (int32_t u = 0; u < f->nused; u++)
        f->heap[u] = (struct share){f->room[f->used[u]] / f->waiting[f->used[u]], f->used[u]};
    for (int64_t at = f->nheap / 2; at-- > 0;) sink(f, at);
    while (f->nheap) {
        struct share least = f->heap[0];
        int32_t link = least.link;
        if (!f->waiting[link]) {
            pop(f);
            continue;
        }
        double rate = f->room[link] / f->waiting[link];
        if (rate > least.rate * (1 + NEARLY)) {
            f->heap[0].rate = rate;
            sink(f, 0);
            continue;
        }
        if (rate < least.rate) rate = least.rate; /* rounding; shares only grow */
        int64_t next = f->first[link];
        while (f->waiting[link]) {
            struct flow *flow = &f->flows[f->users[next++]];
            if (flow->rate == 0) give(f, flow, rate);
        }
        pop(f);
    }
    f->stale = false;
    return PCM_OK;
}

double pcm_fluid_next(struct pcm_fluid *f, double now)
{
    if (f->nfinished) return now;
    if (!f->nflows) return INFINITY;
    advance(f, now);
    if (f->stale && set_rates(f)) return NAN;
    double soonest = INFINITY;
    for (int64_t k = 0; k < f->nflows; k++) {
        double left = f->flows[k].left > 0 ? f->flows[k].left / f->flows[k].rate : 0;
        if (left < soonest) soonest = left;
    }
    return f->at + soonest;
}

int64_t pcm_fluid_done(struct pcm_fluid *f, double now)
{
    if (!f->nfinished && f->nflows && !f->stale) {
        advance(f, now);
        for (int64_t k = 0; k < f->nflows;) {
            struct flow *flow = &f->flows[k];
            if (flow->left > flow->bytes * NEARLY && flow->left > flow->rate * now * 1e-15) {
                k++;
                continue;
            }
            f->finished[f->nfinished++] = flow->about;
            *flow = f->flows[--f->nflows];
            f->stale = true;
        }
    }
    return f->nfinished ? f->finished[--f->nfinished] : -1;
}
