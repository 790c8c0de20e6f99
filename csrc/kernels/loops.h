/* loops.h: every kernel, written once and compiled by each instruction set's file, which includes this and then
 * KERNELS.
 *
 * The includer may define, before it:
 *   STREAM_LINE(dst, src)  copies 64 bytes to an aligned dst past the caches; STREAM_END() orders those stores.
 *   HALF_LANES             float16 in hardware: see half.h.
 *
 * The loops below are plain C that the compiler vectorises. They touch their operands in place (no stride, no overlap
 * but dst == a or dst == b), which is why they may be declared independent.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "codec.h"
#include "kernels.h"
#include "small_float.h"
#if defined(HALF_LANES)
#include "half.h"
#endif

#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

typedef void loop_fn(void *dst, const void *a, const void *b, size_t n);

/* ---- copies, and the second destination ------------------------------------------------------- */

enum {
    TILE = 4096,       /* bytes: a tile of each of four operands stays in the first-level cache */
    STREAM_MIN = 4096, /* bytes: below this, bypassing the caches cannot pay */
};

#if defined(STREAM_LINE)
static void copy_streaming(char *dst, const char *src, size_t bytes)
{
    size_t head = -(uintptr_t)dst & 63; /* up to the next line */
    if (head > bytes) head = bytes;
    memcpy(dst, src, head);
    size_t i = head;
    for (; i + 64 <= bytes; i += 64) STREAM_LINE(dst + i, src + i);
    memcpy(dst + i, src + i, bytes - i);
}
#else
#define STREAM_END() (void)0
static void copy_streaming(char *dst, const char *src, size_t bytes) { memcpy(dst, src, bytes); }
#endif

static void copy_tile(char *dst, const char *src, size_t bytes, int streaming)
{
    if (streaming)
        copy_streaming(dst, src, bytes);
    else
        memcpy(dst, src, bytes);
}

static void copy(void *dst, void *fwd, const void *src, size_t bytes, int stream)
{
    if (bytes < STREAM_MIN) stream = 0;
    if (!fwd && !stream) {
        if (dst != src) memcpy(dst, src, bytes);
        return;
    }
    for (size_t i = 0; i < bytes; i += TILE) {
        const size_t k = bytes - i < TILE ? bytes - i : TILE;
        if (fwd) copy_tile((char *)fwd + i, (const char *)src + i, k, stream & PCM_STREAM_FWD);
        if (dst != src) copy_tile((char *)dst + i, (const char *)src + i, k, stream & PCM_STREAM_DST);
    }
    if (stream) STREAM_END();
}

/* One pass over memory for two destinations, or for one that bypasses the caches: a tile is computed where it is to
 * stay (or in a scratch tile), and copied on while the first-level cache holds it. In place there is nothing to bypass:
 * the line has been read already. */
static void reduce_tiled(loop_fn *loop, size_t size, void *dst, void *fwd, const void *a, const void *b, size_t n,
                         int stream)
{
    const size_t step = TILE / size;
    if (n * size < STREAM_MIN) stream = 0;
    const int dst_streams = stream & PCM_STREAM_DST && dst != a && dst != b;
    const int fwd_streams = fwd && stream & PCM_STREAM_FWD;
    if (!dst_streams && !fwd) {
        loop(dst, a, b, n);
        return;
    }
    _Alignas(64) char scratch[TILE];
    for (size_t i = 0; i < n; i += step) {
        const size_t k = n - i < step ? n - i : step, at = i * size;
        char *tile = !dst_streams ? (char *)dst + at : fwd && !fwd_streams ? (char *)fwd + at : scratch;
        loop(tile, (const char *)a + at, (const char *)b + at, k);
        if (dst_streams) copy_streaming((char *)dst + at, tile, k * size);
        if (fwd && tile != (char *)fwd + at) copy_tile((char *)fwd + at, tile, k * size, fwd_streams);
    }
    if (dst_streams || fwd_streams) STREAM_END();
}

/* ---- the making of a kernel ------------------------------------------------------------------- */

#define ENTRY(NAME, SIZE)                                                                                              \
    static void NAME(void *dst, void *fwd, const void *a, const void *b, size_t n, int stream)                         \
    {                                                                                                                  \
        if (fwd || stream)                                                                                             \
            reduce_tiled(NAME##_loop, SIZE, dst, fwd, a, b, n, stream);                                                \
        else                                                                                                           \
            NAME##_loop(dst, a, b, n);                                                                                 \
    }

/* RESULT is an expression of the operands p and q, both of type T. */
#define LOOP(NAME, T, RESULT)                                                                                          \
    static __attribute__((noinline)) void NAME##_loop(void *dst, const void *a, const void *b, size_t n)               \
    {                                                                                                                  \
        typedef T __attribute__((aligned(1), may_alias)) anywhere;                                                     \
        anywhere *d = dst;                                                                                             \
        const anywhere *x = a, *y = b;                                                                                 \
        INDEPENDENT for (size_t i = 0; i < n; i++)                                                                     \
        {                                                                                                              \
            const T p = x[i], q = y[i];                                                                                \
            d[i] = (T)(RESULT);                                                                                        \
        }                                                                                                              \
    }

#define KERNEL(NAME, T, RESULT)                                                                                        \
    LOOP(NAME, T, RESULT)                                                                                              \
    ENTRY(NAME, sizeof(T))

#define DIVISION(NAME, T, RESULT)                                                                                      \
    static void NAME##_divide(void *dst, const void *src, size_t n, unsigned divisor)                                  \
    {                                                                                                                  \
        typedef T __attribute__((aligned(1), may_alias)) anywhere;                                                     \
        anywhere *d = dst;                                                                                             \
        const anywhere *x = src;                                                                                       \
        INDEPENDENT for (size_t i = 0; i < n; i++)                                                                     \
        {                                                                                                              \
            const T p = x[i];                                                                                          \
            d[i] = (T)(RESULT);                                                                                        \
        }                                                                                                              \
    }

#define LOGICAL_KERNELS(N, T, TRUE, IS)                                                                                \
    KERNEL(N##_LAND, T, (IS(p) & IS(q)) ? TRUE : 0)                                                                    \
    KERNEL(N##_LOR, T, (IS(p) | IS(q)) ? TRUE : 0)                                                                     \
    KERNEL(N##_LXOR, T, (IS(p) ^ IS(q)) ? TRUE : 0)

/* ---- integers: two's complement wraps alike for signed and unsigned, so only order and division differ --------------
 */

#define NONZERO(x) ((x) != 0)

#define ORDER_KERNELS(N, T)                                                                                            \
    KERNEL(N##_MIN, T, p < q ? p : q)                                                                                  \
    KERNEL(N##_MAX, T, p > q ? p : q)

/* 1u *: 16-bit operands would promote to int, whose overflow is undefined. */
#define INTEGER_KERNELS(BITS)                                                                                          \
    KERNEL(u##BITS##_SUM, uint##BITS##_t, p + q)                                                                       \
    KERNEL(u##BITS##_PROD, uint##BITS##_t, 1u * p * q)                                                                 \
    KERNEL(u##BITS##_BAND, uint##BITS##_t, p &q)                                                                       \
    KERNEL(u##BITS##_BOR, uint##BITS##_t, p | q)                                                                       \
    KERNEL(u##BITS##_BXOR, uint##BITS##_t, p ^ q)                                                                      \
    LOGICAL_KERNELS(u##BITS, uint##BITS##_t, 1, NONZERO)                                                               \
    ORDER_KERNELS(u##BITS, uint##BITS##_t)                                                                             \
    ORDER_KERNELS(i##BITS, int##BITS##_t)                                                                              \
    DIVISION(u##BITS, uint##BITS##_t, p / divisor)                                                                     \
    DIVISION(i##BITS, int##BITS##_t, p / (int64_t)divisor)

INTEGER_KERNELS(8)
INTEGER_KERNELS(16)
INTEGER_KERNELS(32)
INTEGER_KERNELS(64)

/* ---- floats ----------------------------------------------------------------------------------- */

static inline uint64_t f64_bits(double f)
{
    uint64_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline double f64_from_bits(uint64_t u)
{
    double f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* CPUs differ in the sign and payload of a NaN; two more instructions a vector make it one and the same. */
static inline float f32_settle(float r) { return r == r ? r : f32_from_bits(0x7fc00000); }
static inline double f64_settle(double r) { return r == r ? r : f64_from_bits(0x7ff8000000000000); }

/* Each selection yields its second operand when the two compare equal or not at all. So the two selections are the same
 * bits unless the operands are zeros of either sign (then | is the lesser, & the greater) or one is a NaN. */
#define REAL_KERNELS(N, T)                                                                                             \
    static inline T N##_min(T p, T q)                                                                                  \
    {                                                                                                                  \
        return N##_settle(N##_from_bits(N##_bits(p < q ? p : q) | N##_bits(q < p ? q : p)));                           \
    }                                                                                                                  \
    static inline T N##_max(T p, T q)                                                                                  \
    {                                                                                                                  \
        const T r = N##_from_bits(N##_bits(p > q ? p : q) & N##_bits(q > p ? q : p));                                  \
        return isunordered(p, q) ? (T)NAN : r;                                                                         \
    }                                                                                                                  \
    KERNEL(N##_SUM, T, N##_settle(p + q))                                                                              \
    KERNEL(N##_PROD, T, N##_settle(p *q))                                                                              \
    KERNEL(N##_MIN, T, N##_min(p, q))                                                                                  \
    KERNEL(N##_MAX, T, N##_max(p, q))                                                                                  \
    LOGICAL_KERNELS(N, T, 1, NONZERO)                                                                                  \
    DIVISION(N, T, N##_settle(p / (T)divisor))

REAL_KERNELS(f32, float)
REAL_KERNELS(f64, double)

/* ---- complex: pairs of reals ------------------------------------------------------------------ */

/* The products are settled as well, so that no compiler can fuse them with the addition and skip a rounding: gcc 12
 * would make vfmaddsub of the plain lines, whatever -ffp-contract says. */
#define COMPLEX_KERNELS(N, REAL, T)                                                                                    \
    static void N##_SUM_loop(void *dst, const void *a, const void *b, size_t n) { REAL##_SUM_loop(dst, a, b, 2 * n); } \
    ENTRY(N##_SUM, 2 * sizeof(T))                                                                                      \
    static __attribute__((noinline)) void N##_PROD_loop(void *dst, const void *a, const void *b, size_t n)             \
    {                                                                                                                  \
        typedef T __attribute__((aligned(1), may_alias)) anywhere;                                                     \
        anywhere *d = dst;                                                                                             \
        const anywhere *x = a, *y = b;                                                                                 \
        INDEPENDENT for (size_t i = 0; i < 2 * n; i += 2)                                                              \
        {                                                                                                              \
            const T pr = x[i], pi = x[i + 1], qr = y[i], qi = y[i + 1];                                                \
            d[i] = REAL##_settle(REAL##_settle(pr * qr) - REAL##_settle(pi * qi));                                     \
            d[i + 1] = REAL##_settle(REAL##_settle(pr * qi) + REAL##_settle(pi * qr));                                 \
        }                                                                                                              \
    }                                                                                                                  \
    ENTRY(N##_PROD, 2 * sizeof(T))                                                                                     \
    static void N##_divide(void *dst, const void *src, size_t n, unsigned divisor)                                     \
    {                                                                                                                  \
        REAL##_divide(dst, src, 2 * n, divisor);                                                                       \
    }

COMPLEX_KERNELS(c64, f32, float)
COMPLEX_KERNELS(c128, f64, double)

/* ---- 8- and 16-bit floats: computed in float32, rounded once ---------------------------------- */

#define SMALL_RESULT(N, SIGN) small_encode(small_##N, small_decode(small_##N, p) SIGN small_decode(small_##N, q))

/* Order needs no conversion: with the magnitude of negative numbers flipped, the bits order as signed integers. */
#define SMALL_KERNELS(N, BITS)                                                                                         \
    static inline int##BITS##_t N##_key(uint##BITS##_t x)                                                              \
    {                                                                                                                  \
        return (int##BITS##_t)((int##BITS##_t)x < 0 ? x ^ small_magnitude(small_##N, ~0u) : x);                        \
    }                                                                                                                  \
    static inline int N##_is_nan(uint##BITS##_t x)                                                                     \
    {                                                                                                                  \
        return (uint##BITS##_t)small_magnitude(small_##N, x) > (uint##BITS##_t)small_##N.largest;                      \
    }                                                                                                                  \
    static inline int N##_is_true(uint##BITS##_t x) { return (uint##BITS##_t)small_magnitude(small_##N, x) != 0; }     \
    static inline uint##BITS##_t N##_choose(uint##BITS##_t p, uint##BITS##_t q, int first)                             \
    {                                                                                                                  \
        return (N##_is_nan(p) | N##_is_nan(q)) ? (uint##BITS##_t)small_##N.nan : first ? p : q;                        \
    }                                                                                                                  \
    KERNEL(N##_MIN, uint##BITS##_t, N##_choose(p, q, N##_key(p) < N##_key(q)))                                         \
    KERNEL(N##_MAX, uint##BITS##_t, N##_choose(p, q, N##_key(p) > N##_key(q)))                                         \
    LOGICAL_KERNELS(N, uint##BITS##_t, small_##N.one, N##_is_true)                                                     \
    DIVISION(N, uint##BITS##_t, small_encode(small_##N, small_decode(small_##N, p) / (float)divisor))

SMALL_KERNELS(f16, 16)
SMALL_KERNELS(bf16, 16)
SMALL_KERNELS(e4m3, 8)
SMALL_KERNELS(e5m2, 8)

KERNEL(bf16_SUM, uint16_t, SMALL_RESULT(bf16, +))
KERNEL(bf16_PROD, uint16_t, SMALL_RESULT(bf16, *))

/* Where the CPU converts float16: whole vectors with its help, and what remains one by one. */
#if defined(HALF_LANES)
#define HALF_KERNEL(NAME, N, T, SIGN)                                                                                  \
    LOOP(NAME##_rest, T, SMALL_RESULT(N, SIGN))                                                                        \
    static __attribute__((noinline)) void NAME##_loop(void *dst, const void *a, const void *b, size_t n)               \
    {                                                                                                                  \
        const size_t step = HALF_LANES * sizeof(T);                                                                    \
        char *d = dst;                                                                                                 \
        const char *x = a, *y = b;                                                                                     \
        for (; n >= HALF_LANES; n -= HALF_LANES, d += step, x += step, y += step)                                      \
            N##_store(d, N##_load(x) SIGN N##_load(y));                                                                \
        if (n) NAME##_rest_loop(d, x, y, n);                                                                           \
    }                                                                                                                  \
    ENTRY(NAME, sizeof(T))
#else
#define HALF_KERNEL(NAME, N, T, SIGN) KERNEL(NAME, T, SMALL_RESULT(N, SIGN))
#endif

HALF_KERNEL(f16_SUM, f16, uint16_t, +)
HALF_KERNEL(f16_PROD, f16, uint16_t, *)
HALF_KERNEL(e4m3_SUM, e4m3, uint8_t, +)
HALF_KERNEL(e4m3_PROD, e4m3, uint8_t, *)
HALF_KERNEL(e5m2_SUM, e5m2, uint8_t, +)
HALF_KERNEL(e5m2_PROD, e5m2, uint8_t, *)

/* ---- the table -------------------------------------------------------------------------------- */

#define LOGICAL_ROW(N) [PCM_LAND] = N##_LAND, [PCM_LOR] = N##_LOR, [PCM_LXOR] = N##_LXOR
#define SUM_ROW(N) [PCM_SUM] = N##_SUM, [PCM_AVG] = N##_SUM, [PCM_PROD] = N##_PROD
#define ORDER_ROW(N) [PCM_MIN] = N##_MIN, [PCM_MAX] = N##_MAX

#define INTEGER_ROW(U, ORDER)                                                                                          \
    {SUM_ROW(U), ORDER_ROW(ORDER), LOGICAL_ROW(U), [PCM_BAND] = U##_BAND, [PCM_BOR] = U##_BOR, [PCM_BXOR] = U##_BXOR}
#define FLOAT_ROW(N) {SUM_ROW(N), ORDER_ROW(N), LOGICAL_ROW(N)}
#define COMPLEX_ROW(N) {SUM_ROW(N)}
#define BOOL_ROW                                                                                                       \
    {LOGICAL_ROW(u8),    [PCM_SUM] = u8_LOR,   [PCM_PROD] = u8_LAND, [PCM_MIN] = u8_LAND,                              \
     [PCM_MAX] = u8_LOR, [PCM_BAND] = u8_LAND, [PCM_BOR] = u8_LOR,   [PCM_BXOR] = u8_LXOR}

#define KERNELS(NAME)                                                                                                  \
    {                                                                                                                  \
        .name = NAME,                                                                                                  \
        .copy = copy,                                                                                                  \
        .codecs = CODECS,                                                                                              \
        .reduce =                                                                                                      \
            {                                                                                                          \
                [PCM_BOOL] = BOOL_ROW,                                                                                 \
                [PCM_INT8] = INTEGER_ROW(u8, i8),                                                                      \
                [PCM_UINT8] = INTEGER_ROW(u8, u8),                                                                     \
                [PCM_INT16] = INTEGER_ROW(u16, i16),                                                                   \
                [PCM_UINT16] = INTEGER_ROW(u16, u16),                                                                  \
                [PCM_INT32] = INTEGER_ROW(u32, i32),                                                                   \
                [PCM_UINT32] = INTEGER_ROW(u32, u32),                                                                  \
                [PCM_INT64] = INTEGER_ROW(u64, i64),                                                                   \
                [PCM_UINT64] = INTEGER_ROW(u64, u64),                                                                  \
                [PCM_FLOAT16] = FLOAT_ROW(f16),                                                                        \
                [PCM_BFLOAT16] = FLOAT_ROW(bf16),                                                                      \
                [PCM_FLOAT32] = FLOAT_ROW(f32),                                                                        \
                [PCM_FLOAT64] = FLOAT_ROW(f64),                                                                        \
                [PCM_COMPLEX64] = COMPLEX_ROW(c64),                                                                    \
                [PCM_COMPLEX128] = COMPLEX_ROW(c128),                                                                  \
                [PCM_FLOAT8_E4M3] = FLOAT_ROW(e4m3),                                                                   \
                [PCM_FLOAT8_E5M2] = FLOAT_ROW(e5m2),                                                                   \
            },                                                                                                         \
        .divide =                                                                                                      \
            {                                                                                                          \
                [PCM_INT8] = i8_divide,                                                                                \
                [PCM_UINT8] = u8_divide,                                                                               \
                [PCM_INT16] = i16_divide,                                                                              \
                [PCM_UINT16] = u16_divide,                                                                             \
                [PCM_INT32] = i32_divide,                                                                              \
                [PCM_UINT32] = u32_divide,                                                                             \
                [PCM_INT64] = i64_divide,                                                                              \
                [PCM_UINT64] = u64_divide,                                                                             \
                [PCM_FLOAT16] = f16_divide,                                                                            \
                [PCM_BFLOAT16] = bf16_divide,                                                                          \
                [PCM_FLOAT32] = f32_divide,                                                                            \
                [PCM_FLOAT64] = f64_divide,                                                                            \
                [PCM_COMPLEX64] = c64_divide,                                                                          \
                [PCM_COMPLEX128] = c128_divide,                                                                        \
                [PCM_FLOAT8_E4M3] = e4m3_divide,                                                                       \
                [PCM_FLOAT8_E5M2] = e5m2_divide,                                                                       \
            },                                                                                                         \
    }
