"""V where the noises of atoms differ: nested, true by brute force, with an exact slope."""

from functools import cache

import numpy as np
import pytest
from scipy.linalg import block_diag, sqrtm
from scipy.stats import multivariate_normal

import reml_sae as rs
from reml_sae.datasets import planted_manifolds
from reml_sae.discovery.metric import in_metric
from reml_sae.discovery.polish import noise_gradient
from reml_sae.engine import criterion
from reml_sae.families.noise import Diagonal, Factor, Isotropic, PerAtom
from reml_sae.manifolds import Circle
from tests.reference.brute_force import Orbit, laplace
from tests.reference.brute_gates import GatedRows
from tests.reference.quadrature import log_multiplicity

P = 4


def shapes(n):
    frame = np.linalg.qr(np.random.default_rng(0).normal(size=(P, 2)))[0]
    return (Factor(frame, np.array([6.0, 1.5]), np.array([6.0, 1.5]), np.ones(P - 2)), Isotropic(P),
            Diagonal(np.array([0.3, -0.3, 0.1, -0.1]), 0.5))[:n]


def apart(noises, sizes):
    sizes = np.asarray(sizes, float)
    return PerAtom(tuple(noises), sizes - sizes.mean(), np.ones(len(sizes)), np.arange(len(sizes)))


@cache
def planted(K, integration):
    """A model of K circles at a fitted state, off the optimum of its outer parameters."""
    plant = planted_manifolds(14 * K, P, ["circle"] * K, noise_sd=0.25, offset=1.0,
                              amplitude_sd=0.1, imbalance=1.5, random_state=1)
    fit = rs.SAEManifold(n_atoms=K, topology=Circle(1), assignment="topk", n_init=1,
                         integration=integration, noise="isotropic").fit(plant.Z)
    model = fit.build_model(plant.Z).decided()
    return model, model.rho + 0.1


def V(model, rho):
    return criterion(model, rho, gradient=False, tol=1e-12).value


@pytest.mark.parametrize("integration", ["laplace", "quadrature"])
def test_equal_noises_are_one_noise(integration):
    """Up to the cost of their parameters; of a shape, too, whatever the unit of the rows."""
    model, rho = planted(2, integration)
    own = in_metric(model, model.theta, apart([model.noise] * 2, [0.0, 0.0]))
    cost = own.noise.rows_cost(own.metrics)
    assert cost > 1.0
    # (1/2) log|H| errs by the root of what the inner solve leaves
    assert V(own, rho) - cost == pytest.approx(V(model, rho), abs=1e-6)
    factor = shapes(1)[0]
    one = in_metric(model, model.theta, factor)
    own = in_metric(model, model.theta, apart([factor] * 2, [0.0, 0.0]))
    other = rho.copy()
    other[model.outer.dispersion] += 2.0 * np.log(one.unit / own.unit)
    # Laplace's method knows the orbit of a circle to the order of its error
    assert V(own, other) - own.noise.rows_cost(own.metrics) == pytest.approx(
        V(one, rho) - factor.cost(len(one.Z)), abs=1e-6 if integration == "quadrature" else 0.02)


@pytest.mark.parametrize(("K", "integration"), [(3, "laplace"), (2, "quadrature")])
def test_slope_in_the_noises(K, integration):
    """Against differences of V with the inner problem solved again."""
    base, rho = planted(K, integration)
    noise = apart(shapes(K), [0.4, -0.3, -0.1][:K])
    x = noise.parameters()
    model = in_metric(base, base.theta, noise)
    at = criterion(model, rho, tol=1e-12)
    found = noise_gradient(model, x, at, "majorizer")
    step, h = np.random.default_rng(3).normal(size=len(x)), 2e-3
    ahead, back, far, before = (V(in_metric(base, base.theta, noise.at(x + k * h * step)), rho)
                                for k in (1, -1, 2, -2))
    slope = (8.0 * (ahead - back) - (far - before)) / (12.0 * h)
    assert abs(found @ step - slope) < 1e-6 * np.linalg.norm(found)


def covariance(noise, k):
    return np.exp(noise.log_size(k)) * noise.of_atom(k).shape


def test_the_criterion_is_the_truth():
    """Against Laplace's method over decoders alone of rows that were whitened by hand."""
    base, rho = planted(2, "quadrature")
    model = in_metric(base, base.theta, apart(shapes(2), [0.5, -0.5]))
    labels, data = model.active.argmax(1), base.coloured
    second = data.T @ data / len(data)
    white, precisions, centres, log_volume = np.empty_like(data), [], [], 0.0
    for k in range(2):
        own = covariance(model.noise, k)
        white[labels == k] = data[labels == k] @ np.linalg.inv(sqrtm(own))
        size = np.linalg.det(own) ** (1.0 / P)
        strength = model.strengths(rho)[f"decoder_ridge.decoder[{k}]"]
        precisions.append(strength * size / np.trace(np.linalg.solve(own / size, second)) * P)
        centres.append(size)
        log_volume += 0.5 * (labels == k).sum() * np.linalg.slogdet(own)[1]
    alpha, phi = model.strengths(rho)["ard.amplitudes"], np.exp(rho[model.outer.dispersion])
    rows = GatedRows(white, model.atoms, model.active, alpha, phi, 48, 20)
    L = rows.likelihood()
    L.gram = block_diag(*[np.diag([c, w, w]) for c, w in zip(centres, precisions, strict=True)],
                        np.mean(centres))
    truth = laplace(L, Orbit(rows.atoms, rows.size), model.theta.beta,
                    2 * log_multiplicity(Circle(1)))
    constant = model.Z.size * np.log(model.unit) + log_volume + rows.log_patterns()
    constant += model.noise.rows_cost(model.metrics) - truth.log_multiplicity - np.log(2.0)
    assert V(model, rho) == pytest.approx(truth.value + constant, abs=2e-3)


def test_a_row_that_changes_its_atom_changes_its_metric():
    """What rows have at a state is their density in the noise of whichever atom they use."""
    base, rho = planted(2, "laplace")
    model = in_metric(base, base.theta, apart(shapes(2), [0.5, -0.5]))
    theta = model.theta
    other = model.with_state(theta, rho, model.active[:, ::-1])
    np.testing.assert_allclose(other.coloured, base.coloured, atol=1e-12)
    back = other.with_state(theta, rho, model.active)
    np.testing.assert_allclose(back.Z, model.Z, atol=1e-12)
    phi = np.exp(rho[model.outer.dispersion])
    gap = other.row_objective(theta, rho) - model.row_objective(theta, rho)
    direct = np.zeros(len(gap))
    for sign, one in ((1.0, other), (-1.0, model)):
        eta = one.noise.colour_rows(one.scaled_basis(theta)[1] @ theta.beta, one.metrics)
        for i, k in enumerate(one.active.argmax(1)):
            direct[i] -= sign * multivariate_normal(
                eta[i], phi * covariance(one.noise, k)).logpdf(base.coloured[i])
            direct[i] += sign * 0.5 * model.strengths(rho)["ard.amplitudes"] * theta.xi[i, k] ** 2
    np.testing.assert_allclose(gap, direct, atol=1e-8)
