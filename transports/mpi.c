/* mpi.c: messages of whichever MPI this process has loaded: the transport for what runs inside of a job of MPI.
 *
 *   mpi:N     over the communicator that pcm_mpi_attach has called N
 *
 * Nobody rings when a message comes: whoever sleeps wakes up from time to time and looks (a nap: 50 us, then longer ones). If
 * MPI may not be called from any thread at any time (MPI_THREAD_MULTIPLE), there is no thread that makes progress, and all is
 * done in the calls that wait.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "mpi_channel.h"

static const long SHORT_NAP = 50000, LONG_NAP = 1000000; /* nanoseconds */
static const double FLUSH = 2, FAREWELL = 0.2;           /* seconds */

static struct mpi_endpoint *of(struct pcm_endpoint *endpoint) { return (struct mpi_endpoint *)endpoint; }

/* ---- progress --------------------------------------------------------------------------------------------------------- */

/* A peer wants a channel: the oldest of that name that has not met its peer's other end, or a new one, for our core to claim. */
static void welcome(struct mpi_endpoint *e)
{
    const struct mpi_hello *h = &e->hello;
    const struct pcm_world_config *config = pcm_world_get_config(e->base.world);
    const struct mpi_binding *b = e->binding;
    if (h->rank < 0 || h->rank >= config->size || h->target < 0 || h->target >= b->size || h->door < 0 ||
        h->door >= b->most_numbers || h->number < 0 || h->number >= b->most_numbers) {
        pcm_world_count_refused(e->base.world);
        return;
    }
    struct mpi_channel *c = e->channels;
    while (c && (c->base.peer != h->rank || c->base.id != h->id || c->out_number >= 0)) c = c->next;
    if (!c) c = mpi_channel_new(e, h->rank, h->id, h->target, h->door);
    if (!c) return; /* the peer will say that we have not connected */
    c->out_number = h->number;
    if (c->base.state == PCM_CHANNEL_CONNECTING) c->base.state = PCM_CHANNEL_UP;
}

static void mpi_settle(struct pcm_endpoint *endpoint)
{
    struct mpi_endpoint *e = of(endpoint);
    if (e->dead) return;
    for (struct mpi_channel *c = e->channels; c; c = c->next)
        if (c->unsent) mpi_channel_progress(c);
}

static bool listen_for_hello(struct mpi_endpoint *e)
{
    const struct mpi_binding *b = e->binding;
    e->hello_receive = 0;
    int code = b->mpi->irecv(&e->hello, sizeof e->hello, b->mpi->byte, b->mpi->any_source,
                             e->number * MPI_TAGS_EACH + MPI_DOOR, b->comm, &e->hello_receive);
    return e->hello_receiving = !code;
}

static void progress(struct mpi_endpoint *e)
{
    if (e->dead || e->busy) return;
    e->busy = true;
    _Alignas(16) unsigned char status[MPI_STATUS_ROOM];
    for (int flag = 1; e->hello_receiving && flag;) {
        if (e->binding->mpi->test(&e->hello_receive, &flag, status)) flag = 0, e->hello_receiving = false;
        if (!flag) break;
        e->moved = true;
        welcome(e);
        listen_for_hello(e);
    }
    for (struct mpi_channel *c = e->channels; c; c = c->next) mpi_channel_progress(c);
    for (struct mpi_channel **at = &e->channels, *c; (c = *at);) {
        if (c->closed && (c->stuck || mpi_channel_over(c))) {
            *at = c->next;
            mpi_channel_free(c);
        } else {
            at = &c->next;
        }
    }
    e->busy = false;
}

/* ---- sleeping ----------------------------------------------------------------------------------------------------------- */

static void nap(struct mpi_endpoint *e)
{
    struct itimerspec spec = {.it_value = {.tv_nsec = e->nap_ns}};
    timerfd_settime(e->timer.fd, 0, &spec, NULL);
}

static void on_timer(struct pcm_watch *watch, uint32_t events)
{
    (void)events;
    uint64_t expirations;
    while (read(watch->fd, &expirations, sizeof expirations) < 0 && errno == EINTR) {
    }
    struct mpi_endpoint *e = (struct mpi_endpoint *)((char *)watch - offsetof(struct mpi_endpoint, timer));
    progress(e);
    if (e->asleep) nap(e); /* another thread has taken the event that would have woken the sleeper */
}

static void mpi_arm(struct pcm_endpoint *endpoint, bool asleep)
{
    struct mpi_endpoint *e = of(endpoint);
    e->asleep = asleep;
    if (!asleep) return;
    progress(e);
    if ((!e->channels && !e->calls) || e->dead) return;
    e->nap_ns = e->moved ? SHORT_NAP : 2 * e->nap_ns < LONG_NAP ? 2 * e->nap_ns : LONG_NAP;
    e->moved = false;
    nap(e);
}

/* ---- the slots ------------------------------------------------------------------------------------------------------------ */

static int mpi_open(pcm_world *world, const char *argument, struct pcm_endpoint **out)
{
    char *rest;
    long number = strtol(argument, &rest, 10);
    if (!*argument || *rest)
        return pcm_fail(PCM_ERR_ARGUMENT, -1,
                        "the transport mpi needs a communicator of MPI: use Comm.from_mpi, or "
                        "pcm_mpi_attach and `mpi:NUMBER`");
    if (pcm_world_get_config(world)->encrypt)
        return pcm_fail(PCM_ERR_ARGUMENT, -1,
                        "encryption is asked for, and what goes over MPI is not encrypted here: "
                        "use tcp, or do without");
    struct mpi_endpoint *e = calloc(1, sizeof *e);
    if (!e) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for the transport mpi");
    e->base.ops = &pcm_mpi, e->base.world = world, e->nap_ns = SHORT_NAP, e->timer.fd = -1;
    e->binding = mpi_binding_join((int)number, e);
    if (!e->binding) {
        free(e);
        return PCM_ERR_ARGUMENT;
    }
    e->timer = (struct pcm_watch){timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), on_timer};
    e->number = mpi_number_take(e->binding);
    const char *problem = NULL;
    if (e->number < 0)
        problem = "MPI has no tags left";
    else if (e->timer.fd < 0 || pcm_reactor_add(pcm_world_reactor(world), &e->timer, EPOLLIN))
        problem = "the system has no timer left: raise `ulimit -n`";
    else if (!listen_for_hello(e))
        problem = "MPI_Irecv failed";
    if (problem) {
        pcm_mpi.shut(&e->base);
        return pcm_fail(PCM_ERR_SYSTEM, -1, "the transport mpi cannot be opened: %s", problem);
    }
    if (!e->binding->multiple) pcm_world_callers_only(world);
    *out = &e->base;
    return PCM_OK;
}

static int mpi_address(struct pcm_endpoint *endpoint, void *address, size_t *bytes)
{
    const struct mpi_endpoint *e = of(endpoint);
    int n = snprintf(address, *bytes, "%016llx %d %d", (unsigned long long)pcm_world_get_config(endpoint->world)->job,
                     e->binding->rank, e->number);
    if (n < 0 || (size_t)n >= *bytes) return pcm_fail(PCM_ERR_ARGUMENT, -1, "the address does not fit");
    *bytes = (size_t)n;
    return PCM_OK;
}

static bool read_address(struct mpi_endpoint *e, const void *address, size_t bytes, int *target, int *door)
{
    char text[64];
    unsigned long long job;
    int end = 0;
    if (bytes >= sizeof text) return false;
    memcpy(text, address, bytes);
    text[bytes] = 0;
    return sscanf(text, "%16llx %d %d%n", &job, target, door, &end) == 3 && (size_t)end == bytes &&
           job == pcm_world_get_config(e->base.world)->job && *target >= 0 && *target < e->binding->size &&
           *door >= 0 && *door < e->binding->most_numbers;
}

static bool mpi_reaches(struct pcm_endpoint *endpoint, const void *address, size_t bytes)
{
    int target, door;
    return read_address(of(endpoint), address, bytes, &target, &door);
}

static struct pcm_channel *mpi_connect(struct pcm_endpoint *endpoint, int peer, uint64_t id, const void *address,
                                       size_t bytes)
{
    struct mpi_endpoint *e = of(endpoint);
    int target, door;
    if (e->dead) return pcm_fail(PCM_ERR_SYSTEM, peer, "its MPI communicator was freed, or MPI finalized"), NULL;
    if (!read_address(e, address, bytes, &target, &door))
        return pcm_fail(PCM_ERR_ARGUMENT, peer, "its address makes no sense"), NULL;
    progress(e); /* it may have come first */
    struct mpi_channel *c = e->channels;
    while (c && (c->claimed || c->base.peer != peer || c->base.id != id)) c = c->next;
    if (!c) c = mpi_channel_new(e, peer, id, target, door);
    if (!c) return NULL;
    c->claimed = e->moved = true;
    mpi_channel_progress(c);
    return &c->base;
}

static void mpi_close(struct pcm_channel *channel)
{
    struct mpi_channel *c = (struct mpi_channel *)channel;
    struct mpi_endpoint *e = of(channel->endpoint);
    c->closed = c->owes_goodbye = e->moved = true;
    if (!e->dead) return mpi_channel_progress(c);
    struct mpi_channel **at = &e->channels;
    while (*at != c) at = &(*at)->next;
    *at = c->next;
    mpi_channel_free(c);
}

void mpi_endpoint_end(struct mpi_endpoint *e)
{
    double begun = pcm_now();
    for (struct mpi_channel *c = e->channels; c; c = c->next) {
        if (!c->closed)
            pcm_channel_fail(&c->base, PCM_CHANNEL_CLOSED, "its MPI communicator was freed, or MPI finalized");
        if (!c->said_goodbye) c->owes_goodbye = true;
    }
    for (;;) {
        progress(e);
        bool flushed = true, over = true;
        for (const struct mpi_channel *c = e->channels; c; c = c->next) {
            if (!c->claimed && c->out_number < 0) continue;
            flushed &= mpi_channel_flushed(c) || c->left; /* who has left may not take in what is still sent to it */
            over &= mpi_channel_over(c) || c->stuck;
        }
        double spent = pcm_now() - begun;
        if ((flushed && (over || spent > FAREWELL)) || spent > FLUSH) break;
        sched_yield();
    }
    if (e->calls) e->binding->broken = true; /* what collectives need cannot be freed while they are under way */
    mpi_parties_end(e);
    for (struct mpi_channel *c = e->channels; c; c = c->next) mpi_channel_abandon(c);
    if (e->hello_receiving && mpi_take_back(e->binding->mpi, &e->hello_receive)) e->hello_receiving = false;
}

static void mpi_shut(struct pcm_endpoint *endpoint)
{
    struct mpi_endpoint *e = of(endpoint);
    for (struct mpi_channel *c = e->channels; c; c = c->next) c->closed = true;
    if (mpi_binding_part(e)) {
        mpi_endpoint_end(e);
        e->dead = true;
    }
    while (e->channels) {
        struct mpi_channel *c = e->channels;
        e->channels = c->next;
        mpi_channel_free(c);
    }
    if (e->number >= 0) mpi_number_give(e->binding, e->number);
    mpi_binding_leave(e->binding);
    if (e->timer.fd >= 0) {
        pcm_reactor_remove(pcm_world_reactor(endpoint->world), &e->timer);
        close(e->timer.fd);
    }
    if (!e->hello_receiving) free(e); /* else MPI may still write to it */
}

const struct pcm_transport pcm_mpi = {
    .name = "mpi",
    .caps = PCM_POLLED,
    .open = mpi_open,
    .address = mpi_address,
    .reaches = mpi_reaches,
    .connect = mpi_connect,
    .reserve = mpi_reserve,
    .commit = mpi_commit,
    .peek = mpi_peek,
    .release = mpi_release,
    .muster = mpi_muster,
    .dismiss = mpi_dismiss,
    .offers = mpi_offers,
    .launch = mpi_launch,
    .landed = mpi_landed,
    .notice = mpi_notice,
    .arm = mpi_arm,
    .settle = mpi_settle,
    .close = mpi_close,
    .shut = mpi_shut,
};
