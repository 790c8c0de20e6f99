/* p2p.c: messages with tags between two ranks: a matching layer over two lanes of each channel.
 *
 * PCM_LANE_P2P carries envelopes. A message of at most EAGER bytes is in its envelope and, if nobody has asked for it yet,
 * is kept in the unexpected list. A longer one is only announced; when a receive matches it, the receiver grants it, and
 * the payload goes by PCM_LANE_BULK, in the order of the grants, straight into the receive's buffer. A synchronous one is
 * announced too, however short: its grant tells that a receive has been found. What an envelope is
 * stands in pcm_head.part, the tag in root, an announced message's ticket in slice.
 *
 * Short messages that wait for room in the lane leave together: a PACK is a fragment of whole messages, each with its own
 * header in front, padded to 8 bytes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

enum { EAGER = 32 * 1024, PACKED = 2048 /* bytes: the longest message in a pack */ };
enum part { DATA, ANNOUNCE, GRANT, BULK, PACK };

struct unexpected { /* a message, or the announcement of one, that came before its receive */
    struct unexpected *next;
    struct pcm_head head;
    int source;
    uint64_t arrived;
    unsigned char *payload;
    struct pcm_request *sender; /* a synchronous send to this very rank, which waits for the receive */
};

struct errand { /* a grant that is to be sent, or a payload that a grant has called for */
    struct errand *next;
    struct pcm_head head;
    struct pcm_request *request; /* NULL: the payload is thrown away */
    uint64_t moved;
    uint64_t taken; /* received: of the fragment at hand, which was lent */
};

struct queue {
    struct errand *first, **tail;
};

struct link { /* what goes on with one peer */
    struct pcm_request *sends, **sends_tail; /* whose envelopes wait, oldest first */
    struct pcm_request *announced;           /* sends that wait for their grants */
    struct queue grants, payloads_out, payloads_in;
    bool arriving;                           /* a message is part-way through the p2p lane: */
    struct pcm_request *arriving_into;       /* into this receive, */
    struct unexpected *arriving_unexpected;  /* or this list entry, or nowhere (too long for its receive) */
    uint64_t arrived, arriving_bytes;
    uint32_t tickets;
};

struct pcm_matcher {
    struct link *links; /* by peer */
    int nlinks;
    struct pcm_request *receives, **receives_tail;
    struct pcm_request *probes;
    struct unexpected *unexpected, **unexpected_tail;
};

/* ---- life ------------------------------------------------------------------------------------------------- */

int pcm_matcher_create(pcm_comm *comm, struct pcm_matcher **out)
{
    struct pcm_matcher *m = calloc(1, sizeof *m);
    if (m) m->links = calloc((size_t)comm->size, sizeof *m->links);
    if (!m || !m->links) {
        free(m);
        return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory for point-to-point messages");
    }
    m->unexpected_tail = &m->unexpected;
    m->receives_tail = &m->receives;
    m->nlinks = comm->size;
    for (int r = 0; r < comm->size; r++) {
        struct link *l = &m->links[r];
        l->sends_tail = &l->sends;
        l->grants.tail = &l->grants.first;
        l->payloads_out.tail = &l->payloads_out.first;
        l->payloads_in.tail = &l->payloads_in.first;
    }
    *out = m;
    return PCM_OK;
}

static void free_unexpected(struct unexpected *u)
{
    free(u->payload);
    free(u);
}

static struct errand *push(struct queue *q, const struct pcm_head *head, struct pcm_request *request)
{
    struct errand *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    e->head = *head, e->request = request;
    *q->tail = e;
    q->tail = &e->next;
    return e;
}

static void pop(struct queue *q)
{
    struct errand *e = q->first;
    q->first = e->next;
    if (!q->first) q->tail = &q->first;
    free(e);
}

void pcm_matcher_free(struct pcm_matcher *m)
{
    if (!m) return;
    for (int r = 0; r < m->nlinks; r++) {
        while (m->links[r].grants.first) pop(&m->links[r].grants);
        while (m->links[r].payloads_out.first) pop(&m->links[r].payloads_out);
        while (m->links[r].payloads_in.first) pop(&m->links[r].payloads_in);
    }
    for (struct unexpected *u = m->unexpected, *next; u; u = next) {
        next = u->next;
        free_unexpected(u);
    }
    free(m->links);
    free(m);
}

static void unlink_request(struct pcm_request **list, struct pcm_request ***tail, struct pcm_request *r)
{
    for (struct pcm_request **at = list; *at; at = &(*at)->link_next) {
        if (*at != r) continue;
        *at = r->link_next;
        if (tail && *tail == &r->link_next) *tail = at;
        return;
    }
}

/* A request ends, for whatever reason: nothing may point to it any more. */
void pcm_matcher_forget(pcm_comm *comm, struct pcm_request *r)
{
    struct pcm_matcher *m = comm->matcher;
    unlink_request(&m->receives, &m->receives_tail, r);
    unlink_request(&m->probes, NULL, r);
    for (struct unexpected *u = m->unexpected; u; u = u->next)
        if (u->sender == r) u->sender = NULL;
    for (int peer = 0; peer < comm->size; peer++) {
        struct link *l = &m->links[peer];
        if (r->kind == PCM_REQUEST_SEND && peer != r->peer) continue;
        unlink_request(&l->sends, &l->sends_tail, r);
        unlink_request(&l->announced, NULL, r);
        if (l->arriving_into == r) l->arriving_into = NULL;
        for (struct errand *e = l->payloads_in.first; e; e = e->next)
            if (e->request == r) e->request = NULL;
        for (struct errand *e = l->payloads_out.first; e; e = e->next)
            if (e->request == r) e->request = NULL;
    }
}

/* ---- matching ----------------------------------------------------------------------------------------------- */

static bool fits_asked(int source, int tag, int asked_source, int asked_tag)
{
    return (asked_source == PCM_ANY_SOURCE || asked_source == source) && (asked_tag == PCM_ANY_TAG || asked_tag == tag);
}

static bool matches(const struct pcm_request *r, int source, int tag)
{
    return fits_asked(source, tag, r->peer, r->tag);
}

static struct pcm_status_info told(int source, const struct pcm_head *head)
{
    return (struct pcm_status_info){.source = source, .tag = head->root, .dtype = head->dtype, .bytes = head->bytes};
}

/* Makes the memory for a message of any length; false: the receive has ended with an error. */
static bool make_room(struct pcm_request *r, int source, const struct pcm_head *head)
{
    r->buffer = malloc(head->bytes ? head->bytes : 1);
    r->bytes = head->bytes;
    *r->allocated = r->buffer;
    if (r->buffer) return true;
    r->error = (struct pcm_error){.code = PCM_ERR_SYSTEM, .rank = source};
    snprintf(r->error.text, sizeof r->error.text, "out of memory for a message of %llu bytes from rank %d with tag %d",
             (unsigned long long)head->bytes, source, (int)head->root);
    pcm_request_finish(r, PCM_ERR_SYSTEM);
    return false;
}

/* A message has met its receive. True if its payload may be put there; if not, the receive has ended with an error. */
static bool accept(struct pcm_request *r, int source, const struct pcm_head *head)
{
    pcm_comm *comm = r->comm;
    r->info = told(source, head);
    if (r->allocated) return make_room(r, source, head);
    if (head->dtype != r->head.dtype) {
        pcm_comm_fail(comm, PCM_ERR_MISMATCH, source,
                      "the ranks disagree: rank %d sends %s with tag %d where rank %d receives %s", source,
                      pcm_dtype_name(head->dtype), (int)head->root, comm->rank, pcm_dtype_name(r->head.dtype));
        return false;
    }
    if (head->bytes > r->bytes) {
        r->error = (struct pcm_error){.code = PCM_ERR_TRUNCATED, .rank = source};
        snprintf(
            r->error.text, sizeof r->error.text,
            "a message of %llu bytes from rank %d with tag %d does not fit into the receive's buffer of %llu bytes",
            (unsigned long long)head->bytes, source, (int)head->root, (unsigned long long)r->bytes);
        pcm_request_finish(r, PCM_ERR_TRUNCATED);
        return false;
    }
    return true;
}

/* Takes the receive that a message from `source` belongs to off the list; NULL if there is none yet. */
static struct pcm_request *claim_receive(struct pcm_matcher *m, int source, int tag)
{
    for (struct pcm_request *r = m->receives; r; r = r->link_next)
        if (matches(r, source, tag)) {
            unlink_request(&m->receives, &m->receives_tail, r);
            return r;
        }
    return NULL;
}

/* The payload of an announced message may come now; into r, or nowhere if r is NULL. */
static bool grant(pcm_comm *comm, int source, const struct pcm_head *announced, struct pcm_request *r)
{
    struct link *l = &comm->matcher->links[source];
    struct pcm_head head = *announced;
    head.part = GRANT, head.bytes = 0;
    return push(&l->payloads_in, announced, r) && push(&l->grants, &head, NULL);
}

static struct unexpected *keep(struct pcm_matcher *m, int source, const struct pcm_head *head)
{
    struct unexpected *u = calloc(1, sizeof *u);
    if (u && head->part == DATA) u->payload = malloc(head->bytes ? head->bytes : 1);
    if (!u || (head->part == DATA && !u->payload)) {
        free(u);
        return NULL;
    }
    u->head = *head, u->source = source;
    *m->unexpected_tail = u;
    m->unexpected_tail = &u->next;
    for (struct pcm_request *r = m->probes, *next; r; r = next) { /* each ends, and leaves the list */
        next = r->link_next;
        if (!matches(r, source, head->root)) continue;
        r->info = told(source, head);
        pcm_request_finish(r, PCM_OK);
    }
    return u;
}

static void out_of_memory(pcm_comm *comm)
{
    pcm_comm_fail(comm, PCM_ERR_SYSTEM, comm->rank, "rank %d is out of memory for an unexpected message", comm->rank);
}

/* A receive looks first at what has come already. */
static void look_at_unexpected(pcm_comm *comm, struct pcm_request *r)
{
    struct pcm_matcher *m = comm->matcher;
    for (struct unexpected **at = &m->unexpected, *u; (u = *at); at = &u->next) {
        if (!matches(r, u->source, u->head.root)) continue;
        *at = u->next;
        if (m->unexpected_tail == &u->next) m->unexpected_tail = at;
        struct link *l = &m->links[u->source];
        bool wanted = accept(r, u->source, &u->head);
        if (comm->error.code) return free_unexpected(u);
        if (u->head.part == ANNOUNCE) {
            if (!grant(comm, u->source, &u->head, wanted ? r : NULL)) out_of_memory(comm);
        } else if (l->arriving_unexpected == u) { /* the rest of it is still on the lane */
            if (wanted) memcpy(r->buffer, u->payload, l->arrived);
            l->arriving_unexpected = NULL;
            l->arriving_into = wanted ? r : NULL;
        } else if (wanted) {
            if (u->head.bytes) memcpy(r->buffer, u->payload, u->head.bytes);
            pcm_request_finish(r, PCM_OK);
        }
        if (u->sender) pcm_request_finish(u->sender, PCM_OK);
        return free_unexpected(u);
    }
    r->link_next = NULL;
    *m->receives_tail = r;
    m->receives_tail = &r->link_next;
}

/* A message to this very rank never leaves it. */
static void send_to_self(struct pcm_request *r)
{
    pcm_comm *comm = r->comm;
    struct pcm_request *receive = claim_receive(comm->matcher, comm->rank, r->tag);
    if (receive) {
        if (accept(receive, comm->rank, &r->head)) {
            if (r->bytes) memcpy(receive->buffer, r->buffer, r->bytes);
            pcm_request_finish(receive, PCM_OK);
        }
    } else {
        struct unexpected *u = keep(comm->matcher, comm->rank, &r->head);
        if (!u) return out_of_memory(comm);
        if (r->bytes) memcpy(u->payload, r->buffer, r->bytes);
        if (r->synchronous) {
            u->sender = r;
            return;
        }
    }
    if (!comm->error.code) pcm_request_finish(r, PCM_OK);
}

bool pcm_p2p_reach(pcm_comm *comm, int source)
{
    for (int peer = 0; peer < comm->size; peer++) /* whoever may send must be able to reach us */
        if (peer != comm->rank && (source == peer || source == PCM_ANY_SOURCE) &&
            !pcm_comm_channel(comm, (uint32_t)peer))
            return false;
    return true;
}

bool pcm_p2p_look(const pcm_comm *comm, int source, int tag, struct pcm_status_info *info)
{
    for (const struct unexpected *u = comm->matcher->unexpected; u; u = u->next) {
        if (!fits_asked(u->source, u->head.root, source, tag)) continue;
        *info = told(u->source, &u->head);
        return true;
    }
    return false;
}

bool pcm_p2p_cancel(struct pcm_request *r)
{
    struct pcm_matcher *m = r->comm->matcher;
    for (const struct pcm_request *at = r->kind == PCM_REQUEST_PROBE ? m->probes : m->receives; at; at = at->link_next)
        if (at == r) {
            r->info = (struct pcm_status_info){.source = PCM_ANY_SOURCE, .tag = PCM_ANY_TAG};
            pcm_request_finish(r, PCM_OK);
            return true;
        }
    return false;
}

void pcm_p2p_begin(struct pcm_request *r)
{
    pcm_comm *comm = r->comm;
    if (r->kind == PCM_REQUEST_SEND && r->peer == comm->rank) return send_to_self(r);
    if (r->kind == PCM_REQUEST_SEND) {
        struct link *l = &comm->matcher->links[r->peer];
        r->link_next = NULL;
        *l->sends_tail = r;
        l->sends_tail = &r->link_next;
        pcm_comm_channel(comm, (uint32_t)r->peer);
        return;
    }
    if (!pcm_p2p_reach(comm, r->peer)) return;
    if (r->kind == PCM_REQUEST_RECV) return look_at_unexpected(comm, r);
    if (pcm_p2p_look(comm, r->peer, r->tag, &r->info)) return pcm_request_finish(r, PCM_OK);
    r->link_next = comm->matcher->probes;
    comm->matcher->probes = r;
}

/* ---- sending ------------------------------------------------------------------------------------------------ */

/* Moves the next fragment of a message into a lane; false if there is no room. */
static bool push_fragment(struct pcm_channel *channel, unsigned lane, const struct pcm_head *head, const char *bytes,
                          uint64_t total, uint64_t *moved, bool *progress)
{
    size_t room;
    char *to = channel->ops->reserve(channel, lane, total - *moved, &room);
    if (!to) return false;
    uint64_t n = total - *moved < room ? total - *moved : room;
    if (n) pcm_copy(to, NULL, bytes + *moved, n, pcm_path_of(channel, head) == PCM_STREAMED ? PCM_STREAM_DST : 0);
    channel->ops->commit(channel, lane, head, n);
    *moved += n;
    return *progress = true;
}

/* Moves fragments of a message into a lane; true when all of it is there. */
static bool push_bytes(struct pcm_channel *channel, unsigned lane, const struct pcm_head *head, const char *bytes,
                       uint64_t total, uint64_t *moved, bool *progress)
{
    do {
        if (!push_fragment(channel, lane, head, bytes, total, moved, progress)) return false;
    } while (*moved < total);
    return true;
}

/* The same of a payload, of which what the transport would rather lend is lent. */
static bool push_payload(const pcm_comm *comm, struct pcm_channel *channel, struct errand *e, bool *progress)
{
    struct pcm_request *r = e->request;
    const struct pcm_transport *ops = channel->ops;
    const char *bytes = r->buffer;
    if (!e->head.bytes) return push_fragment(channel, PCM_LANE_BULK, &e->head, bytes, 0, &e->moved, progress);
    for (uint64_t left; (left = e->head.bytes - e->moved) > 0;) {
        bool lends = left >= PCM_LEND && pcm_path_of(channel, &e->head) == PCM_LENT;
        if (lends && ops->lend(channel, PCM_LANE_BULK, &e->head, bytes + e->moved, left, &r->ticket))
            r->lent = *progress = true, e->moved += left;
        else if (comm->error.code) /* a full lane lets the transport look for news: the request may have ended */
            return false;
        else if (!push_fragment(channel, PCM_LANE_BULK, &e->head, bytes, e->head.bytes, &e->moved, progress))
            return false;
    }
    return true;
}

static bool eager(const struct pcm_request *r) { return r->bytes <= EAGER && !r->synchronous; }

static uint64_t padded(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

/* Sends what waits as one fragment, if that is several short messages. */
static void send_pack(struct link *l, struct pcm_channel *channel, bool *progress)
{
    uint64_t total = 0;
    struct pcm_request *end = l->sends;
    for (; end && eager(end) && end->bytes <= PACKED && !end->moved; end = end->link_next) {
        uint64_t with = total + sizeof end->head + padded(end->bytes);
        if (with > PCM_FRAGMENT) break;
        total = with;
    }
    if (end == l->sends || end == l->sends->link_next) return;
    size_t room;
    char *to = channel->ops->reserve(channel, PCM_LANE_P2P, total, &room);
    if (!to) return;
    for (struct pcm_request *r = l->sends; r != end; r = r->link_next) {
        memcpy(to, &r->head, sizeof r->head);
        if (r->bytes) memcpy(to + sizeof r->head, r->buffer, r->bytes);
        to += sizeof r->head + padded(r->bytes);
    }
    struct pcm_head head = {.collective = PCM_POINT_TO_POINT, .part = PACK, .bytes = total};
    channel->ops->commit(channel, PCM_LANE_P2P, &head, total);
    *progress = true;
    while (l->sends != end) {
        struct pcm_request *r = l->sends;
        l->sends = r->link_next;
        if (!l->sends) l->sends_tail = &l->sends;
        r->unlisted = true;
        pcm_request_finish(r, PCM_OK);
    }
}

static bool send_to(pcm_comm *comm, struct link *l, struct pcm_channel *channel)
{
    bool progress = false;
    uint64_t none = 0;
    /* a grant must not fall between the fragments of a message */
    while (l->grants.first && !(l->sends && l->sends->moved) &&
           push_bytes(channel, PCM_LANE_P2P, &l->grants.first->head, NULL, 0, &none, &progress))
        pop(&l->grants);
    while (l->sends && !(l->grants.first && !l->sends->moved)) {
        struct pcm_request *r = l->sends;
        if (r->link_next) {
            send_pack(l, channel, &progress);
            if (r != l->sends) continue;
        }
        bool whole = eager(r);
        r->head.part = whole ? DATA : ANNOUNCE;
        if (!whole && !r->announced) r->head.slice = l->tickets++, r->announced = true;
        if (!push_bytes(channel, PCM_LANE_P2P, &r->head, r->buffer, whole ? r->bytes : 0, &r->moved, &progress)) break;
        unlink_request(&l->sends, &l->sends_tail, r);
        if (whole) {
            r->unlisted = true;
            pcm_request_finish(r, PCM_OK);
        } else {
            r->link_next = l->announced;
            l->announced = r;
        }
    }
    while (l->payloads_out.first && !comm->error.code) {
        struct errand *e = l->payloads_out.first;
        bool sent = push_payload(comm, channel, e, &progress);
        if (comm->error.code) break;
        e->request->moved = e->moved;
        if (!sent) break;
        if (e->request->lent) {
            if (!channel->ops->returned(channel, PCM_LANE_BULK, e->request->ticket) || comm->error.code) break;
            progress = true;
        }
        pcm_request_finish(e->request, PCM_OK);
        pop(&l->payloads_out);
    }
    return progress;
}

/* A peer that has read what it was lent may leave at once: then nothing is owed to this side but the loan's return. */
static bool end_loans(struct link *l, struct pcm_channel *channel)
{
    struct errand *e = l->payloads_out.first;
    if (!e || e->moved < e->head.bytes || !e->request->lent ||
        !channel->ops->returned(channel, PCM_LANE_BULK, e->request->ticket))
        return false;
    if (!e->request) return false; /* news came meanwhile, with which it ended */
    pcm_request_finish(e->request, PCM_OK);
    pop(&l->payloads_out);
    return true;
}

/* ---- receiving ------------------------------------------------------------------------------------------------- */

static void granted(pcm_comm *comm, struct link *l, int source, const struct pcm_head *head)
{
    for (struct pcm_request *r = l->announced; r; r = r->link_next) {
        if (r->head.slice != head->slice) continue;
        unlink_request(&l->announced, NULL, r);
        struct pcm_head bulk = r->head;
        bulk.part = BULK, bulk.bytes = r->bytes;
        if (!push(&l->payloads_out, &bulk, r)) out_of_memory(comm);
        return;
    }
    pcm_comm_fail(comm, PCM_ERR_MISMATCH, source, "rank %d granted a message that rank %d does not offer", source,
                  comm->rank);
}

/* The first fragment of something on the p2p lane: decides where it belongs. */
static void begin_arrival(pcm_comm *comm, struct link *l, int source, const struct pcm_head *head)
{
    struct pcm_matcher *m = comm->matcher;
    if (head->collective != PCM_POINT_TO_POINT || head->part > GRANT) {
        pcm_comm_fail(comm, PCM_ERR_MISMATCH, source, "rank %d sent something that is not a message", source);
    } else if (head->part == GRANT) {
        granted(comm, l, source, head);
    } else {
        struct pcm_request *r = claim_receive(m, source, head->root);
        bool wanted = r && accept(r, source, head);
        if (comm->error.code) return;
        if (head->part == ANNOUNCE) {
            if (r ? !grant(comm, source, head, wanted ? r : NULL) : !keep(m, source, head)) out_of_memory(comm);
            return;
        }
        l->arriving = true;
        l->arrived = 0, l->arriving_bytes = head->bytes;
        l->arriving_into = wanted ? r : NULL;
        l->arriving_unexpected = r ? NULL : keep(m, source, head);
        if (!r && !l->arriving_unexpected) out_of_memory(comm);
    }
}

/* A fragment must not reach beyond what its message said: our buffers are as long as that. */
static bool fits(pcm_comm *comm, int source, const struct pcm_head *head, uint64_t moved, uint64_t total, size_t n)
{
    if (head->bytes == total && n <= total - moved) return true;
    pcm_comm_fail(comm, PCM_ERR_MISMATCH, source, "rank %d sent more, or less, than the %llu bytes that it announced",
                  source, (unsigned long long)total);
    return false;
}

static void end_receive(struct pcm_request *r, uint64_t bytes)
{
    r->moved = bytes;
    r->unlisted = true;
    pcm_request_finish(r, PCM_OK);
}

/* Several whole messages in one fragment; false: the communicator has failed. */
static bool receive_pack(pcm_comm *comm, struct link *l, int source, const char *at, size_t n)
{
    for (const char *end = at ? at + n : NULL; at < end;) { /* NULL: it was lent, which no pack is */
        struct pcm_head head;
        size_t left = (size_t)(end - at);
        if (left >= sizeof head) memcpy(&head, at, sizeof head);
        if (left < sizeof head || head.part != DATA || left < sizeof head + padded(head.bytes)) {
            pcm_comm_fail(comm, PCM_ERR_MISMATCH, source, "rank %d sent a pack that is no row of messages", source);
            return false;
        }
        begin_arrival(comm, l, source, &head);
        if (comm->error.code) return false;
        struct pcm_request *r = l->arriving_into;
        unsigned char *to = r ? r->buffer : l->arriving_unexpected ? l->arriving_unexpected->payload : NULL;
        if (to && head.bytes) memcpy(to, at + sizeof head, head.bytes);
        l->arriving = false, l->arriving_into = NULL, l->arriving_unexpected = NULL;
        if (r) end_receive(r, head.bytes);
        at += sizeof head + padded(head.bytes);
    }
    return true;
}

static bool receive_envelopes(pcm_comm *comm, struct link *l, int source, struct pcm_channel *channel)
{
    bool progress = false;
    const struct pcm_head *head;
    const void *payload;
    size_t n;
    while ((head = channel->ops->peek(channel, PCM_LANE_P2P, &payload, &n))) {
        progress = true;
        if (!l->arriving && head->collective == PCM_POINT_TO_POINT && head->part == PACK) {
            if (!receive_pack(comm, l, source, payload, n)) return true;
            channel->ops->release(channel, PCM_LANE_P2P);
            continue;
        }
        if (!l->arriving) begin_arrival(comm, l, source, head);
        if (comm->error.code) return true;
        if (l->arriving) {
            if (!fits(comm, source, head, l->arrived, l->arriving_bytes, n)) return true;
            unsigned char *to = l->arriving_into         ? l->arriving_into->buffer
                                : l->arriving_unexpected ? l->arriving_unexpected->payload
                                                         : NULL;
            if (to && n) memcpy(to + l->arrived, payload, n);
            l->arrived += n;
            if (l->arriving_into) l->arriving_into->moved = l->arrived;
        }
        bool over = l->arriving && l->arrived >= head->bytes;
        channel->ops->release(channel, PCM_LANE_P2P);
        if (!over) continue;
        struct pcm_request *r = l->arriving_into;
        l->arriving = false, l->arriving_into = NULL, l->arriving_unexpected = NULL;
        if (r) end_receive(r, l->arrived);
    }
    return progress;
}

static bool receive_payloads(pcm_comm *comm, struct link *l, int source, struct pcm_channel *channel)
{
    bool progress = false;
    const struct pcm_head *head;
    const void *payload;
    size_t n;
    while (l->payloads_in.first && (head = channel->ops->peek(channel, PCM_LANE_BULK, &payload, &n))) {
        struct errand *e = l->payloads_in.first;
        if (!fits(comm, source, head, e->moved - e->taken, e->head.bytes, n)) return true;
        if (e->request && !payload && n) { /* lent: moved in pieces, so that others have a turn */
            uint64_t piece = n - e->taken < PCM_GULP ? n - e->taken : PCM_GULP;
            if (!channel->ops->fetch(channel, PCM_LANE_BULK, (char *)e->request->buffer + e->moved, e->taken, piece))
                return progress;
            e->moved += piece, e->taken += piece, e->request->moved = e->moved;
            progress = true;
            if (e->taken < n) return true;
            e->taken = n = 0;
        } else if (e->request) {
            pcm_copy((char *)e->request->buffer + e->moved, NULL, payload, n, 0);
        }
        channel->ops->release(channel, PCM_LANE_BULK);
        progress = true;
        e->moved += n - e->taken, e->taken = 0; /* some was taken before the request went away */
        if (e->request) e->request->moved = e->moved;
        if (e->moved < e->head.bytes) continue;
        struct pcm_request *r = e->request;
        pop(&l->payloads_in);
        if (r) pcm_request_finish(r, PCM_OK);
    }
    return progress;
}

/* Is there another rank that may still send something? */
static bool anybody_left(const pcm_comm *comm)
{
    for (int peer = 0; peer < comm->size; peer++)
        if (peer != comm->rank && (!comm->channels[peer] || comm->channels[peer]->state < PCM_CHANNEL_CLOSED))
            return true;
    return false;
}

/* Is anybody here waiting for this peer, which has gone, or for any when all have? Who has yet to wait for any may still send
 * to itself. */
static bool needed(const pcm_comm *comm, const struct link *l, int peer)
{
    if (l->sends || l->announced || l->payloads_out.first || l->payloads_in.first || l->arriving_into) return true;
    const struct pcm_request *lists[] = {comm->matcher->receives, comm->matcher->probes};
    for (int i = 0; i < 2; i++)
        for (const struct pcm_request *r = lists[i]; r; r = r->link_next)
            if (r->peer == peer || (r->peer == PCM_ANY_SOURCE && r->awaited && !anybody_left(comm))) return true;
    return false;
}

bool pcm_p2p_progress(pcm_comm *comm)
{
    struct pcm_matcher *m = comm->matcher;
    bool progress = false;
    for (int peer = 0; peer < comm->size && !comm->error.code; peer++) {
        struct pcm_channel *channel = comm->channels[peer];
        struct link *l = &m->links[peer];
        if (!channel || channel->state == PCM_CHANNEL_CONNECTING) continue;
        progress |= channel->state == PCM_CHANNEL_UP ? send_to(comm, l, channel) : end_loans(l, channel);
        if (!comm->error.code) progress |= receive_envelopes(comm, l, peer, channel);
        if (!comm->error.code) progress |= receive_payloads(comm, l, peer, channel);
    }
    for (int peer = 0; peer < comm->size && !progress && !comm->error.code; peer++) { /* now that all has been read */
        struct pcm_channel *channel = comm->channels[peer];
        struct link *l = &m->links[peer];
        if (!channel || channel->state < PCM_CHANNEL_CLOSED || !needed(comm, l, peer)) continue;
        progress = end_loans(l, channel); /* it may have read, and left, since that was looked at */
        if (!progress) pcm_comm_lost(comm, (uint32_t)peer);
    }
    return progress;
}
