/* shm.c: ranks of one host, over memory that both map: a memfd handed over a unix socket, so that /dev/shm, its size and its
 * leftovers do not matter. The socket stays open to tell when the peer dies; a pidfd tells it too where children of the
 * peer hold the socket open. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "handshake.h"
#include "ring.h"

struct shm_address { /* what a peer must know */
    char boot[40]; /* the host, since it booted */
    uint64_t netns; /* abstract sockets do not cross network namespaces */
    char name[32]; /* of the abstract socket */
};

enum stage {
    CALLING, /* our call is under way, or was dropped in favour of the peer's */
    OFFERED, /* we made the memory and wait for the peer's doorbell */
    ENTERED, /* the peer called and will send the memory */
    MAPPED,
};

struct shm_channel {
    struct ring_channel ring;
    struct pcm_watch socket, process; /* fd -1: none */
    struct pcm_visit *visit;
    int64_t called; /* when it was made; ms */
    char name[32]; /* of the peer's socket */
    int stage;
};

struct shm_endpoint {
    struct pcm_endpoint base;
    struct shm_address address;
    struct pcm_door *door;
    struct ring_channel *channels;
};

static struct shm_endpoint *of(struct pcm_endpoint *endpoint) { return (struct shm_endpoint *)endpoint; }

static struct shm_channel *holder_of_socket(struct pcm_watch *watch)
{
    return (struct shm_channel *)((char *)watch - offsetof(struct shm_channel, socket));
}

static struct shm_channel *holder_of_process(struct pcm_watch *watch)
{
    return (struct shm_channel *)((char *)watch - offsetof(struct shm_channel, process));
}

static struct pcm_reactor *reactor_of(struct shm_channel *c) { return pcm_world_reactor(c->ring.base.endpoint->world); }

/* ---- channels ---------------------------------------------------------------------------------------------- */

static struct shm_channel *find(struct shm_endpoint *e, int peer, uint64_t id)
{
    for (struct ring_channel *c = e->channels; c; c = c->next)
        if (c->base.peer == peer && c->base.id == id) return (struct shm_channel *)c;
    return NULL;
}

static struct shm_channel *make_channel(struct shm_endpoint *e, int peer, uint64_t id)
{
    struct shm_channel *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->ring = (struct ring_channel){
        .base = {.ops = &pcm_shm, .endpoint = &e->base, .peer = peer, .id = id, .state = PCM_CHANNEL_CONNECTING},
        .doorbell = -1,
        .next = e->channels};
    c->socket.fd = c->process.fd = -1;
    e->channels = &c->ring;
    return c;
}

static void drop_watch(struct shm_channel *c, struct pcm_watch *watch)
{
    if (watch->fd < 0) return;
    pcm_reactor_remove(reactor_of(c), watch);
    close(watch->fd);
    watch->fd = -1;
}

/* The peer is gone, or was never there. What it had committed can still be read. */
static void part(struct shm_channel *c, const char *why)
{
    drop_watch(c, &c->socket);
    drop_watch(c, &c->process);
    if (c->ring.pair) ring_read_signal(&c->ring);
    bool goodbye = c->ring.pair && atomic_load(&c->ring.pair->sides[c->ring.side].signal) & RING_LEFT;
    pcm_channel_fail(&c->ring.base, goodbye ? PCM_CHANNEL_CLOSED : PCM_CHANNEL_LOST,
                     goodbye ? "it closed the communicator" : why);
}

/* The peer hung up before the channel was up: it has left the communicator, and may well live on. */
static void leave_early(struct shm_channel *c)
{
    drop_watch(c, &c->socket);
    pcm_channel_fail(&c->ring.base, PCM_CHANNEL_CLOSED, "it hung up while connecting");
}

static void on_process_end(struct pcm_watch *watch, uint32_t events)
{
    (void)events;
    part(holder_of_process(watch), "its process has ended");
}

/* ---- handing over the memory: one message with descriptors in each direction ---------------------------------- */

static int send_descriptors(int socket, const int *fds, int n)
{
    char byte = (char)n;
    union {
        char bytes[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec iov = {&byte, 1};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = CMSG_SPACE((size_t)n * sizeof(int))};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN((size_t)n * sizeof(int));
    memcpy(CMSG_DATA(header), fds, (size_t)n * sizeof(int));
    ssize_t sent;
    do sent = sendmsg(socket, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent == 1 ? 0 : -1;
}

static const char *no_descriptors = "this process may open no more descriptors: raise the limit (ulimit -n)";

/* Returns how many descriptors came, 0 if the peer closed, -1 if nothing is there yet, -2 on an error, -3 if this process
 * can take no more. */
static int receive_descriptors(int socket, int fds[2])
{
    char byte;
    union {
        char bytes[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t got;
    do got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return -1;
    if (got == 0 || (got < 0 && errno == ECONNRESET)) return 0; /* reset: it closed before it had read what we sent */
    if (got < 0) return -2;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    bool some = header && header->cmsg_type == SCM_RIGHTS, cut = message.msg_flags & MSG_CTRUNC;
    int n = some ? (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int)) : 0;
    if (some) memcpy(fds, CMSG_DATA(header), (size_t)n * sizeof(int));
    for (int i = 0; i < n && cut; i++) close(fds[i]);
    return cut ? -3 : some ? n : -2;
}

/* Finds out which process the peer is: to be told when it ends, and to read its memory if we may. */
static void watch_process(struct shm_channel *c)
{
    struct ucred peer = {0};
    socklen_t length = sizeof peer;
    if (getsockopt(c->socket.fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) || peer.pid <= 0) return;
    c->ring.process = peer.pid;
    ring_try_sample(&c->ring);
    if (peer.pid == getpid()) return;
    int fd =
        (int)syscall(SYS_pidfd_open, peer.pid, 0); /* without it (old kernel, other pid namespace) the socket does */
    if (fd < 0) return;
    c->process = (struct pcm_watch){fd, on_process_end};
    if (pcm_reactor_add(reactor_of(c), &c->process, EPOLLIN)) close(fd), c->process.fd = -1;
}

static void become_up(struct shm_channel *c, int doorbell)
{
    c->ring.doorbell = doorbell;
    c->stage = MAPPED;
    c->ring.base.state = PCM_CHANNEL_UP;
    watch_process(c);
}

static bool map_memory(struct shm_channel *c, int memory, int side)
{
    void *at = mmap(NULL, sizeof *c->ring.pair, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (at == MAP_FAILED) return false;
    c->ring.pair = at, c->ring.side = side;
    ring_show_sample(&c->ring);
    return true;
}

/* Makes the memory and sends it, with our doorbell. The seals promise the peer that it will not shrink under its feet. */
static bool offer(struct shm_channel *c)
{
    int memory = memfd_create("pycomm", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    bool fine = memory >= 0 && !ftruncate(memory, sizeof *c->ring.pair) &&
                !fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) && map_memory(c, memory, 0);
    int fds[2] = {memory, pcm_reactor_doorbell(reactor_of(c))};
    fine = fine && !send_descriptors(c->socket.fd, fds, 2);
    if (memory >= 0) close(memory);
    c->stage = OFFERED;
    return fine;
}

static bool take_offer(struct shm_channel *c, const int fds[2])
{
    struct stat stat;
    int seals = fcntl(fds[0], F_GET_SEALS), own = pcm_reactor_doorbell(reactor_of(c));
    bool fine = !fstat(fds[0], &stat) && stat.st_size == (off_t)sizeof *c->ring.pair && seals >= 0 &&
                seals & F_SEAL_SHRINK && map_memory(c, fds[0], 1) && !send_descriptors(c->socket.fd, &own, 1);
    close(fds[0]);
    if (!fine) close(fds[1]);
    return fine;
}

static void on_socket(struct pcm_watch *watch, uint32_t events)
{
    (void)events;
    struct shm_channel *c = holder_of_socket(watch);
    int fds[2] = {-1, -1};
    int n = receive_descriptors(watch->fd, fds);
    if (n == -1) return;
    if (n == 0 && c->stage == MAPPED) return part(c, "its process has ended");
    if (n == 0) return leave_early(c);
    if (n == -3) return part(c, no_descriptors);
    if (c->stage == OFFERED && n == 1) return become_up(c, fds[0]);
    if (c->stage == ENTERED && n == 2 && take_offer(c, fds)) return become_up(c, fds[1]);
    part(c, "it sent nonsense while connecting");
}

static bool watch_socket(struct shm_channel *c, int fd)
{
    c->socket = (struct pcm_watch){fd, on_socket};
    if (!pcm_reactor_add(reactor_of(c), &c->socket, EPOLLIN)) return true;
    close(fd);
    c->socket.fd = -1;
    return false;
}

/* ---- the door ---------------------------------------------------------------------------------------------------- */

static int admit(void *user, const struct pcm_hello *hello)
{
    struct shm_endpoint *e = user;
    struct shm_channel *c = find(e, (int)hello->from, hello->channel);
    if (!c) return PCM_WELCOME;
    bool ours_wins = pcm_world_get_config(e->base.world)->rank < (int)hello->from;
    return c->stage == CALLING && !ours_wins ? PCM_WELCOME : PCM_YIELD;
}

static void enter(void *user, int fd, const struct pcm_hello *hello, const struct pcm_keys *keys)
{
    (void)keys; /* what is shared crosses no network */
    struct shm_endpoint *e = user;
    struct shm_channel *c = find(e, (int)hello->from, hello->channel);
    if (!c && !(c = make_channel(e, (int)hello->from, hello->channel))) {
        close(fd);
        return;
    }
    if (c->visit) pcm_door_drop(c->visit), c->visit = NULL;
    c->stage = ENTERED;
    if (!watch_socket(c, fd)) part(c, "the reactor cannot watch its socket");
}

static void call(struct shm_channel *c);

static void called(void *user, int status, int fd, const struct pcm_keys *keys, const char *why)
{
    (void)keys;
    struct shm_channel *c = user;
    c->visit = NULL;
    if (status == PCM_AGAIN) return; /* the peer's own call is on its way */
    bool late = pcm_clock_ms() - c->called >= PCM_SLOW_MS;
    if (late && (status == PCM_ERR_SYSTEM || status == PCM_ERR_TIMEOUT)) return call(c); /* we were too slow for it */
    if (status != PCM_OK) return part(c, why);
    errno = 0;
    if (watch_socket(c, fd) && offer(c)) return;
    if (errno == EPIPE || errno == ECONNRESET) return leave_early(c);
    if (errno == EMFILE) return part(c, no_descriptors);
    char refusal[128];
    snprintf(refusal, sizeof refusal, "memory to share with it could not be made: %s%s", strerror(errno),
             errno == EFBIG ? " (raise ulimit -f)" : "");
    part(c, refusal);
}

static struct pcm_visit *begin_call(struct shm_channel *c)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return pcm_fail(PCM_ERR_SYSTEM, c->ring.base.peer, "cannot make a unix socket: %m"), NULL;
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    size_t n = strnlen(c->name, sizeof c->name);
    memcpy(where.sun_path + 1, c->name, n);
    int rc;
    do rc = connect(fd, (struct sockaddr *)&where, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n));
    while (rc && errno == EINTR);
    if (rc) {
        int error = errno;
        close(fd);
        return pcm_fail(PCM_ERR_PEER_LOST, c->ring.base.peer, "its socket refuses: %s", strerror(error)), NULL;
    }
    struct shm_endpoint *e = of(c->ring.base.endpoint);
    const struct pcm_world_config *config = pcm_world_get_config(e->base.world);
    struct pcm_hello hello = {.job = config->job,
                              .channel = c->ring.base.id,
                              .from = (uint32_t)config->rank,
                              .to = (uint32_t)c->ring.base.peer};
    return pcm_door_call(e->door, fd, &hello, PCM_HANDSHAKE_MS, 0, called, c);
}

static void call(struct shm_channel *c)
{
    c->called = pcm_clock_ms();
    if ((c->visit = begin_call(c))) return;
    bool gone = pcm_last_error()->code == PCM_ERR_PEER_LOST; /* in good order, unless somebody says else */
    pcm_channel_fail(&c->ring.base, gone ? PCM_CHANNEL_CLOSED : PCM_CHANNEL_LOST, pcm_last_error()->text);
}

static struct pcm_channel *shm_connect(struct pcm_endpoint *endpoint, int peer, uint64_t id, const void *address,
                                       size_t bytes)
{
    struct shm_endpoint *e = of(endpoint);
    struct shm_channel *c = find(e, peer, id);
    (void)bytes;
    if (!c) {
        struct shm_address to;
        memcpy(&to, address, sizeof to);
        if (!(c = make_channel(e, peer, id)))
            return pcm_fail(PCM_ERR_SYSTEM, peer, "out of memory for a channel"), NULL;
        memcpy(c->name, to.name, sizeof c->name);
        call(c);
    }
    return &c->ring.base;
}

/* ---- endpoints ------------------------------------------------------------------------------------------------------ */

static int listen_abstract(char name[32])
{
    unsigned char random[12];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || getrandom(random, sizeof random, 0) != sizeof random) return -1;
    int n = snprintf(name, 32, "pycomm-");
    for (size_t i = 0; i < sizeof random; i++) n += snprintf(name + n, 32 - (size_t)n, "%02x", random[i]);
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    memcpy(where.sun_path + 1, name, (size_t)n);
    if (bind(fd, (struct sockaddr *)&where, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) ||
        listen(fd, SOMAXCONN)) {
        close(fd);
        return -1;
    }
    return fd;
}

static void read_host(struct shm_address *address)
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t n = read(fd, address->boot, sizeof address->boot - 1);
        address->boot[n > 0 ? n : 0] = 0;
        close(fd);
    }
    struct stat stat_;
    if (!stat("/proc/self/ns/net", &stat_)) address->netns = stat_.st_ino;
}

static int shm_open_endpoint(pcm_world *world, const char *argument, struct pcm_endpoint **out)
{
    (void)argument;
    struct shm_endpoint *e = calloc(1, sizeof *e);
    if (!e) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory");
    e->base.ops = &pcm_shm, e->base.world = world;
    read_host(&e->address);
    int listening = listen_abstract(e->address.name);
    int rc = listening < 0 ? pcm_fail(PCM_ERR_SYSTEM, -1, "cannot listen on an abstract unix socket: %m")
                           : pcm_door_open(world, listening, PCM_HANDSHAKE_MS, admit, enter, e, &e->door);
    if (rc) {
        free(e);
        return rc;
    }
    *out = &e->base;
    return PCM_OK;
}

static int shm_address(struct pcm_endpoint *endpoint, void *address, size_t *bytes)
{
    if (*bytes < sizeof(struct shm_address)) return pcm_fail(PCM_ERR_ARGUMENT, -1, "the address does not fit");
    memcpy(address, &of(endpoint)->address, *bytes = sizeof(struct shm_address));
    return PCM_OK;
}

static bool shm_reaches(struct pcm_endpoint *endpoint, const void *address, size_t bytes)
{
    struct shm_address theirs;
    const struct shm_address *own = &of(endpoint)->address;
    if (bytes != sizeof theirs) return false;
    memcpy(&theirs, address, sizeof theirs);
    return own->boot[0] && !strncmp(own->boot, theirs.boot, sizeof own->boot) && own->netns == theirs.netns;
}

static void shm_arm(struct pcm_endpoint *endpoint, bool asleep)
{
    for (struct ring_channel *c = of(endpoint)->channels; c; c = c->next)
        if (c->base.state == PCM_CHANNEL_UP) ring_arm(c, asleep);
}

static void shm_close(struct pcm_channel *channel)
{
    struct shm_channel *c = (struct shm_channel *)channel;
    struct ring_channel **at = &of(channel->endpoint)->channels;
    if (c->visit) pcm_door_drop(c->visit);
    if (c->ring.pair) ring_leave(&c->ring); /* also for a peer that has yet to take our offer */
    drop_watch(c, &c->socket);
    drop_watch(c, &c->process);
    if (c->ring.pair) munmap(c->ring.pair, sizeof *c->ring.pair);
    if (c->ring.doorbell >= 0) close(c->ring.doorbell);
    while (*at != &c->ring) at = &(*at)->next;
    *at = c->ring.next;
    free(c);
}

static void shm_shut(struct pcm_endpoint *endpoint)
{
    while (of(endpoint)->channels) shm_close(&of(endpoint)->channels->base);
    pcm_door_close(of(endpoint)->door);
    free(endpoint);
}

const struct pcm_transport pcm_shm = {
    .name = "shm",
    .caps = PCM_POLLED | PCM_LOCAL,
    .open = shm_open_endpoint,
    .address = shm_address,
    .reaches = shm_reaches,
    .connect = shm_connect,
    .reserve = ring_reserve,
    .commit = ring_commit,
    .peek = ring_peek,
    .release = ring_release,
    .path = ring_path_of,
    .lend = ring_lend,
    .returned = ring_returned,
    .fetch = ring_fetch,
    .withdraw = ring_withdraw,
    .notice = ring_notice,
    .arm = shm_arm,
    .close = shm_close,
    .shut = shm_shut,
};
