/* test_executor.c: the core as a C program uses it, with ranks as threads: collectives by schedules made by hand, messages,
 * many operations at once, several threads a rank, and failures. For the sanitizers: test_executor [transport ...]. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../csrc/core.h"
#include "check.h"

enum { MOST_RANKS = 8, ADDRESS = 1024, TAG = 5 };
static const double PATIENCE = 60; /* seconds: a hang becomes a failure */

static const char *transport;
static int size; /* ranks of the job that is running */
static uint64_t job;
static pthread_barrier_t together;
static unsigned char addresses[MOST_RANKS][ADDRESS];
static size_t address_bytes[MOST_RANKS];
static pthread_mutex_t checking = PTHREAD_MUTEX_INITIALIZER; /* check.h counts without locks */

#define EXPECT(CONDITION, ...)                                                                                         \
    do {                                                                                                               \
        bool as_expected = (CONDITION);                                                                                \
        pthread_mutex_lock(&checking);                                                                                 \
        CHECK(as_expected, #CONDITION ": " __VA_ARGS__);                                                               \
        pthread_mutex_unlock(&checking);                                                                               \
    } while (0)

struct rank {
    int rank;
    pcm_world *world;
    pcm_comm *comm;
    void (*work)(struct rank *);
};

/* ---- jobs ------------------------------------------------------------------------------------------------------ */

static void *be_a_rank(void *argument)
{
    struct rank *r = argument;
    struct pcm_world_config config = {.rank = r->rank, .size = size, .job = job, .transports = transport};
    int32_t ranks[MOST_RANKS];
    int rc = pcm_world_create(&config, &r->world);
    EXPECT(!rc, "%s: %s", transport, pcm_last_error()->text);
    address_bytes[r->rank] = ADDRESS;
    rc = pcm_world_address(r->world, addresses[r->rank], &address_bytes[r->rank]);
    EXPECT(!rc, "%s: %s", transport, pcm_last_error()->text);
    pthread_barrier_wait(&together);
    for (int i = 0; i < size; i++) {
        ranks[i] = i;
        pcm_world_set_peer(r->world, i, addresses[i], address_bytes[i]);
    }
    rc = pcm_comm_create(r->world, 1, ranks, size, &r->comm);
    EXPECT(!rc, "%s: %s", transport, pcm_last_error()->text);
    pcm_comm_set_timeout(r->comm, PATIENCE);
    r->work(r);
    pthread_barrier_wait(&together);
    pcm_world_destroy(r->world);
    return NULL;
}

static void run(int ranks, void (*work)(struct rank *))
{
    struct rank all[MOST_RANKS];
    pthread_t threads[MOST_RANKS];
    size = ranks;
    job++;
    pthread_barrier_init(&together, NULL, (unsigned)ranks);
    for (int r = 0; r < ranks; r++) {
        all[r] = (struct rank){.rank = r, .work = work};
        pthread_create(&threads[r], NULL, be_a_rank, &all[r]);
    }
    for (int r = 0; r < ranks; r++) pthread_join(threads[r], NULL);
    pthread_barrier_destroy(&together);
}

/* ---- schedules ------------------------------------------------------------------------------------------------- */

struct pen {
    struct pcm_step steps[8 * MOST_RANKS];
    int32_t in_at[2 * MOST_RANKS], out_at[2 * MOST_RANKS], passed_at[2 * MOST_RANKS];
    uint32_t like[2 * MOST_RANKS], n, passed; /* passed: blocks that go on, the first chunks */
};

static void write_step(struct pen *pen, uint8_t kind, int peer, int chunk)
{
    pen->steps[pen->n++] =
        (struct pcm_step){.kind = kind, .peer = (uint32_t)((peer + size) % size), .chunk = (uint32_t)chunk};
}

static void end_round(struct pen *pen)
{
    if (pen->n) pen->steps[pen->n - 1].flags |= PCM_FLAG_END;
}

static pcm_schedule *finish(struct pen *pen, const char *name, uint32_t chunks, uint32_t in, uint32_t out, uint32_t cut)
{
    for (uint32_t c = 0; c < chunks; c++) {
        pen->like[c] = c < pen->passed ? pen->passed : c;
        pen->passed_at[c] = c < pen->passed ? (int32_t)c : -1;
    }
    struct pcm_schedule_desc desc = {.name = name,
                                     .steps = pen->steps,
                                     .nsteps = pen->n,
                                     .nchunks = chunks,
                                     .in_at = pen->in_at,
                                     .out_at = pen->out_at,
                                     .like = pen->like,
                                     .in_blocks = in,
                                     .out_blocks = out,
                                     .cut = cut,
                                     .passed_at = pen->passed ? pen->passed_at : NULL,
                                     .passed_blocks = pen->passed};
    pcm_schedule *schedule = NULL;
    EXPECT(!pcm_schedule_create(&desc, &schedule), "%s: %s", name, pcm_last_error()->text);
    return schedule;
}

static pcm_schedule *ring_allreduce(int rank)
{
    struct pen pen = {.n = 0};
    for (int c = 0; c < size; c++) pen.in_at[c] = pen.out_at[c] = c;
    for (int k = 0; k < 2 * (size - 1); k++) {
        int back = k < size - 1 ? k : k - size; /* after the reduction each rank holds the chunk after its own */
        write_step(&pen, PCM_STEP_SEND, rank + 1, (rank - back + 2 * size) % size);
        write_step(&pen, k < size - 1 ? PCM_STEP_REDUCE_FROM : PCM_STEP_RECV, rank - 1,
                   (rank - back - 1 + 2 * size) % size);
        end_round(&pen);
    }
    return finish(&pen, "ring", (uint32_t)size, 1, 1, (uint32_t)size);
}

static pcm_schedule *doubling_allreduce(int rank)
{
    struct pen pen = {.in_at = {0}, .out_at = {0}};
    for (int mask = 1; mask < size; mask *= 2) {
        write_step(&pen, PCM_STEP_SEND, rank ^ mask, 0);
        write_step(&pen, PCM_STEP_REDUCE_FROM, rank ^ mask, 0);
        if (rank & mask) pen.steps[pen.n - 1].flags |= PCM_FLAG_SWAP;
        end_round(&pen);
    }
    return finish(&pen, "doubling", 1, 1, 1, 1);
}

/* Rank 0's buffer goes from rank to rank: every fragment may be passed on as it arrives. */
static pcm_schedule *chain_broadcast(int rank)
{
    struct pen pen = {.in_at = {rank ? -1 : 0}, .out_at = {0}};
    if (rank) write_step(&pen, PCM_STEP_RECV, rank - 1, 0), end_round(&pen);
    if (rank + 1 < size) write_step(&pen, PCM_STEP_SEND, rank + 1, 0), end_round(&pen);
    return finish(&pen, "chain", 1, rank == 0, 1, 1);
}

static void write_message(struct pen *pen, uint8_t kind, int peer, int chunks)
{
    for (int c = 0; c < chunks; c++) {
        write_step(pen, kind, peer, c);
        if (c + 1 < chunks) pen->steps[pen->n - 1].flags |= PCM_FLAG_MORE;
    }
    end_round(pen);
}

/* Every rank adds its block to those that come and passes all on, up to the last rank. */
static pcm_schedule *chain_gather(int rank)
{
    bool root = rank + 1 == size;
    struct pen pen = {.passed = root ? 0 : (uint32_t)rank};
    for (int b = 0; b <= rank; b++) pen.in_at[b] = b == rank ? 0 : -1, pen.out_at[b] = root ? b : -1;
    write_message(&pen, PCM_STEP_RECV, rank - 1, rank);
    if (!root) write_message(&pen, PCM_STEP_SEND, rank + 1, rank + 1);
    return finish(&pen, "chain", (uint32_t)rank + 1, 1, root ? (uint32_t)size : 0, 1);
}

static pcm_schedule *direct_alltoall(int rank)
{
    struct pen pen = {.n = 0};
    for (int q = 0; q < size; q++) {
        pen.in_at[q] = q, pen.out_at[q] = q == rank ? q : -1;
        pen.in_at[size + q] = -1, pen.out_at[size + q] = q;
        if (q != rank) write_step(&pen, PCM_STEP_SEND, q, q), write_step(&pen, PCM_STEP_RECV, q, size + q);
    }
    pen.in_at[size + rank] = pen.out_at[size + rank] = -1; /* the chunk that stays is the first one */
    pen.in_at[size + rank] = rank;
    end_round(&pen);
    return finish(&pen, "direct", 2 * (uint32_t)size, (uint32_t)size, (uint32_t)size, 1);
}

/* ---- collectives ------------------------------------------------------------------------------------------------- */

static int start(pcm_comm *comm, struct pcm_call *call, pcm_schedule *schedule, uint32_t slices, uint32_t window,
                 pcm_request **request)
{
    int rc = pcm_start(comm, call, request);
    if (rc == PCM_NO_PLAN && !(rc = pcm_comm_plan(comm, call, schedule, slices, window)))
        rc = pcm_start(comm, call, request);
    return rc;
}

static int call_now(pcm_comm *comm, struct pcm_call *call, pcm_schedule *schedule, uint32_t slices, uint32_t window)
{
    int rc = pcm_run(comm, call, -1);
    if (rc == PCM_NO_PLAN && !(rc = pcm_comm_plan(comm, call, schedule, slices, window))) rc = pcm_run(comm, call, -1);
    return rc;
}

static struct pcm_call allreduce_call(const void *in, void *out, uint64_t count, unsigned variant)
{
    return (struct pcm_call){.collective = PCM_ALLREDUCE,
                             .dtype = PCM_INT32,
                             .op = PCM_SUM,
                             .variant = (uint8_t)variant,
                             .in = in,
                             .out = out,
                             .count = count};
}

static int32_t given(int rank, uint64_t i) { return (int32_t)(i % 1000) * (rank + 1); }
static int32_t summed(uint64_t i) { return (int32_t)(i % 1000) * (size * (size + 1) / 2); }

static int32_t *input(int rank, uint64_t n)
{
    int32_t *x = malloc((n + 1) * sizeof *x);
    for (uint64_t i = 0; i < n; i++) x[i] = given(rank, i);
    return x;
}

static bool is_sum(const int32_t *x, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (x[i] != summed(i)) return false;
    return true;
}

static const uint64_t counts[] = {0, 1, 7, 1000, 50001, 300000};
enum { COUNTS = sizeof counts / sizeof counts[0] };

static void collectives(struct rank *r)
{
    pcm_schedule *ring = ring_allreduce(r->rank), *chain = chain_broadcast(r->rank), *direct = direct_alltoall(r->rank);
    pcm_schedule *doubling = (size & (size - 1)) == 0 ? doubling_allreduce(r->rank) : NULL;
    for (int k = 0; k < COUNTS; k++) {
        uint64_t n = counts[k];
        for (unsigned variant = 0; variant < 6; variant++) {
            pcm_schedule *schedule = variant % 2 && doubling ? doubling : ring;
            uint32_t slices = 1 + 2 * (variant / 2);
            int32_t *in = input(r->rank, n), *out = malloc((n + 1) * sizeof *out);
            struct pcm_call call = allreduce_call(in, out, n, variant);
            int rc = call_now(r->comm, &call, schedule, slices, slices < 3 ? slices : 3);
            EXPECT(!rc && is_sum(out, n), "%s: allreduce of %llu on %d ranks: %d", transport, (unsigned long long)n,
                   size, rc);
            call.out = in; /* in place */
            rc = call_now(r->comm, &call, schedule, slices, 1);
            EXPECT(!rc && is_sum(in, n), "%s: in place, %llu on %d ranks: %d", transport, (unsigned long long)n, size,
                   rc);
            free(in), free(out);
        }
        int32_t *x = r->rank ? malloc((n + 1) * sizeof *x) : input(0, n);
        struct pcm_call cast = {
            .collective = PCM_BROADCAST, .dtype = PCM_INT32, .in = r->rank ? NULL : x, .out = x, .count = n};
        int rc = call_now(r->comm, &cast, chain, 1 + (unsigned)k, 1);
        bool right = !rc;
        for (uint64_t i = 0; i < n; i++) right &= x[i] == given(0, i);
        EXPECT(right, "%s: broadcast of %llu on %d ranks: %d", transport, (unsigned long long)n, size, rc);
        free(x);
        uint64_t each = n / 8;
        int32_t *out = malloc((each * (uint64_t)size + 1) * sizeof *out), *in = input(r->rank, each * (uint64_t)size);
        struct pcm_call all = {.collective = PCM_ALLTOALL, .dtype = PCM_INT32, .in = in, .out = out, .count = each};
        rc = call_now(r->comm, &all, direct, 2, 2);
        right = !rc;
        for (int q = 0; q < size; q++)
            for (uint64_t i = 0; i < each; i++)
                right &= out[(uint64_t)q * each + i] == given(q, (uint64_t)r->rank * each + i);
        EXPECT(right, "%s: alltoall of %llu on %d ranks: %d", transport, (unsigned long long)each, size, rc);
        free(in), free(out);
    }
    pcm_schedule_release(ring), pcm_schedule_release(chain), pcm_schedule_release(direct),
        pcm_schedule_release(doubling);
}

/* Blocks of other ranks go on, whose lengths the call tells. */
static void passing(struct rank *r)
{
    bool root = r->rank + 1 == size;
    pcm_schedule *chain = chain_gather(r->rank);
    for (int k = 0; k < COUNTS; k++) {
        uint64_t lengths[MOST_RANKS], total = 0;
        for (int b = 0; b < size; b++) total += lengths[b] = (uint64_t)(b + k) % 3 * counts[k] / 2;
        int32_t *in = input(r->rank, lengths[r->rank]), *out = malloc((total + 1) * sizeof *out);
        struct pcm_call call = {.collective = PCM_GATHER,
                                .dtype = PCM_INT32,
                                .root = size - 1,
                                .in = in,
                                .out = root ? out : NULL,
                                .in_counts = &lengths[r->rank],
                                .out_counts = root ? lengths : NULL};
        int rc = PCM_ERR_ARGUMENT;
        if (r->rank && !root) rc = call_now(r->comm, &call, chain, 1, 1);
        EXPECT(rc == PCM_ERR_ARGUMENT, "%s: lengths that nobody tells: %d", transport, rc);
        call.passed_counts = lengths;
        pcm_request *request = NULL;
        rc = k % 2 ? call_now(r->comm, &call, chain, 1, 1) : start(r->comm, &call, chain, 1, 1, &request);
        if (request) {
            memset(&call, 0, sizeof call); /* the counts were copied */
            rc = pcm_wait(request, -1, NULL);
        }
        bool right = !rc;
        for (uint64_t at = 0, b = 0; root && b < (uint64_t)size; at += lengths[b++])
            for (uint64_t i = 0; i < lengths[b]; i++) right &= out[at + i] == given((int)b, i);
        EXPECT(right, "%s: gather by a chain of %d ranks: %d", transport, size, rc);
        free(in), free(out);
    }
    pcm_schedule_release(chain);
}

/* More operations than lanes, each longer than the last by `step`, collected from the last to the first, with and without
 * anybody waiting. */
static void many_by(struct rank *r, uint64_t step)
{
    enum { MANY = 24 };
    pcm_schedule *ring = ring_allreduce(r->rank);
    for (int turn = 0; turn < 3; turn++) {
        pcm_request *requests[MANY];
        int32_t *in[MANY], *out[MANY];
        for (int i = 0; i < MANY; i++) {
            uint64_t n = (uint64_t)i * step;
            in[i] = input(r->rank, n), out[i] = malloc((n + 1) * sizeof *out[i]);
            struct pcm_call call = allreduce_call(in[i], out[i], n, (unsigned)i % 3);
            int rc = start(r->comm, &call, ring, 1 + (unsigned)i % 3, 1 + (unsigned)i % 3, &requests[i]);
            EXPECT(!rc, "%s: %s", transport, pcm_last_error()->text);
        }
        if (turn == 1) usleep(20000); /* the thread of the world has the wheel */
        for (int i = MANY; i-- > 0;) {
            int rc;
            while ((rc = pcm_wait(requests[i], turn == 2 ? 0 : -1, NULL)) == PCM_AGAIN) {
            }
            EXPECT(!rc && is_sum(out[i], (uint64_t)i * step), "%s: operation %d of many: %d", transport, i, rc);
            free(in[i]), free(out[i]);
        }
    }
    pcm_schedule_release(ring);
}

static void many_at_once(struct rank *r) { many_by(r, 977); }

/* ---- messages ------------------------------------------------------------------------------------------------------ */

static void messages(struct rank *r)
{
    enum { MANY = 30 };
    int to = (r->rank + 1) % size, from = (r->rank + size - 1) % size;
    pcm_request *sends[MANY], *receives[MANY];
    unsigned char *out[MANY], *in[MANY];
    for (int i = 0; i < MANY; i++) {
        uint64_t n = (uint64_t)i * i * 331; /* eager and announced */
        out[i] = malloc(n + 1), in[i] = malloc(n + 1);
        memset(out[i], i + r->rank, n);
        int rc = pcm_send_start(r->comm, out[i], n, PCM_UINT8, to, i, 0, &sends[i]);
        EXPECT(!rc, "%s: %s", transport, pcm_last_error()->text);
    }
    for (int i = MANY; i-- > 0;) {
        int rc = pcm_recv_start(r->comm, in[i], (uint64_t)i * i * 331, PCM_UINT8, i % 2 ? from : PCM_ANY_SOURCE, i, 0,
                                &receives[i]);
        EXPECT(!rc, "%s: %s", transport, pcm_last_error()->text);
    }
    for (int i = 0; i < MANY; i++) {
        struct pcm_status_info info;
        uint64_t n = (uint64_t)i * i * 331;
        int rc = pcm_wait(receives[i], -1, &info);
        bool right = !rc && info.source == from && info.tag == i && info.bytes == n;
        for (uint64_t b = 0; b < n; b++) right &= in[i][b] == (unsigned char)(i + from);
        EXPECT(right, "%s: message %d: %d from %d, %llu bytes", transport, i, rc, info.source,
               (unsigned long long)info.bytes);
        EXPECT(!pcm_wait(sends[i], -1, NULL), "%s: send %d", transport, i);
        free(in[i]), free(out[i]);
    }
}

/* Messages of lengths that the receiver does not know: received of any length, and looked at before; to oneself too. */
static void unknown_lengths(struct rank *r)
{
    enum { MANY = 12 };
    int to = (r->rank + 1) % size, from = (r->rank + size - 1) % size;
    pcm_request *sends[MANY], *receives[MANY], *request;
    unsigned char *out[MANY];
    void *in[MANY];
    struct pcm_status_info info;
    for (int i = 0; i < MANY; i += 2) {
        int source = i % 4 ? from : PCM_ANY_SOURCE;
        EXPECT(!pcm_recv_any_start(r->comm, &in[i], source, i, 0, &receives[i]), "%s", transport);
    }
    for (int i = 0; i < MANY; i++) {
        uint64_t n = (uint64_t)i * i * 1500; /* eager, announced, and none at all */
        out[i] = malloc(n + 1);
        memset(out[i], i + r->rank, n);
        int rc = (i % 3 ? pcm_send_start : pcm_ssend_start)(r->comm, out[i], n, PCM_UINT8, to, i, 0, &sends[i]);
        EXPECT(!rc, "%s: %s", transport, pcm_last_error()->text);
    }
    for (int i = 1; i < MANY; i += 2) {
        uint64_t n = (uint64_t)i * i * 1500;
        int rc = pcm_probe_start(r->comm, from, i, 0, &request);
        if (!rc) rc = pcm_wait(request, -1, &info);
        EXPECT(!rc && info.source == from && info.tag == i && info.bytes == n && info.dtype == PCM_UINT8,
               "%s: probe %d: %d", transport, i, rc);
        rc = pcm_probe(r->comm, PCM_ANY_SOURCE, i, &info, &in[i], 0, &receives[i]);
        EXPECT(!rc && info.bytes == n, "%s: what was seen is taken: %d", transport, rc);
    }
    for (int i = 0; i < MANY; i++) {
        uint64_t n = (uint64_t)i * i * 1500;
        int rc = pcm_wait(receives[i], -1, &info);
        bool right = !rc && info.source == from && info.tag == i && info.bytes == n && in[i];
        for (uint64_t b = 0; right && b < n; b++) right = ((unsigned char *)in[i])[b] == (unsigned char)(i + from);
        EXPECT(right, "%s: message %d of any length: %d", transport, i, rc);
        EXPECT(!pcm_wait(sends[i], -1, NULL), "%s: send %d", transport, i);
        free(in[i]), free(out[i]);
    }
    int32_t x = 5, y = 0;
    EXPECT(pcm_probe(r->comm, r->rank, 99, &info, NULL, 0, NULL) == PCM_AGAIN, "%s: nothing is there", transport);
    EXPECT(!pcm_ssend_start(r->comm, &x, sizeof x, PCM_INT32, r->rank, 99, 0, &sends[0]), "%s", transport);
    EXPECT(pcm_wait(sends[0], 0, NULL) == PCM_AGAIN, "%s: a synchronous send to oneself waits", transport);
    EXPECT(!pcm_probe(r->comm, r->rank, 99, &info, NULL, 0, NULL) && info.bytes == sizeof x, "%s", transport);
    EXPECT(!pcm_recv_start(r->comm, &y, sizeof y, PCM_INT32, r->rank, 99, 0, &receives[0]), "%s", transport);
    EXPECT(!pcm_wait(receives[0], -1, NULL) && !pcm_wait(sends[0], -1, NULL) && y == 5, "%s", transport);
    EXPECT(!pcm_recv_any_start(r->comm, &in[0], from, 98, 0, &receives[0]), "%s", transport);
    EXPECT(!pcm_probe_start(r->comm, from, 98, 0, &receives[1]), "%s", transport);
    for (int i = 0; i < 2; i++) {
        EXPECT(!pcm_cancel(receives[i]) && pcm_cancel(receives[i]) == PCM_AGAIN, "%s: it is cancelled once", transport);
        EXPECT(!pcm_wait(receives[i], -1, &info) && info.source == PCM_ANY_SOURCE, "%s", transport);
    }
    EXPECT(!in[0], "%s: what was cancelled has no memory", transport);
}

/* ---- threads ------------------------------------------------------------------------------------------------------- */

struct talk {
    struct rank *rank;
    int number;
};

/* One of several threads of a rank: an own communicator for collectives, and messages by an own tag on the shared one. */
static void *one_of_several(void *argument)
{
    const struct talk *talk = argument;
    struct rank *r = talk->rank;
    int32_t ranks[MOST_RANKS];
    for (int i = 0; i < size; i++) ranks[i] = i;
    pcm_comm *own;
    int rc = pcm_comm_create(r->world, 100 + (uint64_t)talk->number, ranks, size, &own);
    EXPECT(!rc, "%s: %s", transport, pcm_last_error()->text);
    pcm_comm_set_timeout(own, PATIENCE);
    pcm_schedule *ring = ring_allreduce(r->rank);
    for (int turn = 0; turn < 30; turn++) {
        uint64_t n = (uint64_t)(turn * 61 * (talk->number + 1)) % 3000;
        int32_t *in = input(r->rank, n), *out = malloc((n + 1) * sizeof *out), heard = -1, said = turn;
        struct pcm_call call = allreduce_call(in, out, n, 0);
        rc = call_now(own, &call, ring, 1, 1);
        EXPECT(!rc && is_sum(out, n), "%s: a thread's allreduce: %d", transport, rc);
        pcm_request *receive, *send;
        rc = pcm_recv_start(r->comm, &heard, sizeof heard, PCM_INT32, (r->rank + size - 1) % size, talk->number, 0,
                            &receive);
        if (!rc)
            rc = pcm_send_start(r->comm, &said, sizeof said, PCM_INT32, (r->rank + 1) % size, talk->number, 0, &send);
        if (!rc) rc = pcm_wait(send, -1, NULL);
        if (!rc) rc = pcm_wait(receive, -1, NULL);
        EXPECT(!rc && heard == turn, "%s: a thread's message: %d, %d and not %d", transport, rc, heard, turn);
        free(in), free(out);
    }
    pcm_schedule_release(ring);
    return NULL; /* the communicator goes with the world: others may still need it */
}

static void several_threads(struct rank *r)
{
    enum { THREADS = 3 };
    pthread_t threads[THREADS];
    struct talk talks[THREADS];
    for (int i = 0; i < THREADS; i++) {
        talks[i] = (struct talk){r, i};
        pthread_create(&threads[i], NULL, one_of_several, &talks[i]);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
}

/* Where it has a processor of its own, a world's thread does what is long, and makes room for callers that start more. */
static void room_for_threads(struct rank *r)
{
    pcm_world_set_local_ranks(r->world, 1);
    several_threads(r);
    many_by(r, 9770);
}

/* ---- strangers ------------------------------------------------------------------------------------------------------ */

static _Atomic unsigned stranger_us; /* how long a yielded processor is gone */

/* In the place of the C library's: as it is where others compute on every processor. */
int sched_yield(void)
{
    unsigned gone = atomic_load(&stranger_us);
    if (gone) usleep(gone);
    return (int)syscall(SYS_sched_yield);
}

/* As Python calls: a short stay in C, over and over. Whoever waits must come to look at connections in each. */
static void among_strangers(struct rank *r)
{
    pcm_schedule *ring = ring_allreduce(r->rank);
    int32_t x = r->rank + 1, y = 0;
    struct pcm_call call = allreduce_call(&x, &y, 1, 0);
    pcm_request *request = NULL;
    pcm_world_set_local_ranks(r->world, 1 << 20);
    pcm_comm_set_timeout(r->comm, 10);
    EXPECT(!pcm_comm_plan(r->comm, &call, ring, 1, 1), "%s: %s", transport, pcm_last_error()->text);
    double begun = pcm_now();
    int rc = pcm_run(r->comm, &call, 0.05);
    if (rc == PCM_AGAIN) pcm_late_request(&request);
    while (request && (rc = pcm_wait(request, 0.05, NULL)) == PCM_AGAIN) {
    }
    EXPECT(!rc && y == size * (size + 1) / 2, "%s: %d after %g s, %s", transport, rc, pcm_now() - begun,
           rc ? pcm_last_error()->text : "wrong");
    pcm_schedule_release(ring);
}

/* ---- failures ------------------------------------------------------------------------------------------------------- */

static void *abort_soon(void *comm)
{
    usleep(20000);
    pcm_comm_abort(comm, "enough");
    return NULL;
}

/* A blocked call, requests in flight and one collected late all end when another thread aborts. */
static void aborted(struct rank *r)
{
    pcm_request *requests[12];
    int32_t *x = input(r->rank, 100000), *y = malloc(100001 * sizeof *y), z;
    pcm_schedule *ring = ring_allreduce(r->rank);
    if (r->rank == 0) {
        pthread_t thread;
        for (int i = 0; i < 11; i++) {
            struct pcm_call call = allreduce_call(x, y, 100000 - (uint64_t)i, 0);
            EXPECT(!start(r->comm, &call, ring, 2, 2, &requests[i]), "%s: %s", transport, pcm_last_error()->text);
        }
        EXPECT(!pcm_recv_start(r->comm, &z, sizeof z, PCM_INT32, 1, TAG, 0, &requests[11]), "%s", transport);
        pthread_create(&thread, NULL, abort_soon, r->comm);
        struct pcm_call call = allreduce_call(x, y, 5, 0);
        int rc = call_now(r->comm, &call, ring, 1, 1);
        EXPECT(rc == PCM_ERR_ABORTED && strstr(pcm_last_error()->text, "enough"), "%s: %d", transport, rc);
        pthread_join(thread, NULL);
        for (int i = 0; i < 12; i++)
            EXPECT(pcm_wait(requests[i], -1, NULL) == PCM_ERR_ABORTED, "%s: request %d", transport, i);
        rc = pcm_run(r->comm, &call, -1);
        EXPECT(rc == PCM_ERR_ABORTED, "%s: afterwards: %d", transport, rc);
    } else {
        int rc = pcm_recv_start(r->comm, &z, sizeof z, PCM_INT32, 0, TAG, 0, &requests[0]);
        if (!rc) rc = pcm_wait(requests[0], -1, NULL);
        EXPECT(rc == PCM_ERR_ABORTED, "%s: the peer: %d", transport, rc);
    }
    pcm_schedule_release(ring);
    free(x), free(y);
}

static void late(struct rank *r)
{
    pcm_schedule *ring = ring_allreduce(r->rank);
    int32_t x = 1, y = 0;
    struct pcm_call call = allreduce_call(&x, &y, 1, 0);
    call.timeout = r->rank == 0 ? 0.1 : PATIENCE;
    if (r->rank == 0) {
        int rc = call_now(r->comm, &call, ring, 1, 1);
        EXPECT(rc == PCM_ERR_TIMEOUT && pcm_last_error()->rank >= 0, "%s: %d", transport, rc);
        EXPECT(strstr(pcm_last_error()->text, "round 1 of") && strstr(pcm_last_error()->text, "bytes"), "%s: %s",
               transport, pcm_last_error()->text);
    }
    pthread_barrier_wait(&together);
    pcm_schedule_release(ring);
}

static void disagreeing(struct rank *r)
{
    pcm_schedule *ring = ring_allreduce(r->rank);
    int32_t x[16] = {0}, y[16];
    int rc = PCM_OK;
    for (uint64_t turn = 0; turn < 1000 && !rc; turn++) {
        struct pcm_call call = allreduce_call(x, y, r->rank ? 16 : 15, 0);
        rc = call_now(r->comm, &call, ring, 1, 1);
    }
    EXPECT(rc == PCM_ERR_MISMATCH && strstr(pcm_last_error()->text, "count 15") &&
               strstr(pcm_last_error()->text, "count 16"),
           "%s: %d, %s", transport, rc, pcm_last_error()->text);
    pcm_schedule_release(ring);
}

static void *wait_for_it(void *request) { return (void *)(intptr_t)pcm_wait(request, -1, NULL); }

static void *run_it(void *argument)
{
    struct rank *r = argument;
    int32_t x = 1, y;
    struct pcm_call call = allreduce_call(&x, &y, 1, 0);
    return (void *)(intptr_t)pcm_run(r->comm, &call, -1);
}

/* The communicator goes away under a waiting thread and a blocked call; requests may be collected afterwards. */
static void freed(struct rank *r)
{
    pcm_schedule *ring = ring_allreduce(r->rank);
    int32_t x = 1, y, z;
    struct pcm_call call = allreduce_call(&x, &y, 1, 0);
    EXPECT(!call_now(r->comm, &call, ring, 1, 1) && y == size, "%s: %s", transport, pcm_last_error()->text);
    pthread_barrier_wait(&together);
    if (r->rank == 0) {
        pthread_t threads[2];
        pcm_request *waited, *kept;
        void *result[2];
        EXPECT(!pcm_recv_start(r->comm, &z, sizeof z, PCM_INT32, PCM_ANY_SOURCE, TAG, 0, &waited), "%s", transport);
        EXPECT(!pcm_recv_start(r->comm, &z, sizeof z, PCM_INT32, 1, TAG, 0, &kept), "%s", transport);
        pthread_create(&threads[0], NULL, wait_for_it, waited);
        pthread_create(&threads[1], NULL, run_it, r);
        usleep(50000);
        pcm_comm_free(r->comm);
        for (int i = 0; i < 2; i++) {
            pthread_join(threads[i], &result[i]);
            EXPECT((intptr_t)result[i] == PCM_ERR_ABORTED, "%s: thread %d: %d", transport, i, (int)(intptr_t)result[i]);
        }
        EXPECT(pcm_wait(kept, -1, NULL) == PCM_ERR_ABORTED, "%s", transport);
    }
    pcm_schedule_release(ring);
}

/* A request that is collected after its whole world has gone. */
static pcm_request *outlived[MOST_RANKS];

static void left_behind(struct rank *r)
{
    static int32_t z[MOST_RANKS];
    EXPECT(!pcm_recv_start(r->comm, &z[r->rank], sizeof z[0], PCM_INT32, r->rank, TAG, 0, &outlived[r->rank]), "%s",
           transport);
}

/* In a process that is forked with operations in flight, each call fails or does nothing; the rank's go on. */
static void forked(struct rank *r)
{
    pcm_schedule *ring = ring_allreduce(r->rank);
    int32_t x = 1, y, z = 0, sent = 3;
    struct pcm_call call = allreduce_call(&x, &y, 1, 0);
    pcm_request *receive, *late = NULL;
    EXPECT(!call_now(r->comm, &call, ring, 1, 1) && y == size, "%s: %s", transport, pcm_last_error()->text);
    EXPECT(!pcm_recv_start(r->comm, &z, sizeof z, PCM_INT32, !r->rank, TAG, 0, &receive), "%s", transport);
    pid_t child = fork();
    if (!child) {
        struct pcm_status_info info;
        size_t bytes = ADDRESS;
        int failed = pcm_run(r->comm, &call, -1) != PCM_ERR_ARGUMENT;
        failed |= (strstr(pcm_last_error()->text, "was forked from rank") == NULL) << 1;
        failed |= (pcm_start(r->comm, &call, &late) != PCM_ERR_ARGUMENT) << 2;
        failed |= (pcm_comm_plan(r->comm, &call, ring, 1, 1) != PCM_ERR_ARGUMENT) << 3;
        failed |= (pcm_send_start(r->comm, &x, sizeof x, PCM_INT32, !r->rank, TAG, 0, &late) != PCM_ERR_ARGUMENT) << 4;
        failed |= (pcm_probe(r->comm, !r->rank, TAG, &info, NULL, 0, NULL) != PCM_ERR_ARGUMENT) << 5;
        failed |= (pcm_wait(receive, 0, NULL) != PCM_ERR_ARGUMENT || pcm_cancel(receive) != PCM_AGAIN) << 6;
        failed |= (pcm_world_address(r->world, addresses[0], &bytes) != PCM_ERR_ARGUMENT) << 7;
        pcm_comm_abort(r->comm, "a child's wish");
        pcm_world_peer_lost(r->world, !r->rank, "a child's mistake");
        pcm_comm_free(r->comm);
        pcm_world_destroy(r->world);
        _exit(failed);
    }
    int status;
    EXPECT(waitpid(child, &status, 0) == child && !status, "%s: what was not refused: %#x", transport, status);
    EXPECT(!pcm_send_start(r->comm, &sent, sizeof sent, PCM_INT32, !r->rank, TAG, 0, &late), "%s", transport);
    EXPECT(!pcm_wait(receive, -1, NULL) && !pcm_wait(late, -1, NULL) && z == 3, "%s", transport);
    EXPECT(!pcm_run(r->comm, &call, -1) && y == size, "%s: %s", transport, pcm_last_error()->text);
    pcm_schedule_release(ring);
}

int main(int argc, char **argv)
{
    static const char *all[] = {"inproc", "shm", "tcp"};
    static const int sizes[] = {1, 2, 3, 4, 7};
    for (int t = 0; t < (argc > 1 ? argc - 1 : 3); t++) {
        transport = argc > 1 ? argv[t + 1] : all[t];
        for (int s = 0; s < 5; s++) run(sizes[s], collectives);
        for (int s = 0; s < 4; s++) run(sizes[s], many_at_once);
        for (int s = 0; s < 5; s++) run(sizes[s], passing);
        run(1, messages), run(2, messages), run(3, messages);
        run(1, unknown_lengths), run(2, unknown_lengths), run(3, unknown_lengths);
        run(2, several_threads), run(2, room_for_threads), run(3, room_for_threads);
        atomic_store(&stranger_us, 5000);
        run(3, among_strangers);
        atomic_store(&stranger_us, 0);
        run(2, aborted), run(2, late), run(2, disagreeing), run(4, disagreeing), run(2, freed), run(2, forked);
        run(2, left_behind);
        for (int r = 0; r < 2; r++) EXPECT(pcm_wait(outlived[r], -1, NULL) == PCM_ERR_ABORTED, "%s", transport);
    }
    return check_report();
}
