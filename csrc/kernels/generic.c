/* generic.c: the kernels for the instructions that every CPU of the architecture has (SSE2, NEON). */
#include "strict.h"

#if defined(__x86_64__)
#include <emmintrin.h>

static inline void stream_line(char *dst, const char *src)
{
    for (int i = 0; i < 64; i += 16)
        _mm_stream_si128((__m128i *)(dst + i), _mm_loadu_si128((const __m128i *)(src + i)));
}
#define STREAM_LINE stream_line
#define STREAM_END _mm_sfence
#endif

#include "loops.h"

#if defined(__aarch64__)
const struct pcm_kernels pcm_kernels_generic = KERNELS("neon");
#else
const struct pcm_kernels pcm_kernels_generic = KERNELS("generic");
#endif
