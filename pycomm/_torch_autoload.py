"""What `import torch` runs: it makes the backend's name known and imports nothing of pycomm until a group is made."""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import Any


def autoload() -> None:
    """Register the backend "pycomm"; the entry point of torch.backends. It never raises, for torch would fail too."""
    try:
        register()
    except Exception as error:
        print(f"pycomm: its torch backend cannot be registered: {error!r}", file=sys.stderr)


def register() -> None:
    """Make "pycomm" known to torch.distributed. A second call does nothing."""
    import torch.distributed as dist

    if not dist.is_available() or "PYCOMM" in dist.Backend._plugins:
        return
    # devices is a list: torch takes a string letter by letter
    dist.Backend.register_backend("pycomm", _create, extended_api=True, devices=["cpu"])
    dist.register_rendezvous_handler("pycomm", _rendezvous)
    _open_doors(dist)
    with contextlib.suppress(ImportError):  # before torch 2.8
        from torch.distributed import _dist2

        _dist2.register_backend("pycomm", _create_alone)


def _create(options: Any, pg_options: Any) -> Any:
    from pycomm.torch import doors

    return doors.create(options, pg_options)


def _rendezvous(*args: Any, **kwargs: Any) -> Any:
    from pycomm.torch import launched

    return launched.rendezvous(*args, **kwargs)


def _create_alone(*args: Any, **kwargs: Any) -> Any:
    from pycomm.torch import doors

    return doors.create_alone(*args, **kwargs)


def _open_doors(dist: Any) -> None:
    """Wrap the functions of torch that ask for backends by name, where they mean pycomm."""
    from torch.distributed import distributed_c10d as c10d

    def ours(group: Any) -> Any:
        """Return a group, by default the default one, if it is pycomm's; else None."""
        group = group or c10d._get_default_group()
        return group if type(group).__module__ == "pycomm.torch.group" else None

    init = c10d.init_process_group

    @functools.wraps(init)
    def init_process_group(backend: Any = None, init_method: Any = None, *args: Any, **kwargs: Any) -> None:
        places = (kwargs.get("world_size", -1), kwargs.get("rank", -1))
        unsaid = init_method is kwargs.get("store") is None and places == (-1, -1) and len(args) < 2
        if unsaid and "pycomm" in str(backend):
            from pycomm.torch import launched

            init_method = "pycomm://" if launched.is_needed() else None
        init(backend, init_method, *args, **kwargs)

    helper, barrier = c10d._new_process_group_helper, c10d.monitored_barrier

    @functools.wraps(helper)
    def new_group_helper(*args: Any, **kwargs: Any) -> Any:
        from pycomm.knobs import TORCH_AS_GLOO

        disguise = TORCH_AS_GLOO.value()
        backend = str(args[3]) if len(args) > 3 else ""
        mixed = "pycomm" in backend and "," in backend
        if not mixed and not (disguise and (backend == "undefined" or "gloo" in backend)):
            return helper(*args, **kwargs)
        from pycomm.torch import doors

        return doors.helper(helper, disguise, *args, **kwargs)

    @functools.wraps(barrier)
    def monitored_barrier(group: Any = None, timeout: Any = None, wait_all_ranks: bool = False) -> Any:
        if c10d._rank_not_in_group(group) or c10d.get_backend(group) != "pycomm":
            return barrier(group, timeout, wait_all_ranks)
        if isinstance(timeout, int | float):
            from datetime import timedelta

            timeout = timedelta(seconds=timeout)
        return (group or c10d._get_default_group()).monitored_barrier(timeout, wait_all_ranks)

    set_timeout = c10d._set_pg_timeout

    @functools.wraps(set_timeout)
    def set_pg_timeout(timeout: Any, group: Any = None) -> None:
        chosen = ours(group)
        if chosen is not None:
            chosen.set_timeout(timeout)
        else:
            set_timeout(timeout, group)

    split = c10d.split_group

    @functools.wraps(split)
    def split_group(parent_pg: Any = None, split_ranks: Any = None, *args: Any, **kwargs: Any) -> Any:
        parent = ours(parent_pg)
        if parent is None:
            return split(parent_pg, split_ranks, *args, **kwargs)
        from pycomm.torch import doors

        return doors.split_group(parent, split_ranks, *args, **kwargs)

    batch = c10d.batch_isend_irecv

    @functools.wraps(batch)
    def batch_isend_irecv(p2p_op_list: Any) -> Any:
        first = p2p_op_list[0] if isinstance(p2p_op_list, list) and p2p_op_list else None
        group = ours(getattr(first, "group", None))
        if group is None:
            return batch(p2p_op_list)
        with group.engine.pointers.held():  # else a thread would work on each message as soon as it is started
            return batch(p2p_op_list)

    c10d.init_process_group = dist.init_process_group = init_process_group
    c10d.batch_isend_irecv = dist.batch_isend_irecv = batch_isend_irecv
    c10d.split_group = dist.split_group = split_group
    c10d._set_pg_timeout = set_pg_timeout
    c10d._new_process_group_helper = new_group_helper
    c10d.monitored_barrier = dist.monitored_barrier = monitored_barrier
