/* advice.c: this process's end of the socket to the process that chooses schedules, one a host. */
#include <errno.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "preload.h"

extern char **environ;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* one question at a time */
static int line = -1;
static char own_name[ADVICE_NAME];

/* Its own address space of names: there is no file that would be left behind. */
static socklen_t address_of(struct sockaddr_un *where, const char *name)
{
    *where = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(where->sun_path + 1, sizeof where->sun_path - 1, "%s", name);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
}

static bool has_no_part(const char *variable) { return strncmp(variable, "LD_PRELOAD=", 11) != 0; }

/* Starts the adviser on a socket that listens already, so that nobody comes too early. */
static bool spawn(int door)
{
    char python[4096];
    if (!knob_text("PYCOMM_MPI_PYTHON", python, sizeof python)) strcpy(python, "python3");
    char *const words[] = {python, "-P", "-m", "pycomm.mpi.advice", NULL};
    size_t count = 0, kept = 0;
    while (environ[count]) count++;
    char **variables = calloc(count + 1, sizeof *variables); /* it needs no MPI, and nothing in front of one */
    if (!variables) return false;
    for (size_t i = 0; i < count; i++)
        if (has_no_part(environ[i])) variables[kept++] = environ[i];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, door, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", 1 /* O_WRONLY */, 0);
    pid_t pid;
    int failed = posix_spawnp(&pid, python, &actions, NULL, words, variables);
    posix_spawn_file_actions_destroy(&actions);
    free(variables);
    if (failed) fprintf(stderr, "pycomm: cannot start %s, so MPI runs all collectives: %s\n", python, strerror(failed));
    return !failed;
}

static bool is_own(int socket)
{
    struct ucred peer;
    socklen_t length = sizeof peer;
    return !getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) && peer.uid == geteuid();
}

static bool lead_the_way(char name[ADVICE_NAME])
{
    uint64_t random[2];
    struct sockaddr_un where;
    if (getrandom(random, sizeof random, 0) != sizeof random) return false;
    snprintf(name, ADVICE_NAME, "pycomm-mpi-%016llx%016llx", (unsigned long long)random[0],
             (unsigned long long)random[1]);
    int door = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t length = address_of(&where, name);
    bool led = door >= 0 && !bind(door, (struct sockaddr *)&where, length) && !listen(door, 4096) && spawn(door);
    if (door >= 0) close(door);
    return led;
}

bool advice_connect(char name[ADVICE_NAME], bool lead)
{
    pthread_mutex_lock(&lock);
    bool good = line >= 0;
    if (!good && (lead ? lead_the_way(name) : *name != 0)) {
        struct sockaddr_un where;
        socklen_t length = address_of(&where, name);
        line = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        good = line >= 0 && !connect(line, (struct sockaddr *)&where, length) && is_own(line);
        if (!good && line >= 0) close(line), line = -1;
        if (good) memcpy(own_name, name, ADVICE_NAME);
    }
    pthread_mutex_unlock(&lock);
    return good;
}

void advice_name(char name[ADVICE_NAME])
{
    pthread_mutex_lock(&lock);
    memcpy(name, own_name, ADVICE_NAME);
    pthread_mutex_unlock(&lock);
}

static bool whole(bool sends, void *buffer, size_t bytes)
{
    for (char *at = buffer; bytes;) {
        ssize_t n = sends ? send(line, at, bytes, MSG_NOSIGNAL) : recv(line, at, bytes, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += n, bytes -= (size_t)n;
    }
    return true;
}

void *advice_ask(size_t *bytes, const char *format, ...)
{
    va_list arguments;
    char *text = NULL, *answer = NULL;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length < 0) return NULL;
    text[length] = '\n'; /* in place of the end */
    uint32_t size;
    pthread_mutex_lock(&lock);
    bool good = line >= 0 && whole(true, text, (size_t)length + 1) && whole(false, &size, sizeof size) &&
                (answer = malloc((size_t)size + 1)) && whole(false, answer, size);
    pthread_mutex_unlock(&lock);
    free(text);
    if (!good) {
        free(answer);
        return NULL;
    }
    answer[size] = 0;
    *bytes = size;
    return answer;
}

struct answer { /* mpi_advice.py, _PLAN; then steps, in_at, out_at, like, passed_at, name */
    uint32_t slices, window, name, nsteps, nchunks, in_blocks, out_blocks, passed_blocks, cut;
};

int advice_read(const void *said, size_t bytes, pcm_schedule **schedule, uint32_t *slices, uint32_t *window)
{
    const struct answer *a = said;
    if (bytes < sizeof *a ||
        bytes != sizeof *a + a->nsteps * sizeof(struct pcm_step) + 16 * (uint64_t)a->nchunks + a->name)
        return pcm_fail(PCM_ERR_SCHEDULE, -1, "the process that chooses schedules has said something else than one");
    const struct pcm_step *steps = (const void *)(a + 1);
    struct pcm_schedule_desc desc = {.steps = steps,
                                     .nsteps = a->nsteps,
                                     .nchunks = a->nchunks,
                                     .in_blocks = a->in_blocks,
                                     .out_blocks = a->out_blocks,
                                     .cut = a->cut,
                                     .passed_blocks = a->passed_blocks};
    desc.in_at = (const void *)(steps + a->nsteps);
    desc.out_at = desc.in_at + a->nchunks;
    desc.like = (const void *)(desc.out_at + a->nchunks);
    desc.passed_at = (const void *)(desc.like + a->nchunks);
    desc.name = (const void *)(desc.passed_at + a->nchunks);
    *slices = a->slices, *window = a->window;
    return pcm_schedule_create(&desc, schedule);
}

char *advice_hex(const void *bytes, size_t count)
{
    char *text = malloc(2 * count + 1);
    for (size_t i = 0; text && i < count; i++) sprintf(text + 2 * i, "%02x", ((const unsigned char *)bytes)[i]);
    if (text) text[2 * count] = 0;
    return text;
}

int advice_sign(void *user, const void *data, size_t bytes, uint8_t mac[32])
{
    const struct group *group = user;
    char *key = advice_hex(group->secret, sizeof group->secret), *said = advice_hex(data, bytes);
    size_t got = 0;
    void *answer =
        key && said ? advice_ask(&got, "{\"ask\": \"sign\", \"key\": \"%s\", \"data\": \"%s\"}", key, said) : NULL;
    bool good = answer && got == 32;
    if (good) memcpy(mac, answer, 32);
    free(key), free(said), free(answer);
    return !good;
}
