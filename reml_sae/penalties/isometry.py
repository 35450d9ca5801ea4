"""Departure of a decoder from a scaled isometry.

    P = (w / 2) sum_n ||g_n / gbar - I||_F^2,   g_n = J_n^T W_n J_n
    gbar = sum_n tr g_n / N,  N = n d

P does not change under J -> c J, so all is computed for J / sqrt(gbar), whose gbar is 1; the
Hessian at J is the one there over gbar. With Z = W J, X = Z g, kappa = sum_n ||g_n||^2 / N, S = g -
kappa I and, for a direction V, x = <X, V> and z = <Z, V>:

    grad P   = 2 w Z S
    <V, H V> = 2 w sum_n [tr(V^T W V S) + tr((V^T Z)^2) + ||Z^T V||^2]
               + (4 w / N)(3 kappa z^2 - 4 x z)

Gauss-Newton is the square of the residual's derivative V^T Z + Z^T V - 2 g z / N:

    2 w sum_n [tr((V^T Z)^2) + ||Z^T V||^2] + (4 w / N)(kappa z^2 - 2 x z)  >= 0

It leaves out 2 w sum_n tr(V^T W V S) + (8 w / N)(kappa z^2 - x z), which has either sign: alone it
is no majorizer. B adds smooth positive bounds of both terms that vanish, up to delta, at an
isometry:

    S <= (S + b I) / 2,   b = sqrt(||S||_F^2 + delta^2 kappa^2)
    2 (kappa z^2 - x z) = 2 kappa z (z - x / kappa) <= kappa [t z^2 + (z - x / kappa)^2 / t]

for any t > 0; t^2 = kappa - 1 + delta^2, where kappa - 1 = sum_n ||g_n - I||^2 / N.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError
from reml_sae.penalties import _fields
from reml_sae.penalties._curvature import RowCurvature, RowInverse
from reml_sae.penalties._matrix import Held, MatrixPenalty
from reml_sae.penalties._registry import register
from reml_sae.typing import Array, Curvature

SMOOTHING = 0.1
"""delta of the majorizer; gbar is 1."""


class _State(NamedTuple):
    """The target scaled to gbar = 1, as in the module's docstring."""

    Z: Array
    g: Array
    X: Array
    S: Array
    kappa: float
    departure: Array
    """g - I."""
    per_length: float
    """1 / sqrt(gbar); 0 where J = 0, at which P has no derivative."""


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class IsometryPenalty(Held, MatrixPenalty):
    """Penalty on decoder Jacobians that stretch unequally; target: J (n, p, d), as (n, p d).

    Parameters
    ----------
    n_outputs : int
        p >= 1.
    latent_dim : int
        d >= 1.
    metric : (p, p) or (n, p, p) array, optional
        W, symmetric positive definite; the identity by default.
    weight, weight_schedule
        See `Penalty`. The weight is fixed: the prior is improper.
    """

    n_outputs: int
    latent_dim: int
    metric: Array | None = None

    KIND_TAG: ClassVar[str] = "isometry"
    PYTHON_WRAPPER: ClassVar[str] = "IsometryPenalty"
    FORMULA: ClassVar[str] = (
        "w / 2 sum_n ||g_n / gbar - I||_F^2,  g_n = J_n^T W_n J_n,  W = metric,  "
        "gbar = mean_n tr(g_n) / d"
    )

    def __post_init__(self) -> None:
        p = _fields.integer("n_outputs", self.n_outputs, 1)
        _fields.integer("latent_dim", self.latent_dim, 1)
        if self.metric is not None:
            per_row = np.ndim(self.metric) == 3
            metric = _fields.array("metric", self.metric, 3 if per_row else 2)
            if metric.shape[-2:] != (p, p) or not metric.size:
                raise InputError(f"metric must be ({p}, {p}) or (n, {p}, {p}), got {metric.shape}")
            if np.abs(metric - metric.swapaxes(-1, -2)).max() > 1e-10 * np.abs(metric).max() \
                    or (np.linalg.eigvalsh(metric)[..., 0] <= 0.0).any():
                raise InputError("metric must be symmetric positive definite")
            object.__setattr__(self, "metric", metric)
        super().__post_init__()

    def acts_on(self) -> str:
        """Jacobians of a decoder."""
        return "jacobians"

    def width(self) -> int:
        """Entries p d of a Jacobian."""
        return self.n_outputs * self.latent_dim

    def n_rows_expected(self) -> int | None:
        """Rows of ``metric`` where it has rows."""
        return len(self.metric) if self.metric is not None and self.metric.ndim == 3 else None

    def restrict(self, index: NDArray[np.intp], n_rows: int) -> Self:
        """The penalty on some rows."""
        if self.metric is None or self.metric.ndim == 2:
            return self
        return replace(self, metric=self.metric[index])

    # --- pieces ------------------------------------------------------------------------------

    def _jacobians(self, target: Array) -> Array:
        """J, (n, p, d)."""
        target = np.asarray(target, float)
        return self.rows(target.reshape(len(target), -1) if target.ndim == 3 else target).reshape(
            -1, self.n_outputs, self.latent_dim)

    def _metric_times(self, J: Array) -> Array:
        return J if self.metric is None else self.metric @ J

    def _state(self, target: Array) -> _State:
        J = self._jacobians(target)
        Z = self._metric_times(J)
        eye, size = np.eye(self.latent_dim), len(J) * self.latent_dim
        gbar = float(np.vdot(J, Z)) / size
        per_area = 1.0 / gbar if gbar > np.finfo(float).tiny else 0.0
        Z = Z * np.sqrt(per_area)
        g = J.transpose(0, 2, 1) @ Z * np.sqrt(per_area)
        departure = g - eye
        kappa = 1.0 + float((departure**2).sum()) / size
        return _State(Z, g, Z @ g, g - kappa * eye, kappa, departure, float(np.sqrt(per_area)))

    def _middle(self, s: _State, which: Curvature) -> tuple[Array, Array]:
        """Factor M (n, d, d) of tr(V^T W V M) in half a Hessian, and b (n,)."""
        b = np.sqrt((s.S**2).sum(axis=(1, 2)) + (SMOOTHING * s.kappa) ** 2)
        if which == "exact":
            return s.S, b
        return 0.5 * (s.S + b[:, None, None] * np.eye(self.latent_dim)), b

    def _core(self, s: _State, which: Curvature) -> tuple[Array, Array]:
        """Core (2, 2) over the columns X and Z, without w, and its derivative in kappa."""
        size, k = len(s.g) * self.latent_dim, s.kappa
        if which == "exact":
            core = np.array([[0.0, -2.0], [-2.0, 3.0 * k]])
            slope = np.array([[0.0, 0.0], [0.0, 3.0]])
        else:
            t = np.sqrt(k - 1.0 + SMOOTHING**2)
            dt = 0.5 / t
            xz, dxz = -1.0 - 1.0 / t, dt / t**2
            core = np.array([[1.0 / (k * t), xz], [xz, k * (1.0 + t + 1.0 / t)]])
            slope = np.array([[-(1.0 / k + dt / t) / (k * t), dxz],
                              [dxz, 1.0 + t + 1.0 / t + k * dt * (1.0 - 1.0 / t**2)]])
        return 4.0 / size * core, 4.0 / size * slope

    # --- value and derivatives ---------------------------------------------------------------

    def value(self, target: Array, rho: Array) -> float:
        """P at the weight."""
        return 0.5 * self.strength(rho) * float((self._state(target).departure ** 2).sum())

    def row_gradient(self, target: Array, rho: Array) -> Array:
        """Gradient, (n, p d)."""
        s = self._state(target)
        return (2.0 * self.strength(rho) * s.per_length * s.Z @ s.S).reshape(len(s.g), -1)

    def _apply(self, target: Array, rho: Array, v: Array, which: Curvature) -> Array:
        """Operator times a vector, flat, in O(n p d) memory."""
        s, V = self._state(target), self._jacobians(v)
        ZV = s.Z.transpose(0, 2, 1) @ V
        out = 2.0 * (self._metric_times(V) @ self._middle(s, which)[0]
                     + s.Z @ (ZV + ZV.transpose(0, 2, 1)))
        x, z = self._core(s, which)[0] @ [np.vdot(s.X, V), np.vdot(s.Z, V)]
        return (self.strength(rho) * s.per_length**2 * (out + x * s.X + z * s.Z)).ravel()

    def hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """Exact Hessian times a flat vector."""
        return self._apply(target, rho, v, "exact")

    def psd_majorizer_hvp(self, target: Array, rho: Array, v: Array) -> Array:
        """Majorizer times a flat vector."""
        return self._apply(target, rho, v, "majorizer")

    def psd_majorizer_diag(self, target: Array, rho: Array) -> Array:
        """Diagonal of the majorizer, flat."""
        s = self._state(target)
        middle = np.einsum("naa->na", self._middle(s, "majorizer")[0])[:, None, :]
        own = np.ones(self.n_outputs) if self.metric is None \
            else np.einsum("...ii->...i", self.metric)
        out = 2.0 * (own[..., None] * middle + s.Z**2 + (s.Z**2).sum(axis=2, keepdims=True))
        core = self._core(s, "majorizer")[0]
        out += core[0, 0] * s.X**2 + 2.0 * core[0, 1] * s.X * s.Z + core[1, 1] * s.Z**2
        return (self.strength(rho) * s.per_length**2 * out).ravel()

    def curvature(self, target: Array, rho: Array, which: Curvature) -> RowCurvature:
        """Blocks (n, p d, p d), and the columns X and Z."""
        s = self._state(target)
        n, p, d = s.Z.shape
        scale = self.strength(rho) * s.per_length**2
        metric = np.eye(p) if self.metric is None else self.metric
        blocks = np.einsum("nij,nab->niajb", np.broadcast_to(metric, (n, p, p)),
                           self._middle(s, which)[0])
        blocks += np.einsum("nib,nja->niajb", s.Z, s.Z)
        blocks += np.einsum("nic,njc,ab->niajb", s.Z, s.Z, np.eye(d))
        return RowCurvature(2.0 * scale * blocks.reshape(n, p * d, p * d),
                            columns=np.stack([s.X, s.Z]).reshape(2, n, p * d),
                            core=scale * self._core(s, which)[0])

    def curvature_vjp(
        self, target: Array, rho: Array, G: RowInverse, which: Curvature
    ) -> Array:
        """Gradient (n, p d) of <G, B>, by the chain rule from the pieces back to J."""
        s = self._state(target)
        n, p, d = s.Z.shape
        size = n * d
        blocks = G.blocks.reshape(n, p, d, p, d)
        if self.metric is None:
            by_middle = np.einsum("niaib->nab", blocks)
        else:
            by_middle = np.einsum("nij,niajb->nab", np.broadcast_to(self.metric, (n, p, p)), blocks)
        middle, b = self._middle(s, which)
        core, core_slope = self._core(s, which)
        GX, GZ = G.columns.reshape(2, n, p, d)
        crossed = np.einsum("niajb,nja->nib", blocks, s.Z)
        crossed += np.einsum("niaja,njb->nib", blocks, s.Z)
        weights = np.array([[np.vdot(s.X, GX), np.vdot(s.X, GZ)],
                            [np.vdot(s.Z, GX), np.vdot(s.Z, GZ)]])
        inner = (2.0 * (np.vdot(by_middle, middle) + np.vdot(s.Z, crossed))
                 + np.vdot(core, weights))
        # derivatives of the sum above by S, kappa, X, Z, then by g through S, kappa and X
        by_kappa = np.vdot(core_slope, weights)
        by_S = 2.0 * by_middle
        if which == "majorizer":
            trace = np.einsum("naa->n", by_middle)
            by_S = by_middle + (trace / b)[:, None, None] * s.S
            by_kappa += SMOOTHING**2 * s.kappa * (trace / b).sum()
        by_kappa -= np.einsum("naa->", by_S)
        by_X = 2.0 * (core[0, 0] * GX + core[0, 1] * GZ)
        by_Z = 4.0 * crossed + 2.0 * (core[1, 0] * GX + core[1, 1] * GZ) + by_X @ s.g
        through = s.Z.transpose(0, 2, 1) @ by_X
        by_g = by_S + 0.5 * (through + through.transpose(0, 2, 1)) + 2.0 * by_kappa / size * s.g
        # g = J^T Z: J at fixed Z and Z at fixed J count alike, and Z = W J
        by_J = 2.0 * s.Z @ by_g + self._metric_times(by_Z)
        # <G, B> = w / gbar times a function of J / sqrt(gbar)
        J = self._jacobians(target) * s.per_length
        by_J -= s.Z * ((2.0 * inner + np.vdot(by_J, J)) / size)
        return (self.strength(rho) * s.per_length**3 * by_J).reshape(n, -1)
