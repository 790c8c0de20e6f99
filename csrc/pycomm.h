/* pycomm.h: the whole public C interface of libpycomm.
 *
 * A world is one rank's membership of a job; a comm is a group of its ranks; a schedule is what one
 * rank does in a collective; a plan is a schedule bound to a call; a request is a plan in flight.
 * Every function that can fail returns PCM_OK or one of enum pcm_status; pcm_last_error() then says,
 * for this thread, what happened in words. Nothing here knows Python, and nothing reads the environment.
 */
#ifndef PYCOMM_H
#define PYCOMM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PCM_API __attribute__((visibility("default")))
#else
#define PCM_API
#endif

/* ---- codes that travel between ranks: never renumber ------------------------------------------ */

enum pcm_dtype {
    PCM_BOOL, PCM_INT8, PCM_UINT8, PCM_INT16, PCM_UINT16, PCM_INT32, PCM_UINT32, PCM_INT64, PCM_UINT64,
    PCM_FLOAT16, PCM_BFLOAT16, PCM_FLOAT32, PCM_FLOAT64, PCM_COMPLEX64, PCM_COMPLEX128,
    PCM_FLOAT8_E4M3, /* OCP e4m3fn: no infinities, saturates to NaN like ml_dtypes.float8_e4m3fn */
    PCM_FLOAT8_E5M2, /* OCP e5m2: IEEE-like, with infinities */
    PCM_NDTYPES
};

enum pcm_op {
    PCM_SUM, PCM_PROD, PCM_MIN, PCM_MAX, PCM_AVG, PCM_LAND, PCM_LOR, PCM_LXOR, PCM_BAND, PCM_BOR, PCM_BXOR,
    PCM_NOPS
};

enum pcm_collective {
    PCM_ALLREDUCE, PCM_REDUCE, PCM_BROADCAST, PCM_ALLGATHER, PCM_REDUCE_SCATTER, PCM_GATHER, PCM_SCATTER,
    PCM_ALLTOALL, PCM_SCAN, PCM_EXSCAN, PCM_BARRIER, PCM_POINT_TO_POINT,
    PCM_NCOLLECTIVES
};

PCM_API size_t pcm_dtype_size(int dtype);            /* bytes an element; 0 for an unknown code */
PCM_API const char *pcm_dtype_name(int dtype);       /* "float32"; "?" for an unknown code */
PCM_API const char *pcm_op_name(int op);             /* "SUM" */
PCM_API const char *pcm_collective_name(int coll);   /* "allreduce" */

/* ---- errors ----------------------------------------------------------------------------------- */

enum pcm_status {
    PCM_OK = 0,
    PCM_AGAIN,      /* not now: call again (never an error) */
    PCM_NO_PLAN,    /* no schedule is known for this call yet: add one and call again (never an error) */
    /* recoverable: the program was right, the machine was not */
    PCM_ERR_PEER_LOST, /* a rank died or closed while it was needed; pcm_error.rank names it */
    PCM_ERR_TIMEOUT,   /* the call's deadline passed; pcm_error.rank is the peer waited for, or -1 */
    PCM_ERR_SYSTEM,    /* the operating system refused something; the text says what */
    PCM_ERR_ABORTED,   /* another rank, or this program, aborted the communicator */
    /* bugs: the program must be changed */
    PCM_ERR_MISMATCH,  /* two ranks disagree on collective, dtype, count, op, root or order */
    PCM_ERR_ARGUMENT,  /* an argument is wrong; the text names it */
    PCM_ERR_SCHEDULE,  /* a schedule is malformed */
    PCM_ERR_TRUNCATED, /* a received message is larger than the buffer given for it */
    PCM_ERR_AUTH,      /* a peer could not prove that it belongs to the job */
};

struct pcm_error {
    int code;       /* enum pcm_status */
    int rank;       /* the rank (of the communicator, else of the world) that the error is about, or -1 */
    char text[504]; /* a full sentence: who, what, how long, what to try */
};

/* The last error of this thread. Never NULL; code is PCM_OK if there was none. */
PCM_API const struct pcm_error *pcm_last_error(void);

