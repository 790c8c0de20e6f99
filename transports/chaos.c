/* chaos.c: wraps another transport and makes it as awkward as the contract allows, the same way for the same seed.
 *
 *   chaos:seed=7;delay_us=200;deny=0.1;short=0.3;rank=2;kill_after=1000;inner=tcp
 *
 *   seed=N        draws differ from seed to seed, and only so: they depend on the fragment, not on time
 *   delay_us=N    a fragment that has arrived stays hidden for up to N microseconds: lanes overtake each other
 *   deny=P        with probability P a fragment is not there, or has no room, the first one to three times it is asked
 * for short=P       with probability P a reservation gives less room than was asked for, down to 64 bytes rank=N the
 * next two happen on this rank only; default: on all lose_after=N  channels are lost after N fragments have been sent
 * on this rank kill_after=N  this process kills itself after N fragments have been sent inner=NAME    the transport
 * wrapped, with its own argument after ':'; comes last
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "../csrc/transport.h"

enum { UNIT = 64, LOOK_NS = 1000000, RETRY_NS = 50000 };
enum purpose { DELAY, DENY_PEEK, DENY_RESERVE, SHORT };

struct chaos_lane {
    uint32_t sent, received;
    int64_t visible;          /* when the fragment that has arrived is shown; 0: none has been seen */
    uint32_t peeks, reserves; /* for the fragment that is next */
};

struct chaos_channel {
    struct pcm_channel base;
    struct pcm_channel *inner; /* NULL once lost on purpose */
    struct chaos_channel *next;
    struct chaos_lane lanes[PCM_LANES];
};

struct chaos_endpoint {
    struct pcm_endpoint base;
    struct pcm_watch timer;
    struct chaos_channel *channels;
    int64_t armed;
    uint64_t seed, sent, lose_after, kill_after;
    double deny, shorten;
    int64_t delay_ns;
    int rank;
};

static struct chaos_channel *of(struct pcm_channel *channel) { return (struct chaos_channel *)channel; }
static struct chaos_endpoint *endpoint_of(const struct chaos_channel *channel)
{
    return (struct chaos_endpoint *)channel->base.endpoint;
}

/* A number in [0, 1) which depends on the seed, the channel, the lane, the fragment and what it is drawn for. */
static double draw(const struct chaos_channel *channel, unsigned lane, uint32_t fragment, enum purpose purpose)
{
    uint64_t words[] = {endpoint_of(channel)->seed, channel->base.id, (uint64_t)channel->base.peer << 8 | lane,
                        (uint64_t)fragment << 8 | purpose};
    uint64_t state = (uint64_t)pcm_world_get_config(channel->base.endpoint->world)->rank;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) { /* the finalizer of splitmix64 (Steele et al. 2014) */
        state += words[i] + 0x9e3779b97f4a7c15u;
        state = (state ^ state >> 30) * 0xbf58476d1ce4e5b9u;
        state = (state ^ state >> 27) * 0x94d049bb133111ebu;
        state ^= state >> 31;
    }
    return (double)(state >> 11) * 0x1p-53;
}

/* ---- time: whoever was told "not yet" without a reason in the inner transport must be woken from here ---------- */

static void wake_at(struct chaos_endpoint *endpoint, int64_t when)
{
    if (endpoint->armed && endpoint->armed <= when) return;
    struct itimerspec spec = {.it_value = {.tv_sec = when / 1000000000, .tv_nsec = when % 1000000000}};
    timerfd_settime(endpoint->timer.fd, TFD_TIMER_ABSTIME, &spec, NULL);
    endpoint->armed = when;
}

/* Copies the inner channel's state. Nobody tells when it comes up, so that is looked for. */
static bool usable(struct chaos_channel *channel)
{
    struct pcm_channel *inner = channel->inner;
    if (!inner || inner->state == PCM_CHANNEL_CONNECTING) return false;
    if (inner->state == PCM_CHANNEL_UP && channel->base.state == PCM_CHANNEL_CONNECTING)
        channel->base.state = PCM_CHANNEL_UP;
    if (inner->state > PCM_CHANNEL_UP) pcm_channel_fail(&channel->base, inner->state, inner->why);
    return true;
}

static void on_timer(struct pcm_watch *watch, uint32_t events)
{
    (void)events;
    struct chaos_endpoint *endpoint = (struct chaos_endpoint *)((char *)watch - offsetof(struct chaos_endpoint, timer));
    uint64_t expirations;
    while (read(watch->fd, &expirations, sizeof expirations) < 0 && errno == EINTR) {
    }
    endpoint->armed = 0;
    bool connecting = false;
    int64_t soonest = 0;
    for (struct chaos_channel *channel = endpoint->channels; channel; channel = channel->next) {
        usable(channel);
        connecting |= channel->base.state == PCM_CHANNEL_CONNECTING;
        for (unsigned lane = 0; lane < PCM_LANES; lane++) {
            int64_t visible = channel->lanes[lane].visible;
            if (visible > pcm_now_ns() && (!soonest || visible < soonest)) soonest = visible;
        }
    }
    if (connecting) wake_at(endpoint, pcm_now_ns() + LOOK_NS);
    if (soonest) wake_at(endpoint, soonest);
}

/* ---- the slots ------------------------------------------------------------------------------------------------- */

static int parse(struct chaos_endpoint *endpoint, const char *argument, const char **inner)
{
    for (*inner = NULL; *argument && !*inner;) {
        size_t length = strcspn(argument, ";");
        char word[32];
        double value;
        if (!strncmp(argument, "inner=", 6)) {
            *inner = argument + 6;
            break;
        }
        if (sscanf(argument, "%31[a-z_]=%lf", word, &value) != 2 || value < 0)
            return pcm_fail(PCM_ERR_ARGUMENT, -1, "chaos does not understand `%.*s`: give name=number;...;inner=NAME",
                            (int)length, argument);
        if (!strcmp(word, "seed"))
            endpoint->seed = (uint64_t)value;
        else if (!strcmp(word, "delay_us"))
            endpoint->delay_ns = (int64_t)(value * 1000);
        else if (!strcmp(word, "deny") && value <= 1)
            endpoint->deny = value;
        else if (!strcmp(word, "short") && value <= 1)
            endpoint->shorten = value;
        else if (!strcmp(word, "rank"))
            endpoint->rank = (int)value;
        else if (!strcmp(word, "lose_after"))
            endpoint->lose_after = (uint64_t)value;
        else if (!strcmp(word, "kill_after"))
            endpoint->kill_after = (uint64_t)value;
        else
            return pcm_fail(PCM_ERR_ARGUMENT, -1,
                            "chaos does not understand `%.*s`: have seed, delay_us, deny, short, "
                            "rank, lose_after, kill_after, inner",
                            (int)length, argument);
        argument += length + (argument[length] == ';');
    }
    if (!*inner)
        return pcm_fail(PCM_ERR_ARGUMENT, -1, "chaos wraps another transport: end its argument with inner=NAME");
    return PCM_OK;
}

static void chaos_shut(struct pcm_endpoint *base);

static int chaos_open(pcm_world *world, const char *argument, struct pcm_endpoint **out)
{
    struct chaos_endpoint *endpoint = calloc(1, sizeof *endpoint);
    if (!endpoint) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for the transport chaos");
    *endpoint = (struct chaos_endpoint){.base = {.ops = &pcm_chaos, .world = world}, .rank = -1};
    endpoint->timer = (struct pcm_watch){timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), on_timer};
    const char *name;
    int status = parse(endpoint, argument, &name);
    size_t length = status ? 0 : strcspn(name, ":");
    const struct pcm_transport *inner = status ? NULL : pcm_transport_find(name, length);
    if (!status && !inner) status = PCM_ERR_ARGUMENT;
    if (!status && endpoint->timer.fd < 0) status = pcm_fail(PCM_ERR_SYSTEM, -1, "cannot make a timer: %m");
    if (!status) status = pcm_reactor_add(pcm_world_reactor(world), &endpoint->timer, EPOLLIN);
    if (!status) status = inner->open(world, name[length] ? name + length + 1 : "", &endpoint->base.inner);
    if (status)
        chaos_shut(&endpoint->base);
    else
        *out = &endpoint->base;
    return status;
}

static int chaos_address(struct pcm_endpoint *base, void *address, size_t *bytes)
{
    return base->inner->ops->address(base->inner, address, bytes);
}

static bool chaos_reaches(struct pcm_endpoint *base, const void *address, size_t bytes)
{
    return base->inner->ops->reaches(base->inner, address, bytes);
}

static struct pcm_channel *chaos_connect(struct pcm_endpoint *base, int peer, uint64_t id, const void *address,
                                         size_t bytes)
{
    struct chaos_endpoint *endpoint = (struct chaos_endpoint *)base;
    struct chaos_channel *channel = calloc(1, sizeof *channel);
    if (!channel) {
        pcm_fail(PCM_ERR_SYSTEM, peer, "out of memory for a channel to rank %d", peer);
        return NULL;
    }
    channel->base = (struct pcm_channel){.ops = &pcm_chaos, .endpoint = base, .peer = peer, .id = id};
    channel->inner = base->inner->ops->connect(base->inner, peer, id, address, bytes);
    if (!channel->inner) {
        free(channel);
        return NULL;
    }
    channel->next = endpoint->channels;
    endpoint->channels = channel;
    if (!usable(channel)) wake_at(endpoint, pcm_now_ns() + LOOK_NS);
    return &channel->base;
}

/* How often a fragment is denied, of the `asked` times that it was asked for. */
static bool denied(struct chaos_channel *channel, unsigned lane, uint32_t fragment, enum purpose purpose,
                   uint32_t *asked)
{
    struct chaos_endpoint *endpoint = endpoint_of(channel);
    double drawn = draw(channel, lane, fragment, purpose);
    if (drawn >= endpoint->deny || *asked >= 1 + (uint32_t)(drawn / endpoint->deny * 3)) return false;
    ++*asked;
    wake_at(endpoint, pcm_now_ns() + RETRY_NS);
    return true;
}

static void *chaos_reserve(struct pcm_channel *base, unsigned lane, size_t want, size_t *room)
{
    struct chaos_channel *channel = of(base);
    struct chaos_lane *own = &channel->lanes[lane];
    if (!usable(channel) || denied(channel, lane, own->sent, DENY_RESERVE, &own->reserves)) return NULL;
    void *to = channel->inner->ops->reserve(channel->inner, lane, want, room);
    double drawn = draw(channel, lane, own->sent, SHORT), shorten = endpoint_of(channel)->shorten;
    if (to && want > UNIT && drawn < shorten) {
        size_t most = *room < want ? *room : want;
        *room = (1 + (size_t)(drawn / shorten * (double)(most / UNIT - 1))) * UNIT;
    }
    return to;
}

/* Has this rank now sent so many fragments? */
static bool due(const struct chaos_endpoint *endpoint, uint64_t after)
{
    bool here = endpoint->rank < 0 || endpoint->rank == pcm_world_get_config(endpoint->base.world)->rank;
    return after && here && endpoint->sent >= after;
}

static void chaos_commit(struct pcm_channel *base, unsigned lane, const struct pcm_head *head, size_t bytes)
{
    struct chaos_channel *channel = of(base);
    struct chaos_endpoint *endpoint = endpoint_of(channel);
    if (!channel->inner) return;
    channel->inner->ops->commit(channel->inner, lane, head, bytes);
    channel->lanes[lane].sent++;
    channel->lanes[lane].reserves = 0;
    endpoint->sent++;
    if (due(endpoint, endpoint->kill_after)) raise(SIGKILL);
    if (due(endpoint, endpoint->lose_after)) {
        channel->inner->ops->close(channel->inner);
        channel->inner = NULL;
        pcm_channel_fail(base, PCM_CHANNEL_LOST, "chaos was asked to lose it");
    }
}

static const struct pcm_head *chaos_peek(struct pcm_channel *base, unsigned lane, const void **payload, size_t *bytes)
{
    struct chaos_channel *channel = of(base);
    struct chaos_lane *own = &channel->lanes[lane];
    if (!usable(channel)) return NULL;
    const struct pcm_head *head = channel->inner->ops->peek(channel->inner, lane, payload, bytes);
    if (!head || own->visible < 0) return head;              /* < 0: it has been shown, and stays */
    if (channel->inner->state > PCM_CHANNEL_UP) return head; /* what is hidden now would seem missing */
    struct chaos_endpoint *endpoint = endpoint_of(channel);
    int64_t now = pcm_now_ns();
    if (!own->visible)
        own->visible = now + (int64_t)(draw(channel, lane, own->received, DELAY) * (double)endpoint->delay_ns);
    if (now < own->visible) {
        wake_at(endpoint, own->visible);
        return NULL;
    }
    if (denied(channel, lane, own->received, DENY_PEEK, &own->peeks)) return NULL;
    own->visible = -1;
    return head;
}

static void chaos_release(struct pcm_channel *base, unsigned lane)
{
    struct chaos_channel *channel = of(base);
    struct chaos_lane *own = &channel->lanes[lane];
    if (channel->inner) channel->inner->ops->release(channel->inner, lane);
    own->received++;
    own->visible = own->peeks = 0;
}

static bool chaos_notice(struct pcm_channel *base, const void *bytes, size_t length)
{
    struct chaos_channel *channel = of(base);
    return channel->inner && channel->inner->ops->notice(channel->inner, bytes, length);
}

static void chaos_arm(struct pcm_endpoint *base, bool asleep)
{
    if (base->inner->ops->arm) base->inner->ops->arm(base->inner, asleep);
}

static void chaos_settle(struct pcm_endpoint *base)
{
    if (base->inner->ops->settle) base->inner->ops->settle(base->inner);
}

static size_t chaos_rails(struct pcm_endpoint *base, char *text, size_t capacity)
{
    return base->inner->ops->rails ? base->inner->ops->rails(base->inner, text, capacity) : 0;
}

static void chaos_close(struct pcm_channel *base)
{
    struct chaos_channel *channel = of(base), **at = &endpoint_of(channel)->channels;
    while (*at != channel) at = &(*at)->next;
    *at = channel->next;
    if (channel->inner) channel->inner->ops->close(channel->inner);
    free(channel);
}

static void chaos_shut(struct pcm_endpoint *base)
{
    struct chaos_endpoint *endpoint = (struct chaos_endpoint *)base;
    while (endpoint->channels) chaos_close(&endpoint->channels->base);
    if (base->inner) base->inner->ops->shut(base->inner);
    if (endpoint->timer.fd >= 0) {
        pcm_reactor_remove(pcm_world_reactor(base->world), &endpoint->timer);
        close(endpoint->timer.fd);
    }
    free(endpoint);
}

const struct pcm_transport pcm_chaos = {
    .name = "chaos",
    .open = chaos_open,
    .address = chaos_address,
    .reaches = chaos_reaches,
    .connect = chaos_connect,
    .reserve = chaos_reserve,
    .commit = chaos_commit,
    .peek = chaos_peek,
    .release = chaos_release,
    .notice = chaos_notice,
    .arm = chaos_arm,
    .settle = chaos_settle,
    .rails = chaos_rails,
    .close = chaos_close,
    .shut = chaos_shut,
};
