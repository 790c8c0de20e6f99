/* handshake.h: how two ranks that meet on a stream socket prove to each other that they belong to the same job.
 *
 *   initiator                                            acceptor
 *     hello: who calls whom, for which channel, nonce ─▶
 *                                                     ◀─ answer: nonce, MAC("acceptor", hello, both nonces)
 *     proof: MAC("initiator", hello, both nonces) ─────▶
 *                                                     ◀─ verdict: one byte, PCM_WELCOME or PCM_YIELD
 *
 * Nonces are fresh on both sides, so a recorded handshake proves nothing later; the role is part of what is signed, so
 * an answer cannot be sent back as a proof. The acceptor decides only after the proof, so a stranger's claims change
 * nothing. Bytes after the verdict are the transport's; the handshake reads none of them.
 *
 * Either rank of a pair may call first, and both may at once. The rule, which every transport follows in `admit`:
 *   - the channel is unknown here                      welcome: it waits for this side's connect()
 *   - this side is calling too, and has the lower rank yield: the lower rank's call wins
 *   - this side is calling too, and has the higher     welcome: drop the own call and use this connection
 *   - the channel is up                                yield: a stale call, or the next use of a channel that is not
 *                                                      yet closed here; the caller tries again a little later
 */
#ifndef PYCOMM_HANDSHAKE_H
#define PYCOMM_HANDSHAKE_H

#include "../csrc/transport.h"

enum {
    PCM_HELLO_PAYLOAD = 64,  /* bytes a transport may add to its hello */
    PCM_HANDSHAKE_MS = 5000, /* what a caller may take to prove itself */
    PCM_VISITORS = 64,       /* unproved callers at once; more wait outside, or turn out one that has been slow: */
    PCM_SLOW_MS = 250,       /* ... for at least that long. A caller that was sent away after it may call again */
};

/* What a caller says of itself. All of it is signed. */
struct pcm_hello {
    uint64_t job, channel;
    uint32_t from, to; /* world ranks */
    uint32_t bytes;    /* of the payload in use */
    uint8_t payload[PCM_HELLO_PAYLOAD];
};

enum pcm_verdict {
    PCM_WELCOME = 'w',
    PCM_YIELD = 'y', /* not this connection: another one is, or will be; wait for it, or try again later */
};

/* ---- the door: a listening socket, and every handshake under way on its endpoint in either direction ---------- */

struct pcm_door;
struct pcm_visit; /* one handshake under way */

/* The keys of a connection, each for one direction, where the configuration asks for encryption. Both ends derive them from
 * the secret and from all that was said, so they are fresh and this connection's alone. */
struct pcm_keys {
    uint8_t out[32], in[32];
};

/* What a caller who has proved itself gets: PCM_WELCOME or PCM_YIELD. Must not change anything. */
typedef int pcm_admit_fn(void *user, const struct pcm_hello *hello);
/* A welcomed caller's connection: the descriptor is the callee's from now on. Follows its admit at once. keys: NULL without
 * encryption. */
typedef void pcm_enter_fn(void *user, int fd, const struct pcm_hello *hello, const struct pcm_keys *keys);
/* A call of one's own has ended. PCM_OK: welcomed, the descriptor is the callee's. PCM_AGAIN: the peer yields.
 * Otherwise (fd is -1) PCM_ERR_AUTH, PCM_ERR_TIMEOUT, PCM_ERR_PEER_LOST or PCM_ERR_SYSTEM, and why: a piece of a
 * sentence. */
typedef void pcm_called_fn(void *user, int status, int fd, const struct pcm_keys *keys, const char *why);

/* Serves a non-blocking listening socket (stream: unix or internet), which the door then owns, also when it fails. */
int pcm_door_open(pcm_world *world, int listening, int patience_ms, pcm_admit_fn *admit, pcm_enter_fn *enter,
                  void *user, struct pcm_door **door);
/* Closes it and ends all visits without further callbacks. NULL is fine. */
void pcm_door_close(struct pcm_door *door);
/* Greets over a non-blocking socket which is connected, or connecting; the door then owns it, also when this fails
 * (NULL, pcm_fail). Calls `called` once, later, unless the visit is dropped first. The connection must be there within
 * connect_ms; the answer has answer_ms from then on, or any time (0), for a peer may be busy with other things. */
struct pcm_visit *pcm_door_call(struct pcm_door *door, int fd, const struct pcm_hello *hello, int connect_ms,
                                int answer_ms, pcm_called_fn *called, void *user);
/* Ends a call of one's own, without callback. */
void pcm_door_drop(struct pcm_visit *visit);

/* ---- the machine that the door drives: one connection, no reactor, no clock ------------------------------------ */

struct pcm_handshake {
    pcm_world *world;
    int fd;
    int stage; /* private */
    bool initiator;
    uint32_t at; /* bytes of the message under way that have passed */
    int verdict; /* of the acceptor; valid after PCM_OK */
    pcm_admit_fn *admit;
    void *user;
    struct pcm_hello hello; /* own, or the caller's claim (proved after PCM_OK) */
    uint8_t wire[136], answer[72], proof[32], expect[32], byte;
    char why[96]; /* after an error */
};

int pcm_handshake_call(struct pcm_handshake *shake, pcm_world *world, int fd, const struct pcm_hello *hello);
int pcm_handshake_answer(struct pcm_handshake *shake, pcm_world *world, int fd, pcm_admit_fn *admit, void *user);
/* Moves on as far as it can without waiting: PCM_AGAIN; PCM_OK, see `verdict`; PCM_ERR_AUTH: a stranger;
 * PCM_ERR_PEER_LOST: connection refused; PCM_ERR_SYSTEM: it failed, or was closed. The descriptor stays the caller's.
 */
int pcm_handshake_step(struct pcm_handshake *shake);
/* The keys of the connection, once it is welcome: PCM_OK or PCM_ERR_SYSTEM. */
int pcm_handshake_keys(struct pcm_handshake *shake, struct pcm_keys *keys);
/* What a waiting handshake waits for: EPOLLIN or EPOLLOUT. */
uint32_t pcm_handshake_events(const struct pcm_handshake *shake);

/* Milliseconds on the clock that deadlines are kept by. */
int64_t pcm_clock_ms(void);

#endif
