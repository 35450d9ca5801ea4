"""The multivariate t of whole rows against its density, differences and its closed forms."""

import numpy as np
import pytest
from scipy.special import gammaln, kve
from scipy.stats import multivariate_t

from reml_sae.errors import InputError
from reml_sae.families import Gaussian, StudentT, StudentTRows, get_family, with_row_noise

FREE, KNOWN = StudentTRows(), StudentTRows(df=3.0)
PSI = {FREE: np.log([0.3, 4.0]), KNOWN: np.log([0.3])}
P = 3
both = pytest.mark.parametrize("family", [FREE, KNOWN], ids=["free", "known"])


def rows(n=12, seed=0):
    rng = np.random.default_rng(seed)
    eta = rng.normal(size=(n, P))
    return eta + rng.standard_t(2.0, size=(n, P)), eta


def central(function, h=1e-3):
    pairs = [function(k * h) - function(-k * h) for k in (1, 2, 3)]
    return (45.0 * pairs[0] - 9.0 * pairs[1] + pairs[2]) / (60.0 * h)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())


@both
def test_density_and_weight(family):
    psi, (z, eta) = PSI[family], rows()
    reference = multivariate_t(np.zeros(P), 0.3 * np.eye(P), df=family.degrees(psi))
    close(family.loss(z, eta, psi).sum(axis=1), -reference.logpdf(z - eta))
    close(family.row_loss(z, eta, psi), -reference.logpdf(z - eta))
    losses, weights = family.row_losses(((z - eta) ** 2).sum(axis=1), P, psi)
    close(losses, -reference.logpdf(z - eta))
    close(weights, family.row_weight(z, eta, psi))


@both
def test_derivatives(family):
    """The curvature is w / phi I - kappa s s^T, and the weight's slope kappa w s."""
    psi, (z, eta) = PSI[family], rows()
    rng = np.random.default_rng(1)
    v, q = rng.normal(size=(2, *z.shape))
    kappa, s = family.tail(psi, P), -family.loss_eta(z, eta, psi, 1)
    close((-s * v).sum(axis=1), central(lambda h: family.loss(z, eta + h * v, psi).sum(axis=1)))
    along = (s * v).sum(axis=1)
    close(family.loss_eta(z, eta, psi, 2) * v - kappa * along[:, None] * s,
          central(lambda h: family.loss_eta(z, eta + h * v, psi, 1)))
    close(kappa * family.row_weight(z, eta, psi) * along,
          central(lambda h: family.row_weight(z, eta + h * v, psi)))
    close((family.curvature_gradient(z, eta, psi, q) * v).sum(axis=1),
          central(lambda h: (q * family.loss_eta(z, eta + h * v, psi, 2)).sum(axis=1)))


@both
def test_derivatives_in_psi(family):
    psi, (z, eta) = PSI[family], rows()
    for found, function in (
            (family.loss_psi(z, eta, psi), lambda at: family.loss(z, eta, at)),
            (family.loss_eta_psi(z, eta, psi, 1), lambda at: family.loss_eta(z, eta, at, 1)),
            (family.loss_eta_psi(z, eta, psi, 2), lambda at: family.loss_eta(z, eta, at, 2)),
            (family.row_weight_psi(z, eta, psi), lambda at: family.row_weight(z, eta, at)),
            (family.laplace_excess(np.array([0, 1, 2]), P, psi)[1],
             lambda at: family.laplace_excess(np.array([0, 1, 2]), P, at)[0]),
            (family.tail_psi(psi, P), lambda at: np.array(family.tail(at, P)))):
        close(found, np.array([central(lambda h, e=e, f=function: f(psi + h * e))
                               for e in np.eye(len(psi))]))


@pytest.mark.parametrize("df", [1e7, 1e12])
def test_the_gaussian_limit(df):
    z, eta = rows()
    family, psi = StudentTRows(df), np.log([0.3])
    np.testing.assert_allclose(family.loss(z, eta, psi).sum(axis=1),
                               Gaussian().loss(z, eta, psi).sum(axis=1), rtol=1e3 / df + 1e-13)
    assert np.abs(family.laplace_excess(np.arange(4), P, psi)[0]).max() < 10.0 / df + 1e-13


def test_what_laplace_misses_of_a_line():
    """A t in p columns integrated along one, exactly and by Laplace's method."""
    t = np.linspace(-400.0, 400.0, 800_001)
    psi, left = np.log([1.0, 4.0]), np.array([0.7, -1.3])
    squares = t**2 + left @ left
    losses, weights = FREE.row_losses(squares, P, psi)
    exact = -np.log(np.exp(-losses).sum() * (t[1] - t[0]))
    mode = int(np.argmin(losses))
    laplace = losses[mode] + 0.5 * np.log(weights[mode] / (2.0 * np.pi))
    assert FREE.laplace_excess(np.array([1]), P, psi)[0][0] == pytest.approx(laplace - exact,
                                                                            abs=1e-6)
    x = 0.5 * (4.0 + P)
    assert FREE.laplace_excess(np.array([2]), P, psi)[0][0] == pytest.approx(
        gammaln(x - 1.0) - gammaln(x) + np.log(x), abs=1e-12)


@pytest.mark.parametrize(("nu", "p"), [(0.5, 2), (3.0, 6), (20.0, 16)])
def test_nodes_integrate_a_row_to_rounding(nu, p):
    """Sums of the posterior along a line at the step, wherever the nodes begin, are the same."""
    family = StudentTRows(nu)
    a, step = np.sqrt(nu + p), family.step(np.zeros(1), p)
    nodes = step * np.arange(-(10**6), 10**6 + 1)
    sums = [((1.0 + ((nodes + shift * step) / a) ** 2) ** (-0.5 * (nu + p))).sum()
            for shift in (0.0, 0.5)]
    assert abs(sums[0] / sums[1] - 1.0) < 5e-13
    m = 0.5 * (nu + p - 1.0)
    x = 2.0 * np.pi * a / step
    level = np.log(kve(m, x)) - x + m * np.log(x / 2.0) + np.log(2.0) - gammaln(m)
    assert level == pytest.approx(-2.0 * (np.pi / 0.8) ** 2, abs=1e-6)


def test_parameters_and_centre_of_rows_with_some_far_away():
    found = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        z = FREE.sample(rng, np.zeros((4000, P)), np.log([0.5, 4.0])) + 3.0
        psi = FREE.best_psi(z - 3.0)
        z[:10] += 1e4
        centre, scale = FREE.centre_and_scale(z)
        found.append([*np.exp(psi), *centre, scale**2])
    np.testing.assert_allclose(np.median(found, axis=0), [0.5, 4.0, 3.0, 3.0, 3.0, 0.5], rtol=0.15)


def test_gaussian_rows_run_to_the_limit():
    """Rows of one length are more alike than those of a Gaussian."""
    rows = np.random.default_rng(0).normal(size=(500, 8))
    assert FREE.is_limit(FREE.best_psi(rows / np.linalg.norm(rows, axis=1, keepdims=True)))


@pytest.mark.parametrize(("row_noise", "message"), [
    ("t", "unknown row_noise 't'"), ({"row_noise": "student_t", "df": 0.0}, "df, the degrees"),
    ({"row_noise": "student_t", "df": True}, "df, the degrees"),
    ({"row_noise": "student_t", "dof": 3}, "dof")])
def test_refused(row_noise, message):
    with pytest.raises(InputError, match=message):
        with_row_noise(Gaussian(), row_noise)


def test_of_gaussian_rows_alone():
    with pytest.raises(InputError, match="row_noise='student_t' is for the Gaussian family"):
        with_row_noise(StudentT(), "student_t")
    with pytest.raises(InputError, match="noise of whole rows"):
        get_family(StudentTRows())
    assert with_row_noise(StudentT(), "gaussian") == StudentT()
