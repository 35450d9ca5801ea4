"""Student's t family with identity link, scale s = exp(psi[0]) and nu degrees of freedom.

nu is a constant, or exp(psi[1]). With r = (z - eta) / s and x = r / sqrt(nu),

    deviance = (nu + 1) log(1 + x^2)
    saturated loss = log s + (1/2) log(2 pi) + 1/2 - a log(1 + 1 / (2 a))
                     + stirling_error(a) - stirling_error(a + 1/2),        a = nu / 2

Derivatives are polynomials in the bounded pair g = 1 / sqrt(1 + x^2), c = x g, c^2 + g^2 = 1, so
nothing overflows. The observed curvature (nu + 1) / (nu s^2) g^2 (1 - 2 c^2) is negative for
outliers, |r| > sqrt(nu); the expected one is (nu + 1) / (nu + 3) / s^2.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reml_sae.errors import InputError
from reml_sae.families._base import UNIT_FREE_BOX, Family
from reml_sae.families._checks import check_finite, check_order
from reml_sae.families._special import LOG_2PI, digamma_error, stirling_error
from reml_sae.typing import Array

FIRST_DF = 5.0
NORMAL_CONSISTENT = 1.4826
"""Standard deviation of a normal variable over its median absolute deviation."""
LARGEST_RATIO = 1e150
"""Bound on |r|, whose square is then a float."""


@dataclass(frozen=True)
class StudentT(Family):
    """Entries with heavy tails; see `Family`.

    Parameters
    ----------
    df : float, optional
        Degrees of freedom; estimated, between 1 and 1000, where it is not given.
    """

    df: float | None = None

    name: ClassVar[str] = "student_t"
    link: ClassVar[str] = "identity"

    def __post_init__(self) -> None:
        df = self.df
        if df is not None and not (isinstance(df, numbers.Real) and 0.0 < df < np.inf):
            raise InputError(f"df must be a positive number, or None to estimate it, got {df!r}")

    def check(self, z: Array) -> None:
        """Refuse entries that are not finite."""
        check_finite(z, "Student-t")

    @property
    def psi_names(self) -> tuple[str, ...]:
        """The log scale, and the log degrees of freedom where they are estimated."""
        return ("log_scale", "log_df") if self.df is None else ("log_scale",)

    def psi_bounds(self) -> Array:
        """Box of the log scale and of log nu, from the Cauchy to the normal in all but name."""
        return np.array([UNIT_FREE_BOX, (0.0, np.log(1000.0))])[: self.n_psi]

    def initial_psi(self, z: Array) -> Array:
        """Log of the median absolute deviation, in units of the normal's, and nu = 5."""
        residual = np.abs(z - np.median(z, axis=0))
        scale = NORMAL_CONSISTENT * float(np.median(residual)) or float(np.mean(residual))
        start = np.log([max(scale, np.finfo(float).tiny), FIRST_DF])[: self.n_psi]
        return np.clip(start, *self.psi_bounds().T)

    def psi_about(self, z: Array, eta: Array) -> Array:
        """`initial_psi` of what the predictors leave."""
        return self.initial_psi(z - eta)

    def _df(self, psi: Array) -> float:
        return float(np.exp(psi[1])) if self.df is None else float(self.df)

    def _polar(self, z: Array, eta: Array, psi: Array) -> tuple[float, float, Array, Array, Array]:
        """s, nu, x, g and c."""
        s, nu = float(np.exp(psi[0])), self._df(psi)
        r = np.clip((np.asarray(z, float) - eta) / s, -LARGEST_RATIO, LARGEST_RATIO)
        x = r / np.sqrt(nu)
        g = 1.0 / np.hypot(1.0, x)
        return s, nu, x, g, x * g

    def saturated_loss(self, z: Array, psi: Array) -> Array:
        """Loss at eta = z; see the module."""
        a = 0.5 * self._df(psi)
        normaliser = 0.5 * LOG_2PI + 0.5 - a * np.log1p(0.5 / a)
        normaliser += stirling_error(a) - stirling_error(a + 0.5)
        return np.full(np.shape(z), psi[0] + normaliser)

    def deviance(self, z: Array, eta: Array, psi: Array) -> Array:
        """(nu + 1) log(1 + x^2)."""
        _, nu, x, _, _ = self._polar(z, eta, psi)
        return (nu + 1.0) * np.log1p(x * x)

    def loss_eta(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """The slope -(nu + 1) c g / (sqrt(nu) s), and its derivatives in eta."""
        check_order("loss_eta", order, (1, 2, 3))
        s, nu, _, g, c = self._polar(z, eta, psi)
        scale = (nu + 1.0) / (np.sqrt(nu) * s) ** order
        if order == 1:
            return -scale * c * g
        if order == 2:
            return scale * g**2 * (1.0 - 2.0 * c**2)
        return -2.0 * scale * c * g**3 * (c**2 - 3.0 * g**2)

    def weight(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """(nu + 1) / (nu + 3) / s^2, and its derivative 0."""
        check_order("weight", order, (0, 1))
        nu = self._df(psi)
        value = (nu + 1.0) / (nu + 3.0) * np.exp(-2.0 * psi[0])
        shape = np.broadcast_shapes(np.shape(z), np.shape(eta))
        return np.full(shape, 0.0 if order else value)

    def loss_psi(self, z: Array, eta: Array, psi: Array) -> Array:
        """Derivatives in log s and log nu, (n_psi, ..)."""
        _, nu, x, _, c = self._polar(z, eta, psi)
        parts = [1.0 - (nu + 1.0) * c**2]
        if self.df is None:
            a = 0.5 * nu
            normaliser = 0.5 / (a + 0.5) - np.log1p(0.5 / a)
            normaliser += digamma_error(a + 0.5) - digamma_error(a)
            parts.append(0.5 * (nu * np.log1p(x * x) - (nu + 1.0) * c**2) + a * normaliser)
        return np.stack(parts)

    def loss_eta_psi(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """Derivatives in log s and log nu of `loss_eta`, (n_psi, ..)."""
        check_order("loss_eta_psi", order, (1, 2))
        s, nu, _, g, c = self._polar(z, eta, psi)
        scale, h = (nu + 1.0) / (np.sqrt(nu) * s) ** order, g**2
        if order == 1:
            parts = [2.0 * scale * c * g * h, -c * g * (nu * c**2 - h) / (np.sqrt(nu) * s)]
        else:
            by_df = h * (2.0 * h - 1.0) + (nu + 1.0) / nu * h**2 * (3.0 - 4.0 * h)
            parts = [-2.0 * scale * h**2 * (4.0 * h - 3.0), by_df / s**2]
        return np.stack(parts[: self.n_psi])

    def weight_psi(self, z: Array, eta: Array, psi: Array) -> Array:
        """Derivatives in log s and log nu of `weight`, (n_psi, ..)."""
        nu, value = self._df(psi), self.weight(z, eta, psi, 0)
        by_df = 2.0 * nu / ((nu + 1.0) * (nu + 3.0))
        return np.stack([-2.0 * value, by_df * value][: self.n_psi])

    def mean(self, eta: Array) -> Array:
        """The linear predictor itself: the centre, where nu <= 1 leaves no mean."""
        return np.array(eta, float)

    def variance(self, eta: Array, psi: Array) -> Array:
        """s^2 nu / (nu - 2), infinite for nu <= 2."""
        nu = self._df(psi)
        value = np.exp(2.0 * psi[0]) * nu / (nu - 2.0) if nu > 2.0 else np.inf
        return np.full(np.shape(eta), value)

    def sample(self, rng: np.random.Generator, eta: Array, psi: Array) -> Array:
        """Draws about eta."""
        return eta + np.exp(psi[0]) * rng.standard_t(self._df(psi), np.shape(eta))

    def initial_eta(self, z: Array) -> Array:
        """The data."""
        return np.array(z, float)
