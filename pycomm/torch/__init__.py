"""torch.distributed on pycomm: `init_process_group("pycomm")`. torch finds it by itself; this import is not needed."""

from .._torch_autoload import register
from .compression import CompressionState, compression_hook
from .flight_recorder import dump_flight_recorder
from .group import PycommGroup
from .work import Work

__all__ = ["CompressionState", "PycommGroup", "Work", "compression_hook", "dump_flight_recorder", "register"]

register()
