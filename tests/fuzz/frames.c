/* frames.c: a peer that is in, and sends whatever frames it likes over two streams of a tcp channel, plain or encrypted; and
 * somebody who writes into encrypted streams without their keys. */
#include <sys/socket.h>
#include <unistd.h>

#include "../../transports/tcp.h"
#include "../c/harness.h"
#include "fuzz.h"

enum { STREAMS = 2, CHANNEL = 5 };
enum act { SAY, SAY_MUCH, FRAME, RELEASE, COMMIT, NOTICE, ACTS };

enum way { PLAIN, SEALED, BREAKING_IN, WAYS };

static pcm_world *world;
static enum way way;
static struct tcp_cipher *ciphers[STREAMS]; /* the peer's */
static const struct pcm_keys ours = {{1}, {2}}, theirs = {{2}, {1}};
static uint8_t much[PCM_FRAGMENT];

static void join(struct tcp_endpoint *endpoint, uint32_t number, int *peer)
{
    int ends[2];
    struct tcp_greeting greeting = {.token = 1, .number = number};
    struct pcm_hello hello = {.job = HARNESS_JOB, .channel = CHANNEL, .from = 1, .to = 0, .bytes = sizeof greeting};
    memcpy(hello.payload, &greeting, sizeof greeting);
    fuzz_must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), "there are sockets");
    fuzz_must(tcp_admit(endpoint, &hello) == PCM_WELCOME, "a stream is admitted");
    tcp_welcome(endpoint, ends[0], &hello, way == PLAIN ? NULL : &ours);
    ciphers[number] = way == SEALED ? tcp_cipher_create(&theirs) : NULL;
    *peer = ends[1];
}

static void say(int peer, struct tcp_cipher *cipher, const void *bytes, size_t count)
{
    struct iovec piece = {(void *)bytes, count};
    if (count && cipher && tcp_cipher_send(cipher, peer, &piece, 1) < 0) return;
    if (cipher) return;
    if (send(peer, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        return; /* it has been hung up on, or reads no more */
}

static void hear(int peer)
{
    static uint8_t unwanted[256 * 1024];
    while (recv(peer, unwanted, sizeof unwanted, MSG_DONTWAIT) > 0) {
    }
}

static void release(struct pcm_channel *channel, unsigned lane)
{
    const void *payload;
    size_t bytes;
    static uint8_t copy[PCM_FRAGMENT];
    if (!channel->ops->peek(channel, lane, &payload, &bytes)) return;
    fuzz_must(way != BREAKING_IN, "nothing comes in without the keys");
    fuzz_must(bytes <= PCM_FRAGMENT, "no fragment is longer than a fragment");
    memcpy(copy, payload, bytes);
    channel->ops->release(channel, lane);
}

static void commit(struct pcm_channel *channel, unsigned lane, size_t bytes)
{
    struct pcm_head head = {.seq = 1};
    size_t room;
    uint8_t *to = channel->ops->reserve(channel, lane, bytes, &room);
    if (!to) return;
    memset(to, 7, bytes);
    channel->ops->commit(channel, lane, &head, bytes);
}

/* A frame of the input, most of whose fields are near what they may be. */
static void frame(int peer, struct tcp_cipher *cipher, struct fuzz_input *in)
{
    uint8_t said[5] = {0};
    fuzz_take(in, said, sizeof said);
    struct tcp_wire wire = {.frame = {.kind = said[0] % 6,
                                      .lane = said[1] % (PCM_LANES + 1),
                                      .window = said[2],
                                      .number = (uint32_t)(int8_t)said[3],
                                      .credit = (uint32_t)(int8_t)said[4]}};
    uint16_t bytes = 0;
    fuzz_take(in, &bytes, sizeof bytes);
    wire.frame.bytes = wire.frame.kind == TCP_BYE      ? sizeof(struct tcp_farewell)
                       : wire.frame.kind >= TCP_CREDIT ? bytes % (PCM_NOTICE + 2)
                                                       : bytes;
    bool fragment = wire.frame.kind == TCP_FRAGMENT;
    say(peer, cipher, &wire, fragment ? sizeof wire : sizeof wire.frame);
    say(peer, cipher, much, wire.frame.bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    if (!world) world = harness_world("tcp", 0, 2, NULL);
    struct tcp_endpoint *endpoint = (struct tcp_endpoint *)world->endpoint;
    int peers[STREAMS];
    unsigned long notices = world->notices;
    way = fuzz_byte(&in) % WAYS;
    if (tcp_find_cipher()) way = PLAIN; /* there is no OpenSSL */
    join(endpoint, 0, &peers[0]);
    struct pcm_channel *channel = world->endpoint->ops->connect(world->endpoint, 1, CHANNEL, NULL, 0);
    fuzz_must(channel && channel->state == PCM_CHANNEL_UP, "the peer's channel is there");
    for (int i = 1; i < STREAMS; i++) join(endpoint, (uint32_t)i, &peers[i]);
    while (in.left) {
        uint8_t what = fuzz_byte(&in), bytes[256];
        int peer = peers[what >> 7];
        struct tcp_cipher *cipher = ciphers[what >> 7];
        unsigned lane = (what >> 3 & 15) % PCM_LANES;
        switch (what % 8) {
        case SAY: say(peer, cipher, bytes, fuzz_take(&in, bytes, fuzz_byte(&in))); break;
        case SAY_MUCH: say(peer, cipher, much, 64 * (size_t)fuzz_byte(&in)); break;
        case FRAME: frame(peer, cipher, &in); break;
        case RELEASE: release(channel, lane); break;
        case COMMIT: commit(channel, lane, 256 * (size_t)fuzz_byte(&in)); break;
        case NOTICE: channel->ops->notice(channel, "it", 2); break;
        default: shutdown(peer, SHUT_WR); break;
        }
        pcm_reactor_poll(world->reactor, 0);
        hear(peer);
    }
    pcm_reactor_poll(world->reactor, 0);
    for (int i = 0; i < STREAMS; i++) close(peers[i]), tcp_cipher_free(ciphers[i]);
    pcm_reactor_poll(world->reactor, 0);
    for (unsigned lane = 0; lane < PCM_LANES; lane++) release(channel, lane);
    tcp_free_channel((struct tcp_channel *)channel);
    fuzz_must(way != BREAKING_IN || world->notices == notices, "no notice comes in without the keys");
    fuzz_must(LIST_EMPTY(&endpoint->channels) && !endpoint->unclaimed && !world->unsent && !endpoint->widened,
              "nothing is left of a channel");
    return 0;
}
