"""Normal prior on outer parameters (tier RHO).

With n selected parameters

    P = w / 2 sum_j ((rho_j - mean) / sd)^2 over the selected rho_j
    log int exp(-P) = (n / 2) log(2 pi sd^2 / w)
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError
from reml_sae.penalties import _fields
from reml_sae.penalties._base import Penalty, PenaltyTier
from reml_sae.penalties._registry import register
from reml_sae.typing import Array


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class LogStrengthPriorPenalty(Penalty):
    """Normal prior on outer parameters chosen by name; target: the selected ones, flat.

    It keeps a log strength from running to infinity or to zero where the data say little.

    Parameters
    ----------
    names : list of str
        Names of outer parameters, as a fit's ``rho_names`` gives them; * and ? are wild, brackets
        are not.
    mean : float
        Of the log strength.
    sd : float
        Standard deviation, positive.
    weight, weight_schedule, learnable, atom
        See `Penalty`; there is no strength to learn and no atom to choose.
    """

    names: tuple[str, ...]
    mean: float
    sd: float

    KIND_TAG: ClassVar[str] = "log_strength_prior"
    PYTHON_WRAPPER: ClassVar[str] = "LogStrengthPriorPenalty"
    ROW_BLOCK_DIAGONAL: ClassVar[bool] = False
    TIER: ClassVar[PenaltyTier] = PenaltyTier.RHO
    FORMULA: ClassVar[str] = "w / 2 sum_j ((rho_j - mean) / sd)^2"

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", _patterns(self.names))
        if (not isinstance(self.mean, numbers.Real) or isinstance(self.mean, (bool, np.bool_))
                or not np.isfinite(self.mean)):
            raise InputError(f"mean must be a finite number, got {self.mean!r}")
        _fields.positive("sd", self.sd)
        if self.learnable:
            raise InputError(f"learnable must be False: {self.KIND_TAG} owns no strength")
        if self.atom is not None:
            raise InputError(f"atom must be None: {self.KIND_TAG} selects by names")
        super().__post_init__()

    def n_strengths(self) -> int:
        """None: its width is chosen, not learned."""
        return 0

    def select(self, rho_names: Sequence[str]) -> NDArray[np.intp]:
        """Indices of the outer parameters that a pattern matches; it may be empty."""
        # names hold atoms in brackets, which fnmatch would take for a set of characters
        patterns = [pattern.replace("[", "[[]") for pattern in self.names]
        return np.array([j for j, name in enumerate(rho_names)
                         if any(fnmatchcase(name, pattern) for pattern in patterns)], np.intp)

    def _precision(self, rho: Array) -> float:
        if np.size(rho):
            raise InputError(f"{self.KIND_TAG}: it owns no rho, got {np.size(rho)} entries")
        return self.weight / self.sd**2

    def _deviation(self, target: Array) -> Array:
        return np.asarray(target, float).ravel() - self.mean

    def value(self, target: Array, rho: Array) -> float:
        """P."""
        return 0.5 * self._precision(rho) * float(np.square(self._deviation(target)).sum())

    def grad_target(self, target: Array, rho: Array) -> Array:
        """w (rho - mean) / sd^2, flat."""
        return self._precision(rho) * self._deviation(target)

    def hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """w v / sd^2, flat."""
        return self._precision(rho) * np.asarray(v, float).ravel()

    def hessian_diag(self, target: Array, rho: Array) -> Array:
        """w / sd^2, flat."""
        return np.full(np.size(target), self._precision(rho))

    def psd_majorizer_diag(self, target: Array, rho: Array) -> Array:
        """The Hessian's: the penalty is convex."""
        return self.hessian_diag(target, rho)

    def psd_majorizer_hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """The Hessian's."""
        return self.hvp(target, rho, v)

    def grad_rho(self, target: Array, rho: Array) -> Array:
        """Empty: it owns no outer parameter."""
        return np.zeros(0)

    def log_partition(self, rho: Array, n_rows: int) -> tuple[float, Array]:
        """Log partition over ``n_rows`` selected outer parameters."""
        return 0.5 * n_rows * float(np.log(2.0 * np.pi / self._precision(rho))), np.zeros(0)


def _patterns(names: object) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise InputError(f"names must be a list of names of outer parameters, got {names!r}")
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise InputError(f"names[{i}] must be a name or a pattern, got {name!r}")
    return tuple(names)
