/* transport.h: the contract between the core and a transport. A transport moves fragments; it knows no collective.
 *
 * The picture: two ranks that need each other open one channel per communicator. A channel has PCM_LANES lanes in
 * each direction; a lane is a FIFO of a few fragments that live in the transport's own memory. The core fills a
 * fragment in place (reserve, commit) and empties it in place (peek, release), so that it can reduce straight out of
 * the peer's memory; what a transport does between commit and peek is its own affair (shared memory: nothing; tcp:
 * frames over several streams, with credits).
 *
 * Threads: a world is single-threaded inside; every slot and every callback runs under the world's lock.
 * Blocking: no slot may block, except open and shut (briefly).
 * Errors: a slot that fails marks the channel (pcm_channel_fail) with the sentence that a person will read.
 *
 * A transport may also come from a shared object of its own: see PCM_TRANSPORT_PLUGIN at the end.
 */
#ifndef PYCOMM_TRANSPORT_H
#define PYCOMM_TRANSPORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include "clock.h"
#include "pycomm.h"
#include "reactor.h"

enum {
    PCM_OP_LANES = 8,           /* for collectives */
    PCM_LANE_P2P = 8,           /* point-to-point envelopes and small messages */
    PCM_LANE_BULK = 9,          /* point-to-point payloads that were asked for */
    PCM_LANES = 10,
    PCM_FRAGMENT = 64 * 1024,   /* bytes: the most that a fragment carries; a multiple of every dtype's size */
    PCM_SLOTS = 4,              /* fragments that fit in a lane */
    PCM_LONG = 4 * 1024,        /* bytes: of what is shorter it does not matter how it is copied */
    PCM_LEND = 256 * 1024,      /* bytes: what is shorter is never lent */
    PCM_NOTICE = 512,           /* bytes: the longest notice */
};

/* What every fragment says of the call that it belongs to; compared on arrival, so that ranks that disagree find out. */
#define PCM_UNEVEN UINT64_MAX
struct pcm_head {
    uint32_t seq;                        /* number of the operation on its communicator */
    uint8_t collective, dtype, op, part; /* part: of point-to-point messages, see p2p.c */
    int32_t root;                        /* or the tag */
    uint32_t slice;                      /* which piece of the buffer */
    uint64_t count;                      /* elements of the call; PCM_UNEVEN */
    uint64_t bytes : 48; /* of the whole message, of which this fragment carries the next piece; no memory has more */
    uint64_t mark : 16;  /* of a collective's plan: which algorithm, in which slices */
};
_Static_assert(sizeof(struct pcm_head) == 32, "the header is part of the wire format");

enum pcm_channel_state {
    PCM_CHANNEL_CONNECTING,
    PCM_CHANNEL_UP,
    PCM_CHANNEL_CLOSED, /* the peer said goodbye; what it had sent can still be read */
    PCM_CHANNEL_LOST,   /* the peer vanished, or was refused; what it had sent before can still be read */
};

/* The part of a channel that the core knows; a transport embeds it as the first member of its own. */
struct pcm_channel {
    const struct pcm_transport *ops;
    struct pcm_endpoint *endpoint;
    int peer;    /* world rank */
    uint64_t id; /* the communicator's; channels of two ranks with the same id belong together */
    int state;   /* enum pcm_channel_state */
    bool told;   /* that its communicator has failed */
    char why[128];
};

/* The part of an endpoint (a transport's instance in a world) that the core knows; embedded first likewise. */
struct pcm_endpoint {
    const struct pcm_transport *ops;
    pcm_world *world;
    struct pcm_endpoint *inner; /* of a wrapping transport such as chaos; else NULL */
};

enum pcm_path { /* of a long message, from one process's memory to the other's */
                PCM_COPIED,
                PCM_STREAMED, /* copied, past the caches of the writer */
                PCM_LENT
};

enum pcm_transport_caps {
    PCM_POLLED = 1, /* fragments show up in memory (peek sees them); otherwise they need pcm_reactor_poll */
    PCM_LOCAL = 2,  /* reaches this host only */
};

struct pcm_transport {
    const char *name;
    unsigned caps;

    /* Makes this world's endpoint. May read pcm_world_config through pcm_world_get_config. PCM_ERR_SYSTEM with a sentence
     * (pcm_fail) if the machine cannot do it; the world then goes on without this transport if it has another. */
    int (*open)(pcm_world *world, const char *argument, struct pcm_endpoint **endpoint);
    /* Writes the opaque address that peers need, at most *bytes, and its length. */
    int (*address)(struct pcm_endpoint *endpoint, void *address, size_t *bytes);
    /* True if a peer with that address can be reached by this transport: same host, same network, ... */
    bool (*reaches)(struct pcm_endpoint *endpoint, const void *address, size_t bytes);
    /* Starts to open a channel, or hands over the one that the peer opened first. Returns at once with a channel
     * that is CONNECTING or UP; NULL (and pcm_fail) if it cannot even start. Progress comes from the reactor.
     * Fragments may be reserved only once it is UP. The transport owns the memory until close. */
    struct pcm_channel *(*connect)(struct pcm_endpoint *endpoint, int peer, uint64_t id, const void *address,
                                   size_t bytes);

    /* Room for the lane's next fragment, aligned to 64 if want > 24, and its size in *room: at least `want` bytes; if that
     * is more than PCM_FRAGMENT, what suits the transport, a multiple of 64. NULL if the lane is full or the channel is
     * down. May be called again without a commit. */
    void *(*reserve)(struct pcm_channel *channel, unsigned lane, size_t want, size_t *room);
    /* Sends the fragment last reserved: its first `bytes` bytes under `head`. Cannot fail: it was reserved. */
    void (*commit)(struct pcm_channel *channel, unsigned lane, const struct pcm_head *head, size_t bytes);
    /* The lane's oldest fragment that has arrived, or NULL. It stays, and stays valid, until release. */
    const struct pcm_head *(*peek)(struct pcm_channel *channel, unsigned lane, const void **payload, size_t *bytes);
    /* Gives the peeked fragment's memory back to the sender. */
    void (*release)(struct pcm_channel *channel, unsigned lane);

    /* The enum pcm_path in which a message of at least PCM_LONG bytes is best sent now. NULL: it does not matter. */
    int (*path)(struct pcm_channel *channel, const struct pcm_head *head);

    /* Lending, where peers can read one another's memory (all four NULL elsewhere): a long stretch of the sender's own memory
     * goes as one fragment, of any length, which the receiver copies from where it lies. One copy instead of two; and the
     * receiver is done with it without the sender's help, which may not be running. */
    /* Lends `bytes` bytes at `from` as the lane's next fragment, of a message whose path is PCM_LENT; they stay as they are until it
     * has been returned, or everything was withdrawn. False if the lane is full, or this peer cannot read. */
    bool (*lend)(struct pcm_channel *channel, unsigned lane, const struct pcm_head *head, const void *from,
                 size_t bytes, uint32_t *ticket);
    /* True once the peer has released the fragment of that ticket. */
    bool (*returned)(struct pcm_channel *channel, unsigned lane, uint32_t ticket);
    /* Copies n bytes, from `at` on, of the peeked fragment, whose payload is NULL because it was lent. False if they cannot be
     * had: the lender has withdrawn them (the channel's notice says why) or is gone. */
    bool (*fetch)(struct pcm_channel *channel, unsigned lane, void *to, size_t at, size_t n);
    /* The owner takes back whatever it has lent on this channel, because it has failed: no fetch succeeds any more. */
    void (*withdraw)(struct pcm_channel *channel);

    /* Whole collectives, where what lies below knows them too (all five NULL elsewhere), among the ranks of a party. They launch
     * the same calls in the same order. */
    /* Makes a party of some ranks of the world, in this order; all of them call it, outside of the world's lock, and it may wait
     * for them. NULL (and pcm_fail) if that cannot be. */
    void *(*muster)(struct pcm_endpoint *endpoint, const int32_t *ranks, int size);
    /* Ends a party, not collectively. */
    void (*dismiss)(struct pcm_endpoint *endpoint, void *party);
    /* Whether such calls can be run so; of a call's facts only those that all ranks share decide. */
    bool (*offers)(struct pcm_endpoint *endpoint, const struct pcm_call *call);
    /* Starts a call; NULL (and pcm_fail) if it cannot be started. */
    void *(*launch)(struct pcm_endpoint *endpoint, void *party, const struct pcm_call *call);
    /* PCM_AGAIN while it is under way; then, once, how it has ended (pcm_fail). What is never asked for goes on until it ends, and
     * may write to its output until then. */
    int (*landed)(struct pcm_endpoint *endpoint, void *launched);

    /* Sends an out-of-band notice (at most PCM_NOTICE bytes) which reaches the peer's pcm_world_on_notice even if all
     * lanes are full. False if it cannot be taken now, because one is already under way: try again later. */
    bool (*notice)(struct pcm_channel *channel, const void *bytes, size_t length);
    /* Before sleeping: peers must now ring this world's doorbell (pcm_reactor_ring) for what they commit or release.
     * The core looks at all lanes once more between arm(true) and sleeping. NULL where the reactor wakes anyway. */
    void (*arm)(struct pcm_endpoint *endpoint, bool asleep);

    /* Has what was committed leave (pcm_world_unsent), as far as that goes at once; called a few times before a thread
     * stops making progress, so that another need not be woken for it. NULL where the kernel does it, or nothing needs
     * to leave. */
    void (*settle)(struct pcm_endpoint *endpoint);

    /* Writes a JSON line for each connection, as pcm_world_rails says, and returns the bytes needed. NULL where a peer is
     * reached in one way only. */
    size_t (*rails)(struct pcm_endpoint *endpoint, char *text, size_t capacity);

    /* Ends a channel in order: the peer reads what was committed, then sees CLOSED. Frees it. */
    void (*close)(struct pcm_channel *channel);
    /* Closes what is still open and frees the endpoint. */
    void (*shut)(struct pcm_endpoint *endpoint);
};

/* How a message goes over a channel. */
static inline int pcm_path_of(struct pcm_channel *channel, const struct pcm_head *head)
{
    return channel->ops->path && head->bytes >= PCM_LONG ? channel->ops->path(channel, head) : PCM_COPIED;
}

/* ---- what the core offers to transports --------------------------------------------------------- */

PCM_API const struct pcm_world_config *pcm_world_get_config(pcm_world *world);
PCM_API struct pcm_reactor *pcm_world_reactor(pcm_world *world);
/* A channel's state has changed for the worse: state is CLOSED or LOST, why a piece of a sentence ("connection reset"). */
PCM_API void pcm_channel_fail(struct pcm_channel *channel, int state, const char *why);
/* A notice has arrived from a peer. */
PCM_API void pcm_world_on_notice(pcm_world *world, int peer, const void *bytes, size_t length);
/* Something that was committed cannot leave yet (+1), or has left now (-1). Meanwhile the core keeps the reactor turning, also
 * when no one waits for anything: a rank that computes must not hold back what it has sent. */
PCM_API void pcm_world_unsent(pcm_world *world, int change);
/* What this transport stands on may be used in the threads of callers only: the world makes no progress in one of its own. To
 * be called in open. */
PCM_API void pcm_world_callers_only(pcm_world *world);
/* The world's lock, for what comes from elsewhere than a slot or the reactor. */
PCM_API void pcm_world_enter(pcm_world *world);
PCM_API void pcm_world_leave(pcm_world *world);
/* One more connection was turned away. */
PCM_API void pcm_world_count_refused(pcm_world *world);
/* Records this thread's last error from a format; returns code, so that `return pcm_fail(...)` reads well. */
PCM_API int pcm_fail(int code, int rank, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The transport of that name: a compiled one, one that pcm_transport_load has brought, or one in libpycomm-transport-NAME.so
 * where the dynamic linker looks; a name with a slash in it is the path of such a file. NULL (and pcm_fail) if there is none.
 * What a list of transports says after ':' is an argument, and no part of the name. */
PCM_API const struct pcm_transport *pcm_transport_find(const char *name, size_t length);

extern const struct pcm_transport pcm_inproc, pcm_shm, pcm_tcp, pcm_mpi, pcm_null, pcm_chaos;

/* ---- transports in shared objects of their own --------------------------------------------------- */

/* The version of all above, as far as a transport can see it: slots, structures, constants. */
#define PCM_TRANSPORT_VERSION 1

/* What such an object exports, under the name pycomm_transport_v1 for version 1. Sizes tell headers apart that have drifted
 * within one version; an object that was built with others is refused, with a sentence. */
struct pcm_plugin {
    uint32_t version, transport_bytes, channel_bytes, endpoint_bytes;
    const struct pcm_transport *transport;
};

/* Exports a transport, whose name is that of its file, libpycomm-transport-NAME.so. */
#define PCM_TRANSPORT_PLUGIN(table)                                                                                    \
    PCM_API const struct pcm_plugin pycomm_transport_v1 = {PCM_TRANSPORT_VERSION, sizeof(struct pcm_transport),        \
                                                           sizeof(struct pcm_channel), sizeof(struct pcm_endpoint),    \
                                                           &(table)}

#endif
