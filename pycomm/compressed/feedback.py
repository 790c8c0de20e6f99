"""Error feedback: what compression has lost of a vector so far, which goes into the next call."""

from __future__ import annotations

import numpy as np

from ..errors import InvalidArgument
from .codec import Floats


class Feedback:
    """What the compression of one vector has lost on this rank, to be added before its next compression.

    Make one for each vector that is reduced again and again, such as each gradient, and give it to every call for it.
    The sum of all results then stays as near to the exact one as a single call's (F. Seide et al., "1-bit stochastic
    gradient descent", Interspeech 2014; S. P. Karimireddy et al., "Error feedback fixes SignSGD and other gradient
    compression schemes", ICML 2019).

    Attributes:
        residual: float32 [elements that this rank carries between groups]; None before the first call.
    """

    def __init__(self) -> None:
        self.residual: Floats | None = None
        self._count = -1

    def reset(self) -> None:
        """Forget what was lost, and the vector's length."""
        self.residual, self._count = None, -1

    def of(self, count: int, carried: int) -> Floats:
        """Return the residual for a call, zeros at first.

        Args:
            count: elements of the vector.
            carried: those that this rank carries.

        Raises:
            InvalidArgument: the last call was for another vector or other groups.
        """
        if self.residual is None:
            self.residual, self._count = np.zeros(carried, np.float32), count
        if self._count != count or self.residual.size != carried:
            raise InvalidArgument(
                f"the feedback is of a vector of {self._count} elements and this one has {count}, or its groups are "
                "others: give each vector a Feedback of its own, or call reset()"
            )
        return self.residual
