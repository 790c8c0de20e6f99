/* reduce.h: typed kernels that combine, copy and divide arrays of elements, chosen once per call and then called per fragment. */
#ifndef PYCOMM_REDUCE_H
#define PYCOMM_REDUCE_H

#include <stddef.h>

/* dst[i] = a[i] op b[i] for n elements; if fwd is not NULL, fwd[i] gets the same value (one read, two writes).
 * dst may be exactly a or exactly b, and otherwise overlaps nothing; fwd overlaps nothing. Any alignment.
 * stream: of PCM_STREAM_DST and PCM_STREAM_FWD, hints that these will not be read soon, or by another processor, and had better
 * bypass the caches.
 * The operands' order is kept (a op b), and each result is bitwise the same whatever n, alignment or CPU; for that, every
 * NaN that comes out is the same quiet one, whose sign and payload say nothing of the operands'. */
enum { PCM_STREAM_DST = 1, PCM_STREAM_FWD = 2 };
typedef void pcm_reduce_fn(void *dst, void *fwd, const void *a, const void *b, size_t n, int stream);

/* The kernel for (enum pcm_dtype, enum pcm_op), or NULL where the op has no meaning for the dtype.
 * PCM_AVG gives the kernel of PCM_SUM: the division is pcm_divide's. */
pcm_reduce_fn *pcm_reduce_kernel(int dtype, int op);

/* dst[i] = src[i]; fwd and stream as above. */
void pcm_copy(void *dst, void *fwd, const void *src, size_t bytes, int stream);

/* dst[i] = src[i] / divisor (integers: towards zero). dst may be exactly src. Returns 0 if the dtype has no division, or for
 * divisor 0. Half and bfloat16 are rounded once. */
int pcm_divide(int dtype, void *dst, const void *src, size_t n, unsigned divisor);

/* The instruction set that was chosen at run time: "avx512", "avx2", "neon", "generic". */
const char *pcm_kernels_name(void);

#endif
