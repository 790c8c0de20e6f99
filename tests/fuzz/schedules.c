/* schedules.c: what the process that chooses schedules says: read, bound to a call, and run against a mirror. */
#include "../../csrc/core.h"
#include "../../csrc/helper/helper.h"
#include "fuzz.h"

enum { OWN = 1, SIZE = 3, APART = 32, MOST_PIECES = 1 << 14 };

struct wanted { /* a call, and how long its buffers are: in elements */
    struct pcm_call call;
    uint64_t in_counts[SIZE], in_displs[SIZE], out_counts[SIZE], out_displs[SIZE];
    uint64_t in_end, out_end;
    bool in_place;
};

/* How long a buffer is: as its collective says, and no longer. */
static uint64_t end_of(const struct wanted *w, bool all, const uint64_t *counts)
{
    if (!w->call.in_counts) return (all ? SIZE : 1) * w->call.count;
    return all ? (SIZE - 1) * APART + counts[SIZE - 1] : counts[0];
}

static void want(struct wanted *w, struct fuzz_input *in)
{
    static const uint8_t dtypes[] = {PCM_UINT8, PCM_INT32, PCM_FLOAT32, PCM_COMPLEX128};
    uint8_t head[4] = {0};
    fuzz_take(in, head, sizeof head);
    uint8_t collective = head[0] % PCM_NCOLLECTIVES, how = head[1];
    *w = (struct wanted){.call = {.collective = collective,
                                  .dtype = dtypes[how & 3],
                                  .op = how >> 2 & 3,
                                  .count = head[2] % 64,
                                  .root = head[3] % SIZE},
                         .in_place = how & 32};
    for (int b = 0; how & 16 && b < SIZE; b++) {
        w->in_counts[b] = fuzz_byte(in) % APART;
        w->out_counts[b] = fuzz_byte(in) % APART;
        w->in_displs[b] = w->out_displs[b] = (uint64_t)b * APART;
    }
    if (how & 16)
        w->call.in_counts = w->in_counts, w->call.in_displs = w->in_displs, w->call.out_counts = w->out_counts,
        w->call.out_displs = w->out_displs;
    bool root = w->call.root == OWN;
    w->in_end =
        end_of(w, collective == PCM_REDUCE_SCATTER || collective == PCM_ALLTOALL || (collective == PCM_SCATTER && root),
               w->in_counts);
    w->out_end =
        end_of(w, collective == PCM_ALLGATHER || collective == PCM_ALLTOALL || (collective == PCM_GATHER && root),
               w->out_counts);
    if (w->in_place && w->in_end > w->out_end) w->out_end = w->in_end;
}

/* Makes the numbers at the beginning of an answer fit to how long it is, mostly, so that it is looked at. */
static void fit(uint32_t words[9], uint64_t bytes)
{
    enum { NAME = 2, NSTEPS, NCHUNKS, CUT = 8 };
    if ((uint64_t)words[CUT] * SIZE > MOST_PIECES) { /* so many that they are refused: what is in between takes long */
        words[CUT] |= (uint32_t)1 << 30;
        return;
    }
    if (words[NAME] & 0x80) return;
    words[NCHUNKS] %= 16;
    if (16 * (uint64_t)words[NCHUNKS] > bytes) words[NCHUNKS] = (uint32_t)(bytes / 16);
    bytes -= 16 * (uint64_t)words[NCHUNKS];
    words[NSTEPS] = (uint32_t)(bytes / sizeof(struct pcm_step));
    words[NAME] = (uint32_t)(bytes % sizeof(struct pcm_step));
}

/* Runs a schedule; the mirror sends back what is sent, so that schedules that exchange go on. */
static void run(pcm_world *world, struct wanted *w, pcm_schedule *schedule, uint32_t slices, uint32_t window)
{
    static const int32_t ranks[SIZE] = {0, 1, 2};
    pcm_comm *comm;
    pcm_request *request = NULL;
    fuzz_must(!pcm_comm_create(world, 1, ranks, SIZE, &comm), "there is a communicator");
    size_t element = pcm_dtype_size(w->call.dtype);
    char *out = calloc(w->out_end + 1, element), *in = w->in_place ? out : calloc(w->in_end + 1, element);
    /* The ends are where a sanitizer sees them. */
    w->call.out = out + element, w->call.in = w->in_place ? w->call.out : in + element;
    int status = pcm_comm_plan(comm, &w->call, schedule, slices, window);
    if (!status) status = pcm_start(comm, &w->call, &request);
    if (!status) status = PCM_AGAIN;
    for (int turns = 0; turns < 16 && status == PCM_AGAIN; turns++) status = pcm_wait(request, 0, NULL);
    pcm_comm_free(comm);
    if (status == PCM_AGAIN) pcm_wait(request, 0, NULL);
    if (in != out) free(in);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static pcm_world *world;
    struct fuzz_input in = {data, size};
    struct pcm_world_config config = {.rank = OWN, .size = SIZE, .transports = "null"};
    struct wanted wanted;
    uint32_t words[9], slices = 0, window = 0;
    pcm_schedule *schedule = NULL;
    if (!world) {
        fuzz_must(!pcm_world_create(&config, &world), "there is a world");
        for (int r = 0; r < SIZE; r++) pcm_world_set_peer(world, r, "\4null\0", 7);
        pcm_world_callers_only(world);
    }
    want(&wanted, &in);
    size_t head = in.left < sizeof words ? 0 : sizeof words, bytes = in.left;
    char *said = calloc(1, bytes + 1); /* its end is 0, as pcm_helper_ask gives it */
    if (head) {
        fuzz_take(&in, words, head);
        fit(words, in.left);
        memcpy(said, words, head);
    }
    fuzz_take(&in, said + head, in.left);
    if (!pcm_ways_read(said, bytes, &schedule, &slices, &window)) run(world, &wanted, schedule, slices % 16, window);
    free(said);
    pcm_schedule_release(schedule);
    return 0;
}
