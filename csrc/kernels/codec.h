/* codec.h: the loops of squeeze.h, written once and compiled by each instruction set's file by way of loops.h.
 *
 * A block passes through arrays on the stack, which the first-level cache holds, so that each loop does one thing that the
 * compiler vectorises. Floats are compared as integers: a maximum of floats would not be vectorised, for NaN's sake.
 */
#include <float.h>
#include <stdint.h>
#include <string.h>

#include "../squeeze.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire format is little-endian");

enum {
    CODEC_BLOCK = PCM_SQUEEZE_BLOCK,
    CODEC_MOST_INT8 = 127,
    CODEC_MOST_INT4 = 7,
    CODEC_INF = 0x7f800000, /* the bits of an infinity; more: a NaN */
    CODEC_NAN = 0x7fc00000,
};

typedef float __attribute__((aligned(1), may_alias)) codec_float;
typedef uint16_t __attribute__((aligned(1), may_alias)) codec_half;

static inline int32_t codec_bits(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float codec_value(int32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline int codec_finite(float x) { return (codec_bits(x) & 0x7fffffff) < CODEC_INF; }

/* v = x + residual */
static inline void codec_gather(float *restrict v, const codec_float *x, const codec_float *residual, size_t n)
{
    if (residual)
        for (size_t i = 0; i < n; i++) v[i] = x[i] + residual[i];
    else
        for (size_t i = 0; i < n; i++) v[i] = x[i];
}

/* out = f, or out + f; x86's own NaNs are negative and ARM's positive, so a sum's is replaced. */
static inline void codec_put(codec_float *out, const float *restrict f, size_t n, int add)
{
    if (!add) {
        for (size_t i = 0; i < n; i++) out[i] = f[i];
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const float sum = out[i] + f[i];
        const int is_nan = (codec_bits(sum) & 0x7fffffff) > CODEC_INF;
        out[i] = codec_value(is_nan ? CODEC_NAN : codec_bits(sum));
    }
}

/* ---- bf16 ------------------------------------------------------------------------------------- */

static void bf16_encode(void *wire, const float *x, float *residual, size_t n)
{
    codec_half *to = wire;
    float v[CODEC_BLOCK];
    uint32_t kept[CODEC_BLOCK];
    for (size_t at = 0; at < n; at += CODEC_BLOCK) {
        const size_t k = n - at < CODEC_BLOCK ? n - at : CODEC_BLOCK;
        codec_gather(v, x + at, residual ? residual + at : NULL, k);
        for (size_t i = 0; i < k; i++) {
            const uint32_t bits = (uint32_t)codec_bits(v[i]);
            const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
            kept[i] = (int32_t)(bits & 0x7fffffff) > CODEC_INF ? CODEC_NAN >> 16 : rounded;
        }
        for (size_t i = 0; i < k; i++) to[at + i] = (uint16_t)kept[i];
        if (!residual) continue;
        codec_float *lost = residual + at;
        for (size_t i = 0; i < k; i++) {
            const float got = codec_value((int32_t)(kept[i] << 16)), rest = v[i] - got;
            lost[i] = codec_value(codec_finite(got) ? codec_bits(rest) : 0);
        }
    }
}

static void bf16_decode(float *out, const void *wire, size_t n, int add)
{
    const codec_half *from = wire;
    float f[CODEC_BLOCK];
    for (size_t at = 0; at < n; at += CODEC_BLOCK) {
        const size_t k = n - at < CODEC_BLOCK ? n - at : CODEC_BLOCK;
        for (size_t i = 0; i < k; i++) f[i] = codec_value((int32_t)((uint32_t)from[at + i] << 16));
        codec_put(out + at, f, k, add);
    }
}

/* ---- int8 and int4 ---------------------------------------------------------------------------- */

/* Makes the codes of a block; its scale is returned. */
static inline float codec_quantise(int32_t *restrict codes, const float *restrict v, codec_float *lost, size_t n,
                                   int most)
{
    int32_t largest = 0;
    for (size_t i = 0; i < n; i++) {
        const int32_t magnitude = codec_bits(v[i]) & 0x7fffffff, counted = magnitude < CODEC_INF ? magnitude : 0;
        largest = counted > largest ? counted : largest;
    }
    float scale = codec_value(largest) / (float)most;
    if (scale < FLT_MIN) scale = FLT_MIN;                                          /* also of a block of zeros */
    if (scale * (float)most > FLT_MAX) scale = codec_value(codec_bits(scale) - 1); /* rounded up, it would overflow */

    /* In 1.5 * 2^23 + q the last place is 1, so that the addition rounds q to a whole number, to nearest even. */
    const float places = 0x1.8p23f;
    for (size_t i = 0; i < n; i++) {
        const int32_t code = codec_bits(v[i] / scale + places) - codec_bits(places);
        codes[i] = codec_finite(v[i]) ? code : -most - 1;
    }
    if (lost)
        for (size_t i = 0; i < n; i++) {
            const float rest = v[i] - (float)codes[i] * scale;
            lost[i] = codec_value(codec_finite(v[i]) ? codec_bits(rest) : 0);
        }
    return scale;
}

static inline void codec_dequantise(float *restrict f, const int32_t *restrict codes, float scale, size_t n, int most)
{
    for (size_t i = 0; i < n; i++) {
        const float value = (float)codes[i] * scale;
        f[i] = codec_value(codes[i] < -most ? CODEC_NAN : codec_bits(value));
    }
}

static void int8_encode(void *wire, const float *x, float *residual, size_t n)
{
    char *to = wire;
    float v[CODEC_BLOCK];
    int32_t codes[CODEC_BLOCK];
    for (size_t at = 0; at < n; at += CODEC_BLOCK) {
        const size_t k = n - at < CODEC_BLOCK ? n - at : CODEC_BLOCK;
        codec_float *lost = residual ? residual + at : NULL;
        codec_gather(v, x + at, lost, k);
        const float scale = codec_quantise(codes, v, lost, k, CODEC_MOST_INT8);
        memcpy(to, &scale, sizeof scale);
        int8_t *packed = (int8_t *)(to + sizeof scale);
        for (size_t i = 0; i < k; i++) packed[i] = (int8_t)codes[i];
        to += sizeof scale + k;
    }
}

static void int8_decode(float *out, const void *wire, size_t n, int add)
{
    const char *from = wire;
    float f[CODEC_BLOCK];
    int32_t codes[CODEC_BLOCK];
    for (size_t at = 0; at < n; at += CODEC_BLOCK) {
        const size_t k = n - at < CODEC_BLOCK ? n - at : CODEC_BLOCK;
        float scale;
        memcpy(&scale, from, sizeof scale);
        const int8_t *packed = (const int8_t *)(from + sizeof scale);
        for (size_t i = 0; i < k; i++) codes[i] = packed[i];
        codec_dequantise(f, codes, scale, k, CODEC_MOST_INT8);
        codec_put(out + at, f, k, add);
        from += sizeof scale + k;
    }
}

static void int4_encode(void *wire, const float *x, float *residual, size_t n)
{
    char *to = wire;
    float v[CODEC_BLOCK];
    int32_t codes[CODEC_BLOCK];
    for (size_t at = 0; at < n; at += CODEC_BLOCK) {
        const size_t k = n - at < CODEC_BLOCK ? n - at : CODEC_BLOCK, half = (k + 1) / 2;
        codec_float *lost = residual ? residual + at : NULL;
        codec_gather(v, x + at, lost, k);
        const float scale = codec_quantise(codes, v, lost, k, CODEC_MOST_INT4);
        if (k % 2) codes[k] = 0; /* within the array, for its length is even */
        memcpy(to, &scale, sizeof scale);
        uint8_t *packed = (uint8_t *)(to + sizeof scale);
        const int32_t *upper = codes + half;
        for (size_t i = 0; i < half; i++)
            packed[i] = (uint8_t)(((uint32_t)codes[i] & 15) | ((uint32_t)upper[i] & 15) << 4);
        to += sizeof scale + half;
    }
}

static void int4_decode(float *out, const void *wire, size_t n, int add)
{
    const char *from = wire;
    float f[CODEC_BLOCK];
    int32_t codes[CODEC_BLOCK];
    for (size_t at = 0; at < n; at += CODEC_BLOCK) {
        const size_t k = n - at < CODEC_BLOCK ? n - at : CODEC_BLOCK, half = (k + 1) / 2;
        float scale;
        memcpy(&scale, from, sizeof scale);
        const uint8_t *packed = (const uint8_t *)(from + sizeof scale);
        int32_t *upper = codes + half;
        /* a code of four bits, and 8 as its sign: (c ^ 8) - 8 is its value */
        for (size_t i = 0; i < half; i++) codes[i] = (int32_t)((packed[i] & 15) ^ 8) - 8;
        for (size_t i = 0; i < half; i++) upper[i] = (int32_t)((packed[i] >> 4) ^ 8) - 8;
        codec_dequantise(f, codes, scale, k, CODEC_MOST_INT4);
        codec_put(out + at, f, k, add);
        from += sizeof scale + half;
    }
}

#define CODECS                                                                                                         \
    {                                                                                                                  \
        [PCM_SQUEEZE_BF16] = {bf16_encode, bf16_decode},                                                               \
        [PCM_SQUEEZE_INT8] = {int8_encode, int8_decode},                                                               \
        [PCM_SQUEEZE_INT4] = {int4_encode, int4_decode},                                                               \
    }
