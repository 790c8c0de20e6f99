"""pycomm.perf: measures collectives with nccl-tests' flags and columns, pycomm and other libraries side by side."""
