"""What a kind shows of itself in the contract's tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from reml_sae import penalties as pen


@dataclass(frozen=True)
class Small:
    """A target of at most three entries on which log_partition is compared with quadrature.

    Attributes
    ----------
    penalty : Penalty
    n_rows : int
        As `log_partition` counts them.
    basis : (target size, dim) orthonormal basis of the range of P; the integral runs over it
    scale : float
        Length over which exp(-P) falls.
    rho : (rho_count,) array or None
        Zeros by default.
    """

    penalty: pen.Penalty
    n_rows: int
    basis: np.ndarray
    scale: float = 1.0
    rho: np.ndarray | None = None


@dataclass(frozen=True)
class Case:
    """One kind, or one variant of it.

    Attributes
    ----------
    penalty : Penalty
    target : array
        Random, away from kinks.
    reference : callable (target as given, strengths) -> float
        P by plain Python loops, written from the catalogue and not from the code.
    extremes : tuple of arrays
        Tied and extreme targets (zeros, equal entries, 1e6, 1e-9), where P must be finite and the
        majorizer must majorize.
    small : Small or None
        For proper kinds.
    planted : callable (rng) -> (penalty, target, true rho), or None
        For proper kinds: a large target drawn from exp(-P) at a known rho, for which minimising
        P + log C over rho must find it again.
    planted_tolerance : float
        On rho; about four standard errors.
    large : callable (n) -> (penalty, target)
        The kind on a target with n rows.
    rho : array or None
        Where derivatives are checked; .3 everywhere by default.
    variant : str
    """

    penalty: pen.Penalty
    target: np.ndarray
    reference: Callable[[np.ndarray, np.ndarray], float]
    large: Callable[[int], tuple[pen.Penalty, np.ndarray]]
    extremes: tuple[np.ndarray, ...] = ()
    small: Small | None = None
    planted: Callable[[np.random.Generator], tuple[pen.Penalty, np.ndarray, np.ndarray]] | None = (
        field(default=None))
    planted_tolerance: float = 0.1
    rho: np.ndarray | None = None
    variant: str = ""

    @property
    def name(self) -> str:
        return self.penalty.KIND_TAG + (f"-{self.variant}" if self.variant else "")

    @property
    def at_rho(self) -> np.ndarray:
        return 0.3 * np.ones(self.penalty.rho_count()) if self.rho is None else self.rho
