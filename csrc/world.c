/* world.c: one rank's membership of a job: its endpoints, and what it knows of its peers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core.h"

const char *pcm_version(void) { return PCM_VERSION; }

int pcm_reduce_local(int dtype, int op, void *dst, const void *a, const void *b, size_t n)
{
    pcm_reduce_fn *reduce = pcm_reduce_kernel(dtype, op);
    if (!reduce)
        return pcm_fail(PCM_ERR_ARGUMENT, -1, "%s is not defined for %s", pcm_op_name(op), pcm_dtype_name(dtype));
    reduce(dst, NULL, a, b, n, 0);
    return PCM_OK;
}

void pcm_copy_bytes(void *dst, const void *src, size_t bytes, int stream) { pcm_copy(dst, NULL, src, bytes, stream); }

/* ---- forks ------------------------------------------------------------------------------------------ */

unsigned pcm_forks;

static void count_fork(void) { pcm_forks++; }
static void watch_forks(void) { pthread_atfork(NULL, NULL, count_fork); }

int pcm_world_refuse(const pcm_world *world)
{
    return pcm_fail(
        PCM_ERR_ARGUMENT, -1,
        "process %d was forked from rank %d, whose communicators are of no use in it: start it as a new program "
        "(in Python, multiprocessing's spawn or forkserver), or have it not communicate",
        (int)getpid(), world->config.rank);
}

/* ---- opening ---------------------------------------------------------------------------------------- */

static int open_endpoints(pcm_world *world, const char *names)
{
    char refusals[1024] = "";
    while (*names) {
        size_t length = strcspn(names, ",");
        size_t bare = strcspn(names, ":,");
        const struct pcm_transport *t = pcm_transport_find(names, bare);
        if (!t) return pcm_last_error()->code;
        if (world->nendpoints == PCM_MAX_ENDPOINTS)
            return pcm_fail(PCM_ERR_ARGUMENT, -1, "more than %d transports are asked for", PCM_MAX_ENDPOINTS);
        char *argument = bare < length ? strndup(names + bare + 1, length - bare - 1) : strdup("");
        if (!argument) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for the name of a transport");
        int rc = t->open(world, argument, &world->endpoints[world->nendpoints]);
        free(argument);
        if (rc == PCM_OK) {
            world->polled &= !!(t->caps & PCM_POLLED);
            world->nendpoints++;
        } else if (rc != PCM_ERR_SYSTEM) { /* not the machine's fault: another transport is not what was asked for */
            return rc;
        } else {
            size_t used = strlen(refusals);
            snprintf(refusals + used, sizeof refusals - used, "%s%s: %s", used ? "; " : "", t->name,
                     pcm_last_error()->text);
        }
        names += length + (names[length] == ',');
    }
    if (!world->nendpoints) return pcm_fail(PCM_ERR_SYSTEM, -1, "no transport can be opened (%s)", refusals);
    return PCM_OK;
}

int pcm_world_create(const struct pcm_world_config *config, pcm_world **out)
{
    if (config->size < 1 || config->rank < 0 || config->rank >= config->size)
        return pcm_fail(PCM_ERR_ARGUMENT, -1, "rank %d of %d is not a rank", config->rank, config->size);
    pcm_world *world = calloc(1, sizeof *world);
    if (world) {
        world->peers = calloc((size_t)config->size, sizeof *world->peers);
        world->scratch = aligned_alloc(64, PCM_FRAGMENT);
    }
    if (!world || !world->peers || !world->scratch) {
        if (world) free(world->peers), free(world->scratch);
        free(world);
        return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for a world of %d ranks", config->size);
    }
    static pthread_once_t watched = PTHREAD_ONCE_INIT;
    pthread_once(&watched, watch_forks);
    world->forks = pcm_forks;
    world->config = *config;
    pthread_mutex_init(&world->lock, NULL);
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&world->eased, &clock);
    pthread_cond_init(&world->parked, &clock);
    pthread_condattr_destroy(&clock);
    world->polled = true;
    world->tick0 = pcm_ticks(), world->time0 = pcm_now();
    pcm_world_set_local_ranks(world, config->size);
    int rc = pcm_reactor_create(&world->reactor);
    if (!rc) rc = open_endpoints(world, config->transports ? config->transports : "shm,tcp");
    world->config.transports = world->config.listen = world->config.advertise = NULL; /* the caller's memory */
    if (rc) {
        struct pcm_error why = *pcm_last_error();
        pcm_world_destroy(world);
        return pcm_fail(rc, why.rank, "%s", why.text);
    }
    *out = world;
    return PCM_OK;
}

static bool owes_news(const pcm_world *world)
{
    for (const pcm_comm *comm = world->comms; comm; comm = comm->next)
        if (comm->untold) return true;
    return false;
}

/* Peers that are about to be connected hear why a communicator has failed, or would take the end of this rank for the reason. */
static void tell_the_rest(pcm_world *world)
{
    static const double PATIENCE = 0.5; /* seconds */
    pcm_world_enter(world);
    for (double until = pcm_now() + PATIENCE; owes_news(world) && pcm_now() < until;) {
        pcm_reactor_poll(world->reactor, 1);
        pcm_world_progress(world);
    }
    pcm_world_leave(world);
}

void pcm_world_destroy(pcm_world *world)
{
    if (!world || !pcm_world_is_ours(world)) return;
    struct pcm_aide *aide = world->aide;
    if (aide) aide->leave(aide);
    pcm_world_enter(world);
    world->stopping = true;
    for (pcm_comm *comm = world->comms; comm; comm = comm->next)
        if (comm->active)
            pcm_comm_fail(comm, PCM_ERR_ABORTED, comm->rank, "rank %d left the job during the operation", comm->rank);
    if (world->reactor) pcm_reactor_ring(pcm_reactor_doorbell(world->reactor));
    while (world->drivers) pthread_cond_wait(&world->parked, &world->lock); /* what they waited for has failed */
    pthread_cond_broadcast(&world->parked);
    bool threaded = world->threaded;
    pcm_world_leave(world);
    if (threaded) pthread_join(world->thread, NULL);
    tell_the_rest(world);
    pcm_world_enter(world);
    while (world->comms) pcm_comm_close(world->comms);
    pcm_world_leave(world);
    for (int i = 0; i < world->nendpoints; i++) world->endpoints[i]->ops->shut(world->endpoints[i]);
    pcm_reactor_destroy(world->reactor);
    if (aide) aide->end(aide);
    for (int r = 0; r < world->config.size; r++) free(world->peers[r].address);
    free(world->peers), free(world->scratch);
    pcm_world_enter(world);
    world->destroyed = true;
    bool held = world->held;
    pcm_world_leave(world);
    if (!held) pcm_world_release(world);
}

void pcm_world_release(pcm_world *world)
{
    pthread_cond_destroy(&world->parked);
    pthread_cond_destroy(&world->eased);
    pthread_mutex_destroy(&world->lock);
    free(world);
}

/* ---- addresses: for each endpoint, its transport's name, a length and its bytes ------------------------ */

int pcm_world_address(pcm_world *world, void *address, size_t *bytes)
{
    unsigned char *at = address, *end = at + *bytes;
    if (!pcm_world_is_ours(world)) return pcm_world_refuse(world);
    pcm_world_enter(world);
    int rc = PCM_OK;
    for (int i = 0; i < world->nendpoints && !rc; i++) {
        struct pcm_endpoint *e = world->endpoints[i];
        size_t name = strlen(e->ops->name), room = 0;
        if (end - at < (ptrdiff_t)(name + 4)) {
            rc = pcm_fail(PCM_ERR_ARGUMENT, -1, "the address does not fit in %zu bytes", *bytes);
            break;
        }
        *at++ = (unsigned char)name;
        memcpy(at, e->ops->name, name);
        at += name;
        room = (size_t)(end - at - 2);
        rc = e->ops->address(e, at + 2, &room);
        at[0] = (unsigned char)(room & 255), at[1] = (unsigned char)(room >> 8);
        at += 2 + room;
    }
    pcm_world_leave(world);
    if (!rc) *bytes = (size_t)(at - (unsigned char *)address);
    return rc;
}

/* Finds a transport's part of a peer's address; NULL if the peer does not have that transport. */
static const void *address_of(const struct pcm_peer *peer, const char *name, size_t *bytes)
{
    const unsigned char *at = peer->address, *end = at + peer->bytes;
    while (end - at > 3) {
        size_t length = *at++;
        if ((size_t)(end - at) < length + 2) return NULL;
        size_t payload = at[length] | (size_t)at[length + 1] << 8;
        bool found = strlen(name) == length && !memcmp(at, name, length);
        at += length + 2;
        if ((size_t)(end - at) < payload) return NULL;
        if (found) {
            *bytes = payload;
            return at;
        }
        at += payload;
    }
    return NULL;
}

int pcm_world_set_peer(pcm_world *world, int rank, const void *address, size_t bytes)
{
    if (!pcm_world_is_ours(world)) return pcm_world_refuse(world);
    if (rank < 0 || rank >= world->config.size)
        return pcm_fail(PCM_ERR_ARGUMENT, rank, "there is no rank %d in a world of %d", rank, world->config.size);
    void *copy = malloc(bytes ? bytes : 1);
    if (!copy) return pcm_fail(PCM_ERR_SYSTEM, rank, "out of memory for an address");
    memcpy(copy, address, bytes);
    pcm_world_enter(world);
    free(world->peers[rank].address);
    world->peers[rank].address = copy, world->peers[rank].bytes = bytes;
    pcm_world_leave(world);
    return PCM_OK;
}

/* The first transport, in order of preference, that both sides have and that reaches the peer. */
static struct pcm_endpoint *endpoint_for(pcm_world *world, int rank, const void **address, size_t *bytes)
{
    for (int i = 0; i < world->nendpoints; i++) {
        struct pcm_endpoint *e = world->endpoints[i];
        *address = address_of(&world->peers[rank], e->ops->name, bytes);
        if (*address && e->ops->reaches(e, *address, *bytes)) return e;
    }
    return NULL;
}

const char *pcm_world_transport(pcm_world *world, int rank)
{
    const void *address;
    size_t bytes;
    if (rank < 0 || rank >= world->config.size || !pcm_world_is_ours(world)) return "";
    pcm_world_enter(world);
    struct pcm_endpoint *e = endpoint_for(world, rank, &address, &bytes);
    pcm_world_leave(world);
    return e ? e->ops->name : "";
}

size_t pcm_world_rails(pcm_world *world, char *text, size_t capacity)
{
    size_t used = 0;
    if (capacity) *text = 0;
    if (!pcm_world_is_ours(world)) return 0;
    pcm_world_enter(world);
    for (int i = 0; i < world->nendpoints; i++) {
        struct pcm_endpoint *e = world->endpoints[i];
        bool room = used < capacity;
        if (e->ops->rails) used += e->ops->rails(e, room ? text + used : NULL, room ? capacity - used : 0);
    }
    pcm_world_leave(world);
    return used;
}

struct pcm_channel *pcm_comm_channel(pcm_comm *comm, uint32_t peer)
{
    if (comm->channels[peer]) return comm->channels[peer];
    int rank = comm->ranks[peer];
    const void *address;
    size_t bytes;
    struct pcm_endpoint *e = endpoint_for(comm->world, rank, &address, &bytes);
    if (!e) {
        pcm_comm_fail(comm, PCM_ERR_SYSTEM, (int)peer,
                      "rank %u (rank %d of the world) cannot be reached by any transport: %s", peer, rank,
                      comm->world->peers[rank].address ? "its addresses are on another host or network"
                                                       : "its address is not known (pcm_world_set_peer)");
        return NULL;
    }
    struct pcm_channel *channel = e->ops->connect(e, rank, comm->id, address, bytes);
    if (!channel)
        pcm_comm_fail(comm, pcm_last_error()->code, (int)peer, "cannot connect to rank %u: %s", peer,
                      pcm_last_error()->text);
    pcm_world_wake_waiters(comm->world); /* whoever sleeps must arm this channel too */
    return comm->channels[peer] = channel;
}

/* ---- what transports report ----------------------------------------------------------------------------- */

const struct pcm_world_config *pcm_world_get_config(pcm_world *world) { return &world->config; }
struct pcm_reactor *pcm_world_reactor(pcm_world *world) { return world->reactor; }
void pcm_world_count_refused(pcm_world *world) { atomic_fetch_add_explicit(&world->refused, 1, memory_order_relaxed); }
uint64_t pcm_world_refused(pcm_world *world) { return atomic_load(&world->refused); }

void pcm_world_callers_only(pcm_world *world)
{
    world->callers_only = true;
    world->spare = false;
}

void pcm_channel_fail(struct pcm_channel *channel, int state, const char *why)
{
    if (channel->state >= PCM_CHANNEL_CLOSED) return;
    channel->state = state;
    snprintf(channel->why, sizeof channel->why, "%s", why);
    if (state == PCM_CHANNEL_LOST) pcm_world_mark_lost(channel->endpoint->world, channel->peer, why);
}

void pcm_world_mark_lost(pcm_world *world, int rank, const char *why)
{
    struct pcm_peer *peer = &world->peers[rank];
    if (peer->lost || rank == world->config.rank) return;
    peer->lost = true;
    snprintf(peer->why, sizeof peer->why, "%s", why);
    for (pcm_comm *comm = world->comms; comm; comm = comm->next)
        for (int r = 0; r < comm->size; r++)
            if (comm->ranks[r] == rank) pcm_comm_lost(comm, (uint32_t)r);
}

void pcm_world_peer_lost(pcm_world *world, int rank, const char *why)
{
    if (rank < 0 || rank >= world->config.size || !pcm_world_is_ours(world)) return;
    pcm_world_enter(world);
    pcm_world_mark_lost(world, rank, why);
    pcm_world_leave(world);
    pcm_reactor_ring(pcm_reactor_doorbell(world->reactor));
}
