/* strict.h: how every kernel is compiled, whatever the build's flags: vectorised, and with each operation rounded as
 * written. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("O3", "fp-contract=off", "no-trapping-math")
#endif
