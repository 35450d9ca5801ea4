"""Posterior covariances, random effects and predictions of a fitted mixed model.

At a fit (theta, rho) the posterior of the inner parameters is, to Laplace's order, N(theta, H^-1)
with the fixed effects' prior flat (Wood 2017, Generalized Additive Models, section 6.10). H is that
of the joint problem in all methods: curvature="majorizer" takes the expected weights, as lme4 does,
"exact" the observed ones.

That covariance holds rho fixed. `corrected_covariance` adds what rho's own uncertainty does to the
coefficients (Wood, Pya and Saefken 2016, J. Am. Stat. Assoc. 111, 1548):

    V' = V + J V_rho J^T + sum_kl [V_rho]_kl D_k D_l^T,   J = d beta / d rho,   D_k = dK / d rho_k

with V = K K^T, K the inverse of the upper Cholesky factor of V^-1, and V_rho the inverse Hessian of
the criterion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky

from reml_sae.engine.protocol import Theta
from reml_sae.errors import InputError
from reml_sae.families import Binomial
from reml_sae.models.mixed.arrow import MixedArrow
from reml_sae.models.mixed.design import finite, matrix
from reml_sae.models.mixed.point import MixedPoint
from reml_sae.models.mixed.tables import Prediction, RandomEffects
from reml_sae.typing import Array, Curvature

DENSE_LIMIT = 5000
"""Most inner parameters whose full covariance is made."""
FLAT = 1e-7
"""Eigenvalues of the Hessian of V below this share of the largest count as flat."""
RHO_PRECISION = 0.1
"""Prior precision of rho in the second term, which bounds it along flat directions."""


class Fit(Protocol):
    """What is used of a fit."""

    @property
    def rho(self) -> Array:
        """Outer parameters."""
        ...

    @property
    def theta(self) -> Theta:
        """Mode of the inner parameters."""
        ...


class Inner(Protocol):
    """What is used of an inner solution."""

    @property
    def point(self) -> Any:
        """The model at the mode."""
        ...


class Value(Protocol):
    """What is used of a value of the criterion."""

    @property
    def inner(self) -> Inner:
        """The inner solution."""
        ...


class Differences(Protocol):
    """What is used of `reml_sae.engine.criterion.rho_differences`."""

    @property
    def hessian(self) -> Array:
        """Second derivatives of V in rho."""
        ...

    @property
    def step(self) -> float:
        """Step of the differences."""
        ...

    @property
    def above(self) -> Sequence[Value]:
        """V above rho in each coordinate."""
        ...

    @property
    def below(self) -> Sequence[Value]:
        """V below."""
        ...


def joint_point(model: MixedArrow, fit: Fit) -> MixedPoint:
    """The joint problem at a fit: all coefficients are inner parameters."""
    return model.at(fit.theta, fit.rho).joint()


def posterior_covariance(
    model: MixedArrow, fit: Fit, *, effects: bool = False, curvature: Curvature = "majorizer"
) -> Array:
    """Posterior covariance at fixed rho.

    Parameters
    ----------
    model : MixedModel
    fit : FitResult
    effects : bool
        Whether the random effects belong to it: all of them group by group, then the coefficients.
    curvature : "majorizer" or "exact"

    Returns
    -------
    (P, P) array, or (G q + P, G q + P)

    Raises
    ------
    InputError
        Where the full matrix would have more than 5000 rows.
    """
    point = joint_point(model, fit)
    if not effects:
        return point.whole_inverse(curvature).border
    g, q = point.theta.xi.shape
    size = g * q + len(point.beta)
    if size > DENSE_LIMIT:
        raise InputError(f"the full covariance has {size} rows, the limit is {DENSE_LIMIT}; "
                         "effects=False gives that of the coefficients, random_effects the sds")
    unit = np.eye(size)
    rows, border = point.matrix(curvature).factorize().solve(
        unit[: g * q].reshape(g, q, size), unit[g * q :])
    # spherical and graded coordinates back on both sides
    out = np.concatenate([rows.reshape(g * q, size), border])
    back = np.zeros((size, size))
    back[: g * q, : g * q] = np.kron(np.eye(g), point.effects.factor)
    back[g * q :, g * q :] = point.smooths.basis
    out = back @ out @ back.T
    return 0.5 * (out + out.T)


def random_effects(
    model: MixedArrow, fit: Fit, *, curvature: Curvature = "majorizer"
) -> RandomEffects:
    """Conditional modes of the random effects of the groups with their standard deviations."""
    point = joint_point(model, fit)
    given = point.inverse_blocks(curvature, crossed_columns(model))
    sds = [np.sqrt(np.einsum("gqq->gq", blocks.rows))
           for blocks in (given, point.whole_inverse(curvature))]
    names = tuple(name for term in model.terms for name in term.names)
    return RandomEffects(model.data.labels, names, point.theta.xi.copy(), *sds)


def crossed_columns(model: MixedArrow) -> NDArray[np.bool_]:
    """Which columns of X are random effects that a formula put there, (P,)."""
    names = set() if model.layout is None else {
        name for term in model.layout.crossed for name in term.smooth_names()}
    mask = np.zeros(len(model.x_names), bool)
    for smooth in model.all_smooths:
        mask[smooth.columns] = smooth.name in names
    return mask


def predict(
    model: MixedArrow,
    fit: Fit,
    X: Any,
    *,
    Z: Any = None,
    groups: Any = None,
    offset: Any = 0.0,
    curvature: Curvature = "majorizer",
) -> Prediction:
    """Predictions for new observations, with the uncertainty of coefficients and effects.

    Parameters
    ----------
    model : MixedModel
    fit : FitResult
    X : (n, P) array
    Z : (n, q) array, or list of such arrays, optional
        Columns of the random effects. None: the effects are at their mean 0, with no variance.
    groups : (n,) array of labels, optional
        A group that the fit has not seen has effects 0 with their prior variance; so have all
        observations where it is None.
    offset : float or (n,) array
    curvature : "majorizer" or "exact"
    """
    _check_linear(model, "predict")
    first = np.asarray(X)
    X = matrix(X, "X", len(first) if first.ndim else 0)
    n, p = len(X), model.data.X.shape[1]
    if X.shape[1] != p:
        raise InputError(f"X must have the {p} columns of the fit, got {X.shape[1]}")
    point = joint_point(model, fit)
    blocks = point.whole_inverse(curvature)
    eta = X @ point.beta + finite(offset, "offset")
    variance = np.einsum("np,np->n", X @ blocks.border, X)
    if Z is not None:
        terms = list(Z) if isinstance(Z, list | tuple) else [Z]
        Z = np.hstack([matrix(term, f"Z[{t}]", n) for t, term in enumerate(terms)])
        q = model.data.Z.shape[1]
        if Z.shape[1] != q:
            raise InputError(f"Z must have the {q} columns of the fit, got {Z.shape[1]}")
        number = _known_groups(model, groups, n)
        known, g = number >= 0, number[number >= 0]
        Zk = Z[known]
        eta[known] += np.einsum("nq,nq->n", Zk, point.theta.xi[g])
        variance[known] += np.einsum("nq,nqr,nr->n", Zk, blocks.rows[g], Zk)
        for a in range(q):
            cross = np.einsum("np,np->n", X[known], blocks.coupling[g, a])
            variance[known] += 2.0 * Zk[:, a] * cross
        new = Z[~known] @ point.effects.factor
        variance[~known] += np.einsum("nq,nq->n", new, new)
    family = Binomial() if isinstance(model.family, Binomial) else model.family
    return Prediction(eta, np.sqrt(np.maximum(variance, 0.0)), family.mean(eta))


def _check_linear(model: Any, what: str) -> None:
    if not hasattr(model.data, "X"):
        raise InputError(f"{what} needs a MixedModel, whose predictor is linear, got "
                         f"{type(model).__name__}; its `predictor` gives eta at a state")


def _known_groups(model: MixedArrow, groups: Any, n: int) -> NDArray[np.intp]:
    """Number of each observation's group in the fit, -1 for a new one."""
    if groups is None:
        return np.full(n, -1, np.intp)
    labels, known = np.asarray(groups), model.data.labels
    if labels.shape != (n,):
        raise InputError(f"groups must have one label for each of the {n} observations, got shape "
                         f"{labels.shape}")
    if known.dtype.kind == "U":
        labels = labels.astype(str)
    order = {label: number for number, label in enumerate(known.tolist())}
    return np.array([order.get(label, -1) for label in labels.tolist()], np.intp)


def corrected_covariance(
    model: MixedArrow,
    fit: Fit,
    differences: Differences,
    *,
    second_order: bool = True,
    curvature: Curvature = "majorizer",
) -> Array:
    """Covariance of the coefficients with the uncertainty of the outer parameters, (P, P).

    By "Laplace", whose outer parameters hold the fixed effects, it is the covariance by the inverse
    Hessian of the criterion.

    Parameters
    ----------
    model : MixedModel
    fit : FitResult
    differences : RhoDifferences
        Made by `reml_sae.engine.criterion.rho_differences` at the fit.
    second_order : bool
        Whether the term of the changing width of the posterior is added.
    curvature : "majorizer" or "exact"
    """
    _check_linear(model, "corrected_covariance")
    inverse = steep_inverse(differences.hessian)
    points = [(a.inner.point, b.inner.point)
              for a, b in zip(differences.above, differences.below, strict=True)]
    width = 2.0 * differences.step
    moved = [(model.coefficients(a.theta, a.rho) - model.coefficients(b.theta, b.rho)) / width
             for a, b in points]
    J = np.reshape(moved, (len(points), model.data.X.shape[1])).T
    inner = model.border.inner
    K = _upper_root(model.at(fit.theta, fit.rho), curvature)
    out = inner @ K @ K.T @ inner.T + J @ inverse @ J.T
    if second_order:
        values, vectors = np.linalg.eigh(differences.hessian)
        bounded = vectors / (np.maximum(values, 0.0) + RHO_PRECISION) @ vectors.T
        slopes = [inner @ (_upper_root(a, curvature) - _upper_root(b, curvature)) / width
                  for a, b in points]
        for k, D in enumerate(slopes):
            out += D @ sum(bounded[k, l] * other.T for l, other in enumerate(slopes))
    return 0.5 * (out + out.T)


def steep_inverse(hessian: Array) -> Array:
    """Covariance of rho by the Hessian of V, without the directions in which V is flat.

    Along these (a strength at its limit) the coefficients do not move either.
    """
    values, vectors = np.linalg.eigh(hessian)
    steep = values > FLAT * values.max(initial=1e-300)
    return np.asarray(vectors[:, steep] / values[steep] @ vectors[:, steep].T, float)


def _upper_root(point: MixedPoint, curvature: Curvature) -> Array:
    """Upper triangular K with K K^T the covariance of the inner coefficients."""
    border = point.whole_inverse(curvature).border
    if not border.size:
        return border
    # reversing rows and columns turns the lower factor of the covariance into an upper one
    return cholesky(border[::-1, ::-1], lower=True)[::-1, ::-1]
