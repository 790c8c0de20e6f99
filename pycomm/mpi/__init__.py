"""Jobs of MPI: ranks that meet by way of it, and its own collectives beside ours."""
