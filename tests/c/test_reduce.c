/* test_reduce.c: every kernel of every instruction set that this CPU has gives the reference's bits, wherever its
 * operands lie. */
#include <stdlib.h>

#include "../../csrc/kernels/kernels.h"
#include "check.h"
#include "reference.h"

enum {
    PAIRS = 65536,  /* elements: all pairs of bytes */
    CANARY = 64,    /* bytes on either side of an output that must stay as they are */
    ROOM = 1 << 21, /* bytes for an operand with its misalignment and canaries */
    FILL = 0xa5,    /* what canaries are made of */
    LARGE = 60000   /* bytes: several tiles of a streaming or forwarding kernel */
};

static unsigned char operand_a[PAIRS * 16], operand_b[PAIRS * 16], expected[PAIRS * 16];
static unsigned char *room_a, *room_b, *room_dst, *room_fwd;

static uint64_t next_random(void)
{
    static uint64_t s = 0x9e3779b97f4a7c15;
    s ^= s << 13, s ^= s >> 7, s ^= s << 17;
    return s;
}

/* Random bits, with the values that have rules of their own far more often than chance would have them. */
static uint64_t any_element(const struct reference_type *t)
{
    const uint64_t sign = sign_bit(t), magnitude = sign - 1;
    const uint64_t special[] = {0,
                                1,
                                t->infinity,
                                t->nan,
                                t->infinity - 1,
                                t->infinity + 1,
                                magnitude,
                                (uint64_t)1 << t->mantissa,
                                ((uint64_t)1 << t->mantissa) - 1,
                                magnitude / 2};
    const uint64_t r = next_random();
    if (r % 4) return (r >> 8 ^ r << 40) & (sign | magnitude);
    return (special[(r >> 2) % (sizeof special / sizeof *special)] & magnitude) | (r & 1 << 20 ? sign : 0);
}

/* All pairs for the dtypes of one byte; for the others random ones, half of them near each other, so that they cancel,
 * then for the floats of two bytes all values with 0 and 1. */
static size_t make_operands(int dtype)
{
    const struct reference_type *t = &reference_types[dtype];
    const size_t parts = t->kind == COMPLEX ? 2 : 1;
    for (size_t i = 0; i < PAIRS * parts; i++) {
        uint64_t p = any_element(t), q = any_element(t);
        if (t->size == 1) p = i / 256 % 256, q = i % 256;
        if (t->size > 1 && i % 2) q = p ^ (next_random() & (sign_bit(t) | 7));
        store(operand_a, i, t->size, p);
        store(operand_b, i, t->size, q);
    }
    return PAIRS;
}

static void report_difference(const char *what, int dtype, int op, const unsigned char *got, size_t n)
{
    const size_t size = pcm_dtype_size(dtype);
    for (size_t i = 0; i < n; i++)
        if (memcmp(got + i * size, expected + i * size, size) != 0) {
            const int part = (int)(size < 8 ? size : 8);
            const size_t at = i * size / (size_t)part;
            CHECK(0, "%s %s %s: element %zu of %zu: %#llx with %#llx gives %#llx, not %#llx", what,
                  pcm_dtype_name(dtype), pcm_op_name(op), i, n, (unsigned long long)load(operand_a, at, part),
                  (unsigned long long)load(operand_b, at, part), (unsigned long long)load(got, at, part),
                  (unsigned long long)load(expected, at, part));
            return;
        }
    CHECK(1, "same");
}

static int intact(const unsigned char *at, size_t bytes)
{
    for (size_t i = 0; i < CANARY; i++)
        if (at[-1 - (ptrdiff_t)i] != FILL || at[bytes + i] != FILL) return 0;
    return 1;
}

static unsigned char *lay(unsigned char *room, size_t misalignment, const unsigned char *content, size_t bytes)
{
    unsigned char *at = room + CANARY + misalignment;
    memset(room, FILL, misalignment + bytes + 2 * CANARY);
    if (content) memcpy(at, content, bytes);
    return at;
}

/* One call: n elements from the given misalignments, dst elsewhere (0), in a's place (1) or in b's (2). */
static void check_call(const struct pcm_kernels *k, int dtype, int op, size_t n, size_t shift, int place, int forward,
                       int stream)
{
    const size_t bytes = n * pcm_dtype_size(dtype);
    unsigned char *a = lay(room_a, shift * 7 % 64, operand_a, bytes);
    unsigned char *b = lay(room_b, shift * 5 % 64, operand_b, bytes);
    unsigned char *fwd = lay(room_fwd, shift * 3 % 64, NULL, bytes);
    unsigned char *dst = place == 1 ? a : place == 2 ? b : lay(room_dst, shift % 64, NULL, bytes);
    k->reduce[dtype][op](dst, forward ? fwd : NULL, a, b, n, stream);
    CHECK(intact(dst, bytes) && intact(fwd, bytes) && intact(a, bytes) && intact(b, bytes),
          "%s %s %s writes outside its output: n=%zu place=%d", k->name, pcm_dtype_name(dtype), pcm_op_name(op), n,
          place);
    CHECK(memcmp(dst, expected, bytes) == 0, "%s %s %s: dst: n=%zu shift=%zu place=%d fwd=%d stream=%d", k->name,
          pcm_dtype_name(dtype), pcm_op_name(op), n, shift, place, forward, stream);
    CHECK(!forward || memcmp(fwd, expected, bytes) == 0, "%s %s %s: fwd: n=%zu shift=%zu place=%d stream=%d", k->name,
          pcm_dtype_name(dtype), pcm_op_name(op), n, shift, place, stream);
    CHECK((place == 1 || memcmp(a, operand_a, bytes) == 0) && (place == 2 || memcmp(b, operand_b, bytes) == 0),
          "%s %s %s changes an operand", k->name, pcm_dtype_name(dtype), pcm_op_name(op));
}

static void check_kernel(const struct pcm_kernels *k, int dtype, int op, size_t n)
{
    const size_t size = pcm_dtype_size(dtype);
    unsigned char *dst = room_dst;
    k->reduce[dtype][op](dst, NULL, operand_a, operand_b, n, 0);
    report_difference(k->name, dtype, op, dst, n);
    k->reduce[dtype][op](dst, NULL, operand_b, operand_a, n, 0);
    CHECK(memcmp(dst, expected, n * size) == 0, "%s %s %s is not commutative to the bit", k->name,
          pcm_dtype_name(dtype), pcm_op_name(op));
    for (int how = 0; how < 12; how++) {
        const int place = how / 4, forward = how / 2 % 2, stream = how % 2;
        for (size_t count = 0; count <= 67; count++)
            check_call(k, dtype, op, count, count * 11 + (size_t)how, place, forward, stream);
        check_call(k, dtype, op, LARGE / size, (size_t)(how * size), place, forward, stream);
        check_call(k, dtype, op, LARGE / size - 1, (size_t)(how * 5 + 1), place, forward, stream);
    }
    for (size_t shift = 0; shift < 64; shift++) {
        check_call(k, dtype, op, 100, shift, 0, shift % 2, 0);
        check_call(k, dtype, op, 4096 / size + 1, shift, 0, shift % 2, 1); /* a tile and a little */
    }
}

static void test_kernels(void)
{
    for (int dtype = 0; dtype < PCM_NDTYPES; dtype++) {
        const size_t n = make_operands(dtype);
        for (int op = 0; op < PCM_NOPS; op++) {
            CHECK((pcm_reduce_kernel(dtype, op) != NULL) == reference_has(dtype, op), "%s %s is%s offered",
                  pcm_dtype_name(dtype), pcm_op_name(op), pcm_reduce_kernel(dtype, op) ? "" : " not");
            if (!reference_has(dtype, op)) continue;
            reference_reduce(dtype, op, expected, operand_a, operand_b, n);
            for (int set = 0; pcm_kernels_at(set); set++) check_kernel(pcm_kernels_at(set), dtype, op, n);
        }
    }
}

/* Every float16 survives the way to float32 and back, and comes out of a product by one or a sum with minus zero. */
static void test_conversions(void)
{
    const int dtypes[] = {PCM_FLOAT16, PCM_BFLOAT16};
    const int ops[] = {PCM_SUM, PCM_PROD};
    for (int i = 0; i < 4; i++) {
        const int dtype = dtypes[i / 2], op = ops[i % 2];
        const struct reference_type *t = &reference_types[dtype];
        for (size_t x = 0; x < 65536; x++) {
            const int is_nan = (x & 0x7fff) > t->infinity;
            store(operand_a, x, 2, x);
            store(operand_b, x, 2, op == PCM_SUM ? 0x8000 : nearest(t, 1));
            store(expected, x, 2, is_nan ? t->nan : x);
        }
        for (int set = 0; pcm_kernels_at(set); set++) {
            pcm_kernels_at(set)->reduce[dtype][op](room_dst, NULL, operand_a, operand_b, 65536, 0);
            report_difference(pcm_kernels_at(set)->name, dtype, op, room_dst, 65536);
        }
    }
}

/* The rules that reduce.c states, by literal examples: they also keep the reference honest. */
static void test_rules(void)
{
    static const struct {
        int dtype, op;
        uint64_t a, b, result;
    } rules[] = {
        {PCM_INT8, PCM_SUM, 127, 1, 128},
        {PCM_INT16, PCM_PROD, 0x8000, 0xffff, 0x8000},
        {PCM_UINT64, PCM_SUM, UINT64_MAX, 2, 1},
        {PCM_INT32, PCM_MIN, 0xffffffff, 1, 0xffffffff},
        {PCM_UINT32, PCM_MIN, 0xffffffff, 1, 1},
        {PCM_BOOL, PCM_SUM, 1, 1, 1},
        {PCM_BOOL, PCM_MIN, 7, 0, 0},
        {PCM_FLOAT32, PCM_MIN, 0x00000000, 0x80000000, 0x80000000},  /* -0 < +0 */
        {PCM_FLOAT32, PCM_MAX, 0x80000000, 0x00000000, 0x00000000},  /* +0 > -0 */
        {PCM_FLOAT32, PCM_MIN, 0x3f800000, 0xff800001, 0x7fc00000},  /* a NaN wins, and is the one NaN */
        {PCM_FLOAT32, PCM_MAX, 0xffffffff, 0x3f800000, 0x7fc00000},  /* */
        {PCM_FLOAT32, PCM_SUM, 0x7f800000, 0xff800000, 0x7fc00000},  /* inf - inf */
        {PCM_FLOAT32, PCM_LAND, 0x7fc00000, 0x3f800000, 0x3f800000}, /* NaN is true */
        {PCM_FLOAT32, PCM_LOR, 0x80000000, 0x00000000, 0},           /* -0 is false */
        {PCM_FLOAT64, PCM_SUM, 0x3ff0000000000000, 0x3ff0000000000000, 0x4000000000000000},
        {PCM_FLOAT16, PCM_SUM, 0x7bff, 0x4bff, 0x7bff},  /* 65504 + 15.99 */
        {PCM_FLOAT16, PCM_SUM, 0x7bff, 0x4c00, 0x7c00},  /* 65504 + 16: half way to 65536 */
        {PCM_FLOAT16, PCM_PROD, 0x0001, 0x3800, 0x0000}, /* half the least, to even */
        {PCM_FLOAT16, PCM_PROD, 0x0003, 0x3800, 0x0002}, /* 1.5 of the least, to even */
        {PCM_FLOAT16, PCM_SUM, 0xfc01, 0x3c00, 0x7e00},  /* a signalling NaN */
        {PCM_BFLOAT16, PCM_SUM, 0x3f80, 0x3b80, 0x3f80}, /* 1 + 2^-8, to even */
        {PCM_BFLOAT16, PCM_SUM, 0x3f81, 0x3b80, 0x3f82}, /* 1 + 2^-7 + 2^-8, to even */
        {PCM_BFLOAT16, PCM_SUM, 0xff7f, 0xff7f, 0xff80}, /* overflow */
        {PCM_FLOAT8_E4M3, PCM_SUM, 0x7e, 0x58, 0x7e},    /* 448 + 16 = 464: half way to 480 */
        {PCM_FLOAT8_E4M3, PCM_SUM, 0xfe, 0xfe, 0x7f},    /* overflow is the one NaN */
        {PCM_FLOAT8_E4M3, PCM_PROD, 0x01, 0x30, 0x00},   /* half the least, to even */
        {PCM_FLOAT8_E4M3, PCM_LOR, 0x80, 0x00, 0x00},    /* -0 is false */
        {PCM_FLOAT8_E5M2, PCM_SUM, 0xfb, 0xfb, 0xfc},    /* overflow is infinity */
        {PCM_FLOAT8_E5M2, PCM_SUM, 0x7c, 0xfc, 0x7e},    /* inf - inf */
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        const int dtype = rules[i].dtype, op = rules[i].op, size = reference_types[dtype].size;
        store(operand_a, 0, size, rules[i].a);
        store(operand_b, 0, size, rules[i].b);
        pcm_reduce_kernel(dtype, op)(room_dst, NULL, operand_a, operand_b, 1, 0);
        reference_reduce(dtype, op, expected, operand_a, operand_b, 1);
        CHECK(load(room_dst, 0, size) == rules[i].result, "%s %s, rule %zu: the kernel gives %#llx",
              pcm_dtype_name(dtype), pcm_op_name(op), i, (unsigned long long)load(room_dst, 0, size));
        CHECK(load(expected, 0, size) == rules[i].result, "%s %s, rule %zu: the reference gives %#llx",
              pcm_dtype_name(dtype), pcm_op_name(op), i, (unsigned long long)load(expected, 0, size));
    }
}

static void test_divide(void)
{
    const unsigned divisors[] = {1, 2, 3, 7, 64, 1000, 4095};
    for (int dtype = 0; dtype < PCM_NDTYPES; dtype++) {
        const size_t n = make_operands(dtype), size = pcm_dtype_size(dtype);
        if (dtype == PCM_BOOL) {
            CHECK(pcm_divide(dtype, room_dst, operand_a, 1, 2) == 0, "bool has no division");
            continue;
        }
        CHECK(pcm_divide(dtype, room_dst, operand_a, 1, 0) == 0, "nothing is divided by 0");
        for (size_t i = 0; i < sizeof divisors / sizeof *divisors; i++) {
            reference_divide(dtype, expected, operand_a, n, divisors[i]);
            for (int set = 0; pcm_kernels_at(set); set++) {
                const struct pcm_kernels *k = pcm_kernels_at(set);
                k->divide[dtype](room_dst, operand_a, n, divisors[i]);
                report_difference("divide", dtype, PCM_AVG, room_dst, n);
                for (size_t count = 0; count < 40; count++) {
                    unsigned char *x = lay(room_dst, count, operand_a, count * size);
                    k->divide[dtype](x, x, count, divisors[i]);
                    CHECK(memcmp(x, expected, count * size) == 0 && intact(x, count * size),
                          "%s divide %s by %u in place, n=%zu", k->name, pcm_dtype_name(dtype), divisors[i], count);
                }
            }
        }
        CHECK(pcm_divide(dtype, room_dst, operand_a, n, 4095) == 1, "%s has a division", pcm_dtype_name(dtype));
        report_difference("pcm_divide", dtype, PCM_AVG, room_dst, n);
    }
}

static void test_copy(void)
{
    const size_t sizes[] = {0, 1, 7, 63, 64, 65, 4095, 4096, 4097, 12345, 100000};
    make_operands(PCM_UINT64);
    for (int set = 0; pcm_kernels_at(set); set++) {
        const struct pcm_kernels *k = pcm_kernels_at(set);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes * 64 * 8; i++) {
            const size_t bytes = sizes[i / 512], shift = i % 64;
            const int forward = i >> 6 & 1, stream = i >> 7 & 1, in_place = i >> 8 & 1;
            unsigned char *src = lay(room_a, shift * 7 % 64, operand_a, bytes),
                          *fwd = lay(room_fwd, 64 - shift, NULL, bytes);
            unsigned char *dst = in_place ? src : lay(room_dst, shift, NULL, bytes);
            k->copy(dst, forward ? fwd : NULL, src, bytes, stream);
            CHECK(memcmp(dst, operand_a, bytes) == 0 && intact(dst, bytes) && intact(fwd, bytes) &&
                      (!forward || memcmp(fwd, operand_a, bytes) == 0),
                  "%s copy: %zu bytes, shift=%zu fwd=%d stream=%d in_place=%d", k->name, bytes, shift, forward, stream,
                  in_place);
        }
    }
    pcm_copy(room_dst, room_fwd, operand_a, 1000, 1);
    CHECK(memcmp(room_dst, operand_a, 1000) == 0 && memcmp(room_fwd, operand_a, 1000) == 0, "pcm_copy");
}

static void test_codes(void)
{
    for (int dtype = 0; dtype < PCM_NDTYPES; dtype++)
        CHECK(pcm_dtype_size(dtype) ==
                  (size_t)reference_types[dtype].size * (reference_types[dtype].kind == COMPLEX ? 2 : 1),
              "the size of %s is %zu", pcm_dtype_name(dtype), pcm_dtype_size(dtype));
    for (int op = 0; op < PCM_NOPS; op++)
        for (int other = 0; other < op; other++)
            CHECK(strcmp(pcm_op_name(op), pcm_op_name(other)) != 0, "%s names two ops", pcm_op_name(op));
    for (int c = 0; c < PCM_NCOLLECTIVES; c++)
        CHECK(strlen(pcm_collective_name(c)) > 1, "collective %d has no name", c);
    CHECK(strcmp(pcm_dtype_name(PCM_FLOAT32), "float32") == 0 && strcmp(pcm_op_name(PCM_SUM), "SUM") == 0, "names");
    const int unknown[] = {-1, PCM_NDTYPES, 1 << 30};
    for (int i = 0; i < 3; i++) {
        CHECK(pcm_dtype_size(unknown[i]) == 0 && strcmp(pcm_dtype_name(unknown[i]), "?") == 0, "dtype %d", unknown[i]);
        CHECK(strcmp(pcm_op_name(unknown[i]), "?") == 0 && strcmp(pcm_collective_name(unknown[i]), "?") == 0, "code %d",
              unknown[i]);
        CHECK(!pcm_reduce_kernel(unknown[i], PCM_SUM) && !pcm_reduce_kernel(PCM_INT8, unknown[i]), "code %d",
              unknown[i]);
        CHECK(!pcm_divide(unknown[i], room_dst, operand_a, 1, 1), "dtype %d", unknown[i]);
    }
    CHECK(strcmp(pcm_kernels_name(), pcm_kernels_at(0)->name) == 0, "the best set is chosen");
}

int main(void)
{
    room_a = malloc(ROOM), room_b = malloc(ROOM), room_dst = malloc(ROOM), room_fwd = malloc(ROOM);
    if (!room_a || !room_b || !room_dst || !room_fwd) return 1;
    printf("kernels:");
    for (int set = 0; pcm_kernels_at(set); set++) printf(" %s", pcm_kernels_at(set)->name);
    printf("\n");
    test_codes();
    test_rules();
    test_conversions();
    test_kernels();
    test_divide();
    test_copy();
    free(room_a), free(room_b), free(room_dst), free(room_fwd);
    return check_report();
}
