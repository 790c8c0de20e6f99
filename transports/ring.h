/* ring.h: lanes in memory that two ranks share: the data path of inproc (threads of one process) and shm (processes of one host).
 *
 *   struct ring_pair (shared)
 *     side 0 writes   lanes[0][0..PCM_LANES-1]   side 1 reads
 *     side 1 writes   lanes[1][0..PCM_LANES-1]   side 0 reads
 *
 *   a lane:  [tail]  [cell][cell][cell][cell]        cell = one line (full, bytes, header, 24 bytes inline) + PCM_FRAGMENT
 *
 * A cell's `full` holds the number of the fragment in it, counted from 1: the writer stores it last (release), the reader
 * sees it first (acquire). `tail` counts what the reader has released; the writer keeps a copy and looks again only when the
 * lane seems full. A fragment of at most 24 bytes is one cache line, header included. In the line of a long one stand the ticks
 * that it took to write. In a cell whose `bytes` is RING_LENT lies a struct ring_loan: where in the writer's own memory the reader
 * finds the fragment.
 */
#ifndef PYCOMM_RING_H
#define PYCOMM_RING_H

#include <string.h>

#include "../csrc/transport.h"

enum { RING_INLINE = 24 };
#define RING_LENT UINT32_MAX

struct ring_loan {
    uint64_t address, bytes;
};
_Static_assert(sizeof(struct ring_loan) <= RING_INLINE, "a loan is one cache line, header included");

struct ring_cell {
    _Alignas(64) _Atomic uint32_t full;
    uint32_t bytes;
    struct pcm_head head;
    unsigned char small[RING_INLINE];
    unsigned char payload[PCM_FRAGMENT];
};

struct ring_lane {
    _Alignas(64) _Atomic uint32_t tail;
    struct ring_cell cells[PCM_SLOTS];
};

enum ring_signal { RING_LEFT = 1, RING_MAIL = 2 };
enum { RING_CLASSES = 14 }; /* octaves of long messages; the last one holds all that are longer */
enum { RING_TIMED = 4 }; /* with an enum pcm_path: the reader takes the message's time */

struct ring_side { /* what one side tells the other */
    _Alignas(64) _Atomic uint32_t asleep; /* ring my doorbell for what you commit or release */
    _Alignas(64) _Atomic uint32_t signal; /* written by the OTHER side: enum ring_signal */
    _Atomic uint32_t reads; /* this side can read the memory of the other's process */
    _Atomic uint8_t asks[RING_CLASSES]; /* enum pcm_path in which this side wants long messages, and RING_TIMED */
    _Atomic uint32_t withdrawn; /* this side has taken back what it had lent: what is read now may be something else */
    struct {
        uint64_t address, value;
    } sample; /* of this side's memory, for the other to try */
    uint32_t mail_bytes;
    unsigned char mail[PCM_NOTICE];
};

struct ring_pair {
    struct ring_side sides[2];
    struct ring_lane lanes[2][PCM_LANES];
};

struct ring_arrival { /* a long message that is coming through a lane */
    uint64_t begun; /* ticks, when its first fragment was seen, less what it took to write; 0: there is none */
    uint64_t bytes; /* that have come */
    unsigned loans; /* fragments of it that were lent */
    int path; /* what was asked for when it began */
};

struct ring_trials { /* of messages of one octave, by enum pcm_path */
    uint64_t pace[PCM_LENT + 1]; /* ticks of a message, by the last trials; 0: there was none */
    int path; /* that is asked for */
    uint64_t taken; /* ticks, in the trial under way, */
    int messages; /* of so many */
    int rest; /* messages that are not timed, because that takes time */
    int seldom; /* trials of the fastest to one of another, */
    int trials; /* of them, since */
    int other; /* was tried */
};

struct ring_channel {
    struct pcm_channel base;
    struct ring_pair *pair;
    int side; /* 0: the rank that made the pair */
    int doorbell; /* of the peer; -1 until known */
    int process; /* the peer's id; 0: ranks share an address space by design */
    uint64_t sample;
    struct ring_channel *next; /* of the endpoint */
    uint64_t asked; /* ticks, when this side began to write a long message whose time is to be taken; or 0 */
    struct ring_arrival arrivals[PCM_LANES];
    struct ring_trials trials[RING_CLASSES];
    uint32_t sent[PCM_LANES], tail_seen[PCM_LANES], received[PCM_LANES];
};

static inline struct ring_loan ring_loan_of(const struct ring_cell *cell)
{
    struct ring_loan loan;
    memcpy(&loan, cell->small, sizeof loan);
    return loan;
}

static inline struct ring_side *ring_mine(struct ring_channel *c) { return &c->pair->sides[c->side]; }
static inline struct ring_side *ring_theirs(struct ring_channel *c) { return &c->pair->sides[!c->side]; }

/* The data slots of struct pcm_transport. */
void *ring_reserve(struct pcm_channel *channel, unsigned lane, size_t want, size_t *room);
void ring_commit(struct pcm_channel *channel, unsigned lane, const struct pcm_head *head, size_t bytes);
const struct pcm_head *ring_peek(struct pcm_channel *channel, unsigned lane, const void **payload, size_t *bytes);
void ring_release(struct pcm_channel *channel, unsigned lane);
bool ring_notice(struct pcm_channel *channel, const void *bytes, size_t length);

bool ring_lend(struct pcm_channel *channel, unsigned lane, const struct pcm_head *head, const void *from, size_t bytes,
               uint32_t *ticket);
bool ring_returned(struct pcm_channel *channel, unsigned lane, uint32_t ticket);
bool ring_fetch(struct pcm_channel *channel, unsigned lane, void *to, size_t at, size_t n);
void ring_withdraw(struct pcm_channel *channel);

/* ---- the path of long messages (ring_path.c) -------------------------------------------------------------------------- */

/* The slot `path`. */
int ring_path_of(struct pcm_channel *channel, const struct pcm_head *head);
/* Whether a cell holds some of a long message; what only announces one holds nothing. */
static inline bool ring_is_long(const struct ring_cell *cell) { return cell->bytes && cell->head.bytes >= PCM_LONG; }
/* A fragment of a long message is about to be read; and was. */
void ring_path_begin(struct ring_channel *channel, unsigned lane, const struct ring_cell *cell);
void ring_path_end(struct ring_channel *channel, unsigned lane, const struct ring_cell *cell);
/* It has become known whether this side can read the peer's memory. */
void ring_path_start(struct ring_channel *channel, bool reads);

/* ---- the rest --------------------------------------------------------------------------------------------------------- */

/* Shows the peer where it can try to read this side's memory; then tries to read the peer's, once that has done the same. */
void ring_show_sample(struct ring_channel *channel);
void ring_try_sample(struct ring_channel *channel);
/* Tells the peer that this side leaves. */
void ring_leave(struct ring_channel *channel);
/* Looks at what the peer has signalled (mail, goodbye) and passes it on to the core. */
void ring_read_signal(struct ring_channel *channel);
/* The `arm` slot's work for one channel. */
void ring_arm(struct ring_channel *channel, bool asleep);

#endif
