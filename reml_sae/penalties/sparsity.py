"""Sparsity of single entries, in three forms; n counts all entries of the target.

    smooth_l1   w sum s(x),                s(x) = sqrt(x^2 + eps^2)
    log         w sum ln(1 + x^2 / eps^2)
    hoyer       w (||x||_1 / ||x||_2 - 1) / (sqrt(n) - 1)

smooth_l1 is convex, with int exp(-w s(x)) dx = 2 eps K_1(w eps) for every entry.

log: f'' = 2 w (eps^2 - x^2) / (eps^2 + x^2)^2 and b = 2 w / (eps^2 + x^2), for b - f'' =
4 w x^2 / (eps^2 + x^2)^2 >= 0. Per entry
    int (1 + x^2 / eps^2)^(-w) dx = eps sqrt(pi) Gamma(w - 1/2) / Gamma(w)    for w > 1/2 only.
With m = w - 3/4 the ratio is Gamma(m + 1/4) / Gamma(m + 3/4), whose Stirling series is even:
    ln ratio = -(1/2) ln m - 1 / (64 m^2) + 5 / (2048 m^4) + O(m^-6).

hoyer: with r = ||x||_2, u = x / r, h = ||x||_1 / r and q = sign(x) - h u (orthogonal to u)
    gradient = q / r,   H = [-h (I - u u^T) - (q u^T + u q^T)] / r^2     (times w / (sqrt(n) - 1)).
H is negative outside span(u, q), and there, in the basis u, q / |q|, it is -[[0, |q|], [|q|, h]]
with one positive eigenvalue (D - h) / 2, D = sqrt(h^2 + 4 |q|^2), of the eigenvector
v = u - 2 q / (D + h). The majorizer is this positive part of H, the least there is:
    B = (|q|^2 / D) v v^T / r^2,   smooth where P is, since D >= h >= 1.
Entries at zero (a kink of P) count with sign(0) = 0; P and its derivatives are 0 at x = 0 and
for n = 1. exp(-P) has infinite mass: P is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import gammaln, psi

from reml_sae.errors import InputError
from reml_sae.penalties import _fields
from reml_sae.penalties._base import STRENGTH_BOX
from reml_sae.penalties._curvature import RowCurvature, RowInverse
from reml_sae.penalties._elementwise import Entrywise, Placed, log_smooth_abs_partition, smooth_abs
from reml_sae.penalties._matrix import MatrixPenalty
from reml_sae.penalties._registry import register
from reml_sae.typing import Array, Curvature

VANISHING = 1e-140
"""Norm below which a target counts as zero: squares of inverses must not overflow."""
STIRLING = 1e3
"""Strength from which the series of the gamma ratio is exact to rounding."""


@dataclass(frozen=True)
class _Direction:
    """The pieces of the ratio h = ||x||_1 / ||x||_2 at a matrix x (n, d)."""

    u: Array
    q: Array
    h: float
    r: float
    scale: float

    @classmethod
    def of(cls, x: Array, strength: float) -> _Direction:
        r = float(np.linalg.norm(x))
        if r < VANISHING or x.size == 1:
            zero = np.zeros_like(x)
            return cls(zero, zero, 1.0, 1.0, 0.0)
        u = x / r
        h = float(np.abs(u).sum())
        return cls(u, np.sign(x) - h * u, h, r, strength / (np.sqrt(x.size) - 1.0))

    def pull_back(self, by_u: Array, by_q: Array, by_h: float, by_r: float) -> Array:
        """Gradient in x from the partial derivatives in u, q, h and r."""
        # du = (I - u u^T) dx / r, dr = u dx, dh = q dx / r, dq = -h du - u dh
        tangent = by_u - self.h * by_q
        tangent = tangent - np.vdot(self.u, tangent) * self.u
        return (tangent + (by_h - np.vdot(self.u, by_q)) * self.q) / self.r + by_r * self.u


class _RowBlockUnlessHoyer:
    """True of the class and of the variants that do not couple rows."""

    def __get__(self, penalty: SparsityPenalty | None, owner: type) -> bool:
        return penalty is None or penalty.variant != "hoyer"


class _Hoyer(MatrixPenalty):
    """The ratio of norms, strength / (sqrt(n) - 1) (h - 1)."""

    def value(self, target: Array, rho: Array) -> float:
        at = _Direction.of(self.rows(target), self.strength(rho))
        return at.scale * (at.h - 1.0)

    def row_gradient(self, target: Array, rho: Array) -> Array:
        at = _Direction.of(self.rows(target), self.strength(rho))
        return at.scale / at.r * at.q

    def curvature(self, target: Array, rho: Array, which: Curvature) -> RowCurvature:
        at = _Direction.of(self.rows(target), self.strength(rho))
        c = at.scale / at.r**2
        n, d = at.u.shape
        if which == "exact":
            return RowCurvature(np.broadcast_to(-c * at.h * np.eye(d), (n, d, d)),
                                columns=np.stack([at.q, at.u]),
                                core=c * np.array([[0.0, -1.0], [-1.0, at.h]]))
        square = float(np.vdot(at.q, at.q))
        D = np.hypot(at.h, 2.0 * np.sqrt(square))
        return RowCurvature(np.zeros((n, d, d)), columns=(at.u - 2.0 / (D + at.h) * at.q)[None],
                            core=np.array([[c * square / D]]))

    def curvature_vjp(
        self, target: Array, rho: Array, G: RowInverse, which: Curvature
    ) -> Array:
        at = _Direction.of(self.rows(target), self.strength(rho))
        c = at.scale / at.r**2
        if which == "exact":
            Gq, Gu = G.columns
            by_h = c * float(np.vdot(at.u, Gu) - np.einsum("naa->", G.blocks))
            total = at.h * by_h - 2.0 * c * float(np.vdot(at.q, Gu))
            return at.pull_back(2.0 * c * (at.h * Gu - Gq), -2.0 * c * Gu, by_h,
                                -2.0 * total / at.r)
        # total = c (Q / D) v^T G v with Q = |q|^2, dQ/dh = -2 h, dD/dh = -3 h / D
        square = float(np.vdot(at.q, at.q))
        D = float(np.hypot(at.h, 2.0 * np.sqrt(square)))
        slope = -3.0 * at.h / D
        a = 2.0 / (D + at.h)
        Gv = G.columns[0]
        form = c * float(np.vdot(at.u - a * at.q, Gv))
        by_v = 2.0 * c * square / D * Gv
        by_h = -form * (2.0 * at.h + square / D * slope) / D
        by_h += 0.5 * a**2 * (slope + 1.0) * float(np.vdot(at.q, by_v))
        return at.pull_back(by_v, -a * by_v, by_h, -2.0 * form * square / D / at.r)


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class SparsityPenalty(Placed, _Hoyer):
    """Sparsity of the entries of coordinates (n, d) or of a decoder.

    It is no `RowPenalty`, since the variant hoyer couples all rows; ``ROW_BLOCK_DIAGONAL`` of an
    instance says whether its own variant does not.

    Parameters
    ----------
    variant : {"smooth_l1", "log", "hoyer"}
        hoyer is improper, log is improper for w <= 1/2.
    eps : float
        Smoothing length > 0; hoyer has none.
    latent_dim : int
        Columns d of coordinates; a decoder of any shape is seen as one column.
    target : {"coordinates", "decoder"}
        What it acts on.
    weight, weight_schedule, learnable
        See `Penalty`.
    """

    variant: str = "smooth_l1"
    eps: float = 0.01
    latent_dim: int = 1

    KIND_TAG: ClassVar[str] = "sparsity"
    PYTHON_WRAPPER: ClassVar[str] = "SparsityPenalty"
    ROW_BLOCK_DIAGONAL: ClassVar[bool] = _RowBlockUnlessHoyer()  # type: ignore[assignment]
    FORMULA: ClassVar[str] = (
        "smooth_l1: w sum sqrt(x^2 + eps^2);  log: w sum ln(1 + x^2 / eps^2);  "
        "hoyer: w (||x||_1 / ||x||_2 - 1) / (sqrt(n) - 1), n entries")

    def __post_init__(self) -> None:
        _fields.choice("variant", self.variant, ("smooth_l1", "log", "hoyer"))
        _fields.positive("eps", self.eps)
        _fields.integer("latent_dim", self.latent_dim, 1)
        if self.target == "decoder" and self.latent_dim != 1:
            raise InputError(
                f"latent_dim must be left at 1 where target='decoder', got {self.latent_dim}")
        super().__post_init__()

    @property
    def is_normalised(self) -> bool:
        """False for hoyer, and for log where its weight is held at 1/2 or less."""
        held = self.learnable is not None and not self.learnable
        return self.variant == "smooth_l1" or (
            self.variant == "log" and not (held and self.weight <= 0.5))

    @property
    def is_smooth(self) -> bool:
        """False for hoyer, which has kinks."""
        return self.variant != "hoyer"

    def width(self) -> int:
        """The dimension d; 1 for a decoder."""
        return self.latent_dim

    def rows(self, target: Array) -> Array:
        """Coordinates (n, d), or a decoder as (M p, 1)."""
        return super().rows(np.ravel(target) if self.target == "decoder" else target)

    def derivative(self, t: Array, rho: Array, order: int) -> Array:
        """Of smooth_l1 or log."""
        if self.variant == "smooth_l1":
            return self.strength(rho) * smooth_abs(t, self.eps, order)
        if order == 0:
            return self.strength(rho) * np.log1p((t / self.eps) ** 2)
        s = np.hypot(t, self.eps)
        c, e = t / s, self.eps / s
        unit = (c, (e - c) * (e + c), 2.0 * c * (c**2 - 3.0 * e**2))[order - 1]
        return 2.0 * self.strength(rho) * unit / s**order

    def bound(self, t: Array, rho: Array, order: int) -> Array:
        """f'' of smooth_l1, 2 w / s^2 of log."""
        if self.variant == "smooth_l1":
            return super().bound(t, rho, order)
        s = np.hypot(t, self.eps)
        return 2.0 * self.strength(rho) * ((-2.0 * t / s / s) ** order) / s**2

    def initial_rho(self) -> Array:
        """Zero, or where log is proper."""
        start = -np.log(self.weight) if self.variant == "log" and self.weight <= 0.5 else 0.0
        return np.full(self.rho_count(), start)

    def rho_bounds(self) -> Array:
        """The usual box, for log within w > 1/2."""
        low, high = STRENGTH_BOX
        if self.variant == "log":
            low = max(low, float(np.log(0.5 * (1.0 + 1e-6) / self.weight)))
            high = max(high, low + 1.0)
        return np.tile((low, high), (self.rho_count(), 1))

    def log_partition(self, rho: Array, n_rows: int) -> tuple[float, Array] | None:
        """Exact for smooth_l1 and log, None where improper.

        Raises
        ------
        InputError
            Where rho takes log to w <= 1/2, out of ``rho_bounds``.
        """
        w = self.strength(rho)
        if not self.is_normalised:
            return None
        if self.variant == "smooth_l1":
            log_z, slope = map(float, log_smooth_abs_partition(np.array(w), self.eps))
        else:
            if w <= 0.5:
                raise InputError(f"rho: {self.KIND_TAG} of variant 'log' is a proper prior for "
                                 f"weight * exp(rho) > 1/2 only, got {w:.6g}")
            log_z, slope = _log_student_partition(w, self.eps)
        count = n_rows * self.latent_dim
        return count * log_z, np.full(self.rho_count(), count * slope)

    def _form(self) -> type[MatrixPenalty]:
        return _Hoyer if self.variant == "hoyer" else Entrywise

    def value(self, target: Array, rho: Array) -> float:
        """P, strength folded in."""
        return self._form().value(self, target, rho)

    def row_gradient(self, target: Array, rho: Array) -> Array:
        """Exact gradient in the matrix view, (n, d)."""
        return self._form().row_gradient(self, target, rho)

    def curvature(self, target: Array, rho: Array, which: Curvature) -> RowCurvature:
        """Diagonal blocks, for hoyer with low-rank columns."""
        return self._form().curvature(self, target, rho, which)

    def curvature_vjp(
        self, target: Array, rho: Array, G: RowInverse, which: Curvature
    ) -> Array:
        """Gradient (n, d) of <G, B> in the target."""
        return self._form().curvature_vjp(self, target, rho, G, which)

    def hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """Exact Hessian times a flat vector."""
        return self._form().hvp(self, target, rho, v)

    def hessian_diag(self, target: Array, rho: Array) -> Array | None:
        """Flat; None for hoyer."""
        return self._form().hessian_diag(self, target, rho)

    def psd_majorizer_diag(self, target: Array, rho: Array) -> Array:
        """Diagonal of the majorizer, flat."""
        return self._form().psd_majorizer_diag(self, target, rho)

    def psd_majorizer_hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """Majorizer times a flat vector."""
        return self._form().psd_majorizer_hvp(self, target, rho, v)


def _log_student_partition(w: float, eps: float) -> tuple[float, float]:
    """Log of int (1 + x^2 / eps^2)^(-w) dx, and its derivative in log w."""
    m = w - 0.75
    if w < STIRLING:
        ratio = gammaln(w - 0.5) - gammaln(w)
        slope = w * (psi(w - 0.5) - psi(w))
    else:
        ratio = -0.5 * np.log(m) - (1.0 - 5.0 / (32.0 * m**2)) / (64.0 * m**2)
        slope = w / m * (-0.5 + (1.0 - 5.0 / (16.0 * m**2)) / (32.0 * m**2))
    return float(np.log(eps) + 0.5 * np.log(np.pi) + ratio), float(slope)
