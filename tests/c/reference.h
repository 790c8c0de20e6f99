/* reference.h: what each op means for each dtype, one element at a time, slowly and from the definitions. */
#ifndef PYCOMM_REFERENCE_H
#define PYCOMM_REFERENCE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "../../csrc/pycomm.h"

enum kind { LOGICAL, SIGNED, UNSIGNED, FLOATING, COMPLEX };

/* size: of an element, or of a part of a complex one. infinity: the first magnitude with no finite value. */
static const struct reference_type {
    enum kind kind;
    int size, exponent, mantissa;
    uint64_t infinity, nan;
} reference_types[PCM_NDTYPES] = {
    [PCM_BOOL] = {.kind = LOGICAL, .size = 1},
    [PCM_INT8] = {.kind = SIGNED, .size = 1},
    [PCM_UINT8] = {.kind = UNSIGNED, .size = 1},
    [PCM_INT16] = {.kind = SIGNED, .size = 2},
    [PCM_UINT16] = {.kind = UNSIGNED, .size = 2},
    [PCM_INT32] = {.kind = SIGNED, .size = 4},
    [PCM_UINT32] = {.kind = UNSIGNED, .size = 4},
    [PCM_INT64] = {.kind = SIGNED, .size = 8},
    [PCM_UINT64] = {.kind = UNSIGNED, .size = 8},
    [PCM_FLOAT16] = {FLOATING, 2, 5, 10, 0x7c00, 0x7e00},
    [PCM_BFLOAT16] = {FLOATING, 2, 8, 7, 0x7f80, 0x7fc0},
    [PCM_FLOAT32] = {FLOATING, 4, 8, 23, 0x7f800000, 0x7fc00000},
    [PCM_FLOAT64] = {FLOATING, 8, 11, 52, 0x7ff0000000000000, 0x7ff8000000000000},
    [PCM_COMPLEX64] = {COMPLEX, 4, 8, 23, 0x7f800000, 0x7fc00000},
    [PCM_COMPLEX128] = {COMPLEX, 8, 11, 52, 0x7ff0000000000000, 0x7ff8000000000000},
    [PCM_FLOAT8_E4M3] = {FLOATING, 1, 4, 3, 0x7f, 0x7f},
    [PCM_FLOAT8_E5M2] = {FLOATING, 1, 5, 2, 0x7c, 0x7e},
};

static uint64_t sign_bit(const struct reference_type *t) { return (uint64_t)1 << (8 * t->size - 1); }

static int64_t as_signed(const struct reference_type *t, uint64_t x)
{
    return (int64_t)(x << (64 - 8 * t->size)) >> (64 - 8 * t->size);
}

/* The value of a magnitude by the definition of the format, as if the format had no infinity and no NaN. */
static double magnitude_value(const struct reference_type *t, uint64_t x)
{
    const int e = (int)(x >> t->mantissa), bias = (1 << (t->exponent - 1)) - 1;
    const double significand = (double)(x & (((uint64_t)1 << t->mantissa) - 1)) + (e ? ldexp(1, t->mantissa) : 0);
    return ldexp(significand, (e ? e : 1) - bias - t->mantissa);
}

static double float_value(const struct reference_type *t, uint64_t x)
{
    const uint64_t magnitude = x & (sign_bit(t) - 1);
    if (t->size == 8) {
        double f;
        memcpy(&f, &x, sizeof f);
        return f;
    }
    const double v = magnitude < t->infinity                             ? magnitude_value(t, magnitude)
                     : magnitude == t->infinity && t->nan != t->infinity ? (double)INFINITY
                                                                         : (double)NAN;
    return x & sign_bit(t) ? -v : v;
}

/* The nearest number of the format, found by bisection among all; of two equally near the one with an even last place.
 */
static uint64_t nearest(const struct reference_type *t, double f)
{
    uint64_t x;
    memcpy(&x, &f, sizeof x);
    if (isnan(f)) return t->nan;
    if (t->size == 8) return x;
    const uint64_t sign = signbit(f) ? sign_bit(t) : 0;
    const double v = fabs(f);
    uint64_t low = 0, high = t->infinity; /* the value of low is at most v, that of high more, unless v overflows */
    while (high - low > 1) {
        const uint64_t middle = low + (high - low) / 2;
        if (magnitude_value(t, middle) <= v)
            low = middle;
        else
            high = middle;
    }
    const double below = v - magnitude_value(t, low), above = magnitude_value(t, high) - v;
    const uint64_t r = below < above || (below == above && low % 2 == 0) ? low : high;
    return r == t->nan ? r : sign | r;
}

/* A double that rounds to any shorter format as the exact f + error does: the last place made odd if anything is lost
 * (S. Boldo and G. Melquiond, "Emulation of FMA and correctly rounded sums", 2008). */
static double round_to_odd(double f, double error)
{
    uint64_t x;
    memcpy(&x, &f, sizeof x);
    if (error == 0 || isnan(error) || isinf(f) || x % 2 == 1) return f;
    return nextafter(f, error > 0 ? (double)INFINITY : -(double)INFINITY);
}

static double sum(const struct reference_type *t, double p, double q)
{
    const volatile double s = p + q, q_part = s - p, p_part = s - q_part;
    return t->size == 8 ? s : round_to_odd(s, (p - p_part) + (q - q_part));
}

static double product(const struct reference_type *t, double p, double q)
{
    const volatile double r = p * q;
    return t->size == 8 ? r : round_to_odd(r, fma(p, q, -r));
}

static double quotient(const struct reference_type *t, double p, double q)
{
    const volatile double r = p / q;
    return t->size == 8 ? r : round_to_odd(r, fma(-r, q, p));
}

static uint64_t reference_float(const struct reference_type *t, int op, uint64_t a, uint64_t b)
{
    const double p = float_value(t, a), q = float_value(t, b);
    const uint64_t one = nearest(t, 1);
    switch (op) {
    case PCM_SUM:
    case PCM_AVG: return nearest(t, sum(t, p, q));
    case PCM_PROD: return nearest(t, product(t, p, q));
    case PCM_MIN: return isnan(p) || isnan(q) ? t->nan : p < q || (p == q && signbit(p)) ? a : b;
    case PCM_MAX: return isnan(p) || isnan(q) ? t->nan : p > q || (p == q && !signbit(p)) ? a : b;
    case PCM_LAND: return p != 0 && q != 0 ? one : 0;
    case PCM_LOR: return p != 0 || q != 0 ? one : 0;
    default: return (p != 0) != (q != 0) ? one : 0;
    }
}

static uint64_t reference_integer(const struct reference_type *t, int op, uint64_t a, uint64_t b)
{
    const int less = t->kind == SIGNED ? as_signed(t, a) < as_signed(t, b) : a < b;
    const uint64_t mask = sign_bit(t) | (sign_bit(t) - 1);
    switch (op) {
    case PCM_SUM:
    case PCM_AVG: return (a + b) & mask;
    case PCM_PROD: return (a * b) & mask;
    case PCM_MIN: return less ? a : b;
    case PCM_MAX: return less ? b : a;
    case PCM_LAND: return a && b;
    case PCM_LOR: return a || b;
    case PCM_LXOR: return !a != !b;
    case PCM_BAND: return a & b;
    case PCM_BOR: return a | b;
    default: return a ^ b;
    }
}

static uint64_t reference_bool(int op, uint64_t a, uint64_t b)
{
    switch (op) {
    case PCM_PROD:
    case PCM_MIN:
    case PCM_LAND:
    case PCM_BAND: return a && b;
    case PCM_LXOR:
    case PCM_BXOR: return !a != !b;
    default: return a || b;
    }
}

static int reference_has(int dtype, int op)
{
    const enum kind kind = reference_types[dtype].kind;
    if (kind == LOGICAL) return op != PCM_AVG;
    if (kind == COMPLEX) return op == PCM_SUM || op == PCM_PROD || op == PCM_AVG;
    return kind != FLOATING || (op != PCM_BAND && op != PCM_BOR && op != PCM_BXOR);
}

static uint64_t load(const void *x, size_t i, int size)
{
    uint64_t u = 0;
    for (int k = 0; k < size; k++) u |= (uint64_t)((const unsigned char *)x)[i * (size_t)size + (size_t)k] << (8 * k);
    return u;
}

static void store(void *x, size_t i, int size, uint64_t u)
{
    for (int k = 0; k < size; k++) ((unsigned char *)x)[i * (size_t)size + (size_t)k] = (unsigned char)(u >> (8 * k));
}

static void reference_reduce(int dtype, int op, void *dst, const void *a, const void *b, size_t n)
{
    const struct reference_type *t = &reference_types[dtype];
    if (t->kind == COMPLEX && op == PCM_PROD) {
        for (size_t i = 0; i < 2 * n; i += 2) {
            const uint64_t pr = load(a, i, t->size), pi = load(a, i + 1, t->size);
            const uint64_t qr = load(b, i, t->size), qi = load(b, i + 1, t->size);
            const uint64_t minus = reference_float(t, PCM_PROD, pi, qi) ^ sign_bit(t);
            store(dst, i, t->size, reference_float(t, PCM_SUM, reference_float(t, PCM_PROD, pr, qr), minus));
            store(dst, i + 1, t->size,
                  reference_float(t, PCM_SUM, reference_float(t, PCM_PROD, pr, qi),
                                  reference_float(t, PCM_PROD, pi, qr)));
        }
        return;
    }
    for (size_t i = 0; i < (t->kind == COMPLEX ? 2 * n : n); i++) {
        const uint64_t p = load(a, i, t->size), q = load(b, i, t->size);
        store(dst, i, t->size,
              t->kind == LOGICAL                         ? reference_bool(op, p, q)
              : t->kind == SIGNED || t->kind == UNSIGNED ? reference_integer(t, op, p, q)
                                                         : reference_float(t, op, p, q));
    }
}

static void reference_divide(int dtype, void *dst, const void *src, size_t n, unsigned divisor)
{
    const struct reference_type *t = &reference_types[dtype];
    for (size_t i = 0; i < (t->kind == COMPLEX ? 2 * n : n); i++) {
        const uint64_t p = load(src, i, t->size);
        store(dst, i, t->size,
              t->kind == SIGNED     ? (uint64_t)(as_signed(t, p) / (int64_t)divisor)
              : t->kind == UNSIGNED ? p / divisor
                                    : nearest(t, quotient(t, float_value(t, p), divisor)));
    }
}

#endif
