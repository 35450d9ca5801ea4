"""Gaussian priors whose precision differs from row to row.

row_precision_prior:  P = w / 2 sum_n t_n^T Lambda_n t_n, with fixed positive definite Lambda_n:
    log C = (n d / 2) log(2 pi / w) - 1/2 sum_n log |Lambda_n|.

parametric_row_precision_prior:  the precision is a function of auxiliary data u_n of the row,
    P = 1/2 sum lambda_nk t_nk^2 - 1/2 sum ln lambda_nk,
    lambda_nk = w (exp(alpha_k) + softplus(b_k) ||u_n - mu_k||^2),
with rho = (alpha, b, mu flat). P carries its normaliser, so log C = (n d / 2) log 2 pi. Every
derivative in rho is one contraction with the slopes of lambda:
    d lambda = w exp(alpha_k),  w sigmoid(b_k) ||u_n - mu_k||^2,  -2 w softplus(b_k) (u_n - mu_k).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from reml_sae.errors import InputError
from reml_sae.penalties import _fields
from reml_sae.penalties._base import RHO_LIMIT, STRENGTH_BOX
from reml_sae.penalties._curvature import RowInverse
from reml_sae.penalties._elementwise import diagonal_blocks
from reml_sae.penalties._matrix import RowPenalty
from reml_sae.penalties._registry import register
from reml_sae.penalties.ard import axis_spread
from reml_sae.typing import Array, Curvature


class _HeldRows(RowPenalty):
    """A penalty that holds a value for every row, in the field that ``PER_ROW`` names."""

    PER_ROW: ClassVar[str]

    def n_rows_expected(self) -> int:
        """Rows that it holds values for."""
        return len(getattr(self, self.PER_ROW))

    def restrict(self, index: NDArray[np.intp], n_rows: int) -> Self:
        """The penalty for some of its rows."""
        self._check_rows(n_rows)
        return replace(self, **{self.PER_ROW: getattr(self, self.PER_ROW)[index]})

    def _check_rows(self, n_rows: int) -> None:
        if n_rows != self.n_rows_expected():
            raise InputError(
                f"{self.PER_ROW}: {self.KIND_TAG} holds values for {self.n_rows_expected()} rows, "
                f"asked for {n_rows}")

    def row_blocks_vjp(self, target: Array, rho: Array, weights: Array) -> Array:
        """Zero: the Hessian does not depend on the target."""
        return np.zeros_like(self.rows(target))


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class AuxConditionalPriorPenalty(_HeldRows):
    """Gaussian prior with a fixed precision for each row; target: coordinates (n, d).

    Parameters
    ----------
    precisions : (n, d, d) array-like
        Symmetric positive definite Lambda_n.
    weight, weight_schedule, learnable
        See `Penalty`.
    """

    precisions: Any

    KIND_TAG: ClassVar[str] = "row_precision_prior"
    PYTHON_WRAPPER: ClassVar[str] = "AuxConditionalPriorPenalty"
    FORMULA: ClassVar[str] = "w / 2 sum_n t_n^T precisions_n t_n"
    PER_ROW: ClassVar[str] = "precisions"

    def __post_init__(self) -> None:
        object.__setattr__(self, "precisions", _checked_precisions(self.precisions))
        super().__post_init__()

    @property
    def is_quadratic(self) -> bool:
        """True."""
        return True

    def width(self) -> int:
        """The dimension d."""
        return self.precisions.shape[1]

    @cached_property
    def _log_det(self) -> float:
        return float(np.linalg.slogdet(self.precisions)[1].sum())

    def row_values(self, target: Array, rho: Array) -> Array:
        """P of every row, (n,)."""
        return 0.5 * (self.rows(target) * self.row_gradient(target, rho)).sum(1)

    def row_gradient(self, target: Array, rho: Array) -> Array:
        """Gradient w Lambda_n t_n, (n, d)."""
        return self.strength(rho) * np.einsum("nab,nb->na", self.precisions, self.rows(target))

    def row_blocks(self, target: Array, rho: Array) -> Array:
        """Blocks w Lambda_n, (n, d, d)."""
        self.rows(target)
        return self.strength(rho) * self.precisions

    def log_partition(self, rho: Array, n_rows: int) -> tuple[float, Array]:
        """Exact; ``n_rows`` must be the number of precisions."""
        self._check_rows(n_rows)
        half = 0.5 * n_rows * self.width()
        value = half * np.log(2.0 * np.pi / self.strength(rho)) - 0.5 * self._log_det
        return float(value), np.full(self.rho_count(), -half)


def _checked_precisions(value: Any) -> Array:
    out = _fields.array("precisions", value, 3)
    if out.shape[1] != out.shape[2] or not out.shape[1]:
        raise InputError(f"precisions must have shape (n, d, d), got {out.shape}")
    size = np.abs(out).max(axis=(1, 2))
    skew = np.abs(out - out.transpose(0, 2, 1)).max(axis=(1, 2))
    bad = np.flatnonzero(skew > 1e-10 * size)
    if bad.size:
        raise InputError(f"precisions[{bad[0]}] must be symmetric; use (A + A.T) / 2")
    lowest = np.linalg.eigvalsh(out)[:, 0]
    bad = np.flatnonzero(lowest <= np.finfo(float).eps * size)
    if bad.size:
        raise InputError(
            f"precisions[{bad[0]}] must be positive definite; its lowest eigenvalue is "
            f"{lowest[bad[0]]:.3g}")
    return out


@register
@dataclass(frozen=True, kw_only=True, eq=False)
class ParametricAuxConditionalPriorPenalty(_HeldRows):
    """Gaussian prior whose precisions grow with the distance of auxiliary data from a centre.

    Parameters
    ----------
    aux : (n, d_u) array-like
        Auxiliary data u_n of every row.
    latent_dim : int
        d >= 1.
    centre : (d_u,) array-like, optional
        Where every mu_k starts; the mean of aux by default.
    weight, weight_schedule
        See `Penalty`.
    learnable : bool, optional
        True by default; False holds alpha and b at 0 and every mu_k at the centre.
    """

    aux: Any
    latent_dim: int
    centre: Any = None

    KIND_TAG: ClassVar[str] = "parametric_row_precision_prior"
    PYTHON_WRAPPER: ClassVar[str] = "ParametricAuxConditionalPriorPenalty"
    FORMULA: ClassVar[str] = (
        "1/2 sum lambda_nk t_nk^2 - 1/2 sum ln lambda_nk,  "
        "lambda_nk = w (exp(alpha_k) + softplus(b_k) ||aux_n - mu_k||^2)")
    PER_ROW: ClassVar[str] = "aux"

    def __post_init__(self) -> None:
        aux = _fields.array("aux", self.aux, 2)
        if not aux.shape[1] or (not len(aux) and self.centre is None):
            raise InputError(f"aux must have rows and columns, got shape {aux.shape}")
        _fields.integer("latent_dim", self.latent_dim, 1)
        centre = _fields.array("centre", aux.mean(0) if self.centre is None else self.centre, 1)
        if centre.shape != aux.shape[1:]:
            raise InputError(
                f"centre must have {aux.shape[1]} entries, the columns of aux, got {centre.size}")
        object.__setattr__(self, "aux", aux)
        object.__setattr__(self, "centre", centre)
        super().__post_init__()

    def width(self) -> int:
        """The dimension d."""
        return self.latent_dim

    def n_strengths(self) -> int:
        """Number of entries of alpha, b and mu."""
        return self.latent_dim * (2 + self.aux.shape[1])

    def _start(self) -> Array:
        d = self.latent_dim
        return np.concatenate([np.zeros(2 * d), np.tile(self.centre, d)])

    def initial_rho(self) -> Array:
        """Zero b, mu at the centre, alpha spread: equal axes could be rotated into each other."""
        start = self._start()
        start[: self.latent_dim] = axis_spread(self.latent_dim)
        return start[: self.rho_count()]

    def rho_bounds(self) -> Array:
        """The usual box for alpha and b; for mu the range of aux, widened by itself."""
        low, high = self.aux.min(0), self.aux.max(0)
        span = np.where(high > low, high - low, 1.0)
        box = np.stack([low - span, high + span], axis=1)
        d = self.latent_dim
        bounds = np.concatenate([np.tile(STRENGTH_BOX, (2 * d, 1)), np.tile(box, (d, 1))])
        return bounds[: self.rho_count()]

    def rho_labels(self) -> tuple[str, ...]:
        """.alpha0 .., .b0 .., .mu0.0 .."""
        axes = range(self.latent_dim)
        labels = [f".{name}{k}" for name in ("alpha", "b") for k in axes]
        labels += [f".mu{k}.{a}" for k in axes for a in range(self.aux.shape[1])]
        return tuple(labels[: self.rho_count()])

    def _parameters(self, rho: Array) -> tuple[Array, Array, Array]:
        """Alpha (d,), b (d,) and mu (d, d_u)."""
        rho = np.atleast_1d(np.asarray(rho, float))
        if rho.shape != (self.rho_count(),):
            raise InputError(
                f"{self.KIND_TAG}: rho must have {self.rho_count()} entries, got {rho.shape}")
        if not self.learnable:
            rho = self._start()
        d = self.latent_dim
        if not (np.abs(rho[: 2 * d]) <= RHO_LIMIT).all() or not np.isfinite(rho[2 * d:]).all():
            raise InputError(
                f"{self.KIND_TAG}: rho must hold alpha and b in [-{RHO_LIMIT:g}, {RHO_LIMIT:g}] "
                f"and finite mu, got {rho}")
        return rho[:d], rho[d: 2 * d], rho[2 * d:].reshape(d, -1)

    def strengths(self, rho: Array) -> Array:
        """w exp(alpha), w softplus(b) and mu flat, (n_strengths,)."""
        alpha, b, mu = self._parameters(rho)
        scales = self.weight * np.exp(alpha), self.weight * np.logaddexp(0.0, b)
        return np.concatenate([*scales, mu.ravel()])

    def _precision(self, rho: Array) -> tuple[Array, Array]:
        """lambda (n, d), and its slopes in alpha_k, b_k and mu_ka, (2 + d_u, n, d)."""
        alpha, b, mu = self._parameters(rho)
        offset = self.aux.T[:, :, None] - mu.T[:, None, :]
        distance = (offset**2).sum(0)
        base = self.weight * np.exp(alpha)
        gain = self.weight * np.logaddexp(0.0, b)
        slopes = np.concatenate([np.broadcast_to(base, (1, *distance.shape)),
                                 (self.weight * expit(b) * distance)[None],
                                 -2.0 * gain * offset])
        return base + gain * distance, slopes

    def _in_order(self, by_column: Array) -> Array:
        """(2 + d_u, d, ..) in the order of rho, (rho_count, ..)."""
        (count, d), rest = by_column.shape[:2], by_column.shape[2:]
        strengths = by_column[:2].reshape(2 * d, *rest)
        mu = np.moveaxis(by_column[2:], 0, 1).reshape((count - 2) * d, *rest)
        return np.concatenate([strengths, mu])[: self.rho_count()]

    def row_values(self, target: Array, rho: Array) -> Array:
        """P of every row, (n,)."""
        precision = self._precision(rho)[0]
        return 0.5 * (precision * self.rows(target) ** 2 - np.log(precision)).sum(1)

    def row_gradient(self, target: Array, rho: Array) -> Array:
        """Gradient lambda t, (n, d)."""
        return self._precision(rho)[0] * self.rows(target)

    def hessian_diag(self, target: Array, rho: Array) -> Array:
        """Lambda, flat."""
        self.rows(target)
        return self._precision(rho)[0].ravel()

    def row_blocks(self, target: Array, rho: Array) -> Array:
        """Diag(lambda_n), (n, d, d)."""
        self.rows(target)
        return diagonal_blocks(self._precision(rho)[0])

    def grad_rho(self, target: Array, rho: Array) -> Array:
        """Sum of (t^2 - 1 / lambda) / 2 times the slopes of lambda."""
        precision, slopes = self._precision(rho)
        by_precision = 0.5 * (self.rows(target) ** 2 - 1.0 / precision)
        return self._in_order(np.einsum("snk,nk->sk", slopes, by_precision))

    def grad_target_rho(self, target: Array, rho: Array) -> Array:
        """t times the slopes of lambda, each on its own axis, (rho_count, n, d)."""
        by_column = self._precision(rho)[1] * self.rows(target)
        return self._in_order(np.eye(self.latent_dim)[:, None, :] * by_column[:, None])

    def curvature_rho(
        self, target: Array, rho: Array, G: RowInverse, which: Curvature
    ) -> Array:
        """Sum over rows of G_nkk times the slopes of lambda_nk, (rho_count,)."""
        return self._in_order(np.einsum("snk,nkk->sk", self._precision(rho)[1], G.blocks))

    def log_partition(self, rho: Array, n_rows: int) -> tuple[float, Array]:
        """(n d / 2) log 2 pi; the dependence on rho is in the value."""
        self._parameters(rho)
        self._check_rows(n_rows)
        value = 0.5 * n_rows * self.latent_dim * np.log(2.0 * np.pi)
        return value, np.zeros(self.rho_count())
