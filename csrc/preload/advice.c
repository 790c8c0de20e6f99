/* advice.c: this process's end of the socket to the process that chooses schedules, one a host. */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "preload.h"

struct pcm_helper adviser = {PTHREAD_MUTEX_INITIALIZER, -1};
static char own_name[ADVICE_NAME];

/* Its own address space of names: there is no file that would be left behind. */
static socklen_t address_of(struct sockaddr_un *where, const char *name)
{
    *where = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(where->sun_path + 1, sizeof where->sun_path - 1, "%s", name);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
}

static bool is_own(int socket)
{
    struct ucred peer;
    socklen_t length = sizeof peer;
    return !getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) && peer.uid == geteuid();
}

/* Starts the adviser on a socket that listens already, so that nobody comes too early. */
static bool lead_the_way(char name[ADVICE_NAME])
{
    uint64_t random[2];
    struct sockaddr_un where;
    if (getrandom(random, sizeof random, 0) != sizeof random) return false;
    snprintf(name, ADVICE_NAME, "pycomm-mpi-%016llx%016llx", (unsigned long long)random[0],
             (unsigned long long)random[1]);
    int door = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t length = address_of(&where, name);
    pid_t pid;
    bool led = door >= 0 && !bind(door, (struct sockaddr *)&where, length) && !listen(door, 4096) &&
               !pcm_helper_start("pycomm.helper.advice", door, -1, &pid);
    if (door >= 0) close(door);
    return led;
}

bool advice_connect(char name[ADVICE_NAME], bool lead)
{
    pthread_mutex_lock(&adviser.lock);
    bool good = adviser.line >= 0;
    if (!good && (lead ? lead_the_way(name) : *name != 0)) {
        struct sockaddr_un where;
        socklen_t length = address_of(&where, name);
        adviser.line = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        good = adviser.line >= 0 && !connect(adviser.line, (struct sockaddr *)&where, length) && is_own(adviser.line);
        if (!good && adviser.line >= 0) close(adviser.line), adviser.line = -1;
        if (good) memcpy(own_name, name, ADVICE_NAME);
    }
    pthread_mutex_unlock(&adviser.lock);
    return good;
}

void advice_name(char name[ADVICE_NAME])
{
    pthread_mutex_lock(&adviser.lock);
    memcpy(name, own_name, ADVICE_NAME);
    pthread_mutex_unlock(&adviser.lock);
}
