"""Tests of fixed effects and of smooths.

A fixed effect of a Gaussian model has a t with Satterthwaite's degrees of freedom: with v(rho) the
variance of its estimate, g = dv / drho and A the inverse Hessian of V,

    df = 2 v^2 / (g^T A g),

which is exact where designs are balanced (Fai and Cornelius 1996; Kuznetsova et al. 2017).

A smooth is tested as by Wood (2013, Biometrika 100, 221): with f = X beta its values, of posterior
covariance D = sum_j d_j u_j u_j^T, and r = 2 edf - tr(F F) its reference degrees of freedom
(F = H^-1 J^T W J on its coefficients),

    T = sum_{j <= k} (u_j^T f)^2 / d_j + (r - k) (u_{k+1}^T f)^2 / d_{k+1},      k = floor(r).

Its law is a sum of k + 1 scaled chi-squared, here the scaled chi-squared of the same mean and
variance (an F where the dispersion is estimated). Wood also mixes the directions k and k + 1; T
without that does not depend on the signs of eigenvectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2
from scipy.stats import f as f_law

from reml_sae.engine.criterion import rho_differences
from reml_sae.engine.protocol import ArrowModel
from reml_sae.errors import InnerConvergenceError, NotPositiveDefiniteError
from reml_sae.models.mixed.grouped import InverseBlocks
from reml_sae.models.mixed.point import MixedPoint
from reml_sae.models.mixed.posterior import Fit, Value, steep_inverse
from reml_sae.models.mixed.smooths import BoundSmooth
from reml_sae.typing import Array, Curvature


@dataclass(frozen=True)
class SmoothTest:
    """Test that a smooth is zero.

    Attributes
    ----------
    reference_df, statistic, p_value : float
    """

    reference_df: float
    statistic: float
    p_value: float


def satterthwaite(model: ArrowModel, fit: Fit, variances: Array, curvature: Curvature) -> Array:
    """Degrees of freedom of all coefficients of these variances (P,); NaN off a mode of V."""
    try:
        differences = rho_differences(model, fit.rho, theta=fit.theta, curvature=curvature)
    except (InnerConvergenceError, NotPositiveDefiniteError):
        return np.full(len(variances), np.nan)

    def moved(side: Sequence[Value]) -> Array:
        found = [np.diagonal(value.inner.point.joint().whole_inverse(curvature).border)
                 for value in side]
        return np.reshape(found, (len(side), len(variances)))

    above, below = moved(differences.above), moved(differences.below)
    slopes = (above - below) / (2.0 * differences.step)
    spread = np.einsum("kp,kl,lp->p", slopes, steep_inverse(differences.hessian), slopes)
    with np.errstate(divide="ignore"):
        return np.asarray(2.0 * variances**2 / spread, float)


def smooth_tests(
    point: MixedPoint, blocks: InverseBlocks, smooths: tuple[BoundSmooth, ...],
    residual_df: float | None,
) -> list[SmoothTest]:
    """Tests of smooths of a joint problem; ``residual_df`` is None for a known dispersion."""
    if not smooths:
        return []
    S = point.smooths.matrix()
    F = np.eye(len(S)) - blocks.border @ S
    square = np.einsum("pq,qp->p", F, F)
    groups, q, p = blocks.coupling.shape
    if groups and q:
        # the part of F F that goes through the effects of the groups
        coupling = blocks.coupling.transpose(0, 2, 1).reshape(-1, q)
        through = point.effects.spherical(coupling).reshape(groups, p, q)
        square += np.einsum("pr,rp->p", np.einsum("gpa,gra->pr", through, through), S)
    reference = 2.0 * np.diagonal(F) - square
    return [_smooth_test(point, blocks, s, float(reference[s.columns].sum()), residual_df)
            for s in smooths]


def _smooth_test(
    point: MixedPoint, blocks: InverseBlocks, smooth: BoundSmooth, reference: float,
    residual_df: float | None,
) -> SmoothTest:
    own = smooth.columns
    R = np.asarray(np.linalg.qr(point.structure.data.X[:, own], mode="r"), float)
    d, U = np.linalg.eigh(R @ blocks.border[np.ix_(own, own)] @ R.T)
    d, U = d[::-1], U[:, ::-1]
    rank = int((d > 1e-12 * d[0]).sum())
    r = min(max(reference, 1.0), float(rank))
    weights = np.clip(r - np.arange(rank), 0.0, 1.0)
    squares = (U[:, :rank].T @ (R @ point.beta[own])) ** 2 / d[:rank]
    statistic = float(weights @ squares)
    df = r**2 / float((weights**2).sum())
    if residual_df is None:
        return SmoothTest(reference, statistic, float(chi2.sf(statistic * df / r, df)))
    return SmoothTest(reference, statistic / r, float(f_law.sf(statistic / r, df, residual_df)))
