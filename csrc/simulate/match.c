/* match.c: pairs sends with receives: between two ranks, the k-th that is sent is the k-th that is received. */
#include <stdlib.h>

#include "../transport.h"
#include "engine.h"

struct end { /* one end of a message, as its receiver sorts it */
    uint32_t distance; /* from sender to receiver, round the ranks: with the receiver, it tells the sender */
    int64_t op;
};

static int by_distance_then_order(const void *a, const void *b)
{
    const struct end *x = a, *y = b;
    if (x->distance != y->distance) return x->distance < y->distance ? -1 : 1;
    return x->op < y->op ? -1 : x->op > y->op;
}

/* Sorts unless sorted: most algorithms meet their peers in order. */
static void sort(struct end *ends, int64_t n)
{
    for (int64_t i = 1; i < n; i++)
        if (by_distance_then_order(&ends[i - 1], &ends[i]) > 0) {
            qsort(ends, (size_t)n, sizeof *ends, by_distance_then_order);
            return;
        }
}

static int unmatched(uint32_t size, int64_t receiver, const struct end *send, const struct end *receive)
{
    bool lonely_send = send && (!receive || send->distance <= receive->distance);
    uint32_t distance = (lonely_send ? send : receive)->distance;
    int sender = (int)((receiver + size - distance % size) % size);
    return pcm_fail(PCM_ERR_SCHEDULE, lonely_send ? sender : (int)receiver,
                    lonely_send ? "rank %d sends a message that rank %d does not receive"
                                : "rank %d sends too few messages: rank %d waits for one more",
                    sender, (int)receiver);
}

int pcm_sim_match(const struct pcm_sim_input *in, struct pcm_sim_op *ops)
{
    int64_t nops = in->ops[in->rounds[in->period]];
    int64_t *fill = calloc((size_t)in->period + 1, sizeof *fill);
    struct end *sends = malloc(sizeof *sends * (size_t)(nops ? nops : 1));
    struct end *receives = malloc(sizeof *receives * (size_t)(nops ? nops : 1));
    int rc = PCM_OK;
    if (!fill || !sends || !receives) {
        rc = pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory: a simulation of %lld operations", (long long)nops);
        goto out;
    }
    for (int64_t op = 0; op < nops; op++) /* counting sort of the sends by receiver */
        if (in->kind[op] == PCM_STEP_SEND) fill[(uint32_t)in->peer[op] % in->period]++;
    for (int64_t rank = 0, sum = 0; rank <= in->period; rank++) {
        int64_t n = fill[rank];
        fill[rank] = sum, sum += n;
    }
    for (uint32_t rank = 0; rank < in->period; rank++)
        for (int64_t op = in->ops[in->rounds[rank]]; op < in->ops[in->rounds[rank + 1]]; op++) {
            ops[op].match = -1;
            if (in->kind[op] != PCM_STEP_SEND) continue;
            uint32_t peer = (uint32_t)in->peer[op];
            sends[fill[peer % in->period]++] = (struct end){(peer + in->size - rank) % in->size, op};
        }
    for (uint32_t rank = 0; rank < in->period; rank++) {
        int64_t first = rank ? fill[rank - 1] : 0, nsends = fill[rank] - first, nreceives = 0;
        for (int64_t op = in->ops[in->rounds[rank]]; op < in->ops[in->rounds[rank + 1]]; op++)
            if (in->kind[op] == PCM_STEP_RECV || in->kind[op] == PCM_STEP_REDUCE_FROM)
                receives[nreceives++] = (struct end){(rank + in->size - (uint32_t)in->peer[op]) % in->size, op};
        sort(sends + first, nsends);
        sort(receives, nreceives);
        for (int64_t k = 0; k < nsends || k < nreceives; k++) {
            struct end *s = k < nsends ? &sends[first + k] : NULL, *r = k < nreceives ? &receives[k] : NULL;
            if (!s || !r || s->distance != r->distance) {
                rc = unmatched(in->size, rank, s, r);
                goto out;
            }
            ops[s->op].match = (int32_t)r->op;
        }
    }
out:
    free(fill), free(sends), free(receives);
    return rc;
}
