"""The commands of `pycomm`, a file each (except perf, which lies with what it runs)."""
