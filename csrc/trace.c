/* trace.c: the flight recorder: the last operations of this rank, kept at the cost of two reads of the clock. */
#include <stdio.h>
#include <string.h>

#include "core.h"

void pcm_trace_begin(struct pcm_request *r)
{
    pcm_world *world = r->comm->world;
    struct pcm_record *record = &world->trace[world->traced % PCM_TRACE];
    r->begun = pcm_ticks();
    r->record = world->traced++;
    record->comm = r->comm->id, record->begun = r->begun, record->ended = 0;
    record->head = r->head;
    record->status = PCM_AGAIN;
    memcpy(record->algorithm, r->plan->schedule->name, sizeof record->algorithm - 1);
}

void pcm_trace_end(const struct pcm_request *r, int status)
{
    pcm_world *world = r->comm->world;
    if (r->kind != PCM_REQUEST_COLLECTIVE || world->traced - r->record > PCM_TRACE) return; /* overwritten since */
    struct pcm_record *record = &world->trace[r->record % PCM_TRACE];
    record->ended = pcm_ticks();
    record->status = status;
}

size_t pcm_world_trace(pcm_world *world, char *text, size_t capacity)
{
    size_t used = 0;
    if (capacity) *text = 0;
    if (!pcm_world_is_ours(world)) return 1;
    pcm_world_enter(world);
    uint64_t now = pcm_ticks();
    double second = (double)(now - world->tick0) / (pcm_now() - world->time0); /* ticks a second, measured */
    uint64_t first = world->traced > PCM_TRACE ? world->traced - PCM_TRACE : 0;
    for (uint64_t i = first; i < world->traced; i++) {
        const struct pcm_record *record = &world->trace[i % PCM_TRACE];
        uint64_t ended = record->ended ? record->ended : now;
        char call[128], count[24] = "null", line[512];
        pcm_head_describe(&record->head, call, sizeof call);
        if (record->head.count != PCM_UNEVEN)
            snprintf(count, sizeof count, "%llu", (unsigned long long)record->head.count);
        int n =
            snprintf(line, sizeof line,
                     "{\"record\":%llu,\"comm\":%llu,\"operation\":%u,\"call\":\"%s\",\"collective\":\"%s\","
                     "\"dtype\":\"%s\",\"count\":%s,\"algorithm\":\"%.*s\",\"start_s\":%.9f,\"age_s\":%.9f,"
                     "\"duration_us\":%.3f,\"state\":\"%s\"}\n",
                     (unsigned long long)i, (unsigned long long)record->comm, record->head.seq, call,
                     pcm_collective_name(record->head.collective), pcm_dtype_name(record->head.dtype), count,
                     (int)sizeof record->algorithm, record->algorithm, (double)(record->begun - world->tick0) / second,
                     (double)(now - record->begun) / second, (double)(ended - record->begun) / second * 1e6,
                     record->status == PCM_OK      ? "done"
                     : record->status == PCM_AGAIN ? "under way"
                                                   : "failed");
        if (n > 0 && used + (size_t)n < capacity) memcpy(text + used, line, (size_t)n + 1);
        used += n > 0 ? (size_t)n : 0;
    }
    pcm_world_leave(world);
    return used + 1;
}
