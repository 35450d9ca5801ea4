"""`check_manifold`: verify a topology against its own values, by finite differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import expm

from reml_sae.check_report import CheckReport, difference, lowest_eigenvalue, relative_error
from reml_sae.errors import RegistryError
from reml_sae.manifolds._base import Manifold
from reml_sae.manifolds._registry import get_manifold
from reml_sae.typing import Array

POINTS = 12
SHAKE = 0.3
"""Length of the steps by which points leave the grid, whose lines may be special."""
NODE_SPACING = 0.1


def check_manifold(manifold: Manifold, *, tolerance: float = 1e-6, seed: int = 0) -> CheckReport:
    """Check derivatives, roughness, gauge, retraction, distance and columns of a topology.

    Parameters
    ----------
    manifold : Manifold
    tolerance : float
    seed : int
        Of the points at which it is checked.

    Returns
    -------
    CheckReport
        "configuration" is infinite where `get_manifold` does not know the topology: register it.
    """
    rng = np.random.default_rng(seed)
    grid = manifold.grid(200)
    t = grid[rng.integers(len(grid), size=POINTS)]
    t = manifold.retract(t, SHAKE * rng.normal(size=t.shape))
    basis = manifold.basis(t)
    figures = {
        "constant first": relative_error(basis[:, 0], np.ones(POINTS)),
        "finite at 0": _finite(manifold, np.zeros((1, manifold.latent_dim))),
        **_derivatives("basis", manifold.jet, t), **_derivatives("prior", manifold.prior_jet, t),
        **_roughness(manifold), **_gauge(manifold, t, rng), **_retraction(manifold, t, rng),
        "distance to itself": float(np.abs(manifold.distance(t, t)).max(initial=0.0)),
        "distance symmetry": relative_error(manifold.distance(t, t[::-1]),
                                            manifold.distance(t[::-1], t)),
        "ambient and back": float(np.abs(manifold.distance(
            manifold.from_ambient(manifold.ambient(t)), t)).max(initial=0.0)) ** 2,
        "columns": float(len(manifold.ambient_names) != manifold.ambient(t).shape[1]),
        "configuration": _configuration(manifold, t),
    }
    rule = manifold.rule(np.full(manifold.latent_dim, NODE_SPACING))
    if rule is not None:
        nodes, log_weights = rule
        figures["mean basis"] = relative_error(np.exp(log_weights) @ manifold.basis(nodes),
                                               manifold.prior_mean_basis())
    return CheckReport(figures, tolerance)


def _derivatives(
    name: str, jet: Callable[[Array, int], tuple[Array, ...]], t: Array
) -> dict[str, float]:
    """Each derivative up to the third against differences of the one before."""
    out, found = {}, jet(t, 3)
    for order in (1, 2, 3):
        worst, lower = 0.0, _one_below(jet, order)
        for j, v in enumerate(np.eye(t.shape[1])):
            slope = difference(lower, t, v)
            worst = max(worst, relative_error(found[order][:, j], slope))
        out[f"{name} derivative {order}"] = worst
    return out


def _one_below(
    jet: Callable[[Array, int], tuple[Array, ...]], order: int
) -> Callable[[Array], Array]:
    """Of a jet to an order, the derivative before the last."""
    return lambda t: jet(t, order)[order - 1]


def _finite(manifold: Manifold, t: Array) -> float:
    arrays = (*manifold.jet(t, 3), *manifold.prior_jet(t, 3))
    return 0.0 if all(np.isfinite(array).all() for array in arrays) else np.inf


def _roughness(manifold: Manifold) -> dict[str, float]:
    S = manifold.roughness()
    if S is None:
        return {}
    scale = max(float(np.abs(S).max()), np.finfo(float).tiny)
    return {"roughness symmetry": relative_error(S, S.T),
            "roughness >= 0": max(0.0, -lowest_eigenvalue(S) / scale),
            "constant not rough": float(np.abs(S[0]).max()) / scale}


def _gauge(manifold: Manifold, t: Array, rng: np.random.Generator) -> dict[str, float]:
    """Moves of the coordinates that the decoder undoes, under which priors stay as they are."""
    generators = manifold.gauge_generators()
    if not len(generators):
        return {}
    c = SHAKE * rng.normal(size=len(generators))
    field = np.tensordot(c, manifold.gauge_field(t), 1)
    turned = expm(np.tensordot(c, generators, 1))
    moved, S = manifold.gauge_move(t, c), manifold.roughness()
    by_field = difference(lambda x: manifold.basis(manifold.gauge_move(t, x[0] * c)),
                          np.zeros(1), np.ones(1))
    figures = {
        "gauge field": relative_error(
            by_field, np.einsum("nd,ndm->nm", field, manifold.jet(t, 1)[1])),
        "gauge undone": relative_error(manifold.basis(moved) @ turned, manifold.basis(t)),
        "gauge keeps prior": relative_error(manifold.prior_jet(moved, 0)[0],
                                            manifold.prior_jet(t, 0)[0]),
    }
    if S is not None:
        figures["gauge keeps roughness"] = relative_error(turned.T @ S @ turned, S)
    return figures


def _retraction(manifold: Manifold, t: Array, rng: np.random.Generator) -> dict[str, float]:
    step = rng.normal(size=t.shape)
    slope = difference(lambda x: manifold.basis(manifold.retract(t, x[0] * step)),
                       np.zeros(1), np.ones(1))
    nowhere = np.zeros_like(t)
    return {
        "retract by nothing": relative_error(manifold.retract(t, nowhere), t),
        "retract along a step": relative_error(
            slope, np.einsum("nd,ndm->nm", step, manifold.jet(t, 1)[1])),
        "volume of no step": float(np.abs(manifold.log_step_volume(t, nowhere)).max(initial=0.0)),
    }


def _configuration(manifold: Manifold, t: Array) -> float:
    try:
        again = get_manifold(manifold.to_config())
    except (RegistryError, LookupError, TypeError):
        return np.inf
    return relative_error(again.basis(t), manifold.basis(t))
