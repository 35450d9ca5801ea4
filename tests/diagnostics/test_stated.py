"""What a fit states of its own errors is about what they are."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp

import reml_sae as rs
from reml_sae.datasets import planted_manifolds, recovery_scores
from reml_sae.diagnostics import checks
from reml_sae.diagnostics.places import check_places, drawn_nats, place_grid, place_nats
from reml_sae.diagnostics.stated import AtomRegression
from reml_sae.manifolds import Circle, Euclidean
from reml_sae.models.sae.point import SAEPoint


@pytest.fixture
def fitted(monkeypatch):
    """A fit, with the model and the result that its checks were made of."""
    seen = []
    original = checks.diagnose
    monkeypatch.setattr("reml_sae.estimators._fitted.diagnose",
                        lambda model, result, *rest: (seen.append((model, result))
                                                      or original(model, result, *rest)))

    def fit(Z, **options):
        model = rs.SAEManifold(noise="isotropic", n_init=1, **options).fit(Z)
        return model, *seen[-1]

    return fit


def figure(model, name):
    return next(check.figure for check in model.diagnostics_.checks if check.name == name)


@pytest.mark.parametrize("assignment", ["softmax", "topk"])
def test_variances_of_rows_are_those_of_the_inverse(fitted, assignment):
    Z = planted_manifolds(60, 4, ["circle", "linear"], noise_sd=0.2, offset=1.0,
                          random_state=0).Z
    _, model, result = fitted(Z, n_atoms=2, topology=["circle", "linear"], assignment=assignment)
    found = model.joint_at(result.theta, result.rho).row_variances()
    point = SAEPoint(model, result.theta, result.rho)
    n, q = result.theta.xi.shape
    dense = np.linalg.inv(point.curvature().to_dense())[: n * q, : n * q]
    expected = np.diag(dense).reshape(n, q)
    np.testing.assert_allclose(found[model.carried], expected[model.carried], rtol=1e-8)


def test_the_stated_error_of_a_sheet_in_few_rows_holds_that_of_its_decoder(fitted):
    """The true error is about the stated one, of which that of a held decoder is a part."""
    made = planted_manifolds(60, 4, ["curved_sheet"], noise_sd=0.1, random_state=1)
    model, inner, result = fitted(made.Z, n_atoms=1, topology=Euclidean(2, 2))
    true = recovery_scores(made, model.codes_).coordinate_error[0]
    stated = figure(model, "atom 0 coordinates")
    own = np.linalg.inv(inner.joint_at(result.theta, result.rho).row_hessian("majorizer"))
    held = np.sqrt(np.einsum("naa->na", own).mean())
    assert 0.6 * stated < true < 1.3 * stated
    assert held < 0.7 * true


def test_the_stated_share_of_mistaken_rows_is_about_the_true_one(fitted):
    made = planted_manifolds(120, 4, ["circle", "linear"], noise_sd=0.25, random_state=1)
    model, *_ = fitted(made.Z, n_atoms=2, topology=["circle", "linear"], assignment="topk")
    true = 1.0 - recovery_scores(made, model.codes_).assignment_accuracy
    assert 0.5 * true < figure(model, "rows between atoms") < 2.0 * true


@pytest.mark.parametrize("assignment", ["softmax", "topk"])
def test_a_row_is_judged_by_the_decoder_of_the_others(fitted, assignment):
    """Its density at every node is that of a ridge regression on the codes of all other rows."""
    made = planted_manifolds(40, 3, ["circle", "linear"], noise_sd=0.2, random_state=1)
    seen, model, result = fitted(made.Z, n_atoms=2, topology=["circle", "linear"],
                                 assignment=assignment)
    theta, rho, amplitudes, k = result.theta, result.rho, seen.codes_.assignments, 0
    own, where = np.flatnonzero(amplitudes.argmax(axis=1) == k), model.layout.basis_slices[k]
    atom, phi = model.atoms[k], model.family.dispersion(rho[model.outer.psi])
    grid, t = place_grid(atom), theta.xi[own][:, model.coordinate_columns(k)]
    X = model.working - theta.beta[-1]

    def features(t, a):
        basis = a * atom.basis(t)
        if assignment == "topk":  # an atom's constant is whole
            basis[:, 0] = 1.0
        return basis

    def ridge(rows, prior):
        F = features(t, amplitudes[own, k][:, None])[rows]
        gram = F.T @ F + prior
        return np.linalg.solve(gram, F.T @ X[own[rows]]), np.linalg.inv(gram)

    for _ in range(20):  # the curvature of the penalties follows the decoder
        prior = phi * model.joint_at(theta, rho).decoder_prior.curvature_grams[k]
        beta = theta.beta.copy()
        beta[where] = ridge(np.ones(len(own), bool), prior)[0]
        theta = replace(theta, beta=beta)
    regression = AtomRegression(model, theta, rho, k, own, amplitudes[own, k], prior / phi)
    nodes, log_prior = features(grid, amplitudes[own, k].mean()), -atom.prior_jet(grid, 0)[0]
    rows = np.arange(0, 40, 3)
    expected = []
    for row in rows:
        decoder, covariance = ridge(own != row, prior)
        spread = phi * (1.0 + np.einsum("gm,mn,gn->g", nodes, covariance, nodes))
        apart = ((X[row] - nodes @ decoder)**2).sum(axis=1)
        density = -0.5 * (apart / spread + 3 * np.log(spread / phi))
        expected.append(logsumexp(log_prior + density) - logsumexp(log_prior))
    assert 0 < np.isin(rows, own).sum() < len(rows)
    np.testing.assert_allclose(regression.log_evidence(rows, X[rows]), expected, rtol=1e-8)


def test_rows_that_avoid_a_crossing_do_not_hide_it(fitted):
    """Of a figure of eight whose rows are away from the crossing drawn ones tell it."""
    rng = np.random.default_rng(0)
    t = rng.uniform(-np.pi, np.pi, (150, 1))
    Z = np.column_stack([np.sin(2.0 * t), np.cos(t)]) + 0.05 * rng.standard_normal((150, 2))
    _, model, result = fitted(Z, n_atoms=1, topology=Circle(2))
    beta = result.theta.beta.copy()
    where = model.layout.basis_slices[0]
    beta[where] = np.linalg.lstsq(Circle(2).basis(t), model.working, rcond=None)[0]
    rho = result.rho.copy()
    rho[model.outer.psi] = 2.0 * np.log(0.22)
    clear = np.flatnonzero(np.abs(np.cos(t[:, 0])) > 0.6)
    at = model, replace(result.theta, xi=t, beta=beta), rho, 0, clear
    rows, drawn = place_nats(*at), drawn_nats(*at, rng)
    assert check_places(0, Circle(2), rows, rows).status == "pass"
    assert check_places(0, Circle(2), rows, drawn).status == "fail"
