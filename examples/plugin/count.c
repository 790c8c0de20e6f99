/* count.c: a transport that is another one, `count:shm` or `count:tcp`, and says at the end what has been sent over it.
 *
 * Channels and endpoints are the other's, only their table is ours: each slot does its part and calls the other's. A transport
 * that moves fragments by itself has structures of its own, which begin with pycomm's; transports/inproc.c is the shortest.
 */
#include <pycomm/transport.h>
#include <stdio.h>
#include <string.h>

static const struct pcm_transport count;
static const struct pcm_transport *inner; /* the other */
static atomic_ullong fragments, bytes; /* of this process */

static int count_open(pcm_world *world, const char *argument, struct pcm_endpoint **endpoint)
{
    size_t length = strcspn(argument, ":"); /* what follows is the other's own argument */
    const struct pcm_transport *wanted = pcm_transport_find(argument, length);
    if (!wanted) return PCM_ERR_ARGUMENT; /* pcm_transport_find has said why */
    if (inner && inner != wanted)
        return pcm_fail(PCM_ERR_ARGUMENT, -1, "count is %s's in this process already", inner->name);
    inner = wanted;
    int status = inner->open(world, argument[length] ? argument + length + 1 : "", endpoint);
    if (!status) (*endpoint)->ops = &count;
    return status;
}

static int count_address(struct pcm_endpoint *endpoint, void *address, size_t *length)
{
    return inner->address(endpoint, address, length);
}

static bool count_reaches(struct pcm_endpoint *endpoint, const void *address, size_t length)
{
    return inner->reaches(endpoint, address, length);
}

static struct pcm_channel *count_connect(struct pcm_endpoint *endpoint, int peer, uint64_t id, const void *address,
                                         size_t length)
{
    struct pcm_channel *channel = inner->connect(endpoint, peer, id, address, length);
    if (channel) channel->ops = &count;
    return channel;
}

static void *count_reserve(struct pcm_channel *channel, unsigned lane, size_t want, size_t *room)
{
    return inner->reserve(channel, lane, want, room);
}

static void count_commit(struct pcm_channel *channel, unsigned lane, const struct pcm_head *head, size_t length)
{
    fragments++;
    bytes += length;
    inner->commit(channel, lane, head, length);
}

static const struct pcm_head *count_peek(struct pcm_channel *channel, unsigned lane, const void **payload,
                                         size_t *length)
{
    return inner->peek(channel, lane, payload, length);
}

static void count_release(struct pcm_channel *channel, unsigned lane) { inner->release(channel, lane); }

static bool count_notice(struct pcm_channel *channel, const void *text, size_t length)
{
    return inner->notice(channel, text, length);
}

static void count_arm(struct pcm_endpoint *endpoint, bool asleep)
{
    if (inner->arm) inner->arm(endpoint, asleep);
}

static void count_settle(struct pcm_endpoint *endpoint)
{
    if (inner->settle) inner->settle(endpoint);
}

static void count_close(struct pcm_channel *channel) { inner->close(channel); }

static void count_shut(struct pcm_endpoint *endpoint)
{
    int rank = pcm_world_get_config(endpoint->world)->rank;
    fprintf(stderr, "count: rank %d has sent %llu bytes in %llu fragments over %s\n", rank, (unsigned long long)bytes,
            (unsigned long long)fragments, inner->name);
    inner->shut(endpoint);
}

/* Optional slots that are left out are NULL: without `lend`, long messages go as fragments, and all are counted. Without
 * PCM_POLLED, pycomm asks the kernel each time too, which is right for any transport. */
static const struct pcm_transport count = {
    .name = "count",
    .open = count_open,
    .address = count_address,
    .reaches = count_reaches,
    .connect = count_connect,
    .reserve = count_reserve,
    .commit = count_commit,
    .peek = count_peek,
    .release = count_release,
    .notice = count_notice,
    .arm = count_arm,
    .settle = count_settle,
    .close = count_close,
    .shut = count_shut,
};

PCM_TRANSPORT_PLUGIN(count);
