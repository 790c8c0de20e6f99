/* squeeze.c: the choice of the codec's loops, and how long an encoding is. */
#include "squeeze.h"

#include "kernels/kernels.h"

static int known(int kind) { return kind >= 0 && kind < PCM_SQUEEZE_KINDS; }

size_t pcm_squeeze_bytes(int kind, size_t n)
{
    const size_t scales = (n + PCM_SQUEEZE_BLOCK - 1) / PCM_SQUEEZE_BLOCK * sizeof(float);
    switch (kind) {
    case PCM_SQUEEZE_BF16: return 2 * n;
    case PCM_SQUEEZE_INT8: return scales + n;
    case PCM_SQUEEZE_INT4: return scales + (n + 1) / 2; /* only the last block can be odd */
    }
    return 0;
}

int pcm_squeeze_encode(int kind, void *wire, const float *x, float *residual, size_t n)
{
    if (!known(kind)) return PCM_ERR_ARGUMENT;
    pcm_kernels_chosen()->codecs[kind].encode(wire, x, residual, n);
    return PCM_OK;
}

int pcm_squeeze_decode(int kind, float *out, const void *wire, size_t n, int add)
{
    if (!known(kind)) return PCM_ERR_ARGUMENT;
    pcm_kernels_chosen()->codecs[kind].decode(out, wire, n, add);
    return PCM_OK;
}
