/* avx512.c: the kernels for x86-64 CPUs with AVX-512 F, BW, DQ and VL (Intel servers since 2017, AMD since 2022). */
#include "strict.h"

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,f16c"))), apply_to = function)
#pragma clang attribute push(__attribute__((min_vector_width(512))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,f16c,prefer-vector-width=512")
#endif

static inline void stream_line(char *dst, const char *src)
{
    _mm512_stream_si512((void *)dst, _mm512_loadu_si512(src));
}
#define STREAM_LINE stream_line
#define STREAM_END _mm_sfence

#define HALF_LANES 16
typedef __m512 half_floats;
#define half_load_bytes(X) ((half_bits)_mm256_cvtepu8_epi16(_mm_loadu_si128(X)))
#define half_widen(H) _mm512_cvtph_ps((__m256i)(H))
#define half_narrow(F) ((half_bits)_mm512_cvtps_ph(F, _MM_FROUND_TO_NEAREST_INT))

#include "loops.h"

const struct pcm_kernels pcm_kernels_avx512 = KERNELS("avx512");

#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute pop
#endif
#else
#include "kernels.h"
#endif
