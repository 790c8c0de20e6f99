/* tcp.c: the endpoint, its clock, and the transport's slots. See tcp.h for the picture. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "tcp.h"

enum {
    LINGER_MS = 5000, /* what a closed channel may take to deliver its last fragments */
    SHUT_MS = 1000,   /* ... when the world ends */
    HEALTH_MS = 5000, /* between looks at a channel's connection, while something is under way, */
    SEVERAL_MS = 250, /* ... at its connections, */
    UNLIKE_MS = 50,   /* ... over several rails */
    PART_MS = 5,      /* between attempts to say goodbye */
};

/* ---- time ------------------------------------------------------------------------------------------------------ */

void tcp_arm_timer(struct tcp_endpoint *endpoint, int64_t when)
{
    if (endpoint->armed && endpoint->armed <= when) return;
    struct itimerspec spec = {.it_value = {.tv_sec = when / 1000, .tv_nsec = when % 1000 * 1000000}};
    timerfd_settime(endpoint->timer.fd, TFD_TIMER_ABSTIME, &spec, NULL);
    endpoint->armed = when;
}

/* ms between looks at a channel's streams, while something is under way. */
static int64_t pace(const struct tcp_channel *channel)
{
    if (channel->unlike) return UNLIKE_MS;
    for (int i = 1; i < TCP_MOST_STREAMS; i++)
        if (channel->streams[i] && channel->streams[i]->watched) return SEVERAL_MS;
    return HEALTH_MS;
}

void tcp_look_soon(struct tcp_channel *channel)
{
    struct tcp_endpoint *endpoint = tcp_endpoint_of(channel);
    int64_t when = pcm_clock_ms() + pace(channel);
    if (!channel->look || when < channel->look) channel->look = when;
    if (endpoint->health && endpoint->health <= when) return;
    endpoint->health = when;
    tcp_arm_timer(endpoint, when);
}

/* There is traffic: look after it from time to time. */
static void stir(struct tcp_channel *channel)
{
    if (!channel->look) tcp_look_soon(channel);
}

/* A channel over several rails that is closing says goodbye on a stream only once the others have delivered what they had. */
static bool unparted(const struct tcp_channel *channel)
{
    bool left = false;
    for (int i = 0; channel->unlike && i < TCP_MOST_STREAMS; i++)
        left |= channel->streams[i] && tcp_alive(channel->streams[i]) && !channel->streams[i]->parted;
    return left;
}

static void on_timer(struct pcm_watch *watch, uint32_t events)
{
    (void)events;
    struct tcp_endpoint *endpoint = (struct tcp_endpoint *)((char *)watch - offsetof(struct tcp_endpoint, timer));
    uint64_t expirations;
    while (read(watch->fd, &expirations, sizeof expirations) < 0 && errno == EINTR) {
    }
    int64_t now = pcm_clock_ms();
    endpoint->health = endpoint->armed = 0;
    struct tcp_channel *channel, *next;
    for (channel = LIST_FIRST(&endpoint->channels); channel; channel = next) {
        tcp_hold(channel);
        if (channel->retry && channel->retry <= now) {
            channel->retry = 0;
            if (channel->base.state == PCM_CHANNEL_CONNECTING && !channel->streams[0]->visit) tcp_try_next(channel);
        }
        if (channel->look && channel->look <= now) {
            channel->look = 0;
            if (tcp_look_after(channel, now)) stir(channel);
        }
        tcp_redial(channel, now);
        if (channel->closing) tcp_pump(channel);
        if (channel->closing && channel->linger <= now) tcp_free_channel(channel);
        next = LIST_NEXT(channel, link);
        tcp_let_go(channel);
    }
    LIST_FOREACH(channel, &endpoint->channels, link)
    {
        if (channel->retry) tcp_arm_timer(endpoint, channel->retry);
        if (channel->closing) tcp_arm_timer(endpoint, unparted(channel) ? now + PART_MS : channel->linger);
        if (channel->look && (!endpoint->health || channel->look < endpoint->health)) endpoint->health = channel->look;
        for (int i = 0; !channel->closing && !channel->ended && i < TCP_MOST_STREAMS; i++)
            if (channel->streams[i] && channel->streams[i]->redial)
                tcp_arm_timer(endpoint, channel->streams[i]->redial);
    }
    if (endpoint->health) tcp_arm_timer(endpoint, endpoint->health);
}

/* ---- the slots of the transport -------------------------------------------------------------------------------- */

static void tcp_shut(struct pcm_endpoint *base);

static int tcp_open(pcm_world *world, const char *argument, struct pcm_endpoint **out)
{
    const struct pcm_world_config *config = pcm_world_get_config(world);
    if (argument && *argument)
        return pcm_fail(PCM_ERR_ARGUMENT, -1, "the transport tcp takes no argument (%s)", argument);
    if (config->streams < 0 || config->streams > TCP_MOST_STREAMS)
        return pcm_fail(PCM_ERR_ARGUMENT, -1, "`streams` is %d; it may be 1 to %d, or 0 for the default",
                        config->streams, TCP_MOST_STREAMS);
    if (config->encrypt && !config->mac)
        return pcm_fail(PCM_ERR_ARGUMENT, -1, "encryption is asked for, and there is no secret: give `mac`");
    int missing = config->encrypt ? tcp_find_cipher() : PCM_OK;
    if (missing) return missing;
    struct tcp_endpoint *endpoint = calloc(1, sizeof *endpoint);
    if (!endpoint) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for the transport tcp");
    endpoint->base = (struct pcm_endpoint){.ops = &pcm_tcp, .world = world};
    endpoint->streams = config->streams;
    endpoint->sealed = config->encrypt;
    endpoint->timer = (struct pcm_watch){timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), on_timer};
    LIST_INIT(&endpoint->channels);
    tcp_open_buffers(endpoint);
    int listening, status = PCM_OK;
    if (endpoint->timer.fd < 0) status = pcm_fail(PCM_ERR_SYSTEM, -1, "cannot make a timer: %m");
    if (!status) status = pcm_reactor_add(pcm_world_reactor(world), &endpoint->timer, EPOLLIN);
    if (!status) status = tcp_listen(config, &listening, endpoint);
    if (!status)
        status = pcm_door_open(world, listening, PCM_HANDSHAKE_MS, tcp_admit, tcp_welcome, endpoint, &endpoint->door);
    if (status)
        tcp_shut(&endpoint->base);
    else
        *out = &endpoint->base;
    return status;
}

static int tcp_address(struct pcm_endpoint *base, void *address, size_t *bytes)
{
    const struct tcp_endpoint *endpoint = (struct tcp_endpoint *)base;
    return tcp_write_address(endpoint->places, endpoint->nplaces, endpoint->sealed, address, bytes);
}

static bool tcp_reaches(struct pcm_endpoint *base, const void *address, size_t bytes)
{
    (void)base;
    struct tcp_place places[TCP_PLACES];
    bool sealed; /* connect says what is wrong then */
    return tcp_read_address(address, bytes, places, &sealed) > 0;
}

static void *tcp_reserve(struct pcm_channel *base, unsigned number, size_t want, size_t *room)
{
    struct tcp_channel *channel = (struct tcp_channel *)base;
    struct tcp_lane *lane = &channel->lanes[number];
    uint32_t out = lane->committed - lane->credited;
    if (base->state != PCM_CHANNEL_UP || out >= lane->room) return NULL;
    if (out > lane->out.mask && !tcp_widen_out(lane)) return NULL;
    struct tcp_slot *slot = tcp_slot_of(&lane->out, lane->committed);
    if (!tcp_take_buffer(tcp_endpoint_of(channel), slot)) {
        tcp_lost(channel, "no memory is left for what to send to it");
        return NULL;
    }
    *room = want > PCM_FRAGMENT ? TCP_PIECE : PCM_FRAGMENT;
    return slot->buffer->body->payload;
}

static void tcp_commit(struct pcm_channel *base, unsigned number, const struct pcm_head *head, size_t bytes)
{
    struct tcp_channel *channel = (struct tcp_channel *)base;
    struct tcp_lane *lane = &channel->lanes[number];
    struct tcp_slot *slot = tcp_slot_of(&lane->out, lane->committed);
    if (base->state != PCM_CHANNEL_UP) return; /* it went down after the reservation */
    slot->buffer->body->wire.head = *head;
    slot->bytes = (uint32_t)bytes;
    lane->committed++;
    channel->queue[channel->queue_tail++ % TCP_QUEUE] = (uint8_t)number;
    if (bytes >= TCP_BULK) tcp_bulk(channel);
    tcp_pump(channel);
    stir(channel);
}

static const struct pcm_head *tcp_peek(struct pcm_channel *base, unsigned number, const void **payload, size_t *bytes)
{
    struct tcp_lane *lane = &((struct tcp_channel *)base)->lanes[number];
    struct tcp_slot *slot = tcp_slot_of(&lane->in, lane->released);
    if (!slot->done) return NULL;
    *payload = slot->buffer ? (void *)slot->buffer->body->payload : slot;
    *bytes = slot->bytes;
    return &slot->head;
}

static void tcp_release(struct pcm_channel *base, unsigned number)
{
    struct tcp_channel *channel = (struct tcp_channel *)base;
    struct tcp_lane *lane = &channel->lanes[number];
    tcp_give_back(tcp_endpoint_of(channel), tcp_slot_of(&lane->in, lane->released));
    lane->released++;
    stir(channel);
    if (lane->released - lane->announced < TCP_SLOTS / 4) return;
    tcp_released(channel, number);
    channel->due |= 1u << number;
    tcp_pump(channel);
}

static bool tcp_notice(struct pcm_channel *base, const void *bytes, size_t length)
{
    struct tcp_channel *channel = (struct tcp_channel *)base;
    if (base->state != PCM_CHANNEL_UP || channel->notice_bytes || !length || length > PCM_NOTICE) return false;
    memcpy(channel->notice, bytes, length);
    channel->notice_bytes = channel->notice_kept = (uint32_t)length;
    channel->notice_posted = false;
    tcp_pump(channel);
    return true;
}

static void tcp_close(struct pcm_channel *base)
{
    struct tcp_channel *channel = (struct tcp_channel *)base;
    if (base->state != PCM_CHANNEL_UP || channel->ended) {
        tcp_free_channel(channel);
        return;
    }
    channel->closing = true;
    channel->linger = pcm_clock_ms() + LINGER_MS;
    tcp_arm_timer(tcp_endpoint_of(channel), channel->linger);
    for (unsigned lane = 0; lane < PCM_LANES; lane++) channel->goodbye.fragments[lane] = channel->lanes[lane].committed;
    for (int i = 0; i < TCP_MOST_STREAMS; i++) /* nobody joins any more */
        if (channel->streams[i] && channel->streams[i]->visit) {
            pcm_door_drop(channel->streams[i]->visit);
            channel->streams[i]->visit = NULL;
        }
    tcp_pump(channel);
    if (unparted(channel)) tcp_arm_timer(tcp_endpoint_of(channel), pcm_clock_ms() + PART_MS);
}

/* All that a closed channel had to say lies in the peer's kernel: no need to wait until the peer has read it. */
static bool delivered(const struct tcp_channel *channel)
{
    if (channel->again) return false;
    for (int i = 0; i < TCP_MOST_STREAMS; i++) {
        const struct tcp_stream *stream = channel->streams[i];
        int left = 0;
        if (!stream || stream->watch.fd < 0) continue;
        if (!stream->parted || stream->count || ioctl(stream->watch.fd, SIOCOUTQ, &left) || left) return false;
    }
    return true;
}

static void tcp_shut(struct pcm_endpoint *base)
{
    struct tcp_endpoint *endpoint = (struct tcp_endpoint *)base;
    struct tcp_channel *channel, *next;
    for (channel = LIST_FIRST(&endpoint->channels); channel; channel = next) {
        next = LIST_NEXT(channel, link);
        if (!channel->claimed)
            tcp_free_channel(channel);
        else if (!channel->closing)
            tcp_close(&channel->base);
    }
    for (int64_t until = pcm_clock_ms() + SHUT_MS; pcm_clock_ms() < until;) {
        for (channel = LIST_FIRST(&endpoint->channels); channel; channel = next) {
            next = LIST_NEXT(channel, link);
            if (delivered(channel)) tcp_free_channel(channel);
        }
        if (LIST_EMPTY(&endpoint->channels)) break;
        pcm_reactor_poll(pcm_world_reactor(base->world), 1);
    }
    while (!LIST_EMPTY(&endpoint->channels)) tcp_free_channel(LIST_FIRST(&endpoint->channels));
    pcm_door_close(endpoint->door);
    if (endpoint->timer.fd >= 0) {
        pcm_reactor_remove(pcm_world_reactor(base->world), &endpoint->timer);
        close(endpoint->timer.fd);
    }
    tcp_close_buffers(endpoint);
    free(endpoint);
}

const struct pcm_transport pcm_tcp = {
    .name = "tcp",
    .open = tcp_open,
    .address = tcp_address,
    .reaches = tcp_reaches,
    .connect = tcp_connect,
    .reserve = tcp_reserve,
    .commit = tcp_commit,
    .peek = tcp_peek,
    .release = tcp_release,
    .notice = tcp_notice,
    .rails = tcp_rails,
    .close = tcp_close,
    .shut = tcp_shut,
};
