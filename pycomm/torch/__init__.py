"""torch.distributed on pycomm: `init_process_group("pycomm")`. torch finds it by itself; this import is not needed."""

from .._torch_autoload import register
from .flight_recorder import dump_flight_recorder
from .group import PycommGroup
from .work import Work

__all__ = ["PycommGroup", "Work", "dump_flight_recorder", "register"]

register()
