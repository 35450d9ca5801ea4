"""Rows of unequal scale: a multivariate t with nu degrees of freedom (DESIGN G2).

    z_i | eta_i, w_i ~ N(eta_i, phi I / w_i),    w_i ~ Gamma(nu / 2, nu / 2)

With r = z - eta, d^2 = |r|^2 / phi and w_i integrated out, exactly, the loss of a row of p entries
is

    (nu + p) / 2 log(1 + d^2 / nu) + p / 2 log(2 pi phi) + c(nu)
    c = p / 2 - (nu + p - 1) / 2 log(1 + p / nu) + e(nu / 2) - e((nu + p) / 2)

with Stirling's error e, and c = 0 in the limit nu -> infinity, which is the Gaussian. With the IRLS
weight w = (nu + p) / (nu + d^2), the posterior mean of w_i, and kappa = 2 / (nu + p),

    s = -dl/deta = w r / phi,      d2l/deta2 = w / phi I - kappa s s^T,      dw = kappa w s . deta

so that a row has one weight for all its entries, and beside it a part of rank one: what w_i, known
no better than kappa, leaves uncertain of the mean. psi is (log phi, log nu).
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import gammaln, kve

from reml_sae.errors import InputError
from reml_sae.families._base import (
    GAUSSIAN_STEP,
    LOG_DISPERSION,
    UNIT_FREE_BOX,
    Family,
    ScaledFamily,
)
from reml_sae.families._checks import check_finite, check_order
from reml_sae.families._special import LOG_2PI, digamma_error, stirling_error
from reml_sae.typing import Array

LOG_DF = "log_df"
DF_BOX = (0.5, 1e6)
"""Degrees of freedom that are looked for; at the upper end rows are Gaussian in all but name."""
MOST_DF = 1e12
"""Of those that are given: beyond, squares overflow."""
LARGEST_DISTANCE = 1e150
LEAST_SQUARE = 1e-20
"""Mean square of a row, relative to the largest, below which rows have no scale of their own."""
MOST_SIZE = 200.0
"""Degrees of freedom and columns together, of which more change no spacing of nodes."""
STEPS, SETTLED = 200, 1e-10


@dataclass(frozen=True)
class StudentTRows(ScaledFamily):
    """Gaussian rows with a scale of their own; see `Family`, of which entries are those of rows.

    Parameters
    ----------
    df : float, optional
        Degrees of freedom nu; chosen by V where it is not given.
    """

    df: float | None = None

    name: ClassVar[str] = "student_t"
    link: ClassVar[str] = "identity"
    has_dispersion: ClassVar[bool] = True
    row_weights: ClassVar[bool] = True

    def __post_init__(self) -> None:
        df = self.df
        low, high = DF_BOX[0], MOST_DF
        if df is not None and not (isinstance(df, numbers.Real) and not isinstance(df, bool)
                                   and low <= df <= high):
            raise InputError(f"row_noise: df, the degrees of freedom, must be from {low:g} to "
                             f"{high:g}, or None to choose it by V, got {df!r}")

    def check(self, z: Array) -> None:
        """Refuse entries that are not finite."""
        check_finite(z, "Gaussian")

    # --- outer parameters ----------------------------------------------------------------------

    @property
    def psi_names(self) -> tuple[str, ...]:
        """The log dispersion, and the log degrees of freedom where V chooses them."""
        return (LOG_DISPERSION, LOG_DF) if self.df is None else (LOG_DISPERSION,)

    def psi_bounds(self) -> Array:
        """Box of log phi and of log nu."""
        return np.array([UNIT_FREE_BOX, np.log(DF_BOX)])[: self.n_psi]

    def degrees(self, psi: Array) -> float:
        """Degrees of freedom nu."""
        return float(np.exp(psi[1])) if self.df is None else float(self.df)

    def is_limit(self, psi: Array) -> bool:
        """Whether nu is at the end of its box, or near it, where rows are Gaussian."""
        return self.df is None and bool(psi[1] > np.log(0.5 * DF_BOX[1]))

    def initial_psi(self, z: Array) -> Array:
        """Of greatest likelihood about the medians of the columns."""
        return self.best_psi(z - np.median(z, axis=0))

    def best_psi(self, residual: Array) -> Array:
        """Of greatest likelihood for rows (n, p) that are left."""
        squares, p = (residual**2).sum(axis=1), residual.shape[1]
        top = float(squares.max(initial=0.0))
        if not top > 0.0:
            return np.clip(np.full(self.n_psi, -np.inf), *self.psi_bounds().T)
        squares = np.maximum(squares / top, LEAST_SQUARE)
        phi, before = float(np.median(squares)) / p, np.inf
        nu = float(p) if self.df is None else float(self.df)
        for _ in range(STEPS):
            if self.df is None:
                nu = self._best_df(squares / phi, p)
            # the parameter-expanded EM step (Liu, Rubin and Wu 1998)
            w = (nu + p) / (nu + squares / phi)
            phi = float(w @ squares) / (p * float(w.sum()))
            if abs(phi / before - 1.0) < SETTLED:
                break
            before = phi
        psi = np.log([phi * top, nu])[: self.n_psi]
        return np.clip(psi, *self.psi_bounds().T)

    def _best_df(self, distances: Array, p: int) -> float:
        def loss(log_nu: float) -> float:
            return float(self._row_loss(distances, p, np.array([0.0, log_nu])).sum())

        low, high = np.log(DF_BOX)
        found = minimize_scalar(loss, bounds=(low, high), method="bounded")
        return float(np.exp(found.x if found.fun < loss(high) else high))

    def settled_psi(self, squares: Array, p: int, psi: Array) -> Array:
        """The parameters with nu of greatest likelihood at this phi, for rows of these lengths."""
        if self.df is not None:
            return psi
        distances = np.minimum(squares / self.dispersion(psi), LARGEST_DISTANCE)
        return np.array([psi[0], np.log(self._best_df(distances, p))])

    def centre_and_scale(self, data: Array) -> tuple[Array, float]:
        """Centre (p,) and root of phi of greatest likelihood for rows (n, p) without a mean."""
        centre = np.median(data, axis=0)
        for _ in range(STEPS):
            psi = self.best_psi(data - centre)
            w = self.row_weight(data, centre, psi)
            moved = w @ data / w.sum()
            gap, centre = float(np.abs(moved - centre).max()), moved
            if gap < SETTLED * float(np.sqrt(self.dispersion(psi))):
                break
        return centre, float(np.sqrt(self.dispersion(psi)))

    # --- loss ----------------------------------------------------------------------------------

    def _distances(self, z: Array, eta: Array, psi: Array) -> Array:
        """d^2, (..)."""
        with np.errstate(over="ignore"):
            squares = ((np.asarray(z, float) - eta) ** 2).sum(axis=-1)
            return np.minimum(squares / self.dispersion(psi), LARGEST_DISTANCE)

    def _row_loss(self, distances: Array, p: int, psi: Array) -> Array:
        nu = self.degrees(psi)
        constant = 0.5 * p * (LOG_2PI + psi[0]) + 0.5 * p
        constant -= 0.5 * (nu + p - 1.0) * np.log1p(p / nu)
        constant += float(stirling_error(0.5 * nu) - stirling_error(0.5 * (nu + p)))
        return 0.5 * (nu + p) * np.log1p(distances / nu) + constant

    def loss(self, z: Array, eta: Array, psi: Array) -> Array:
        """Its row's loss over p, for every entry."""
        shape = np.broadcast_shapes(np.shape(z), np.shape(eta))
        rows = self._row_loss(self._distances(z, eta, psi), shape[-1], psi) / shape[-1]
        return np.broadcast_to(rows[..., None], shape)

    def row_losses(self, squares: Array, p: int, psi: Array) -> tuple[Array, Array]:
        """Losses and weights of rows of p entries at these squared distances |r|^2 (..)."""
        nu = self.degrees(psi)
        distances = np.minimum(squares / self.dispersion(psi), LARGEST_DISTANCE)
        return self._row_loss(distances, p, psi), (nu + p) / (nu + distances)

    def saturated_loss(self, z: Array, psi: Array) -> Array:
        """Its row's loss at eta = z over p."""
        return self.loss(z, z, psi)

    def saturated_loss_psi(self, z: Array, psi: Array) -> Array:
        """1/2; a read-only view of one number."""
        return np.broadcast_to(np.asarray(0.5), np.shape(z))

    def deviance(self, z: Array, eta: Array, psi: Array) -> Array:
        """Squares at the weight of their row, w r^2, which is what carries 1 / phi at fixed w."""
        return self.row_weight(z, eta, psi)[..., None] * np.square(z - eta)

    def row_weight(self, z: Array, eta: Array, psi: Array) -> Array:
        """Weight w, (..)."""
        nu, p = self.degrees(psi), np.shape(z)[-1]
        return (nu + p) / (nu + self._distances(z, eta, psi))

    def row_weight_psi(self, z: Array, eta: Array, psi: Array) -> Array:
        """Derivative of the weights in psi at fixed means, (n_psi, ..)."""
        nu, p = self.degrees(psi), np.shape(z)[-1]
        d = self._distances(z, eta, psi)
        w = (nu + p) / (nu + d)
        parts = [w * (d / (nu + d)), w * (nu / (nu + p)) * ((d - p) / (nu + d))]
        return np.stack(parts[: self.n_psi])

    def tail(self, psi: Array, p: int) -> float:
        """2 / (nu + p)."""
        return 2.0 / (self.degrees(psi) + p)

    def tail_psi(self, psi: Array, p: int) -> Array:
        """Its derivative in psi, (n_psi,)."""
        nu = self.degrees(psi)
        return np.array([0.0, -2.0 * nu / (nu + p) ** 2])[: self.n_psi]

    def laplace_excess(self, known: Array, p: int, psi: Array) -> tuple[Array, Array]:
        """log Gamma(x - q / 2) - log Gamma(x) + q / 2 log x for x = (nu + p) / 2; see `Family`."""
        x, half = 0.5 * (self.degrees(psi) + p), 0.5 * np.minimum(known, p)
        left = x - half
        values = (left - 0.5) * np.log1p(-half / x) + half
        values += stirling_error(left) - stirling_error(x)
        by_x = np.log1p(-half / x) + half / x - 0.5 * half / (x * left)
        by_x += digamma_error(x) - digamma_error(left)
        return values, np.array([0.0, 0.5 * self.degrees(psi)])[: self.n_psi, None] * by_x

    def step(self, psi: Array, p: int) -> float:
        """Spacing of nodes, from the Fourier transform of the posterior along a line.

        That is a t with nu + p - 1 = 2 m degrees of freedom. With a = s (nu + p)^(1/2), s the
        standard deviation by its curvature, its transform is K_m(a k) (a k)^m 2^(1 - m) / Gamma(m),
        by which at k = 2 pi / spacing the trapezoid rule errs.
        """
        size = min(self.degrees(psi) + p, MOST_SIZE)  # beyond, that of a Gaussian, or hardly less
        m, level = 0.5 * (size - 1.0), 2.0 * (np.pi / GAUSSIAN_STEP) ** 2

        def short(x: float) -> float:
            value = np.log(kve(m, x)) - x + m * np.log(x) + (1.0 - m) * np.log(2.0)
            return float(value - gammaln(m) + level)

        return float(2.0 * np.pi * np.sqrt(size) / brentq(short, 1.0, 300.0))

    def loss_eta(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """-w r / phi, then w / phi, without what `tail` says."""
        check_order("loss_eta", order, (1, 2))
        weight = self.row_weight(z, eta, psi)[..., None] / self.dispersion(psi)
        if order == 1:
            return weight * (eta - z)
        return np.broadcast_to(weight, np.broadcast_shapes(np.shape(z), np.shape(eta)))

    def curvature_gradient(self, z: Array, eta: Array, psi: Array, q: Array) -> Array:
        """Derivative in eta of the sum of q w / phi over a row: kappa w / phi sum(q) s."""
        w, phi = self.row_weight(z, eta, psi), self.dispersion(psi)
        scale = self.tail(psi, np.shape(z)[-1]) * (w / phi) ** 2 * q.sum(axis=-1)
        return scale[..., None] * (z - eta)

    def weight(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """The observed weight w / phi, which is positive."""
        check_order("weight", order, (0,))
        return self.loss_eta(z, eta, psi, 2)

    def loss_psi(self, z: Array, eta: Array, psi: Array) -> Array:
        """Derivatives in log phi and log nu, of its row over p, (n_psi, ..)."""
        shape = np.broadcast_shapes(np.shape(z), np.shape(eta))
        nu, p, d = self.degrees(psi), shape[-1], self._distances(z, eta, psi)
        share = d / (nu + d)
        parts = [0.5 * p - 0.5 * (nu + p) * share]
        if self.df is None:
            constant = 0.5 * (nu + p - 1.0) * p / (nu + p) - 0.5 * nu * np.log1p(p / nu)
            constant += 0.5 * nu * float(digamma_error(0.5 * (nu + p)) - digamma_error(0.5 * nu))
            parts.append(0.5 * nu * np.log1p(d / nu) - 0.5 * (nu + p) * share + constant)
        return np.broadcast_to(np.stack(parts)[..., None] / p, (len(parts), *shape))

    def loss_eta_psi(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """Derivatives in log phi and log nu of `loss_eta`, (n_psi, ..)."""
        check_order("loss_eta_psi", order, (1, 2))
        slopes = self.row_weight_psi(z, eta, psi)
        slopes[0] -= self.row_weight(z, eta, psi)
        slopes = slopes[..., None] / self.dispersion(psi)
        if order == 1:
            return slopes * (eta - z)
        return np.broadcast_to(slopes, (len(slopes), *np.broadcast_shapes(
            np.shape(z), np.shape(eta))))

    # --- distribution --------------------------------------------------------------------------

    def mean(self, eta: Array) -> Array:
        """The linear predictor itself: the centre, where nu <= 1 leaves no mean."""
        return np.array(eta, float)

    def variance(self, eta: Array, psi: Array) -> Array:
        """phi nu / (nu - 2), infinite for nu <= 2."""
        nu = self.degrees(psi)
        value = self.dispersion(psi) * nu / (nu - 2.0) if nu > 2.0 else np.inf
        return np.full(np.shape(eta), value)

    def sample(self, rng: np.random.Generator, eta: Array, psi: Array) -> Array:
        """Draws about eta."""
        nu, shape = self.degrees(psi), np.shape(eta)
        w = rng.chisquare(nu, (*shape[:-1], 1)) / nu
        return eta + np.exp(0.5 * psi[0]) * rng.normal(size=shape) / np.sqrt(w)

    def initial_eta(self, z: Array) -> Array:
        """The data."""
        return np.array(z, float)


def row_degrees(family: Family, rho: Array) -> float:
    """Degrees of freedom of rows under outer parameters whose last are the family's.

    Infinite where rows are Gaussian, or at that limit.
    """
    if not isinstance(family, StudentTRows):
        return np.inf
    psi = rho[len(rho) - family.n_psi:]
    return np.inf if family.is_limit(psi) else family.degrees(psi)
