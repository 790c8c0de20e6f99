/* handshake.c: see handshake.h. First the machine for one connection, then the door that runs many. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "handshake.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the wire format is little-endian and written as it lies in memory"
#endif

enum { VERSION = 2, NONCE = 32, MAC = 32, ACCEPTS_AT_ONCE = 16, PAUSE_MS = 100 };

static const char MAGIC[8] = {'p', 'y', 'c', 'o', 'm', 'm', '\r', '\n'};

struct wire_hello {
    char magic[8];
    uint32_t version, from, to, bytes;
    uint64_t job, channel;
    uint8_t payload[PCM_HELLO_PAYLOAD], nonce[NONCE];
};
struct wire_answer {
    char magic[8];
    uint8_t nonce[NONCE], mac[MAC];
};
_Static_assert(sizeof(struct wire_hello) == sizeof((struct pcm_handshake *)0)->wire, "a hello fits");
_Static_assert(sizeof(struct wire_answer) == sizeof((struct pcm_handshake *)0)->answer, "an answer fits");

/* In order of time. Each names the message that is being sent or received. */
enum { HELLO, ANSWER, PROOF, VERDICT, DONE };

int64_t pcm_clock_ms(void) { return pcm_now_ns() / 1000000; }

/* ---- one connection ----------------------------------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static int refuse(struct pcm_handshake *shake, int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(shake->why, sizeof shake->why, format, arguments);
    va_end(arguments);
    shake->stage = DONE;
    return code;
}

static int fill_random(void *bytes, size_t length)
{
    for (size_t at = 0; at < length;) {
        ssize_t got = getrandom((char *)bytes + at, length - at, 0);
        if (got < 0 && errno != EINTR) return pcm_fail(PCM_ERR_SYSTEM, -1, "no random numbers from the kernel: %m");
        if (got > 0) at += (size_t)got;
    }
    return PCM_OK;
}

static bool same(const uint8_t *a, const uint8_t *b, size_t bytes)
{
    volatile uint8_t differs = 0; /* looks at all bytes, so that the time tells nothing of where they differ */
    for (size_t i = 0; i < bytes; i++) differs |= a[i] ^ b[i];
    return !differs;
}

/* What a code over all that was said is for. */
static const char *const INITIATOR = "pcm initiator", *const ACCEPTOR = "pcm acceptor",
                         *const KEY_THERE = "pcm key there", *const KEY_BACK = "pcm key back";

/* Signs what both sides have said, for a purpose. Without a secret all signatures are zero. */
static int sign(struct pcm_handshake *shake, const char *purpose, uint8_t mac[MAC])
{
    const struct pcm_world_config *config = pcm_world_get_config(shake->world);
    const struct wire_answer *answer = (const void *)shake->answer;
    struct {
        char purpose[16];
        uint8_t hello[sizeof(struct wire_hello)], nonce[NONCE];
    } said = {.purpose = {0}};
    memset(mac, 0, MAC);
    if (!config->mac) return PCM_OK;
    strcpy(said.purpose, purpose);
    memcpy(said.hello, shake->wire, sizeof said.hello);
    memcpy(said.nonce, answer->nonce, NONCE);
    if (config->mac(config->mac_user, &said, sizeof said, mac))
        return refuse(shake, PCM_ERR_SYSTEM, "the job's MAC function failed");
    return PCM_OK;
}

int pcm_handshake_keys(struct pcm_handshake *shake, struct pcm_keys *keys)
{
    int status = sign(shake, shake->initiator ? KEY_THERE : KEY_BACK, keys->out);
    return status ? status : sign(shake, shake->initiator ? KEY_BACK : KEY_THERE, keys->in);
}

int pcm_handshake_call(struct pcm_handshake *shake, pcm_world *world, int fd, const struct pcm_hello *hello)
{
    *shake = (struct pcm_handshake){.world = world, .fd = fd, .initiator = true, .hello = *hello};
    struct wire_hello wire = {.version = VERSION,
                              .from = hello->from,
                              .to = hello->to,
                              .bytes = hello->bytes,
                              .job = hello->job,
                              .channel = hello->channel};
    memcpy(wire.magic, MAGIC, sizeof MAGIC);
    memcpy(wire.payload, hello->payload, hello->bytes);
    int status = fill_random(wire.nonce, NONCE);
    memcpy(shake->wire, &wire, sizeof wire);
    return status;
}

int pcm_handshake_answer(struct pcm_handshake *shake, pcm_world *world, int fd, pcm_admit_fn *admit, void *user)
{
    *shake = (struct pcm_handshake){.world = world, .fd = fd, .admit = admit, .user = user};
    struct wire_answer *answer = (void *)shake->answer;
    memcpy(answer->magic, MAGIC, sizeof MAGIC);
    return fill_random(answer->nonce, NONCE);
}

static bool sending(const struct pcm_handshake *shake)
{
    return shake->initiator == (shake->stage == HELLO || shake->stage == PROOF);
}

uint32_t pcm_handshake_events(const struct pcm_handshake *shake) { return sending(shake) ? EPOLLOUT : EPOLLIN; }

/* The acceptor reads a hello: is it meant for us? */
static int check_hello(struct pcm_handshake *shake)
{
    const struct pcm_world_config *config = pcm_world_get_config(shake->world);
    struct wire_hello wire;
    memcpy(&wire, shake->wire, sizeof wire);
    if (wire.version != VERSION)
        return refuse(shake, PCM_ERR_AUTH, "it speaks version %u of the protocol, not %d", wire.version, VERSION);
    if (wire.job != config->job) return refuse(shake, PCM_ERR_AUTH, "it belongs to another job");
    if (wire.to != (uint32_t)config->rank || wire.from >= (uint32_t)config->size || wire.from == wire.to)
        return refuse(shake, PCM_ERR_AUTH, "it calls rank %u from rank %u", wire.to, wire.from);
    if (wire.bytes > PCM_HELLO_PAYLOAD) return refuse(shake, PCM_ERR_AUTH, "its hello is malformed");
    shake->hello = (struct pcm_hello){wire.job, wire.channel, wire.from, wire.to, wire.bytes, {0}};
    memcpy(shake->hello.payload, wire.payload, wire.bytes);
    return sign(shake, ACCEPTOR, ((struct wire_answer *)(void *)shake->answer)->mac);
}

/* A message has passed in full: judges it and prepares the next. */
static int advance(struct pcm_handshake *shake)
{
    struct wire_answer *answer = (void *)shake->answer;
    int status = PCM_OK;
    switch (shake->stage) {
    case HELLO:
        if (!shake->initiator) status = check_hello(shake);
        break;
    case ANSWER:
        status = sign(shake, INITIATOR, shake->initiator ? shake->proof : shake->expect);
        if (status || !shake->initiator) break;
        status = sign(shake, ACCEPTOR, shake->expect);
        if (!status && !same(shake->expect, answer->mac, MAC))
            status = refuse(shake, PCM_ERR_AUTH, "it does not hold the job's secret");
        break;
    case PROOF:
        if (shake->initiator) break;
        if (!same(shake->expect, shake->proof, MAC))
            return refuse(shake, PCM_ERR_AUTH, "it does not hold the job's secret");
        shake->byte = (uint8_t)shake->admit(shake->user, &shake->hello);
        break;
    case VERDICT:
        if (shake->byte != PCM_WELCOME && shake->byte != PCM_YIELD)
            return refuse(shake, PCM_ERR_AUTH, "its verdict is malformed");
        shake->verdict = shake->byte;
        break;
    }
    if (!status) shake->stage++, shake->at = 0;
    return status;
}

int pcm_handshake_step(struct pcm_handshake *shake)
{
    while (shake->stage < DONE) {
        struct {
            uint8_t *bytes;
            uint32_t length;
        } messages[] =
            {
                [HELLO] = {shake->wire, sizeof shake->wire},
                [ANSWER] = {shake->answer, sizeof shake->answer},
                [PROOF] = {shake->proof, sizeof shake->proof},
                [VERDICT] = {&shake->byte, 1},
            },
          message = messages[shake->stage];
        uint8_t *from = message.bytes + shake->at;
        size_t left = message.length - shake->at;
        ssize_t passed = sending(shake) ? send(shake->fd, from, left, MSG_NOSIGNAL) : recv(shake->fd, from, left, 0);
        if (passed < 0 && errno == EINTR) continue;
        if (passed < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return PCM_AGAIN;
        if (passed < 0) return refuse(shake, errno == ECONNREFUSED ? PCM_ERR_PEER_LOST : PCM_ERR_SYSTEM, "%m");
        if (passed == 0) return refuse(shake, PCM_ERR_SYSTEM, "it closed the connection during the handshake");
        shake->at += (uint32_t)passed;
        /* A stranger who talks another language is sent away at the first wrong byte. */
        bool greeting = !sending(shake) && shake->stage <= ANSWER;
        if (greeting && memcmp(message.bytes, MAGIC, shake->at < sizeof MAGIC ? shake->at : sizeof MAGIC))
            return refuse(shake, PCM_ERR_AUTH, "it does not speak this protocol");
        if (shake->at < message.length) continue;
        int status = advance(shake);
        if (status) return status;
    }
    return shake->verdict ? PCM_OK : PCM_ERR_SYSTEM;
}

/* ---- the door ------------------------------------------------------------------------------------------------ */

struct pcm_visit {
    struct pcm_watch watch;
    struct pcm_door *door;
    struct pcm_handshake shake;
    uint32_t events;
    int64_t begun, deadline;
    int answer_ms;
    pcm_called_fn *called; /* of an own call */
    void *user;
    TAILQ_ENTRY(pcm_visit) link;
};

struct pcm_door {
    struct pcm_watch listening; /* first: its callback finds the door */
    struct pcm_watch timer;
    pcm_world *world;
    int patience_ms;
    pcm_admit_fn *admit;
    pcm_enter_fn *enter;
    void *user;
    TAILQ_HEAD(visits, pcm_visit) visits; /* oldest first */
    int visitors;                         /* those that came in */
    int64_t armed;                        /* when the timer goes off; 0: it does not */
    int64_t resume;                       /* when accepting goes on at the latest; 0: it is not suspended */
};

static void arm_timer(struct pcm_door *door, int64_t when)
{
    if (door->armed && door->armed <= when) return;
    struct itimerspec spec = {.it_value = {.tv_sec = when / 1000, .tv_nsec = when % 1000 * 1000000}};
    timerfd_settime(door->timer.fd, TFD_TIMER_ABSTIME, &spec, NULL);
    door->armed = when;
}

/* Lets callers wait in the kernel's queue until `when`, or until a visitor leaves. */
static void look_away(struct pcm_door *door, int64_t when)
{
    pcm_reactor_remove(pcm_world_reactor(door->world), &door->listening);
    door->resume = when;
    arm_timer(door, when);
}

static void look_back(struct pcm_door *door)
{
    if (!door->resume) return;
    door->resume = 0;
    pcm_reactor_add(pcm_world_reactor(door->world), &door->listening, EPOLLIN);
}

/* Forgets a visit and returns its descriptor, which is no longer watched. */
static int part(struct pcm_visit *visit)
{
    struct pcm_door *door = visit->door;
    int fd = visit->watch.fd;
    pcm_reactor_remove(pcm_world_reactor(door->world), &visit->watch);
    TAILQ_REMOVE(&door->visits, visit, link);
    if (!visit->called) {
        door->visitors--;
        look_back(door);
    }
    free(visit);
    return fd;
}

static void end(struct pcm_visit *visit, int status, const char *why)
{
    struct pcm_door *door = visit->door;
    struct pcm_hello hello = visit->shake.hello;
    pcm_called_fn *called = visit->called;
    void *user = visit->user;
    int verdict = visit->shake.verdict;
    struct pcm_keys made;
    const struct pcm_keys *keys = pcm_world_get_config(door->world)->encrypt ? &made : NULL;
    if (status == PCM_OK && verdict == PCM_WELCOME && keys) {
        status = pcm_handshake_keys(&visit->shake, &made);
        why = visit->shake.why;
    }
    char reason[sizeof visit->shake.why];
    snprintf(reason, sizeof reason, "%s", why);
    int fd = part(visit);
    if (status == PCM_ERR_AUTH || (status == PCM_ERR_TIMEOUT && !called)) pcm_world_count_refused(door->world);
    if (status == PCM_OK && verdict == PCM_YIELD) status = PCM_AGAIN;
    if (status != PCM_OK) close(fd), fd = -1;
    if (called)
        called(user, status, fd, keys, reason);
    else if (status == PCM_OK)
        door->enter(door->user, fd, &hello, keys);
    explicit_bzero(&made, sizeof made);
}

static void on_visit(struct pcm_watch *watch, uint32_t events)
{
    (void)events;
    struct pcm_visit *visit = (struct pcm_visit *)watch;
    int status = pcm_handshake_step(&visit->shake);
    if (status == PCM_AGAIN) {
        uint32_t wanted = pcm_handshake_events(&visit->shake);
        if (wanted == visit->events) return;
        pcm_reactor_change(pcm_world_reactor(visit->door->world), watch, wanted);
        visit->events = wanted;
        if (!visit->called) return;
        visit->deadline = visit->answer_ms ? pcm_clock_ms() + visit->answer_ms : INT64_MAX;
        if (visit->answer_ms) arm_timer(visit->door, visit->deadline);
        return;
    }
    end(visit, status, visit->shake.why);
}

/* Ends a visit that is late, unless what it waited for lies here already: it may be this side that was busy. */
static void expire(struct pcm_visit *visit, const char *why)
{
    int status = pcm_handshake_step(&visit->shake);
    if (status == PCM_AGAIN)
        end(visit, PCM_ERR_TIMEOUT, why);
    else
        end(visit, status, visit->shake.why);
}

static struct pcm_visit *begin(struct pcm_door *door, int fd, const struct pcm_hello *hello, int patience_ms)
{
    struct pcm_visit *visit = calloc(1, sizeof *visit);
    int status = visit ? PCM_OK : pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for a connection");
    if (!status && hello) status = pcm_handshake_call(&visit->shake, door->world, fd, hello);
    if (!status && !hello) status = pcm_handshake_answer(&visit->shake, door->world, fd, door->admit, door->user);
    if (!status) {
        visit->watch = (struct pcm_watch){fd, on_visit};
        visit->events = pcm_handshake_events(&visit->shake);
        status = pcm_reactor_add(pcm_world_reactor(door->world), &visit->watch, visit->events);
    }
    if (status) {
        free(visit);
        close(fd);
        return NULL;
    }
    visit->door = door;
    visit->begun = pcm_clock_ms();
    visit->deadline = visit->begun + patience_ms;
    TAILQ_INSERT_TAIL(&door->visits, visit, link);
    arm_timer(door, visit->deadline);
    return visit;
}

static void on_timer(struct pcm_watch *watch, uint32_t events)
{
    (void)events;
    struct pcm_door *door = (struct pcm_door *)((char *)watch - offsetof(struct pcm_door, timer));
    uint64_t expirations;
    while (read(watch->fd, &expirations, sizeof expirations) < 0 && errno == EINTR) {
    }
    int64_t now = pcm_clock_ms();
    struct pcm_visit *visit;
    do { /* from the start each time: callbacks may end other visits */
        TAILQ_FOREACH(visit, &door->visits, link) if (visit->deadline <= now) break;
        if (visit) expire(visit, "it does not answer");
    } while (visit);
    if (door->resume <= now) look_back(door);
    door->armed = 0;
    TAILQ_FOREACH(visit, &door->visits, link) if (visit->deadline < INT64_MAX) arm_timer(door, visit->deadline);
    if (door->resume) arm_timer(door, door->resume);
}

static void on_knock(struct pcm_watch *watch, uint32_t events)
{
    (void)events;
    struct pcm_door *door = (struct pcm_door *)watch;
    for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
        if (door->visitors == PCM_VISITORS) {
            struct pcm_visit *oldest;
            TAILQ_FOREACH(oldest, &door->visits, link) if (!oldest->called) break;
            int64_t slow = oldest->begun + PCM_SLOW_MS;
            if (pcm_clock_ms() < slow) {
                look_away(door, slow);
                return;
            }
            expire(oldest, "it is too slow while others wait");
        }
        int fd = accept4(watch->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM))
            look_away(door, pcm_clock_ms() + PAUSE_MS); /* else the knocking would go on without end */
        if (fd < 0) return;                             /* nobody left, or somebody who went away again */
        if (begin(door, fd, NULL, door->patience_ms)) door->visitors++;
    }
}

int pcm_door_open(pcm_world *world, int listening, int patience_ms, pcm_admit_fn *admit, pcm_enter_fn *enter,
                  void *user, struct pcm_door **out)
{
    struct pcm_door *door = calloc(1, sizeof *door);
    if (!door) {
        close(listening);
        return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for a listening socket");
    }
    *door = (struct pcm_door){.listening = {listening, on_knock},
                              .world = world,
                              .patience_ms = patience_ms,
                              .admit = admit,
                              .enter = enter,
                              .user = user};
    door->timer = (struct pcm_watch){timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), on_timer};
    TAILQ_INIT(&door->visits);
    struct pcm_reactor *reactor = pcm_world_reactor(world);
    int status = PCM_OK;
    if (door->timer.fd < 0) status = pcm_fail(PCM_ERR_SYSTEM, -1, "cannot make a timer: %m");
    if (!status) status = pcm_reactor_add(reactor, &door->timer, EPOLLIN);
    if (!status) status = pcm_reactor_add(reactor, &door->listening, EPOLLIN);
    if (status)
        pcm_door_close(door);
    else
        *out = door;
    return status;
}

void pcm_door_close(struct pcm_door *door)
{
    if (!door) return;
    struct pcm_reactor *reactor = pcm_world_reactor(door->world);
    while (!TAILQ_EMPTY(&door->visits)) close(part(TAILQ_FIRST(&door->visits)));
    pcm_reactor_remove(reactor, &door->listening);
    pcm_reactor_remove(reactor, &door->timer);
    close(door->listening.fd);
    if (door->timer.fd >= 0) close(door->timer.fd);
    free(door);
}

struct pcm_visit *pcm_door_call(struct pcm_door *door, int fd, const struct pcm_hello *hello, int connect_ms,
                                int answer_ms, pcm_called_fn *called, void *user)
{
    struct pcm_visit *visit = begin(door, fd, hello, connect_ms);
    if (visit) visit->answer_ms = answer_ms, visit->called = called, visit->user = user;
    return visit;
}

void pcm_door_drop(struct pcm_visit *visit) { close(part(visit)); }
