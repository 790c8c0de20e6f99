"""Micro-benchmarks of the core by pytest-benchmark: `pytest perf/benchmarks`."""
