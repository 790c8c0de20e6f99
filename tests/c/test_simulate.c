/* test_simulate.c: pcm_simulate on machines so small that pencil and paper say what comes out, and on random ones, of
 * which only bounds and symmetries are known. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "simulate.h"

enum { MOST = 1 << 14 }; /* operations, rounds and ranks of a plan */

/* What is to be simulated. Ranks, their rounds and the operations in these are written one after the other. */
static struct plan {
    struct pcm_sim_input in; /* all but its arrays */
    int64_t rounds[MOST + 1], ops[MOST + 1];
    uint8_t kind[MOST], port[MOST];
    int32_t peer[MOST], route[MOST];
    uint32_t term[MOST];
    struct pcm_sim_term terms[MOST];
    int32_t core[MOST], host[MOST];
    double memory[MOST], bandwidth[8];
    int64_t route_start[8];
    int32_t route_links[16];
    uint32_t nrank;
    int64_t nround, nop;
} plan;

static struct pcm_sim_output out; /* of the last simulation; what it points to is reused */
static double finish[MOST];
static struct pcm_sim_record records[1 << 17];

/* ---- writing a plan --------------------------------------------------------------------------------------------- */

/* Each rank has a processor and a host of its own, and links are not shared, until the test says otherwise. */
static void begin(uint32_t size, uint32_t period)
{
    memset(&plan.in, 0, sizeof plan.in);
    plan.in.size = size, plan.in.period = period;
    plan.in.slices = plan.in.window = plan.in.ports = 1;
    plan.in.cores = plan.in.hosts = period;
    for (uint32_t k = 0; k < period; k++) plan.core[k] = plan.host[k] = (int32_t)k, plan.memory[k] = INFINITY;
    memset(plan.port, 0, sizeof plan.port);
    plan.nrank = 0, plan.nround = plan.nop = 0;
}

static void begin_rank(void) { plan.rounds[plan.nrank++] = plan.nround; }
static void begin_round(void) { plan.ops[plan.nround++] = plan.nop; }

static uint32_t term(struct pcm_sim_term t)
{
    plan.terms[plan.in.nterms] = t;
    return (uint32_t)plan.in.nterms++;
}

static void op(int kind, int peer, uint32_t which, int route)
{
    int64_t k = plan.nop++;
    plan.kind[k] = (uint8_t)kind, plan.peer[k] = peer, plan.term[k] = which, plan.route[k] = route;
}

static void send_over(int route, int to, uint32_t which) { op(PCM_STEP_SEND, to, which, route); }
static void send(int to, uint32_t which) { send_over(-1, to, which); }
static void receive(int from, uint32_t which) { op(PCM_STEP_RECV, from, which, -1); }
static void work(uint32_t which) { op(PCM_STEP_COPY, -1, which, -1); }

/* Two processors or more of one host. */
static void one_host(uint32_t cores, double memory)
{
    plan.in.cores = cores, plan.in.hosts = 1;
    memset(plan.host, 0, sizeof plan.host);
    plan.memory[0] = memory;
}

static void link_of(double bandwidth) { plan.bandwidth[plan.in.links++] = bandwidth; }

/* The routes of a plan: a mask of links for each. */
static void routes(int n, const unsigned *masks)
{
    int64_t at = 0;
    for (int k = 0; k < n; k++) {
        plan.route_start[k] = at;
        for (int link = 0; link < 8; link++)
            if (masks[k] >> link & 1) plan.route_links[at++] = link;
    }
    plan.route_start[n] = at;
}

/* A copy without room behind it, so that AddressSanitizer sees who reads on. */
static void *exact(const void *from, int64_t n, size_t element)
{
    void *copy = malloc((size_t)n * element + !n);
    if (!copy) abort();
    return memcpy(copy, from, (size_t)n * element);
}

static int simulate(int64_t capacity)
{
    struct pcm_sim_input in = plan.in;
    plan.rounds[plan.nrank] = plan.nround, plan.ops[plan.nround] = plan.nop;
    int64_t nroutes = in.links ? 8 : 1;
    void *copies[] = {
        exact(plan.rounds, in.period + 1, sizeof *plan.rounds),
        exact(plan.ops, plan.nround + 1, sizeof *plan.ops),
        exact(plan.kind, plan.nop, sizeof *plan.kind),
        exact(plan.peer, plan.nop, sizeof *plan.peer),
        exact(plan.term, plan.nop, sizeof *plan.term),
        exact(plan.port, plan.nop, sizeof *plan.port),
        exact(plan.core, in.period, sizeof *plan.core),
        exact(plan.host, in.cores, sizeof *plan.host),
        exact(plan.memory, in.hosts, sizeof *plan.memory),
        exact(plan.bandwidth, in.links, sizeof *plan.bandwidth),
        exact(plan.route, plan.nop, sizeof *plan.route),
        exact(plan.terms, (int64_t)in.nterms, sizeof *plan.terms),
        exact(plan.route_start, nroutes, sizeof *plan.route_start),
    };
    in.rounds = copies[0], in.ops = copies[1], in.kind = copies[2], in.peer = copies[3], in.term = copies[4];
    in.port = in.ports > 1 ? copies[5] : NULL;
    in.core = copies[6], in.host = copies[7], in.memory = copies[8];
    in.bandwidth = in.links ? copies[9] : NULL;
    in.route = copies[10], in.terms = copies[11], in.route_start = copies[12], in.route_links = plan.route_links;
    int32_t stop = out.stop;
    out = (struct pcm_sim_output){
        .finish = finish, .records = capacity ? records : NULL, .capacity = capacity, .stop = stop};
    int rc = pcm_simulate(&in, &out);
    for (size_t k = 0; k < sizeof copies / sizeof *copies; k++) free(copies[k]);
    return rc;
}

/* ---- what is expected --------------------------------------------------------------------------------------------- */

static bool near(double a, double b) { return fabs(a - b) <= 1e-9 * (fabs(a) + fabs(b)); }

#define EXPECT_SECONDS(EXPECTED)                                                                                       \
    do {                                                                                                               \
        int rc = simulate(0);                                                                                          \
        double expected = (EXPECTED);                                                                                  \
        CHECK(rc == PCM_OK, "%s: status %d: %s", __func__, rc, pcm_last_error()->text);                                \
        CHECK(near(out.seconds, expected), "%s: %.12g s, and not %.12g", __func__, out.seconds, expected);             \
    } while (0)

#define EXPECT_FINISH(RANK, EXPECTED)                                                                                  \
    CHECK(near(finish[RANK], EXPECTED), "%s: rank %d at %.12g s, and not %.12g", __func__, RANK, finish[RANK],         \
          (double)(EXPECTED))

#define EXPECT_ERROR(CODE, RANK, TEXT)                                                                                 \
    do {                                                                                                               \
        int rc = simulate(0);                                                                                          \
        const struct pcm_error *error = pcm_last_error();                                                              \
        CHECK(rc == (CODE), "%s: status %d", __func__, rc);                                                            \
        CHECK(error->rank == (RANK) && !strcmp(error->text, TEXT), "%s: rank %d: %s", __func__, error->rank,           \
              error->text);                                                                                            \
    } while (0)

static void ring(uint32_t size, uint32_t period, struct pcm_sim_term t)
{
    begin(size, period);
    uint32_t all = term(t);
    for (uint32_t rank = 0; rank < period; rank++) {
        begin_rank();
        for (uint32_t k = 1; k < size; k++) {
            begin_round();
            send((int)((rank + 1) % size), all);
            receive((int)((rank + size - 1) % size), all);
        }
    }
}

/* Each even rank sends one message to the next rank. */
static void pairs(uint32_t size, uint32_t which)
{
    for (uint32_t rank = 0; rank < size; rank++) {
        begin_rank();
        begin_round();
        rank % 2 ? receive((int)rank - 1, which) : send((int)rank + 1, which);
    }
}

/* ---- exact times ---------------------------------------------------------------------------------------------------- */

static void test_ring(void)
{
    const struct pcm_sim_term wire = {.out = 3, .in = 3, .transfer = 3, .latency = 0.5};
    ring(4, 4, wire);
    EXPECT_SECONDS(3 * 3.5);
    CHECK(out.done == 24, "%llu operations are done", (unsigned long long)out.done);

    struct pcm_sim_term adding = wire; /* receivers only work: in the order of arrival */
    adding.receive = 0.25;
    ring(4, 4, adding);
    EXPECT_SECONDS(3 * 3.75);

    struct pcm_sim_term all = adding; /* senders work, too: tasks */
    all.send = all.first = 0.125;
    ring(4, 4, all);
    EXPECT_SECONDS(3 * 3.875);

    ring(12, 12, all);
    simulate(0);
    double whole = out.seconds;
    CHECK(near(whole, 11 * 3.875), "a ring of 12 takes %.12g s", whole);
    for (uint32_t period = 1; period < 12; period *= 3) {
        ring(12, period, all);
        EXPECT_SECONDS(whole);
    }
}

static void test_gap_and_ports(void)
{
    begin(3, 3); /* rank 0 sends two messages at once: over one port they queue, over two they do not */
    plan.in.ports = 2;
    uint32_t t = term((struct pcm_sim_term){.gap = 0.25, .out = 2, .in = 2, .transfer = 4, .latency = 1});
    begin_rank();
    begin_round();
    send(1, t), send(2, t);
    for (int rank = 1; rank < 3; rank++) begin_rank(), begin_round(), receive(0, t);
    EXPECT_SECONDS(0.25 + 2 + 0.25 + 4 + 1);
    EXPECT_FINISH(0, 2.5 + 4);
    EXPECT_FINISH(1, 0.25 + 4 + 1);
    plan.port[1] = 1;
    EXPECT_SECONDS(0.25 + 4 + 1);

    begin(3, 3); /* two messages into one port */
    t = term((struct pcm_sim_term){.out = 2, .in = 3, .transfer = 2, .latency = 1});
    begin_rank();
    begin_round();
    receive(1, t), receive(2, t);
    for (int rank = 1; rank < 3; rank++) begin_rank(), begin_round(), send(0, t);
    EXPECT_SECONDS(1 + 3 + 3);
    EXPECT_FINISH(1, 2);

    begin(3, 3); /* of two that come at the same time, the one is first that its receiver has asked for first */
    uint32_t quick = term((struct pcm_sim_term){.in = 3, .transfer = 3, .latency = 1, .receive = 1});
    uint32_t slow = term((struct pcm_sim_term){.in = 3, .transfer = 3, .latency = 1, .receive = 5});
    begin_rank(), begin_round(), receive(2, quick), receive(1, slow);
    begin_rank(), begin_round(), send(0, slow);
    begin_rank(), begin_round(), send(0, quick);
    EXPECT_SECONDS(1 + 3 + 3 + 5);
}

static void test_slices_and_window(void)
{
    const double latency = 5, b = 1;
    for (uint32_t window = 1; window <= 4; window *= 2) {
        begin(2, 2); /* there and back again */
        plan.in.slices = 4, plan.in.window = window;
        uint32_t t = term((struct pcm_sim_term){.out = b, .in = b, .transfer = b, .latency = latency});
        begin_rank();
        begin_round(), send(1, t);
        begin_round(), receive(1, t);
        begin_rank();
        begin_round(), receive(0, t);
        begin_round(), send(0, t);
        EXPECT_SECONDS(4 / window * 2 * (latency + b) + (window - 1) * b);
        CHECK(out.done == 16, "4 slices of 4 operations: %llu", (unsigned long long)out.done);
    }
}

static void test_early_message_waits_for_its_round(void)
{
    begin(2, 2);
    uint32_t wire = term((struct pcm_sim_term){.transfer = 1, .latency = 1, .receive = 0.5});
    uint32_t ten = term((struct pcm_sim_term){.send = 10, .first = 10});
    begin_rank();
    begin_round(), send(1, wire);
    begin_rank();
    begin_round(), work(ten);
    begin_round(), receive(0, wire);
    EXPECT_SECONDS(10.5);
    EXPECT_FINISH(0, 1);
}

static void test_shared_processor(void)
{
    begin(3, 3); /* two ranks share one processor, the third one has its own */
    one_host(2, INFINITY);
    plan.core[0] = plan.core[1] = 0, plan.core[2] = 1;
    uint32_t one = term((struct pcm_sim_term){.send = 1}), two = term((struct pcm_sim_term){.send = 2});
    begin_rank(), begin_round(), work(one);
    begin_rank(), begin_round(), work(two);
    begin_rank(), begin_round(), work(two);
    EXPECT_SECONDS(3);
    EXPECT_FINISH(0, 2);
    EXPECT_FINISH(1, 3);
    EXPECT_FINISH(2, 2);
}

static void test_shared_memory(void)
{
    begin(3, 3); /* a and c move bytes, a and b share a processor, and the memory is enough for one processor */
    one_host(2, 1);
    plan.core[0] = plan.core[1] = 0, plan.core[2] = 1;
    uint32_t moving = term((struct pcm_sim_term){.send = 1, .moves = 1}),
             still = term((struct pcm_sim_term){.send = 1});
    begin_rank(), begin_round(), work(moving);
    begin_rank(), begin_round(), work(still);
    begin_rank(), begin_round(), work(moving);
    EXPECT_SECONDS(2.25); /* at first they want the memory 1/2 + 1 times: a goes at 1/2 x 2/3, b at 1/2, c at 2/3 */
    EXPECT_FINISH(0, 2.25);
    EXPECT_FINISH(1, 2);
    EXPECT_FINISH(2, 1.5);
    plan.memory[0] = 1.5;
    EXPECT_SECONDS(2);
    EXPECT_FINISH(2, 1);
}

static void test_lent(void)
{
    struct pcm_sim_term t = {.out = 2, .in = 2, .transfer = 2, .latency = 1, .receive = 3};
    for (int lent = 0; lent < 2; lent++) {
        begin(2, 2);
        t.lent = lent;
        pairs(2, term(t));
        EXPECT_SECONDS(lent ? 7 : 6);
        EXPECT_FINISH(0, lent ? 7 : 2); /* a lender is told by a message without bytes */
        EXPECT_FINISH(1, 6);
    }
}

static void test_overlap(void)
{
    struct pcm_sim_term t = {.send = 4, .first = 1, .latency = 0.5, .receive = 2, .last = 1};
    begin(2, 2);
    pairs(2, term(t));
    EXPECT_SECONDS(4.5 + 1); /* the end of sending decides, */
    EXPECT_FINISH(0, 4);
    begin(2, 2);
    t.receive = 6;
    pairs(2, term(t));
    EXPECT_SECONDS(1.5 + 6); /* or receiving; */
    begin(2, 2);
    t.first = t.send, t.last = t.receive;
    pairs(2, term(t));
    EXPECT_SECONDS(4 + 0.5 + 6); /* or they do not overlap */
}

static void test_overlap_on_a_shared_processor(void)
{
    begin(3, 3); /* the sender's processor gives it half until 1, then all: the first second of work is done at 1.5 */
    one_host(2, INFINITY);
    plan.core[0] = plan.core[1] = 0, plan.core[2] = 1;
    uint32_t half = term((struct pcm_sim_term){.send = 0.5});
    uint32_t t = term((struct pcm_sim_term){.send = 4, .first = 1, .latency = 0.5, .receive = 20, .last = 1});
    begin_rank(), begin_round(), send(2, t);
    begin_rank(), begin_round(), work(half);
    begin_rank(), begin_round(), receive(0, t);
    EXPECT_SECONDS(1.5 + 0.5 + 20);
    EXPECT_FINISH(0, 4.5);
    EXPECT_FINISH(1, 1);
}

/* ---- shared links --------------------------------------------------------------------------------------------------- */

static void test_max_min(void)
{
    begin(6, 6); /* over the first link, over the second one, and over both */
    link_of(100), link_of(300);
    routes(3, (unsigned[]){1, 2, 3});
    const double bytes[] = {100, 750, 200};
    for (int k = 0; k < 3; k++) {
        uint32_t t = term((struct pcm_sim_term){.bytes = bytes[k], .latency = 10, .out = 99, .in = 99, .transfer = 99});
        begin_rank(), begin_round(), send_over(k, 2 * k + 1, t);
        begin_rank(), begin_round(), receive(2 * k, t);
    }
    EXPECT_SECONDS(3 + 1. / 6 + 10); /* rates are 50, 250, 50; from 2 on -, 200, 100; from 3 on -, 300, - */
    EXPECT_FINISH(0, 2);
    EXPECT_FINISH(1, 12);
    EXPECT_FINISH(2, 3 + 1. / 6);
    EXPECT_FINISH(4, 3);
}

static void test_later_message_takes_its_share(void)
{
    begin(4, 4);
    link_of(10);
    routes(1, (unsigned[]){1});
    uint32_t t = term((struct pcm_sim_term){.bytes = 100}), four = term((struct pcm_sim_term){.send = 4});
    begin_rank(), begin_round(), send_over(0, 1, t);
    begin_rank(), begin_round(), receive(0, t);
    begin_rank(), begin_round(), work(four), begin_round(), send_over(0, 3, t);
    begin_rank(), begin_round(), receive(2, t);
    EXPECT_SECONDS(20); /* the link is never idle; */
    EXPECT_FINISH(0, 16); /* 40 bytes alone, 60 at half the rate */
}

static void test_nothing_to_flow(void)
{
    begin(6, 6); /* bytes on a link; no bytes on it; and bytes on no link, which take the ports */
    link_of(10);
    routes(2, (unsigned[]){1, 0});
    uint32_t some = term((struct pcm_sim_term){.bytes = 100, .latency = 1}),
             none = term((struct pcm_sim_term){.latency = 1});
    uint32_t port = term((struct pcm_sim_term){.bytes = 100, .out = 3, .in = 3, .transfer = 3, .latency = 1});
    begin_rank(), begin_round(), send_over(0, 1, some);
    begin_rank(), begin_round(), receive(0, some);
    begin_rank(), begin_round(), send_over(0, 3, none);
    begin_rank(), begin_round(), receive(2, none);
    begin_rank(), begin_round(), send_over(1, 5, port);
    begin_rank(), begin_round(), receive(4, port);
    EXPECT_SECONDS(11);
    EXPECT_FINISH(2, 0);
    EXPECT_FINISH(3, 1);
    EXPECT_FINISH(5, 4);
}

/* So many that rates are set for several changes at once: links then carry a little less than they could, never more. */
static void test_many_flows(void)
{
    const int n = 600;
    for (int even = 0; even < 2; even++) {
        begin(2 * n, 2 * n);
        link_of(1000);
        routes(1, (unsigned[]){1});
        double total = 0;
        for (int k = 0; k < n; k++) {
            uint32_t t = term((struct pcm_sim_term){.bytes = even ? 100 : 100 + k});
            total += plan.terms[t].bytes;
            begin_rank(), begin_round(), send_over(0, 2 * k + 1, t);
            begin_rank(), begin_round(), receive(2 * k, t);
        }
        CHECK(simulate(0) == PCM_OK, "%s", pcm_last_error()->text);
        double most = even ? total * (1 + 1e-9) : total * 1.03;
        CHECK(out.seconds * 1000 >= total * (1 - 1e-9) && out.seconds * 1000 <= most, "%d messages of %g bytes: %g s",
              n, total, out.seconds);
    }
}

/* ---- errors ------------------------------------------------------------------------------------------------------- */

static void test_schedules_that_do_not_fit(void)
{
    begin(3, 3);
    uint32_t t = term((struct pcm_sim_term){.transfer = 1});
    begin_rank(), begin_round(), send(2, t);
    begin_rank(), begin_rank();
    EXPECT_ERROR(PCM_ERR_SCHEDULE, 0, "rank 0 sends a message that rank 2 does not receive");

    begin(3, 3);
    t = term((struct pcm_sim_term){.transfer = 1});
    begin_rank(), begin_round(), send(1, t);
    begin_rank(), begin_round(), receive(0, t), receive(2, t);
    begin_rank();
    EXPECT_ERROR(PCM_ERR_SCHEDULE, 1, "rank 2 sends too few messages: rank 1 waits for one more");

    begin(3, 3); /* as many sent as awaited, but of another rank */
    t = term((struct pcm_sim_term){.transfer = 1});
    begin_rank(), begin_round(), receive(2, t);
    begin_rank(), begin_round(), send(0, t);
    begin_rank();
    EXPECT_ERROR(PCM_ERR_SCHEDULE, 0, "rank 2 sends too few messages: rank 0 waits for one more");

    begin(4, 2); /* seen from one period: rank 1 sends to the next one, rank 2, as rank 3 to rank 0 */
    t = term((struct pcm_sim_term){.transfer = 1});
    begin_rank();
    begin_rank(), begin_round(), send(2, t);
    EXPECT_ERROR(PCM_ERR_SCHEDULE, 3, "rank 3 sends a message that rank 0 does not receive");

    begin(3, 3); /* 1 and 2 wait for each other before they send */
    t = term((struct pcm_sim_term){.transfer = 1});
    begin_rank(), begin_round(), work(t);
    for (int rank = 1; rank < 3; rank++) {
        begin_rank();
        begin_round(), work(t);
        begin_round(), receive(3 - rank, t);
        begin_round(), send(3 - rank, t);
    }
    EXPECT_ERROR(PCM_ERR_SCHEDULE, 1, "it never ends: rank 1 waits for ever in round 1 of slice 0");
}

static void test_stop(void)
{
    const struct pcm_sim_term wire = {.transfer = 1};
    ring(64, 64, wire);
    out.stop = 1;
    EXPECT_ERROR(PCM_ERR_ABORTED, -1, "the simulation was stopped");
    CHECK(out.done < 64 * 63 * 2, "it has ended all the same");
    out.stop = 0;
    EXPECT_SECONDS(63);
}

/* ---- records ------------------------------------------------------------------------------------------------------ */

/* From the record that ends last back to the beginning, without a time in which nothing happened. */
static void check_records(const char *where)
{
    double gap = 0; /* before a message is part of no record */
    for (uint64_t k = 0; k < plan.in.nterms; k++) gap = fmax(gap, plan.terms[k].gap);
    int64_t last = 0;
    for (int64_t k = 0; k < out.recorded; k++) {
        const struct pcm_sim_record *r = &records[k];
        if (r->end > records[last].end) last = k;
        CHECK(r->start <= r->end && r->end <= out.seconds * (1 + 1e-9), "%s: record %lld: %g to %g", where,
              (long long)k, r->start, r->end);
        CHECK(r->cause >= -1 && r->cause < out.recorded, "%s: record %lld has the cause %lld", where, (long long)k,
              (long long)r->cause);
    }
    CHECK(near(records[last].end, out.seconds), "%s: the last record ends at %.12g s of %.12g", where,
          records[last].end, out.seconds);
    int64_t steps = 0, at = last;
    while (records[at].cause >= 0 && steps++ <= out.recorded) at = records[at].cause;
    CHECK(records[at].cause == -1 && records[at].start <= gap, "%s: the chain begins at %g s, %lld records back", where,
          records[at].start, (long long)steps);
}

static void test_records(void)
{
    const struct pcm_sim_term t = {
        .send = 0.5, .first = 0.5, .out = 3, .in = 3, .transfer = 3, .latency = 1, .receive = 0.25};
    ring(4, 4, t);
    CHECK(simulate(1000) == PCM_OK, "%s", pcm_last_error()->text);
    CHECK(out.recorded == 4 * 3 * 3, "send, wire, receive of 12 messages: %lld records", (long long)out.recorded);
    check_records(__func__);
    int count[4] = {0};
    for (int64_t k = 0; k < out.recorded; k++) {
        const struct pcm_sim_record *r = &records[k];
        count[r->what]++;
        int far = (r->peer - r->rank + 4) % 4;
        CHECK(far == (r->what == PCM_SIM_RECEIVE ? 3 : 1), "record %lld is of ranks %d and %d", (long long)k, r->rank,
              r->peer);
        double took = r->what == PCM_SIM_SEND ? 0.5 : r->what == PCM_SIM_WIRE ? 4 : 0.25;
        CHECK(near(r->end - r->start, took), "record %lld took %g s, and not %g", (long long)k, r->end - r->start,
              took);
    }
    CHECK(count[PCM_SIM_SEND] == 12 && count[PCM_SIM_WIRE] == 12 && count[PCM_SIM_RECEIVE] == 12, "12 of each");
    int64_t at = out.recorded - 1, chain = 1; /* send, wire, receive in each of the rounds */
    while ((at = records[at].cause) >= 0) chain++;
    CHECK(chain == 9, "the chain of causes has %lld links", (long long)chain);

    double seconds = out.seconds;
    for (int64_t room = 1; room < 36; room += 7) {
        memset(records, 0xee, sizeof *records * 40);
        CHECK(simulate(room) == PCM_OK && out.recorded == room, "%lld of %lld", (long long)out.recorded,
              (long long)room);
        CHECK(near(out.seconds, seconds), "it does not depend on records: %g s", out.seconds);
        CHECK(records[room].cause == (int64_t)0xeeeeeeeeeeeeeeee, "what is behind the room is left alone");
    }
}

/* ---- random patterns ------------------------------------------------------------------------------------------------ */

static uint64_t state; /* xorshift64*, Vigna 2016 */

static uint64_t random_below(uint64_t n)
{
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return (state * 0x2545F4914F6CDD1Du >> 33) % n;
}

static double random_time(void) { return random_below(4) ? (double)(1 + random_below(1 << 24)) / (1 << 20) : 0; }

struct pattern { /* exchanges[step][s][t]: the term of the message from s to t, or -1 */
    int size, steps, cores;
    bool links, plain; /* plain: what takes time is a record */
    int exchange[4][8][8];
    int local[4][8];
};

/* How the ranks of the pattern are numbered does not matter: rank r of it is rank (r + turn) % size. */
static void write_pattern(const struct pattern *p, int turn)
{
    plan.nrank = 0, plan.nround = plan.nop = 0;
    for (int rank = 0; rank < p->size; rank++) {
        int own = (rank + p->size - turn) % p->size;
        begin_rank();
        plan.core[rank] = own * p->cores / p->size;
        for (int step = 0; step < p->steps; step++) {
            int64_t before = plan.nop;
            begin_round();
            for (int other = 0; other < p->size; other++) { /* those of two ranks stay in one order */
                int to = p->exchange[step][own][other], from = p->exchange[step][other][own];
                if (to >= 0) send_over((own + other) % 4, (other + turn) % p->size, (uint32_t)to);
                if (from >= 0) receive((other + turn) % p->size, (uint32_t)from);
            }
            if (p->local[step][own] >= 0) work((uint32_t)p->local[step][own]);
            if (plan.nop == before) plan.nround--;
        }
    }
}

static void random_pattern(struct pattern *p)
{
    p->size = 2 + (int)random_below(7), p->steps = 1 + (int)random_below(4), p->links = random_below(2);
    p->cores = 1 + (int)random_below((uint64_t)p->size);
    begin((uint32_t)p->size, (uint32_t)p->size);
    one_host((uint32_t)p->cores, 1 + (double)random_below(4));
    plan.in.slices = 1 + (uint32_t)random_below(3);
    plan.in.window = 1 + (uint32_t)random_below(plan.in.slices);
    bool lent = random_below(4) == 0, overlap = random_below(2), free = random_below(3) == 0;
    p->plain = !lent && !overlap;
    for (int step = 0; step < p->steps; step++)
        for (int s = 0; s < p->size; s++) {
            for (int t = 0; t < p->size; t++) {
                p->exchange[step][s][t] = -1;
                if (s == t || random_below(3)) continue;
                struct pcm_sim_term m = {.send = free ? 0 : random_time(),
                                         .receive = random_time(),
                                         .gap = random_time(),
                                         .out = random_time(),
                                         .in = random_time(),
                                         .transfer = random_time(),
                                         .latency = random_time(),
                                         .bytes = random_time(),
                                         .lent = lent,
                                         .moves = random_below(2)};
                m.transfer = fmax(m.transfer, fmax(m.out, m.in)); /* the slowest part of the way is no faster */
                m.first = overlap ? m.send / 2 : m.send, m.last = overlap ? m.receive / 4 : m.receive;
                p->exchange[step][s][t] = (int)term(m);
            }
            bool works = !free && !random_below(3);
            p->local[step][s] = works ? (int)term((struct pcm_sim_term){.send = random_time()}) : -1;
        }
    if (p->links) {
        for (int k = 0; k < 3; k++) link_of((double)(1 + random_below(3)));
        routes(4, (unsigned[]){1, 6, 7, 0});
    }
}

/* What a processor, a port or a link is asked for takes no less; and something is always going on. */
static void check_bounds(const struct pattern *p, int seed)
{
    double core[8] = {0}, leaving[8] = {0}, entering[8] = {0}, links[3] = {0}, all = 0;
    int64_t nops = 0, messages = 0;
    for (int step = 0; step < p->steps; step++)
        for (int s = 0; s < p->size; s++) {
            int local = p->local[step][s];
            double w = local < 0 ? 0 : plan.terms[local].send;
            core[s * p->cores / p->size] += w, all += w, nops += local >= 0;
            for (int t = 0; t < p->size; t++) {
                if (p->exchange[step][s][t] < 0) continue;
                const struct pcm_sim_term *m = &plan.terms[p->exchange[step][s][t]];
                nops += 2, messages++;
                core[s * p->cores / p->size] += m->send, core[t * p->cores / p->size] += m->receive;
                leaving[s] += m->gap + m->out;
                unsigned mask = p->links ? (unsigned[]){1, 6, 7, 0}[(s + t) % 4] : 0;
                if (!mask) entering[t] += m->in;
                for (int k = 0; k < 3; k++) {
                    double flows = mask >> k & 1 ? m->bytes / plan.bandwidth[k] : 0;
                    links[k] += flows, all += flows;
                }
                all += m->send + m->receive + m->gap + m->out + m->in + m->transfer + 2 * m->latency;
            }
        }
    double slices = plan.in.slices, least = out.seconds * (1 + 1e-9) / slices;
    for (int k = 0; k < 8; k++) {
        CHECK(core[k] <= least, "seed %d: processor %d works %g s of %g", seed, k, core[k], least);
        CHECK(entering[k] <= least, "seed %d: into rank %d: %g s of %g", seed, k, entering[k], least);
    }
    for (int k = 0; k < 3; k++) CHECK(links[k] <= least, "seed %d: link %d: %g s of %g", seed, k, links[k], least);
    CHECK(out.seconds <= all * slices * (1 + 1e-9), "seed %d: %g s, where all in turn takes %g", seed, out.seconds,
          all * slices);
    CHECK((int64_t)out.done == nops * plan.in.slices, "seed %d: %llu operations of %lld are done", seed,
          (unsigned long long)out.done, (long long)nops);
    int64_t wires = 0;
    for (int64_t k = 0; k < out.recorded; k++) wires += records[k].what == PCM_SIM_WIRE;
    CHECK(wires == messages * plan.in.slices, "seed %d: %lld of %lld messages", seed, (long long)wires,
          (long long)messages);
}

static void test_random_patterns(void)
{
    static struct pattern p;
    for (int seed = 1; seed <= 400; seed++) {
        state = (uint64_t)seed * 0x9E3779B97F4A7C15u;
        char where[32];
        snprintf(where, sizeof where, "seed %d", seed);
        random_pattern(&p);
        write_pattern(&p, 0);
        if (!plan.nop) continue;
        int rc = simulate(sizeof records / sizeof *records);
        CHECK(rc == PCM_OK, "seed %d: status %d: %s", seed, rc, pcm_last_error()->text);
        if (rc) continue;
        check_bounds(&p, seed);
        if (p.plain && out.recorded) check_records(where);
        double seconds = out.seconds, before[8];
        memcpy(before, finish, sizeof before);
        write_pattern(&p, 1);
        CHECK(simulate(0) == PCM_OK && near(out.seconds, seconds),
              "seed %d: %.12g s without records and renumbered: %.12g", seed, seconds, out.seconds);
        for (int rank = 0; rank < p.size; rank++)
            CHECK(near(finish[(rank + 1) % p.size], before[rank]), "seed %d: rank %d at %.12g s, renumbered %.12g",
                  seed, rank, before[rank], finish[(rank + 1) % p.size]);
    }
}

int main(void)
{
    test_ring();
    test_gap_and_ports();
    test_slices_and_window();
    test_early_message_waits_for_its_round();
    test_shared_processor();
    test_shared_memory();
    test_lent();
    test_overlap();
    test_overlap_on_a_shared_processor();
    test_max_min();
    test_later_message_takes_its_share();
    test_nothing_to_flow();
    test_many_flows();
    test_schedules_that_do_not_fit();
    test_stop();
    test_records();
    test_random_patterns();
    return check_report();
}
