/* core.h: the structures that the core's own files share; nothing outside csrc/ includes it. */
#ifndef PYCOMM_CORE_H
#define PYCOMM_CORE_H

#include <pthread.h>

#include "pycomm.h"
#include "reduce.h"
#include "transport.h"

/* ---- a schedule made ready to run (bind.c) ------------------------------------------------------ */

/* PCM_STAGED: in the copy of the input, because its own place will be written */
enum pcm_place { PCM_IN, PCM_OUT, PCM_TEMP, PCM_NOWHERE, PCM_STAGED };

enum pcm_layout { /* how the two buffers of a call lie */
                  PCM_APART,
                  PCM_ALIKE,  /* in place, and every chunk stays where it is */
                  PCM_MOVING, /* in place, but chunks move: some are staged */
                  PCM_LAYOUTS
};

struct pcm_ref { /* where a chunk's bytes are: the index-th piece of a buffer, or a temporary */
    uint32_t place; /* enum pcm_place */
    uint32_t index;
};

struct pcm_part { /* one chunk of a message, or the operands of a local step */
    uint32_t chunk; /* whose length it has */
    struct pcm_ref to, from,
        with; /* to = from op with. Received: `with` is what comes. Sent: `to`, if anywhere, gets a copy */
    int32_t after; /* the move of this round that must be done first, because it writes the chunk too; or -1 */
};

struct pcm_move { /* one message of a round, or one local step */
    uint8_t kind;    /* enum pcm_step_kind */
    uint8_t swap;    /* the incoming operand is the left one */
    uint8_t final;   /* nothing reads what it writes, unless it is forwarded: may bypass the caches */
    uint8_t waits;   /* some of its parts come after others */
    uint32_t peer;   /* comm rank */
    uint32_t part, parts;
    int32_t after;   /* the move of this round that must be done first, because it shares the lane; or -1 */
    int32_t forward; /* of a receive: the send of the next round that passes the same chunk on; or -1 */
    int32_t forward_after; /* the send of this round that must be done before forwarding; or -1 */
};

struct pcm_program { /* what a schedule becomes once it is known whether the input lies in the output */
    struct pcm_move *moves;
    struct pcm_part *parts;
    uint32_t *round_end; /* of each round, the index after its last move */
    uint32_t nmoves, nparts, nrounds, ntemps;
    uint32_t *temp_chunks, *temp_slot; /* pairs: this chunk lives at some time in that temporary */
    uint32_t ntemp_pairs;
};

struct pcm_schedule {
    char name[48];
    struct pcm_step *steps;
    int32_t *in_at, *out_at, *passed_at;
    uint32_t *like;
    uint32_t nsteps, nchunks, in_blocks, out_blocks, passed_blocks, cut;
    bool offload;
    _Atomic int references;
    struct pcm_program *program[PCM_LAYOUTS]; /* made at first use */
};

int pcm_schedule_program(struct pcm_schedule *schedule, enum pcm_layout layout, struct pcm_program **program);
/* Where a chunk is before the first round. */
enum pcm_place pcm_chunk_start(const struct pcm_schedule *schedule, enum pcm_layout layout, uint32_t chunk);
void pcm_program_free(struct pcm_program *program);

/* ---- a plan: a program with lengths (plan.c) ----------------------------------------------------- */

struct pcm_span { /* a piece of a buffer, in elements */
    uint64_t offset, length;
};

struct pcm_geometry { /* where every chunk is, for one set of counts */
    struct pcm_span *in, *out; /* by index of pcm_ref */
    uint64_t *length;          /* by chunk */
    uint64_t *temp_at;         /* by temporary: the byte at which its slot begins, for one slice; and where all end */
    uint64_t in_end, out_end;  /* elements that the buffers must hold */
    int stream; /* PCM_STREAM_DST: the output is written past the caches; or 0 */
};

struct pcm_plan {
    struct pcm_plan *next;  /* in its bucket */
    struct pcm_plan *older, *newer; /* by last use */
    uint64_t key[3];
    struct pcm_schedule *schedule;
    struct pcm_program *program;
    struct pcm_geometry geometry; /* of equal blocks; empty for uneven ones */
    uint32_t slices, window, element;
    bool uneven;
    enum pcm_layout layout;
    pcm_reduce_fn *reduce; /* of the collective, also where this rank combines nothing itself; NULL: it moves only */
    bool offload; /* the communicator's party runs it whole */
    uint16_t mark;         /* of algorithm and slices: what two ranks must have in common to understand each other */
};

/* Whether a collective reduces; a barrier does too, whose messages are empty. */
bool pcm_reduces(int collective);
struct pcm_plan *pcm_plan_find(pcm_comm *comm, const struct pcm_call *call);
void pcm_plans_free(pcm_comm *comm);
int pcm_geometry_make(const struct pcm_plan *plan, const struct pcm_call *call, struct pcm_geometry *geometry);
void pcm_geometry_free(struct pcm_geometry *geometry);
/* The i-th of n balanced pieces of `length` elements; boundaries fall on cache lines when pieces are large. */
struct pcm_span pcm_piece(uint64_t length, uint64_t n, uint64_t i, uint32_t element);

/* ---- requests (executor.c, p2p.c) ------------------------------------------------------------------ */

enum {
    PCM_GULP = 1024 * 1024
}; /* bytes of a loan that are fetched at once: it is over soon enough for others to have a turn */

struct pcm_cursor {
    uint64_t bytes; /* moved so far */
    uint64_t taken; /* received: of the fragment at hand, which was lent */
    uint32_t ticket; /* sent: of the last fragment that was lent, if any */
    bool lent, done;
};

struct pcm_run { /* one slice under way */
    uint32_t slice, lane, round, begin; /* begin: the round's first move */
    struct pcm_cursor *cursors;         /* by move */
    char *temps;
    bool done;
};

enum pcm_request_kind { PCM_REQUEST_COLLECTIVE, PCM_REQUEST_SEND, PCM_REQUEST_RECV, PCM_REQUEST_PROBE };

struct pcm_request {
    struct pcm_request
        *next; /* in the list of what is active on its communicator, oldest first; or of its spare ones */
    pcm_comm *comm;
    int kind;
    _Atomic int status; /* PCM_AGAIN while under way */
    bool waiting;       /* for lanes that an earlier operation still holds */
    bool owned;         /* someone will wait for it; else it is the communicator's own, for blocking calls */
    bool awaited;       /* a thread is waiting for it now */
    double timeout;
    double deadline; /* on the monotonic clock; 0 until someone has waited long enough to look */
    double ask;      /* when to ask those that are waited for whether they are in the same call */
    uint64_t begun;  /* ticks */
    uint64_t record; /* number of its line in the flight recorder */
    struct pcm_call call;
    struct pcm_head head;
    /* a collective */
    struct pcm_plan *plan;
    const struct pcm_geometry *geometry;
    uint32_t lane0, window, live; /* live: runs that are not done */
    void *launched; /* of an offloaded call: what its transport calls it */
    /* point to point */
    int peer, tag;
    void *buffer;
    uint64_t bytes, moved;
    uint32_t ticket; /* of the payload, once lent */
    bool announced, lent;
    bool hasty;       /* whoever has started it is likely to wait for it at once */
    bool synchronous; /* a send that is done when its receive has been found */
    bool unlisted;    /* nothing of p2p.c points to it any more */
    void **allocated; /* a receive of any length: where the caller finds the message */
    struct pcm_request *link_next; /* in a list of p2p.c */
    struct pcm_status_info info;
    struct pcm_error error; /* what is before it begins as zeros; what comes after stays from one use to the next */
    struct pcm_geometry own_geometry; /* of uneven counts */
    struct pcm_run *runs;
    size_t runs_room, cursors_room, temps_room;
    struct pcm_cursor *cursors;
    char *temps;
    void *staged; /* of the input, what must be divided first, or lies where output will be written */
    size_t staged_room;
    uint64_t *counts; /* copies of the caller's, for asynchronous calls */
};

/* Advances everything that is active on a communicator; true if anything moved. Under the world's lock. */
bool pcm_comm_progress(pcm_comm *comm);
/* Asks whoever keeps a collective waiting. */
void pcm_collective_ask(const struct pcm_request *request);
int pcm_collective_begin(struct pcm_request *request);
bool pcm_collective_progress(struct pcm_request *request);
bool pcm_p2p_progress(pcm_comm *comm);
/* Says in words what a request is waiting for; and for whom (a comm rank, or -1). */
int pcm_request_describe(const struct pcm_request *request, char *text, size_t capacity);
void pcm_request_finish(struct pcm_request *request, int status);
void pcm_request_free(struct pcm_request *request);
/* Describes a call from its header: "allreduce(float32, count 1024, SUM)". */
void pcm_head_describe(const struct pcm_head *head, char *text, size_t capacity);
/* Waits in this thread; the world is locked before and after. */
int pcm_request_drive(struct pcm_request *request, double seconds);

/* ---- point to point (p2p.c) ---------------------------------------------------------------------- */

struct pcm_matcher;
int pcm_matcher_create(pcm_comm *comm, struct pcm_matcher **matcher);
void pcm_matcher_free(struct pcm_matcher *matcher);
void pcm_matcher_forget(pcm_comm *comm, struct pcm_request *request);
/* A new request enters: it may be done at once. It is active already. */
void pcm_p2p_begin(struct pcm_request *request);
/* Opens what is needed for a receive; false: the communicator has failed. */
bool pcm_p2p_reach(pcm_comm *comm, int source);
/* The first message that has come and that a receive with these would get. */
bool pcm_p2p_look(const pcm_comm *comm, int source, int tag, struct pcm_status_info *info);
/* Ends a receive or a probe that no message has come for; false: there is none. */
bool pcm_p2p_cancel(struct pcm_request *request);

/* ---- communicators and worlds ----------------------------------------------------------------------- */

enum { PCM_PLAN_BUCKETS = 64, PCM_PLANS_MAX = 512, PCM_SPARES_MAX = 128 };

struct pcm_comm {
    struct pcm_comm *next;
    pcm_world *world;
    uint64_t id;
    int rank, size;
    int32_t *ranks;                /* world rank of each */
    struct pcm_channel **channels; /* by comm rank; NULL until needed */
    uint32_t seq;                  /* of the next collective */
    uint32_t lane_next;
    bool lane_busy[PCM_OP_LANES];
    struct pcm_request *active, **active_tail;
    int collectives; /* how many of the active ones are */
    struct pcm_request *spares; /* requests that have ended, with their memory, for the next ones */
    int nspares;
    double timeout;
    struct pcm_error error; /* once it has failed: why; every later call says the same */
    bool untold;            /* of which peers do not know yet, because their channels are not up */
    bool leaving;           /* it was freed before they knew: closed as soon as they do */
    double doubted;         /* when a peer that was needed was first seen to have left; 0: none has */
    struct pcm_plan *buckets[PCM_PLAN_BUCKETS], *oldest, *newest, *last;
    int nplans;
    struct pcm_matcher *matcher;
    struct pcm_advised *advised; /* what the world's aide keeps of it */
    struct pcm_endpoint *whole; /* that runs collectives whole among the ranks, as */
    void *party;                /* what it calls them; NULL: nobody has asked for that (pcm_comm_muster) */
    int users;  /* calls under way and requests nobody has collected yet: they may outlive the communicator, */
    bool freed; /* whose memory then stays until the last of them has gone */
};

struct pcm_peer {
    void *address;
    size_t bytes;
    bool lost;
    char why[128];
};

enum { PCM_MAX_ENDPOINTS = 4, PCM_TRACE = 256 };

struct pcm_record { /* a line of the flight recorder */
    uint64_t comm, begun, ended;
    struct pcm_head head;
    char algorithm[24];
    int32_t status;
};

struct pcm_aide { /* who knows what the core does not, if there is somebody: helper/launched.c */
    int (*plan)(struct pcm_aide *aide, pcm_comm *comm, const struct pcm_call *call); /* gives a call a plan */
    void (*forget)(pcm_comm *comm); /* frees what it keeps of a communicator */
    void (*leave)(struct pcm_aide *aide); /* the world is ending: no more news of its ranks */
    void (*end)(struct pcm_aide *aide); /* and nobody will ask any more */
};

struct pcm_world {
    struct pcm_world_config config;
    unsigned forks; /* pcm_forks, when it was made */
    struct pcm_aide *aide;
    pthread_mutex_t lock; /* taken by pcm_world_enter, which tells its holder that somebody wants it */
    pthread_cond_t eased;
    pthread_cond_t parked; /* the progress thread waits here while there is nothing for it to do */
    pthread_t thread;
    bool threaded, stopping, destroyed;
    bool callers_only; /* there must be no thread of our own */
    int held;     /* communicators that were freed and still have users; with them the world's memory stays */
    int drivers;  /* threads that are waiting in a call, and so make progress for all */
    bool asleep;   /* one of them, or the thread below, sleeps on the reactor for all: the doorbell wakes it */
    int followers; /* the others that would sleep: they wait on `eased` until their request is done or the sleeper leaves */
    int detached; /* active requests that nobody waits for right now, and failures that have yet to be told */
    int hasty; /* how many of these will be waited for within a moment, and need no thread until then */
    uint64_t entries; /* how often a caller has started or waited for something */
    unsigned glances; /* how often one has looked, and not waited */
    bool dozing; /* the thread looks by itself within a moment: it need not be woken for a message */
    int unsent; /* channels on which something committed has not left yet */
    struct pcm_reactor *reactor;
    char *scratch; /* PCM_FRAGMENT bytes, for what is reduced out of another process's memory */
    struct pcm_endpoint *endpoints[PCM_MAX_ENDPOINTS];
    int nendpoints;
    bool polled; /* every open transport shows its fragments in memory */
    struct pcm_peer *peers;
    pcm_comm *comms;
    int spin, yields; /* what a waiting thread does before it sleeps: empty polls, then polls between yields */
    bool spare; /* there is a processor for the progress thread too */
    unsigned in_vain; /* waits in a row that spun, and had to sleep */
    _Atomic int wanting; /* threads that wait for the lock */
    _Atomic uint64_t refused;
    struct pcm_record trace[PCM_TRACE];
    uint64_t traced;
    uint64_t tick0;
    double time0;
};

/* How many forks lie between the process that loaded the library and this one. */
extern unsigned pcm_forks;
/* Fails, as every call does in a process that was forked from the world's: sockets, shared memory and the lock, which some thread
 * may have held at that moment, are the parent's. */
int pcm_world_refuse(const pcm_world *world);
static inline bool pcm_world_is_ours(const pcm_world *world) { return world->forks == pcm_forks; }
/* Whether a transport has all slots that it must have. */
bool pcm_transport_complete(const struct pcm_transport *transport);
/* A compiled transport; NULL if it is none of these. */
const struct pcm_transport *pcm_transport_compiled(const char *name, size_t length);
/* One from a shared object of its own (plugin.c); NULL (and pcm_fail) if there is none. */
const struct pcm_transport *pcm_plugin_find(const char *name, size_t length);

/* The channel to a comm rank, started on first use; NULL (and the communicator has failed) if it cannot be. */
struct pcm_channel *pcm_comm_channel(pcm_comm *comm, uint32_t peer);
/* Frees the memory of a world that was destroyed and that no communicator holds any more. */
void pcm_world_release(pcm_world *world);
/* Whether the communicator's party can run such calls whole. Under the lock. */
bool pcm_comm_offload(const pcm_comm *comm, const struct pcm_call *call);
/* Asks a peer that a collective has waited for too long whether it is in the same call. */
void pcm_comm_ask(const struct pcm_request *request, uint32_t peer);
/* The same of the neighbours, where nobody can tell whom is waited for: if ranks disagree, two neighbours do. */
void pcm_comm_ask_neighbours(const struct pcm_request *request);
/* Two ranks make different calls under the same number. */
void pcm_comm_differ(pcm_comm *comm, int peer, const struct pcm_head *theirs, const struct pcm_head *ours);
/* The communicator fails, once: all its requests end with this error and its peers are told. */
void pcm_comm_fail(pcm_comm *comm, int code, int rank, const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Ends a communicator, which is not the world's any more; its memory stays for those who use it still. Under the lock. */
void pcm_comm_close(pcm_comm *comm);
/* Tells those who do not know yet that a communicator has failed. */
void pcm_comm_tell(pcm_comm *comm);
/* The reason why a channel is of no use any more becomes the communicator's error; false: somebody may yet tell another one. */
bool pcm_comm_lost(pcm_comm *comm, uint32_t peer);
/* Marks a world rank dead for all communicators. */
void pcm_world_mark_lost(pcm_world *world, int rank, const char *why);
/* Progress of everything; true if anything moved. Under the lock. */
bool pcm_world_progress(pcm_world *world);
/* Something has been done that a waiting thread may have waited for. Under the lock. */
void pcm_world_wake_waiters(pcm_world *world);
/* If there is anything to do that nobody does: the thread of the world does it. Under the lock. */
void pcm_world_wake_thread(pcm_world *world);
int pcm_world_start_thread(pcm_world *world);

void pcm_trace_begin(struct pcm_request *request);
void pcm_trace_end(const struct pcm_request *request, int status);

#endif
