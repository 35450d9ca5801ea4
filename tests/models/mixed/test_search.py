"""The outer search of mixed models with large counts: it ends at the optimum that others reach."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.models import MixedModel, Smooth, mixed_summary
from reml_sae.models.mixed.covariance import Covariance, stepped

MEANS = np.array([300.0, 2000.0, 9000.0])


def crossed_counts(seed, family, slopes=False, method="Laplace", slope_sd=0.2):
    """Three means of 300 to 9000, groups crossed with levels; effects by group or by mean too."""
    rng = np.random.default_rng(seed)
    n_groups, n_levels = int(rng.integers(6, 30)), int(rng.integers(4, 20))
    n = int(rng.integers(150, 500))
    g = np.r_[np.arange(n_groups), rng.integers(0, n_groups, n - n_groups)]
    level = np.r_[np.arange(n_levels), rng.integers(0, n_levels, n - n_levels)]
    mean = np.r_[0, 1, 2, rng.integers(0, 3, n - 3)]
    sd = rng.choice([0.1, 0.5, 1.5], 2)
    by_mean = slope_sd * rng.normal(size=(n_groups, 3))[g, mean]
    eta = np.log(MEANS)[mean] + sd[0] * rng.normal(size=n_groups)[g] + slopes * by_mean
    eta += sd[1] * rng.normal(size=n_levels)[level]
    if family == "negative_binomial":
        eta += rng.choice([0.0, 0.3]) * rng.normal(size=n)
    y = rng.poisson(np.exp(eta)).astype(float)
    F = (mean[:, None] == np.arange(3)).astype(float)
    X = np.hstack([F, (level[:, None] == np.arange(n_levels)).astype(float)])
    crossed = Smooth(slice(3, 3 + n_levels), [np.eye(n_levels)], "level")
    return MixedModel(y, X, groups=g, Z=F if slopes else np.ones(n), family=family,
                      covariance="full" if slopes else "diagonal", penalties=[crossed],
                      method=method)


@pytest.mark.parametrize("slopes", [False, True])
@pytest.mark.parametrize("family", ["poisson", "negative_binomial"])
def test_crossed_counts_converge_to_what_can_be_reached(family, slopes):
    """The Laplace optimum is close to V of the joint mode, and no other start ends lower."""
    failed = []
    for seed in range(2):
        model = crossed_counts(seed, family, slopes)
        fit = rs.fit_reml(model)
        # of these V alone is asked
        joint = rs.fit_reml(crossed_counts(seed, family, slopes, "ML"), valleys=False)
        again = rs.fit_reml(model.with_state(fit.theta, fit.rho + 0.3), valleys=False)
        lowest = min(joint.criterion, again.criterion)
        if not (fit.converged and fit.criterion <= lowest + 0.01):
            failed.append((seed, fit.message, fit.criterion - lowest))
    assert not failed


def test_singular_covariances_converge():
    """All means of a group share one effect: correlations of one, with two variances at zero."""
    converged = 0
    for seed in range(4):
        fit = rs.fit_reml(crossed_counts(seed, "poisson", True, slope_sd=0.0))
        plain = rs.fit_reml(crossed_counts(seed, "poisson", slope_sd=0.0))
        # the simpler model is nested, and the truth: five parameters gain a few nats at most
        assert plain.criterion - 15.0 < fit.criterion < plain.criterion + 0.01
        assert fit.converged or "raise max_outer" in fit.message
        converged += fit.converged
    assert converged >= 3


def test_an_exhausted_budget_names_the_argument():
    fit = rs.fit_reml(crossed_counts(0, "negative_binomial", True), max_outer=1,
                      max_fellner_schall=0)
    assert not fit.converged and "raise max_outer" in fit.message


def test_fixed_effects_at_a_dispersion_at_its_limit():
    """Poisson counts as negative binomial: theta ends at its box, and the others go on."""
    for seed in range(4):
        model = crossed_counts(seed, "poisson")
        other = MixedModel(model.data.y, model.data.X, groups=model.data.group, Z=model.data.Z,
                           family="negative_binomial", method="Laplace",
                           penalties=[Smooth(s.columns, s.matrices) for s in model.all_smooths])
        plain, wide = rs.fit_reml(model), rs.fit_reml(other)
        assert plain.converged and wide.converged
        # theta of e^15 leaves counts of 1e5 with 3 % more variance than Poisson ones
        assert wide.criterion <= plain.criterion + 0.5
        scale = mixed_summary(model, plain).standard_errors[:3]
        difference = (model.coefficients(plain.theta, plain.rho)
                      - other.coefficients(wide.theta, wide.rho))[:3]
        assert (np.abs(difference) < 0.02 * scale).all()


def test_step_of_a_full_covariance_is_fellner_schall():
    rng = np.random.default_rng(0)
    scalar = stepped(np.array([[2.0]]), np.array([[3.0]]), np.array([[1.5]]))
    assert scalar[0, 0] ** 2 == pytest.approx(4.0 * 3.0 / 1.5)
    L, A = np.tril(rng.normal(size=(3, 3))) + 3.0 * np.eye(3), rng.normal(size=(9, 3))
    R = A.T @ A
    np.testing.assert_allclose(stepped(L, R, R), L, rtol=1e-12)  # stationary where S = R
    singular = stepped(L, np.zeros((3, 3)), R)
    assert np.linalg.det(singular) == pytest.approx(np.exp(-3.0) * np.linalg.det(L))
    term = Covariance("full", ("a", "b", "c"), np.array([1.0, 10.0, 0.1]))
    np.testing.assert_allclose(term.factor(term.parameters(L)), L, rtol=1e-12)
