/* reactor.h: one epoll per world, the doorbell that wakes it; transports hang their descriptors on it. */
#ifndef PYCOMM_REACTOR_H
#define PYCOMM_REACTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "pycomm.h"

struct pcm_reactor;

/* A descriptor and what to do when it is ready; embedded in the transport's own objects. */
struct pcm_watch {
    int fd;
    void (*ready)(struct pcm_watch *watch, uint32_t events); /* EPOLLIN, EPOLLOUT, EPOLLHUP, ... */
};

int pcm_reactor_create(struct pcm_reactor **reactor);
void pcm_reactor_destroy(struct pcm_reactor *reactor);

/* Adds, changes or removes a watch (level-triggered). A watch may be removed, and its memory freed, from any callback. */
PCM_API int pcm_reactor_add(struct pcm_reactor *reactor, struct pcm_watch *watch, uint32_t events);
PCM_API int pcm_reactor_change(struct pcm_reactor *reactor, struct pcm_watch *watch, uint32_t events);
PCM_API void pcm_reactor_remove(struct pcm_reactor *reactor, struct pcm_watch *watch);

/* Waits up to timeout_ms (0: just looks) and runs the callbacks of what is ready; returns how many ran. */
PCM_API int pcm_reactor_poll(struct pcm_reactor *reactor, int timeout_ms);
/* Waits until something is ready, without taking it: needs no lock. */
PCM_API int pcm_reactor_sleep(struct pcm_reactor *reactor, int timeout_ms);

/* The descriptor (an eventfd) that wakes the reactor when 8 bytes are written to it: may be passed to another process. */
PCM_API int pcm_reactor_doorbell(struct pcm_reactor *reactor);
/* Wakes a reactor through its doorbell. Async-signal-safe; from any thread. */
PCM_API void pcm_reactor_ring(int doorbell);

#endif
