"""Both plugins at work: `PYCOMM_TRANSPORTS=count:shm pycomm run -n 4 run.py`."""

import numpy as np

import pycomm

comm = pycomm.init()
data = np.full(1000, comm.rank, dtype=np.float64)
comm.Bcast(data, root=2, algorithm="relay")
assert (data == 2).all()
print(f"rank {comm.rank}: {data.nbytes} bytes by way of {comm.transport((comm.rank + 1) % comm.size)}")
