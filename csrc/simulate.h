/* simulate.h: prices what all ranks do in a collective, as rounds of messages, on a machine that is given by numbers.
 *
 * The rules are the executor's: the operations of a round are posted together, a round ends when all of them have, slices go
 * through the rounds `window` at a time. docs/simulator.md has the equations. Nothing here knows a topology, a collective, or Python.
 */
#ifndef PYCOMM_SIMULATE_H
#define PYCOMM_SIMULATE_H

#include <stdint.h>

#include "pycomm.h"

/* What messages of one kind cost, or local work, which takes `send` of its rank's processor. All but `bytes` in seconds. */
struct pcm_sim_term {
    double send, receive;   /* of the processors at both ends; receive with the reduction */
    double first, last;     /* of `send`, until the receiver may begin; of `receive`, for what comes last */
    double gap, out, in;    /* how long a message holds the sender's port (gap + out) and the receiver's (in) */
    double transfer;        /* from the first byte on the way to the last, where nothing else is on the way */
    double latency;
    double bytes;           /* on the links that it shares */
    int32_t lent;           /* the send is done when the receiver is */
    int32_t moves;          /* what it takes of processors is the moving of bytes: it shares the host's memory */
};

enum pcm_sim_what { PCM_SIM_SEND, PCM_SIM_WIRE, PCM_SIM_RECEIVE, PCM_SIM_LOCAL };

/* Something that took time. `cause` is the record that it had to wait for, -1: the beginning. */
struct pcm_sim_record {
    double start, end;
    int64_t cause;
    int64_t op;
    int32_t rank, peer; /* WIRE: from rank to peer */
    uint32_t slice;
    int32_t what;
};

/* Ranks 0 to period - 1 of `size`, the others doing the same shifted; see pycomm/schedules/traffic.py for rounds, ops, kind, peer. */
struct pcm_sim_input {
    uint32_t size, period;
    const int64_t *rounds;       /* period + 1 */
    const int64_t *ops;          /* rounds[period] + 1 */
    const uint8_t *kind;         /* of each operation, enum pcm_step_kind */
    const int32_t *peer;
    const uint32_t *term;        /* of each operation: an index into `terms` */
    const struct pcm_sim_term *terms;
    uint64_t nterms;
    const uint8_t *port;         /* of each operation: which of its rank's ports; NULL: 0 */
    uint32_t ports;              /* of a rank, in each direction */
    uint32_t slices, window;
    const int32_t *core;         /* of each of the `period` ranks: the processor that it runs on */
    const int32_t *host;         /* of each processor */
    const double *memory;        /* of each host: how many of its processors can move bytes at once at full speed */
    uint32_t cores, hosts;
    /* Shared links; NULL: none, and a message takes `transfer`. */
    const double *bandwidth;     /* bytes a second of each link */
    uint32_t links;
    const int32_t *route;        /* of each operation: an index into `route_start`, -1 if it is no send */
    const int64_t *route_start;
    const int32_t *route_links;
};

struct pcm_sim_output {
    double seconds;
    double *finish;                 /* per rank of the period; may be NULL */
    struct pcm_sim_record *records; /* NULL: not wanted */
    int64_t capacity, recorded;     /* of and in `records`; at capacity, the rest is not recorded */
    volatile uint64_t done;         /* operations so far, for who looks on */
    volatile int32_t stop;          /* set by who looks on: give up, with PCM_ERR_ABORTED */
};

/* PCM_ERR_SCHEDULE: a message is sent that nobody receives, or awaited that nobody sends. */
PCM_API int pcm_simulate(const struct pcm_sim_input *input, struct pcm_sim_output *output);

#endif
