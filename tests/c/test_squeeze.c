/* test_squeeze.c: every codec of every instruction set keeps its bound, gives the same bits, and touches nothing else. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/kernels/kernels.h"
#include "check.h"

enum { MOST = 3 * PCM_SQUEEZE_BLOCK + 1, CANARY = 64, FILL = 0xa5 };

static const int levels[PCM_SQUEEZE_KINDS] = {[PCM_SQUEEZE_INT8] = 127, [PCM_SQUEEZE_INT4] = 7};

static uint32_t next_random(void)
{
    static uint64_t s = 0x9e3779b97f4a7c15;
    s ^= s << 13, s ^= s >> 7, s ^= s << 17;
    return (uint32_t)(s >> 16);
}

enum filling { UNIFORM, HUGE_ONE, SUBNORMAL, ZERO, LARGEST, EXACT, FILLINGS };

static float element(enum filling how, size_t i)
{
    const float x = ((float)next_random() / 0x1p31f) - 1;
    switch (how) {
    case UNIFORM: return x;
    case HUGE_ONE: return i % PCM_SQUEEZE_BLOCK == 77 ? 1e30f : x;
    case SUBNORMAL: return x * 0x1p-130f;
    case ZERO: return 0;
    case LARGEST: return i % 3 ? FLT_MAX : -FLT_MAX;
    case EXACT: return (float)((int)(i % 15) - 7); /* all codes of int4, and whole numbers to int8 if 127 is there */
    default: return 0;
    }
}

/* What the documentation promises of one encoding; magnitude: the block's largest. */
static double bound(int kind, double x, double magnitude)
{
    if (kind == PCM_SQUEEZE_BF16) return fmax(fabs(x) * 0x1p-8, 0x1p-134);
    return fmax(magnitude / levels[kind], FLT_MIN) / 2 * (1 + 0x1p-14);
}

static double largest_of_block(const float *x, size_t i, size_t n)
{
    const size_t start = i - i % PCM_SQUEEZE_BLOCK;
    double m = 0;
    for (size_t j = start; j < n && j < start + PCM_SQUEEZE_BLOCK; j++)
        if (isfinite(x[j])) m = fmax(m, fabs((double)x[j]));
    return m;
}

struct room { /* an array between canaries, whose address is odd */
    unsigned char *bytes;
    size_t length;
};

static struct room make_room(size_t length)
{
    struct room room = {malloc(length + 2 * CANARY), length};
    if (!room.bytes) abort();
    memset(room.bytes, FILL, length + 2 * CANARY);
    return room;
}

static void *inside(struct room room, size_t odd) { return room.bytes + CANARY - odd; }

static void leave_room(struct room room, size_t odd)
{
    int clean = 1;
    for (size_t i = 0; i < CANARY - odd; i++) clean &= room.bytes[i] == FILL;
    for (size_t i = room.length + CANARY - odd; i < room.length + 2 * CANARY; i++) clean &= room.bytes[i] == FILL;
    CHECK(clean, "nothing beside %zu bytes is written", room.length);
    free(room.bytes);
}

static void check_bound(const struct pcm_codec *codec, int kind, enum filling how, size_t n)
{
    float x[MOST], out[MOST], sum[MOST], rest[MOST];
    for (size_t i = 0; i < n; i++) x[i] = element(how, i), rest[i] = 0, sum[i] = 1;
    struct room wire = make_room(pcm_squeeze_bytes(kind, n)), plain = make_room(wire.length);
    codec->encode(inside(plain, 0), x, NULL, n);
    codec->encode(inside(wire, 3), x, rest, n);
    CHECK(!memcmp(inside(plain, 0), inside(wire, 3), wire.length), "kind %d: a residual of 0 changes nothing", kind);
    codec->decode(out, inside(wire, 3), n, 0);
    codec->decode(sum, inside(wire, 3), n, 1);
    for (size_t i = 0; i < n; i++) {
        if (kind == PCM_SQUEEZE_BF16 && how == LARGEST) {
            CHECK(isinf(out[i]) && rest[i] == 0, "bf16 of FLT_MAX is %g, rest %g", (double)out[i], (double)rest[i]);
            continue;
        }
        const double error = fabs((double)x[i] - (double)out[i]);
        CHECK(error <= bound(kind, x[i], largest_of_block(x, i, n)), "kind %d filling %d n %zu: %g became %g", kind,
              (int)how, n, (double)x[i], (double)out[i]);
        CHECK(rest[i] == x[i] - out[i], "kind %d: the rest of %g is %g", kind, (double)x[i], (double)rest[i]);
        CHECK(sum[i] == 1 + out[i], "kind %d: 1 + %g is %g", kind, (double)out[i], (double)sum[i]);
    }
    leave_room(wire, 3);
    leave_room(plain, 0);
}

/* An infinity or a NaN arrives as something not finite, disturbs no neighbour, and leaves no residual. */
static void check_not_finite(const struct pcm_codec *codec, int kind)
{
    float x[MOST], out[MOST], clean[MOST], rest[MOST];
    unsigned char wire[4 * MOST];
    const float bad[] = {INFINITY, -INFINITY, NAN, -NAN};
    for (size_t i = 0; i < MOST; i++) x[i] = element(UNIFORM, i), rest[i] = 0.25f;
    for (size_t i = 5; i < MOST; i += 100) x[i] = 0, rest[i] = 0;
    codec->encode(wire, x, rest, MOST);
    codec->decode(clean, wire, MOST, 0);
    for (size_t i = 0; i < MOST; i++) rest[i] = 0.25f;
    for (size_t i = 5; i < MOST; i += 100) x[i] = bad[i / 100 % 4];
    codec->encode(wire, x, rest, MOST);
    codec->decode(out, wire, MOST, 0);
    for (size_t i = 0; i < MOST; i++) {
        if (isfinite(x[i])) {
            CHECK(out[i] == clean[i], "kind %d: %g beside an infinity became %g", kind, (double)x[i], (double)out[i]);
            continue;
        }
        CHECK(!isfinite(out[i]) && rest[i] == 0, "kind %d: %g became %g", kind, (double)x[i], (double)out[i]);
        if (kind == PCM_SQUEEZE_BF16 && isinf(x[i])) CHECK(out[i] == x[i], "bf16 keeps infinities");
        if (isnan(out[i])) CHECK(!memcmp(&out[i], &(uint32_t){0x7fc00000}, 4), "there is one NaN");
    }
    float opposite[1] = {-INFINITY};
    x[0] = INFINITY;
    codec->encode(wire, x, NULL, 1);
    codec->decode(opposite, wire, 1, 1);
    CHECK(!memcmp(opposite, &(uint32_t){0x7fc00000}, 4), "kind %d: inf - inf is the one NaN", kind);
}

/* Every set of kernels makes the bytes and floats of the first. */
static void check_same(const struct pcm_kernels *set, int kind)
{
    const struct pcm_codec *first = &pcm_kernels_at(0)->codecs[kind], *other = &set->codecs[kind];
    for (int turn = 0; turn < 200; turn++) {
        uint32_t bits[MOST];
        float x[MOST], rest_a[MOST], rest_b[MOST], out_a[MOST], out_b[MOST];
        unsigned char a[4 * MOST], b[4 * MOST];
        const size_t n = next_random() % MOST;
        for (size_t i = 0; i < n; i++) {
            bits[i] = next_random() >> (turn % 3 ? 2 : 0); /* of all magnitudes, or positive and below 2 */
            rest_a[i] = rest_b[i] = out_a[i] = out_b[i] = element(UNIFORM, i);
        }
        memcpy(x, bits, n * sizeof *x);
        first->encode(a, x, turn % 2 ? rest_a : NULL, n);
        other->encode(b, x, turn % 2 ? rest_b : NULL, n);
        first->decode(out_a, a, n, turn % 5 == 0);
        other->decode(out_b, b, n, turn % 5 == 0);
        CHECK(!memcmp(a, b, pcm_squeeze_bytes(kind, n)), "%s kind %d n %zu: the same bytes", set->name, kind, n);
        CHECK(!memcmp(rest_a, rest_b, n * sizeof *x), "%s kind %d n %zu: the same residuals", set->name, kind, n);
        CHECK(!memcmp(out_a, out_b, n * sizeof *x), "%s kind %d n %zu: the same results", set->name, kind, n);
    }
}

/* Golden bytes: the layout is what squeeze.h says. */
static void check_format(void)
{
    const float x[3] = {7, -3.5f, 1};
    unsigned char wire[16];
    CHECK(pcm_squeeze_bytes(PCM_SQUEEZE_INT4, 3) == 6 && pcm_squeeze_bytes(PCM_SQUEEZE_INT8, 257) == 265 &&
              pcm_squeeze_bytes(PCM_SQUEEZE_BF16, 3) == 6 && pcm_squeeze_bytes(99, 3) == 0,
          "lengths are as documented");
    CHECK(pcm_squeeze_encode(PCM_SQUEEZE_INT4, wire, x, NULL, 3) == PCM_OK, "int4 is known");
    /* scale 1; codes 7, -4 (a tie, to even), 1, none */
    CHECK(!memcmp(wire, "\0\0\x80\x3f\x17\x0c", 6), "int4: %02x %02x", wire[4], wire[5]);
    CHECK(pcm_squeeze_encode(PCM_SQUEEZE_BF16, wire, x, NULL, 3) == PCM_OK, "bf16 is known");
    CHECK(!memcmp(wire, "\xe0\x40\x60\xc0\x80\x3f", 6), "bf16: the upper halves");
    const float y[2] = {-127, 2.5f};
    CHECK(pcm_squeeze_encode(PCM_SQUEEZE_INT8, wire, y, NULL, 2) == PCM_OK, "int8 is known");
    CHECK(!memcmp(wire, "\0\0\x80\x3f\x81\x02", 6), "int8: %02x %02x", wire[4], wire[5]);
    CHECK(pcm_squeeze_encode(-1, wire, x, NULL, 3) == PCM_ERR_ARGUMENT, "kind -1 is refused");
    CHECK(pcm_squeeze_decode(PCM_SQUEEZE_KINDS, &(float){0}, wire, 1, 0) == PCM_ERR_ARGUMENT, "so is one too many");
}

int main(void)
{
    check_format();
    const struct pcm_kernels *set;
    for (int i = 0; (set = pcm_kernels_at(i)); i++)
        for (int kind = 0; kind < PCM_SQUEEZE_KINDS; kind++) {
            const size_t lengths[] = {0, 1, 2, 31, 255, 256, 257, 511, MOST};
            for (size_t n = 0; n < sizeof lengths / sizeof *lengths; n++)
                for (int how = 0; how < FILLINGS; how++)
                    check_bound(&set->codecs[kind], kind, (enum filling)how, lengths[n]);
            check_not_finite(&set->codecs[kind], kind);
            check_same(set, kind);
        }
    return check_report();
}
