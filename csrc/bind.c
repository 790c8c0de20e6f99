/* bind.c: turns a schedule into a program: decides where each chunk lives at each moment, so that nothing is copied that
 * need not be, nothing is overwritten that is still read, and a chunk that arrives can be passed on in the same breath.
 *
 * The author of a schedule sees one set of chunks. In truth a chunk starts in the input (or, in place, in the output),
 * must end in the output if it has a place there, and may live in temporaries in between. The rules:
 *   - the input is never written;
 *   - what a round writes must not lie where the same round reads (a round's reads happen before its writes), so a chunk
 *     that is sent and reduced into in one round alternates between its output place and a temporary. A reduction has
 *     three operands anyway, hence the alternation costs nothing;
 *   - places are chosen backwards from the last write, so that it falls on the output and needs no final copy.
 */
#include <stdlib.h>
#include <string.h>

#include "core.h"

enum { NONE = UINT32_MAX };
enum { SECOND = PCM_STAGED + 1 }; /* a place that only this file tells apart: the chunk's second temporary */

struct write { /* of a chunk: all that one round writes to it */
    uint32_t round;
    int32_t last_move; /* the latest move that has written it, once emitted; or -1 */
    bool read_too; /* the same round also reads the chunk, for another purpose than to reduce into it */
    uint8_t place; /* enum pcm_place, or SECOND: where it goes */
};

struct life { /* of a chunk */
    struct write *writes;
    uint32_t nwrites, last_read;
    uint8_t start; /* enum pcm_place */
    bool final_copy, read;
    bool sent; /* in some round */
    bool kept; /* a send has made the final copy on its way */
    uint32_t temp[2], temp_first[2], temp_last[2];
};

struct binding {
    const struct pcm_schedule *schedule;
    struct pcm_program *program;
    struct life *lives;
    struct write *writes;
    uint32_t *round_of; /* of each step */
    uint32_t rounds;
    uint32_t *slot_free_after; /* of each temporary: the round after which it may be reused */
};

static bool writes_chunk(const struct pcm_step *s) { return s->kind != PCM_STEP_SEND; }
static bool is_local(const struct pcm_step *s) { return s->kind == PCM_STEP_COPY || s->kind == PCM_STEP_REDUCE; }

/* Where the chunk is just before (or, with after, just after) a round. */
static uint8_t place_at(const struct life *life, uint32_t round, bool after)
{
    uint8_t place = life->start;
    for (uint32_t i = 0;
         i < life->nwrites && (life->writes[i].round < round || (after && life->writes[i].round == round)); i++)
        place = life->writes[i].place;
    return place;
}

enum pcm_place pcm_chunk_start(const struct pcm_schedule *s, enum pcm_layout layout, uint32_t c)
{
    if (s->in_at[c] < 0) return PCM_NOWHERE;
    if (layout == PCM_APART) return PCM_IN;
    if (layout == PCM_ALIKE) return PCM_OUT;
    if (s->in_blocks == s->out_blocks && s->in_at[c] == s->out_at[c]) return PCM_OUT;
    return s->in_at[c] < (int64_t)s->out_blocks * s->cut ? PCM_STAGED : PCM_IN;
}

static int collect(struct binding *b, enum pcm_layout layout)
{
    const struct pcm_schedule *s = b->schedule;
    uint32_t *count = calloc(s->nchunks + 1, sizeof *count);
    if (!count) return PCM_ERR_SYSTEM;
    for (uint32_t i = 0, round = 0; i < s->nsteps; i++) {
        b->round_of[i] = round;
        if (writes_chunk(&s->steps[i])) count[s->steps[i].chunk]++;
        if (s->steps[i].flags & PCM_FLAG_END) round++;
        b->rounds = round;
    }
    struct write *next = b->writes;
    for (uint32_t c = 0; c < s->nchunks; c++) {
        struct life *life = &b->lives[c];
        life->writes = next;
        next += count[c];
        life->start = (uint8_t)pcm_chunk_start(s, layout, c);
        life->temp[0] = life->temp[1] = NONE;
    }
    free(count);
    for (uint32_t i = 0; i < s->nsteps; i++) {
        const struct pcm_step *step = &s->steps[i];
        if (!writes_chunk(step)) continue;
        struct life *life = &b->lives[step->chunk];
        if (life->nwrites && life->writes[life->nwrites - 1].round == b->round_of[i]) continue;
        life->writes[life->nwrites++] = (struct write){.round = b->round_of[i], .last_move = -1};
    }
    for (uint32_t i = 0; i < s->nsteps; i++) {
        const struct pcm_step *step = &s->steps[i];
        uint32_t chunk = step->kind == PCM_STEP_SEND ? step->chunk : is_local(step) ? step->src : NONE;
        if (chunk == NONE) continue;
        struct life *life = &b->lives[chunk];
        life->read = true;
        life->sent |= step->kind == PCM_STEP_SEND;
        life->last_read = b->round_of[i];
        for (uint32_t w = 0; w < life->nwrites; w++)
            if (life->writes[w].round == b->round_of[i]) life->writes[w].read_too = true;
    }
    return PCM_OK;
}

static void choose_places(struct binding *b)
{
    for (uint32_t c = 0; c < b->schedule->nchunks; c++) {
        struct life *life = &b->lives[c];
        bool has_out = b->schedule->out_at[c] >= 0;
        uint8_t home = has_out ? PCM_OUT : PCM_TEMP, away = has_out ? PCM_TEMP : SECOND, place = home;
        for (uint32_t w = life->nwrites; w-- > 0;) {
            life->writes[w].place = place;
            if (life->writes[w].read_too) place = place == home ? away : home;
        }
        if (life->nwrites && life->writes[0].read_too && life->writes[0].place == life->start)
            for (uint32_t w = 0; w < life->nwrites; w++)
                life->writes[w].place = life->writes[w].place == home ? away : home;
        uint8_t end = life->nwrites ? life->writes[life->nwrites - 1].place : life->start;
        life->final_copy = has_out && end != PCM_OUT && end != PCM_NOWHERE;
        for (uint32_t w = 0; w < life->nwrites; w++) {
            if (life->writes[w].place != PCM_TEMP && life->writes[w].place != SECOND) continue;
            int which = life->writes[w].place == SECOND;
            uint32_t until = w + 1 < life->nwrites                                   ? life->writes[w + 1].round
                             : life->final_copy                                      ? b->rounds
                             : life->read && life->last_read > life->writes[w].round ? life->last_read
                                                                                     : life->writes[w].round;
            if (life->temp[which] == NONE) life->temp_first[which] = life->writes[w].round, life->temp[which] = 0;
            life->temp_last[which] = until;
        }
    }
}

/* Gives temporaries to the chunks that need them: a linear scan in which a slot is reused once its chunk is dead. */
static int give_temporaries(struct binding *b)
{
    struct pcm_program *p = b->program;
    uint32_t needs = 0;
    for (uint32_t c = 0; c < b->schedule->nchunks; c++)
        for (int t = 0; t < 2; t++) needs += b->lives[c].temp[t] != NONE;
    p->temp_chunks = calloc(needs + 1, sizeof *p->temp_chunks);
    p->temp_slot = calloc(needs + 1, sizeof *p->temp_slot);
    b->slot_free_after = calloc(needs + 1, sizeof *b->slot_free_after);
    uint32_t *order = calloc(2 * (size_t)needs + 2, sizeof *order), *by_round = calloc(b->rounds + 2, sizeof *by_round);
    if (!p->temp_chunks || !p->temp_slot || !b->slot_free_after || !order || !by_round) {
        free(order), free(by_round);
        return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory binding schedule %s", b->schedule->name);
    }
    /* counting sort of the needs by the round in which they begin */
    for (uint32_t c = 0; c < b->schedule->nchunks; c++)
        for (int t = 0; t < 2; t++)
            if (b->lives[c].temp[t] != NONE) by_round[b->lives[c].temp_first[t] + 1]++;
    for (uint32_t r = 0; r <= b->rounds; r++) by_round[r + 1] += by_round[r];
    for (uint32_t c = 0; c < b->schedule->nchunks; c++)
        for (int t = 0; t < 2; t++)
            if (b->lives[c].temp[t] != NONE) {
                uint32_t at = by_round[b->lives[c].temp_first[t]]++;
                order[2 * at] = c, order[2 * at + 1] = (uint32_t)t;
            }
    uint32_t oldest = 0; /* slots are taken round-robin from the one that was freed longest ago */
    for (uint32_t i = 0; i < needs; i++) {
        struct life *life = &b->lives[order[2 * i]];
        uint32_t t = order[2 * i + 1], slot = p->ntemps;
        for (uint32_t probe = 0; probe < p->ntemps && probe < 16; probe++) {
            uint32_t s = (oldest + probe) % p->ntemps;
            if (b->slot_free_after[s] < life->temp_first[t]) {
                slot = s, oldest = s + 1;
                break;
            }
        }
        if (slot == p->ntemps) p->ntemps++;
        b->slot_free_after[slot] = life->temp_last[t];
        life->temp[t] = slot;
        p->temp_chunks[p->ntemp_pairs] = order[2 * i];
        p->temp_slot[p->ntemp_pairs++] = slot;
    }
    free(order), free(by_round);
    return PCM_OK;
}

static struct pcm_ref reference(const struct binding *b, uint32_t chunk, uint8_t place)
{
    const struct life *life = &b->lives[chunk];
    switch (place) {
    case PCM_IN:
    case PCM_STAGED: return (struct pcm_ref){place, (uint32_t)b->schedule->in_at[chunk]};
    case PCM_OUT: return (struct pcm_ref){PCM_OUT, (uint32_t)b->schedule->out_at[chunk]};
    case PCM_TEMP: return (struct pcm_ref){PCM_TEMP, life->temp[0]};
    case SECOND: return (struct pcm_ref){PCM_TEMP, life->temp[1]};
    default: return (struct pcm_ref){PCM_NOWHERE, 0};
    }
}

static struct write *write_in(const struct life *life, uint32_t round)
{
    for (uint32_t w = 0; w < life->nwrites; w++)
        if (life->writes[w].round == round) return &life->writes[w];
    return NULL;
}

/* Appends a step: as a new move, or as one more part of the move before it. */
static int emit_step(struct binding *b, uint32_t i, bool begins)
{
    const struct pcm_step *step = &b->schedule->steps[i];
    struct pcm_program *p = b->program;
    uint32_t round = b->round_of[i];
    struct life *life = &b->lives[step->chunk];
    struct write *write = step->kind == PCM_STEP_SEND ? NULL : write_in(life, round);
    bool again = write && write->last_move >= 0; /* the round has written the chunk before: go on from there */
    struct pcm_ref nowhere = {PCM_NOWHERE, 0};
    int32_t own = (int32_t)p->nmoves - !begins;
    struct pcm_part part = {step->chunk, nowhere, nowhere, nowhere,
                            again && write->last_move != own ? write->last_move : -1};
    struct pcm_ref after = reference(b, step->chunk, place_at(life, round, true));
    struct pcm_ref before = again ? after : reference(b, step->chunk, place_at(life, round, false));
    struct pcm_ref source = {PCM_NOWHERE, 0};
    if (is_local(step)) source = reference(b, step->src, place_at(&b->lives[step->src], round, false));
    switch (step->kind) {
    case PCM_STEP_SEND:
        part.from = before;
        if (life->final_copy && !life->nwrites && !life->kept) {
            part.to = reference(b, step->chunk, PCM_OUT); /* it only moves to the output: on the way out */
            life->kept = true;
        }
        break;
    case PCM_STEP_RECV: part.to = after; break;
    case PCM_STEP_REDUCE_FROM: part.from = before, part.to = after; break;
    case PCM_STEP_COPY: part.to = after, part.from = source; break;
    default: part.to = after, part.from = before, part.with = source; break;
    }
    bool reads = step->kind != PCM_STEP_RECV;
    if ((reads && part.from.place == PCM_NOWHERE) || (step->kind == PCM_STEP_REDUCE && source.place == PCM_NOWHERE))
        return pcm_fail(PCM_ERR_SCHEDULE, -1, "schedule %s: round %u reads chunk %u, which holds nothing yet",
                        b->schedule->name, round, step->chunk);
    p->parts[p->nparts++] = part;
    if (begins) {
        bool final = after.place == PCM_OUT && !(life->read && life->last_read > round);
        p->moves[p->nmoves++] = (struct pcm_move){.kind = step->kind,
                                                  .swap = !!(step->flags & PCM_FLAG_SWAP),
                                                  .final = final,
                                                  .peer = step->peer,
                                                  .part = p->nparts - 1,
                                                  .after = -1,
                                                  .forward = -1,
                                                  .forward_after = -1};
    }
    struct pcm_move *move = &p->moves[p->nmoves - 1];
    move->parts++;
    if (again) {
        move->waits |= part.after >= 0;
        p->moves[write->last_move].final = 0;
    }
    if (write) write->last_move = (int32_t)p->nmoves - 1;
    return PCM_OK;
}

static void emit_copy(struct binding *b, uint32_t chunk, uint8_t from)
{
    struct pcm_program *p = b->program;
    p->parts[p->nparts++] = (struct pcm_part){.chunk = chunk,
                                              .to = reference(b, chunk, PCM_OUT),
                                              .from = reference(b, chunk, from),
                                              .with = {PCM_NOWHERE, 0},
                                              .after = -1};
    p->moves[p->nmoves++] = (struct pcm_move){.kind = PCM_STEP_COPY,
                                              .final = 1,
                                              .part = p->nparts - 1,
                                              .parts = 1,
                                              .after = -1,
                                              .forward = -1,
                                              .forward_after = -1};
}

/* Emits one round: sends first, so that peers can start. Chunks that only move from the input to the output do so in the
 * first round, behind its sends. */
static int emit_round(struct binding *b, uint32_t first, uint32_t end, uint32_t round)
{
    for (int pass = 0; pass < 2; pass++) {
        bool begins = true;
        for (uint32_t i = first; i < end; i++) {
            const struct pcm_step *step = &b->schedule->steps[i];
            if ((step->kind != PCM_STEP_SEND) == pass) {
                int rc = emit_step(b, i, begins);
                if (rc) return rc;
            }
            begins = !(step->flags & PCM_FLAG_MORE);
        }
        if (pass == 0 && round == 0)
            for (uint32_t c = 0; c < b->schedule->nchunks; c++)
                if (b->lives[c].final_copy && !b->lives[c].nwrites && !b->lives[c].sent)
                    emit_copy(b, c, b->lives[c].start);
    }
    return PCM_OK;
}

/* The move that writes a chunk last in its round is the one whose bytes may be passed on. */
static bool writes_last(const struct pcm_program *p, uint32_t move, uint32_t end)
{
    for (const struct pcm_move *m = p->moves + move + 1; m < p->moves + end; m++)
        for (uint32_t i = m->part; m->waits && i < m->part + m->parts; i++)
            if (p->parts[i].after == (int32_t)move) return false;
    return true;
}

/* Marks what must wait for what on the same lane, and which arrivals can be passed on at once. */
static void link_moves(struct pcm_program *p)
{
    for (uint32_t r = 0, begin = 0; r < p->nrounds; begin = p->round_end[r++]) {
        for (uint32_t i = begin; i < p->round_end[r]; i++) {
            struct pcm_move *m = &p->moves[i];
            if (m->kind == PCM_STEP_COPY || m->kind == PCM_STEP_REDUCE) continue;
            bool sends = m->kind == PCM_STEP_SEND;
            for (uint32_t j = i; j-- > begin;)
                if (p->moves[j].peer == m->peer && (p->moves[j].kind == PCM_STEP_SEND) == sends &&
                    p->moves[j].kind <= PCM_STEP_REDUCE_FROM) {
                    m->after = (int32_t)j;
                    break;
                }
        }
        if (r + 1 == p->nrounds) break;
        for (uint32_t i = begin; i < p->round_end[r]; i++) {
            struct pcm_move *m = &p->moves[i];
            if ((m->kind != PCM_STEP_RECV && m->kind != PCM_STEP_REDUCE_FROM) || m->parts != 1) continue;
            if (!writes_last(p, i, p->round_end[r])) continue;
            for (uint32_t j = p->round_end[r]; j < p->round_end[r + 1]; j++) {
                struct pcm_move *next = &p->moves[j];
                if (next->kind != PCM_STEP_SEND || next->parts != 1) continue;
                if (p->parts[next->part].chunk != p->parts[m->part].chunk) continue;
                bool first = true;
                for (uint32_t k = p->round_end[r]; k < j; k++)
                    first &= p->moves[k].kind != PCM_STEP_SEND || p->moves[k].peer != next->peer;
                if (!first) continue;
                m->forward = (int32_t)j;
                for (uint32_t k = begin; k < p->round_end[r]; k++)
                    if (p->moves[k].kind == PCM_STEP_SEND && p->moves[k].peer == next->peer)
                        m->forward_after = (int32_t)k;
                break;
            }
        }
    }
}

/* A write is final also when its only later reader is the send that it is forwarded to. */
static void mark_final(const struct binding *b)
{
    struct pcm_program *p = b->program;
    const struct pcm_schedule *s = b->schedule;
    uint32_t *reads = calloc(s->nchunks + 1, sizeof *reads), step = s->nsteps; /* reads: in later rounds */
    if (!reads) return; /* only a hint is lost */
    for (uint32_t r = b->rounds; r-- > 0;) {
        for (uint32_t i = r ? p->round_end[r - 1] : 0; i < p->round_end[r]; i++) {
            struct pcm_move *m = &p->moves[i];
            struct pcm_part *part = &p->parts[m->part];
            if (m->forward >= 0 && part->to.place == PCM_OUT && reads[part->chunk] == 1) m->final = 1;
        }
        for (; step > 0 && b->round_of[step - 1] == r; step--) {
            const struct pcm_step *read = &s->steps[step - 1];
            if (is_local(read)) reads[read->src]++;
            if (read->kind != PCM_STEP_RECV && read->kind != PCM_STEP_COPY) reads[read->chunk]++;
        }
    }
    free(reads);
}

static int make_program(struct binding *b, enum pcm_layout layout)
{
    const struct pcm_schedule *s = b->schedule;
    struct pcm_program *p = b->program;
    b->lives = calloc(s->nchunks + 1, sizeof *b->lives);
    b->writes = calloc(s->nsteps + 1, sizeof *b->writes);
    b->round_of = calloc(s->nsteps + 1, sizeof *b->round_of);
    size_t most = (size_t)s->nsteps + 2 * (size_t)s->nchunks + 1;
    p->moves = calloc(most, sizeof *p->moves);
    p->parts = calloc(most, sizeof *p->parts);
    if (!b->lives || !b->writes || !b->round_of || !p->moves || !p->parts)
        return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory binding schedule %s", s->name);
    int rc = collect(b, layout);
    if (rc) return rc;
    choose_places(b);
    if ((rc = give_temporaries(b))) return rc;
    p->round_end = calloc(b->rounds + 2, sizeof *p->round_end);
    if (!p->round_end) return pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory binding schedule %s", s->name);
    for (uint32_t first = 0, round = 0; round < b->rounds || !round; round++) {
        uint32_t end = first;
        while (end < s->nsteps && b->round_of[end] == round) end++;
        if ((rc = emit_round(b, first, end, round))) return rc;
        p->round_end[p->nrounds++] = p->nmoves;
        first = end;
    }
    uint32_t before = p->nmoves;
    for (uint32_t c = 0; c < s->nchunks; c++)
        if (b->lives[c].final_copy && b->lives[c].nwrites)
            emit_copy(b, c, b->lives[c].writes[b->lives[c].nwrites - 1].place);
    if (p->nmoves > before) p->round_end[p->nrounds++] = p->nmoves;
    link_moves(p);
    mark_final(b);
    return PCM_OK;
}

int pcm_schedule_program(struct pcm_schedule *schedule, enum pcm_layout layout, struct pcm_program **out)
{
    if (!schedule->program[layout]) {
        struct binding b = {.schedule = schedule, .program = calloc(1, sizeof *b.program)};
        int rc = b.program ? make_program(&b, layout)
                           : pcm_fail(PCM_ERR_SYSTEM, -1, "out of memory binding schedule %s", schedule->name);
        free(b.lives), free(b.writes), free(b.round_of), free(b.slot_free_after);
        if (rc) {
            pcm_program_free(b.program);
            return rc;
        }
        schedule->program[layout] = b.program;
    }
    *out = schedule->program[layout];
    return PCM_OK;
}

void pcm_program_free(struct pcm_program *program)
{
    if (!program) return;
    free(program->moves), free(program->parts), free(program->round_end);
    free(program->temp_chunks), free(program->temp_slot);
    free(program);
}
