/* strict.h: how every kernel is compiled, whatever the build's flags: vectorised, each operation rounded as written, and
 * short loops on a cache line of their own (which alone is worth up to twice the speed in the first-level cache). */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("O3", "fp-contract=off", "no-trapping-math", "align-loops=64")
#endif
