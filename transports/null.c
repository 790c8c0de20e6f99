/* null.c: a mirror: what a rank sends to a peer comes back as what the peer sends to it. Nothing leaves the process, so what
 * is left of a symmetric collective's time is the cost of the executor. Results are garbage, and only benchmarks ask for it. */
#include <stdlib.h>
#include <string.h>

#include "../csrc/transport.h"

struct null_channel {
    struct pcm_channel base;
    uint32_t sent[PCM_LANES], received[PCM_LANES];
    struct {
        struct pcm_head head;
        size_t bytes;
        _Alignas(64) unsigned char payload[PCM_FRAGMENT];
    } cells[PCM_LANES][PCM_SLOTS];
};

static struct null_channel *of(struct pcm_channel *channel) { return (struct null_channel *)channel; }

static int null_open(pcm_world *world, const char *argument, struct pcm_endpoint **out)
{
    (void)argument;
    struct pcm_endpoint *endpoint = calloc(1, sizeof *endpoint);
    if (!endpoint) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory");
    endpoint->ops = &pcm_null, endpoint->world = world;
    *out = endpoint;
    return PCM_OK;
}

static int null_address(struct pcm_endpoint *endpoint, void *address, size_t *bytes)
{
    (void)endpoint, (void)address;
    *bytes = 0;
    return PCM_OK;
}

static bool null_reaches(struct pcm_endpoint *endpoint, const void *address, size_t bytes)
{
    (void)endpoint, (void)address, (void)bytes;
    return true;
}

static struct pcm_channel *null_connect(struct pcm_endpoint *endpoint, int peer, uint64_t id, const void *address,
                                        size_t bytes)
{
    (void)address, (void)bytes;
    struct null_channel *c = aligned_alloc(64, (sizeof *c + 63) / 64 * 64);
    if (!c) return pcm_fail(PCM_ERR_SYSTEM, peer, "out of memory for a channel"), NULL;
    memset(c, 0, offsetof(struct null_channel, cells));
    c->base =
        (struct pcm_channel){.ops = &pcm_null, .endpoint = endpoint, .peer = peer, .id = id, .state = PCM_CHANNEL_UP};
    return &c->base;
}

static void *null_reserve(struct pcm_channel *channel, unsigned lane, size_t want, size_t *room)
{
    struct null_channel *c = of(channel);
    (void)want;
    if (c->sent[lane] - c->received[lane] == PCM_SLOTS) return NULL;
    *room = PCM_FRAGMENT;
    return c->cells[lane][c->sent[lane] % PCM_SLOTS].payload;
}

static void null_commit(struct pcm_channel *channel, unsigned lane, const struct pcm_head *head, size_t bytes)
{
    struct null_channel *c = of(channel);
    unsigned slot = c->sent[lane]++ % PCM_SLOTS;
    c->cells[lane][slot].head = *head;
    c->cells[lane][slot].bytes = bytes;
}

static const struct pcm_head *null_peek(struct pcm_channel *channel, unsigned lane, const void **payload, size_t *bytes)
{
    struct null_channel *c = of(channel);
    if (c->sent[lane] == c->received[lane]) return NULL;
    unsigned slot = c->received[lane] % PCM_SLOTS;
    *payload = c->cells[lane][slot].payload;
    *bytes = c->cells[lane][slot].bytes;
    return &c->cells[lane][slot].head;
}

static void null_release(struct pcm_channel *channel, unsigned lane) { of(channel)->received[lane]++; }

static bool null_notice(struct pcm_channel *channel, const void *bytes, size_t length)
{
    (void)channel, (void)bytes, (void)length;
    return true;
}

static void null_close(struct pcm_channel *channel) { free(channel); }

static void null_shut(struct pcm_endpoint *endpoint) { free(endpoint); }

const struct pcm_transport pcm_null = {
    .name = "null",
    .caps = PCM_POLLED,
    .open = null_open,
    .address = null_address,
    .reaches = null_reaches,
    .connect = null_connect,
    .reserve = null_reserve,
    .commit = null_commit,
    .peek = null_peek,
    .release = null_release,
    .notice = null_notice,
    .close = null_close,
    .shut = null_shut,
};
