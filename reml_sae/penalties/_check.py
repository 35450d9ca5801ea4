"""`check_penalty`: verify a penalty against its own value by finite differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reml_sae.check_report import CheckReport, difference, lowest_eigenvalue, relative_error
from reml_sae.penalties._base import Penalty
from reml_sae.penalties._curvature import RowCurvature, RowInverse
from reml_sae.penalties._matrix import MatrixPenalty
from reml_sae.typing import Array, Curvature

N_DIRECTIONS = 4
MAX_DENSE = 400


def check_penalty(
    penalty: Penalty, target: Array, rho: Array, *, tolerance: float = 1e-6, seed: int = 0
) -> CheckReport:
    """Check gradient, Hessian, majorizer, strength and normaliser derivatives of a penalty.

    Parameters
    ----------
    penalty : Penalty
    target : array, flat or a matrix
    rho : (rho_count,) array
    tolerance : float
    seed : int
        Of the random directions.

    Returns
    -------
    CheckReport
    """
    shape = np.asarray(target, float).shape
    x = np.asarray(target, float).ravel()
    rho = np.asarray(rho, float)
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(N_DIRECTIONS, x.size))

    def value(flat: Array) -> float:
        return penalty.value(flat.reshape(shape), rho)

    def gradient(flat: Array) -> Array:
        return penalty.grad_target(flat.reshape(shape), rho)

    here = x.reshape(shape)
    figures = {
        "gradient": max(
            relative_error(gradient(x) @ v, difference(value, x, v)) for v in directions),
        "hvp": max(
            relative_error(penalty.hvp(here, rho, v), difference(gradient, x, v))
            for v in directions),
        "rho gradient": relative_error(
            penalty.grad_rho(here, rho), _rho_differences(lambda r: penalty.value(here, r), rho)),
    }
    partition = penalty.log_partition(rho, 3)
    if partition is not None:
        def log_partition(r: Array) -> float:
            found = penalty.log_partition(r, 3)
            assert found is not None
            return found[0]

        figures["log partition"] = relative_error(
            partition[1], _rho_differences(log_partition, rho))
    if x.size <= MAX_DENSE:
        eye = np.eye(x.size)
        hessian = np.array([penalty.hvp(here, rho, e) for e in eye])
        majorizer = np.array([penalty.psd_majorizer_hvp(here, rho, e) for e in eye])
        scale = max(float(np.abs(majorizer).max()), np.finfo(float).tiny)
        figures["Hessian symmetry"] = relative_error(hessian, hessian.T)
        figures["majorizer >= 0"] = -min(0.0, lowest_eigenvalue(majorizer) / scale)
        figures["majorizer >= Hessian"] = -min(0.0, lowest_eigenvalue(majorizer - hessian) / scale)
        figures["majorizer diagonal"] = relative_error(
            penalty.psd_majorizer_diag(here, rho), np.diagonal(majorizer))
        diagonal = penalty.hessian_diag(here, rho)
        if diagonal is not None:
            figures["Hessian diagonal"] = relative_error(diagonal, np.diagonal(hessian))
        if isinstance(penalty, MatrixPenalty):
            figures.update(_curvature_figures(penalty, here, rho, rng))
    return CheckReport(figures, tolerance)


def _curvature_figures(
    penalty: MatrixPenalty, target: Array, rho: Array, rng: np.random.Generator
) -> dict[str, float]:
    """Derivatives of <G, B> at a random fixed G, for both operators, and d grad / d rho."""
    view = penalty.rows(target)
    root = rng.normal(size=(view.size, view.size))
    G = root @ root.T / view.size
    v = rng.normal(size=view.shape)
    figures = {}
    products: dict[Curvature, Callable[[Array, Array, Array], Array]] = {
        "exact": penalty.hvp, "majorizer": penalty.psd_majorizer_hvp}
    for which, product in products.items():
        def contracted(x: Array, r: Array, which: Curvature = which) -> float:
            dense = penalty.curvature(penalty.flat(x), r, which).to_dense()
            return float(np.vdot(G, dense))

        def along(x: Array, contracted: Callable[..., float] = contracted) -> float:
            return contracted(x, rho)

        def in_rho(r: Array, contracted: Callable[..., float] = contracted) -> float:
            return contracted(view, r)

        parts = penalty.curvature(target, rho, which)
        found = RowInverse.of_dense(G, parts)
        slope = float(np.vdot(penalty.curvature_vjp(target, rho, found, which), v))
        figures[f"{which} curvature"] = (
            relative_error(penalty.flat(parts.matvec(v)), product(target, rho, penalty.flat(v)))
            if which == "exact" else _excess(penalty, target, rho, parts))
        figures[f"{which} vjp"] = relative_error(slope, difference(along, view, v))
        figures[f"{which} by rho"] = relative_error(
            penalty.curvature_rho(target, rho, found, which), _rho_differences(in_rho, rho))
    mixed = penalty.grad_target_rho(target, rho)
    figures["gradient by rho"] = relative_error(
        np.tensordot(mixed, v, axes=([1, 2], [0, 1])),
        _rho_differences(lambda r: float(np.vdot(penalty.row_gradient(target, r), v)), rho))
    return figures


def _excess(penalty: MatrixPenalty, target: Array, rho: Array, parts: RowCurvature) -> float:
    """How far the engine's B is from H <= B, 0 <= B and B <= the contract's + slack, relatively."""
    eye = np.eye(penalty.rows(target).size)
    contract = np.array([penalty.psd_majorizer_hvp(target, rho, e) for e in eye])
    engine = np.array([penalty.flat(parts.matvec(penalty.rows(e))) for e in eye])
    scale = max(float(np.abs(contract).max()), np.finfo(float).tiny)
    slack = np.diag(penalty.majorizer_slack(target, rho))
    exact = np.array([penalty.hvp(target, rho, e) for e in eye])
    room = (engine - exact, engine, contract + slack - engine)
    return max(0.0, -min(map(lowest_eigenvalue, room)) / scale)


def _rho_differences(function: Callable[[Array], float], rho: Array) -> Array:
    return np.array([float(difference(function, rho, e)) for e in np.eye(rho.size)])
