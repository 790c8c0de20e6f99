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
typedef __m256 half_floats;
#define half_load_bytes(X) ((half_bits)_mm_cvtepu8_epi16(_mm_loadl_epi64(X)))
#define half_widen(H) _mm256_cvtph_ps((__m128i)(H))
#define half_narrow(F) ((half_bits)_mm256_cvtps_ph(F, _MM_FROUND_TO_NEAREST_INT))

#include "loops.h"

const struct pcm_kernels pcm_kernels_avx2 = KERNELS("avx2");

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
#include "kernels.h"
#endif
