/* error.c: this thread's last error, and the words for a call. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core.h"

static _Thread_local struct pcm_error last;

const struct pcm_error *pcm_last_error(void) { return &last; }

int pcm_fail(int code, int rank, const char *format, ...)
{
    va_list arguments;
    last.code = code;
    last.rank = rank;
    va_start(arguments, format);
    vsnprintf(last.text, sizeof last.text, format, arguments);
    va_end(arguments);
    return code;
}

void pcm_head_describe(const struct pcm_head *head, char *text, size_t capacity)
{
    int used = snprintf(text, capacity, "%s(", pcm_collective_name(head->collective));
    size_t at = used < 0 ? 0 : (size_t)used;
    if (head->collective == PCM_BARRIER) {
        snprintf(text + at, capacity > at ? capacity - at : 0, ")");
        return;
    }
    char count[32] = "uneven counts";
    if (head->count != PCM_UNEVEN) snprintf(count, sizeof count, "count %llu", (unsigned long long)head->count);
    const char *op = "";
    switch (head->collective) {
    case PCM_ALLREDUCE:
    case PCM_REDUCE:
    case PCM_REDUCE_SCATTER:
    case PCM_SCAN:
    case PCM_EXSCAN: op = pcm_op_name(head->op);
    }
    char root[24] = "";
    switch (head->collective) {
    case PCM_REDUCE:
    case PCM_BROADCAST:
    case PCM_GATHER:
    case PCM_SCATTER: snprintf(root, sizeof root, ", root %d", (int)head->root);
    }
    if (at < capacity)
        snprintf(text + at, capacity - at, "%s, %s%s%s%s)", pcm_dtype_name(head->dtype), count, *op ? ", " : "", op,
                 root);
}
