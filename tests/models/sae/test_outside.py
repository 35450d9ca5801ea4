"""The border outside the span of a decoder, against quadrature and differences."""

import numpy as np
import pytest

from reml_sae.engine import Theta, criterion
from reml_sae.manifolds import Circle, Euclidean, Sphere, Torus
from reml_sae.models import PenaltyTerm, SAEManifoldModel
from reml_sae.models.sae.outside import Outside
from reml_sae.models.sae.point import SAEPoint
from reml_sae.models.sae.start import solve_beta
from reml_sae.penalties import QuadraticPenalty

PLAIN = {Circle(1): [1, 2], Circle(2): [1, 2], Sphere(1): [1, 2, 3], Torus(): [1, 2, 3, 6],
         Euclidean(1): [1], Euclidean(2): [1, 2]}
"""Functions of an atom that draw its plain shape."""


def planted(atom, n, p, sd, seed=0):
    """Rows on the plain shape of an atom, at the truth: functions along columns of their own."""
    rng = np.random.default_rng(seed)
    t = rng.normal(size=(n, atom.latent_dim))
    if atom.intrinsic_dim < atom.latent_dim:
        t /= np.linalg.norm(t, axis=1, keepdims=True)
    elif not atom.gaussian_axes:
        t = rng.uniform(-np.pi, np.pi, t.shape)
    beta = np.zeros((atom.basis_size, p))
    beta[PLAIN[atom]] = np.eye(len(PLAIN[atom]), p)
    curve = atom.basis(t) @ beta
    curve *= np.sqrt(2.0 / (curve**2).sum(axis=1).mean())
    Z = curve + sd * rng.normal(size=(n, p))
    terms = [] if atom.roughness() is None else [
        PenaltyTerm(QuadraticPenalty(S=atom.roughness()), "decoder", 0)]
    rho = np.array([0.0] * len(terms) + [2.0 * np.log(sd)])
    start = Theta(t, np.zeros_like(beta))
    model = SAEManifoldModel(Z, [atom], terms, np.ones((n, 1), bool), start, rho)
    return model.with_state(solve_beta(model, start, rho), rho)


@pytest.mark.parametrize("sd", [0.1, 0.25])
@pytest.mark.parametrize("atom", PLAIN, ids=lambda atom: atom.label)
def test_it_is_what_quadrature_knows_there(atom, sd):
    """Louis' curvature in the directions that no point of the curve has."""
    model = planted(atom, 300, 20, sd)
    rho, p = model.initial_rho(), model.shape[1]
    exact = criterion(model.with_integration("quadrature"), rho, gradient=False).inner.point
    laplace = model.with_integration("laplace")
    point = SAEPoint(laplace, laplace.refine_rows(exact.theta, rho, 30), rho)
    m = len(exact.theta.beta)
    free = np.linalg.svd(exact.theta.beta)[2][np.linalg.matrix_rank(exact.theta.beta, 1e-3):].T
    curvature = exact._curvature("majorizer").reshape(m, p, m, p)
    own = np.einsum("aobk,oi,kj->aibj", curvature, free, free, optimize=True)
    size = free.shape[1]
    truth = 0.5 * np.linalg.slogdet(own.reshape(m * size, m * size))[1]
    known = point.data_gram + point.decoder_prior.curvature_grams[0]
    missing = truth - 0.5 * size * np.linalg.slogdet(known)[1]
    U = point._outside[0].terms.value * size / (p - m + 1)
    assert missing < -0.03
    assert pytest.approx(missing, rel=0.1) == U


@pytest.mark.parametrize("stack", [(), (3,)])
def test_derivatives(stack):
    rng = np.random.default_rng(0)

    def definite(scale):
        root = rng.normal(size=(*stack, 4, 6))
        return scale * root @ root.swapaxes(-1, -2)

    at = [definite(scale) for scale in (5.0, 1.0, 0.7, 0.4, 0.3)]
    moves = [definite(0.5) for _ in at]

    def value(h, which):
        A, C, P, scales, V = (x + h * v * (i == which) for i, (x, v) in
                              enumerate(zip(at, moves, strict=True)))
        return Outside(A, C, P, V, A + P + scales - V, 9).value

    found = Outside(at[0], at[1], at[2], at[4], at[0] + at[2] + at[3] - at[4], 9)
    for which, slope in enumerate((found.data, found.blurred, found.prior, found.scales,
                                   -found.volume)):
        expected = (value(1e-5, which) - value(-1e-5, which)) / 2e-5
        assert np.vdot(slope, moves[which]) == pytest.approx(expected, rel=1e-7)


def test_rows_that_know_nothing_leave_the_prior():
    """However little is known of a coordinate, the curvature stays between P and A + P."""
    A, P = np.diag([100.0, 50.0]), np.eye(2)
    values = [Outside(A, blur * A, P, 0.0 * P, A + P, 2).value for blur in (0.0, 1.0, 1e3, 1e12)]
    assert values[0] == pytest.approx(0.0, abs=1e-5)
    assert np.all(np.diff(values) < 0.0)
    assert values[-1] == pytest.approx(-0.5 * np.log(101.0 * 51.0), rel=1e-6)


def test_an_atom_that_no_row_uses_lacks_nothing():
    none = np.zeros((3, 3))
    assert Outside(none, none, np.eye(3), none, np.eye(3), 9).value == 0.0


def test_the_volume_is_taken_off_as_far_as_something_is_left():
    A, P, none = np.diag([100.0, 50.0]), np.eye(2), np.zeros((2, 2))
    for share in (0.1, 0.3):
        V = share * (A + P)
        exact = np.log((1.0 - share) ** 2 * 101.0 * 51.0)
        found = Outside(A, none, P, V, np.eye(2), 3).value
        assert found == pytest.approx(exact, abs=0.01 * share)
    most = Outside(A, none, P, 1e4 * (A + P), np.eye(2), 3).value
    assert most == pytest.approx(np.log(0.1**2 * 101.0 * 51.0), abs=1e-4)
