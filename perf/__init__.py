"""pycomm.perf: measures collectives, in nccl-tests' spelling and columns, over pycomm and over other libraries side by side."""
