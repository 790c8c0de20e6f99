/* narrow.c: MPI's own functions, and those with 64-bit counts by others where MPI has them not.
 *
 * A program that looks whether there is a function with 64-bit counts, as mpi4py does, finds the entry here whether or not MPI has
 * one. Where it has not, the function with 32-bit counts does it: a count that is an argument is the lower half of its register
 * to that, and lists of counts are copied.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "preload.h"

void *preload_own(struct own *own, const char *name)
{
    void *function = atomic_load_explicit(&own->function, memory_order_acquire);
    if (function) return function;
    char other[64];
    size_t length = strlen(name);
    if (!strcmp(name + length - 2, "_c") && length < sizeof other && !mpi_function(name)) {
        snprintf(other, sizeof other, "%.*s", (int)length - 2, name);
        own->narrow = true;
        name = other;
    }
    function = preload_function(name);
    atomic_store_explicit(&own->function, function, memory_order_release);
    return function;
}

static bool fits(int64_t value) { return value >= INT_MIN && value <= INT_MAX; }

static bool copy(struct narrowed *n, const int64_t *list, int size)
{
    int *ints = malloc((size_t)size * sizeof *ints);
    bool good = ints;
    for (int i = 0; good && i < size; i++) good = fits(list[i]), ints[i] = (int)list[i];
    n->from[n->count] = list, n->to[n->count++] = ints;
    return good;
}

/* Which sides of a call are looked at on this rank; others may be anything. */
static void seen(const struct ask *ask, int rank, const struct side *sides[2])
{
    bool others = ask->root != rank;
    if (!(others && ask->collective == PCM_SCATTER) && ask->in.buffer != preload_mpi()->in_place) sides[0] = &ask->in;
    if (!(others && ask->collective == PCM_GATHER)) sides[1] = &ask->out;
}

bool preload_narrow(const struct own *own, const struct ask *ask, struct narrowed *n)
{
    const struct mpi_library *mpi = preload_mpi();
    int rank, size;
    if (!own->narrow || !mpi || mpi->comm_rank(ask->comm, &rank) || mpi->comm_size(ask->comm, &size)) return true;
    const struct side *sides[2] = {NULL, NULL};
    bool good = true;
    seen(ask, rank, sides);
    for (int i = 0; i < 2 && good; i++) {
        if (!sides[i]) continue;
        good = sides[i]->counts ? copy(n, sides[i]->counts, size) : fits(sides[i]->count);
        if (good && sides[i]->displs) good = copy(n, sides[i]->displs, size);
    }
    return good;
}

const void *preload_ints(const struct narrowed *n, const void *list)
{
    for (int i = 0; i < n->count; i++)
        if (n->from[i] == list) return n->to[i];
    return list;
}

/* MPI reads the lists of what was started until it is done, which we do not see. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct kept {
    struct kept *next;
    struct narrowed lists;
} *kept;

static void drop(struct narrowed *n)
{
    while (n->count) free(n->to[--n->count]);
}

int preload_done(struct narrowed *n, bool started, int code)
{
    struct kept *keep = n->count && started ? malloc(sizeof *keep) : NULL;
    if (keep) {
        pthread_mutex_lock(&lock);
        *keep = (struct kept){kept, *n};
        kept = keep;
        pthread_mutex_unlock(&lock);
    } else if (!started)
        drop(n);
    return code;
}

int preload_too_many(const struct ask *ask, struct narrowed *n)
{
    enum { MPI_ERR_COUNT = 2 };
    drop(n);
    fprintf(stderr, "pycomm: more than 2^31 - 1 elements, and the MPI of this program takes no 64-bit counts\n");
    more.call_errhandler(preload_handle(ask->comm), MPI_ERR_COUNT);
    return MPI_ERR_COUNT;
}

void preload_drop_kept(void)
{
    for (struct kept *next; kept; kept = next) {
        next = kept->next;
        drop(&kept->lists);
        free(kept);
    }
}
