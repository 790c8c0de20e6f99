/* helper.h: the line to a process that does in Python what a program without Python cannot: it joins a job (pycomm/helper/launched.py)
 * and chooses schedules (pycomm/helper/advice.py).
 *
 *   line.c      the process, questions and answers
 *   ways.c      schedules that were asked for
 *   launched.c  a world whose ranks a launcher has started
 *   knob.c      settings, from the environment and from files
 *
 * This room alone, and the preload library, look at the environment: nobody else could tell them anything.
 */
#ifndef PYCOMM_HELPER_H
#define PYCOMM_HELPER_H

#include <pthread.h>
#include <sys/types.h>

#include "../core.h"

struct pcm_helper { /* this process's end of the line */
    pthread_mutex_t lock; /* one question at a time */
    int line; /* a socket; -1: there is none */
};

/* Starts `python -m MODULE` with a socket as its standard input, another as its output if `news` is not -1, and no part in what
 * stands in front of this program. PCM_ERR_SYSTEM if it cannot be. */
int pcm_helper_start(const char *module, int line, int news, pid_t *pid);
/* Asks with a line of JSON; the answer is to be freed, and has a 0 behind it. NULL, and pcm_last_error() says why: nobody is
 * there any more, or the answer is a refusal. */
void *pcm_helper_ask(struct pcm_helper *helper, size_t *bytes, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Reads as many bytes; false: the other end is closed. */
bool pcm_helper_read(int socket, void *buffer, size_t bytes);
/* Bytes as hexadecimal digits, in memory that is to be freed; NULL: there is none. */
char *pcm_helper_hex(const void *bytes, size_t count);

struct pcm_key { /* what authenticates connections */
    struct pcm_helper *helper;
    char *hex;
};
/* A pcm_mac_fn, of a struct pcm_key. */
int pcm_helper_sign(void *key, const void *data, size_t bytes, uint8_t mac[32]);

struct pcm_way; /* how calls of a kind are run */

/* Gives a call a plan, by a schedule that was chosen for calls of its kind and octave of sizes.
 *   machine  the number that the helper gave the ranks of the communicator
 *   ways     those of this communicator that are known
 *   bytes    of the larger of a rank's buffers; 0 where blocks differ in length */
int pcm_ways_plan(struct pcm_helper *helper, int machine, struct pcm_way **ways, pcm_comm *comm,
                  const struct pcm_call *call, uint64_t bytes);
void pcm_ways_free(struct pcm_way *ways);
/* Reads an answer that holds a schedule, and checks it: PCM_ERR_SCHEDULE if it is none. It must have a 0 behind it. */
int pcm_ways_read(const void *said, size_t bytes, pcm_schedule **schedule, uint32_t *slices, uint32_t *window);
/* Writes the text of a setting; false if it is set nowhere, or empty, or longer than there is room for. */
bool pcm_knob_text(const char *name, char *value, size_t capacity);
/* The exponent of the power of two whose logarithm is nearest; 0 for no bytes. */
int pcm_octave_of(uint64_t bytes);
/* Whether a buffer of a collective's is one block, and not one for each rank. */
bool pcm_is_whole(int collective);

#endif
