/* half.h: sums and products of float16 and float8 where the CPU converts float16; the includer is an instruction set's
 * file.
 *
 * That file defines HALF_LANES, and with that many lanes: half_floats (a vector of float), half_widen and half_narrow
 * (from and to half_bits; to nearest even), and half_load_bytes (bytes in memory to half_bits).
 *
 * A float8 is the upper half of a float16, but for the bias of e4m3. Its sums and products may be rounded to float16 on
 * their way: that has more than twice its digits, so that the second rounding does what one would have done
 * (S. Figueroa, "When is double rounding innocuous?", 1995), which the tests see for every pair of numbers.
 */
#ifndef PYCOMM_HALF_H
#define PYCOMM_HALF_H

#include <stdint.h>
#include <string.h>

typedef uint8_t half_bytes __attribute__((vector_size(HALF_LANES)));
typedef uint16_t half_bits __attribute__((vector_size(2 * HALF_LANES)));
typedef int16_t half_mask __attribute__((vector_size(2 * HALF_LANES)));

/* 0x7e00 where there is a NaN: one and the same, as everywhere. */
static inline half_bits half_settle(half_bits h)
{
    const half_bits is_nan = (half_bits)((half_mask)(h & 0x7fff) > 0x7c00);
    return (h & ~is_nan) | (is_nan & 0x7e00);
}

static inline half_floats f16_load(const void *x)
{
    half_bits h;
    memcpy(&h, x, sizeof h);
    return half_widen(h);
}

static inline void f16_store(void *x, half_floats f)
{
    const half_bits h = half_settle(half_narrow(f));
    memcpy(x, &h, sizeof h);
}

static inline void half_store_bytes(void *x, half_bits h)
{
    const half_bytes v = __builtin_convertvector(h, half_bytes);
    memcpy(x, &v, sizeof v);
}

/* Drops the last places, to nearest even; a carry raises the exponent, as it should. */
static inline half_bits half_round(half_bits h, int places)
{
    return (h + (uint16_t)((1 << (places - 1)) - 1) + (h >> places & 1)) >> places;
}

static inline half_floats e5m2_load(const void *x) { return half_widen(half_load_bytes(x) << 8); }

static inline void e5m2_store(void *x, half_floats f)
{
    half_store_bytes(x, half_round(half_settle(half_narrow(f)), 8));
}

/* The exponents of e4m3 are 8 less than those of float16. */
static inline half_floats e4m3_load(const void *x)
{
    const half_bits v = half_load_bytes(x), magnitude = v & 0x7f;
    const half_bits is_nan = (half_bits)(magnitude == 0x7f);
    return half_widen((v & 0x80) << 8 | magnitude << 7 | (is_nan & 0x7e00)) * 0x1p8f;
}

static inline void e4m3_store(void *x, half_floats f)
{
    const half_bits h = half_narrow(f * 0x1p-8f), r = half_round(h & 0x7fff, 7);
    const half_bits is_nan = (half_bits)((half_mask)r > 0x7e);
    half_store_bytes(x, (is_nan & 0x7f) | (~is_nan & (r | (h >> 8 & 0x80))));
}

#endif
