/* door.c: a stranger at the listener, one that answers a call, and a peer whose greeting makes no sense. */
#include <stddef.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../transports/tcp.h"
#include "../c/harness.h"
#include "fuzz.h"

enum { OWN = 0, SIZE = 3 };

static pcm_world *world, *other;
static struct pcm_door *door;
static struct sockaddr_un where = {.sun_family = AF_UNIX};
static socklen_t where_bytes;
static int entered;

static struct tcp_endpoint *endpoint(void) { return (struct tcp_endpoint *)world->endpoint; }

static int admit(void *user, const struct pcm_hello *hello) { return tcp_admit(user, hello); }

static void enter(void *user, int fd, const struct pcm_hello *hello, const struct pcm_keys *keys)
{
    entered++;
    tcp_welcome(user, fd, hello, keys);
}

static void called(void *user, int status, int fd, const struct pcm_keys *keys, const char *why)
{
    (void)why, (void)keys;
    *(int *)user = status;
    if (fd >= 0) close(fd);
}

static void open_door(void)
{
    static char secret[33];
    uint8_t random[16]; /* other ones in each process: no corpus knows them */
    fuzz_must(getrandom(random, sizeof random, 0) == sizeof random, "there are random numbers");
    for (int i = 0; i < 16; i++) snprintf(secret + 2 * i, 3, "%02x", random[i]);
    world = harness_world("tcp", OWN, SIZE, secret);
    other = harness_world("tcp", 1, SIZE, secret);
    int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    where_bytes = offsetof(struct sockaddr_un, sun_path) + 1 +
                  (socklen_t)snprintf(where.sun_path + 1, sizeof where.sun_path - 1, "pycomm-fuzz-%s", secret + 16);
    fuzz_must(!bind(listening, (void *)&where, where_bytes) && !listen(listening, 128), "one can listen");
    fuzz_must(!pcm_door_open(world, listening, PCM_HANDSHAKE_MS, admit, enter, endpoint(), &door), "there is a door");
}

static int come(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    fuzz_must(fd >= 0 && !connect(fd, (void *)&where, where_bytes), "one can knock");
    return fd;
}

/* Says all of the input, in pieces. */
static void talk(int fd, struct fuzz_input *in)
{
    while (in->left) {
        uint8_t piece[256];
        size_t n = fuzz_take(in, piece, fuzz_byte(in));
        if (n && send(fd, piece, n, MSG_NOSIGNAL) < 0) break;
        pcm_reactor_poll(world->reactor, 0);
        if (recv(fd, piece, sizeof piece, MSG_DONTWAIT) == 0) break;
    }
}

static void be_a_stranger(struct fuzz_input *in)
{
    int fd = come();
    pcm_reactor_poll(world->reactor, 0);
    talk(fd, in);
    close(fd);
    pcm_reactor_poll(world->reactor, 0);
    fuzz_must(!entered, "no stranger comes in");
}

static void be_called(struct fuzz_input *in)
{
    struct pcm_hello hello = {.job = HARNESS_JOB, .channel = 1, .from = OWN, .to = 1};
    int ends[2], status = PCM_AGAIN;
    fuzz_must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), "there are sockets");
    fuzz_must(pcm_door_call(door, ends[0], &hello, 1000, 0, called, &status) != NULL, "one can call");
    pcm_reactor_poll(world->reactor, 0);
    talk(ends[1], in);
    close(ends[1]);
    pcm_reactor_poll(world->reactor, 0);
    pcm_reactor_poll(world->reactor, 0);
    fuzz_must(status != PCM_OK && status != PCM_AGAIN, "a stranger who answers is found out");
}

static void be_a_peer(struct fuzz_input *in)
{
    struct pcm_handshake shake;
    for (int calls = 0; in->left && calls < 8; calls++) {
        uint8_t what = fuzz_byte(in), said[3] = {0};
        fuzz_take(in, said, sizeof said);
        struct tcp_greeting greeting = {said[0], said[1], said[2]};
        struct pcm_hello hello = {
            .job = HARNESS_JOB, .channel = what & 3, .from = 1, .to = OWN, .bytes = sizeof greeting};
        memcpy(hello.payload, &greeting, sizeof greeting);
        if (what & 4) hello.from = fuzz_word(in), hello.to = fuzz_word(in), hello.bytes = fuzz_byte(in);
        if (what & 8) fuzz_take(in, hello.payload, sizeof hello.payload);
        bool said_well = hello.bytes <= PCM_HELLO_PAYLOAD;
        if (!said_well) hello.bytes = PCM_HELLO_PAYLOAD;
        int fd = come(), status = pcm_handshake_call(&shake, other, fd, &hello), before = entered;
        if (!said_well) memset(shake.wire + 20, 0xff, 4);
        for (int turn = 0; turn < 8 && (!turn || status == PCM_AGAIN); turn++) {
            status = pcm_handshake_step(&shake);
            pcm_reactor_poll(world->reactor, 0);
        }
        bool right = said_well && hello.to == OWN && hello.from > 0 && hello.from < SIZE;
        fuzz_must((entered == before) == (status != PCM_OK || shake.verdict != PCM_WELCOME), "both ends agree");
        fuzz_must(right ? status == PCM_OK : status != PCM_OK, "who calls as it should comes in, and nobody else");
        if (what & 16 && send(fd, "what is this", 12, MSG_NOSIGNAL) < 0) close(-1); /* it has been hung up on */
        close(fd);
        if (what & 32) { /* this side asks for the channel too */
            struct pcm_channel *channel =
                world->endpoint->ops->connect(world->endpoint, 1, what & 3, other->address, other->address_bytes);
            if (channel) pcm_reactor_poll(world->reactor, 0);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    if (!world) open_door();
    entered = 0;
    switch (fuzz_byte(&in) % 3) {
    case 0: be_a_stranger(&in); break;
    case 1: be_called(&in); break;
    case 2: be_a_peer(&in); break;
    }
    while (!LIST_EMPTY(&endpoint()->channels)) tcp_free_channel(LIST_FIRST(&endpoint()->channels));
    fuzz_must(!endpoint()->unclaimed && !world->unsent, "nothing is left of those who came");
    return 0;
}
