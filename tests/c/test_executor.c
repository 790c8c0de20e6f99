/* test_executor.c: the whole C library from its public header alone: ranks as threads, hand-made schedules, over each
 * transport; blocking and started calls, messages, several communicators, and a failure that everybody hears of. Made to be
 * run under the sanitizers too. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "pycomm.h"

enum { MOST = 5, ADDRESS = 4096, ROUNDS = 12 };

static pthread_mutex_t checking = PTHREAD_MUTEX_INITIALIZER;

/* CHECK counts without a lock, and ranks are threads here. The condition may wait for other ranks: it is outside. */
#define RANK_CHECK(CONDITION, ...)                                                                                     \
    do {                                                                                                               \
        int right = (CONDITION);                                                                                       \
        pthread_mutex_lock(&checking);                                                                                 \
        CHECK(right, __VA_ARGS__);                                                                                     \
        pthread_mutex_unlock(&checking);                                                                               \
    } while (0)

struct job {
    const char *transport;
    int size;
    pcm_world *worlds[MOST];
};

struct rank {
    struct job *job;
    int rank;
    pthread_t thread;
};

/* A ring allreduce: p - 1 rounds of reduce-scatter, p - 1 of all-gather. */
static pcm_schedule *ring(int rank, int size)
{
    struct pcm_step steps[4 * MOST] = {0};
    int32_t at[MOST];
    uint32_t like[MOST], n = 0, p = (uint32_t)size, r = (uint32_t)rank, next = (r + 1) % p, before = (r + p - 1) % p;
    for (uint32_t c = 0; c < p; c++) at[c] = (int32_t)c, like[c] = c;
    for (uint32_t k = 0; k + 1 < p; k++) {
        steps[n++] = (struct pcm_step){PCM_STEP_SEND, 0, 0, next, (r + p - k) % p, UINT32_MAX};
        steps[n++] =
            (struct pcm_step){PCM_STEP_REDUCE_FROM, PCM_FLAG_END, 0, before, (r + 2 * p - k - 1) % p, UINT32_MAX};
    }
    for (uint32_t k = 0; k + 1 < p; k++) {
        steps[n++] = (struct pcm_step){PCM_STEP_SEND, 0, 0, next, (r + 1 + p - k) % p, UINT32_MAX};
        steps[n++] = (struct pcm_step){PCM_STEP_RECV, PCM_FLAG_END, 0, before, (r + p - k) % p, UINT32_MAX};
    }
    struct pcm_schedule_desc desc = {"ring", steps, n, p, at, at, like, 1, 1, p};
    pcm_schedule *schedule = NULL;
    RANK_CHECK(pcm_schedule_create(&desc, &schedule) == PCM_OK, "%s", pcm_last_error()->text);
    return schedule;
}

static struct pcm_call sum_of(const float *in, float *out, uint64_t n)
{
    return (struct pcm_call){.collective = PCM_ALLREDUCE,
                             .dtype = PCM_FLOAT32,
                             .op = PCM_SUM,
                             .in = in,
                             .out = out,
                             .count = n,
                             .timeout = 60};
}

static int wrong(const float *out, uint64_t n, int size)
{
    int count = 0;
    for (uint64_t i = 0; i < n; i++) count += out[i] != (float)((int)(i % 7) * size + size * (size - 1) / 2);
    return count;
}

static void collectives(pcm_comm *comm, int rank, int size)
{
    const uint64_t counts[] = {0, 1, 2, 5, 1000, 40000, 300001};
    pcm_schedule *schedule = ring(rank, size);
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        uint64_t n = counts[c];
        float *in = malloc((n + 1) * sizeof *in), *out = malloc((n + 1) * sizeof *out);
        for (uint64_t i = 0; i < n; i++) in[i] = (float)(i % 7) + (float)rank;
        for (uint32_t slices = 1; slices <= 7; slices += 3) {
            struct pcm_call apart = sum_of(in, out, n), alike = sum_of(out, out, n);
            memset(out, 0, n * sizeof *out);
            RANK_CHECK(pcm_run(comm, &apart, -1) == PCM_NO_PLAN || slices > 1, "a plan before there was one");
            RANK_CHECK(pcm_comm_plan(comm, &apart, schedule, slices, 2) == PCM_OK, "%s", pcm_last_error()->text);
            RANK_CHECK(pcm_comm_plan(comm, &alike, schedule, slices, 2) == PCM_OK, "%s", pcm_last_error()->text);
            RANK_CHECK(pcm_run(comm, &apart, -1) == PCM_OK, "%s", pcm_last_error()->text);
            RANK_CHECK(!wrong(out, n, size), "%d ranks, %u slices of %d", size, slices, (int)n);
            memcpy(out, in, n * sizeof *out);
            RANK_CHECK(pcm_run(comm, &alike, -1) == PCM_OK, "%s", pcm_last_error()->text);
            RANK_CHECK(!wrong(out, n, size), "in place: %d ranks, %u slices of %d", size, slices, (int)n);
        }
        free(in), free(out);
    }
    pcm_schedule_release(schedule);
}

/* More operations at once than there are lanes, waited for in the opposite order. */
static void started(pcm_comm *comm, int rank, int size)
{
    enum { N = 3000 };
    static float in[MOST][ROUNDS][N], out[MOST][ROUNDS][N];
    pcm_request *requests[ROUNDS];
    pcm_schedule *schedule = ring(rank, size);
    for (int i = 0; i < ROUNDS; i++) {
        for (int j = 0; j < N; j++) in[rank][i][j] = (float)(j % 7) + (float)rank;
        struct pcm_call call = sum_of(in[rank][i], out[rank][i], N);
        if (!i) RANK_CHECK(pcm_comm_plan(comm, &call, schedule, 3, 2) == PCM_OK, "%s", pcm_last_error()->text);
        RANK_CHECK(pcm_start(comm, &call, &requests[i]) == PCM_OK, "%s", pcm_last_error()->text);
    }
    for (int i = ROUNDS; i-- > 0;) {
        int rc;
        while ((rc = pcm_wait(requests[i], 0.05, NULL)) == PCM_AGAIN) {
        }
        RANK_CHECK(rc == PCM_OK && !wrong(out[rank][i], N, size), "operation %d: %s", i, pcm_last_error()->text);
    }
    pcm_schedule_release(schedule);
}

/* Short and long messages round the ring, with tags that are asked for in another order than they are sent. */
static void messages(pcm_comm *comm, int rank, int size)
{
    enum { TAGS = 3 };
    const uint64_t bytes[TAGS] = {5, 20000, 300000};
    pcm_request *sends[TAGS];
    unsigned char *out[TAGS], *in = malloc(bytes[TAGS - 1]);
    int next = (rank + 1) % size, before = (rank + size - 1) % size;
    for (int t = 0; t < TAGS; t++) {
        out[t] = malloc(bytes[t]);
        memset(out[t], 10 * rank + t, bytes[t]);
        RANK_CHECK(pcm_send_start(comm, out[t], bytes[t], PCM_UINT8, next, t, 60, &sends[t]) == PCM_OK, "%s",
                   pcm_last_error()->text);
    }
    for (int t = TAGS; t-- > 0;) {
        struct pcm_status_info info = {0};
        pcm_request *receive;
        RANK_CHECK(pcm_recv_start(comm, in, bytes[TAGS - 1], PCM_UINT8, before, t, 60, &receive) == PCM_OK, "%s",
                   pcm_last_error()->text);
        int rc = pcm_wait(receive, -1, &info);
        RANK_CHECK(rc == PCM_OK && info.source == before && info.tag == t && info.bytes == bytes[t], "%s",
                   pcm_last_error()->text);
        RANK_CHECK(in[0] == 10 * before + t && in[bytes[t] - 1] == 10 * before + t, "message %d from %d", t, before);
    }
    for (int t = 0; t < TAGS; t++) {
        RANK_CHECK(pcm_wait(sends[t], -1, NULL) == PCM_OK, "%s", pcm_last_error()->text);
        free(out[t]);
    }
    free(in);
}

/* One rank calls with another count: everybody is told so, and so is every later call. */
static void disagreement(pcm_comm *comm, int rank, int size)
{
    float in[8] = {0}, out[8];
    pcm_schedule *schedule = ring(rank, size);
    struct pcm_call call = sum_of(in, out, rank == size - 1 ? 4 : 8);
    RANK_CHECK(pcm_comm_plan(comm, &call, schedule, 1, 1) == PCM_OK, "%s", pcm_last_error()->text);
    for (int i = 0; i < 2; i++) {
        RANK_CHECK(pcm_run(comm, &call, -1) == PCM_ERR_MISMATCH, "rank %d: %s", rank, pcm_last_error()->text);
        RANK_CHECK(strstr(pcm_last_error()->text, "allreduce(float32, count 4, SUM)") != NULL, "%s",
                   pcm_last_error()->text);
    }
    pcm_schedule_release(schedule);
}

static void *run_rank(void *argument)
{
    struct rank *me = argument;
    pcm_world *world = me->job->worlds[me->rank];
    int size = me->job->size;
    int32_t ranks[MOST];
    for (int r = 0; r < size; r++) ranks[r] = r;
    pcm_comm *comms[2];
    for (uint64_t i = 0; i < 2; i++)
        RANK_CHECK(pcm_comm_create(world, i + 1, ranks, size, &comms[i]) == PCM_OK, "%s", pcm_last_error()->text);
    collectives(comms[0], me->rank, size);
    started(comms[1], me->rank, size);
    messages(comms[0], me->rank, size);
    if (size > 1) disagreement(comms[1], me->rank, size);
    messages(comms[0], me->rank, size); /* the other communicator is as well as before */
    return NULL;
}

static void run_job(const char *transport, int size)
{
    struct job job = {.transport = transport, .size = size};
    struct rank ranks[MOST];
    char addresses[MOST][ADDRESS];
    size_t bytes[MOST];
    static uint64_t number;
    number++;
    for (int r = 0; r < size; r++) {
        struct pcm_world_config config = {.rank = r, .size = size, .job = number, .transports = transport};
        bytes[r] = ADDRESS;
        CHECK(pcm_world_create(&config, &job.worlds[r]) == PCM_OK, "%s", pcm_last_error()->text);
        CHECK(pcm_world_address(job.worlds[r], addresses[r], &bytes[r]) == PCM_OK, "%s", pcm_last_error()->text);
    }
    for (int r = 0; r < size; r++) {
        for (int q = 0; q < size; q++) pcm_world_set_peer(job.worlds[r], q, addresses[q], bytes[q]);
        ranks[r] = (struct rank){&job, r, 0};
        pthread_create(&ranks[r].thread, NULL, run_rank, &ranks[r]);
    }
    for (int r = 0; r < size; r++) pthread_join(ranks[r].thread, NULL);
    for (int r = 0; r < size; r++) pcm_world_destroy(job.worlds[r]);
}

int main(void)
{
    const char *const transports[] = {"inproc", "shm", "tcp", "chaos:seed=3;deny=0.1;short=0.2;inner=inproc"};
    for (size_t t = 0; t < sizeof transports / sizeof *transports; t++)
        for (int size = 1; size <= MOST; size += 2) run_job(transports[t], size);
    return check_report();
}
