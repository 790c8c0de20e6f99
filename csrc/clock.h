/* clock.h: the time, at three prices, and the pause of a thread that looks again and again. */
#ifndef PYCOMM_CLOCK_H
#define PYCOMM_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t pcm_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline double pcm_now(void) { return 1e-9 * (double)pcm_now_ns(); }

static inline uint64_t pcm_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    return (uint64_t)pcm_now_ns();
#endif
}

static inline void pcm_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

#endif
