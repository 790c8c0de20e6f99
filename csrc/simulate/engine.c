/* engine.c: runs the rounds of all ranks in virtual time, event by event.
 *
 * A rank has a processor, which does one thing after the other, and ports, which take one message after the other, in the order
 * of arrival. Ranks share a processor fairly, and the processors of a host its memory. A message is on its way from
 * when its sender's port took it; it is there when the receiver's port, or the last byte on the shared links, is done with it; and it is
 * received when the receiver is in the round that expects it and its processor has taken it.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../transport.h"
#include "engine.h"

enum what {
    ROUND,     /* about: a run that has finished its round */
    FLOW,      /* a message that begins to flow over shared links */
    HEAD,      /* a message whose first byte arrives, or on shared links its last one */
    READY,     /* a message that its receiver's processor may take */
    PROCESSOR, /* a host, or a rank that shares no processor, where a task ends */
};

/* One slice of one rank, under way. There are `window` of them a rank: number rank * window + slice % window. */
struct run {
    uint32_t slice;
    int32_t round;   /* of all ranks' rounds */
    int32_t pending; /* operations of the round that are not done */
    double latest;   /* when the last of those that are done was, */
    int64_t cause;   /* and the record of what that was */
};

enum { NOBODY = -1 };

struct message {
    int32_t send, receive; /* operations */
    int32_t from, to;      /* runs; `to` is the one that will receive it */
    uint32_t slice;
    bool posted, taken; /* its receiver is in its round; and has worked on it, and waits for the rest */
    bool sent;          /* the sender's processor is done with it */
    double head, tail;  /* when it may be worked on; and when all of it is there, if it is sent */
    int64_t cause;
    int32_t next; /* on the list of those that wait for one receive; or of the free ones */
};

struct task { /* for a rank's processor */
    int kind;        /* enum pcm_sim_what */
    int64_t run, op; /* LOCAL, SEND */
    int64_t message; /* SEND: if it is on its way already, RECEIVE */
    double work;
    int64_t cause, next;
};

struct worker { /* what a rank's processor has to do for it */
    int64_t first, last; /* tasks; the first one is being done, */
    double finish;       /* until its processor has given this much, */
    double rest;         /* and then so much more: by then the message is on its way already */
    bool moves;
    double free; /* where the order of its tasks is that of arrival: when they will all be done */
    int64_t cause; /* the record of the task that is being done, or was the last */
};

struct core {
    int32_t host;
    int64_t busy, moving; /* ranks that have something to do, and those of them that move bytes */
    int32_t *ranks;       /* that are busy */
    double given[2];      /* seconds of work that each busy rank has got: what moves no bytes, and what does */
};

struct host {
    double memory, at; /* `at`: when `given` was true */
    int32_t first, last; /* its processors */
    uint32_t version;
    bool shared; /* more ranks than processors, or less memory than these want */
};

struct port {
    double free;
    int64_t cause;
};

struct engine {
    const struct pcm_sim_input *in;
    struct pcm_sim_output *out;
    struct pcm_sim_op *ops;
    struct run *runs;
    uint32_t *left;     /* slices that each rank has still to finish */
    double *finish;
    struct worker *workers;
    struct core *cores;
    struct host *hosts;
    struct port *leaving, *entering; /* rank * ports + port */
    int32_t *members;
    struct message *messages;
    struct task *tasks;
    int64_t nmessages, free_message, ntasks, free_task;
    int64_t messages_room, tasks_room;
    struct pcm_queue *queue;
    struct pcm_fluid *fluid;
    bool in_order; /* processors only receive, each for one rank: in the order of arrival, which needs no tasks */
    int64_t done;
    int status;
};

static inline double later(double a, double b) { return a > b ? a : b; }
static inline double earlier(double a, double b) { return a < b ? a : b; }

/* ---- small things --------------------------------------------------------------------------------------------- */

static inline const struct pcm_sim_term *term_of(const struct engine *e, int64_t op)
{
    return &e->in->terms[e->ops[op].term];
}

static inline int64_t rank_of(const struct engine *e, int64_t run) { return run / e->in->window; }

static inline uint32_t slot_of(const struct engine *e, int64_t run) { return (uint32_t)(run % e->in->window); }

static inline struct port *port_of(const struct engine *e, struct port *ports, int64_t rank, int64_t op)
{
    return &ports[rank * e->in->ports + e->ops[op].port];
}

/* Whether a message shares links with others: if not, ports alone are taken. */
static inline bool shares(const struct engine *e, int64_t op)
{
    if (!e->fluid) return false;
    const int64_t *start = e->in->route_start + e->in->route[op];
    return start[1] > start[0];
}

static void no_memory(struct engine *e)
{
    e->status = pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory: too much is under way at once in the simulation");
}

static void push(struct engine *e, double time, uint32_t tie, enum what what, int64_t about)
{
    if (!pcm_queue_push(e->queue, time, (struct pcm_event){tie, what, about})) no_memory(e);
}

static int64_t record(struct engine *e, int what, double start, double end, int64_t run, int64_t op, int64_t cause)
{
    struct pcm_sim_output *out = e->out;
    if (!out->records || out->recorded >= out->capacity) return -1;
    out->records[out->recorded] = (struct pcm_sim_record){
        start, end, cause, op, (int32_t)rank_of(e, run), e->ops[op].peer, e->runs[run].slice, what};
    return out->recorded++;
}

/* ---- processors ----------------------------------------------------------------------------------------------------- */

static void begin_task(struct engine *e, int64_t rank, double now);

/* How many processors' worth of memory traffic a host sees. */
static double traffic(const struct engine *e, const struct host *h)
{
    double sum = 0;
    for (int32_t k = h->first; k < h->last; k++)
        if (e->cores[k].moving) sum += (double)e->cores[k].moving / (double)e->cores[k].busy;
    return sum;
}

static inline double rate(const struct core *core, bool moves, double slow)
{
    return (core->busy > 1 ? 1 / (double)core->busy : 1) * (moves ? slow : 1);
}

static double slowdown(const struct engine *e, const struct host *h)
{
    double wanted = traffic(e, h);
    return wanted > h->memory ? h->memory / wanted : 1;
}

static void host_advance(struct engine *e, struct host *h, double now)
{
    double slow = slowdown(e, h);
    for (int32_t k = h->first; k < h->last; k++)
        for (int moves = 0; moves < 2; moves++)
            e->cores[k].given[moves] += (now - h->at) * rate(&e->cores[k], moves, slow);
    h->at = now;
}

/* Sets the alarm for the next task of a host to end. */
static void host_schedule(struct engine *e, int32_t host)
{
    struct host *h = &e->hosts[host];
    h->version++;
    double wait = INFINITY, slow = slowdown(e, h);
    for (int32_t c = h->first; c < h->last; c++)
        for (int64_t k = 0; k < e->cores[c].busy; k++) {
            const struct worker *w = &e->workers[e->cores[c].ranks[k]];
            wait = earlier(wait, (w->finish - e->cores[c].given[w->moves]) / rate(&e->cores[c], w->moves, slow));
        }
    if (wait < INFINITY) push(e, h->at + later(wait, 0), h->version, PROCESSOR, -1 - (int64_t)host);
}

static void submit(struct engine *e, int64_t rank, double now, struct task task)
{
    if (e->free_task < 0 && !pcm_sim_grow((void **)&e->tasks, &e->tasks_room, e->ntasks + 1, sizeof *e->tasks)) {
        no_memory(e);
        return;
    }
    int64_t index = e->free_task >= 0 ? e->free_task : e->ntasks++;
    if (index == e->free_task) e->free_task = e->tasks[index].next;
    task.next = NOBODY;
    e->tasks[index] = task;
    struct worker *p = &e->workers[rank];
    if (p->first < 0) {
        p->first = p->last = index;
        begin_task(e, rank, now);
    } else {
        e->tasks[p->last].next = index;
        p->last = index;
    }
}

/* ---- the life of a message --------------------------------------------------------------------------------------------- */

static void finish_op(struct engine *e, int64_t run, double time, int64_t cause)
{
    struct run *r = &e->runs[run];
    if (time >= r->latest) r->latest = time, r->cause = cause;
    e->done++;
    if (!--r->pending) push(e, r->latest, r->slice, ROUND, run);
}

static int64_t new_message(struct engine *e, int64_t run, int64_t op)
{
    if (e->free_message < 0 &&
        !pcm_sim_grow((void **)&e->messages, &e->messages_room, e->nmessages + 1, sizeof *e->messages)) {
        no_memory(e);
        return -1;
    }
    int64_t index = e->free_message >= 0 ? e->free_message : e->nmessages++;
    if (index == e->free_message) e->free_message = e->messages[index].next;
    int64_t to = (uint32_t)e->ops[op].peer % e->in->period;
    e->messages[index] = (struct message){.send = (int32_t)op,
                                          .receive = e->ops[op].match,
                                          .from = (int32_t)run,
                                          .to = (int32_t)(to * e->in->window + slot_of(e, run)),
                                          .slice = e->runs[run].slice,
                                          .cause = -1,
                                          .next = NOBODY};
    return index;
}

static void free_message(struct engine *e, int64_t index)
{
    e->messages[index].next = (int32_t)e->free_message;
    e->free_message = index;
}

/* The order among the operations of the receiver, which does not change when ranks are renumbered. */
static uint32_t tie_of(const struct engine *e, const struct message *m)
{
    int64_t place = m->receive - e->in->ops[e->in->rounds[rank_of(e, m->to)]];
    return (uint32_t)(place * e->in->window + slot_of(e, m->to));
}

/* A message is complete, and was worked on: both ends may go on. */
static void deliver(struct engine *e, int64_t index, double now)
{
    struct message *m = &e->messages[index];
    const struct pcm_sim_term *t = term_of(e, m->receive);
    double end = later(now, m->tail + (t->receive > 0 ? t->last : 0));
    finish_op(e, m->to, end, m->cause);
    if (term_of(e, m->send)->lent) finish_op(e, m->from, end + t->latency, m->cause);
    free_message(e, index);
}

/* Lets a processor take a message after those that arrived before it. */
static void take_in_order(struct engine *e, int64_t index, double now)
{
    struct message *m = &e->messages[index];
    struct worker *w = &e->workers[rank_of(e, m->to)];
    double ready = later(now, m->head), start = later(ready, w->free);
    w->free = start + term_of(e, m->receive)->receive;
    if (e->out->records) {
        int64_t cause = start > ready ? w->cause : m->cause;
        m->cause = w->cause = record(e, PCM_SIM_RECEIVE, start, w->free, m->to, m->receive, cause);
    }
    deliver(e, index, w->free);
}

/* The receiver is in the round of this message, whose head has arrived. */
static void take(struct engine *e, int64_t index, double now)
{
    struct message *m = &e->messages[index];
    m->posted = true;
    if (term_of(e, m->receive)->receive > 0) {
        if (e->in_order)
            take_in_order(e, index, now);
        else if (m->head > now)
            push(e, m->head, tie_of(e, m), READY, index);
        else
            submit(e, rank_of(e, m->to), now,
                   (struct task){PCM_SIM_RECEIVE, m->to, m->receive, index, term_of(e, m->receive)->receive, m->cause,
                                 NOBODY});
    } else if (m->sent)
        deliver(e, index, now);
    else
        m->taken = true;
}

static void tail_known(struct engine *e, int64_t index, double tail, int64_t cause)
{
    struct message *m = &e->messages[index];
    m->sent = true;
    m->tail = later(tail, m->tail);
    if (!m->taken) return;
    m->cause = cause;
    deliver(e, index, tail);
}

static void arrive(struct engine *e, int64_t index, double now)
{
    struct message *m = &e->messages[index];
    const struct run *to = &e->runs[m->to];
    struct pcm_sim_op *receive = &e->ops[m->receive];
    if (to->round == receive->round && to->slice == m->slice && !m->posted) {
        take(e, index, now);
        return;
    }
    int32_t *end = &receive->waiting;
    while (*end >= 0) end = &e->messages[*end].next;
    m->next = NOBODY;
    *end = (int32_t)index;
}

/* Takes the message of this slice off those that wait for a receive, or returns -1. */
static int64_t waiting(struct engine *e, int64_t op, uint32_t slice)
{
    int32_t *at = &e->ops[op].waiting;
    while (*at >= 0 && e->messages[*at].slice != slice) at = &e->messages[*at].next;
    int32_t index = *at;
    if (index >= 0) *at = e->messages[index].next;
    return index;
}

/* A message leaves its rank's processor for the port. `whole`: all of it; else the rest follows. */
static void depart(struct engine *e, int64_t index, double now, bool whole)
{
    struct message *m = &e->messages[index];
    const struct pcm_sim_term *t = term_of(e, m->send);
    struct port *port = port_of(e, e->leaving, rank_of(e, m->from), m->send);
    double start = later(now, port->free) + t->gap;
    m->sent = whole;
    if (port->free > now) m->cause = port->cause;
    port->free = start + t->out;
    if (shares(e, m->send)) {
        m->cause = record(e, PCM_SIM_WIRE, start, start, m->from, m->send, m->cause);
        port->cause = m->cause;
        push(e, start, tie_of(e, m), FLOW, index);
        return;
    }
    double tail = start + t->transfer + t->latency;
    m->cause = record(e, PCM_SIM_WIRE, start, tail, m->from, m->send, m->cause);
    port->cause = m->cause;
    if (whole && !t->lent) finish_op(e, m->from, start + t->transfer, m->cause);
    m->tail = tail;
    push(e, start + t->latency, tie_of(e, m), HEAD, index);
}

/* The receiver's port takes a message, one after the other. */
static void head(struct engine *e, int64_t index, double now)
{
    struct message *m = &e->messages[index];
    const struct pcm_sim_term *t = term_of(e, m->send);
    if (!shares(e, m->send)) {
        struct port *port = port_of(e, e->entering, rank_of(e, m->to), m->receive);
        double end = later(now, port->free) + t->in;
        bool delayed = port->free > now && end >= m->tail;
        if (m->cause >= 0 && delayed && port->cause >= 0) {
            struct pcm_sim_record *own = &e->out->records[m->cause], *other = &e->out->records[port->cause];
            if (other->start < own->start || (other->start == own->start && other->rank != own->rank))
                own->cause = port->cause; /* else it may have waited for this one */
            own->end = end;
        }
        port->free = end, port->cause = m->cause;
        m->tail = later(end, m->tail);
        m->head = t->first < t->send ? now : m->tail;
    } else
        m->head = m->tail = now;
    arrive(e, index, now);
}

static void flow(struct engine *e, int64_t index, double now)
{
    struct message *m = &e->messages[index];
    int rc = pcm_fluid_add(e->fluid, now, e->in->route[m->send], term_of(e, m->send)->bytes, index);
    if (rc) e->status = rc;
}

static void has_flown(struct engine *e, int64_t index, double now)
{
    struct message *m = &e->messages[index];
    const struct pcm_sim_term *t = term_of(e, m->send);
    if (m->cause >= 0) e->out->records[m->cause].end = now + t->latency;
    if (!t->lent) finish_op(e, m->from, now, m->cause);
    push(e, now + t->latency, tie_of(e, m), HEAD, index);
}

/* ---- tasks ---------------------------------------------------------------------------------------------------------------- */

/* Sends a message off of which the processor is still writing the rest. */
static void depart_early(struct engine *e, int64_t rank, double now)
{
    struct task *task = &e->tasks[e->workers[rank].first];
    int64_t index = new_message(e, task->run, task->op);
    if (index < 0) return;
    task->message = index;
    e->messages[index].cause = e->workers[rank].cause;
    depart(e, index, now, false);
}

static void begin_task(struct engine *e, int64_t rank, double now)
{
    struct worker *p = &e->workers[rank];
    struct task *task = &e->tasks[p->first];
    struct core *core = &e->cores[e->in->core[rank]];
    struct host *h = &e->hosts[core->host];
    if (e->out->records) { /* who had nothing else to do waited for the cause, others for their processor */
        bool waited = p->cause >= 0 && e->out->records[p->cause].end >= now &&
                      (task->cause < 0 || e->out->records[task->cause].end < now);
        p->cause = record(e, task->kind, now, now, task->run, task->op, waited ? p->cause : task->cause);
    }
    double first = term_of(e, task->op)->first;
    bool early = task->kind == PCM_SIM_SEND && first < task->work && !shares(e, task->op);
    if (!h->shared) {
        push(e, now + task->work, 0, PROCESSOR, rank);
        if (early) depart_early(e, rank, now + first);
        return;
    }
    host_advance(e, h, now);
    p->moves = term_of(e, task->op)->moves;
    core->ranks[core->busy++] = (int32_t)rank;
    core->moving += p->moves;
    p->finish = core->given[p->moves] + (early ? first : task->work);
    p->rest = early ? task->work - first : 0;
    host_schedule(e, core->host);
}

static void end_task(struct engine *e, int64_t rank, double now)
{
    struct worker *p = &e->workers[rank];
    int64_t index = p->first;
    struct task task = e->tasks[index];
    p->first = task.next;
    e->tasks[index].next = e->free_task;
    e->free_task = index;
    int64_t cause = p->cause;
    if (cause >= 0) e->out->records[cause].end = now;
    switch (task.kind) {
    case PCM_SIM_LOCAL: finish_op(e, task.run, now, cause); break;
    case PCM_SIM_SEND:
        if (task.message < 0) {
            int64_t message = new_message(e, task.run, task.op);
            if (message < 0) return;
            e->messages[message].cause = cause;
            depart(e, message, now, true);
        } else {
            const struct pcm_sim_term *t = term_of(e, task.op);
            if (!t->lent) finish_op(e, task.run, now, cause);
            tail_known(e, task.message, now + t->latency, cause);
        }
        break;
    case PCM_SIM_RECEIVE: {
        struct message *m = &e->messages[task.message];
        m->cause = cause;
        m->taken = true;
        if (m->sent) deliver(e, task.message, now);
        break;
    }
    }
    if (p->first >= 0) begin_task(e, rank, now);
}

/* Ends what a host's processors have done by now. */
static void end_tasks(struct engine *e, int32_t host, uint32_t version, double now)
{
    struct host *h = &e->hosts[host];
    if (version != h->version) return;
    host_advance(e, h, now);
    for (int32_t c = h->first; c < h->last; c++)
        for (int64_t k = 0; k < e->cores[c].busy;) {
            struct core *core = &e->cores[c];
            int32_t rank = core->ranks[k];
            struct worker *w = &e->workers[rank];
            if (w->finish > core->given[w->moves] * (1 + 1e-12)) {
                k++;
                continue;
            }
            if (w->rest > 0) {
                w->finish += w->rest, w->rest = 0;
                depart_early(e, rank, now);
                continue;
            }
            core->ranks[k] = core->ranks[--core->busy];
            core->moving -= w->moves;
            end_task(e, rank, now);
        }
    host_schedule(e, host);
}

/* ---- rounds ------------------------------------------------------------------------------------------------------------------ */

static void post(struct engine *e, int64_t run, int64_t op, double now)
{
    struct run *r = &e->runs[run];
    const struct pcm_sim_term *t = term_of(e, op);
    int kind = e->ops[op].kind;
    if (kind == PCM_STEP_RECV || kind == PCM_STEP_REDUCE_FROM) {
        int64_t index = waiting(e, op, r->slice);
        if (index < 0) return;
        const struct message *m = &e->messages[index];
        if (m->sent && m->tail <= now) e->messages[index].cause = r->cause; /* it waited for its receiver */
        take(e, index, now);
    } else if (kind != PCM_STEP_SEND) {
        if (t->send > 0)
            submit(e, rank_of(e, run), now, (struct task){PCM_SIM_LOCAL, run, op, NOBODY, t->send, r->cause, NOBODY});
        else
            finish_op(e, run, now, r->cause);
    } else if (t->send > 0)
        submit(e, rank_of(e, run), now, (struct task){PCM_SIM_SEND, run, op, NOBODY, t->send, r->cause, NOBODY});
    else {
        int64_t index = new_message(e, run, op);
        if (index < 0) return;
        e->messages[index].cause = r->cause;
        depart(e, index, now, true);
    }
}

static void enter_round(struct engine *e, int64_t run, int64_t round, double now)
{
    struct run *r = &e->runs[run];
    r->round = (int32_t)round, r->latest = now;
    r->pending = (int32_t)(e->in->ops[round + 1] - e->in->ops[round]);
    for (int64_t op = e->in->ops[round]; op < e->in->ops[round + 1]; op++) post(e, run, op, now);
}

static void end_round(struct engine *e, int64_t run, double now)
{
    struct run *r = &e->runs[run];
    int64_t rank = rank_of(e, run);
    if (r->round + 1 < e->in->rounds[rank + 1]) {
        enter_round(e, run, r->round + 1, now);
        return;
    }
    e->finish[rank] = later(e->finish[rank], now);
    e->left[rank]--;
    r->slice += e->in->window;
    if (r->slice < e->in->slices)
        enter_round(e, run, e->in->rounds[rank], now);
    else
        r->round = -1;
}

/* ---- the whole ---------------------------------------------------------------------------------------------------------------- */

static void handle(struct engine *e, const struct pcm_event *event, double now)
{
    switch (event->what) {
    case ROUND: end_round(e, event->about, now); break;
    case FLOW: flow(e, event->about, now); break;
    case HEAD: head(e, event->about, now); break;
    case READY: take(e, event->about, now); break;
    case PROCESSOR:
        if (event->about < 0)
            end_tasks(e, (int32_t)(-1 - event->about), event->tie, now);
        else
            end_task(e, event->about, now);
    }
}

static void run(struct engine *e)
{
    const struct pcm_sim_input *in = e->in;
    for (uint32_t rank = 0; rank < in->period; rank++)
        for (uint32_t slot = 0; slot < in->window; slot++) {
            int64_t index = (int64_t)rank * in->window + slot;
            e->runs[index] = (struct run){.slice = slot, .round = -1, .cause = -1};
        }
    for (uint32_t rank = 0; rank < in->period; rank++)
        for (uint32_t slot = 0; slot < in->window && slot < in->slices && e->left[rank]; slot++)
            enter_round(e, (int64_t)rank * in->window + slot, in->rounds[rank], 0);
    double now = 0;
    for (uint64_t look = 0; !e->status; look++) {
        double flown = INFINITY, next = INFINITY;
        if (e->fluid && (e->status = pcm_fluid_next(e->fluid, now, &flown))) break;
        if (!pcm_queue_next(e->queue, &next) && flown == INFINITY) break;
        now = next <= flown ? next : flown;
        if (next <= flown) {
            const struct pcm_event *events;
            int64_t n = pcm_queue_take(e->queue, &events);
            if (n < 0) no_memory(e);
            for (int64_t k = 0; k < n && !e->status; k++) handle(e, &events[k], now);
        } else
            for (int64_t index; (index = pcm_fluid_done(e->fluid, now)) >= 0;) has_flown(e, index, now);
        if (look % 1024 == 0) {
            e->out->done = (uint64_t)e->done;
            if (e->out->stop) e->status = pcm_fail(PCM_ERR_ABORTED, -1, "the simulation was stopped");
        }
    }
    e->out->done = (uint64_t)e->done;
}

static int stuck(const struct engine *e, uint32_t rank)
{
    const struct run *r = &e->runs[(int64_t)rank * e->in->window];
    return pcm_fail(PCM_ERR_SCHEDULE, (int)rank, "it never ends: rank %u waits for ever in round %lld of slice %u",
                    rank, (long long)(r->round - e->in->rounds[rank]), r->slice);
}

static bool prepare(struct engine *e)
{
    const struct pcm_sim_input *in = e->in;
    int64_t nops = in->ops[in->rounds[in->period]], runs = (int64_t)in->period * in->window;
    size_t ports = (size_t)in->period * in->ports;
    e->queue = pcm_queue_create();
    e->ops = malloc(sizeof *e->ops * (size_t)(nops + 1));
    e->runs = malloc(sizeof *e->runs * (size_t)runs);
    e->left = calloc(in->period, sizeof *e->left);
    e->finish = calloc(in->period, sizeof *e->finish);
    e->workers = malloc(sizeof *e->workers * in->period);
    e->cores = calloc(in->cores, sizeof *e->cores);
    e->hosts = calloc(in->hosts, sizeof *e->hosts);
    e->members = malloc(sizeof *e->members * in->period);
    e->leaving = calloc(ports, sizeof *e->leaving);
    e->entering = calloc(ports, sizeof *e->entering);
    if (!e->queue || !e->ops || !e->runs || !e->left || !e->finish || !e->workers || !e->cores || !e->hosts ||
        !e->members || !e->leaving || !e->entering)
        return false;
    for (uint32_t rank = 0; rank < in->period; rank++) {
        e->workers[rank] = (struct worker){.first = NOBODY, .last = NOBODY, .cause = -1};
        e->left[rank] = in->rounds[rank + 1] > in->rounds[rank] ? in->slices : 0;
        e->cores[in->core[rank]].busy++; /* for now: how many ranks it has */
        for (int64_t round = in->rounds[rank]; round < in->rounds[rank + 1]; round++)
            for (int64_t op = in->ops[round]; op < in->ops[round + 1]; op++)
                e->ops[op] = (struct pcm_sim_op){.match = -1,
                                                 .waiting = -1,
                                                 .round = (int32_t)round,
                                                 .term = in->term[op],
                                                 .peer = in->peer[op],
                                                 .kind = in->kind[op],
                                                 .port = in->port ? in->port[op] : 0};
    }
    for (size_t k = 0; k < ports; k++) e->leaving[k].cause = e->entering[k].cause = -1;
    int32_t *next = e->members;
    for (uint32_t k = 0; k < in->hosts; k++) e->hosts[k] = (struct host){.memory = in->memory[k], .first = -1};
    for (uint32_t k = 0; k < in->cores; k++) { /* those of a host follow each other */
        struct core *core = &e->cores[k];
        struct host *host = &e->hosts[in->host[k]];
        core->host = in->host[k], core->ranks = next, next += core->busy;
        if (host->first < 0) host->first = (int32_t)k;
        host->last = (int32_t)k + 1;
        host->shared |= core->busy > 1 || host->memory < host->last - host->first;
        core->busy = 0;
    }
    e->in_order = true;
    for (int64_t op = 0; op < nops && e->in_order; op++)
        e->in_order = e->ops[op].kind == PCM_STEP_RECV || e->ops[op].kind == PCM_STEP_REDUCE_FROM ||
                      in->terms[e->ops[op].term].send == 0;
    for (uint32_t k = 0; k < in->hosts; k++) e->in_order &= !e->hosts[k].shared;
    e->free_message = e->free_task = NOBODY;
    return true;
}

int pcm_simulate(const struct pcm_sim_input *in, struct pcm_sim_output *out)
{
    struct engine e = {.in = in, .out = out};
    out->recorded = 0, out->done = 0, out->seconds = 0;
    int rc =
        prepare(&e) ? pcm_sim_match(in, e.ops) : pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory: too large a simulation");
    if (!rc && in->bandwidth) rc = pcm_fluid_create(in, &e.fluid);
    if (!rc) {
        run(&e);
        rc = e.status;
    }
    for (uint32_t rank = 0; rank < in->period && !rc; rank++) {
        if (e.left[rank]) rc = stuck(&e, rank);
        out->seconds = later(out->seconds, e.finish[rank]);
        if (out->finish) out->finish[rank] = e.finish[rank];
    }
    pcm_fluid_destroy(e.fluid);
    pcm_queue_destroy(e.queue);
    free(e.ops), free(e.runs), free(e.left), free(e.finish), free(e.workers), free(e.cores);
    free(e.hosts), free(e.members), free(e.leaving), free(e.entering), free(e.messages), free(e.tasks);
    return rc;
}
