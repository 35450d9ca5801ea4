"""Rows in the metric of their noise, and how the noise is chosen along a search (DESIGN G1).

The engine knows isotropic noise alone, so what differs between kinds of noise are the rows that it
is given: `MetricRows`. The noise is chosen

- at the codes of a start, from the residuals of its decoders by least squares;
- after a fit, from the posterior second moment of the noise, while V falls;
- after a search, for the rows of each atom (`per_atom`): then the rows that use different atoms are
  in different metrics, and `MetricRows` has no part in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from reml_sae.engine import Theta
from reml_sae.families import Family
from reml_sae.families.noise import Isotropic, Noise, NoiseKind, PerAtom, RowNoise, best_noise
from reml_sae.manifolds import Manifold
from reml_sae.models import SAEManifoldModel
from reml_sae.models.sae.start import row_weights
from reml_sae.typing import Array

TINY = np.finfo(float).tiny
ROUNDING = 1e-12
"""Share of the data's variance below which noise is rounding, and has no shape."""


@dataclass(frozen=True, eq=False)
class MetricRows:
    """Centred rows in the metric of their noise, in units of their own root mean square.

    Attributes
    ----------
    Z : (N, p) array
        `noise.whiten` of the data over ``unit``.
    unit : float
        In the units of the data.
    noise : Noise
    spread : float
        Root mean square of the data in no metric, in their units.
    weights : (N,) array or None
        Of the rows in this mean square; None where they are equal.
    """

    Z: Array
    unit: float
    noise: Noise
    spread: float
    weights: Array | None = None

    @classmethod
    def isotropic(cls, Z: Array, unit: float = 1.0, family: Family | None = None) -> Self:
        """Rows of root mean square one whose noise has no shape.

        Rows of unequal scale have the weights of their family about zero.
        """
        weights = None if family is None or family.equal_weights else central_weights(Z, family)
        return cls(Z, unit, Isotropic(Z.shape[1]), unit, weights)

    @classmethod
    def of(cls, model: SAEManifoldModel) -> Self:
        """The rows of a model, which have one metric."""
        assert isinstance(model.noise, Noise)
        return cls(model.Z, model.unit, model.noise, model.spread, model.unit_weights)

    @property
    def rounding(self) -> float:
        """Variance of what is rounding, in the units of the data."""
        return _rounding(self.noise.colour(self.Z), self.unit, self.weights)

    def whitened(self, noise: Noise) -> Self:
        """The same rows in the metric of another noise."""
        white = noise.whiten(self.noise.colour(self.Z))
        size = float(np.sqrt(_mean_square(white, self.weights)))
        if not size > TINY:
            return self
        return type(self)(white / size, self.unit * size, noise, self.spread, self.weights)


def without_atoms(rows: MetricRows, kind: NoiseKind) -> float:
    """V of Gaussian rows of isotropic metric that are a mean and the best noise of a shape.

    Infinite where that has none: then an atom is not compared with noise alone.
    """
    n, p = rows.Z.shape
    noise = best_noise(kind, rows.unit**2 * rows.Z.T @ rows.Z / n, n)
    if noise.simpler() is None or rows.weights is not None:
        return np.inf
    # at noise of variance one in units of the rows themselves, and a mean of the prior of centres
    unit = rows.whitened(noise).unit
    each = np.log(unit) + 0.5 * (1.0 + np.log(2.0 * np.pi))
    centre = 0.5 * p * np.log1p(n * (rows.spread / unit) ** 2)
    return float(n * p * each + centre) + noise.cost(n)


def central_weights(Z: Array, family: Family) -> Array:
    """Weights of rows about zero, at the best parameters of their family; 1 of Gaussian rows."""
    if not family.row_weights:
        return np.ones(len(Z))
    return family.row_weight(Z, np.zeros_like(Z), family.best_psi(Z))


def start_noise(kind: NoiseKind, model: SAEManifoldModel, theta: Theta) -> Noise:
    """The noise of a model's rows at codes and least-squares decoders.

    A row takes the noise along its atoms into its coordinates. Within the span of the decoders only
    the rest is left in the residuals: it is scaled up to what would have been there; where nothing
    is left, as within a flat, the noise is taken to be what it is elsewhere.
    """
    n, p = model.shape
    residual = model.Z - model.scaled_basis(theta)[1] @ theta.beta
    residual *= np.sqrt(row_weights(model, theta, model.rho))[:, None]
    second = residual.T @ residual / max(n - theta.beta.shape[0], 1)
    span = _span(model.atoms, theta.beta, model.layout.basis_slices)
    taken = float((model.active @ [atom.intrinsic_dim for atom in model.atoms]).mean())
    m = span.shape[1]
    if m < p and m > 0:
        lift = np.sqrt(m / (m - taken)) if m > taken + 0.5 else 0.0
        stretch = np.eye(p) + (lift - 1.0) * (span @ span.T)
        second = stretch @ second @ stretch
        if not lift:  # one factor can be most of the mean elsewhere
            second += np.median(np.linalg.eigvalsh(second)[m:]) * span @ span.T
    return noise_of_moment(kind, model, second)


def noise_of_moment(kind: NoiseKind, model: SAEManifoldModel, second: Array) -> Noise:
    """The best noise for a second moment (p, p) in the metric of the model's rows."""
    n, p = model.shape
    floor = MetricRows.of(model).rounding / model.unit**2
    return best_noise(kind, _coloured(model.noise.of_atom(0), second) + floor * np.eye(p), n)


def _span(atoms: Sequence[Manifold], beta: Array, where: Sequence[slice]) -> Array:
    """Orthonormal basis (p, m) of the directions in which the curves of the atoms extend."""
    curves = np.concatenate([beta[s.start + 1 : s.stop][: atom.linear_dim]
                             for atom, s in zip(atoms, where, strict=True)])
    lengths, axes = np.linalg.svd(curves, full_matrices=False)[1:]
    return axes[lengths > 1e-8 * lengths.max(initial=TINY)].T


def posterior_moment(model: SAEManifoldModel, theta: Theta, rho: Array) -> Array:
    """Posterior second moment (p, p) of the noise of a row, in the units of the data.

    What the rows' own parameters leave uncertain is in the moment of their scores; what the
    decoders do is the same in all directions of the metric, and makes the whole that of phi.
    """
    counts = np.bincount(model.metrics, minlength=model.noise.n_metrics)
    return np.tensordot(counts / len(model.Z), posterior_moments(model, theta, rho), 1)


def posterior_moments(model: SAEManifoldModel, theta: Theta, rho: Array) -> Array:
    """`posterior_moment` of the rows in each metric, (G, p, p).

    The decoders of a metric leave as much uncertain as they are of all basis functions.
    """
    (n, p), noise = model.shape, model.noise
    phi = model.family.dispersion(rho[model.outer.psi])
    counts = np.maximum(np.bincount(model.metrics, minlength=noise.n_metrics), 1)
    second = phi**2 * model.at(theta, rho).score_moments() / counts[:, None, None]
    left = max(n * phi - float(counts @ np.einsum("gaa->g", second)) / p, 0.0)
    own = np.zeros(noise.n_metrics)
    out = []
    groups = noise.atom_metrics(len(model.atoms))
    np.add.at(own, groups, [atom.basis_size for atom in model.atoms])
    floor = _rounding(model.coloured, model.unit, model.unit_weights) * np.eye(p)
    for g, moment in enumerate(second):
        k = int(np.flatnonzero(groups == g)[0])
        moment += left * own[g] / own.sum() / counts[g] * np.eye(p)
        scale = model.unit**2 * np.exp(noise.log_size(k))
        out.append(scale * _coloured(noise.of_atom(k), moment) + floor)
    return np.array(out)


def observed_noise(model: SAEManifoldModel, theta: Theta, rho: Array) -> SAEManifoldModel:
    """The model whose V charges its noise by the second moment that this state leaves it."""
    if not model.noise.is_observed:
        return model
    return model.with_changes(noise=model.noise.observed(posterior_moments(model, theta, rho)))


def _rounding(rows: Array, unit: float, weights: Array | None) -> float:
    return ROUNDING * unit**2 * _mean_square(rows, weights)


def _mean_square(rows: Array, weights: Array | None) -> float:
    if weights is None:
        return float(np.mean(rows**2))
    return float(weights @ (rows**2).sum(axis=1)) / rows.size


def _coloured(noise: Noise, second: Array) -> Array:
    return noise.colour(noise.colour(second).T)


def in_metric(model: SAEManifoldModel, theta: Theta, noise: RowNoise) -> SAEManifoldModel:
    """The model of the same rows, curves and codes in the metric of another noise."""
    if isinstance(noise, PerAtom):
        return _in_metrics(model, theta, noise)
    assert isinstance(noise, Noise) and isinstance(model.noise, Noise)
    rows = MetricRows.of(model).whitened(noise)
    beta = noise.whiten(model.noise.colour(theta.beta)) * (model.unit / rows.unit)
    return model.with_changes(Z=rows.Z, unit=rows.unit, noise=rows.noise, spread=rows.spread,
                              theta=Theta(theta.xi, beta))


def _in_metrics(model: SAEManifoldModel, theta: Theta, noise: PerAtom) -> SAEManifoldModel:
    """Every row in the metric of its atom; the unit stays."""
    rows = model.coloured
    noise = noise.spread_by(rows.T @ rows / len(rows))
    metrics = noise.metrics(model.active, np.zeros(len(rows), np.intp))
    beta = model.centred_decoders(theta.beta)
    for k, where in enumerate(model.layout.basis_slices):
        beta[where] = np.exp(-0.5 * noise.log_size(k)) * noise.of_atom(k).whiten(beta[where])
    return model.with_changes(Z=noise.whiten_rows(rows, metrics), noise=noise, metrics=metrics,
                              theta=Theta(theta.xi, beta))


def whitened_model(
    model: SAEManifoldModel, theta: Theta, rho: Array, noise: Noise, second: Array
) -> SAEManifoldModel:
    """The model in the metric of another noise, with the dispersion that follows.

    Parameters
    ----------
    second : (p, p) array
        Second moment of the noise.
    """
    changed, rho, place = in_metric(model, theta, noise), rho.copy(), model.outer.dispersion
    assert place is not None
    rho[place] = np.log(max(noise.dispersion(second) / changed.unit**2, TINY))
    return changed.with_changes(rho=model.outer.clip(rho))
