"""What calls are given: memory, layouts, types, reductions, statuses; no communicator."""
