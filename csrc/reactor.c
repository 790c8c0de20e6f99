/* reactor.c: see reactor.h. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "reactor.h"
#include "transport.h"

enum { BATCH = 32 };

struct pcm_reactor {
    int epoll;
    struct pcm_watch doorbell;
    struct epoll_event batch[BATCH]; /* being delivered; a removed watch is blanked here */
    int pending, next;
};

static void on_doorbell(struct pcm_watch *watch, uint32_t events)
{
    (void)events;
    uint64_t rings;
    while (read(watch->fd, &rings, sizeof rings) < 0 && errno == EINTR) {
    }
}

int pcm_reactor_create(struct pcm_reactor **out)
{
    struct pcm_reactor *reactor = calloc(1, sizeof *reactor);
    if (!reactor) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for the reactor");
    reactor->epoll = epoll_create1(EPOLL_CLOEXEC);
    reactor->doorbell = (struct pcm_watch){eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), on_doorbell};
    if (reactor->epoll < 0 || reactor->doorbell.fd < 0 || pcm_reactor_add(reactor, &reactor->doorbell, EPOLLIN)) {
        pcm_reactor_destroy(reactor);
        return pcm_fail(PCM_ERR_SYSTEM, -1, "cannot make an epoll and an eventfd (%m): raise `ulimit -n`");
    }
    *out = reactor;
    return PCM_OK;
}

void pcm_reactor_destroy(struct pcm_reactor *reactor)
{
    if (!reactor) return;
    if (reactor->doorbell.fd >= 0) close(reactor->doorbell.fd);
    if (reactor->epoll >= 0) close(reactor->epoll);
    free(reactor);
}

static int control(struct pcm_reactor *reactor, int what, struct pcm_watch *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    if (epoll_ctl(reactor->epoll, what, watch->fd, &event))
        return pcm_fail(PCM_ERR_SYSTEM, -1, "epoll_ctl on descriptor %d: %m", watch->fd);
    return PCM_OK;
}

int pcm_reactor_add(struct pcm_reactor *reactor, struct pcm_watch *watch, uint32_t events)
{
    return control(reactor, EPOLL_CTL_ADD, watch, events);
}

int pcm_reactor_change(struct pcm_reactor *reactor, struct pcm_watch *watch, uint32_t events)
{
    return control(reactor, EPOLL_CTL_MOD, watch, events);
}

void pcm_reactor_remove(struct pcm_reactor *reactor, struct pcm_watch *watch)
{
    epoll_ctl(reactor->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
    for (int i = reactor->next; i < reactor->pending; i++)
        if (reactor->batch[i].data.ptr == watch) reactor->batch[i].data.ptr = NULL;
}

int pcm_reactor_poll(struct pcm_reactor *reactor, int timeout_ms)
{
    if (reactor->next < reactor->pending) return 0; /* called from a callback: the outer call delivers */
    int ready = epoll_wait(reactor->epoll, reactor->batch, BATCH, timeout_ms), ran = 0;
    if (ready <= 0) return 0; /* nothing, or EINTR: the caller comes again */
    reactor->pending = ready;
    for (reactor->next = 0; reactor->next < reactor->pending;) {
        struct epoll_event event = reactor->batch[reactor->next++];
        struct pcm_watch *watch = event.data.ptr;
        if (!watch) continue;
        watch->ready(watch, event.events);
        ran++;
    }
    reactor->next = reactor->pending = 0;
    return ran;
}

int pcm_reactor_sleep(struct pcm_reactor *reactor, int timeout_ms)
{
    /* An epoll is itself pollable: waiting on it takes no event, so the lock's holder delivers later. */
    struct pollfd self = {.fd = reactor->epoll, .events = POLLIN};
    return poll(&self, 1, timeout_ms);
}

int pcm_reactor_doorbell(struct pcm_reactor *reactor) { return reactor->doorbell.fd; }

void pcm_reactor_ring(int doorbell)
{
    uint64_t one = 1;
    int saved = errno;
    while (write(doorbell, &one, sizeof one) < 0 && errno == EINTR) {
    }
    errno = saved;
}
