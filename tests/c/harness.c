/* harness.c: see harness.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "harness.h"

long harness_passed, harness_failed;

/* ---- what transports call ----------------------------------------------------------------------------------- */

static _Thread_local struct pcm_error last;

const struct pcm_error *pcm_last_error(void) { return &last; }

int pcm_fail(int code, int rank, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    last.code = code;
    last.rank = rank;
    vsnprintf(last.text, sizeof last.text, format, arguments);
    va_end(arguments);
    return code;
}

const struct pcm_world_config *pcm_world_get_config(pcm_world *world) { return &world->config; }

struct pcm_reactor *pcm_world_reactor(pcm_world *world) { return world->reactor; }

void pcm_world_unsent(pcm_world *world, int change) { world->unsent += change; }

void pcm_world_callers_only(pcm_world *world) { (void)world; }

void pcm_world_enter(pcm_world *world) { (void)world; } /* each world has one thread */

void pcm_world_leave(pcm_world *world) { (void)world; }

void pcm_world_count_refused(pcm_world *world) { world->refused++; }

void pcm_channel_fail(struct pcm_channel *channel, int state, const char *why)
{
    if (channel->state >= PCM_CHANNEL_CLOSED) return;
    channel->state = state;
    snprintf(channel->why, sizeof channel->why, "%s", why);
}

void pcm_world_on_notice(pcm_world *world, int peer, const void *bytes, size_t length)
{
    (void)peer;
    world->notices++;
    world->notice_bytes = length;
    memcpy(world->notice, bytes, length);
}

/* A test program links only the transports it is built with. */
extern const struct pcm_transport pcm_inproc __attribute__((weak)), pcm_shm __attribute__((weak)),
    pcm_tcp __attribute__((weak)), pcm_mpi __attribute__((weak)), pcm_null __attribute__((weak)),
    pcm_chaos __attribute__((weak));

const struct pcm_transport *pcm_transport_find(const char *name, size_t length)
{
    const struct {
        const char *name;
        const struct pcm_transport *transport;
    } table[] = {{"inproc", &pcm_inproc}, {"shm", &pcm_shm},   {"tcp", &pcm_tcp},
                 {"mpi", &pcm_mpi},       {"null", &pcm_null}, {"chaos", &pcm_chaos}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strlen(table[i].name) == length && !memcmp(table[i].name, name, length)) return table[i].transport;
    return NULL;
}

extern int tcp_find_cipher(void) __attribute__((weak)); /* OpenSSL's, which not every host has */

/* ---- worlds --------------------------------------------------------------------------------------------------- */

bool harness_linked(const char *transport)
{
    const char *inner = strstr(transport, "inner=");
    if (*transport == '+' && (!tcp_find_cipher || tcp_find_cipher())) return false;
    if (*transport == '+') transport++;
    return pcm_transport_find(transport, strcspn(transport, ":")) && (!inner || harness_linked(inner + 6));
}

int harness_mac(void *user, const void *data, size_t bytes, uint8_t mac[32])
{
    const unsigned char *message = data;
    for (unsigned word = 0; word < 4; word++) {
        uint64_t hash = 0xcbf29ce484222325u + word;
        for (const char *c = user; *c; c++) hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
        for (size_t i = 0; i < bytes; i++) hash = (hash ^ message[i]) * 0x100000001b3u;
        memcpy(mac + 8 * word, &hash, 8);
    }
    return 0;
}

pcm_world *harness_world_with(const char *name, const struct pcm_world_config *config)
{
    const char *argument = strchr(name, ':');
    const struct pcm_transport *transport = pcm_transport_find(name, strcspn(name, ":"));
    pcm_world *world = calloc(1, sizeof *world);
    world->config = *config;
    world->address_bytes = sizeof world->address;
    int status =
        transport ? pcm_reactor_create(&world->reactor) : pcm_fail(PCM_ERR_ARGUMENT, -1, "no transport %s", name);
    if (!status) status = transport->open(world, argument ? argument + 1 : "", &world->endpoint);
    if (!status) status = transport->address(world->endpoint, world->address, &world->address_bytes);
    if (!status) return world;
    fprintf(stderr, "cannot open %s: %s\n", name, last.text);
    harness_end(world);
    return NULL;
}

pcm_world *harness_world(const char *name, int rank, int size, const char *secret)
{
    struct pcm_world_config config = {
        .rank = rank, .size = size, .job = HARNESS_JOB, .mac = secret ? harness_mac : NULL, .mac_user = (void *)secret};
    config.encrypt = *name == '+';
    return harness_world_with(name + config.encrypt, &config);
}

void harness_end(pcm_world *world)
{
    if (!world) return;
    if (world->endpoint) world->endpoint->ops->shut(world->endpoint);
    pcm_reactor_destroy(world->reactor);
    free(world);
}

struct pcm_channel *harness_connect(pcm_world *world, const pcm_world *peer, uint64_t id)
{
    return world->endpoint->ops->connect(world->endpoint, peer->config.rank, id, peer->address, peer->address_bytes);
}

void harness_poll(pcm_world *world)
{
    const struct pcm_transport *ops = world->endpoint->ops;
    pcm_reactor_poll(world->reactor, 0);
    if (!ops->arm || ++world->rounds % 64) return;
    ops->arm(world->endpoint, true);
    ops->arm(world->endpoint, false);
}

void harness_sleep(pcm_world *world, bool (*idle)(void *), void *user, int milliseconds)
{
    const struct pcm_transport *ops = world->endpoint->ops;
    if (ops->arm) ops->arm(world->endpoint, true);
    if (idle(user)) pcm_reactor_sleep(world->reactor, milliseconds);
    if (ops->arm) ops->arm(world->endpoint, false);
    pcm_reactor_poll(world->reactor, 0);
}

double harness_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* ---- fragments ------------------------------------------------------------------------------------------------- */

static void fill(unsigned char *bytes, size_t count, uint32_t mark)
{
    uint64_t state = mark * 0x9e3779b97f4a7c15u + count;
    for (size_t i = 0; i < count; i += 8) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint64_t word = state ^ state >> 29;
        memcpy(bytes + i, &word, count - i < 8 ? count - i : 8);
    }
}

static void expect(bool condition, const char *what, uint32_t mark)
{
    if (condition) {
        __atomic_add_fetch(&harness_passed, 1, __ATOMIC_RELAXED);
    } else if (__atomic_add_fetch(&harness_failed, 1, __ATOMIC_RELAXED) <= 20) {
        fprintf(stderr, "fragment %u: %s\n", mark, what);
    }
}

bool harness_send(struct pcm_channel *channel, unsigned lane, uint32_t mark, size_t bytes)
{
    const struct pcm_transport *ops = channel->ops;
    struct pcm_head head = {.seq = mark,
                            .collective = 1,
                            .dtype = 2,
                            .op = 3,
                            .part = 4,
                            .root = -5,
                            .slice = lane,
                            .count = bytes,
                            .bytes = (uint64_t)mark << 16,
                            .mark = 0x8006};
    size_t room = 0;
    if (channel->state != PCM_CHANNEL_UP) return false;
    unsigned char *to = ops->reserve(channel, lane, bytes, &room);
    if (!to) return false;
    expect(room >= bytes, "less room than was asked for", mark);
    expect(bytes <= 24 || (uintptr_t)to % 64 == 0, "room is not aligned to 64 bytes", mark);
    fill(to, bytes, mark);
    ops->commit(channel, lane, &head, bytes);
    return true;
}

bool harness_receive(struct pcm_channel *channel, unsigned lane, uint32_t mark, size_t bytes)
{
    static _Thread_local unsigned char wanted[PCM_FRAGMENT];
    const void *payload = NULL;
    size_t got = 0;
    if (channel->state == PCM_CHANNEL_CONNECTING) return false;
    const struct pcm_head *head = channel->ops->peek(channel, lane, &payload, &got);
    if (!head) return false;
    expect(head->seq == mark, "another one has come: lanes are first in, first out", mark);
    expect(head->collective == 1 && head->dtype == 2 && head->op == 3 && head->part == 4 && head->root == -5 &&
               head->slice == lane && head->count == got && head->bytes == (uint64_t)mark << 16 && head->mark == 0x8006,
           "its head has changed on the way", mark);
    expect(bytes == SIZE_MAX || bytes == got, "its size has changed on the way", mark);
    fill(wanted, got, mark);
    expect(payload && !memcmp(payload, wanted, got), "its bytes have changed on the way", mark);
    expect(channel->ops->peek(channel, lane, &payload, &got) == head, "peek took it away", mark);
    channel->ops->release(channel, lane);
    return true;
}
