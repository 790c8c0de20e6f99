/* mpi_binding.c: duplicates of the program's communicators: made, found, and freed with what they are duplicates of. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpi_channel.h"

enum { MOST_NUMBERS = 1 << 15 };

/* Taken before any world's lock, never after it. Guards the list, uses, and which endpoint belongs to which binding. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t numbers_lock = PTHREAD_MUTEX_INITIALIZER;
static struct mpi_binding *bindings;
static bool watched; /* MPI_COMM_SELF tells us when MPI is finalized */

int mpi_refused(const struct mpi_library *mpi, const char *what, int code)
{
    char text[1024] = ""; /* MPI_MAX_ERROR_STRING is at most 1024 */
    int length = sizeof text;
    mpi->error_string(code, text, &length);
    return pcm_fail(PCM_ERR_SYSTEM, -1, "%s failed: %.300s", what, text);
}

/* ---- numbers ---------------------------------------------------------------------------------------------------------- */

int mpi_number_take(struct mpi_binding *b)
{
    pthread_mutex_lock(&numbers_lock);
    int number = 0;
    while (number < b->most_numbers && b->numbers[number]) number++;
    if (number < b->most_numbers)
        b->numbers[number] = true;
    else
        number = -1;
    pthread_mutex_unlock(&numbers_lock);
    return number;
}

void mpi_number_give(struct mpi_binding *b, int number)
{
    pthread_mutex_lock(&numbers_lock);
    b->numbers[number] = false;
    pthread_mutex_unlock(&numbers_lock);
}

/* ---- the end -------------------------------------------------------------------------------------------------------- */

/* Ends what uses the duplicate, and frees it: the program's communicator is being freed, MPI finalized, or nobody is left. */
static void end(struct mpi_binding *b)
{
    pthread_mutex_lock(&lock);
    while (b->endpoints) {
        struct mpi_endpoint *e = b->endpoints;
        pcm_world *world = e->base.world;
        pcm_world_enter(world);
        b->endpoints = e->sibling;
        pthread_mutex_unlock(&lock);
        mpi_endpoint_end(e);
        e->dead = true;
        pcm_world_leave(world);
        pthread_mutex_lock(&lock);
    }
    bool last = !b->gone;
    b->gone = true;
    pthread_mutex_unlock(&lock);
    /* Collective by the letter of MPI, local in all libraries; but not worth a risk where a peer has died. */
    if (last && !b->broken) b->mpi->comm_free(&b->comm);
}

/* Frees a binding that nobody holds. Under the lock. */
static void sweep(struct mpi_binding *b)
{
    if (b->uses || b->held) return;
    struct mpi_binding **at = &bindings;
    while (*at != b) at = &(*at)->next;
    *at = b->next;
    free(b->numbers);
    free(b);
}

static int do_not_copy(mpi_handle comm, int keyval, void *extra, void *in, void *out, int *flag)
{
    (void)comm, (void)keyval, (void)extra, (void)in, (void)out;
    *flag = 0;
    return 0;
}

static int parent_freed(mpi_handle comm, int keyval, void *value, void *extra)
{
    (void)comm, (void)keyval, (void)extra;
    struct mpi_binding *b = value;
    end(b);
    int spent = b->keyval;
    b->mpi->comm_free_keyval(&spent);
    pthread_mutex_lock(&lock);
    b->held = false;
    sweep(b);
    pthread_mutex_unlock(&lock);
    return 0;
}

/* MPI_COMM_SELF is freed first when MPI is finalized, while everything still works. */
static int mpi_finalizes(mpi_handle comm, int keyval, void *value, void *extra)
{
    (void)comm, (void)keyval, (void)value, (void)extra;
    for (;;) {
        pthread_mutex_lock(&lock);
        struct mpi_binding *b = bindings;
        while (b && b->gone) b = b->next;
        pthread_mutex_unlock(&lock);
        if (!b) return 0;
        end(b);
    }
}

/* ---- the beginning ---------------------------------------------------------------------------------------------------- */

static int watch_finalize(const struct mpi_library *mpi)
{
    if (watched) return 0;
    int keyval, code = mpi->comm_create_keyval(do_not_copy, mpi_finalizes, &keyval, NULL);
    if (!code) code = mpi->comm_set_attr(mpi->comm_self, keyval, &watched);
    watched = !code;
    return code;
}

static int duplicate(struct mpi_binding *b)
{
    const struct mpi_library *mpi = b->mpi;
    int code = mpi->comm_dup(b->parent, &b->comm);
    if (code) return mpi_refused(mpi, "MPI_Comm_dup", code);
    int level = 0, has = 0, *most = NULL;
    code = mpi->comm_set_errhandler(b->comm, mpi->errors_return);
    if (!code) code = mpi->comm_rank(b->comm, &b->rank);
    if (!code) code = mpi->comm_size(b->comm, &b->size);
    if (!code) code = mpi->query_thread(&level);
    if (!code) code = mpi->comm_get_attr(b->comm, mpi->tag_ub, &most, &has);
    if (!code) code = mpi->comm_create_keyval(do_not_copy, parent_freed, &b->keyval, NULL);
    if (!code) code = mpi->comm_set_attr(b->parent, b->keyval, b);
    if (!code) code = watch_finalize(mpi);
    if (code) return mpi_refused(mpi, "describing an MPI communicator", code);
    b->held = true;
    b->multiple = level == mpi->thread_multiple;
    int top = has && most ? *most : 32767; /* which MPI promises */
    b->most_numbers = top / MPI_TAGS_EACH < MOST_NUMBERS ? top / MPI_TAGS_EACH : MOST_NUMBERS;
    b->numbers = calloc((size_t)b->most_numbers, sizeof *b->numbers);
    return b->numbers ? PCM_OK : pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for the tags of an MPI communicator");
}

int pcm_mpi_attach(intptr_t comm, int *number)
{
    static int made;
    const struct mpi_library *mpi = mpi_library();
    if (!mpi) return PCM_ERR_SYSTEM;
    int inter = 0;
    if (mpi->comm_test_inter(comm, &inter) || inter)
        return pcm_fail(PCM_ERR_ARGUMENT, -1,
                        "pycomm works among the ranks of one MPI communicator, and this is an "
                        "intercommunicator: merge it first (MPI_Intercomm_merge)");
    struct mpi_binding *b = calloc(1, sizeof *b);
    if (!b) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for an MPI communicator");
    b->mpi = mpi, b->parent = comm, b->uses = 1;
    int status = duplicate(b);
    pthread_mutex_lock(&lock);
    b->number = *number = ++made;
    b->next = bindings;
    bindings = b;
    pthread_mutex_unlock(&lock);
    if (status) mpi_binding_leave(b);
    return status;
}

static struct mpi_binding *find(int number)
{
    struct mpi_binding *b = bindings;
    while (b && (b->number != number || b->gone)) b = b->next;
    if (!b) pcm_fail(PCM_ERR_ARGUMENT, -1, "there is no MPI communicator with number %d, or it was freed", number);
    return b;
}

struct mpi_binding *mpi_binding_join(int number, struct mpi_endpoint *e)
{
    pthread_mutex_lock(&lock);
    struct mpi_binding *b = find(number);
    if (b) b->uses++, e->sibling = b->endpoints, b->endpoints = e;
    pthread_mutex_unlock(&lock);
    return b;
}

bool mpi_binding_part(struct mpi_endpoint *e)
{
    pthread_mutex_lock(&lock);
    struct mpi_endpoint **at = &e->binding->endpoints;
    while (*at && *at != e) at = &(*at)->sibling;
    bool parted = *at;
    if (parted) *at = e->sibling;
    pthread_mutex_unlock(&lock);
    if (!parted)
        pcm_world_enter(e->base.world), pcm_world_leave(e->base.world); /* the binding's end of it is over now */
    return parted;
}

void mpi_binding_leave(struct mpi_binding *b)
{
    pthread_mutex_lock(&lock);
    bool own =
        b->uses == 1 && b->held && !b->gone; /* once it is gone, MPI itself is about to take the attribute away */
    pthread_mutex_unlock(&lock);
    if (own) b->mpi->comm_delete_attr(b->parent, b->keyval); /* which calls parent_freed */
    pthread_mutex_lock(&lock);
    b->uses--;
    sweep(b);
    pthread_mutex_unlock(&lock);
}

int pcm_mpi_detach(int number)
{
    pthread_mutex_lock(&lock);
    struct mpi_binding *b = find(number);
    pthread_mutex_unlock(&lock);
    if (!b) return PCM_ERR_ARGUMENT;
    mpi_binding_leave(b);
    return PCM_OK;
}

int pcm_mpi_place(int number, int *rank, int *size)
{
    pthread_mutex_lock(&lock);
    struct mpi_binding *b = find(number);
    if (b) *rank = b->rank, *size = b->size;
    pthread_mutex_unlock(&lock);
    return b ? PCM_OK : PCM_ERR_ARGUMENT;
}

intptr_t pcm_mpi_comm_world(void)
{
    const struct mpi_library *mpi = mpi_library();
    return mpi ? mpi->comm_world : 0;
}

intptr_t pcm_mpi_from_fortran(int comm)
{
    const struct mpi_library *mpi = mpi_library();
    return !mpi ? 0 : mpi->comm_f2c ? mpi->comm_f2c(comm) : comm;
}

const char *pcm_mpi_version(char *text)
{
    const struct mpi_library *mpi = mpi_library();
    int length = 0;
    *text = 0;
    if (mpi) mpi->get_library_version(text, &length); /* of at most MPI_MAX_LIBRARY_VERSION_STRING, 8192 with MPICH */
    return text;
}

int pcm_mpi_exchange(int number, const void *mine, size_t bytes, void *all)
{
    pthread_mutex_lock(&lock);
    struct mpi_binding *b = find(number);
    pthread_mutex_unlock(&lock);
    if (!b) return PCM_ERR_ARGUMENT;
    if (bytes > INT32_MAX) return pcm_fail(PCM_ERR_ARGUMENT, -1, "%zu bytes are too many to be exchanged", bytes);
    int code = b->mpi->allgather(mine, (int)bytes, b->mpi->byte, all, (int)bytes, b->mpi->byte, b->comm);
    return code ? mpi_refused(b->mpi, "MPI_Allgather", code) : PCM_OK;
}
