"""The log of the torch backend: a line for each group, and in detail one for each operation.

It is a part of torch's log, torch.distributed.pycomm: TORCH_LOGS=distributed (+distributed: in detail) turns it on, and
so does TORCH_DISTRIBUTED_DEBUG=INFO (DETAIL). What DETAIL checks in other backends, that ranks agree on their calls,
pycomm checks always.
"""

from __future__ import annotations

import logging

import torch.distributed as dist

log = logging.getLogger("torch.distributed.pycomm")
_LEVELS = {dist.DebugLevel.INFO: logging.INFO, dist.DebugLevel.DETAIL: logging.DEBUG}


def heed_debug_level() -> None:
    """Log what torch's distributed debug level asks for, unless the program has set the log's level itself."""
    level = _LEVELS.get(dist.get_debug_level())
    if level is not None and log.level == logging.NOTSET:
        log.setLevel(level)


def is_detailed() -> bool:
    """Return whether each operation is logged."""
    return log.isEnabledFor(logging.DEBUG)
