/* squeeze.h: float32 in fewer bits, for links that are slower than the arithmetic: bf16, int8 and int4.
 *
 * The wire format, which is little-endian; docs/compression.md derives its error bounds.
 *   bf16   2 bytes an element: the upper half of the float32, rounded to nearest even
 *   int8   blocks of 256 elements, the last one shorter: the scale (float32), then a code (int8) an element
 *   int4   the same with codes of 4 bits: of a block of k elements, byte i has element i in its lower half and element
 *          (k + 1) / 2 + i in its upper one; where k is odd, the last upper half is 0
 * An element is code * scale. The scale is max|x| of the block's finite elements over 127 or 7, and at least FLT_MIN, so
 * that codes are -127 ... 127 or -7 ... 7. The code -128 or -8 is a NaN: what stands for an infinity or a NaN, neither
 * of which disturbs the rest of its block. bf16 keeps infinities and NaNs, and makes an infinity of what is too large for it.
 */
#ifndef PYCOMM_SQUEEZE_H
#define PYCOMM_SQUEEZE_H

#include <stddef.h>
#include <stdint.h>

#include "pycomm.h"

#ifdef __cplusplus
extern "C" {
#endif

enum pcm_squeeze { /* wire format, as the block's length is: never renumber */
                   PCM_SQUEEZE_BF16,
                   PCM_SQUEEZE_INT8,
                   PCM_SQUEEZE_INT4,
                   PCM_SQUEEZE_KINDS
};
enum { PCM_SQUEEZE_BLOCK = 256 }; /* elements that share a scale */

/* Bytes of n encoded elements; 0 for an unknown kind. */
PCM_API size_t pcm_squeeze_bytes(int kind, size_t n);
/* Encodes n elements of x. With a residual (n elements; or NULL), x + residual is encoded instead, and the residual
 * becomes what was lost of it: the error feedback of the next call. It becomes 0 where something not finite was encoded or would
 * be decoded. Any alignment; nothing overlaps. PCM_ERR_ARGUMENT for an unknown kind. */
PCM_API int pcm_squeeze_encode(int kind, void *wire, const float *x, float *residual, size_t n);
/* out[i] = the i-th encoded element; with add, out[i] += it. Every NaN is the same quiet one, whose payload is 0. The same
 * bits on every CPU. */
PCM_API int pcm_squeeze_decode(int kind, float *out, const void *wire, size_t n, int add);

#ifdef __cplusplus
}
#endif
#endif
