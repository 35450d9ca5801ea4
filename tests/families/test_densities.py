"""Losses are log densities: against scipy, exact arithmetic and their own integrals."""

import math

import numpy as np
import pytest
from scipy.special import logit

from reml_sae.families import Binomial, NegativeBinomial, Poisson, Tweedie
from tests.families.cases import ETA, every


@every
def test_loss_is_the_log_density(case):
    z, eta = case.data()
    expected = -case.log_density(z, eta, case.psi)
    found = case.family.loss(z, eta, case.psi)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@every
def test_the_loss_of_a_row_is_that_of_its_entries(case):
    z, eta = np.broadcast_arrays(*case.data())
    np.testing.assert_allclose(case.family.row_loss(z, eta, case.psi),
                               case.family.loss(z, eta, case.psi).sum(axis=-1), rtol=1e-12)


@every
def test_total_probability_is_one(case):
    total = case.expectation(lambda z, eta: 1.0)
    np.testing.assert_allclose(total, 1.0, atol=1e-10)


@every
def test_moments(case):
    family = case.family
    variance = family.variance(ETA, case.psi)
    if not np.isfinite(variance).all():
        pytest.skip("no variance")
    mean = family.mean(ETA)
    np.testing.assert_allclose(case.expectation(lambda z, eta: z), mean, rtol=1e-8)
    found = case.expectation(lambda z, eta: (z - mean) ** 2)
    np.testing.assert_allclose(found, variance, rtol=1e-8)


@every
def test_draws_have_their_scores(case):
    family, n = case.family, 10_000
    eta = np.broadcast_to(ETA, (n, len(ETA)))
    z = family.sample(np.random.default_rng(3), eta, case.psi)
    assert z.shape == eta.shape and z.dtype == float
    family.check(z)
    score = family.loss_eta(z, eta, case.psi, 1)
    error = score.std(axis=0) / np.sqrt(n)
    assert (np.abs(score.mean(axis=0)) < 5 * error).all()
    weight = family.weight(z[0], ETA, case.psi, 0)
    error = (score**2).std(axis=0) / np.sqrt(n)
    assert (np.abs((score**2).mean(axis=0) - weight) < 6 * error).all()
    by_psi = family.loss_psi(z, eta, case.psi)
    assert (np.abs(by_psi.mean(axis=1)) < 5 * by_psi.std(axis=1) / np.sqrt(n) + 1e-12).all()


@every
def test_deviance(case):
    family, psi = case.family, case.psi
    z, eta = case.data()
    deviance = family.deviance(z, eta, psi)
    assert (deviance >= 0.0).all()
    with np.errstate(divide="ignore"):
        best = case.saturated(z)
    inside = np.isfinite(best)
    at_best = np.where(inside, best, np.where(best > 0, 700.0, -700.0))
    np.testing.assert_allclose(family.deviance(z, at_best, psi), 0.0, atol=1e-12)
    # the reference has no density at z = 0 and eta = -700: a certain outcome has loss zero
    saturated = np.where(inside, -case.log_density(z, np.where(inside, best, 0.0), psi), 0.0)
    expected = 2.0 * family.dispersion(psi) * (family.loss(z, eta, psi) - saturated)
    np.testing.assert_allclose(deviance, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("z", [1, 40, 3000, 20_000])
@pytest.mark.parametrize("ratio", [0.5, 1.001, 3.0])
def test_large_counts_keep_their_digits(z, ratio):
    eta, psi = math.log(ratio * z), np.zeros(0)
    terms = [ratio * z, -z * math.log(z), -z * math.log(ratio),
             *(math.log(i) for i in range(1, z + 1))]
    expected = math.fsum(terms)
    assert Poisson().loss(z, eta, psi) == pytest.approx(expected, rel=1e-11)
    n, odds = 3 * z, ratio / 2.0
    terms = [n * math.log1p(odds), -z * math.log(odds), -math.log(math.comb(n, z))]
    found = Binomial(n).loss(z, math.log(odds), psi)
    assert found == pytest.approx(math.fsum(terms), rel=1e-11, abs=1e-12 * n)


@pytest.mark.parametrize("log_theta", [-9.0, 0.0, 5.0, 10.0, 15.0])
@pytest.mark.parametrize("z", [0, 1, 7, 900])
@pytest.mark.parametrize("mu", [0.01, 1.0, 800.0])
def test_negative_binomial_at_any_theta(log_theta, z, mu):
    theta, eta, psi = math.exp(log_theta), math.log(mu), np.array([log_theta])
    terms = [-math.log((theta + i) / (i + 1) * (mu / (theta + mu))) for i in range(z)]
    expected = math.fsum([*terms, theta * math.log1p(mu / theta)])
    found = NegativeBinomial().loss(z, eta, psi)
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-13 * (1 + z))
    # derivative of log Gamma(theta + z) / Gamma(theta): a sum of reciprocals
    share = mu / (theta + mu)
    slope = math.fsum([theta * math.log1p(mu / theta), -theta * share, z * (1 - share),
                       *(-theta / (theta + i) for i in range(z))])
    found = NegativeBinomial().loss_psi(z, eta, psi)[0]
    assert found == pytest.approx(slope, rel=1e-9, abs=1e-12 * (1 + z + mu))


@pytest.mark.parametrize("log_theta", [-9.0, -4.0, 0.0])
def test_negative_binomial_loss_of_large_counts_is_smooth(log_theta):
    # noise of the loss ends Newton steps on it; terms of the size of z would leave 1e-10 of it here
    z, psi = np.array([3e6]), np.array([log_theta])
    moved = np.log(z) + 0.7 + 1e-9 * np.arange(-40, 41)
    values = np.array([NegativeBinomial().loss(z, np.array([eta]), psi)[0] for eta in moved])
    steps = np.arange(-40, 41)
    noise = np.abs(values - np.polyval(np.polyfit(steps, values, 1), steps)).max()
    assert noise < 2e-14 * max(1.0, np.abs(values).max())


@pytest.mark.parametrize("log_phi", [-12.0, -6.0, -2.0, 1.0])
@pytest.mark.parametrize("power", [1.02, 1.3, 1.7, 1.98])
def test_tweedie_of_free_power_has_the_slope_of_its_differences(power, log_phi):
    z = np.array([0.0, 1e-3, 0.1, 1.0, 7.0, 300.0])
    eta, at, h = 0.3, np.array([log_phi, logit(power - 1.0)]), 1e-4
    step = np.array([0.0, h])
    family = Tweedie()
    losses = [family.loss(z, eta, at + k * step) for k in (-2, -1, 1, 2)]
    slope = (losses[0] - 8.0 * losses[1] + 8.0 * losses[2] - losses[3]) / (12.0 * h)
    found = family.loss_psi(z, eta, at)[1]
    size = np.abs(np.asarray(losses)).max(axis=0)
    np.testing.assert_allclose(found, slope, rtol=1e-6, atol=1e-11 * size.max() / h)


@pytest.mark.parametrize("power", [1.01, 1.3, 1.7, 1.99])
@pytest.mark.parametrize("log_phi", [-6.0, -12.0, -30.0, -45.0])
def test_tweedie_of_small_dispersion_is_the_saddlepoint(power, log_phi):
    # the density tends to (2 pi phi z^p)^(-1/2) exp(-deviance / (2 phi)), with an error of O(phi);
    # for powers near one only where the lattice of the counts is finer than the spread
    z, psi = np.array([0.5, 2.0, 30.0]), np.array([log_phi])
    saddlepoint = 0.5 * (np.log(2.0 * np.pi) + log_phi + power * np.log(z))
    tolerance = 3.0 * np.exp(log_phi) / (power - 1.0) + 1e-11
    found = Tweedie(power).saturated_loss(z, psi)
    np.testing.assert_allclose(found, saddlepoint, atol=tolerance)
    by_phi = Tweedie(power).saturated_loss_psi(z, psi)
    np.testing.assert_allclose(by_phi, 0.5, atol=tolerance + 1e-7)
