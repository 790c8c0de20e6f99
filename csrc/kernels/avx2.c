/* avx2.c: the kernels for x86-64 CPUs with AVX2 and F16C (Intel since 2013, AMD since 2015). */
#include "strict.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,f16c")
#endif
#include <immintrin.h>

static inline void stream_line(char *dst, const char *src)
{
    for (int i = 0; i < 64; i += 32)
        _mm256_stream_si256((__m256i *)(dst + i), _mm256_loadu_si256((const __m256i *)(src + i)));
}
#define STREAM_LINE stream_line
#define STREAM_END _mm_sfence

#define HALF_LANES 8

static inline __m256 half_load(const void *x)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(x));
}

static inline void half_store(void *d, __m256 r)
{
    const __m256 nan = _mm256_set1_ps(__builtin_nanf(""));
    r = _mm256_blendv_ps(r, nan, _mm256_cmp_ps(r, r, _CMP_UNORD_Q));
    _mm_storeu_si128(d, _mm256_cvtps_ph(r, _MM_FROUND_TO_NEAREST_INT));
}

#include "loops.h"

const struct pcm_kernels pcm_kernels_avx2 = KERNELS("avx2");

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
#include "kernels.h"
#endif
