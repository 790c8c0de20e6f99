/* fuzz.h: what the fuzzers share: an input that is taken apart piece by piece, and a way to say that something must not be.
 *
 * Each fuzzer is a file with LLVMFuzzerTestOneInput. With clang it is linked to libFuzzer, which looks for inputs that reach
 * new code (`make fuzz`); with any compiler it is linked to standalone.c, which replays corpus/NAME and changes of it.
 */
#ifndef PYCOMM_FUZZ_H
#define PYCOMM_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz_input {
    const uint8_t *at;
    size_t left;
};

/* Takes up to `bytes` bytes, and says how many there were. */
static inline size_t fuzz_take(struct fuzz_input *in, void *to, size_t bytes)
{
    size_t n = bytes < in->left ? bytes : in->left;
    if (n) memcpy(to, in->at, n);
    in->at += n, in->left -= n;
    return n;
}

static inline uint8_t fuzz_byte(struct fuzz_input *in)
{
    uint8_t byte = 0;
    fuzz_take(in, &byte, 1);
    return byte;
}

static inline uint32_t fuzz_word(struct fuzz_input *in)
{
    uint32_t word = 0;
    fuzz_take(in, &word, sizeof word);
    return word;
}

static inline void fuzz_must(int holds, const char *what)
{
    if (holds) return;
    fprintf(stderr, "the input breaks what must hold: %s\n", what);
    abort();
}

#endif
