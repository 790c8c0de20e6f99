from collections.abc import Callable
from typing import Any

class Handle:
    _address: int
    _passes: bool

class quick_method:
    def __init__(
        self, function: Callable[..., Any], collective: int, buffers: int, op: bool, root: bool, uneven: bool
    ) -> None: ...

def know_dtype(number: int, dtype: int) -> None: ...
def know_python(in_place: object, finish: Callable[[int, Any], None], drop_late: Callable[[Any], None]) -> None: ...
