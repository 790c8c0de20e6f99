/* tcp_window.c: how many fragments of a lane may be under way: enough to fill a long path, and to wait for a slow one.
 *
 * A sender that may have w bytes under way sends at most w each round trip. So the receiver looks at what it has released
 * during one, and offers twice as much: what limits the flow doubles until something else limits it, as in the receive
 * buffers of TCP ("dynamic right-sizing": Fisk and Feng, 2001). It does so only where a round trip takes RTT_MS at least,
 * for TCP_SLOTS are enough for any shorter one. Over unlike streams fragments come out of order besides; a window that is
 * nearly full while its first fragment is missing doubles too.
 */
#include <stdlib.h>
#include <string.h>

#include "tcp.h"

enum {
    RTT_MS = 2,
    MOST_WIDENED =
        4096, /* fragments (256 MiB) that all windows of an endpoint may hold beyond those of the beginning */
};

void tcp_open_windows(struct tcp_channel *channel)
{
    for (unsigned lane = 0; lane < PCM_LANES; lane++) {
        struct tcp_lane *each = &channel->lanes[lane];
        each->room = each->window = TCP_SLOTS;
        each->out.slots = each->out.first, each->in.slots = each->in.first;
        each->out.mask = each->in.mask = TCP_SLOTS - 1;
    }
}

void tcp_close_windows(struct tcp_channel *channel)
{
    struct tcp_endpoint *endpoint = tcp_endpoint_of(channel);
    for (unsigned lane = 0; lane < PCM_LANES; lane++) {
        struct tcp_ring *out = &channel->lanes[lane].out, *in = &channel->lanes[lane].in;
        for (uint32_t i = 0; i <= out->mask; i++) tcp_discard(endpoint, &out->slots[i]);
        for (uint32_t i = 0; i <= in->mask; i++) tcp_give_back(endpoint, &in->slots[i]);
        if (out->slots != out->first) free(out->slots);
        if (in->slots != in->first) free(in->slots);
    }
    endpoint->widened -= channel->widened;
}

/* Makes room for `count` slots, a power of two, of which those from fragment `from` on are in use. */
static bool widen(struct tcp_ring *ring, uint32_t from, uint32_t count)
{
    struct tcp_slot *slots = calloc(count, sizeof *slots);
    if (!slots) return false;
    for (uint32_t i = 0; i <= ring->mask; i++) slots[(from + i) & (count - 1)] = *tcp_slot_of(ring, from + i);
    if (ring->slots != ring->first) free(ring->slots);
    ring->slots = slots;
    ring->mask = count - 1;
    return true;
}

bool tcp_widen_out(struct tcp_lane *lane)
{
    uint32_t count = 2 * (lane->out.mask + 1);
    return count <= TCP_MOST_SLOTS && widen(&lane->out, lane->credited, count);
}

void tcp_widen_in(struct tcp_channel *channel, unsigned number, uint32_t slots)
{
    struct tcp_lane *lane = &channel->lanes[number];
    struct tcp_endpoint *endpoint = tcp_endpoint_of(channel);
    uint32_t count = lane->window;
    while (count < slots && count < TCP_MOST_SLOTS) count *= 2;
    uint32_t more = count - lane->window;
    if (!more || endpoint->widened + more > MOST_WIDENED || !widen(&lane->in, lane->released, count)) return;
    lane->window = count;
    channel->widened += more;
    endpoint->widened += more;
    channel->due |= 1u << number;
}

void tcp_released(struct tcp_channel *channel, unsigned number)
{
    struct tcp_lane *lane = &channel->lanes[number];
    if (channel->rtt < RTT_MS || lane->window == TCP_MOST_SLOTS) return;
    int64_t now = pcm_clock_ms(), passed = now - lane->looked;
    if (passed < channel->rtt) return;
    uint64_t trip = (uint64_t)(lane->released - lane->measured) * (uint64_t)channel->rtt / (uint64_t)passed;
    lane->looked = now;
    lane->measured = lane->released;
    if (2 * trip > lane->window) tcp_widen_in(channel, number, (uint32_t)(2 * trip));
}

void tcp_arrived(struct tcp_channel *channel, unsigned number, uint32_t fragment)
{
    struct tcp_lane *lane = &channel->lanes[number];
    if (!channel->unlike || fragment - lane->released < lane->window / 4 * 3) return;
    /* The core may look at a fragment that is whole, which must stay where it is. */
    if (!tcp_slot_of(&lane->in, lane->released)->done) tcp_widen_in(channel, number, 2 * lane->window);
}
