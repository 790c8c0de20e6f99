/* hello.c: two ranks, here threads of one process, swap a word and add it to their own; the result is 3 on both. */
#include <pthread.h>
#include <stdio.h>

#include <pycomm.h>

static pcm_world *worlds[2];
static int32_t sums[2];

static void *run(void *rank_of)
{
    int rank = (int)(size_t)rank_of;
    const int32_t both[] = {0, 1}, place[] = {0};
    const uint32_t like[] = {0};
    struct pcm_step steps[] = {/* one round: send chunk 0, and reduce into it what the other one sends */
                               {.kind = PCM_STEP_SEND, .peer = (uint32_t)!rank, .chunk = 0},
                               {.kind = PCM_STEP_REDUCE_FROM, .flags = PCM_FLAG_END, .peer = (uint32_t)!rank}};
    struct pcm_schedule_desc desc = {.name = "swap",
                                     .steps = steps,
                                     .nsteps = 2,
                                     .nchunks = 1,
                                     .in_at = place,
                                     .out_at = place,
                                     .like = like,
                                     .in_blocks = 1,
                                     .out_blocks = 1,
                                     .cut = 1};
    int32_t mine = rank + 1;
    struct pcm_call call = {.collective = PCM_ALLREDUCE,
                            .dtype = PCM_INT32,
                            .op = PCM_SUM,
                            .in = &mine,
                            .out = &sums[rank],
                            .count = 1,
                            .timeout = 10};
    pcm_comm *comm;
    pcm_schedule *schedule;
    if (pcm_comm_create(worlds[rank], 1, both, 2, &comm) || pcm_schedule_create(&desc, &schedule) ||
        pcm_comm_plan(comm, &call, schedule, 1, 1) || pcm_run(comm, &call, -1))
        fprintf(stderr, "rank %d: %s\n", rank, pcm_last_error()->text);
    pcm_schedule_release(schedule);
    return NULL;
}

int main(void)
{
    char address[2][256];
    size_t bytes[2] = {sizeof address[0], sizeof address[1]};
    pthread_t threads[2];
    for (int r = 0; r < 2; r++) {
        struct pcm_world_config config = {.rank = r, .size = 2, .job = 1, .transports = "inproc"};
        if (pcm_world_create(&config, &worlds[r]) || pcm_world_address(worlds[r], address[r], &bytes[r])) return 2;
    }
    for (int r = 0; r < 2; r++) pcm_world_set_peer(worlds[r], !r, address[!r], bytes[!r]);
    for (size_t r = 0; r < 2; r++) pthread_create(&threads[r], NULL, run, (void *)r);
    for (int r = 0; r < 2; r++) pthread_join(threads[r], NULL);
    for (int r = 0; r < 2; r++) pcm_world_destroy(worlds[r]);
    printf("libpycomm %s: %d and %d\n", pcm_version(), (int)sums[0], (int)sums[1]);
    return !(sums[0] == 3 && sums[1] == 3);
}
