/* queue.c: the events to come, in the order of time.
 *
 * Collectives go in step: thousands of events have the same time. So the heap holds moments, each with a list of events, and a
 * small table finds the moments that were pushed to of late. (A moment that the table has lost is merely entered twice.)
 */
#include <stdlib.h>
#include <string.h>

#include "../transport.h"
#include "engine.h"

enum { RECENT = 256 };

struct moment {
    double time;
    int32_t first, last; /* nodes */
};

struct node {
    struct pcm_event event;
    int32_t next;
};

struct entry {
    double time;
    int32_t moment;
};

struct pcm_queue {
    struct moment *moments;
    struct node *nodes;
    struct entry *heap;
    struct pcm_event *batch;
    int64_t nmoments, moments_room, nnodes, nodes_room, nheap, heap_room, batch_room;
    int32_t free_moment, free_node;
    int32_t recent[RECENT];
};

struct pcm_queue *pcm_queue_create(void)
{
    struct pcm_queue *q = calloc(1, sizeof *q);
    if (!q) return NULL;
    q->free_moment = q->free_node = -1;
    memset(q->recent, -1, sizeof q->recent);
    return q;
}

void pcm_queue_destroy(struct pcm_queue *q)
{
    if (!q) return;
    free(q->moments), free(q->nodes), free(q->heap), free(q->batch);
    free(q);
}

bool pcm_sim_grow(void **array, int64_t *room, int64_t wanted, size_t element)
{
    if (wanted <= *room) return true;
    int64_t larger = *room ? *room : 1024;
    while (larger < wanted) larger *= 2;
    void *moved = realloc(*array, (size_t)larger * element);
    if (!moved) return false;
    *array = moved, *room = larger;
    return true;
}

/* ---- the heap: four children a node, which suits caches ------------------------------------------------------ */

static void enter(struct pcm_queue *q, struct entry entry)
{
    int64_t at = q->nheap++;
    for (; at && entry.time < q->heap[(at - 1) / 4].time; at = (at - 1) / 4) q->heap[at] = q->heap[(at - 1) / 4];
    q->heap[at] = entry;
}

static int32_t leave(struct pcm_queue *q)
{
    int32_t top = q->heap[0].moment;
    struct entry last = q->heap[--q->nheap];
    int64_t at = 0;
    for (;;) {
        int64_t child = 4 * at + 1, end = child + 4 < q->nheap ? child + 4 : q->nheap, least = child;
        if (child >= q->nheap) break;
        for (int64_t k = child + 1; k < end; k++)
            if (q->heap[k].time < q->heap[least].time) least = k;
        if (q->heap[least].time >= last.time) break;
        q->heap[at] = q->heap[least];
        at = least;
    }
    if (q->nheap) q->heap[at] = last;
    return top;
}

/* ---- moments ----------------------------------------------------------------------------------------------------- */

static uint32_t slot_of(double time)
{
    uint64_t bits;
    memcpy(&bits, &time, sizeof bits);
    return (uint32_t)(bits * 0x9E3779B97F4A7C15u >> 56);
}

static int32_t new_moment(struct pcm_queue *q, double time)
{
    if (!pcm_sim_grow((void **)&q->heap, &q->heap_room, q->nheap + 1, sizeof *q->heap)) return -1;
    int32_t index = q->free_moment;
    if (index >= 0)
        q->free_moment = q->moments[index].first;
    else {
        if (!pcm_sim_grow((void **)&q->moments, &q->moments_room, q->nmoments + 1, sizeof *q->moments)) return -1;
        index = (int32_t)q->nmoments++;
    }
    q->moments[index] = (struct moment){time, -1, -1};
    enter(q, (struct entry){time, index});
    return index;
}

bool pcm_queue_push(struct pcm_queue *q, double time, struct pcm_event event)
{
    int32_t node = q->free_node;
    if (node >= 0)
        q->free_node = q->nodes[node].next;
    else {
        if (!pcm_sim_grow((void **)&q->nodes, &q->nodes_room, q->nnodes + 1, sizeof *q->nodes)) return false;
        node = (int32_t)q->nnodes++;
    }
    q->nodes[node] = (struct node){event, -1};
    int32_t *recent = &q->recent[slot_of(time)];
    if (*recent < 0 || q->moments[*recent].time != time) {
        int32_t moment = new_moment(q, time);
        if (moment < 0) return false;
        *recent = moment;
    }
    struct moment *m = &q->moments[*recent];
    if (m->last < 0)
        m->first = node;
    else
        q->nodes[m->last].next = node;
    m->last = node;
    return true;
}

bool pcm_queue_next(const struct pcm_queue *q, double *time)
{
    if (q->nheap) *time = q->heap[0].time;
    return q->nheap > 0;
}

static int by_tie(const void *a, const void *b)
{
    const struct pcm_event *x = a, *y = b;
    return x->tie < y->tie ? -1 : x->tie > y->tie;
}

int64_t pcm_queue_take(struct pcm_queue *q, const struct pcm_event **events)
{
    int64_t n = 0;
    double time = q->heap[0].time;
    bool sorted = true;
    while (q->nheap && q->heap[0].time == time) {
        int32_t index = leave(q);
        struct moment *m = &q->moments[index];
        for (int32_t node = m->first, next; node >= 0; node = next) {
            if (!pcm_sim_grow((void **)&q->batch, &q->batch_room, n + 1, sizeof *q->batch)) return -1;
            next = q->nodes[node].next;
            q->batch[n] = q->nodes[node].event;
            sorted = sorted && (!n || q->batch[n - 1].tie <= q->batch[n].tie);
            n++;
            q->nodes[node].next = q->free_node, q->free_node = node;
        }
        *m = (struct moment){-1, q->free_moment, -1}; /* no event is as early as -1 */
        q->free_moment = index;
    }
    if (!sorted) qsort(q->batch, (size_t)n, sizeof *q->batch, by_tie);
    *events = q->batch;
    return n;
}
