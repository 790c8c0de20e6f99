/* small_float.h: exact conversions between float32 and the 8- and 16-bit floats, free of branches so that loops
 * vectorise. */
#ifndef PYCOMM_SMALL_FLOAT_H
#define PYCOMM_SMALL_FLOAT_H

#include <stdint.h>
#include <string.h>

/* Sign, exponent and mantissa bits as in IEEE 754, high to low. */
struct small_float {
    int exponent, mantissa; /* widths in bits */
    uint32_t top;     /* the magnitude that overflow becomes, and the first with no finite value: infinity or NaN */
    uint32_t largest; /* the largest magnitude that is not a NaN */
    uint32_t nan;     /* the one NaN that is ever produced */
    uint32_t one;     /* 1.0 */
};

static const struct small_float small_f16 = {5, 10, 0x7c00, 0x7c00, 0x7e00, 0x3c00};
static const struct small_float small_bf16 = {8, 7, 0x7f80, 0x7f80, 0x7fc0, 0x3f80};
static const struct small_float small_e4m3 = {4, 3, 0x7f, 0x7e, 0x7f, 0x38}; /* "fn": no infinity, one NaN a sign */
static const struct small_float small_e5m2 = {5, 2, 0x7c, 0x7c, 0x7e, 0x3c};

static inline uint32_t f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float f32_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint32_t small_sign(struct small_float s)
{
    return 1u << (s.exponent + s.mantissa);
}

static inline uint32_t small_magnitude(struct small_float s, uint32_t x)
{
    return x & (small_sign(s) - 1);
}

static inline int small_bias(struct small_float s)
{
    return (1 << (s.exponent - 1)) - 1;
}

/* Every value of the small formats is a float32. The bits in place, but with the wrong bias, are a float32 that is too
 * small by a power of two; the product by that power is exact, also from subnormals. */
static inline float small_decode(struct small_float s, uint32_t x)
{
    const uint32_t magnitude = small_magnitude(s, x);
    const float rescale = f32_from_bits((uint32_t)(254 - small_bias(s)) << 23); /* 2^(127 - bias) */
    uint32_t u = f32_bits(f32_from_bits(magnitude << (23 - s.mantissa)) * rescale);
    u |= magnitude >= s.top ? 0x7f800000u : 0;
    return f32_from_bits(u | (x & small_sign(s)) << (31 - s.exponent - s.mantissa));
}

/* Rounds once, to nearest even. */
static inline uint32_t small_encode(struct small_float s, float f)
{
    const int dropped = 23 - s.mantissa;
    const int rebias = 127 - small_bias(s);
    const uint32_t u = f32_bits(f), magnitude = u & 0x7fffffffu;
    /* A carry out of the mantissa raises the exponent, which is what rounding up means. */
    const uint32_t half = (1u << (dropped - 1)) - 1 + (magnitude >> dropped & 1);
    int32_t r = (int32_t)(magnitude + half - ((uint32_t)rebias << 23)) >> dropped;
    if (rebias != 0) {
        /* Below the smallest normal, adding the float whose last place is the format's last place rounds in hardware.
         */
        const uint32_t magic = (uint32_t)(rebias + 1 + dropped) << 23;
        const int32_t subnormal = (int32_t)(f32_bits(f32_from_bits(magnitude) + f32_from_bits(magic)) - magic);
        r = magnitude < (uint32_t)(rebias + 1) << 23 ? subnormal : r;
    }
    r = r < (int32_t)s.top ? r : (int32_t)s.top;
    const uint32_t sign = u >> (31 - s.exponent - s.mantissa) & small_sign(s);
    return magnitude > 0x7f800000u ? s.nan : sign | (uint32_t)r;
}

#endif
