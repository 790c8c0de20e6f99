/* The wire of a laboratory: joins two TAP devices, each in a network namespace of its own, and hands every frame over
 * after a delay; some are lost, by a seeded generator.
 *
 *   relay NAMESPACE_A DEVICE_A NAMESPACE_B DEVICE_B DELAY_NANOSECONDS LOST_IN_2^32 SEED
 *
 * Both devices exist as long as this process does. A line on standard output tells that they are there. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    MOST_UNDERWAY = 64 << 20, /* bytes, each way: what comes on top is dropped, as by a full switch */
    LONGEST = 1 << 17,        /* a frame of the largest segmentation offload, with its headers */
    AT_ONCE = 64,             /* frames from one side before the other has its turn */
};

struct frame {
    struct frame *next;
    int64_t due;
    size_t length;
    char bytes[];
};

/* One direction. The delay is the same for all frames, so that the oldest one is always due first. */
struct way {
    int from, to;
    struct frame *first, **last;
    size_t underway;
    uint64_t random;
};

static int64_t now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * INT64_C(1000000000) + at.tv_nsec;
}

/* splitmix64: Steele, Lea and Flood, OOPSLA 2014 */
static uint32_t draw(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

/* With offloads the kernel hands over up to 64 KiB as one frame. Where frames get lost it must not: a loss is of one
 * packet on the wire. */
static int make_device(const char *space, const char *name, bool offload)
{
    int entered = open(space, O_RDONLY | O_CLOEXEC);
    if (entered < 0 || setns(entered, CLONE_NEWNET)) fail(space);
    close(entered);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) fail("/dev/net/tun");
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    if (ioctl(fd, TUNSETIFF, &request)) fail(name);
    if (ioctl(fd, TUNSETOFFLOAD, offload ? TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN : 0)) fail(name);
    return fd;
}

static void take(struct way *way, int64_t delay, uint32_t lost)
{
    static char bytes[LONGEST];
    for (int i = 0; i < AT_ONCE; i++) {
        ssize_t length = read(way->from, bytes, sizeof bytes);
        if (length <= 0) return;
        if (lost && draw(&way->random) < lost) continue;
        if (way->underway + (size_t)length > MOST_UNDERWAY) continue;
        struct frame *frame = malloc(sizeof *frame + (size_t)length);
        if (!frame) continue;
        *frame = (struct frame){.due = now() + delay, .length = (size_t)length};
        memcpy(frame->bytes, bytes, (size_t)length);
        way->underway += frame->length;
        *way->last = frame;
        way->last = &frame->next;
    }
}

/* Hands over what is due; returns when the next frame is, INT64_MAX if there is none. */
static int64_t pass_on(struct way *way)
{
    while (way->first) {
        struct frame *frame = way->first;
        if (frame->due > now()) return frame->due;
        /* A device that is down refuses: the frame is lost, as on an unplugged cable. */
        if (write(way->to, frame->bytes, frame->length) < 0 && errno == EAGAIN) return now() + 10000;
        way->first = frame->next;
        if (!way->first) way->last = &way->first;
        way->underway -= frame->length;
        free(frame);
    }
    return INT64_MAX;
}

int main(int argc, char **argv)
{
    if (argc != 8) {
        fprintf(stderr, "relay NAMESPACE_A DEVICE_A NAMESPACE_B DEVICE_B DELAY_NANOSECONDS LOST_IN_2^32 SEED\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    int64_t delay = strtoll(argv[5], NULL, 10);
    uint32_t lost = (uint32_t)strtoul(argv[6], NULL, 10);
    uint64_t seed = strtoull(argv[7], NULL, 10);
    int a = make_device(argv[1], argv[2], !lost), b = make_device(argv[3], argv[4], !lost);
    struct way ways[2] = {{.from = a, .to = b, .random = seed}, {.from = b, .to = a, .random = ~seed}};
    for (int i = 0; i < 2; i++) ways[i].last = &ways[i].first;
    puts("ready");
    fflush(stdout);
    struct pollfd polled[2] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}};
    for (;;) {
        int64_t next = INT64_MAX;
        for (int i = 0; i < 2; i++) {
            int64_t due = pass_on(&ways[i]);
            if (due < next) next = due;
        }
        int64_t wait = next == INT64_MAX ? 0 : next - now();
        if (wait < 0) wait = 0;
        struct timespec patience = {.tv_sec = wait / 1000000000, .tv_nsec = wait % 1000000000};
        if (ppoll(polled, 2, next == INT64_MAX ? NULL : &patience, NULL) < 0 && errno != EINTR) fail("ppoll");
        for (int i = 0; i < 2; i++) {
            if (polled[i].revents & (POLLERR | POLLNVAL | POLLHUP)) return 0; /* a namespace is gone */
            if (polled[i].revents & POLLIN) take(&ways[i], delay, lost);
        }
    }
}
