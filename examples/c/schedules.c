/* schedules.c: see schedules.h. */
#include "schedules.h"

#include <stdlib.h>

int ring_allreduce(int rank, int size, pcm_schedule **schedule)
{
    const uint32_t p = (uint32_t)size, me = (uint32_t)rank, right = (me + 1) % p, left = (me + p - 1) % p;
    struct pcm_step *steps = calloc(4 * p, sizeof *steps), *step = steps;
    int32_t *at = calloc(p, sizeof *at);
    uint32_t *like = calloc(p, sizeof *like);
    int status = PCM_ERR_SYSTEM;
    if (steps && at && like) {
        for (uint32_t i = 0; i < p; i++) at[i] = (int32_t)i, like[i] = i; /* chunk i is piece i of both buffers */
        for (uint32_t round = 0; round < 2 * (p - 1); round++) {
            const int whole = round >= p - 1; /* what comes has been reduced by all: it is copied */
            const uint32_t out = (me + 2 * p - round) % p, in = (me + 2 * p - 1 - round) % p;
            *step++ = (struct pcm_step){.kind = PCM_STEP_SEND, .peer = right, .chunk = out};
            *step++ = (struct pcm_step){
                .kind = whole ? PCM_STEP_RECV : PCM_STEP_REDUCE_FROM, .flags = PCM_FLAG_END, .peer = left, .chunk = in};
        }
        if (p == 1) *step++ = (struct pcm_step){.kind = PCM_STEP_COPY, .flags = PCM_FLAG_END};
        struct pcm_schedule_desc desc = {.name = "my ring",
                                         .steps = steps,
                                         .nsteps = (uint32_t)(step - steps),
                                         .nchunks = p,
                                         .in_at = at,
                                         .out_at = at,
                                         .like = like,
                                         .in_blocks = 1,
                                         .out_blocks = 1,
                                         .cut = p};
        status = pcm_schedule_create(&desc, schedule);
    }
    free(steps), free(at), free(like);
    return status;
}

int binomial_broadcast(int rank, int size, int root, pcm_schedule **schedule)
{
    enum { MOST_ROUNDS = 32 };
    const int place = (rank - root + size) % size; /* the root's is 0 */
    const int32_t here[] = {0}, nowhere[] = {-1};
    const uint32_t like[] = {0};
    struct pcm_step steps[MOST_ROUNDS], *step = steps;
    for (int have = 1; have < size; have *= 2) {
        const int peer = place < have ? place + have : place - have;
        if (peer >= size || place >= 2 * have) continue;
        *step++ = (struct pcm_step){.kind = place < have ? PCM_STEP_SEND : PCM_STEP_RECV,
                                    .flags = PCM_FLAG_END,
                                    .peer = (uint32_t)((peer + root) % size)};
    }
    struct pcm_schedule_desc desc = {.name = "my tree",
                                     .steps = steps,
                                     .nsteps = (uint32_t)(step - steps),
                                     .nchunks = 1,
                                     .in_at = place ? nowhere : here,
                                     .out_at = here,
                                     .like = like,
                                     .in_blocks = place ? 0 : 1,
                                     .out_blocks = 1,
                                     .cut = 1};
    return pcm_schedule_create(&desc, schedule);
}
