"""The part of rho that is a family's own."""

from __future__ import annotations

import numpy as np

from reml_sae.engine import OuterPart
from reml_sae.families import Family
from reml_sae.typing import Array


def family_part(family: Family, bounds: Array | None = None) -> OuterPart:
    """The family's own outer parameters, in its box where ``bounds`` (n_psi, 2) gives no other."""
    return OuterPart("family", tuple(family.psi_names),
                     family.psi_bounds() if bounds is None else bounds,
                     family.has_dispersion & (np.arange(family.n_psi) == 0))
