/* mpi_world.c: from a communicator of MPI to a world of its ranks, for programs without Python; they meet by way of it. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "transport.h"

enum { ADDRESS = 4096, NAMES = 256, WORLD = 1 /* the id of the communicator of all ranks */ };

struct card { /* what a rank tells the others of itself */
    char boot[40]; /* of its host, since it was started */
    uint64_t network; /* the number of its network namespace */
    uint64_t job; /* rank 0's counts */
    cpu_set_t processors;
    uint64_t bytes; /* of the address */
    char address[ADDRESS];
};

/* Where ranks may share memory and processors. */
static int fill_place(struct card *card)
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    bool known = file && fgets(card->boot, sizeof card->boot, file);
    if (file) fclose(file);
    struct stat namespace;
    if (!known || stat("/proc/self/ns/net", &namespace) ||
        sched_getaffinity(0, sizeof card->processors, &card->processors))
        return pcm_fail(PCM_ERR_SYSTEM, -1, "this host does not tell which it is: /proc must be mounted");
    card->network = namespace.st_ino;
    return PCM_OK;
}

static int neighbours(const struct card *cards, int size, int rank)
{
    int count = 0;
    for (int r = 0; r < size; r++) {
        cpu_set_t both;
        CPU_AND(&both, &cards[r].processors, &cards[rank].processors);
        count +=
            cards[r].network == cards[rank].network && !strcmp(cards[r].boot, cards[rank].boot) && CPU_COUNT(&both);
    }
    return count;
}

/* "shm,mpi" becomes "shm,mpi:BINDING". */
static int name_binding(const char *names, int binding, char out[NAMES])
{
    size_t used = 0;
    for (const char *at = names; *at;) {
        size_t length = strcspn(at, ",");
        bool own = length == 3 && !strncmp(at, "mpi", 3);
        if (!own && !(length == 3 && !strncmp(at, "shm", 3)))
            return pcm_fail(PCM_ERR_ARGUMENT, -1, "the transports of a world of MPI are shm and mpi, not %.80s", names);
        int n = own ? snprintf(out + used, NAMES - used, "mpi:%d", binding)
                    : snprintf(out + used, NAMES - used, "%.*s", (int)length, at);
        used += (size_t)n;
        at += length;
        if (*at && used + 1 < NAMES) out[used++] = *at++;
        if (used + 1 >= NAMES) return pcm_fail(PCM_ERR_ARGUMENT, -1, "the transports %.80s... are too many", names);
    }
    out[used] = 0;
    return PCM_OK;
}

/* Tells the ranks of each other: all get all cards. */
static int meet(int binding, pcm_world *world, struct card *mine, struct card *cards, int rank, int size)
{
    size_t bytes = ADDRESS;
    int status = pcm_world_address(world, mine->address, &bytes);
    mine->bytes = bytes;
    if (!status) status = pcm_mpi_exchange(binding, mine, sizeof *mine, cards);
    for (int r = 0; r < size && !status; r++) status = pcm_world_set_peer(world, r, cards[r].address, cards[r].bytes);
    if (!status) pcm_world_set_local_ranks(world, neighbours(cards, size, rank));
    return status;
}

static int assemble(int binding, const char *transports, pcm_world **world, pcm_comm **all)
{
    char names[NAMES];
    struct card mine = {.bytes = 0}, *cards = NULL;
    int rank, size, status = pcm_mpi_place(binding, &rank, &size);
    if (!status) status = name_binding(transports ? transports : "shm,mpi", binding, names);
    if (!status) status = fill_place(&mine);
    if (!status && getrandom(&mine.job, sizeof mine.job, 0) != sizeof mine.job)
        status = pcm_fail(PCM_ERR_SYSTEM, -1, "getrandom failed: %s", strerror(errno));
    if (!status && !(cards = calloc((size_t)size, sizeof *cards)))
        status = pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for %d ranks", size);
    int32_t *ranks = cards ? calloc((size_t)size, sizeof *ranks) : NULL;
    if (!status && !ranks) status = pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for %d ranks", size);
    if (!status) status = pcm_mpi_exchange(binding, &mine, sizeof mine, cards);
    if (!status) {
        struct pcm_world_config config = {.rank = rank, .size = size, .job = cards[0].job | 1, .transports = names};
        status = pcm_world_create(&config, world);
    }
    if (!status) {
        status = meet(binding, *world, &mine, cards, rank, size);
        for (int r = 0; r < size; r++) ranks[r] = r;
        if (!status) status = pcm_comm_create(*world, WORLD, ranks, size, all);
        if (status) pcm_world_destroy(*world);
    }
    free(ranks);
    free(cards);
    return status;
}

int pcm_mpi_world(intptr_t comm, const char *transports, pcm_world **world, pcm_comm **all)
{
    int binding, status = pcm_mpi_attach(comm, &binding);
    if (status) return status;
    status = assemble(binding, transports, world, all);
    struct pcm_error why = *pcm_last_error();
    pcm_mpi_detach(binding); /* the world's transport holds it as long as it needs it */
    return status ? pcm_fail(status, why.rank, "%s", why.text) : PCM_OK;
}
