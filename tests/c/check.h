/* check.h: counted checks for the C tests; a failure is printed and the test goes on, and check_report() is main's
 * result. */
#ifndef PYCOMM_CHECK_H
#define PYCOMM_CHECK_H

#include <stdio.h>

static long check_passed, check_failed;

/* CHECK(condition, "format", ...): the text says what was expected of what. Only the first failures are printed: one
 * mistake in a loop should not bury the others' names. */
#define CHECK(CONDITION, ...)                                                                                          \
    do {                                                                                                               \
        if (CONDITION) {                                                                                               \
            check_passed++;                                                                                            \
        } else if (++check_failed <= 50) {                                                                             \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #CONDITION);                                            \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fputc('\n', stderr);                                                                                       \
        }                                                                                                              \
    } while (0)

/* Prints the count; the exit status for main. No checks at all is a failure too. */
static inline int check_report(void)
{
    printf("%ld passed, %ld failed\n", check_passed, check_failed);
    return check_failed != 0 || check_passed == 0;
}

#endif
