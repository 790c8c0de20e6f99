/* inproc.c: ranks as threads of one process, meeting in a table: the reference transport and the test bed of all others. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ring.h"

struct meeting { /* of two ranks: made by the first one's connect, gone after the last one's close */
    struct meeting *next;
    uint64_t job, id;
    int ranks[2], doorbells[2]; /* by side: 0 came first; doorbell -1: not there yet, or gone again */
    bool joined; /* side 1 has come */
    struct ring_pair *pair;
};

struct inproc_channel {
    struct ring_channel ring;
    struct meeting *meeting;
};

struct inproc_endpoint {
    struct pcm_endpoint base;
    struct ring_channel *channels;
};

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static struct meeting *table;

static struct inproc_endpoint *of(struct pcm_endpoint *endpoint) { return (struct inproc_endpoint *)endpoint; }

static int inproc_open(pcm_world *world, const char *argument, struct pcm_endpoint **out)
{
    (void)argument;
    struct inproc_endpoint *e = calloc(1, sizeof *e);
    if (!e) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory");
    e->base.ops = &pcm_inproc, e->base.world = world;
    *out = &e->base;
    return PCM_OK;
}

static int inproc_address(struct pcm_endpoint *endpoint, void *address, size_t *bytes)
{
    int n = snprintf(address, *bytes, "%d/%016llx", (int)getpid(),
                     (unsigned long long)pcm_world_get_config(endpoint->world)->job);
    if (n < 0 || (size_t)n >= *bytes) return pcm_fail(PCM_ERR_ARGUMENT, -1, "the address does not fit");
    *bytes = (size_t)n;
    return PCM_OK;
}

static bool inproc_reaches(struct pcm_endpoint *endpoint, const void *address, size_t bytes)
{
    char own[64];
    size_t n = sizeof own;
    return inproc_address(endpoint, own, &n) == PCM_OK && n == bytes && !memcmp(own, address, n);
}

/* Joins the meeting at which the peer waits for this rank, or makes one to wait in. Under the table's lock. */
static struct meeting *meet(uint64_t job, uint64_t id, int rank, int peer)
{
    for (struct meeting *m = table; m; m = m->next)
        if (!m->joined && m->job == job && m->id == id && m->ranks[0] == peer && m->ranks[1] == rank) {
            m->joined = true;
            return m;
        }
    struct meeting *m = calloc(1, sizeof *m);
    if (!m) return NULL;
    m->pair = mmap(NULL, sizeof *m->pair, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m->pair == MAP_FAILED) {
        free(m);
        return NULL;
    }
    *m = (struct meeting){
        .next = table, .job = job, .id = id, .ranks = {rank, peer}, .doorbells = {-1, -1}, .pair = m->pair};
    return table = m;
}

static struct pcm_channel *inproc_connect(struct pcm_endpoint *endpoint, int peer, uint64_t id, const void *address,
                                          size_t bytes)
{
    (void)address, (void)bytes;
    struct inproc_endpoint *e = of(endpoint);
    const struct pcm_world_config *config = pcm_world_get_config(endpoint->world);
    struct inproc_channel *c = calloc(1, sizeof *c);
    if (!c) return pcm_fail(PCM_ERR_SYSTEM, peer, "out of memory for a channel"), NULL;
    pthread_mutex_lock(&table_lock);
    struct meeting *m = meet(config->job, id, config->rank, peer);
    if (!m) {
        pthread_mutex_unlock(&table_lock);
        free(c);
        return pcm_fail(PCM_ERR_SYSTEM, peer, "out of memory for a channel"), NULL;
    }
    int side = m->joined;
    m->doorbells[side] = pcm_reactor_doorbell(pcm_world_reactor(endpoint->world));
    c->meeting = m;
    c->ring = (struct ring_channel){
        .base = {.ops = &pcm_inproc, .endpoint = endpoint, .peer = peer, .id = id, .state = PCM_CHANNEL_UP},
        .pair = m->pair,
        .side = side,
        .doorbell = -1,
        .next = e->channels};
    e->channels = &c->ring;
    atomic_store(&m->pair->sides[side].reads, 1);
    pthread_mutex_unlock(&table_lock);
    return &c->ring.base;
}

/* The peer's doorbell may be closed as soon as it has left: it is rung under the table's lock, through the meeting. */
static void ring_peer(struct inproc_channel *c)
{
    pthread_mutex_lock(&table_lock);
    int doorbell = c->meeting->doorbells[!c->ring.side];
    if (doorbell >= 0) pcm_reactor_ring(doorbell);
    pthread_mutex_unlock(&table_lock);
}

static void wake(struct pcm_channel *channel)
{
    struct ring_channel *c = (struct ring_channel *)channel;
    struct ring_side *theirs = &c->pair->sides[!c->side];
    if (!atomic_load_explicit(&theirs->asleep, memory_order_seq_cst)) return;
    atomic_store_explicit(&theirs->asleep, 0, memory_order_relaxed);
    ring_peer((struct inproc_channel *)channel);
}

static void inproc_commit(struct pcm_channel *channel, unsigned lane, const struct pcm_head *head, size_t bytes)
{
    ring_commit(channel, lane, head, bytes);
    wake(channel);
}

static bool inproc_lend(struct pcm_channel *channel, unsigned lane, const struct pcm_head *head, const void *from,
                        size_t bytes, uint32_t *ticket)
{
    bool lent = ring_lend(channel, lane, head, from, bytes, ticket);
    if (lent) wake(channel);
    return lent;
}

static void inproc_release(struct pcm_channel *channel, unsigned lane)
{
    ring_release(channel, lane);
    wake(channel);
}

static bool inproc_notice(struct pcm_channel *channel, const void *bytes, size_t length)
{
    bool taken = ring_notice(channel, bytes, length);
    ring_peer((struct inproc_channel *)channel);
    return taken;
}

static void inproc_arm(struct pcm_endpoint *endpoint, bool asleep)
{
    for (struct ring_channel *c = of(endpoint)->channels; c; c = c->next) ring_arm(c, asleep);
}

static void inproc_close(struct pcm_channel *channel)
{
    struct inproc_channel *c = (struct inproc_channel *)channel;
    struct inproc_endpoint *e = of(channel->endpoint);
    ring_leave(&c->ring);
    ring_peer(c);
    pthread_mutex_lock(&table_lock);
    struct meeting *m = c->meeting;
    m->doorbells[c->ring.side] = -1;
    if (m->joined && m->doorbells[!c->ring.side] < 0) {
        struct meeting **at = &table;
        while (*at != m) at = &(*at)->next;
        *at = m->next;
        munmap(m->pair, sizeof *m->pair);
        free(m);
    }
    pthread_mutex_unlock(&table_lock);
    struct ring_channel **at = &e->channels;
    while (*at != &c->ring) at = &(*at)->next;
    *at = c->ring.next;
    free(c);
}

static void inproc_shut(struct pcm_endpoint *endpoint)
{
    while (of(endpoint)->channels) inproc_close(&of(endpoint)->channels->base);
    free(endpoint);
}

const struct pcm_transport pcm_inproc = {
    .name = "inproc",
    .caps = PCM_POLLED | PCM_LOCAL,
    .open = inproc_open,
    .address = inproc_address,
    .reaches = inproc_reaches,
    .connect = inproc_connect,
    .reserve = ring_reserve,
    .commit = inproc_commit,
    .peek = ring_peek,
    .release = inproc_release,
    .path = ring_path_of,
    .lend = inproc_lend,
    .returned = ring_returned,
    .fetch = ring_fetch,
    .withdraw = ring_withdraw,
    .notice = inproc_notice,
    .arm = inproc_arm,
    .close = inproc_close,
    .shut = inproc_shut,
};
