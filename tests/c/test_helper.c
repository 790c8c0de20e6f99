/* test_helper.c: what helper processes say to programs without Python: answers that are none are refused. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../csrc/helper/helper.h"
#include "check.h"

/* Answers a question with these words: how long it claims to be, its status, and what comes before it hangs up. */
static void *ask(uint32_t claimed, uint32_t status, const char *words, size_t *got)
{
    int ends[2];
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), "there is a pair of sockets");
    struct pcm_helper helper = {PTHREAD_MUTEX_INITIALIZER, ends[0]};
    uint32_t head[2] = {claimed, status};
    size_t bytes = strlen(words);
    CHECK(send(ends[1], head, sizeof head, 0) == sizeof head, "it answers");
    CHECK(send(ends[1], words, bytes, 0) == (ssize_t)bytes, "it answers");
    shutdown(ends[1], SHUT_WR);
    void *said = pcm_helper_ask(&helper, got, "{}");
    close(ends[0]), close(ends[1]);
    return said;
}

static void test_answers(void)
{
    size_t got = 0;
    void *said = ask(5, PCM_OK, "so be", &got);
    CHECK(said && got == 5 && !memcmp(said, "so be", 6), "an answer, and an end behind it");
    free(said);
    CHECK(!ask(UINT32_MAX, PCM_OK, "so", &got), "an answer of 4 GiB is none");
    CHECK(!ask(6, PCM_OK, "so be", &got), "nor is what ends too early");
    CHECK(!ask(7, PCM_ERR_ARGUMENT, "no, sir", &got), "a refusal is no answer");
    CHECK(pcm_last_error()->code == PCM_ERR_ARGUMENT && !strcmp(pcm_last_error()->text, "no, sir"), "but says why");
}

static void test_schedules(void)
{
    uint32_t words[64] = {1, 1, 0, 0, 0, 1, 1, 0, 1}, slices, window;
    pcm_schedule *schedule = NULL;
    CHECK(!pcm_ways_read(words, 36, &schedule, &slices, &window) && slices == 1 && window == 1,
          "an empty schedule is one");
    pcm_schedule_release(schedule);
    for (size_t bytes = 0; bytes < 36; bytes += 5)
        CHECK(pcm_ways_read(words, bytes, &schedule, &slices, &window) == PCM_ERR_SCHEDULE, "%zu bytes are none",
              bytes);
    CHECK(pcm_ways_read(words, 40, &schedule, &slices, &window) == PCM_ERR_SCHEDULE,
          "nor is what has something behind it");
    words[3] = 1u << 28; /* steps, whose bytes are 0 modulo 2^32 */
    CHECK(pcm_ways_read(words, 36, &schedule, &slices, &window) == PCM_ERR_SCHEDULE,
          "nor is what is not there in full");
}

int main(void)
{
    test_answers();
    test_schedules();
    return check_report();
}
