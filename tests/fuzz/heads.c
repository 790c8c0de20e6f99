/* heads.c: a peer that is in, and sends any fragments and notices to the core, which is in calls of all kinds. */
#include "../../csrc/core.h"
#include "fuzz.h"

enum { OWN = 0, SIZE = 3, MOST_REQUESTS = 8, LONG = 1 << 20 };
enum act { RECEIVE, RECEIVE_ANY, PROBE, SEND, REDUCE, FRAGMENT, ANSWER, NOTICE, LEAVE };

/* A machine without memory for a message of 128 TiB says so. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }

/* ---- a transport whose peers are the input ------------------------------------------------------------------------- */

struct fed {
    struct pcm_channel base;
    bool there[PCM_LANES];
    struct pcm_head head[PCM_LANES], last; /* last: that was sent */
    size_t bytes[PCM_LANES];
    uint8_t *payload[PCM_LANES]; /* of its own memory, so that a sanitizer sees its end */
    _Alignas(64) uint8_t room[PCM_FRAGMENT];
};

static struct fed *of(struct pcm_channel *channel) { return (struct fed *)channel; }

static const struct pcm_transport fed;

static int fed_open(pcm_world *world, const char *argument, struct pcm_endpoint **out)
{
    (void)argument;
    *out = calloc(1, sizeof **out);
    (*out)->ops = &fed, (*out)->world = world;
    pcm_world_callers_only(world);
    return PCM_OK;
}

static int fed_address(struct pcm_endpoint *endpoint, void *address, size_t *bytes)
{
    (void)endpoint, (void)address;
    *bytes = 0;
    return PCM_OK;
}

static bool fed_reaches(struct pcm_endpoint *endpoint, const void *address, size_t bytes)
{
    (void)endpoint, (void)address, (void)bytes;
    return true;
}

static struct pcm_channel *fed_connect(struct pcm_endpoint *endpoint, int peer, uint64_t id, const void *address,
                                       size_t bytes)
{
    (void)address, (void)bytes;
    struct fed *c = aligned_alloc(64, (sizeof *c + 63) / 64 * 64);
    memset(c, 0, offsetof(struct fed, room));
    c->base = (struct pcm_channel){.ops = &fed, .endpoint = endpoint, .peer = peer, .id = id, .state = PCM_CHANNEL_UP};
    return &c->base;
}

static void *fed_reserve(struct pcm_channel *channel, unsigned lane, size_t want, size_t *room)
{
    (void)lane, (void)want;
    *room = PCM_FRAGMENT;
    return channel->state == PCM_CHANNEL_UP ? of(channel)->room : NULL;
}

static void fed_commit(struct pcm_channel *channel, unsigned lane, const struct pcm_head *head, size_t bytes)
{
    (void)lane;
    fuzz_must(bytes <= PCM_FRAGMENT, "no fragment is longer than a fragment");
    of(channel)->last = *head;
}

static const struct pcm_head *fed_peek(struct pcm_channel *channel, unsigned lane, const void **payload, size_t *bytes)
{
    struct fed *c = of(channel);
    *payload = c->payload[lane], *bytes = c->bytes[lane];
    return c->there[lane] ? &c->head[lane] : NULL;
}

static void fed_release(struct pcm_channel *channel, unsigned lane)
{
    struct fed *c = of(channel);
    free(c->payload[lane]);
    c->payload[lane] = NULL;
    c->there[lane] = false;
}

static bool fed_notice(struct pcm_channel *channel, const void *bytes, size_t length)
{
    (void)channel, (void)bytes;
    return length <= PCM_NOTICE;
}

static void fed_close(struct pcm_channel *channel)
{
    for (unsigned lane = 0; lane < PCM_LANES; lane++) fed_release(channel, lane);
    free(channel);
}

static void fed_shut(struct pcm_endpoint *endpoint) { free(endpoint); }

static const struct pcm_transport fed = {
    .name = "fed",
    .caps = PCM_POLLED,
    .open = fed_open,
    .address = fed_address,
    .reaches = fed_reaches,
    .connect = fed_connect,
    .reserve = fed_reserve,
    .commit = fed_commit,
    .peek = fed_peek,
    .release = fed_release,
    .notice = fed_notice,
    .close = fed_close,
    .shut = fed_shut,
};

const struct pcm_transport *pcm_transport_find(const char *name, size_t length)
{
    return length == 3 && !memcmp(name, "fed", 3) ? &fed : NULL;
}

const char *pcm_transports(void) { return "fed"; }

/* ---- calls ------------------------------------------------------------------------------------------------------------ */

struct called { /* a call under way, and its memory */
    pcm_request *request;
    void *memory, *allocated;
};

static struct called calls[MOST_REQUESTS];
static int ncalls;

/* An allreduce around a ring, in which this rank first reduces what its neighbour sends. */
static int start_reduction(pcm_comm *comm, struct called *call, int dtype, uint64_t count)
{
    static const struct pcm_step steps[] = {
        {PCM_STEP_REDUCE_FROM, PCM_FLAG_END, 0, 2, 0, UINT32_MAX},
        {PCM_STEP_SEND, PCM_FLAG_END, 0, 1, 0, UINT32_MAX},
        {PCM_STEP_RECV, PCM_FLAG_END, 0, 2, 0, UINT32_MAX},
    };
    static const int32_t at[] = {0};
    static const uint32_t like[] = {0};
    struct pcm_schedule_desc desc = {.name = "ring",
                                     .steps = steps,
                                     .nsteps = 3,
                                     .nchunks = 1,
                                     .in_at = at,
                                     .out_at = at,
                                     .like = like,
                                     .in_blocks = 1,
                                     .out_blocks = 1,
                                     .cut = 1};
    size_t bytes = count * pcm_dtype_size(dtype);
    call->memory = calloc(2, bytes + 1);
    struct pcm_call wanted = {.collective = PCM_ALLREDUCE,
                              .dtype = (uint8_t)dtype,
                              .in = call->memory,
                              .out = (char *)call->memory + bytes,
                              .count = count};
    pcm_schedule *schedule;
    int status = pcm_start(comm, &wanted, &call->request);
    if (status != PCM_NO_PLAN) return status;
    status = pcm_schedule_create(&desc, &schedule);
    if (status) return status;
    status = pcm_comm_plan(comm, &wanted, schedule, 2, 2);
    pcm_schedule_release(schedule);
    return status ? status : pcm_start(comm, &wanted, &call->request);
}

static void start(pcm_comm *comm, enum act act, struct fuzz_input *in)
{
    static const int dtypes[] = {PCM_UINT8, PCM_FLOAT32, PCM_FLOAT64, PCM_COMPLEX128};
    if (ncalls == MOST_REQUESTS) return;
    struct called *call = &calls[ncalls];
    *call = (struct called){0};
    int dtype = dtypes[fuzz_byte(in) % 4], peer = fuzz_byte(in) % (SIZE + 1) - 1, tag = fuzz_byte(in) % 4 - 1,
        status = -1;
    uint64_t count = fuzz_byte(in);
    if (count > 250) count *= 64;
    if (act == SEND && (peer < 0 || tag < 0)) return;
    size_t bytes = count * pcm_dtype_size(dtype);
    switch (act) {
    case RECEIVE:
        call->memory = malloc(bytes + !bytes);
        status = pcm_recv_start(comm, call->memory, bytes, dtype, peer, tag, 0, &call->request);
        break;
    case RECEIVE_ANY: status = pcm_recv_any_start(comm, &call->allocated, peer, tag, 0, &call->request); break;
    case PROBE: status = pcm_probe_start(comm, peer, tag, 0, &call->request); break;
    case SEND:
        call->memory = calloc(1, bytes + 1);
        status = (count & 1 ? pcm_ssend_start : pcm_send_start)(comm, call->memory, bytes, dtype, peer, tag, 0,
                                                                &call->request);
        break;
    default: status = start_reduction(comm, call, dtype, count); break;
    }
    if (!status)
        ncalls++;
    else
        free(call->memory);
}

/* ---- what the peer sends ------------------------------------------------------------------------------------------------- */

/* A message is short, or longer than any memory: nobody wants to wait for what is in between. */
static uint64_t length_of(uint64_t bytes) { return bytes <= LONG ? bytes : (uint64_t)1 << 47; }

static void bring(struct pcm_channel *channel, struct fuzz_input *in, bool fitting)
{
    struct fed *c = of(channel);
    uint8_t what = fuzz_byte(in);
    unsigned lane = what % 16 % PCM_LANES;
    if (c->there[lane]) return;
    struct pcm_head head = {0};
    if (fitting) { /* what it would send in a call of ours, but for one field perhaps */
        int k = fuzz_byte(in) % MOST_REQUESTS;
        if (k < ncalls) head = calls[k].request->head;
        if (fuzz_byte(in) & 1) head = c->last;
        uint8_t field = fuzz_byte(in);
        uint8_t value = fuzz_byte(in);
        if (field < 8)
            head.part = value % 5;
        else if (field < 16)
            head.bytes = value;
        else if (field < 24)
            head.slice = value % 4;
        else if (field < 32)
            head.root = value % 4;
        else if (field < 40)
            head.bytes = 64 * value, head.slice = value & 1;
        else if (field < 48)
            ((uint8_t *)&head)[value % sizeof head] ^= fuzz_byte(in);
    } else {
        fuzz_take(in, &head, sizeof head);
    }
    head.bytes = length_of(head.bytes);
    size_t bytes = fuzz_byte(in);
    bytes = bytes < 128                 ? bytes
            : bytes < 192               ? (bytes - 127) * 64
            : head.bytes < PCM_FRAGMENT ? head.bytes
                                        : PCM_FRAGMENT;
    c->payload[lane] = calloc(1, bytes + !bytes);
    c->head[lane] = head, c->bytes[lane] = bytes, c->there[lane] = true;
}

static void notify(pcm_world *world, int peer, struct fuzz_input *in)
{
    struct { /* as in comm.c */
        uint64_t comm;
        int32_t code, rank;
        union {
            char text[PCM_NOTICE - 16];
            struct pcm_head call;
        };
    } notice = {0};
    uint8_t said[4] = {0}, k;
    fuzz_take(in, said, sizeof said);
    notice.comm = said[0] & 1, notice.code = (int8_t)said[1], notice.rank = (int8_t)said[2], k = said[3];
    fuzz_take(in, notice.text, k);
    if (k & 1 && ncalls) notice.call = calls[k % ncalls].request->head, notice.call.count ^= k & 2;
    pthread_mutex_lock(&world->lock);
    pcm_world_on_notice(world, peer, &notice, k & 4 ? sizeof notice : fuzz_byte(in));
    pthread_mutex_unlock(&world->lock);
}

/* ---- a run ------------------------------------------------------------------------------------------------------------------ */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct pcm_world_config config = {.rank = OWN, .size = SIZE, .transports = "fed"};
    static const int32_t ranks[] = {0, 1, 2};
    pcm_world *world;
    pcm_comm *comm;
    ncalls = 0;
    fuzz_must(!pcm_world_create(&config, &world), "there is a world");
    for (int r = 0; r < SIZE; r++) pcm_world_set_peer(world, r, "\3fed\0", 6);
    fuzz_must(!pcm_comm_create(world, 1, ranks, SIZE, &comm), "there is a communicator");
    for (int step = 0; in.left && step < 256; step++) {
        uint8_t what = fuzz_byte(&in);
        int peer = 1 + (what >> 4) % 2;
        pthread_mutex_lock(&world->lock);
        struct pcm_channel *channel = comm->error.code ? comm->channels[peer] : pcm_comm_channel(comm, (uint32_t)peer);
        pthread_mutex_unlock(&world->lock);
        switch (what % 10) {
        case RECEIVE:
        case RECEIVE_ANY:
        case PROBE:
        case SEND:
        case REDUCE: start(comm, what % 10, &in); break;
        case FRAGMENT:
        case ANSWER:
            if (channel) bring(channel, &in, what % 10 == ANSWER);
            break;
        case NOTICE: notify(world, peer, &in); break;
        case LEAVE:
            pthread_mutex_lock(&world->lock);
            if (what >> 6 == 3 && channel)
                pcm_channel_fail(channel, what & 32 ? PCM_CHANNEL_CLOSED : PCM_CHANNEL_LOST, "so it is");
            pthread_mutex_unlock(&world->lock);
            break;
        default: break;
        }
        pthread_mutex_lock(&world->lock);
        for (int turns = 0; turns < 8 && pcm_world_progress(world); turns++) {
        }
        pthread_mutex_unlock(&world->lock);
    }
    pcm_comm_free(comm);
    for (int i = 0; i < ncalls; i++) {
        fuzz_must(pcm_wait(calls[i].request, 0, NULL) != PCM_AGAIN, "who frees a communicator ends its calls");
        free(calls[i].memory), free(calls[i].allocated);
    }
    pcm_world_destroy(world);
    return 0;
}
