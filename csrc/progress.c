/* progress.c: what moves a world's operations: threads that wait for one, and a thread of the world's own for those that nobody
 * waits for. */
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "core.h"

/* ---- how many share the processors ---------------------------------------------------------------------- */

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
    /* With two, one is left for the thread of the world's own, while the caller computes. */
    world->spare = !world->callers_only && 2 * ranks <= processors();
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

/* ---- the lock ------------------------------------------------------------------------------------------- */

void pcm_world_enter(pcm_world *world)
{
    enum { ELBOW = 2000 }; /* looks, some 50 us: it takes longer to be woken */
    if (!pthread_mutex_trylock(&world->lock)) return;
    atomic_fetch_add(&world->wanting, 1);
    bool mine = false;
    for (int look = 0; world->spare && look < ELBOW && !mine; look++) {
        pcm_pause();
        mine = !pthread_mutex_trylock(&world->lock);
    }
    if (!mine) pthread_mutex_lock(&world->lock);
    atomic_fetch_sub(&world->wanting, 1);
}

void pcm_world_leave(pcm_world *world) { pthread_mutex_unlock(&world->lock); }

/* Lets in who wants the lock, which its holder would get again at once if it let go of it for a moment only. */
static void give_way(pcm_world *world)
{
    enum { LOOKS = 1000 };
    if (!atomic_load_explicit(&world->wanting, memory_order_relaxed)) return;
    pthread_mutex_unlock(&world->lock);
    for (int look = 0; atomic_load(&world->wanting) && look < LOOKS; look++) {
        if (world->spare)
            pcm_pause();
        else if (!yield_to_peers())
            break;
    }
    pthread_mutex_lock(&world->lock);
}

/* ---- waiting -------------------------------------------------------------------------------------------- */

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
    if (patient) return world->spare ? world->spin : 0;
    bool hopeless = world->in_vain >= PATIENT_WAITS && world->in_vain % PROBE && world->spin > SHORT_SPIN;
    return hopeless ? SHORT_SPIN : world->spin;
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
        give_way(world);
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
            give_way(world);
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

/* ---- the world's own thread ------------------------------------------------------------------------------ */

/* Is there anything to do for the thread, because nobody else does it? */
static bool thread_needed(const pcm_world *world) { return (world->detached || world->unsent) && !world->drivers; }

/* Something that should not wait: all but most messages. Of these there are many, mostly short, and who starts them mostly
 * comes back to wait for them within microseconds, less than it takes to wake a thread. */
static bool urgent(const pcm_world *world) { return world->detached > world->hasty || world->unsent; }

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
                pcm_reactor_poll(world->reactor, 0);
                pcm_world_progress(world);
            }
        } else if (pcm_world_progress(world)) {
            wait.round = 0;
            give_way(world);
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
