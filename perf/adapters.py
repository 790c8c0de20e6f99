"""What a measured rank needs of each library: joining the job, calls made ready to be timed, and what it cannot do."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from pycomm.errors import InvalidArgument

from .bench import Library
from .cases import Case
from .inputs import dtype_of
from .overlap import Start

Array = np.ndarray[Any, np.dtype[Any]]


class _Adapter:
    """What all adapters share, made of the calls themselves."""

    name: str
    version: str
    rank: int
    size: int
    in_place: Any
    ops: dict[str, Any]
    barrier: Callable[[], Any]

    def ready(self, method: str, *args: Any, **keywords: Any) -> Callable[[], Any]:
        """`comm.method(*args, **keywords)`, ready to be made; the library's defaults."""
        raise NotImplementedError

    def bind(self, method: str, *args: Any, **keywords: Any) -> Callable[[], Any]:
        """The same, as it is to be measured."""
        return self.ready(method, *args, **keywords)

    def begin(self, method: str, *args: Any, **keywords: Any) -> Start:
        """The same, ready to be started: it then returns what waits for its end."""
        raise NotImplementedError

    def allgather(self, values: Array) -> Array:
        """The float64 `values` of all ranks; shape (size, len(values))."""
        everybody = np.empty(self.size * len(values), np.float64)
        self.ready("Allgather", values, everybody)()
        return everybody.reshape(self.size, -1)

    def broadcast(self, data: bytes | None) -> bytes:
        """Rank 0's bytes, on every rank."""
        length = np.array([len(data or b"")], np.int64)
        self.ready("Bcast", length, root=0)()
        buffer = np.empty(int(length[0]), np.uint8)
        if data is not None:
            buffer[...] = np.frombuffer(data, np.uint8)
        self.ready("Bcast", buffer, root=0)()
        return buffer.tobytes()


class _Mpi4pyLike(_Adapter):
    """A communicator with mpi4py's upper-case methods on numpy arrays: mpi4py's own, and pycomm's."""

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self.rank, self.size, self.barrier = comm.rank, comm.size, comm.Barrier

    def ready(self, method: str, *args: Any, **keywords: Any) -> Callable[[], Any]:
        """`comm.method(*args, **keywords)`, ready to be made."""
        return functools.partial(getattr(self._comm, method), *args, **keywords)

    def begin(self, method: str, *args: Any, **keywords: Any) -> Start:
        """`comm.Imethod(*args, **keywords)`, ready to be started."""
        call = self.bind(f"I{method[0].lower()}{method[1:]}", *args, **keywords)
        return lambda: call().Wait


class Pycomm(_Mpi4pyLike):
    """pycomm itself.

    Args:
        transport, algorithm, slices: passed on; None leaves the choice to pycomm.
    """

    name = "pycomm"

    def __init__(self, transport: str | None, algorithm: str | None, slices: int | None) -> None:
        import pycomm

        api: Any = pycomm
        super().__init__(api.init(transports=transport))
        self.version = f"pycomm {api.__version__}"
        self.in_place = api.IN_PLACE
        self.ops = {op: getattr(api, op.upper()) for op in ("sum", "prod", "min", "max", "avg")}
        given = {"algorithm": algorithm, "slices": slices}
        self._extras = {name: value for name, value in given.items() if value is not None}

    def bind(self, method: str, *args: Any, **keywords: Any) -> Callable[[], Any]:
        """`comm.method(*args, **keywords)` with the algorithm and slices that the user asked for, ready to be made."""
        if method == "Sendrecv":
            return self._sendrecv(*args, **keywords)
        return self.ready(method, *args, **keywords, **self._extras)

    def _sendrecv(self, send: Array, dest: int, recvbuf: Array, source: int) -> Callable[[], Any]:
        def exchange() -> None:
            incoming = self._comm.Irecv(recvbuf, source)
            self._comm.Send(send, dest)
            incoming.Wait()

        return exchange

    def unsupported(self, case: Case, dtype: str, op: str, in_place: bool) -> str | None:
        """A prefix has no average; anything else pycomm can do."""
        if op == "avg" and case.name in ("scan", "exscan"):
            return f"pycomm has no avg for {case.name}"
        return None

    def close(self) -> None:
        """Leave the communicator; the job is left when the process ends."""
        self._comm.Free()


class Mpi(_Mpi4pyLike):
    """An MPI through mpi4py.

    Args:
        name: `openmpi`, `mpich`, `impi`, or `mpi` for whichever launched this process.

    Raises:
        InvalidArgument: mpi4py found no MPI, or another than the one that was asked for.
    """

    _SAYS: ClassVar = {"openmpi": "Open MPI", "mpich": "MPICH", "impi": "Intel(R) MPI", "mpi": ""}
    _NO_DTYPE = frozenset({"half", "bfloat16", "f8e4m3", "f8e5m2"})

    def __init__(self, name: str) -> None:
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:  # the second is what mpi4py raises where it finds no library
            raise InvalidArgument(
                f"mpi4py cannot be imported ({str(error).splitlines()[0]}): pip install mpi4py, and set MPI4PY_LIBMPI "
                "to the libmpi.so that belongs to the mpiexec (in ../lib, seen from it)"
            ) from error
        super().__init__(MPI.COMM_WORLD)
        self.name = name
        first_line = MPI.Get_library_version().strip("\0").splitlines()[0]
        self.version = " ".join(first_line.partition(", package")[0].split())
        if self._SAYS[name] not in self.version:
            raise InvalidArgument(
                f"mpi4py loaded {self.version!r} for {name}: MPI wheels overwrite each other in one environment, "
                "so give each its own, as `pycomm perf --vs ...` says when one is missing"
            )
        self.in_place = MPI.IN_PLACE
        self.ops = {"sum": MPI.SUM, "prod": MPI.PROD, "min": MPI.MIN, "max": MPI.MAX}

    def unsupported(self, case: Case, dtype: str, op: str, in_place: bool) -> str | None:
        """MPI has no average, and its 16- and 8-bit floating point types are not standard."""
        if case.reduces and op not in self.ops:
            return f"MPI has no {op}"
        return f"MPI has no {dtype}" if dtype in self._NO_DTYPE else None

    def close(self) -> None:
        """Finalize, before Python's own exit does at an unknown moment."""
        from mpi4py import MPI

        MPI.Finalize()


class _Asynchronous:
    """torch.distributed, whose calls are started and return a Work."""

    def __init__(self, dist: Any) -> None:
        self._dist = dist

    def __getattr__(self, name: str) -> Any:
        return functools.partial(getattr(self._dist, name), async_op=True)


class Gloo(_Adapter):
    """Gloo through torch.distributed, on torch tensors that share the arrays' memory.

    torch's all_reduce, reduce and broadcast work in place only: out of place is a copy and the call, both timed, as a
    user of torch would have to write it.

    Args:
        store: torch's `init_method`, such as `file:///...`; None takes torchrun's environment.
    """

    name = "gloo"
    in_place = object()
    _NO_DTYPE = frozenset({"uint32", "uint64", "f8e4m3", "f8e5m2"})
    _LACKS = frozenset({"allgatherv", "scan", "exscan"})
    _NOT_IN_PLACE = frozenset({"alltoall"})

    def __init__(self, store: str | None) -> None:
        import torch
        import torch.distributed as dist

        self._torch: Any = torch
        self._dist: Any = dist
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.version = f"gloo of torch {torch.__version__}"
        kinds = dist.ReduceOp
        self.ops = {"sum": kinds.SUM, "prod": kinds.PRODUCT, "min": kinds.MIN, "max": kinds.MAX, "avg": kinds.AVG}
        self.barrier = dist.barrier

    def unsupported(self, case: Case, dtype: str, op: str, in_place: bool) -> str | None:
        """What torch's Gloo backend does not offer."""
        if case.name in self._LACKS:
            return f"torch's gloo has no {case.name}"
        if in_place and case.name in self._NOT_IN_PLACE:
            return f"torch's gloo has no {case.name} in place"
        if dtype in self._NO_DTYPE:
            return f"torch's gloo has no {dtype}"
        if op == "avg" and case.reduces and np.issubdtype(dtype_of(dtype), np.integer):
            return "torch's gloo averages no integers"
        return None

    def _tensor(self, array: Array) -> Any:
        if array.dtype.name == "bfloat16":
            return self._torch.from_numpy(array.view(np.uint16)).view(self._torch.bfloat16)
        return self._torch.from_numpy(array)

    def ready(self, method: str, *args: Any, **keywords: Any) -> Callable[[], Any]:
        """The call of torch.distributed that does what `comm.method(*args, **keywords)` does, ready to be made."""
        ready: Callable[[], Any] = getattr(self, f"_{method.lower()}")(*args, **keywords)
        return ready

    def begin(self, method: str, *args: Any, **keywords: Any) -> Start:
        """The same with `async_op=True`, ready to be started."""
        twin = copy.copy(self)
        twin._dist = _Asynchronous(self._dist)
        call = twin.ready(method, *args, **keywords)
        return lambda: call().wait

    def _in_place_call(self, send: Any, recv: Array, call: Callable[[Any], Any]) -> Callable[[], Any]:
        tensor = self._tensor(recv)
        if send is self.in_place:
            return functools.partial(call, tensor)
        source = self._tensor(send)

        def copy_and_call() -> Any:
            tensor.copy_(source)
            return call(tensor)

        return copy_and_call

    def _allreduce(self, send: Any, recv: Array, op: Any) -> Callable[[], Any]:
        return self._in_place_call(send, recv, functools.partial(self._dist.all_reduce, op=op))

    def _reduce(self, send: Any, recv: Array | None, op: Any, root: int) -> Callable[[], Any]:
        call = functools.partial(self._dist.reduce, dst=root, op=op)
        return self._in_place_call(self.in_place if recv is None else send, send if recv is None else recv, call)

    def _bcast(self, buffer: Array, root: int) -> Callable[[], Any]:
        return functools.partial(self._dist.broadcast, self._tensor(buffer), src=root)

    def _allgather(self, send: Any, recv: Array) -> Callable[[], Any]:
        output = self._tensor(recv)
        source = output.chunk(self.size)[self.rank] if send is self.in_place else self._tensor(send)
        return functools.partial(self._dist.all_gather_into_tensor, output, source)

    def _reduce_scatter_block(self, send: Any, recv: Array, op: Any) -> Callable[[], Any]:
        source = self._tensor(recv if send is self.in_place else send)
        output = source.chunk(self.size)[0] if send is self.in_place else self._tensor(recv)
        return functools.partial(self._dist.reduce_scatter_tensor, output, source, op=op)

    def _gather(self, send: Any, recv: Array | None, root: int) -> Callable[[], Any]:
        parts = None if recv is None else list(self._tensor(recv).chunk(self.size))
        source = parts[self.rank] if send is self.in_place and parts else self._tensor(send)
        return functools.partial(self._dist.gather, source, parts, dst=root)

    def _scatter(self, send: Array | None, recv: Any, root: int) -> Callable[[], Any]:
        parts = None if send is None else list(self._tensor(send).chunk(self.size))
        output = parts[self.rank] if recv is self.in_place and parts else self._tensor(recv)
        return functools.partial(self._dist.scatter, output, parts, src=root)

    def _alltoall(self, send: Array, recv: Array) -> Callable[[], Any]:
        return functools.partial(self._dist.all_to_all_single, self._tensor(recv), self._tensor(send))

    def _alltoallv(self, send: Any, recv: Any) -> Callable[[], Any]:
        (source, (inputs, _)), (output, (outputs, _)) = send, recv
        tensors = self._tensor(output), self._tensor(source)
        return functools.partial(self._dist.all_to_all_single, *tensors, outputs, inputs)

    def _barrier(self) -> Callable[[], Any]:
        return functools.partial(self._dist.barrier)

    def _sendrecv(self, send: Array, dest: int, recvbuf: Array, source: int) -> Callable[[], Any]:
        outgoing, incoming = self._tensor(send), self._tensor(recvbuf)
        if dest == self.rank:
            return functools.partial(incoming.copy_, outgoing)

        def exchange() -> None:
            requests = (self._dist.isend(outgoing, dest), self._dist.irecv(incoming, source))
            for request in requests:
                request.wait()

        return exchange

    def close(self) -> None:
        """Leave the job."""
        self._dist.destroy_process_group()


def join(
    name: str,
    transport: str | None = None,
    algorithm: str | None = None,
    slices: int | None = None,
    store: str | None = None,
) -> Library:
    """This process's rank of a job of the library `name`, whose launcher has set the environment.

    Args:
        name: `pycomm`, `gloo`, `openmpi`, `mpich`, `impi` or `mpi`.
        transport, algorithm, slices: for pycomm only.
        store: for gloo only, see `Gloo`.

    Raises:
        InvalidArgument: perf has no adapter of that name.
    """
    if name == "pycomm":
        return Pycomm(transport, algorithm, slices)
    if name == "gloo":
        return Gloo(store)
    if name in Mpi._SAYS:
        return Mpi(name)
    raise InvalidArgument(f"perf has no adapter for {name!r}")
