/* tcp.h: what the files of the tcp transport share: its objects and its frames.
 *
 *   tcp.c          the endpoint, its clock, and the transport's slots
 *   tcp_channel.c  the life of a channel: who connects to whom, and how it ends
 *   tcp_stream.c   frames: out of the lanes into the streams, and back in order
 *   tcp_buffers.c  the memory of fragments
 *   tcp_address.c  addresses: where to listen, what to publish, where a peer may be
 *
 * A channel has one or more streams (connections). A lane's fragments are numbered; each goes over the first stream
 * that takes it, and the receiver puts them in order by number, right into the slot where the core will find them. A
 * fragment is sent only while the peer has a slot for it: at most TCP_SLOTS of a lane are out that the peer has not
 * given credit for. So the receiver can always empty its sockets, and no lane blocks another. Credit counts what the
 * peer has released since the channel began; it rides on fragments that go the other way, and alone when a quarter is
 * due. The sender keeps a fragment until it is credited, and never writes to it meanwhile: so the kernel may send it from
 * where it lies, without a copy.
 */
#ifndef PYCOMM_TCP_H
#define PYCOMM_TCP_H

#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "handshake.h"

enum {
    TCP_SLOTS = 16,       /* fragments of a lane under way: 1 MiB; a power of two */
    TCP_STREAMS = 2,      /* connections a channel, unless the configuration says otherwise */
    TCP_MOST_STREAMS = 8, /* ... and the most that it may say */
    TCP_BATCH = 16,       /* frames that go out in one system call */
    TCP_BULK = 16 * 1024, /* bytes: a fragment that is worth more streams */
    TCP_PLACES = 16,      /* addresses of a rank */
    TCP_POOL = 64,        /* spare buffers of an endpoint that keep their memory */
    /* Bytes of the fragments of a long message: with its frame, one travels as one packet through loopback (MTU 65536),
     * and through the kernel as one (45 segments) where the MTU is 1500. A few bytes more would be a packet more. */
    TCP_PIECE = 64192,
};

/* ---- on the wire ------------------------------------------------------------------------------------------------ */

enum tcp_kind { TCP_FRAGMENT = 1, TCP_CREDIT, TCP_NOTICE, TCP_BYE };

struct tcp_frame {
    uint8_t kind, lane;
    uint16_t unused;
    uint32_t bytes; /* that follow: of a fragment's payload (after its struct pcm_head), a notice, a farewell */
    uint32_t number; /* of the fragment in its lane */
    uint32_t credit; /* fragments of this lane that the frame's sender has released */
};
_Static_assert(sizeof(struct tcp_frame) == 16, "the frame is part of the wire format");

struct tcp_wire { /* a fragment's frame and head leave together */
    struct tcp_frame frame;
    struct pcm_head head;
};

/* The payload of TCP_BYE, which is the last frame on every stream: how many fragments each lane has had in all. */
struct tcp_farewell {
    uint32_t fragments[PCM_LANES];
};

/* What a hello's payload says. */
struct tcp_greeting {
    uint64_t token; /* tells one use of a channel from the next */
    uint32_t number; /* of the stream: 0 opens the channel, others join it */
    uint32_t unused;
};

/* An address at which a rank listens; a rank's published address is a list of these. */
struct tcp_place {
    uint16_t family, port; /* 4 or 6; in host order */
    uint8_t bytes[16];
};
_Static_assert(sizeof(struct tcp_place) == 20, "places are published");

/* ---- in memory --------------------------------------------------------------------------------------------------- */

struct tcp_body { /* outgoing: sent from `wire` on */
    uint8_t unused[16];
    struct tcp_wire wire;
    _Alignas(64) uint8_t payload[PCM_FRAGMENT];
};

struct tcp_buffer {
    STAILQ_ENTRY(tcp_buffer) link; /* while it is in the pool */
    struct tcp_body *body;
    bool bare; /* it has given its memory back, and gets new memory when it is written to */
};

struct tcp_slot {
    struct pcm_head head; /* incoming */
    struct tcp_buffer *buffer; /* from the pool; NULL while there is no use for it */
    uint32_t bytes;
    bool done; /* outgoing: all of it has been sent; incoming: all of it has arrived */
    bool taken; /* incoming: it has begun to arrive */
};

struct tcp_lane { /* counts are of fragments since the channel began, and wrap */
    uint32_t committed, posted, credited; /* outgoing: by the core, to a stream, by the peer */
    uint32_t arrived, released, announced; /* incoming: in any order, by the core, to the peer */
    struct tcp_slot out[TCP_SLOTS], in[TCP_SLOTS];
};

struct tcp_stream {
    struct pcm_watch watch; /* first: its callback finds the stream; fd is -1 while there is no connection */
    struct tcp_channel *channel;
    struct pcm_visit *visit; /* while it is being opened from here */
    uint32_t number, events;
    bool watched; /* it is read and written; else it waits, as its channel does */
    bool heard; /* anything came */
    bool bye; /* the peer's farewell came */
    bool parted; /* one's own farewell is in the batch or sent */
    bool mute; /* writing has failed */
    bool bulk; /* the last fragment that came was large: the next one will be too */
    /* incoming: a frame's beginning, then where its payload goes */
    struct tcp_wire wire;
    uint32_t have;
    uint8_t *into;
    uint32_t left;
    union {
        uint8_t notice[PCM_NOTICE];
        struct tcp_farewell farewell;
    } in;
    /* outgoing: a batch of frames, two pieces each, of which the first `at` pieces have been sent */
    struct tcp_frame batch[TCP_BATCH];
    struct iovec pieces[2 * TCP_BATCH];
    bool bulky[TCP_BATCH]; /* the frame is sent from where it lies, not copied */
    int count, at;
};

struct tcp_channel {
    struct pcm_channel base;
    LIST_ENTRY(tcp_channel) link;
    bool claimed; /* the core knows it; else it waits, unread, for connect() */
    bool caller; /* opened from here: so are its other streams */
    bool grown; /* its other streams were asked for */
    bool closing; /* the core has closed it: what was committed is still being sent */
    bool ended; /* no more streams */
    bool unsent; /* something waits for a stream to take it; the core knows */
    bool freed; /* as soon as no callback is in it */
    int busy; /* callbacks in it now */
    uint64_t token;
    struct tcp_stream *streams[TCP_MOST_STREAMS];
    struct tcp_lane lanes[PCM_LANES];
    uint8_t queue[256]; /* the lanes of committed fragments that no stream has taken yet, in order */
    uint8_t queue_head, queue_tail;
    uint32_t due; /* lanes (bits) whose credit must go out now */
    uint32_t notice_bytes; /* 0: none under way */
    bool notice_posted;
    uint8_t notice[PCM_NOTICE];
    struct tcp_farewell farewell, goodbye; /* the peer's, once bye_heard; one's own, once closing */
    bool bye_heard;
    /* while connecting */
    struct tcp_place places[TCP_PLACES];
    int nplaces, place, pass;
    bool hopeful; /* in this pass, something else than a refusal was met */
    int64_t began, retry;
    char trouble[96];
    int64_t linger; /* closing: until when */
};

struct tcp_endpoint {
    struct pcm_endpoint base;
    struct pcm_door *door;
    struct pcm_watch timer;
    int64_t armed; /* when the timer goes off; 0: it does not */
    int64_t health; /* when connections are looked at next; 0: nothing is under way */
    int streams;
    struct tcp_place places[TCP_PLACES];
    int nplaces;
    LIST_HEAD(tcp_channels, tcp_channel) channels;
    int unclaimed;
    STAILQ_HEAD(, tcp_buffer) pool; /* spare buffers: first those used last, which the cache may hold; last the bare */
    int spare; /* of them, those that are not bare */
    SLIST_HEAD(, tcp_block) blocks;
    int pipe[2]; /* through which fragments are sent from where they lie */
    bool copying; /* that is not possible here */
};

/* tcp_address.c */
int tcp_listen(const struct pcm_world_config *config, int *listening, struct tcp_place *places, int *count);
int tcp_read_address(const void *address, size_t bytes, struct tcp_place *places); /* how many; 0: not an address */
int tcp_write_address(const struct tcp_place *places, int count, void *address, size_t *bytes);
int tcp_dial(const struct tcp_place *place); /* a socket that connects; -1 with errno */
void tcp_place_name(const struct tcp_place *place, char *text, size_t capacity);

/* tcp_stream.c */
void tcp_stream_attach(struct tcp_stream *stream, int fd); /* a connection is there */
int tcp_stream_watch(struct tcp_stream *stream); /* begins to read it */
void tcp_stream_receive(struct tcp_stream *stream); /* reads what is there, a turn's worth */
void tcp_stream_close(struct tcp_stream *stream);
enum tcp_health { TCP_IDLE, TCP_BUSY, TCP_SILENT } tcp_stream_health(const struct tcp_stream *stream);
void tcp_pump(struct tcp_channel *channel); /* sends what there is */

/* tcp_buffers.c */
void tcp_open_buffers(struct tcp_endpoint *endpoint);
void tcp_close_buffers(struct tcp_endpoint *endpoint);
bool tcp_take_buffer(struct tcp_endpoint *endpoint, struct tcp_slot *slot); /* unless it has one */
void tcp_give_back(struct tcp_endpoint *endpoint, struct tcp_slot *slot); /* the slot is empty then */
/* Likewise; but what lies in the buffer may be on its way still: its pages are left to the kernel. */
void tcp_discard(struct tcp_endpoint *endpoint, struct tcp_slot *slot);
/* Sends, as send() would; but the kernel keeps the pages of the piece, which must not be written to until they are sent. */
ssize_t tcp_send_pages(struct tcp_endpoint *endpoint, int fd, const struct iovec *piece);

/* tcp_channel.c */
struct pcm_channel *tcp_connect(struct pcm_endpoint *base, int peer, uint64_t id, const void *address, size_t bytes);
int tcp_admit(void *user, const struct pcm_hello *hello);
void tcp_welcome(void *user, int fd, const struct pcm_hello *hello);
void tcp_try_next(struct tcp_channel *channel); /* calls the peer at the next of its addresses */
void tcp_bulk(struct tcp_channel *channel); /* large fragments pass: more streams are worth it */
void tcp_stream_ended(struct tcp_stream *stream, const char *why); /* the peer closed it, or it failed */
void tcp_farewell_done(struct tcp_channel *channel); /* the peer has said goodbye and all has arrived */
void tcp_lost(struct tcp_channel *channel, const char *why);
void tcp_free_channel(struct tcp_channel *channel);
void tcp_hold(struct tcp_channel *channel); /* from here to tcp_let_go, the channel is not freed */
void tcp_let_go(struct tcp_channel *channel);

/* tcp.c */
void tcp_arm_timer(struct tcp_endpoint *endpoint, int64_t when);

static inline void tcp_set_unsent(struct tcp_channel *channel, bool unsent)
{
    if (channel->unsent == unsent) return;
    channel->unsent = unsent;
    pcm_world_unsent(channel->base.endpoint->world, unsent ? 1 : -1);
}

static inline struct tcp_endpoint *tcp_endpoint_of(const struct tcp_channel *channel)
{
    return (struct tcp_endpoint *)channel->base.endpoint;
}

#endif
