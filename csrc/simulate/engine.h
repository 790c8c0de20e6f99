/* engine.h: what the parts of the simulator know of each other. */
#ifndef PYCOMM_SIMULATE_ENGINE_H
#define PYCOMM_SIMULATE_ENGINE_H

#include <stdbool.h>

#include "../simulate.h"

/* match.c: for each send the number of the operation that receives it, and for each other operation -1. */
int pcm_sim_match(const struct pcm_sim_input *input, int64_t *match);

/* fluid.c: messages that share links, each going as fast as max-min fairness lets it. */
struct pcm_fluid;
int pcm_fluid_create(const struct pcm_sim_input *input, struct pcm_fluid **fluid);
void pcm_fluid_destroy(struct pcm_fluid *fluid);
/* A message of `bytes` begins to flow; `about` comes back when it has. */
int pcm_fluid_add(struct pcm_fluid *fluid, double now, int32_t route, double bytes, int64_t about);
/* When the next message will have flown, if none is added before; INFINITY: there is none. */
double pcm_fluid_next(struct pcm_fluid *fluid, double now);
/* One message that has flown by now, or -1. */
int64_t pcm_fluid_done(struct pcm_fluid *fluid, double now);

#endif
