/* checks.c: what it costs that ranks compare their calls, beside an allreduce of 8 bytes on two ranks: threads, over inproc.
 *
 * Each fragment carries a header, which also tells its slice and its message's length; the receiver compares it with what it
 * expects. An allreduce of two ranks compares one on each. What is timed is that comparison. Best of many short runs.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../csrc/core.h"

enum { CALLS = 200, RUNS = 500 }; /* short runs: some are disturbed by nobody */

static struct rank {
    pcm_world *world;
    pcm_comm *comm;
    unsigned char address[1024];
    size_t bytes;
} ranks[2];

static pthread_barrier_t together;
static double best_call = 1e9;

static void must(int status)
{
    if (!status) return;
    fprintf(stderr, "checks: %s\n", pcm_last_error()->text);
    exit(1);
}

/* Both send what they have, and add what comes. */
static pcm_schedule *exchange(int rank)
{
    struct pcm_step steps[] = {{.kind = PCM_STEP_SEND, .peer = (uint32_t)!rank},
                               {.kind = PCM_STEP_REDUCE_FROM, .peer = (uint32_t)!rank, .flags = PCM_FLAG_END}};
    if (rank) steps[1].flags |= PCM_FLAG_SWAP;
    int32_t at = 0;
    uint32_t like = 0;
    struct pcm_schedule_desc desc = {.name = "exchange",
                                     .steps = steps,
                                     .nsteps = 2,
                                     .nchunks = 1,
                                     .in_at = &at,
                                     .out_at = &at,
                                     .like = &like,
                                     .in_blocks = 1,
                                     .out_blocks = 1,
                                     .cut = 1};
    pcm_schedule *schedule;
    must(pcm_schedule_create(&desc, &schedule));
    return schedule;
}

static void *be_a_rank(void *argument)
{
    struct rank *r = argument;
    int rank = (int)(r - ranks);
    double x = rank + 1, sum = 0;
    struct pcm_call call = {
        .collective = PCM_ALLREDUCE, .dtype = PCM_FLOAT64, .op = PCM_SUM, .in = &x, .out = &sum, .count = 1};
    pcm_schedule *schedule = exchange(rank);
    must(pcm_comm_plan(r->comm, &call, schedule, 1, 1));
    for (int run = 0; run < RUNS; run++) {
        pthread_barrier_wait(&together);
        double begun = pcm_now();
        for (int i = 0; i < CALLS; i++) must(pcm_run(r->comm, &call, -1));
        double took = (pcm_now() - begun) / CALLS;
        if (!rank && took < best_call) best_call = took;
    }
    if (sum != 3) must(pcm_fail(PCM_ERR_ARGUMENT, rank, "1 + 2 is not %g", sum));
    pcm_schedule_release(schedule);
    return NULL;
}

static double best_check(void)
{
    struct pcm_head came[64], ours = {.collective = PCM_ALLREDUCE, .dtype = PCM_FLOAT64, .count = 1, .bytes = 8};
    double best = 1e9;
    int differ = 0;
    for (int i = 0; i < 64; i++) came[i] = ours;
    for (int run = 0; run < RUNS; run++) {
        double begun = pcm_now();
        for (int i = 0; i < CALLS; i++) {
            __asm__ volatile("" : : "r"(came), "r"(&ours) : "memory"); /* the compiler knows nothing of what came */
            differ |= memcmp(&came[i % 64], &ours, sizeof ours);
        }
        double took = (pcm_now() - begun) / CALLS;
        if (took < best) best = took;
    }
    if (differ) must(pcm_fail(PCM_ERR_ARGUMENT, -1, "the same headers differ"));
    return best;
}

int main(void)
{
    int32_t both[] = {0, 1};
    pthread_t threads[2];
    pthread_barrier_init(&together, NULL, 2);
    for (int r = 0; r < 2; r++) {
        struct pcm_world_config config = {.rank = r, .size = 2, .job = 1, .transports = "inproc"};
        ranks[r].bytes = sizeof ranks[r].address;
        must(pcm_world_create(&config, &ranks[r].world));
        must(pcm_world_address(ranks[r].world, ranks[r].address, &ranks[r].bytes));
    }
    for (int r = 0; r < 2; r++) {
        for (int q = 0; q < 2; q++) must(pcm_world_set_peer(ranks[r].world, q, ranks[q].address, ranks[q].bytes));
        must(pcm_comm_create(ranks[r].world, 1, both, 2, &ranks[r].comm));
        pthread_create(&threads[r], NULL, be_a_rank, &ranks[r]);
    }
    for (int r = 0; r < 2; r++) pthread_join(threads[r], NULL);
    for (int r = 0; r < 2; r++) pcm_world_destroy(ranks[r].world);
    double check = best_check();
    printf("allreduce of 8 bytes %8.1f ns\na comparison         %8.2f ns, %.2f %%\n", 1e9 * best_call, 1e9 * check,
           100 * check / best_call);
    return 0;
}
