/* test_transport.c: what every transport must do, checked on each that is linked: test_transport [name ...]. */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "harness.h"

static const char *transport; /* under test */
static double patience = 20;  /* seconds, for what normally takes none */

struct pair { /* of ranks, and a channel between them */
    pcm_world *world[2];
    struct pcm_channel *end[2];
};

static void poll_both(struct pair *pair)
{
    const void *payload;
    size_t bytes;
    for (int i = 0; i < 2; i++) {
        if (pair->world[i]) harness_poll(pair->world[i]);
        if (pair->end[i] && pair->end[i]->state != PCM_CHANNEL_CONNECTING) /* as if waiting */
            pair->end[i]->ops->peek(pair->end[i], PCM_LANE_BULK, &payload, &bytes);
    }
}

/* Drives both ranks until the condition, which may act, holds; that this happens in time is a check. */
#define UNTIL(PAIR, CONDITION)                                                                                         \
    do {                                                                                                               \
        double until = harness_now() + patience;                                                                       \
        bool met = false;                                                                                              \
        while (!(met = (CONDITION)) && harness_now() < until) poll_both(PAIR);                                         \
        CHECK(met, "%s: " #CONDITION " not within %g s in %s", transport, patience, __func__);                         \
        if (!met) patience = 1; /* something is broken: find out quickly what else is */                               \
    } while (0)

static bool begin_worlds(struct pair *pair)
{
    memset(pair, 0, sizeof *pair);
    for (int i = 0; i < 2; i++) pair->world[i] = harness_world(transport, i, 2, "secret");
    CHECK(pair->world[0] && pair->world[1], "%s opens", transport);
    return pair->world[0] && pair->world[1];
}

static void join(struct pair *pair, uint64_t id)
{
    for (int i = 0; i < 2; i++) pair->end[i] = harness_connect(pair->world[i], pair->world[!i], id);
    UNTIL(pair, pair->end[0]->state == PCM_CHANNEL_UP && pair->end[1]->state == PCM_CHANNEL_UP);
}

static bool begin(struct pair *pair)
{
    if (!begin_worlds(pair)) return false;
    join(pair, 1);
    return pair->end[0]->state == PCM_CHANNEL_UP && pair->end[1]->state == PCM_CHANNEL_UP;
}

static void leave(struct pair *pair)
{
    for (int i = 0; i < 2; i++)
        if (pair->end[i]) pair->end[i]->ops->close(pair->end[i]);
    pair->end[0] = pair->end[1] = NULL;
}

static void *end_world(void *world)
{
    harness_end(world);
    return NULL;
}

static void end(struct pair *pair)
{
    leave(pair);
    pthread_t other; /* a goodbye may wait for the peer's: so both at once */
    if (!pthread_create(&other, NULL, end_world, pair->world[1])) {
        harness_end(pair->world[0]);
        pthread_join(other, NULL);
    }
}

/* Sends a fragment from one end and receives it at the other. */
static void pass(struct pair *pair, int from, unsigned lane, uint32_t mark, size_t bytes)
{
    UNTIL(pair, harness_send(pair->end[from], lane, mark, bytes));
    UNTIL(pair, harness_receive(pair->end[!from], lane, mark, bytes));
}

/* Fills a lane until it has no more room; returns how many fragments went in. */
static uint32_t stuff(struct pair *pair, int from, unsigned lane, size_t bytes)
{
    uint32_t count = 0;
    double until = harness_now() + patience;
    for (int idle = 0; idle < 200 && harness_now() < until; poll_both(pair)) {
        if (harness_send(pair->end[from], lane, count, bytes))
            count++, idle = 0;
        else
            idle++;
    }
    CHECK(count >= PCM_SLOTS && count < 100000, "%s: a lane takes %u fragments and no more", transport, count);
    return count;
}

static void drain(struct pair *pair, int to, unsigned lane, uint32_t count, size_t bytes)
{
    for (uint32_t mark = 0; mark < count; mark++) UNTIL(pair, harness_receive(pair->end[to], lane, mark, bytes));
    const void *payload;
    size_t got;
    CHECK(!pair->end[to]->ops->peek(pair->end[to], lane, &payload, &got), "%s: an empty lane is empty", transport);
}

/* ---- the checks ------------------------------------------------------------------------------------------------- */

static void test_addresses(void)
{
    struct pair pair;
    if (!begin_worlds(&pair)) return;
    struct pcm_endpoint *endpoint = pair.world[0]->endpoint;
    CHECK(endpoint->ops->reaches(endpoint, pair.world[1]->address, pair.world[1]->address_bytes),
          "%s reaches a neighbour", transport);
    CHECK(!endpoint->ops->reaches(endpoint, "nonsense", 8), "%s does not reach nonsense", transport);
    size_t room = 1;
    char byte;
    CHECK(endpoint->ops->address(endpoint, &byte, &room) == PCM_ERR_ARGUMENT, "%s minds the room for its address",
          transport);
    end(&pair);
}

static void test_sizes(void)
{
    static const size_t sizes[] = {0, 1, 7, 8, 24, 25, 63, 64, 65, 1000, 4096, 40000, PCM_FRAGMENT - 1, PCM_FRAGMENT};
    struct pair pair;
    if (!begin(&pair)) return;
    uint32_t mark = 0;
    for (unsigned lane = 0; lane < PCM_LANES; lane++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            pass(&pair, 0, lane, mark++, sizes[i]);
            pass(&pair, 1, lane, mark++, sizes[i]);
        }
    end(&pair);
}

static void test_reserve_again(void)
{
    struct pair pair;
    if (!begin(&pair)) return;
    size_t room;
    UNTIL(&pair, pair.end[0]->ops->reserve(pair.end[0], 3, 100, &room));
    UNTIL(&pair, pair.end[0]->ops->reserve(pair.end[0], 3, PCM_FRAGMENT, &room));
    CHECK(room >= PCM_FRAGMENT, "%s: a second reservation may want more", transport);
    pass(&pair, 0, 3, 1, 50);
    end(&pair);
}

static void test_lanes_are_independent(void)
{
    struct pair pair;
    if (!begin(&pair)) return;
    uint32_t big = stuff(&pair, 0, 2, PCM_FRAGMENT), small = stuff(&pair, 0, PCM_LANE_P2P, 8),
             back = stuff(&pair, 1, 2, 5000);
    for (uint32_t mark = 0; mark < 100; mark++) {
        pass(&pair, 0, 5, mark, mark * 600);
        pass(&pair, 1, 5, mark, mark * 600);
    }
    drain(&pair, 1, 2, big, PCM_FRAGMENT);
    drain(&pair, 1, PCM_LANE_P2P, small, 8);
    drain(&pair, 0, 2, back, 5000);
    pass(&pair, 0, 2, 1, 100); /* room again */
    end(&pair);
}

static void test_notice_passes_full_lanes(void)
{
    struct pair pair;
    if (!begin(&pair)) return;
    unsigned char text[PCM_NOTICE];
    memset(text, 'n', sizeof text);
    uint32_t counts[PCM_LANES];
    for (unsigned lane = 0; lane < PCM_LANES; lane++) counts[lane] = stuff(&pair, 0, lane, 30000);
    pair.end[0]->ops->notice(pair.end[0], text, sizeof text);
    UNTIL(&pair, pair.world[1]->notices == 1);
    CHECK(pair.world[1]->notice_bytes == sizeof text && !memcmp(pair.world[1]->notice, text, sizeof text),
          "%s: the notice is whole", transport);
    pair.end[1]->ops->notice(pair.end[1], "abc", 3);
    UNTIL(&pair, pair.world[0]->notices == 1 && pair.world[0]->notice_bytes == 3);
    for (unsigned lane = 0; lane < PCM_LANES; lane++) drain(&pair, 1, lane, counts[lane], 30000);
    end(&pair);
}

/* A transport that lends: long stretches are read where they lie, in their order among the others, and not after they were
 * withdrawn. */
static void test_loans(void)
{
    struct pair pair;
    if (!begin(&pair)) return;
    struct pcm_channel *lender = pair.end[0], *reader = pair.end[1];
    enum { BYTES = 3 * PCM_LEND + 5 };
    unsigned char *lent = malloc(BYTES), *got = calloc(1, BYTES);
    for (size_t i = 0; i < BYTES; i++) lent[i] = (unsigned char)(i * 7 >> 3);
    struct pcm_head head = {.seq = 1, .bytes = BYTES};
    uint32_t ticket, tickets[PCM_SLOTS];
    const void *payload;
    size_t bytes;
    if (lender->ops->lend && lender->ops->lend(lender, 2, &head, lent, BYTES, &ticket)) {
        CHECK(!lender->ops->returned(lender, 2, ticket), "%s: what is lent is not returned yet", transport);
        UNTIL(&pair, harness_send(lender, 2, 9, 100));
        UNTIL(&pair, reader->ops->peek(reader, 2, &payload, &bytes));
        CHECK(!payload && bytes == BYTES, "%s: a loan has a length and no payload", transport);
        size_t half = BYTES / 2;
        CHECK(reader->ops->fetch(reader, 2, got, 0, half) &&
                  reader->ops->fetch(reader, 2, got + half, half, BYTES - half),
              "%s: a loan can be fetched in pieces", transport);
        CHECK(!memcmp(got, lent, BYTES), "%s: what is fetched is what was lent", transport);
        reader->ops->release(reader, 2);
        UNTIL(&pair, lender->ops->returned(lender, 2, ticket));
        UNTIL(&pair, harness_receive(reader, 2, 9, 100));
        for (int i = 0; i < PCM_SLOTS; i++)
            CHECK(lender->ops->lend(lender, 3, &head, lent, BYTES, &tickets[i]), "%s: a lane holds loans", transport);
        CHECK(!lender->ops->lend(lender, 3, &head, lent, BYTES, &ticket), "%s: a full lane takes no loan", transport);
        UNTIL(&pair, reader->ops->peek(reader, 3, &payload, &bytes));
        reader->ops->release(reader, 3); /* unread */
        UNTIL(&pair, lender->ops->returned(lender, 3, tickets[0]));
        CHECK(!lender->ops->returned(lender, 3, tickets[1]), "%s: loans are returned one by one", transport);
        lender->ops->withdraw(lender);
        CHECK(!reader->ops->fetch(reader, 3, got, 0, BYTES), "%s: what was withdrawn cannot be fetched", transport);
    }
    end(&pair);
    free(lent), free(got);
}

/* Sends one message in the path that the reader asks for, and reads it. */
static void pass_on(struct pair *pair, unsigned lane, const unsigned char *from, unsigned char *to, size_t total)
{
    struct pcm_channel *writer = pair->end[0], *reader = pair->end[1];
    struct pcm_head head = {.seq = 1, .bytes = total};
    const int path = pcm_path_of(writer, &head);
    uint32_t ticket = 0;
    size_t sent = 0, got = 0;
    memset(to, 0, total);
    while (got < total) {
        size_t n, room;
        char *cell;
        const void *payload;
        if (path == PCM_LENT && !sent && writer->ops->lend(writer, lane, &head, from, total, &ticket)) sent = total;
        if (sent < total && (cell = writer->ops->reserve(writer, lane, total - sent, &room))) {
            n = total - sent < room ? total - sent : room;
            memcpy(cell, from + sent, n);
            writer->ops->commit(writer, lane, &head, n);
            sent += n;
        }
        if (reader->ops->peek(reader, lane, &payload, &n)) {
            if (payload)
                memcpy(to + got, payload, n);
            else
                CHECK(reader->ops->fetch(reader, lane, to, 0, n), "%s: a loan cannot be fetched", transport);
            got += n;
            reader->ops->release(reader, lane);
        }
    }
    CHECK(!memcmp(from, to, total), "%s: %zu bytes by path %d are others", transport, total, path);
}

/* Where there are several paths, the reader has all of them tried, and the least often the one that takes longest. */
static void test_paths(void)
{
    struct pair pair;
    enum { MESSAGES = 1500 };
    if (!begin(&pair)) return;
    const size_t sizes[] = {PCM_LONG, 3 * PCM_FRAGMENT + 8, PCM_LEND + 24};
    unsigned char *from = malloc(PCM_LEND + 24), *to = malloc(PCM_LEND + 24);
    for (size_t i = 0; i < PCM_LEND + 24; i++) from[i] = (unsigned char)(i * 11 >> 4);
    for (unsigned s = 0; pair.end[0]->ops->path && s < 3; s++) {
        const struct pcm_head head = {.bytes = sizes[s]};
        int asked[PCM_LENT + 1] = {0};
        for (unsigned i = 0; i < MESSAGES; i++) {
            int path = pcm_path_of(pair.end[0], &head);
            if (path >= 0 && path <= PCM_LENT) asked[path]++;
            pass_on(&pair, i % PCM_OP_LANES, from, to, sizes[s]);
        }
        int lent = asked[PCM_LENT], all = asked[PCM_COPIED] + asked[PCM_STREAMED] + lent, most = asked[0];
        for (int path = 0; path <= PCM_LENT; path++) most = asked[path] > most ? asked[path] : most;
        CHECK(all == MESSAGES && asked[PCM_COPIED] && asked[PCM_STREAMED], "%s: not all paths were tried", transport);
        CHECK(!lent || sizes[s] >= PCM_LEND, "%s: %zu bytes were to be lent", transport, sizes[s]);
        CHECK(most > MESSAGES / 2, "%s: of %d messages %d took one path", transport, MESSAGES, most);
    }
    end(&pair);
    free(from), free(to);
}

static void test_close_delivers(void)
{
    struct pair pair;
    if (!begin(&pair)) return;
    uint32_t big = stuff(&pair, 0, 0, PCM_FRAGMENT), small = stuff(&pair, 0, 7, 10);
    stuff(&pair, 1, 4, 100); /* what nobody will read must not keep the rest from arriving */
    pair.end[0]->ops->close(pair.end[0]);
    pair.end[0] = NULL;
    drain(&pair, 1, 0, big, PCM_FRAGMENT); /* may be CLOSED before, or only when all has been read */
    drain(&pair, 1, 7, small, 10);
    UNTIL(&pair, pair.end[1]->state != PCM_CHANNEL_UP);
    CHECK(pair.end[1]->state == PCM_CHANNEL_CLOSED, "%s: a close is no loss, but: %s", transport, pair.end[1]->why);
    size_t room;
    CHECK(!pair.end[1]->ops->reserve(pair.end[1], 0, 8, &room), "%s: a closed channel takes nothing", transport);
    end(&pair);
}

static void test_shut_says_goodbye(void)
{
    struct pair pair;
    if (!begin(&pair)) return;
    UNTIL(&pair, harness_send(pair.end[0], 1, 9, 3000));
    pthread_t other;
    pcm_world *gone = pair.world[0];
    pair.world[0] = NULL, pair.end[0] = NULL;
    pthread_create(&other, NULL, end_world, gone);
    UNTIL(&pair, harness_receive(pair.end[1], 1, 9, 3000));
    UNTIL(&pair, pair.end[1]->state != PCM_CHANNEL_UP);
    pthread_join(other, NULL);
    CHECK(pair.end[1]->state == PCM_CHANNEL_CLOSED, "%s: a world that ends says goodbye, but: %s", transport,
          pair.end[1]->why);
    pair.end[1]->ops->close(pair.end[1]);
    harness_end(pair.world[1]);
}

static void test_reopen(void)
{
    struct pair pair;
    if (!begin_worlds(&pair)) return;
    for (uint32_t round = 0; round < 20; round++) {
        int first = round & 1;
        if (round % 3) pair.end[first] = harness_connect(pair.world[first], pair.world[!first], 5);
        for (uint32_t i = 0; i < round; i++) poll_both(&pair);
        for (int i = 0; i < 2; i++)
            if (!pair.end[i]) pair.end[i] = harness_connect(pair.world[i], pair.world[!i], 5);
        UNTIL(&pair, pair.end[0]->state == PCM_CHANNEL_UP && pair.end[1]->state == PCM_CHANNEL_UP);
        pass(&pair, 0, 0, round, 100);
        pass(&pair, 1, 9, round, 20000);
        int leaver = round >> 1 & 1;
        pair.end[leaver]->ops->close(pair.end[leaver]);
        pair.end[leaver] = NULL;
        if (round % 5) UNTIL(&pair, pair.end[!leaver]->state == PCM_CHANNEL_CLOSED);
        leave(&pair);
    }
    end(&pair);
}

static void test_connect_before_claim(void)
{
    struct pair pair;
    if (!begin_worlds(&pair)) return;
    for (uint64_t id = 1; id <= 4; id++) {
        int first = id & 1;
        pair.end[first] = harness_connect(pair.world[first], pair.world[!first], id);
        UNTIL(&pair, pair.end[first]->state == PCM_CHANNEL_UP);
        for (uint32_t mark = 0; mark < 3; mark++) UNTIL(&pair, harness_send(pair.end[first], 6, mark, 9000));
        for (int i = 0; i < 1000; i++) poll_both(&pair);
        if (id > 2) {
            pair.end[first]->ops->close(pair.end[first]);
            pair.end[first] = NULL;
            for (int i = 0; i < 1000; i++) poll_both(&pair);
        }
        pair.end[!first] = harness_connect(pair.world[!first], pair.world[first], id);
        for (uint32_t mark = 0; mark < 3; mark++) UNTIL(&pair, harness_receive(pair.end[!first], 6, mark, 9000));
        if (id > 2) UNTIL(&pair, pair.end[!first]->state == PCM_CHANNEL_CLOSED);
        leave(&pair);
    }
    end(&pair);
}

/* A rank that goes away in the middle of connecting is turned out by those that it called: it calls again. */
static void test_away_while_connecting(void)
{
    enum { CHANNELS = 80 }; /* more than a door lets in at once */
    struct pair pair, ends[CHANNELS];
    if (!begin_worlds(&pair)) return;
    for (int i = 0; i < CHANNELS; i++) {
        ends[i] = pair;
        ends[i].end[0] = harness_connect(pair.world[0], pair.world[1], (uint64_t)i);
        const struct pcm_head head = {.bytes = PCM_LEND};
        CHECK(pcm_path_of(ends[i].end[0], &head) == PCM_COPIED, "%s: a path before there is a way", transport);
    }
    for (int i = 0; i < 3; i++) harness_poll(pair.world[0]);
    for (double until = harness_now() + 0.7; harness_now() < until;) harness_poll(pair.world[1]);
    for (int i = 0; i < CHANNELS; i++) ends[i].end[1] = harness_connect(pair.world[1], pair.world[0], (uint64_t)i);
    for (int i = 0; i < CHANNELS; i++)
        UNTIL(&pair, ends[i].end[0]->state == PCM_CHANNEL_UP && ends[i].end[1]->state == PCM_CHANNEL_UP);
    for (int i = 0; i < CHANNELS; i++) pass(&ends[i], i & 1, 1, (uint32_t)i, 100), leave(&ends[i]);
    end(&pair);
}

static void test_many_channels(void)
{
    enum { CHANNELS = 60 };
    struct pair pair, ends[CHANNELS];
    if (!begin_worlds(&pair)) return;
    for (int i = 0; i < CHANNELS; i++) {
        ends[i] = pair;
        int first = i & 1;
        ends[i].end[first] = harness_connect(pair.world[first], pair.world[!first], (uint64_t)i);
        if (i % 3) poll_both(&pair);
        ends[i].end[!first] = harness_connect(pair.world[!first], pair.world[first], (uint64_t)i);
    }
    for (int i = 0; i < CHANNELS; i++)
        UNTIL(&pair, ends[i].end[0]->state == PCM_CHANNEL_UP && ends[i].end[1]->state == PCM_CHANNEL_UP);
    for (int i = 0; i < CHANNELS; i++) {
        pass(&ends[i], 0, (unsigned)i % PCM_LANES, (uint32_t)i, 1000);
        pass(&ends[i], 1, (unsigned)i % PCM_LANES, (uint32_t)i, 70);
    }
    for (int i = 0; i < CHANNELS; i++) leave(&ends[i]);
    CHECK(pair.world[0]->refused + pair.world[1]->refused == 0, "%s: nobody was refused", transport);
    end(&pair);
}

/* ---- two threads: sleeping, waking, random traffic ------------------------------------------------------------- */

struct side {
    pcm_world *world;
    const pcm_world *peer;
    uint32_t messages, sizes;
    uint64_t id;
    struct pcm_channel *end;
    uint32_t sent[PCM_LANES], received[PCM_LANES], total_sent, total_received;
    uint64_t random;
    bool ok;
};

static uint32_t draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* What the k-th fragment of a lane is, so that both sides know without telling. */
static size_t size_of(unsigned lane, uint32_t number, uint32_t most)
{
    uint64_t state = lane * 1000003u + number;
    draw(&state);
    uint32_t kind = draw(&state) % 8, any = draw(&state);
    return kind < 6 ? any % 100 : any % (most + 1);
}

static bool moves(struct side *side)
{
    bool moved = false;
    if (side->end->state != PCM_CHANNEL_UP)
        return side->total_received < side->messages && side->end->state > PCM_CHANNEL_UP;
    for (unsigned i = 0; i < PCM_LANES; i++) {
        unsigned lane = draw(&side->random) % PCM_LANES;
        if (side->total_sent < side->messages &&
            harness_send(side->end, lane, side->sent[lane], size_of(lane, side->sent[lane], side->sizes)))
            side->sent[lane]++, side->total_sent++, moved = true;
        for (lane = 0; lane < PCM_LANES; lane++)
            while (harness_receive(side->end, lane, side->received[lane],
                                   size_of(lane, side->received[lane], side->sizes)))
                side->received[lane]++, side->total_received++, moved = true;
    }
    return moved;
}

static bool idle(void *user) { return !moves(user); }

static void *run_side(void *argument)
{
    struct side *side = argument;
    side->end = harness_connect(side->world, side->peer, side->id);
    double until = harness_now() + patience * 3;
    for (int still = 0; harness_now() < until; still++) {
        if (moves(side)) still = 0;
        if (side->total_sent == side->messages && side->total_received == side->messages && !side->world->unsent) break;
        harness_poll(side->world);
        /* Longer than the test may take: only a wake-up ends it in time. */
        if (still > 20) harness_sleep(side->world, idle, side, (int)(patience * 3000));
    }
    side->ok = side->total_sent == side->messages && side->total_received == side->messages;
    return NULL;
}

static void traffic(uint32_t messages, uint32_t sizes, uint64_t ids)
{
    struct pair pair;
    if (!begin_worlds(&pair)) return;
    for (uint64_t id = 0; id < ids; id++) {
        struct side sides[2];
        pthread_t thread;
        for (int i = 0; i < 2; i++)
            sides[i] = (struct side){.world = pair.world[i],
                                     .peer = pair.world[!i],
                                     .messages = messages,
                                     .sizes = sizes,
                                     .id = id,
                                     .random = id * 2 + (uint64_t)i};
        pthread_create(&thread, NULL, run_side, &sides[1]);
        run_side(&sides[0]);
        pthread_join(thread, NULL);
        for (int i = 0; i < 2; i++) {
            CHECK(sides[i].ok, "%s: rank %d has sent %u and received %u of %u (%s)", transport, i, sides[i].total_sent,
                  sides[i].total_received, messages, sides[i].end->why);
            pair.end[i] = sides[i].end;
        }
        leave(&pair);
    }
    end(&pair);
}

static void test_random_traffic(void) { traffic(50000, 3000, 1); }
static void test_random_bulk(void) { traffic(3000, PCM_FRAGMENT, 1); }
static void test_simultaneous_connects(void) { traffic(4, 100, 200); }

/* ---- processes ------------------------------------------------------------------------------------------------- */

static void test_killed_peer(void)
{
    if (strstr(transport, "inproc") || strstr(transport, "mpi")) return; /* its ranks die together */
    int there[2], back[2];
    unsigned char address[512];
    size_t bytes = 0;
    if (pipe(there) || pipe(back)) abort();
    pid_t child = fork();
    pcm_world *world = harness_world(transport, !child, 2, "secret");
    pcm_world peer = {.config.rank = !!child};
    if (!world) _exit(1);
    if (write(child ? there[1] : back[1], world->address, sizeof world->address) < 0 ||
        write(child ? there[1] : back[1], &world->address_bytes, sizeof bytes) < 0 ||
        read(child ? back[0] : there[0], address, sizeof address) < 0 ||
        read(child ? back[0] : there[0], &bytes, sizeof bytes) < 0)
        abort();
    memcpy(peer.address, address, sizeof address);
    peer.address_bytes = bytes;
    struct pair pair = {.world = {world}, .end = {harness_connect(world, &peer, 3)}};
    if (!child) { /* talks until it is killed */
        for (uint32_t mark = 0;; harness_poll(world)) mark += harness_send(pair.end[0], 0, mark, 50000);
    }
    for (uint32_t mark = 0; mark < 100; mark++) UNTIL(&pair, harness_receive(pair.end[0], 0, mark, 50000));
    CHECK(pair.end[0]->state == PCM_CHANNEL_UP, "%s: the peer lives", transport);
    double killed = harness_now();
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    UNTIL(&pair, pair.end[0]->state > PCM_CHANNEL_UP);
    CHECK(pair.end[0]->state == PCM_CHANNEL_LOST, "%s: a killed peer is lost", transport);
    CHECK(harness_now() - killed < 2, "%s: noticed after %g s", transport, harness_now() - killed);
    CHECK(pair.end[0]->why[0], "%s says why", transport);
    uint32_t more = 100; /* what had arrived can still be read, in order */
    while (harness_receive(pair.end[0], 0, more, 50000)) more++;
    pair.end[0]->ops->close(pair.end[0]);
    harness_end(world);
    for (int i = 0; i < 2; i++) close(there[i]), close(back[i]);
}

/* Starts the MPI of a library, for this process alone, which both ranks then are; transport `mpi:1` is over its world. */
static int (*finalize)(void);

static void start_mpi(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    int (*init)(int *, char ***, int, int *) =
        library ? (int (*)(int *, char ***, int, int *))dlsym(library, "MPI_Init_thread") : NULL;
    bool standard = strstr(path, "libmpi_abi");
    finalize = library ? (int (*)(void))dlsym(library, "MPI_Finalize") : NULL;
    void *world = library ? dlsym(library, "ompi_mpi_comm_world") : NULL;
    int level, number;
    CHECK(init && !init(NULL, NULL, standard ? 4096 : 3, &level), "%s can be initialized", path);
    CHECK(init &&
              !pcm_mpi_attach(world      ? (intptr_t)world
                              : standard ? 0x101
                                         : 0x44000000,
                              &number) &&
              number == 1,
          "its world can be used");
}

int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], "--mpi")) { /* LIBRARY, then names as ever */
        start_mpi(argv[2]);
        argv[2] = argv[0];
        argv += 2, argc -= 2;
    }
    static const char *const all[] = {"inproc",
                                      "shm",
                                      "tcp",
                                      "+tcp",
                                      "chaos:seed=1;delay_us=100;deny=0.2;inner=inproc",
                                      "chaos:seed=2;delay_us=100;deny=0.2;inner=shm",
                                      "chaos:seed=3;delay_us=100;deny=0.2;inner=tcp",
                                      "+chaos:seed=4;delay_us=100;deny=0.2;inner=tcp"};
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
        {"killed peer", test_killed_peer}, /* first: it forks, and no thread must have run */
        {"addresses", test_addresses},
        {"sizes", test_sizes},
        {"reserve again", test_reserve_again},
        {"lanes are independent", test_lanes_are_independent},
        {"a notice passes full lanes", test_notice_passes_full_lanes},
        {"loans", test_loans},
        {"paths", test_paths},
        {"close delivers", test_close_delivers},
        {"shut says goodbye", test_shut_says_goodbye},
        {"reopen", test_reopen},
        {"connect before claim", test_connect_before_claim},
        {"many channels", test_many_channels},
        {"away while connecting", test_away_while_connecting},
        {"simultaneous connects", test_simultaneous_connects},
        {"random traffic", test_random_traffic},
        {"random bulk", test_random_bulk},
    };
    int names = argc > 1 ? argc - 1 : (int)(sizeof all / sizeof *all);
    for (size_t t = 0; t < sizeof tests / sizeof *tests; t++)
        for (int i = 0; i < names; i++) {
            transport = argc > 1 ? argv[i + 1] : all[i];
            if (!harness_linked(transport)) continue;
            double begun = harness_now();
            tests[t].run();
            printf("%-28s %-46s %6.2f s\n", tests[t].name, transport, harness_now() - begun);
        }
    if (finalize) CHECK(!finalize(), "MPI can be finalized");
    check_passed += harness_passed;
    check_failed += harness_failed;
    return check_report();
}
