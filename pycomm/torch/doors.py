"""Ways in for torch: groups from its options, parts of groups, other backends beside pycomm, gloo in name only."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C import _distributed_c10d
from torch.distributed import distributed_c10d

from ..errors import InvalidArgument
from .errors import as_torch
from .group import PycommGroup
from .meeting import meet
from .work import Work

_c10d: Any = _distributed_c10d  # whose stub lacks some of what it has


def create(options: Any, pg_options: Any) -> PycommGroup:
    """Make a process group from what torch gives to a backend with `extended_api`.

    Args:
        options: store, rank, size, timeout, name and ranks of the group.
        pg_options: what the user gave; not looked at.
    """
    return PycommGroup(
        options.store, options.group_rank, options.group_size, options.timeout, options.global_ranks_in_group,
        options.group_id,
    )  # fmt: skip


def _let_reducers_keep_works() -> None:
    """Give DDP's reducer Works that live without Python: within Join it keeps one that Python forgets."""
    original = _c10d.Reducer._set_forward_pass_work_handle

    @functools.wraps(original)
    def set_forward_pass_work_handle(reducer: Any, work: Any, *args: Any) -> None:
        if isinstance(work, Work):
            work = _c10d._create_work_from_future(work.get_future())
        original(reducer, work, *args)

    _c10d.Reducer._set_forward_pass_work_handle = set_forward_pass_work_handle


_let_reducers_keep_works()


def create_alone(store: Any, rank: int, size: int, timeout: timedelta, device: Any, *_: Any, **__: Any) -> PycommGroup:
    """Make a process group that torch.distributed does not know of, for torch.distributed._dist2.

    Raises:
        InvalidArgument: it is not for the CPU.
    """
    if torch.device(device).type != "cpu":
        raise as_torch(InvalidArgument(f"pycomm serves the device cpu alone, not {device}"))
    membership = meet(store, rank, size, (), timeout.total_seconds(), default=False)
    return PycommGroup(store, rank, size, timeout, membership=membership)


def split_group(
    parent: PycommGroup, split_ranks: Sequence[Sequence[int]] | None, timeout: timedelta | None = None,
    pg_options: Any = None, group_desc: str | None = None, backend: str | None = None,
) -> PycommGroup | None:  # fmt: skip
    """Do what torch.distributed.split_group does, which asks for an accelerator, for a group on the CPU.

    Args:
        parent: the group; all its ranks call this.
        split_ranks: the parts, as lists of the parent's ranks.
        timeout: None: torch's default.
        pg_options: not looked at.
        group_desc: of the new group.
        backend: None or the parent's.

    Raises:
        InvalidArgument: the parts overlap or are no parts, or the parent serves other devices too.
    """
    everyone = [rank for part in split_ranks or () for rank in part]
    if not everyone or len(set(everyone)) < len(everyone):
        raise as_torch(InvalidArgument(f"split_ranks must be lists of different ranks, and is {split_ranks}"))
    world = distributed_c10d._world
    name, _ = world.pg_map[parent]
    if parent.beside or backend not in (None, name):
        raise as_torch(InvalidArgument(f"a group of {name} is split as a whole, and only for the CPU: use new_group"))
    assert split_ranks is not None
    part = next((part for part in split_ranks if parent.getRank() in part), split_ranks[0])
    title = distributed_c10d._process_group_name(sorted(part), use_hashed_name=True)
    timeout = timeout or distributed_c10d._get_default_timeout(dist.Backend(name))
    group = parent.split_group(part, timeout, group_name=title, group_desc=group_desc)
    if group is None:
        return None
    tag = f"ptd:{title}"
    world.pg_map[group], world.pg_names[group] = (name, group.get_group_store()), title
    world.pg_backend_config[group] = world.pg_backend_config[parent]
    world.pg_group_ranks[group] = {rank: place for place, rank in enumerate(group.ranks)}
    world.pg_to_tag[group] = tag
    world.tags_to_pg.setdefault(tag, []).append(group)
    distributed_c10d._register_process_group(title, group)
    return group


def helper(original: Callable[..., Any], disguise: bool, *args: Any, **kwargs: Any) -> Any:
    """Do what torch's `_new_process_group_helper` does for a group of which pycomm is a part.

    torch lets a group in Python replace all that was asked for; here it serves its device, and the others stay.

    Args:
        original: torch's function.
        disguise: whether gloo means pycomm.
        args, kwargs: its arguments: size, rank, ranks, backend, store, name, ...
    """
    size, rank, ranks, backend, store, name, *rest = args
    asked = dict(distributed_c10d.BackendConfig(dist.Backend(str(backend))).get_device_backend_map())
    mine = {device for device, its in asked.items() if its == "pycomm" or (disguise and its == "gloo")}
    mine = mine if "pycomm" in asked.values() else mine & {"cpu"}
    others = {device: its for device, its in asked.items() if device not in mine}
    if len(set(asked.values())) == 1:
        others = {}
    elif "cpu" not in mine:
        raise InvalidArgument(f"{backend}: pycomm stages other devices through host memory: let it serve cpu too")
    if disguise:
        others = {device: its for device, its in others.items() if its != "gloo" and _can_be_had(its)}
    group, prefixed = original(size, rank, ranks, "cpu:pycomm", store, name, *rest, **kwargs)
    if group is dist.GroupMember.NON_GROUP_MEMBER:
        return group, prefixed
    _add(group, prefixed, others, kwargs.get("timeout"), kwargs.get("backend_options"))
    group.known_as = "pycomm" if "pycomm" in str(backend) else "gloo"
    world = distributed_c10d._world
    world.pg_map[group] = (str(backend), world.pg_map[group][1])
    world.pg_backend_config[group] = str(distributed_c10d.BackendConfig(dist.Backend(str(backend))))
    return group, prefixed


def _can_be_had(backend: str) -> bool:
    return backend != "nccl" or dist.is_nccl_available()


def _add(group: PycommGroup, store: Any, others: Mapping[str, str], timeout: Any, options: Any) -> None:
    """Give a group the backends for other devices."""
    kinds = dist.ProcessGroup.BackendType
    made: dict[str, Any] = {}
    for device, name in others.items():
        own_store = dist.PrefixStore(f"{device}/", store)
        kind = getattr(kinds, name.upper(), kinds.CUSTOM)
        if name not in made:
            made[name] = _backend(name, own_store, group, timeout, options)
        group._register_backend(torch.device(device), kind, made[name])
        group.beside[device] = made[name]


def _backend(name: str, store: Any, group: PycommGroup, timeout: Any, options: Any) -> Any:
    rank, size = group.rank(), group.size()
    if name in ("nccl", "xccl"):
        kind = getattr(distributed_c10d, f"ProcessGroup{name.upper()}")
        options = options if isinstance(options, kind.Options) else kind.Options()
        options._timeout = timeout
        options.global_ranks_in_group, options.group_name = list(group.ranks), group.group_name
        return kind(store, rank, size, options)
    if name in ("gloo", "ucc"):
        return getattr(distributed_c10d, f"ProcessGroup{name.upper() if name == 'ucc' else 'Gloo'}")(
            store, rank, size, timeout=timeout
        )
    plugin = dist.Backend._plugins.get(name.upper())
    if plugin is None:
        raise InvalidArgument(f"torch knows no backend {name}")
    if not plugin.extended_api:
        return plugin.creator_fn(store, rank, size, timeout)
    asked = distributed_c10d._DistributedBackendOptions()
    asked.store, asked.group_rank, asked.group_size, asked.timeout = store, rank, size, timeout
    asked.group_id, asked.global_ranks_in_group = group.group_name, list(group.ranks)
    return plugin.creator_fn(asked, options)
