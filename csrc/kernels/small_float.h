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

static inline int small_bits(struct small_float s) { return 1 + s.exponent + s.mantissa; }

static inline uint32_t small_magnitude(struct small_float s, uint32_t x)
{
    return x & ((1u << (small_bits(s) - 1)) - 1);
}

/* What to add to the exponent field to make it float32's. */
static inline int small_rebias(struct small_float s) { return 128 - (1 << (s.exponent - 1)); }

/* Every value of the small formats is a float32. Its bits, in place but with the wrong bias, are a float32 too small by
 * a power of two; the product by that power is exact, also from subnormals.
 *
 * All is done on numbers shifted to the top of 32 bits: a compiler that sees that 16 bits suffice for some steps would
 * take these apart from the others, at a high price in vectors. */
static inline float small_decode(struct small_float s, uint32_t x)
{
    const int lift = 32 - small_bits(s), widen = 8 - s.exponent;
    const uint32_t u = x << lift;
    if (widen == 0) return f32_from_bits(u);
    const uint32_t in_place = (uint32_t)((int32_t)u >> widen) & (0x80000000u | (0x7fffffffu >> widen));
    const float rescale = f32_from_bits((uint32_t)(127 + small_rebias(s)) << 23);
    const uint32_t finite = f32_bits(f32_from_bits(in_place) * rescale);
    return f32_from_bits(finite | ((int32_t)(u & 0x7fffffffu) >= (int32_t)(s.top << lift) ? 0x7f800000u : 0));
}

/* Rounds once, to nearest even: adds what carries into the last place kept, unless the dropped places are below half
 * (or half, above an even place). A carry out of the mantissa raises the exponent, as it should. */
static inline uint32_t small_encode(struct small_float s, float f)
{
    const int lift = 32 - small_bits(s), dropped = 23 - s.mantissa;
    const uint32_t u = f32_bits(f);
    const uint32_t half = (1u << (dropped - 1)) - 1 + (u >> dropped & 1);
    if (small_rebias(s) == 0) return (f == f ? u + half : s.nan << lift) >> lift;

    /* Below the smallest normal, adding the float whose last place is the format's last place rounds in hardware. */
    const uint32_t rebias = (uint32_t)small_rebias(s) << 23, normal = rebias + (1u << 23);
    const uint32_t magic = normal + ((uint32_t)dropped << 23), magnitude = u & 0x7fffffffu;
    const uint32_t subnormal = f32_bits(f32_from_bits(magnitude) + f32_from_bits(magic)) - magic;
    uint32_t r = (magnitude + half - rebias) >> dropped;
    r = (int32_t)magnitude < (int32_t)normal ? subnormal : r;
    r = (int32_t)r < (int32_t)s.top ? r : s.top;
    const int is_nan = s.top == s.nan ? r == s.top : f != f;
    return (is_nan ? s.nan << lift : r << lift | (u & 0x80000000u)) >> lift;
}

#endif
