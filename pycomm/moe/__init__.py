"""Expert parallelism for torch on pycomm: send tokens to the ranks that hold their experts, and add up what returns."""

from importlib.util import find_spec

from ..errors import InvalidArgument

if find_spec("torch") is None:
    raise InvalidArgument("pycomm.moe works on torch's tensors: pip install torch")

from .buffer import Buffer, Handle

__all__ = ["Buffer", "Handle"]
