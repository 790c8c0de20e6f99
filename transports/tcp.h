/* tcp.h: what the files of the tcp transport share: its objects and its frames.
 *
 *   tcp.c          the endpoint, its clock, and the transport's slots
 *   tcp_channel.c  the life of a channel: who connects to whom, and how it ends
 *   tcp_stream.c   frames: out of the lanes into the streams, and back in order
 *   tcp_cipher.c   encrypted streams: what lies between frames and the socket then
 *   tcp_buffers.c  the memory of fragments
 *   tcp_window.c   how many fragments of a lane may be under way
 *   tcp_address.c  addresses: where to listen, what to publish, where a peer may be, and which rails lead there
 *   tcp_rails.c    streams that are unlike: which takes the next fragment, and what happens if one fails
 *
 * A channel has one or more streams (connections). A lane's fragments are numbered; each goes over the first stream
 * that takes it, and the receiver puts them in order by number, right into the slot where the core will find them. A
 * fragment is sent only while the peer has a slot for it: at most a window of a lane's are out that the peer has not
 * given credit for. So the receiver can always empty its sockets, and no lane blocks another. Credit counts what the
 * peer has released since the channel began; it rides on fragments that go the other way, and alone when a quarter of
 * TCP_SLOTS is due. A window is TCP_SLOTS fragments; its receiver widens it where a path is long, or where fragments come
 * far out of order, and says so along with the credit. The sender keeps a fragment until it is credited, and never writes
 * to it meanwhile: so the kernel may send it from where it lies, without a copy, and it can be sent again.
 *
 * Two hosts may have several networks in common: rails. A channel's streams are spread over them, and a fragment goes over
 * the stream that will have delivered it first. A stream that fails while another lives is dropped: either side says so
 * on the others (TCP_DROP) before anything else, and both send again what had gone over it and is not credited; so a
 * fragment may arrive twice from then on, and its receiver takes it once. The side that called calls again, until the
 * rail is back. The last stream's end is the peer's.
 */
#ifndef PYCOMM_TCP_H
#define PYCOMM_TCP_H

#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "handshake.h"

enum {
    TCP_SLOTS = 16,       /* fragments of a lane under way at first: 1 MiB; a power of two */
    TCP_MOST_SLOTS = 512, /* ... and at most: 32 MiB; a power of two */
    TCP_STREAMS = 2,      /* connections a rail, unless the configuration says how many a channel has */
    TCP_MOST_STREAMS = 8, /* connections a channel */
    TCP_BATCH = 16,       /* frames that go out in one system call */
    TCP_BULK = 16 * 1024, /* bytes: a fragment that is worth more streams */
    TCP_PLACES = 16,      /* addresses of a rank */
    TCP_POOL = 64,        /* spare buffers of an endpoint that keep their memory */
    /* Bytes of the fragments of a long message: with its frame, one travels as one packet through loopback (MTU 65536),
     * and through the kernel as one (45 segments) where the MTU is 1500. A few bytes more would be a packet more. */
    TCP_PIECE = 64192,
    TCP_QUEUE = 8192, /* a power of two, and room for all lanes' fragments */
};
_Static_assert(TCP_QUEUE >= PCM_LANES * TCP_MOST_SLOTS, "what is committed has room in the queue");

/* ---- on the wire ------------------------------------------------------------------------------------------------ */

enum tcp_kind { TCP_FRAGMENT = 1, TCP_CREDIT, TCP_NOTICE, TCP_BYE, TCP_DROP };

struct tcp_frame {
    uint8_t kind, lane;
    uint16_t window; /* fragments of this lane that the frame's sender has slots for, beyond those it has released */
    uint32_t bytes; /* that follow: of a fragment's payload (after its struct pcm_head), a notice, a farewell */
    uint32_t number; /* of the fragment in its lane; TCP_DROP: of the stream, and of its life from bit 8 on */
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
    uint32_t life; /* of the stream: one more with each call; if it is not the first, number 0 joins too */
};

/* An address at which a rank listens; a rank's published address is a list of these. */
struct tcp_place {
    uint16_t family, port; /* 4 or 6; in host order */
    uint8_t bytes[16];
};
_Static_assert(sizeof(struct tcp_place) == 20, "places are published");

/* A way from here to a peer. */
struct tcp_rail {
    struct tcp_place own, peer; /* own: family 0: whatever the kernel takes; its port means nothing */
};

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
    uint8_t via; /* outgoing: the stream that it was posted to */
    bool done; /* outgoing: all of it has been sent; incoming: all of it has arrived */
    bool taken; /* incoming: it has begun to arrive */
    bool again; /* outgoing: its stream was dropped, and no other has taken it yet */
};

struct tcp_ring { /* the slots of a direction of a lane: of its fragments' numbers modulo their count */
    struct tcp_slot *slots;
    uint32_t mask; /* their count less one */
    struct tcp_slot first[TCP_SLOTS]; /* where they are at first */
};

struct tcp_lane { /* counts are of fragments since the channel began, and wrap */
    uint32_t committed, posted, credited; /* outgoing: by the core, to a stream, by the peer and given back */
    uint32_t granted; /* outgoing: by the peer; ahead of `credited` while one of them is being sent again */
    uint32_t arrived, released, announced; /* incoming: in any order, by the core, to the peer */
    uint32_t room, window; /* that the peer has slots for, and that it may send */
    uint32_t measured; /* incoming: released, when the window was last looked at */
    int64_t looked; /* ... and when that was */
    struct tcp_ring out, in;
};

/* What is known of a stream's way, where that matters. */
struct tcp_gauge {
    double rate; /* bytes/s; 0: not known yet */
    double latency; /* s, of the way there */
    double held; /* bytes that it has taken and that have not been acknowledged */
    double late; /* s that it is behind its time, if more than 0 */
    uint64_t acked, busy_time; /* bytes and us under way, in all */
    double bytes, seconds; /* ... of late */
    int64_t looked; /* ms: when this was last measured */
    int64_t moved; /* ms: when it last got on, or had nothing to do */
    int64_t silence; /* ms since the peer's host last acknowledged anything, then */
    bool busy; /* something was under way, then */
    bool asked; /* the peer's host has left several questions unanswered, then */
};

struct tcp_stream {
    struct pcm_watch watch; /* first: its callback finds the stream; fd is -1 while there is no connection */
    struct tcp_channel *channel;
    struct pcm_visit *visit; /* while it is being opened from here */
    uint32_t number, events;
    uint32_t life; /* tells one connection from the next */
    uint32_t dropped; /* the last one that was dropped */
    struct tcp_place own, peer; /* the connection's ends */
    struct tcp_gauge gauge;
    struct tcp_cipher *cipher; /* NULL: frames go as they are */
    uint32_t drops; /* streams (bits) that were dropped, which is still to be said here */
    int64_t redial; /* when it is called again; 0: it is not */
    int failures; /* calls that came to nothing, in a row */
    bool worked; /* it was connected, once */
    bool probe; /* an empty frame shall show whether it is alive */
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
    bool repeated; /* the fragment under way is here already: it goes to `junk` */
    struct tcp_slot junk;
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
    bool unlike; /* its streams lead over more than one rail */
    bool dropped; /* a stream was dropped: fragments may come twice */
    bool unsent; /* something waits for a stream to take it; the core knows */
    bool freed; /* as soon as no callback is in it */
    int busy; /* callbacks in it now */
    uint64_t token;
    struct tcp_stream *streams[TCP_MOST_STREAMS];
    struct tcp_lane lanes[PCM_LANES];
    uint8_t queue[TCP_QUEUE]; /* the lanes of committed fragments that no stream has taken yet, in order */
    uint32_t queue_head, queue_tail; /* count on, and wrap */
    uint32_t again; /* fragments whose stream was dropped, which wait before those */
    uint32_t widened; /* fragments that its windows hold beyond those of the beginning */
    int64_t rtt; /* ms: of the longest of its ways, when nothing waits on it */
    uint32_t due; /* lanes (bits) whose credit must go out now */
    uint32_t notice_bytes; /* 0: none under way */
    bool notice_posted;
    uint8_t notice_via; /* ... to this stream */
    uint32_t notice_kept; /* its bytes, until the next */
    uint8_t notice[PCM_NOTICE];
    struct tcp_farewell farewell, goodbye; /* the peer's, once bye_heard; one's own, once closing */
    bool bye_heard;
    /* while connecting */
    struct tcp_place places[TCP_PLACES]; /* where the peer may be */
    int nplaces, place, pass;
    struct tcp_rail rails[TCP_MOST_STREAMS]; /* stream k goes over rail k % nrails */
    int nrails;
    bool hopeful; /* in this pass, something else than a refusal was met */
    bool barred; /* somebody is there, and does not believe that we are of its job */
    int64_t began, retry;
    char trouble[96];
    int64_t linger; /* closing: until when */
    int64_t look; /* when its streams are looked at next */
};

struct tcp_endpoint {
    struct pcm_endpoint base;
    struct pcm_door *door;
    struct pcm_watch timer;
    int64_t armed; /* when the timer goes off; 0: it does not */
    int64_t health; /* when connections are looked at next; 0: nothing is under way */
    bool sealed; /* its streams are encrypted */
    int streams; /* a channel; 0: as many as its rails want */
    struct tcp_place places[TCP_PLACES];
    int nplaces;
    unsigned scope; /* the interface by which link-local addresses are meant, one's own and others'; 0: none are used */
    uint32_t widened; /* of all channels */
    LIST_HEAD(tcp_channels, tcp_channel) channels;
    int unclaimed;
    STAILQ_HEAD(, tcp_buffer) pool; /* spare buffers: first those used last, which the cache may hold; last the bare */
    int spare; /* of them, those that are not bare */
    SLIST_HEAD(, tcp_block) blocks;
    int pipe[2]; /* through which fragments are sent from where they lie */
    bool copying; /* that is not possible here */
};

/* tcp_address.c */
int tcp_listen(const struct pcm_world_config *config, int *listening, struct tcp_endpoint *endpoint);
/* sealed: the rank encrypts. */
int tcp_write_address(const struct tcp_place *places, int count, bool sealed, void *address, size_t *bytes);
/* How many places; 0: not an address. */
int tcp_read_address(const void *address, size_t bytes, struct tcp_place *places, bool *sealed);
/* A socket that connects; -1 with errno. */
int tcp_dial(const struct tcp_endpoint *endpoint, const struct tcp_rail *rail);
void tcp_place_name(const struct tcp_place *place, char *text, size_t capacity);
bool tcp_same_host(const struct tcp_place *a, const struct tcp_place *b); /* equal but for the port */
bool tcp_ends(int fd, struct tcp_place *own, struct tcp_place *peer); /* of a connection */
/* Takes away the places that one has oneself, unless there is no other: bridges of virtual machines and containers have
 * the same addresses on many hosts. Returns how many stay. */
int tcp_foreign(const struct tcp_endpoint *endpoint, struct tcp_place *places, int count);
/* Finds the rails to a peer: `rails[0]` is given and stays. Returns how many there are, at most TCP_MOST_STREAMS. */
int tcp_find_rails(const struct tcp_endpoint *endpoint, const struct tcp_place *places, int count,
                   struct tcp_rail *rails);

/* tcp_stream.c */
/* A connection is there. On failure it is closed again. */
int tcp_stream_attach(struct tcp_stream *stream, int fd, const struct pcm_keys *keys);
int tcp_stream_watch(struct tcp_stream *stream); /* begins to read it */
void tcp_stream_receive(struct tcp_stream *stream); /* reads what is there, a turn's worth */
void tcp_stream_close(struct tcp_stream *stream);
/* Forgets what had come of a fragment, and what was to go; the connection is closed. */
void tcp_stream_forget(struct tcp_stream *stream);
void tcp_pump(struct tcp_channel *channel); /* sends what there is */

/* tcp_cipher.c */
int tcp_find_cipher(void); /* PCM_ERR_ARGUMENT if there is none on this host */
struct tcp_cipher *tcp_cipher_create(const struct pcm_keys *keys); /* NULL: no memory */
void tcp_cipher_free(struct tcp_cipher *cipher);
/* Sends whole pieces, as many as a record holds, and returns their bytes; or -1 with errno: then it must be called again with
 * the same pieces, which must not change. */
ssize_t tcp_cipher_send(struct tcp_cipher *cipher, int fd, const struct iovec *pieces, int count);
/* Returns the next record's bytes, valid until the next call, and how many; or as recv does; -1 with EBADMSG: what came is not
 * what the peer has sent. */
ssize_t tcp_cipher_receive(struct tcp_cipher *cipher, int fd, const uint8_t **bytes);
bool tcp_cipher_holds(const struct tcp_cipher *cipher); /* the next receive needs nothing of the socket */
/* The beginning of the first record, which stays where it is, as recv with MSG_PEEK would return it; fewer bytes if it is not
 * all there, or long. Nothing must have been received. */
ssize_t tcp_cipher_glance(struct tcp_cipher *cipher, int fd, void *to, size_t bytes);

/* tcp_buffers.c */
void tcp_open_buffers(struct tcp_endpoint *endpoint);
void tcp_close_buffers(struct tcp_endpoint *endpoint);
bool tcp_take_buffer(struct tcp_endpoint *endpoint, struct tcp_slot *slot); /* unless it has one */
void tcp_give_back(struct tcp_endpoint *endpoint, struct tcp_slot *slot); /* the slot is empty then */
/* Likewise; but what lies in the buffer may be on its way still: its pages are left to the kernel. */
void tcp_discard(struct tcp_endpoint *endpoint, struct tcp_slot *slot);
/* Sends, as send() would; but the kernel keeps the pages of the piece, which must not be written to until they are sent. */
ssize_t tcp_send_pages(struct tcp_endpoint *endpoint, int fd, const struct iovec *piece);

/* tcp_window.c */
void tcp_open_windows(struct tcp_channel *channel);
void tcp_close_windows(struct tcp_channel *channel); /* gives all buffers back */
bool tcp_widen_out(struct tcp_lane *lane); /* more slots, as far as the peer has them too */
void tcp_widen_in(struct tcp_channel *channel, unsigned number, uint32_t slots); /* to at least so many */
void tcp_released(struct tcp_channel *channel, unsigned number); /* is the window as wide as the way is long? */
void tcp_arrived(struct tcp_channel *channel, unsigned number, uint32_t fragment); /* ... or as the order is bad? */

/* tcp_rails.c */
bool tcp_alive(const struct tcp_stream *stream); /* it can be read and written */
void tcp_compare(struct tcp_channel *channel); /* a stream was attached or closed: are they alike? */
void tcp_measure(struct tcp_channel *channel, int64_t now); /* before tcp_may_take, where streams are unlike */
bool tcp_may_take(const struct tcp_stream *stream); /* this stream is the one for the next fragment */
/* A stream has failed, or the peer says so; `tell` it what happened? Another one lives. */
void tcp_drop(struct tcp_stream *stream, bool tell);
bool tcp_heed_drop(struct tcp_stream *from, uint32_t what); /* a TCP_DROP has come; false: it is nonsense */
/* The transport's slot. */
size_t tcp_rails(struct pcm_endpoint *base, char *text, size_t capacity);
/* Are all streams, and the peer's host, alive? Drops those that are not. True if anything is still under way. */
bool tcp_look_after(struct tcp_channel *channel, int64_t now);

/* tcp_channel.c */
struct pcm_channel *tcp_connect(struct pcm_endpoint *base, int peer, uint64_t id, const void *address, size_t bytes);
int tcp_admit(void *user, const struct pcm_hello *hello);
void tcp_welcome(void *user, int fd, const struct pcm_hello *hello, const struct pcm_keys *keys);
void tcp_try_next(struct tcp_channel *channel); /* calls the peer at the next of its addresses */
void tcp_bulk(struct tcp_channel *channel); /* large fragments pass: more streams are worth it */
void tcp_call_later(struct tcp_stream *stream); /* it was dropped, or could not be called */
void tcp_redial(struct tcp_channel *channel, int64_t now); /* calls for dropped streams whose time has come */
void tcp_stream_ended(struct tcp_stream *stream, const char *why); /* the peer closed it, or it failed */
void tcp_farewell_done(struct tcp_channel *channel); /* the peer has said goodbye and all has arrived */
void tcp_lost(struct tcp_channel *channel, const char *why);
void tcp_free_channel(struct tcp_channel *channel);
void tcp_hold(struct tcp_channel *channel); /* from here to tcp_let_go, the channel is not freed */
void tcp_let_go(struct tcp_channel *channel);

/* tcp.c */
void tcp_arm_timer(struct tcp_endpoint *endpoint, int64_t when);
void tcp_look_soon(struct tcp_channel *channel); /* something is under way, or its streams are others now */

static inline struct tcp_slot *tcp_slot_of(struct tcp_ring *ring, uint32_t number)
{
    return &ring->slots[number & ring->mask];
}

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
