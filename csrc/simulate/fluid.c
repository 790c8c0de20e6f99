/* fluid.c: messages that share links, each going as fast as max-min fairness lets it.
 *
 * Progressive filling (Bertsekas & Gallager, Data Networks, 1992, section 6.5.2): the link that has least for each of its
 * messages fixes their rates; what they take elsewhere is taken off; and so on. A link's share only grows meanwhile, so that an
 * entry of the heap of links may be too low but never too high: it is looked at again when it comes up. Links with one message
 * are most of all, and only set that message's limit.
 *
 * Where very many messages are under way, rates are not set anew each time that one comes or goes, but once for those that do
 * so within a small part of a message's time. Until then what is new waits, and what is free is lost: links never carry more
 * than they can.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../transport.h"
#include "engine.h"

#define NEARLY 1e-9         /* of a message's time: what rounding may set apart */
#define TOGETHER (1. / 128) /* of a message's time: changes within it are one, */
enum { SOME = 256, MANY = 1024 }; /* from so many messages on; with fewer than MANY, within less */

struct flow {
    int32_t route;
    double left, rate;  /* bytes, when the rates were set; 0: no rate yet; -1: has flown */
    double limit;       /* of the rate: the narrowest of the links that it has for itself */
    double start, end; /* seconds */
    int64_t about;
};

struct share { /* an entry of the heap of links: what one could give to each of its messages */
    double rate;
    int32_t link;
};

struct pcm_fluid {
    const struct pcm_sim_input *in;
    struct flow *flows; /* those under way, and until rates are set again those that have flown since */
    int64_t nflows, flows_room;
    int64_t *empty; /* `about` of messages without bytes */
    int64_t nempty, empty_room;
    int64_t *soon; /* a heap of the flows with rates, by their end */
    int64_t nsoon, soon_room;
    bool stale;         /* flows have come or gone since the rates were set, */
    double since;       /* the first of them at this time */
    double usual;       /* how long a message takes, about */
    double *room;       /* per link: bytes a second that are not given yet */
    int32_t *waiting;   /* per link: messages without a rate */
    int64_t *first;     /* per link: where its flows begin in `users`; -1: it has but one */
    int32_t *used;      /* links that several messages use */
    int32_t nused;
    int64_t *users; /* flows of each link in use, one after the other */
    int64_t users_room;
    struct share *heap;
    int64_t nheap;
    int64_t *tightest; /* flows, by their limits */
    int64_t tightest_room;
};

static int no_memory(const struct pcm_fluid *f)
{
    return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory: a simulation with %lld messages at once", (long long)f->nflows);
}

int pcm_fluid_create(const struct pcm_sim_input *in, struct pcm_fluid **fluid)
{
    struct pcm_fluid *f = calloc(1, sizeof *f);
    *fluid = f;
    if (!f) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory: a simulation with %u links", in->links);
    f->in = in;
    f->room = malloc(sizeof *f->room * in->links);
    f->waiting = calloc(in->links, sizeof *f->waiting);
    f->first = malloc(sizeof *f->first * in->links);
    f->used = malloc(sizeof *f->used * in->links);
    f->heap = malloc(sizeof *f->heap * in->links);
    return f->room && f->waiting && f->first && f->used && f->heap ? PCM_OK : no_memory(f);
}

void pcm_fluid_destroy(struct pcm_fluid *f)
{
    if (!f) return;
    free(f->flows), free(f->empty), free(f->soon), free(f->room), free(f->waiting), free(f->first), free(f->used);
    free(f->users), free(f->heap), free(f->tightest);
    free(f);
}

static const int32_t *route(const struct pcm_fluid *f, const struct flow *flow, int64_t *links)
{
    int64_t start = f->in->route_start[flow->route];
    *links = f->in->route_start[flow->route + 1] - start;
    return f->in->route_links + start;
}

static void changed(struct pcm_fluid *f, double now)
{
    if (!f->stale) f->since = now;
    f->stale = true;
}

int pcm_fluid_add(struct pcm_fluid *f, double now, int32_t route, double bytes, int64_t about)
{
    if (bytes <= 0) {
        if (!pcm_sim_grow((void **)&f->empty, &f->empty_room, f->nempty + 1, sizeof *f->empty)) return no_memory(f);
        f->empty[f->nempty++] = about;
        return PCM_OK;
    }
    if (!pcm_sim_grow((void **)&f->flows, &f->flows_room, f->nflows + 1, sizeof *f->flows)) return no_memory(f);
    f->flows[f->nflows++] = (struct flow){route, bytes, 0, INFINITY, now, INFINITY, about};
    changed(f, now);
    return PCM_OK;
}

/* ---- the two heaps, least first ------------------------------------------------------------------------------- */

static void sink_share(struct pcm_fluid *f, int64_t at)
{
    struct share moved = f->heap[at];
    for (int64_t child; (child = 2 * at + 1) < f->nheap; at = child) {
        if (child + 1 < f->nheap && f->heap[child + 1].rate < f->heap[child].rate) child++;
        if (f->heap[child].rate >= moved.rate) break;
        f->heap[at] = f->heap[child];
    }
    f->heap[at] = moved;
}

static void drop_share(struct pcm_fluid *f)
{
    f->heap[0] = f->heap[--f->nheap];
    if (f->nheap) sink_share(f, 0);
}

static void sink_flow(struct pcm_fluid *f, int64_t at)
{
    int64_t moved = f->soon[at];
    for (int64_t child; (child = 2 * at + 1) < f->nsoon; at = child) {
        if (child + 1 < f->nsoon && f->flows[f->soon[child + 1]].end < f->flows[f->soon[child]].end) child++;
        if (f->flows[f->soon[child]].end >= f->flows[moved].end) break;
        f->soon[at] = f->soon[child];
    }
    f->soon[at] = moved;
}

/* ---- rates ------------------------------------------------------------------------------------------------------ */

/* Forgets what has flown, and brings `left` up to date. */
static void tidy(struct pcm_fluid *f, double now)
{
    int64_t kept = 0;
    for (int64_t k = 0; k < f->nflows; k++) {
        struct flow flow = f->flows[k];
        if (flow.rate < 0) continue;
        if (flow.rate > 0) flow.left = (flow.end - now) * flow.rate;
        flow.rate = 0;
        f->flows[kept++] = flow;
    }
    f->nflows = kept;
}

/* Lists the flows of each link that has several, and sets the limits of those that have a link for themselves. */
static int enter_users(struct pcm_fluid *f)
{
    int64_t total = 0;
    int32_t nlinks = 0;
    for (int64_t k = 0; k < f->nflows; k++) {
        int64_t n;
        const int32_t *links = route(f, &f->flows[k], &n);
        for (int64_t i = 0; i < n; i++)
            if (!f->waiting[links[i]]++) f->used[nlinks++] = links[i];
        total += n;
    }
    if (!pcm_sim_grow((void **)&f->users, &f->users_room, total, sizeof *f->users)) return no_memory(f);
    int64_t sum = 0;
    f->nused = 0;
    for (int32_t u = 0; u < nlinks; u++) {
        int32_t link = f->used[u];
        f->first[link] = -1;
        if (f->waiting[link] > 1) {
            f->first[link] = sum, sum += f->waiting[link];
            f->room[link] = f->in->bandwidth[link];
            f->used[f->nused++] = link;
        }
        f->waiting[link] = 0;
    }
    for (int64_t k = 0; k < f->nflows; k++) {
        int64_t n;
        const int32_t *links = route(f, &f->flows[k], &n);
        f->flows[k].limit = INFINITY;
        for (int64_t i = 0; i < n; i++) {
            int32_t link = links[i];
            if (f->first[link] >= 0)
                f->users[f->first[link] + f->waiting[link]++] = k;
            else if (f->in->bandwidth[link] < f->flows[k].limit)
                f->flows[k].limit = f->in->bandwidth[link];
        }
    }
    return PCM_OK;
}

static _Thread_local const struct flow *sorted_flows; /* qsort has no room for it */

static int by_limit(const void *a, const void *b)
{
    double x = sorted_flows[*(const int64_t *)a].limit, y = sorted_flows[*(const int64_t *)b].limit;
    return x < y ? -1 : x > y;
}

static int sort_limits(struct pcm_fluid *f)
{
    bool sorted = true;
    if (!pcm_sim_grow((void **)&f->tightest, &f->tightest_room, f->nflows, sizeof *f->tightest)) return no_memory(f);
    for (int64_t k = 0; k < f->nflows; k++) {
        f->tightest[k] = k;
        sorted = sorted && (!k || f->flows[k - 1].limit <= f->flows[k].limit);
    }
    sorted_flows = f->flows;
    if (!sorted) qsort(f->tightest, (size_t)f->nflows, sizeof *f->tightest, by_limit);
    return PCM_OK;
}

static void give(struct pcm_fluid *f, struct flow *flow, double rate)
{
    int64_t n;
    const int32_t *links = route(f, flow, &n);
    flow->rate = rate;
    for (int64_t i = 0; i < n; i++)
        if (f->first[links[i]] >= 0) f->room[links[i]] -= rate, f->waiting[links[i]]--;
}

/* Gives the least share of any link to its flows, unless some have a lower limit, which then get that. */
static void fill(struct pcm_fluid *f)
{
    f->nheap = f->nused;
    for (int32_t u = 0; u < f->nused; u++)
        f->heap[u] = (struct share){f->room[f->used[u]] / f->waiting[f->used[u]], f->used[u]};
    for (int64_t at = f->nheap / 2; at-- > 0;) sink_share(f, at);
    int64_t next = 0;
    for (;;) {
        while (next < f->nflows && f->flows[f->tightest[next]].rate > 0) next++;
        struct flow *tight = next < f->nflows ? &f->flows[f->tightest[next]] : NULL;
        if (!f->nheap && !tight) return;
        if (tight && (!f->nheap || tight->limit <= f->heap[0].rate)) {
            give(f, tight, tight->limit);
            continue;
        }
        struct share least = f->heap[0];
        int32_t link = least.link;
        if (!f->waiting[link]) {
            drop_share(f);
            continue;
        }
        double rate = f->room[link] / f->waiting[link];
        if (rate > least.rate * (1 + NEARLY)) {
            f->heap[0].rate = rate;
            sink_share(f, 0);
            continue;
        }
        if (rate < least.rate) rate = least.rate; /* rounding; shares only grow */
        for (int64_t user = f->first[link]; f->waiting[link]; user++)
            if (f->flows[f->users[user]].rate == 0) give(f, &f->flows[f->users[user]], rate);
        drop_share(f);
    }
}

static int set_rates(struct pcm_fluid *f, double now)
{
    tidy(f, now);
    int rc = enter_users(f);
    if (!rc) rc = sort_limits(f);
    if (rc) return rc;
    fill(f);
    if (!pcm_sim_grow((void **)&f->soon, &f->soon_room, f->nflows, sizeof *f->soon)) return no_memory(f);
    f->nsoon = f->nflows;
    for (int64_t k = 0; k < f->nflows; k++) {
        f->flows[k].end = now + f->flows[k].left / f->flows[k].rate;
        f->soon[k] = k;
    }
    for (int64_t at = f->nsoon / 2; at-- > 0;) sink_flow(f, at);
    f->stale = false;
    return PCM_OK;
}

int pcm_fluid_next(struct pcm_fluid *f, double now, double *next)
{
    *next = now;
    if (f->nempty) return PCM_OK;
    if (f->stale) {
        double part = f->nflows > MANY ? TOGETHER : TOGETHER * (double)f->nflows / MANY;
        double due = f->since + part * f->usual;
        if (f->nflows > SOME && f->nsoon && now < due) {
            double end = f->flows[f->soon[0]].end;
            *next = end < now ? now : end < due ? end : due;
            return PCM_OK;
        }
        int rc = set_rates(f, now);
        if (rc) return rc;
    }
    *next = f->nsoon ? f->flows[f->soon[0]].end : INFINITY;
    if (*next < now) *next = now; /* rounding */
    return PCM_OK;
}

int64_t pcm_fluid_done(struct pcm_fluid *f, double now)
{
    if (f->nempty) return f->empty[--f->nempty];
    if (!f->nsoon) return -1;
    struct flow *flow = &f->flows[f->soon[0]];
    if (flow->end - now > NEARLY * (now - flow->start)) return -1;
    f->soon[0] = f->soon[--f->nsoon];
    if (f->nsoon) sink_flow(f, 0);
    f->usual += ((now - flow->start) - f->usual) / 64;
    flow->rate = -1;
    changed(f, now);
    return flow->about;
}
