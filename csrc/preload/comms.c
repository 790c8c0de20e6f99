/* comms.c: each communicator of the program, and the one of ours beside it, made at its first collective. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "preload.h"

enum { BUCKETS = 256, FACTS = 512, ADDRESS = 1024 };
static const double NEVER = 1e8; /* seconds: MPI has no deadlines */

/* Guards the table and what is dead; not held while ranks meet, for they may meet on several communicators in any order. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct group *buckets[BUCKETS], *dead;
static int keyval;
static bool has_keyval;

/* What a thread has looked up last, for this is on the way of each call. Valid until anything leaves the table: then it may be
 * gone, or its handle another's. */
static atomic_uint departures;
static _Thread_local struct {
    struct group *group;
    mpi_handle comm;
    unsigned departures;
} latest __attribute__((tls_model("initial-exec")));

static struct group **bucket(mpi_handle comm) { return &buckets[(uint64_t)comm * 0x9e3779b97f4a7c15u >> 56]; }

/* ---- the end ---------------------------------------------------------------------------------------------------------- */

static void end(struct group *g)
{
    started_finish(g);
    if (g->core) {
        if (g->alone) pcm_comm_hold(g->core, 0);
        pcm_comm_free(g->core);
    }
    if (g->world) pcm_world_destroy(g->world);
    pcm_ways_free(g->ways);
    free(g->key.hex);
    free(g);
}

static void bury(void)
{
    pthread_mutex_lock(&lock);
    struct group *g = dead;
    dead = NULL;
    pthread_mutex_unlock(&lock);
    for (struct group *next; g; g = next) {
        next = g->next;
        end(g);
    }
}

static struct group *taken(mpi_handle comm)
{
    pthread_mutex_lock(&lock);
    struct group **at = bucket(comm);
    while (*at && (*at)->comm != comm) at = &(*at)->next;
    struct group *g = *at;
    if (g) *at = g->next;
    atomic_fetch_add(&departures, 1);
    pthread_mutex_unlock(&lock);
    return g;
}

static int do_not_copy(mpi_handle comm, int number, void *extra, void *in, void *out, int *flag)
{
    (void)comm, (void)number, (void)extra, (void)in, (void)out;
    *flag = 0;
    return 0;
}

/* The communicator is freed on a way that does not pass by us, and its handle may soon be another's. */
static int freed(mpi_handle comm, int number, void *value, void *extra)
{
    (void)number, (void)value, (void)extra;
    struct group *g = taken(preload_handle(comm));
    if (!g) return 0;
    pthread_mutex_lock(&lock);
    g->next = dead, dead = g;
    pthread_mutex_unlock(&lock);
    return 0;
}

void preload_forget(mpi_handle comm)
{
    struct group *g = taken(comm);
    if (g) end(g);
}

void preload_forget_all(void)
{
    bury();
    for (int b = 0; b < BUCKETS; b++)
        while (buckets[b]) preload_forget(buckets[b]->comm);
}

/* ---- the beginning ----------------------------------------------------------------------------------------------------- */

struct hello {
    uint64_t host[2], job;
    uint8_t secret[32];
    char adviser[ADVICE_NAME];
    int multiple;
};

struct fact {
    int good;
    uint32_t bytes;
    unsigned char data[FACTS];
};

struct place {
    int good;
    uint64_t bytes;
    unsigned char data[ADDRESS];
};

/* What the processes of a host have in common. */
static bool host_of(uint64_t host[2])
{
    char boot[64] = "";
    struct stat space;
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    bool good = file && fgets(boot, sizeof boot, file) && !stat("/proc/self/ns/net", &space);
    if (file) fclose(file);
    host[0] = 14695981039346656037u; /* FNV-1a */
    for (const char *c = boot; *c; c++) host[0] = (host[0] ^ (unsigned char)*c) * 1099511628211u;
    host[1] = good ? (uint64_t)space.st_ino : 0;
    return good;
}

/* Connects the ranks of each host with one adviser: one that some of them know already, or a new one. */
static bool find_adviser(const struct group *g, int binding, struct hello *own, struct hello *all)
{
    int lead = -1;
    for (int pass = 0; pass < 2; pass++)
        for (int r = 0; r < g->size && lead < 0; r++)
            if (!memcmp(all[r].host, own->host, sizeof own->host) && (pass || *all[r].adviser)) lead = r;
    bool good = lead >= 0;
    if (lead == g->rank && !*own->adviser) good = advice_connect(own->adviser, true);
    if (pcm_mpi_exchange(binding, own, sizeof *own, all)) return false;
    return good && advice_connect(all[lead].adviser, false);
}

static bool agree(int binding, int size, int good)
{
    int *all = calloc((size_t)size, sizeof *all);
    bool alike = all && !pcm_mpi_exchange(binding, &good, sizeof good, all);
    for (int r = 0; alike && r < size; r++) alike = all[r];
    free(all);
    return alike;
}

static bool learn_machine(struct group *g, int binding, int *mates, int *hosts)
{
    struct fact own = {.good = 0};
    struct fact *all = calloc((size_t)g->size, sizeof *all);
    size_t bytes = 0;
    void *facts = pcm_helper_ask(&adviser, &bytes, "{\"ask\": \"facts\", \"pid\": %d}", (int)getpid());
    own.good = facts && bytes <= FACTS;
    own.bytes = own.good ? (uint32_t)bytes : 0;
    if (own.good) memcpy(own.data, facts, bytes);
    free(facts);
    bool good = all && !pcm_mpi_exchange(binding, &own, sizeof own, all);
    unsigned char *both = good ? malloc((size_t)g->size * FACTS) : NULL;
    for (int r = 0; (good = good && both && all[r].good && all[r].bytes == own.bytes) && r + 1 < g->size; r++) {
    }
    for (int r = 0; good && r < g->size; r++) memcpy(both + (size_t)r * own.bytes, all[r].data, own.bytes);
    char *text = good ? pcm_helper_hex(both, (size_t)g->size * own.bytes) : NULL;
    int32_t *said =
        text ? pcm_helper_ask(&adviser, &bytes, "{\"ask\": \"machine\", \"facts\": \"%s\", \"rank\": %d, \"size\": %d}",
                              text, g->rank, g->size)
             : NULL;
    good = said && bytes == 3 * sizeof *said;
    if (good) g->machine = said[0], *mates = said[1], *hosts = said[2];
    free(said), free(text), free(both), free(all);
    return good;
}

static bool open_world(struct group *g, int binding, uint64_t job, int mates, int hosts)
{
    char transports[32] = "shm";
    if (hosts > 1) snprintf(transports, sizeof transports, "shm,mpi:%d", binding);
    struct pcm_world_config config = {.rank = g->rank,
                                      .size = g->size,
                                      .job = job,
                                      .transports = transports,
                                      .mac = pcm_helper_sign,
                                      .mac_user = &g->key};
    struct place own = {.bytes = ADDRESS}, *all = calloc((size_t)g->size, sizeof *all);
    int32_t *ranks = calloc((size_t)g->size, sizeof *ranks);
    own.good =
        all && ranks && !pcm_world_create(&config, &g->world) && !pcm_world_address(g->world, own.data, &own.bytes);
    bool good = all && !pcm_mpi_exchange(binding, &own, sizeof own, all);
    for (int r = 0; good && r < g->size; r++)
        good = all[r].good && !pcm_world_set_peer(g->world, r, all[r].data, all[r].bytes);
    for (int r = 0; good && r < g->size; r++) ranks[r] = r;
    if (good) pcm_world_set_local_ranks(g->world, mates);
    good = good && !pcm_comm_create(g->world, 1, ranks, g->size, &g->core);
    if (good) {
        pcm_comm_set_timeout(g->core, NEVER);
        g->alone = hosts == 1;
        if (g->alone) pcm_comm_hold(g->core, 1);
    }
    free(all), free(ranks);
    return good;
}

/* Every rank goes through all exchanges, whether or not something has failed on it. */
static bool make(struct group *g)
{
    const struct mpi_library *mpi = preload_mpi();
    int inter = 0, binding, level = 0, mates = 1, hosts = 1;
    if (mpi->comm_test_inter(g->comm, &inter) || inter || mpi->comm_rank(g->comm, &g->rank) ||
        mpi->comm_size(g->comm, &g->size) || g->size < 2)
        return false;
    if (pcm_mpi_attach(g->comm, &binding)) return false;
    struct hello own = {.job = 0}, *all = calloc((size_t)g->size, sizeof *all);
    bool good = host_of(own.host) && getrandom(own.secret, sizeof own.secret, 0) == sizeof own.secret &&
                getrandom(&own.job, sizeof own.job, 0) == sizeof own.job;
    advice_name(own.adviser);
    own.multiple = !mpi->query_thread(&level) && level == mpi->thread_multiple;
    good = all && !pcm_mpi_exchange(binding, &own, sizeof own, all) && good;
    uint64_t job = all ? all[0].job | 1 : 1;
    g->async = true;
    for (int r = 0; all && r < g->size; r++) g->async &= all[r].multiple;
    if (all) g->key = (struct pcm_key){&adviser, pcm_helper_hex(all[0].secret, sizeof all[0].secret)};
    good = good && g->key.hex;
    good = agree(binding, g->size, good) && agree(binding, g->size, find_adviser(g, binding, &own, all)) &&
           agree(binding, g->size, learn_machine(g, binding, &mates, &hosts)) &&
           agree(binding, g->size, open_world(g, binding, job, mates, hosts));
    g->async |= hosts == 1; /* MPI has no part in it, and so any thread may make progress */
    free(all);
    if (good) race_recall(g, binding);
    pcm_mpi_detach(binding);
    if (!good && g->rank == 0)
        fprintf(stderr, "pycomm: MPI runs the collectives of a communicator of %d ranks: %s\n", g->size,
                *pcm_last_error()->text ? pcm_last_error()->text : "some rank has no adviser");
    return good;
}

static struct group *make_group(mpi_handle comm)
{
    bury();
    struct group *g = calloc(1, sizeof *g);
    if (!g) return NULL;
    g->comm = comm;
    g->ours = make(g);
    const struct mpi_library *mpi = preload_mpi();
    pthread_mutex_lock(&lock);
    if (!has_keyval) has_keyval = !mpi->comm_create_keyval(do_not_copy, freed, &keyval, NULL);
    pthread_mutex_unlock(&lock);
    if (has_keyval) mpi->comm_set_attr(comm, keyval, g); /* before it is found: `freed` is called of an earlier one's */
    pthread_mutex_lock(&lock);
    struct group **at = bucket(comm);
    g->next = *at, *at = g;
    pthread_mutex_unlock(&lock);
    return g;
}

struct group *preload_group(mpi_handle comm)
{
    unsigned gone = atomic_load_explicit(&departures, memory_order_acquire);
    if (!latest.group || latest.comm != comm || latest.departures != gone) {
        pthread_mutex_lock(&lock);
        struct group *g = *bucket(comm);
        while (g && g->comm != comm) g = g->next;
        pthread_mutex_unlock(&lock);
        latest.group = g ? g : make_group(comm), latest.comm = comm;
        latest.departures = atomic_load_explicit(&departures, memory_order_acquire);
    }
    return latest.group && latest.group->ours ? latest.group : NULL;
}
