/* pycomm.h: the whole public C interface of libpycomm.
 *
 * A world is one rank's membership of a job; a comm is a group of its ranks; a schedule is what one
 * rank does in a collective; a plan is a schedule bound to a call; a request is a plan in flight.
 * Every function that can fail returns PCM_OK or one of enum pcm_status; pcm_last_error() then says,
 * for this thread, what happened in words. Nothing here knows Python, and nothing reads the environment,
 * but for pcm_launched_world.
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
    PCM_BOOL,
    PCM_INT8,
    PCM_UINT8,
    PCM_INT16,
    PCM_UINT16,
    PCM_INT32,
    PCM_UINT32,
    PCM_INT64,
    PCM_UINT64,
    PCM_FLOAT16,
    PCM_BFLOAT16,
    PCM_FLOAT32,
    PCM_FLOAT64,
    PCM_COMPLEX64,
    PCM_COMPLEX128,
    PCM_FLOAT8_E4M3, /* OCP e4m3fn: no infinities, saturates to NaN like ml_dtypes.float8_e4m3fn */
    PCM_FLOAT8_E5M2, /* OCP e5m2: IEEE-like, with infinities */
    PCM_NDTYPES
};

enum pcm_op {
    PCM_SUM,
    PCM_PROD,
    PCM_MIN,
    PCM_MAX,
    PCM_AVG,
    PCM_LAND,
    PCM_LOR,
    PCM_LXOR,
    PCM_BAND,
    PCM_BOR,
    PCM_BXOR,
    PCM_NOPS
};

enum pcm_collective {
    PCM_ALLREDUCE,
    PCM_REDUCE,
    PCM_BROADCAST,
    PCM_ALLGATHER,
    PCM_REDUCE_SCATTER,
    PCM_GATHER,
    PCM_SCATTER,
    PCM_ALLTOALL,
    PCM_SCAN,
    PCM_EXSCAN,
    PCM_BARRIER,
    PCM_POINT_TO_POINT,
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

/* ---- worlds: one rank's membership of a job --------------------------------------------------- */

typedef struct pcm_world pcm_world;
typedef struct pcm_comm pcm_comm;
typedef struct pcm_schedule pcm_schedule;
typedef struct pcm_request pcm_request;

/* Writes the 32-byte message authentication code of `bytes` bytes under the job's secret; 0 on success.
 * The library holds no cryptography of its own: the embedder lends it (Python's keyed BLAKE2, OpenSSL's HMAC). Called a few
 * times per connection, from any thread that makes progress; keys for encryption are derived with it too. */
typedef int pcm_mac_fn(void *user, const void *data, size_t bytes, uint8_t mac[32]);

struct pcm_world_config {
    int rank, size;          /* of this process in the job */
    uint64_t job;            /* the same on all ranks, different for each job on a host */
    const char *transports;  /* names in order of preference, for example "shm,tcp"; NULL: that */
    pcm_mac_fn *mac;         /* NULL: connections are not authenticated (inproc and tests) */
    void *mac_user;
    const char *listen;      /* tcp: the address to listen on, "0.0.0.0" or "::"; NULL: loopback only */
    const char *advertise;   /* tcp: comma-separated addresses that peers may reach this rank at; NULL: `listen` */
    int streams;             /* tcp: connections a peer; 0: the default */
    int encrypt; /* encrypt what crosses a network: tcp does, with OpenSSL, and needs `mac`; the same on all ranks */
};

/* A world is its process's own: in one that was forked from it, with or without operations in flight, calls that can fail
 * fail with PCM_ERR_ARGUMENT, others do nothing, and neither harms the parent. A child may make a world of its own. */
PCM_API int pcm_world_create(const struct pcm_world_config *config, pcm_world **world);
/* Says goodbye to all peers, stops the progress thread and frees all; outstanding requests fail. */
PCM_API void pcm_world_destroy(pcm_world *world);
/* Writes this rank's opaque address (at most *bytes; PCM_ERR_ARGUMENT if it needs more) and its length. */
PCM_API int pcm_world_address(pcm_world *world, void *address, size_t *bytes);
/* Tells where a peer is: the bytes that its pcm_world_address gave. Needed before the first message to it. */
PCM_API int pcm_world_set_peer(pcm_world *world, int rank, const void *address, size_t bytes);
/* How many ranks share this one's processors, which decides how long waiting may spin; until told: all of them. */
PCM_API void pcm_world_set_local_ranks(pcm_world *world, int ranks);
/* A trusted control plane says that a rank has died: every operation that involves it fails with PCM_ERR_PEER_LOST. */
PCM_API void pcm_world_peer_lost(pcm_world *world, int rank, const char *why);
/* How a peer is reached: the transport's name, or "" before the first connection. */
PCM_API const char *pcm_world_transport(pcm_world *world, int rank);
/* Writes what connects this rank to its peers over tcp, as JSON lines, and returns the bytes needed. Keys: peer (its rank in
 * the world), channel (the communicator's id), stream (its number in the channel), from, to (address and port of each end),
 * sent, received (bytes, since it was connected), rate (bytes/s that it has delivered of late), up. */
PCM_API size_t pcm_world_rails(pcm_world *world, char *text, size_t capacity);
/* Connections that were turned away for lack of the secret, or for talking nonsense. */
PCM_API uint64_t pcm_world_refused(pcm_world *world);
/* Writes the flight recorder's latest operations, oldest first, as JSON lines, and returns the bytes needed. Keys: record
 * (its number among all), comm, operation (its number on the communicator), call (for people), collective, dtype, count
 * (elements a block; null: uneven), algorithm, start_s (since the world's beginning), age_s (since its own),
 * duration_us, state ("done", "under way", "failed"). */
PCM_API size_t pcm_world_trace(pcm_world *world, char *text, size_t capacity);

/* ---- MPI, if this process has loaded one ------------------------------------------------------- */

/* Makes a communicator of MPI, given as its handle, one that the transport `mpi:BINDING` can use. Collective over it, as it is
 * duplicated; the duplicate goes when the communicator is freed, when MPI is finalized, or after pcm_mpi_detach with the last
 * world that uses it. Works with Open MPI, with all that share MPICH's ABI, and with the ABI of MPI 5. */
PCM_API int pcm_mpi_attach(intptr_t comm, int *binding);
PCM_API int pcm_mpi_detach(int binding);
/* The library in its own words, as MPI_Get_library_version gives them: into at least 8192 bytes, which are returned. */
PCM_API const char *pcm_mpi_version(char *text);
/* Gives `bytes` bytes of each rank to all, in the order of their ranks in MPI. Collective; waits without a deadline. */
PCM_API int pcm_mpi_exchange(int binding, const void *mine, size_t bytes, void *all);

/* The rank and size of the communicator that a binding is a duplicate of. */
PCM_API int pcm_mpi_place(int binding, int *rank, int *size);
/* The handle of MPI_COMM_WORLD, or of the communicator that Fortran knows by a number (an INTEGER, or MPI_VAL of a
 * type(MPI_Comm)); 0, which is no handle, if no MPI is running here. */
PCM_API intptr_t pcm_mpi_comm_world(void);
PCM_API intptr_t pcm_mpi_from_fortran(int comm);
/* Makes the world of the ranks of a communicator of MPI, and the communicator of all of them. Collective; the ranks keep
 * their numbers and meet by way of MPI. transports: names in order of preference of "shm" and "mpi"; NULL: "shm,mpi". Its
 * connections are not authenticated: by shared memory, other users of a host can reach a rank. Undo it with pcm_comm_free
 * and pcm_world_destroy, before MPI is finalized. */
PCM_API int pcm_mpi_world(intptr_t comm, const char *transports, pcm_world **world, pcm_comm **all);

/* ---- programs that a launcher has started, without Python and without MPI ------------------------ */

/* Joins the job that this process's launcher has made (pycomm run, torchrun, srun, mpiexec), by the same variables and
 * settings as pycomm.init() in Python: makes its world, and the communicator of all ranks. Called once, by all ranks; a
 * process that no launcher has started is a job of one rank.
 *
 * A helper process, `$PYCOMM_PYTHON -m pycomm.helper.launched` (python3 by default), does that and stays until pcm_world_destroy:
 * it tells the world of ranks that die, and chooses a schedule for each call that has none, on this and all communicators
 * of the world, so that pcm_run and pcm_start never return PCM_NO_PLAN. Undo it with pcm_comm_free and pcm_world_destroy. */
PCM_API int pcm_launched_world(pcm_world **world, pcm_comm **all);

/* ---- communicators ----------------------------------------------------------------------------- */

/* A communicator of `size` distinct world ranks; `id` is agreed by them and unique among the world's communicators. */
PCM_API int pcm_comm_create(pcm_world *world, uint64_t id, const int32_t *ranks, int size, pcm_comm **comm);
PCM_API void pcm_comm_free(pcm_comm *comm);
PCM_API int pcm_comm_rank(const pcm_comm *comm);
PCM_API int pcm_comm_size(const pcm_comm *comm);
/* How many collectives have been called on this rank; where ranks agree on their calls, they agree on it. */
PCM_API uint64_t pcm_comm_calls(pcm_comm *comm);
/* From now on this thread does not spin where it waits: for one that waits while other threads compute. */
PCM_API void pcm_thread_patient(void);
/* Between pcm_comm_hold(comm, 1) and pcm_comm_hold(comm, 0) no thread works on what was started unless it waits
 * for it: for who starts many operations in a row and shall not meet another thread at each. */
PCM_API void pcm_comm_hold(pcm_comm *comm, int held);
PCM_API void pcm_comm_set_timeout(pcm_comm *comm, double seconds);
/* All operations here and, as soon as they hear of it, on the other ranks fail with PCM_ERR_ABORTED. */
PCM_API void pcm_comm_abort(pcm_comm *comm, const char *why);

/* ---- schedules: what one rank does, as rounds of steps over chunks ------------------------------ */

enum pcm_step_kind {
    PCM_STEP_SEND, /* send chunk to peer */
    PCM_STEP_RECV, /* receive chunk from peer */
    PCM_STEP_REDUCE_FROM, /* receive from peer and reduce into chunk */
    PCM_STEP_COPY, /* chunk = src, locally */
    PCM_STEP_REDUCE, /* chunk = chunk op src, locally */
};
enum pcm_step_flags {
    PCM_FLAG_MORE = 1, /* the message goes on with the next step, which has the same kind and peer */
    PCM_FLAG_END = 2, /* last step of its round */
    PCM_FLAG_SWAP = 4, /* the incoming operand is the left one */
};
struct pcm_step { /* 16 bytes; the steps of a round are posted together, and its reads happen before its writes */
    uint8_t kind, flags;
    uint16_t unused;
    uint32_t peer, chunk, src;
};

/* Buffers are in_blocks and out_blocks blocks (equal, or of given counts), each cut into `cut` balanced pieces; a chunk
 * is a piece of the input (in_at), of the output (out_at), of both, or a temporary as long as chunk `like`. Where blocks
 * differ in length, a temporary may be a piece of a block that is in no buffer of this rank, which passes it on. */
struct pcm_schedule_desc {
    const char *name; /* for people: "ring" */
    const struct pcm_step *steps;
    uint32_t nsteps, nchunks;
    const int32_t *in_at, *out_at; /* nchunks: block * cut + piece, or -1 */
    const uint32_t *like; /* nchunks: itself, or the chunk whose length a temporary has */
    uint32_t in_blocks, out_blocks, cut;
    const int32_t
        *passed_at; /* nchunks: block * cut + piece, among the blocks that are passed on, or -1; NULL: none is */
    uint32_t passed_blocks;
    int offload; /* there are no steps: a transport runs the collective whole (see pcm_comm_offers) */
};
/* Copies and checks a description. The schedule may serve any number of plans, dtypes and sizes. */
PCM_API int pcm_schedule_create(const struct pcm_schedule_desc *desc, pcm_schedule **schedule);
PCM_API void pcm_schedule_release(pcm_schedule *schedule); /* freed when its last plan is */

/* ---- calls -------------------------------------------------------------------------------------- */

struct pcm_call {
    uint8_t collective, dtype, op; /* their enums; op is 0 where there is no reduction */
    uint8_t variant; /* 0: the caller's default schedule; others tell the caller's other choices apart */
    int32_t root; /* 0 where there is none */
    const void *in;
    void *out;
    uint64_t count; /* elements a block, where blocks are equal */
    const uint64_t *in_counts, *in_displs; /* elements a block of the input, and where it starts; NULL: equal blocks */
    const uint64_t *out_counts, *out_displs;
    const uint64_t *passed_counts; /* elements of each block that is passed on; NULL where blocks are equal */
    double timeout; /* seconds; 0: the communicator's */
};

/* Has calls be run whole by what lies below a transport (MPI's own collectives), as schedules with `offload` ask for: makes what
 * that needs (a communicator of MPI), which goes with this communicator. All ranks call it, and it may wait for them. */
PCM_API int pcm_comm_muster(pcm_comm *comm);
/* Ends that, while no such call is under way; not collective. */
PCM_API void pcm_comm_dismiss(pcm_comm *comm);
/* Whether calls such as this one can be run whole, after pcm_comm_muster: same collective, dtype and op. All ranks get the same
 * answer. */
PCM_API int pcm_comm_offers(pcm_comm *comm, const struct pcm_call *call);
/* The bytes for which an uneven call is to be planned, the same on all ranks: those of the whole vector where all know all
 * counts (allgather, reduce_scatter), rounded up to a power of two; else 0. */
PCM_API uint64_t pcm_call_step(const pcm_comm *comm, const struct pcm_call *call);
/* Remembers the schedule for calls like this one (same collective, dtype, op, root, count, variant, uneven or not, in
 * place or not; of uneven ones, those of the same pcm_call_step). slices: pieces of the buffer that go through the rounds one after the other; window: how many of
 * them at once. Every rank of the communicator must give the same. */
PCM_API int pcm_comm_plan(pcm_comm *comm, const struct pcm_call *call, pcm_schedule *schedule, uint32_t slices,
                          uint32_t window);
/* Runs a call in this thread. PCM_NO_PLAN: pcm_comm_plan must come first. With patience (seconds; < 0: to the end),
 * PCM_AGAIN means that the call goes on as a request, to be had from pcm_late_request(), so that the caller can look after other
 * things, such as signals, and then wait on. */
PCM_API int pcm_run(pcm_comm *comm, const struct pcm_call *call, double patience);
/* The request that this thread's last pcm_run has become, once; then NULL. */
PCM_API void pcm_late_request(pcm_request **request);
/* Starts a call; buffers must stay until it is done. Counts are copied. */
PCM_API int pcm_start(pcm_comm *comm, const struct pcm_call *call, pcm_request **request);

struct pcm_status_info { /* of a received message */
    int32_t source, tag, dtype;
    uint64_t bytes;
};
enum { PCM_ANY_SOURCE = -1, PCM_ANY_TAG = -1 };
PCM_API int pcm_send_start(pcm_comm *comm, const void *buf, uint64_t bytes, int dtype, int dest, int tag,
                           double timeout, pcm_request **request);
/* A send that is done only when its receive has been found. */
PCM_API int pcm_ssend_start(pcm_comm *comm, const void *buf, uint64_t bytes, int dtype, int dest, int tag,
                            double timeout, pcm_request **request);
PCM_API int pcm_recv_start(pcm_comm *comm, void *buf, uint64_t capacity, int dtype, int source, int tag, double timeout,
                           pcm_request **request);
/* A receive of a message of any length and dtype, into memory that is allocated when the message comes. When the request has
 * been waited for, *buf is that memory, for the caller to free() (it is not NULL, even of an empty message); before, NULL. */
PCM_API int pcm_recv_any_start(pcm_comm *comm, void **buf, int source, int tag, double timeout, pcm_request **request);
/* Tells of the message that a receive with these would get, without receiving it; the request is done when it is there. */
PCM_API int pcm_probe_start(pcm_comm *comm, int source, int tag, double timeout, pcm_request **request);
/* The same at once: PCM_AGAIN if it is not there. With `request`, it is received as by pcm_recv_any_start. */
PCM_API int pcm_probe(pcm_comm *comm, int source, int tag, struct pcm_status_info *info, void **buf, double timeout,
                      pcm_request **request);
/* Ends a receive, or a probe, that no message has come for: it is done then, without one, and is waited for as usual.
 * PCM_AGAIN: there is nothing to be cancelled any more (or it is another kind of request). */
PCM_API int pcm_cancel(pcm_request *request);

/* Waits until the request is done (seconds; < 0: until its own deadline) and frees it, unless PCM_AGAIN: not yet. */
PCM_API int pcm_wait(pcm_request *request, double seconds, struct pcm_status_info *status);

/* ---- facts --------------------------------------------------------------------------------------- */

PCM_API const char *pcm_version(void);
PCM_API const char *pcm_kernels_name(void); /* the instruction set in use: "avx2", "neon", "generic" */
PCM_API const char *pcm_transports(void); /* names of all compiled transports, comma-separated */
/* Makes the transport in a shared object known by its name (a transport's author reads pycomm/transport.h). PCM_ERR_ARGUMENT if
 * it cannot be loaded, PCM_ERR_SYSTEM if it is no transport, or was built for another version of the contract. */
PCM_API int pcm_transport_load(const char *path);
/* dst[i] = a[i] op b[i] with the kernels that the executor uses; dst may be exactly a or b. AVG adds only. */
PCM_API int pcm_reduce_local(int dtype, int op, void *dst, const void *a, const void *b, size_t n);
/* Copies with the kernels that the executor uses; stream: past the caches. For measuring what memory allows. */
PCM_API void pcm_copy_bytes(void *dst, const void *src, size_t bytes, int stream);

#ifdef __cplusplus
}
#endif
#endif
