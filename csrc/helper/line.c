/* line.c: the helper process, and questions to it: see helper.h. */
#include <errno.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "helper.h"

extern char **environ;

enum { LONGEST = 256 << 20 }; /* bytes of an answer: more is not one */

static bool has_no_part(const char *variable) { return strncmp(variable, "LD_PRELOAD=", 11) != 0; }

int pcm_helper_start(const char *module, int line, int news, pid_t *pid)
{
    char python[4096];
    if (!pcm_knob_text("PYCOMM_PYTHON", python, sizeof python)) strcpy(python, "python3");
    char *const words[] = {python, "-P", "-m", (char *)module, NULL};
    size_t count = 0, kept = 0;
    while (environ[count]) count++;
    char **variables = calloc(count + 1, sizeof *variables);
    if (!variables) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for a process");
    for (size_t i = 0; i < count; i++)
        if (has_no_part(environ[i])) variables[kept++] = environ[i];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, line, 0);
    if (news >= 0)
        posix_spawn_file_actions_adddup2(&actions, news, 1);
    else
        posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", 1 /* O_WRONLY */, 0);
    int failed = posix_spawnp(pid, python, &actions, NULL, words, variables);
    posix_spawn_file_actions_destroy(&actions);
    free(variables);
    if (!failed) return PCM_OK;
    return pcm_fail(PCM_ERR_SYSTEM, -1, "cannot start %s -m %s (%s): set PYCOMM_PYTHON to a Python that has pycomm",
                    python, module, strerror(failed));
}

bool pcm_helper_read(int socket, void *buffer, size_t bytes)
{
    for (char *at = buffer; bytes;) {
        ssize_t n = recv(socket, at, bytes, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += n, bytes -= (size_t)n;
    }
    return true;
}

static bool say(int socket, const char *text, size_t bytes)
{
    while (bytes) {
        ssize_t n = send(socket, text, bytes, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        text += n, bytes -= (size_t)n;
    }
    return true;
}

void *pcm_helper_ask(struct pcm_helper *helper, size_t *bytes, const char *format, ...)
{
    va_list arguments;
    char *text = NULL, *answer = NULL;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length < 0) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for a question"), NULL;
    text[length] = '\n'; /* in place of the end */
    uint32_t head[2] = {0, 0}; /* bytes that follow; enum pcm_status, PCM_OK unless they say why not */
    pthread_mutex_lock(&helper->lock);
    bool good = helper->line >= 0 && say(helper->line, text, (size_t)length + 1) &&
                pcm_helper_read(helper->line, head, sizeof head) && head[0] <= LONGEST &&
                (answer = malloc((size_t)head[0] + 1)) && pcm_helper_read(helper->line, answer, head[0]);
    pthread_mutex_unlock(&helper->lock);
    free(text);
    if (good) {
        answer[head[0]] = 0;
        *bytes = head[0];
        if (!head[1]) return answer;
        pcm_fail((int)head[1], -1, "%s", answer);
    } else
        pcm_fail(PCM_ERR_SYSTEM, -1,
                 "pycomm's helper process has ended, or PYCOMM_PYTHON is no Python that has pycomm");
    free(answer);
    return NULL;
}

char *pcm_helper_hex(const void *bytes, size_t count)
{
    char *text = malloc(2 * count + 1);
    for (size_t i = 0; text && i < count; i++) sprintf(text + 2 * i, "%02x", ((const unsigned char *)bytes)[i]);
    if (text) text[2 * count] = 0;
    return text;
}

int pcm_helper_sign(void *user, const void *data, size_t bytes, uint8_t mac[32])
{
    const struct pcm_key *key = user;
    char *said = pcm_helper_hex(data, bytes);
    size_t got = 0;
    void *answer = said ? pcm_helper_ask(key->helper, &got, "{\"ask\": \"sign\", \"key\": \"%s\", \"data\": \"%s\"}",
                                         key->hex, said)
                        : NULL;
    bool good = answer && got == 32;
    if (good) memcpy(mac, answer, 32);
    free(said), free(answer);
    return !good;
}
