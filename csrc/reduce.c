/* reduce.c: what the ops mean, and the choice of the kernels that this CPU runs best.
 *
 *              bool   integers          floats                          complex
 *   SUM PROD   or and modulo 2^bits     rounded to nearest even         by parts: (ac - bd) + (ad + bc)i
 *   AVG        -      SUM, then pcm_divide                              SUM, then pcm_divide
 *   MIN MAX    and or by value          -0 < +0; NaN if either is NaN   -
 *   LAND LOR LXOR     of (x != 0), giving 1 or 0; NaN is true           -
 *   BAND BOR BXOR     bit by bit        -                               -        (of bool: logical)
 *
 * float16, bfloat16 and the float8s are computed in float32 and rounded once, to nearest even; the sum and product of
 * two such numbers is thereby as if rounded from the exact one, for float32 has more than twice their digits (S.
 * Figueroa, "When is double rounding innocuous?", 1995). Overflow gives infinity, and NaN in float8_e4m3fn, which has
 * none.
 *
 * A NaN result is always the same one: quiet, positive, the rest of its payload zero. CPUs disagree on that and
 * compilers swap operands, so nothing less makes results the same bits on every machine, and SUM, PROD, MIN and MAX of
 * reals commutative to the bit. For the same reason no multiplication and addition is fused.
 */
#include <stdatomic.h>
#include <stddef.h>

#include "kernels/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* __builtin_cpu_supports does not know this feature in every clang. */
static int has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C;
}
#endif

const struct pcm_kernels *pcm_kernels_at(int i)
{
    const struct pcm_kernels *sets[3];
    int n = 0;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        sets[n++] = &pcm_kernels_avx512;
    if (__builtin_cpu_supports("avx2") && has_f16c()) sets[n++] = &pcm_kernels_avx2;
#endif
    sets[n++] = &pcm_kernels_generic;
    return i >= 0 && i < n ? sets[i] : NULL;
}

/* Threads that come here first at once find the same answer, so whose store lasts does not matter. */
const struct pcm_kernels *pcm_kernels_chosen(void)
{
    static _Atomic(const struct pcm_kernels *) chosen;
    const struct pcm_kernels *k = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (!k) {
        k = pcm_kernels_at(0);
        atomic_store_explicit(&chosen, k, memory_order_relaxed);
    }
    return k;
}

pcm_reduce_fn *pcm_reduce_kernel(int dtype, int op)
{
    if (dtype < 0 || dtype >= PCM_NDTYPES || op < 0 || op >= PCM_NOPS) return NULL;
    return pcm_kernels_chosen()->reduce[dtype][op];
}

void pcm_copy(void *dst, void *fwd, const void *src, size_t bytes, int stream)
{
    pcm_kernels_chosen()->copy(dst, fwd, src, bytes, stream);
}

int pcm_divide(int dtype, void *dst, const void *src, size_t n, unsigned divisor)
{
    if (dtype < 0 || dtype >= PCM_NDTYPES || !pcm_kernels_chosen()->divide[dtype] || divisor == 0) return 0;
    pcm_kernels_chosen()->divide[dtype](dst, src, n, divisor);
    return 1;
}

const char *pcm_kernels_name(void) { return pcm_kernels_chosen()->name; }
