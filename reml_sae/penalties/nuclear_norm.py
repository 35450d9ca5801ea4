"""Smooth nuclear norm, P = w sum_{i<=r} (sqrt(sigma_i^2 + eps^2) - eps).

With s_i = sigma_i^2 the eigenvalues of G = T^T T and r_i = sqrt(s_i + eps^2), h = tr phi(G),
phi(s) = sqrt(s + eps^2) - eps. In the eigenbasis of G

    h'[i]     = phi'(s_i) = 1 / (2 r_i)
    h''[X]_ij = f_ij X_ij,                  f_ij  = -1 / (2 r_i r_j (r_i + r_j))
    h'''[X, Y]_ij = sum_k f_ikj (X_ik Y_kj + Y_ik X_kj),
              f_ijk = (r_i + r_j + r_k) / (2 r_i r_j r_k (r_i + r_j) (r_j + r_k) (r_i + r_k))

f_ij and f_ijk are the first and second divided differences of phi', so that ties of singular
values cancel nothing. The function is convex, so the majorizer is the Hessian.

The cap keeps the r largest; phi' counts zero beyond it, and across the cap the divided differences
are taken literally. It is still convex, with a kink where singular values tie across the cap. There
the tied ones share what the cap leaves to them in equal parts (the midpoint of the
subdifferential), and f is that share of the formulas above; the Hessian stays >= 0.

All is done in the frame T Q where G is diagonal, Q from the singular vectors of the triangular
factor of T. The Gram matrix itself would lose sigma below 1e-8 of the largest, and curvature in
another frame its small eigenvalues. Nothing is larger than d x d x d but the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np

from reml_sae.errors import InputError
from reml_sae.penalties import _fields
from reml_sae.penalties._base import PenaltyTier
from reml_sae.penalties._gram import Directions, GramPenalty, all_pairs
from reml_sae.penalties._nuclear_partition import log_nuclear_partition
from reml_sae.penalties._registry import register
from reml_sae.typing import Array, Curvature

TIE = 1e-10
"""Singular values closer than this, relative to the largest, count as tied at the cap."""


class _Spectrum(NamedTuple):
    s: Array
    """Eigenvalues of G, falling, (d,)."""
    r: Array
    """sqrt(s + eps^2), (d,)."""
    share: Array
    """One within the cap, zero beyond, between at a tie, (d,)."""


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class NuclearNormPenalty(GramPenalty):
    """Low rank of coordinates (n, d), or of a decoder (M, p) through its M x M Gram matrix.

    Parameters
    ----------
    latent_dim : int
        d of coordinates, or the basis size M of a decoder.
    eps : float
        Smoothing length > 0.
    max_rank : int, optional
        Only the largest singular values count, this many; every one by default. With it no
        normaliser is known.
    target : {"coordinates", "decoder"}
        What the penalty acts on.
    weight, weight_schedule, learnable
        See `Penalty`.
    """

    latent_dim: int
    eps: float = 0.01
    max_rank: int | None = None
    target: str = "coordinates"

    KIND_TAG: ClassVar[str] = "nuclear_norm"
    PYTHON_WRAPPER: ClassVar[str] = "NuclearNormPenalty"
    FORMULA: ClassVar[str] = "w sum_{i <= max_rank} (sqrt(sigma_i^2 + eps^2) - eps)"

    def __post_init__(self) -> None:
        _fields.integer("latent_dim", self.latent_dim, 1)
        _fields.positive("eps", self.eps)
        _fields.choice("target", self.target, ("coordinates", "decoder"))
        if self.max_rank is not None and (
                _fields.integer("max_rank", self.max_rank, 1) > self.latent_dim):
            raise InputError(
                f"max_rank must be at most latent_dim = {self.latent_dim}, got {self.max_rank!r}")
        super().__post_init__()

    @property
    def is_normalised(self) -> bool:
        """Where every singular value counts."""
        return self.max_rank is None or self.max_rank == self.latent_dim

    @property
    def is_smooth(self) -> bool:
        """Where every singular value counts; the cap has kinks at ties."""
        return self.is_normalised

    def tier(self) -> PenaltyTier:
        """The tier of the target."""
        return PenaltyTier.BETA if self.by_output() else PenaltyTier.PSI

    def by_output(self) -> bool:
        """Whether the target is a decoder."""
        return self.target == "decoder"

    def width(self) -> int:
        """Columns of the matrix view, d or M."""
        return self.latent_dim

    @cached_property
    def directions(self) -> Directions:
        """All symmetric matrices."""
        return all_pairs(self.latent_dim)

    # --- spectrum ----------------------------------------------------------------------------

    def frame(self, T: Array) -> Array:
        """Right singular vectors in columns, the largest first."""
        return np.linalg.svd(np.linalg.qr(T, mode="r"))[2].T

    def _spectrum(self, T: Array) -> _Spectrum:
        s = np.einsum("na,na->a", T, T)
        return _Spectrum(s, np.sqrt(s + self.eps**2), self._shares(np.sqrt(s)))

    def _shares(self, sigma: Array) -> Array:
        if self.is_smooth or self.max_rank is None:
            return np.ones(self.latent_dim)
        at_cap, tie = sigma[self.max_rank - 1], TIE * sigma[0]
        above = sigma > at_cap + tie
        tied = ~above & (sigma >= at_cap - tie)
        return np.where(tied, (self.max_rank - above.sum()) / tied.sum(), above)

    def _divided(self, spectrum: _Spectrum) -> Array:
        """f_ij, (d, d)."""
        s, r, share = spectrum
        level = share[:, None] == share
        gap = np.where(level, 1.0, s[:, None] - s)
        slope = 0.5 * share / r
        smooth = -0.5 * share / (r[:, None] * r * (r[:, None] + r))
        return np.where(level, smooth, (slope[:, None] - slope) / gap)

    def _twice_divided(self, spectrum: _Spectrum, f: Array) -> Array:
        """f_ijk, (d, d, d), symmetric in all its indices."""
        s, r, share = spectrum
        ri, rj, rk = np.ix_(r, r, r)
        smooth = 0.5 * share * (ri + rj + rk) / (
            ri * rj * rk * (ri + rj) * (rj + rk) * (ri + rk))
        if self.is_smooth:
            return smooth
        level = share[:, None] == share
        gap = np.where(level, 1.0, s[:, None] - s)
        by_ends = (f[:, :, None] - f[None, :, :]) / gap[:, None, :]  # (f_ij - f_jk) / (s_i - s_k)
        by_first = (f[:, None, :] - f[None, :, :]) / gap[:, :, None]  # (f_ik - f_jk) / (s_i - s_j)
        return np.where(~level[:, None, :], by_ends,
                        np.where(~level[:, :, None], by_first, smooth))

    # --- functions of the Gram matrix --------------------------------------------------------

    def gram_value(self, T: Array) -> float:
        """sum_i (r_i - eps) over the cap."""
        s, r, _ = self._spectrum(T)
        return float(np.sum((s / (r + self.eps))[: self.max_rank]))

    def gram_first(self, T: Array, which: Curvature) -> Array:
        """Diagonal share / r."""
        _, r, share = self._spectrum(T)
        return np.diag(share / r)

    def gram_core(self, T: Array, which: Curvature) -> Array:
        """Diagonal f_ij of the pairs."""
        return np.diag(self._divided(self._spectrum(T))[np.triu_indices(self.latent_dim)])

    def gram_vjp(self, T: Array, W: Array, K: Array, which: Curvature) -> Array:
        """2 f W + 2 sum_k f_ikj sum_ce K_ce S_c,ik S_e,kj."""
        spectrum = self._spectrum(T)
        f = self._divided(spectrum)
        pair, value = np.zeros(f.shape, np.intp), np.zeros(f.shape)
        lists = self.directions
        pair[lists.row, lists.column] = lists.index
        value[lists.row, lists.column] = lists.value
        # sum_ce K_ce S_c,ik S_e,kj: one pair has the entry ik and one kj
        product = value[:, :, None] * value * K[pair[:, :, None], pair]
        return 2.0 * (f * W + np.sum(self._twice_divided(spectrum, f) * product, axis=1))

    def psd_majorizer_diag(self, target: Array, rho: Array) -> Array:
        """Diagonal of the Hessian, flat.

        Along entry a of row t (in the frame) dG = q t^T + t q^T, q the row a of Q.
        """
        T = self.rows(target)
        Q = self.frame(T)
        T = T @ Q
        spectrum = self._spectrum(T)
        f = self._divided(spectrum)
        out = (2.0 * T**2 @ f + spectrum.share / spectrum.r) @ (Q**2).T
        for a, q in enumerate(Q):
            out[:, a] += 2.0 * np.einsum("na,na->n", T @ (f * np.outer(q, q)), T)
        return self.flat(self.strength(rho) * out)

    def log_partition(self, rho: Array, n_rows: int) -> tuple[float, Array] | None:
        """The exact integral over all (n_rows, d) matrices; None with a cap."""
        if not self.is_normalised:
            return None
        value, slope = log_nuclear_partition(
            n_rows, self.latent_dim, self.strength(rho), float(self.eps))
        return value, np.full(self.rho_count(), slope)
