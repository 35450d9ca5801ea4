"""Rows of one atom each under hard gates, with coordinate and log amplitude integrated out."""

from dataclasses import replace

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.assignments import get_assignment
from reml_sae.datasets import planted_manifolds
from reml_sae.engine import Theta, criterion, solve_inner
from reml_sae.errors import InputError
from reml_sae.families import Gaussian, Poisson
from reml_sae.manifolds import Circle, Cylinder, Euclidean
from reml_sae.models import SAEManifoldModel
from reml_sae.models.sae.quadrature.lattice import amplitude_lattice
from reml_sae.models.sae.quadrature.nodes import RowNodes
from reml_sae.models.sae.quadrature.pairs import RowPairs
from reml_sae.models.sae.start import solve_beta
from tests.models.sae.systems import build
from tests.reference.brute_gates import GatedRows

ATOMS = [Circle(1), Circle(1)]


def planted(n, sd, spread, seed, p=4):
    """Standardised rows of two circles, and a model of them at the planted state."""
    plant = planted_manifolds(n, p, ["circle"] * 2, noise_sd=sd, offset=1.0, amplitude_sd=spread,
                              random_state=seed)
    Z = plant.Z - plant.Z.mean(0)
    unit = float(np.sqrt((Z**2).mean()))
    assignment = get_assignment("topk", 2)
    xi = np.concatenate([assignment.start(plant.support, plant.amplitudes), *plant.coordinates], 1)
    rho = np.array([-2.0 * np.log(spread), 2.0 * np.log(sd / unit)])
    model = SAEManifoldModel(Z / unit, ATOMS, [], plant.support, Theta(xi, np.zeros((7, p))), rho,
                             assignment=assignment, unit=unit, integration="quadrature")
    return model.with_state(solve_beta(model, model.initial_theta(), rho), rho), plant


@pytest.mark.parametrize("alpha", [0.5, 4.0, 100.0, 2000.0])
@pytest.mark.parametrize("sd", [0.1, 0.3, 1.0])
def test_rows_have_the_integral_of_a_double_sum(alpha, sd):
    """Rows of a circle on a grid of angles and log amplitudes that is far too fine."""
    rng, psi = np.random.default_rng(0), np.log([sd**2])
    t = rng.uniform(-np.pi, np.pi, 40)
    u = np.clip(rng.normal(size=40) / np.sqrt(alpha), -2.0, 1.0)
    Z = np.exp(u)[:, None] * np.column_stack([np.cos(t), np.sin(t), 0.3 * np.sin(t)])
    beta = np.array([[0.1, 0.0, 0.2], [1.0, 0.0, 0.1], [0.0, 1.1, 0.3], [0.3, -0.2, 0.1]])
    Z += beta[0] + beta[3] + sd * rng.normal(size=Z.shape)
    nodes = amplitude_lattice(Circle(1), beta, Gaussian(), psi, Z, np.zeros(3), alpha)
    found = RowNodes(Z, nodes, beta, np.zeros(3), Gaussian(), psi).row_values()

    angle = np.linspace(-np.pi, np.pi, 400, endpoint=False)
    height = np.linspace(-9.0, 9.0, 2001) / np.sqrt(alpha)
    height = height[height < np.log(12.0)]  # where the likelihood of every row has long vanished
    curve = np.column_stack([np.cos(angle), np.sin(angle)]) @ beta[1:3]
    squares = ((Z - beta[0] - beta[3]) ** 2).sum(1)
    density = np.exp(-0.5 * alpha * height**2) * np.sqrt(alpha / (2.0 * np.pi)) * (
        height[1] - height[0]) / 400
    top, total = np.full(len(Z), -np.inf), np.zeros(len(Z))
    for a, weight in zip(np.exp(height), density, strict=True):
        log_p = (a * (Z - beta[0] - beta[3]) @ curve.T
                 - 0.5 * a**2 * (curve**2).sum(1)) / sd**2
        new = np.maximum(top, log_p.max(1))
        total = total * np.exp(top - new) + weight * np.exp(log_p - new[:, None]).sum(1)
        top = new
    exact = 0.5 * squares / sd**2 - top - np.log(total) + 1.5 * np.log(2.0 * np.pi * sd**2)
    np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-10)


def test_a_known_amplitude_is_an_atom_without_gates():
    """At a large prior precision rows have no amplitude: the rows of one atom, whole."""
    model, _ = planted(60, 0.2, 1e-4, seed=1)
    beta, rho = model.initial_theta().beta, model.initial_rho()
    values = model.row_quadrature(beta, rho).row_values()
    for k, where in enumerate(model.layout.basis_slices):
        own = beta[where].copy()
        own[0] += beta[-1]
        rows = model.active[:, k]
        alone = SAEManifoldModel(model.Z[rows], [ATOMS[k]], [], np.ones((rows.sum(), 1), bool),
                                 Theta(np.zeros((rows.sum(), 1)), own), rho[-1:])
        np.testing.assert_allclose(values[rows], alone.row_quadrature(own, rho[-1:]).row_values(),
                                   rtol=1e-5)


@pytest.mark.parametrize("atom", [Euclidean(1, 1), Cylinder(1, 1)], ids=repr)
def test_linear_coordinates_in_closed_form_under_an_amplitude(atom):
    """Against the mean over amplitudes of the rows of an atom that is stretched by each of them."""
    rng, psi, alpha = np.random.default_rng(2), np.log([0.5]), 25.0
    beta = 0.8 * rng.normal(size=(atom.basis_size + 1, 3))
    Z = rng.normal(size=(12, 3))
    nodes = amplitude_lattice(atom, beta, Gaussian(), psi, Z, np.zeros(3), alpha)
    model = build([atom], assignment="topk", n=12, p=3)
    place = model.rho_names.index("ard.amplitudes")
    rho = np.insert(np.zeros(len(model.rho_names) - 1), place, np.log(alpha))
    rho[model.outer.dispersion] = psi[0]
    gated = model.with_changes(Z=Z, integration="quadrature")
    found = gated.row_quadrature(beta, rho).row_values()
    assert nodes.n_linear

    height = np.linspace(-7.0, 7.0, 300) / np.sqrt(alpha)
    weights = np.exp(-0.5 * alpha * height**2) * np.sqrt(alpha / (2.0 * np.pi)) * (
        height[1] - height[0])
    logs = []
    for a in np.exp(height):
        own = a * beta[:-1]
        own[0] = beta[0] + beta[-1]
        alone = SAEManifoldModel(Z, [atom], [], np.ones((12, 1), bool),
                                 Theta(np.zeros((12, atom.latent_dim)), own), psi,
                                 integration="quadrature")
        logs.append(-alone.row_quadrature(own, psi).row_values())
    log_p = np.array(logs)
    top = log_p.max(0)
    exact = -top - np.log(weights @ np.exp(log_p - top))
    np.testing.assert_allclose(found, exact, rtol=1e-6)


@pytest.mark.parametrize(("n", "sd"), [(24, 0.2), (300, 0.2), (300, 0.05)])
def test_the_criterion_is_the_truth_at_every_number_of_rows(n, sd):
    """V against Laplace's method over decoders alone, about their mode, by independent code."""
    model, plant = planted(n, sd, 0.1, seed=3)
    rho = model.initial_rho()
    V = criterion(model, rho, gradient=False, tol=1e-9).value
    nodes = (48, 14) if sd > 0.1 else (160, 48)
    phi = float(np.exp(rho[model.outer.dispersion]))
    rows = GatedRows(model.Z, ATOMS, plant.support, 100.0, phi, *nodes)
    truth = rows.truth(rows.least_squares(plant.coordinates, plant.amplitudes))
    constant = model.Z.size * np.log(model.unit) - truth.log_multiplicity - np.log(2.0)
    assert abs(V - truth.value - constant) < 1e-3


def test_gates_that_are_shut_leave_the_intercept():
    """Rows without an atom are Gaussian about the intercept, and pay for no gate."""
    model = build([Circle(1), Euclidean(1, 1)], assignment="ordered_beta_bernoulli", apart=True)
    shut = ~model.active.any(axis=1)
    assert 0 < shut.sum() < len(shut)
    model, rho = model.with_integration("quadrature"), model.initial_rho()
    beta, phi = model.initial_theta().beta, np.exp(rho[model.outer.dispersion])
    values = model.row_quadrature(beta, rho).row_values()[shut]
    apart = model.Z[shut] - model.offset - beta[-1]
    exact = 0.5 * (apart**2).sum(1) / phi + 0.5 * apart.shape[1] * np.log(2.0 * np.pi * phi)
    np.testing.assert_allclose(values, exact, rtol=1e-12)


def test_a_fixed_strength_has_no_outer_parameter():
    model = build([Circle(1), Circle(1)], assignment="topk", apart=True, own=False)
    fixed = [replace(term, penalty=replace(term.penalty, learnable=False, weight=50.0))
             for term in model.terms]
    model = model.with_changes(terms=fixed, rho=model.initial_rho()[-1:], integration="quadrature")
    found = solve_inner(model, model.initial_rho(), tol=1e-9)
    assert found.converged
    at = criterion(model, model.initial_rho(), theta=found.theta, tol=1e-9)
    step = 1e-4
    sides = [criterion(model, model.initial_rho() + s * step, theta=found.theta, tol=1e-10).value
             for s in (1.0, -1.0)]
    assert at.gradient[0] == pytest.approx((sides[0] - sides[1]) / (2.0 * step), rel=1e-5)


@pytest.mark.parametrize("assignment", ["topk", "ordered_beta_bernoulli"])
def test_the_last_fit_of_the_estimator_is_exact(assignment):
    """V is that of a quadrature at the fitted state, stationary, and the same when it is read back.
    """
    plant = planted_manifolds(240, 4, ["circle"] * 2, noise_sd=0.15, amplitude_sd=0.1,
                              random_state=4)
    fit = rs.SAEManifold(n_atoms=2, topology=Circle(1), assignment=assignment, n_init=1,
                         noise="isotropic").fit(plant.Z)
    assert fit.converged_ and fit.integration_ == "quadrature"
    assert "exact" in str(fit.diagnostics_.summary())
    model = fit.build_model(plant.Z)
    assert model.by_quadrature
    at = criterion(model, fit.rho_, tol=1e-8)
    assert at.value == pytest.approx(fit.criterion_, abs=1e-4)
    laplace = criterion(model.with_integration("laplace"), fit.rho_, gradient=False).value
    assert abs(laplace - at.value) > 0.2


def test_what_has_no_quadrature_is_refused_by_name():
    with pytest.raises(InputError, match="more than the coordinates of one atom"):
        build([Circle(1)] * 3, assignment={"assignment": "topk", "n_active": 2}).with_changes(
            integration="quadrature")
    with pytest.raises(InputError, match="more than the coordinates of one atom"):
        build([Circle(1)], assignment="threshold_gate").with_changes(integration="quadrature")
    with pytest.raises(InputError, match="poisson family has no quadrature of a row's amplitude"):
        build([Circle(1)], assignment="topk", family=Poisson()).with_changes(
            integration="quadrature")


def idle_atom():
    """A model of two circles of which no row uses the second, and its outer parameters."""
    model, _ = planted(24, 0.2, 0.1, seed=3)
    rows = np.flatnonzero(model.active[:, 0])
    used, rho = model.rows(rows), model.initial_rho()
    theta = used.initial_theta()
    return used.with_state(solve_beta(used, theta, rho), rho), rho


def test_an_atom_that_no_row_uses_costs_nothing():
    """Beside the choice that every row had, and the place that the used atom has among two."""
    two, rho = idle_atom()
    xi, beta = two.initial_theta().xi, two.initial_theta().beta
    one = SAEManifoldModel(two.Z, ATOMS[:1], [], two.active[:, :1],
                           Theta(xi[:, [0, 2]], beta[[0, 1, 2, -1]]), rho, unit=two.unit,
                           assignment=get_assignment("topk", 1), integration="quadrature")
    values = [criterion(model, rho, gradient=False, tol=1e-9).value for model in (two, one)]
    assert values[0] - values[1] == pytest.approx((len(two.Z) - 1.0) * np.log(2.0), abs=1e-6)


def test_the_posterior_of_a_decoder_is_its_own():
    model, rho = idle_atom()
    theta = solve_inner(model, rho, tol=1e-9).theta
    point = model.at(theta, rho)
    found = [point.decoder_posterior(k) for k in range(2)]
    assert [covariance.shape for _, covariance in found] == [(4, 3, 3)] * 2
    assert 4.0 < found[0][0] < 12.0
    assert found[1][0] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("alpha", [0.5, 4.0, 400.0])
@pytest.mark.parametrize(("d", "sd"), [(1, 0.01), (2, 0.01), (2, 0.3)])
def test_linear_atoms_at_any_amplitude(d, sd, alpha):
    """Rows are Gaussian given the amplitude, near which no coordinate need be where probes are."""
    rng, psi, atom = np.random.default_rng(0), np.log([sd**2]), Euclidean(d, 1)
    beta = rng.normal(size=(d + 2, 3))
    u = rng.normal(size=(30, 1)) / np.sqrt(alpha)
    centre, lines = beta[0] + beta[-1], beta[1:-1]
    Z = centre + np.exp(u) * rng.normal(size=(30, d)) @ lines + sd * rng.normal(size=(30, 3))
    nodes = amplitude_lattice(atom, beta, Gaussian(), psi, Z, np.zeros(3), alpha)
    assert len(nodes) < 200
    found = RowPairs(Z, nodes, beta, np.zeros(3), Gaussian(), psi).row_values()

    height = np.linspace(-12.0, 12.0, 8001) / np.sqrt(alpha)
    lengths, axes = np.linalg.eigh(lines.T @ lines)
    variance = sd**2 + np.exp(2.0 * height)[:, None] * np.maximum(lengths, 0.0)
    squares = (((Z - centre) @ axes) ** 2)[:, None]
    log_p = -0.5 * (squares / variance + np.log(2.0 * np.pi * variance)).sum(2)
    log_p += -0.5 * alpha * height**2 + 0.5 * np.log(alpha / (2.0 * np.pi)) + np.log(
        height[1] - height[0])
    np.testing.assert_allclose(found, -np.logaddexp.reduce(log_p, axis=1), rtol=1e-7, atol=1e-7)


def test_a_fit_and_what_is_read_back_of_it_have_one_integration():
    """A state near the limit of what is affordable: deciding again after the fit gave another V."""
    rng = np.random.default_rng(1)
    t = rng.uniform(-3.0, 3.0, 40)
    Z = np.column_stack([np.cos(t), np.sin(t), 0.5 * np.cos(2.0 * t)])
    fit = rs.SAEManifold(n_atoms=1, topology="torus", n_init=2, max_outer=5).fit(
        Z + 0.03 * rng.normal(size=Z.shape))
    assert fit.integration_ in ("laplace", "quadrature")
    model = build([Circle(1)]).with_changes(integration="auto")
    fixed, moved = model.decided(), model.initial_theta()
    assert fixed.by_quadrature and fixed.with_state(moved, model.initial_rho()).by_quadrature
    cold = model.initial_rho()
    cold[-1] = -25.0
    assert not model.with_state(moved, cold).by_quadrature
    assert fixed.with_state(moved, cold).by_quadrature


def test_fellner_schall_leaves_amplitudes_whose_prior_is_in_the_integrals():
    """A step of theirs led to a strength far below, by tens of inner steps, and was refused."""
    model, _ = planted(40, 0.1, 0.2, 0)
    trace = rs.fit_reml(model, max_outer=4).trace
    own = [row.strengths["ard.amplitudes"] for row in trace if row.stage == "fellner-schall"]
    assert len(own) > 1 and np.ptp(own) == 0.0
