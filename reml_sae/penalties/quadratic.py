"""Quadratic penalties on decoders, P = (lambda / 2) tr(B^T S B) for B (M, p).

    log int exp(-P) over the range of S = p [(r / 2) log 2 pi - (1/2) log |lambda S|_+],  r = rank S

The null space of S has a flat prior, as in REML.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from reml_sae.errors import InputError
from reml_sae.penalties import _fields
from reml_sae.penalties._base import STRENGTH_BOX, Penalty, PenaltyTier
from reml_sae.penalties._registry import register
from reml_sae.typing import Array

RANK_TOLERANCE = 1e-10
LEAST_SIZE = 0.5
"""Least standard deviation of the prior of a decoder's coefficients."""


class DecoderQuadratic(Penalty):
    """What quadratic penalties share; a subclass gives the matrix."""

    TIER: ClassVar[PenaltyTier] = PenaltyTier.BETA

    @property
    def is_quadratic(self) -> bool:
        """True."""
        return True

    @abstractmethod
    def matrix(self) -> Array:
        """S, (M, M)."""

    @property
    def basis_size(self) -> int:
        """M."""
        return len(self.matrix())

    def _decoder(self, target: Array) -> Array:
        target = np.asarray(target, float)
        m = self.basis_size
        if target.size % m or (target.ndim == 2 and target.shape[0] != m) or target.ndim > 2:
            raise InputError(
                f"{self.KIND_TAG}: the target must be ({m}, p) or flat with a multiple of {m} "
                f"entries, got shape {target.shape}"
            )
        return target.reshape(m, -1)

    def gram(self, rho: Array) -> Array:
        """Lambda S, (M, M)."""
        return self.strengths(rho)[0] * self.matrix()

    def gram_rho(self, rho: Array) -> Array:
        """Derivative of `gram` in rho, (rho_count, M, M)."""
        return np.repeat(self.gram(rho)[None], self.rho_count(), axis=0)

    def value(self, target: Array, rho: Array) -> float:
        """P, strength folded in."""
        b = self._decoder(target)
        return 0.5 * float(np.vdot(b, self.gram(rho) @ b))

    def grad_target(self, target: Array, rho: Array) -> Array:
        """Lambda S B, flat."""
        return (self.gram(rho) @ self._decoder(target)).ravel()

    def hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """Lambda S V, flat."""
        return (self.gram(rho) @ self._decoder(v)).ravel()

    def hessian_diag(self, target: Array, rho: Array) -> Array | None:
        """Diagonal where S is diagonal, flat; else None."""
        gram = self.gram(rho)
        if np.count_nonzero(gram - np.diag(np.diagonal(gram))):
            return None
        return np.repeat(np.diagonal(gram), self._decoder(target).shape[1])

    def psd_majorizer_diag(self, target: Array, rho: Array) -> Array:
        """Diagonal of lambda S, flat; the majorizer is the Hessian itself."""
        return np.repeat(np.diagonal(self.gram(rho)), self._decoder(target).shape[1])

    def psd_majorizer_hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """The Hessian: the penalty is convex."""
        return self.hvp(target, rho, v)

    def grad_rho(self, target: Array, rho: Array) -> Array:
        """P itself: P is linear in the strength."""
        return np.full(self.rho_count(), self.value(target, rho))

    def log_partition(self, rho: Array, n_rows: int) -> tuple[float, Array]:
        """Log partition on the range of S; ``n_rows`` is the number of output columns p."""
        eigenvalues = np.linalg.eigvalsh(self.matrix())
        kept = eigenvalues[eigenvalues > RANK_TOLERANCE * eigenvalues.max(initial=0.0)]
        rank = kept.size
        log_strength = float(np.log(self.strengths(rho)[0]))
        log_det = float(np.log(kept).sum()) + rank * log_strength
        value = n_rows * (0.5 * rank * np.log(2.0 * np.pi) - 0.5 * log_det)
        return value, np.full(self.rho_count(), -0.5 * n_rows * rank)


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class HarmonicRoughnessPenalty(DecoderQuadratic):
    """Roughness h^4 of the harmonics h >= 2 of a circle's decoder.

    Row r of the decoder belongs to the basis function r mod period of
    (1, cos t, sin t, cos 2t, sin 2t, ..).

    Parameters
    ----------
    period : int
        Odd, 2 H + 1 >= 3.
    repeats : int
        How many circles are stacked in the decoder.
    weight, weight_schedule, learnable
        See `Penalty`.
    """

    period: int
    repeats: int = 1

    KIND_TAG: ClassVar[str] = "harmonic_roughness"
    PYTHON_WRAPPER: ClassVar[str] = "HarmonicRoughnessPenalty"
    ROW_BLOCK_DIAGONAL: ClassVar[bool] = True
    FORMULA: ClassVar[str] = (
        "w / 2 sum_r c_{r mod period} ||row_r||^2,  c_h = h^4 for harmonics h >= 2, else 0")

    def __post_init__(self) -> None:
        if not _fields.integer("period", self.period, 3) % 2:
            raise InputError(f"period must be an odd integer >= 3 (2 H + 1), got {self.period!r}")
        _fields.integer("repeats", self.repeats, 1)
        super().__post_init__()

    @property
    def basis_size(self) -> int:
        """M; told without the matrix, which a wrong size would make huge."""
        return self.period * self.repeats

    def matrix(self) -> Array:
        """Diagonal of the c_h, (M, M)."""
        h = (np.arange(self.period) + 1) // 2
        return np.diag(np.tile(np.where(h >= 2, h.astype(float) ** 4, 0.0), self.repeats))


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class DecoderRidgePenalty(DecoderQuadratic):
    """Size of a decoder: a ridge on all its coefficients but those of the constant.

    Its strength is the precision of their prior, which is one where a decoder has no such penalty,
    in units of the rows' root mean square where their family has a dispersion. A search takes it no
    higher than four: an atom that is needless is always better the smaller it is, and where it is
    lost in noise Laplace's method has too low a V.

    Parameters
    ----------
    functions : int
        M >= 2 functions of the basis, of which the first is the constant.
    weight, weight_schedule, learnable
        See `Penalty`.
    """

    functions: int

    KIND_TAG: ClassVar[str] = "decoder_ridge"
    PYTHON_WRAPPER: ClassVar[str] = "DecoderRidgePenalty"
    ROW_BLOCK_DIAGONAL: ClassVar[bool] = True
    FORMULA: ClassVar[str] = "w / 2 sum_{r >= 1} ||row_r||^2"

    def __post_init__(self) -> None:
        _fields.integer("functions", self.functions, 2)
        super().__post_init__()

    @property
    def basis_size(self) -> int:
        """M; told without the matrix, which a wrong size would make huge."""
        return self.functions

    def rho_bounds(self) -> Array:
        """That of other strengths for any weight, without what is above `LEAST_SIZE`."""
        return np.column_stack([self.rho_at(STRENGTH_BOX[0]),
                                self.rho_at(-2.0 * float(np.log(LEAST_SIZE)))])

    def matrix(self) -> Array:
        """Identity without the constant, (M, M)."""
        return np.diag((np.arange(self.functions) > 0).astype(float))


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class QuadraticPenalty(DecoderQuadratic):
    """General quadratic smoothness of a decoder.

    Parameters
    ----------
    S : (M, M) array-like
        Symmetric positive semidefinite.
    weight, weight_schedule, learnable
        See `Penalty`.
    """

    S: Any

    KIND_TAG: ClassVar[str] = "quadratic"
    PYTHON_WRAPPER: ClassVar[str] = "QuadraticPenalty"
    ROW_BLOCK_DIAGONAL: ClassVar[bool] = False
    FORMULA: ClassVar[str] = "w / 2 tr(B^T S B)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "S", _checked_matrix(self.S))
        super().__post_init__()

    def matrix(self) -> Array:
        """S."""
        return self.S


def _checked_matrix(value: ArrayLike) -> Array:
    matrix = _fields.array("S", value, 2)
    if matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise InputError(f"S must be a square matrix, got shape {matrix.shape}")
    scale = np.abs(matrix).max()
    if np.abs(matrix - matrix.T).max() > 1e-10 * scale:
        raise InputError("S must be symmetric; use (S + S.T) / 2")
    lowest = float(np.linalg.eigvalsh(matrix)[0])
    if lowest < -1e-10 * scale:
        raise InputError(f"S must be positive semidefinite; its lowest eigenvalue is {lowest:.3g}")
    return matrix
