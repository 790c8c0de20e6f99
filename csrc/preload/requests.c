/* requests.c: collectives that were started, each beside a generalized request of MPI's, which the program waits for. */
#include <sched.h>
#include <stdlib.h>

#include "preload.h"

struct started {
    struct started *next;
    struct group *group;
    pcm_request *request;
    struct staged staged;
    mpi_handle mpi;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct started *all;
static atomic_int under_way;

static int query(void *extra, void *status)
{
    (void)extra;
    more.status_set_elements(status, preload_mpi()->byte, 0);
    more.status_set_cancelled(status, 0);
    return 0;
}

static int drop(void *extra)
{
    (void)extra;
    return 0;
}

static int cancel(void *extra, int complete)
{
    (void)extra, (void)complete; /* a collective cannot be cancelled */
    return 0;
}

bool started_any(void) { return atomic_load_explicit(&under_way, memory_order_relaxed) > 0; }

bool started_add(struct group *group, pcm_request *request, const struct staged *staged, mpi_handle *out)
{
    struct started *s = calloc(1, sizeof *s);
    mpi_handle handle = 0;
    if (!s || more.grequest_start(query, drop, cancel, s, &handle)) {
        free(s);
        serve_wait(group, request);
        pcm_fail(PCM_ERR_SYSTEM, -1, "MPI has no request left");
        return false;
    }
    *s = (struct started){NULL, group, request, *staged, handle};
    pthread_mutex_lock(&lock);
    struct started **last = &all;
    while (*last) last = &(*last)->next;
    *last = s; /* the oldest first */
    if (!group->started++ && group->alone) pcm_comm_hold(group->core, 0);
    pthread_mutex_unlock(&lock);
    atomic_fetch_add(&under_way, 1);
    if (preload_handle_bytes() == sizeof(int32_t))
        *(int32_t *)(void *)out = (int32_t)handle;
    else
        *out = handle;
    return true;
}

static void complete(struct started *s, int status)
{
    serve_unstage(&s->staged, !status);
    if (!--s->group->started && s->group->alone) pcm_comm_hold(s->group->core, 1);
    if (status) more.call_errhandler(s->group->comm, 15);
    more.grequest_complete(s->mpi);
    free(s);
    atomic_fetch_sub(&under_way, 1);
}

void started_advance(void)
{
    if (pthread_mutex_trylock(&lock)) return; /* another thread does it */
    for (struct started **at = &all, *s; (s = *at);) {
        int status = pcm_wait(s->request, 0, NULL);
        if (status == PCM_AGAIN) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        complete(s, status);
    }
    pthread_mutex_unlock(&lock);
}

void started_pause(unsigned turn)
{
    started_advance();
    if (turn > 64) sched_yield();
}

void started_finish(struct group *group)
{
    pthread_mutex_lock(&lock);
    for (struct started **at = &all, *s; (s = *at);) {
        if (s->group != group) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        complete(s, serve_wait(group, s->request));
    }
    pthread_mutex_unlock(&lock);
}
