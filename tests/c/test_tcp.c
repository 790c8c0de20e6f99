/* test_tcp.c: what only tcp has to stand: strangers at its port, peers that talk nonsense, addresses that lead nowhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../transports/tcp.h"
#include "check.h"
#include "harness.h"

enum { PATIENCE = 20 };

static pcm_world *worlds[4]; /* all that are polled */

static void poll_all(void)
{
    for (size_t i = 0; i < sizeof worlds / sizeof *worlds; i++)
        if (worlds[i]) harness_poll(worlds[i]);
}

#define UNTIL(CONDITION)                                                                                               \
    do {                                                                                                               \
        double until = harness_now() + PATIENCE;                                                                       \
        bool met = false;                                                                                              \
        while (!(met = (CONDITION)) && harness_now() < until) poll_all();                                              \
        CHECK(met, #CONDITION " not within %d s in %s", PATIENCE, __func__);                                           \
    } while (0)

static struct pcm_world_config config_of(int rank, int size)
{
    return (struct pcm_world_config){
        .rank = rank, .size = size, .job = HARNESS_JOB, .mac = harness_mac, .mac_user = "secret"};
}

static void open_worlds(int count)
{
    for (int i = 0; i < count; i++) worlds[i] = harness_world("tcp", i, 3, "secret");
}

static void end_worlds(void)
{
    for (size_t i = 0; i < sizeof worlds / sizeof *worlds; i++) {
        harness_end(worlds[i]);
        worlds[i] = NULL;
    }
}

/* ---- a client of one's own making --------------------------------------------------------------------------- */

static int dial(const pcm_world *world)
{
    struct tcp_place places[TCP_PLACES];
    bool sealed;
    CHECK(tcp_read_address(world->address, world->address_bytes, places, &sealed) > 0,
          "the address is a list of places");
    struct tcp_rail rail = {.peer = places[0]};
    const struct tcp_endpoint any = {0};
    int fd = tcp_dial(&any, &rail);
    CHECK(fd >= 0, "dials: %s", strerror(errno));
    struct pollfd writable = {.fd = fd, .events = POLLOUT};
    poll(&writable, 1, 1000);
    return fd;
}

static void say(int fd, const void *bytes, size_t count)
{
    ssize_t sent = send(fd, bytes, count, MSG_NOSIGNAL);
    CHECK(sent == (ssize_t)count || errno == EPIPE || errno == ECONNRESET, "sends: %s", strerror(errno));
}

/* True once the other side has hung up. */
static bool hung_up(int fd)
{
    char bytes[4096];
    ssize_t got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    return got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
}

static bool hear(int fd, void *bytes, size_t count)
{
    ssize_t got = recv(fd, bytes, count, MSG_DONTWAIT | MSG_PEEK);
    return got == (ssize_t)count && recv(fd, bytes, count, MSG_DONTWAIT) == got;
}

static struct pcm_hello hello_from(uint32_t from, uint32_t to, uint64_t id)
{
    struct tcp_greeting greeting = {.token = 4711};
    struct pcm_hello hello = {.job = HARNESS_JOB, .channel = id, .from = from, .to = to, .bytes = sizeof greeting};
    memcpy(hello.payload, &greeting, sizeof greeting);
    return hello;
}

/* Goes through a handshake as rank `from`, by hand, holding the right secret; `shake` keeps what was said. */
static int come_in(pcm_world *host, uint32_t from, uint64_t id, struct pcm_handshake *shake)
{
    struct pcm_hello hello = hello_from(from, (uint32_t)host->config.rank, id);
    int fd = dial(host), status;
    CHECK(pcm_handshake_call(shake, host, fd, &hello) == PCM_OK, "a handshake begins");
    UNTIL((status = pcm_handshake_step(shake)) != PCM_AGAIN);
    CHECK(status == PCM_OK && shake->verdict == PCM_WELCOME, "one who knows the secret is welcome (%s)", shake->why);
    return fd;
}

/* ---- strangers ------------------------------------------------------------------------------------------------ */

static struct { /* traffic that goes on meanwhile */
    struct pcm_channel *end[2];
    uint32_t sent, received;
} flow;

static void flow_begin(void)
{
    memset(&flow, 0, sizeof flow);
    for (int i = 0; i < 2; i++) flow.end[i] = harness_connect(worlds[i], worlds[!i], 1);
    UNTIL(flow.end[0]->state == PCM_CHANNEL_UP && flow.end[1]->state == PCM_CHANNEL_UP);
}

static void flow_on(void)
{
    for (int i = 0; i < 20; i++) {
        if (harness_send(flow.end[0], 0, flow.sent, flow.sent % 30000)) flow.sent++;
        poll_all();
        if (harness_receive(flow.end[1], 0, flow.received, flow.received % 30000)) flow.received++;
    }
}

static void flow_end(void)
{
    UNTIL(flow.received == flow.sent ||
          (flow.received += harness_receive(flow.end[1], 0, flow.received, SIZE_MAX), false));
    for (int i = 0; i < 2; i++) {
        CHECK(flow.end[i]->state == PCM_CHANNEL_UP, "traffic is not disturbed: %s", flow.end[i]->why);
        flow.end[i]->ops->close(flow.end[i]);
    }
}

/* Says `first` and, after the answer to a hello, `second`; must be refused, and counted. */
static void must_be_refused(const char *who, const void *first, size_t bytes, const void *second, size_t more)
{
    unsigned long before = worlds[0]->refused;
    uint8_t answer[72];
    int fd = dial(worlds[0]);
    say(fd, first, bytes);
    if (second) {
        UNTIL(hear(fd, answer, sizeof answer));
        say(fd, second, more);
    }
    flow_on();
    UNTIL(hung_up(fd));
    CHECK(worlds[0]->refused == before + 1, "%s is counted once, not %lu times", who, worlds[0]->refused - before);
    close(fd);
}

static void test_strangers(void)
{
    open_worlds(2);
    flow_begin();
    must_be_refused("a browser", "GET / HTTP/1.1\r\n\r\n", 18, NULL, 0);
    must_be_refused("a single wrong byte", "\0", 1, NULL, 0);
    struct pcm_handshake shake;
    uint8_t nonsense[136];
    memset(nonsense, 0xa5, sizeof nonsense);
    memcpy(nonsense, "pycomm\r\n", 8);
    must_be_refused("nonsense after the magic word", nonsense, sizeof nonsense, NULL, 0);
    const struct {
        const char *what;
        uint64_t job;
        uint32_t from, to;
    } claims[] = {{"another job", 1, 1, 0},
                  {"a rank that is none", HARNESS_JOB, 3, 0},
                  {"a call to another", HARNESS_JOB, 1, 2},
                  {"a call from oneself", HARNESS_JOB, 0, 0}};
    for (size_t i = 0; i < sizeof claims / sizeof *claims; i++) {
        struct pcm_hello hello = hello_from(claims[i].from, claims[i].to, 9);
        hello.job = claims[i].job;
        pcm_handshake_call(&shake, worlds[0], -1, &hello);
        must_be_refused(claims[i].what, shake.wire, sizeof shake.wire, NULL, 0);
    }
    struct pcm_hello hello = hello_from(1, 0, 9);
    pcm_handshake_call(&shake, worlds[0], -1, &hello);
    must_be_refused("a wrong proof", shake.wire, sizeof shake.wire, nonsense, 32);
    /* One that has listened to a good handshake and says the same. */
    close(come_in(worlds[0], 1, 9, &shake));
    must_be_refused("a replay", shake.wire, sizeof shake.wire, shake.proof, sizeof shake.proof);
    /* One that sends the acceptor's own signature back. */
    pcm_handshake_call(&shake, worlds[0], -1, &hello);
    unsigned long before = worlds[0]->refused;
    int fd = dial(worlds[0]);
    uint8_t answer[72];
    say(fd, shake.wire, sizeof shake.wire);
    UNTIL(hear(fd, answer, sizeof answer));
    say(fd, answer + 40, 32);
    UNTIL(hung_up(fd));
    CHECK(worlds[0]->refused == before + 1, "a reflection is refused");
    close(fd);
    flow_end();
    end_worlds();
}

static void test_loiterers(void)
{
    enum { LOITERERS = 200 };
    open_worlds(2);
    flow_begin();
    int fds[LOITERERS];
    for (int i = 0; i < LOITERERS; i++) {
        fds[i] = dial(worlds[0]);
        if (i % 2) say(fds[i], "pycomm\r\n", 8);
    }
    struct pcm_handshake shake;
    close(come_in(worlds[0], 1, 5, &shake)); /* the doorway is full, and yet */
    flow_on();
    for (int i = 0; i < LOITERERS; i++) {
        UNTIL(hung_up(fds[i]));
        close(fds[i]);
    }
    CHECK(worlds[0]->refused == LOITERERS, "%lu of %d loiterers are counted", worlds[0]->refused, LOITERERS);
    flow_end();
    end_worlds();
}

/* With no descriptor left, callers wait outside, and the listening socket does not keep the reactor busy meanwhile. */
static void test_out_of_descriptors(void)
{
    open_worlds(2);
    struct rlimit before, none;
    int fd = dial(worlds[0]), ran = 0;
    getrlimit(RLIMIT_NOFILE, &before);
    none = (struct rlimit){(rlim_t)fd + 1, before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
    for (int i = 0; i < 1000; i++) ran += pcm_reactor_poll(worlds[0]->reactor, 0);
    CHECK(ran < 20, "%d callbacks ran in 1000 rounds", ran);
    setrlimit(RLIMIT_NOFILE, &before);
    close(fd);
    flow_begin();
    flow_on();
    flow_end();
    end_worlds();
}

static void test_wrong_secret(void)
{
    worlds[0] = harness_world("tcp", 0, 3, "secret");
    worlds[1] = harness_world("tcp", 1, 3, "guess");
    struct pcm_channel *guess = harness_connect(worlds[1], worlds[0], 1),
                       *other = harness_connect(worlds[0], worlds[1], 1);
    UNTIL(guess->state == PCM_CHANNEL_LOST && other->state == PCM_CHANNEL_LOST);
    CHECK(strstr(guess->why, "secret"), "it says why: %s", guess->why);
    CHECK(worlds[0]->refused && worlds[1]->refused, "both have counted");
    guess->ops->close(guess);
    other->ops->close(other);
    end_worlds();
}

/* ---- peers that prove themselves and then misbehave -------------------------------------------------------------- */

static struct pcm_channel *talk_to(uint64_t id, int *fd)
{
    struct pcm_handshake shake;
    *fd = come_in(worlds[0], 1, id, &shake);
    struct pcm_channel *channel = harness_connect(worlds[0], worlds[1], id);
    CHECK(channel && channel->state == PCM_CHANNEL_UP, "a waiting channel is handed over");
    return channel;
}

static void test_nonsense_from_a_peer(void)
{
    static const struct {
        const char *what;
        struct tcp_frame frame;
    } cases[] = {
        {"an unknown kind", {.kind = 9}},
        {"no such lane", {.kind = TCP_FRAGMENT, .lane = PCM_LANES}},
        {"a fragment that is too long", {.kind = TCP_FRAGMENT, .bytes = PCM_FRAGMENT + 1}},
        {"a fragment without room for it", {.kind = TCP_FRAGMENT, .number = TCP_SLOTS}},
        {"a fragment that is past", {.kind = TCP_FRAGMENT, .number = UINT32_MAX}},
        {"credit for nothing", {.kind = TCP_CREDIT, .credit = 1}},
        {"credit with a payload", {.kind = TCP_CREDIT, .bytes = 1}},
        {"a drop with a payload", {.kind = TCP_DROP, .number = 1, .bytes = 1}},
        {"a drop of the stream that it came on", {.kind = TCP_DROP}},
        {"a drop of a stream that cannot be", {.kind = TCP_DROP, .number = TCP_MOST_STREAMS}},
        {"a notice that is too long", {.kind = TCP_NOTICE, .bytes = PCM_NOTICE + 1}},
        {"a strange farewell", {.kind = TCP_BYE, .bytes = 1}},
    };
    open_worlds(2);
    flow_begin();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd;
        struct pcm_channel *channel = talk_to(100 + i, &fd);
        struct tcp_wire wire = {.frame = cases[i].frame};
        say(fd, &wire, sizeof wire);
        UNTIL(channel->state == PCM_CHANNEL_LOST);
        CHECK(strncmp(channel->why, "it ", 3) == 0, "%s: %s", cases[i].what, channel->why);
        flow_on();
        channel->ops->close(channel);
        close(fd);
    }
    flow_end();
    end_worlds();
}

static void test_byte_by_byte(void)
{
    int fd;
    open_worlds(2);
    struct pcm_channel *channel = talk_to(7, &fd);
    struct {
        struct tcp_wire wire;
        char payload[104];
    } first = {.wire = {{.kind = TCP_FRAGMENT, .bytes = 104, .lane = 4}, {.seq = 5}}}, second = first;
    memset(first.payload, '1', 104);
    memset(second.payload, '2', 104);
    second.wire.frame.number = 1;
    const void *payload;
    size_t bytes;
    for (size_t i = 0; i < sizeof second; i++) { /* the later one first, as over another stream */
        say(fd, (char *)&second + i, 1);
        poll_all();
    }
    CHECK(!channel->ops->peek(channel, 4, &payload, &bytes), "the second fragment waits for the first");
    for (size_t i = 0; i < sizeof first; i++) {
        say(fd, (char *)&first + i, 1);
        poll_all();
    }
    for (int i = 0; i < 2; i++) {
        UNTIL(channel->ops->peek(channel, 4, &payload, &bytes));
        CHECK(bytes == 104 && !memcmp(payload, i ? second.payload : first.payload, 104), "fragment %d is whole", i);
        channel->ops->release(channel, 4);
    }
    channel->ops->close(channel);
    close(fd);
    end_worlds();
}

/* With a goodbye; before it ever spoke; in the middle; in the middle and abruptly. */
static void test_ways_to_go(void)
{
    static const struct {
        int state;
        const char *why;
    } ways[] = {{PCM_CHANNEL_CLOSED, "it closed the channel"},
                {PCM_CHANNEL_CLOSED, "it hung up while connecting"},
                {PCM_CHANNEL_LOST, "it closed the connection without goodbye"},
                {PCM_CHANNEL_LOST, "Connection reset by peer"}};
    open_worlds(2);
    for (int way = 0; way < 4; way++) {
        int fd;
        struct pcm_channel *channel = talk_to(20 + (uint64_t)way, &fd);
        struct {
            struct tcp_frame frame;
            struct tcp_farewell farewell;
        } bye = {{.kind = TCP_BYE, .bytes = sizeof bye.farewell}, {{0}}};
        struct tcp_wire empty = {{.kind = TCP_FRAGMENT, .lane = 4}, {.seq = 5}};
        struct linger at_once = {1, 0};
        const void *payload;
        size_t bytes;
        if (way == 0) say(fd, &bye, sizeof bye);
        if (way >= 2) {
            say(fd, &empty, sizeof empty);
            UNTIL(channel->ops->peek(channel, 4, &payload, &bytes));
        }
        if (way == 3) setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        close(fd);
        UNTIL(channel->state > PCM_CHANNEL_UP);
        CHECK(channel->state == ways[way].state && !strcmp(channel->why, ways[way].why), "way %d: %s", way,
              channel->why);
        channel->ops->close(channel);
    }
    end_worlds();
}

/* ---- sending without a copy ------------------------------------------------------------------------------------ */

static struct tcp_endpoint *endpoint_of(const pcm_world *world) { return (struct tcp_endpoint *)world->endpoint; }

/* Large fragments arrive also where the kernel will not send them from where they lie, or in small pieces only. */
static void test_other_ways_to_send(void)
{
    for (int way = 0; way < 3; way++) {
        open_worlds(2);
        struct tcp_endpoint *endpoint = endpoint_of(worlds[0]);
        if (way == 0) endpoint->copying = true;
        if (way == 1) CHECK(fcntl(endpoint->pipe[1], F_SETPIPE_SZ, 4096) == 4096, "a small pipe: %s", strerror(errno));
        if (way == 2) CHECK(dup2(STDERR_FILENO, endpoint->pipe[1]) >= 0, "no pipe: %s", strerror(errno));
        struct pcm_channel *from = harness_connect(worlds[0], worlds[1], 8);
        struct pcm_channel *to = harness_connect(worlds[1], worlds[0], 8);
        UNTIL(from->state == PCM_CHANNEL_UP && to->state == PCM_CHANNEL_UP);
        for (uint32_t sent = 0, received = 0; received < 100; poll_all()) {
            while (sent < 100 && harness_send(from, sent % 3, sent, PCM_FRAGMENT - sent)) sent++;
            while (received < sent && harness_receive(to, received % 3, received, PCM_FRAGMENT - received)) received++;
        }
        CHECK(endpoint->copying == (way != 1), "way %d: copies: %d", way, endpoint->copying);
        from->ops->close(from);
        to->ops->close(to);
        end_worlds();
    }
}

/* What is under way when a channel is given up arrives as it was, whatever its buffers are used for next. */
static void test_what_is_under_way_stays(void)
{
    open_worlds(3);
    struct pcm_channel *from = harness_connect(worlds[0], worlds[1], 8);
    struct pcm_channel *to = harness_connect(worlds[1], worlds[0], 8);
    struct pcm_channel *other = harness_connect(worlds[0], worlds[2], 8);
    UNTIL(from->state == PCM_CHANNEL_UP && to->state == PCM_CHANNEL_UP && other->state == PCM_CHANNEL_UP);
    uint32_t received = 0;
    for (uint32_t mark = 0; mark < TCP_SLOTS; mark++) harness_send(from, 0, mark, PCM_FRAGMENT);
    tcp_free_channel((struct tcp_channel *)from);
    for (uint32_t mark = 0; mark < TCP_SLOTS; mark++) harness_send(other, 0, 1000 + mark, PCM_FRAGMENT);
    UNTIL((harness_receive(to, 0, received, PCM_FRAGMENT) && ++received && false) || to->state > PCM_CHANNEL_UP);
    while (harness_receive(to, 0, received, PCM_FRAGMENT)) received++;
    CHECK(received > 0, "some of it was in the kernel");
    to->ops->close(to);
    other->ops->close(other);
    end_worlds();
}

/* ---- several rails --------------------------------------------------------------------------------------------- */

/* Two ranks on hosts with two addresses each, all of loopback. */
static void open_rails(void)
{
    static const char *const PLACES[2] = {"127.0.0.11,127.0.0.12", "127.0.0.21,127.0.0.22"};
    for (int rank = 0; rank < 2; rank++) {
        struct pcm_world_config config = config_of(rank, 3);
        config.listen = "0.0.0.0", config.advertise = PLACES[rank];
        worlds[rank] = harness_world_with("tcp", &config);
    }
}

static int streams_of(const struct pcm_channel *base)
{
    const struct tcp_channel *channel = (const struct tcp_channel *)base;
    int count = 0;
    for (int i = 0; i < TCP_MOST_STREAMS; i++) count += channel->streams[i] && channel->streams[i]->watched;
    return count;
}

static struct { /* fragments of all sizes on several lanes, both ways */
    struct pcm_channel *end[2];
    uint32_t sent[2][3], received[2][3];
} both;

static size_t bytes_of(uint32_t mark) { return mark * 7919u % (PCM_FRAGMENT + 1); }

static void both_begin(void)
{
    memset(&both, 0, sizeof both);
    for (int i = 0; i < 2; i++) both.end[i] = harness_connect(worlds[i], worlds[!i], 8);
    UNTIL(both.end[0]->state == PCM_CHANNEL_UP && both.end[1]->state == PCM_CHANNEL_UP);
}

static void both_on(uint32_t fragments)
{
    for (int i = 0; i < 2; i++)
        for (unsigned lane = 0; lane < 3; lane++) {
            uint32_t *sent = &both.sent[i][lane], *received = &both.received[!i][lane];
            if (*sent < fragments && harness_send(both.end[i], lane, *sent, bytes_of(*sent))) ++*sent;
            if (harness_receive(both.end[!i], lane, *received, bytes_of(*received))) ++*received;
        }
}

static bool both_done(uint32_t fragments)
{
    both_on(fragments);
    for (int i = 0; i < 2; i++)
        for (unsigned lane = 0; lane < 3; lane++)
            if (both.received[i][lane] < fragments) return false;
    return true;
}

static void both_end(void)
{
    for (int i = 0; i < 2; i++) {
        CHECK(both.end[i]->state == PCM_CHANNEL_UP, "the channel lives: %s", both.end[i]->why);
        both.end[i]->ops->close(both.end[i]);
    }
}

/* Streams lie on both rails, from an address of one's own, and all arrives in order. */
static void test_rails(void)
{
    open_rails();
    both_begin();
    UNTIL(both_done(100) && streams_of(both.end[0]) == 4 && streams_of(both.end[1]) == 4);
    const struct tcp_channel *channel = (struct tcp_channel *)both.end[0];
    if (!channel->caller) channel = (struct tcp_channel *)both.end[1];
    int first = 0;
    for (int i = 0; i < 4; i++) first += tcp_same_host(&channel->streams[i]->peer, &channel->streams[0]->peer);
    CHECK(channel->unlike && first == 2, "%d of 4 streams are on the first rail", first);
    const struct tcp_place *own = &channel->streams[1]->own;
    CHECK(own->bytes[3] > 10 && own->bytes[3] < 23, "the second is bound to one's own address, not 127.0.0.%d",
          own->bytes[3]);
    char text[8192];
    size_t bytes = worlds[0]->endpoint->ops->rails(worlds[0]->endpoint, text, sizeof text);
    CHECK(bytes == strlen(text) && strstr(text, "\"from\": \"127.0.0.") && strstr(text, "\"up\": true"), "%s", text);
    CHECK(worlds[0]->endpoint->ops->rails(worlds[0]->endpoint, NULL, 0) == bytes, "the bytes needed are told");
    both_end();
    end_worlds();
}

/* An address that both ends have, as hosts with containers do, leads to oneself and not to the peer. */
static void test_common_address(void)
{
    static const char *const PLACES[2] = {"127.0.0.99,127.0.0.11", "127.0.0.99,127.0.0.21"};
    for (int rank = 0; rank < 2; rank++) {
        struct pcm_world_config config = config_of(rank, 3);
        config.listen = "0.0.0.0", config.advertise = PLACES[rank];
        worlds[rank] = harness_world_with("tcp", &config);
    }
    both_begin();
    UNTIL(both_done(50) && streams_of(both.end[0]) == 2);
    for (int i = 0; i < 2; i++) {
        const struct tcp_channel *channel = (struct tcp_channel *)both.end[i];
        if (!channel->caller) continue;
        for (int k = 0; k < 2; k++) CHECK(channel->streams[k]->peer.bytes[3] != 99, "stream %d leads to 127.0.0.99", k);
    }
    both_end();
    end_worlds();
}

/* Whatever stream fails, whenever, and whoever notices: all arrives once and in order, and streams come back. */
static void test_streams_fail(void)
{
    enum { FRAGMENTS = 400 };
    uint32_t dice = 1, drops = 0, cuts = 0;
    open_rails();
    both_begin();
    for (unsigned round = 1; !both_done(FRAGMENTS); round++) {
        poll_all();
        for (int i = 0; i < 2; i++) { /* no need to wait */
            struct tcp_channel *channel = (struct tcp_channel *)both.end[i];
            for (int k = 0; k < TCP_MOST_STREAMS; k++)
                if (channel->streams[k] && channel->streams[k]->redial) channel->streams[k]->redial = 1;
            if (round % 16 == 0) tcp_redial(channel, 2);
        }
        dice = dice * 1664525 + 1013904223;
        struct tcp_channel *channel = (struct tcp_channel *)both.end[dice >> 30 & 1];
        struct tcp_stream *stream = channel->streams[dice >> 27 & 3];
        if (round % 24 || streams_of(both.end[0]) < 3 || streams_of(both.end[1]) < 3 || !stream || !stream->watched)
            continue;
        if (dice >> 26 & 1) {
            shutdown(stream->watch.fd, SHUT_RDWR);
            cuts++;
        } else {
            tcp_drop(stream, true);
            tcp_pump(channel);
            drops++;
        }
    }
    CHECK(drops > 5 && cuts > 5, "%u streams were dropped and %u cut", drops, cuts);
    for (int i = 0; i < 2; i++) {
        CHECK(!((struct tcp_channel *)both.end[i])->again, "nothing waits to be sent again");
        for (unsigned lane = 0; lane < 3; lane++)
            CHECK(both.received[i][lane] == FRAGMENTS, "%u fragments came", both.received[i][lane]);
    }
    both_end();
    end_worlds();
}

/* Where the last stream ends without goodbye, the peer is lost, as if there had been one alone. */
static void test_last_stream(void)
{
    open_rails();
    both_begin();
    UNTIL(both_done(20) && streams_of(both.end[0]) == 4 && streams_of(both.end[1]) == 4);
    struct tcp_channel *channel = (struct tcp_channel *)both.end[0];
    for (int i = 0; i < 4; i++) shutdown(channel->streams[i]->watch.fd, SHUT_RDWR);
    UNTIL(both.end[0]->state == PCM_CHANNEL_LOST && both.end[1]->state == PCM_CHANNEL_LOST);
    CHECK(!strcmp(both.end[1]->why, "it closed the connection without goodbye"), "%s", both.end[1]->why);
    for (int i = 0; i < 2; i++) both.end[i]->ops->close(both.end[i]);
    end_worlds();
}

/* What comes twice is taken once, if a stream was dropped; what was never sent is not. */
static void test_repetitions(void)
{
    int fd;
    const void *payload;
    size_t bytes;
    open_worlds(2);
    struct pcm_channel *channel = talk_to(7, &fd);
    struct {
        struct tcp_wire wire;
        char payload[40];
    } fragment = {.wire = {.frame = {.kind = TCP_FRAGMENT, .bytes = 40, .lane = 2}}};
    struct tcp_frame drop = {.kind = TCP_DROP, .number = 1};
    memset(fragment.payload, 'x', sizeof fragment.payload);
    say(fd, &drop, sizeof drop);
    for (int i = 0; i < 3; i++) say(fd, &fragment, sizeof fragment);
    UNTIL(channel->ops->peek(channel, 2, &payload, &bytes));
    CHECK(bytes == 40 && !memcmp(payload, fragment.payload, 40), "it is whole");
    channel->ops->release(channel, 2);
    say(fd, &fragment, sizeof fragment); /* it is past now */
    fragment.wire.frame.number = 1;
    say(fd, &fragment, sizeof fragment);
    UNTIL(channel->ops->peek(channel, 2, &payload, &bytes));
    channel->ops->release(channel, 2);
    CHECK(!channel->ops->peek(channel, 2, &payload, &bytes) && channel->state == PCM_CHANNEL_UP, "there were two");
    for (uint32_t number = 2; number < TCP_MOST_SLOTS + 9; number++) {
        fragment.wire.frame.number = number;
        say(fd, &fragment, sizeof fragment);
        UNTIL(channel->ops->peek(channel, 2, &payload, &bytes));
        channel->ops->release(channel, 2);
    }
    fragment.wire.frame.number = 0; /* it was under way over a slow stream all that time */
    say(fd, &fragment, sizeof fragment);
    fragment.wire.frame.number = TCP_MOST_SLOTS + 9;
    say(fd, &fragment, sizeof fragment);
    UNTIL(channel->ops->peek(channel, 2, &payload, &bytes));
    channel->ops->release(channel, 2);
    CHECK(channel->state == PCM_CHANNEL_UP, "what comes late is no reason to go: %s", channel->why);
    fragment.wire.frame.number += 1 + TCP_MOST_SLOTS;
    say(fd, &fragment, sizeof fragment);
    UNTIL(channel->state == PCM_CHANNEL_LOST);
    CHECK(!strcmp(channel->why, "it sent more than there was room for"), "%s", channel->why);
    channel->ops->close(channel);
    close(fd);
    end_worlds();
}

/* On a long way more fragments are under way than at first, and all memory is accounted for. */
static void test_windows(void)
{
    open_worlds(2);
    both_begin();
    for (int i = 0; i < 2; i++) ((struct tcp_channel *)both.end[i])->rtt = 10;
    struct tcp_lane *lane = &((struct tcp_channel *)both.end[0])->lanes[1];
    uint32_t sent = 0, received = 0, most = 0;
    for (double until = harness_now() + PATIENCE; most <= TCP_SLOTS && harness_now() < until; poll_all()) {
        while (harness_send(both.end[0], 1, sent, 1000)) sent++;
        if (lane->committed - lane->credited > most) most = lane->committed - lane->credited;
        while (harness_receive(both.end[1], 1, received, 1000)) received++;
    }
    CHECK(most > TCP_SLOTS, "%u fragments were under way", most);
    UNTIL((received += harness_receive(both.end[1], 1, received, 1000), received == sent));
    CHECK(lane->room > TCP_SLOTS && lane->room <= TCP_MOST_SLOTS, "the window is %u fragments", lane->room);
    const struct tcp_endpoint *endpoint = endpoint_of(worlds[1]);
    CHECK(endpoint->widened >= lane->room - TCP_SLOTS, "%u fragments are accounted for", endpoint->widened);
    both_end();
    UNTIL(LIST_EMPTY(&endpoint->channels));
    CHECK(!endpoint->widened, "%u fragments are left", endpoint->widened);
    end_worlds();
}

/* ---- encryption ------------------------------------------------------------------------------------------------- */

/* Somebody between two ranks, who hears all and may change it. */
static struct {
    int door, sides[2 * TCP_MOST_STREAMS], count; /* sides: of each connection, the caller's and the other */
    unsigned char *heard; /* what callers have said */
    size_t bytes;
    size_t change; /* flip a bit of the heard byte of this number; 0: none */
    bool repeat; /* once, the last that was heard */
} between;

enum { HEARD = 8 << 20 };

static void between_open(pcm_world *via, const pcm_world *callee)
{
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof own;
    struct tcp_place place[TCP_PLACES];
    bool sealed;
    memset(&between, 0, sizeof between);
    between.heard = malloc(HEARD);
    between.door = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK(!bind(between.door, (void *)&own, length) && !listen(between.door, 16) &&
              !getsockname(between.door, (void *)&own, &length),
          "somebody listens between them");
    tcp_read_address(callee->address, callee->address_bytes, place, &sealed);
    place[0].port = ntohs(own.sin_port);
    *via = (pcm_world){.config.rank = callee->config.rank, .address_bytes = sizeof via->address};
    CHECK(!tcp_write_address(place, 1, sealed, via->address, &via->address_bytes), "writes an address");
}

static void between_hear(unsigned char *bytes, size_t count)
{
    size_t first = between.bytes;
    if (first + count > HEARD) return;
    if (between.change >= first && between.change < first + count && between.change)
        bytes[between.change - first] ^= 16;
    memcpy(between.heard + first, bytes, count);
    between.bytes += count;
}

static void between_pass_on(const pcm_world *callee)
{
    static unsigned char bytes[65536];
    int caller = accept4(between.door, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (caller >= 0) {
        between.sides[between.count++] = caller;
        between.sides[between.count++] = dial(callee);
    }
    for (int i = 0; i < between.count; i++) {
        ssize_t got = recv(between.sides[i], bytes, sizeof bytes, MSG_DONTWAIT);
        if (got <= 0) continue;
        if (i % 2 == 0) between_hear(bytes, (size_t)got);
        for (int times = i % 2 == 0 && between.repeat ? 2 : 1; times > 0; times--)
            for (ssize_t at = 0, n; at < got; at += n > 0 ? n : 0) {
                n = send(between.sides[i ^ 1], bytes + at, (size_t)(got - at), MSG_NOSIGNAL | MSG_DONTWAIT);
                if (n < 0 && errno != EAGAIN) break;
                if (n < 0) poll_all();
            }
        if (i % 2 == 0) between.repeat = false;
    }
}

static void between_close(void)
{
    for (int i = 0; i < between.count; i++) close(between.sides[i]);
    close(between.door);
    free(between.heard);
}

#define UNTIL_BETWEEN(CONDITION) UNTIL((between_pass_on(worlds[1]), (CONDITION)))

/* Whether somebody between two ranks sees what they send. */
static bool is_seen(const char *transport)
{
    struct pcm_channel *end[2];
    static unsigned char sent[PCM_FRAGMENT];
    const void *payload;
    size_t bytes = 0;
    pcm_world via;
    for (int i = 0; i < 2; i++) worlds[i] = harness_world(transport, i, 2, "secret");
    between_open(&via, worlds[1]);
    end[0] = harness_connect(worlds[0], &via, 3);
    UNTIL_BETWEEN(end[0]->state == PCM_CHANNEL_UP);
    end[1] = harness_connect(worlds[1], worlds[0], 3);
    UNTIL_BETWEEN(harness_send(end[0], 0, 1, 60000));
    UNTIL_BETWEEN(end[1]->ops->peek(end[1], 0, &payload, &bytes));
    memcpy(sent, payload, bytes);
    UNTIL_BETWEEN(harness_receive(end[1], 0, 1, 60000));
    for (uint32_t k = 2; k < 50; k++) { /* over several streams, and of all lengths */
        size_t length = k * 7919 % 65536;
        UNTIL_BETWEEN(harness_send(end[0], 0, k, length));
        UNTIL_BETWEEN(harness_receive(end[1], 0, k, length));
    }
    bool seen = memmem(between.heard, between.bytes, sent + 1024, 32) != NULL;
    for (int i = 0; i < 2; i++) end[i]->ops->close(end[i]);
    for (int i = 0; i < 200; i++) between_pass_on(worlds[1]), poll_all();
    between_close();
    end_worlds();
    return seen;
}

static void test_nothing_is_seen(void)
{
    CHECK(is_seen("tcp"), "who listens sees what is not encrypted");
    CHECK(!is_seen("+tcp"), "who listens sees nothing of what is encrypted");
}

/* What is changed, or sent twice, on the way is found out, and nothing of it is taken. */
static void check_tampering(size_t change, bool repeat)
{
    struct pcm_channel *end[2];
    pcm_world via;
    const void *payload;
    size_t bytes;
    for (int i = 0; i < 2; i++) worlds[i] = harness_world("+tcp", i, 2, "secret");
    between_open(&via, worlds[1]);
    end[0] = harness_connect(worlds[0], &via, 3);
    UNTIL_BETWEEN(end[0]->state == PCM_CHANNEL_UP);
    end[1] = harness_connect(worlds[1], worlds[0], 3);
    UNTIL_BETWEEN(harness_send(end[0], 0, 1, 500));
    UNTIL_BETWEEN(harness_receive(end[1], 0, 1, 500));
    between.change = change ? between.bytes + change - 1 : 0;
    between.repeat = repeat;
    UNTIL_BETWEEN(harness_send(end[0], 0, 2, 500));
    if (repeat) UNTIL_BETWEEN(harness_receive(end[1], 0, 2, 500));
    /* Where the length was changed, that is noticed once so much has come. */
    UNTIL_BETWEEN((harness_send(end[0], 0, 3, 500), end[1]->state == PCM_CHANNEL_LOST));
    CHECK(strstr(end[1]->why, "changed on the way"), "%s", end[1]->why);
    CHECK(!end[1]->ops->peek(end[1], 0, &payload, &bytes), "nothing of it is taken");
    for (int i = 0; i < 2; i++) end[i]->ops->close(end[i]);
    between_close();
    end_worlds();
}

static void test_changes_are_found(void)
{
    static const size_t at[] = {
        1, 4, 5, 20, 300, 4 + 48 + 500 + 1, 4 + 48 + 500 + 16}; /* length, frame, payload, tag */
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) check_tampering(at[i], false);
    check_tampering(0, true);
}

static void test_all_or_none_encrypt(void)
{
    worlds[0] = harness_world("tcp", 0, 2, "secret");
    worlds[1] = harness_world("+tcp", 1, 2, "secret");
    for (int i = 0; i < 2; i++) {
        CHECK(!harness_connect(worlds[i], worlds[!i], 3), "they do not connect");
        CHECK(pcm_last_error()->code == PCM_ERR_MISMATCH && pcm_last_error()->rank == !i, "it is said who differs");
        CHECK(strstr(pcm_last_error()->text, i ? "does not encrypt" : "encrypts"), "%s", pcm_last_error()->text);
    }
    end_worlds();
    CHECK(!harness_world("+tcp", 0, 2, NULL), "there is no encryption without a secret");
}

/* ---- addresses ------------------------------------------------------------------------------------------------- */

static void test_places(void)
{
    open_worlds(3);
    struct tcp_place places[3], one[TCP_PLACES];
    bool sealed;
    tcp_read_address(worlds[1]->address, worlds[1]->address_bytes, one, &sealed);
    places[0] = places[1] = places[2] = one[0];
    int closed = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); /* bound, but not listening: refuses */
    struct sockaddr_in bound = {.sin_family = AF_INET};
    socklen_t length = sizeof bound;
    CHECK(!bind(closed, (void *)&bound, length) && !getsockname(closed, (void *)&bound, &length),
          "a port of one's own");
    places[0].port = ntohs(bound.sin_port);
    tcp_read_address(worlds[2]->address, worlds[2]->address_bytes, one, &sealed);
    places[1].port = one[0].port; /* somebody else lives there */
    pcm_world wrong = {.config.rank = 1, .address_bytes = sizeof wrong.address};
    CHECK(!tcp_write_address(places, 3, false, wrong.address, &wrong.address_bytes), "writes an address");
    struct pcm_channel *channel = harness_connect(worlds[0], &wrong, 8);
    UNTIL(channel->state == PCM_CHANNEL_UP);
    CHECK(worlds[2]->refused == 1, "a call for another rank is turned away");
    struct pcm_channel *other = harness_connect(worlds[1], worlds[0], 8);
    UNTIL(harness_send(channel, 0, 3, 77));
    UNTIL(harness_receive(other, 0, 3, 77));
    channel->ops->close(channel);
    other->ops->close(other);
    /* Nobody anywhere: said soon, and in words. */
    wrong.address_bytes = sizeof wrong.address;
    tcp_write_address(places, 1, false, wrong.address, &wrong.address_bytes);
    channel = harness_connect(worlds[0], &wrong, 9);
    UNTIL(channel->state == PCM_CHANNEL_CLOSED);
    CHECK(strstr(channel->why, "cannot connect to 127.0.0.1:") && strstr(channel->why, "refused"), "%s", channel->why);
    channel->ops->close(channel);
    close(closed);
    end_worlds();
}

static void test_configurations(void)
{
    const struct {
        const char *listen, *advertise;
        int streams;
        bool good;
    } cases[] = {
        {"127.0.0.1", NULL, 1, true},
        {"0.0.0.0", NULL, 8, true},
        {"0.0.0.0", "127.0.0.1", 3, true},
        {"::1", NULL, 2, true},
        {"::", NULL, 2, true},
        {"lo", "localhost", 2, true},
        {"no.such.host", NULL, 0, false},
        {NULL, "127.0.0.1,no.such.host", 0, false},
        {NULL, "", 0, false},
        {NULL, NULL, 9, false},
        {NULL, NULL, -1, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int rank = 0; rank < 2; rank++) {
            struct pcm_world_config config = config_of(rank, 3);
            config.listen = cases[i].listen, config.advertise = cases[i].advertise, config.streams = cases[i].streams;
            worlds[rank] = harness_world_with("tcp", &config);
        }
        CHECK(!!worlds[0] == cases[i].good, "listening on %s, %s", cases[i].listen, cases[i].advertise);
        if (worlds[0] && worlds[1]) {
            flow_begin();
            for (int round = 0; round < 10; round++) flow_on();
            flow_end();
        }
        end_worlds();
    }
}

int main(void)
{
    test_strangers();
    test_loiterers();
    test_out_of_descriptors();
    test_wrong_secret();
    test_nonsense_from_a_peer();
    test_byte_by_byte();
    test_ways_to_go();
    test_other_ways_to_send();
    test_what_is_under_way_stays();
    test_rails();
    test_common_address();
    test_streams_fail();
    test_last_stream();
    test_repetitions();
    test_windows();
    if (harness_linked("+tcp")) {
        test_nothing_is_seen();
        test_changes_are_found();
        test_all_or_none_encrypt();
    }
    test_places();
    test_configurations();
    check_passed += harness_passed;
    check_failed += harness_failed;
    return check_report();
}
