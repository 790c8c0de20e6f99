/* tcp_stream.c: frames, out of the lanes into the streams that take them, and from the streams back into the lanes. */
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "tcp.h"

enum {
    SCRATCH = 8 * 1024,       /* bytes read beyond the payload under way: the next frames' beginnings */
    TURN = 1024 * 1024,       /* bytes read before other descriptors get their turn */
    UNSENT = 256 * 1024,      /* bytes that wait in a socket before another stream is the better choice */
    BATCH_BYTES = 128 * 1024, /* enough for one system call */
    COPIED = 16 * 1024,       /* bytes: a fragment that is longer is sent from where it lies */
    IDLE_S = 10,              /* seconds of silence before the kernel asks whether the peer's host is alive, */
    ASK_S = 3,                /* how often it asks then, */
    ASK_TIMES = 4,            /* and how many times */
    SILENT_MS = 15000,        /* unanswered for that long and that often: the host is gone */
};

/* ---- connections ----------------------------------------------------------------------------------------------- */

static void on_ready(struct pcm_watch *watch, uint32_t events);

void tcp_stream_attach(struct tcp_stream *stream, int fd)
{
    int on = 1, idle = IDLE_S, ask = ASK_S, times = ASK_TIMES, unsent = UNSENT;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &ask, sizeof ask);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &times, sizeof times);
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
    stream->watch = (struct pcm_watch){fd, on_ready};
}

int tcp_stream_watch(struct tcp_stream *stream)
{
    stream->events = EPOLLIN;
    int status = pcm_reactor_add(pcm_world_reactor(stream->channel->base.endpoint->world), &stream->watch, EPOLLIN);
    stream->watched = !status;
    return status;
}

void tcp_stream_close(struct tcp_stream *stream)
{
    if (stream->watch.fd < 0) return;
    if (stream->watched) pcm_reactor_remove(pcm_world_reactor(stream->channel->base.endpoint->world), &stream->watch);
    close(stream->watch.fd);
    stream->watched = false;
    stream->watch.fd = -1;
}

enum tcp_health tcp_stream_health(const struct tcp_stream *stream)
{
    /* TCP_USER_TIMEOUT would also end a connection whose peer lives but is stopped or busy: it counts the time that a
     * full receive window is probed, though the probes are answered. So look at what is unanswered. */
    struct tcp_info info;
    socklen_t length = sizeof info;
    if (getsockopt(stream->watch.fd, IPPROTO_TCP, TCP_INFO, &info, &length)) return TCP_IDLE;
    bool asked = info.tcpi_retransmits >= ASK_TIMES || info.tcpi_probes >= ASK_TIMES;
    if (asked && info.tcpi_last_ack_recv >= SILENT_MS) return TCP_SILENT;
    return info.tcpi_unacked || info.tcpi_notsent_bytes || stream->count ? TCP_BUSY : TCP_IDLE;
}

/* ---- out ------------------------------------------------------------------------------------------------------- */

/* Adds a frame to the batch; its payload is yet to be said. */
static struct tcp_frame *compose(struct tcp_stream *stream, int kind, unsigned lane, size_t bytes)
{
    struct tcp_frame *frame = &stream->batch[stream->count];
    struct tcp_lane *about = &stream->channel->lanes[lane];
    *frame = (struct tcp_frame){
        .kind = (uint8_t)kind, .lane = (uint8_t)lane, .bytes = (uint32_t)bytes, .credit = about->released};
    about->announced = about->released;
    stream->channel->due &= ~(1u << lane);
    stream->bulky[stream->count++] = kind == TCP_FRAGMENT && bytes >= COPIED;
    return frame;
}

static void compose_control(struct tcp_stream *stream, int kind, unsigned lane, const void *payload, size_t bytes)
{
    struct iovec *pieces = &stream->pieces[2 * stream->count];
    pieces[0] = (struct iovec){compose(stream, kind, lane, bytes), sizeof(struct tcp_frame)};
    pieces[1] = (struct iovec){(void *)payload, bytes};
}

/* Frame, head and payload of a fragment lie in one piece, and stay there until it is credited. */
static size_t compose_fragment(struct tcp_stream *stream, unsigned lane, uint32_t number)
{
    const struct tcp_slot *slot = &stream->channel->lanes[lane].out[number % TCP_SLOTS];
    struct iovec *pieces = &stream->pieces[2 * stream->count];
    struct tcp_wire *wire = &slot->buffer->body->wire;
    struct tcp_frame *frame = compose(stream, TCP_FRAGMENT, lane, slot->bytes);
    frame->number = number;
    wire->frame = *frame;
    pieces[0] = (struct iovec){wire, sizeof *wire + slot->bytes};
    pieces[1] = (struct iovec){0};
    return pieces->iov_len;
}

/* Fills the batch of a stream that has none with what waits longest; false: nothing waits. */
static bool gather(struct tcp_stream *stream)
{
    struct tcp_channel *channel = stream->channel;
    if (channel->base.state != PCM_CHANNEL_UP || stream->parted) return false;
    stream->count = stream->at = 0;
    size_t bytes = 0;
    if (channel->notice_bytes && !channel->notice_posted) {
        compose_control(stream, TCP_NOTICE, 0, channel->notice, channel->notice_bytes);
        channel->notice_posted = true;
    }
    while (channel->queue_head != channel->queue_tail && stream->count < TCP_BATCH && bytes < BATCH_BYTES) {
        unsigned lane = channel->queue[channel->queue_head++];
        bytes += compose_fragment(stream, lane, channel->lanes[lane].posted++);
    }
    while (channel->due && stream->count < TCP_BATCH)
        compose_control(stream, TCP_CREDIT, (unsigned)__builtin_ctz(channel->due), NULL, 0);
    if (channel->closing && channel->queue_head == channel->queue_tail && stream->count < TCP_BATCH) {
        compose_control(stream, TCP_BYE, 0, &channel->goodbye, sizeof channel->goodbye);
        stream->parted = true;
    }
    return stream->count;
}

/* A frame has been sent in full. */
static void sent(struct tcp_stream *stream, const struct tcp_frame *frame)
{
    struct tcp_channel *channel = stream->channel;
    if (frame->kind == TCP_FRAGMENT) channel->lanes[frame->lane].out[frame->number % TCP_SLOTS].done = true;
    if (frame->kind == TCP_NOTICE) channel->notice_bytes = 0;
    if (frame->kind == TCP_BYE) shutdown(stream->watch.fd, SHUT_WR);
}

/* Sends what can go in one system call. */
static ssize_t send_some(struct tcp_stream *stream)
{
    struct tcp_endpoint *endpoint = tcp_endpoint_of(stream->channel);
    if (stream->bulky[stream->at / 2] && stream->at % 2 == 0 && !endpoint->copying)
        return tcp_send_pages(endpoint, stream->watch.fd, &stream->pieces[stream->at]);
    int end = stream->at / 2 + 1;
    while (end < stream->count && (!stream->bulky[end] || endpoint->copying)) end++;
    struct msghdr message = {.msg_iov = &stream->pieces[stream->at], .msg_iovlen = (size_t)(2 * end - stream->at)};
    return sendmsg(stream->watch.fd, &message, MSG_NOSIGNAL);
}

/* Sends of the batch what the socket takes. */
static void flush(struct tcp_stream *stream)
{
    while (stream->at < 2 * stream->count) {
        ssize_t written = send_some(stream);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (written < 0) {
            stream->mute = true; /* reading will soon tell why, after what the peer had still sent */
            return;
        }
        for (size_t left = (size_t)written; stream->at < 2 * stream->count; stream->at++) {
            struct iovec *piece = &stream->pieces[stream->at];
            if (left < piece->iov_len) {
                piece->iov_base = (char *)piece->iov_base + left;
                piece->iov_len -= left;
                break;
            }
            left -= piece->iov_len;
            if (stream->at % 2) sent(stream, &stream->batch[stream->at / 2]);
        }
    }
    stream->count = stream->at = 0;
}

void tcp_pump(struct tcp_channel *channel)
{
    bool waiting = false;
    for (int i = 0; i < TCP_MOST_STREAMS; i++) {
        struct tcp_stream *stream = channel->streams[i];
        if (!stream || !stream->watched || stream->mute) continue;
        do flush(stream);
        while (!stream->count && gather(stream));
        bool full = stream->count && !stream->mute;
        uint32_t wanted = full ? EPOLLIN | EPOLLOUT : EPOLLIN;
        waiting |= full;
        if (wanted == stream->events) continue;
        pcm_reactor_change(pcm_world_reactor(channel->base.endpoint->world), &stream->watch, wanted);
        stream->events = wanted;
    }
    tcp_set_unsent(channel, waiting);
}

/* ---- in -------------------------------------------------------------------------------------------------------- */

/* The peer has released fragments; false: more than it was sent. Counts may come out of order over several streams. */
static bool credit(struct tcp_channel *channel, unsigned number, uint32_t count)
{
    struct tcp_lane *lane = &channel->lanes[number];
    if ((int32_t)(count - lane->credited) <= 0) return true;
    if (count - lane->credited > lane->posted - lane->credited) return false;
    while (lane->credited != count) {
        struct tcp_slot *slot = &lane->out[lane->credited % TCP_SLOTS];
        if (!slot->done) return false;
        tcp_give_back(tcp_endpoint_of(channel), slot);
        lane->credited++;
    }
    return true;
}

/* A frame's header is there: where does its payload go? Returns what is wrong with it, or NULL. */
static const char *begin(struct tcp_stream *stream)
{
    struct tcp_channel *channel = stream->channel;
    const struct tcp_frame *frame = &stream->wire.frame;
    if (frame->lane >= PCM_LANES) return "it sent a malformed frame";
    struct tcp_lane *lane = &channel->lanes[frame->lane];
    if (!credit(channel, frame->lane, frame->credit)) return "it released what it was not sent";
    stream->left = frame->bytes;
    switch (frame->kind) {
    case TCP_FRAGMENT: {
        struct tcp_slot *slot = &lane->in[frame->number % TCP_SLOTS];
        if (frame->bytes > PCM_FRAGMENT || frame->number - lane->released >= TCP_SLOTS || slot->taken)
            return "it sent more than there was room for";
        if (frame->bytes && !tcp_take_buffer(tcp_endpoint_of(channel), slot))
            return "no memory is left for what it sent";
        slot->head = stream->wire.head;
        slot->bytes = frame->bytes;
        slot->taken = true;
        stream->bulk = frame->bytes >= TCP_BULK;
        stream->into = slot->buffer ? slot->buffer->body->payload : NULL;
        return NULL;
    }
    case TCP_CREDIT: return frame->bytes ? "it sent a malformed frame" : NULL;
    case TCP_NOTICE:
        stream->into = stream->in.notice;
        return frame->bytes > PCM_NOTICE ? "it sent a malformed frame" : NULL;
    case TCP_BYE:
        stream->into = (uint8_t *)&stream->in.farewell;
        return frame->bytes != sizeof stream->in.farewell ? "it sent a malformed frame" : NULL;
    default: return "it sent a malformed frame";
    }
}

/* True once the peer has said goodbye and all that it sent is here. */
static bool complete(const struct tcp_channel *channel)
{
    if (!channel->bye_heard) return false;
    for (unsigned lane = 0; lane < PCM_LANES; lane++)
        if (channel->lanes[lane].arrived != channel->farewell.fragments[lane]) return false;
    return true;
}

/* A frame is there in full. */
static void finish(struct tcp_stream *stream)
{
    struct tcp_channel *channel = stream->channel;
    const struct tcp_frame *frame = &stream->wire.frame;
    struct tcp_lane *lane = &channel->lanes[frame->lane];
    stream->have = 0;
    switch (frame->kind) {
    case TCP_FRAGMENT:
        lane->in[frame->number % TCP_SLOTS].done = true;
        lane->arrived++;
        if (frame->bytes >= TCP_BULK) tcp_bulk(channel);
        break;
    case TCP_NOTICE:
        if (!channel->closing)
            pcm_world_on_notice(channel->base.endpoint->world, channel->base.peer, stream->in.notice, frame->bytes);
        return;
    case TCP_BYE:
        stream->bye = channel->bye_heard = true;
        channel->farewell = stream->in.farewell;
        break;
    }
    if (complete(channel)) tcp_farewell_done(channel);
}

/* Takes `bytes` bytes that a stream has brought, of which those of the payload under way lie in place already. */
static const char *take(struct tcp_stream *stream, const uint8_t *bytes, size_t count)
{
    while (count && stream->watch.fd >= 0) {
        if (!stream->left) {
            size_t whole = sizeof stream->wire.frame;
            if (stream->have >= whole && stream->wire.frame.kind == TCP_FRAGMENT) whole = sizeof stream->wire;
            size_t part = whole - stream->have < count ? whole - stream->have : count;
            memcpy((uint8_t *)&stream->wire + stream->have, bytes, part);
            stream->have += (uint32_t)part;
            bytes += part;
            count -= part;
            if (stream->have < whole) return NULL;
            if (stream->wire.frame.kind == TCP_FRAGMENT && whole < sizeof stream->wire) continue;
            const char *wrong = begin(stream);
            if (wrong) return wrong;
        } else {
            size_t part = stream->left < count ? stream->left : count;
            memcpy(stream->into, bytes, part);
            stream->into += part;
            stream->left -= (uint32_t)part;
            bytes += part;
            count -= part;
        }
        if (!stream->left) finish(stream);
    }
    return NULL;
}

/* A short read means that there was no more. */
void tcp_stream_receive(struct tcp_stream *stream)
{
    uint8_t scratch[SCRATCH];
    for (size_t turn = 0; turn < TURN && stream->watch.fd >= 0;) {
        size_t direct = stream->left;
        /* Of what is likely to be a large fragment only the beginning: then its payload can go where it belongs. */
        size_t ahead = stream->bulk ? sizeof(struct tcp_wire) : sizeof scratch;
        struct iovec pieces[2] = {{stream->into, direct}, {scratch, ahead}};
        ssize_t got = readv(stream->watch.fd, pieces + !direct, 1 + !!direct);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (got <= 0) {
            tcp_stream_ended(stream, got < 0 ? strerror(errno) : "it closed the connection without goodbye");
            return;
        }
        stream->heard = true;
        turn += (size_t)got;
        size_t placed = (size_t)got < direct ? (size_t)got : direct;
        stream->into += placed;
        stream->left -= (uint32_t)placed;
        if (placed && !stream->left) finish(stream);
        const char *wrong = take(stream, scratch, (size_t)got - placed);
        if (wrong) {
            tcp_lost(stream->channel, wrong);
            return;
        }
        if ((size_t)got < direct + ahead) return;
    }
}

static void on_ready(struct pcm_watch *watch, uint32_t events)
{
    struct tcp_stream *stream = (struct tcp_stream *)watch;
    struct tcp_channel *channel = stream->channel;
    tcp_hold(channel);
    if (events & ~(uint32_t)EPOLLOUT) tcp_stream_receive(stream);
    if (events & EPOLLOUT) tcp_pump(channel);
    tcp_let_go(channel);
}
