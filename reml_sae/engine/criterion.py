"""The REML / Laplace criterion and its exact gradient (DESIGN A2, A5).

    V(rho) = F(theta_hat) + (1/2) log|H| - (dim theta / 2) log 2 pi + sum_j log C_j - log p(rho)

    dV/drho_m = dF/drho_m + (1/2) tr(H^-1 dH/drho_m) + d(sum log C)/drho_m
                - u^T d2F/dtheta drho_m,        (d2F/dtheta2) u = grad_theta (1/2) log|H|

p(rho) is the hyperprior, flat unless a penalty has the tier RHO; it adds its own gradient. The last
line of dV is the adjoint of the implicit function theta_hat(rho). Its matrix is the exact Hessian,
whatever H is; the system is solved by conjugate gradients with H as preconditioner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from reml_sae.engine.inner import InnerSolution, solve_inner
from reml_sae.engine.pcg import preconditioned_cg
from reml_sae.engine.protocol import ArrowModel, ModelPoint, Theta
from reml_sae.errors import InnerConvergenceError, InputError
from reml_sae.typing import Array, Curvature

LARGEST_RHO = 300.0
"""Bound on outer parameters: squares of their exponentials, and products, stay within float64."""
ADJOINT_RTOL, ADJOINT_ITERATIONS = 1e-10, 200


@dataclass(frozen=True)
class CriterionValue:
    """V at one rho.

    Attributes
    ----------
    value : float
        V in nats; smaller is better.
    gradient : (n_rho,) array
        dV/drho; NaN where it was not asked for.
    parts : mapping
        ``objective``, ``half_logdet``, ``dimension``, ``log_normalizer`` and ``hyperprior``; they
        sum to V.
    inner : InnerSolution
    edf : float
        Effective degrees of freedom of the data fit.
    explicit : mapping
        The explicit parts of the gradient, from which Fellner-Schall steps are made; the part of a
        normaliser that a quadratic penalty has in its value is with the normaliser.
    adjoint : Theta or None
        H^-1 times the gradient of the log-determinant in theta, H exact; None without it, or where
        it is not to full accuracy.
    """

    value: float
    gradient: Array
    parts: Mapping[str, float]
    inner: InnerSolution[ModelPoint]
    edf: float
    explicit: Mapping[str, Array] = field(repr=False)
    adjoint: Theta | None = field(repr=False)


def criterion(
    model: ArrowModel,
    rho: Array,
    *,
    theta: Theta | None = None,
    curvature: Curvature = "majorizer",
    gradient: bool = True,
    lenient: bool = False,
    adjoint_rtol: float = ADJOINT_RTOL,
    tol: float = 1e-6,
    max_inner: int = 100,
    near: InnerSolution[ModelPoint] | None = None,
    check: Callable[[], None] = lambda: None,
) -> CriterionValue:
    """V(rho) with the inner problem solved again.

    Parameters
    ----------
    model : ArrowModel
    rho : (n_rho,) array
        Outer parameters, in the order of ``model.outer``.
    theta : Theta, optional
        Start of the inner solve; the model's own state by default.
    curvature : "majorizer" or "exact"
    gradient : bool
        Whether the adjoint is solved.
    lenient : bool
        Whether the gradient is its explicit part alone where the adjoint system has no solution.
    adjoint_rtol : float
        Relative residual to which the adjoint system is solved.
    tol : float
        Bound on the Newton decrement of the inner solve.
    max_inner : int
    near : InnerSolution, optional
        At a rho nearby; its factor stands in for costly ones on the way.
    check : callable
        Called before every step of the inner solve; raises where no more is to be made.

    Raises
    ------
    InputError
        Where ``rho`` has the wrong shape, is not finite, or too large to be the logarithm of
        anything that float64 holds with its square.
    InnerConvergenceError
        Where V is not finite, the adjoint system has negative curvature, so that no gradient
        exists, or its solution by conjugate gradients does not converge; the last two unless
        ``lenient``.
    """
    rho = np.asarray(rho, float)
    names = model.outer.names
    if rho.shape != (len(names),) or not (np.abs(rho) <= LARGEST_RHO).all():
        raise InputError(f"rho must be {len(names)} finite numbers ({', '.join(names)}), at most "
                         f"{LARGEST_RHO:g} in size, got {rho}")
    known = None if near is None or not near.point.factor_is_costly else near.point.factorize()
    inner = solve_inner(model, rho, theta, tol=tol, max_iter=max_inner, near=known, check=check)
    return criterion_at(model, inner, curvature=curvature, gradient=gradient, lenient=lenient,
                        adjoint_rtol=adjoint_rtol)


def criterion_at(
    model: ArrowModel,
    inner: InnerSolution[ModelPoint],
    *,
    curvature: Curvature = "majorizer",
    gradient: bool = True,
    lenient: bool = False,
    adjoint_rtol: float = ADJOINT_RTOL,
) -> CriterionValue:
    """V at a mode that has been found; raises as `criterion` does."""
    point = inner.point
    logdet = point.half_logdet(curvature)
    normalizer, normalizer_rho = point.log_normalizer()
    hyperprior, hyperprior_rho = model.hyperprior(point.rho)
    parts = {
        "objective": point.objective,
        "half_logdet": logdet.value,
        "dimension": -0.5 * model.effective_dim * np.log(2.0 * np.pi),
        "log_normalizer": normalizer,
        "hyperprior": hyperprior,
    }
    value = float(sum(parts.values()))
    if not np.isfinite(value):
        lost = ", ".join(f"{name} = {part}" for name, part in parts.items()
                         if not np.isfinite(part))
        raise InnerConvergenceError(
            f"V is not finite at the state that the inner solve returned ({lost}); the data or the "
            "strengths are too large or too small for float64"
        )
    objective_rho = point.objective_rho()
    total = np.full_like(objective_rho, np.nan)
    u: Theta | None = None
    if gradient:
        total = objective_rho + logdet.rho + normalizer_rho + hyperprior_rho
        try:
            u = _adjoint(inner, logdet.theta, adjoint_rtol)
        except InnerConvergenceError:
            if not lenient:
                raise
        else:
            total -= point.gradient_rho_dot(u)
    inside = point.normalizer_in_objective_rho()
    explicit = {"objective": objective_rho - inside, "half_logdet": logdet.rho,
                "log_normalizer": normalizer_rho + inside}
    return CriterionValue(value, total, parts, inner, logdet.edf, explicit,
                          u if adjoint_rtol <= ADJOINT_RTOL else None)


def _adjoint(inner: InnerSolution[ModelPoint], pull: Theta, rtol: float) -> Theta:
    """H^-1 times the gradient of the log-determinant in theta, H exact."""
    point = inner.point
    adjoint = preconditioned_cg(point.hvp, point.factorize(), pull, rtol, ADJOINT_ITERATIONS)
    if adjoint.negative_curvature is not None:
        raise InnerConvergenceError(
            "the exact Hessian is not positive definite at the state that the inner solve "
            f"returned ({inner.status.value}), so V has no gradient there"
        )
    if not adjoint.converged:
        raise InnerConvergenceError(
            f"the adjoint of the gradient of V has a relative residual of "
            f"{adjoint.residual:.1e} after {adjoint.n_iter} conjugate gradient steps, "
            f"{rtol:g} is needed; the factor of H says too little of the exact Hessian "
            "there, so take rho nearer an optimum"
        )
    return adjoint.x


def at_mode(model: ArrowModel, value: CriterionValue) -> CriterionValue:
    """Return V where it was taken at a mode.

    Raises
    ------
    InnerConvergenceError
        Naming rho, where the inner solve did not converge.
    """
    if not value.inner.converged:
        where = ", ".join(f"{name} = {x:.6g}" for name, x in model.outer.named(
            value.inner.point.rho).items())
        raise InnerConvergenceError(
            f"V is not defined at {where}, where the inner solve did not converge: "
            f"{value.inner.status.value}"
        )
    return value


@dataclass(frozen=True)
class RhoDifferences:
    """V on both sides of an optimum along every outer parameter.

    Attributes
    ----------
    hessian : (n_rho, n_rho) array
        Second derivatives of V, from central differences of its exact gradient.
    step : float
    above, below : tuple of CriterionValue
        V at rho_j + step and at rho_j - step, with the inner problem solved again.
    """

    hessian: Array
    step: float
    above: tuple[CriterionValue, ...]
    below: tuple[CriterionValue, ...]


def rho_differences(
    model: ArrowModel,
    rho: Array,
    *,
    theta: Theta | None = None,
    curvature: Curvature = "majorizer",
    step: float = 1e-3,
    tol: float = 1e-9,
) -> RhoDifferences:
    """Differences of V and of everything that hangs on rho, by 2 n_rho solves.

    Parameters
    ----------
    model : ArrowModel
    rho : (n_rho,) array
    theta : Theta, optional
        Start of the inner solves.
    curvature : "majorizer" or "exact"
    step : float
    tol : float
        Bound on the Newton decrement of the inner solves.

    Raises
    ------
    InnerConvergenceError
        Naming rho, where an inner solve does not converge.
    """
    rho = np.asarray(rho, float)
    sides = []
    for sign in (1.0, -1.0):
        moved = rho + sign * step * np.eye(len(rho))
        sides.append(tuple(
            at_mode(model, criterion(model, at, theta=theta, curvature=curvature, tol=tol))
            for at in moved))
    above, below = sides
    rows = [(a.gradient - b.gradient) / (2.0 * step) for a, b in zip(above, below, strict=True)]
    hessian = np.reshape(rows, (len(rho), len(rho)))
    return RhoDifferences(0.5 * (hessian + hessian.T), step, above, below)
