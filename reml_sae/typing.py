"""Names of the types that signatures speak of."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Mask = NDArray[np.bool_]
Curvature = Literal["majorizer", "exact"]
"""Which operator: the positive semidefinite majorizer B or the exact Hessian."""
