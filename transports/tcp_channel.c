/* tcp_channel.c: the life of a channel: who connects to whom, and how it ends. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "tcp.h"

enum {
    CONNECT_MS = 1000,     /* for one address, before the next is tried; doubles each pass */
    ANSWER_MS = 5000,      /* likewise, for the answer of who is there, if there are other addresses */
    REFUSED_MS = 2000,     /* a rank listens before it publishes its address: refused for this long, it is gone */
    GIVE_UP_MS = 30000,    /* for all other trouble */
    REDIAL_MS = 250,       /* before a stream other than the first is called again; doubles each time, up to */
    BACK_MS = 2000,        /* this for one that was there before, */
    NEVER_MS = 60000,      /* and this for one that never was: nobody may live there */
    MOST_UNCLAIMED = 1024, /* channels that peers opened and this side has not asked for yet */
    SWEEP = 64,            /* among so many of them, some may be stale */
};

/* ---- the life of a channel ------------------------------------------------------------------------------------- */

static struct tcp_channel *new_channel(struct tcp_endpoint *endpoint, int peer, uint64_t id)
{
    struct tcp_channel *channel = calloc(1, sizeof *channel);
    if (!channel) {
        pcm_fail(PCM_ERR_SYSTEM, peer, "out of memory for a channel to rank %d", peer);
        return NULL;
    }
    channel->base = (struct pcm_channel){.ops = &pcm_tcp, .endpoint = &endpoint->base, .peer = peer, .id = id};
    tcp_open_windows(channel);
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
    tcp_set_unsent(channel, false);
    for (int i = 0; i < TCP_MOST_STREAMS; i++) {
        struct tcp_stream *stream = channel->streams[i];
        if (!stream) continue;
        if (stream->visit) pcm_door_drop(stream->visit);
        stream->visit = NULL;
        tcp_stream_close(stream);
    }
}

void tcp_free_channel(struct tcp_channel *channel)
{
    end_streams(channel);
    channel->freed = true;
    if (channel->busy) return;
    tcp_close_windows(channel);
    for (int i = 0; i < TCP_MOST_STREAMS; i++) {
        if (channel->streams[i]) tcp_give_back(tcp_endpoint_of(channel), &channel->streams[i]->junk);
        free(channel->streams[i]);
    }
    if (!channel->claimed) tcp_endpoint_of(channel)->unclaimed--;
    LIST_REMOVE(channel, link);
    free(channel);
}

void tcp_hold(struct tcp_channel *channel) { channel->busy++; }

void tcp_let_go(struct tcp_channel *channel)
{
    if (!--channel->busy && channel->freed) tcp_free_channel(channel);
}

static void end_channel(struct tcp_channel *channel, enum pcm_channel_state state, const char *why)
{
    if (channel->ended) return;
    channel->ended = true; /* what the other streams find out now changes nothing */
    tcp_hold(channel);
    for (int i = 0; i < TCP_MOST_STREAMS; i++) /* what the peer had sent before can still be read */
        if (channel->streams[i] && channel->streams[i]->watched) tcp_stream_receive(channel->streams[i]);
    end_streams(channel);
    if (channel->closing)
        tcp_free_channel(channel);
    else if (channel->base.state <= PCM_CHANNEL_UP)
        pcm_channel_fail(&channel->base, state, why);
    tcp_let_go(channel);
}

void tcp_lost(struct tcp_channel *channel, const char *why) { end_channel(channel, PCM_CHANNEL_LOST, why); }

/* A peer that freed the communicator before its own side was up could not say goodbye: it has left, and may well live on. */
static bool never_spoke(const struct tcp_channel *channel)
{
    for (int i = 0; i < TCP_MOST_STREAMS; i++)
        if (channel->streams[i] && channel->streams[i]->heard) return false;
    return true;
}

void tcp_farewell_done(struct tcp_channel *channel)
{
    if (channel->base.state == PCM_CHANNEL_UP && !channel->closing)
        pcm_channel_fail(&channel->base, PCM_CHANNEL_CLOSED, "it closed the channel");
}

void tcp_stream_ended(struct tcp_stream *stream, const char *why)
{
    struct tcp_channel *channel = stream->channel;
    bool more = false;
    for (int i = 0; i < TCP_MOST_STREAMS; i++)
        more |= channel->streams[i] && channel->streams[i] != stream && tcp_alive(channel->streams[i]);
    if (more && !stream->bye &&
        !channel->ended) { /* one rail, or one connection, has failed; if it is the peer, all will */
        tcp_drop(stream, true);
        tcp_pump(channel);
        return;
    }
    tcp_stream_close(stream);
    /* A stream that joined and never spoke was called off by a peer that is about to say goodbye on the first one. */
    bool in_order = stream->bye || (stream->number && !stream->heard);
    if (!in_order && never_spoke(channel))
        end_channel(channel, PCM_CHANNEL_CLOSED, "it hung up while connecting");
    else if (!in_order)
        tcp_lost(channel, why);
    if (channel->ended) return;
    tcp_pump(channel); /* what waited for this stream alone waits no more */
    for (int i = 0; i < TCP_MOST_STREAMS; i++)
        if (channel->streams[i] && channel->streams[i]->watch.fd >= 0) return;
    if (channel->closing)
        tcp_free_channel(channel);
    else if (channel->base.state == PCM_CHANNEL_UP)
        tcp_lost(channel, "fragments are missing after its goodbye");
}

/* ---- connecting ------------------------------------------------------------------------------------------------ */

static struct pcm_visit *dial(struct tcp_channel *channel, const struct tcp_rail *rail, struct tcp_greeting greeting,
                              pcm_called_fn *called, void *user)
{
    struct tcp_endpoint *endpoint = tcp_endpoint_of(channel);
    const struct pcm_world_config *config = pcm_world_get_config(endpoint->base.world);
    struct pcm_hello hello = {.job = config->job,
                              .channel = channel->base.id,
                              .from = (uint32_t)config->rank,
                              .to = (uint32_t)channel->base.peer,
                              .bytes = sizeof greeting};
    memcpy(hello.payload, &greeting, sizeof greeting);
    int fd = tcp_dial(endpoint, rail);
    int longer = channel->pass < 5 ? channel->pass : 5;
    if (fd < 0) return NULL;
    return pcm_door_call(endpoint->door, fd, &hello, CONNECT_MS << longer,
                         channel->nplaces > 1 ? ANSWER_MS << longer : 0, called, user);
}

static void came_up(struct tcp_channel *channel, int fd, const struct pcm_keys *keys)
{
    if (tcp_stream_attach(channel->streams[0], fd, keys) || tcp_stream_watch(channel->streams[0])) {
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

static void on_first_called(void *user, int status, int fd, const struct pcm_keys *keys, const char *why)
{
    struct tcp_channel *channel = user;
    channel->streams[0]->visit = NULL;
    if (status == PCM_OK) {
        channel->caller = true;
        came_up(channel, fd, keys);
    } else if (status == PCM_AGAIN) { /* its own call comes, or it has yet to close the last use of the channel */
        channel->began = pcm_clock_ms();
        channel->retry = channel->began + (channel->pass < 5 ? 20 << channel->pass : 500);
        channel->pass++;
        tcp_arm_timer(tcp_endpoint_of(channel), channel->retry);
    } else {
        if (status != PCM_ERR_PEER_LOST && status != PCM_ERR_AUTH) channel->hopeful = true;
        if (status == PCM_ERR_AUTH) channel->barred = true;
        note_trouble(channel, why);
        channel->place++;
        tcp_try_next(channel);
    }
}

/* Calls the peer at the next of its addresses; after the last, pauses and starts again, or gives up. */
void tcp_try_next(struct tcp_channel *channel)
{
    for (; channel->place < channel->nplaces; channel->place++) {
        struct tcp_rail rail = {.peer = channel->places[channel->place]};
        struct tcp_greeting greeting = {.token = channel->token};
        channel->streams[0]->visit = dial(channel, &rail, greeting, on_first_called, channel);
        if (channel->streams[0]->visit) return;
        if (errno != ECONNREFUSED) channel->hopeful = true;
        note_trouble(channel, strerror(errno));
    }
    int64_t now = pcm_clock_ms(), patience = channel->hopeful ? GIVE_UP_MS : REFUSED_MS;
    if (now - channel->began > patience) {
        bool gone = !channel->hopeful && !channel->barred; /* in good order, unless somebody says else */
        end_channel(channel, gone ? PCM_CHANNEL_CLOSED : PCM_CHANNEL_LOST, channel->trouble);
        return;
    }
    channel->retry = now + (channel->pass < 5 ? 20 << channel->pass : 500);
    channel->pass++;
    channel->place = 0;
    channel->hopeful = false;
    tcp_arm_timer(tcp_endpoint_of(channel), channel->retry);
}

/* A stream is there, again or for the first time, beside others. */
static void join(struct tcp_stream *stream, int fd, const struct pcm_keys *keys)
{
    struct tcp_channel *channel = stream->channel;
    if (tcp_stream_attach(stream, fd, keys)) return; /* the channel does without */
    if (channel->claimed && tcp_stream_watch(stream)) tcp_stream_close(stream);
    for (int i = 0; i < TCP_MOST_STREAMS; i++) { /* what was dropped before is said here before anything else */
        struct tcp_stream *other = channel->streams[i];
        if (other && other != stream && other->worked && other->watch.fd < 0) stream->drops |= 1u << other->number;
        if (other) other->drops &= ~(1u << stream->number);
    }
    tcp_pump(channel);
}

void tcp_call_later(struct tcp_stream *stream)
{
    if (stream->channel->closing || stream->channel->ended) return;
    int64_t pause = REDIAL_MS << (stream->failures < 16 ? stream->failures : 16);
    int64_t most = stream->worked ? BACK_MS : NEVER_MS;
    stream->redial = pcm_clock_ms() + (pause < most ? pause : most);
    stream->failures++;
    tcp_arm_timer(tcp_endpoint_of(stream->channel), stream->redial);
}

static void on_more_called(void *user, int status, int fd, const struct pcm_keys *keys, const char *why)
{
    (void)why; /* the channel does without */
    struct tcp_stream *stream = user;
    stream->visit = NULL;
    if (status != PCM_OK)
        tcp_call_later(stream);
    else
        join(stream, fd, keys);
}

/* Calls for a stream other than the first, or for one that was dropped. */
static void call(struct tcp_stream *stream)
{
    struct tcp_channel *channel = stream->channel;
    const struct tcp_rail *rail = &channel->rails[stream->number % (uint32_t)channel->nrails];
    if (stream->worked || stream->failures) stream->life++; /* the peer may have taken a call that failed here */
    struct tcp_greeting greeting = {.token = channel->token, .number = stream->number, .life = stream->life};
    stream->redial = 0;
    stream->visit = dial(channel, rail, greeting, on_more_called, stream);
    if (!stream->visit) tcp_call_later(stream);
}

void tcp_redial(struct tcp_channel *channel, int64_t now)
{
    if (channel->closing || channel->ended) return;
    for (int i = 0; i < TCP_MOST_STREAMS; i++) {
        struct tcp_stream *stream = channel->streams[i];
        if (!stream || !stream->redial || stream->redial > now || stream->visit) continue;
        bool untold = false; /* that the last one was dropped: else its end might be taken for the next one's */
        for (int k = 0; k < TCP_MOST_STREAMS; k++)
            untold |= channel->streams[k] && channel->streams[k]->drops & 1u << i;
        if (untold)
            stream->redial = now + REDIAL_MS;
        else
            call(stream);
    }
}

void tcp_bulk(struct tcp_channel *channel)
{
    if (!channel->caller || channel->grown || channel->closing || channel->base.state != PCM_CHANNEL_UP) return;
    struct tcp_endpoint *endpoint = tcp_endpoint_of(channel);
    channel->grown = true;
    channel->rails[0] = (struct tcp_rail){channel->streams[0]->own, channel->streams[0]->peer};
    channel->nrails = tcp_find_rails(endpoint, channel->places, channel->nplaces, channel->rails);
    int streams = endpoint->streams ? endpoint->streams : TCP_STREAMS * channel->nrails;
    for (int number = 1; number < streams && number < TCP_MOST_STREAMS; number++) {
        struct tcp_stream *stream = new_stream(channel, (uint32_t)number);
        if (stream) call(stream);
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
    const struct tcp_stream *stream = channel->streams[0];
    ssize_t there = stream->cipher ? tcp_cipher_glance(stream->cipher, stream->watch.fd, &first, sizeof first)
                                   : recv(stream->watch.fd, &first, sizeof first, MSG_PEEK | MSG_DONTWAIT);
    if (there == sizeof first) return first.kind == TCP_BYE;
    return there == 0 || (there < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

/* Drops the stale ones among the channels that wait. */
static void sweep(struct tcp_endpoint *endpoint)
{
    struct tcp_channel *channel, *next;
    for (channel = LIST_FIRST(&endpoint->channels); channel; channel = next) {
        next = LIST_NEXT(channel, link);
        if (!channel->claimed && stale(channel)) tcp_free_channel(channel);
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

int tcp_admit(void *user, const struct pcm_hello *hello)
{
    struct tcp_endpoint *endpoint = user;
    struct tcp_greeting greeting;
    if (hello->bytes != sizeof greeting) return PCM_YIELD;
    memcpy(&greeting, hello->payload, sizeof greeting);
    if (greeting.number || greeting.life) {
        struct tcp_channel *channel = find_token(endpoint, hello, greeting.token);
        struct tcp_stream *before =
            channel && greeting.number < TCP_MOST_STREAMS ? channel->streams[greeting.number] : NULL;
        bool joins = channel && greeting.number < TCP_MOST_STREAMS && (!before || greeting.life > before->life);
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

void tcp_welcome(void *user, int fd, const struct pcm_hello *hello, const struct pcm_keys *keys)
{
    struct tcp_endpoint *endpoint = user;
    struct tcp_greeting greeting;
    memcpy(&greeting, hello->payload, sizeof greeting);
    if (greeting.number || greeting.life) {
        struct tcp_channel *channel = find_token(endpoint, hello, greeting.token);
        struct tcp_stream *stream = channel->streams[greeting.number];
        if (stream) tcp_drop(stream, false); /* the caller has dropped it */
        if (!stream) stream = new_stream(channel, greeting.number);
        if (!stream) {
            close(fd);
            return;
        }
        stream->life = greeting.life;
        join(stream, fd, keys);
        return;
    }
    struct tcp_channel *channel = find_claimed(endpoint, (int)hello->from, hello->channel);
    if (channel && channel->base.state == PCM_CHANNEL_CONNECTING) {
        if (channel->streams[0]->visit) pcm_door_drop(channel->streams[0]->visit);
        channel->streams[0]->visit = NULL;
        channel->token = greeting.token;
        came_up(channel, fd, keys);
        return;
    }
    if (endpoint->unclaimed % SWEEP == SWEEP - 1) sweep(endpoint);
    channel = new_channel(endpoint, (int)hello->from, hello->channel);
    if (!channel) {
        close(fd);
        return;
    }
    endpoint->unclaimed++;
    if (!new_stream(channel, 0)) close(fd);
    if (!channel->streams[0] || tcp_stream_attach(channel->streams[0], fd, keys)) {
        tcp_free_channel(channel);
        return;
    }
    channel->token = greeting.token;
    channel->base.state = PCM_CHANNEL_UP;
}

struct pcm_channel *tcp_connect(struct pcm_endpoint *base, int peer, uint64_t id, const void *address, size_t bytes)
{
    struct tcp_endpoint *endpoint = (struct tcp_endpoint *)base;
    struct tcp_channel *channel = find_unclaimed(endpoint, peer, id);
    if (channel) {
        channel->claimed = true;
        endpoint->unclaimed--;
        for (int i = 0; i < TCP_MOST_STREAMS; i++)
            if (channel->streams[i] && channel->streams[i]->watch.fd >= 0 && tcp_stream_watch(channel->streams[i])) {
                tcp_free_channel(channel);
                return NULL;
            }
        return &channel->base;
    }
    struct tcp_place places[TCP_PLACES];
    bool sealed;
    int count = tcp_read_address(address, bytes, places, &sealed);
    if (!count) {
        pcm_fail(PCM_ERR_ARGUMENT, peer, "the address of rank %d is not one that the transport tcp has written", peer);
        return NULL;
    }
    if (sealed != endpoint->sealed) {
        pcm_fail(PCM_ERR_MISMATCH, peer,
                 "rank %d %s its connections, and this rank %s: give all the same (PYCOMM_ENCRYPT)", peer,
                 sealed ? "encrypts" : "does not encrypt", sealed ? "does not" : "does");
        return NULL;
    }
    channel = new_channel(endpoint, peer, id);
    if (!channel) return NULL;
    channel->claimed = true;
    channel->began = pcm_clock_ms();
    channel->nplaces = tcp_foreign(endpoint, places, count);
    memcpy(channel->places, places, sizeof places[0] * (size_t)channel->nplaces);
    if (!new_stream(channel, 0) || getrandom(&channel->token, sizeof channel->token, 0) != sizeof channel->token) {
        pcm_fail(PCM_ERR_SYSTEM, peer, "out of memory, or of random numbers, for a connection to rank %d", peer);
        tcp_free_channel(channel);
        return NULL;
    }
    tcp_try_next(channel);
    return &channel->base;
}
