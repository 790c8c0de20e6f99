/* race.c: whether MPI's own collectives are faster than ours: measured when a program has called one some times, and remembered
 * for a day. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "preload.h"

/* The program's first calls are MPI's: a schedule of ours costs some 20 ms, and a race more, which few calls do not repay. Where
 * there are many, it is held again: what disturbed one will not disturb the others. */
enum { FIRST = 4, SECOND = 64, THIRD = 1024 };
/* A program calls one side and not both in turn, so each side makes some calls in a row, of which the first is not timed. Of a
 * new lane the first turns are not either: pages are new, and what is chosen below us is being found out. */
enum { TURN = 5, TIMED = TURN - 1, WARM = 12, LEAST = 2, MOST = 12, SAMPLES = MOST * TIMED };
/* Seconds for the turns that are timed, and for those that are not, unless few take longer. */
static const double BUDGET = 0.03;
/* MPI's time over ours that makes a call ours. After a barrier of ours MPI's short calls take longer, and ours are no faster. */
static const float WORTH = 1.02F, WORTH_OF_BARRIERS = 1.25F;
static const float OURS = INFINITY, THEIRS = 1e-6F; /* ratios that decide for one of them */

static int lane_of(uint64_t bytes)
{
    int octave = pcm_octave_of(bytes);
    return octave < RACE_OCTAVES ? octave : RACE_OCTAVES - 1;
}

/* ---- one call ------------------------------------------------------------------------------------------------------------- */

static int run_mpi(const struct ask *a)
{
    void *in = (void *)(uintptr_t)a->in.buffer, *out = (void *)(uintptr_t)a->out.buffer;
    int n = (int)a->out.count;
    mpi_handle type = a->out.type;
    switch (a->collective) {
    case PCM_ALLREDUCE: return more.allreduce(in, out, n, type, a->op, a->comm);
    case PCM_BROADCAST: return more.bcast(out, n, type, 0, a->comm);
    case PCM_ALLTOALL: return more.alltoall(in, n, type, out, n, type, a->comm);
    case PCM_ALLGATHER: return more.allgather(in, n, type, out, n, type, a->comm);
    case PCM_REDUCE: return more.reduce(in, out, n, type, a->op, 0, a->comm);
    case PCM_REDUCE_SCATTER: return more.reduce_scatter_block(in, out, n, type, a->op, a->comm);
    case PCM_GATHER: return more.gather(in, n, type, out, n, type, 0, a->comm);
    case PCM_SCATTER: return more.scatter(in, n, type, out, n, type, 0, a->comm);
    case PCM_SCAN: return more.scan(in, out, n, type, a->op, a->comm);
    case PCM_EXSCAN: return more.exscan(in, out, n, type, a->op, a->comm);
    default: return more.barrier(a->comm);
    }
}

/* What the program would call: through serve(), whoever is to run it, because that takes part of the time of a short call. */
static bool run(struct ask *ask)
{
    int code;
    if (!serve(ask, NULL, &code)) code = run_mpi(ask);
    return !code;
}

/* ---- what is remembered --------------------------------------------------------------------------------------------------- */

static char *library_as_hex(void)
{
    char text[8192];
    pcm_mpi_version(text);
    return pcm_helper_hex(text, strlen(text));
}

static void remember(const struct group *g, int collective, int at)
{
    char *library = library_as_hex();
    size_t bytes;
    if (library)
        free(pcm_helper_ask(&adviser, &bytes,
                            "{\"ask\": \"know\", \"machine\": %d, \"library\": \"%s\", \"collective\": \"%s\", "
                            "\"octave\": %d, \"ratio\": %.4g}",
                            g->machine, library, pcm_collective_name(collective), at,
                            (double)g->lanes[collective][at].ratio));
    free(library);
}

/* The adviser knows a float for each lane; infinity where we are to run what we can. */
void race_recall(struct group *g, int binding)
{
    enum { LANES = (PCM_BARRIER + 1) * RACE_OCTAVES };
    struct {
        float ratios[LANES];
    } own = {{0}}, *all = calloc((size_t)g->size, sizeof *all);
    size_t bytes = 0;
    char *library = g->rank ? NULL : library_as_hex();
    void *known = library
                      ? pcm_helper_ask(&adviser, &bytes,
                                       "{\"ask\": \"known\", \"machine\": %d, \"library\": \"%s\", \"octaves\": %d}",
                                       g->machine, library, RACE_OCTAVES)
                      : NULL;
    if (known && bytes == sizeof own) memcpy(&own, known, sizeof own);
    if (all && !pcm_mpi_exchange(binding, &own, sizeof own, all))
        for (int i = 0; i < LANES; i++) {
            float ratio = all->ratios[i];
            g->lanes[i / RACE_OCTAVES][i % RACE_OCTAVES] = (struct lane){.ratio = ratio, .races = ratio > 0};
        }
    free(known), free(library), free(all);
}

/* ---- a race --------------------------------------------------------------------------------------------------------------- */

/* The largest of each number over the ranks. */
static bool largest(const struct group *g, double *numbers, int count)
{
    const struct mpi_library *mpi = preload_mpi();
    double own[4];
    memcpy(own, numbers, (size_t)count * sizeof *own);
    return !more.allreduce(own, numbers, count, mpi->dtypes[PCM_FLOAT64], mpi->ops[PCM_MAX], g->comm);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Some turns of both sides, so that what disturbs one disturbs the other too; each call after a barrier. Tells the seconds of a
 * turn of both, on the slowest rank. */
static bool take_turns(struct group *g, struct lane *lane, struct ask *ask, int turns, double (*times)[SAMPLES],
                       double *each)
{
    struct ask barrier = {.collective = PCM_BARRIER, .comm = g->comm};
    bool good = true;
    double begun = pcm_now();
    for (int i = 0; i < 2 * turns * TURN && good; i++) {
        int turn = i / (2 * TURN), side = i / TURN % 2, call = i % TURN;
        lane->ratio = side ? THEIRS : OURS;
        good = run(&barrier) && good;
        double start = pcm_now();
        good = run(ask) && good;
        if (call && times) times[side][turn * TIMED + call - 1] = pcm_now() - start;
    }
    *each = (pcm_now() - begun) / turns;
    return largest(g, each, 1) && good;
}

static int fit(double each, int least, int most)
{
    double turns = BUDGET / each;
    return turns < least ? least : turns < most ? (int)turns : most;
}

/* Writes the medians of ours and of MPI's on the rank where these are longest, as programs wait for the last one; false if it has
 * failed. */
static bool compete(struct group *g, struct lane *lane, struct ask *ask, double medians[2])
{
    double times[2][SAMPLES], each;
    bool good = take_turns(g, lane, ask, 1, NULL, &each);
    good = good && take_turns(g, lane, ask, fit(each, 1, WARM), NULL, &each);
    int turns = fit(each, LEAST, MOST);
    good = good && take_turns(g, lane, ask, turns, times, &each);
    double numbers[3] = {0, 0, !good};
    for (int side = 0; side < 2 && good; side++) {
        size_t n = (size_t)turns * TIMED;
        qsort(times[side], n, sizeof **times, ascending);
        numbers[side] = times[side][n / 2];
    }
    if (!largest(g, numbers, 3) || numbers[2] > 0) return false;
    medians[0] = numbers[0], medians[1] = numbers[1];
    return true;
}

static void race(struct group *g, int collective, int at)
{
    const struct mpi_library *mpi = preload_mpi();
    struct lane *lane = &g->lanes[collective][at];
    size_t bytes = (size_t)1 << at;
    size_t blocks = pcm_is_whole(collective) ? 1 : (size_t)g->size;
    int64_t n = (int64_t)(bytes / blocks / sizeof(float));
    size_t room = (size_t)(n ? n : 1) * blocks * sizeof(float);
    struct side in = {.count = n ? n : 1, .type = mpi->dtypes[PCM_FLOAT32]}, out = in;
    void *memory[2] = {calloc(1, room), calloc(1, room)};
    in.buffer = memory[0], out.buffer = memory[1];
    struct ask ask = {
        collective, in, out, pcm_reduces(collective) ? mpi->ops[PCM_SUM] : 0, g->comm, 0, false,
    };
    if (collective == PCM_BARRIER) ask = (struct ask){.collective = PCM_BARRIER, .comm = g->comm};
    double lacks = !memory[0] || !memory[1];
    bool within = g->racing; /* another one: barriers are needed there */
    g->racing = true;
    double medians[2];
    bool good = largest(g, &lacks, 1) && !(lacks > 0) && compete(g, lane, &ask, medians);
    g->racing = within;
    lane->races++;
    for (int side = 0; side < 2 && good; side++)
        if (!(lane->best[side] > 0) || medians[side] < lane->best[side]) lane->best[side] = medians[side];
    lane->ratio = good ? (float)(lane->best[1] / lane->best[0]) : OURS;
    free(memory[0]), free(memory[1]);
    if (!g->rank && isfinite(lane->ratio)) remember(g, collective, at);
}

static bool is_worth(int collective, const struct lane *lane)
{
    return lane->ratio >= (collective == PCM_BARRIER ? WORTH_OF_BARRIERS : WORTH);
}

bool race_lost(struct group *g, int collective, uint64_t bytes, bool started)
{
    int at = lane_of(bytes);
    struct lane *lane = &g->lanes[collective][at];
    if (lane->ratio == OURS) return false;
    if (started)
        return lane->ratio > 0 && !is_worth(collective, lane); /* others may come only when this rank has gone on */
    bool again = !g->racing && lane->races < RACES && (lane->calls == SECOND || lane->calls == THIRD);
    if (lane->races ? again : lane->ratio == 0 && lane->calls == FIRST) race(g, collective, at);
    if (!g->racing || !lane->races) lane->calls++;
    return !is_worth(collective, lane); /* MPI's as long as nothing is known */
}
