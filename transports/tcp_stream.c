/* tcp_stream.c: frames, out of the lanes into the streams that take them, and from the streams back into the lanes. */
#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
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
};

/* ---- connections ----------------------------------------------------------------------------------------------- */

static void on_ready(struct pcm_watch *watch, uint32_t events);

int tcp_stream_attach(struct tcp_stream *stream, int fd, const struct pcm_keys *keys)
{
    stream->cipher = keys ? tcp_cipher_create(keys) : NULL;
    if (keys && !stream->cipher) {
        close(fd);
        return pcm_fail(PCM_ERR_SYSTEM, stream->channel->base.peer, "no memory is left for an encrypted connection");
    }
    int on = 1, idle = IDLE_S, ask = ASK_S, times = ASK_TIMES, unsent = UNSENT;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &ask, sizeof ask);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &times, sizeof times);
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
    stream->watch = (struct pcm_watch){fd, on_ready};
    stream->gauge = (struct tcp_gauge){0};
    stream->failures = 0;
    stream->worked = true;
    if (!tcp_ends(fd, &stream->own, &stream->peer)) stream->own.family = stream->peer.family = 0;
    tcp_compare(stream->channel);
    return PCM_OK;
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
    tcp_cipher_free(stream->cipher);
    stream->cipher = NULL;
    stream->watched = false;
    stream->watch.fd = -1;
}

void tcp_stream_forget(struct tcp_stream *stream)
{
    struct tcp_endpoint *endpoint = tcp_endpoint_of(stream->channel);
    const struct tcp_frame *frame = &stream->wire.frame;
    if (stream->have == sizeof stream->wire && !stream->repeated) /* it comes again from its beginning */
        tcp_slot_of(&stream->channel->lanes[frame->lane].in, frame->number)->taken = false;
    tcp_give_back(endpoint, &stream->junk);
    stream->repeated = stream->heard = stream->bye = stream->parted = stream->mute = stream->bulk = false;
    stream->have = stream->left = 0;
    stream->count = stream->at = 0;
    stream->drops = 0;
    stream->probe = false;
}

/* ---- out ------------------------------------------------------------------------------------------------------- */

/* Adds a frame to the batch; its payload is yet to be said. */
static struct tcp_frame *compose(struct tcp_stream *stream, int kind, unsigned lane, size_t bytes)
{
    struct tcp_frame *frame = &stream->batch[stream->count];
    struct tcp_lane *about = &stream->channel->lanes[lane];
    *frame = (struct tcp_frame){
        .kind = (uint8_t)kind,
        .lane = (uint8_t)lane,
        .window = (uint16_t)about->window,
        .bytes = (uint32_t)bytes,
        .credit = about->released,
    };
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
    struct tcp_slot *slot = tcp_slot_of(&stream->channel->lanes[lane].out, number);
    struct iovec *pieces = &stream->pieces[2 * stream->count];
    struct tcp_wire *wire = &slot->buffer->body->wire;
    struct tcp_frame *frame = compose(stream, TCP_FRAGMENT, lane, slot->bytes);
    frame->number = number;
    wire->frame = *frame;
    slot->via = (uint8_t)stream->number;
    stream->gauge.held += sizeof *wire + slot->bytes;
    pieces[0] = (struct iovec){wire, sizeof *wire + slot->bytes};
    pieces[1] = (struct iovec){0};
    return pieces->iov_len;
}

/* What has to be known before anything else that comes this way: streams that were dropped. */
static void gather_drops(struct tcp_stream *stream)
{
    while (stream->drops && stream->count < TCP_BATCH) {
        uint32_t number = (uint32_t)__builtin_ctz(stream->drops);
        uint32_t life = stream->channel->streams[number]->dropped; /* by now it may be called in another life */
        compose_control(stream, TCP_DROP, 0, NULL, 0);
        stream->batch[stream->count - 1].number = number | life << 8;
        stream->drops &= stream->drops - 1;
    }
}

/* Fragments whose stream was dropped, oldest first in each lane. Returns their bytes. */
static size_t gather_again(struct tcp_stream *stream)
{
    struct tcp_channel *channel = stream->channel;
    size_t bytes = 0;
    for (unsigned lane = 0; lane < PCM_LANES && channel->again; lane++) {
        struct tcp_lane *each = &channel->lanes[lane];
        for (uint32_t number = each->credited; number != each->posted && channel->again; number++) {
            struct tcp_slot *slot = tcp_slot_of(&each->out, number);
            if (!slot->again) continue;
            if (stream->count == TCP_BATCH || bytes >= BATCH_BYTES || !tcp_may_take(stream)) return bytes;
            slot->again = false;
            channel->again--;
            bytes += compose_fragment(stream, lane, number);
            /* If it had arrived before, it may be credited, and its memory written to, before this has: so it is copied. */
            stream->bulky[stream->count - 1] = false;
        }
    }
    return bytes;
}

/* The other streams have delivered what they had: if one fails now, nothing needs to be sent again after the goodbye. */
static bool settled(const struct tcp_stream *stream)
{
    for (int i = 0; stream->channel->unlike && i < TCP_MOST_STREAMS; i++) {
        const struct tcp_stream *other = stream->channel->streams[i];
        int left = 0;
        if (!other || other == stream || !tcp_alive(other) || other->parted) continue;
        if (other->count || ioctl(other->watch.fd, SIOCOUTQ, &left) || left) return false;
    }
    return true;
}

/* Fills the batch of a stream that has none with what waits longest; false: nothing waits. */
static bool gather(struct tcp_stream *stream)
{
    struct tcp_channel *channel = stream->channel;
    if (channel->base.state != PCM_CHANNEL_UP || stream->parted) return false;
    stream->count = stream->at = 0;
    if (stream->drops) gather_drops(stream);
    if (channel->notice_bytes && !channel->notice_posted && stream->count < TCP_BATCH) {
        compose_control(stream, TCP_NOTICE, 0, channel->notice, channel->notice_bytes);
        channel->notice_posted = true;
        channel->notice_via = (uint8_t)stream->number;
    }
    size_t bytes = channel->again ? gather_again(stream) : 0;
    while (!channel->again && channel->queue_head != channel->queue_tail && stream->count < TCP_BATCH &&
           bytes < BATCH_BYTES && (!channel->unlike || tcp_may_take(stream))) {
        unsigned lane = channel->queue[channel->queue_head++ % TCP_QUEUE];
        bytes += compose_fragment(stream, lane, channel->lanes[lane].posted++);
    }
    while (channel->due && stream->count < TCP_BATCH)
        compose_control(stream, TCP_CREDIT, (unsigned)__builtin_ctz(channel->due), NULL, 0);
    if (stream->probe && stream->count < TCP_BATCH) compose_control(stream, TCP_CREDIT, 0, NULL, 0);
    stream->probe = false;
    bool last = channel->closing && !channel->again && channel->queue_head == channel->queue_tail;
    if (last && stream->count < TCP_BATCH && settled(stream)) {
        compose_control(stream, TCP_BYE, 0, &channel->goodbye, sizeof channel->goodbye);
        stream->parted = true;
    }
    return stream->count;
}

/* Gives back the oldest fragments of a lane, as far as the peer has credited them; false: one was never sent. */
static bool give_back_granted(struct tcp_channel *channel, unsigned number)
{
    struct tcp_lane *lane = &channel->lanes[number];
    while (lane->credited != lane->granted) {
        struct tcp_slot *slot = tcp_slot_of(&lane->out, lane->credited);
        if (slot->again) /* needless: it had arrived before its stream was dropped */
            channel->again--;
        else if (!slot->done)
            return channel->dropped; /* it is just being sent again, needlessly */
        tcp_give_back(tcp_endpoint_of(channel), slot);
        lane->credited++;
    }
    return true;
}

/* A frame has been sent in full. */
static void sent(struct tcp_stream *stream, const struct tcp_frame *frame)
{
    struct tcp_channel *channel = stream->channel;
    if (frame->kind == TCP_FRAGMENT) {
        tcp_slot_of(&channel->lanes[frame->lane].out, frame->number)->done = true;
        if (channel->dropped) give_back_granted(channel, frame->lane); /* it may have arrived over the stream before */
    }
    if (frame->kind == TCP_NOTICE) channel->notice_bytes = 0;
    if (frame->kind == TCP_BYE) shutdown(stream->watch.fd, SHUT_WR);
}

/* Sends what can go in one system call. */
static ssize_t send_some(struct tcp_stream *stream)
{
    struct tcp_endpoint *endpoint = tcp_endpoint_of(stream->channel);
    if (stream->cipher)
        return tcp_cipher_send(stream->cipher, stream->watch.fd, &stream->pieces[stream->at],
                               2 * stream->count - stream->at);
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
    bool waiting = false, more = channel->unlike;
    if (channel->ended) return;
    if (more) tcp_measure(channel, pcm_clock_ms());
    while (more) { /* each takes what it is the best for, until that is blocked */
        more = false;
        for (int i = 0; i < TCP_MOST_STREAMS; i++) {
            struct tcp_stream *stream = channel->streams[i];
            if (!stream || !stream->watched || stream->mute) continue;
            flush(stream);
            if (stream->count || !gather(stream)) continue;
            flush(stream);
            more = true;
        }
    }
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
    waiting |= channel->again || channel->queue_head != channel->queue_tail;
    tcp_set_unsent(channel, waiting);
}

/* ---- in -------------------------------------------------------------------------------------------------------- */

/* The peer has released fragments; false: more than it was sent. Counts may come out of order over several streams. */
static bool credit(struct tcp_channel *channel, const struct tcp_frame *frame)
{
    struct tcp_lane *lane = &channel->lanes[frame->lane];
    if (frame->window > lane->room) lane->room = frame->window < TCP_MOST_SLOTS ? frame->window : TCP_MOST_SLOTS;
    if ((int32_t)(frame->credit - lane->granted) <= 0) return true;
    if (frame->credit - lane->credited > lane->posted - lane->credited) return false;
    lane->granted = frame->credit;
    return give_back_granted(channel, frame->lane);
}

/* A frame's header is there: where does its payload go? Returns what is wrong with it, or NULL. */
static const char *begin(struct tcp_stream *stream)
{
    struct tcp_channel *channel = stream->channel;
    const struct tcp_frame *frame = &stream->wire.frame;
    if (frame->lane >= PCM_LANES) return "it sent a malformed frame";
    struct tcp_lane *lane = &channel->lanes[frame->lane];
    if (!credit(channel, frame)) return "it released what it was not sent";
    stream->left = frame->bytes;
    switch (frame->kind) {
    case TCP_FRAGMENT: {
        struct tcp_slot *slot = tcp_slot_of(&lane->in, frame->number);
        uint32_t ahead = frame->number - lane->released, behind = lane->released - frame->number;
        bool new = ahead < lane->window, old = (int32_t)behind > 0, here = old || (slot->taken && slot->done);
        /* Only what was sent again because a stream was dropped may come twice, the second time over a stream that is
         * however late. */
        if (frame->bytes > PCM_FRAGMENT || (!new && !old)) return "it sent more than there was room for";
        if (here && !channel->dropped) return "it sent again what has arrived";
        if (!here && slot->taken) return "it sent again what is arriving";
        stream->repeated = here;
        if (here) slot = &stream->junk;
        if (frame->bytes && !tcp_take_buffer(tcp_endpoint_of(channel), slot))
            return "no memory is left for what it sent";
        slot->head = stream->wire.head;
        slot->bytes = frame->bytes;
        slot->taken = true;
        stream->bulk = frame->bytes >= TCP_BULK;
        stream->into = slot->buffer ? slot->buffer->body->payload : NULL;
        return NULL;
    }
    case TCP_CREDIT:
    case TCP_DROP: return frame->bytes ? "it sent a malformed frame" : NULL;
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

/* A frame is there in full. Returns what is wrong with it, or NULL. */
static const char *finish(struct tcp_stream *stream)
{
    struct tcp_channel *channel = stream->channel;
    const struct tcp_frame *frame = &stream->wire.frame;
    struct tcp_lane *lane = &channel->lanes[frame->lane];
    stream->have = 0;
    switch (frame->kind) {
    case TCP_FRAGMENT:
        if (stream->repeated) {
            tcp_give_back(tcp_endpoint_of(channel), &stream->junk);
            return NULL;
        }
        tcp_slot_of(&lane->in, frame->number)->done = true;
        lane->arrived++;
        tcp_arrived(channel, frame->lane, frame->number);
        if (frame->bytes >= TCP_BULK) tcp_bulk(channel);
        break;
    case TCP_NOTICE:
        if (!channel->closing)
            pcm_world_on_notice(channel->base.endpoint->world, channel->base.peer, stream->in.notice, frame->bytes);
        return NULL;
    case TCP_DROP: return tcp_heed_drop(stream, frame->number) ? NULL : "it dropped a stream that it cannot drop";
    case TCP_BYE:
        stream->bye = channel->bye_heard = true;
        channel->farewell = stream->in.farewell;
        break;
    }
    if (complete(channel)) tcp_farewell_done(channel);
    return NULL;
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
        if (!stream->left) {
            const char *wrong = finish(stream);
            if (wrong) return wrong;
        }
    }
    return NULL;
}

/* Nothing that a stream brings can be understood any more. */
static void spoilt(struct tcp_stream *stream, const char *wrong)
{
    tcp_stream_close(stream); /* the channel's end must not read on here */
    tcp_lost(stream->channel, wrong);
}

static void receive_sealed(struct tcp_stream *stream)
{
    /* What has been read is taken in full: no descriptor would tell of it later. */
    for (size_t turn = 0; stream->watch.fd >= 0 && (turn < TURN || tcp_cipher_holds(stream->cipher));) {
        const uint8_t *bytes;
        ssize_t got = tcp_cipher_receive(stream->cipher, stream->watch.fd, &bytes);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (got < 0 && errno == EBADMSG) {
            spoilt(stream, "what came over an encrypted connection is not what it sent: it was changed on the way");
            return;
        }
        if (got <= 0) {
            tcp_stream_ended(stream, got < 0 ? strerror(errno) : "it closed the connection without goodbye");
            return;
        }
        stream->heard = true;
        turn += (size_t)got;
        const char *wrong = take(stream, bytes, (size_t)got);
        if (wrong) {
            spoilt(stream, wrong);
            return;
        }
    }
}

/* A short read means that there was no more. */
void tcp_stream_receive(struct tcp_stream *stream)
{
    if (stream->cipher) {
        receive_sealed(stream);
        return;
    }
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
        if (placed) stream->into += placed;
        stream->left -= (uint32_t)placed;
        const char *wrong = placed && !stream->left ? finish(stream) : NULL;
        if (!wrong) wrong = take(stream, scratch, (size_t)got - placed);
        if (wrong) {
            spoilt(stream, wrong);
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
    if ((events & EPOLLOUT || channel->unlike || channel->again) && !channel->ended) tcp_pump(channel);
    tcp_let_go(channel);
}
