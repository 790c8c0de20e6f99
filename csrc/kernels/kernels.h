/* kernels.h: what one instruction set's set of kernels is; one set is chosen at run time (reduce.c). */
#ifndef PYCOMM_KERNELS_H
#define PYCOMM_KERNELS_H

#include "../pycomm.h"
#include "../reduce.h"
#include "../squeeze.h"

struct pcm_codec { /* see squeeze.h */
    void (*encode)(void *wire, const float *x, float *residual, size_t n);
    void (*decode)(float *out, const void *wire, size_t n, int add);
};

struct pcm_kernels {
    const char *name;
    pcm_reduce_fn *reduce[PCM_NDTYPES][PCM_NOPS]; /* NULL where the op has no meaning */
    void (*divide[PCM_NDTYPES])(void *dst, const void *src, size_t n, unsigned divisor);
    void (*copy)(void *dst, void *fwd, const void *src, size_t bytes, int stream);
    struct pcm_codec codecs[PCM_SQUEEZE_KINDS];
};

extern const struct pcm_kernels pcm_kernels_generic;
#if defined(__x86_64__)
extern const struct pcm_kernels pcm_kernels_avx2, pcm_kernels_avx512;
#endif

/* The i-th set that this CPU can run, best first; NULL past the last. For tests and benchmarks: the
 * library itself always uses the first. */
const struct pcm_kernels *pcm_kernels_at(int i);

/* The first of them, which the library uses. */
const struct pcm_kernels *pcm_kernels_chosen(void);

#endif
