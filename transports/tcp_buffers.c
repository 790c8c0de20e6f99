/* tcp_buffers.c: the memory of fragments, and sending from it without a copy.
 *
 * A pipe takes the pages of a fragment (vmsplice) and hands them on to a socket (splice): the kernel sends from where the
 * fragment lies. Memory comes in huge pages, so that it does so in few pieces. A buffer that is given back while some of
 * it may be on its way gives up its pages too; the kernel keeps them until they are sent.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tcp.h"

enum { BLOCK = 2 * 1024 * 1024 }; /* bytes: a huge page of most machines */

struct tcp_block { /* buffers that were made together */
    SLIST_ENTRY(tcp_block) link;
    char *memory;
    struct tcp_buffer buffers[];
};

static size_t stride(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (sizeof(struct tcp_body) + page - 1) / page * page;
}

void tcp_open_buffers(struct tcp_endpoint *endpoint)
{
    STAILQ_INIT(&endpoint->pool);
    SLIST_INIT(&endpoint->blocks);
    /* A user who has many pipes gets small ones, which are slower than copying. */
    bool pipes = !pipe2(endpoint->pipe, O_CLOEXEC | O_NONBLOCK);
    if (!pipes) endpoint->pipe[0] = endpoint->pipe[1] = -1;
    endpoint->copying = !pipes || fcntl(endpoint->pipe[1], F_GETPIPE_SZ) < PCM_FRAGMENT;
}

void tcp_close_buffers(struct tcp_endpoint *endpoint)
{
    while (!SLIST_EMPTY(&endpoint->blocks)) {
        struct tcp_block *block = SLIST_FIRST(&endpoint->blocks);
        SLIST_REMOVE_HEAD(&endpoint->blocks, link);
        free(block->memory);
        free(block);
    }
    for (int i = 0; i < 2; i++)
        if (endpoint->pipe[i] >= 0) close(endpoint->pipe[i]);
}

/* Puts another block's buffers into the pool. */
static bool grow(struct tcp_endpoint *endpoint)
{
    size_t count = BLOCK / stride();
    struct tcp_block *block = calloc(1, sizeof *block + count * sizeof block->buffers[0]);
    if (!block) return false;
    block->memory = aligned_alloc(BLOCK, BLOCK);
    if (!block->memory) {
        free(block);
        return false;
    }
    madvise(block->memory, BLOCK, MADV_HUGEPAGE);
    SLIST_INSERT_HEAD(&endpoint->blocks, block, link);
    for (size_t i = 0; i < count; i++) {
        struct tcp_buffer *buffer = &block->buffers[i];
        *buffer = (struct tcp_buffer){.body = (struct tcp_body *)(block->memory + i * stride()), .bare = true};
        STAILQ_INSERT_TAIL(&endpoint->pool, buffer, link);
    }
    return true;
}

bool tcp_take_buffer(struct tcp_endpoint *endpoint, struct tcp_slot *slot)
{
    if (slot->buffer) return true;
    if (STAILQ_EMPTY(&endpoint->pool) && !grow(endpoint)) return false;
    slot->buffer = STAILQ_FIRST(&endpoint->pool);
    STAILQ_REMOVE_HEAD(&endpoint->pool, link);
    if (!slot->buffer->bare) endpoint->spare--;
    slot->buffer->bare = false;
    return true;
}

static void clear(struct tcp_slot *slot)
{
    slot->buffer = NULL;
    slot->done = slot->taken = slot->again = false;
}

void tcp_give_back(struct tcp_endpoint *endpoint, struct tcp_slot *slot)
{
    if (endpoint->spare == TCP_POOL) {
        tcp_discard(endpoint, slot);
        return;
    }
    if (slot->buffer) {
        STAILQ_INSERT_HEAD(&endpoint->pool, slot->buffer, link);
        endpoint->spare++;
    }
    clear(slot);
}

void tcp_discard(struct tcp_endpoint *endpoint, struct tcp_slot *slot)
{
    if (slot->buffer) {
        madvise(slot->buffer->body, stride(), MADV_DONTNEED);
        slot->buffer->bare = true;
        STAILQ_INSERT_TAIL(&endpoint->pool, slot->buffer, link);
    }
    clear(slot);
}

/* What the socket did not take must not stay in the pipe: the next to use it may be another socket's. */
static void drain(int pipe, size_t bytes)
{
    char unwanted[4096];
    while (bytes > 0) {
        ssize_t got = read(pipe, unwanted, bytes < sizeof unwanted ? bytes : sizeof unwanted);
        if (got <= 0 && errno != EINTR) return;
        if (got > 0) bytes -= (size_t)got;
    }
}

ssize_t tcp_send_pages(struct tcp_endpoint *endpoint, int fd, const struct iovec *piece)
{
    ssize_t there = vmsplice(endpoint->pipe[1], piece, 1, SPLICE_F_NONBLOCK), sent = -1;
    bool able = there > 0;
    if (able) {
        sigset_t pipe, before; /* splice knows no MSG_NOSIGNAL */
        sigemptyset(&pipe);
        sigaddset(&pipe, SIGPIPE);
        pthread_sigmask(SIG_BLOCK, &pipe, &before);
        sent = splice(endpoint->pipe[0], NULL, fd, NULL, (size_t)there, SPLICE_F_NONBLOCK);
        int error = errno;
        if (sent < 0 && error == EPIPE) sigtimedwait(&pipe, NULL, &(struct timespec){0});
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (sent < there) drain(endpoint->pipe[0], (size_t)(there - (sent > 0 ? sent : 0)));
        errno = error;
        able = sent >= 0 || (error != EINVAL && error != ENOSYS && error != EPERM);
    }
    if (able) return sent;
    endpoint->copying = true; /* some sandboxes do not allow it */
    return send(fd, piece->iov_base, piece->iov_len, MSG_NOSIGNAL);
}
