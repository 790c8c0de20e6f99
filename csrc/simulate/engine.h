/* engine.h: what the parts of the simulator know of each other. */
#ifndef PYCOMM_SIMULATE_ENGINE_H
#define PYCOMM_SIMULATE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>

#include "../simulate.h"

/* What the simulation looks at of one operation, together, for it is mostly far from what was looked at before. */
struct pcm_sim_op {
    int32_t match;   /* of a send: the operation that receives it; else -1 */
    int32_t waiting; /* of a receive: the oldest message that has come before its time, or -1 */
    int32_t round;   /* of all ranks' rounds */
    uint32_t term;
    int32_t peer;
    uint8_t kind, port;
};

/* match.c: fills in `match`. */
int pcm_sim_match(const struct pcm_sim_input *input, struct pcm_sim_op *ops);

/* Makes room for `wanted` elements in an array; false: there is no memory. */
bool pcm_sim_grow(void **array, int64_t *room, int64_t wanted, size_t element);

struct pcm_event {
    uint32_t tie;  /* the order of events at one time: nothing that depends on the numbers of ranks */
    uint32_t what; /* and `about`: the engine's business */
    int64_t about;
};

/* queue.c: the events to come. Push and take fail (false, -1) for want of memory. */
struct pcm_queue;
struct pcm_queue *pcm_queue_create(void);
void pcm_queue_destroy(struct pcm_queue *queue);
bool pcm_queue_push(struct pcm_queue *queue, double time, struct pcm_event event);
bool pcm_queue_next(const struct pcm_queue *queue, double *time); /* false: there is none */
/* Takes all events of the next time, which are there until the next call; returns how many. */
int64_t pcm_queue_take(struct pcm_queue *queue, const struct pcm_event **events);

/* fluid.c: messages that share links, each going as fast as max-min fairness lets it. */
struct pcm_fluid;
int pcm_fluid_create(const struct pcm_sim_input *input, struct pcm_fluid **fluid);
void pcm_fluid_destroy(struct pcm_fluid *fluid);
/* A message of `bytes` begins to flow; `about` comes back when it has. */
int pcm_fluid_add(struct pcm_fluid *fluid, double now, int32_t route, double bytes, int64_t about);
/* When the next message will have flown, if none is added before; INFINITY: there is none. */
int pcm_fluid_next(struct pcm_fluid *fluid, double now, double *next);
/* One message that has flown by now, or -1. */
int64_t pcm_fluid_done(struct pcm_fluid *fluid, double now);

#endif
