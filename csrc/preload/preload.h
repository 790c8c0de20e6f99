/* preload.h: what the files of libpycomm-mpi.so share. It stands in front of an MPI, and runs collectives of programs that know
 * nothing of it.
 *
 *   entries.c   the functions of MPI that a program calls instead of MPI's own, from C
 *   fortran.c   and from Fortran, where MPI's own for Fortran do not call C's
 *   narrow.c    MPI's own functions behind them
 *   serve.c     a collective of MPI as a call of our core, or not
 *   types.c     datatypes and reductions of MPI
 *   comms.c     what we know of each communicator
 *   advice.c    how the ranks of a host find the process that chooses schedules (../helper/helper.h)
 *   race.c      whether MPI's own collectives are faster
 *   requests.c  what was started and is not done
 *   report.c    what was served and what was not
 *   late.c      the entries in place of MPI's, in a module that is loaded already (pycomm/mpi/serving.py)
 *
 * What ranks may decide differently must not decide whether a call is served. So a reduction is served by its type and
 * operation, which MPI wants alike on all ranks, and what only moves data by its bytes, whatever the types say: a rank
 * may send numbers that another one receives as a struct of them.
 */
#ifndef PYCOMM_PRELOAD_H
#define PYCOMM_PRELOAD_H

#include <pthread.h>
#include <stdatomic.h>

#include "../../transports/mpi_library.h"
#include "../clock.h"
#include "../helper/helper.h"

#define EXPORT __attribute__((visibility("default")))

/* ---- MPI (mpi.c) ---------------------------------------------------------------------------------------------------- */

struct mpi_more { /* functions that the transport has no use for */
    int (*iprobe)(int source, int tag, mpi_handle comm, int *flag, void *status);
    int (*type_get_envelope)(mpi_handle type, int *integers, int *addresses, int *types, int *combiner);
    int (*type_get_name)(mpi_handle type, char *name, int *length);
    int (*type_get_extent)(mpi_handle type, intptr_t *lower, intptr_t *extent);
    int (*pack)(const void *in, int count, mpi_handle type, void *out, int room, int *position, mpi_handle comm);
    int (*unpack)(const void *in, int bytes, int *position, void *out, int count, mpi_handle type, mpi_handle comm);
    int (*call_errhandler)(mpi_handle comm, int code);
    int (*grequest_start)(int (*query)(void *, void *), int (*drop)(void *), int (*cancel)(void *, int), void *extra,
                          mpi_handle *request);
    int (*grequest_complete)(mpi_handle request);
    int (*status_set_elements)(void *status, mpi_handle type, int count);
    int (*status_set_cancelled)(void *status, int flag);
    int (*barrier)(mpi_handle comm);
    int (*bcast)(void *buffer, int n, mpi_handle type, int root, mpi_handle comm);
    int (*allreduce)(const void *in, void *out, int n, mpi_handle type, mpi_handle op, mpi_handle comm);
    int (*reduce)(const void *in, void *out, int n, mpi_handle type, mpi_handle op, int root, mpi_handle comm);
    int (*reduce_scatter_block)(const void *in, void *out, int n, mpi_handle type, mpi_handle op, mpi_handle comm);
    int (*alltoall)(const void *in, int n, mpi_handle type, void *out, int m, mpi_handle other, mpi_handle comm);
    int (*allgather)(const void *in, int n, mpi_handle type, void *out, int m, mpi_handle other, mpi_handle comm);
    int (*gather)(const void *in, int n, mpi_handle type, void *out, int m, mpi_handle other, int root,
                  mpi_handle comm);
    int (*scatter)(const void *in, int n, mpi_handle type, void *out, int m, mpi_handle other, int root,
                   mpi_handle comm);
    int (*scan)(const void *in, void *out, int n, mpi_handle type, mpi_handle op, mpi_handle comm);
    int (*exscan)(const void *in, void *out, int n, mpi_handle type, mpi_handle op, mpi_handle comm);
    int named; /* the combiner of a predefined type */
};

/* The running library; NULL if there is none, or it lacks something: then nothing is served. */
const struct mpi_library *preload_mpi(void);
extern struct mpi_more more; /* filled by preload_mpi */
/* MPI's own function of this name ("PMPI_..."), whether or not it is running; ends the program if there is none. */
void *preload_function(const char *name);
/* A handle as the program gave it: where handles have 32 bits, what stands above these means nothing. */
mpi_handle preload_handle(mpi_handle given);
/* Bytes of a handle in memory. */
size_t preload_handle_bytes(void);

/* ---- datatypes and reductions (types.c) ------------------------------------------------------------------------------ */

struct type {
    mpi_handle handle;
    int dtype; /* enum pcm_dtype, for reductions; -1 if our core has none like it */
    bool plain; /* its elements lie one after the other, and have no gaps */
    bool bits; /* MPI_BYTE: which is not a number */
    size_t size; /* bytes of data */
    intptr_t extent; /* bytes from one to the next */
};

/* False: MPI does not know it either. */
bool preload_type(mpi_handle handle, struct type *type);
/* enum pcm_op, or -1 if MPI does not define it for this type, or we do not. */
int preload_op(mpi_handle op, const struct type *type);

/* ---- communicators (comms.c) ------------------------------------------------------------------------------------------- */

enum { RACE_OCTAVES = 23 }; /* of bytes: longer calls are as the longest of these */

enum { RACES = 3 };

struct lane { /* calls of one collective and octave */
    float ratio; /* MPI's time over ours; 0: not known */
    double best[2]; /* seconds of a call of ours, and of MPI's: the least that a race of this job has found */
    int races;
    uint32_t calls;
};

struct group { /* a communicator of the program */
    struct group *next;
    mpi_handle comm;
    bool ours; /* collectives may be served */
    bool async; /* also those that are only started: somebody makes progress while the program does other things */
    bool alone; /* on one host: no thread of ours works while nothing was only started, for who waits makes progress */
    int rank, size, machine;
    pcm_world *world;
    pcm_comm *core;
    struct pcm_key key; /* the secret of all ranks */
    struct pcm_way *ways;
    struct lane lanes[PCM_BARRIER + 1][RACE_OCTAVES];
    bool racing; /* calls are trials, and not the program's */
    int started; /* calls under way that nobody need wait for */
};

/* What is known of a communicator; the first time collective over it. NULL: calls are MPI's. */
struct group *preload_group(mpi_handle comm);
/* The program frees a communicator, or all. */
void preload_forget(mpi_handle comm);
void preload_forget_all(void);

/* ---- the process that chooses (advice.c) -------------------------------------------------------------------------------- */

enum { ADVICE_NAME = 64 }; /* of the socket, with its end */

extern struct pcm_helper adviser;

/* Connects to the adviser of this host that has this name; starts it first if `lead`, which gives it a name. */
bool advice_connect(char name[ADVICE_NAME], bool lead);
/* Writes the name if this process is connected, or nothing. */
void advice_name(char name[ADVICE_NAME]);

/* ---- whether MPI is faster (race.c) ----------------------------------------------------------------------------------------- */

/* What is known of a new communicator's ranks, from other jobs. Collective. */
void race_recall(struct group *group, int binding);
/* Whether a call of so many bytes is for MPI, whose own collective is the faster one. Alike on all ranks. A call that is not
 * only started is an occasion to find out: collective, then. */
bool race_lost(struct group *group, int collective, uint64_t bytes, bool started);

/* ---- serving a call (serve.c) ------------------------------------------------------------------------------------------- */

struct side { /* a buffer as MPI's functions describe it */
    const void *buffer;
    int64_t count; /* elements a block, if there are no counts */
    mpi_handle type;
    const void *counts, *displs; /* of int; wide: of MPI_Count (64 bits) and MPI_Aint */
    bool wide;
};

struct ask { /* a collective as MPI's functions describe it */
    int collective;
    struct side in, out; /* of a broadcast: out */
    mpi_handle op, comm;
    int root;
    bool uneven;
};

/* Runs a collective, or starts it if there is room for a request. False: it is for MPI; else *code is what MPI would return. */
bool serve(struct ask *ask, mpi_handle *request, int *code);
/* Runs a call of our core that has a plan, or gets one. */
int serve_call(struct group *group, struct pcm_call *call, uint64_t bytes, pcm_request **request);
/* Waits for a call, while MPI makes progress too. */
int serve_wait(const struct group *group, pcm_request *request);
/* MPI may have something to do, which it does in calls only. */
void serve_mpi(const struct group *group);

/* ---- MPI's own function of an entry (narrow.c) ----------------------------------------------------------------------------- */

struct own { /* a function of MPI, looked up once */
    _Atomic(void *) function;
    bool narrow; /* it takes 32-bit counts, and the entry has 64-bit ones */
};

struct narrowed { /* lists of a call that were copied to 32 bits */
    const void *from[4];
    int *to[4];
    int count;
};

/* MPI's function of this name ("PMPI_..."), or the one that stands in for it. */
void *preload_own(struct own *own, const char *name);
/* Copies what has to be copied; false: something does not fit into 32 bits, or there is no memory. */
bool preload_narrow(const struct own *own, const struct ask *ask, struct narrowed *lists);
/* A list, or its copy. */
const void *preload_ints(const struct narrowed *lists, const void *list);
/* The call has returned, and lists are needed no more, unless it has only been started. Returns its code. */
int preload_done(struct narrowed *lists, bool started, int code);
/* As MPI's own errors are: what preload_narrow has found. Returns the code. */
int preload_too_many(const struct ask *ask, struct narrowed *lists);
/* MPI is being finalized: nothing is under way any more. */
void preload_drop_kept(void);

/* ---- what was started (requests.c) --------------------------------------------------------------------------------------- */

struct staged { /* memory of a call beyond its buffers */
    uint64_t *lists; /* counts and displacements */
    void *in, *out; /* packed */
    struct side back; /* where the output is to be unpacked */
    int blocks;
};
/* Ends a call: unpacks, frees. */
void serve_unstage(struct staged *staged, bool done);

bool started_add(struct group *group, pcm_request *request, const struct staged *staged, mpi_handle *out);
/* Makes progress in all that was started, and completes MPI's requests for what is done. */
void started_advance(void);
/* The same between two looks of who waits. */
void started_pause(unsigned turn);
/* Whether anything is under way. */
bool started_any(void);
/* Waits for all that was started on a communicator. */
void started_finish(struct group *group);

/* ---- counting (report.c) -------------------------------------------------------------------------------------------------- */

void report_served(int collective, uint64_t bytes, double seconds);
void report_passed(int collective);
bool report_wanted(void);
/* Counts from now on, whether or not anything is to be printed. */
void report_start(void);
void report_print(void);
/* MPI is being finalized. */
void preload_end(void);

/* ---- for Python (late.c, report.c) ------------------------------------------------------------------------------------------ */

/* Leads the module of this file, as the dynamic linker calls it, to the entries; MPI must be running. Returns how many of its
 * slots do so then, or would; -1: it cannot be done. */
EXPORT int pycomm_late_begin(const char *file, int replaces);
/* Waits for all that was started, leaves all communicators of ours, and puts back what was there before. */
EXPORT void pycomm_late_end(void);
/* What calls of a collective were, since the beginning: served, their bytes, the nanoseconds spent in them, passed to MPI. */
EXPORT void pycomm_late_counts(int collective, uint64_t counts[4]);

#endif
