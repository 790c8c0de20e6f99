/* ways.c: schedules that the helper has chosen, each for calls of a kind: see helper.h. */
#include <stdlib.h>

#include "helper.h"

struct pcm_way {
    struct pcm_way *next;
    int collective, root;
    bool uneven;
    uint64_t step; /* bytes for which it was chosen; slices are as many more as there are more bytes */
    pcm_schedule *schedule;
    uint32_t slices, window;
};

struct answer { /* pycomm/helper/advice.py, _PLAN; then steps, in_at, out_at, like, passed_at, name */
    uint32_t slices, window, name, nsteps, nchunks, in_blocks, out_blocks, passed_blocks, cut;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the lists of all communicators: helpers are as slow */

int pcm_ways_read(const void *said, size_t bytes, pcm_schedule **schedule, uint32_t *slices, uint32_t *window)
{
    const struct answer *a = said;
    if (bytes < sizeof *a ||
        bytes != sizeof *a + a->nsteps * sizeof(struct pcm_step) + 16 * (uint64_t)a->nchunks + a->name)
        return pcm_fail(PCM_ERR_SCHEDULE, -1, "the process that chooses schedules has said something else than one");
    const struct pcm_step *steps = (const void *)(a + 1);
    struct pcm_schedule_desc desc = {.steps = steps,
                                     .nsteps = a->nsteps,
                                     .nchunks = a->nchunks,
                                     .in_blocks = a->in_blocks,
                                     .out_blocks = a->out_blocks,
                                     .cut = a->cut,
                                     .passed_blocks = a->passed_blocks};
    desc.in_at = (const void *)(steps + a->nsteps);
    desc.out_at = desc.in_at + a->nchunks;
    desc.like = (const void *)(desc.out_at + a->nchunks);
    desc.passed_at = (const void *)(desc.like + a->nchunks);
    desc.name = (const void *)(desc.passed_at + a->nchunks);
    *slices = a->slices, *window = a->window;
    return pcm_schedule_create(&desc, schedule);
}

static int learn(struct pcm_helper *helper, int machine, int rank, struct pcm_way *way)
{
    size_t bytes = 0;
    void *said = pcm_helper_ask(helper, &bytes,
                                "{\"ask\": \"plan\", \"machine\": %d, \"collective\": \"%s\", \"rank\": %d, "
                                "\"root\": %d, \"nbytes\": %llu, \"uneven\": %s}",
                                machine, pcm_collective_name(way->collective), rank, way->root,
                                (unsigned long long)way->step, way->uneven ? "true" : "false");
    if (!said) return pcm_last_error()->code;
    int status = pcm_ways_read(said, bytes, &way->schedule, &way->slices, &way->window);
    free(said);
    return status;
}

int pcm_octave_of(uint64_t bytes)
{
    if (!bytes) return 0;
    int below = 63 - __builtin_clzll(bytes);
    return below + ((unsigned __int128)bytes * bytes >> (2 * below + 1) != 0);
}

/* Sizes of an octave share a choice, because one takes some 20 ms. */
static uint64_t step_of(uint64_t bytes) { return bytes ? (uint64_t)1 << pcm_octave_of(bytes) : 0; }

static int find(struct pcm_helper *helper, int machine, struct pcm_way **ways, int rank, const struct pcm_way *wanted,
                struct pcm_way **found)
{
    for (struct pcm_way *way = *ways; way; way = way->next)
        if (way->collective == wanted->collective && way->root == wanted->root && way->uneven == wanted->uneven &&
            way->step == wanted->step)
            return *found = way, PCM_OK;
    struct pcm_way *way = malloc(sizeof *way);
    if (!way) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for a schedule");
    *way = *wanted;
    int status = learn(helper, machine, rank, way);
    if (status) return free(way), status;
    way->next = *ways, *ways = way;
    *found = way;
    return PCM_OK;
}

int pcm_ways_plan(struct pcm_helper *helper, int machine, struct pcm_way **ways, pcm_comm *comm,
                  const struct pcm_call *call, uint64_t bytes)
{
    bool uneven = call->in_counts || call->out_counts;
    uint64_t step = uneven ? pcm_call_step(comm, call) : step_of(bytes);
    if (uneven) bytes = step;
    struct pcm_way wanted = {.collective = call->collective, .root = call->root, .uneven = uneven, .step = step},
                   *way = NULL;
    pthread_mutex_lock(&lock);
    int status = find(helper, machine, ways, pcm_comm_rank(comm), &wanted, &way);
    pthread_mutex_unlock(&lock);
    if (status) return status;
    /* pycomm/selection/select.py, Selector.choose, has the same rule for slices. */
    double slices = step ? way->slices * (double)bytes / (double)step + 0.5 : way->slices;
    uint32_t n = slices < 1 ? 1 : (uint32_t)slices;
    return pcm_comm_plan(comm, call, way->schedule, n, way->window < n ? way->window : n);
}

void pcm_ways_free(struct pcm_way *ways)
{
    for (struct pcm_way *next; ways; ways = next) {
        next = ways->next;
        pcm_schedule_release(ways->schedule);
        free(ways);
    }
}

bool pcm_is_whole(int collective)
{
    switch (collective) {
    case PCM_ALLGATHER:
    case PCM_REDUCE_SCATTER:
    case PCM_GATHER:
    case PCM_SCATTER:
    case PCM_ALLTOALL: return false;
    default: return true;
    }
}
