/* report.c: what was served and what was passed on to MPI, at the end, if PYCOMM_MPI_REPORT=1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "preload.h"

static struct {
    atomic_ullong served, passed, bytes, nanoseconds;
} counts[PCM_NCOLLECTIVES];

static atomic_int wanted = -1; /* -1: not known yet; 1: to be counted; 2: and printed */

static int look(void)
{
    int known = atomic_load_explicit(&wanted, memory_order_relaxed);
    if (known < 0) {
        char said[16];
        known = pcm_knob_text("PYCOMM_MPI_REPORT", said, sizeof said) && strcmp(said, "0") != 0 ? 2 : 0;
        atomic_store(&wanted, known);
    }
    return known;
}

bool report_wanted(void) { return look() > 0; }

void report_start(void)
{
    if (!look()) atomic_store(&wanted, 1);
}

void pycomm_late_counts(int collective, uint64_t out[4])
{
    out[0] = counts[collective].served, out[1] = counts[collective].bytes;
    out[2] = counts[collective].nanoseconds, out[3] = counts[collective].passed;
}

void report_served(int collective, uint64_t bytes, double seconds)
{
    atomic_fetch_add(&counts[collective].served, 1);
    atomic_fetch_add(&counts[collective].bytes, bytes);
    atomic_fetch_add(&counts[collective].nanoseconds, (uint64_t)(seconds * 1e9));
}

void report_passed(int collective)
{
    if (report_wanted()) atomic_fetch_add(&counts[collective].passed, 1);
}

void report_print(void)
{
    if (look() < 2) return;
    fprintf(stderr, "pycomm: %-16s %10s %12s %10s %10s\n", "collective", "served", "bytes", "seconds", "to MPI");
    for (int c = 0; c < PCM_NCOLLECTIVES; c++)
        if (counts[c].served || counts[c].passed)
            fprintf(stderr, "pycomm: %-16s %10llu %12llu %10.6f %10llu\n", pcm_collective_name(c),
                    (unsigned long long)counts[c].served, (unsigned long long)counts[c].bytes,
                    1e-9 * (double)counts[c].nanoseconds, (unsigned long long)counts[c].passed);
}
