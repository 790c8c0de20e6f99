/* avx512.c: the kernels for x86-64 CPUs with AVX-512 F, BW, DQ and VL (Intel servers since 2017, AMD since 2022). */
#include "strict.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(                                                                                          \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,f16c"), min_vector_width(512))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,f16c,prefer-vector-width=512")
#endif
#include <immintrin.h>

static inline void stream_line(char *dst, const char *src)
{
    _mm512_stream_si512((void *)dst, _mm512_loadu_si512(src));
}
#define STREAM_LINE stream_line
#define STREAM_END _mm_sfence

#define HALF_LANES 16

static inline __m512 half_load(const void *x)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(x));
}

static inline void half_store(void *d, __m512 r)
{
    const __m512 nan = _mm512_set1_ps(__builtin_nanf(""));
    r = _mm512_mask_mov_ps(r, _mm512_cmp_ps_mask(r, r, _CMP_UNORD_Q), nan);
    _mm256_storeu_si256(d, _mm512_cvtps_ph(r, _MM_FROUND_TO_NEAREST_INT));
}

#include "loops.h"

const struct pcm_kernels pcm_kernels_avx512 = KERNELS("avx512");

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
#include "kernels.h"
#endif
