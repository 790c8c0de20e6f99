/* standalone.c: replays a corpus, then random changes of it, where there is no libFuzzer.
 *
 *     fuzz_NAME COUNT FOLDER
 *
 * The changes are the same in every run.
 */
#include <dirent.h>

#include "fuzz.h"

enum { MOST_FILES = 256, LONGEST = 4096 };

static struct {
    uint8_t bytes[LONGEST];
    size_t size;
} files[MOST_FILES];
static int nfiles = 1; /* the first is empty */

static uint64_t state = 1;

static uint32_t chance(uint32_t below) /* xorshift64* (Vigna, 2016) */
{
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return (uint32_t)((state * 0x2545f4914f6cdd1du) >> 32) % below;
}

static void read_all(const char *folder)
{
    struct dirent **names;
    int count = scandir(folder, &names, NULL, alphasort); /* in the same order everywhere */
    for (int i = 0; i < count; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        FILE *file = names[i]->d_name[0] != '.' && nfiles < MOST_FILES ? fopen(path, "rb") : NULL;
        free(names[i]);
        if (!file) continue;
        files[nfiles].size = fread(files[nfiles].bytes, 1, LONGEST, file);
        nfiles++;
        fclose(file);
    }
    if (count >= 0) free(names);
}

static size_t change(uint8_t *bytes, size_t size)
{
    static const uint8_t telling[] = {0, 1, 0x7f, 0x80, 0xff};
    for (uint32_t times = 1 + chance(6); times > 0; times--) {
        uint32_t at = size ? chance((uint32_t)size) : 0;
        switch (chance(6)) {
        case 0:
            if (size) bytes[at] ^= (uint8_t)(1u << chance(8));
            break;
        case 1:
            if (size) bytes[at] = (uint8_t)chance(256);
            break;
        case 2:
            if (size) bytes[at] = telling[chance(sizeof telling)];
            break;
        case 3: size = at; break;
        case 4: /* some more */
            for (uint32_t more = 1 + chance(32); more > 0 && size < LONGEST; more--)
                bytes[size++] = (uint8_t)chance(256);
            break;
        case 5: { /* the end of another */
            int other = (int)chance((uint32_t)nfiles);
            size_t n = files[other].size < LONGEST - at ? files[other].size : LONGEST - at;
            memcpy(bytes + at, files[other].bytes, n);
            size = at + n;
            break;
        }
        }
    }
    return size;
}

int main(int argc, char **argv)
{
    long count = argc > 1 ? atol(argv[1]) : 0;
    if (argc > 2) read_all(argv[2]);
    for (long i = 0; i < nfiles + count; i++) {
        int from = i < nfiles ? (int)i : (int)chance((uint32_t)nfiles);
        uint8_t *bytes = malloc(LONGEST); /* of its own, so that a sanitizer sees its end */
        size_t size = files[from].size;
        memcpy(bytes, files[from].bytes, size);
        if (i >= nfiles) size = change(bytes, size);
        uint8_t *exact = malloc(size ? size : 1);
        memcpy(exact, bytes, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact), free(bytes);
    }
    printf("%ld inputs\n", nfiles + count);
    return 0;
}
