/* harness.h: just enough of a world to drive one transport without the core: what transports call, and a few verbs. */
#ifndef PYCOMM_HARNESS_H
#define PYCOMM_HARNESS_H

#include "../../csrc/transport.h"

struct pcm_world {
    struct pcm_world_config config;
    struct pcm_reactor *reactor;
    struct pcm_endpoint *endpoint;
    unsigned char address[512];
    size_t address_bytes;
    _Atomic unsigned long refused; /* connections turned away */
    int unsent;                    /* channels on which something waits to leave */
    unsigned long notices;         /* that have arrived */
    unsigned char notice[PCM_NOTICE];
    size_t notice_bytes;
    unsigned rounds;
};

enum { HARNESS_JOB = 77 };

/* A world of one transport, given as in a configuration: "tcp", "chaos:seed=1;inner=tcp"; "+tcp": encrypted. NULL (said) if it cannot
 * open. Worlds that know the same secret trust each other; NULL: no authentication. */
pcm_world *harness_world(const char *transport, int rank, int size, const char *secret);
pcm_world *harness_world_with(const char *transport, const struct pcm_world_config *config);
void harness_end(pcm_world *world);
/* Whether the transport, and what it wraps, is linked into this program. */
bool harness_linked(const char *transport);

struct pcm_channel *harness_connect(pcm_world *world, const pcm_world *peer, uint64_t id);
/* One round of what a waiting core does. */
void harness_poll(pcm_world *world);
/* Sleeps as the core does, until a doorbell or a descriptor wakes it: arm, look once more (`idle` says whether there is
 * still nothing), sleep. */
void harness_sleep(pcm_world *world, bool (*idle)(void *), void *user, int milliseconds);

/* Sends `bytes` bytes derived from `mark` as one fragment; false if the lane has no room. */
bool harness_send(struct pcm_channel *channel, unsigned lane, uint32_t mark, size_t bytes);
/* Receives a fragment: false if there is none; else it must be the one that harness_send made of (mark, bytes), else it
 * counts as a failed check. bytes SIZE_MAX: any. */
bool harness_receive(struct pcm_channel *channel, unsigned lane, uint32_t mark, size_t bytes);
/* Seconds on the monotonic clock. */
double harness_now(void);
/* A cheap keyed hash in the place of a real MAC; user: the secret. */
int harness_mac(void *user, const void *data, size_t bytes, uint8_t mac[32]);

extern long harness_passed, harness_failed; /* checks made in harness.c */

#endif
