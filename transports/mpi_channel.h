/* mpi_channel.h: what the files of the transport mpi share: bindings to communicators, channels over their messages.
 *
 * A binding is a communicator of the program, of which pycomm has a duplicate of its own, so that no message or collective of
 * one is taken for one of the other. A channel is a number in the tags of its messages, chosen by whom it leads to:
 *
 *   tag = number * MPI_TAGS_EACH + lane         a fragment, in the order of the lane
 *                                + MPI_CONTROL  a struct mpi_note: releases, notices, goodbyes
 *                                + MPI_DOOR     (the number of an endpoint) a struct mpi_hello
 *
 * Each side of a channel sends one hello, as soon as its core or the peer's hello asks for the channel; the k-th that two ranks
 * send each other under one id belong together.
 *
 * A lane has MPI_SLOTS slots on each side, as many receives are posted for it from its first peek on, and a sender has no
 * more under way than that: what the receiver has released comes back in fragments that go the other way, and in notes.
 */
#ifndef PYCOMM_MPI_CHANNEL_H
#define PYCOMM_MPI_CHANNEL_H

#include "mpi_library.h"

enum {
    MPI_TAGS_EACH = 16,
    MPI_CONTROL = PCM_LANES,
    MPI_DOOR,
    MPI_SLOTS = 4,             /* fragments of a lane under way: with twice as many, they fall out of caches */
    MPI_PIECE = PCM_FRAGMENT, /* bytes that a fragment carries */
};

/* ---- bindings (mpi_binding.c) ------------------------------------------------------------------------------------- */

struct mpi_endpoint;

struct mpi_binding {
    struct mpi_binding *next;
    const struct mpi_library *mpi;
    int number, uses;      /* the number names it in the transport's argument; without uses it goes */
    mpi_handle parent;     /* the program's communicator */
    mpi_handle comm;       /* the duplicate */
    int keyval;            /* under which the parent holds this binding, */
    bool held;             /* as long as it lives */
    bool gone;             /* the duplicate was freed, or MPI finalized */
    bool broken;           /* a call has failed: what is collective is not tried any more */
    bool multiple;         /* any thread may call MPI at any time */
    int rank, size;
    int most_numbers;      /* that tags have room for */
    bool *numbers;         /* by number: is it in use? */
    struct mpi_endpoint *endpoints;
};

/* The binding of a number, with one use more, for an endpoint; NULL (and pcm_fail) if there is none. */
struct mpi_binding *mpi_binding_join(int number, struct mpi_endpoint *endpoint);
/* The endpoint ends: false if the binding has ended it already. Then mpi_binding_leave gives the use back. */
bool mpi_binding_part(struct mpi_endpoint *endpoint);
void mpi_binding_leave(struct mpi_binding *binding);
/* Records that a function of MPI has failed; returns PCM_ERR_SYSTEM. */
int mpi_refused(const struct mpi_library *mpi, const char *what, int code);
/* A number for tags that no other channel or endpoint uses, or -1. */
int mpi_number_take(struct mpi_binding *binding);
void mpi_number_give(struct mpi_binding *binding, int number);

/* ---- channels (mpi_channel.c) -------------------------------------------------------------------------------------- */

struct mpi_prefix { /* of a fragment's payload in its message, aligned so that the payload begins a cache line */
    uint32_t bytes;    /* of the payload */
    uint32_t released; /* of the lane's other direction, by the sender of this */
    struct pcm_head head;
};

enum { MPI_CELL = 64 + MPI_PIECE, MPI_PREFIX_AT = 64 - sizeof(struct mpi_prefix) };

struct mpi_lane {
    uint32_t sent, credited;             /* fragments; of them, those that the peer has released */
    uint32_t posted, arrived, released, told; /* told: the releases that the peer knows of */
    unsigned char *out, *in;             /* MPI_SLOTS cells each, once needed */
    mpi_handle sends[MPI_SLOTS], receives[MPI_SLOTS];
    uint32_t sending, receiving; /* bits: the slot's request is active */
};

struct mpi_note { /* out of band: cumulative, so that one may stand for several */
    uint32_t notice, notice_bytes; /* number of the notice in it, from 1; 0: none */
    uint32_t goodbye;              /* nothing follows `sent` */
    uint32_t released[PCM_LANES], sent[PCM_LANES];
    unsigned char text[PCM_NOTICE];
};

struct mpi_hello {
    uint64_t id;
    int32_t rank;         /* of the sender in the world, */
    int32_t target, door; /* and how it is reached */
    int32_t number;       /* in the tags of what is sent to it on this channel */
};

struct mpi_channel {
    struct pcm_channel base;
    struct mpi_channel *next;  /* of the endpoint, oldest first */
    int target, door;          /* rank of the peer in the binding, and number of its endpoint */
    int in_number, out_number; /* in the tags of what comes, and of what goes; -1: not known yet */
    bool claimed, closed;      /* by our core */
    bool left;                 /* the peer has said goodbye: `expected` fragments come in all */
    bool stuck;                /* a call of MPI has failed */
    bool unsent;               /* the core knows that something has not left */
    uint32_t idle;             /* empty peeks since the last look at notes */
    uint32_t expected[PCM_LANES];
    struct mpi_lane lanes[PCM_LANES];
    struct mpi_hello hello;
    struct mpi_note note_out, note_in;
    mpi_handle hello_send, note_send, note_receive;
    bool hello_sending, note_sending, note_receiving;
    bool owes_hello, owes_credit, owes_notice, owes_goodbye, said_goodbye;
    unsigned char notice[PCM_NOTICE]; /* the next */
    uint32_t notice_bytes, notices_out, notices_in;
};

struct mpi_endpoint {
    struct pcm_endpoint base;
    struct mpi_endpoint *sibling; /* of the same binding */
    struct mpi_binding *binding;
    struct mpi_channel *channels;
    int number;
    bool dead; /* the binding has ended it */
    bool busy; /* progress is being made: nothing may be freed */
    struct mpi_hello hello;
    mpi_handle hello_receive;
    bool hello_receiving;
    struct mpi_party *parties;
    struct mpi_call *calls; /* of MPI's own collectives, under way */
    struct pcm_watch timer;
    long nap_ns;
    bool asleep, moved; /* moved: since the last nap */
};

struct mpi_channel *mpi_channel_new(struct mpi_endpoint *endpoint, int peer, uint64_t id, int target, int door);
/* Progress of one channel's notes and sends. */
void mpi_channel_progress(struct mpi_channel *channel);
/* Has everything left that was committed, and the goodbye? And has the peer left too, and all that it had sent arrived? */
bool mpi_channel_flushed(const struct mpi_channel *channel);
bool mpi_channel_over(const struct mpi_channel *channel);
/* Takes the receives back. */
void mpi_channel_abandon(struct mpi_channel *channel);
/* Does so too, unless MPI is out of reach, and frees the memory, but for what MPI may still use. */
void mpi_channel_free(struct mpi_channel *channel);

/* The data slots of struct pcm_transport. */
void *mpi_reserve(struct pcm_channel *channel, unsigned lane, size_t want, size_t *room);
void mpi_commit(struct pcm_channel *channel, unsigned lane, const struct pcm_head *head, size_t bytes);
const struct pcm_head *mpi_peek(struct pcm_channel *channel, unsigned lane, const void **payload, size_t *bytes);
void mpi_release(struct pcm_channel *channel, unsigned lane);
bool mpi_notice(struct pcm_channel *channel, const void *bytes, size_t length);

/* ---- MPI's own collectives (mpi_native.c) ------------------------------------------------------------------------------- */

/* The slots of struct pcm_transport. */
bool mpi_offers(struct pcm_endpoint *endpoint, const struct pcm_call *call);
void *mpi_launch(struct pcm_endpoint *endpoint, void *party, const struct pcm_call *call);
int mpi_landed(struct pcm_endpoint *endpoint, void *launched);
void *mpi_muster(struct pcm_endpoint *endpoint, const int32_t *ranks, int size);
void mpi_dismiss(struct pcm_endpoint *endpoint, void *party);
/* Frees the communicators of all parties, while MPI still works. */
void mpi_parties_end(struct mpi_endpoint *endpoint);

/* ---- endpoints (mpi.c) ------------------------------------------------------------------------------------------------ */

/* Ends all channels, as if their peers had left; waits a moment until what was committed has left. Under the world's lock, or
 * when nobody else can be in the world. */
void mpi_endpoint_end(struct mpi_endpoint *endpoint);
/* Takes a receive back; false if MPI does not let go of it. */
bool mpi_take_back(const struct mpi_library *mpi, mpi_handle *request);

#endif
