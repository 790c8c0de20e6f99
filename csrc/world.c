/* world.c: one rank's membership of a job: its endpoints, what it knows of its peers, and the thread that makes progress
 * for operations nobody waits for. */
#include <sched.h>
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

static int processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

void pcm_world_set_local_ranks(pcm_world *world, int ranks)
{
    /* With a processor for each rank, a peer is not far: spin for some 100 us, then sleep, for whoever else uses the
     * processor would take a yielded turn for milliseconds. Without, the peer needs this very processor: yield it at once,
     * after a single look (twenty looks made a barrier of four ranks on two processors twice as slow). */
    bool crowded = ranks > processors();
    world->spin = crowded ? 0 : 2000;
    world->yields = crowded ? 64 : 0;
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
    pthread_mutex_lock(&world->lock);
    for (double until = pcm_now() + PATIENCE; owes_news(world) && pcm_now() < until;) {
        pcm_reactor_poll(world->reactor, 1);
        pcm_world_progress(world);
    }
    pthread_mutex_unlock(&world->lock);
}

void pcm_world_destroy(pcm_world *world)
{
    if (!world || !pcm_world_is_ours(world)) return;
    struct pcm_aide *aide = world->aide;
    if (aide) aide->leave(aide);
    pthread_mutex_lock(&world->lock);
    world->stopping = true;
    for (pcm_comm *comm = world->comms; comm; comm = comm->next)
        if (comm->active)
            pcm_comm_fail(comm, PCM_ERR_ABORTED, comm->rank, "rank %d left the job during the operation", comm->rank);
    if (world->reactor) pcm_reactor_ring(pcm_reactor_doorbell(world->reactor));
    while (world->drivers) pthread_cond_wait(&world->parked, &world->lock); /* what they waited for has failed */
    pthread_cond_broadcast(&world->parked);
    bool threaded = world->threaded;
    pthread_mutex_unlock(&world->lock);
    if (threaded) pthread_join(world->thread, NULL);
    tell_the_rest(world);
    pthread_mutex_lock(&world->lock);
    while (world->comms) pcm_comm_close(world->comms);
    pthread_mutex_unlock(&world->lock);
    for (int i = 0; i < world->nendpoints; i++) world->endpoints[i]->ops->shut(world->endpoints[i]);
    pcm_reactor_destroy(world->reactor);
    if (aide) aide->end(aide);
    for (int r = 0; r < world->config.size; r++) free(world->peers[r].address);
    free(world->peers), free(world->scratch);
    pthread_mutex_lock(&world->lock);
    world->destroyed = true;
    bool held = world->held;
    pthread_mutex_unlock(&world->lock);
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
    pthread_mutex_lock(&world->lock);
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
    pthread_mutex_unlock(&world->lock);
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
    pthread_mutex_lock(&world->lock);
    free(world->peers[rank].address);
    world->peers[rank].address = copy, world->peers[rank].bytes = bytes;
    pthread_mutex_unlock(&world->lock);
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
    pthread_mutex_lock(&world->lock);
    struct pcm_endpoint *e = endpoint_for(world, rank, &address, &bytes);
    pthread_mutex_unlock(&world->lock);
    return e ? e->ops->name : "";
}

size_t pcm_world_rails(pcm_world *world, char *text, size_t capacity)
{
    size_t used = 0;
    if (capacity) *text = 0;
    if (!pcm_world_is_ours(world)) return 0;
    pthread_mutex_lock(&world->lock);
    for (int i = 0; i < world->nendpoints; i++) {
        struct pcm_endpoint *e = world->endpoints[i];
        bool room = used < capacity;
        if (e->ops->rails) used += e->ops->rails(e, room ? text + used : NULL, room ? capacity - used : 0);
    }
    pthread_mutex_unlock(&world->lock);
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

void pcm_world_callers_only(pcm_world *world) { world->callers_only = true; }
void pcm_world_enter(pcm_world *world) { pthread_mutex_lock(&world->lock); }
void pcm_world_leave(pcm_world *world) { pthread_mutex_unlock(&world->lock); }

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
    pthread_mutex_lock(&world->lock);
    pcm_world_mark_lost(world, rank, why);
    pthread_mutex_unlock(&world->lock);
    pcm_reactor_ring(pcm_reactor_doorbell(world->reactor));
}

/* ---- progress ------------------------------------------------------------------------------------------- */

bool pcm_world_progress(pcm_world *world)
{
    bool moved = false;
    for (pcm_comm *comm = world->comms, *next; comm; comm = next) {
        next = comm->next;
        if (comm->active)
            moved |= pcm_comm_progress(comm);
        else if (comm->untold)
            pcm_comm_tell(comm);
        if (comm->leaving && !comm->untold) pcm_comm_close(comm);
    }
    return moved;
}

static void arm(pcm_world *world, bool asleep)
{
    for (int i = 0; i < world->nendpoints; i++)
        if (world->endpoints[i]->ops->arm) world->endpoints[i]->ops->arm(world->endpoints[i], asleep);
}

static void wait_for(pthread_cond_t *condition, pthread_mutex_t *lock, int microseconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += microseconds * 1000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_cond_timedwait(condition, lock, &until);
}

/* Sleeps until something happens or milliseconds pass. The lock is held before and after, not during. Only one thread
 * sleeps on the reactor: what wakes two may be taken by the first of them before the second has looked. */
static void sleep_on_reactor(pcm_world *world, int milliseconds)
{
    if (world->asleep) {
        world->followers++;
        wait_for(&world->eased, &world->lock, milliseconds * 1000);
        world->followers--;
        return;
    }
    world->asleep = true;
    arm(world, true);
    if (!pcm_world_progress(world)) {
        pthread_mutex_unlock(&world->lock);
        pcm_reactor_sleep(world->reactor, milliseconds);
        pthread_mutex_lock(&world->lock);
    }
    world->asleep = false;
    arm(world, false);
    pcm_reactor_poll(world->reactor, 0);
}

void pcm_world_wake_waiters(pcm_world *world)
{
    if (world->asleep) pcm_reactor_ring(pcm_reactor_doorbell(world->reactor));
    if (world->followers) pthread_cond_broadcast(&world->eased);
}

/* A thread stops making progress: of those that sleep because of it, one must sleep on the reactor now. */
static void hand_over(pcm_world *world)
{
    if (world->followers && !world->asleep) pthread_cond_broadcast(&world->eased);
}

static _Thread_local bool patient; /* this thread waits while others compute: what it spins, they lack */

void pcm_thread_patient(void) { patient = true; }

enum { HASTE = 32, PATIENT_WAITS = 4, SHORT_SPIN = 100, PROBE = 32, NAP = 50 /* milliseconds */ };

/* Where others use the processors too, the kernel may leave two ranks on one of them: a rank that sleeps and wakes another is no
 * reason to move either. There spinning only keeps the peer from what is waited for: 200 us a call instead of 10. So after
 * some waits in vain it is tried for 5 us only, and now and then again to the end. */
static int spins(const pcm_world *world)
{
    if (patient) return 0;
    bool hopeless = world->in_vain >= PATIENT_WAITS && world->in_vain % PROBE && world->spin > SHORT_SPIN;
    return hopeless ? SHORT_SPIN : world->spin;
}

/* Seconds. A peer with nothing to do gives a processor back within microseconds. */
static const double STRANGERS_TURN = 1e-3;

/* Lets others have the processor; false if a stranger took it. Then it is better to sleep: who is woken gets it back soon,
 * while who yields again is behind all that compute (Linux counts a yield as a turn taken). */
static bool yield_to_peers(void)
{
    double before = pcm_now();
    sched_yield();
    return pcm_now() - before < STRANGERS_TURN;
}

/* How many times longer a thread looks that waits for a collective which runs whole: each look is what moves it, and nobody tells
 * whether it did. Some 50 ms, where a sleep between two looks would hold the other ranks up. */
enum { WORKS = 256 };

struct wait {
    int round; /* looks in vain */
    int longer; /* how many times as long as others it looks before it sleeps */
    int nap; /* milliseconds that it may sleep */
};

/* What a waiting thread does when there was nothing to move: it spins, then yields its core, then sleeps. Where data lie in
 * memory, only who sleeps looks at the reactor, which peers connect through: so that must not be put off for long. */
static void idle(pcm_world *world, struct wait *wait)
{
    int spinning = wait->longer * spins(world), yielding = spinning + wait->longer * world->yields;
    if (!world->polled || wait->round % 256 == 255) pcm_reactor_poll(world->reactor, 0);
    if (wait->round < spinning) {
        if (wait->round >= HASTE) pcm_pause();
    } else if (wait->round < yielding) {
        pthread_mutex_unlock(&world->lock);
        bool peers = yield_to_peers();
        pthread_mutex_lock(&world->lock);
        if (!peers && wait->longer == 1) wait->round = yielding - 1;
    } else {
        if (!patient && wait->round == spinning) world->in_vain++;
        sleep_on_reactor(world, wait->nap);
    }
    wait->round++;
}

enum { SETTLE_TURNS = 200 };

/* What has been sent is mostly received within microseconds, by peers that are in the same call. */
static void settle(pcm_world *world)
{
    for (int turn = 0; world->unsent && turn < SETTLE_TURNS; turn++) {
        bool any = false;
        for (int i = 0; i < world->nendpoints; i++)
            if (world->endpoints[i]->ops->settle) world->endpoints[i]->ops->settle(world->endpoints[i]), any = true;
        if (!any || ((patient || !world->spin) && !yield_to_peers())) return;
    }
}

static const double ASK_AFTER = 0.2, ASK_AGAIN = 1; /* seconds */

static void check_deadline(struct pcm_request *request)
{
    double now = pcm_now();
    if (request->deadline == 0) {
        request->deadline = now + request->timeout;
        request->ask = now + ASK_AFTER;
    } else if (now <= request->deadline) {
        if (request->kind != PCM_REQUEST_COLLECTIVE || now < request->ask) return;
        request->ask = now + ASK_AGAIN;
        pcm_collective_ask(request);
    } else {
        char what[384];
        int peer = pcm_request_describe(request, what, sizeof what);
        pcm_comm_fail(request->comm, PCM_ERR_TIMEOUT, peer,
                      "rank %d gave up after %.3g s: %s. Give a longer timeout if the others are only late",
                      request->comm->rank, request->timeout, what);
    }
}

int pcm_request_drive(struct pcm_request *request, double seconds)
{
    pcm_world *world = request->comm->world;
    double until = 0; /* read off the clock only if need be, which takes a tenth of a short call */
    struct wait wait = {.longer = request->launched ? WORKS : 1};
    world->drivers++;
    request->awaited = true;
    while (atomic_load_explicit(&request->status, memory_order_relaxed) == PCM_AGAIN) {
        if (pcm_world_progress(world)) {
            if (wait.round && wait.round <= world->spin && spins(world) == world->spin) world->in_vain = 0;
            wait.round = 0;
            continue;
        }
        wait.nap = NAP;
        if (wait.round >= wait.longer * spins(world) || wait.round % 1024 == 1023) {
            check_deadline(request);
            double now = seconds >= 0 ? pcm_now() : 0;
            if (until == 0) until = now + seconds;
            if (seconds >= 0 && now >= until) {
                pcm_reactor_poll(world->reactor, 0); /* whoever waits in short turns may never come to sleep */
                break;
            }
            if (seconds >= 0 && until - now < 1e-3 * NAP) wait.nap = (int)(1e3 * (until - now)) + 1;
        }
        idle(world, &wait);
    }
    request->awaited = false;
    if (world->drivers == 1) settle(world);
    if (!--world->drivers && world->stopping) pthread_cond_broadcast(&world->parked);
    hand_over(world);
    pcm_world_wake_thread(world);
    return atomic_load_explicit(&request->status, memory_order_relaxed);
}

/* Is there anything to do for the thread, because nobody else does it? */
static bool thread_needed(const pcm_world *world) { return (world->detached || world->unsent) && !world->drivers; }

/* Something that should not wait: all but messages. Of these there are many, mostly short, and who starts them mostly comes
 * back to wait for them within microseconds, less than it takes to wake a thread. */
static bool urgent(const pcm_world *world) { return world->detached > world->messages || world->unsent; }

enum { DOZE = 1000 }; /* microseconds: a wake-up may cost 50 of them on a virtual machine */

static void *progress_thread(void *argument)
{
    pcm_world *world = argument;
    uint64_t seen = 0;
    pcm_thread_patient();
    pthread_mutex_lock(&world->lock);
    struct wait wait = {.longer = 1, .nap = NAP};
    while (!world->stopping) {
        bool needed = thread_needed(world), lively = world->entries != seen;
        if (!needed || (lively && !urgent(world))) {
            hand_over(world);
            seen = world->entries;
            world->dozing = lively;
            if (lively)
                wait_for(&world->parked, &world->lock, DOZE);
            else
                pthread_cond_wait(&world->parked, &world->lock);
            world->dozing = false;
            wait.round = 0;
            if (lively && thread_needed(world) && !world->stopping) { /* who starts messages looks at their own only */
                if (!world->polled) pcm_reactor_poll(world->reactor, 0);
                pcm_world_progress(world);
            }
        } else if (pcm_world_progress(world)) {
            wait.round = 0;
        } else {
            for (pcm_comm *comm = world->comms; comm; comm = comm->next)
                for (struct pcm_request *r = comm->active, *next; r && wait.round >= spins(world); r = next) {
                    next = r->next;
                    check_deadline(r);
                    if (comm->error.code) break;
                }
            if (world->detached)
                idle(world, &wait);
            else
                sleep_on_reactor(world, NAP);
        }
    }
    pthread_mutex_unlock(&world->lock);
    return NULL;
}

int pcm_world_start_thread(pcm_world *world)
{
    if (world->threaded || world->callers_only) return PCM_OK;
    int rc = pthread_create(&world->thread, NULL, progress_thread, world);
    if (rc) return pcm_fail(PCM_ERR_SYSTEM, -1, "cannot start the progress thread: %s", strerror(rc));
    world->threaded = true;
    return PCM_OK;
}

void pcm_world_unsent(pcm_world *world, int change)
{
    world->unsent += change;
    pcm_world_wake_thread(world);
}

void pcm_world_wake_thread(pcm_world *world)
{
    if (!thread_needed(world) || world->stopping) return;
    if (world->dozing && !urgent(world)) return;
    /* if it cannot be started, the next call makes progress */
    if (pcm_world_start_thread(world) == PCM_OK) pthread_cond_signal(&world->parked);
}
