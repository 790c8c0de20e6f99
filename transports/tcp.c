/* tcp.c: the endpoint and its channels: who connects to whom, the transport's slots, closing. See tcp.h for the
 * picture. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "tcp.h"

enum {
    CONNECT_MS = 1000,     /* for one address, before the next is tried; doubles each pass */
    ANSWER_MS = 5000,      /* likewise, for the answer of who is there, if there are other addresses */
    REFUSED_MS = 2000,     /* a rank listens before it publishes its address: refused for this long, it is gone */
    GIVE_UP_MS = 30000,    /* for all other trouble */
    LINGER_MS = 5000,      /* what a closed channel may take to deliver its last fragments */
    SHUT_MS = 1000,        /* ... when the world ends */
    HEALTH_MS = 5000,      /* between looks at the connections, while something is under way */
    MOST_UNCLAIMED = 1024, /* channels that peers opened and this side has not asked for yet */
    SWEEP = 64,            /* among so many of them, some may be stale */
};

static struct tcp_endpoint *endpoint_of(const struct tcp_channel *channel)
{
    return (struct tcp_endpoint *)channel->base.endpoint;
}

static void arm_timer(struct tcp_endpoint *endpoint, int64_t when)
{
    if (endpoint->armed && endpoint->armed <= when) return;
    struct itimerspec spec = {.it_value = {.tv_sec = when / 1000, .tv_nsec = when % 1000 * 1000000}};
    timerfd_settime(endpoint->timer.fd, TFD_TIMER_ABSTIME, &spec, NULL);
    endpoint->armed = when;
}

/* ---- the life of a channel ----------------------------------------------------------------------------------------
 */

static struct tcp_channel *new_channel(struct tcp_endpoint *endpoint, int peer, uint64_t id)
{
    struct tcp_channel *channel = calloc(1, sizeof *channel);
    if (!channel) {
        pcm_fail(PCM_ERR_SYSTEM, peer, "out of memory for a channel to rank %d", peer);
        return NULL;
    }
    channel->base = (struct pcm_channel){.ops = &pcm_tcp, .endpoint = &endpoint->base, .peer = peer, .id = id};
    LIST_INSERT_HEAD(&endpoint->channels, channel, link);
    return channel;
}

static struct tcp_stream *new_stream(struct tcp_channel *channel, uint32_t number)
{
    struct tcp_stream *stream = channel->streams[number];
    if (!stream) stream = calloc(1, sizeof *stream);
    if (!stream) return NULL;
    *stream = (struct tcp_stream){.watch.fd = -1, .channel = channel, .number = number};
    return channel->streams[number] = stream;
}

/* Closes all connections, and those being made. Fragments that have arrived stay readable. */
static void end_streams(struct tcp_channel *channel)
{
    channel->ended = true;
    for (int i = 0; i < TCP_MOST_STREAMS; i++) {
        struct tcp_stream *stream = channel->streams[i];
        if (!stream) continue;
        if (stream->visit) pcm_door_drop(stream->visit);
        stream->visit = NULL;
        tcp_stream_close(stream);
    }
}

static void free_channel(struct tcp_channel *channel)
{
    end_streams(channel);
    channel->freed = true;
    if (channel->busy) return;
    for (unsigned lane = 0; lane < PCM_LANES; lane++)
        for (unsigned i = 0; i < TCP_SLOTS; i++) {
            tcp_give_back(endpoint_of(channel), &channel->lanes[lane].out[i]);
            tcp_give_back(endpoint_of(channel), &channel->lanes[lane].in[i]);
        }
    for (int i = 0; i < TCP_MOST_STREAMS; i++) free(channel->streams[i]);
    if (!channel->claimed) endpoint_of(channel)->unclaimed--;
    LIST_REMOVE(channel, link);
    free(channel);
}

void tcp_enter(struct tcp_channel *channel)
{
    channel->busy++;
}

void tcp_leave(struct tcp_channel *channel)
{
    if (!--channel->busy && channel->freed) free_channel(channel);
}

void tcp_lost(struct tcp_channel *channel, const char *why)
{
    if (channel->ended) return;
    channel->ended = true; /* what the other streams find out now changes nothing */
    tcp_enter(channel);
    for (int i = 0; i < TCP_MOST_STREAMS; i++) /* what the peer had sent before can still be read */
        if (channel->streams[i] && channel->streams[i]->watched) tcp_stream_receive(channel->streams[i]);
    end_streams(channel);
    if (channel->closing)
        free_channel(channel);
    else if (channel->base.state <= PCM_CHANNEL_UP)
        pcm_channel_fail(&channel->base, PCM_CHANNEL_LOST, why);
    tcp_leave(channel);
}

void tcp_farewell_done(struct tcp_channel *channel)
{
    if (channel->base.state == PCM_CHANNEL_UP && !channel->closing)
        pcm_channel_fail(&channel->base, PCM_CHANNEL_CLOSED, "it closed the channel");
}

void tcp_stream_ended(struct tcp_stream *stream, const char *why)
{
    struct tcp_channel *channel = stream->channel;
    tcp_stream_close(stream);
    /* A stream that joined and never spoke was called off by a peer that is about to say goodbye on the first one. */
    bool in_order = stream->bye || (stream->number && !stream->heard);
    if (!in_order) tcp_lost(channel, why);
    if (channel->ended) return;
    for (int i = 0; i < TCP_MOST_STREAMS; i++)
        if (channel->streams[i] && channel->streams[i]->watch.fd >= 0) return;
    if (channel->closing)
        free_channel(channel);
    else if (channel->base.state == PCM_CHANNEL_UP)
        tcp_lost(channel, "fragments are missing after its goodbye");
}

/* ---- connecting ---------------------------------------------------------------------------------------------------
 */

static void try_next(struct tcp_channel *channel);

static struct pcm_visit *dial(struct tcp_channel *channel, uint32_t number, pcm_called_fn *called, void *user)
{
    struct tcp_endpoint *endpoint = endpoint_of(channel);
    const struct pcm_world_config *config = pcm_world_get_config(endpoint->base.world);
    struct tcp_greeting greeting = {.token = channel->token, .number = number};
    struct pcm_hello hello = {.job = config->job,
                              .channel = channel->base.id,
                              .from = (uint32_t)config->rank,
                              .to = (uint32_t)channel->base.peer,
                              .bytes = sizeof greeting};
    memcpy(hello.payload, &greeting, sizeof greeting);
    int fd = tcp_dial(&channel->places[channel->place]);
    int longer = channel->pass < 5 ? channel->pass : 5;
    if (fd < 0) return NULL;
    return pcm_door_call(endpoint->door, fd, &hello, CONNECT_MS << longer,
                         channel->nplaces > 1 ? ANSWER_MS << longer : 0, called, user);
}

static void came_up(struct tcp_channel *channel, int fd)
{
    tcp_stream_attach(channel->streams[0], fd);
    if (tcp_stream_watch(channel->streams[0])) {
        tcp_lost(channel, pcm_last_error()->text);
        return;
    }
    channel->base.state = PCM_CHANNEL_UP;
}

static void note_trouble(struct tcp_channel *channel, const char *why)
{
    char name[64];
    tcp_place_name(&channel->places[channel->place], name, sizeof name);
    snprintf(channel->trouble, sizeof channel->trouble, "cannot connect to %s: %s", name, why);
}

static void on_first_called(void *user, int status, int fd, const char *why)
{
    struct tcp_channel *channel = user;
    channel->streams[0]->visit = NULL;
    if (status == PCM_OK) {
        channel->caller = true;
        came_up(channel, fd);
    } else if (status == PCM_AGAIN) { /* its own call comes, or it has yet to close the last use of the channel */
        channel->began = pcm_clock_ms();
        channel->retry = channel->began + (channel->pass < 5 ? 20 << channel->pass : 500);
        channel->pass++;
        arm_timer(endpoint_of(channel), channel->retry);
    } else {
        if (status != PCM_ERR_PEER_LOST && status != PCM_ERR_AUTH) channel->hopeful = true;
        note_trouble(channel, why);
        channel->place++;
        try_next(channel);
    }
}

/* Calls the peer at the next of its addresses; after the last, pauses and starts again, or gives up. */
static void try_next(struct tcp_channel *channel)
{
    for (; channel->place < channel->nplaces; channel->place++) {
        channel->streams[0]->visit = dial(channel, 0, on_first_called, channel);
        if (channel->streams[0]->visit) return;
        if (errno != ECONNREFUSED) channel->hopeful = true;
        note_trouble(channel, strerror(errno));
    }
    int64_t now = pcm_clock_ms(), patience = channel->hopeful ? GIVE_UP_MS : REFUSED_MS;
    if (now - channel->began > patience) {
        tcp_lost(channel, channel->trouble);
        return;
    }
    channel->retry = now + (channel->pass < 5 ? 20 << channel->pass : 500);
    channel->pass++;
    channel->place = 0;
    channel->hopeful = false;
    arm_timer(endpoint_of(channel), channel->retry);
}

static void on_more_called(void *user, int status, int fd, const char *why)
{
    (void)why; /* the channel does without */
    struct tcp_stream *stream = user;
    stream->visit = NULL;
    if (status != PCM_OK) return;
    tcp_stream_attach(stream, fd);
    if (tcp_stream_watch(stream))
        tcp_stream_close(stream);
    else
        tcp_pump(stream->channel);
}

void tcp_bulk(struct tcp_channel *channel)
{
    if (!channel->caller || channel->grown || channel->closing || channel->base.state != PCM_CHANNEL_UP) return;
    channel->grown = true;
    for (uint32_t number = 1; number < (uint32_t)endpoint_of(channel)->streams; number++) {
        struct tcp_stream *stream = new_stream(channel, number);
        if (stream) stream->visit = dial(channel, number, on_more_called, stream);
    }
}

static struct tcp_channel *find_token(struct tcp_endpoint *endpoint, const struct pcm_hello *hello, uint64_t token)
{
    struct tcp_channel *channel;
    LIST_FOREACH(channel, &endpoint->channels, link)
    if (channel->token == token && channel->base.id == hello->channel && channel->base.peer == (int)hello->from &&
        !channel->caller && !channel->closing && channel->base.state == PCM_CHANNEL_UP)
        return channel;
    return NULL;
}

static struct tcp_channel *find_claimed(struct tcp_endpoint *endpoint, int peer, uint64_t id)
{
    struct tcp_channel *channel;
    LIST_FOREACH(channel, &endpoint->channels, link)
    if (channel->claimed && !channel->closing && channel->base.peer == peer && channel->base.id == id) return channel;
    return NULL;
}

/* A waiting channel whose caller has gone, or said goodbye, without sending anything. */
static bool stale(const struct tcp_channel *channel)
{
    struct tcp_frame first;
    ssize_t there = recv(channel->streams[0]->watch.fd, &first, sizeof first, MSG_PEEK | MSG_DONTWAIT);
    if (there == sizeof first) return first.kind == TCP_BYE;
    return there == 0 || (there < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

/* Drops the stale ones among the channels that wait. */
static void sweep(struct tcp_endpoint *endpoint)
{
    struct tcp_channel *channel, *next;
    for (channel = LIST_FIRST(&endpoint->channels); channel; channel = next) {
        next = LIST_NEXT(channel, link);
        if (!channel->claimed && stale(channel)) free_channel(channel);
    }
}

/* The oldest channel that a peer has opened and this side has not asked for. */
static struct tcp_channel *find_unclaimed(struct tcp_endpoint *endpoint, int peer, uint64_t id)
{
    struct tcp_channel *channel, *oldest = NULL;
    LIST_FOREACH(channel, &endpoint->channels, link) /* the list is newest first */
    if (!channel->claimed && channel->base.peer == peer && channel->base.id == id && !stale(channel)) oldest = channel;
    return oldest;
}

static int admit(void *user, const struct pcm_hello *hello)
{
    struct tcp_endpoint *endpoint = user;
    struct tcp_greeting greeting;
    if (hello->bytes != sizeof greeting) return PCM_YIELD;
    memcpy(&greeting, hello->payload, sizeof greeting);
    if (greeting.number) {
        struct tcp_channel *channel = find_token(endpoint, hello, greeting.token);
        bool joins = channel && greeting.number < TCP_MOST_STREAMS && !channel->streams[greeting.number];
        return joins ? PCM_WELCOME : PCM_YIELD;
    }
    struct tcp_channel *channel = find_claimed(endpoint, (int)hello->from, hello->channel);
    if (channel && channel->base.state == PCM_CHANNEL_UP) return PCM_YIELD;
    if (channel && channel->base.state == PCM_CHANNEL_CONNECTING) {
        bool calling = channel->streams[0]->visit, lower = hello->to < hello->from;
        return calling && lower ? PCM_YIELD : PCM_WELCOME;
    }
    return endpoint->unclaimed < MOST_UNCLAIMED ? PCM_WELCOME : PCM_YIELD;
}

static void enter(void *user, int fd, const struct pcm_hello *hello)
{
    struct tcp_endpoint *endpoint = user;
    struct tcp_greeting greeting;
    memcpy(&greeting, hello->payload, sizeof greeting);
    if (greeting.number) {
        struct tcp_channel *channel = find_token(endpoint, hello, greeting.token);
        struct tcp_stream *stream = new_stream(channel, greeting.number);
        if (!stream) {
            close(fd);
            return;
        }
        tcp_stream_attach(stream, fd);
        if (channel->claimed && tcp_stream_watch(stream)) tcp_stream_close(stream);
        tcp_pump(channel);
        return;
    }
    struct tcp_channel *channel = find_claimed(endpoint, (int)hello->from, hello->channel);
    if (channel && channel->base.state == PCM_CHANNEL_CONNECTING) {
        if (channel->streams[0]->visit) pcm_door_drop(channel->streams[0]->visit);
        channel->streams[0]->visit = NULL;
        channel->token = greeting.token;
        came_up(channel, fd);
        return;
    }
    if (endpoint->unclaimed % SWEEP == SWEEP - 1) sweep(endpoint);
    channel = new_channel(endpoint, (int)hello->from, hello->channel);
    if (!channel || !new_stream(channel, 0)) {
        close(fd);
        if (channel) free(channel);
        return;
    }
    tcp_stream_attach(channel->streams[0], fd);
    channel->token = greeting.token;
    channel->base.state = PCM_CHANNEL_UP;
    endpoint->unclaimed++;
}

/* ---- time ---------------------------------------------------------------------------------------------------------
 */

/* Looks after a channel that has had traffic: is the peer's host alive, and has it all credit that it is due? True if
 * anything is still under way. */
static bool look_after(struct tcp_channel *channel)
{
    bool busy = false;
    for (int i = 0; i < TCP_MOST_STREAMS; i++) {
        if (!channel->streams[i] || !channel->streams[i]->watched) continue;
        enum tcp_health health = tcp_stream_health(channel->streams[i]);
        busy |= health != TCP_IDLE;
        if (health == TCP_SILENT) {
            tcp_lost(channel, "its host has not answered for 15 s");
            return true;
        }
    }
    for (unsigned lane = 0; lane < PCM_LANES; lane++) /* so that the peer can free what it keeps until then */
        if (channel->lanes[lane].released != channel->lanes[lane].announced) channel->due |= 1u << lane;
    if (channel->due) tcp_pump(channel);
    return busy;
}

/* There is traffic: look after it from time to time. */
static void stir(struct tcp_endpoint *endpoint)
{
    if (endpoint->health) return;
    endpoint->health = pcm_clock_ms() + HEALTH_MS;
    arm_timer(endpoint, endpoint->health);
}

static void on_timer(struct pcm_watch *watch, uint32_t events)
{
    (void)events;
    struct tcp_endpoint *endpoint = (struct tcp_endpoint *)((char *)watch - offsetof(struct tcp_endpoint, timer));
    uint64_t expirations;
    while (read(watch->fd, &expirations, sizeof expirations) < 0 && errno == EINTR) {
    }
    int64_t now = pcm_clock_ms();
    bool look = endpoint->health && endpoint->health <= now, busy = false;
    struct tcp_channel *channel, *next;
    for (channel = LIST_FIRST(&endpoint->channels); channel; channel = next) {
        tcp_enter(channel);
        if (channel->retry && channel->retry <= now) {
            channel->retry = 0;
            if (channel->base.state == PCM_CHANNEL_CONNECTING && !channel->streams[0]->visit) try_next(channel);
        }
        if (look) busy |= look_after(channel);
        if (channel->closing && channel->linger <= now) free_channel(channel);
        next = LIST_NEXT(channel, link);
        tcp_leave(channel);
    }
    endpoint->armed = 0;
    if (look) endpoint->health = busy ? now + HEALTH_MS : 0;
    if (endpoint->health) arm_timer(endpoint, endpoint->health);
    LIST_FOREACH(channel, &endpoint->channels, link)
    {
        if (channel->retry) arm_timer(endpoint, channel->retry);
        if (channel->closing) arm_timer(endpoint, channel->linger);
    }
}

/* ---- the slots of the transport -----------------------------------------------------------------------------------
 */

static void tcp_shut(struct pcm_endpoint *base);

static int tcp_open(pcm_world *world, const char *argument, struct pcm_endpoint **out)
{
    const struct pcm_world_config *config = pcm_world_get_config(world);
    if (argument && *argument)
        return pcm_fail(PCM_ERR_ARGUMENT, -1, "the transport tcp takes no argument (%s)", argument);
    if (config->streams < 0 || config->streams > TCP_MOST_STREAMS)
        return pcm_fail(PCM_ERR_ARGUMENT, -1, "`streams` is %d; it may be 1 to %d, or 0 for the default",
                        config->streams, TCP_MOST_STREAMS);
    struct tcp_endpoint *endpoint = calloc(1, sizeof *endpoint);
    if (!endpoint) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for the transport tcp");
    endpoint->base = (struct pcm_endpoint){.ops = &pcm_tcp, .world = world};
    endpoint->streams = config->streams ? config->streams : TCP_STREAMS;
    endpoint->timer = (struct pcm_watch){timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), on_timer};
    LIST_INIT(&endpoint->channels);
    int listening, status = PCM_OK;
    if (endpoint->timer.fd < 0) status = pcm_fail(PCM_ERR_SYSTEM, -1, "cannot make a timer: %m");
    if (!status) status = pcm_reactor_add(pcm_world_reactor(world), &endpoint->timer, EPOLLIN);
    if (!status) status = tcp_listen(config, &listening, endpoint->places, &endpoint->nplaces);
    if (!status) status = pcm_door_open(world, listening, PCM_HANDSHAKE_MS, admit, enter, endpoint, &endpoint->door);
    if (status)
        tcp_shut(&endpoint->base);
    else
        *out = &endpoint->base;
    return status;
}

static int tcp_address(struct pcm_endpoint *base, void *address, size_t *bytes)
{
    const struct tcp_endpoint *endpoint = (struct tcp_endpoint *)base;
    return tcp_write_address(endpoint->places, endpoint->nplaces, address, bytes);
}

static bool tcp_reaches(struct pcm_endpoint *base, const void *address, size_t bytes)
{
    (void)base;
    struct tcp_place places[TCP_PLACES];
    return tcp_read_address(address, bytes, places) > 0;
}

static struct pcm_channel *tcp_connect(struct pcm_endpoint *base, int peer, uint64_t id, const void *address,
                                       size_t bytes)
{
    struct tcp_endpoint *endpoint = (struct tcp_endpoint *)base;
    struct tcp_channel *channel = find_unclaimed(endpoint, peer, id);
    if (channel) {
        channel->claimed = true;
        endpoint->unclaimed--;
        for (int i = 0; i < TCP_MOST_STREAMS; i++)
            if (channel->streams[i] && channel->streams[i]->watch.fd >= 0 && tcp_stream_watch(channel->streams[i])) {
                free_channel(channel);
                return NULL;
            }
        return &channel->base;
    }
    struct tcp_place places[TCP_PLACES];
    int count = tcp_read_address(address, bytes, places);
    if (!count) {
        pcm_fail(PCM_ERR_ARGUMENT, peer, "the address of rank %d is not one that the transport tcp has written", peer);
        return NULL;
    }
    channel = new_channel(endpoint, peer, id);
    if (!channel) return NULL;
    channel->claimed = true;
    channel->began = pcm_clock_ms();
    memcpy(channel->places, places, sizeof places[0] * (size_t)count);
    channel->nplaces = count;
    if (!new_stream(channel, 0) || getrandom(&channel->token, sizeof channel->token, 0) != sizeof channel->token) {
        pcm_fail(PCM_ERR_SYSTEM, peer, "out of memory, or of random numbers, for a connection to rank %d", peer);
        free_channel(channel);
        return NULL;
    }
    try_next(channel);
    return &channel->base;
}

static void *tcp_reserve(struct pcm_channel *base, unsigned number, size_t want, size_t *room)
{
    (void)want;
    struct tcp_channel *channel = (struct tcp_channel *)base;
    struct tcp_lane *lane = &channel->lanes[number];
    if (base->state != PCM_CHANNEL_UP || lane->committed - lane->credited == TCP_SLOTS) return NULL;
    struct tcp_slot *slot = &lane->out[lane->committed % TCP_SLOTS];
    if (!tcp_take_buffer(endpoint_of(channel), slot)) {
        tcp_lost(channel, "no memory is left for what to send to it");
        return NULL;
    }
    *room = PCM_FRAGMENT;
    return slot->buffer;
}

static void tcp_commit(struct pcm_channel *base, unsigned number, const struct pcm_head *head, size_t bytes)
{
    struct tcp_channel *channel = (struct tcp_channel *)base;
    struct tcp_lane *lane = &channel->lanes[number];
    struct tcp_slot *slot = &lane->out[lane->committed % TCP_SLOTS];
    if (base->state != PCM_CHANNEL_UP) return; /* it went down after the reservation */
    slot->head = *head;
    slot->bytes = (uint32_t)bytes;
    lane->committed++;
    channel->queue[channel->queue_tail++] = (uint8_t)number;
    if (bytes >= TCP_BULK) tcp_bulk(channel);
    tcp_pump(channel);
    stir(endpoint_of(channel));
}

static const struct pcm_head *tcp_peek(struct pcm_channel *base, unsigned number, const void **payload, size_t *bytes)
{
    struct tcp_lane *lane = &((struct tcp_channel *)base)->lanes[number];
    struct tcp_slot *slot = &lane->in[lane->released % TCP_SLOTS];
    if (!slot->done) return NULL;
    *payload = slot->buffer ? (void *)slot->buffer : slot;
    *bytes = slot->bytes;
    return &slot->head;
}

static void tcp_release(struct pcm_channel *base, unsigned number)
{
    struct tcp_channel *channel = (struct tcp_channel *)base;
    struct tcp_lane *lane = &channel->lanes[number];
    tcp_give_back(endpoint_of(channel), &lane->in[lane->released % TCP_SLOTS]);
    lane->released++;
    stir(endpoint_of(channel));
    if (lane->released - lane->announced < TCP_SLOTS / 4) return;
    channel->due |= 1u << number;
    tcp_pump(channel);
}

static void tcp_notice(struct pcm_channel *base, const void *bytes, size_t length)
{
    struct tcp_channel *channel = (struct tcp_channel *)base;
    if (base->state != PCM_CHANNEL_UP || channel->notice_bytes || !length || length > PCM_NOTICE) return;
    memcpy(channel->notice, bytes, length);
    channel->notice_bytes = (uint32_t)length;
    channel->notice_posted = false;
    tcp_pump(channel);
}

static void tcp_close(struct pcm_channel *base)
{
    struct tcp_channel *channel = (struct tcp_channel *)base;
    if (base->state != PCM_CHANNEL_UP || channel->ended) {
        free_channel(channel);
        return;
    }
    channel->closing = true;
    channel->linger = pcm_clock_ms() + LINGER_MS;
    arm_timer(endpoint_of(channel), channel->linger);
    for (unsigned lane = 0; lane < PCM_LANES; lane++) channel->goodbye.fragments[lane] = channel->lanes[lane].committed;
    for (int i = 0; i < TCP_MOST_STREAMS; i++) /* nobody joins any more */
        if (channel->streams[i] && channel->streams[i]->visit) {
            pcm_door_drop(channel->streams[i]->visit);
            channel->streams[i]->visit = NULL;
        }
    tcp_pump(channel);
}

/* All that a closed channel had to say lies in the peer's kernel: no need to wait until the peer has read it. */
static bool delivered(const struct tcp_channel *channel)
{
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
            free_channel(channel);
        else if (!channel->closing)
            tcp_close(&channel->base);
    }
    for (int64_t until = pcm_clock_ms() + SHUT_MS; pcm_clock_ms() < until;) {
        for (channel = LIST_FIRST(&endpoint->channels); channel; channel = next) {
            next = LIST_NEXT(channel, link);
            if (delivered(channel)) free_channel(channel);
        }
        if (LIST_EMPTY(&endpoint->channels)) break;
        pcm_reactor_poll(pcm_world_reactor(base->world), 1);
    }
    while (!LIST_EMPTY(&endpoint->channels)) free_channel(LIST_FIRST(&endpoint->channels));
    pcm_door_close(endpoint->door);
    if (endpoint->timer.fd >= 0) {
        pcm_reactor_remove(pcm_world_reactor(base->world), &endpoint->timer);
        close(endpoint->timer.fd);
    }
    while (endpoint->pool) {
        void *buffer = endpoint->pool;
        memcpy(&endpoint->pool, buffer, sizeof endpoint->pool);
        free(buffer);
    }
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
    .close = tcp_close,
    .shut = tcp_shut,
};
