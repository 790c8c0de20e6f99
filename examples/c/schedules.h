/* schedules.h: two schedules that are written in C, where Python's algorithms are not at hand. */
#ifndef SCHEDULES_H
#define SCHEDULES_H

#include <pycomm.h>

/* An allreduce around a ring: first each rank comes to have the sum of one of `size` pieces, then all get all of them. */
int ring_allreduce(int rank, int size, pcm_schedule **schedule);

/* A broadcast in which the number of ranks that have the buffer doubles each round. */
int binomial_broadcast(int rank, int size, int root, pcm_schedule **schedule);

#endif
