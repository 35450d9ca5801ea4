"""What a row tells of the atom that it is on, whichever way its coordinates are integrated."""

from __future__ import annotations

from dataclasses import dataclass

from reml_sae.sweeps.backend import DeviceArray
from reml_sae.typing import Array


@dataclass(frozen=True, eq=False)
class RowPosterior:
    """Moments of rows (n) of one kind of atom.

    Attributes
    ----------
    evidence : (n,) log evidence, but for what is the row's own and its atom's constant's
    u, u2 : (n,) E[u] and E[u^2]
    amplitude : (n,) E[a]
    first, second : arrays
        What is summed for E[a phi] and E[a^2 phi phi^T], see `KindTables` and `FlatTables`.
    mean : (n, M - 1) E[a phi]
    points : (n, d) coordinates, on the host
    """

    evidence: DeviceArray
    u: DeviceArray
    u2: DeviceArray
    amplitude: DeviceArray
    first: DeviceArray
    second: DeviceArray
    mean: DeviceArray
    points: Array
