/* launched.c: a world whose ranks a launcher has started, for programs without Python: a helper process, one a rank, joins the
 * job, tells of ranks that die, and chooses schedules. pycomm/helper/launched.py is its other end. */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "helper.h"

enum { WORLD = 1 /* the id of the communicator of all ranks */, ADDRESS = 4096 };

struct launched {
    struct pcm_aide aide; /* the first: they are one to the core */
    struct pcm_helper helper;
    struct pcm_key key;
    pcm_world *world;
    int news; /* a socket on which losses are told */
    pthread_t listener;
    bool listens;
    pid_t pid;
};

struct pcm_advised { /* what belongs to a communicator */
    int machine;
    struct pcm_way *ways;
};

/* ---- schedules ------------------------------------------------------------------------------------------------------ */

static int advised(struct launched *l, pcm_comm *comm)
{
    size_t room = 12 * (size_t)comm->size + 1, used = 0, bytes;
    char *ranks = malloc(room);
    struct pcm_advised *own = calloc(1, sizeof *own);
    for (int r = 0; ranks && r < comm->size; r++)
        used += (size_t)snprintf(ranks + used, room - used, "%s%d", r ? "," : "", (int)comm->ranks[r]);
    int32_t *machine = NULL;
    if (!ranks || !own)
        pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for a communicator of %d ranks", comm->size);
    else
        machine = pcm_helper_ask(&l->helper, &bytes, "{\"ask\": \"group\", \"ranks\": [%s]}", ranks);
    free(ranks);
    if (!machine) return free(own), pcm_last_error()->code;
    own->machine = *machine;
    free(machine);
    pcm_world_enter(l->world);
    if (comm->advised)
        free(own); /* another thread was faster */
    else
        comm->advised = own;
    pcm_world_leave(l->world);
    return PCM_OK;
}

static int plan(struct pcm_aide *aide, pcm_comm *comm, const struct pcm_call *call)
{
    struct launched *l = (struct launched *)aide;
    pcm_world_enter(l->world);
    bool known = comm->advised;
    pcm_world_leave(l->world);
    int status = known ? PCM_OK : advised(l, comm);
    if (status) return status;
    uint64_t blocks = pcm_is_whole(call->collective) ? 1 : (uint64_t)comm->size;
    return pcm_ways_plan(&l->helper, comm->advised->machine, &comm->advised->ways, comm, call,
                         call->count * blocks * pcm_dtype_size(call->dtype));
}

static void forget(pcm_comm *comm)
{
    if (comm->advised) pcm_ways_free(comm->advised->ways);
    free(comm->advised);
}

/* ---- the control plane ------------------------------------------------------------------------------------------------ */

static void abort_all(pcm_world *world, const char *why)
{
    pcm_world_enter(world);
    for (pcm_comm *comm = world->comms; comm; comm = comm->next) pcm_comm_fail(comm, PCM_ERR_ABORTED, -1, "%s", why);
    pcm_world_leave(world);
}

static void *listen_to_news(void *user)
{
    struct launched *l = user;
    struct {
        int32_t rank; /* -1: the whole job */
        uint32_t bytes;
    } head;
    while (pcm_helper_read(l->news, &head, sizeof head)) {
        char *why = malloc((size_t)head.bytes + 1);
        if (!why || !pcm_helper_read(l->news, why, head.bytes)) return free(why), NULL;
        why[head.bytes] = 0;
        if (head.rank < 0)
            abort_all(l->world, why);
        else
            pcm_world_peer_lost(l->world, head.rank, why);
        free(why);
    }
    return NULL;
}

static void leave(struct pcm_aide *aide)
{
    struct launched *l = (struct launched *)aide;
    size_t bytes;
    free(pcm_helper_ask(&l->helper, &bytes, "{\"ask\": \"leave\"}"));
    shutdown(l->news, SHUT_RDWR);
    if (l->listens) pthread_join(l->listener, NULL);
}

static void end(struct pcm_aide *aide)
{
    struct launched *l = (struct launched *)aide;
    if (l->helper.line >= 0) close(l->helper.line);
    if (l->news >= 0) close(l->news);
    while (l->pid > 0 && waitpid(l->pid, NULL, 0) < 0 && errno == EINTR) {
    }
    pthread_mutex_destroy(&l->helper.lock);
    free(l->key.hex);
    free(l);
}

/* ---- the beginning ------------------------------------------------------------------------------------------------------- */

static int start_helper(struct launched *l)
{
    int line[2], news[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, line))
        return pcm_fail(PCM_ERR_SYSTEM, -1, "socketpair failed: %s", strerror(errno));
    l->helper.line = line[0];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, news)) {
        close(line[1]);
        return pcm_fail(PCM_ERR_SYSTEM, -1, "socketpair failed: %s", strerror(errno));
    }
    l->news = news[0];
    int status = pcm_helper_start("pycomm.helper.launched", line[1], news[1], &l->pid);
    close(line[1]), close(news[1]);
    return status;
}

/* launched.py, _JOINED; then four texts with their ends: the secret in hex, transports, listen, advertise */
struct joined {
    int32_t rank, size;
    uint64_t job;
    double timeout;
    int32_t encrypt;
    char texts[];
};

static const char *next(const char **texts)
{
    const char *text = *texts;
    *texts += strlen(text) + 1;
    return *text ? text : NULL;
}

static int create_world(struct launched *l, const struct joined *joined)
{
    const char *texts = joined->texts, *secret = next(&texts);
    l->key = (struct pcm_key){&l->helper, strdup(secret ? secret : "")};
    struct pcm_world_config config = {.rank = joined->rank,
                                      .size = joined->size,
                                      .job = joined->job,
                                      .transports = next(&texts),
                                      .listen = next(&texts),
                                      .advertise = next(&texts),
                                      .encrypt = joined->encrypt,
                                      .mac = pcm_helper_sign,
                                      .mac_user = &l->key};
    if (!l->key.hex) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for a secret");
    return pcm_world_create(&config, &l->world);
}

/* All ranks tell each other where they are. */
static int meet(struct launched *l, int size)
{
    unsigned char address[ADDRESS];
    size_t bytes = sizeof address, got = 0;
    int status = pcm_world_address(l->world, address, &bytes);
    if (status) return status;
    char *hex = pcm_helper_hex(address, bytes);
    if (!hex) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for an address");
    char *answer = pcm_helper_ask(&l->helper, &got, "{\"ask\": \"meet\", \"address\": \"%s\"}", hex);
    free(hex);
    if (!answer) return pcm_last_error()->code;
    const char *at = answer;
    int32_t neighbours;
    memcpy(&neighbours, at, sizeof neighbours), at += sizeof neighbours;
    for (int r = 0; r < size && !status; r++) {
        uint32_t length;
        memcpy(&length, at, sizeof length), at += sizeof length;
        status = pcm_world_set_peer(l->world, r, at, length);
        at += length;
    }
    pcm_world_set_local_ranks(l->world, neighbours);
    free(answer);
    return status;
}

static int make_all(struct launched *l, int size, double timeout, pcm_comm **all)
{
    int32_t *ranks = calloc((size_t)size, sizeof *ranks);
    if (!ranks) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for %d ranks", size);
    for (int r = 0; r < size; r++) ranks[r] = r;
    int status = pcm_comm_create(l->world, WORLD, ranks, size, all);
    free(ranks);
    if (status) return status;
    pcm_comm_set_timeout(*all, timeout);
    int failed = pthread_create(&l->listener, NULL, listen_to_news, l);
    if (failed) return pcm_fail(PCM_ERR_SYSTEM, -1, "no thread can be started: %s", strerror(failed));
    l->listens = true;
    return PCM_OK;
}

int pcm_launched_world(pcm_world **world, pcm_comm **all)
{
    static atomic_flag called = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&called))
        return pcm_fail(PCM_ERR_ARGUMENT, -1, "a process joins its job once, and this one has done so before");
    struct launched *l = calloc(1, sizeof *l);
    if (!l) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for a world");
    l->aide = (struct pcm_aide){plan, forget, leave, end};
    l->helper = (struct pcm_helper){PTHREAD_MUTEX_INITIALIZER, -1};
    l->news = -1;
    size_t bytes = 0;
    struct joined *joined = NULL;
    int status = start_helper(l);
    if (!status) {
        joined = pcm_helper_ask(&l->helper, &bytes, "{\"ask\": \"join\", \"pid\": %d}", (int)getpid());
        status = joined ? create_world(l, joined) : pcm_last_error()->code;
    }
    if (!status) status = meet(l, joined->size);
    if (!status) status = make_all(l, joined->size, joined->timeout, all);
    free(joined);
    if (!status) {
        l->world->aide = &l->aide;
        *world = l->world;
        return PCM_OK;
    }
    struct pcm_error why = *pcm_last_error();
    pcm_world_destroy(l->world);
    end(&l->aide);
    return pcm_fail(status, why.rank, "%s", why.text);
}
