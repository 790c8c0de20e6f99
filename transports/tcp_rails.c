/* tcp_rails.c: streams that are unlike: which takes the next fragment, and what happens if one fails.
 *
 * A slow stream would take fragments as readily as a fast one, up to what its socket holds, and the receiver would wait
 * for them with all that is behind. So over unlike rails a fragment goes over the stream that will have delivered it
 * first, by what each has under way, its latency, and the rate at which the kernel has measured that it delivers. If that
 * stream takes nothing now, another takes the fragment only if it has it there before the first could have delivered all
 * that waits: earliest completion first (Lim, Nahum, Towsley and Gibbens, "ECF: An MPTCP path scheduler to manage
 * heterogeneous paths", CoNEXT 2017).
 */
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "tcp.h"

enum {
    LOOK_MS = 5,       /* between measurements of a stream that is written to */
    LATE_MS = 50,      /* without an acknowledgement, beyond two round trips: a stream is as late as it is silent */
    PROBE_MS = 500,    /* ... the others are asked whether they are alive */
    DROP_MS = 1200,    /* ... and if one of them is, this one is not */
    SILENT_MS = 15000, /* all are silent for that long, and were asked ASKED times: the host is gone */
    ASKED = 4,
};

static const double UNKNOWN = 125e6; /* bytes/s of a stream that has delivered nothing yet */
static const double WEIGHT = 0.25;   /* of the latest rate in the average */
static const double FADE = 0.9;      /* of what was delivered before, with each look */
static const double HOPE = 1.01;     /* by which an idle stream's rate grows with each look */

bool tcp_alive(const struct tcp_stream *stream) { return stream->watched && !stream->mute; }

/* ---- what streams carry ---------------------------------------------------------------------------------------- */

/* False: nothing can be known of it. */
static bool look(struct tcp_stream *stream, int64_t now)
{
    struct tcp_gauge *gauge = &stream->gauge;
    struct tcp_info info;
    socklen_t length = sizeof info;
    if (getsockopt(stream->watch.fd, IPPROTO_TCP, TCP_INFO, &info, &length)) return false;
    if (info.tcpi_busy_time != gauge->busy_time) {
        gauge->bytes = FADE * gauge->bytes + (double)(info.tcpi_bytes_acked - gauge->acked);
        gauge->seconds = FADE * gauge->seconds + (double)(info.tcpi_busy_time - gauge->busy_time) / 1e6;
        gauge->busy_time = info.tcpi_busy_time;
    }
    /* What the kernel measures counts while the stream has enough to send; else a burst may have seemed faster than it was.
     * Then the stream delivers what it has delivered while it was busy, at least. */
    double rate = gauge->seconds > 0 ? gauge->bytes / gauge->seconds : 0;
    bool full = info.tcpi_unacked && !info.tcpi_delivery_rate_app_limited;
    if (full) rate = (double)info.tcpi_delivery_rate;
    if (gauge->rate <= 0) gauge->rate = UNKNOWN;
    if (full || rate > gauge->rate) gauge->rate += WEIGHT * (rate - gauge->rate);
    gauge->latency = info.tcpi_min_rtt / 2e6;
    if (!gauge->busy || !info.tcpi_unacked || info.tcpi_bytes_acked != gauge->acked) gauge->moved = now;
    gauge->busy = info.tcpi_unacked;
    gauge->acked = info.tcpi_bytes_acked;
    gauge->silence = info.tcpi_last_ack_recv;
    gauge->asked = info.tcpi_retransmits >= ASKED || info.tcpi_probes >= ASKED;
    gauge->looked = now;
    return true;
}

/* For how long it has not got on, though it has something under way: ms. A peer that is stopped, or busy, with a full
 * receive window acknowledges probes: TCP_USER_TIMEOUT would count that time, so it will not do. */
static int64_t stalled(const struct tcp_gauge *gauge, int64_t now)
{
    int64_t still = gauge->busy ? now - gauge->moved : 0;
    return still < gauge->silence ? still : gauge->silence;
}

void tcp_compare(struct tcp_channel *channel)
{
    const struct tcp_stream *first = NULL;
    channel->unlike = false;
    channel->rtt = 0;
    for (int i = 0; i < TCP_MOST_STREAMS; i++) {
        const struct tcp_stream *stream = channel->streams[i];
        struct tcp_info info;
        socklen_t length = sizeof info;
        if (!stream || stream->watch.fd < 0) continue;
        if (!first) first = stream;
        channel->unlike |= !tcp_same_host(&first->own, &stream->own) || !tcp_same_host(&first->peer, &stream->peer);
        if (getsockopt(stream->watch.fd, IPPROTO_TCP, TCP_INFO, &info, &length)) continue;
        int64_t rtt = info.tcpi_min_rtt == UINT32_MAX ? 0 : info.tcpi_min_rtt / 1000;
        if (rtt > channel->rtt) channel->rtt = rtt;
    }
    tcp_look_soon(channel);
}

void tcp_measure(struct tcp_channel *channel, int64_t now)
{
    double best = 0;
    for (int i = 0; i < TCP_MOST_STREAMS; i++)
        if (channel->streams[i] && tcp_alive(channel->streams[i]) && channel->streams[i]->gauge.rate > best)
            best = channel->streams[i]->gauge.rate;
    for (int i = 0; i < TCP_MOST_STREAMS; i++) {
        struct tcp_stream *stream = channel->streams[i];
        int queued = 0;
        if (!stream || !tcp_alive(stream)) continue;
        struct tcp_gauge *gauge = &stream->gauge;
        ioctl(stream->watch.fd, SIOCOUTQ, &queued);
        gauge->held = queued;
        for (int piece = stream->at; piece < 2 * stream->count; piece++)
            gauge->held += (double)stream->pieces[piece].iov_len;
        if (now - gauge->looked >= LOOK_MS && look(stream, now) && !gauge->busy && gauge->rate < best)
            gauge->rate *= HOPE; /* it has nothing to do because it was slow: it may be faster by now */
        gauge->late = (double)(stalled(gauge, now) - LATE_MS) / 1e3 - 4 * gauge->latency;
    }
}

/* ---- which stream is next -------------------------------------------------------------------------------------- */

static double rate_of(const struct tcp_stream *stream) { return stream->gauge.rate > 0 ? stream->gauge.rate : UNKNOWN; }

/* When what this stream takes now will have been delivered: seconds from now. */
static double due_of(const struct tcp_stream *stream)
{
    const struct tcp_gauge *gauge = &stream->gauge;
    return gauge->held / rate_of(stream) + gauge->latency + (gauge->late > 0 ? gauge->late : 0);
}

bool tcp_may_take(const struct tcp_stream *stream)
{
    const struct tcp_channel *channel = stream->channel;
    if (!channel->unlike) return true;
    const struct tcp_stream *best = stream;
    double due = due_of(stream);
    for (int i = 0; i < TCP_MOST_STREAMS; i++) {
        const struct tcp_stream *other = channel->streams[i];
        if (!other || other == stream || !tcp_alive(other) || other->parted || due_of(other) >= due_of(best)) continue;
        if (!other->count && due_of(other) < due) return false; /* it will have its turn */
        best = other;
    }
    if (best == stream) return true;
    double waiting = (double)TCP_PIECE * (channel->queue_tail - channel->queue_head + channel->again);
    return due <= due_of(best) + waiting / rate_of(best);
}

/* ---- streams that fail ------------------------------------------------------------------------------------------- */

/* What went over a stream and is not credited goes again; so does what else may have been lost with it. */
static void send_again(struct tcp_channel *channel, uint32_t number)
{
    for (unsigned lane = 0; lane < PCM_LANES; lane++) {
        struct tcp_lane *each = &channel->lanes[lane];
        for (uint32_t fragment = each->credited; fragment != each->posted; fragment++) {
            struct tcp_slot *slot = tcp_slot_of(&each->out, fragment);
            if (slot->via != number || slot->again) continue;
            slot->done = false;
            slot->again = true;
            channel->again++;
        }
        if (each->released) channel->due |= 1u << lane;
    }
    if (!channel->notice_kept || channel->notice_via != number) return;
    channel->notice_bytes = channel->notice_kept;
    channel->notice_posted = false;
}

void tcp_drop(struct tcp_stream *stream, bool tell)
{
    struct tcp_channel *channel = stream->channel;
    if (stream->watch.fd < 0) return;
    struct linger at_once = {.l_onoff = 1}; /* the kernel lets go of the fragments too */
    setsockopt(stream->watch.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    tcp_stream_close(stream);
    tcp_stream_forget(stream);
    channel->dropped = true;
    stream->dropped = stream->life;
    send_again(channel, stream->number);
    for (int i = 0; tell && i < TCP_MOST_STREAMS; i++)
        if (channel->streams[i] && tcp_alive(channel->streams[i])) channel->streams[i]->drops |= 1u << stream->number;
    tcp_compare(channel);
    if (channel->caller) tcp_call_later(stream);
}

bool tcp_heed_drop(struct tcp_stream *from, uint32_t what)
{
    struct tcp_channel *channel = from->channel;
    uint32_t number = what & 0xff, life = what >> 8;
    if (number >= TCP_MOST_STREAMS || number == from->number) return false;
    struct tcp_stream *stream = channel->streams[number];
    channel->dropped = true;
    if (stream && stream->life == life) tcp_drop(stream, false);
    return true;
}

bool tcp_look_after(struct tcp_channel *channel, int64_t now)
{
    bool busy = false, asking = false;
    int64_t freshest = INT64_MAX; /* ms since any was acknowledged */
    for (int i = 0; i < TCP_MOST_STREAMS; i++) {
        struct tcp_stream *stream = channel->streams[i];
        if (!stream || !stream->watched || !look(stream, now)) continue;
        busy |= stream->gauge.busy || stream->count;
        asking |= stalled(&stream->gauge, now) >= PROBE_MS;
        if (stream->gauge.silence < freshest) freshest = stream->gauge.silence;
    }
    for (int i = 0; i < TCP_MOST_STREAMS; i++) {
        struct tcp_stream *stream = channel->streams[i];
        if (!stream || !stream->watched) continue;
        const struct tcp_gauge *gauge = &stream->gauge;
        if (stalled(gauge, now) >= DROP_MS && freshest < PROBE_MS) {
            tcp_drop(stream, true);
        } else if (gauge->asked && gauge->silence >= SILENT_MS && freshest >= SILENT_MS) {
            tcp_lost(channel, "its host has not answered for 15 s");
            return true;
        }
        if (asking && !gauge->busy) stream->probe = true;
    }
    for (unsigned lane = 0; lane < PCM_LANES; lane++) /* so that the peer can free what it keeps until then */
        if (channel->lanes[lane].released != channel->lanes[lane].announced) channel->due |= 1u << lane;
    if (channel->due || channel->again || asking) tcp_pump(channel);
    return busy;
}

/* ---- for people --------------------------------------------------------------------------------------------------- */

size_t tcp_rails(struct pcm_endpoint *base, char *text, size_t capacity)
{
    struct tcp_endpoint *endpoint = (struct tcp_endpoint *)base;
    const struct tcp_channel *channel;
    size_t used = 0;
    LIST_FOREACH(channel, &endpoint->channels, link)
    for (int i = 0; i < TCP_MOST_STREAMS; i++) {
        const struct tcp_stream *stream = channel->streams[i];
        struct tcp_info info = {0};
        socklen_t length = sizeof info;
        char own[64], peer[64];
        if (!stream || !stream->worked) continue;
        bool up = stream->watch.fd >= 0 && !getsockopt(stream->watch.fd, IPPROTO_TCP, TCP_INFO, &info, &length);
        tcp_place_name(&stream->own, own, sizeof own);
        tcp_place_name(&stream->peer, peer, sizeof peer);
        bool room = used < capacity;
        int bytes = snprintf(room ? text + used : NULL, room ? capacity - used : 0,
                             "{\"peer\": %d, \"channel\": %llu, \"stream\": %d, \"from\": \"%s\", \"to\": \"%s\", "
                             "\"sent\": %llu, \"received\": %llu, \"rate\": %llu, \"up\": %s}\n",
                             channel->base.peer, (unsigned long long)channel->base.id, i, own, peer,
                             (unsigned long long)info.tcpi_bytes_acked, (unsigned long long)info.tcpi_bytes_received,
                             (unsigned long long)rate_of(stream), up ? "true" : "false");
        used += (size_t)(bytes > 0 ? bytes : 0);
    }
    return used;
}
