/* kernels.c: how fast every reduction kernel of every instruction set is on this machine.
 *
 *   kernels [bytes [dtype [op]]]        default: 65536 bytes an operand, every dtype, every op
 *
 * Columns: nanoseconds for one element; then gigabytes of result per second for the plain kernel, with a second
 * destination (fwd), and past the caches (stream). A result byte is two bytes read and one written, or two with fwd.
 * Each figure is the best of several runs: interference can only slow a run down.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../csrc/kernels/kernels.h"

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct operands {
    void *dst, *fwd, *a, *b;
};

/* Seconds a call. */
static double measure(pcm_reduce_fn *f, struct operands x, int fwd, int stream, size_t n)
{
    enum { RUNS = 5 };
    const double run = 2e-3; /* seconds: long against the clock, short against a scheduler's slice */
    double best = 1e9;
    size_t calls = 1;
    for (int r = 0; r < RUNS;) {
        const double start = now();
        for (size_t i = 0; i < calls; i++) f(x.dst, fwd ? x.fwd : NULL, x.a, x.b, n, stream);
        const double took = now() - start;
        if (took < run) {
            calls *= 2;
            continue;
        }
        if (took / (double)calls < best) best = took / (double)calls;
        r++;
    }
    return best;
}

/* Ones where the dtype has a one: ordinary numbers, neither subnormal nor NaN, whatever is done to them. */
static void *operand(size_t bytes)
{
    void *x = NULL;
    if (posix_memalign(&x, 4096, bytes) != 0) {
        fprintf(stderr, "kernels: cannot allocate %zu bytes; ask for fewer\n", bytes);
        exit(1);
    }
    memset(x, 0x3c, bytes);
    return x;
}

int main(int argc, char **argv)
{
    const size_t bytes = argc > 1 ? strtoull(argv[1], NULL, 0) : 65536;
    if (bytes < 16) {
        fprintf(stderr, "usage: %s [bytes (16 or more) [dtype [op]]]\n", argv[0]);
        return 2;
    }
    const struct operands x = {operand(bytes), operand(bytes), operand(bytes), operand(bytes)};
    printf("%-8s %-14s %-5s %9s %9s %9s %9s\n", "set", "dtype", "op", "ns", "GB/s", "fwd", "stream");
    const struct pcm_kernels *k;
    for (int set = 0; (k = pcm_kernels_at(set)) != NULL; set++) {
        for (int dtype = 0; dtype < PCM_NDTYPES; dtype++) {
            if (argc > 2 && strcmp(argv[2], pcm_dtype_name(dtype)) != 0) continue;
            for (int op = 0; op < PCM_NOPS; op++) {
                pcm_reduce_fn *f = k->reduce[dtype][op];
                if (!f || op == PCM_AVG || (argc > 3 && strcmp(argv[3], pcm_op_name(op)) != 0)) continue;
                const size_t n = bytes / pcm_dtype_size(dtype);
                const double gb = 1e-9 * (double)(n * pcm_dtype_size(dtype));
                printf("%-8s %-14s %-5s %9.1f %9.1f %9.1f %9.1f\n", k->name, pcm_dtype_name(dtype), pcm_op_name(op),
                       1e9 * measure(f, x, 0, 0, 1), gb / measure(f, x, 0, 0, n), gb / measure(f, x, 1, 0, n),
                       gb / measure(f, x, 0, 1, n));
                fflush(stdout);
            }
        }
    }
    free(x.dst), free(x.fwd), free(x.a), free(x.b);
    return 0;
}
